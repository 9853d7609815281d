// Small values that say what went wrong, and the assert for our own invariants.
// What a peer sends is never asserted: it is answered. Reasons (reason.h) are what users see.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <variant>

#include "config/reason.h"

namespace outrider {

// Whom a failure is blamed on in logs and metrics.
enum class Origin : std::uint8_t { kClient, kProxy, kUpstream };

// One failure on its way to becoming a response. `repeatable`: nothing took effect upstream.
struct Error {
  Reason reason = Reason::kInternal;
  Origin origin = Origin::kProxy;
  bool repeatable = false;
  bool gone = false;      // the connection ended, not this exchange alone
  bool answered = false;  // bytes of an answer had come
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}       // NOLINT: implicit by design
  Result(Error error) : state_(std::in_place_index<1>, error) {}  // NOLINT: implicit by design
  explicit operator bool() const { return state_.index() == 0; }
  T& value() { return *std::get_if<0>(&state_); }
  const T& value() const { return *std::get_if<0>(&state_); }
  const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

[[noreturn]] inline void broken_invariant(const char* what, const char* file, int line) {
  std::fprintf(stderr, "outrider: broken invariant: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace outrider

// Our own invariants, in release too.
#define OUTRIDER_ASSERT(condition)    \
  ((condition) ? static_cast<void>(0) \
               : ::outrider::broken_invariant(#condition, __FILE__, __LINE__))
