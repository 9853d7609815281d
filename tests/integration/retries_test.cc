// Further tries by gRPC status, tries beside a slow one, waits that the upstream asks for, and
// copies of requests, end to end. An origin here behaves by how many requests it has had, so a
// test never waits for a time to pass where it wants something to happen first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

Request unary(const std::string& target = "/shop.Cart/Add") {
  return {.method = "POST",
          .target = target,
          .fields = {{"content-type", "application/grpc"}, {"te", "trailers"}},
          .body = std::string("\0\0\0\0\2hi", 7)};
}

void answer_grpc(Stream& stream, const std::string& status, const std::string& message,
                 const Fields& more = {}) {
  stream.send_head({.status = 200, .fields = {{"content-type", "application/grpc"}}}, false);
  if (!message.empty()) stream.write(message);
  Fields trailers{{"grpc-status", status}};
  trailers.insert(trailers.end(), more.begin(), more.end());
  stream.finish(trailers);
}

// ---- gRPC

// A later try is judged by what it said itself.
TEST(Pushback, OfAnEarlierTrySaysNothingOfALaterOne) {
  std::atomic<int> calls{0};
  HttpOrigin origin([&](Stream& stream, const Head&) {
    stream.read_body();
    if (calls++ == 0) return answer_grpc(stream, "14", "", {{"grpc-retry-pushback-ms", "10"}});
    stream.send(Response{.status = 200,
                         .fields = {{"content-type", "application/grpc"},
                                    {"grpc-status", "14"},
                                    {"grpc-retry-pushback-ms", "-1"}}});
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cart: { endpoints: [$CART], eject: false } }
    routes: [{ to: cart, retry: { attempts: 5, when: ["grpc:unavailable"] } }])",
                 {{"CART", origin.address()}});
  EXPECT_EQ(proxy.client(Protocol::kHttp2).request(unary()).fields.value("grpc-status"), "14");
  EXPECT_EQ(calls, 2);
}

class GrpcRetries : public testing::Test {
 protected:
  // `script`: the grpc-status of each call in turn, the last one for all that follow.
  void start(std::vector<std::string> script, Fields trailers = {}, std::string message = {}) {
    origin_ = std::make_unique<HttpOrigin>(
        [this, script, trailers, message](Stream& stream, const Head&) {
          stream.read_body();
          const std::size_t call = calls_++;
          const std::string& status = script[std::min(call, script.size() - 1)];
          answer_grpc(stream, status, status == "0" ? "done" : message,
                      status == "0" ? Fields{} : trailers);
        });
    proxy_ = std::make_unique<Outrider>(R"(
      outrider: v1
      listen: 127.0.0.1:0
      services: { cart: $CART }
      routes:
        - { match: /shop.Cart/**, to: cart, retry: { attempts: 2, when: ["grpc:unavailable"] } })",
                                        Outrider::Substitutions{{"CART", origin_->address()}});
  }
  Response call() { return proxy_->client(Protocol::kHttp2).request(unary()); }

  std::atomic<std::size_t> calls_{0};
  std::unique_ptr<HttpOrigin> origin_;
  std::unique_ptr<Outrider> proxy_;
};

TEST_F(GrpcRetries, AStatusInTheTrailersIsTriedAgain) {
  start({"14", "14", "0"});
  const Response response = call();
  EXPECT_EQ(response.trailers.value("grpc-status"), "0");
  EXPECT_EQ(response.body, "done");
  EXPECT_EQ(calls_, 3U);
  EXPECT_EQ(proxy_->metric("outrider_retries_total{service='cart'}"), 2);
}

TEST_F(GrpcRetries, AnotherStatusStands) {
  start({"13"});
  const Response response = call();
  EXPECT_EQ(response.trailers.value("grpc-status"), "13");
  EXPECT_EQ(calls_, 1U);
}

TEST_F(GrpcRetries, TheLastStatusStandsWhenTriesAreUsedUp) {
  start({"14"});
  EXPECT_EQ(call().trailers.value("grpc-status"), "14");
  EXPECT_EQ(calls_, 3U);
}

TEST_F(GrpcRetries, NeverAfterAMessage) {
  start({"14"}, {}, "half");
  const Response response = call();
  EXPECT_EQ(response.body, "half");
  EXPECT_EQ(response.trailers.value("grpc-status"), "14");
  EXPECT_EQ(calls_, 1U);
}

TEST_F(GrpcRetries, PushbackThatIsNegativeForbids) {
  start({"14"}, {{"grpc-retry-pushback-ms", "-1"}});
  EXPECT_EQ(call().trailers.value("grpc-status"), "14");
  EXPECT_EQ(calls_, 1U);
  EXPECT_EQ(proxy_->log(1)[0].at("reason"), "retry_budget");
}

TEST_F(GrpcRetries, PushbackIsWaitedFor) {
  start({"14", "0"}, {{"grpc-retry-pushback-ms", "400"}});
  const auto begun = Clock::now();
  EXPECT_EQ(call().trailers.value("grpc-status"), "0");
  EXPECT_GE(Clock::now() - begun, 400ms);
  EXPECT_EQ(calls_, 2U);
}

// A client that is still sending may wait for the head.
TEST_F(GrpcRetries, TheHeadOfAStreamingCallIsNotHeldBack) {
  HttpOrigin origin([](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-type", "application/grpc"}}}, false);
    stream.read_body();
    stream.finish({{"grpc-status", "0"}});
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cart: $CART }
    routes: [{ to: cart, retry: { when: ["grpc:unavailable"] } }])",
                 {{"CART", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  const auto stream = client.open();
  stream->send_head(unary().head(), false);
  EXPECT_EQ(stream->read_head().status, 200);  // though nothing of the body was sent
  stream->finish();
  stream->read_body();
  EXPECT_EQ(stream->trailers().value("grpc-status"), "0");
}

// ---- what the upstream asks for

TEST(Retries, RetryAfterIsWaitedFor) {
  std::atomic<int> asked{0};
  HttpOrigin origin([&](Stream& stream, const Head&) {
    if (asked++ == 0)
      stream.send({.status = 503, .fields = {{"retry-after", "1"}}, .body = "later"});
    else
      stream.send({.status = 200, .body = "now"});
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB }
    routes:
      - { to: web, retry: { when: [503] } }
      - { match: /short, to: web, timeout: 900ms, retry: { when: [503] } })",
                 {{"WEB", origin.address()}});
  const auto begun = Clock::now();
  EXPECT_EQ(proxy.client().get("/").body, "now");
  EXPECT_GE(Clock::now() - begun, 1s);
  asked = 0;
  EXPECT_EQ(proxy.client().get("/short").body, "later") << "the time would be over";
  EXPECT_EQ(asked, 1);
}

TEST(Retries, NobodyIsKeptWaitingForLong) {
  std::atomic<int> asked{0};
  HttpOrigin origin([&](Stream& stream, const Head&) {
    ++asked;
    stream.send({.status = 503, .fields = {{"retry-after", "120"}}, .body = "later"});
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB }
    routes: [{ to: web, retry: { when: [503] } }])",
                 {{"WEB", origin.address()}});
  const Response response = proxy.client().get("/");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.fields.value("retry-after"), "120");
  EXPECT_EQ(asked, 1);
}

TEST(Retries, ABodyOverTheBufferIsNotSentAgainAndTheReasonSaysSo) {
  Origin origin([](RawClient& connection, int) { connection.read_until("\r\n\r\n"); });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB }
    routes: [{ to: web, retry: { attempts: 2, buffer: 1KiB } }])",
                 {{"WEB", origin.address()}});
  const Response response =
      proxy.client().request({.method = "PUT", .body = std::string(4096, 'x')});
  EXPECT_EQ(response.status, 502);
  EXPECT_THAT(response.body, HasSubstr("not tried again: the request's body is larger than"));
  EXPECT_EQ(origin.connections(), 1);
}

// ---- hedging

// Two servers; the first request that either gets is answered when the test says so.
class Hedging : public testing::Test {
 protected:
  void TearDown() override { let_go(); }
  void let_go() {
    if (!gone_.exchange(true)) go_.set_value();
  }
  HttpOrigin::Handler server() {
    return [this](Stream& stream, const Head&) {
      stream.read_body();
      const int number = asked_++;
      if (number == 0) went_.wait();
      stream.send({.status = 200, .body = number == 0 ? "slow" : "fast"});
    };
  }
  std::unique_ptr<Outrider> start(const std::string& route) {
    return std::make_unique<Outrider>(
        "outrider: v1\n"
        "listen: 127.0.0.1:0\n"
        "services: { web: [$ONE, $TWO] }\n"
        "routes: [{ to: web, " +
            route + " }]\n",
        Outrider::Substitutions{{"ONE", one_.address()}, {"TWO", two_.address()}});
  }

  std::atomic<int> asked_{0};
  std::atomic<bool> gone_{false};
  std::promise<void> go_;
  std::shared_future<void> went_{go_.get_future()};
  HttpOrigin one_{server()};
  HttpOrigin two_{server()};
};

TEST_F(Hedging, ASlowTryGetsAnotherBesideItAndTheFasterWins) {
  const auto proxy = start("hedge: 50ms");
  const Response response = proxy->client().get("/");
  EXPECT_EQ(response.body, "fast");
  EXPECT_EQ(one_.requests(), 1) << "each endpoint once";
  EXPECT_EQ(two_.requests(), 1);
  EXPECT_EQ(proxy->metric("outrider_hedges_total{service='web',result='sent'}"), 1);
  EXPECT_EQ(proxy->metric("outrider_hedges_total{service='web',result='won'}"), 1);
  EXPECT_EQ(proxy->log(1)[0].at("attempts"), "2");
  // The slow one was given up, and with it its connection.
  EXPECT_EQ(proxy->await_metric("outrider_upstream_connections{state='active'}", 0), 0);
}

TEST_F(Hedging, WhatMayNotBeSentTwiceIsNot) {
  const auto proxy = start("hedge: 50ms, timeout: { total: 500ms }");
  EXPECT_EQ(proxy->client().post("/", "once").status, 504);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(proxy->metric("outrider_hedges_total"), 0);
}

TEST_F(Hedging, ButForAKeyThatMakesItSafe) {
  const auto proxy = start("hedge: 50ms");
  const Response response = proxy->client().request(
      {.method = "POST", .fields = {{"idempotency-key", "7"}}, .body = "safe"});
  EXPECT_EQ(response.body, "fast");
  EXPECT_EQ(asked_, 2);
}

TEST_F(Hedging, AtMostNoneIsNone) {
  const auto proxy = start("hedge: { after: 50ms, at_most: 0 }, timeout: { total: 500ms }");
  EXPECT_EQ(proxy->client().get("/").status, 504);
  EXPECT_EQ(asked_, 1);
}

TEST_F(Hedging, AFailureBesideARunningTryIsNotTheAnswer) {
  // The hedge meets a server that is broken; the slow one's answer is the client's.
  std::atomic<int> asked{0};
  const auto handler = [&](Stream& stream, const Head&) {
    if (asked++ == 0) {
      went_.wait();
      stream.send({.status = 200, .body = "slow"});
    } else {
      try {
        stream.send({.status = 500, .body = "broken"});
      } catch (const HarnessError&) {}  // its head was enough to be given up
      let_go();
    }
  };
  HttpOrigin one(handler);
  HttpOrigin two(handler);
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: [$ONE, $TWO] }
    routes: [{ to: web, hedge: 50ms }])",
                 {{"ONE", one.address()}, {"TWO", two.address()}});
  EXPECT_EQ(proxy.client().get("/").body, "slow");
  EXPECT_EQ(asked, 2);
}

// What comes of the hedge is the hedge's: the first try's failure leaves nothing behind.
TEST(HedgingByHand, AnInterimAnswerOfTheHedgeIsItsOwn) {
  for (const bool resets : {false, true}) {
    std::promise<void> second, over;
    const std::shared_future<void> hedged = second.get_future().share();
    const std::shared_future<void> failed = over.get_future().share();
    std::atomic<int> asked{0};
    const auto script = [&, hedged, failed](RawClient& connection, int) {
      connection.read_until("\r\n\r\n");
      if (asked++ == 0) {
        hedged.wait();
        if (!resets)
          connection.send("HTTP/1.1 503 Bad\r\nx-from: first\r\ncontent-length: 0\r\n\r\n");
        return;
      }
      second.set_value();
      failed.wait();
      connection.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
      connection.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond");
      connection.read_until("never");
    };
    Origin one(script);
    Origin two(script);
    Outrider proxy(R"(
      outrider: v1
      listen: 127.0.0.1:0
      services: { web: [$ONE, $TWO] }
      routes: [{ to: web, hedge: 50ms }])",
                   {{"ONE", one.address()}, {"TWO", two.address()}});
    RawClient client = proxy.raw();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(proxy.await_metric("outrider_attempts_total{service='web'}", 1), 1);
    over.set_value();
    const std::string all = client.read_until("second");
    EXPECT_TRUE(
        all.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"))
        << all;
    EXPECT_EQ(all.find("first"), std::string::npos) << all;
  }
}

// ---- copies

TEST(Mirrors, ACopyArrivesWithItsBody) {
  HttpOrigin web = HttpOrigin::answering({.status = 200, .body = "real"});
  std::promise<Request> copied;
  HttpOrigin copy([&](Stream& stream, const Head& head) {
    copied.set_value(stream.read_request_body(head));
    stream.send({.status = 500, .body = "nobody reads this"});
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB, copy: $COPY }
    routes: [{ to: web, mirror: copy, rewrite: /new }])",
                 {{"WEB", web.address()}, {"COPY", copy.address()}});
  const Response response = proxy.client().request(
      {.method = "POST", .target = "/old?q=1", .fields = {{"x-a", "b"}}, .body = "hello"});
  EXPECT_EQ(response.body, "real");
  const Request got = copied.get_future().get();
  EXPECT_EQ(got.method, "POST");
  EXPECT_EQ(got.target, "/new?q=1");
  EXPECT_EQ(got.fields.value("x-a"), "b");
  EXPECT_EQ(got.fields.value("x-outrider-mirror"), "1");
  EXPECT_EQ(got.body, "hello");
  EXPECT_EQ(proxy.await_metric("outrider_mirrored_total{result='sent'}", 1), 1);
  EXPECT_EQ(proxy.log(1).size(), 1U) << "a copy is no exchange of its own";
}

TEST(Mirrors, OneThatIsAwayOrSilentHoldsNobodyUp) {
  HttpOrigin web = HttpOrigin::answering({.status = 200, .body = "real"});
  Origin silent([](RawClient& connection, int) {
    try {
      connection.read_until("never");
    } catch (const HarnessError&) {}
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB, away: $REFUSING, silent: $SILENT }
    routes:
      - { match: /away, to: web, mirror: away }
      - { match: /silent, to: web, mirror: silent })",
                 {{"WEB", web.address()}, {"SILENT", silent.address()}});
  Client client = proxy.client();
  for (int i = 0; i < 150; ++i) EXPECT_EQ(client.get("/away").body, "real");
  EXPECT_EQ(proxy.await_metric("outrider_mirrored_total{route='/away',result='failed'}", 150), 150);
  for (int i = 0; i < 150; ++i) EXPECT_EQ(client.get("/silent").body, "real");
  EXPECT_GE(proxy.metric("outrider_mirrored_total{route='/silent',result='dropped'}"), 1)
      << "no more than a hundred are on their way in a worker";
}

TEST(Mirrors, WhatIsTooLargeIsDroppedAndCounted) {
  HttpOrigin web = HttpOrigin::answering({.status = 200, .body = "real"});
  HttpOrigin copy = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB, copy: $COPY }
    routes: [{ to: web, mirror: copy }])",
                 {{"WEB", web.address()}, {"COPY", copy.address()}});
  EXPECT_EQ(proxy.client().post("/", std::string(1'000'000, 'x')).body, "real");
  EXPECT_EQ(proxy.await_metric("outrider_mirrored_total{result='dropped'}", 1), 1);
  EXPECT_EQ(copy.requests(), 0);
}

TEST(Mirrors, AShareIsAShare) {
  HttpOrigin web = HttpOrigin::answering({.status = 200, .body = "real"});
  HttpOrigin copy = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: $WEB, copy: $COPY }
    routes:
      - { match: /some, to: web, mirror: copy 20% }
      - { match: /none, to: web, mirror: false })",
                 {{"WEB", web.address()}, {"COPY", copy.address()}});
  Client client = proxy.client();
  for (int i = 0; i < 500; ++i) client.get("/some");
  for (int i = 0; i < 20; ++i) client.get("/none");
  EXPECT_GT(copy.requests(), 50);
  EXPECT_LT(copy.requests(), 170);
}

}  // namespace
}  // namespace outrider::test
