// The text form of gRPC-Web: what is decoded does not depend on where the text is cut, and is what
// encoding would have made. The first byte is the length of a piece.
#include "filters/grpc_web_text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "config/error.h"

namespace outrider {
namespace {

struct Decoded {
  std::string bytes;
  bool sound = true;
};

Decoded decode(std::string_view text, std::size_t piece) {
  TextDecoder decoder;
  Decoded out;
  std::array<char, 16> room;
  while (!text.empty() && !decoder.bad()) {
    std::string_view in = text.substr(0, piece);
    text.remove_prefix(in.size());
    while (!in.empty() && !decoder.bad()) {
      const std::size_t made = decoder.decode(in, room);
      OUTRIDER_ASSERT(made <= room.size());
      out.bytes.append(room.data(), made);
    }
  }
  out.sound = !decoder.bad() && decoder.between_groups();
  return out;
}

}  // namespace
}  // namespace outrider

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace outrider;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Decoded whole = decode(text, text.size());
  const Decoded cut = decode(text, std::max<std::size_t>(1, data[0]));
  OUTRIDER_ASSERT(whole.bytes == cut.bytes && whole.sound == cut.sound);
  OUTRIDER_ASSERT(whole.bytes.size() <= text.size() / 4 * 3);
  std::string again(encoded_size(whole.bytes.size()), '\0');
  again.resize(encode_text(whole.bytes, again));
  const Decoded twice = decode(again, again.size());
  OUTRIDER_ASSERT(twice.sound && twice.bytes == whole.bytes);
  return 0;
}
