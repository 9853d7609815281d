// How many requests a service takes at once, found out from how long its answers take.
//
// As long as answers take no longer than when the service was not busy, more are let in; when they
// begin to, they wait in the service rather than being worked on, and fewer are. What "not busy"
// means is measured now and then, by letting in half as many for a moment: a memory of the fastest
// answers would be wrong for ever once the service has become slower.
//
// Process-wide, one per service. Requests of a service that asks for it touch shared counters; one
// thread at a time works out the next limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "config/limits.h"

namespace outrider {

class ConcurrencyLimit {
 public:
  unsigned limit() const { return limit_.load(std::memory_order_relaxed); }
  // An answer came after so long, with so many requests in flight.
  void note(std::uint64_t latency_us, std::uint64_t in_flight, std::uint64_t now_ms);

 private:
  enum class Phase : std::uint8_t {
    kRun,
    kEmpty,    // half as many are let in; those from before are still there
    kMeasure,  // what answers take now is the base
  };
  void end_window(std::uint64_t now_ms);
  void follow(double mean_us, bool used);
  void publish();

  std::atomic<unsigned> limit_{limits::kConcurrencyStart};
  // Of the window that runs.
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint64_t> sum_us_{0};
  std::atomic<std::uint64_t> most_in_flight_{0};
  std::atomic<std::uint64_t> ends_ms_{0};

  std::mutex mutex_;             // guards what follows
  Phase phase_ = Phase::kEmpty;  // the first answers are the fastest of the first requests
  double goal_ = limits::kConcurrencyStart;       // the limit, but while measuring
  double base_us_ = 0;                            // 0: not measured
  double goal_then_ = limits::kConcurrencyStart;  // when it was measured
  std::uint64_t measured_ms_ = 0;
  std::uint64_t measure_ends_ms_ = 0;
  std::uint64_t again_ms_ = 0;  // from one measure to the next
  bool starting_ = true;        // grows fast until answers get slower for the first time
};

}  // namespace outrider
