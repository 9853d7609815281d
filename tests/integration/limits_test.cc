// Limits that were written hold for the whole process, however many workers share them, to the last
// request; what is over them is refused with the limit's own reason, and a place that becomes free
// is used. Origins hold requests behind a gate, so nothing here depends on how fast anybody is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
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
using testing::StartsWith;
using Clock = std::chrono::steady_clock;

constexpr int kWorkers = 4;

std::string limited(const std::string& limits) {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      one: { endpoints: ["$ORIGIN"], limits: )" +
         limits + R"( }
      other: { endpoints: ["$ORIGIN"] }
    routes:
      - { to: one, retry: false }
      - { match: /other, to: other })";
}

// Requests on connections of their own, which the kernel spreads over the workers.
class Crowd {
 public:
  Crowd(Outrider& proxy, int size) {
    for (int i = 0; i < size; ++i) {
      clients_.push_back(proxy.raw());
      clients_.back().send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    }
  }
  // Waits until so many have been refused; their bodies.
  std::vector<std::string> refused(std::size_t count) {
    std::vector<std::string> bodies;
    const auto deadline = Clock::now() + patience();
    while (bodies.size() < count && Clock::now() < deadline)
      for (auto client = clients_.begin(); client != clients_.end();) {
        if (!client->socket().readable(1ms)) {
          ++client;
          continue;
        }
        bodies.push_back(client->read_response().body);
        client = clients_.erase(client);
      }
    return bodies;
  }
  // How those that are left are answered.
  std::map<int, int> rest() {
    std::map<int, int> statuses;
    for (RawClient& client : clients_) ++statuses[client.read_response().status];
    clients_.clear();
    return statuses;
  }
  std::size_t left() const { return clients_.size(); }

 private:
  std::vector<RawClient> clients_;
};

TEST(ServiceLimits, RequestsInFlight) {
  Gate gate;
  Outrider proxy(limited("{ requests: 5 }"), {{"ORIGIN", gate.address()}}, {.workers = kWorkers});
  Crowd crowd(proxy, 17);
  for (const std::string& body : crowd.refused(12)) {
    EXPECT_THAT(body, StartsWith("503 limit_requests: "));
    EXPECT_THAT(body, HasSubstr("limits.requests 5, set at " + proxy.config_path() + ":4"));
  }
  gate.origin().wait_requests(5);
  Client client = proxy.client(Protocol::kHttp2);
  EXPECT_EQ(client.get("/held").status, 503);
  EXPECT_EQ(proxy.await_metric("outrider_limit_refused_total{service='one',limit='requests'}", 13),
            13);
  EXPECT_EQ(gate.origin().requests(), 5);

  gate.open();
  EXPECT_EQ(crowd.rest(), (std::map<int, int>{{200, 5}}));
  EXPECT_EQ(proxy.client().get("/other").status, 200);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(proxy.client().get("/held").status, 200);
}

TEST(ServiceLimits, ConnectionsAndThoseWhoWaitForOne) {
  Gate gate;
  Outrider proxy(limited("{ connections: 3, pending: 4, pending_time: 20s }"),
                 {{"ORIGIN", gate.address()}}, {.workers = kWorkers});
  Crowd crowd(proxy, 15);
  for (const std::string& body : crowd.refused(8)) {
    EXPECT_THAT(body, StartsWith("503 limit_pending: "));
    EXPECT_THAT(body, HasSubstr("no connection to service one is free and as many wait as may: "
                                "limits.pending 4, set at " +
                                proxy.config_path() + ":4; limits.connections 3, set at "));
  }
  gate.origin().wait_requests(3);
  EXPECT_EQ(gate.origin().requests(), 3);
  EXPECT_EQ(gate.origin().connections(), 3);
  EXPECT_EQ(crowd.left(), 7U);
  EXPECT_EQ(proxy.metric("outrider_upstream_connections{service='one'}"), 3);
  EXPECT_EQ(proxy.metric("outrider_limit_refused_total{service='one',limit='pending'}"), 8);

  // A connection that one worker has no use for any more serves who waits in another.
  gate.open();
  EXPECT_EQ(crowd.rest(), (std::map<int, int>{{200, 7}}));
  EXPECT_LE(proxy.metric("outrider_upstream_connections{service='one'}"), 3);
}

TEST(ServiceLimits, WaitingHasAnEnd) {
  Gate gate;
  Outrider proxy(limited("{ connections: 1, pending_time: 300ms }"), {{"ORIGIN", gate.address()}},
                 {.workers = kWorkers});
  Crowd first(proxy, 1);
  gate.origin().wait_requests(1);
  const auto begun = Clock::now();
  Crowd second(proxy, 4);
  for (const std::string& body : second.refused(4)) {
    EXPECT_THAT(body, StartsWith("503 limit_pending: "));
    EXPECT_THAT(body, HasSubstr("no connection to service one became free within "
                                "limits.pending_time 300ms, set at " +
                                proxy.config_path() + ":4; limits.connections 1, set at "));
  }
  EXPECT_GE(Clock::now() - begun, 300ms);
  gate.open();
  EXPECT_EQ(first.rest(), (std::map<int, int>{{200, 1}}));
  for (int i = 0; i < 8; ++i) EXPECT_EQ(proxy.client().get("/held").status, 200) << i;
}

// Under load on every worker nothing is ever above its limit, and none of it stays unused.
TEST(ServiceLimits, NeverAboveUnderLoad) {
  for (const std::string limits :
       {"{ requests: 5 }", "{ connections: 5, pending: 0, pending_time: 20s }"}) {
    std::atomic<int> now{0};
    std::atomic<int> most{0};
    HttpOrigin origin([&](Stream& stream, const Head&) {
      stream.read_body();
      const int mine = ++now;
      int seen = most;
      while (seen < mine && !most.compare_exchange_weak(seen, mine)) {}
      std::this_thread::sleep_for(1ms);
      --now;  // before the answer: the proxy still counts the request
      stream.send(Response{.status = 200, .body = "done"});
    });
    Outrider proxy(limited(limits), {{"ORIGIN", origin.address()}}, {.workers = kWorkers});
    std::atomic<int> answered{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < 16; ++i)
      clients.emplace_back([&] {
        for (int k = 0; k < 30; ++k)
          if (const Response got = proxy.client().get("/"); got.status == 200)
            ++answered;
          else if (limits.find("connections") != std::string::npos)
            ADD_FAILURE() << got.body;
      });
    for (std::thread& client : clients) client.join();
    EXPECT_LE(most, 5) << limits;
    EXPECT_GE(most, 3) << limits;
    EXPECT_GT(answered, 0) << limits;
    if (limits.find("connections") != std::string::npos) {
      EXPECT_EQ(answered, 16 * 30) << limits;
    }
  }
}

// A retry counts until its exchange is over.
TEST(ServiceLimits, RetriesInFlight) {
  std::promise<void> go;
  const auto gone = go.get_future().share();
  Origin origin([gone](RawClient& connection, int) {
    const Request request = connection.read_request();
    if (!request.fields.has("x-outrider-attempt")) return;
    if (request.target == "/held") gone.wait_for(patience());
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { one: { endpoints: ["$ORIGIN"], limits: { retries: 1 } } }
    routes: [{ to: one, retry: { attempts: 1, backoff: 1ms..2ms } }])",
                 {{"ORIGIN", origin.address()}}, {.workers = kWorkers});
  RawClient held = proxy.raw();
  held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  origin.wait_connections(2);
  for (int i = 0; i < 3; ++i) {
    const Response refused = proxy.client().get("/");
    EXPECT_EQ(refused.status, 502);
    EXPECT_THAT(refused.body, StartsWith("502 retry_budget: "));
    EXPECT_THAT(refused.body, HasSubstr("limits.retries"));
  }
  EXPECT_EQ(proxy.await_metric("outrider_limit_refused_total{service='one',limit='retries'}", 3),
            3);
  EXPECT_EQ(proxy.log(3).at(0).at("reason"), "retry_budget");
  go.set_value();
  EXPECT_EQ(held.read_response().status, 200);
  for (std::size_t i = 0; i < 5; ++i) {
    proxy.log(4 + i);  // the exchange before is over
    EXPECT_EQ(proxy.client().get("/").status, 200);
  }
}

TEST(ServiceLimits, OneHttp2ConnectionCarriesMany) {
  Gate gate;
  Outrider proxy(limited("{ connections: 1 }"), {{"ORIGIN", "h2c://" + gate.address()}},
                 {.workers = 1});
  Crowd crowd(proxy, 20);
  gate.origin().wait_requests(20);
  EXPECT_EQ(gate.origin().connections(), 1);
  gate.open();
  EXPECT_EQ(crowd.rest(), (std::map<int, int>{{200, 20}}));
}

// ---- listeners

std::string listener(const std::string& limits) {
  return R"(
    outrider: v1
    listeners: { main: { address: 127.0.0.1:0, limits: )" +
         limits + R"( } }
    routes: [{ respond: { status: 200, body: hello } }])";
}

bool served(RawClient& raw) {
  raw.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n", patience());
  try {
    return raw.read_response().body == "hello";
  } catch (const HarnessError&) {
    return false;
  }
}

// A connection that is let in, once places are free: their end is noticed a little later.
bool comes_in(Outrider& proxy) {
  const auto deadline = Clock::now() + patience();
  while (Clock::now() < deadline) {
    RawClient raw = proxy.raw();
    if (served(raw)) return true;
  }
  return false;
}

TEST(ListenerLimits, ConnectionsInAllAndOfOneClient) {
  for (const std::string limits : {"{ connections: 6 }", "{ per_client: 6 }"}) {
    Outrider proxy(listener(limits), Outrider::Substitutions{}, {.workers = kWorkers});
    std::vector<RawClient> inside;
    for (int i = 0; i < 6; ++i) {
      inside.push_back(proxy.raw());
      EXPECT_TRUE(served(inside.back())) << limits;
    }
    for (int i = 0; i < 12; ++i) {
      RawClient outside = proxy.raw();
      EXPECT_FALSE(served(outside)) << limits;
    }
    EXPECT_EQ(proxy.await_metric("outrider_downstream_connections{listener='main'}", 6), 6);
    EXPECT_EQ(proxy.await_metric("outrider_limit_refused_total", 12), 12);
    for (RawClient& raw : inside) EXPECT_TRUE(served(raw)) << limits;
    inside.pop_back();
    EXPECT_TRUE(comes_in(proxy)) << limits;
  }
}

TEST(ListenerLimits, RequestsOfOneConnection) {
  Outrider proxy(listener("{ requests: 3 }"));
  RawClient raw = proxy.raw();
  for (int i = 0; i < 3; ++i) {
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const Response response = raw.read_response();
    EXPECT_EQ(response.body, "hello");
    EXPECT_EQ(response.fields.value("connection"), i == 2 ? "close" : "");
  }
  EXPECT_EQ(raw.read_end(), Socket::End::kFin);

  Client client = proxy.client(Protocol::kHttp2);
  H2Connection& connection = client.h2();
  for (int i = 0; i < 3; ++i) {
    const auto stream = connection.open();
    stream->send_head({.method = "GET", .target = "/", .authority = kAuthority}, true);
    EXPECT_EQ(stream->read_head().status, 200);
    EXPECT_EQ(stream->read_body(), "hello");
  }
  EXPECT_EQ(connection.wait_goaway().code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  connection.wait_closed();
}

TEST(ListenerLimits, FieldsAndTargets) {
  Outrider proxy(listener("{ headers: 1KiB, fields: 10, target: 100 }"));
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    const auto status = [&](const Request& request) {
      return proxy.client(protocol).request(request).status;
    };
    EXPECT_EQ(status({.target = "/" + std::string(99, 'a')}), 200);
    EXPECT_EQ(status({.target = "/" + std::string(100, 'a')}), 414);
    EXPECT_EQ(status({.fields = {{"x-long", std::string(700, 'a')}}}), 200);
    EXPECT_EQ(status({.fields = {{"x-long", std::string(1100, 'a')}}}), 431);
    Fields many;
    for (int i = 0; i < 11; ++i) many.push_back({"x-" + std::to_string(i), "1"});
    EXPECT_EQ(status({.fields = many}), 431);
    many.resize(8);
    EXPECT_EQ(status({.fields = many}), 200);
  }
}

}  // namespace
}  // namespace outrider::test
