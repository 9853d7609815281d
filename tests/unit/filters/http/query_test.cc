// The first value of a name, as it came.
#include "filters/http/query.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {

TEST(QueryValue, TheFirstUndecoded) {
  EXPECT_EQ(query_value("?a=1&b=2&a=3", "a"), "1");
  EXPECT_EQ(query_value("a=1&b=2", "b"), "2");
  EXPECT_EQ(query_value("?a=%20+=x", "a"), "%20+=x");
}

TEST(QueryValue, WithoutEqualsSignIsEmptyButThere) {
  EXPECT_EQ(query_value("?debug", "debug"), "");
  EXPECT_EQ(query_value("?debug=", "debug"), "");
  EXPECT_EQ(query_value("?x&debug&y", "debug"), "");
}

TEST(QueryValue, Absent) {
  for (const char* query : {"", "?", "?&&", "?ab=1", "?b=a", "?A=1", "?=a", "?%61=1"})
    EXPECT_FALSE(query_value(query, "a").has_value()) << query;
}

class CookieValue : public testing::Test {
 protected:
  void cookie(std::string_view value) { headers_.add(HeaderId::kCookie, value); }
  BlockPool blocks_;
  Arena arena_{blocks_};
  Headers headers_{arena_};
};

TEST_F(CookieValue, TheFirstOverAllFields) {
  cookie("a=1; lane=canary;  quoted=\"x y\"");
  cookie("lane=second; late=z");
  EXPECT_EQ(cookie_value(headers_, "a"), "1");
  EXPECT_EQ(cookie_value(headers_, "lane"), "canary");
  EXPECT_EQ(cookie_value(headers_, "quoted"), "\"x y\"");
  EXPECT_EQ(cookie_value(headers_, "late"), "z");
  EXPECT_FALSE(cookie_value(headers_, "LANE").has_value());
}

TEST_F(CookieValue, OddPairs) {
  cookie(";;bare; empty=; eq=a=b ;last = v");
  EXPECT_FALSE(cookie_value(headers_, "bare").has_value());
  EXPECT_EQ(cookie_value(headers_, "empty"), "");
  EXPECT_EQ(cookie_value(headers_, "eq"), "a=b");
  EXPECT_EQ(cookie_value(headers_, "last"), "v");
}

TEST_F(CookieValue, LooksAtCookieFieldsAlone) {
  headers_.add(HeaderId::kSetCookie, "a=1");
  EXPECT_FALSE(cookie_value(headers_, "a").has_value());
}

}  // namespace
}  // namespace outrider
