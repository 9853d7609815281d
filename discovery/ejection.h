// Ejection: an endpoint at which requests fail is left alone for a while, and longer each time.
//
// Invariant: counts of failures in a row are exact and the process's, at any number of workers: the
// n-th without a success between decides, once. Never more than `at_most` of a service's endpoints
// are out, and never the last that is usable. With `mode: observe` everything happens but that.
// Workers report attempts; the control thread lets endpoints back in and compares them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "config/reason.h"
#include "discovery/service.h"

namespace outrider {

void note_failure(const config::Service& config, ServiceShared& shared, std::size_t endpoint,
                  const AttemptReport& report);
// For Service::ended().
inline void note_attempt(Service& service, Endpoint& endpoint, const AttemptReport& report) {
  const config::Eject& eject = service.config().eject;
  if (!eject.on || report.outcome == Outcome::kNeither) return;
  const bool success = report.outcome == Outcome::kSuccess;
  if (eject.compares()) {
    ++endpoint.sample.requests;
    if (!success) ++endpoint.sample.failures;
    if (report.answered) {
      ++endpoint.sample.latencies;
      endpoint.sample.latency_us += report.latency_ns / 1000;
    }
  }
  std::atomic<FailureRuns>& runs = service.shared().endpoints[endpoint.index]->failures;
  if (!success)
    note_failure(service.config(), service.shared(), endpoint.index, report);
  else if (!runs.load(std::memory_order_relaxed).none())
    runs.store({}, std::memory_order_relaxed);
}

// Lets those back in whose time is over; when the next one's is, 0: nobody is out.
std::uint64_t return_ejected(const config::Service& config, ServiceShared& shared,
                             std::uint64_t now_ms);
// `samples`: of all workers together, as the service's endpoints.
void eject_outliers(const config::Service& config, ServiceShared& shared,
                    std::span<const EndpointSample> samples, std::uint64_t now_ms);

std::string_view to_string(EjectedFor why);  // `gateway_errors`

}  // namespace outrider
