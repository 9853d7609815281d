// Virtual time: a queue of what happens when, and the one source of chance. Nothing in a simulation
// sleeps, has a thread or asks a real clock, so a seed decides everything that will ever happen.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

#include "discovery/service.h"

namespace outrider::sim {

using Nanos = std::uint64_t;
inline constexpr Nanos kMicro = 1'000;
inline constexpr Nanos kMilli = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {}
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Nanos now() const { return now_; }
  Random& random() { return random_; }
  double chance() { return static_cast<double>(random_.next() >> 11) * 0x1.0p-53; }  // below 1
  Nanos exponential(Nanos mean);
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : random_.next() % bound; }

  // What is due at one moment happens in an order that the seed decides.
  void at(Nanos when, std::function<void()> what);
  void after(Nanos delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }
  bool step();  // the next that happens; false: nothing is left
  void run_until(Nanos when);
  std::uint64_t steps() const { return steps_; }

  // Called after each step.
  std::function<void()> look;

  // What is observable, folded into one number: two runs of a seed end with the same.
  void note(std::string_view what, std::uint64_t a = 0, std::uint64_t b = 0);
  std::uint64_t trace() const { return trace_; }

  // A broken invariant: the run goes on, and fails.
  void violated(const std::string& what);
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  struct Event {
    Nanos when;
    std::uint64_t tie;
    std::uint64_t number;
    std::function<void()> what;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      if (a.when != b.when) return a.when > b.when;
      return a.tie != b.tie ? a.tie > b.tie : a.number > b.number;
    }
  };
  Random random_;
  Nanos now_ = 1'000 * kSecond;
  std::uint64_t steps_ = 0;
  std::uint64_t number_ = 0;
  std::uint64_t trace_ = 0xcbf29ce484222325;
  std::vector<Event> queue_;  // a heap
  std::vector<std::string> violations_;
};

}  // namespace outrider::sim
