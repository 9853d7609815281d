// The session cookie: what is read, what is set and when.
#include "filters/session.h"

#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind session_filter();

namespace {

class SessionTest : public testing::Test, public test::World {
 protected:
  SessionTest() { say("session: { cookie: sid }"); }
  // The request with this cookie, answered by the endpoint; the cookie that is set, or `-`.
  std::string answer(const std::string& cookie) {
    const auto filter = session_filter().make(context());
    exchange();
    if (!cookie.empty()) header("cookie", cookie);
    EXPECT_EQ(filter->on_request(*x, control), Verdict::kContinue);
    x->endpoint = &endpoint;
    if (local) x->reply(Reason::kTimeoutTotal, "");
    EXPECT_EQ(filter->on_response(*x, control), Verdict::kContinue);
    return answered("set-cookie");
  }
  Endpoint endpoint{service.endpoints[0], 0, 0x00c0ffee12345678};
  bool local = false;
};

TEST_F(SessionTest, TheFirstAnswerSetsTheCookie) {
  EXPECT_EQ(answer(""), "sid=00c0ffee12345678; Path=/; HttpOnly; SameSite=Lax");
  EXPECT_EQ(x->session, 0U);
}

TEST_F(SessionTest, AnAnswerOfTheNamedEndpointSetsNone) {
  EXPECT_EQ(answer("a=b; sid=00c0ffee12345678"), "-");
  EXPECT_EQ(x->session, 0x00c0ffee12345678U);
}

TEST_F(SessionTest, AnAnswerOfAnotherEndpointSetsAFreshOne) {
  EXPECT_EQ(answer("sid=00c0ffee12345679"), "sid=00c0ffee12345678; Path=/; HttpOnly; SameSite=Lax");
}

TEST_F(SessionTest, WhatIsNoIdentityNamesNobody) {
  for (const char* cookie : {"sid=", "sid=7", "sid=00c0ffee1234567g", "sid=-0c0ffee12345678",
                             "sid=0x00c0ffee123456", "sid=00c0ffee123456780"}) {
    EXPECT_NE(answer(cookie), "-") << cookie;
    EXPECT_EQ(x->session, 0U) << cookie;
  }
}

TEST_F(SessionTest, TtlAndTlsShowInItsAttributes) {
  say("session: { cookie: sid, ttl: 90s }");
  EXPECT_EQ(answer(""), "sid=00c0ffee12345678; Path=/; HttpOnly; SameSite=Lax; Max-Age=90");
  TlsPeer peer;
  client.tls = &peer;
  EXPECT_EQ(answer(""), "sid=00c0ffee12345678; Path=/; HttpOnly; SameSite=Lax; Max-Age=90; Secure");
}

TEST_F(SessionTest, OurOwnAnswersSetNone) {
  local = true;
  EXPECT_EQ(answer(""), "-");
}

TEST_F(SessionTest, WithoutACookieNamedThereIsNoFilter) {
  say("session: false");
  EXPECT_EQ(session_filter().make(context()), nullptr);
  say("session: { cookie: sid }");
  EXPECT_EQ(session_filter().make(context(false)), nullptr);
}

TEST_F(SessionTest, IsInheritedLeafByLeaf) {
  const config::Loaded loaded = config::load_text(
      "test.yaml",
      "outrider: v1\nlisten: 8080\nservices: { shop: 8081 }\n"
      "defaults: { route: { session: { cookie: sid, ttl: 1h } } }\nroutes:\n"
      "  - { match: /a, to: shop, session: { ttl: 5m } }\n"
      "  - { match: /b, to: shop, session: false }\n  - { match: /c, to: shop }\n",
      {.extensions = filter_keys()});
  ASSERT_NE(loaded.config, nullptr);
  const auto settings = [&](std::size_t route) {
    return *config::told<SessionSettings>(loaded.config->routes[route].policies[0]);
  };
  EXPECT_EQ(settings(0).cookie->value, "sid");
  EXPECT_EQ(settings(0).ttl->value, Millis{300'000});
  EXPECT_EQ(settings(1).cookie->value, "");
  EXPECT_EQ(settings(2).ttl->value, Millis{3'600'000});
}

}  // namespace
}  // namespace outrider
