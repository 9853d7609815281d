// Header names as ids, whatever their case; edits keep order and case.
#include "filters/http/headers.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace outrider {
namespace {

constexpr std::string_view kNames[] = {
#define HEADER(id, name, flags) name,
#include "filters/http/header_ids.inc"
#undef HEADER
};

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  return out;
}

TEST(HeaderId, EveryNameIsFoundInAnyCase) {
  std::uint8_t id = 0;
  for (const std::string_view name : kNames) {
    ++id;
    EXPECT_EQ(static_cast<std::uint8_t>(header_id(name)), id) << name;
    EXPECT_EQ(static_cast<std::uint8_t>(header_id(upper(name))), id) << name;
    EXPECT_EQ(static_cast<std::uint8_t>(lower_header_id(name)), id) << name;
    EXPECT_EQ(lower_header_id(upper(name)), HeaderId::kUnknown) << name;
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::string other(name);
      other[i] = upper(name)[i];
      EXPECT_EQ(static_cast<std::uint8_t>(header_id(other)), id) << other;
      EXPECT_EQ(lower_header_id(other) == header_id(name), other == name) << other;
    }
    EXPECT_EQ(header_name(static_cast<HeaderId>(id)), name);
  }
}

TEST(HeaderId, OtherNamesAreUnknown) {
  for (const std::string_view name : kNames) {
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::string other(name);
      other[i] = '_';
      EXPECT_EQ(header_id(other), HeaderId::kUnknown) << other;
      if (name[i] == '-') {
        other[i] = '\r';  // differs from '-' in the bit that tells cases apart
        EXPECT_EQ(header_id(other), HeaderId::kUnknown) << name;
      }
    }
    EXPECT_EQ(header_id(std::string(name) + "-"), HeaderId::kUnknown);
  }
  EXPECT_EQ(header_id(""), HeaderId::kUnknown);
  EXPECT_EQ(header_id("x"), HeaderId::kUnknown);
  EXPECT_EQ(header_id(std::string(100'000, 'a')), HeaderId::kUnknown);
  EXPECT_EQ(header_name(HeaderId::kUnknown), "");
}

TEST(HeaderId, FlagsAreThoseOfTheTable) {
  EXPECT_NE(header_flags(HeaderId::kConnection) & kHopByHop, 0);
  EXPECT_NE(header_flags(HeaderId::kCookie) & kSecret, 0);
  EXPECT_NE(header_flags(HeaderId::kHost) & kSingle, 0);
  EXPECT_EQ(header_flags(HeaderId::kAccept), 0);
  EXPECT_EQ(header_flags(HeaderId::kUnknown), 0);
}

TEST(EqualIgnoringCase, LooksAtEveryByteOnce) {
  for (std::size_t size = 0; size < 40; ++size) {
    const std::string text(size, 'q');
    EXPECT_TRUE(equal_ignoring_case(text, upper(text)));
    for (std::size_t i = 0; i < size; ++i) {
      std::string other = text;
      other[i] = 'r';
      EXPECT_FALSE(equal_ignoring_case(text, other)) << size << " " << i;
    }
  }
  EXPECT_FALSE(equal_ignoring_case("ab", "abc"));
}

TEST(EqualIgnoringCase, FoldsLettersAlone) {
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const auto fold = [](int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; };
      const std::string left(9, static_cast<char>(a));
      const std::string right(9, static_cast<char>(b));
      ASSERT_EQ(equal_ignoring_case(left, right), fold(a) == fold(b)) << a << " " << b;
      ASSERT_EQ(equal_ignoring_case(left.substr(0, 3), right.substr(0, 3)), fold(a) == fold(b));
    }
  }
}

TEST(ListHasToken, WholeTokensInAnyCase) {
  EXPECT_TRUE(list_has_token("close", "close"));
  EXPECT_TRUE(list_has_token("keep-alive ,\tClose", "close"));
  EXPECT_TRUE(list_has_token(",,close,", "close"));
  EXPECT_FALSE(list_has_token("closed, xclose, close x", "close"));
  EXPECT_FALSE(list_has_token("", "close"));
}

TEST(TrimOws, SpacesAndTabsAlone) {
  EXPECT_EQ(trim_ows(" \ta b\t "), "a b");
  EXPECT_EQ(trim_ows("\ra"), "\ra");
  EXPECT_EQ(trim_ows(" \t "), "");
}

class HeadersTest : public testing::Test {
 protected:
  std::string text() const {
    std::string all;
    for (const Header& header : headers_)
      all.append(header.name).append("=").append(header.value).append(" ");
    return all;
  }
  BlockPool blocks_{256};
  Arena arena_{blocks_};
  Headers headers_{arena_};
};

TEST_F(HeadersTest, SetReplacesTheFirstInPlaceAndRemovesTheOthers) {
  headers_.add(HeaderId::kUnknown, "X-One", "1");
  headers_.add(HeaderId::kAccept, "ACCEPT", "a");
  headers_.add(HeaderId::kUnknown, "x-ONE", "2");
  headers_.add(HeaderId::kAccept, "accept", "b");
  headers_.set(HeaderId::kAccept, "c");
  headers_.set(HeaderId::kUnknown, "x-one", "3");
  EXPECT_EQ(text(), "X-One=3 ACCEPT=c ");
  headers_.set(HeaderId::kUnknown, "x-two", "4");
  headers_.set(HeaderId::kHost, "h");
  EXPECT_EQ(text(), "X-One=3 ACCEPT=c x-two=4 host=h ");
}

TEST_F(HeadersTest, RemovesByIdAndByName) {
  headers_.add(HeaderId::kAccept, "a");
  headers_.add(HeaderId::kUnknown, "X-One", "1");
  headers_.add(HeaderId::kAccept, "b");
  EXPECT_EQ(headers_.remove(HeaderId::kAccept), 2u);
  EXPECT_EQ(headers_.remove(HeaderId::kAccept), 0u);
  EXPECT_EQ(headers_.remove(HeaderId::kUnknown, "x-one"), 1u);
  EXPECT_TRUE(headers_.empty());
}

TEST_F(HeadersTest, FindsTheFirst) {
  headers_.add(HeaderId::kUnknown, "X-One", "1");
  headers_.add(HeaderId::kUnknown, "x-one", "2");
  EXPECT_EQ(headers_.find(HeaderId::kUnknown, "x-ONE")->value, "1");
  EXPECT_EQ(headers_.find(HeaderId::kUnknown, "x-two"), nullptr);
  EXPECT_EQ(headers_.find(HeaderId::kAccept), nullptr);
  EXPECT_EQ(headers_.get(HeaderId::kAccept), "");
}

TEST_F(HeadersTest, GrowsAndKeepsEveryField) {
  std::vector<std::string> values;
  for (int i = 0; i < 200; ++i) values.push_back(std::to_string(i));
  for (const std::string& value : values) headers_.add(HeaderId::kUnknown, "n", value);
  ASSERT_EQ(headers_.size(), 200u);
  std::size_t i = 0;
  for (const Header& header : headers_) EXPECT_EQ(header.value, values[i++]);
}

}  // namespace
}  // namespace outrider
