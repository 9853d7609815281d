// One of three servers is killed under load, with everything at its default. No request that may be
// repeated fails unless its answer had begun: what was on its way goes to another server, and the
// dead one is soon asked no more. The servers are processes, so that the kernel ends them as it
// would.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/load.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Either protocol; each request takes a few milliseconds, so that some are always under way.
void serve(Stream& stream, const Head& head) {
  stream.read_body();
  std::this_thread::sleep_for(10ms);
  const bool grpc = head.fields.value("content-type") == "application/grpc";
  // In one piece, so that none is cut after it has begun.
  if (!grpc) return stream.send(Response{.status = 204});
  stream.send(Response{.status = 200,
                       .fields = {{"content-type", "application/grpc"}, {"grpc-status", "0"}}});
}

// A server in a process of its own. Made before anything in the test has a thread.
class ServerProcess {
 public:
  ServerProcess() {
    int ends[2];
    if (pipe(ends) != 0) throw HarnessError("pipe");
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const HttpOrigin origin(serve);
      const std::string text = origin.address() + "\n";
      if (write(ends[1], text.data(), text.size()) < 0) _exit(1);
      for (;;) pause();
    }
    ::close(ends[1]);
    for (char byte = 0; read(ends[0], &byte, 1) == 1 && byte != '\n';) address_ += byte;
    ::close(ends[0]);
  }
  ~ServerProcess() { end(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& address() const { return address_; }
  void end() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  std::string address_;
};

class KilledEndpoint : public testing::Test {
 protected:
  static constexpr int kClients = 32;
  static constexpr auto kAfter = 3s;

  // Runs while it is asked whether to go on; whoever asks is a client between two requests.
  bool goes_on() const { return Clock::now() < until_.load(); }
  void outcome(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++outcomes_[what];
  }
  int served() {
    const std::lock_guard lock(mutex_);
    return outcomes_["served"];
  }

  // With half of the load before the kill, the other after it.
  template <class Load>
  void kill_one_under(Load load) {
    auto clients = std::async(std::launch::async, load);
    const auto deadline = Clock::now() + patience();
    while (served() < 1000 && Clock::now() < deadline) std::this_thread::sleep_for(1ms);
    EXPECT_GE(served(), 1000);
    servers_[1].end();
    const int before = served();
    until_ = Clock::now() + kAfter;
    clients.get();
    EXPECT_GT(served(), before + 200);
    outcomes_.erase("served");
    for (const auto& [what, count] : outcomes_) ADD_FAILURE() << count << " times " << what;
  }

  ServerProcess servers_[3];
  Outrider proxy_{R"(
    outrider: v1
    listen: 127.0.0.1:0
    telemetry: { access_log: false, metrics: { address: "127.0.0.1:0" } }
    services: { shop: ["$ONE", "$TWO", "$THREE"] }
    routes: [{ to: shop }])",
                  {{"ONE", servers_[0].address()},
                   {"TWO", servers_[1].address()},
                   {"THREE", servers_[2].address()}}};
  std::atomic<Clock::time_point> until_ = Clock::time_point::max();
  std::mutex mutex_;
  std::map<std::string, int> outcomes_;
};

TEST_F(KilledEndpoint, CostsNoGetOverHttp1) {
  kill_one_under([this] {
    run_load(proxy_.address(), kClients,
             {.request =
                  [this](std::uint64_t) {
                    return goes_on() ? "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" : "";
                  },
              .outcome =
                  [this](std::uint64_t, int status, std::string_view body) {
                    if (status == 0) return outcome("cut before the answer was whole");
                    outcome(status == 204 ? "served" : std::string(body));
                  }});
  });
}

// Calls that may be repeated: gRPC is always POST.
TEST_F(KilledEndpoint, CostsNoUnaryCallWithAKey) {
  kill_one_under([this] {
    Client client = proxy_.client(Protocol::kHttp2);
    client.h2();  // the connection that all share
    std::vector<std::future<void>> callers;
    for (int i = 0; i < kClients; ++i)
      callers.push_back(std::async(std::launch::async, [&] {
        while (goes_on()) {
          const Response response = client.request({.method = "POST",
                                                    .target = "/shop.Cart/Get",
                                                    .fields = {{"content-type", "application/grpc"},
                                                               {"te", "trailers"},
                                                               {"idempotency-key", "k"}},
                                                    .body = std::string(5, '\0')});
          outcome(response.fields.value("grpc-status") == "0"
                      ? "served"
                      : response.fields.value("grpc-message"));
        }
      }));
    for (auto& caller : callers) caller.get();
  });
}

}  // namespace
}  // namespace outrider::test
