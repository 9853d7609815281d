#include <gtest/gtest.h>

#include "filters/random.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {
FilterKind fault_filter();

namespace {

using test::World;
using ::testing::Test;

class FaultTest : public Test, protected World {
 protected:
  void start(const std::string& yaml) {
    say(yaml);
    filter = fault_filter().make(context());
    ASSERT_NE(filter, nullptr);
  }
  Verdict request() { return filter->on_request(*x, control); }
  // How many of 10,000 requests are aborted.
  int aborted() {
    int count = 0;
    for (int i = 0; i < 10'000; ++i) {
      exchange();
      if (request() == Verdict::kReply) ++count;
    }
    return count;
  }
  std::vector<Event> events() { return {x->events.begin(), x->events.begin() + x->event_count}; }
  std::unique_ptr<const Filter> filter;
};

TEST_F(FaultTest, AnAbortComesAfterItsDelay) {
  start("fault: { delay: 200ms, abort: 418 100% }");
  exchange();
  EXPECT_EQ(request(), Verdict::kAskAgain);
  EXPECT_EQ(control.delay, Millis{200});
  EXPECT_FALSE(x->answer.set);
  EXPECT_EQ(request(), Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kFaultAbort);
  EXPECT_EQ(x->answer.status, 418);
  EXPECT_EQ(events(), (std::vector{Event::kFaultDelay, Event::kFaultAbort}));
}

TEST_F(FaultTest, ADelayAloneGoesOn) {
  start("fault: { delay: 1s }");
  exchange();
  EXPECT_EQ(request(), Verdict::kAskAgain);
  EXPECT_EQ(request(), Verdict::kContinue);
}

TEST_F(FaultTest, SharesAreDrawnAndReplayFromASeed) {
  start("fault: { abort: 503 10% }");
  seed_thread_random(7);
  const int count = aborted();
  EXPECT_NEAR(count, 1000, 150);
  seed_thread_random(7);
  EXPECT_EQ(aborted(), count);
}

TEST_F(FaultTest, NothingOfZeroAndAllOfHundred) {
  start("fault: { abort: 503 0% }");
  EXPECT_EQ(aborted(), 0);
  start("fault: { abort: 503 100% }");
  EXPECT_EQ(aborted(), 10'000);
}

TEST_F(FaultTest, OnlyRequestsWithTheHeader) {
  start("fault: { abort: 503, headers: { x-fault: \"yes\" } }");
  exchange();
  EXPECT_EQ(request(), Verdict::kContinue);
  exchange();
  header("X-Fault", "yes");
  EXPECT_EQ(request(), Verdict::kReply);
}

TEST_F(FaultTest, AGrpcStatusIsForGrpcAlone) {
  start("fault: { abort: \"grpc:resource-exhausted\" }");
  exchange();
  EXPECT_EQ(request(), Verdict::kContinue);
  exchange();
  x->is_grpc = true;
  EXPECT_EQ(request(), Verdict::kReply);
  EXPECT_EQ(x->answer.grpc_status, 8);
}

TEST_F(FaultTest, ObservedItOnlyCounts) {
  start("fault: { delay: 1s, abort: 503, mode: observe }");
  exchange();
  EXPECT_EQ(request(), Verdict::kContinue);
  EXPECT_FALSE(control.delay);
  EXPECT_EQ(events(), std::vector{Event::kObservedFault});
  EXPECT_EQ(x->observed[0], "would be aborted");
}

TEST_F(FaultTest, ARehearsalDrawsNothing) {
  start("fault: { delay: 1s, abort: 503 }");
  exchange();
  x->rehearsed = true;
  EXPECT_EQ(request(), Verdict::kContinue);
  EXPECT_TRUE(events().empty());
}

TEST_F(FaultTest, LeavesAreInheritedOneByOne) {
  say("fault: { abort: 503 5% }\ndefaults: { route: { fault: { abort: 500, delay: 1s } } }");
  std::vector<config::ShownLeaf> shown;
  const auto& [extension, settings] = policy.told.at(0);
  extension->show(settings.get(), shown);
  ASSERT_EQ(shown.size(), 2U);
  EXPECT_EQ(shown[0].name + " " + shown[0].value.values[0], "fault.delay 1s 100%");
  EXPECT_EQ(shown[1].name + " " + shown[1].value.values[0], "fault.abort 503 5%");
}

TEST_F(FaultTest, WhatIsMalformedIsRefused) {
  EXPECT_EQ(refused("fault: { delay: 200 1% }").size(), 1U) << "a duration has a unit";
  EXPECT_EQ(refused("fault: { delay: 200ms 1 }").size(), 1U);
  EXPECT_EQ(refused("fault: { abort: 99 }").size(), 1U);
  EXPECT_EQ(refused("fault: { abort: 503 101% }").size(), 1U);
  EXPECT_EQ(refused("fault: { abort: \"grpc:unavailble\" }"),
            std::vector<std::string>{"'grpc:unavailble' names no status of gRPC [bad-value]"});
  EXPECT_EQ(refused("fault: { mode: obsrve }").size(), 1U);
  EXPECT_EQ(refused("fault: 503").size(), 1U);
}

TEST_F(FaultTest, NothingToDoIsNoFilter) {
  EXPECT_EQ(fault_filter().make(context()), nullptr);
  say("fault: { mode: observe }");
  EXPECT_EQ(fault_filter().make(context()), nullptr);
}

}  // namespace
}  // namespace outrider
