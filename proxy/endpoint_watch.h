// What the control thread does for endpoints: probes them, lets ejected ones back in, compares them
// with each other. Invariant: nothing here is asked by a request; workers learn of it by
// ServiceShared.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/model.h"
#include "discovery/event_loop.h"
#include "discovery/metrics.h"
#include "discovery/service.h"
#include "proxy/prober.h"

namespace outrider {

class Worker;

class EndpointWatch {
 public:
  // Posts a function to every worker.
  using EachWorker = std::function<void(std::function<void(Worker&)>)>;

  EndpointWatch(Flusher& flusher, const config::Config& config,
                std::vector<std::shared_ptr<ServiceShared>> services, std::uint64_t seed);
  void start(std::size_t workers, EachWorker each_worker);
  void stop();
  void render(MetricText& text) const;

  // What is known of an endpoint and why, for /services; indices as in the configuration.
  struct Description {
    std::string why;                   // empty: nobody has said anything
    std::uint64_t ejected_for_ms = 0;  // that are left; 0: it is not ejected
  };
  Description describe(std::size_t service, std::size_t endpoint) const;

 private:
  struct Gathered;
  void on_return();
  void on_compare();

  EventLoop& loop_;
  const config::Config& config_;
  const std::vector<std::shared_ptr<ServiceShared>> services_;  // as Config::services
  std::size_t workers_ = 0;
  EachWorker each_worker_;
  Prober prober_;
  Timer return_timer_, compare_timer_;
};

}  // namespace outrider
