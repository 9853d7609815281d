#include "filters/grpc_web_text.h"

namespace outrider {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t kNone = 0xff;

constexpr std::array<std::uint8_t, 256> kValues = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(kNone);
  for (std::size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
  return values;
}();

std::uint32_t value_of(char c) { return kValues[static_cast<unsigned char>(c)]; }

}  // namespace

std::size_t TextDecoder::decode(std::string_view& in, std::span<char> out) {
  constexpr std::size_t kGroupBytes = 3;
  std::size_t made = 0;
  while (!in.empty() && !bad_ && out.size() - made >= kGroupBytes) {
    group_[count_++] = in.front();
    in.remove_prefix(1);
    if (count_ == group_.size()) made += group(out.data() + made);
  }
  return made;
}

// `TWFu`, `TWE=` or `TQ==`.
std::size_t TextDecoder::group(char* to) {
  count_ = 0;
  const std::size_t size = group_[3] != '=' ? 3 : group_[2] != '=' ? 2 : 1;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const std::uint32_t value = i > size ? 0 : value_of(group_[i]);
    bad_ |= value == kNone;
    bits = bits << 6 | (value & 63);
  }
  if (bad_) return 0;
  for (std::size_t i = 0; i < size; ++i) to[i] = static_cast<char>(bits >> (16 - 8 * i));
  return size;
}

std::size_t encode_text(std::string_view in, std::span<char> out) {
  std::size_t made = 0;
  for (; !in.empty(); in.remove_prefix(in.size() < 3 ? in.size() : 3)) {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < in.size() ? static_cast<unsigned char>(in[i]) : 0U);
    for (std::size_t i = 0; i < 4; ++i)
      out[made++] = i > in.size() ? '=' : kAlphabet[bits >> (18 - 6 * i) & 63];
  }
  return made;
}

}  // namespace outrider
