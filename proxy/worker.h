// One thread, one loop; everything below a worker belongs to it alone: listeners, client
// connections, streams, services, pools, counters.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config/log_writer.h"
#include "discovery/event_loop.h"
#include "discovery/metrics.h"
#include "discovery/overload.h"
#include "discovery/service.h"
#include "filters/access_log.h"
#include "proxy/connection.h"
#include "proxy/platform.h"
#include "proxy/redis_limits.h"
#include "proxy/snapshot.h"
#include "proxy/upstream_pool.h"

namespace outrider {

class Aside;
class Listener;
class Mirror;
struct BoundSocket;
class Stream;

// Connections by client address; asked at accept and close only, and only where `per_client` is
// set.
class ClientCounts {
 public:
  bool enter(const std::array<std::uint8_t, 16>& ip, std::uint64_t limit);
  void leave(const std::array<std::uint8_t, 16>& ip);

 private:
  std::mutex mutex_;
  std::map<std::array<std::uint8_t, 16>, std::uint64_t> counts_;
};

// Process-wide counts of one listener, for the limits that the user wrote.
struct ListenerShared {
  std::atomic<std::uint64_t> connections{0};
  ClientCounts clients;
};

// One worker's service with its pools.
class ServiceRuntime {
 public:
  ServiceRuntime(Flusher& flusher, Metrics& metrics, const config::Service& config,
                 std::uint32_t label, std::shared_ptr<ServiceShared> shared);
  Service service;
  UpstreamPool& pool(Endpoint& endpoint, Speaks speaks);
  void close_idle();
  void yield_idle();  // as many as wait for a place under limits.connections
  void close_all();
  // Connections of this worker to the endpoint, for /services.
  std::size_t connections(const Endpoint& endpoint) const;

 private:
  Flusher& flusher_;
  Metrics& metrics_;
  std::vector<std::unique_ptr<UpstreamPool>> pools_;  // endpoint × Speaks, made when first used
};

// What the server gives every worker.
struct Shared {
  std::vector<std::shared_ptr<ServiceShared>> services;    // as Config::services
  std::vector<std::shared_ptr<ListenerShared>> listeners;  // as Config::listeners
  LogWriter* access_log = nullptr;                         // null: off
  std::shared_ptr<LogSink> access_sink;
  Aside* aside = nullptr;  // null: errands run on the worker's own thread
};

class Worker {
 public:
  Worker(std::uint32_t index, std::shared_ptr<const Snapshot> snapshot, Shared shared,
         std::unique_ptr<Platform> platform = kernel_platform());
  ~Worker();

  // Before start(): takes over a bound socket.
  void listen(std::size_t listener_index, BoundSocket socket);
  void start();  // its thread
  void join();
  // Exchanges that were still open when the worker ended; known once it was joined.
  std::size_t cut_streams() const { return cut_streams_; }

  // From any thread.
  EventLoop& loop() { return loop_; }

  // On the worker's own thread.
  enum class Drain : std::uint8_t { kAnnounce, kClose };
  // `inbound`: listeners that other machines reach; the others (loopback, unix:) are the
  // application's way out and drain last.
  void drain(Drain stage, bool inbound, bool outbound);
  void stop_accepting(bool inbound, bool outbound);
  std::size_t open_connections(bool inbound, bool outbound) const;
  const Metrics& metrics();
  struct EndpointView {
    std::string service, address;
    std::uint32_t active = 0;
    std::size_t connections = 0;
  };
  std::vector<EndpointView> endpoints();
  // By service and endpoint, of those that compare theirs; each begins anew.
  std::vector<std::vector<EndpointSample>> take_samples();
  // What overload makes it refuse (overload_watch.h); `words`, static, say why. Said again while it
  // lasts.
  void shed(Shed step, std::string_view words);
  void limit_clients(int descriptors) { platform_->sockets.descriptors_for_clients = descriptors; }
  // How long a post to this worker had to wait.
  void note_loop_delay(Millis delay, Millis most);

  // For what lives in it.
  Flusher& flusher() { return flusher_; }
  BlockPool& blocks() { return blocks_; }
  Random& random() { return random_; }
  Metrics& metrics_ref() { return metrics_; }
  const std::shared_ptr<const Snapshot>& snapshot() const { return snapshot_; }
  ServiceRuntime& service(std::uint32_t index) { return *services_[index]; }
  LimitStore* limit_store(const std::shared_ptr<SharedStore>& store);
  Aside* aside() const { return shared_.aside; }
  void log(const Exchange& x);
  std::int64_t wall_ms() const { return loop_.wall_ms(); }
  void* stream_memory();
  void give_back_stream_memory(void* memory);
  std::size_t open_streams_ = 0;
  std::size_t mirrors() const { return mirror_count_; }
  void add(Mirror& mirror);
  void remove(Mirror& mirror);
  void client_came() { clients_peak_ = std::max(clients_peak_, ++clients_); }
  void client_left() { --clients_; }
  std::size_t cut_streams_ = 0;
  bool draining = false;
  bool refuses_requests() const { return shed_ >= Shed::kRequests || slow_.holds(); }
  std::string_view refusal() const;

 private:
  void trim();
  void turn_ended();
  void shut_down();
  void give_back_memory();
  void cut_largest();

  const std::uint32_t index_;
  const std::unique_ptr<Platform> platform_;
  EventLoop& loop_;
  Flusher flusher_;
  Metrics metrics_;
  BlockPool blocks_;
  BlockPool stream_blocks_;
  Random random_;
  std::shared_ptr<const Snapshot> snapshot_;
  Shared shared_;
  std::unique_ptr<AccessLog> access_log_;
  std::vector<std::unique_ptr<ServiceRuntime>> services_;
  std::vector<std::unique_ptr<RedisLimits>> limit_stores_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  ListNode mirrors_;  // of Mirror
  std::size_t mirror_count_ = 0;
  Timer trim_timer_;
  std::size_t clients_ = 0;
  std::size_t clients_peak_ = 0;  // since the last trim()
  std::size_t trimmed_ = 0;       // bytes that the heap has had and may still hold
  bool active_ = false;           // since the last trim()
  Shed shed_ = Shed::kNothing;
  std::string_view shed_words_;
  Lasting slow_;
  std::thread thread_;
};

}  // namespace outrider
