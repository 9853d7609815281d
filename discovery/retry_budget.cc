// Slots of one second each; a slot of another second is a slot to be begun anew. Only
// compare-and-swap, no lock.
#include "discovery/retry_budget.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace outrider {
namespace {

constexpr std::uint64_t kNanoseconds = 1'000'000'000;
constexpr std::uint32_t kToldAt = 64;  // completions that a thread keeps to itself at most

std::uint32_t second_of(std::uint64_t now_ns) {
  return static_cast<std::uint32_t>(now_ns / kNanoseconds);
}
constexpr std::uint64_t pack(std::uint32_t second, std::uint32_t count) {
  return static_cast<std::uint64_t>(second) << 32 | count;
}
constexpr std::uint32_t slot_second(std::uint64_t slot) {
  return static_cast<std::uint32_t>(slot >> 32);
}
constexpr std::uint32_t slot_count(std::uint64_t slot) { return static_cast<std::uint32_t>(slot); }

// What this thread has not told yet, by budget.
struct Untold {
  std::uint32_t second = 0;
  std::uint32_t count = 0;
};
Untold& untold(std::uint32_t id) {
  thread_local std::vector<Untold> table;
  if (id >= table.size()) table.resize(id + 1);
  return table[id];
}

}  // namespace

void RetryBudget::completed(std::uint64_t now_ns) {
  const std::uint32_t second = second_of(now_ns);
  Untold& mine = untold(id_);
  if (mine.second != second || mine.count >= kToldAt) {
    if (mine.count != 0) add(completed_, mine.second, mine.count);
    mine = {second, 0};
  }
  ++mine.count;
}

bool RetryBudget::take(std::uint64_t now_ns, double share) {
  const std::uint32_t second = latest(second_of(now_ns));
  Untold& mine = untold(id_);
  if (mine.count != 0) add(completed_, mine.second, mine.count);
  mine.count = 0;
  return take_reserve(second) || take_share(second, share);
}

// One thread's clock may be a turn of its loop behind another's; the second that somebody has begun
// is everybody's, or each would have a reserve of its own at its edge.
std::uint32_t RetryBudget::latest(std::uint32_t second) {
  std::uint32_t seen = latest_.load(std::memory_order_relaxed);
  while (seen < second && !latest_.compare_exchange_weak(seen, second, std::memory_order_relaxed)) {
  }
  return std::max(seen, second);
}

void RetryBudget::add(Slots& slots, std::uint32_t second, std::uint32_t count) {
  Slot& slot = slots[second % kSlots];
  std::uint64_t seen = slot.load(std::memory_order_relaxed);
  std::uint64_t next = 0;
  do {
    if (slot_second(seen) > second) return;  // a whole round later already
    next = slot_second(seen) == second ? seen + count : pack(second, count);
  } while (!slot.compare_exchange_weak(seen, next, std::memory_order_relaxed));
}

std::uint64_t RetryBudget::sum(const Slots& slots, std::uint32_t now) {
  std::uint64_t total = 0;
  for (const Slot& slot : slots) {
    const std::uint64_t seen = slot.load(std::memory_order_relaxed);
    if (slot_second(seen) <= now && now - slot_second(seen) < kWindowSeconds)
      total += slot_count(seen);
  }
  return total;
}

bool RetryBudget::take_reserve(std::uint32_t second) {
  std::uint64_t seen = reserve_.load(std::memory_order_relaxed);
  std::uint64_t next = 0;
  do {
    const std::uint32_t used = slot_second(seen) == second ? slot_count(seen) : 0;
    if (used >= limits::kRetryBudgetPerSecond) return false;
    next = pack(second, used + 1);
  } while (!reserve_.compare_exchange_weak(seen, next, std::memory_order_relaxed));
  return true;
}

// Counted first and looked at then: two that ask at once may both be refused, never both be let
// through.
bool RetryBudget::take_share(std::uint32_t second, double share) {
  const double allowed = share * static_cast<double>(sum(completed_, second));
  if (static_cast<double>(sum(taken_, second)) + 1 > allowed) return false;
  add(taken_, second, 1);
  if (static_cast<double>(sum(taken_, second)) <= allowed) return true;
  Slot& slot = taken_[second % kSlots];
  std::uint64_t seen = slot.load(std::memory_order_relaxed);
  while (slot_second(seen) == second && slot_count(seen) != 0 &&
         !slot.compare_exchange_weak(seen, seen - 1, std::memory_order_relaxed)) {}
  return false;
}

RetryBudget& retry_budget_of(std::string_view service) {
  static std::mutex mutex;
  static auto* const budgets = new std::deque<RetryBudget>;
  static auto* const by_name = new std::map<std::string, RetryBudget*, std::less<>>;
  const std::lock_guard lock(mutex);
  if (const auto found = by_name->find(service); found != by_name->end()) return *found->second;
  RetryBudget& budget = budgets->emplace_back(static_cast<std::uint32_t>(budgets->size()));
  by_name->emplace(service, &budget);
  return budget;
}

}  // namespace outrider
