// How many retries a service may cost: a share of what completed in the last ten seconds, and some
// a second for quiet services. Process-wide, one per service name, alive across reloads. Workers
// count completions on their own and tell now and then, so that a request that needs no retry
// touches nothing shared. Invariant: no more retries than that are let through, however many
// threads ask at once; a thread's untold completions only make it stricter.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "config/limits.h"

namespace outrider {

class RetryBudget {
 public:
  explicit RetryBudget(std::uint32_t id) : id_(id) {}
  RetryBudget(const RetryBudget&) = delete;
  RetryBudget& operator=(const RetryBudget&) = delete;

  // A request ended, whatever its outcome. `now_ns` is monotonic, here and below.
  void completed(std::uint64_t now_ns);
  // May a retry be made now? `share` of 0.2 is 20 %.
  bool take(std::uint64_t now_ns, double share);

 private:
  static constexpr std::uint32_t kWindowSeconds = 10;
  static constexpr std::size_t kSlots =
      16;  // more than the window, so that a slot is reused only when it is over
  // A second in the upper half, what was counted in it in the lower.
  using Slot = std::atomic<std::uint64_t>;
  using Slots = std::array<Slot, kSlots>;

  static void add(Slots& slots, std::uint32_t second, std::uint32_t count);
  static std::uint64_t sum(const Slots& slots, std::uint32_t now);
  std::uint32_t latest(std::uint32_t second);
  bool take_reserve(std::uint32_t second);
  bool take_share(std::uint32_t second, double share);

  const std::uint32_t id_;  // of this budget in each thread's table
  Slots completed_{};
  Slots taken_{};
  Slot reserve_{0};
  std::atomic<std::uint32_t> latest_{0};
};

// The budget of a service; the reference lives as long as the process.
RetryBudget& retry_budget_of(std::string_view service);

}  // namespace outrider
