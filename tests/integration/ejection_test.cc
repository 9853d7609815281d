// Ejection against real servers: who fails gets no more requests, at any number of workers, comes
// back when its time is over, and everybody can see why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string two(const std::string& eject) {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      cart:
        endpoints: ["$BAD", "$GOOD"]
        balance: round-robin
        eject: )" +
         eject + R"(
    routes: [{ to: cart, retry: false }])";
}

// Answers as the test says at the time.
class Moody {
 public:
  explicit Moody(int status)
      : status_(status), origin_([this](Stream& stream, const Head&) {
          stream.read_body();
          stream.send(Response{.status = status_, .body = "x"});
        }) {}
  void turn(int status) { status_ = status; }
  HttpOrigin& origin() { return origin_; }

 private:
  std::atomic<int> status_;
  HttpOrigin origin_;
};

// So many requests, each on a connection of its own, so that all workers have some; how many came
// with that status.
int ask(Outrider& proxy, int times, int status) {
  int count = 0;
  for (int i = 0; i < times; ++i)
    if (proxy.client().get("/").status == status) ++count;
  return count;
}

TEST(Ejection, FailuresInARowAreTheProcesss) {
  Moody bad(503);
  HttpOrigin good = HttpOrigin::answering({.status = 200, .body = "fine"});
  Outrider proxy(two("{ after: 7 failures, for: 1h }"),
                 {{"BAD", bad.origin().address()}, {"GOOD", good.address()}}, {.workers = 4});
  EXPECT_EQ(ask(proxy, 60, 503), 7);
  EXPECT_EQ(bad.origin().requests(), 7);
  EXPECT_EQ(proxy.metric("outrider_ejections_total{service='cart',why='gateway_errors',"
                         "mode='enforce'}"),
            1);
  proxy.await_error("service cart: endpoint " + bad.origin().address() +
                    " is ejected for 1h: 7 gateway errors in a row, the last: 503");
  const std::string services = proxy.admin("/services").body;
  EXPECT_THAT(services, HasSubstr(R"("health": "ejected")"));
  EXPECT_THAT(services, HasSubstr(R"("why": "7 gateway errors in a row, the last: 503")"));
  EXPECT_THAT(services, HasSubstr(R"("ejected_until": "2)"));
}

TEST(Ejection, ComesBackAfterItsTime) {
  Moody bad(502);
  HttpOrigin good = HttpOrigin::answering({.status = 200, .body = "fine"});
  Outrider proxy(two("{ after: 2 failures, for: 500ms }"),
                 {{"BAD", bad.origin().address()}, {"GOOD", good.address()}});
  EXPECT_EQ(ask(proxy, 8, 502), 2);
  bad.turn(200);
  proxy.await_error("is let back in");
  EXPECT_EQ(ask(proxy, 8, 200), 8);
  EXPECT_GT(bad.origin().requests(), 2);
  EXPECT_THAT(proxy.admin("/services").body, Not(HasSubstr("\"ejected\"")));
}

TEST(Ejection, ConnectionsThatFailCountWithoutARetryShowingIt) {
  HttpOrigin good = HttpOrigin::answering({.status = 200, .body = "fine"});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cart: { endpoints: ["$REFUSING", "$GOOD"], balance: round-robin } }
    routes: [{ to: cart }])",
                 {{"GOOD", good.address()}});
  EXPECT_EQ(ask(proxy, 30, 200), 30);
  EXPECT_EQ(
      proxy.await_metric("outrider_attempts_total{service='cart',result='connect_failure'}", 5), 5);
  proxy.await_error("is ejected for 30s: 5 gateway errors in a row, the last: connect_failure");
}

TEST(Ejection, ObserveLeavesThingsAsTheyAre) {
  Moody bad(503);
  HttpOrigin good = HttpOrigin::answering({.status = 200, .body = "fine"});
  Outrider proxy(two("{ after: 3 failures, mode: observe }"),
                 {{"BAD", bad.origin().address()}, {"GOOD", good.address()}});
  EXPECT_NEAR(ask(proxy, 20, 503), 10, 3);  // workers take turns by themselves
  EXPECT_EQ(proxy.metric("outrider_ejections_total{service='cart',mode='observe'}"), 1);
  proxy.await_error("would be ejected (mode: observe) for 30s: 3 gateway errors in a row");
  EXPECT_THAT(proxy.admin("/services").body, HasSubstr("would be ejected (mode: observe)"));
}

// Of a call the trailers tell.
TEST(Ejection, UnavailableInTrailersIsAGatewayError) {
  const auto answering = [](const char* status) {
    return HttpOrigin([status](Stream& stream, const Head&) {
      stream.read_body();
      stream.send(Response{.status = 200,
                           .fields = {{"content-type", "application/grpc"}},
                           .body = std::string(5, '\0'),
                           .trailers = {{"grpc-status", status}}});
    });
  };
  HttpOrigin bad = answering("14");
  HttpOrigin good = answering("0");
  Outrider proxy(two("{ after: 3 failures, for: 1h }"),
                 {{"BAD", bad.address()}, {"GOOD", good.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  for (int i = 0; i < 20; ++i)
    client.request({.method = "POST",
                    .target = "/shop.Cart/Get",
                    .fields = {{"content-type", "application/grpc"}, {"te", "trailers"}},
                    .body = std::string(5, '\0')});
  EXPECT_EQ(bad.requests(), 3);
  EXPECT_EQ(good.requests(), 17);
  proxy.await_error("is ejected for 1h: 3 gateway errors in a row, the last: grpc:unavailable");
}

// Compared with the others every ten seconds, until both have gone.
TEST(Ejection, OutliersGo) {
  std::atomic<int> answers{0};  // of the one that fails
  std::vector<std::unique_ptr<HttpOrigin>> origins;
  Outrider::Substitutions names;
  for (int i = 0; i < 5; ++i) {
    origins.push_back(std::make_unique<HttpOrigin>([&answers, i](Stream& stream, const Head&) {
      stream.read_body();
      if (i == 1) std::this_thread::sleep_for(std::chrono::milliseconds(60));
      stream.send(Response{.status = i == 0 && ++answers % 2 == 0 ? 500 : 200, .body = "x"});
    }));
    names.emplace("O" + std::to_string(i), origins.back()->address());
  }
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      cart:
        endpoints: [$O0, $O1, $O2, $O3, $O4]
        balance: round-robin
        eject: { outliers: { success: 25%, latency: 3, volume: 10 }, for: 1h }
    routes: [{ to: cart, retry: false }])",
                 names);
  std::atomic<bool> enough{false};
  std::thread load([&] {
    Client client = proxy.client();
    while (!enough) client.get("/");
  });
  proxy.await_metric("outrider_ejections_total{service='cart',why='success_rate'}", 1);
  proxy.await_metric("outrider_ejections_total{service='cart',why='latency'}", 1);
  enough = true;
  load.join();
  proxy.await_error("endpoint " + origins[0]->address() + " is ejected for 1h: 5");
  proxy.await_error("endpoint " + origins[1]->address() + " is ejected for 1h: it takes ");
  EXPECT_EQ(proxy.metric("outrider_ejections_total{service='cart'}"), 2);
}

TEST(Ejection, TheOnlyEndpointStays) {
  Moody bad(503);
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cart: "$BAD" }
    routes: [{ to: cart, retry: false }])",
                 {{"BAD", bad.origin().address()}});
  EXPECT_EQ(ask(proxy, 20, 503), 20);
  EXPECT_EQ(bad.origin().requests(), 20);
  EXPECT_EQ(proxy.metric("outrider_ejections_refused_total{service='cart'}"), 4);
}

}  // namespace
}  // namespace outrider::test
