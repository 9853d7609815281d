// Timeouts of a route and of its services: none fires early, each says its own name in body, log
// and metric, and who asked from nearby hears which knob it was. Once a head is out the exchange is
// cut so that nobody takes it for whole; tunnels and server-sent events live under `idle` alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Clock = std::chrono::steady_clock;

// The example of RFC 6455 §1.3.
constexpr char kKey[] = "dGhlIHNhbXBsZSBub25jZQ==";

constexpr char kYaml[] = R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      far: { address: 127.0.0.1:0, trust: [127.0.0.0/8] }
    services:
      nowhere: { endpoints: ["$BLACKHOLE"], timeouts: { connect: 200ms } }
      one: "$ORIGIN"
      tunnels: "$TUNNELS"
      pair: ["$ORIGIN", "$PROMPT"]
      patient: { endpoints: ["$ORIGIN"],
                 timeout: { headers: 210ms } }
    routes:
      - { match: /connect, to: nowhere, retry: false }
      - { match: /service/**, to: patient }
      - match: /headers/**
        to: one
        timeout:
          headers: 250ms
      - match: /total/**
        to: one
        timeout: 300ms
      - match: /try/**
        to: one
        timeout: { per_try: 200ms }
      - match: /idle/**
        to: one
        timeout: { idle: 400ms }
      - { match: /second/**, to: pair, timeout: { per_try: 200ms },
          retry: { attempts: 1, when: [per-try-timeout], backoff: 1ms..2ms } }
      - { match: /tries/**, to: one, timeout: { per_try: 120ms, total: 400ms },
          retry: { attempts: 10, when: [per-try-timeout], backoff: 1ms..2ms } }
      - { match: /tunnel/**, to: tunnels, timeout: { total: 300ms, per_try: 250ms, idle: 2s } }
      - { match: /tunnel-idle/**, to: tunnels, timeout: { total: 10s, idle: 300ms } }
      - { match: /sse/**, to: one, timeout: { total: 300ms, per_try: 250ms } }
      - { match: /free/**, to: one }
)";

class Timeouts : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    over_ = std::promise<void>();
    released_ = over_.get_future().share();
    blackhole_ = std::make_unique<Blackhole>();
    origin_ = std::make_unique<HttpOrigin>(serve);
    prompt_.reset(new HttpOrigin(HttpOrigin::echoing()));
    tunnels_ = std::make_unique<Origin>([](RawClient& connection, int) {
      connection.read_head_text();
      connection.send(
          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
          "Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
      for (std::string bytes; !(bytes = connection.read_some()).empty();) connection.send(bytes);
    });
    proxy_ =
        std::make_unique<Outrider>(kYaml,
                                   Outrider::Substitutions{{"BLACKHOLE", blackhole_->address()},
                                                           {"ORIGIN", origin_->address()},
                                                           {"PROMPT", prompt_->address()},
                                                           {"TUNNELS", tunnels_->address()}},
                                   Outrider::Options{.workers = 1});
  }
  static void TearDownTestSuite() {
    over_.set_value();
    proxy_.reset();
    tunnels_.reset();
    prompt_.reset();
    origin_.reset();
    blackhole_.reset();
  }

  // The last segment of the path says how slow the origin is.
  static void serve(Stream& stream, const Head& head) {
    const std::string path = head.target.substr(0, head.target.find('?'));
    const std::string what = path.substr(path.rfind('/') + 1);
    const Head ok{.status = 200};
    const Head events{.status = 200, .fields = {{"content-type", "text/event-stream"}}};
    if (what == "unread") {
      released_.wait();
      return;
    }
    stream.read_body();
    if (what == "silent") {
      released_.wait();
    } else if (what == "stalls") {
      stream.send_head(ok, false);
      stream.write("begun");
      released_.wait();
    } else if (what == "trickles") {
      stream.send_head(ok, false);
      for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(50ms);
        stream.write("x");
      }
      stream.finish();
    } else if (what == "events") {
      stream.send_head(events, false);
      stream.write("data: 1\n\n");
      std::this_thread::sleep_for(700ms);
      stream.write("data: 2\n\n");
      stream.finish();
    } else {
      stream.send(Response{.status = 200, .body = "prompt"});
    }
  }

  static Outrider::LogLine logged(const std::string& path) {
    for (std::size_t count = 1;;) {
      const auto lines = proxy_->log(count);
      for (const auto& line : lines)
        if (line.at("path") == path) return line;
      count = lines.size() + 1;
    }
  }

  // "outrider.yaml:LINE" of the only line that holds this text.
  static std::string place(const std::string& text) {
    const std::string& yaml = proxy_->yaml();
    const std::size_t at = yaml.find(text);
    EXPECT_NE(at, std::string::npos) << text;
    return "outrider.yaml:" +
           std::to_string(1 + std::count(yaml.begin(), yaml.begin() + static_cast<long>(at), '\n'));
  }

  // The request is answered with this reason, not before the time is over, and says the same in log
  // and metric.
  static void expect(const std::string& path, int status, const std::string& reason,
                     Clock::duration not_before, const std::string& knob) {
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      SCOPED_TRACE(path + " " + std::string(name_of(protocol)));
      const std::string target = "/" + path + "?" + std::string(name_of(protocol));
      const std::string series =
          "outrider_requests_total{code='" + std::to_string(status) + "',reason='" + reason + "'}";
      const double before = proxy_->metric(series);
      const auto begun = Clock::now();
      const Response response = proxy_->client(protocol).get(target);
      EXPECT_GE(Clock::now() - begun, not_before);
      EXPECT_EQ(response.status, status);
      EXPECT_THAT(response.body, StartsWith(std::to_string(status) + " " + reason + ": "));
      EXPECT_THAT(response.body, HasSubstr(knob));
      const auto line = logged(target);
      EXPECT_EQ(line.at("reason"), reason);
      EXPECT_EQ(line.at("status"), std::to_string(status));
      EXPECT_EQ(line.at("attempts"), "1");
      EXPECT_EQ(proxy_->await_metric(series, before + 1), before + 1);
    }
  }

  static Request grpc(const std::string& path, const std::string& timeout) {
    Request request{.method = "POST",
                    .target = path,
                    .fields = {{"content-type", "application/grpc"}, {"te", "trailers"}},
                    .body = std::string(5, '\0')};
    if (!timeout.empty()) request.fields.push_back({"grpc-timeout", timeout});
    return request;
  }
  // Milliseconds of the grpc-timeout that arrived last at the origin; -1 without one.
  static long arrived_deadline(const std::string& path) {
    const auto heads = origin_->heads();
    for (auto head = heads.rbegin(); head != heads.rend(); ++head) {
      if (head->target != path) continue;
      const std::string text = head->fields.value("grpc-timeout");
      if (text.empty()) return -1;
      const long amount = std::strtol(text.c_str(), nullptr, 10);
      return text.back() == 'm' ? amount : text.back() == 'u' ? amount / 1000 : amount * 1000;
    }
    return -2;
  }

  static inline std::promise<void> over_;
  static inline std::shared_future<void> released_;
  static inline std::unique_ptr<Blackhole> blackhole_;
  static inline std::unique_ptr<HttpOrigin> origin_;
  static inline std::unique_ptr<HttpOrigin> prompt_;
  static inline std::unique_ptr<Origin> tunnels_;
  static inline std::unique_ptr<Outrider> proxy_;
};

TEST_F(Timeouts, Connect) { expect("connect", 503, "connect_timeout", 200ms, "timeouts.connect"); }

TEST_F(Timeouts, Headers) {
  expect("headers/silent", 504, "timeout_headers", 250ms, "timeout.headers 250ms");
  EXPECT_THAT(proxy_->client().get("/headers/silent").body, HasSubstr(place("headers: 250ms")));
}

TEST_F(Timeouts, HeadersOfTheService) {
  expect("service/silent", 504, "timeout_headers", 210ms, place("headers: 210ms"));
}

TEST_F(Timeouts, HeadersAreCountedFromTheEndOfTheRequest) {
  const auto stream = proxy_->client().open();
  stream->send_head({.method = "POST", .target = "/headers/prompt", .authority = kAuthority},
                    false);
  std::this_thread::sleep_for(500ms);  // longer than the timeout
  stream->finish();
  EXPECT_EQ(stream->read_head().status, 200);
}

TEST_F(Timeouts, Total) {
  expect("total/silent", 504, "timeout_total", 300ms, "timeout.total 300ms");
  EXPECT_THAT(proxy_->client().get("/total/silent").body, HasSubstr(place("timeout: 300ms")));
}

TEST_F(Timeouts, TotalCoversTheRequestBody) {
  const auto stream = proxy_->client().open();
  const auto begun = Clock::now();
  stream->send_head({.method = "POST", .target = "/total/upload", .authority = kAuthority}, false);
  stream->write("first");
  EXPECT_EQ(stream->read_head().status, 504);
  EXPECT_GE(Clock::now() - begun, 300ms);
  EXPECT_EQ(logged("/total/upload").at("reason"), "timeout_total");
}

TEST_F(Timeouts, TotalCoversEveryTry) {
  const auto begun = Clock::now();
  const Response response = proxy_->client().get("/tries/silent");
  EXPECT_GE(Clock::now() - begun, 400ms);
  EXPECT_EQ(response.status, 504);
  EXPECT_THAT(response.body, StartsWith("504 timeout_total: "));
  const auto line = logged("/tries/silent");
  EXPECT_GE(std::stoi(line.at("attempts")), 2);
  EXPECT_LE(std::stoi(line.at("attempts")), 4);
}

TEST_F(Timeouts, PerTry) {
  expect("try/silent", 504, "timeout_per_try", 200ms, "timeout.per_try 200ms");
  EXPECT_THAT(proxy_->client().get("/try/silent").body, HasSubstr(place("per_try: 200ms }")));
}

TEST_F(Timeouts, PerTryLeavesTheNextTryItsTime) {
  for (int i = 0; i < 4; ++i) {
    const Response response = proxy_->client().get("/second/silent");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.fields.value("x-target"), "/second/silent");
  }
}

TEST_F(Timeouts, IdleBeforeAnAnswer) {
  expect("idle/silent", 504, "timeout_idle", 400ms, "timeout.idle 400ms");
}

TEST_F(Timeouts, IdleWhileTheUpstreamReadsNothing) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy_->client(protocol);
    const auto stream = client.open();
    auto writer = std::async(std::launch::async, [&] {
      try {
        stream->send_head({.method = "POST", .target = "/idle/unread", .authority = kAuthority},
                          false);
        for (int i = 0; i < 64; ++i) stream->write(std::string(1 << 20, 'x'));
      } catch (const HarnessError&) {
        // Once the answer is out nobody takes the rest.
      }
    });
    EXPECT_EQ(stream->read_head().status, 504);
    EXPECT_THAT(stream->read_body(), StartsWith("504 timeout_idle: "));
    stream->reset();
    writer.get();
  }
}

TEST_F(Timeouts, BytesKeepAnExchangeFromBeingIdle) {
  const auto begun = Clock::now();
  const Response response = proxy_->client().get("/idle/trickles");
  EXPECT_GE(Clock::now() - begun, 1s);
  EXPECT_EQ(response.body, std::string(20, 'x'));
}

TEST_F(Timeouts, AfterTheHeadTheExchangeIsCut) {
  for (const auto& [route, reason] :
       {std::pair{"total", "timeout_total"}, std::pair{"try", "timeout_per_try"},
        std::pair{"idle", "timeout_idle"}}) {
    SCOPED_TRACE(route);
    const std::string path = std::string("/") + route + "/stalls";
    RawClient raw = proxy_->raw();
    raw.send("GET " + path + "?1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    const Head head = raw.read_head();
    EXPECT_EQ(head.status, 200);
    EXPECT_THAT(raw.read_all(), Not(HasSubstr("0\r\n\r\n")));

    Client client = proxy_->client(Protocol::kHttp2);
    const auto stream = client.h2().open();
    stream->send_head({.method = "GET", .target = path + "?2", .authority = kAuthority}, true);
    EXPECT_EQ(stream->read_head().status, 200);
    EXPECT_EQ(stream->wait_end(), NGHTTP2_INTERNAL_ERROR);
    EXPECT_EQ(client.get("/free/prompt").status, 200);  // other streams go on
    EXPECT_EQ(client.connections(), 1);

    for (const char* query : {"?1", "?2"}) {
      const auto line = logged(path + query);
      EXPECT_EQ(line.at("status"), "200");
      EXPECT_EQ(line.at("reason"), reason);
    }
  }
}

TEST_F(Timeouts, StrangersHearNoKnobs) {
  const Response response =
      proxy_->client(Protocol::kHttp1, "far")
          .request({.target = "/headers/silent", .fields = {{"x-forwarded-for", "203.0.113.9"}}});
  EXPECT_EQ(response.status, 504);
  EXPECT_THAT(response.body, StartsWith("504 timeout_headers: "));
  EXPECT_THAT(response.body, Not(HasSubstr("timeout.headers")));
  EXPECT_THAT(response.body, Not(HasSubstr("outrider.yaml")));
}

// ---- gRPC

TEST_F(Timeouts, TheClientsDeadlineHolds) {
  Client client = proxy_->client(Protocol::kHttp2);
  for (const auto& [amount, least] :
       {std::pair{"300m", 300ms}, std::pair{"250000u", 250ms}, std::pair{"20000000n", 20ms}}) {
    const auto begun = Clock::now();
    const Response response = client.request(grpc("/free/silent", amount));
    EXPECT_GE(Clock::now() - begun, least);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.fields.value("grpc-status"), "4");
    EXPECT_THAT(response.fields.value("grpc-message"), HasSubstr("grpc-timeout"));
    EXPECT_EQ(response.body, "");
    const long passed_on = arrived_deadline("/free/silent");
    EXPECT_GT(passed_on, 0);
    EXPECT_LE(passed_on, 300);
  }
  EXPECT_EQ(logged("/free/silent").at("reason"), "timeout_total");
}

TEST_F(Timeouts, TheClientsDeadlineHoldsBehindTheHead) {
  const Response response = proxy_->client(Protocol::kHttp2).request(grpc("/free/stalls", "300m"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "begun");
  EXPECT_EQ(response.trailers.value("grpc-status"), "4");
  EXPECT_THAT(response.trailers.value("grpc-message"), HasSubstr("grpc-timeout"));
  EXPECT_EQ(logged("/free/stalls").at("reason"), "timeout_total");
  EXPECT_EQ(logged("/free/stalls").at("status"), "200");
}

TEST_F(Timeouts, TheShorterDeadlineHoldsAndIsPassedOn) {
  Client client = proxy_->client(Protocol::kHttp2);
  for (const char* amount : {"10S", "1M", "1H", ""}) {
    const std::string path = "/total/silent";
    const Response response = client.request(grpc(path, amount));
    EXPECT_EQ(response.fields.value("grpc-status"), "4") << amount;
    EXPECT_THAT(response.fields.value("grpc-message"), HasSubstr("timeout.total 300ms"));
    const long passed_on = arrived_deadline(path);
    EXPECT_GT(passed_on, 0) << amount;
    EXPECT_LE(passed_on, 300) << amount;
  }
  const Response quick = client.request(grpc("/total/silent", "50m"));
  EXPECT_EQ(quick.fields.value("grpc-status"), "4");
  EXPECT_THAT(quick.fields.value("grpc-message"), Not(HasSubstr("timeout.total")));
  EXPECT_LE(arrived_deadline("/total/silent"), 50);
}

TEST_F(Timeouts, ADeadlineThatIsNoneIsRefused) {
  Client client = proxy_->client(Protocol::kHttp2);
  for (const char* amount : {"1", "m", "-1m", "1.5S", "1s", "123456789m"}) {
    Request request = grpc("/free/prompt", amount);
    request.body.clear();  // the answer does not wait for it
    const Response response = client.request(request);
    EXPECT_EQ(response.status, 200) << amount;
    EXPECT_EQ(response.fields.value("grpc-status"), "13") << amount;
  }
}

TEST_F(Timeouts, WrittenHeadersTimeoutsHoldForGrpcToo) {
  const Response response = proxy_->client(Protocol::kHttp2).request(grpc("/headers/silent", ""));
  EXPECT_EQ(response.fields.value("grpc-status"), "4");
  EXPECT_THAT(response.fields.value("grpc-message"), HasSubstr("timeout.headers 250ms"));
}

// ---- what total does not end

TEST_F(Timeouts, EventsOutliveTotal) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    const Response response = proxy_->client(protocol).get("/sse/events");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "data: 1\n\ndata: 2\n\n") << name_of(protocol);
  }
  expect("sse/silent", 504, "timeout_per_try", 250ms, "timeout.per_try");  // no head came
}

TEST_F(Timeouts, IdleEndsEvents) {
  const auto stream = proxy_->client().open();
  stream->send_head({.method = "GET", .target = "/idle/events", .authority = kAuthority}, true);
  EXPECT_EQ(stream->read_head().status, 200);
  EXPECT_THROW(stream->read_body(), HarnessError);  // 700 ms of silence
  EXPECT_EQ(logged("/idle/events").at("reason"), "timeout_idle");
}

TEST_F(Timeouts, TunnelsOutliveTotalAndEndIdle) {
  const auto upgrade = [](RawClient& raw, const std::string& path) {
    raw.send("GET " + path + " HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n" +
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + kKey +
             "\r\n\r\n");
    EXPECT_EQ(raw.read_head().status, 101);
  };
  RawClient raw = proxy_->raw();
  upgrade(raw, "/tunnel/a");
  std::this_thread::sleep_for(700ms);  // longer than total and per_try
  raw.send("still here");
  EXPECT_EQ(raw.read_exactly(10), "still here");

  RawClient idle = proxy_->raw();
  const auto begun = Clock::now();
  upgrade(idle, "/tunnel-idle/a");
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_GE(Clock::now() - begun, 300ms);
  EXPECT_EQ(logged("/tunnel-idle/a").at("reason"), "timeout_idle");
}

}  // namespace
}  // namespace outrider::test
