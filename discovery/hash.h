// Hashes that come out the same in every process and on every machine, because proxies must agree
// on them: keys of requests, identities of endpoints.
#pragma once

#include <cstdint>
#include <string_view>

namespace outrider {

// SipHash-2-4 of the text under a key of two words.
std::uint64_t keyed_hash(std::string_view text, std::uint64_t key0, std::uint64_t key1);

// Spreads a number over all 64 bits; one to one.
constexpr std::uint64_t mix64(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

// The number `n` of a sequence that begins with a seed.
constexpr std::uint64_t sequence64(std::uint64_t seed, std::uint64_t n) {
  return mix64(seed + n * 0x9E3779B97F4A7C15ULL);
}

}  // namespace outrider
