// SHA-1 and base64 as plainly as they can be written, apart from the proxy's own.
#include "tests/harness/websocket.h"

#include <cstddef>
#include <cstdint>

namespace outrider::test {
namespace {

std::uint32_t rotate(std::uint32_t word, int by) { return word << by | word >> (32 - by); }

std::string big_endian(std::uint64_t value, int bytes) {
  std::string text;
  while (bytes-- > 0) text.push_back(static_cast<char>(value >> (8 * bytes)));
  return text;
}

std::string sha1(std::string message) {
  const std::uint64_t bits = message.size() * 8;
  message.push_back('\x80');
  while (message.size() % 64 != 56) message.push_back('\0');
  message += big_endian(bits, 8);

  std::uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  for (std::size_t block = 0; block < message.size(); block += 64) {
    std::uint32_t w[80] = {};
    for (std::size_t i = 0; i < 64; ++i)
      w[i / 4] = w[i / 4] << 8 | static_cast<unsigned char>(message[block + i]);
    for (int i = 16; i < 80; ++i) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    std::uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; ++i) {
      std::uint32_t f = b ^ c ^ d;
      if (i < 20) f = (b & c) | (~b & d);
      if (i >= 40 && i < 60) f = (b & c) | (b & d) | (c & d);
      constexpr std::uint32_t k[] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
      const std::uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
      e = d;
      d = c;
      c = rotate(b, 30);
      b = a;
      a = next;
    }
    const std::uint32_t add[] = {a, b, c, d, e};
    for (int i = 0; i < 5; ++i) h[i] += add[i];
  }
  std::string digest;
  for (const std::uint32_t word : h) digest += big_endian(word, 4);
  return digest;
}

std::string base64(std::string_view bytes) {
  constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  std::uint32_t pending = 0;
  int bits = 0;
  for (const char byte : bytes) {
    pending = pending << 8 | static_cast<unsigned char>(byte);
    for (bits += 8; bits >= 6; bits -= 6) text.push_back(kLetters[pending >> (bits - 6) & 63]);
  }
  if (bits > 0) text.push_back(kLetters[pending << (6 - bits) & 63]);
  while (text.size() % 4 != 0) text.push_back('=');
  return text;
}

}  // namespace

std::string websocket_accept(std::string_view key) {
  return base64(sha1(std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
}

}  // namespace outrider::test
