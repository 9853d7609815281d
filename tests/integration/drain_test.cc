// How the process ends, and what other signals do. Invariant: a request that was taken is answered,
// clients are told in their protocol's words, and the deadline is the end for whoever stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
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
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kNoStreamYet = 0x7fffffff;

// Polls: nothing announces the moment when a port begins to refuse.
bool becomes_true(const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + patience();
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

bool refuses(const std::string& address) {
  try {
    const RawClient raw(address);
    return false;
  } catch (const HarnessError&) {
    return true;
  }
}

std::string with_drain(const std::string& drain) {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    drain: )" +
         drain + R"(
    services: { one: "$ORIGIN" }
    routes: [{ to: one }])";
}

TEST(Drain, ClientsAreToldWhileTheDoorsAreStillOpen) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 2s, deadline: 30s }"), {{"ORIGIN", gate.address()}});
  RawClient kept = proxy.raw();
  RawClient idle = proxy.raw();
  for (RawClient* raw : {&kept, &idle}) {
    raw->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const Response before = raw->read_response();
    EXPECT_EQ(before.body, "done");
    EXPECT_FALSE(before.fields.has("connection"));
  }
  Client h2 = proxy.client(Protocol::kHttp2);
  EXPECT_EQ(h2.get("/").status, 200);
  H2Connection& connection = h2.h2();
  const auto held = connection.open();
  held->send_head({.method = "GET", .target = "/held", .authority = kAuthority}, true);
  gate.origin().wait_requests(4);
  const auto begun = Clock::now();

  proxy.signal(SIGTERM);

  const H2Connection::Goaway first = connection.wait_goaway(1);
  EXPECT_EQ(first.code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(static_cast<std::uint32_t>(first.last_stream), kNoStreamYet);
  const Response ready = proxy.admin("/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr("draining"));
  EXPECT_EQ(proxy.admin("/live").status, 200);

  kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const Response last = kept.read_response();
  EXPECT_EQ(last.body, "done");
  EXPECT_EQ(last.fields.value("connection"), "close");
  EXPECT_EQ(kept.read_end(), Socket::End::kFin);
  EXPECT_EQ(proxy.client().get("/").fields.value("connection"), "close");  // a new connection
  EXPECT_LT(Clock::now() - begun, 2s) << "too slow a machine for this delay";

  EXPECT_EQ(idle.read_end(), Socket::End::kFin);
  const H2Connection::Goaway second = connection.wait_goaway(2);
  EXPECT_EQ(second.code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(second.last_stream, held->id());
  gate.open();
  EXPECT_EQ(held->read_head().status, 200);
  EXPECT_EQ(held->read_body(), "done");
  connection.wait_closed();
  EXPECT_EQ(proxy.wait_exit(), 0);
  EXPECT_GE(Clock::now() - begun, 2s);
}

TEST(Drain, RequestsInFlightFinish) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 0s, deadline: 60s }"), {{"ORIGIN", gate.address()}});
  constexpr int kEach = 20;
  std::vector<RawClient> h1;
  for (int i = 0; i < kEach; ++i) {
    h1.push_back(proxy.raw());
    h1.back().send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  Client client = proxy.client(Protocol::kHttp2);
  std::vector<std::shared_ptr<H2Stream>> h2;
  for (int i = 0; i < kEach; ++i) {
    h2.push_back(client.h2().open());
    h2.back()->send_head({.method = "GET", .target = "/held", .authority = kAuthority}, true);
  }
  gate.origin().wait_requests(2 * kEach);

  proxy.signal(SIGTERM);
  EXPECT_TRUE(becomes_true([&] { return refuses(proxy.address()); }));
  EXPECT_EQ(proxy.admin("/ready").status, 503);  // these surfaces stay to the end
  gate.open();

  for (RawClient& raw : h1) {
    const Response response = raw.read_response();
    EXPECT_EQ(response.body, "done");
    EXPECT_EQ(response.fields.value("connection"), "close");
  }
  for (const auto& stream : h2) {
    EXPECT_EQ(stream->read_head().status, 200);
    EXPECT_EQ(stream->read_body(), "done");
  }
  h2.clear();
  EXPECT_EQ(proxy.wait_exit(), 0);
  for (const auto& line : proxy.log(2 * kEach)) EXPECT_EQ(line.at("reason"), "ok");
}

// A supervisor's SIGTERM that follows its hook's POST /drain.
TEST(Drain, ASignalAfterTheAdminsDrainIsNoSecondOne) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 0s, deadline: 60s }"), {{"ORIGIN", gate.address()}});
  RawClient raw = proxy.raw();
  raw.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  gate.origin().wait_requests(1);
  EXPECT_EQ(proxy.admin("/drain", "POST").status, 202);
  EXPECT_TRUE(becomes_true([&] { return refuses(proxy.address()); }));
  proxy.signal(SIGTERM);
  EXPECT_EQ(proxy.admin("/ready").status, 503);
  gate.open();
  EXPECT_EQ(raw.read_response().body, "done");
  EXPECT_EQ(proxy.wait_exit(), 0);
  EXPECT_EQ(proxy.errors().find("cut short"), std::string::npos);
}

TEST(Drain, WithoutADeadlineNothingIsCut) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 0s, deadline: false }"), {{"ORIGIN", gate.address()}});
  RawClient raw = proxy.raw();
  raw.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  gate.origin().wait_requests(1);
  proxy.signal(SIGTERM);
  EXPECT_TRUE(becomes_true([&] { return refuses(proxy.address()); }));
  gate.open();
  EXPECT_EQ(raw.read_response().body, "done");
  EXPECT_EQ(proxy.wait_exit(), 0);
}

TEST(Drain, ASuccessorKeepsTheSocketItTook) {
  const TemporaryFolder shared;
  const std::string path = shared.path() + "/s.sock";
  const std::string yaml = R"(
    outrider: v1
    listen: "unix:$SOCKET"
    drain: { delay: 0s, deadline: 60s }
    services: { one: "$ORIGIN" }
    routes: [{ to: one }])";
  Gate gate("/held");
  const Outrider::Substitutions of{{"SOCKET", path}, {"ORIGIN", gate.address()}};
  Outrider before(yaml, of);
  RawClient held("unix:" + path);
  held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  gate.origin().wait_requests(1);
  before.signal(SIGTERM);
  EXPECT_TRUE(becomes_true([&] { return !std::filesystem::exists(path); }));

  Outrider after(yaml, of);
  gate.open();
  EXPECT_EQ(held.read_response().body, "done");
  EXPECT_EQ(before.wait_exit(), 0);
  EXPECT_EQ(Client("unix:" + path).get("/").body, "done");
  EXPECT_EQ(after.stop(), 0);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Drain, TheDeadlineCutsWhatIsLeft) {
  Gate gate("/held");
  Origin echo([](RawClient& connection, int) {
    connection.read_head_text();
    connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    for (std::string bytes; !(bytes = connection.read_some()).empty();) connection.send(bytes);
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    drain: { delay: 0s, deadline: 1s }
    services: { one: "$ORIGIN", echo: "$ECHO" }
    routes:
      - { to: one }
      - { match: /echo, to: echo })",
                 {{"ORIGIN", gate.address()}, {"ECHO", echo.address()}});
  RawClient tunnel = proxy.raw();
  tunnel.send(
      "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  EXPECT_EQ(tunnel.read_head().status, 101);
  RawClient held = proxy.raw();
  held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  gate.origin().wait_requests(1);
  const auto begun = Clock::now();

  proxy.signal(SIGTERM);
  EXPECT_TRUE(becomes_true([&] { return refuses(proxy.address()); }));
  tunnel.send("still open");
  EXPECT_EQ(tunnel.read_exactly(10), "still open");

  EXPECT_EQ(proxy.wait_exit(), 0);
  EXPECT_GE(Clock::now() - begun, 1s);
  EXPECT_EQ(tunnel.read_all(), "");
  const Response answer = held.read_response();
  EXPECT_EQ(answer.status, 503);
  EXPECT_TRUE(answer.body.starts_with("503 drain: ")) << answer.body;
  const auto lines = proxy.log(2);
  EXPECT_EQ(lines.size(), 2U);
  for (const auto& line : lines) EXPECT_EQ(line.at("reason"), "drain") << line.at("path");
  EXPECT_THAT(proxy.errors(), HasSubstr("2 exchanges cut short"));
}

TEST(Drain, Http2HearsOfTheDeadline) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 0s, deadline: 1s }"), {{"ORIGIN", gate.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  H2Connection& connection = client.h2();
  const auto plain = connection.open();
  plain->send_head({.method = "GET", .target = "/held", .authority = kAuthority}, true);
  const auto grpc = connection.open();
  grpc->send_head({.method = "POST",
                   .target = "/held",
                   .authority = kAuthority,
                   .fields = {{"content-type", "application/grpc"}, {"te", "trailers"}}},
                  true);
  gate.origin().wait_requests(2);

  EXPECT_EQ(proxy.stop(SIGTERM), 0);

  EXPECT_EQ(plain->read_head().status, 503);
  EXPECT_TRUE(plain->read_body().starts_with("503 drain: "));
  const Head head = grpc->read_head();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.fields.value("grpc-status"), "14");
  EXPECT_EQ(connection.wait_goaway().code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  for (const auto& line : proxy.log(2)) EXPECT_EQ(line.at("reason"), "drain");
}

TEST(Drain, ASecondSignalEndsItAtOnce) {
  for (const int second : {SIGTERM, SIGINT}) {
    Gate gate("/held");
    Outrider proxy(with_drain("{ delay: 60s, deadline: 120s }"), {{"ORIGIN", gate.address()}});
    RawClient held = proxy.raw();
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.origin().wait_requests(1);
    proxy.signal(SIGTERM);
    EXPECT_TRUE(becomes_true([&] { return proxy.admin("/ready").status == 503; }));
    EXPECT_EQ(proxy.stop(second), 0);
  }
}

TEST(Drain, SigintHasNoDelay) {
  Gate gate("/held");
  Outrider proxy(with_drain("{ delay: 60s, deadline: 120s }"), {{"ORIGIN", gate.address()}});
  RawClient held = proxy.raw();
  held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  gate.origin().wait_requests(1);
  proxy.signal(SIGINT);
  EXPECT_TRUE(becomes_true([&] { return refuses(proxy.address()); }));
  gate.open();
  EXPECT_EQ(held.read_response().body, "done");
  EXPECT_EQ(proxy.wait_exit(), 0);
}

TEST(Drain, TheApplicationsWayOutClosesLast) {
  Gate gate("/held");
  Outrider proxy(R"(
    outrider: v1
    listeners:
      public: { address: ":0" }
      out: { address: 127.0.0.1:0 }
      unix: { address: "unix:$FOLDER/out.sock" }
    drain: { delay: 0s, deadline: 60s }
    services: { one: "$ORIGIN" }
    routes: [{ to: one }])",
                 {{"ORIGIN", gate.address()}});
  const std::string bound = proxy.address("public");
  const std::string inbound = "127.0.0.1" + bound.substr(bound.rfind(':'));
  RawClient held(inbound);
  held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  RawClient out = proxy.raw("out");
  out.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(out.read_response().status, 200);
  gate.origin().wait_requests(2);

  proxy.signal(SIGTERM);
  EXPECT_TRUE(becomes_true([&] { return refuses(inbound); }));
  EXPECT_EQ(proxy.client(Protocol::kHttp1, "out").get("/").status, 200);
  EXPECT_EQ(proxy.client(Protocol::kHttp1, "unix").get("/").status, 200);

  gate.open();
  EXPECT_EQ(held.read_response().body, "done");
  EXPECT_EQ(out.read_end(), Socket::End::kFin);
  EXPECT_EQ(proxy.wait_exit(), 0);
}

TEST(Drain, UnixSocketsAreClosedToOthersAndRemoved) {
  std::string path;
  Outrider proxy(R"(
    outrider: v1
    listen: "unix:$FOLDER/main.sock"
    routes: [{ respond: 200 }])");
  path = proxy.folder().path() + "/main.sock";
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_EQ(proxy.stop(SIGINT), 0);
  EXPECT_NE(::stat(path.c_str(), &info), 0);
}

TEST(Signals, OthersDoNotEndTheProcess) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ respond: 200 }])");
  for (const int number : {SIGHUP, SIGUSR1, SIGPIPE, SIGURG, SIGWINCH}) proxy.signal(number);
  proxy.await_error("SIGHUP");
  EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_EQ(proxy.admin("/ready").status, 200);
  EXPECT_EQ(proxy.stop(SIGINT), 0);
}

TEST(Exit, SaysWhyItDidNotStart) {
  ListeningSocket taken;
  TemporaryFolder folder;
  const auto run = [&](const std::string& yaml) {
    return run_outrider({"run", folder.write("a.yaml", yaml)});
  };
  const std::string quiet = "telemetry: { metrics: false }\nadmin: false\n";
  const std::string routes = "routes: [{ respond: 200 }]\n" + quiet;

  const CommandResult bad = run("outrider: v1\nlisten: 127.0.0.1:0\nrouts: []\n");
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("a.yaml:3:1: error: "));

  const CommandResult busy = run("outrider: v1\nlisten: \"" + taken.address() + "\"\n" + routes);
  EXPECT_EQ(busy.exit_code, 1);
  EXPECT_THAT(busy.err, HasSubstr(taken.address()));
  EXPECT_THAT(busy.err, testing::Not(HasSubstr("\nready")));

  const CommandResult admin =
      run("outrider: v1\nlisten: 127.0.0.1:0\nroutes: [{ respond: 200 }]\n"
          "telemetry: { metrics: false }\nadmin: { address: \"" +
          taken.address() + "\" }\n");
  EXPECT_EQ(admin.exit_code, 1);
  EXPECT_EQ(run_outrider({"run"}).exit_code, 64);
}

}  // namespace
}  // namespace outrider::test
