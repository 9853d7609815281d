// The control thread: binds, starts workers, listens to signals, drains, serves the admin surfaces.
// Owns everything that is one per process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/log_writer.h"
#include "discovery/metrics.h"
#include "discovery/uv_loop.h"
#include "proxy/aside.h"
#include "proxy/connection.h"
#include "proxy/endpoint_watch.h"
#include "proxy/kernel_sockets.h"
#include "proxy/listener.h"
#include "proxy/overload_watch.h"
#include "proxy/worker.h"

namespace outrider {

class AdminServer;

struct RunOptions {
  std::vector<std::string> paths;
  unsigned workers = 0;  // 0: as configured
  bool watch = true;
};

class Server {
 public:
  Server(std::shared_ptr<const config::Config> config, RunOptions options);
  ~Server();
  // Until drained: the exit code.
  int run();

  // For the admin surfaces; on the control thread. `done` comes later, on the control thread.
  struct Readiness {
    bool ready = false;
    std::vector<std::string> reasons;  // why not; or what is amiss though ready
  };
  Readiness readiness() const;
  void collect_metrics(bool open_metrics, std::function<void(std::string text)> done);
  void collect_services(std::function<void(std::string json)> done);
  std::string config_text() const;    // effective YAML with origins
  std::string config_status() const;  // JSON
  void start_drain(bool with_delay);
  void stop_now();  // exit 0 at once
  EventLoop& loop() { return loop_; }
  Flusher& flusher() { return flusher_; }
  BlockPool& blocks() { return blocks_; }

 private:
  enum class Phase : std::uint8_t { kStarting, kReady, kAnnounced, kClosing, kDone };
  bool bind_all();
  bool start_admin();
  void start_workers();
  void listen_to_signals();
  void on_signal(int number);
  void on_drain_step();
  void check_idle();
  void each_worker(std::function<void(Worker&)> function);
  void on_tick();
  void render_configuration(MetricText& text) const;
  std::vector<std::string> panics() const;

  std::shared_ptr<const config::Config> config_;
  const RunOptions options_;
  UvLoop loop_;
  KernelSockets kernel_sockets_{loop_};
  Flusher flusher_{loop_, kernel_sockets_};
  BlockPool blocks_;
  LogWriter log_writer_;
  std::shared_ptr<const Snapshot> snapshot_;
  Shared shared_;
  std::unique_ptr<EndpointWatch> watch_;
  std::unique_ptr<OverloadWatch> overload_;
  std::vector<config::Address> bound_;
  std::vector<std::vector<BoundSocket>> sockets_;  // by listener, by worker; until they serve
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<Aside> aside_ = std::make_unique<Aside>();  // posts to the workers
  std::vector<std::unique_ptr<AdminServer>> admin_;
  std::vector<Handle<uv_signal_t>> signals_;
  Timer drain_timer_, deadline_timer_, idle_timer_, tick_timer_;
  Phase phase_ = Phase::kStarting;
  bool outbound_closed_ = false;
  bool signalled_ = false;  // to drain
  std::int64_t loaded_at_ms_ = 0;
  int exit_code_ = 0;
};

}  // namespace outrider
