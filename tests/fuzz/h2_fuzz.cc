// HTTP/2 both ways: any bytes, cut anywhere, end in answers, resets or GOAWAY, and no stream is
// left open when the connection is gone. Byte 0 chooses the side and whether a good preface comes
// first, byte 1 the size of the pieces.
#include <cstdint>
#include <string>

#include "tests/unit/proxy/h2_harness.h"

namespace {

using namespace outrider::h2test;

constexpr std::string_view kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
constexpr std::string_view kSettings("\0\0\0\4\0\0\0\0\0", 9);

template <class Side>
void feed(Side& side, std::string_view input, std::size_t piece) {
  while (!input.empty()) {
    side.exchange(input.substr(0, piece));
    input.remove_prefix(std::min(piece, input.size()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  testing::GTEST_FLAG(break_on_failure) = true;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::size_t piece = data[1] == 0 ? input.size() + 1 : data[1];
  if ((data[0] & 1) != 0) {
    Server server(
        {.max_header_bytes = 2000, .max_target_bytes = 200, .max_fields = 20, .max_streams = 10});
    answering(server);
    if ((data[0] & 2) != 0) server.exchange(kPreface);
    feed(server, input, piece);
  } else {
    Client client;
    client.send("GET", "/");
    client.send("POST", "/upload", false);
    if ((data[0] & 2) != 0) client.exchange(kSettings);
    feed(client, input, piece);
  }
  return 0;
}
