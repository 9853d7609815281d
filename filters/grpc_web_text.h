// The text form of gRPC-Web: base64 that is cut anywhere, padded wherever its sender had to let go
// of what it had. Invariant: at most three characters are kept between two pieces.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace outrider {

class TextDecoder {
 public:
  // Takes from the front of `in` while `out` has room for three bytes more; how many were written.
  // Nothing more is taken once bad().
  std::size_t decode(std::string_view& in, std::span<char> out);
  bool bad() const { return bad_; }
  bool between_groups() const { return count_ == 0; }

 private:
  std::size_t group(char* to);
  std::array<char, 4> group_{};
  std::uint8_t count_ = 0;
  bool bad_ = false;
};

// Characters that `size` bytes become, padding included.
constexpr std::size_t encoded_size(std::size_t size) { return (size + 2) / 3 * 4; }
// `out` has room for encoded_size(in.size()).
std::size_t encode_text(std::string_view in, std::span<char> out);

}  // namespace outrider
