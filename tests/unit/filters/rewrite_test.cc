#include "filters/rewrite.h"
#include "filters/registry.h"

#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind rewrite_filter();

namespace {

class RewriteTest : public testing::Test, public test::World {
 protected:
  // The path that leaves; `400: why` when it is refused.
  std::string rewritten(const std::string& pattern, const std::string& to,
                        std::string_view target) {
    match(pattern);
    policy = {};
    policy.rewrite_path = config::Leaf<std::string>{to, {}};
    return run(target);
  }
  std::string replaced(config::RegexRewrites regexes, std::string_view target) {
    match("");
    policy = {};
    policy.rewrite_regex = config::Leaf<config::RegexRewrites>{std::move(regexes), {}};
    return run(target);
  }
  std::string run(std::string_view target) {
    exchange(target);
    filter = rewrite_filter().make(context());
    if (filter->on_request(*x, control) == Verdict::kContinue) return std::string(x->path_out);
    EXPECT_EQ(x->answer.reason, Reason::kBadRequest);
    return "400: " + std::string(x->answer.detail);
  }
  std::unique_ptr<const Filter> filter;  // the exchange's views point into it, as into a snapshot's
};

TEST_F(RewriteTest, TheRestFollowsWithItsSlash) {
  EXPECT_EQ(rewritten("/api/**", "/v2/**", "/api"), "/v2");
  EXPECT_EQ(rewritten("/api/**", "/v2/**", "/api/"), "/v2/");
  EXPECT_EQ(rewritten("/api/**", "/v2/**", "/api/x?q"), "/v2/x");
  EXPECT_EQ(x->query, "?q");
  EXPECT_EQ(rewritten("/api/**", "/v2/**", "/api/x/y/"), "/v2/x/y/");
}

TEST_F(RewriteTest, ToTheRestAloneStrips) {
  EXPECT_EQ(rewritten("/api/**", "/**", "/api"), "/");
  EXPECT_EQ(rewritten("/api/**", "/**", "/api/"), "/");
  EXPECT_EQ(rewritten("/api/**", "/**", "/api/x"), "/x");
}

TEST_F(RewriteTest, AFixedPathIsTheWholePath) {
  EXPECT_EQ(rewritten("/api/**", "/fixed", "/api/x"), "/fixed");
  EXPECT_EQ(rewritten("", "/fixed", "/anything"), "/fixed");
  EXPECT_EQ(rewritten("", "/pre/**", "/anything/else"), "/pre/anything/else");
}

TEST_F(RewriteTest, CapturesStandWhereTheirNamesStand) {
  EXPECT_EQ(rewritten("/cart/{id}/**", "/v2/cart/{id}/**", "/cart/7/items"), "/v2/cart/7/items");
  EXPECT_EQ(rewritten("/a/{x}/{y}", "/b/{y}-{x}.{y}", "/a/1/2"), "/b/2-1.2");
  EXPECT_EQ(rewritten("/a/*/{y}", "/b/{y}", "/a/1/2"), "/b/2");
  EXPECT_EQ(rewritten("/a/{x}", "/b/{x}", "/a/%2F%20"), "/b/%2F%20");
}

TEST_F(RewriteTest, GroupsOfARegexMatch) {
  EXPECT_EQ(rewritten("~^/v([0-9]+)/(.*)$", "/version/\\1/\\2", "/v12/a/b"), "/version/12/a/b");
  EXPECT_EQ(rewritten("~^/(a)?b", "/x\\1y\\9", "/b"), "/xy");
  EXPECT_EQ(rewritten("/{a}", "/\\1", "/b"),
            "400: the rewritten path is refused: a backslash in the path");
}

TEST_F(RewriteTest, WhatComesOutIsCheckedLikeAClientsPath) {
  EXPECT_EQ(rewritten("/f/{x}/{y}", "/{x}/{y}", "/f/%61/b"), "/a/b");
  EXPECT_EQ(rewritten("/f/{x}", "/a/.{x}/b", "/f/.x"), "/a/..x/b");
  EXPECT_EQ(rewritten("~^/f(/.*)$", "/deep\\1", "/f//x"), "/deep/x");
  EXPECT_EQ(rewritten("~^/d(.*)$", "/.\\1", "/d./x"),
            "400: the rewritten path is refused: a path above the root");
  EXPECT_EQ(rewritten("~^/d(.*)$", "\\1", "/dx"),
            "400: the rewritten path is refused: a path that does not begin with /");
  listener.escaped_slashes = config::EscapedSlashes::kReject;
  EXPECT_TRUE(rewritten("", "/a%2fb", "/").starts_with("400: "));
}

TEST_F(RewriteTest, RegexesReplaceEveryMatchInOrder) {
  EXPECT_EQ(replaced({{"^/old/(.*)", "/new/\\1"}}, "/old/x/y"), "/new/x/y");
  EXPECT_EQ(replaced({{"^/old/(.*)", "/new/\\1"}}, "/other"), "/other");
  EXPECT_EQ(replaced({{"a", "b"}, {"bb", "c"}}, "/aab"), "/cb");
  EXPECT_EQ(replaced({{"o", "0"}}, "/foo/boo"), "/f00/b00");
  EXPECT_EQ(replaced({{"([a-z])([0-9])", "\\2\\1"}}, "/a1b2"), "/1a2b");
  EXPECT_EQ(replaced({{"^/", "/v1/"}}, "/x/y"), "/v1/x/y") << "^ is the beginning alone";
  EXPECT_EQ(replaced({{"x", "[\\0]"}}, "/axa"), "/a[x]a");
  EXPECT_EQ(replaced({{"b*", "-"}}, "/abc"),
            "400: the rewritten path is refused: a path that does not begin with /");
  EXPECT_EQ(replaced({{"b*$", "-"}}, "/abb"), "/a-");
}

TEST_F(RewriteTest, ARegexCannotGrowAPathWithoutEnd) {
  const std::string target = "/" + std::string(4000, 'a');
  EXPECT_TRUE(replaced({{"a", "aaaaaaaaaa"}}, target).starts_with("400: "));
  EXPECT_EQ(replaced({{"a", "bb"}}, target), "/" + std::string(8000, 'b'));
}

TEST_F(RewriteTest, TheHostChangesForTheUpstreamAlone) {
  policy.rewrite_host = config::Leaf<std::string>{"inner.example:80", {}};
  EXPECT_EQ(run("/x"), "/x");
  EXPECT_EQ(x->request.authority, "inner.example:80");
  EXPECT_EQ(x->host, "shop.example");
}

TEST_F(RewriteTest, OptionsStarStaysWhatItIs) { EXPECT_EQ(rewritten("", "/v2/**", "*"), "*"); }

TEST_F(RewriteTest, NothingToDoIsNoFilter) {
  EXPECT_EQ(rewrite_filter().make(context()), nullptr);
  policy.rewrite_path = config::Leaf<std::string>{"/x", {}};
  EXPECT_NE(rewrite_filter().make(context()), nullptr);
  EXPECT_EQ(rewrite_filter().make(context(false)), nullptr);
}

}  // namespace
}  // namespace outrider
