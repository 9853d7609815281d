// HTTP/1 both ways: whatever the bytes and however they are cut, the events and the answer are the
// same, and no part of a line end gets into a head. Byte 0 chooses the side, bytes 1 to 8 the cuts.
#include <algorithm>
#include <cstdint>
#include <string>

#include "config/error.h"
#include "tests/unit/proxy/h1_support.h"

namespace outrider::test {
namespace {

constexpr std::size_t kHeader = 9;

class Cuts {
 public:
  Cuts(const std::uint8_t* sizes, bool whole) : sizes_(sizes), whole_(whole) {}
  std::size_t next(std::size_t left) {
    return whole_ ? left : std::min<std::size_t>(left, 1 + sizes_[at_++ % (kHeader - 1)] % 64);
  }

 private:
  const std::uint8_t* sizes_;
  std::size_t at_ = 0;
  bool whole_;
};

template <class Side>
void feed(Side& side, std::string_view input, Cuts cuts) {
  while (!input.empty()) {
    const std::size_t part = cuts.next(input.size());
    side.feed(input.substr(0, part));
    input.remove_prefix(part);
  }
}

std::string as_server(std::string_view input, Cuts cuts) {
  Exchanges exchanges({.max_header_bytes = 400, .max_target_bytes = 60, .max_fields = 8});
  feed(exchanges, input, cuts);
  for (const auto& owner : exchanges.clients.requests)
    for (const Header& header : owner->request.headers)
      OUTRIDER_ASSERT(header.value.find_first_of(std::string_view("\r\n\0", 3)) ==
                      std::string_view::npos);
  return exchanges.outcome();
}

std::string as_client(std::string_view input, Cuts cuts) {
  Upstream upstream(input.size() % 3 == 0 ? "HEAD" : "GET", input.size() % 5 == 0 ? "other" : "");
  feed(upstream, input, cuts);
  upstream.eof();
  return upstream.outcome();
}

}  // namespace
}  // namespace outrider::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace outrider::test;
  if (size < kHeader) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + kHeader, size - kHeader);
  auto* const side = (data[0] & 1) != 0 ? as_server : as_client;
  OUTRIDER_ASSERT(side(input, Cuts(data + 1, true)) == side(input, Cuts(data + 1, false)));
  return 0;
}
