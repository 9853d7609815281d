// Health checks: asks endpoints whether they are well, one prober a process, on the control
// thread's loop. Each probe is a connection of its own, made as a client makes one, because whether
// that can be done is what is asked. Invariant: one probe of an endpoint at a time; probes are
// spread, so that neither the endpoints nor this process see a stampede; an answer costs at most
// limits::kProbeBytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "config/model.h"
#include "discovery/health.h"
#include "discovery/metrics.h"
#include "discovery/service.h"
#include "filters/http/arena.h"
#include "proxy/connection.h"

namespace outrider {

enum class ProbeResult : std::uint8_t {
  kOk,
  kConnectFailure,
  kTimeout,
  kReset,
  kProtocolError,
  kStatus,  // an answer, but not a good one
  kCount
};

class Prober {
 public:
  Prober(Flusher& flusher, const config::Config& config,
         const std::vector<std::shared_ptr<ServiceShared>>& services, std::uint64_t seed);
  ~Prober();
  void start();
  void stop();  // probes under way end; the loop's turn has to, before this goes
  void render(MetricText& text) const;
  // Null: it is not probed. Indices as in the configuration.
  const HealthRecord* record(std::size_t service, std::size_t endpoint) const;

 private:
  class Target;
  class Probe;
  using Results = std::array<std::uint64_t, static_cast<std::size_t>(ProbeResult::kCount)>;

  Flusher& flusher_;
  const config::Config& config_;
  BlockPool blocks_;
  Random random_;
  std::vector<std::vector<std::unique_ptr<Target>>> targets_;  // by service and endpoint
  std::vector<Results> results_;                               // by service
  ListNode probes_;                                            // under way
};

}  // namespace outrider
