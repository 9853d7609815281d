#include "tests/sim/world.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace outrider::sim {

namespace {
constexpr std::size_t kViolationsKept = 20;
}

Nanos World::exponential(Nanos mean) {
  return static_cast<Nanos>(-std::log(1 - chance()) * static_cast<double>(mean));
}

void World::at(Nanos when, std::function<void()> what) {
  queue_.push_back({std::max(when, now_), random_.next(), number_++, std::move(what)});
  std::push_heap(queue_.begin(), queue_.end(), Later{});
}

bool World::step() {
  if (queue_.empty()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), Later{});
  Event next = std::move(queue_.back());
  queue_.pop_back();
  now_ = next.when;
  ++steps_;
  next.what();
  if (look) look();
  return true;
}

void World::run_until(Nanos when) {
  while (!queue_.empty() && queue_.front().when <= when) step();
  now_ = std::max(now_, when);
}

void World::note(std::string_view what, std::uint64_t a, std::uint64_t b) {
  const auto fold = [this](std::uint64_t value) {
    for (int i = 0; i < 8; ++i, value >>= 8) trace_ = (trace_ ^ (value & 0xff)) * 0x100000001b3;
  };
  for (const char c : what) trace_ = (trace_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  fold(now_);
  fold(a);
  fold(b);
}

void World::violated(const std::string& what) {
  if (violations_.size() < kViolationsKept) {
    const std::string when = std::to_string((now_ - 1'000 * kSecond) / kMilli) + " ms: ";
    violations_.push_back("at " + when + what);
  }
}

}  // namespace outrider::sim
