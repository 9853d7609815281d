// The loop's own promises: timers never early and never lost, posts in order, deferred destruction
// after the turn.
#include "discovery/uv_loop.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace outrider {
namespace {

struct Alarm {
  explicit Alarm(EventLoop& loop)
      : loop(loop), timer(loop, call_member<&Alarm::fire, Alarm>, this) {}
  void fire() {
    fired_at_ms = loop.now_ms();
    ++fired;
    if (stop_loop) loop.stop();
  }
  EventLoop& loop;
  Timer timer;
  std::uint64_t fired_at_ms = 0;
  int fired = 0;
  bool stop_loop = false;
};

TEST(EventLoop, TimersFireInOrderAndNeverEarly) {
  UvLoop loop;
  const std::uint64_t start = loop.now_ms();
  Alarm late(loop), early(loop), middle(loop);
  late.stop_loop = true;
  late.timer.start(Millis{120});
  early.timer.start(Millis{5});
  middle.timer.start(Millis{60});
  loop.run();
  EXPECT_GE(early.fired_at_ms, start + 5);
  EXPECT_GE(middle.fired_at_ms, start + 60);
  EXPECT_GE(late.fired_at_ms, start + 120);
  EXPECT_LE(early.fired_at_ms, middle.fired_at_ms);
  EXPECT_EQ(early.fired + middle.fired + late.fired, 3);
}

TEST(EventLoop, AMovedTimerFiresOnceAtItsNewTime) {
  UvLoop loop;
  const std::uint64_t start = loop.now_ms();
  Alarm moved(loop), end(loop);
  end.stop_loop = true;
  moved.timer.start(Millis{10});
  moved.timer.start(Millis{90});  // later: the old slot must not fire it
  end.timer.start(Millis{150});
  loop.run();
  EXPECT_EQ(moved.fired, 1);
  EXPECT_GE(moved.fired_at_ms, start + 90);
}

TEST(EventLoop, StoppedTimersWakeNobody) {
  uv_prepare_t before_wait;
  int waits = 0;
  UvLoop loop;
  before_wait.data = &waits;
  uv_prepare_init(loop.uv(), &before_wait);
  uv_prepare_start(&before_wait, [](uv_prepare_t* handle) { ++*static_cast<int*>(handle->data); });
  constexpr int kStopped = 50;
  for (int i = 1; i <= kStopped; ++i) {
    Alarm stopped(loop);
    stopped.timer.start(Millis{10 * i});
    stopped.timer.stop();
  }
  Alarm end(loop);
  end.stop_loop = true;
  end.timer.start(Millis{10 * kStopped});
  loop.run();
  EXPECT_LT(waits, kStopped / 4);
  uv_close(reinterpret_cast<uv_handle_t*>(&before_wait), nullptr);
}

TEST(EventLoop, WhateverTakesLongInATurnIsNoted) {
  constexpr std::uint64_t kAtLeast = 40'000'000;  // of 60 ms, since libuv's clock is coarse
  UvLoop loop;
  Alarm end(loop);
  end.stop_loop = true;
  end.timer.start(Millis{100});
  loop.post([] { std::this_thread::sleep_for(std::chrono::milliseconds(60)); });
  loop.run();
  EXPECT_GE(loop.longest_turn_ns, kAtLeast);
}

TEST(EventLoop, ATimerCanBeMovedEarlier) {
  UvLoop loop;
  Alarm moved(loop), end(loop);
  end.stop_loop = true;
  moved.timer.start(Millis{100'000});
  moved.timer.start(Millis{10});
  end.timer.start(Millis{60});
  loop.run();
  EXPECT_EQ(moved.fired, 1);
}

TEST(EventLoop, AStoppedTimerStaysSilentAndCanBeStartedAgain) {
  UvLoop loop;
  Alarm stopped(loop), end(loop);
  end.stop_loop = true;
  stopped.timer.start(Millis{10});
  stopped.timer.stop();
  EXPECT_FALSE(stopped.timer.armed());
  end.timer.start(Millis{50});
  loop.run();
  EXPECT_EQ(stopped.fired, 0);
  stopped.timer.start(Millis{1});
  end.timer.start(Millis{30});
  loop.run();
  EXPECT_EQ(stopped.fired, 1);
}

// More than one round of the wheel (4 s) cannot be waited for in a test, but its first slot can
// come up before it is due.
TEST(EventLoop, ATimerFurtherThanARoundIsLeftAloneWhenItsSlotComesUp) {
  UvLoop loop;
  Alarm far(loop), end(loop);
  end.stop_loop = true;
  far.timer.start(Millis{8 * 512 + 16});  // the slot of 16 ms
  end.timer.start(Millis{60});
  loop.run();
  EXPECT_EQ(far.fired, 0);
  EXPECT_TRUE(far.timer.armed());
}

TEST(EventLoop, ATimerThatStartsAnotherFromItsCallback) {
  UvLoop loop;
  struct Chain {
    explicit Chain(EventLoop& loop)
        : loop(loop), timer(loop, call_member<&Chain::fire, Chain>, this) {}
    void fire() {
      if (++count == 5)
        loop.stop();
      else
        timer.start(Millis{0});
    }
    EventLoop& loop;
    Timer timer;
    int count = 0;
  } chain(loop);
  chain.timer.start(Millis{0});
  loop.run();
  EXPECT_EQ(chain.count, 5);
}

TEST(EventLoop, PostsFromOtherThreadsRunInTheirOrder) {
  UvLoop loop;
  std::vector<int> seen;
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i) loop.post([&seen, i] { seen.push_back(i); });
    loop.post([&loop] { loop.stop(); });
  });
  loop.run();
  poster.join();
  ASSERT_EQ(seen.size(), 1000U);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(EventLoop, DeferredThingsDieAfterTheTurnAndMayDeferMore) {
  UvLoop loop;
  static int alive = 0;
  struct Thing {
    explicit Thing(EventLoop& loop, int depth) : loop(loop), depth(depth) { ++alive; }
    ~Thing() {
      --alive;
      if (depth > 0) loop.defer(std::make_unique<Thing>(loop, depth - 1));
    }
    EventLoop& loop;
    int depth;
  };
  int alive_in_turn = -1;
  loop.post([&] {
    loop.defer(std::make_unique<Thing>(loop, 3));
    alive_in_turn = alive;
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  EXPECT_EQ(alive_in_turn, 1);
  EXPECT_EQ(alive, 0);
}

}  // namespace
}  // namespace outrider
