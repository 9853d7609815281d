#include "discovery/concurrency.h"

#include <algorithm>
#include <cmath>

namespace outrider {
namespace {

constexpr std::uint64_t kWindowMs = 100;
constexpr std::uint64_t kAnswers = 50;       // a mean of fewer is mostly noise
constexpr std::uint64_t kBaseAnswers = 250;  // what is kept for long has to be better
constexpr std::uint64_t kMeasureMs = 1'000;  // … but not for longer, as fewer are let in meanwhile
constexpr std::uint64_t kSoonestMs =
    3'000;  // the base is measured anew, at first and after a change
constexpr std::uint64_t kAgainMs = 30'000;  // … and later
constexpr double kSlack = 1.15;             // slower than the base by less is noise
constexpr double kSmooth = 0.3;             // of the way to the new limit in one window
constexpr double kFastGrowth = 1.5;
constexpr double kSteepest = 0.5;  // one window halves at most

}  // namespace

void ConcurrencyLimit::note(std::uint64_t latency_us, std::uint64_t in_flight,
                            std::uint64_t now_ms) {
  sum_us_.fetch_add(latency_us, std::memory_order_relaxed);
  const std::uint64_t count = count_.fetch_add(1, std::memory_order_relaxed) + 1;
  std::uint64_t most = most_in_flight_.load(std::memory_order_relaxed);
  while (most < in_flight &&
         !most_in_flight_.compare_exchange_weak(most, in_flight, std::memory_order_relaxed)) {}
  if (count < kAnswers || now_ms < ends_ms_.load(std::memory_order_relaxed)) return;
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || now_ms < ends_ms_.load(std::memory_order_relaxed)) return;
  if (phase_ == Phase::kMeasure && count < kBaseAnswers && now_ms < measure_ends_ms_) return;
  end_window(now_ms);
}

void ConcurrencyLimit::end_window(std::uint64_t now_ms) {
  const std::uint64_t count = count_.exchange(0, std::memory_order_relaxed);
  const std::uint64_t sum = sum_us_.exchange(0, std::memory_order_relaxed);
  const std::uint64_t most = most_in_flight_.exchange(0, std::memory_order_relaxed);
  ends_ms_.store(now_ms + kWindowMs, std::memory_order_relaxed);
  if (count == 0) return;
  const double mean = std::max(1.0, static_cast<double>(sum) / static_cast<double>(count));
  switch (phase_) {
    case Phase::kEmpty:
      phase_ = Phase::kMeasure;
      measure_ends_ms_ = now_ms + kMeasureMs;
      break;
    case Phase::kMeasure:
      // Half of a limit that is much too high may still keep the service busy: then the next
      // measure, at half of a lower one, finds less, until they agree.
      again_ms_ = mean * kSlack < base_us_ || base_us_ == 0 ? kSoonestMs
                                                            : std::min(again_ms_ * 2, kAgainMs);
      base_us_ = mean;
      goal_then_ = goal_;
      measured_ms_ = now_ms;
      phase_ = Phase::kRun;
      break;
    case Phase::kRun:
      follow(mean, most * 2 >= limit());
      const std::uint64_t since = now_ms - measured_ms_;
      const bool changed = goal_ < goal_then_ / 2 || mean < base_us_ / kSlack;
      if (since >= again_ms_ || (changed && since >= kSoonestMs)) phase_ = Phase::kEmpty;
      break;
  }
  publish();
}

// Where answers take twice as long as they should, half of the requests are waiting. A root of the
// limit may wait at any time: without any, nobody would learn that there is room for more.
void ConcurrencyLimit::follow(double mean_us, bool used) {
  const double gradient = std::clamp(base_us_ * kSlack / mean_us, kSteepest, 1.0);
  if (gradient < 1) starting_ = false;
  double next = goal_ * gradient;
  if (used) next = starting_ ? next * kFastGrowth : next + std::sqrt(goal_) / 2;
  goal_ += (next - goal_) * (starting_ ? 1 : kSmooth);
  goal_ = std::clamp(goal_, static_cast<double>(limits::kConcurrencyLeast),
                     static_cast<double>(limits::kConcurrencyMost));
}

void ConcurrencyLimit::publish() {
  const double now = phase_ == Phase::kRun ? goal_ : goal_ / 2;
  limit_.store(std::max(limits::kConcurrencyLeast, static_cast<unsigned>(std::lround(now))),
               std::memory_order_relaxed);
}

}  // namespace outrider
