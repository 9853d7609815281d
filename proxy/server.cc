#include "proxy/server.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <map>
#include <thread>
#include <utility>

#include "config/log.h"
#include "config/timestamp.h"
#include "discovery/concurrency.h"
#include "proxy/admin.h"

namespace outrider {

namespace {

constexpr Millis kIdleLook{20};  // while draining: how often we see whether everything is done
constexpr Millis kTick{1000};

// The CPU quota of the cgroup where there is one, else the cores this process may use.
unsigned cpu_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    cores = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  auto limited = [cores](double quota, double period) {
    if (quota <= 0 || period <= 0) return cores;
    const auto whole = static_cast<unsigned>((quota + period - 1) / period);
    return std::clamp(whole, 1U, cores);
  };
  std::string line;
  std::string path;
  for (std::ifstream own("/proc/self/cgroup"); std::getline(own, line);)
    if (line.rfind("0::", 0) == 0) path = line.substr(3);
  for (; !path.empty();
       path = path == "/" ? "" : path.substr(0, std::max<std::size_t>(path.rfind('/'), 1))) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max") return limited(std::atof(quota.c_str()), period);
    if (path == "/") break;
  }
  std::ifstream quota_v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_v1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0;
  double period = 0;
  if (quota_v1 >> quota && period_v1 >> period) return limited(quota, period);
  return cores;
}

// Everything has ended and no other thread is left: a signal that comes now, when our handlers go,
// must not change the exit code.
void ignore_further_signals() {
  sigset_t ours;
  sigemptyset(&ours);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&ours, number);
  pthread_sigmask(SIG_BLOCK, &ours, nullptr);
}

}  // namespace

Server::Server(std::shared_ptr<const config::Config> config, RunOptions options)
    : config_(std::move(config)),
      options_(std::move(options)),
      drain_timer_(loop_, call_member<&Server::on_drain_step, Server>, this),
      deadline_timer_(loop_, call_member<&Server::stop_now, Server>, this),
      idle_timer_(loop_, call_member<&Server::check_idle, Server>, this),
      tick_timer_(loop_, call_member<&Server::on_tick, Server>, this) {}

Server::~Server() {
  for (const auto& admin : admin_) admin->close();
  if (watch_ != nullptr) watch_->stop();
  if (overload_ != nullptr) overload_->stop();
  signals_.clear();
  loop_.settle();
}

int Server::run() {
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0);
  log::start(log_writer_);
  snapshot_ = Snapshot::compile(config_, 1);
  loaded_at_ms_ = loop_.wall_ms();
  listen_to_signals();
  if (!bind_all() || !start_admin()) {
    log::stop();
    return 1;
  }
  start_workers();
  if (exit_code_ == 0) {
    phase_ = Phase::kReady;
    log::plain("ready");
    tick_timer_.start(kTick);
    loop_.run();
  }
  for (const auto& worker : workers_)
    worker->loop().post([&loop = worker->loop()] { loop.stop(); });
  std::size_t cut = 0;
  for (const auto& worker : workers_) {
    worker->join();
    cut += worker->cut_streams();
  }
  if (cut != 0)
    log::warn("ended with {} exchanges cut short", cut);
  else if (exit_code_ == 0)
    log::info("drained");
  aside_ = nullptr;
  workers_.clear();
  log::stop();
  ignore_further_signals();
  return exit_code_;
}

bool Server::bind_all() {
  unsigned count =
      options_.workers != 0 ? options_.workers : config_->workers.value_or(cpu_count());
  bool all = true;
  for (const config::Listener& listener : config_->listeners) {
    std::vector<BoundSocket> sockets;
    config::Address bound;
    std::string why;
    if (!bind_listener(listener.address, count, sockets, bound, why)) {
      log::error("cannot listen on {} ({}, {}): {}", listener.address.to_string(), listener.name,
                 config_->where(listener.address_mark), why);
      all = false;
    }
    bound_.push_back(bound);
    sockets_.push_back(std::move(sockets));
  }
  if (!all) return false;
  for (const config::Service& service : config_->services) {
    const auto& shared = shared_.services.emplace_back(std::make_shared<ServiceShared>(service));
    if (service.limits.adaptive.value) shared->concurrency = std::make_shared<ConcurrencyLimit>();
  }
  for (std::size_t i = 0; i < config_->listeners.size(); ++i)
    shared_.listeners.push_back(std::make_shared<ListenerShared>());
  if (config_->telemetry.access_log != config::Telemetry::Log::kOff) {
    std::string error;
    shared_.access_log = &log_writer_;
    shared_.access_sink = config_->telemetry.access_log_file.empty()
                              ? log_writer_.descriptor(STDOUT_FILENO)
                              : log_writer_.file(config_->telemetry.access_log_file, error);
    if (shared_.access_sink == nullptr) {
      log::error("cannot open the access log {}: {}", config_->telemetry.access_log_file, error);
      return false;
    }
  }
  shared_.aside = aside_.get();
  for (unsigned i = 0; i < count; ++i)
    workers_.push_back(std::make_unique<Worker>(i, snapshot_, shared_));
  for (std::size_t i = 0; i < shared_.services.size(); ++i)
    shared_.services[i]->want_idle = [this, i] {
      each_worker(
          [i](Worker& worker) { worker.service(static_cast<std::uint32_t>(i)).yield_idle(); });
    };
  return true;
}

bool Server::start_admin() {
  struct Surface {
    const char* name;
    bool on;
    bool written;
    const config::Address& address;
    bool full;
  };
  const Surface surfaces[] = {
      {"admin", config_->admin.on, config_->admin.written, config_->admin.address, true},
      {"metrics", config_->telemetry.metrics, config_->telemetry.metrics_written,
       config_->telemetry.metrics_address, false}};
  const auto open = [this](const Surface& surface) {
    std::vector<BoundSocket> sockets;
    config::Address bound;
    std::string why;
    if (bind_listener(surface.address, 1, sockets, bound, why)) {
      admin_.push_back(std::make_unique<AdminServer>(*this, bound, surface.full));
      admin_.back()->open(std::move(sockets.front()));
      log::plain("listening " + std::string(surface.name) + " " + bound.to_string());
      return true;
    }
    if (surface.written)
      log::error("cannot listen on {} ({}): {}", surface.address.to_string(), surface.name, why);
    else
      log::warn("{} is off: cannot listen on its default {}: {}", surface.name,
                surface.address.to_string(), why);
    return !surface.written;
  };
  // A default gives way to what was written, to the other surface's address too.
  for (const bool written : {true, false})
    for (const Surface& surface : surfaces)
      if (surface.on && surface.written == written && !open(surface)) return false;
  return true;
}

void Server::start_workers() {
  for (std::size_t l = 0; l < sockets_.size(); ++l) {
    for (std::size_t w = 0; w < workers_.size(); ++w)
      workers_[w]->listen(l, std::move(sockets_[l][w]));
    log::plain("listening " + config_->listeners[l].name + " " + bound_[l].to_string());
  }
  for (const auto& worker : workers_) worker->start();
  const auto each = [this](std::function<void(Worker&)> function) {
    each_worker(std::move(function));
  };
  watch_ = std::make_unique<EndpointWatch>(flusher_, *config_, shared_.services, uv_hrtime());
  watch_->start(workers_.size(), each);
  overload_ = std::make_unique<OverloadWatch>(loop_, config_->overload, each);
  overload_->start();
}

// ---- signals and drain

void Server::listen_to_signals() {
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) {
    Handle<uv_signal_t> handle(new uv_signal_t);
    uv_signal_init(loop_.uv(), handle.get());
    handle->data = this;
    uv_signal_start(
        handle.get(),
        [](uv_signal_t* signal, int signum) {
          if (signal->data != nullptr) static_cast<Server*>(signal->data)->on_signal(signum);
        },
        number);
    signals_.push_back(std::move(handle));
  }
}

void Server::on_signal(int number) {
  switch (number) {
    case SIGHUP:
      log::warn("SIGHUP: reload is not supported yet; the running configuration stays");
      return;
    case SIGUSR1: log_writer_.reopen(); return;
    default: break;
  }
  if (std::exchange(signalled_, true)) {
    log::info("second signal: exiting at once");
    stop_now();
  } else if (phase_ < Phase::kAnnounced) {
    start_drain(number == SIGTERM);
  } else if (phase_ == Phase::kAnnounced && number == SIGINT) {
    drain_timer_.start(Millis{0});  // POST /drain began it; only the delay is cut short
  }
}

void Server::each_worker(std::function<void(Worker&)> function) {
  for (const auto& worker : workers_)
    worker->loop().post([&target = *worker, function] { function(target); });
}

// Ready turns 503 and clients are told; after the delay the doors close; then whoever is left is
// waited for.
void Server::start_drain(bool with_delay) {
  if (phase_ >= Phase::kAnnounced) return;
  phase_ = Phase::kAnnounced;
  log::info("draining");
  each_worker([](Worker& worker) {
    worker.draining = true;
    worker.drain(Worker::Drain::kAnnounce, true, true);
  });
  if (config_->drain_deadline.count() != 0) deadline_timer_.start(config_->drain_deadline);
  drain_timer_.start(with_delay ? config_->drain_delay : Millis{0});
}

void Server::on_drain_step() {
  phase_ = Phase::kClosing;
  const bool any_inbound =
      std::any_of(config_->listeners.begin(), config_->listeners.end(),
                  [](const config::Listener& it) { return !config::is_loopback(it.address); });
  outbound_closed_ = !any_inbound;
  each_worker([any_inbound](Worker& worker) {
    worker.stop_accepting(true, !any_inbound);
    worker.drain(Worker::Drain::kClose, true, !any_inbound);
  });
  idle_timer_.start(kIdleLook);
}

// Asks every worker what is still open; when the inbound half is done the outbound half closes,
// when all is done the process ends.
void Server::check_idle() {
  auto left = std::make_shared<std::pair<std::size_t, std::size_t>>(workers_.size(), 0);
  each_worker([this, left](Worker& worker) {
    const std::size_t open = worker.open_connections(true, outbound_closed_);
    loop_.post([this, left, open] {
      left->second += open;
      if (--left->first != 0 || phase_ != Phase::kClosing) return;
      if (left->second != 0) {
        idle_timer_.start(kIdleLook);
      } else if (!outbound_closed_) {
        outbound_closed_ = true;
        each_worker([](Worker& it) {
          it.stop_accepting(true, true);
          it.drain(Worker::Drain::kClose, true, true);
        });
        idle_timer_.start(kIdleLook);
      } else {
        stop_now();
      }
    });
  });
}

void Server::stop_now() {
  if (phase_ == Phase::kDone) return;
  phase_ = Phase::kDone;
  loop_.stop();
}

void Server::on_tick() {
  log::tick();
  tick_timer_.start(kTick);
}

// ---- for the admin surfaces

// A line for each service or subset of which too little is usable.
std::vector<std::string> Server::panics() const {
  std::vector<std::string> lines;
  for (const auto& shared : shared_.services) {
    const std::shared_ptr<const View> view = shared->view();
    for (std::size_t i = 0; i < view->groups.size(); ++i)
      if (view->groups[i].panic)
        lines.push_back("panic: of the service " + view->membership->groups[i].name + " " +
                        std::to_string(view->groups[i].usable) + " of " +
                        std::to_string(view->groups[i].wanted) +
                        " endpoints are usable, so all of them are used");
  }
  return lines;
}

Server::Readiness Server::readiness() const {
  switch (phase_) {
    case Phase::kStarting: return {false, {"not yet listening"}};
    case Phase::kReady: {
      Readiness readiness{true, panics()};
      for (const auto& store : snapshot_->limits->stores())
        if (store->away.load(std::memory_order_relaxed))
          readiness.reasons.push_back("redis " + store->name +
                                      " is away: shared limits hold for this proxy alone");
      return readiness;
    }
    default: return {false, {"draining"}};
  }
}

void Server::collect_metrics(bool open_metrics, std::function<void(std::string)> done) {
  struct Gathered {
    std::size_t left;
    Metrics sum;
  };
  auto gathered = std::make_shared<Gathered>(Gathered{workers_.size(), {}});
  each_worker([this, gathered, open_metrics, done](Worker& worker) {
    auto copy = std::make_shared<Metrics>(worker.metrics());
    loop_.post([this, gathered, copy, open_metrics, done] {
      gathered->sum.add(*copy);
      if (--gathered->left != 0) return;
      gathered->sum.log_lines_dropped += log_writer_.dropped();
      std::string text;
      MetricText out(text, open_metrics);
      gathered->sum.render(out, config_->telemetry.series_limit);
      render_configuration(out);
      render_process(out);
      out.end();
      done(std::move(text));
    });
  });
}

// What workers do not count. Reloads do not exist yet, so theirs stay 0.
void Server::render_configuration(MetricText& text) const {
  using Type = MetricText::Type;
  text.family("outrider_config_generation", Type::kGauge,
              "Generation of the configuration that serves.");
  text.sample({}, snapshot_->generation);
  text.family("outrider_config_stale", Type::kGauge, "1 while a newer configuration was refused.");
  text.sample({}, std::uint64_t{0});
  text.family("outrider_config_reloads", Type::kCounter, "Reloads, by result.");
  for (const char* result : {"ok", "failed"}) text.sample({{"result", result}}, std::uint64_t{0});
  text.family("outrider_endpoints", Type::kGauge, "Endpoints by state.");
  for (std::size_t i = 0; i < config_->services.size(); ++i) {
    const auto& endpoints = shared_.services[i]->endpoints;
    for (const std::string_view state : {"healthy", "unhealthy", "ejected", "draining"})
      text.sample({{"service", config_->services[i].name}, {"state", state}},
                  static_cast<std::uint64_t>(std::count_if(
                      endpoints.begin(), endpoints.end(),
                      [&](const auto& endpoint) { return state_of(*endpoint) == state; })));
  }
  text.family("outrider_service_panic", Type::kGauge,
              "1 while unhealthy endpoints are used for want of healthy ones.");
  for (std::size_t i = 0; i < config_->services.size(); ++i)
    text.sample({{"service", config_->services[i].name}},
                std::uint64_t{shared_.services[i]->view()->panic() ? 1U : 0U});
  text.family("outrider_shared_limit_connections", Type::kGauge,
              "Workers whom the store of shared limits answers; 0 while this proxy limits alone.");
  for (const auto& store : snapshot_->limits->stores())
    text.sample({{"store", store->name}},
                std::uint64_t{store->connections.load(std::memory_order_relaxed)});
  watch_->render(text);
  overload_->render(text);
  text.family("outrider_concurrency_limit", Type::kGauge,
              "How many requests a service may have in flight, where that adapts.");
  for (std::size_t i = 0; i < shared_.services.size(); ++i)
    if (const auto& limit = shared_.services[i]->concurrency; limit != nullptr)
      text.sample({{"service", config_->services[i].name}}, std::uint64_t{limit->limit()});
  // TLS and DNS have nothing to count yet.
  text.family("outrider_tls_handshakes", Type::kCounter, "TLS handshakes, by side and result.");
  text.family("outrider_tls_not_after_seconds", Type::kGauge,
              "When each certificate expires, in seconds since the Unix epoch.");
  text.family("outrider_dns_queries", Type::kCounter, "DNS queries, by result.");
}

void Server::collect_services(std::function<void(std::string)> done) {
  struct Gathered {
    std::size_t left;
    std::map<std::pair<std::string, std::string>, std::pair<std::uint64_t, std::uint64_t>> sums;
  };
  auto gathered = std::make_shared<Gathered>(Gathered{workers_.size(), {}});
  each_worker([this, gathered, done](Worker& worker) {
    loop_.post([this, gathered, done, views = worker.endpoints()] {
      for (const Worker::EndpointView& view : views) {
        auto& [active, connections] = gathered->sums[{view.service, view.address}];
        active += view.active;
        connections += view.connections;
      }
      if (--gathered->left != 0) return;
      nlohmann::ordered_json services = nlohmann::ordered_json::array();
      for (std::size_t s = 0; s < config_->services.size(); ++s) {
        const config::Service& service = config_->services[s];
        const std::shared_ptr<const View> view = shared_.services[s]->view();
        nlohmann::ordered_json endpoints = nlohmann::ordered_json::array();
        for (std::uint32_t i = 0; i < service.endpoints.size(); ++i) {
          const config::Endpoint& endpoint = service.endpoints[i];
          const std::string standing = standing_of(*view, 0, i);
          EndpointWatch::Description known = watch_->describe(s, i);
          if (!standing.empty()) known.why += known.why.empty() ? standing : "; " + standing;
          if (known.why.empty()) known.why = "no health check configured";
          nlohmann::ordered_json ejected_until = nullptr;
          if (known.ejected_for_ms != 0) {
            char text[kTimestampBytes];
            ejected_until = format_timestamp(
                loop_.wall_ms() + static_cast<std::int64_t>(known.ejected_for_ms), text);
          }
          const std::string address = endpoint.address.to_string();
          const auto& [active, connections] = gathered->sums[{service.name, address}];
          endpoints.push_back({{"address", address},
                               {"source", "static " + config_->where(endpoint.mark)},
                               {"labels", endpoint.labels},
                               {"weight", endpoint.weight},
                               {"zone", endpoint.zone},
                               {"priority", endpoint.priority},
                               {"health", state_of(*view->membership->members[i].state)},
                               {"why", known.why},
                               {"ejected_until", ejected_until},
                               {"active_requests", active},
                               {"connections", connections},
                               {"ttl_left", nullptr}});
        }
        services.push_back({{"name", service.name},
                            {"panic", view->panic()},
                            {"endpoints", std::move(endpoints)}});
      }
      // File names in it need not be UTF-8.
      done(services.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    });
  });
}

std::string Server::config_text() const { return config::long_form(*snapshot_->config); }

std::string Server::config_status() const {
  const std::time_t seconds = loaded_at_ms_ / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return nlohmann::ordered_json{{"generation", snapshot_->generation},
                                {"loaded_at", text},
                                {"stale", false},
                                {"errors", nlohmann::ordered_json::array()}}
             .dump(2) +
         "\n";
}

}  // namespace outrider
