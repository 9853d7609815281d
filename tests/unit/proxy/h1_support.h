// Both HTTP/1 codecs with their owners, and texts of messages to feed them.
#pragma once

#include "tests/unit/proxy/codec_support.h"

namespace outrider::test {

using namespace std::string_literals;
using namespace std::string_view_literals;

// A message in pieces, so that tables of them need no code to run.
struct Bytes {
  std::string_view a, b, c, d;
  operator std::string() const {
    return std::string(a).append(b).append(c).append(d);
  }  // NOLINT: implicit by design
  friend std::string operator+(const Bytes& left, std::string_view right) {
    return std::string(left).append(right);
  }
  friend std::string operator+(std::string_view left, const Bytes& right) {
    return std::string(left).append(std::string(right));
  }
  friend std::string operator+(const Bytes& left, const Bytes& right) {
    return std::string(left) + right;
  }
};

constexpr Bytes raw(std::string_view text) { return {text, {}, {}, {}}; }
constexpr Bytes get(std::string_view fields) {
  return {"GET /a HTTP/1.1\r\nHost: a\r\n", fields, "\r\n", {}};
}
constexpr Bytes post(std::string_view fields, std::string_view body) {
  return {"POST /a HTTP/1.1\r\nHost: a\r\n", fields, "\r\n", body};
}
constexpr Bytes chunked(std::string_view body) {
  return {"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body, {}, {}};
}
constexpr Bytes line(std::string_view request_line) {
  return {request_line, "\r\nHost: a\r\n\r\n", {}, {}};
}
constexpr Bytes host(std::string_view value) {
  return {"GET /a HTTP/1.1\r\nHost: ", value, "\r\n\r\n", {}};
}
constexpr Bytes ok(std::string_view fields, std::string_view body = {}) {
  return {"HTTP/1.1 200 OK\r\n", fields, "\r\n", body};
}
inline const std::string kNext = "GET /next HTTP/1.1\r\nHost: n\r\n\r\n";
inline const std::string kUpgrade =
    "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
    "websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

inline std::string repeated(int times, const std::string& text) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

struct Exchanges {
  FakeWire wire;
  FakeClients clients;
  std::unique_ptr<Codec> codec;

  explicit Exchanges(const CodecSettings& settings = {})
      : codec(make_h1_server(wire, clients, settings)) {}
  void feed(const Bytes& bytes) { feed(std::string_view(std::string(bytes))); }
  void feed(std::string_view bytes) {
    if (!wire.closed) codec->feed(bytes);
    wire.turn(*codec);
  }
  RequestOwner& last() { return clients.last(); }
  std::size_t count() const { return clients.requests.size(); }
  std::string outcome() {
    std::string text = clients.text() + "sent:\n" + wire.sent;
    if (wire.closed) text += "\nclosed";
    return text;
  }
};

inline std::string outcome(std::string_view input, const CodecSettings& settings,
                           std::initializer_list<std::size_t> cuts) {
  Exchanges exchanges(settings);
  std::size_t from = 0;
  for (const std::size_t cut : cuts) {
    exchanges.feed(input.substr(from, cut - from));
    from = cut;
  }
  exchanges.feed(input.substr(from));
  return exchanges.outcome();
}

// The outcome, after it was shown to be the same however the input is cut.
inline std::string outcome_of(const std::string& input, const CodecSettings& settings = {},
                              std::size_t step = 1) {
  const std::string whole = outcome(input, settings, {});
  for (std::size_t cut = 1; cut < input.size(); cut += step)
    EXPECT_EQ(outcome(input, settings, {cut}), whole)
        << "cut at " << cut << " of " << testing::PrintToString(input.substr(0, 300));
  Exchanges bytes(settings);
  for (const char c : input) bytes.feed({&c, 1});
  EXPECT_EQ(bytes.outcome(), whole)
      << "byte by byte: " << testing::PrintToString(input.substr(0, 300));
  return whole;
}

struct Upstream {
  FakeWire wire;
  FakePool pool;
  std::unique_ptr<Codec> codec =
      make_h1_client(wire, pool, {.max_fields = limits::kUpstreamFields});
  ResponseOwner owner;

  // A request that has left.
  explicit Upstream(std::string_view method = "GET", std::string_view upgrade = {}) {
    RequestHead head(owner.arena);
    head.method_text = method;
    head.method = method_of(method);
    head.target = "/";
    head.authority = "a";
    head.upgrade = upgrade;
    owner.stream = codec->open(owner);
    owner.stream->send_request(head, true);
    wire.turn(*codec);
  }
  void feed(const Bytes& bytes) { feed(std::string_view(std::string(bytes))); }
  void feed(std::string_view bytes) {
    if (!wire.closed) codec->feed(bytes);
    wire.turn(*codec);
  }
  void eof() {
    if (!wire.closed) codec->on_eof();
    wire.turn(*codec);
  }
  std::string outcome() {
    return owner.interims + owner.text() + (codec->reusable() ? "reusable" : "") +
           (wire.closed ? " closed" : "");
  }
};

constexpr const char* kProtocol = "upstream_protocol_error";
constexpr const char* kCut = "upstream_reset";

}  // namespace outrider::test
