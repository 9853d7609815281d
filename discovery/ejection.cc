#include "discovery/ejection.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "config/grammar.h"
#include "config/log.h"
#include "config/written.h"

namespace outrider {
namespace {

constexpr std::string_view kWords[] = {"gateway_errors", "server_errors", "local_failures",
                                       "success_rate", "latency"};
static_assert(std::size(kWords) == static_cast<std::size_t>(EjectedFor::kCount));

// One run of failures grows; true when it has come to its end, and begins anew.
bool grow(std::uint16_t& run, unsigned end) {
  if (end == 0 || ++run < end) return false;
  run = 0;
  return true;
}

struct Step {
  FailureRuns next;
  bool decides = false;
  EjectedFor why = EjectedFor::kGatewayErrors;
};

Step advance(const config::Eject& eject, FailureRuns runs, Outcome outcome) {
  Step step{runs};
  const auto count = [&](std::uint16_t& run, unsigned end, EjectedFor why) {
    if (!grow(run, end)) return;
    step.decides = true;
    step.why = why;
  };
  const bool local = outcome == Outcome::kLocalFailure;
  if (local && eject.after_local.value != 0) {
    count(step.next.local, eject.after_local.value, EjectedFor::kLocalFailures);
    return step;
  }
  if (!local) step.next.local = 0;  // whatever it said, it answered
  count(step.next.server, eject.after_5xx.value, EjectedFor::kServerErrors);
  if (outcome == Outcome::kServerError)
    step.next.gateway = 0;
  else
    count(step.next.gateway, eject.after.value, EjectedFor::kGatewayErrors);
  return step;
}

std::string percent(double share) {
  return std::to_string(static_cast<int>(std::lround(share * 100))) + "%";
}

// Whether another may go: within `at_most`, and somebody is left.
bool may_go(const config::Service& config, const ServiceShared& shared, std::size_t endpoint) {
  std::size_t members = 0;
  std::size_t out = 0;
  std::size_t left = 0;
  for (std::size_t i = 0; i < shared.endpoints.size(); ++i) {
    if (config.endpoints[i].weight == 0) continue;
    const EndpointState& state = *shared.endpoints[i];
    ++members;
    if (state.ejection.out)
      ++out;
    else if (i != endpoint && state.usable())
      ++left;
  }
  const double most = config.eject.at_most.value * static_cast<double>(members) + 1e-9;
  return left != 0 && static_cast<double>(out + 1) <= most;
}

// With the mutex held.
void eject(const config::Service& config, ServiceShared& shared, std::size_t endpoint,
           EjectedFor why, std::string words, std::uint64_t now_ms) {
  EndpointState& state = *shared.endpoints[endpoint];
  EjectionRecord& record = state.ejection;
  if (record.out) return;
  if (!may_go(config, shared, endpoint)) {
    ++shared.ejection.refused;
    return;
  }
  const auto span = static_cast<std::uint64_t>(config.eject.span.value.count());
  // A worker's clock may be a turn of its loop behind.
  const std::uint64_t behaved =
      now_ms > record.returned_ms ? (now_ms - record.returned_ms) / span : 0;
  record.times -= static_cast<unsigned>(std::min<std::uint64_t>(record.times, behaved));
  record.times = std::min(record.times + 1, limits::kEjectTimesMost);
  record.until_ms = now_ms + span * record.times;
  record.out = true;
  record.why = std::move(words);
  ++shared.ejection.count[static_cast<std::size_t>(why)];
  shared.ejection.out.fetch_add(1, std::memory_order_relaxed);
  log::warn("service {}: endpoint {} {} for {}: {}", config.name,
            config.endpoints[endpoint].address.to_string(),
            config.eject.observe ? "would be ejected (mode: observe)" : "is ejected",
            config::written(Millis(span * record.times)), record.why);
  if (config.eject.observe) return;
  state.ejected.store(true, std::memory_order_relaxed);
  shared.changed();
}

std::string word_of(const AttemptReport& report) {
  if (report.outcome == Outcome::kLocalFailure) return std::string(info(report.reason).word);
  if (report.status != 200) return std::to_string(report.status);
  return "grpc:" + std::string(config::grpc_name(report.grpc_status));
}

std::string words_of(const config::Eject& eject, EjectedFor why, const AttemptReport& report) {
  const std::string last = ", the last: " + word_of(report);
  switch (why) {
    case EjectedFor::kServerErrors:
      return std::to_string(eject.after_5xx.value) + " answers of 500 and above in a row" + last;
    case EjectedFor::kLocalFailures:
      return std::to_string(eject.after_local.value) + " failures without an answer in a row" +
             last;
    default: return std::to_string(eject.after.value) + " gateway errors in a row" + last;
  }
}

// One number of each endpoint that had enough requests.
struct Compared {
  std::size_t endpoint;
  double value;
};

// Of the others than the one at `own`; `all` is sorted.
double median_of_others(const std::vector<Compared>& all, std::size_t own) {
  const auto at = [&](std::size_t i) { return all[i < own ? i : i + 1].value; };
  const std::size_t count = all.size() - 1;
  return count % 2 != 0 ? at(count / 2) : (at(count / 2 - 1) + at(count / 2)) / 2;
}

}  // namespace

std::string_view to_string(EjectedFor why) { return kWords[static_cast<std::size_t>(why)]; }

Outcome outcome_of(Reason reason, int status, int grpc_status) {
  // As gRPC says them. The others are the application's own.
  constexpr int kUnknown = 2;
  constexpr int kDeadlineExceeded = 4;
  constexpr int kInternal = 13;
  constexpr int kUnavailable = 14;
  constexpr int kDataLoss = 15;
  switch (reason) {
    case Reason::kOk:
      if (status >= 502 && status <= 504) return Outcome::kGatewayError;
      if (status >= 500) return Outcome::kServerError;
      switch (grpc_status) {
        case kUnavailable:
        case kDeadlineExceeded: return Outcome::kGatewayError;
        case kUnknown:
        case kInternal:
        case kDataLoss: return Outcome::kServerError;
        default: return Outcome::kSuccess;
      }
    case Reason::kConnectFailure:
    case Reason::kConnectTimeout:
    case Reason::kTlsFailure:
    case Reason::kUpstreamReset:
    case Reason::kUpstreamProtocolError:
    case Reason::kTimeoutHeaders:
    case Reason::kTimeoutPerTry: return Outcome::kLocalFailure;
    default: return Outcome::kNeither;
  }
}

void note_failure(const config::Service& config, ServiceShared& shared, std::size_t endpoint,
                  const AttemptReport& report) {
  std::atomic<FailureRuns>& runs = shared.endpoints[endpoint]->failures;
  FailureRuns seen = runs.load(std::memory_order_relaxed);
  Step step;
  do step = advance(config.eject, seen, report.outcome);
  while (!runs.compare_exchange_weak(seen, step.next, std::memory_order_relaxed));
  if (!step.decides) return;
  const std::lock_guard lock(shared.ejection.mutex);
  eject(config, shared, endpoint, step.why, words_of(config.eject, step.why, report),
        report.now_ns / 1'000'000);
}

std::uint64_t return_ejected(const config::Service& config, ServiceShared& shared,
                             std::uint64_t now_ms) {
  if (shared.ejection.out.load(std::memory_order_relaxed) == 0) return 0;
  std::uint64_t next = 0;
  const std::lock_guard lock(shared.ejection.mutex);
  for (std::size_t i = 0; i < shared.endpoints.size(); ++i) {
    EndpointState& state = *shared.endpoints[i];
    EjectionRecord& record = state.ejection;
    if (!record.out) continue;
    if (record.until_ms > now_ms) {
      next = next == 0 ? record.until_ms : std::min(next, record.until_ms);
      continue;
    }
    record.out = false;
    record.returned_ms = now_ms;
    state.failures.store({}, std::memory_order_relaxed);
    shared.ejection.out.fetch_sub(1, std::memory_order_relaxed);
    log::info("service {}: endpoint {} {}", config.name, config.endpoints[i].address.to_string(),
              config.eject.observe ? "would be let back in (mode: observe)" : "is let back in");
    if (!state.ejected.exchange(false, std::memory_order_relaxed)) continue;
    state.usable_since_ms.store(now_ms, std::memory_order_relaxed);
    shared.changed();
  }
  return next;
}

void eject_outliers(const config::Service& config, ServiceShared& shared,
                    std::span<const EndpointSample> samples, std::uint64_t now_ms) {
  const config::Eject& rules = config.eject;
  std::vector<Compared> rates;
  std::vector<Compared> latencies;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const EndpointSample& sample = samples[i];
    if (sample.requests >= rules.volume.value)
      rates.push_back(
          {i, 1 - static_cast<double>(sample.failures) / static_cast<double>(sample.requests)});
    if (sample.latencies >= rules.volume.value)
      latencies.push_back(
          {i, static_cast<double>(sample.latency_us) / static_cast<double>(sample.latencies)});
  }
  const std::lock_guard lock(shared.ejection.mutex);
  if (rules.success.value > 0 && rates.size() >= limits::kOutlierPeers) {
    double sum = 0;
    for (const Compared& one : rates) sum += one.value;
    for (const Compared& one : rates) {
      const double mean = (sum - one.value) / static_cast<double>(rates.size() - 1);
      if (one.value < mean - rules.success.value)
        eject(config, shared, one.endpoint, EjectedFor::kSuccessRate,
              percent(one.value) + " of its requests succeed, of the others' " + percent(mean),
              now_ms);
    }
  }
  if (rules.latency.value != 0 && latencies.size() >= limits::kOutlierPeers) {
    std::sort(latencies.begin(), latencies.end(),
              [](const Compared& a, const Compared& b) { return a.value < b.value; });
    for (std::size_t i = 0; i < latencies.size(); ++i) {
      const double middle = median_of_others(latencies, i);
      if (latencies[i].value > middle * rules.latency.value)
        eject(config, shared, latencies[i].endpoint, EjectedFor::kLatency,
              "it takes " + std::to_string(std::llround(latencies[i].value / 1000)) +
                  "ms to answer, the others " + std::to_string(std::llround(middle / 1000)) + "ms",
              now_ms);
    }
  }
}

}  // namespace outrider
