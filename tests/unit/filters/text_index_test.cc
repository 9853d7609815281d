// Every text is found under its own scope and under no other, whatever its length.
#include "filters/text_index.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace outrider {
namespace {

TEST(TextIndex, EmptyFindsNothing) {
  const TextIndex index;
  EXPECT_EQ(index.find(0, ""), TextIndex::kNone);
  EXPECT_EQ(index.find(0, "a"), TextIndex::kNone);
}

TEST(TextIndex, TheFirstValueStays) {
  TextIndex index;
  EXPECT_EQ(index.find_or_add(1, "a", 7), 7u);
  EXPECT_EQ(index.find_or_add(1, "a", 8), 7u);
  EXPECT_EQ(index.find_or_add(2, "a", 9), 9u);
  EXPECT_EQ(index.find(1, "a"), 7u);
  EXPECT_EQ(index.find(2, "a"), 9u);
  EXPECT_EQ(index.find(3, "a"), TextIndex::kNone);
}

TEST(TextIndex, TextsThatDifferInOneByteStayApart) {
  std::vector<std::string> texts;
  for (std::size_t size = 0; size < 40; ++size) {
    texts.emplace_back(size, 'x');
    for (std::size_t i = 0; i < size; ++i) {
      texts.emplace_back(size, 'x');
      texts.back()[i] = 'y';
    }
  }
  TextIndex index;
  for (std::uint32_t i = 0; i < texts.size(); ++i) ASSERT_EQ(index.find_or_add(5, texts[i], i), i);
  for (std::uint32_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(index.find(5, texts[i]), i);
    EXPECT_EQ(index.find(6, texts[i]), TextIndex::kNone);
    if (!texts[i].empty()) {
      std::string other = texts[i];
      other.back() = 'z';
      EXPECT_EQ(index.find(5, other), TextIndex::kNone) << other;
    }
  }
  EXPECT_EQ(index.find(5, std::string(100'000, 'x')), TextIndex::kNone);
}

}  // namespace
}  // namespace outrider
