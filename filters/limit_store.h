// Limits that several proxies share, as filters see them: a store that counts for all of them. How
// it is asked is in proxy/redis_limits.h. Invariant: a question that was taken is answered once, or
// forgotten, never within ask().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "config/grammar.h"
#include "filters/token_buckets.h"

namespace outrider {

// One store as the whole process sees it. Any thread.
struct SharedStore {
  explicit SharedStore(config::StoreUrl the_url) : url(std::move(the_url)), name(url.name()) {}
  const config::StoreUrl url;
  const std::string name;                     // `127.0.0.1:6379`, for logs and metrics
  std::atomic<std::uint32_t> connections{0};  // of workers, that answer
  std::atomic<bool> away{false};              // was tried, and none answers
};

// Lives in the arena of the exchange that asks.
struct LimitQuestion {
  std::array<std::uint64_t, 2> key{};  // the same on every proxy
  Allowance allowance;
  // `known` is false when the store gave no answer.
  void (*answered)(void* owner, bool known, const Drawn& drawn) = nullptr;
  void* owner = nullptr;
  std::uint64_t ticket = 0;  // of the store
};

// One worker's way to a store.
class LimitStore {
 public:
  // False: it cannot be asked now.
  virtual bool ask(LimitQuestion& question) = 0;
  // Who asked no longer cares.
  virtual void forget(LimitQuestion& question) = 0;

 protected:
  ~LimitStore() = default;
};

}  // namespace outrider
