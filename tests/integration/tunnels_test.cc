// Connections that stop being requests: WebSocket over every pair of protocols (RFC 6455, RFC
// 8441), what a route's `upgrade` lets switch, raw TCP listeners; and answers that never end,
// server-sent events. Bytes pass at once, uninterpreted, each half ends by itself.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"
#include "tests/harness/websocket.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kBulk = 4 * 1024 * 1024;
constexpr std::uint64_t kFlood = 32 * 1024 * 1024;  // more than kernels buffer

// One end of a tunnel, whatever carries it.
class Tunnel {
 public:
  virtual ~Tunnel() = default;
  virtual void send(std::string_view bytes) = 0;
  virtual void finish() = 0;
  virtual void cut() = 0;
  // At least a byte, or nothing at the end of the peer's half.
  virtual std::string read_some() = 0;

  std::string read_exactly(std::size_t size) {
    while (pending_.size() < size) {
      const std::string more = read_some();
      if (more.empty()) throw HarnessError("the tunnel ended after '" + pending_ + "'");
      pending_ += more;
    }
    std::string taken = pending_.substr(0, size);
    pending_.erase(0, size);
    return taken;
  }
  std::string read_all() {
    std::string all = std::move(pending_);
    for (std::string more; !(more = read_some()).empty();) all += more;
    return all;
  }

 private:
  std::string pending_;
};

class RawTunnel final : public Tunnel {
 public:
  explicit RawTunnel(RawClient& raw) : raw_(raw) {}
  void send(std::string_view bytes) override { raw_.send(bytes); }
  void finish() override { raw_.shutdown_write(); }
  void cut() override { raw_.reset(); }
  std::string read_some() override {
    std::string bytes = raw_.read_some();
    if (bytes.empty() && raw_.socket().end() == Socket::End::kReset)
      throw HarnessError("the connection was reset");
    return bytes;
  }

 private:
  RawClient& raw_;
};

class StreamTunnel final : public Tunnel {
 public:
  explicit StreamTunnel(Stream& stream) : stream_(stream) {}
  void send(std::string_view bytes) override { stream_.write(bytes); }
  void finish() override { stream_.finish(); }
  void cut() override { stream_.reset(); }
  std::string read_some() override {
    std::string bytes(64 * 1024, '\0');
    bytes.resize(stream_.read(bytes.data(), bytes.size()));
    return bytes;
  }

 private:
  Stream& stream_;
};

void write_bulk(Tunnel& tunnel, std::uint64_t seed, std::uint64_t size = kBulk) {
  Pattern pattern(seed);
  std::string bytes(50'000, '\0');
  while (pattern.position() < size) {
    bytes.resize(std::min<std::uint64_t>(bytes.size(), size - pattern.position()));
    pattern.next(bytes.data(), bytes.size());
    tunnel.send(bytes);
  }
}

// Reads that many bytes and says if they are the pattern's.
bool read_bulk(Tunnel& tunnel, std::uint64_t seed) {
  Pattern pattern(seed);
  while (pattern.position() < kBulk) {
    const std::string bytes = tunnel.read_some();
    if (bytes.empty() || !pattern.matches(bytes.data(), bytes.size())) return false;
  }
  return pattern.position() == kBulk;
}

// What servers heard, for the test to wait for.
class Reports {
 public:
  void add(std::string text) {
    const std::lock_guard lock(mutex_);
    texts_.push_back(std::move(text));
    changed_.notify_all();
  }
  std::string next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience(), [&] { return !texts_.empty(); }))
      throw HarnessError("the server reports nothing");
    std::string text = std::move(texts_.front());
    texts_.erase(texts_.begin());
    return text;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> texts_;
};

// A server's side of a tunnel; what it does is the last segment of the path.
void act(Tunnel& tunnel, const std::string& path, Reports& reports) {
  const std::string deed = path.substr(path.rfind('/') + 1);
  if (deed == "echo") {
    tunnel.send("welcome");
    for (std::string bytes; !(bytes = tunnel.read_some()).empty();) tunnel.send(bytes);
    tunnel.send("bye");
    tunnel.finish();
  } else if (deed == "ends-first") {
    tunnel.send("that is all");
    tunnel.finish();
    reports.add(tunnel.read_all());
  } else if (deed == "bulk") {
    auto writer = std::async(std::launch::async, [&] { write_bulk(tunnel, 2); });
    const bool right = read_bulk(tunnel, 1);
    writer.get();
    tunnel.finish();
    reports.add(right ? "right" : "wrong");
  } else if (deed == "count") {
    reports.add(std::to_string(tunnel.read_all().size()));
    tunnel.finish();
  } else if (deed == "flood") {
    write_bulk(tunnel, 2, kFlood);
    tunnel.finish();
  } else if (deed == "cut") {
    tunnel.send("half a mess");
    tunnel.read_exactly(3);
    tunnel.cut();
  } else {
    try {
      tunnel.read_all();
      reports.add("ended");
    } catch (const HarnessError&) {
      reports.add("cut");
      throw;
    }
  }
}

// A server that switches protocols, with HTTP/1.1 and with HTTP/2.
class Switching {
 public:
  Switching()
      : one_([this](RawClient& connection, int) { serve_one(connection); }),
        two_([this](Stream& stream, const Head& head) { serve_two(stream, head); },
             {.settings = {{NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}}}) {}

  std::string one() const { return "http://" + one_.address(); }
  std::string two() const { return "h2c://" + two_.address(); }
  Reports& reports() { return reports_; }
  std::vector<Head> heads() {
    const std::lock_guard lock(mutex_);
    return heads_;
  }

 private:
  void seen(const Head& head) {
    const std::lock_guard lock(mutex_);
    heads_.push_back(head);
  }

  void serve_one(RawClient& connection) {
    while (!connection.peek(1).empty()) {
      const Request request = connection.read_request();
      seen(request.head());
      const std::string asked = request.fields.value("upgrade");
      if (asked.empty()) {
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain");
      } else if (request.target.ends_with("/refuse")) {
        connection.send(
            "HTTP/1.1 426 No\r\nupgrade: tea\r\nconnection: upgrade\r\n"
            "content-length: 10\r\n\r\nno tunnels");
      } else {
        const bool other = request.target.ends_with("/other");
        const bool liar = request.target.ends_with("/liar");
        const std::string key = liar ? "another" : request.fields.value("sec-websocket-key");
        connection.send("HTTP/1.1 101 Switching\r\nconnection: Upgrade\r\nupgrade: " +
                        (other ? std::string("tea") : asked) + "\r\nsec-websocket-accept: " +
                        websocket_accept(key) + "\r\nsec-websocket-protocol: notes\r\n\r\n");
        RawTunnel tunnel(connection);
        return act(tunnel, request.target, reports_);
      }
    }
  }

  void serve_two(Stream& stream, const Head& head) {
    seen(head);
    if (head.protocol.empty()) {
      stream.read_body();
      return stream.send(Response{.status = 200, .body = "plain"});
    }
    if (head.target.ends_with("/refuse"))
      return stream.send(Response{.status = 426, .body = "no tunnels"});
    stream.send_head({.status = 200, .fields = {{"sec-websocket-protocol", "notes"}}}, false);
    StreamTunnel tunnel(stream);
    act(tunnel, head.target, reports_);
  }

  std::mutex mutex_;
  std::vector<Head> heads_;
  Reports reports_;
  Origin one_;
  HttpOrigin two_;
};

std::string websocket_request(const std::string& path) {
  return "GET " + path +
         " HTTP/1.1\r\nHost: outrider.test\r\nUpgrade: websocket\r\n"
         "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: " +
         kWebsocketKey + "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: notes\r\n\r\n";
}

struct Pair {
  Protocol downstream;
  Protocol upstream;
};

// A client that asks for a WebSocket in its protocol's way.
class WebsocketClient {
 public:
  WebsocketClient(Outrider& proxy, Protocol protocol)
      : protocol_(protocol), client_(proxy.address(), protocol) {
    if (protocol == Protocol::kHttp1) {
      raw_.emplace(proxy.address());
    } else {
      client_.h2().wait_settings();
    }
  }

  // The head that answers; its tunnel, if it became one, is tunnel().
  Head ask(const std::string& path) {
    if (protocol_ == Protocol::kHttp1) {
      raw_->send(websocket_request(path));
      tunnel_ = std::make_unique<RawTunnel>(*raw_);
      return raw_->read_head();
    }
    tunnel_.reset();
    stream_ = client_.open();
    stream_->send_head(
        {.method = "CONNECT",
         .target = path,
         .authority = kAuthority,
         .protocol = "websocket",
         .fields = {{"sec-websocket-version", "13"}, {"sec-websocket-protocol", "notes"}}},
        false);
    tunnel_ = std::make_unique<StreamTunnel>(*stream_);
    return stream_->read_head();
  }

  Tunnel& tunnel() { return *tunnel_; }
  RawClient& raw() { return *raw_; }
  Stream& stream() { return *stream_; }
  Client& client() { return client_; }
  int switched() const { return protocol_ == Protocol::kHttp1 ? 101 : 200; }

 private:
  const Protocol protocol_;
  Client client_;
  std::optional<RawClient> raw_;
  std::shared_ptr<Stream> stream_;
  std::unique_ptr<Tunnel> tunnel_;
};

class Websocket : public testing::TestWithParam<Pair> {
 protected:
  Websocket()
      : proxy_(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    drain: { delay: 0s, deadline: 400ms }
    routes:
      - { name: all, match: /**, to: shop }
      - { name: short, match: /short/**, to: shop, timeout: { total: 250ms } }
      - { name: idle, match: /idle/**, to: shop, timeout: { idle: 250ms } }
      - { name: none, match: /none/**, to: shop, upgrade: [] })",
               {{"SHOP",
                 GetParam().upstream == Protocol::kHttp1 ? switching_.one() : switching_.two()}}) {}

  Switching switching_;
  Outrider proxy_;
};

TEST_P(Websocket, SwitchesWithTheHandshakeOfEachSide) {
  WebsocketClient client(proxy_, GetParam().downstream);
  const Head answer = client.ask("/echo");

  ASSERT_EQ(answer.status, client.switched());
  EXPECT_EQ(answer.fields.value("sec-websocket-protocol"), "notes");
  if (GetParam().downstream == Protocol::kHttp1) {
    EXPECT_TRUE(equal_case_blind(answer.fields.value("upgrade"), "websocket"));
    EXPECT_TRUE(equal_case_blind(answer.fields.value("connection"), "upgrade"));
    EXPECT_EQ(answer.fields.value("sec-websocket-accept"), websocket_accept(kWebsocketKey));
    EXPECT_FALSE(answer.fields.has("content-length"));
    EXPECT_FALSE(answer.fields.has("transfer-encoding"));
  } else {
    EXPECT_EQ(client.client().h2().peer_setting(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL), 1u);
    for (const char* name : {"upgrade", "connection", "sec-websocket-accept"})
      EXPECT_FALSE(answer.fields.has(name)) << name;
  }

  const Head asked = switching_.heads().at(0);
  EXPECT_EQ(asked.target, "/echo");
  EXPECT_EQ(asked.authority, kAuthority);
  EXPECT_EQ(asked.fields.value("sec-websocket-version"), "13");
  EXPECT_EQ(asked.fields.value("sec-websocket-protocol"), "notes");
  if (GetParam().upstream == Protocol::kHttp1) {
    EXPECT_EQ(asked.method, "GET");
    EXPECT_TRUE(equal_case_blind(asked.fields.value("upgrade"), "websocket"));
    EXPECT_TRUE(equal_case_blind(asked.fields.value("connection"), "upgrade"));
    EXPECT_EQ(asked.fields.count("sec-websocket-key"), 1u);
    EXPECT_EQ(asked.fields.value("sec-websocket-key").size(), 24u);
  } else {
    EXPECT_EQ(asked.method, "CONNECT");
    EXPECT_EQ(asked.protocol, "websocket");
    for (const char* name : {"upgrade", "connection", "sec-websocket-key"})
      EXPECT_FALSE(asked.fields.has(name)) << name;
  }
}

TEST_P(Websocket, CarriesBytesAtOnceAndEachEndByItself) {
  WebsocketClient client(proxy_, GetParam().downstream);
  ASSERT_EQ(client.ask("/echo").status, client.switched());
  EXPECT_EQ(client.tunnel().read_exactly(7), "welcome");
  // What looks like another request is nothing but bytes.
  const std::string looks_like = "GET /smuggled HTTP/1.1\r\nHost: outrider.test\r\n\r\n";
  client.tunnel().send(looks_like);
  EXPECT_EQ(client.tunnel().read_exactly(looks_like.size()), looks_like);
  client.tunnel().send("one more");
  EXPECT_EQ(client.tunnel().read_exactly(8), "one more");

  client.tunnel().finish();
  EXPECT_EQ(client.tunnel().read_all(), "bye");

  const auto line = proxy_.log(1).at(0);
  EXPECT_EQ(line.at("reason"), "ok");
  EXPECT_EQ(line.at("status"), std::to_string(client.switched()));
  EXPECT_EQ(line.at("route"), "all");
  EXPECT_EQ(switching_.heads().size(), 1u);
}

TEST_P(Websocket, GoesOnWhenTheServerEndsFirst) {
  WebsocketClient client(proxy_, GetParam().downstream);
  ASSERT_EQ(client.ask("/ends-first").status, client.switched());
  EXPECT_EQ(client.tunnel().read_all(), "that is all");

  client.tunnel().send("still ");
  client.tunnel().send("here");
  client.tunnel().finish();

  EXPECT_EQ(switching_.reports().next(), "still here");
}

TEST_P(Websocket, CarriesManyBytesBothWays) {
  WebsocketClient client(proxy_, GetParam().downstream);
  ASSERT_EQ(client.ask("/bulk").status, client.switched());
  auto writer = std::async(std::launch::async, [&] { write_bulk(client.tunnel(), 1); });
  EXPECT_TRUE(read_bulk(client.tunnel(), 2));
  writer.get();
  EXPECT_EQ(switching_.reports().next(), "right");
}

TEST_P(Websocket, EndsWithEitherSide) {
  WebsocketClient client(proxy_, GetParam().downstream);
  ASSERT_EQ(client.ask("/cut").status, client.switched());
  EXPECT_EQ(client.tunnel().read_exactly(11), "half a mess");
  client.tunnel().send("now");
  EXPECT_THROW(client.tunnel().read_all(), HarnessError) << "cut must not look like an end";
  EXPECT_EQ(proxy_.log(1).at(0).at("reason"), "upstream_reset");

  WebsocketClient leaving(proxy_, GetParam().downstream);
  ASSERT_EQ(leaving.ask("/listen").status, leaving.switched());
  leaving.tunnel().cut();
  EXPECT_EQ(switching_.reports().next(), "cut");
  EXPECT_EQ(proxy_.log(2).at(1).at("reason"), "client_closed");
}

TEST_P(Websocket, KeepsHttpWhenTheServerRefuses) {
  WebsocketClient client(proxy_, GetParam().downstream);
  const Head answer = client.ask("/refuse");
  EXPECT_EQ(answer.status, 426);
  if (GetParam().downstream == Protocol::kHttp1) {
    // What follows on the connection is a request again.
    client.raw().begin_body(answer, "GET");
    char body[32];
    const std::size_t size = client.raw().read_body_part(body, sizeof body);
    EXPECT_EQ(std::string(body, size), "no tunnels");
    client.raw().send("GET /next HTTP/1.1\r\nHost: outrider.test\r\n\r\n");
    EXPECT_EQ(client.raw().read_response().body, "plain");
  } else {
    EXPECT_EQ(client.stream().read_body(), "no tunnels");
    EXPECT_EQ(client.client().get("/next").body, "plain");
  }
  EXPECT_EQ(switching_.heads().size(), 2u);
  EXPECT_EQ(switching_.heads().back().target, "/next");
}

TEST_P(Websocket, IsUnderTheIdleTimeoutAlone) {
  WebsocketClient lasting(proxy_, GetParam().downstream);
  ASSERT_EQ(lasting.ask("/short/echo").status, lasting.switched());
  EXPECT_EQ(lasting.tunnel().read_exactly(7), "welcome");

  WebsocketClient idle(proxy_, GetParam().downstream);
  const auto began = std::chrono::steady_clock::now();
  ASSERT_EQ(idle.ask("/idle/echo").status, idle.switched());
  EXPECT_EQ(idle.tunnel().read_exactly(7), "welcome");
  EXPECT_THROW(idle.tunnel().read_exactly(1), HarnessError);
  EXPECT_GE(std::chrono::steady_clock::now() - began, 250ms);
  EXPECT_EQ(proxy_.log(1).at(0).at("reason"), "timeout_idle");

  // By now the total of the first one's route is long over.
  lasting.tunnel().send("alive");
  EXPECT_EQ(lasting.tunnel().read_exactly(5), "alive");
}

TEST_P(Websocket, IsNoTunnelWhereTheRouteListsNone) {
  WebsocketClient client(proxy_, GetParam().downstream);
  if (GetParam().downstream == Protocol::kHttp1) {
    const Head answer = client.ask("/none/echo");
    EXPECT_EQ(answer.status, 200);
    const Head asked = switching_.heads().at(0);
    EXPECT_FALSE(asked.fields.has("upgrade"));
    EXPECT_FALSE(asked.fields.has("connection"));
  } else {
    try {
      EXPECT_EQ(client.ask("/none/echo").status, 405);
    } catch (const HarnessError& error) {
      EXPECT_STREQ(error.what(), "reset before a head, code 1");
    }
    EXPECT_EQ(switching_.heads().size(), 0u);
  }
}

TEST_P(Websocket, EndsAtTheDrainDeadline) {
  WebsocketClient client(proxy_, GetParam().downstream);
  ASSERT_EQ(client.ask("/echo").status, client.switched());
  EXPECT_EQ(client.tunnel().read_exactly(7), "welcome");
  const auto began = std::chrono::steady_clock::now();
  proxy_.signal(SIGTERM);
  client.tunnel().send("meanwhile");
  EXPECT_EQ(client.tunnel().read_exactly(9), "meanwhile");
  EXPECT_EQ(proxy_.wait_exit(), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - began, 400ms);
}

INSTANTIATE_TEST_SUITE_P(Tunnels, Websocket,
                         testing::Values(Pair{Protocol::kHttp1, Protocol::kHttp1},
                                         Pair{Protocol::kHttp1, Protocol::kHttp2},
                                         Pair{Protocol::kHttp2, Protocol::kHttp1},
                                         Pair{Protocol::kHttp2, Protocol::kHttp2}),
                         [](const auto& tested) {
                           return std::string(name_of(tested.param.downstream)) + "To" +
                                  std::string(name_of(tested.param.upstream));
                         });

TEST(Upgrade, TakesWhatTheRouteListsAndStripsTheRest) {
  Switching switching;
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes:
      - { match: /chat/**, to: shop, upgrade: [chat] }
      - { match: /**, to: shop })",
                 {{"SHOP", switching.one()}});
  const auto ask = [&](const std::string& path, const std::string& fields) {
    RawClient raw = proxy.raw();
    raw.send("GET " + path + " HTTP/1.1\r\nHost: outrider.test\r\n" + fields + "\r\n");
    return raw.read_head();
  };

  RawClient raw = proxy.raw();
  raw.send(
      "GET /chat/echo HTTP/1.1\r\nHost: outrider.test\r\nUpgrade: chat\r\n"
      "Connection: upgrade\r\n\r\n");
  const Head answer = raw.read_head();
  EXPECT_EQ(answer.status, 101);
  EXPECT_EQ(answer.fields.value("upgrade"), "chat");
  EXPECT_EQ(raw.read_exactly(7), "welcome");
  EXPECT_EQ(switching.heads().back().fields.value("upgrade"), "chat");

  for (const auto& [path, fields] : std::vector<std::pair<std::string, std::string>>{
           {"/chat/echo",
            "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"},
           {"/echo", "Upgrade: chat\r\nConnection: upgrade\r\n"},
           {"/echo", "Upgrade: websocket\r\n"},  // Connection does not name it
           {"/echo",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"},
           {"/echo", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"}}) {
    SCOPED_TRACE(path + " " + fields);
    EXPECT_EQ(ask(path, fields).status, 200);
    const Head asked = switching.heads().back();
    EXPECT_FALSE(asked.fields.has("upgrade"));
    EXPECT_FALSE(asked.fields.has("connection"));
    EXPECT_FALSE(asked.fields.has("http2-settings"));
  }
}

TEST(Upgrade, RefusesA101ThatDoesNotFit) {
  Switching switching;
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes: [{ to: shop }])",
                 {{"SHOP", switching.one()}});
  WebsocketClient other(proxy, Protocol::kHttp1);
  EXPECT_EQ(other.ask("/other").status, 502);
  EXPECT_EQ(proxy.log(1).at(0).at("reason"), "upstream_protocol_error");
  // The key is the proxy's own here, so it is the proxy that must check the answer to it.
  WebsocketClient liar(proxy, Protocol::kHttp2);
  EXPECT_EQ(liar.ask("/liar").status, 502);
  EXPECT_EQ(proxy.log(2).at(1).at("reason"), "upstream_protocol_error");
  // A 101 that nobody asked for.
  Origin unasked([](RawClient& connection, int) {
    connection.read_request();
    connection.send("HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    connection.read_all();
  });
  Outrider second(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes: [{ to: shop }])",
                  {{"SHOP", unasked.address()}});
  EXPECT_EQ(second.client().get("/").status, 502);
}

TEST(Upgrade, AnswersWhenTheServerKnowsNoExtendedConnect) {
  HttpOrigin naked = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { naked: "h2c://$NAKED" }
    routes: [{ to: naked }])",
                 {{"NAKED", naked.address()}});
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    WebsocketClient client(proxy, protocol);
    EXPECT_GE(client.ask("/echo").status, 400);
  }
  // Nothing that could be read as another request has reached the server as one.
  for (const Head& head : naked.heads()) EXPECT_EQ(head.protocol, "");
}

// To the client a status of 2xx would be a tunnel, which nobody has at the other end.
TEST(Upgrade, AnAnswerInPlaceOfATunnelDoesNotLookLikeOne) {
  Origin origin([](RawClient& connection, int) {
    while (!connection.peek(1).empty())
      connection.send(connection.read_request().target == "/empty"
                          ? "HTTP/1.1 204 No\r\n\r\n"
                          : "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nleaked");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes:
      - { to: shop }
      - { match: /fixed, respond: 200 })",
                 {{"SHOP", origin.address()}});
  std::size_t lines = 0;
  for (const char* target : {"/full", "/empty"}) {
    SCOPED_TRACE(target);
    WebsocketClient client(proxy, Protocol::kHttp2);
    EXPECT_EQ(client.ask(target).status, 502);
    const std::string body = client.stream().read_body();
    EXPECT_TRUE(body.starts_with("502 upstream_protocol_error: ")) << body;
    const auto line = proxy.log(++lines).back();
    EXPECT_EQ(line.at("status"), "502");
    EXPECT_EQ(line.at("reason"), "upstream_protocol_error");
  }
  // Nor is there one where nothing is forwarded.
  WebsocketClient fixed(proxy, Protocol::kHttp2);
  EXPECT_EQ(fixed.ask("/fixed").status, 405);
  EXPECT_EQ(proxy.log(++lines).back().at("reason"), "not_supported");
  // HTTP/1 sees the answer for what it is.
  for (const auto& [target, status] : {std::pair{"/full", 200}, {"/empty", 204}, {"/fixed", 200}}) {
    WebsocketClient client(proxy, Protocol::kHttp1);
    EXPECT_EQ(client.ask(target).status, status) << target;
  }
}

// A client whose half ended with its head: the tunnel is over when the server's half is.
TEST(Upgrade, ATunnelEndedWithItsHeadLeavesNothingBehind) {
  Origin origin([](RawClient& connection, int) {
    const Request request = connection.read_request();
    if (request.fields.has("upgrade"))
      connection.send(
          "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
          "Sec-WebSocket-Accept: " +
          websocket_accept(request.fields.value("sec-websocket-key")) + "\r\n\r\n");
    else
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: { endpoints: ["$SHOP"], limits: { requests: 1 } } }
    routes: [{ to: shop }])",
                 {{"SHOP", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  client.h2().wait_settings();
  for (std::size_t i = 1; i <= 30; ++i) {
    const auto stream = client.open();
    stream->send_head({.method = "CONNECT",
                       .target = "/ws",
                       .authority = kAuthority,
                       .protocol = "websocket",
                       .fields = {{"sec-websocket-version", "13"}}},
                      true);
    const auto line = proxy.log(i).back();
    EXPECT_EQ(line.at("reason"), "ok");
    EXPECT_EQ(line.at("status"), "200");
  }
  EXPECT_EQ(proxy.client().get("/").status, 200);
}

// Raw TCP. The server's deed is the name of the listener.
class Tcp : public testing::Test {
 protected:
  Tcp()
      : origin_([this](RawClient& connection, int) {
          RawTunnel tunnel(connection);
          act(tunnel, "/" + deed_, reports_);
        }),
        proxy_(R"(
    outrider: v1
    listeners:
      db: { address: "127.0.0.1:0", protocol: tcp, to: db }
      gone: { address: "127.0.0.1:0", protocol: tcp, to: gone }
      either: { address: "127.0.0.1:0", protocol: tcp, to: either }
      idle: { address: "127.0.0.1:0", protocol: tcp, to: idle }
    services:
      db: "$DB"
      gone: "$REFUSING"
      either: ["$REFUSING", "$DB"]
      idle: { endpoints: ["$DB"], timeout: { idle: 250ms } })",
               {{"DB", origin_.address()}}) {}

  std::string deed_ = "echo";
  Reports reports_;
  Origin origin_;
  Outrider proxy_;
};

TEST_F(Tcp, LetsTheServerSpeakFirstAndEitherEnd) {
  RawClient raw = proxy_.raw("db");
  EXPECT_EQ(raw.read_exactly(7), "welcome");
  raw.send("select 1");
  EXPECT_EQ(raw.read_exactly(8), "select 1");
  raw.shutdown_write();
  EXPECT_EQ(raw.read_all(), "bye");
  EXPECT_EQ(raw.socket().end(), Socket::End::kFin);

  const auto line = proxy_.log(1).at(0);
  EXPECT_EQ(line.at("listener"), "db");
  EXPECT_EQ(line.at("service"), "db");
  EXPECT_EQ(line.at("reason"), "ok");
  EXPECT_EQ(line.at("bytes_in"), "8");
  EXPECT_EQ(line.at("bytes_out"), "18");

  deed_ = "ends-first";
  RawClient second = proxy_.raw("db");
  EXPECT_EQ(second.read_all(), "that is all");
  second.send("still here");
  second.shutdown_write();
  EXPECT_EQ(reports_.next(), "still here");
}

TEST_F(Tcp, CarriesManyBytesBothWays) {
  deed_ = "bulk";
  RawClient raw = proxy_.raw("db");
  RawTunnel tunnel(raw);
  auto writer = std::async(std::launch::async, [&] { write_bulk(tunnel, 1); });
  EXPECT_TRUE(read_bulk(tunnel, 2));
  writer.get();
  EXPECT_EQ(reports_.next(), "right");
}

TEST_F(Tcp, CountsAndKeepsInOrderWhatASlowReaderLetsWait) {
  deed_ = "flood";
  RawClient raw = proxy_.raw("db");
  Pattern pattern(2);
  std::vector<char> bytes(1024 * 1024);
  while (const std::size_t size = raw.socket().receive(bytes.data(), bytes.size()))
    ASSERT_TRUE(pattern.matches(bytes.data(), size));
  EXPECT_EQ(pattern.position(), kFlood);
  raw.shutdown_write();
  EXPECT_EQ(proxy_.log(1).at(0).at("bytes_out"), std::to_string(kFlood));
}

// An urgent byte, which is out of band, ends the way past us for a moment.
TEST_F(Tcp, GoesOnBehindAnUrgentByte) {
  deed_ = "count";
  RawClient raw = proxy_.raw("db");
  const std::string much(4'000'000, 'm');
  raw.send(much);
  ASSERT_EQ(::send(raw.socket().fd(), "!", 1, MSG_OOB), 1);
  raw.send(much);
  raw.shutdown_write();
  EXPECT_EQ(reports_.next(), std::to_string(2 * much.size()));
}

// What the client says before there is a connection to the server is said once.
TEST_F(Tcp, CarriesWhatCameBeforeTheServerOnce) {
  for (int i = 0; i < 50; ++i) {
    ::kill(proxy_.pid(), SIGSTOP);
    std::vector<RawClient> early;
    for (int n = 0; n < 10; ++n) {
      early.push_back(proxy_.raw("db"));
      early.back().send("early");
      early.back().shutdown_write();
    }
    ::kill(proxy_.pid(), SIGCONT);
    for (RawClient& raw : early) ASSERT_EQ(raw.read_all(), "welcomeearlybye");
  }
}

TEST_F(Tcp, EndsWithEitherSide) {
  deed_ = "cut";
  RawClient raw = proxy_.raw("db");
  EXPECT_EQ(raw.read_exactly(11), "half a mess");
  raw.send("now");
  raw.read_all();
  EXPECT_EQ(raw.socket().end(), Socket::End::kReset);

  deed_ = "listen";
  RawClient leaving = proxy_.raw("db");
  leaving.send("x");
  origin_.wait_connections(2);
  leaving.reset();
  EXPECT_EQ(reports_.next(), "cut");
}

TEST_F(Tcp, TriesAnotherEndpointAndClosesWithoutOne) {
  for (int i = 0; i < 8; ++i) EXPECT_EQ(proxy_.raw("either").read_exactly(7), "welcome");
  RawClient refused = proxy_.raw("gone");
  EXPECT_EQ(refused.read_all(), "");
  const auto lines = proxy_.log(9);
  const auto line = std::find_if(lines.begin(), lines.end(),
                                 [](const auto& each) { return each.at("listener") == "gone"; });
  ASSERT_NE(line, lines.end());
  EXPECT_EQ(line->at("reason"), "connect_failure");
}

TEST_F(Tcp, EndsWhatIsIdle) {
  const auto began = std::chrono::steady_clock::now();
  RawClient raw = proxy_.raw("idle");
  EXPECT_EQ(raw.read_all(), "welcome");
  EXPECT_GE(std::chrono::steady_clock::now() - began, 250ms);
  EXPECT_EQ(proxy_.log(1).at(0).at("reason"), "timeout_idle");
}

// Server-sent events: each is with the client before the next is written, and no total ends them.
class Events : public testing::TestWithParam<Pair> {};

TEST_P(Events, ArriveOneByOne) {
  std::mutex mutex;
  std::condition_variable changed;
  int wanted = 0;
  HttpOrigin origin([&](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-type", "text/event-stream"}}}, false);
    for (int sent = 0; sent < 4; ++sent) {
      std::unique_lock lock(mutex);
      if (!changed.wait_for(lock, patience(), [&] { return wanted > sent; })) return;
      lock.unlock();
      stream.write("data: " + std::to_string(sent) + "\n\n");
    }
    stream.finish();
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes: [{ to: shop, timeout: { total: 200ms } }])",
                 {{"SHOP", (GetParam().upstream == Protocol::kHttp1 ? "http://" : "h2c://") +
                               origin.address()}});
  Client client = proxy.client(GetParam().downstream);
  const auto stream = client.open();
  const auto began = std::chrono::steady_clock::now();
  stream->send_head({.method = "GET", .target = "/", .authority = kAuthority}, true);
  EXPECT_EQ(stream->read_head().fields.value("content-type"), "text/event-stream");
  for (int i = 0; i < 4; ++i) {
    {
      const std::lock_guard lock(mutex);
      ++wanted;
    }
    changed.notify_all();
    std::string event;
    char bytes[64];
    while (!event.ends_with("\n\n")) {
      const std::size_t size = stream->read(bytes, sizeof bytes);
      ASSERT_GT(size, 0u);
      event.append(bytes, size);
    }
    EXPECT_EQ(event, "data: " + std::to_string(i) + "\n\n");
    // The events go on beyond the route's total.
    if (i == 1) std::this_thread::sleep_until(began + 400ms);
  }
  EXPECT_EQ(stream->read_body(), "");
  EXPECT_EQ(proxy.log(1).at(0).at("reason"), "ok");
}

INSTANTIATE_TEST_SUITE_P(Tunnels, Events,
                         testing::Values(Pair{Protocol::kHttp1, Protocol::kHttp1},
                                         Pair{Protocol::kHttp1, Protocol::kHttp2},
                                         Pair{Protocol::kHttp2, Protocol::kHttp1},
                                         Pair{Protocol::kHttp2, Protocol::kHttp2}),
                         [](const auto& tested) {
                           return std::string(name_of(tested.param.downstream)) + "To" +
                                  std::string(name_of(tested.param.upstream));
                         });

}  // namespace
}  // namespace outrider::test
