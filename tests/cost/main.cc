// What one exchange costs, whatever else the machine does: a worker of the real proxy, its clients
// and its origin in one thread. Each turn of the worker's loop is called from here, with exactly
// the input that a full batch of requests, or of answers, makes. See README.md.
//
//   outrider_cost CELL [--requests N] [--marks]     outrider_cost --list
#include <poll.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/load.h"
#include "filters/random.h"
#include "filters/registry.h"
#include "proxy/acceptor.h"
#include "proxy/kernel_platform.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"
#include "tests/cost/instruments.h"
#include "tests/cost/peers.h"

// The one function that is measured. callgrind is given its name; it must not be inlined, nor end
// in a jump.
extern "C" [[gnu::noipa]] int outrider_cost_turn(uv_loop_t* loop) {
  const int left = uv_run(loop, UV_RUN_NOWAIT);
  asm volatile("" ::: "memory");
  return left;
}

namespace outrider::cost {
namespace {

constexpr unsigned kWarmUp = 1'000;
constexpr unsigned kRequests = 2'000;
constexpr std::uint64_t kTurnNsPerRequest = 5'000;  // two turns: 100,000 requests a second
constexpr int kPatienceMs = 10'000;

// ---- cells

enum class Heads { kSmall, kBrowser, kGrpc };

struct Cell {
  std::string_view name;
  bool down_http2 = false;
  bool up_http2 = false;
  unsigned clients = 16;
  unsigned streams = 1;  // at once, of one client
  Heads heads = Heads::kSmall;
  std::size_t body = 100;
  unsigned routes = 0;  // before the one for everything; the middle one is hit
  bool log = false;
  bool forwarded = false;
  bool policies = true;  // the default ones
};

constexpr Cell kCells[] = {
    {.name = "h1-h1"},
    {.name = "h1-h1-alone", .clients = 1},
    {.name = "h1-h1-log", .log = true},
    {.name = "h1-h1-forwarded", .forwarded = true},
    {.name = "h1-h1-browser", .heads = Heads::kBrowser},
    {.name = "h1-h1-1000-routes", .routes = 1'000},
    {.name = "h1-h1-10k", .body = 10'240},
    {.name = "h1-h2", .up_http2 = true},
    {.name = "h2-h1", .down_http2 = true, .clients = 4, .streams = 25},
    {.name = "h2-h2-grpc",
     .down_http2 = true,
     .up_http2 = true,
     .clients = 4,
     .streams = 25,
     .heads = Heads::kGrpc,
     .body = 50},
    {.name = "h1-h1-bare", .policies = false},
    {.name = "h2-h2-grpc-bare",
     .down_http2 = true,
     .up_http2 = true,
     .clients = 4,
     .streams = 25,
     .heads = Heads::kGrpc,
     .body = 50,
     .policies = false},
};

std::string route_path(unsigned number) {
  char text[16];
  std::snprintf(text, sizeof text, "/r%04u", number);
  return text;
}

Shape shape_of(const Cell& cell) {
  Shape shape;
  shape.response_body = std::string(cell.body, 'x');
  if (cell.routes != 0) shape.path = route_path(cell.routes / 2) + "/item";
  if (cell.heads == Heads::kGrpc) {
    shape.method = "POST";
    shape.path = "/grpc.Echo/Echo";
    shape.request_body = std::string(50, 'q');
    shape.request_fields = {{"te", "trailers"},
                            {"content-type", "application/grpc"},
                            {"user-agent", "grpc-c++/1.51.1"}};
    shape.response_fields = {{"content-type", "application/grpc"}};
    shape.trailers = {{"grpc-status", "0"}};
    return shape;
  }
  shape.request_fields = {{"user-agent", "load/1.0"}, {"accept", "*/*"}};
  if (cell.heads == Heads::kBrowser)
    shape.request_fields = {
        {"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
        {"accept",
         "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
        {"accept-language", "en-US,en;q=0.5"},
        {"accept-encoding", "gzip, deflate, br, zstd"},
        {"referer", "https://shop.example/catalogue/shoes?page=2"},
        {"connection", "keep-alive"},
        {"cookie", "session=8e1f0c5f6b9d4e2a; theme=dark; consent=all; lane=stable"},
        {"upgrade-insecure-requests", "1"},
        {"sec-fetch-dest", "document"},
        {"sec-fetch-mode", "navigate"},
        {"sec-fetch-site", "same-origin"},
        {"priority", "u=0, i"}};
  shape.response_fields = {{"server", "origin"},
                           {"date", "Tue, 14 Nov 2023 22:13:20 GMT"},
                           {"content-type", "application/octet-stream"},
                           {"content-length", std::to_string(cell.body)},
                           {"last-modified", "Tue, 14 Nov 2023 20:00:00 GMT"},
                           {"etag", "\"6553d0b0-64\""},
                           {"accept-ranges", "bytes"}};
  return shape;
}

// As the benchmark's: what production runs, the limits that end a connection lifted.
std::string config_of(const Cell& cell, unsigned origin_port) {
  const auto protocol = [](bool http2) { return std::string(http2 ? "http2" : "http1"); };
  std::string text = "outrider: v1\nworkers: 1\nadmin: false\n";
  text += "telemetry: { metrics: false, access_log: ";
  text += cell.log ? "{ file: /dev/null, format: json } }\n" : "false }\n";
  text += "listeners: { main: { address: \"127.0.0.1:0\", protocols: [" + protocol(cell.down_http2);
  text += "], limits: { requests: 0 }, timeouts: { idle: 1h }, forwarded: ";
  text += cell.forwarded ? "add } }\n" : "false } }\n";
  text += "services: { origin: { endpoints: [\"127.0.0.1:" + std::to_string(origin_port);
  text += "\"], protocol: " + protocol(cell.up_http2) + ", timeouts: { idle: 1h }";
  if (!cell.policies)
    text += ", eject: false, limits: { connections: 0, pending: 0, requests: 0, retries: 0 }";
  text += " } }\n";
  if (!cell.policies) text += "overload: false\n";
  text += "routes:\n";
  for (unsigned i = 0; i < cell.routes; ++i)
    text += "  - { match: " + route_path(i) + "/**, to: origin }\n";
  if (cell.policies) return text + "  - { to: origin }\n";
  return text +
         "  - { to: origin, timeout: { total: false, headers: false, idle: false }, retry: "
         "false }\n";
}

// ---- the proxy, without its threads

class Proxy {
 public:
  explicit Proxy(const std::string& text) {
    config::Loaded loaded = config::load_text("cost.yaml", text, {.extensions = filter_keys()});
    for (const config::Diagnostic& diagnostic : loaded.diagnostics)
      std::fputs(config::render(diagnostic).c_str(), stderr);
    if (loaded.config == nullptr) die("the configuration is wrong");
    const config::Config& config = *loaded.config;
    snapshot_ = Snapshot::compile(loaded.config, 1);
    Shared shared;
    for (const config::Service& service : config.services)
      shared.services.push_back(std::make_shared<ServiceShared>(service));
    for (std::size_t i = 0; i < config.listeners.size(); ++i)
      shared.listeners.push_back(std::make_shared<ListenerShared>());
    std::string why;
    if (config.telemetry.access_log != config::Telemetry::Log::kOff) {
      writer_ = std::make_unique<LogWriter>();
      shared.access_log = writer_.get();
      shared.access_sink = writer_->file(config.telemetry.access_log_file, why);
      if (shared.access_sink == nullptr) die("the access log: " + why);
    }
    auto platform = std::make_unique<KernelPlatform>();
    loop_ = platform->uv_loop().uv();
    worker_ = std::make_unique<Worker>(0, snapshot_, shared, std::move(platform));
    std::vector<BoundSocket> sockets;
    config::Address bound;
    if (!bind_listener(config.listeners[0].address, 1, sockets, bound, why)) die(why);
    port_ = bound.port;
    worker_->listen(0, std::move(sockets.front()));
  }
  unsigned port() const { return port_; }
  uv_loop_t* loop() { return loop_; }

  // How many of its connections have something to read.
  std::size_t readable() {
    polled_.clear();
    uv_walk(
        loop(),
        [](uv_handle_t* handle, void* self) {
          uv_os_fd_t fd = -1;
          if (uv_fileno(handle, &fd) == 0)
            static_cast<Proxy*>(self)->polled_.push_back({fd, POLLIN, 0});
        },
        this);
    const int ready = ::poll(polled_.data(), polled_.size(), 0);
    return ready < 0 ? 0 : static_cast<std::size_t>(ready);
  }

 private:
  std::unique_ptr<LogWriter> writer_;
  std::shared_ptr<const Snapshot> snapshot_;
  uv_loop_t* loop_ = nullptr;  // the worker's
  std::unique_ptr<Worker> worker_;
  std::vector<pollfd> polled_;
  unsigned port_ = 0;
};

// ---- the exchange

class Exchange {
 public:
  Exchange(const Cell& cell, bool marks)
      : cell_(cell),
        marks_(marks),
        shape_(shape_of(cell)),
        origin_(cell.up_http2, shape_),
        proxy_(config_of(cell, origin_.port())) {
    for (unsigned i = 0; i < cell.clients; ++i)
      clients_.push_back(connect_client(proxy_.port(), cell.down_http2, shape_));
    hold_threads();
  }
  ~Exchange() { release_threads(); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  unsigned run(unsigned requests) {
    unsigned done = 0;
    for (; done < requests; done += batch()) {}
    return done;
  }
  // From here on turns are counted, and each begins with all that belongs to it.
  void measure() { measured_ = true; }

 private:
  unsigned batch() {
    const unsigned size = cell_.clients * cell_.streams;
    for (const auto& client : clients_) client->ask(cell_.streams);
    turn_with(clients_.size());
    receive([&] { return origin_.waiting() == size; });
    turn_with(origin_.answer());
    receive([&] {
      return std::all_of(clients_.begin(), clients_.end(),
                         [&](const auto& client) { return client->answers == cell_.streams; });
    });
    for (const auto& client : clients_) client->answers = 0;
    if (cell_.log) let_threads_run();
    return size;
  }

  // Loopback delivers at once, but on a busy machine a moment later.
  void turn_with(std::size_t readable) {
    if (measured_)
      for (int ms = 0; proxy_.readable() != readable; ++ms) {
        if (ms == kPatienceMs) die("the proxy's sockets are not readable");
        usleep(1'000);
      }
    turn();
  }

  void turn() {
    clock_ns += kTurnNsPerRequest * cell_.clients * cell_.streams;
    if (!measured_) {
      uv_run(proxy_.loop(), UV_RUN_NOWAIT);
      return;
    }
    if (marks_) getppid();
    counting = true;
    outrider_cost_turn(proxy_.loop());
    counting = false;
    if (marks_) getppid();
  }

  // What the proxy sends. Only while connections are made does the loop want turns of which no
  // descriptor tells.
  template <class Done>
  void receive(const Done& done) {
    for (int tries = 0; !done(); ++tries) {
      std::vector<pollfd> polled{{uv_backend_fd(proxy_.loop()), POLLIN, 0},
                                 {origin_.fd(), POLLIN, 0}};
      std::vector<Peer*> peers;
      for (const auto& client : clients_) peers.push_back(client.get());
      for (const auto& served : origin_.connections) peers.push_back(served.get());
      for (const Peer* peer : peers) polled.push_back({peer->fd(), POLLIN, 0});
      const int ready = ::poll(polled.data(), polled.size(), measured_ ? kPatienceMs : 1);
      if (ready == 0 && (measured_ || tries > kPatienceMs)) die("nothing moves");
      for (std::size_t i = 0; i < peers.size(); ++i)
        if (polled[i + 2].revents != 0) peers[i]->receive();
      if (polled[1].revents != 0) {
        if (measured_) die("a connection to the origin was opened while measuring");
        origin_.accept();
      } else if (ready == 0 || (ready == 1 && polled[0].revents != 0)) {
        turn();
      }
    }
  }

  const Cell& cell_;
  const bool marks_;
  const Shape shape_;
  Origin origin_;
  Proxy proxy_;
  std::vector<std::unique_ptr<Client>> clients_;
  bool measured_ = false;
};

int usage() {
  std::fputs("usage: outrider_cost CELL [--requests N] [--marks], or --list\n", stderr);
  return 64;
}

int run(const std::vector<std::string_view>& words) {
  if (words.empty()) return usage();
  if (words[0] == "--list") {
    for (const Cell& cell : kCells) std::printf("%s\n", std::string(cell.name).c_str());
    return 0;
  }
  const Cell* const cell = std::find_if(std::begin(kCells), std::end(kCells),
                                        [&](const Cell& it) { return it.name == words[0]; });
  if (cell == std::end(kCells)) return usage();
  unsigned requests = kRequests;
  bool marks = false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--marks")
      marks = true;
    else if (words[i] == "--requests" && i + 1 < words.size())
      requests = static_cast<unsigned>(std::atoi(words[++i].data()));
    else
      return usage();
  }
  seed_thread_random(1);
  Exchange exchange(*cell, marks);
  exchange.run(kWarmUp);
  exchange.measure();
  requests = exchange.run(requests);
  std::printf("requests %u\nallocations %llu\nclock_reads %llu\n", requests,
              static_cast<unsigned long long>(counts.allocations),
              static_cast<unsigned long long>(counts.clock_reads));
  print_first_allocation();
  return 0;
}

}  // namespace
}  // namespace outrider::cost

int main(int argc, char** argv) {
  return outrider::cost::run({argv + std::min(argc, 1), argv + argc});
}
