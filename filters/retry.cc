// Decides whether a failed attempt is made again, and when.
// Invariant: never after a byte of the response went to the client; never a request that is not
// idempotent once a byte of it may have been processed, unless its route or its sender said so;
// never above the service's budget. Called in Phase::kAttemptFailed with the failure, or with
// Reason::kOk when a response head is there whose status may ask for another try (of gRPC, the
// trailers too); in Phase::kSlow it decides whether a second try is made beside a slow one.
// proxy/stream_upstream.cc keeps the delay.
#include <algorithm>
#include <charconv>
#include <ctime>
#include <optional>

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
constexpr std::string_view kToldNotTo = "the upstream asks for no further try so soon";

bool is_connect(Reason reason) {
  return reason == Reason::kConnectFailure || reason == Reason::kConnectTimeout ||
         reason == Reason::kTlsFailure;
}

// -1: none came yet.
int grpc_status_of(const Exchange& x) { return x.attempt != nullptr ? x.attempt->grpc_status : -1; }

// The last moment the attempt knows of: filters have no clock of their own.
std::uint64_t moment_of(const Exchange& x) {
  const Attempt* const last = x.attempt;
  if (last == nullptr) return x.started_ns;
  return std::max(
      {last->started_ns, last->connected_ns, last->sent_ns, last->head_ns, last->ended_ns});
}

// `Retry-After: 3`, or a date; nothing when it is neither.
std::optional<Millis> retry_after_of(const Exchange& x) {
  const std::string_view text = x.response.headers.get(HeaderId::kRetryAfter);
  if (text.empty()) return std::nullopt;
  std::uint64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (end == text.data() + text.size() && error == std::errc())
    return Millis{static_cast<std::int64_t>(std::min<std::uint64_t>(seconds, 86'400)) * 1000};
  std::tm date{};
  const std::string copy(text);
  const char* const rest = strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  const std::int64_t now_ms =
      x.started_wall_ms + static_cast<std::int64_t>((moment_of(x) - x.started_ns) / 1'000'000);
  return Millis{std::max<std::int64_t>(timegm(&date) * std::int64_t{1000} - now_ms, 0)};
}

// `grpc-retry-pushback-ms` of the trailers; what is no number forbids, as gRPC says.
std::optional<Millis> pushback_of(const Exchange& x) {
  const Headers& fields =
      x.response_trailers != nullptr ? *x.response_trailers : x.response.headers;
  const Header* const header = fields.find(HeaderId::kGrpcRetryPushbackMs);
  if (header == nullptr) return std::nullopt;
  std::int32_t ms = 0;
  const char* const last = header->value.data() + header->value.size();
  const auto [end, error] = std::from_chars(header->value.data(), last, ms);
  return Millis{error == std::errc() && end == last && !header->value.empty() ? ms : -1};
}

class Retry final : public Filter {
 public:
  Retry(const Settings& settings, RetryBudget& budget)
      : Filter(Phase::kAttemptFailed | Phase::kSlow | Phase::kDone),
        settings_(settings),
        budget_(budget) {}

  Verdict on_attempt_failed(Exchange& x, const Error& error,
                            StreamControl& control) const override {
    if (x.response_started || x.tunnel || error.origin == Origin::kClient)
      return Verdict::kContinue;
    const std::uint32_t tries = x.attempts - x.hedges;
    if (tries > settings_.attempts || !is_due(x, error)) return Verdict::kContinue;
    if (!may_repeat(x, error)) {
      if (x.body_dropped) x.no_retry = "the request's body is larger than retry.buffer";
      return Verdict::kContinue;
    }
    Millis asked{0};  // by the upstream
    if (error.reason == Reason::kOk)
      asked = (grpc_status_of(x) > 0 ? pushback_of(x) : retry_after_of(x)).value_or(asked);
    if (asked.count() < 0 || asked > limits::kRetryAfterMax) return refuse(x, error, kToldNotTo);
    if (const std::string_view why = control.may_retry(asked); !why.empty())
      return refuse(x, error, why);
    if (!budget_.take(moment_of(x), settings_.budget)) return refuse(x, error, kBudgetSpent);
    x.no_retry = {};
    control.retry_after(std::max(backoff(tries), asked));
    return Verdict::kPause;
  }
  bool on_slow(Exchange& x, StreamControl& control) const override {
    const Error nothing_known{Reason::kTimeoutPerTry, Origin::kUpstream, false};
    return x.inbound_attempt <= 1 && may_repeat(x, nothing_known) &&
           control.may_retry(Millis{0}).empty() && budget_.take(moment_of(x), settings_.budget);
  }
  void on_done(Exchange& x) const override {
    if (x.attempts != 0) budget_.completed(x.ended_ns);
  }

 private:
  bool is_due(const Exchange& x, const Error& error) const {
    const config::RetryWhen& when = settings_.when;
    switch (error.reason) {
      case Reason::kOk:
        // The hop before us tries again already.
        return x.inbound_attempt <= 1 && (grpc_status_of(x) > 0 ? when.has_grpc(grpc_status_of(x))
                                                                : is_due(x.response.status));
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
    if (error.reason == Reason::kOk && grpc_status_of(x) > 0) return true;  // it was named
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
  const bool hedges = context.policy.hedge_after && context.policy.hedge_after->value.count() != 0;
  if (!context.forwards || context.service == nullptr || (settings.attempts == 0 && !hedges))
    return nullptr;
  return std::make_unique<Retry>(settings, retry_budget_of(context.service->name));
}
}  // namespace

FilterKind retry_filter() { return {make}; }

}  // namespace outrider
