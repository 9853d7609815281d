#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {
FilterKind access_filter();

namespace {

using test::World;
using ::testing::Test;

class AccessTest : public Test, protected World {
 protected:
  void start(const std::string& yaml) {
    say(yaml);
    filter = access_filter().make(context());
    ASSERT_NE(filter, nullptr);
  }
  Exchange& ask(const std::string& ip, const std::string& path = "/",
                const std::string& method = "GET") {
    exchange(path);
    EXPECT_TRUE(parse_ip(ip, x->client_ip));
    x->request.method_text = x->arena.copy(method);
    x->request.method = method_of(x->request.method_text);
    return *x;
  }
  bool passes() {
    const Verdict verdict = filter->on_request(*x, control);
    if (verdict == Verdict::kReply) {
      EXPECT_EQ(x->answer.reason, Reason::kDenied);
    }
    return verdict == Verdict::kContinue;
  }
  bool passes(const std::string& ip, const std::string& path = "/",
              const std::string& method = "GET") {
    ask(ip, path, method);
    return passes();
  }
  std::unique_ptr<const Filter> filter;
};

TEST_F(AccessTest, WithAnyAllowTheRestIsDenied) {
  start("allow: [10.0.0.0/8, \"fd00::/8\"]");
  EXPECT_TRUE(passes("10.255.255.255"));
  EXPECT_TRUE(passes("fd12::1"));
  EXPECT_FALSE(passes("11.0.0.0"));
  EXPECT_FALSE(passes("9.255.255.255"));
  EXPECT_FALSE(passes("fe00::"));
  EXPECT_EQ(x->answer.detail, "none of `allow` at test.yaml:6");
}

TEST_F(AccessTest, DenyWins) {
  start("allow: 10.0.0.0/8\n  deny: 10.1.0.0/16");
  EXPECT_TRUE(passes("10.2.0.1"));
  EXPECT_FALSE(passes("10.1.0.1"));
  EXPECT_EQ(x->answer.detail, "`deny` at test.yaml:7");
}

TEST_F(AccessTest, DenyAloneLeavesTheRest) {
  start("deny: [192.0.2.0/24]");
  EXPECT_FALSE(passes("192.0.2.1"));
  EXPECT_TRUE(passes("192.0.3.1"));
}

TEST_F(AccessTest, AllConditionsOfARuleMustHold) {
  start(
      "deny: [{ client_ip: 10.0.0.0/8, method: [POST, PUT], path: [\"/admin/**\", \"~^/x[0-9]\"], "
      "headers: { x-a: \"1\" } }]");
  const auto denied = [&](const char* ip, const char* path, const char* method, bool with_header) {
    ask(ip, path, method);
    if (with_header) header("x-a", "1");
    return !passes();
  };
  EXPECT_TRUE(denied("10.0.0.1", "/admin/users", "POST", true));
  EXPECT_TRUE(denied("10.0.0.1", "/x7", "PUT", true));
  EXPECT_FALSE(denied("11.0.0.1", "/admin/users", "POST", true));
  EXPECT_FALSE(denied("10.0.0.1", "/other", "POST", true));
  EXPECT_FALSE(denied("10.0.0.1", "/admin/users", "GET", true));
  EXPECT_FALSE(denied("10.0.0.1", "/admin/users", "POST", false));
}

TEST_F(AccessTest, NestedAndManyRanges) {
  std::string list = "deny: [10.0.0.0/8, 10.1.0.0/16, 10.1.2.0/24, 0.0.0.0/32";
  for (int i = 0; i < 200; ++i) list += ", 172.16." + std::to_string(i) + ".128/25";
  start(list + "]");
  EXPECT_FALSE(passes("10.1.2.3"));
  EXPECT_FALSE(passes("10.1.3.3"));
  EXPECT_FALSE(passes("10.200.0.0"));
  EXPECT_FALSE(passes("0.0.0.0"));
  EXPECT_TRUE(passes("0.0.0.1"));
  for (int i = 0; i < 200; ++i) {
    const std::string net = "172.16." + std::to_string(i);
    EXPECT_FALSE(passes(net + ".128"));
    EXPECT_FALSE(passes(net + ".255"));
    EXPECT_TRUE(passes(net + ".127"));
  }
  EXPECT_TRUE(passes("::1"));
}

TEST_F(AccessTest, DenyAddsUpOverAllLevelsAndAllowDoesNot) {
  start(
      "use: [p]\n  deny: 10.1.0.0/16\n  allow: 10.0.0.0/8\n"
      "policies: { p: { deny: 10.2.0.0/16, allow: 11.0.0.0/8 } }\n"
      "defaults: { route: { deny: 10.3.0.0/16 } }");
  EXPECT_FALSE(passes("10.1.0.1"));
  EXPECT_FALSE(passes("10.2.0.1"));
  EXPECT_FALSE(passes("10.3.0.1"));
  EXPECT_TRUE(passes("10.4.0.1"));
  EXPECT_FALSE(passes("11.0.0.1"));
}

TEST_F(AccessTest, ObservedRulesJudgeWhatTheOthersLetIn) {
  start(
      "allow: [10.0.0.0/8, { client_ip: 10.1.0.0/16, mode: observe }]\n"
      "  deny: { path: /old/**, mode: observe }");
  EXPECT_TRUE(passes("10.1.0.1"));
  EXPECT_EQ(x->event_count, 0);
  EXPECT_TRUE(passes("10.2.0.1"));
  ASSERT_EQ(x->event_count, 1);
  EXPECT_EQ(x->events[0], Event::kObservedAllow);
  EXPECT_EQ(x->observed[0], "would be denied: none of `allow` at test.yaml:6");
  EXPECT_TRUE(passes("10.1.0.1", "/old/a"));
  ASSERT_EQ(x->event_count, 1);
  EXPECT_EQ(x->events[0], Event::kObservedDeny);
  EXPECT_FALSE(passes("11.0.0.1", "/old/a"));
  EXPECT_EQ(x->event_count, 0);
}

TEST_F(AccessTest, ObservedAllowAloneClosesNothing) {
  start("allow: { client_ip: 10.0.0.0/8, mode: observe }");
  EXPECT_TRUE(passes("192.0.2.1"));
  EXPECT_EQ(x->event_count, 1);
  EXPECT_FALSE(config::traits_of(policy).guards);
}

TEST_F(AccessTest, OnlyEnforcedRulesGuardTheRoute) {
  start("deny: 10.0.0.0/8");
  EXPECT_TRUE(config::traits_of(policy).guards);
}

TEST_F(AccessTest, WhatIsMalformedIsRefused) {
  EXPECT_EQ(refused("allow: spiffe://shop/frontend"),
            std::vector<std::string>{"'spiffe://shop/frontend' is an identity, which is not "
                                     "supported yet [not-supported-yet]"});
  EXPECT_EQ(refused("allow: { from: spiffe://shop/frontend }").at(0),
            "not supported yet [not-supported-yet]");
  EXPECT_EQ(refused("deny: []"), std::vector<std::string>{"an empty list fits nobody [bad-value]"});
  EXPECT_EQ(refused("deny: [{ mode: observe }]").size(), 1U);
  EXPECT_EQ(refused("deny: [10.0.0.0/33, here, [a], { client_ip: x }]").size(), 4U);
}

TEST_F(AccessTest, NothingToDoIsNoFilter) { EXPECT_EQ(access_filter().make(context()), nullptr); }

}  // namespace
}  // namespace outrider
