#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind api_key_filter();

namespace {

using test::World;
using ::testing::Test;

// `till` has sekrit-key-1 and sekrit-key-2.
const std::string kKeys = OUTRIDER_SOURCE_DIR "/tests/unit/config/full.d/api.keys";

class ApiKeyTest : public Test, protected World {
 protected:
  void start(const std::string& more = "") {
    say("api_key: { keys: " + kKeys + more + " }");
    filter = api_key_filter().make(context());
    ASSERT_NE(filter, nullptr);
  }
  bool passes() {
    const bool passed = filter->on_request(*x, control) == Verdict::kContinue;
    EXPECT_EQ(x->caller(), passed ? "till" : "");
    filter->on_response(*x, control);
    EXPECT_EQ(answered("www-authenticate") == "-", passed);
    return passed;
  }
  static std::vector<std::string> refused_file(const std::string& lines) {
    const std::string path = ::testing::TempDir() + "outrider_api_key_test";
    std::ofstream(path) << lines;
    std::vector<std::string> all = refused("api_key: { keys: " + path + " }");
    for (std::string& one : all)
      if (const std::size_t at = one.find(path); at != std::string::npos)
        one.erase(at, path.size());
    return all;
  }
  std::unique_ptr<const Filter> filter;
};

TEST_F(ApiKeyTest, FromAHeader) {
  start();
  for (const char* key : {"sekrit-key-1", "sekrit-key-2"}) {
    exchange();
    header("X-Api-Key", key);
    EXPECT_TRUE(passes());
    EXPECT_EQ(sent("x-api-key"), "-");
  }
  for (const char* key : {"sekrit-key-3", "", "SEKRIT-KEY-1",
                          "157f249e6d8b169961d3797e31603f4b39a895975482074cbc1951205b4ad8a9"}) {
    exchange();
    header("x-api-key", key);
    EXPECT_FALSE(passes());
    EXPECT_EQ(x->answer.detail, "nobody has this key");
  }
  exchange();
  EXPECT_FALSE(passes());
  EXPECT_EQ(x->answer.detail, "no key in header x-api-key");
  EXPECT_EQ(x->answer.reason, Reason::kUnauthenticated);
}

TEST_F(ApiKeyTest, TwoKeysAreNone) {
  start();
  exchange();
  header("x-api-key", "sekrit-key-1");
  header("x-api-key", "sekrit-key-1");
  EXPECT_FALSE(passes());
}

TEST_F(ApiKeyTest, FromAuthorizationWithOrWithoutItsScheme) {
  start(", from: header authorization");
  exchange();
  header("authorization", "bearer sekrit-key-1");
  EXPECT_TRUE(passes());
  exchange();
  header("authorization", "sekrit-key-1");
  EXPECT_TRUE(passes());
  exchange();
  header("authorization", "Basic sekrit-key-1");
  EXPECT_FALSE(passes());
  EXPECT_EQ(answered("www-authenticate"), "Bearer");
}

TEST_F(ApiKeyTest, FromTheQuery) {
  start(", from: query key");
  const auto query_left = [&](const std::string& query) {
    exchange("/a" + query);
    EXPECT_TRUE(passes()) << query;
    return std::string(x->query);
  };
  EXPECT_EQ(query_left("?key=sekrit-key-1"), "");
  EXPECT_EQ(query_left("?a=1&key=sekrit-key-1&b=2"), "?a=1&b=2");
  EXPECT_EQ(query_left("?key=sekrit%2Dkey%2d1&&b"), "?&b");
  EXPECT_EQ(query_left("?mykey=x&key=sekrit-key-2"), "?mykey=x");
  for (const char* bad : {"/", "/?", "/?key", "/?key=", "/?KEY=sekrit-key-1",
                          "/?key=sekrit-key-1&key=sekrit-key-1"}) {
    exchange(bad);
    EXPECT_FALSE(passes()) << bad;
  }
  exchange("/?a=1&key=wrong");
  EXPECT_FALSE(passes());
  EXPECT_EQ(x->query, "?a=1") << "a wrong key is nothing for the log either";
}

TEST_F(ApiKeyTest, FromACookie) {
  start(", from: cookie key");
  exchange();
  header("cookie", "a=1; key=sekrit-key-1; b=2");
  header("cookie", "c=3");
  EXPECT_TRUE(passes());
  EXPECT_EQ(sent("cookie"), "a=1; b=2|c=3");
  exchange();
  header("cookie", "key=sekrit-key-2");
  EXPECT_TRUE(passes());
  EXPECT_EQ(sent("cookie"), "-");
  exchange();
  header("cookie", "key=sekrit-key-1");
  header("cookie", "key=sekrit-key-1");
  EXPECT_FALSE(passes());
}

TEST_F(ApiKeyTest, ForwardKeepsTheKey) {
  start(", forward: true");
  exchange();
  header("x-api-key", "sekrit-key-1");
  EXPECT_TRUE(passes());
  EXPECT_EQ(sent("x-api-key"), "sekrit-key-1");
  start(", forward: true, from: query key");
  exchange("/?key=sekrit-key-1");
  EXPECT_TRUE(passes());
  EXPECT_EQ(x->query, "?key=sekrit-key-1");
}

TEST_F(ApiKeyTest, BadLinesAreNamedAndNotShown) {
  const std::string shape = "the line is not NAME SHA256HEX, 64 hexadecimal digits [bad-value]";
  const std::string hex(64, 'a');
  EXPECT_EQ(
      refused_file("# x\n\nname\nname " + hex.substr(1) + "\nname " + hex + "0\n" + hex +
                   "\nname g" + hex.substr(1)),
      (std::vector<std::string>{":3: " + shape, ":4: " + shape, ":5: " + shape, ":6: " + shape,
                                ":7: " + shape, " holds no key [bad-value]"}));
  EXPECT_EQ(refused_file("a " + hex + "\nb " + std::string(64, 'A')),
            std::vector<std::string>{":2: the key stands twice [bad-value]"});
  EXPECT_EQ(refused("api_key: { keys: /nowhere/keys }").size(), 1U);
  EXPECT_EQ(refused("api_key: { from: header x }"),
            std::vector<std::string>{"`api_key` has no `keys` [missing-key]"});
  EXPECT_EQ(refused("api_key: { keys: " + kKeys + ", from: x-api-key }"),
            std::vector<std::string>{"'x-api-key' is no place of a key: write header x-api-key, "
                                     "query NAME or cookie NAME [bad-value]"});
  EXPECT_EQ(refused("api_key: { keys: " + kKeys + ", from: \"query a b\" }").size(), 1U);
}

TEST_F(ApiKeyTest, NothingToDoIsNoFilter) { EXPECT_EQ(api_key_filter().make(context()), nullptr); }

}  // namespace
}  // namespace outrider
