#include "discovery/retry_budget.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace outrider {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

RetryBudget& fresh() {
  static std::atomic<int> next{0};
  return retry_budget_of("budget-" + std::to_string(next++));
}

int taken(RetryBudget& budget, std::uint64_t now_ns, double share, int asked = 1000) {
  int count = 0;
  for (int i = 0; i < asked; ++i) count += budget.take(now_ns, share) ? 1 : 0;
  return count;
}

TEST(RetryBudget, TheSameNameIsTheSameBudget) {
  EXPECT_EQ(&retry_budget_of("one"), &retry_budget_of("one"));
  EXPECT_NE(&retry_budget_of("one"), &retry_budget_of("two"));
}

TEST(RetryBudget, TenASecondComeFirst) {
  RetryBudget& budget = fresh();
  EXPECT_EQ(taken(budget, 50 * kSecond, 0), 10);
  EXPECT_EQ(taken(budget, 50 * kSecond + kSecond / 2, 0), 0);
  EXPECT_EQ(taken(budget, 51 * kSecond, 0), 10);
}

TEST(RetryBudget, AClockThatIsBehindHasNoReserveOfItsOwn) {
  RetryBudget& budget = fresh();
  EXPECT_EQ(taken(budget, 51 * kSecond, 0), 10);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(taken(budget, 50 * kSecond, 0), 0);
    EXPECT_EQ(taken(budget, 51 * kSecond, 0), 0);
  }
}

TEST(RetryBudget, AShareOfTheLastTenSecondsComesOnTop) {
  RetryBudget& budget = fresh();
  for (int second = 50; second < 60; ++second)
    for (int i = 0; i < 1000; ++i) budget.completed(second * kSecond);
  EXPECT_EQ(taken(budget, 59 * kSecond, 0.2, 5000), 2010);
  EXPECT_EQ(taken(budget, 60 * kSecond, 0.2, 5000), 10);
}

TEST(RetryBudget, WhatIsOverIsForgotten) {
  RetryBudget& budget = fresh();
  for (int i = 0; i < 1000; ++i) budget.completed(50 * kSecond);
  EXPECT_EQ(taken(budget, 60 * kSecond, 0.2), 10);
  for (int i = 0; i < 100; ++i)
    budget.completed(66 * kSecond);  // the slot of second 50, begun anew
  EXPECT_EQ(taken(budget, 66 * kSecond, 0.2), 30);
}

TEST(RetryBudget, TheFirstSecondOfAClockIsOneLikeAnyOther) {
  RetryBudget& budget = fresh();
  EXPECT_EQ(taken(budget, 0, 0), 10);
  for (int i = 0; i < 100; ++i) budget.completed(kSecond / 2);
  EXPECT_EQ(taken(budget, kSecond / 2, 0.2), 20);
}

TEST(RetryBudget, ThreadsTogetherNeverTakeMore) {
  RetryBudget& budget = fresh();
  for (int i = 0; i < 6400; ++i) budget.completed(50 * kSecond);
  EXPECT_TRUE(budget.take(50 * kSecond, 0.1));
  std::atomic<int> total{1};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] { total += taken(budget, 50 * kSecond, 0.1, 2000); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(total.load(), 650);
  EXPECT_GE(total.load(), 640) << "and hardly less";
}

TEST(RetryBudget, EveryThreadsCompletionsCount) {
  RetryBudget& budget = fresh();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 641; ++i) budget.completed(50 * kSecond);
    });
  for (std::thread& thread : threads) thread.join();
  const int got = taken(budget, 50 * kSecond, 0.5, 5000);
  EXPECT_GE(got, 4 * 640 / 2 + 10);
  EXPECT_LE(got, 4 * 641 / 2 + 10);
}

}  // namespace
}  // namespace outrider
