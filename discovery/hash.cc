// SipHash-2-4 as its authors describe it: two rounds a word of eight bytes, four at the end; words
// are little-endian everywhere.
#include "discovery/hash.h"

#include <bit>

namespace outrider {
namespace {

struct Sip {
  std::uint64_t a, b, c, d;
  void round() {
    a += b;
    c += d;
    b = std::rotl(b, 13) ^ a;
    d = std::rotl(d, 16) ^ c;
    a = std::rotl(a, 32);
    c += b;
    a += d;
    b = std::rotl(b, 17) ^ c;
    d = std::rotl(d, 21) ^ a;
    c = std::rotl(c, 32);
  }
  void take(std::uint64_t word) {
    d ^= word;
    round();
    round();
    a ^= word;
  }
};

std::uint64_t word_of(std::string_view bytes) {
  std::uint64_t word = 0;
  for (std::size_t i = bytes.size(); i-- > 0;)
    word = word << 8 | static_cast<unsigned char>(bytes[i]);
  return word;
}

}  // namespace

std::uint64_t keyed_hash(std::string_view text, std::uint64_t key0, std::uint64_t key1) {
  Sip sip{key0 ^ 0x736f6d6570736575ULL, key1 ^ 0x646f72616e646f6dULL, key0 ^ 0x6c7967656e657261ULL,
          key1 ^ 0x7465646279746573ULL};
  const std::uint64_t length = text.size();
  for (; text.size() >= 8; text.remove_prefix(8)) sip.take(word_of(text.substr(0, 8)));
  sip.take(length << 56 | word_of(text));
  sip.c ^= 0xff;
  for (int i = 0; i < 4; ++i) sip.round();
  return sip.a ^ sip.b ^ sip.c ^ sip.d;
}

}  // namespace outrider
