// SHA-1 (FIPS 180-4) stands here in full: the handshake proves nothing secret, and a few lines need
// no library.
#include "proxy/websocket.h"

#include <sys/random.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

#include "config/error.h"

namespace outrider {
namespace {

constexpr std::size_t kBlock = 64;
using Digest = std::array<unsigned char, 20>;
using State = std::array<std::uint32_t, 5>;

void add_block(State& state, const unsigned char* block) {
  std::array<std::uint32_t, 80> words;
  for (std::size_t i = 0; i < 16; ++i)
    words[i] = static_cast<std::uint32_t>(block[i * 4]) << 24 |
               static_cast<std::uint32_t>(block[i * 4 + 1]) << 16 |
               static_cast<std::uint32_t>(block[i * 4 + 2]) << 8 | block[i * 4 + 3];
  for (std::size_t i = 16; i < 80; ++i)
    words[i] = std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
  auto [a, b, c, d, e] = state;
  for (std::size_t i = 0; i < 80; ++i) {
    std::uint32_t mixed;
    if (i < 20)
      mixed = ((b & c) | (~b & d)) + 0x5a827999;
    else if (i < 40)
      mixed = (b ^ c ^ d) + 0x6ed9eba1;
    else if (i < 60)
      mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
    else
      mixed = (b ^ c ^ d) + 0xca62c1d6;
    const std::uint32_t next = std::rotl(a, 5) + mixed + e + words[i];
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  }
  state = {state[0] + a, state[1] + b, state[2] + c, state[3] + d, state[4] + e};
}

Digest sha1(std::string text) {
  State state{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  const std::uint64_t bits = text.size() * 8;
  text.push_back('\x80');
  while (text.size() % kBlock != kBlock - sizeof bits) text.push_back('\0');
  for (int shift = 56; shift >= 0; shift -= 8) text.push_back(static_cast<char>(bits >> shift));
  for (std::size_t at = 0; at < text.size(); at += kBlock)
    add_block(state, reinterpret_cast<const unsigned char*>(text.data()) + at);
  Digest digest;
  for (std::size_t i = 0; i < digest.size(); ++i)
    digest[i] = static_cast<unsigned char>(state[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

template <class Text, std::size_t kSize>
Text base64(const std::array<unsigned char, kSize>& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  Text text;
  std::size_t to = 0;
  for (std::size_t at = 0; at < kSize; at += 3) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 3; ++i) word = word << 8 | (at + i < kSize ? bytes[at + i] : 0U);
    for (std::size_t i = 0; i < 4; ++i)
      text[to++] = at + i > kSize ? '=' : kDigits[word >> (18 - 6 * i) & 63];
  }
  return text;
}

}  // namespace

WebsocketKey make_websocket_key() {
  std::array<unsigned char, 16> nonce;
  OUTRIDER_ASSERT(getrandom(nonce.data(), nonce.size(), 0) == static_cast<ssize_t>(nonce.size()));
  return base64<WebsocketKey>(nonce);
}

WebsocketAccept websocket_accept(std::string_view key) {
  return base64<WebsocketAccept>(
      sha1(std::string(key).append("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
}

}  // namespace outrider
