// Clients and servers that are slow, silent, many, or gone: timers that no byte restarts, limits of
// connections, memory that back-pressure bounds, and a process out of descriptors.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/h2_frames.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMebibyte = 1024 * 1024;
constexpr std::size_t kBig = 64 * kMebibyte;

// Sanitizers keep what is freed; figures of memory and time mean something in release alone.
const bool kMeasures = release_build();

constexpr char kGet[] = "GET /ok HTTP/1.1\r\nHost: outrider.test\r\n\r\n";
constexpr char kPost[] = "POST /take HTTP/1.1\r\nHost: outrider.test\r\n";

// Sends a byte now and then until the peer ends; what it said, and how long it took.
struct Trickled {
  std::string answer;
  Clock::duration took;
};
Trickled trickle(RawClient& raw, std::string_view byte, std::chrono::milliseconds every) {
  const auto began = Clock::now();
  while (!raw.socket().readable(every)) {
    if (Clock::now() - began > patience()) throw HarnessError("the peer let it trickle on");
    if (!raw.try_send(byte, 1s)) break;
  }
  std::string answer = raw.read_all();
  return {std::move(answer), Clock::now() - began};
}

void wait_until(const std::function<bool()>& condition, const char* what) {
  const auto deadline = Clock::now() + patience();
  while (!condition()) {
    if (Clock::now() > deadline) throw HarnessError(what);
    std::this_thread::sleep_for(5ms);
  }
}

bool says(const std::string& answer, std::string_view text) {
  return answer.find(text) != std::string::npos;
}

class SlowClients : public testing::Test {
 protected:
  SlowClients()
      : origin_([](Stream& stream, const Head& head) {
          if (head.target == "/big") {
            stream.send_head({.status = 200, .fields = {{"content-length", std::to_string(kBig)}}},
                             false);
            Pattern pattern(1);
            write_pattern(stream, pattern, kBig);
            return stream.finish();
          }
          stream.read_body();
          if (head.target == "/slow") std::this_thread::sleep_for(700ms);
          stream.send(Response{.status = 200, .body = "taken"});
        }),
        proxy_(R"(
    outrider: v1
    listeners:
      header: { address: "127.0.0.1:0", timeouts: { header: 300ms } }
      body:   { address: "127.0.0.1:0", timeouts: { body: 300ms } }
      rate:   { address: "127.0.0.1:0", timeouts: { upload_rate: 1000B/s after 300ms } }
      stall:  { address: "127.0.0.1:0", timeouts: { stall: 300ms } }
      idle:   { address: "127.0.0.1:0", timeouts: { idle: 300ms } }
    services: { take: "$TAKE" }
    routes:
      - { match: /**, to: take }
      - { match: /ok, respond: { status: 200, body: fine } })",
               {{"TAKE", origin_.address()}}) {}

  HttpOrigin origin_;
  Outrider proxy_;
};

// The header time is a total: bytes that come do not restart it.
TEST_F(SlowClients, HaveTheHeaderTimeAndNoMore) {
  RawClient trickling = proxy_.raw("header");
  trickling.send("GET /ok HTTP/1.1\r\nHost: outrider.test\r\nx-slow: ");
  const Trickled trickled = trickle(trickling, "a", 20ms);
  EXPECT_TRUE(trickled.answer.starts_with("HTTP/1.1 408 ")) << trickled.answer;
  EXPECT_TRUE(says(trickled.answer, "408 client_timeout"));
  EXPECT_TRUE(says(trickled.answer, "onnection: close"));
  EXPECT_GE(trickled.took, 280ms);
  EXPECT_EQ(proxy_.log(1).at(0).at("reason"), "client_timeout");
  EXPECT_EQ(proxy_.log(1).at(0).at("status"), "408");

  // The second request's time begins with its first byte.
  RawClient second = proxy_.raw("header");
  second.send(kGet);
  EXPECT_EQ(second.read_response().status, 200);
  EXPECT_TRUE(second.quiet(400ms));
  second.send("GET /");
  EXPECT_TRUE(says(trickle(second, "a", 20ms).answer, "408 client_timeout"));

  // Or, behind a request that it came with, with the end of that one.
  RawClient behind = proxy_.raw("header");
  auto began = Clock::now();
  behind.send(std::string(kGet) + "GET /ok HTTP/1.1\r\nHo");
  EXPECT_EQ(behind.read_response().status, 200);
  const std::string late = behind.read_all();
  EXPECT_TRUE(late.starts_with("HTTP/1.1 408 ")) << late;
  EXPECT_GE(Clock::now() - began, 280ms);

  began = Clock::now();
  RawClient silent = proxy_.raw("header");
  const std::string answer = silent.read_all();
  EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 408 ")) << answer;
  EXPECT_GE(Clock::now() - began, 280ms);

  // HTTP/2: half a preface, a preface and no more, half a HEADERS, CONTINUATION that never comes.
  const std::string block = hpack(h2_request_fields("GET", "/ok"));
  const std::string hello = std::string(kH2Preface) + h2_settings({});
  for (const std::string& bytes :
       {std::string(kH2Preface.substr(0, 20)), hello,
        hello + h2_headers(1, h2_request_fields("GET", "/ok")).substr(0, 20),
        hello + h2_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, block)}) {
    SCOPED_TRACE(bytes.size());
    began = Clock::now();
    RawClient raw = proxy_.raw("header");
    raw.send(bytes);
    raw.read_all();
    EXPECT_GE(Clock::now() - began, 280ms);
  }
  // CONTINUATION byte by byte.
  RawClient continuing = proxy_.raw("header");
  continuing.send(hello + h2_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, block));
  const std::string part = h2_frame(NGHTTP2_CONTINUATION, 0, 1, hpack({{"a", "b"}}));
  EXPECT_GE(trickle(continuing, part, 60ms).took, 250ms);
  EXPECT_EQ(origin_.requests(), 0);
}

// A client that is waited for while we are the ones not reading is not slow.
TEST_F(SlowClients, MustKeepTheirBodiesComing) {
  for (const char* listener : {"body", "rate"}) {
    SCOPED_TRACE(listener);
    const std::size_t before = proxy_.log(0).size();
    const bool rate = std::string(listener) == "rate";
    const auto every = rate ? 20ms : 5000ms;
    {
      RawClient raw = proxy_.raw(listener);
      raw.send(std::string(kPost) + "Content-Length: 1000000\r\n\r\nsome");
      const Trickled length = trickle(raw, "a", every);
      EXPECT_TRUE(length.answer.starts_with("HTTP/1.1 408 ")) << length.answer;
      EXPECT_TRUE(says(length.answer, "onnection: close"));
      EXPECT_GE(length.took, 280ms);
    }
    {
      RawClient raw = proxy_.raw(listener);
      raw.send(std::string(kPost) + "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n");
      const Trickled chunked = trickle(raw, "1\r\na\r\n", every);
      EXPECT_TRUE(chunked.answer.starts_with("HTTP/1.1 408 ")) << chunked.answer;
    }
    RawH2 h2(proxy_.address(listener));
    h2.send(h2_headers(1, h2_request_fields("POST", "/take"), false));
    h2.send(h2_frame(NGHTTP2_DATA, 0, 1, "some"));
    if (rate) {
      for (int i = 0; i < 200 && !h2.raw().socket().readable(20ms); ++i)
        h2.send(h2_frame(NGHTTP2_DATA, 0, 1, "a"));
    }
    // Its answer, then the end of this stream and of no other.
    const Frame head = h2.read_until(NGHTTP2_HEADERS, 1);
    EXPECT_EQ(h2.decode(head).value(":status"), "408");
    const Frame reset = h2.read_until(NGHTTP2_RST_STREAM, 1);
    EXPECT_EQ(reset.code(), static_cast<std::uint32_t>(NGHTTP2_CANCEL));
    h2.send(h2_headers(3, h2_request_fields("GET", "/ok")));
    EXPECT_EQ(h2.decode(h2.read_until(NGHTTP2_HEADERS, 3)).value(":status"), "200");

    const auto lines = proxy_.log(before + 4);
    for (std::size_t i = before; i < before + 3; ++i)
      EXPECT_EQ(lines[i].at("reason"), "client_timeout");
  }
}

// A gRPC call is silent for as long as it likes over HTTP/2 alone: what a type says of a body does
// not make it come any faster.
TEST_F(SlowClients, MustKeepTheirBodiesComingWhateverTheirType) {
  for (const char* listener : {"body", "rate"})
    for (const char* type :
         {"application/grpc", "application/grpc+proto", "application/grpc-web"}) {
      SCOPED_TRACE(std::string(listener) + " " + type);
      const std::size_t before = proxy_.log(0).size();
      const bool rate = std::string(listener) == "rate";
      RawClient raw = proxy_.raw(listener);
      raw.send(std::string(kPost) + "Content-Type: " + type +
               "\r\nContent-Length: 1000000\r\n\r\nsome");
      const Trickled trickled = trickle(raw, "a", rate ? 20ms : 5000ms);
      // gRPC hears it in its own words.
      if (says(type, "web")) {
        EXPECT_TRUE(trickled.answer.starts_with("HTTP/1.1 408 ")) << trickled.answer;
      } else {
        EXPECT_TRUE(says(trickled.answer, "grpc-status: 1\r\n")) << trickled.answer;
      }
      EXPECT_TRUE(says(trickled.answer, "onnection: close"));
      EXPECT_EQ(proxy_.log(before + 1).back().at("reason"), "client_timeout");
    }
}

TEST_F(SlowClients, ThatDoNotReadAreCut) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    SCOPED_TRACE(name_of(protocol));
    const std::size_t before = proxy_.log(0).size();
    const auto began = Clock::now();
    Client client = proxy_.client(protocol, "stall");
    const auto stream = client.open();
    stream->send_head({.method = "GET", .target = "/big", .authority = kAuthority}, true);
    const auto line = proxy_.log(before + 1).at(before);
    EXPECT_EQ(line.at("reason"), "client_timeout");
    EXPECT_EQ(line.at("status"), "200");
    EXPECT_GE(Clock::now() - began, 280ms);
    EXPECT_EQ(stream->read_head().status, 200);
    EXPECT_THROW(stream->read_body(), HarnessError);
    if (protocol == Protocol::kHttp2) {
      EXPECT_EQ(client.get("/ok").status, 200);
      EXPECT_EQ(client.connections(), 1);
    }
  }
}

TEST_F(SlowClients, AreClosedWhenIdle) {
  RawClient raw = proxy_.raw("idle");
  raw.send(kGet);
  EXPECT_EQ(raw.read_response().status, 200);
  auto began = Clock::now();
  EXPECT_EQ(raw.read_end(), Socket::End::kFin);
  EXPECT_GE(Clock::now() - began, 280ms);

  RawH2 h2(proxy_.address("idle"));
  h2.send(h2_headers(1, h2_request_fields("GET", "/ok")));
  h2.read_until(NGHTTP2_HEADERS, 1);
  began = Clock::now();
  EXPECT_EQ(h2.read_until(NGHTTP2_GOAWAY).code(), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(h2.read_goaway_and_end(), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_GE(Clock::now() - began, 280ms);

  // One that never asked for anything has the time for a head.
  began = Clock::now();
  RawH2 mute(proxy_.address("header"));
  EXPECT_EQ(mute.read_until(NGHTTP2_GOAWAY).code(), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(mute.read_goaway_and_end(), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_GE(Clock::now() - began, 280ms);
}

// The time in which a request is served is not the connection's idleness.
TEST_F(SlowClients, AreNotIdleWhileTheyWait) {
  RawClient raw = proxy_.raw("idle");
  raw.send(std::string(kGet) + "GET /slow HTTP/1.1\r\nHost: outrider.test\r\n\r\n");
  EXPECT_EQ(raw.read_response().status, 200);
  const Response slow = raw.read_response();
  EXPECT_EQ(slow.body, "taken");
  EXPECT_FALSE(slow.fields.has("connection"));
  raw.send(kGet);
  EXPECT_EQ(raw.read_response().status, 200);
}

// The first byte of HTTP/2's preface is also the first of POST, PUT and PATCH.
TEST_F(SlowClients, MayPauseBehindTheirFirstByte) {
  RawClient raw = proxy_.raw("idle");
  raw.send("P");
  std::this_thread::sleep_for(1100ms);
  raw.send(std::string(kPost).substr(1) + "Content-Length: 4\r\n\r\nbody");
  EXPECT_EQ(raw.read_response().body, "taken");

  const std::string series = "outrider_limit_refused_total{limit='control_frames'}";
  const double before = proxy_.metric(series);
  RawClient part = proxy_.raw("idle");
  part.send("PRI");
  EXPECT_EQ(part.read_all(), "");
  EXPECT_EQ(proxy_.await_metric(series, before + 1), before + 1);
  proxy_.await_error("a part of HTTP/2's preface");

  // So short a header time ends it before that.
  RawClient hurried = proxy_.raw("header");
  hurried.send("P");
  EXPECT_TRUE(hurried.read_all().starts_with("HTTP/1.1 408 "));
}

// Many at once, silent or trickling: each ends in its time, others are served meanwhile, and all is
// given back.
TEST_F(SlowClients, InCrowdsHarmNobody) {
  proxy_.client(Protocol::kHttp1, "header").get("/ok");
  const std::size_t descriptors = proxy_.descriptors();
  const double cpu = proxy_.cpu_seconds();
  std::vector<RawClient> crowd;
  for (int i = 0; i < 1000; ++i) {
    crowd.push_back(proxy_.raw("header"));
    if (i % 2 == 0) crowd.back().send("GET /ok HTTP/1.1\r\nHost: ");
  }
  Client other = proxy_.client(Protocol::kHttp1, "idle");
  for (int i = 0; i < 100; ++i) ASSERT_EQ(other.get("/ok").status, 200);
  for (RawClient& each : crowd) {
    each.try_send("a", 1s);
    each.read_all();
  }
  wait_until([&] { return proxy_.descriptors() <= descriptors + 4; }, "descriptors are kept");
  if (kMeasures) {
    EXPECT_LT(proxy_.cpu_seconds() - cpu, 2);
  }
}

TEST_F(SlowClients, ThatComeAndGoCostLittle) {
  Client other = proxy_.client(Protocol::kHttp1, "idle");
  const auto churn = [&](int count, bool bad) {
    for (int i = 0; i < count; ++i) {
      RawClient raw = proxy_.raw("idle");
      raw.send(bad ? "GET /ok HTTP/1.1\r\nHost : x\r\n\r\n" : "GET /ok HTTP/1.1\r\nHost: x");
      if (bad) {
        EXPECT_TRUE(raw.read_all().starts_with("HTTP/1.1 400 "));
      }
      raw.reset();
    }
  };
  churn(200, false);
  churn(200, true);
  const std::size_t descriptors = proxy_.descriptors();
  const std::size_t memory = proxy_.resident_bytes();
  const double cpu = proxy_.cpu_seconds();
  churn(1500, false);
  churn(1500, true);
  EXPECT_EQ(other.get("/ok").status, 200);
  wait_until([&] { return proxy_.descriptors() <= descriptors + 4; }, "descriptors are kept");
  if (kMeasures) {
    EXPECT_LT(proxy_.cpu_seconds() - cpu, 3000 * 0.001);
    EXPECT_LT(proxy_.resident_bytes(), memory + 2 * kMebibyte);
  }
  // Such requests are in the access log; the other log says little of them.
  const std::string errors = proxy_.errors();
  EXPECT_LT(std::count(errors.begin(), errors.end(), '\n'), 100);
}

TEST(ConnectionLimits, HoldForAListenerAndForAClient) {
  Outrider proxy(R"(
    outrider: v1
    listeners:
      few: { address: "127.0.0.1:0", limits: { connections: 5 } }
      fair: { address: "127.0.0.1:0", limits: { per_client: 3 } }
    routes: [{ match: /ok, respond: { status: 200, body: fine } }])");
  for (const auto& [listener, limit] :
       std::vector<std::pair<std::string, int>>{{"few", 5}, {"fair", 3}}) {
    SCOPED_TRACE(listener);
    std::vector<RawClient> within;
    for (int i = 0; i < limit; ++i) {
      within.push_back(proxy.raw(listener));
      within.back().send(kGet);
      EXPECT_EQ(within.back().read_response().status, 200);
    }
    // One more waits unanswered or is closed; it takes no place from the others.
    RawClient more = proxy.raw(listener);
    more.try_send(kGet, 1s);
    EXPECT_TRUE(more.quiet(200ms) || more.read_all().empty());
    for (RawClient& each : within) {
      each.send(kGet);
      EXPECT_EQ(each.read_response().status, 200);
    }
    more.close();
    within.pop_back();
    wait_until(
        [&] {
          RawClient next = proxy.raw(listener);
          next.try_send(kGet, 1s);
          return next.socket().readable(1s) && next.read_some().starts_with("HTTP/1.1 200 ");
        },
        "the place that became free is not given to anybody");
  }
}

// 1 MB/s, in steps.
constexpr std::size_t kStep = 50'000;
constexpr auto kPause = 50ms;

void read_slowly(Stream& stream, Clock::time_point until) {
  std::vector<char> bytes(kStep);
  while (Clock::now() < until) {
    std::size_t got = 0;
    while (got < kStep) {
      const std::size_t size = stream.read(bytes.data(), kStep - got);
      if (size == 0) return;
      got += size;
    }
    std::this_thread::sleep_for(kPause);
  }
}

// Offers a lot; what was taken, until the peer ends it.
std::size_t offer(Stream& stream, std::size_t total) {
  const std::string bytes(64 * 1024, 'x');
  std::size_t taken = 0;
  try {
    for (; taken < total; taken += bytes.size()) stream.write(bytes);
  } catch (const HarnessError&) {
    // The other side is gone, as it must in the end.
  }
  return taken;
}

// Through every pair of protocols, both ways, all at the same time: the faster side is held to the
// pace of the slower one, and nothing piles up between them.
TEST(BackPressure, HoldsTheFasterSide) {
  constexpr std::size_t kOffered = 256 * kMebibyte;
  std::atomic<std::size_t> sent_down = 0;
  std::atomic<bool> begun = false;
  Clock::time_point until;
  HttpOrigin origin([&](Stream& stream, const Head& head) {
    if (head.target.ends_with("/down")) {
      stream.send_head({.status = 200}, false);
      sent_down += offer(stream, kOffered);
    } else if (head.target.ends_with("/up")) {
      read_slowly(stream, until);
    } else {
      stream.send(Response{.status = 200, .body = stream.read_body()});
    }
    begun = true;
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { one: "http://$ORIGIN", two: "h2c://$ORIGIN" }
    routes:
      - { match: /one/**, to: one }
      - { match: /two/**, to: two })",
                 {{"ORIGIN", origin.address()}});
  Client one = proxy.client(Protocol::kHttp1);
  Client two = proxy.client(Protocol::kHttp2);
  for (int i = 0; i < 20; ++i)
    for (const char* target : {"/one/warm", "/two/warm"})
      for (Client* client : {&one, &two}) ASSERT_EQ(client->post(target, "x").status, 200);
  const std::size_t idle = proxy.resident_bytes();
  until = Clock::now() + 4s;

  std::atomic<std::size_t> sent_up = 0;
  std::vector<std::future<void>> transfers;
  for (const std::string service : {"/one", "/two"}) {
    for (Client* client : {&one, &two}) {
      const auto down = client->open();
      const auto up = client->open();
      transfers.push_back(std::async(std::launch::async, [=] {
        down->send_head({.method = "GET", .target = service + "/down", .authority = kAuthority},
                        true);
        EXPECT_EQ(down->read_head().status, 200);
        read_slowly(*down, until);
        down->reset();
      }));
      transfers.push_back(std::async(std::launch::async, [=, &sent_up] {
        up->send_head({.method = "POST", .target = service + "/up", .authority = kAuthority},
                      false);
        std::thread cut([=] {
          std::this_thread::sleep_until(until);
          up->reset();
        });
        sent_up += offer(*up, kOffered);
        cut.join();
      }));
    }
  }
  std::size_t most = 0;
  for (; Clock::now() < until; std::this_thread::sleep_for(20ms))
    most = std::max(most, proxy.resident_bytes());
  if (kMeasures) {
    EXPECT_LT(most, idle + 32 * kMebibyte);
  }
  for (auto& transfer : transfers) transfer.get();
  // Buffers of the kernel on the way take some; of 1 GiB each way most was never taken.
  EXPECT_LT(sent_up, kOffered);
  EXPECT_LT(sent_down, kOffered);
  proxy.log(88);
  EXPECT_EQ(one.get("/one/warm").status, 200);
}

// A client that reads slowly but steadily is none of timeout.idle's affair: the upstream is held
// for longer than that, and not silent.
TEST(BackPressure, IsNoIdleness) {
  constexpr std::size_t kSize = 32 * kMebibyte;
  HttpOrigin origin([&](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-length", std::to_string(kSize)}}}, false);
    Pattern pattern(3);
    write_pattern(stream, pattern, kSize);
    stream.finish();
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { big: "$BIG" }
    routes: [{ to: big, timeout: { idle: 1s } }])",
                 {{"BIG", origin.address()}});
  const auto read = [&](const std::function<std::size_t(char*, std::size_t)>& part) {
    Pattern pattern(3);
    std::vector<char> bytes(64 * 1024);
    const auto until = Clock::now() + 4s;
    for (;;) {
      const bool slowly = Clock::now() < until;
      if (slowly) std::this_thread::sleep_for(100ms);
      const std::size_t size = part(bytes.data(), slowly ? 4096 : bytes.size());
      if (size == 0) break;
      if (!pattern.matches(bytes.data(), size)) throw HarnessError("other bytes");
    }
    EXPECT_EQ(pattern.position(), kSize);
  };
  std::vector<std::future<void>> readers;
  readers.push_back(std::async(std::launch::async, [&] {
    RawClient raw = proxy.raw();
    raw.send(kGet);
    raw.begin_body(raw.read_head(), "GET");
    read([&](char* into, std::size_t room) { return raw.read_body_part(into, room); });
  }));
  readers.push_back(std::async(std::launch::async, [&] {
    Client client = proxy.client(Protocol::kHttp2);
    const auto stream = client.open();
    stream->send_head({.method = "GET", .target = "/", .authority = kAuthority}, true);
    EXPECT_EQ(stream->read_head().status, 200);
    read([&](char* into, std::size_t room) { return stream->read(into, room); });
  }));
  for (auto& reader : readers) EXPECT_NO_THROW(reader.get());
  for (const auto& line : proxy.log(2)) EXPECT_EQ(line.at("reason"), "ok");
}

// An upstream that reads nothing for longer than the client's timers: the client is not to blame.
TEST(BackPressure, DoesNotBlameTheClient) {
  std::promise<void> go;
  std::shared_future<void> gone = go.get_future().share();
  HttpOrigin origin([&](Stream& stream, const Head&) {
    gone.wait_for(patience());
    Pattern pattern(1);
    stream.send(Response{.status = 200, .body = std::to_string(read_pattern(stream, pattern))});
  });
  Outrider proxy(R"(
    outrider: v1
    listeners:
      main: { address: "127.0.0.1:0", timeouts: { body: 300ms, upload_rate: 10MB/s after 300ms } }
    services: { one: "http://$ORIGIN", two: "h2c://$ORIGIN" }
    routes:
      - { match: /one, to: one }
      - { match: /two, to: two })",
                 {{"ORIGIN", origin.address()}});
  Client one = proxy.client(Protocol::kHttp1);
  Client two = proxy.client(Protocol::kHttp2);
  std::vector<std::shared_ptr<Stream>> streams;
  std::vector<std::future<void>> writers;
  for (const char* target : {"/one", "/two"}) {
    for (Client* client : {&one, &two}) {
      const auto stream = client->open();
      streams.push_back(stream);
      writers.push_back(std::async(std::launch::async, [=] {
        stream->send_head({.method = "POST", .target = target, .authority = kAuthority}, false);
        Pattern pattern(1);
        write_pattern(*stream, pattern, 32 * kMebibyte);
        stream->finish();
      }));
    }
  }
  std::this_thread::sleep_for(2500ms);
  go.set_value();
  for (auto& writer : writers) writer.get();
  for (const auto& stream : streams) {
    EXPECT_EQ(stream->read_head().status, 200);
    EXPECT_EQ(stream->read_body(), std::to_string(32 * kMebibyte));
  }
}

// Nor is a client that waits to be asked for its body: its time begins with that.
TEST(Expectation, DoesNotBlameTheClientForWaiting) {
  Origin origin([](RawClient& connection, int) {
    const Head head = connection.read_head();
    if (head.target == "/never") {
      connection.read_all();
      return;
    }
    std::this_thread::sleep_for(2300ms);
    connection.send("HTTP/1.1 100 Continue\r\n\r\n");
    connection.begin_body(head, head.method);
    std::string body;
    char part[64];
    while (const std::size_t size = connection.read_body_part(part, sizeof part))
      body.append(part, size);
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body);
  });
  Outrider proxy(R"(
    outrider: v1
    listeners:
      main:
        address: 127.0.0.1:0
        timeouts: { body: 500ms, upload_rate: 1000B/s after 500ms }
    services: { one: "http://$ORIGIN" }
    routes:
      - { match: /**, to: one }
      - { match: /never, to: one, timeout: { headers: 1500ms } })",
                 {{"ORIGIN", origin.address()}});
  const Fields fields = {{"expect", "100-continue"}, {"content-length", "5"}};
  const auto expect = [&](const std::string& target) {
    return "POST " + target +
           " HTTP/1.1\r\nHost: outrider.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
  };
  RawClient one = proxy.raw();
  one.send(expect("/"));
  RawH2 two(proxy.address());
  Fields head = h2_request_fields("POST", "/");
  head.insert(head.end(), fields.begin(), fields.end());
  two.send(h2_headers(1, head, false));

  EXPECT_EQ(one.read_head().status, 100);
  one.send("hello");
  EXPECT_EQ(one.read_response().body, "hello");
  EXPECT_EQ(two.decode(two.read_until(NGHTTP2_HEADERS, 1)).value(":status"), "100");
  two.send(h2_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "hello"));
  EXPECT_EQ(two.decode(two.read_until(NGHTTP2_HEADERS, 1)).value(":status"), "200");
  EXPECT_EQ(two.read_until(NGHTTP2_DATA, 1).payload, "hello");

  // Who never asks has the time for an answer's head.
  RawClient never = proxy.raw();
  never.send(expect("/never"));
  const Response response = never.read_response("POST");
  EXPECT_EQ(response.status, 504);
  EXPECT_TRUE(response.body.starts_with("504 timeout_headers: ")) << response.body;
}

// The answer of a connection's last request, to a client whose window is wide and who reads slowly:
// what it says of its window meanwhile must not be answered with a reset.
TEST(LastAnswers, AreReadToTheirEnd) {
  constexpr std::size_t kSize = 2 * kMebibyte;
  HttpOrigin origin([&](Stream& stream, const Head&) {
    stream.send(Response{.status = 200, .body = std::string(kSize, 'z')});
  });
  for (const bool drains : {false, true}) {
    SCOPED_TRACE(drains ? "the process drains" : "limits.requests");
    Outrider proxy(R"(
    outrider: v1
    listeners: { main: { address: "127.0.0.1:0", limits: { requests: $REQUESTS } } }
    drain: { delay: 0s, deadline: 60s }
    services: { big: "$BIG" }
    routes: [{ to: big }])",
                   {{"BIG", origin.address()}, {"REQUESTS", drains ? "100" : "1"}});
    RawH2 h2(proxy.address(), {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 16 * kMebibyte}});
    h2.send(h2_window_update(0, 16 * kMebibyte) + h2_headers(1, h2_request_fields()));
    Frame part;
    while (part.type != NGHTTP2_HEADERS) part = h2.read();  // a GOAWAY may come first
    EXPECT_EQ(h2.decode(part).value(":status"), "200");
    if (drains) proxy.signal(SIGTERM);
    std::this_thread::sleep_for(800ms);
    std::size_t got = 0;
    for (bool end = false; !end;) {
      part = h2.read();
      if (part.type != NGHTTP2_DATA) continue;
      got += part.payload.size();
      end = part.has(NGHTTP2_FLAG_END_STREAM);
      const auto size = static_cast<std::uint32_t>(part.payload.size());
      if (size != 0) h2.raw().try_send(h2_window_update(0, size) + h2_window_update(1, size), 1s);
      std::this_thread::sleep_for(2ms);
    }
    EXPECT_EQ(got, kSize);
    EXPECT_EQ(h2.read_goaway_and_end(), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
    if (drains) {
      EXPECT_EQ(proxy.wait_exit(), 0);
    }
  }
}

// Out of descriptors: those who are there are served, nothing spins, and it is over by itself.
TEST(Descriptors, RunOutWithoutHarm) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ match: /ok, respond: { status: 200, body: fine } }])");
  Client client = proxy.client();
  ASSERT_EQ(client.get("/ok").status, 200);
  rlimit before{};
  prlimit(proxy.pid(), RLIMIT_NOFILE, nullptr, &before);
  rlimit little = before;
  little.rlim_cur = proxy.descriptors() + 20;
  ASSERT_EQ(prlimit(proxy.pid(), RLIMIT_NOFILE, &little, nullptr), 0);

  std::vector<RawClient> crowd;
  for (int i = 0; i < 200; ++i) crowd.push_back(proxy.raw());
  const double cpu = proxy.cpu_seconds();
  const auto began = Clock::now();
  while (Clock::now() - began < 1500ms) {
    ASSERT_EQ(client.get("/ok").status, 200);
    std::this_thread::sleep_for(50ms);
  }
  if (kMeasures) {
    EXPECT_LT(proxy.cpu_seconds() - cpu, 0.3);
  }
  EXPECT_EQ(client.connections(), 1);

  crowd.clear();
  wait_until([&] { return proxy.descriptors() <= static_cast<std::size_t>(little.rlim_cur) - 10; },
             "descriptors are kept");
  // Those that were turned away may come again; it is looked at now and then.
  const auto served = [&] {
    try {
      return proxy.client().get("/ok").status == 200;
    } catch (const HarnessError&) {
      return false;
    }
  };
  wait_until(served, "clients are taken again");
  prlimit(proxy.pid(), RLIMIT_NOFILE, &before, nullptr);
  wait_until(served, "clients are taken under the old limit");
}

// What an idle connection costs, after it has worked; and nothing once it is gone.
TEST(IdleConnections, CostLittle) {
  if (!kMeasures) GTEST_SKIP() << "sanitizers have memory figures of their own";
  constexpr std::size_t kCount = 2000;
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ match: /ok, respond: { status: 200, body: fine } }])");
  for (int i = 0; i < 100; ++i) proxy.client().get("/ok");
  const std::size_t at_first = proxy.resident_bytes();
  const auto expect_given_back = [&] {
    wait_until([&] { return proxy.resident_bytes() < at_first + kMebibyte; },
               "what connections needed is kept when they are gone");
  };
  {
    const std::size_t before = proxy.resident_bytes();
    std::vector<RawClient> all;
    for (std::size_t i = 0; i < kCount; ++i) {
      all.push_back(proxy.raw());
      all.back().send(kGet);
      ASSERT_EQ(all.back().read_response().status, 200);
    }
    wait_until([&] { return proxy.resident_bytes() < before + kCount * 1024; },
               "idle HTTP/1 connections are too large");
  }
  expect_given_back();
  {
    const std::size_t before = proxy.resident_bytes();
    std::vector<std::unique_ptr<RawH2>> all;
    for (std::size_t i = 0; i < kCount; ++i) {
      all.push_back(std::make_unique<RawH2>(proxy.address()));
      all.back()->send(h2_headers(1, h2_request_fields("GET", "/ok")));
      const Frame head = all.back()->read_until(NGHTTP2_HEADERS, 1);
      ASSERT_EQ(all.back()->decode(head).value(":status"), "200");
    }
    wait_until([&] { return proxy.resident_bytes() < before + kCount * 4096; },
               "idle HTTP/2 connections are too large");
  }
  expect_given_back();
}

}  // namespace
}  // namespace outrider::test
