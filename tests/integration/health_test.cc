// Health checks against real servers: every kind of probe, what its answers mean, who is used
// meanwhile, and where all of it can be seen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <string>
#include <thread>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;
using Clock = std::chrono::steady_clock;

std::string checked(const std::string& health, const std::string& more = "") {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      cart:
        endpoints: ["$A", "$B"]
        balance: round-robin
        eject: false)" +
         more + R"(
        health: )" +
         health + R"(
    routes: [{ to: cart, retry: false }])";
}

// Waits for /services to say so.
std::string await_services(Outrider& proxy, const std::string& text) {
  const auto deadline = Clock::now() + patience();
  std::string services;
  while (Clock::now() < deadline) {
    services = proxy.admin("/services").body;
    if (services.find(text) != std::string::npos) break;
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_THAT(services, HasSubstr(text));
  return services;
}

HttpOrigin fine() { return HttpOrigin::answering({.status = 200, .body = "fine"}); }

// Answers requests with 200, and probes as the test says at the time.
class Patient {
 public:
  explicit Patient(int status)
      : status_(status), origin_([this](Stream& stream, const Head& head) {
          stream.read_body();
          const bool probe = head.target == "/healthz";
          if (probe) ++probes_;
          if (!probe) ++requests_;
          stream.send(Response{.status = probe ? status_.load() : 200, .body = "x"});
        }) {}
  void turn(int status) { status_ = status; }
  int requests() const { return requests_; }
  int probes() const { return probes_; }
  HttpOrigin& origin() { return origin_; }

 private:
  std::atomic<int> status_;
  std::atomic<int> requests_{0};
  std::atomic<int> probes_{0};
  HttpOrigin origin_;
};

TEST(Health, ThresholdsDecideBothWays) {
  Patient a(503);
  Patient b(200);
  Outrider proxy(checked("{ probe: GET /healthz, every: 100ms, healthy: 2, unhealthy: 3 }"),
                 {{"A", a.origin().address()}, {"B", b.origin().address()}}, {.workers = 4});
  proxy.await_error("service cart: endpoint " + a.origin().address() +
                    " is unhealthy: probe GET /healthz: 503, 3 of 3 failed");
  EXPECT_THAT(await_services(proxy, R"("health": "unhealthy")"),
              HasSubstr(R"("why": "probe GET /healthz: 503, 3 of 3 failed")"));
  const int before = a.requests();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_EQ(a.requests(), before);
  EXPECT_GE(b.requests(), 20);
  EXPECT_GE(proxy.metric("outrider_health_probes_total{service='cart',result='status'}"), 3);
  EXPECT_GE(proxy.metric("outrider_health_probes_total{service='cart',result='ok'}"), 1);

  a.turn(204);
  proxy.await_error(" is healthy: probe GET /healthz: 204");
  await_services(proxy, R"("why": "probe GET /healthz: 204")");
  for (int i = 0; i < 20; ++i) EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_GT(a.requests(), before);
}

TEST(Health, TheProbeSaysWhoAsks) {
  HttpOrigin a = fine();
  HttpOrigin b = fine();
  Outrider proxy(checked("GET /healthz?deep=1"), {{"A", a.address()}, {"B", b.address()}});
  a.wait_requests(1);
  const Head head = a.heads().front();
  EXPECT_EQ(head.method, "GET");
  EXPECT_EQ(head.target, "/healthz?deep=1");
  EXPECT_EQ(head.authority, a.address());
  EXPECT_EQ(head.fields.value("user-agent"), "outrider/health");

  Outrider named(checked("{ probe: HEAD /, host: shop.example }"),
                 {{"A", b.address()}, {"B", a.address()}});
  b.wait_requests(2);
  EXPECT_EQ(b.heads().back().method, "HEAD");
  EXPECT_EQ(b.heads().back().authority, "shop.example");
}

// What is not a good answer, by the words it gets.
void expect_unhealthy(Origin& bad, const std::string& health, const std::string& words,
                      const std::string& more = "") {
  HttpOrigin good = fine();
  Outrider proxy(checked(health, more), {{"A", bad.address()}, {"B", good.address()}});
  proxy.await_error("service cart: endpoint " + bad.address() + " is unhealthy");
  EXPECT_THAT(proxy.errors(), HasSubstr(words)) << health;
}

TEST(Health, WhatIsNoGoodAnswer) {
  const std::string quick = "{ probe: GET /, every: 100ms, timeout: 300ms, unhealthy: 1 }";
  const auto answering = [](std::string text) {
    return [text](RawClient& connection, int) {
      connection.read_request();
      connection.send(text);
      connection.read_end();
    };
  };
  Origin redirecting(answering("HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"));
  expect_unhealthy(redirecting, quick, "probe GET /: 302, 1 of 1 failed");
  Origin garbage(answering("HELLO\r\n\r\n"));
  expect_unhealthy(garbage, quick, "probe GET /: ");
  Origin cut([](RawClient& connection, int) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive5");
  });
  expect_unhealthy(cut, quick, "1 of 1 failed");
  Origin silent([](RawClient& connection, int) {
    connection.read_request();
    connection.read_end();
  });
  expect_unhealthy(silent, quick, "probe GET /: no answer within 300ms, 1 of 1 failed");
  Origin trickling([](RawClient& connection, int) {
    connection.read_request();
    for (int i = 0; i < 100; ++i) {
      if (!connection.try_send("H", 10ms)) return;
      std::this_thread::sleep_for(20ms);
    }
  });
  expect_unhealthy(trickling, quick, "1 of 1 failed");
}

TEST(Health, NobodyThere) {
  HttpOrigin good = fine();
  for (const std::string probe : {"tcp", "GET /", "grpc"}) {
    Outrider proxy(R"(
      outrider: v1
      listen: 127.0.0.1:0
      services:
        cart: { endpoints: ["$REFUSING", "$GOOD"], health: { probe: )" +
                       probe + R"(, every: 100ms, unhealthy: 1 } }
      routes: [{ to: cart }])",
                   {{"GOOD", good.address()}});
    proxy.await_error("is unhealthy: probe " + probe + ": connection refused, 1 of 1 failed");
    EXPECT_GE(proxy.metric("outrider_health_probes_total{result='connect_failure'}"), 1);
  }
}

TEST(Health, StatusesThatWereListedAreGood) {
  Patient a(302);
  Patient b(418);
  Outrider proxy(checked("{ probe: GET /healthz, every: 100ms, unhealthy: 1, "
                         "status: [300..399, 418] }"),
                 {{"A", a.origin().address()}, {"B", b.origin().address()}});
  await_services(proxy, "probe GET /healthz: 302");
  EXPECT_THAT(await_services(proxy, "probe GET /healthz: 418"), Not(HasSubstr("\"unhealthy\"")));
}

// A huge answer costs its first 64 KiB and is judged by its status.
TEST(Health, AHugeAnswerIsNotReadToItsEnd) {
  std::atomic<std::size_t> sent{0};
  std::atomic<int> ended{0};
  Origin huge([&](RawClient& connection, int) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string chunk = "4000\r\n" + std::string(0x4000, 'x') + "\r\n";
    std::size_t mine = 0;
    while (mine < (std::size_t{64} << 20) && connection.try_send(chunk, patience()))
      mine += chunk.size();
    sent = std::max(sent.load(), mine);
    ++ended;
  });
  HttpOrigin good = fine();
  Outrider proxy(checked("{ probe: GET /, every: 1h }"),
                 {{"A", huge.address()}, {"B", good.address()}});
  EXPECT_EQ(proxy.await_metric("outrider_health_probes_total{service='cart',result='ok'}", 2), 2);
  const auto deadline = Clock::now() + patience();
  while (ended == 0 && Clock::now() < deadline) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(ended, 1);
  EXPECT_LT(sent, std::size_t{32} << 20);
}

TEST(Health, OverHttp2WhereTheServiceSpeaksIt) {
  HttpOrigin a = fine();
  HttpOrigin b = fine();
  Outrider proxy(checked("{ probe: GET /healthz, every: 100ms }", "\n        protocol: http2"),
                 {{"A", a.address()}, {"B", b.address()}});
  a.wait_requests(3);
  EXPECT_EQ(a.heads().front().target, "/healthz");
  EXPECT_GE(a.connections(), 2);
  EXPECT_THAT(await_services(proxy, "probe GET /healthz: 200"), Not(HasSubstr("unhealthy")));
}

// The health service of gRPC, as far as a probe sees it.
HttpOrigin grpc_health(std::string message, std::string status) {
  return HttpOrigin([message, status](Stream& stream, const Head&) {
    const std::string request = stream.read_body();
    stream.send_head({.status = 200, .fields = {{"content-type", "application/grpc"}}}, false);
    if (!message.empty()) stream.write(message);
    stream.finish({{"grpc-status", status}});
  });
}

TEST(Health, GrpcServing) {
  const std::string serving("\0\0\0\0\2\x08\x01", 7);
  const std::string not_serving("\0\0\0\0\2\x08\x02", 7);
  const std::string unknown("\0\0\0\0\0", 5);
  struct {
    std::string message, status, words;
  } const cases[] = {{serving, "0", ""},
                     {not_serving, "0", "NOT_SERVING"},
                     {unknown, "0", "UNKNOWN"},
                     {"", "12", "grpc-status 12"},
                     {std::string("\0\0\0\0\2\x10\x01", 7), "0", "a malformed message"},
                     {std::string("\0\0\0\0\7\x08\x01", 7), "0", "a malformed message"},
                     {std::string(1, '\0'), "0", "a malformed message"}};
  for (const auto& one : cases) {
    HttpOrigin a = grpc_health(one.message, one.status);
    HttpOrigin b = grpc_health(serving, "0");
    Outrider proxy(checked("{ probe: grpc shop.Cart, every: 100ms, unhealthy: 2 }"),
                   {{"A", a.address()}, {"B", b.address()}});
    a.wait_requests(3);
    EXPECT_EQ(a.heads().front().target, "/grpc.health.v1.Health/Check");
    EXPECT_EQ(a.heads().front().method, "POST");
    if (one.words.empty())
      EXPECT_THAT(await_services(proxy, "probe grpc shop.Cart: SERVING"),
                  Not(HasSubstr("unhealthy")));
    else
      proxy.await_error("is unhealthy: probe grpc shop.Cart: " + one.words + ", 2 of 2 failed");
  }
}

TEST(Health, GrpcAsksForTheService) {
  std::atomic<bool> asked{false};
  HttpOrigin a([&](Stream& stream, const Head&) {
    if (stream.read_body() == std::string("\0\0\0\0\x0b\x0a\x09shop.Cart", 16)) asked = true;
    stream.send(Response{.status = 503});
  });
  HttpOrigin b = fine();
  Outrider proxy(checked("{ probe: grpc shop.Cart, unhealthy: 1 }"),
                 {{"A", a.address()}, {"B", b.address()}});
  proxy.await_error(a.address() + " is unhealthy: probe grpc shop.Cart: 503");
  EXPECT_TRUE(asked);
}

TEST(Health, TcpIsConnectingAlone) {
  Origin a([](RawClient& connection, int) { connection.read_end(); });
  Origin b([](RawClient& connection, int) { connection.read_end(); });
  Outrider proxy(checked("{ probe: tcp, every: 100ms }"), {{"A", a.address()}, {"B", b.address()}});
  a.wait_connections(3);
  EXPECT_EQ(a.received(0), "");
  EXPECT_THAT(await_services(proxy, "probe tcp: connected"), Not(HasSubstr("unhealthy")));
}

// No verdict yet is no reason to wait: requests go out before a probe has an answer.
TEST(Health, AStartWaitsForNoProbe) {
  Origin slow([](RawClient& connection, int) {
    const Request request = connection.read_request();
    if (request.target == "/healthz") {
      connection.read_end();
      return;
    }
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cart: { endpoints: ["$A"], health: { probe: GET /healthz, timeout: 20s } } }
    routes: [{ to: cart }])",
                 {{"A", slow.address()}});
  slow.wait_connections(1);
  EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_THAT(proxy.admin("/services").body, HasSubstr("probe GET /healthz: no answer yet"));
}

// Probes take no place under the service's limits.
// Two of three are dead: those two are used rather than the third be overrun, and it is said.
TEST(Health, TooFewThatAreWellIsAPanicThatIsSaid) {
  Patient a(200);
  Patient b(500);
  Patient c(500);
  Outrider proxy(
      R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      cart:
        endpoints: ["$A", "$B", "$C"]
        balance: round-robin
        eject: false
        health: { probe: GET /healthz, every: 100ms, unhealthy: 1, healthy: 1 }
    routes: [{ to: cart, retry: false }])",
      {{"A", a.origin().address()}, {"B", b.origin().address()}, {"C", c.origin().address()}});
  EXPECT_EQ(proxy.await_metric("outrider_service_panic{service='cart'}", 1), 1);
  proxy.await_error("service cart panics: 1 of 3 endpoints are usable, so all of them are used");
  EXPECT_THAT(proxy.admin("/ready").body,
              HasSubstr("panic: of the service cart 1 of 3 endpoints are usable"));
  EXPECT_THAT(await_services(proxy, R"("panic": true)"), HasSubstr("unhealthy"));
  const int before = b.requests() + c.requests();
  for (int i = 0; i < 9; ++i) EXPECT_EQ(proxy.client().get("/").status, 200);
  EXPECT_GE(b.requests() + c.requests(), before + 4);
  b.turn(200);
  EXPECT_EQ(proxy.await_metric("outrider_service_panic{service='cart'}", 0), 0);
  proxy.await_error("service cart panics no more: 2 of 3 endpoints are usable");
}

TEST(Health, ProbesAreOutsideTheLimits) {
  Patient a(200);
  Patient b(200);
  Outrider proxy(checked("{ probe: GET /healthz, every: 100ms }",
                         "\n        limits: { connections: 1, pending: 1, requests: 1 }"),
                 {{"A", a.origin().address()}, {"B", b.origin().address()}});
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(proxy.client().get("/").status, 200);
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_GE(a.probes(), 2);
  EXPECT_EQ(proxy.metric("outrider_health_probes_total{result='status'}"), 0);
}

}  // namespace
}  // namespace outrider::test
