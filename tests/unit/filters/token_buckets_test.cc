// Buckets under a clock of the test's own: what comes out is never above burst + rate × time, for
// any arrivals, any number of keys and any number of threads.
#include "filters/token_buckets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "config/limits.h"
#include "discovery/hash.h"
#include "discovery/service.h"

namespace outrider {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kKey = 0x0123'4567'89ab'cdef;

TEST(TokenBuckets, ABurstAndThenOneAStep) {
  TokenBuckets buckets({kSecond / 10, 3});
  for (const std::uint64_t left : {2U, 1U, 0U}) {
    const Drawn drawn = buckets.take(kKey, 5 * kSecond);
    EXPECT_TRUE(drawn.admitted);
    EXPECT_EQ(drawn.remaining(buckets.allowance()), left);
  }
  const Drawn refused = buckets.take(kKey, 5 * kSecond);
  EXPECT_FALSE(refused.admitted);
  EXPECT_EQ(refused.wait_ns(buckets.allowance()), kSecond / 10);
  EXPECT_FALSE(buckets.take(kKey, 5 * kSecond + kSecond / 10 - 1).admitted);
  EXPECT_TRUE(buckets.take(kKey, 5 * kSecond + kSecond / 10).admitted);
  EXPECT_FALSE(buckets.take(kKey, 5 * kSecond + kSecond / 10).admitted);
  EXPECT_TRUE(buckets.take(kKey + 1, 5 * kSecond).admitted) << "another key, another bucket";
}

TEST(TokenBuckets, LookingTakesNothing) {
  TokenBuckets buckets({kSecond, 1});
  EXPECT_TRUE(buckets.look(kKey, kSecond).admitted);
  EXPECT_EQ(buckets.keys(), 0U);
  EXPECT_TRUE(buckets.take(kKey, kSecond).admitted);
  EXPECT_FALSE(buckets.look(kKey, kSecond).admitted);
  EXPECT_TRUE(buckets.look(kKey, 2 * kSecond).admitted);
  EXPECT_TRUE(buckets.look(kKey, 2 * kSecond).admitted);
}

TEST(TokenBuckets, APauseSavesNoMoreThanTheBurst) {
  TokenBuckets buckets({kSecond, 2});
  int admitted = 0;
  for (int i = 0; i < 10; ++i) admitted += buckets.take(kKey, 1'000'000 * kSecond).admitted;
  EXPECT_EQ(admitted, 2);
}

TEST(TokenBuckets, AClockThatIsBehindOnlyMakesItStricter) {
  TokenBuckets buckets({kSecond, 2});
  EXPECT_TRUE(buckets.take(kKey, 100 * kSecond).admitted);
  const Drawn late = buckets.take(kKey, 1 * kSecond);
  EXPECT_FALSE(late.admitted);
  EXPECT_EQ(late.remaining(buckets.allowance()), 0U) << "never below nothing";
  EXPECT_TRUE(buckets.take(kKey, 100 * kSecond).admitted) << "what was refused cost nothing";
}

// For arrivals of every kind: no window between two admitted requests holds more than it may.
TEST(TokenBuckets, NeverAboveBurstAndRateTimesTime) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    const Allowance allowance{1 + random.next() % (kSecond / 3), 1 + random.below(30)};
    TokenBuckets buckets(allowance);
    std::vector<std::uint64_t> times;
    std::uint64_t now = random.next() % (1000 * kSecond);
    for (int i = 0; i < 2'000; ++i) {
      const std::uint64_t most = allowance.step_ns * (random.below(20) == 0 ? 40 : 2);
      now += random.below(3) == 0 ? random.next() % most : 0;
      if (buckets.take(kKey, now).admitted) times.push_back(now);
    }
    ASSERT_GE(times.size(), allowance.burst);
    for (std::size_t last = 0; last < times.size(); ++last)
      for (std::size_t first = last >= 100 ? last - 100 : 0; first <= last; ++first)
        ASSERT_LE(last - first + 1,
                  allowance.burst + (times[last] - times[first]) / allowance.step_ns)
            << "seed " << seed << ", from " << first << " to " << last;
  }
}

// The same when keys by the thousand come and go: as long as few of them are in debt, none that is
// loses its place.
TEST(TokenBuckets, KeysInDebtAreNotForgotten) {
  TokenBuckets buckets({kSecond, 1});
  std::uint64_t now = kSecond;
  constexpr std::uint64_t kInDebt = limits::kLimitKeys / 2;
  for (std::uint64_t key = 0; key < kInDebt; ++key)
    ASSERT_TRUE(buckets.take(mix64(key), now).admitted);
  for (std::uint64_t key = 0; key < kInDebt; ++key)
    ASSERT_FALSE(buckets.take(mix64(key), now + 1).admitted) << key;
  // Later, all of these may be forgotten, and others take their places.
  now += 2 * kSecond;
  for (std::uint64_t key = 0; key < kInDebt; ++key)
    ASSERT_TRUE(buckets.take(mix64(key + kInDebt), now).admitted);
  for (std::uint64_t key = 0; key < kInDebt; ++key)
    ASSERT_FALSE(buckets.take(mix64(key + kInDebt), now + 1).admitted) << key;
  EXPECT_LE(buckets.keys(), kInDebt + kInDebt / 4) << "full buckets make room first";
}

TEST(TokenBuckets, AMillionKeysAreBounded) {
  TokenBuckets buckets({kSecond, 2});
  for (std::uint64_t key = 0; key < 1'000'000; ++key) {
    buckets.take(mix64(key), kSecond + key);
    if (key % 1000 == 0) buckets.take(mix64(0), kSecond + key);  // in use all the time
  }
  EXPECT_LE(buckets.keys(), limits::kLimitKeys * 9 / 8 + 128);
  EXPECT_GE(buckets.keys(), limits::kLimitKeys);
  EXPECT_FALSE(buckets.take(mix64(0), kSecond).admitted) << "the one used longest ago goes";
}

TEST(TokenBuckets, ExactForAnyNumberOfThreads) {
  constexpr int kThreads = 8, kAsked = 20'000;
  constexpr std::uint64_t kKeys = 16;
  const Allowance allowance{1'000, 50};
  TokenBuckets buckets(allowance);
  std::array<std::atomic<std::uint64_t>, kKeys> admitted{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      Random random(static_cast<std::uint64_t>(t));
      for (std::uint64_t i = 0; i < kAsked; ++i) {
        const std::uint64_t key = random.next() % kKeys;
        // Clocks of threads are near each other, not equal.
        const std::uint64_t now = kSecond + i * 20 + random.next() % 5'000;
        if (buckets.take(mix64(key), now).admitted) ++admitted[key];
      }
    });
  for (std::thread& thread : threads) thread.join();
  const std::uint64_t span = kAsked * 20 + 5'000;
  for (const auto& count : admitted) {
    EXPECT_LE(count, allowance.burst + span / allowance.step_ns);
    EXPECT_GE(count, allowance.burst);
  }
  // While time stands still the burst is given out to the last token, and not one more.
  std::atomic<std::uint64_t> at_once{0};
  threads.clear();
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1'000; ++i) at_once += buckets.take(kKey, 1'000 * kSecond).admitted;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(at_once, allowance.burst);
}

}  // namespace
}  // namespace outrider
