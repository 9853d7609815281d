// One outrider: its configuration as users write it, its workers on the simulated network. What the
// server does around workers in production is done here: limits shared, log collected, idle
// connections asked for, endpoints watched from a loop of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/log_writer.h"
#include "proxy/endpoint_watch.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"
#include "tests/sim/platform.h"

namespace outrider::sim {

// A line of the access log.
struct Logged {
  std::uint64_t id = 0;
  int status = 0;
  std::string reason;
  unsigned attempts = 0;
};

class Proxy {
 public:
  // `text`: listeners, services and routes; the rest is added.
  Proxy(Net& net, const std::string& text, unsigned workers);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  const config::Config& config() const { return *snapshot_->config; }
  Shared& shared() { return shared_; }
  Host host() const { return host_; }
  SimPlatform& platform(std::size_t worker) { return *platforms_[worker]; }
  std::size_t workers() const { return workers_.size(); }

  // Within what was configured? Looked at after each step.
  void check_limits();
  // Nothing is left that a request or a connection had taken.
  void check_idle() const;
  std::size_t upstream_connections() const;
  // Ends the workers; then what they have logged is complete.
  const std::vector<Logged>& end();

 private:
  World& world_;
  Net& net_;
  Host host_ = 0;
  LogWriter* writer() { return writer_.get(); }
  int log_fd_;
  std::unique_ptr<LogWriter> writer_;
  std::shared_ptr<const Snapshot> snapshot_;
  Shared shared_;
  std::vector<SimPlatform*> platforms_;
  std::vector<std::unique_ptr<Worker>> workers_;
  struct Control {  // as the control thread
    Control(Net& net, Host host) : platform(net, host) {}
    SimPlatform platform;
    Flusher flusher{platform.loop, platform.sockets};
  };
  std::unique_ptr<Control> control_;
  std::unique_ptr<EndpointWatch> watch_;
  std::vector<Logged> logged_;
  std::vector<std::uint64_t> seen_;  // versions of the services' states
};

}  // namespace outrider::sim
