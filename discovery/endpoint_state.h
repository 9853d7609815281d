// What the whole process knows of one endpoint, whoever found it out: the registry, the probes,
// ejection. Written now and then, read by workers when ServiceShared::version has moved, so a
// request touches none of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace outrider {

// Failures in a row, by how they are counted (ejection.cc).
struct alignas(std::uint64_t) FailureRuns {  // one word, so that its atomic takes no lock
  std::uint16_t gateway = 0;
  std::uint16_t server = 0;
  std::uint16_t local = 0;
  std::uint16_t unused = 0;  // compared as bytes, so none may be left over
  bool none() const { return gateway == 0 && server == 0 && local == 0; }
};

// What ejection remembers of an endpoint; ServiceShared::ejection has the mutex.
struct EjectionRecord {
  bool out = false;    // ejected, or with `mode: observe` as if it were
  unsigned times = 0;  // that it was ejected; falls while it behaves
  std::uint64_t until_ms = 0;
  std::uint64_t returned_ms = 0;
  std::string why;  // `5 gateway errors in a row, the last: 503`
};

struct EndpointState {
  std::atomic<bool> unhealthy{false};  // its probe says so
  std::atomic<bool> ejected{false};    // what requests met says so
  std::atomic<bool> draining{false};   // the registry says so: no new requests
  // When it last became usable, on the loops' clock: slow start counts from here. 0: all along.
  std::atomic<std::uint64_t> usable_since_ms{0};
  // Written at a failure and at the first success after one.
  std::atomic<FailureRuns> failures{};
  EjectionRecord ejection;

  bool usable() const {
    return !unhealthy.load(std::memory_order_relaxed) && !ejected.load(std::memory_order_relaxed) &&
           !draining.load(std::memory_order_relaxed);
  }
};

}  // namespace outrider
