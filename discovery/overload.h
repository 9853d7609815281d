// When work is refused so that the process lives: steps that are taken as a resource nears its
// ceiling, and taken back later than they were taken, so that nothing flaps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config/limits.h"

namespace outrider {

// Each includes those before.
enum class Shed : std::uint8_t {
  kNothing,
  kClients,   // no new connection is accepted
  kRequests,  // new requests are answered 503
  kIdle,      // idle connections end, and exchanges that hold much, largest first
};

// The step for a use of `share` of the ceiling, after the step before.
constexpr Shed shed_at(double share, Shed before) {
  constexpr double kUp[] = {limits::kShedAccept, limits::kShedStreams, limits::kShedIdle};
  auto step = static_cast<std::uint8_t>(before);
  while (step < std::size(kUp) && share >= kUp[step]) ++step;
  while (step > 0 && share < kUp[step - 1] - limits::kShedBack) --step;
  return static_cast<Shed>(step);
}

// Whether something lasts: it holds after `kLooks` looks in a row that say so, and ends likewise.
class Lasting {
 public:
  bool look(bool begins, bool ends) {
    const bool other = holds_ ? ends : begins;
    run_ = other ? run_ + 1 : 0;
    if (run_ == kLooks) {
      holds_ = !holds_;
      run_ = 0;
    }
    return holds_;
  }
  bool holds() const { return holds_; }

 private:
  static constexpr unsigned kLooks = 3;
  unsigned run_ = 0;
  bool holds_ = false;
};

}  // namespace outrider
