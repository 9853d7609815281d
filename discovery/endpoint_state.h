// What the whole process knows of one endpoint, whoever found it out: the registry, the probes,
// ejection. Written now and then, read by workers when ServiceShared::version has moved, so a
// request touches none of it.
#pragma once

#include <atomic>
#include <cstdint>

namespace outrider {

struct EndpointState {
  std::atomic<bool> unhealthy{false};  // its probe says so
  std::atomic<bool> ejected{false};    // what requests met says so
  std::atomic<bool> draining{false};   // the registry says so: no new requests
  // When it last became usable, on the loops' clock: slow start counts from here. 0: all along.
  std::atomic<std::uint64_t> usable_since_ms{0};

  bool usable() const {
    return !unhealthy.load(std::memory_order_relaxed) && !ejected.load(std::memory_order_relaxed) &&
           !draining.load(std::memory_order_relaxed);
  }
};

}  // namespace outrider
