// What `limit` decides, what it says of it, and when it asks a store; the clock is the exchange's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "filters/limit_store.h"
#include "filters/local_reply.h"
#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind limit_filter();

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kStart = 1'000 * kSecond;

// A store that answers when it is told to.
struct FakeStore final : LimitStore {
  bool ask(LimitQuestion& question) override {
    if (!there) return false;
    questions.push_back(&question);
    keys.push_back(question.key);
    return true;
  }
  void forget(LimitQuestion& question) override { std::erase(questions, &question); }
  void answer(bool known, Drawn drawn = {}) {
    LimitQuestion* const question = questions.front();
    questions.erase(questions.begin());
    question->answered(question->owner, known, drawn);
  }
  bool there = true;
  std::vector<LimitQuestion*> questions;
  std::vector<std::array<std::uint64_t, 2>> keys;  // of all that were asked
};

struct Control final : test::Driver {
  void resume() override { ++resumed; }
  LimitStore* limit_store(const std::shared_ptr<SharedStore>& of) override {
    asked_of = of->name;
    return &store;
  }
  int resumed = 0;
  std::string asked_of;
  FakeStore store;
};

class LimitTest : public testing::Test, public test::World {
 protected:
  void limit(const std::string& yaml) {
    say("limit: " + yaml);
    model.files = said->files;
    filter = limit_filter().make(context());
    now = kStart;
  }
  // One request at `now`; the fields are `name: value`.
  Verdict ask(const std::string& name = {}, const std::string& value = {},
              std::string_view target = "/") {
    exchange(target);
    x->client_ip_text = ip;
    if (!name.empty()) header(name, value);
    EXPECT_TRUE(parse_ip(ip, x->client_ip));
    driver.now = now;
    return filter->on_request(*x, driver);
  }
  // How many of so many are let through.
  int admitted(int asked, const std::string& name = {}, const std::string& value = {}) {
    int count = 0;
    for (int i = 0; i < asked; ++i) count += ask(name, value) == Verdict::kContinue;
    return count;
  }
  std::string told(const char* field) {
    if (x->answer.set) local_reply(*x);
    filter->on_response(*x, driver);
    return answered(field);
  }
  std::size_t counted(Event event) {
    return static_cast<std::size_t>(
        std::count(x->events.begin(), x->events.begin() + x->event_count, event));
  }

  std::unique_ptr<const Filter> filter;
  Control driver;
  std::string ip = "192.0.2.1";
  std::uint64_t now = kStart;
};

TEST_F(LimitTest, ANetworkOfIpv6IsOneClient) {
  limit("2/s per client.ip");
  ip = "2001:db8:0:1::1";
  EXPECT_EQ(admitted(1), 1);
  ip = "2001:db8:0:1:ffff::2";
  EXPECT_EQ(admitted(5), 1);
  ip = "2001:db8:0:2::1";
  EXPECT_EQ(admitted(5), 2);
}

// What a client makes last – a head that comes in pieces – gives it nothing.
TEST_F(LimitTest, TimeIsTheMomentOfAskingNotWhenTheRequestBegan) {
  limit("10/s per client.ip");
  EXPECT_EQ(admitted(20), 10);
  int more = 0;
  for (int i = 0; i < 20; ++i) {
    exchange("/");
    x->client_ip_text = ip;
    EXPECT_TRUE(parse_ip(ip, x->client_ip));
    x->started_ns = now - 8 * kSecond;
    more += filter->on_request(*x, driver) == Verdict::kContinue ? 1 : 0;
  }
  EXPECT_EQ(more, 0);
}

TEST_F(LimitTest, ABucketForEachClient) {
  limit("3/s per client.ip");
  EXPECT_EQ(admitted(10), 3);
  EXPECT_EQ(told("ratelimit-policy"), "\"3/s per client.ip\";q=3;w=1");
  ip = "192.0.2.2";
  EXPECT_EQ(admitted(10), 3);
  now += kSecond + 3;  // a token's price is rounded up to whole nanoseconds
  EXPECT_EQ(admitted(10), 3);
  EXPECT_EQ(x->answer.reason, Reason::kRateLimited);
}

TEST_F(LimitTest, OneForTheRouteWithoutAKey) {
  limit("3/s");
  EXPECT_EQ(admitted(2), 2);
  ip = "192.0.2.2";
  EXPECT_EQ(admitted(2), 1);
}

TEST_F(LimitTest, ByHeaderQueryAndCookieAndWithoutThemTogether) {
  limit("1/m per header x-tenant");
  EXPECT_EQ(admitted(2, "X-Tenant", "a"), 1);
  EXPECT_EQ(admitted(2, "x-tenant", "b"), 1);
  EXPECT_EQ(admitted(1), 1) << "absent is a key of its own";
  EXPECT_EQ(admitted(1, "x-tenant", ""), 0) << "and empty is absent";
  limit("1/m per query user");
  EXPECT_EQ(ask({}, {}, "/?user=a"), Verdict::kContinue);
  EXPECT_EQ(ask({}, {}, "/?user=b"), Verdict::kContinue);
  EXPECT_EQ(ask({}, {}, "/x?user=a&z"), Verdict::kReply);
  limit("1/m per cookie sid");
  EXPECT_EQ(admitted(2, "cookie", "a=1; sid=2"), 1);
  EXPECT_EQ(admitted(2, "cookie", "sid=3"), 1);
}

TEST_F(LimitTest, RatesOfMinutesAndHoursAndABurst) {
  limit("{ rate: 60/m, burst: 2 }");
  EXPECT_EQ(admitted(5), 2);
  now += kSecond;
  EXPECT_EQ(admitted(5), 1);
  limit("2/h");
  EXPECT_EQ(admitted(5), 2);
  now += 1799 * kSecond;
  EXPECT_EQ(admitted(1), 0);
  now += kSecond;
  EXPECT_EQ(admitted(2), 1);
}

TEST_F(LimitTest, AllOfAListMustHoldAndWhatOneRefusesCostsTheOthersNothing) {
  limit("[2/s per client.ip, 3/h]");
  EXPECT_EQ(admitted(5), 2);
  ip = "192.0.2.2";
  EXPECT_EQ(admitted(5), 1) << "the three refused cost the hour's limit nothing";
  EXPECT_EQ(x->answer.detail.substr(0, 9), "limit 3/h");
  now += 1199 * kSecond;
  EXPECT_EQ(admitted(5), 0);
  now += kSecond;
  EXPECT_EQ(admitted(5), 1);
}

TEST_F(LimitTest, ARefusalSaysWhenWhichAndWhere) {
  limit("{ rate: 2/m, per: client.ip }");
  EXPECT_EQ(admitted(3), 2);
  now += 9 * kSecond + kSecond / 2;
  EXPECT_EQ(ask(), Verdict::kReply);
  EXPECT_EQ(x->answer.detail.substr(0, 36), "limit 2/m per client.ip, set at test");
  EXPECT_EQ(told("retry-after"), "21") << "whole seconds, and never too early";
  EXPECT_EQ(x->status, 429);
  EXPECT_EQ(told("ratelimit-policy").substr(0, 32), "\"2/m per client.ip\";q=2;w=60");
}

TEST_F(LimitTest, EveryAnswerSaysWhatIsLeft) {
  limit("[3/m per client.ip, { rate: 1/s, burst: 100 }]");
  ask();
  EXPECT_EQ(told("ratelimit-policy"), "\"3/m per client.ip\";q=3;w=60, \"1/s\";q=100;w=100");
  EXPECT_EQ(answered("ratelimit"), "\"3/m per client.ip\";r=2;t=20, \"1/s\";r=99;t=1");
  ask();
  ask();
  EXPECT_EQ(told("ratelimit"), "\"3/m per client.ip\";r=0;t=20, \"1/s\";r=97;t=3")
      << "t: until there is a token where none is left, else until all are back";
  EXPECT_EQ(ask(), Verdict::kReply);
  EXPECT_EQ(told("ratelimit"), "\"3/m per client.ip\";r=0;t=20") << "the other was not asked";
}

TEST_F(LimitTest, NamesOfOneListAreTold) {
  limit("[5/s, { rate: 5/s, burst: 9 }]");
  ask();
  EXPECT_EQ(told("ratelimit-policy"), "\"5/s\";q=5;w=1, \"5/s#2\";q=9;w=2");
}

TEST_F(LimitTest, ObservedLimitsOnlyCount) {
  limit("{ rate: 2/h, mode: observe }");
  EXPECT_EQ(admitted(5), 5);
  EXPECT_EQ(counted(Event::kObservedLimit), 1U);
  EXPECT_EQ(told("ratelimit"), "-") << "a client that is not limited is told nothing";
}

TEST_F(LimitTest, ARehearsalSpendsNothing) {
  limit("1/h");
  exchange();
  x->rehearsed = true;
  EXPECT_EQ(filter->on_request(*x, driver), Verdict::kContinue);
  EXPECT_EQ(admitted(2), 1);
}

TEST_F(LimitTest, NoLimitIsNoFilter) {
  EXPECT_EQ(limit_filter().make(context()), nullptr);
  say("limit: []");
  EXPECT_EQ(limit_filter().make(context()), nullptr);
}

TEST_F(LimitTest, BucketsOutliveAGenerationUnlessTheLimitIsAnother) {
  limit("3/h per client.ip");
  EXPECT_EQ(admitted(2), 2);
  auto next = limit_filter().make(context());
  filter = std::move(next);
  EXPECT_EQ(admitted(2), 1) << "the same limit of the same route";
  limit("4/h per client.ip");
  EXPECT_EQ(admitted(5), 4);
  route.name = "another";
  limit("4/h per client.ip");
  EXPECT_EQ(admitted(5), 4);
}

TEST_F(LimitTest, WhatNoGenerationUsesIsForgotten) {
  limit("1/h");
  EXPECT_EQ(admitted(1), 1);
  filter = nullptr;
  limit("1/h");
  EXPECT_EQ(admitted(1), 1);
  say("limit: { rate: 1/h, shared: \"redis://127.0.0.1:6379\" }");
  filter = limit_filter().make(context());
  EXPECT_EQ(limits.stores().size(), 1U);
  filter = nullptr;
  EXPECT_TRUE(limits.stores().empty());
}

// ---- shared

constexpr const char* kShared =
    "{ rate: 2/m, per: client.ip, shared: \"redis://:secret@127.0.0.1:7000/1\" }";

TEST_F(LimitTest, TheStoreDecides) {
  limit(kShared);
  EXPECT_EQ(ask(), Verdict::kPause);
  EXPECT_EQ(driver.asked_of, "127.0.0.1:7000/1");
  ASSERT_EQ(driver.store.questions.size(), 1U);
  EXPECT_EQ(driver.store.questions[0]->allowance, (Allowance{30 * kSecond, 2}));
  driver.store.answer(true, {true, 50 * kSecond});
  EXPECT_EQ(driver.resumed, 1);
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(told("ratelimit"), "\"2/m per client.ip\";r=0;t=20") << "as the store says";
  EXPECT_EQ(counted(Event::kLimitShared), 1U);

  EXPECT_EQ(ask(), Verdict::kPause);
  driver.store.answer(true, {false, 45 * kSecond});
  EXPECT_EQ(driver.resumed, 2);
  EXPECT_EQ(x->answer.reason, Reason::kRateLimited);
  EXPECT_EQ(told("retry-after"), "15");
  filter->on_done(*x);
}

TEST_F(LimitTest, ItIsNotAskedForWhatTheProcessWouldRefuse) {
  limit(kShared);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ask(), Verdict::kPause);
    driver.store.answer(true, {true, 0});
  }
  EXPECT_EQ(ask(), Verdict::kReply);
  EXPECT_TRUE(driver.store.questions.empty());
}

TEST_F(LimitTest, WithoutItsAnswerTheProcessDecides) {
  limit(kShared);
  EXPECT_EQ(ask(), Verdict::kPause);
  driver.store.answer(false);
  EXPECT_EQ(driver.resumed, 1);
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(counted(Event::kLimitAlone), 1U);
  driver.store.there = false;
  EXPECT_EQ(ask(), Verdict::kContinue) << "nobody waits for a store that is away";
  EXPECT_EQ(counted(Event::kLimitAlone), 1U);
  EXPECT_EQ(ask(), Verdict::kReply);
}

TEST_F(LimitTest, KeysOfTheStoreAreTheSameEverywhereAndSayNothing) {
  limit(kShared);
  const auto key_of = [this](const char* address) {
    ip = address;
    ask();
    driver.store.questions.clear();
    return driver.store.keys.back();
  };
  const auto here = key_of("192.0.2.1");
  LimitBook elsewhere;
  filter = limit_filter().make({model, route, policy, &service, true, elsewhere});
  EXPECT_EQ(key_of("192.0.2.1"), here);
  EXPECT_NE(key_of("192.0.2.2"), here);
  limit("{ rate: 2/m, per: client.ip, shared: \"redis://:other@127.0.0.1:7000/1\" }");
  EXPECT_NE(key_of("192.0.2.1"), here) << "the password is part of them";
}

TEST_F(LimitTest, WhoLeavesIsForgottenAndWhoIsLateNotResumed) {
  limit(kShared);
  ask();
  filter->on_done(*x);
  EXPECT_TRUE(driver.store.questions.empty());
  ask();
  x->reply(Reason::kTimeoutTotal, "");
  driver.store.answer(true, {false, 0});
  EXPECT_EQ(driver.resumed, 0);
  EXPECT_EQ(x->answer.reason, Reason::kTimeoutTotal);
}

TEST_F(LimitTest, TwoSharedLimitsAreAskedOneAfterTheOtherAndLocalOnesDrawnLast) {
  limit(
      "[{ rate: 9/m, shared: \"redis://127.0.0.1\" }, 1/h, { rate: 8/m, shared: "
      "\"redis://127.0.0.1\" }]");
  EXPECT_EQ(ask(), Verdict::kPause);
  driver.store.answer(true, {true, 1});
  EXPECT_EQ(driver.resumed, 0);
  ASSERT_EQ(driver.store.questions.size(), 1U);
  driver.store.answer(true, {false, 60 * kSecond});
  EXPECT_EQ(driver.resumed, 1);
  EXPECT_TRUE(x->answer.set);
  ask();
  driver.store.answer(true, {true, 1});
  driver.store.answer(true, {true, 1});
  EXPECT_FALSE(x->answer.set) << "the hour's token was still there";
  EXPECT_EQ(ask(), Verdict::kReply) << "and is gone now, before any store is asked";
  EXPECT_TRUE(driver.store.questions.empty());
}

TEST_F(LimitTest, AnObservedSharedLimitRefusesNobody) {
  limit("{ rate: 2/m, mode: observe, shared: \"redis://127.0.0.1\" }");
  EXPECT_EQ(ask(), Verdict::kPause);
  driver.store.answer(true, {false, 60 * kSecond});
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(driver.resumed, 1);
  EXPECT_EQ(counted(Event::kObservedLimit), 1U);
}

}  // namespace
}  // namespace outrider
