#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {
FilterKind cors_filter();

namespace {

using test::World;
using ::testing::Test;

class CorsTest : public Test, protected World {
 protected:
  void start(const std::string& yaml) {
    say(yaml);
    filter = cors_filter().make(context());
    ASSERT_NE(filter, nullptr);
  }
  // A preflight of this origin, decided and decorated.
  Verdict preflight(const std::string& origin, const std::string& method = "PUT",
                    const std::string& headers = "") {
    exchange();
    x->request.method = Method::kOptions;
    header("origin", x->arena.copy(origin));
    header("access-control-request-method", x->arena.copy(method));
    if (!headers.empty()) header("access-control-request-headers", x->arena.copy(headers));
    const Verdict verdict = filter->on_request(*x, control);
    filter->on_response(*x, control);
    return verdict;
  }
  // The answer to a request of this origin (empty: of none), with what the upstream says.
  void get(const std::string& origin,
           const std::vector<std::pair<std::string, std::string>>& upstream = {}) {
    exchange();
    if (!origin.empty()) header("origin", x->arena.copy(origin));
    EXPECT_EQ(filter->on_request(*x, control), Verdict::kContinue);
    for (const auto& [name, value] : upstream)
      x->response.headers.add(header_id(name), x->arena.copy(name), x->arena.copy(value));
    EXPECT_EQ(filter->on_response(*x, control), Verdict::kContinue);
  }
  std::string origin_said() { return answered("access-control-allow-origin"); }
  std::unique_ptr<const Filter> filter;
};

TEST_F(CorsTest, APreflightIsAnsweredHere) {
  start("cors: { origins: [\"https://app.example\"], max_age: 1h }");
  EXPECT_EQ(preflight("https://app.example", "PUT", "content-type,x-a"), Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kOk);
  EXPECT_EQ(x->answer.status, 204);
  EXPECT_TRUE(x->answer.bare);
  EXPECT_EQ(origin_said(), "https://app.example");
  EXPECT_EQ(answered("access-control-allow-methods"), "GET, HEAD, POST, PUT, PATCH, DELETE");
  EXPECT_EQ(answered("access-control-allow-headers"), "content-type,x-a");
  EXPECT_EQ(answered("access-control-max-age"), "3600");
  EXPECT_EQ(answered("access-control-allow-credentials"), "-");
  EXPECT_EQ(answered("vary"), "Origin");
}

TEST_F(CorsTest, APreflightOfAForeignOriginIsDenied) {
  start("cors: { origins: [\"https://app.example\"] }");
  EXPECT_EQ(preflight("https://evil.example"), Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kDenied);
  EXPECT_EQ(x->answer.detail, "the origin is none of `cors.origins` at test.yaml:6");
  EXPECT_EQ(origin_said(), "-");
  EXPECT_EQ(answered("access-control-allow-methods"), "-");
  EXPECT_EQ(answered("vary"), "Origin");
}

TEST_F(CorsTest, OptionsWithoutTheQuestionIsNoPreflight) {
  start("cors: { origins: [\"https://app.example\"] }");
  exchange();
  x->request.method = Method::kOptions;
  header("origin", "https://app.example");
  EXPECT_EQ(filter->on_request(*x, control), Verdict::kContinue);
}

TEST_F(CorsTest, ListsSayWhatMayBeSent) {
  start(
      "cors: { origins: [\"https://app.example\"], methods: [GET, REPORT], headers: [x-a, X-B], "
      "credentials: true }");
  preflight("https://app.example", "PUT", "x-c");
  EXPECT_EQ(answered("access-control-allow-methods"), "GET, REPORT");
  EXPECT_EQ(answered("access-control-allow-headers"), "x-a, X-B");
  EXPECT_EQ(answered("access-control-allow-credentials"), "true");
}

TEST_F(CorsTest, AStarIsSpelledOut) {
  start(
      "cors: { origins: [\"https://app.example\"], methods: [\"*\"], headers: [\"*\"], "
      "credentials: true }");
  preflight("https://app.example", "BREW", "x-c");
  EXPECT_EQ(answered("access-control-allow-methods"), "BREW");
  EXPECT_EQ(answered("access-control-allow-headers"), "x-c");
  preflight("https://app.example", "BREW");
  EXPECT_EQ(answered("access-control-allow-headers"), "-");
}

TEST_F(CorsTest, AnswersAreDecoratedAndTheUpstreamsFieldsReplaced) {
  start("cors: { origins: [\"https://app.example\"], expose: [x-total], credentials: true }");
  get("https://app.example", {{"Access-Control-Allow-Origin", "*"},
                              {"Access-Control-Allow-Methods", "BREW"},
                              {"access-control-expose-headers", "x-secret"},
                              {"x-total", "7"}});
  EXPECT_EQ(origin_said(), "https://app.example");
  EXPECT_EQ(answered("access-control-allow-credentials"), "true");
  EXPECT_EQ(answered("access-control-expose-headers"), "x-total");
  EXPECT_EQ(answered("access-control-allow-methods"), "-");
  EXPECT_EQ(answered("x-total"), "7");
  EXPECT_EQ(answered("vary"), "Origin");
}

TEST_F(CorsTest, AForeignOriginGetsTheAnswerWithoutTheFields) {
  start("cors: { origins: [\"https://app.example\"] }");
  get("https://evil.example", {{"access-control-allow-origin", "*"}});
  EXPECT_EQ(origin_said(), "-");
  EXPECT_EQ(answered("vary"), "Origin");
}

TEST_F(CorsTest, VaryIsSaidOnceAndToEverybody) {
  start("cors: { origins: [\"https://app.example\"] }");
  get("", {{"vary", "Accept-Encoding"}});
  EXPECT_EQ(answered("vary"), "Accept-Encoding|Origin");
  get("", {{"vary", "accept, ORIGIN"}});
  EXPECT_EQ(answered("vary"), "accept, ORIGIN");
  get("", {{"vary", "*"}});
  EXPECT_EQ(answered("vary"), "*");
}

TEST_F(CorsTest, WhatIsForAllSaysSoToAll) {
  start("cors: { origins: \"*\" }");
  get("");
  EXPECT_EQ(origin_said(), "*");
  EXPECT_EQ(answered("vary"), "-");
  get("https://anywhere.example");
  EXPECT_EQ(origin_said(), "*");
}

TEST_F(CorsTest, AWildcardStandsForLabels) {
  start("cors: { origins: [\"https://*.app.example\", \"http://*.dev.example:8080\"] }");
  for (const char* good :
       {"https://a.app.example", "https://a.b.app.example", "http://x.dev.example:8080"}) {
    get(good);
    EXPECT_EQ(origin_said(), good);
  }
  for (const char* bad :
       {"https://app.example", "https://.app.example", "http://a.app.example",
        "https://a.app.example:8443", "https://aapp.example", "https://evil.example/.app.example",
        "https://evil.example:1.app.example", "https://a.app.example.evil.example",
        "https://evil@a.app.example", "null", "HTTPS://A.APP.EXAMPLE", "http://x.dev.example"}) {
    get(bad);
    EXPECT_EQ(origin_said(), "-") << bad;
  }
}

TEST_F(CorsTest, CredentialsNeverStandWithAStar) {
  EXPECT_EQ(refused("cors: { origins: \"*\", credentials: true }"),
            std::vector<std::string>{
                "`cors.credentials` stands with the origin '*': any page could then act as whoever "
                "looks at it; name the origins [conflict]"});
  EXPECT_EQ(
      refused("cors: { origins: \"*\" }\ndefaults: { route: { cors: { credentials: true } } }")
          .size(),
      1U)
      << "of two levels together too";
  EXPECT_EQ(refused("cors: { origins: [\"https://a.example\"], credentials: true, expose: \"*\" }")
                .size(),
            1U);
  EXPECT_EQ(refused("cors: { max_age: 1h }"),
            std::vector<std::string>{"`cors` has no `origins` [missing-key]"});
}

TEST_F(CorsTest, WhatNoBrowserSendsIsRefused) {
  for (const char* bad :
       {"app.example", "https://app.example/", "https://App.example", "https://app.example:443",
        "http://app.example:80", "https://*", "https://a.*.example", "\\\"null\\\"", "https://"})
    EXPECT_EQ(refused(std::string("cors: { origins: [\"") + bad + "\"] }").size(), 1U) << bad;
  EXPECT_EQ(refused("cors: { origins: [\"null\"] }").size(), 1U);
  EXPECT_EQ(
      refused("cors: { origins: [\"https://a.example\"], methods: [get], headers: [\"a b\"] }")
          .size(),
      2U);
}

TEST_F(CorsTest, NothingToDoIsNoFilter) { EXPECT_EQ(cors_filter().make(context()), nullptr); }

}  // namespace
}  // namespace outrider
