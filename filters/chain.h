// Filter chains, one per route target, and the compiled routes that hold them. Immutable, shared by
// all workers. The order of filters is the order of registry.cc; a chain keeps one list per phase,
// so a filter costs nothing in the phases it did not name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "config/extension.h"
#include "config/model.h"
#include "filters/filter.h"
#include "filters/hash_key.h"

namespace outrider {

class LimitBook;  // filters/limit_book.h

// What a filter is made from.
struct FilterContext {
  const config::Config& config;
  const config::Route& route;
  const config::Policy& policy;    // effective for this target
  const config::Service* service;  // null for redirect and respond
  bool forwards;                   // the route's action is `to`
  LimitBook& limits;               // of this process
  template <class Settings>
  const Settings* told() const {
    return config::told<Settings>(policy);
  }
};

class Chain {
 public:
  Chain() = default;
  explicit Chain(const FilterContext& context);  // registry.cc

  Verdict on_request(Exchange& x, StreamControl& control, std::uint8_t& position) const {
    for (; position < request_.size();) {
      const Verdict verdict = request_[position++]->on_request(x, control);
      if (verdict == Verdict::kAskAgain) --position;
      if (verdict != Verdict::kContinue) return verdict;
    }
    return Verdict::kContinue;
  }
  void on_attempt(Exchange& x) const {
    for (const Filter* filter : attempt_) filter->on_attempt(x);
  }
  Verdict on_attempt_failed(Exchange& x, const Error& error, StreamControl& control) const {
    for (const Filter* filter : attempt_failed_) {
      const Verdict verdict = filter->on_attempt_failed(x, error, control);
      if (verdict != Verdict::kContinue) return verdict;
    }
    return Verdict::kContinue;
  }
  Verdict on_response(Exchange& x, StreamControl& control, std::uint8_t& position) const {
    for (; position < response_.size();) {
      const Verdict verdict = response_[position++]->on_response(x, control);
      if (verdict != Verdict::kContinue) return verdict;
    }
    return Verdict::kContinue;
  }
  bool on_slow(Exchange& x, StreamControl& control) const {
    for (const Filter* filter : slow_)
      if (!filter->on_slow(x, control)) return false;
    return !slow_.empty();
  }
  void on_done(Exchange& x) const {
    for (const Filter* filter : done_) filter->on_done(x);
  }

 private:
  std::vector<std::unique_ptr<const Filter>> filters_;
  std::vector<const Filter*> request_, attempt_, attempt_failed_, response_ /* reversed */, slow_,
      done_;
};

// Where copies of requests go.
struct MirrorTarget {
  std::uint32_t service = 0;  // index in Config::services
  std::int32_t subset = -1;
  double share = 0;  // of the requests; 0: none
};

struct CompiledTarget {
  const config::Target* target = nullptr;  // null for redirect and respond
  const config::Policy* policy = nullptr;
  std::uint32_t service = 0;  // index in Config::services; meaningless without target
  std::int32_t subset = -1;   // index in the service's subsets, in name order; -1: all endpoints
  std::uint32_t weight = 1;
  std::uint32_t service_label = 0;  // metrics labels
  MirrorTarget mirror;
  std::optional<HashKey> hash_key;  // where the service balances by one
  Chain chain;
};

struct CompiledRoute {
  const config::Route* route = nullptr;
  std::uint32_t index = 0;  // in Config::routes
  std::uint32_t route_label = 0;
  std::uint32_t total_weight = 0;
  bool needs_captures = false;
  config::Traits traits;                // of any target
  std::vector<CompiledTarget> targets;  // one for redirect and respond
};

}  // namespace outrider
