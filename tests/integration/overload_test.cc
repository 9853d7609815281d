// Overload: near a ceiling work is refused with its reason, the process lives, and everything is
// taken again when there is room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/gate.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;
using Clock = std::chrono::steady_clock;

// AddressSanitizer keeps what was freed, so memory falls only without it.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kMemoryFalls = false;
#else
constexpr bool kMemoryFalls = true;
#endif

constexpr std::size_t kMiB = 1 << 20;

std::string yaml(const std::string& overload) {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    overload: )" +
         overload + R"(
    services: { one: "$ORIGIN" }
    routes:
      - { to: one, timeout: { idle: 1h } }
      - { match: /here, respond: { status: 200, body: here } })";
}

// Anonymous memory of the process, as the ceiling counts it.
std::size_t anonymous_bytes(const Outrider& proxy) {
  std::ifstream status("/proc/" + std::to_string(proxy.pid()) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("RssAnon:", 0) == 0) return std::stoul(line.substr(8)) * 1024;
  return 0;
}

std::size_t at_rest(const std::string& origin) {
  Outrider proxy(yaml("false"), {{"ORIGIN", origin}});
  proxy.client().get("/here");
  return anonymous_bytes(proxy);
}

// Heads that do not end, until a client that is there already is refused.
TEST(Overload, MemoryNearItsCeiling) {
  if (!release_build()) GTEST_SKIP() << "sanitizers have memory figures of their own";
  constexpr std::size_t kRoom = 24 * kMiB;
  constexpr int kCrowd = 600;
  Gate gate;
  const std::size_t ceiling = at_rest(gate.address()) + kRoom;
  Outrider proxy(yaml("{ memory: " + std::to_string(ceiling) + ", loop_delay: false }"),
                 {{"ORIGIN", gate.address()}});
  RawClient client = proxy.raw();
  std::size_t asked = 0;
  const auto ask = [&] {
    ++asked;
    client.send("GET /here HTTP/1.1\r\nHost: a\r\n\r\n");
    return client.read_response();
  };
  ASSERT_EQ(ask().status, 200);
  std::vector<RawClient> crowd;
  for (int i = 0; i < kCrowd; ++i) crowd.push_back(proxy.raw());
  ASSERT_EQ(proxy.await_metric("outrider_downstream_connections", kCrowd + 1), kCrowd + 1);

  const std::string head = "GET /here HTTP/1.1\r\nHost: a\r\nX-Long: " + std::string(60'000, 'x');
  Response response;
  std::size_t most = 0;
  std::size_t sent = 0;
  for (RawClient& one : crowd) {
    one.send(head);
    sent += head.size();
    most = std::max(most, anonymous_bytes(proxy));
    if (sent < kRoom * 3 / 4) continue;
    std::this_thread::sleep_for(10ms);  // slower than it looks
    response = ask();
    if (response.status == 503) break;
  }
  EXPECT_THAT(response.body, StartsWith("503 overload: overload.memory "));
  EXPECT_THAT(response.body, HasSubstr("(as written) is nearly used up"));
  EXPECT_EQ(response.fields.value("retry-after"), "2");
  proxy.await_error("no new connections");
  EXPECT_GE(proxy.metric("outrider_limit_refused_total{service='main',limit='overload'}"), 1);
  EXPECT_GE(proxy.metric("outrider_overload_step"), 2);
  EXPECT_GT(proxy.metric("outrider_overload{resource='memory'}"), 0.9);
  EXPECT_EQ(proxy.log(asked)[asked - 1].at("reason"), "overload");
  if (!kMemoryFalls) return;

  EXPECT_LT(most, ceiling);
  crowd.clear();
  proxy.await_error("all is taken again");
  EXPECT_EQ(proxy.await_metric("outrider_overload_step", 0), 0);
  EXPECT_EQ(proxy.client().get("/here").status, 200);
}

// Above the ceiling from the start: nobody is let in, and the surfaces for operators answer.
TEST(Overload, NobodyIsAcceptedAboveTheCeiling) {
  Gate gate;
  Outrider proxy(yaml("{ memory: 64KiB }"), {{"ORIGIN", gate.address()}});
  proxy.await_error("the ceiling is 0 MiB (as written): no new connections or requests");
  EXPECT_EQ(proxy.metric("outrider_overload_step"), 3);  // workers have heard of it, too
  RawClient client = proxy.raw();
  client.send("GET /here HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_FALSE(client.socket().readable(300ms));
  EXPECT_EQ(proxy.admin("/ready").status, 200);
}

TEST(Overload, OffMeansOff) {
  Gate gate;
  Outrider proxy(yaml("false"), {{"ORIGIN", gate.address()}});
  EXPECT_EQ(proxy.client().get("/here").status, 200);
  EXPECT_EQ(proxy.metric("outrider_overload{resource='memory'}"), 0);
}

// Clients may take a share of the descriptors; the rest is for connections to servers.
TEST(Overload, DescriptorsAreKeptForServers) {
  HttpOrigin origin = HttpOrigin::answering({.status = 200, .body = "fine"});
  Outrider proxy(yaml("{ memory: false, descriptors: 60% }"), {{"ORIGIN", origin.address()}});
  rlimit limit{};
  ASSERT_EQ(prlimit(proxy.pid(), RLIMIT_NOFILE, nullptr, &limit), 0);
  limit.rlim_cur = 200;
  ASSERT_EQ(prlimit(proxy.pid(), RLIMIT_NOFILE, &limit, nullptr), 0);
  std::this_thread::sleep_for(1500ms);  // until it has looked again

  Client client = proxy.client();
  ASSERT_EQ(client.get("/here").status, 200);
  std::vector<RawClient> crowd;
  for (int i = 0; i < 150; ++i) crowd.push_back(proxy.raw());
  const auto deadline = Clock::now() + patience();
  while (proxy.metric("outrider_limit_refused_total{limit='descriptors'}") == 0 &&
         Clock::now() < deadline)
    std::this_thread::sleep_for(5ms);
  EXPECT_GE(proxy.metric("outrider_limit_refused_total{limit='descriptors'}"), 1);
  EXPECT_LE(proxy.descriptors(), 125U);
  EXPECT_EQ(client.get("/").status, 200);  // over a connection that has to be made
  EXPECT_EQ(client.connections(), 1);
  crowd.clear();
  while (proxy.descriptors() > 100 && Clock::now() < deadline) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(proxy.client().get("/").status, 200);
}

}  // namespace
}  // namespace outrider::test
