// Ejection's decisions without a socket: runs of failures, the cap, how long, and the comparison of
// endpoints with each other.
#include "discovery/ejection.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace outrider {
namespace {

constexpr AttemptReport kSuccess{Outcome::kSuccess, Reason::kOk, 200};
constexpr AttemptReport k500{Outcome::kServerError, Reason::kOk, 500};
constexpr AttemptReport k503{Outcome::kGatewayError, Reason::kOk, 503};
constexpr AttemptReport kRefused{Outcome::kLocalFailure, Reason::kConnectFailure, 0};

class EjectionTest : public ::testing::Test {
 protected:
  void make(std::size_t endpoints) {
    config_.name = "cart";
    config_.endpoints.resize(endpoints);
    for (std::size_t i = 0; i < endpoints; ++i)
      config_.endpoints[i].address.port = static_cast<std::uint16_t>(9000 + i);
    shared_ = std::make_shared<ServiceShared>(config_);
    service_ = std::make_unique<Service>(config_, 0, shared_);
  }
  void report(std::size_t endpoint, const AttemptReport& what, int times = 1) {
    AttemptReport now = what;
    now.now_ns = now_ * 1'000'000;
    for (int i = 0; i < times; ++i) {
      service_->began(*service_->endpoints()[endpoint]);
      service_->ended(*service_->endpoints()[endpoint], now);
    }
  }
  bool ejected(std::size_t endpoint) const { return shared_->endpoints[endpoint]->ejected; }
  const EjectionRecord& record(std::size_t endpoint) const {
    return shared_->endpoints[endpoint]->ejection;
  }
  std::uint64_t look() { return return_ejected(config_, *shared_, now_); }
  std::uint64_t count(EjectedFor why) const {
    return shared_->ejection.count[static_cast<std::size_t>(why)];
  }

  config::Service config_;
  std::shared_ptr<ServiceShared> shared_;
  std::unique_ptr<Service> service_;
  std::uint64_t now_ = 1'000'000;
};

TEST(Outcomes, SayWhoFailed) {
  EXPECT_EQ(outcome_of(Reason::kOk, 200), Outcome::kSuccess);
  EXPECT_EQ(outcome_of(Reason::kOk, 404), Outcome::kSuccess);
  EXPECT_EQ(outcome_of(Reason::kOk, 0), Outcome::kSuccess);  // raw TCP
  EXPECT_EQ(outcome_of(Reason::kOk, 500), Outcome::kServerError);
  EXPECT_EQ(outcome_of(Reason::kOk, 501), Outcome::kServerError);
  EXPECT_EQ(outcome_of(Reason::kOk, 505), Outcome::kServerError);
  for (const int status : {502, 503, 504})
    EXPECT_EQ(outcome_of(Reason::kOk, status), Outcome::kGatewayError) << status;
  for (const Reason reason : {Reason::kConnectFailure, Reason::kConnectTimeout, Reason::kTlsFailure,
                              Reason::kUpstreamReset, Reason::kUpstreamProtocolError,
                              Reason::kTimeoutHeaders, Reason::kTimeoutPerTry})
    EXPECT_EQ(outcome_of(reason, 200), Outcome::kLocalFailure) << info(reason).word;
  for (const Reason reason :
       {Reason::kClientClosed, Reason::kLimitPending, Reason::kStaleConnection, Reason::kDrain,
        Reason::kTimeoutTotal, Reason::kTimeoutIdle, Reason::kOverload})
    EXPECT_EQ(outcome_of(reason, 503), Outcome::kNeither) << info(reason).word;
}

TEST(Outcomes, OfGrpcAreInItsStatus) {
  const auto outcome = [](int grpc) { return outcome_of(Reason::kOk, 200, grpc); };
  for (const int own : {0, 1, 3, 5, 7, 8, 12, 16})
    EXPECT_EQ(outcome(own), Outcome::kSuccess) << own;
  for (const int away : {4, 14}) EXPECT_EQ(outcome(away), Outcome::kGatewayError) << away;
  for (const int broken : {2, 13, 15}) EXPECT_EQ(outcome(broken), Outcome::kServerError) << broken;
  EXPECT_EQ(outcome_of(Reason::kUpstreamReset, 200, 0), Outcome::kLocalFailure);
}

TEST_F(EjectionTest, TheFifthFailureInARowDecides) {
  make(3);
  const std::uint64_t version = shared_->version;
  report(0, k503, 4);
  report(0, kSuccess);
  report(0, k503, 2);
  report(0, kRefused, 2);
  EXPECT_FALSE(ejected(0));
  EXPECT_EQ(shared_->version, version);
  report(0, k503);
  EXPECT_TRUE(ejected(0));
  EXPECT_FALSE(shared_->endpoints[0]->usable());
  EXPECT_EQ(shared_->version, version + 1);
  EXPECT_EQ(record(0).until_ms, now_ + 30'000);
  EXPECT_EQ(record(0).why, "5 gateway errors in a row, the last: 503");
  EXPECT_EQ(count(EjectedFor::kGatewayErrors), 1U);
}

TEST_F(EjectionTest, UnavailableOfGrpcIsAGatewayError) {
  make(3);
  report(0, {Outcome::kGatewayError, Reason::kOk, 200, 14}, 5);
  EXPECT_TRUE(ejected(0));
  EXPECT_EQ(record(0).why, "5 gateway errors in a row, the last: grpc:unavailable");
}

TEST_F(EjectionTest, AnAnswerOf500EndsARunOfGatewayErrors) {
  make(3);
  report(0, k503, 4);
  report(0, k500);
  report(0, k503, 4);
  EXPECT_FALSE(ejected(0));
}

TEST_F(EjectionTest, WhatSaysNothingOfTheEndpointChangesNothing) {
  make(3);
  report(0, k503, 4);
  report(0, {Outcome::kNeither, Reason::kClientClosed, 0}, 100);
  EXPECT_FALSE(ejected(0));
  report(0, k503);
  EXPECT_TRUE(ejected(0));
}

TEST_F(EjectionTest, AnswersAbove500CountWhereAsked) {
  config_.eject.after_5xx.value = 3;
  make(3);
  report(0, k500);
  report(0, k503);
  report(0, k500);
  EXPECT_TRUE(ejected(0));
  EXPECT_EQ(count(EjectedFor::kServerErrors), 1U);
  EXPECT_EQ(record(0).why, "3 answers of 500 and above in a row, the last: 500");
}

TEST_F(EjectionTest, LocalFailuresApartCountNowhereElse) {
  config_.eject.after.value = 2;
  config_.eject.after_5xx.value = 2;
  config_.eject.after_local.value = 3;
  make(3);
  report(0, kRefused, 2);
  report(0, k503);  // an answer: what is local begins anew
  report(0, kRefused, 2);
  EXPECT_FALSE(ejected(0));
  report(0, kRefused);
  EXPECT_TRUE(ejected(0));
  EXPECT_EQ(count(EjectedFor::kLocalFailures), 1U);
  EXPECT_EQ(record(0).why, "3 failures without an answer in a row, the last: connect_failure");
}

TEST_F(EjectionTest, NotCountedWhenOff) {
  config_.eject.on = false;
  make(2);
  report(0, k503, 100);
  EXPECT_FALSE(ejected(0));
  EXPECT_TRUE(shared_->endpoints[0]->failures.load().none());
}

TEST_F(EjectionTest, AtMostHalfAndNeverTheLast) {
  make(5);
  for (std::size_t i = 0; i < 5; ++i) report(i, k503, 5);
  EXPECT_EQ(shared_->ejection.out, 2U);
  EXPECT_EQ(shared_->ejection.refused, 3U);

  make(1);
  report(0, k503, 50);
  EXPECT_FALSE(ejected(0));

  config_.eject.at_most.value = 1;
  make(3);
  for (std::size_t i = 0; i < 3; ++i) report(i, k503, 50);
  EXPECT_EQ(shared_->ejection.out, 2U);
}

TEST_F(EjectionTest, OthersThatCannotBeUsedAreNotLeft) {
  config_.eject.at_most.value = 1;
  make(4);
  shared_->endpoints[1]->unhealthy = true;
  shared_->endpoints[2]->draining = true;
  config_.endpoints[3].weight = 0;
  report(0, k503, 50);
  EXPECT_FALSE(ejected(0));
  shared_->endpoints[1]->unhealthy = false;
  report(0, k503, 5);
  EXPECT_TRUE(ejected(0));
}

TEST_F(EjectionTest, TheTimeGrowsAndFallsWhileItBehaves) {
  make(3);
  std::vector<std::uint64_t> spans;
  for (int i = 0; i < 12; ++i) {
    report(0, k503, 5);
    spans.push_back(record(0).until_ms - now_);
    now_ = record(0).until_ms;
    look();
  }
  EXPECT_EQ(spans,
            (std::vector<std::uint64_t>{30'000, 60'000, 90'000, 120'000, 150'000, 180'000, 210'000,
                                        240'000, 270'000, 300'000, 300'000, 300'000}));
  now_ += 6 * 30'000;
  report(0, k503, 5);
  EXPECT_EQ(record(0).until_ms - now_, 150'000U);  // ten times, six forgiven
}

TEST_F(EjectionTest, ItComesBackWhenItsTimeIsOver) {
  make(3);
  report(0, k503, 5);
  report(0, k503, 50);  // what was on its way, or panic
  const std::uint64_t version = shared_->version;
  EXPECT_EQ(look(), record(0).until_ms);
  now_ += 29'999;
  EXPECT_EQ(look(), record(0).until_ms);
  EXPECT_TRUE(ejected(0));
  now_ += 1;
  EXPECT_EQ(look(), 0U);
  EXPECT_FALSE(ejected(0));
  EXPECT_EQ(shared_->endpoints[0]->usable_since_ms, now_);
  EXPECT_EQ(shared_->version, version + 1);
  EXPECT_EQ(shared_->ejection.out, 0U);
  report(0, k503, 4);  // the run begins anew
  EXPECT_FALSE(ejected(0));
}

TEST_F(EjectionTest, ObserveDecidesAndDoesNothing) {
  config_.eject.observe = true;
  make(3);
  const std::uint64_t version = shared_->version;
  report(0, k503, 20);
  EXPECT_FALSE(ejected(0));
  EXPECT_TRUE(record(0).out);
  EXPECT_EQ(count(EjectedFor::kGatewayErrors), 1U);
  now_ += 30'000;
  EXPECT_EQ(look(), 0U);
  EXPECT_FALSE(record(0).out);
  EXPECT_EQ(shared_->version, version);
  EXPECT_EQ(shared_->endpoints[0]->usable_since_ms, 0U);
}

// Threads that fail at once, with no success among them: the endpoint goes at exactly the n-th.
TEST_F(EjectionTest, RunsAreExactWithManyThreads) {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kEach = 2'499;
  config_.eject.after.value = kThreads * kEach;
  make(2);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t)
    threads.emplace_back([this, t] {
      for (unsigned i = 0; i < kEach - (t == 0 ? 1 : 0); ++i)
        note_failure(config_, *shared_, 0, k503);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(ejected(0));
  note_failure(config_, *shared_, 0, k503);
  EXPECT_TRUE(ejected(0));
  EXPECT_EQ(shared_->ejection.count[0], 1U);
}

// ---- compared with the others

EndpointSample sample(std::uint64_t requests, std::uint64_t failures, std::uint64_t ms) {
  return {requests, failures, requests - failures, (requests - failures) * ms * 1000};
}

TEST_F(EjectionTest, OneThatFailsMoreThanTheOthers) {
  config_.eject.success.value = 0.2;
  make(4);
  // 75 % where the others have 95 % on average: just not too far behind.
  std::vector<EndpointSample> samples{sample(100, 25, 5), sample(100, 5, 5), sample(1000, 50, 5),
                                      sample(100, 5, 5)};
  eject_outliers(config_, *shared_, samples, now_);
  EXPECT_EQ(shared_->ejection.out, 0U);
  samples[0].failures = 26;
  eject_outliers(config_, *shared_, samples, now_);
  EXPECT_TRUE(ejected(0));
  EXPECT_EQ(record(0).why, "74% of its requests succeed, of the others' 95%");
  EXPECT_EQ(shared_->ejection.out, 1U);
}

TEST_F(EjectionTest, OneThatIsSlowerThanTheOthers) {
  config_.eject.latency.value = 3;
  make(4);
  std::vector<EndpointSample> samples{sample(100, 0, 10), sample(100, 0, 20), sample(100, 0, 30),
                                      sample(100, 0, 60)};
  eject_outliers(config_, *shared_, samples, now_);  // the others' median is 20 ms
  EXPECT_EQ(shared_->ejection.out, 0U);
  samples[3] = sample(100, 0, 61);
  eject_outliers(config_, *shared_, samples, now_);
  EXPECT_TRUE(ejected(3));
  EXPECT_EQ(shared_->ejection.out, 1U);
  EXPECT_EQ(record(3).why, "it takes 61ms to answer, the others 20ms");
}

TEST_F(EjectionTest, TooFewRequestsOrEndpointsSayNothing) {
  config_.eject.success.value = 0.2;
  config_.eject.latency.value = 3;
  make(4);
  eject_outliers(config_, *shared_,
                 std::vector<EndpointSample>{sample(99, 99, 0), sample(100, 0, 5),
                                             sample(100, 0, 5), sample(100, 0, 5)},
                 now_);
  EXPECT_EQ(shared_->ejection.out, 0U);
  eject_outliers(config_, *shared_,
                 std::vector<EndpointSample>{sample(100, 100, 0), sample(100, 0, 5),
                                             sample(99, 0, 5), sample(99, 0, 5)},
                 now_);
  EXPECT_EQ(shared_->ejection.out, 0U);
}

TEST_F(EjectionTest, ComparingNeverGoesOverTheCap) {
  config_.eject.success.value = 0.1;
  make(5);
  eject_outliers(
      config_, *shared_,
      std::vector<EndpointSample>{sample(100, 90, 5), sample(100, 90, 5), sample(100, 90, 5),
                                  sample(100, 0, 5), sample(100, 0, 5)},
      now_);
  EXPECT_EQ(shared_->ejection.out, 2U);
}

TEST_F(EjectionTest, SamplesAreTakenOnlyWhereCompared) {
  make(2);
  report(0, kSuccess, 3);
  EXPECT_EQ(service_->endpoints()[0]->sample.requests, 0U);
  config_.eject.latency.value = 3;
  report(0,
         {.outcome = Outcome::kSuccess, .status = 200, .answered = true, .latency_ns = 2'000'000},
         3);
  report(0, k503);
  const EndpointSample& sample = service_->endpoints()[0]->sample;
  EXPECT_EQ(sample.requests, 4U);
  EXPECT_EQ(sample.failures, 1U);
  EXPECT_EQ(sample.latencies, 3U);
  EXPECT_EQ(sample.latency_us, 6'000U);
}

}  // namespace
}  // namespace outrider
