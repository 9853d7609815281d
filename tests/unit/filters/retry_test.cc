#include <gtest/gtest.h>

#include <atomic>

#include "filters/random.h"
#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind retry_filter();

namespace {

using config::RetryOn;

constexpr std::uint64_t kSecond = 1'000'000'000;

// Every test has a service, and so a budget, of its own, and a clock of its own.
class RetryTest : public testing::Test, public test::World {
 protected:
  RetryTest() {
    static std::atomic<int> next{0};
    service.name = "shop-" + std::to_string(next++);
    seed_thread_random(1);
    at(100 * kSecond);
  }
  void at(std::uint64_t ns) { now_ns = ns; }
  void when(std::uint16_t bits, std::vector<int> statuses = {}) {
    policy.retry_when = config::Leaf<config::RetryWhen>{{bits, std::move(statuses)}, {}};
  }
  static std::uint16_t bit(RetryOn on) { return static_cast<std::uint16_t>(on); }
  Exchange& tried(std::uint32_t attempts = 1) {
    exchange();
    x->attempts = attempts;
    x->attempt = x->arena.make<Attempt>();
    x->attempt->ended_ns = now_ns;
    return *x;
  }
  bool again(const Error& error) {
    control.delay.reset();
    const Verdict verdict = retry_filter().make(context())->on_attempt_failed(*x, error, control);
    EXPECT_EQ(verdict == Verdict::kPause, control.delay.has_value());
    return verdict == Verdict::kPause;
  }
  bool again_after(Reason reason, bool repeatable = false) {
    return again({reason, Origin::kUpstream, repeatable});
  }
  bool again_on_status(int status) {
    x->response.status = status;
    return again({Reason::kOk, Origin::kUpstream, false});
  }
  // Takes what the budget gives for quiet services in this second.
  void spend_reserve() {
    for (int i = 0; i < 10; ++i) {
      tried();
      ASSERT_TRUE(again_after(Reason::kConnectFailure)) << i;
    }
  }
  void complete(int times) {
    for (int i = 0; i < times; ++i) {
      tried();
      x->ended_ns = now_ns;
      retry_filter().make(context())->on_done(*x);
    }
  }
  std::uint64_t now_ns = 0;
};

TEST_F(RetryTest, TheDefaultIsOneMoreTryAfterAFailureWithoutAnAnswer) {
  for (const Reason reason : {Reason::kConnectFailure, Reason::kConnectTimeout, Reason::kTlsFailure,
                              Reason::kUpstreamReset, Reason::kStaleConnection}) {
    tried(1);
    EXPECT_TRUE(again_after(reason)) << info(reason).word;
    tried(2);
    EXPECT_FALSE(again_after(reason)) << info(reason).word;
  }
  for (const Reason reason :
       {Reason::kUpstreamProtocolError, Reason::kTimeoutHeaders, Reason::kTimeoutTotal,
        Reason::kTimeoutPerTry, Reason::kTimeoutIdle, Reason::kLimitPending, Reason::kNoEndpoint,
        Reason::kClientClosed, Reason::kDrain}) {
    tried(1);
    EXPECT_FALSE(again_after(reason)) << info(reason).word;
  }
  tried(1);
  EXPECT_FALSE(again_on_status(503));
}

TEST_F(RetryTest, AttemptsAreExtraTries) {
  policy.retry_attempts = config::Leaf<unsigned>{3, {}};
  for (std::uint32_t attempts : {1, 2, 3}) {
    tried(attempts);
    EXPECT_TRUE(again_after(Reason::kConnectFailure));
  }
  tried(4);
  EXPECT_FALSE(again_after(Reason::kConnectFailure));
  policy.retry_attempts = config::Leaf<unsigned>{0, {}};
  EXPECT_EQ(retry_filter().make(context()), nullptr);
}

TEST_F(RetryTest, WhenReplacesTheList) {
  when(bit(RetryOn::kPerTryTimeout), {418});
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure));
  EXPECT_TRUE(again_after(Reason::kTimeoutPerTry));
  EXPECT_TRUE(again_on_status(418));
  EXPECT_FALSE(again_on_status(503));
  when(bit(RetryOn::k5xx));
  for (const int status : {500, 501, 503, 599}) EXPECT_TRUE(again_on_status(status)) << status;
  for (const int status : {200, 404, 499, 600}) EXPECT_FALSE(again_on_status(status)) << status;
}

TEST_F(RetryTest, GatewayErrorsAreThreeStatuses) {
  when(bit(RetryOn::kGatewayError));
  tried();
  for (const int status : {502, 503, 504}) EXPECT_TRUE(again_on_status(status)) << status;
  for (const int status : {500, 501, 505}) EXPECT_FALSE(again_on_status(status)) << status;
}

TEST_F(RetryTest, ARefusedStreamIsOneTheUpstreamVouchedFor) {
  when(bit(RetryOn::kRefusedStream));
  tried();
  EXPECT_TRUE(again_after(Reason::kUpstreamReset, true));
  EXPECT_FALSE(again_after(Reason::kUpstreamReset, false));
}

TEST_F(RetryTest, OurOwnStatusIsNotTheUpstreams) {
  when(0, {503});
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure))
      << "answered with 503 by us, and not asked for";
  EXPECT_TRUE(again_on_status(503));
}

TEST_F(RetryTest, WhatIsNotIdempotentIsNotSentTwice) {
  when(bit(RetryOn::kReset) | bit(RetryOn::kConnectFailure), {503});
  for (const Method method : {Method::kPost, Method::kPatch, Method::kOther}) {
    tried().request.method = method;
    EXPECT_FALSE(again_after(Reason::kUpstreamReset));
    EXPECT_FALSE(again_on_status(503));
    EXPECT_TRUE(again_after(Reason::kUpstreamReset, true)) << "no byte was processed";
    EXPECT_TRUE(again_after(Reason::kConnectFailure)) << "no byte was sent";
  }
  at(now_ns + kSecond);  // a fresh budget
  for (const Method method :
       {Method::kGet, Method::kHead, Method::kPut, Method::kDelete, Method::kOptions}) {
    tried().request.method = method;
    EXPECT_TRUE(again_after(Reason::kUpstreamReset));
  }
}

TEST_F(RetryTest, UnlessItsSenderOrItsRouteSaysSo) {
  tried().request.method = Method::kPost;
  EXPECT_FALSE(again_after(Reason::kUpstreamReset));
  header("Idempotency-Key", "k");
  EXPECT_TRUE(again_after(Reason::kUpstreamReset));
  policy.retry_methods = config::Leaf<config::RetryMethods>{config::RetryMethods::kAll, {}};
  tried().request.method = Method::kPost;
  EXPECT_TRUE(again_after(Reason::kUpstreamReset));
}

TEST_F(RetryTest, ABodyThatWasNotKeptCannotBeSentAgain) {
  tried().replayable = false;
  EXPECT_FALSE(again_after(Reason::kConnectFailure, true));
}

TEST_F(RetryTest, NothingIsTriedOnceTheClientSawAnAnswer) {
  tried().response_started = true;
  EXPECT_FALSE(again_after(Reason::kUpstreamReset, true));
  tried().tunnel = true;
  EXPECT_FALSE(again_after(Reason::kUpstreamReset, true));
}

TEST_F(RetryTest, NorForAFailureOfTheClient) {
  tried();
  EXPECT_FALSE(again({Reason::kUpstreamReset, Origin::kClient, true}));
}

TEST_F(RetryTest, RetriesDoNotNestOnStatuses) {
  when(7, {503});
  tried().inbound_attempt = 2;
  EXPECT_FALSE(again_on_status(503));
  EXPECT_TRUE(again_after(Reason::kConnectFailure));
}

TEST_F(RetryTest, TheDelayIsAnythingUpToADoublingCeiling) {
  policy.retry_attempts = config::Leaf<unsigned>{10, {}};
  policy.retry_budget = config::Leaf<double>{1.0, {}};
  const std::int64_t ceilings[] = {25, 50, 100, 200, 250, 250, 250};
  for (std::uint32_t attempt = 1; attempt <= std::size(ceilings); ++attempt) {
    std::int64_t longest = 0, shortest = INT64_MAX;
    for (int i = 0; i < 300; ++i) {
      at(now_ns + kSecond / 10);
      tried(attempt);
      ASSERT_TRUE(again_after(Reason::kConnectFailure));
      longest = std::max(longest, control.delay->count());
      shortest = std::min(shortest, control.delay->count());
    }
    EXPECT_LE(longest, ceilings[attempt - 1]);
    EXPECT_GT(longest, ceilings[attempt - 1] * 3 / 4);
    EXPECT_LT(shortest, ceilings[attempt - 1] / 4);
  }
}

TEST_F(RetryTest, AQuietServiceHasTenRetriesASecond) {
  spend_reserve();
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure));
  at(now_ns + kSecond);
  spend_reserve();
}

TEST_F(RetryTest, ABusyOneAFifthOfWhatCompletedInTenSeconds) {
  complete(100);
  spend_reserve();
  for (int i = 0; i < 20; ++i) {
    tried();
    EXPECT_TRUE(again_after(Reason::kConnectFailure)) << i;
  }
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure));
  at(now_ns + 9 * kSecond);
  spend_reserve();
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure))
      << "spent retries count as long as what earned them";
  complete(50);
  at(now_ns + kSecond);
  spend_reserve();
  for (int i = 0; i < 10; ++i) {
    tried();
    EXPECT_TRUE(again_after(Reason::kConnectFailure)) << i;
  }
  tried();
  EXPECT_FALSE(again_after(Reason::kConnectFailure)) << "the hundred are forgotten";
}

TEST_F(RetryTest, ARefusedRetrySaysSoAndTheFailuresStatusStands) {
  spend_reserve();
  tried();
  EXPECT_EQ(retry_filter().make(context())->on_attempt_failed(
                *x, {Reason::kUpstreamReset, Origin::kUpstream, false}, control),
            Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kRetryBudget);
  EXPECT_EQ(x->answer.status, 502);
  EXPECT_NE(x->answer.detail.find("upstream_reset"), std::string_view::npos);
}

TEST_F(RetryTest, ARefusedRetryLeavesTheUpstreamsAnswer) {
  when(7, {503});
  spend_reserve();
  tried().response.status = 503;
  EXPECT_EQ(retry_filter().make(context())->on_attempt_failed(
                *x, {Reason::kOk, Origin::kUpstream, false}, control),
            Verdict::kContinue);
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(x->reason, Reason::kRetryBudget);
}

TEST_F(RetryTest, AsManyAsTheServiceMayRetryAtOnce) {
  control.retries_allowed = false;
  tried();
  EXPECT_EQ(retry_filter().make(context())->on_attempt_failed(
                *x, {Reason::kUpstreamReset, Origin::kUpstream, false}, control),
            Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kRetryBudget);
  EXPECT_EQ(x->answer.status, 502);
  EXPECT_NE(x->answer.detail.find("upstream_reset"), std::string_view::npos);
  EXPECT_NE(x->answer.detail.find("limits.retries"), std::string_view::npos) << x->answer.detail;
  EXPECT_EQ(x->answer.detail.find("retry.budget"), std::string_view::npos) << x->answer.detail;

  when(7, {503});
  tried().response.status = 503;
  EXPECT_EQ(retry_filter().make(context())->on_attempt_failed(
                *x, {Reason::kOk, Origin::kUpstream, false}, control),
            Verdict::kContinue);
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(x->reason, Reason::kRetryBudget);
  EXPECT_NE(x->detail.find("limits.retries"), std::string_view::npos) << x->detail;
}

TEST_F(RetryTest, AResetBehindTheFirstByteOfAnAnswerIsFinal) {
  tried();
  EXPECT_FALSE(again({.reason = Reason::kUpstreamReset,
                      .origin = Origin::kUpstream,
                      .gone = true,
                      .answered = true}));
  EXPECT_TRUE(again({.reason = Reason::kUpstreamReset, .origin = Origin::kUpstream, .gone = true}));
}

TEST_F(RetryTest, WhatWasNotDueDoesNotSpendTheBudget) {
  for (int i = 0; i < 100; ++i) {
    tried().request.method = Method::kPost;
    EXPECT_FALSE(again_after(Reason::kUpstreamReset));
  }
  spend_reserve();
}

TEST_F(RetryTest, ARouteThatAnswersItselfHasNone) {
  EXPECT_EQ(retry_filter().make(context(false)), nullptr);
}

}  // namespace
}  // namespace outrider
