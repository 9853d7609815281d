// Decides whether a failed attempt is made again, and when.
// Invariant: never after a byte of the response went to the client; never a request that is not
// idempotent once a byte of it may have been processed, unless its route or its sender said so;
// never above the service's budget. Called in Phase::kAttemptFailed with the failure, or with
// Reason::kOk when a response head is there whose status may ask for another try; proxy/stream.cc
// keeps the delay.
#include <algorithm>
#include <array>
#include <vector>

#include "discovery/retry_budget.h"
#include "filters/filter.h"
#include "filters/random.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::RetryOn;

struct Settings {
  unsigned attempts = limits::kRetryAttempts;
  config::RetryWhen when;
  config::Backoff backoff;
  double budget = limits::kRetryBudget;
  bool all_methods = false;
};

Settings settings_of(const config::Policy& policy) {
  Settings settings;
  if (policy.retry_attempts) settings.attempts = policy.retry_attempts->value;
  if (policy.retry_when) settings.when = policy.retry_when->value;
  if (policy.retry_backoff) settings.backoff = policy.retry_backoff->value;
  if (policy.retry_budget) settings.budget = policy.retry_budget->value;
  if (policy.retry_methods)
    settings.all_methods = policy.retry_methods->value == config::RetryMethods::kAll;
  return settings;
}

constexpr std::string_view kBudgetSpent = "the service's retry.budget is spent";
constexpr std::string_view kTooMany = "limits.retries of the service are in flight";

bool is_connect(Reason reason) {
  return reason == Reason::kConnectFailure || reason == Reason::kConnectTimeout ||
         reason == Reason::kTlsFailure;
}

// The last moment the attempt knows of: filters have no clock of their own.
std::uint64_t moment_of(const Exchange& x) {
  const Attempt* const last = x.attempt;
  if (last == nullptr) return x.started_ns;
  return std::max(
      {last->started_ns, last->connected_ns, last->sent_ns, last->head_ns, last->ended_ns});
}

class Retry final : public Filter {
 public:
  Retry(const Settings& settings, RetryBudget& budget)
      : Filter(Phase::kAttemptFailed | Phase::kDone), settings_(settings), budget_(budget) {}

  Verdict on_attempt_failed(Exchange& x, const Error& error,
                            StreamControl& control) const override {
    if (x.response_started || x.tunnel || error.origin == Origin::kClient)
      return Verdict::kContinue;
    if (x.attempts > settings_.attempts || !is_due(x, error) || !may_repeat(x, error))
      return Verdict::kContinue;
    if (!control.may_retry()) return refuse(x, error, kTooMany);
    if (!budget_.take(moment_of(x), settings_.budget)) return refuse(x, error, kBudgetSpent);
    control.retry_after(backoff(x.attempts));
    return Verdict::kPause;
  }
  void on_done(Exchange& x) const override {
    if (x.attempts != 0) budget_.completed(x.ended_ns);
  }

 private:
  bool is_due(const Exchange& x, const Error& error) const {
    const config::RetryWhen& when = settings_.when;
    switch (error.reason) {
      case Reason::kOk:
        return is_due(x.response.status) &&
               x.inbound_attempt <= 1;  // the hop before us tries again already
      case Reason::kUpstreamReset:
      case Reason::kStaleConnection:
        return (when.has(RetryOn::kReset) && !error.answered) ||
               (error.repeatable && when.has(RetryOn::kRefusedStream));
      case Reason::kTimeoutPerTry: return when.has(RetryOn::kPerTryTimeout);
      default: return is_connect(error.reason) && when.has(RetryOn::kConnectFailure);
    }
  }
  bool is_due(int status) const {
    const config::RetryWhen& when = settings_.when;
    if (when.has(RetryOn::k5xx) && status >= 500 && status <= 599) return true;
    if (when.has(RetryOn::kGatewayError) && status >= 502 && status <= 504) return true;
    return std::find(when.statuses.begin(), when.statuses.end(), status) != when.statuses.end();
  }
  bool may_repeat(const Exchange& x, const Error& error) const {
    if (!x.replayable) return false;
    if (error.repeatable || is_connect(error.reason)) return true;
    return settings_.all_methods || is_idempotent(x.request.method) ||
           x.request.headers.find(HeaderId::kIdempotencyKey) != nullptr;
  }
  // The last attempt's answer stands: its head if there is one, else the status of its failure.
  static Verdict refuse(Exchange& x, const Error& error, std::string_view why) {
    if (error.reason == Reason::kOk) {
      x.reason = Reason::kRetryBudget;
      x.detail = why;
      return Verdict::kContinue;
    }
    x.reply(Reason::kRetryBudget,
            x.arena.concat("the last attempt ended with ", info(error.reason).word, ", and ", why),
            info(error.reason).status);
    return Verdict::kReply;
  }
  // Full jitter: anything up to a ceiling that doubles with each try.
  Millis backoff(std::uint32_t tries) const {
    Millis ceiling = settings_.backoff.min;
    for (std::uint32_t i = 1; i < tries && ceiling < settings_.backoff.max; ++i) ceiling *= 2;
    ceiling = std::min(ceiling, settings_.backoff.max);
    const auto bound =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(ceiling.count(), 0, INT32_MAX)) + 1;
    return Millis{thread_random().below(bound)};
  }

  const Settings settings_;
  RetryBudget& budget_;
};

}  // namespace

namespace {
std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Settings settings = settings_of(context.policy);
  if (!context.forwards || settings.attempts == 0 || context.service == nullptr) return nullptr;
  return std::make_unique<Retry>(settings, retry_budget_of(context.service->name));
}
}  // namespace

FilterKind retry_filter() { return {make}; }

}  // namespace outrider
