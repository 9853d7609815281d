// What probes say of an endpoint: answers in a row decide, so that one that flaps does not flap for
// requests. Invariant: an endpoint is usable until it was found unhealthy, so a start waits for no
// probe, and a prober that is late harms nobody.
#pragma once

#include <algorithm>
#include <string>

#include "config/model.h"

namespace outrider {

// Of one endpoint; the thread that probes has it.
struct HealthRecord {
  bool known = false;  // a first verdict has been reached
  bool unhealthy = false;
  unsigned good = 0;  // in a row
  unsigned bad = 0;
  std::string last;  // what the last probe met: `503`
};

// A probe has ended; true when the verdict changed between usable and not.
inline bool note_probe(const config::HealthCheck& check, HealthRecord& record, bool good,
                       std::string last) {
  record.last = std::move(last);
  record.good = good ? std::min(record.good + 1, check.healthy) : 0;
  record.bad = good ? 0 : std::min(record.bad + 1, check.unhealthy);
  const bool before = record.unhealthy;
  if (record.unhealthy)
    record.unhealthy = record.good < check.healthy;
  else
    record.unhealthy = record.bad >= check.unhealthy;
  record.known = record.known || good || record.unhealthy;
  return record.unhealthy != before;
}

// `probe GET /healthz: 503, 3 of 3 failed`
inline std::string why_healthy(const config::HealthCheck& check, const HealthRecord& record) {
  std::string why = "probe " + check.text + ": ";
  if (record.last.empty()) return why + "no answer yet";
  why += record.last;
  if (record.bad != 0)
    why += ", " + std::to_string(record.bad) + " of " + std::to_string(check.unhealthy) + " failed";
  else if (record.unhealthy)
    why +=
        ", " + std::to_string(record.good) + " of " + std::to_string(check.healthy) + " succeeded";
  return why;
}

}  // namespace outrider
