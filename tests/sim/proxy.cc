#include "tests/sim/proxy.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "config/load.h"
#include "proxy/acceptor.h"

namespace outrider::sim {

namespace {

constexpr std::uint64_t kSmallLimit = 100;

constexpr const char* kRest = R"(
admin: false
telemetry: { metrics: false, access_log: { file: unused, format: "%{path} %{status} %{reason} %{attempts}" } }
)";

Place place_of(const config::Address& address) {
  Host host = 0;
  for (std::size_t i = 0; i < 4; ++i) host = host << 8 | address.ip[i];
  return {host, address.port};
}

}  // namespace

Proxy::Proxy(Net& net, const std::string& text, unsigned workers)
    : world_(net.world), net_(net), log_fd_(::memfd_create("log", MFD_CLOEXEC)) {
  config::Loaded loaded = config::load_text("sim.yaml", "outrider: v1\n" + text + kRest);
  if (loaded.config == nullptr) {
    for (const config::Diagnostic& diagnostic : loaded.diagnostics)
      std::fputs(config::render(diagnostic).c_str(), stderr);
    std::exit(2);
  }
  snapshot_ = Snapshot::compile(loaded.config, 1);
  for (const config::Service& service : config().services)
    shared_.services.push_back(std::make_shared<ServiceShared>(service));
  seen_.resize(shared_.services.size());
  for (std::size_t i = 0; i < config().listeners.size(); ++i)
    shared_.listeners.push_back(std::make_shared<ListenerShared>());
  writer_ = std::make_unique<LogWriter>();
  shared_.access_log = writer_.get();
  shared_.access_sink = writer_->descriptor(log_fd_);
  host_ = place_of(config().listeners.front().address).host;
  for (unsigned i = 0; i < workers; ++i) {
    auto platform = std::make_unique<SimPlatform>(net, host_);
    platforms_.push_back(platform.get());
    workers_.push_back(std::make_unique<Worker>(i, snapshot_, shared_, std::move(platform)));
    for (std::size_t l = 0; l < config().listeners.size(); ++l) {
      const Place place = place_of(config().listeners[l].address);
      workers_.back()->listen(l, {platforms_.back()->net_sockets().bind(place)});
    }
  }
  control_ = std::make_unique<Control>(net, host_);
  watch_ = std::make_unique<EndpointWatch>(control_->flusher, config(), shared_.services,
                                           control_->platform.seed);
  watch_->start(workers, [this](std::function<void(Worker&)> function) {
    for (const auto& worker : workers_)
      worker->loop().post([&target = *worker, function] { function(target); });
  });
  for (std::uint32_t s = 0; s < shared_.services.size(); ++s)
    shared_.services[s]->want_idle = [this, s] {
      for (const auto& worker : workers_)
        worker->loop().post([&target = *worker, s] { target.service(s).yield_idle(); });
    };
}

Proxy::~Proxy() {
  end();
  ::close(log_fd_);
}

void Proxy::check_limits() {
  const auto over = [](std::uint64_t count, std::uint64_t limit) {
    return limit != 0 && count > limit;
  };
  for (std::size_t s = 0; s < shared_.services.size(); ++s) {
    const config::Service& service = config().services[s];
    const ServiceShared& shared = *shared_.services[s];
    if (over(shared.connections, service.limits.connections.value) ||
        over(shared.pending, service.limits.pending.value) ||
        over(shared.requests, service.limits.requests.value) ||
        over(shared.retries, service.limits.retries.value))
      world_.violated("a limit of the service " + service.name + " was exceeded");
    // Where the limit is small, what it is about is counted, too.
    const std::uint64_t most = service.limits.connections.value;
    if (most != 0 && most <= kSmallLimit) {
      std::uint64_t open = 0;
      for (const config::Endpoint& endpoint : service.endpoints)
        open += net_.open(host_, place_of(endpoint.address).host);
      if (open > most) world_.violated("more connections are open than limits.connections allows");
    }
    if (std::exchange(seen_[s], shared.version.load()) == shared.version.load()) continue;
    const auto out = std::count_if(shared.endpoints.begin(), shared.endpoints.end(),
                                   [](const auto& endpoint) { return endpoint->ejected.load(); });
    const auto all = static_cast<double>(shared.endpoints.size());
    if (out != 0 && (static_cast<double>(out) > service.eject.at_most.value * all + 1e-9 ||
                     static_cast<double>(out) >= all))
      world_.violated(std::to_string(out) + " endpoints of " + service.name + " are ejected");
  }
  for (std::size_t l = 0; l < shared_.listeners.size(); ++l)
    if (over(shared_.listeners[l]->connections, config().listeners[l].limits.connections))
      world_.violated("the listener's limits.connections was exceeded");
}

std::size_t Proxy::upstream_connections() const {
  std::size_t sum = 0;
  for (const auto& shared : shared_.services) sum += shared->connections;
  return sum;
}

void Proxy::check_idle() const {
  const auto left = [this](const char* what, std::uint64_t count) {
    if (count != 0) world_.violated(std::to_string(count) + " " + what + " were never given back");
  };
  for (const auto& shared : shared_.services) {
    left("upstream connections", shared->connections);
    left("places of waiting requests", shared->pending);
    left("requests", shared->requests);
    left("retries", shared->retries);
  }
  for (const auto& shared : shared_.listeners) left("client connections", shared->connections);
  for (const auto& worker : workers_) {
    left("streams", worker->open_streams_);
    for (const auto& view : worker->endpoints()) left("requests at an endpoint", view.active);
  }
  left("sockets", net_.open(host_, 0));
}

const std::vector<Logged>& Proxy::end() {
  if (workers_.empty()) return logged_;
  for (const auto& shared : shared_.services) shared->want_idle = nullptr;
  watch_->stop();
  watch_ = nullptr;
  control_ = nullptr;
  workers_.clear();
  platforms_.clear();
  if (writer_->dropped() != 0) world_.violated("lines of the log were dropped");
  shared_.access_sink = nullptr;
  writer_ = nullptr;
  std::string text(static_cast<std::size_t>(::lseek(log_fd_, 0, SEEK_END)), '\0');
  ::lseek(log_fd_, 0, SEEK_SET);
  for (std::size_t got = 0; got < text.size();) {
    const ssize_t size = ::read(log_fd_, text.data() + got, text.size() - got);
    if (size <= 0) break;
    got += static_cast<std::size_t>(size);
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t line_end = text.find('\n', at);
    char reason[64] = {};
    Logged line;
    unsigned long long id = 0;
    if (std::sscanf(text.substr(at, line_end - at).c_str(), "/%llu %d %63s %u", &id, &line.status,
                    reason, &line.attempts) < 3)
      world_.violated("a line of the log is not as configured: " + text.substr(at, line_end - at));
    line.id = id;
    line.reason = reason;
    logged_.push_back(line);
    at = line_end == std::string::npos ? text.size() : line_end + 1;
  }
  return logged_;
}

}  // namespace outrider::sim
