// The one rule of inheritance: whoever is nearer to the request says, leaf by leaf; a list is one
// leaf, a header field too.
#include <algorithm>

#include "config/draft.h"
#include "config/extension.h"

namespace outrider::config {
namespace {

template <class T>
void take(Maybe<T>& leaf, const Maybe<T>& from) {
  if (!leaf && from) leaf = from;
}

void take(Fields& fields, const Fields& from) {
  const std::size_t own = fields.size();
  for (const auto& field : from) {
    const std::string name = lower(field.first);
    const bool said = std::any_of(fields.begin(), fields.begin() + static_cast<std::ptrdiff_t>(own),
                                  [&](const auto& other) { return lower(other.first) == name; });
    if (!said) fields.push_back(field);
  }
}

void take(HeaderEdits& edits, const HeaderEdits& from) {
  take(edits.set, from.set);
  take(edits.add, from.add);
  take(edits.remove, from.remove);
}

}  // namespace

void inherit(Policy& level, const Policy& from) {
  take(level.timeout_headers, from.timeout_headers);
  take(level.timeout_total, from.timeout_total);
  take(level.timeout_per_try, from.timeout_per_try);
  take(level.timeout_idle, from.timeout_idle);
  take(level.retry_attempts, from.retry_attempts);
  take(level.retry_when, from.retry_when);
  take(level.retry_backoff, from.retry_backoff);
  take(level.retry_budget, from.retry_budget);
  take(level.retry_methods, from.retry_methods);
  take(level.retry_buffer, from.retry_buffer);
  take(level.hedge_after, from.hedge_after);
  take(level.hedge_at_most, from.hedge_at_most);
  take(level.mirror, from.mirror);
  take(level.body_max, from.body_max);
  take(level.upgrade, from.upgrade);
  take(level.when_empty, from.when_empty);
  // `path` and `regex` exclude each other, so the nearer one of the two decides.
  const bool rewrites = level.rewrite_path || level.rewrite_regex;
  if (!rewrites) take(level.rewrite_path, from.rewrite_path);
  if (!rewrites) take(level.rewrite_regex, from.rewrite_regex);
  take(level.rewrite_host, from.rewrite_host);
  take(level.request_headers, from.request_headers);
  take(level.response_headers, from.response_headers);
  for (const auto& [extension, settings] : from.told) {
    const auto own = std::find_if(level.told.begin(), level.told.end(),
                                  [key = extension](const auto& it) { return it.first == key; });
    if (own == level.told.end())
      level.told.emplace_back(extension, settings);
    else
      own->second = extension->inherit(own->second.get(), settings.get());
  }
}

const Policy& built_in_policy() {
  static const Policy policy = [] {
    Policy p;
    p.timeout_headers = {limits::kResponseHead, {}};
    p.timeout_idle = {limits::kRouteIdle, {}};
    p.retry_attempts = {limits::kRetryAttempts, {}};
    p.retry_when = {RetryWhen{}, {}};
    p.retry_backoff = {Backoff{}, {}};
    p.retry_budget = {limits::kRetryBudget, {}};
    p.retry_methods = {RetryMethods::kIdempotent, {}};
    p.retry_buffer = {limits::kRetryBuffer, {}};
    p.hedge_at_most = {limits::kHedges, {}};
    p.upgrade = {std::vector<std::string>{"websocket"}, {}};
    p.when_empty = {WhenEmpty::kSpill, {}};
    return p;
  }();
  return policy;
}

}  // namespace outrider::config
