// Hashes are the ones that others would compute.
#include "discovery/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace outrider {
namespace {

// The vectors of the reference implementation: key 00..0f, messages 00, 00 01, …
TEST(KeyedHash, IsSipHash24) {
  constexpr std::uint64_t kKey0 = 0x0706050403020100ULL;
  constexpr std::uint64_t kKey1 = 0x0f0e0d0c0b0a0908ULL;
  std::string text;
  EXPECT_EQ(keyed_hash(text, kKey0, kKey1), 0x726fdb47dd0e0e31ULL);
  text.push_back('\0');
  EXPECT_EQ(keyed_hash(text, kKey0, kKey1), 0x74f839c593dc67fdULL);
  for (char c = 1; c < 15; ++c) text.push_back(c);
  EXPECT_EQ(keyed_hash(text, kKey0, kKey1), 0xa129ca6149be45e5ULL);
}

TEST(Mix64, IsOneToOneAndSpreads) {
  EXPECT_NE(mix64(1), mix64(2));
  EXPECT_NE(sequence64(7, 0), sequence64(7, 1));
  EXPECT_GT(mix64(1) ^ mix64(2), 0xFFFFFFFFU);  // a bit in the upper half differs, too
}

}  // namespace
}  // namespace outrider
