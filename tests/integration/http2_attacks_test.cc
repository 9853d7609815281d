// HTTP/2 as hostile clients and broken upstreams speak it, frame by frame: what is malformed never
// reaches an upstream whole, floods end their own connection and cost no memory, and whoever else
// is there is served as before.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <future>
#include <mutex>
#include <set>
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

constexpr std::size_t kMebibyte = 1024 * 1024;
constexpr int kEndStream = NGHTTP2_FLAG_END_STREAM;
constexpr int kEndHeaders = NGHTTP2_FLAG_END_HEADERS;

// Sanitizers keep what is freed; figures of memory and time mean something in release alone.
const bool kMeasures = release_build();

std::string data(std::uint32_t stream, std::string_view bytes, bool end = false) {
  return h2_frame(NGHTTP2_DATA, end ? kEndStream : 0, stream, bytes);
}

// A literal that is added to the dynamic table.
std::string indexed_literal(std::string_view name, std::string_view value) {
  std::string block = hpack({{std::string(name), std::string(value)}});
  block[0] = 0x40;
  return block;
}

std::vector<Frame> parse_frames(std::string_view bytes) {
  std::vector<Frame> frames;
  const auto byte = [&](std::size_t at) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at]));
  };
  while (bytes.size() >= 9) {
    const std::size_t size = byte(0) << 16 | byte(1) << 8 | byte(2);
    if (bytes.size() < 9 + size) break;  // cut by the end of the connection
    frames.push_back(
        {.type = static_cast<std::uint8_t>(byte(3)),
         .flags = static_cast<std::uint8_t>(byte(4)),
         .stream = (byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8)) & 0x7FFFFFFF,
         .payload = std::string(bytes.substr(9, size))});
    bytes.remove_prefix(9 + size);
  }
  return frames;
}

struct Ended {
  std::vector<Frame> frames;
  std::uint32_t code = 0xFFFF;  // of the last GOAWAY

  std::size_t count(std::uint8_t type) const {
    return static_cast<std::size_t>(std::count_if(
        frames.begin(), frames.end(), [&](const Frame& frame) { return frame.type == type; }));
  }
};

// Everything up to the connection's end, which must come.
Ended read_to_end(RawClient& raw) {
  Ended ended{parse_frames(raw.read_all())};
  for (const Frame& frame : ended.frames)
    if (frame.type == NGHTTP2_GOAWAY) ended.code = frame.code();
  return ended;
}

// Sends the units one after the other, in large writes, until all are sent or the peer is gone.
void flood(RawClient& raw, int count, const std::function<std::string(int)>& unit) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes += unit(i);
    if (bytes.size() < 32 * 1024 && i + 1 < count) continue;
    if (!raw.try_send(bytes, patience())) return;
    bytes.clear();
  }
}

// What became of one stream: "reset CODE", "status N", or "nothing".
std::string outcome(RawH2& h2, std::uint32_t stream) {
  // The answer to a PING overtakes other frames of its turn; the second one comes behind them.
  std::vector<Frame> frames = h2.barrier();
  for (Frame& frame : h2.barrier()) frames.push_back(std::move(frame));
  std::string seen = "nothing";
  for (const Frame& frame : frames) {
    if (frame.type == NGHTTP2_HEADERS) {
      const std::string status = h2.decode(frame).value(":status");
      if (frame.stream == stream) seen = "status " + status;
    }
    if (frame.type == NGHTTP2_RST_STREAM && frame.stream == stream && seen == "nothing")
      seen = "reset " + std::to_string(frame.code());
  }
  return seen;
}

// An HTTP/1 server that reads one head from each connection and then nothing but its end.
class Hanging {
 public:
  Hanging()
      : origin_([this](RawClient& connection, int) {
          const std::shared_ptr<void> end(nullptr, [this](void*) { ++ended_; });
          connection.read_until("\r\n\r\n");
          connection.read_all();
        }) {}

  const std::string& address() const { return origin_.address(); }
  Origin& origin() { return origin_; }
  // Waits until every request was cancelled, and connections that never carried one are closed.
  void wait_all_ended() const {
    const auto deadline = std::chrono::steady_clock::now() + patience();
    while (ended_ < origin_.connections()) {
      if (std::chrono::steady_clock::now() > deadline)
        throw HarnessError("only " + std::to_string(ended_) + " of " +
                           std::to_string(origin_.connections()) + " connections ended");
      std::this_thread::sleep_for(1ms);
    }
  }

 private:
  std::atomic<int> ended_ = 0;
  Origin origin_;
};

constexpr char kYaml[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { hang: { endpoints: "$HANG", timeouts: { idle: 200ms } } }
    routes:
      - { match: /**, to: hang }
      - { match: /ok, respond: { status: 200, body: fine } })";

class Http2Attacks : public testing::Test {
 protected:
  Http2Attacks() : proxy_(kYaml, {{"HANG", hanging_.address()}}) {
    for (int i = 0; i < 50; ++i) proxy_.client(Protocol::kHttp2).get("/ok");  // warm
    memory_ = proxy_.resident_bytes();
  }

  void expect_service() { EXPECT_EQ(proxy_.client(Protocol::kHttp2).get("/ok").status, 200); }
  void expect_little_memory(std::size_t more = 4 * kMebibyte) {
    if (kMeasures) {
      EXPECT_LT(proxy_.resident_bytes(), memory_ + more);
    }
  }

  Hanging hanging_;
  Outrider proxy_;
  std::size_t memory_ = 0;
};

TEST_F(Http2Attacks, RefusesMalformedHeads) {
  const auto request = [](Fields more) {
    Fields fields = h2_request_fields();
    fields.insert(fields.end(), more.begin(), more.end());
    return fields;
  };
  const auto with = [](std::string_view name, std::string_view value) {
    Fields fields = h2_request_fields();
    for (Field& field : fields)
      if (field.name == name) field.value = value;
    return fields;
  };
  const auto without = [](std::string_view name) {
    Fields fields = h2_request_fields();
    std::erase_if(fields, [&](const Field& field) { return field.name == name; });
    return fields;
  };
  using namespace std::string_literals;
  struct Case {
    std::string name;
    Fields fields;
    std::vector<std::string> outcomes = {"reset 1", "status 400"};
  };
  std::vector<Case> cases = {
      {"no :method", without(":method")},
      {"no :scheme", without(":scheme")},
      {"no :path", without(":path")},
      {"neither :authority nor host", without(":authority"), {"status 400"}},
      {":method twice", request({{":method", "GET"}})},
      {":scheme twice", request({{":scheme", "http"}})},
      {":path twice", request({{":path", "/"}})},
      {":authority twice", request({{":authority", kAuthority}})},
      {"an unknown pseudo field", request({{":foo", "bar"}})},
      {"a response's pseudo field", request({{":status", "200"}})},
      {"host is another", request({{"host", "other.test"}}), {"status 400"}},
      {"host twice", request({{"host", kAuthority}, {"host", "other.test"}})},
      {"CONNECT with a path", with(":method", "CONNECT")},
      {"CONNECT",
       {{":method", "CONNECT"}, {":authority", "outrider.test:80"}},
       {"status 405", "reset 1"}},
      {"TRACE", with(":method", "TRACE"), {"status 405"}},
      {":protocol with GET", request({{":protocol", "websocket"}})},
      {":protocol of another kind",
       {{":method", "CONNECT"},
        {":protocol", "connect-udp"},
        {":scheme", "http"},
        {":path", "/"},
        {":authority", kAuthority}},
       {"status 405", "status 501", "reset 1"}},
      {"te: gzip", request({{"te", "gzip"}})},
      {"te: trailers, gzip", request({{"te", "trailers, gzip"}})},
      {"content-length: x", request({{"content-length", "x"}})},
      {"content-length: -1", request({{"content-length", "-1"}})},
      {"content-length: +0", request({{"content-length", "+0"}})},
      {"content-length: empty", request({{"content-length", ""}})},
      {"content-length: a list", request({{"content-length", "0, 0"}})},
      {"content-length: 40 digits", request({{"content-length", std::string(40, '1')}})},
      {"content-length twice", request({{"content-length", "0"}, {"content-length", "1"}})},
      {"content-length of 5 and no body", request({{"content-length", "5"}})},
      {"101 fields", request(Fields(97 + 4, {"x-many", "1"})), {"status 431"}},
      {"70 KiB", request(Fields(10, {"x-big", std::string(7'000, 'a')})), {"status 431"}},
      {"a method of 33 letters", with(":method", std::string(33, 'A'))},
      {"a target of 9 KiB", with(":path", "/" + std::string(9 * 1024, 'a')), {"status 414"}},
  };
  cases.push_back({"a pseudo field behind others",
                   {{":method", "GET"},
                    {":scheme", "http"},
                    {"accept", "*/*"},
                    {":path", "/"},
                    {":authority", kAuthority}}});
  for (const std::string& name : {"X-Upper"s, "x y"s, "x:y"s, ""s, "x\0y"s, "x\ry"s, "x\ny"s,
                                  "x\x7F"s, "x\xC3\xA4"s, "x("s, "\"x\""s, "x\t"s, " x"s})
    cases.push_back({"the name '" + name + "'", request({{name, "value"}})});
  for (const std::string& value :
       {"a\rb"s, "a\nb"s, "a\0b"s, "a\r\nx: y"s, " a"s, "a "s, "\ta"s, "a\t"s, "a\x01"s, "a\x7F"s})
    cases.push_back({"the value '" + value + "'", request({{"x-value", value}})});
  for (const char* name :
       {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
    cases.push_back({name, request({{name, "x"}})});
  for (const std::string& path :
       {""s, "a"s, "/a b"s, "/a\r\nx: y"s, "/a\0b"s, "http://evil.test/"s, "*"s, "/a#b"s, "/\x7F"s,
        "/a HTTP/1.1\r\nHost: evil.test\r\n\r\n"s, "/%00"s, "/%zz"s, "/a\\b"s, "/../a"s})
    cases.push_back({"the path '" + path + "'", with(":path", path)});
  for (const std::string& method :
       {""s, "GE T"s, "GET / HTTP/1.1\r\nx: y"s, "G\r\n"s, "G\0T"s, "G(T"s, "GET "s})
    cases.push_back({"the method '" + method + "'", with(":method", method)});
  for (const std::string& scheme : {""s, "ht tp"s, "http\r\n"s, "http://evil.test/"s, "*"s})
    cases.push_back({"the scheme '" + scheme + "'", with(":scheme", scheme)});
  for (const std::string& authority :
       {""s, "a@outrider.test"s, "a b"s, "a/b"s, "a?b"s, "a#b"s, "a\\b"s, "a:b"s, "a:99999"s,
        "[::1"s, "a\r\nx: y"s, "a\0b"s, "a,b"s, "a\x7F"s})
    cases.push_back({"the authority '" + authority + "'", with(":authority", authority)});

  int sent = 0;
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    RawH2 h2(proxy_.address());
    const std::string block = hpack(tested.fields);
    // Larger blocks than a frame go on in CONTINUATION.
    for (std::size_t at = 0; at == 0 || at < block.size(); at += 16'384) {
      const bool last = at + 16'384 >= block.size();
      const int flags = (at == 0 ? kEndStream : 0) | (last ? kEndHeaders : 0);
      h2.send(h2_frame(at == 0 ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION,
                       static_cast<std::uint8_t>(flags), 1, block.substr(at, 16'384)));
    }
    const std::string seen = outcome(h2, 1);
    EXPECT_NE(std::find(tested.outcomes.begin(), tested.outcomes.end(), seen),
              tested.outcomes.end())
        << seen;
    // The connection is as good as before.
    h2.send(h2_headers(3, h2_request_fields("GET", "/ok")));
    EXPECT_EQ(outcome(h2, 3), "status 200");
    ++sent;
  }
  EXPECT_EQ(hanging_.origin().connections(), 0);
  EXPECT_GT(sent, 90);
}

TEST_F(Http2Attacks, TakesHostForAuthorityAndEqualOnes) {
  HttpOrigin echo = HttpOrigin::echoing();
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { echo: "$ECHO" }
    routes: [{ to: echo }])",
                 {{"ECHO", echo.address()}});
  RawH2 h2(proxy.address());
  h2.send(h2_headers(
      1, {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", kAuthority}}));
  Fields answer = h2.decode(h2.read_until(NGHTTP2_HEADERS, 1));
  EXPECT_EQ(answer.value(":status"), "200");
  EXPECT_EQ(answer.value("x-authority"), kAuthority);
  Fields both = h2_request_fields();
  both.push_back({"host", kAuthority});
  both.push_back({"te", "trailers"});
  both.push_back({"cookie", "a=1"});
  both.push_back({"cookie", "b=2"});
  h2.send(h2_headers(3, both));
  answer = h2.decode(h2.read_until(NGHTTP2_HEADERS, 3));
  EXPECT_EQ(answer.value(":status"), "200");
  EXPECT_EQ(echo.heads().at(1).fields.count("host"), 1u);
  EXPECT_EQ(echo.heads().at(1).fields.count("cookie"), 1u);
  EXPECT_EQ(echo.heads().at(1).fields.value("cookie"), "a=1; b=2");
}

// A body that does not match its content-length, and trailers that are none: the request that has
// begun upstream is never completed there.
TEST_F(Http2Attacks, AbortsBodiesThatDoNotFit) {
  Fields post = h2_request_fields("POST", "/body");
  const auto head = [&](const char* length) {
    Fields fields = post;
    if (*length != '\0') fields.push_back({"content-length", length});
    return h2_headers(1, fields, false);
  };
  const auto trailers = [](const Fields& fields, bool end = true) {
    return h2_headers(1, fields, end);
  };
  struct Case {
    const char* name;
    std::string frames;
    std::string complete;  // what the upstream would have got of a whole request's end
  };
  const Case cases[] = {
      {"less", head("10") + data(1, "12345", true), "1234567890"},
      {"more", head("5") + data(1, "1234567890", true), "12345"},
      {"an end without a byte", head("5") + data(1, "", true), "12345"},
      {"less before trailers", head("10") + data(1, "12345") + trailers({{"x-sum", "1"}}),
       "1234567890"},
      {"a pseudo field in trailers", head("") + data(1, "12345") + trailers({{":path", "/other"}}),
       "0\r\n"},
      {"an upper-case name in trailers", head("") + data(1, "12345") + trailers({{"X-Sum", "1"}}),
       "0\r\n"},
      {"a line break in trailers", head("") + data(1, "12345") + trailers({{"x-sum", "1\r\n\r\n"}}),
       "0\r\n"},
      {"trailers that do not end the stream",
       head("") + data(1, "12345") + trailers({{"x-sum", "1"}}, false), "0\r\n"},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    const int before = hanging_.origin().connections();
    RawH2 h2(proxy_.address());
    h2.send(tested.frames);
    EXPECT_EQ(outcome(h2, 1), "reset 1");
    h2.send(h2_headers(3, h2_request_fields("GET", "/ok")));
    EXPECT_EQ(outcome(h2, 3), "status 200");
    // A connection that was made for it ends without the request's end.
    for (int i = before; i < hanging_.origin().connections(); ++i) {
      const std::string received = hanging_.origin().received(i);
      const std::size_t body = received.find("\r\n\r\n");
      if (body != std::string::npos) {
        EXPECT_EQ(received.find(tested.complete, body + 4), std::string::npos) << received;
      }
    }
  }
}

// Also h2spec's; here are the ones that end the connection, with their codes.
TEST_F(Http2Attacks, EndsConnectionsThatBreakTheProtocol) {
  const std::string get = h2_headers(1, h2_request_fields("GET", "/ok"));
  const std::string open = h2_headers(1, h2_request_fields("POST", "/body"), false);
  const std::string block = hpack(h2_request_fields("GET", "/ok"));
  const std::string begun = h2_frame(NGHTTP2_HEADERS, kEndStream, 1, block.substr(0, 8));
  const std::string long_block = hpack({{"x-big", std::string(70'000, 'a')}});
  struct Case {
    const char* name;
    std::string frames;
    std::uint32_t code;
  };
  const Case cases[] = {
      {"HEADERS on stream 0", h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 0, block),
       NGHTTP2_PROTOCOL_ERROR},
      {"an even stream", h2_headers(2, h2_request_fields("GET", "/ok")), NGHTTP2_PROTOCOL_ERROR},
      {"a decreasing id",
       h2_headers(5, h2_request_fields("GET", "/ok")) + h2_headers(3, h2_request_fields()),
       NGHTTP2_PROTOCOL_ERROR},
      {"a lone CONTINUATION", h2_frame(NGHTTP2_CONTINUATION, kEndHeaders, 1, block),
       NGHTTP2_PROTOCOL_ERROR},
      {"a frame within a header block", begun + h2_frame(NGHTTP2_PING, 0, 0, "12345678"),
       NGHTTP2_PROTOCOL_ERROR},
      {"CONTINUATION of another stream",
       begun + h2_frame(NGHTTP2_CONTINUATION, kEndHeaders, 3, block.substr(8)),
       NGHTTP2_PROTOCOL_ERROR},
      {"PUSH_PROMISE", open + h2_frame(NGHTTP2_PUSH_PROMISE, kEndHeaders, 1, h2_u32(2) + block),
       NGHTTP2_PROTOCOL_ERROR},
      {"DATA on stream 0", data(0, "x"), NGHTTP2_PROTOCOL_ERROR},
      {"DATA on an idle stream", data(1, "x"), NGHTTP2_PROTOCOL_ERROR},
      {"RST_STREAM on an idle stream", h2_rst_stream(1, 8), NGHTTP2_PROTOCOL_ERROR},
      {"WINDOW_UPDATE on an idle stream", h2_window_update(1, 1), NGHTTP2_PROTOCOL_ERROR},
      {"PING of 7 bytes", h2_frame(NGHTTP2_PING, 0, 0, "1234567"), NGHTTP2_FRAME_SIZE_ERROR},
      {"PING on a stream", h2_frame(NGHTTP2_PING, 0, 1, "12345678"), NGHTTP2_PROTOCOL_ERROR},
      {"SETTINGS of 5 bytes", h2_frame(NGHTTP2_SETTINGS, 0, 0, "12345"), NGHTTP2_FRAME_SIZE_ERROR},
      {"SETTINGS on a stream", h2_frame(NGHTTP2_SETTINGS, 0, 1), NGHTTP2_PROTOCOL_ERROR},
      {"a SETTINGS acknowledgement with a payload",
       h2_frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, "123456"), NGHTTP2_FRAME_SIZE_ERROR},
      {"RST_STREAM of 3 bytes", open + h2_frame(NGHTTP2_RST_STREAM, 0, 1, "123"),
       NGHTTP2_FRAME_SIZE_ERROR},
      {"WINDOW_UPDATE of 3 bytes", h2_frame(NGHTTP2_WINDOW_UPDATE, 0, 0, "123"),
       NGHTTP2_FRAME_SIZE_ERROR},
      {"padding longer than the frame",
       open + h2_frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, "\x09x"), NGHTTP2_PROTOCOL_ERROR},
      {"ENABLE_PUSH 2", h2_settings({{NGHTTP2_SETTINGS_ENABLE_PUSH, 2}}), NGHTTP2_PROTOCOL_ERROR},
      {"a window of 2^31", h2_settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 31}}),
       NGHTTP2_FLOW_CONTROL_ERROR},
      {"frames of 100 bytes", h2_settings({{NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 100}}),
       NGHTTP2_PROTOCOL_ERROR},
      {"an overflowing window", h2_window_update(0, 0x7FFFFFFF) + h2_window_update(0, 0x7FFFFFFF),
       NGHTTP2_FLOW_CONTROL_ERROR},
      {"an increment of 0", h2_window_update(0, 0), NGHTTP2_PROTOCOL_ERROR},
      {"a field block that cannot be decoded",
       h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 1, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
       NGHTTP2_COMPRESSION_ERROR},
      {"more than two table size updates",
       h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 1, "\x20\x21\x20" + block),
       NGHTTP2_COMPRESSION_ERROR},
      {"a table size update behind a field",
       h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 1, block + "\x20"),
       NGHTTP2_COMPRESSION_ERROR},
      {"a field longer than any block may be",
       h2_frame(NGHTTP2_HEADERS, kEndStream, 1, long_block.substr(0, 16'384)) +
           h2_frame(NGHTTP2_CONTINUATION, kEndHeaders, 1, long_block.substr(16'384, 16'384)),
       NGHTTP2_ENHANCE_YOUR_CALM},
      {"a frame larger than was allowed", open + data(1, std::string(16'385, 'x')),
       NGHTTP2_FRAME_SIZE_ERROR},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    RawH2 h2(proxy_.address());
    h2.raw().try_send(tested.frames, patience());
    EXPECT_EQ(read_to_end(h2.raw()).code, tested.code);
  }
  // Something else than SETTINGS first.
  RawClient raw(proxy_.address());
  raw.try_send(std::string(kH2Preface) + get, patience());
  EXPECT_EQ(read_to_end(raw).code, static_cast<std::uint32_t>(NGHTTP2_PROTOCOL_ERROR));
  expect_service();
  hanging_.wait_all_ended();
}

// Work that the client throws away at once costs the upstream no more than the streams it may have
// open and the resets it may make.
TEST_F(Http2Attacks, StopsRapidResets) {
  const std::string path = "/rapid";
  for (const bool body_open : {false, true}) {
    for (int connection = 0; connection < 3; ++connection) {
      SCOPED_TRACE(body_open ? "with a body" : "without a body");
      const int before = hanging_.origin().connections();
      const double cpu = proxy_.cpu_seconds();
      RawH2 h2(proxy_.address());
      flood(h2.raw(), 20'000, [&](int i) {
        const auto stream = static_cast<std::uint32_t>(2 * i + 1);
        return h2_headers(stream, h2_request_fields(body_open ? "POST" : "GET", path), !body_open) +
               h2_rst_stream(stream, NGHTTP2_CANCEL);
      });
      EXPECT_EQ(read_to_end(h2.raw()).code, static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
      EXPECT_LE(hanging_.origin().connections() - before, 400);
      if (kMeasures) {
        EXPECT_LT(proxy_.cpu_seconds() - cpu, 2);
      }
    }
  }
  hanging_.wait_all_ended();
  expect_service();
  expect_little_memory();
}

TEST_F(Http2Attacks, CountsTheResetsItWasMadeToSend) {
  const auto open = [](std::uint32_t stream, bool end) {
    return h2_headers(stream, h2_request_fields("POST", "/made"), end);
  };
  struct Case {
    const char* name;
    std::function<std::string(std::uint32_t)> unit;
    bool calm;  // only the budget may end it; else any error may
  };
  const Case cases[] = {
      {"WINDOW_UPDATE 0", [&](auto s) { return open(s, false) + h2_window_update(s, 0); }, false},
      {"an overflowing window",
       [&](auto s) { return open(s, false) + h2_window_update(s, 0x7FFFFFFF); }, true},
      {"DATA after the end", [&](auto s) { return open(s, true) + data(s, "x"); }, false},
      {"HEADERS after the end", [&](auto s) { return open(s, true) + open(s, true); }, false},
      {"PRIORITY of 4 bytes",
       [&](auto s) { return open(s, false) + h2_frame(NGHTTP2_PRIORITY, 0, s, "1234"); }, false},
      {"depending on itself",
       [&](auto s) {
         return open(s, false) + h2_frame(NGHTTP2_PRIORITY, 0, s, h2_u32(s) + "\x10");
       },
       false},
      {"malformed requests",
       [](auto s) {
         return h2_headers(s, {{":method", "GET"}, {":path", "/"}});
       },
       true},
      {"a body that does not fit",
       [](auto s) {
         Fields fields = h2_request_fields("POST", "/made");
         fields.push_back({"content-length", "1"});
         return h2_headers(s, fields, false) + data(s, "12");
       },
       true},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    const int before = hanging_.origin().connections();
    const double cpu = proxy_.cpu_seconds();
    RawH2 h2(proxy_.address());
    flood(h2.raw(), 20'000,
          [&](int i) { return tested.unit(static_cast<std::uint32_t>(2 * i + 1)); });
    const Ended ended = read_to_end(h2.raw());
    if (tested.calm) {
      EXPECT_EQ(ended.code, static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
    } else {
      EXPECT_NE(ended.code, 0xFFFFu) << "no GOAWAY";
      EXPECT_NE(ended.code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
    }
    EXPECT_LE(hanging_.origin().connections() - before, 400);
    if (kMeasures) {
      EXPECT_LT(proxy_.cpu_seconds() - cpu, 2);
    }
  }
  hanging_.wait_all_ended();
  expect_service();
  expect_little_memory();
}

TEST_F(Http2Attacks, StopsFloodsOfContinuation) {
  std::string fields;
  for (int i = 0; i < 1600; ++i) fields += hpack({{"x-a", "1234"}});
  fields.resize(16'000);  // whole fields of 10 bytes
  struct Case {
    const char* name;
    int count;
    std::function<std::string(int)> fragment;
  };
  const Case cases[] = {
      {"empty", 100'000, [](int) { return std::string(); }},
      {"of one byte", 200'000,
       [&](int i) { return fields.substr(static_cast<std::size_t>(i) % fields.size(), 1); }},
      {"of 16 KB", 100'000, [&](int) { return fields; }},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    const double cpu = proxy_.cpu_seconds();
    RawH2 h2(proxy_.address());
    h2.send(h2_frame(NGHTTP2_HEADERS, kEndStream, 1, hpack(h2_request_fields())));
    flood(h2.raw(), tested.count,
          [&](int i) { return h2_frame(NGHTTP2_CONTINUATION, 0, 1, tested.fragment(i)); });
    EXPECT_EQ(read_to_end(h2.raw()).code, static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
    if (kMeasures) {
      EXPECT_LT(proxy_.cpu_seconds() - cpu, 1);
    }
    expect_little_memory(kMebibyte);
  }
  EXPECT_EQ(hanging_.origin().connections(), 0);
  expect_service();
}

TEST_F(Http2Attacks, StopsFloodsOfControlFrames) {
  const std::string opened = h2_headers(1, h2_request_fields("POST", "/open"), false);
  std::string many;
  for (std::uint32_t s = 1; s < 100; s += 2)
    many += h2_headers(s, h2_request_fields("POST", "/open"), false);
  const auto toggle = [](int i) {
    return h2_settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, i % 2 == 0 ? 1u : 0x7FFFFFFFu}});
  };
  struct Case {
    const char* name;
    std::string before;
    std::function<std::string(int)> unit;
  };
  const Case cases[] = {
      {"PING", "", [](int) { return h2_frame(NGHTTP2_PING, 0, 0, "12345678"); }},
      {"SETTINGS", "",
       [](int) {
         return h2_settings({{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}});
       }},
      {"empty SETTINGS", "", [](int) { return h2_settings({}); }},
      {"acknowledgements", "", [](int) { return h2_frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0); }},
      {"RST_STREAM on a closed stream", h2_headers(1, h2_request_fields("GET", "/ok")),
       [](int) { return h2_rst_stream(1, NGHTTP2_CANCEL); }},
      {"empty DATA", opened, [](int) { return data(1, ""); }},
      {"windows up and down", many, toggle},
  };
  for (const Case& tested : cases) {
    for (const bool reading : {false, true}) {
      SCOPED_TRACE(std::string(tested.name) + (reading ? ", reading" : ", not reading"));
      const double cpu = proxy_.cpu_seconds();
      RawH2 h2(proxy_.address());
      h2.send(tested.before);
      std::future<Ended> reader;
      if (reading) reader = std::async(std::launch::async, [&] { return read_to_end(h2.raw()); });
      flood(h2.raw(), 100'000, tested.unit);
      const Ended ended = reading ? reader.get() : read_to_end(h2.raw());
      EXPECT_EQ(ended.code, static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
      EXPECT_LE(ended.count(NGHTTP2_PING) + ended.count(NGHTTP2_SETTINGS), 1100u);
      if (kMeasures) {
        EXPECT_LT(proxy_.cpu_seconds() - cpu, 1);
      }
      expect_little_memory();
    }
  }
  hanging_.wait_all_ended();
  expect_service();
}

// Frames that may be many in earnest: they cost nothing, or their connection ends.
TEST_F(Http2Attacks, TakesOrEndsFloodsOfHarmlessFrames) {
  const std::string opened = h2_headers(1, h2_request_fields("POST", "/open"), false);
  struct Case {
    const char* name;
    int count;
    std::function<std::string(int)> unit;
  };
  const Case cases[] = {
      {"PRIORITY", 100'000,
       [](int i) {
         return h2_frame(NGHTTP2_PRIORITY, 0, static_cast<std::uint32_t>(2 * i + 3),
                         h2_u32(0) + "\x10");
       }},
      {"WINDOW_UPDATE", 100'000, [](int) { return h2_window_update(0, 1); }},
      {"WINDOW_UPDATE of a stream", 100'000, [](int) { return h2_window_update(1, 1); }},
      {"unknown frames", 100'000, [](int) { return h2_frame(0xBB, 0xFF, 1, "what?"); }},
      {"DATA of one byte", 60'000, [](int) { return data(1, "x"); }},
      {"DATA of one byte with 255 of padding", 250,
       [](int) {
         return h2_frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1,
                         "\xFF" + std::string("x") + std::string(255, '\0'));
       }},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    const double cpu = proxy_.cpu_seconds();
    RawH2 h2(proxy_.address());
    h2.send(opened);
    flood(h2.raw(), tested.count, tested.unit);
    const bool open = h2.raw().try_send(h2_frame(NGHTTP2_PING, 0, 0, "the last"), patience());
    if (open) {
      // Either its answer, or the end.
      while (!h2.raw().peek(9).empty()) {
        const Frame frame = h2.read();
        if (frame.type == NGHTTP2_GOAWAY) {
          EXPECT_EQ(frame.code(), static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
        }
        if (frame.type == NGHTTP2_PING && frame.payload == "the last") break;
      }
    }
    if (kMeasures) {
      EXPECT_LT(proxy_.cpu_seconds() - cpu, 2);
    }
    expect_little_memory();
  }
  expect_service();
}

TEST_F(Http2Attacks, CountsFieldsAsTheyAreDecoded) {
  const std::string begin = hpack(h2_request_fields());
  for (const char* name : {"x-bomb", "cookie"}) {
    SCOPED_TRACE(name);
    const std::string entry = indexed_literal(name, std::string(4000, 'a'));
    RawH2 some(proxy_.address());
    some.send(h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 1,
                       begin + entry + std::string(20, '\xBE')));
    EXPECT_EQ(outcome(some, 1), "status 431");
    some.send(h2_headers(3, h2_request_fields("GET", "/ok")));
    EXPECT_EQ(outcome(some, 3), "status 200");

    RawH2 many(proxy_.address());
    many.raw().try_send(h2_frame(NGHTTP2_HEADERS, kEndHeaders | kEndStream, 1,
                                 begin + entry + std::string(4000, '\xBE')),
                        patience());
    EXPECT_EQ(read_to_end(many.raw()).code, static_cast<std::uint32_t>(NGHTTP2_ENHANCE_YOUR_CALM));
    expect_little_memory(kMebibyte);
  }
  EXPECT_EQ(hanging_.origin().connections(), 0);
}

TEST_F(Http2Attacks, RefusesStreamsAboveTheLimit) {
  RawH2 h2(proxy_.address());
  std::string all;
  for (std::uint32_t i = 0; i < 300; ++i)
    all += h2_headers(2 * i + 1, h2_request_fields("GET", "/hang"));
  h2.send(all);
  const Frame settings = h2.read_until(NGHTTP2_SETTINGS);
  EXPECT_NE(settings.payload.find(h2_u32(100)), std::string::npos);
  std::set<std::uint32_t> refused;
  while (refused.size() < 200) {
    const Frame frame = h2.read();
    if (frame.type == NGHTTP2_RST_STREAM) {
      EXPECT_EQ(frame.code(), static_cast<std::uint32_t>(NGHTTP2_REFUSED_STREAM));
      refused.insert(frame.stream);
    }
    ASSERT_NE(frame.type, NGHTTP2_GOAWAY);
  }
  EXPECT_EQ(*refused.begin(), 201u);
  hanging_.origin().wait_connections(100);
  h2.barrier();
  EXPECT_EQ(hanging_.origin().connections(), 100);
}

// All that a client had open when it goes is given up, upstream too.
TEST_F(Http2Attacks, CancelsAllStreamsOfAConnectionThatIsReset) {
  std::mutex mutex;
  std::condition_variable changed;
  int began = 0;
  int ended = 0;
  HttpOrigin two([&](Stream& stream, const Head&) {
    {
      const std::lock_guard lock(mutex);
      ++began;
      changed.notify_all();
    }
    try {
      stream.read_body();
    } catch (const HarnessError&) {
      const std::lock_guard lock(mutex);
      ++ended;
      changed.notify_all();
    }
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      one: { endpoints: "$ONE", timeouts: { idle: 200ms } }
      two: "h2c://$TWO"
    routes:
      - { match: /one, to: one }
      - { match: /two, to: two })",
                 {{"ONE", hanging_.address()}, {"TWO", two.address()}});
  std::size_t descriptors = 0;
  std::size_t memory = 0;
  for (int i = 0; i < 20; ++i) {
    RawH2 h2(proxy.address());
    const bool to_one = i % 2 == 0;
    std::string all;
    for (std::uint32_t s = 0; s < 100; ++s)
      all += h2_headers(2 * s + 1, h2_request_fields("POST", to_one ? "/one" : "/two"), false);
    h2.send(all);
    if (to_one) {
      hanging_.origin().wait_connections(50 * i + 100);
      h2.raw().reset();
      hanging_.wait_all_ended();
    } else {
      std::unique_lock lock(mutex);
      const int expected = 50 * (i - 1) + 100;
      ASSERT_TRUE(changed.wait_for(lock, patience(), [&] { return began >= expected; })) << began;
      lock.unlock();
      h2.raw().reset();
      lock.lock();
      ASSERT_TRUE(changed.wait_for(lock, patience(), [&] { return ended >= expected; })) << ended;
    }
    EXPECT_EQ(proxy.log(static_cast<std::size_t>(100 * i + 100)).back().at("reason"),
              "client_closed");
    if (i == 3) {
      descriptors = proxy.descriptors();
      memory = proxy.resident_bytes();
    }
  }
  EXPECT_LE(proxy.descriptors(), descriptors + 4);
  if (kMeasures) {
    EXPECT_LT(proxy.resident_bytes(), memory + 2 * kMebibyte);
  }
}

// Windows that never open, and a socket that is never read: what is waiting stays with the
// upstream, and ends with the listener's stall.
TEST_F(Http2Attacks, BuffersLittleForClientsThatDoNotRead) {
  constexpr std::size_t kBody = 2 * kMebibyte;
  HttpOrigin big([](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-length", std::to_string(kBody)}}}, false);
    Pattern pattern(1);
    write_pattern(stream, pattern, kBody);
    stream.finish();
  });
  for (const char* scheme : {"http://", "h2c://"}) {
    SCOPED_TRACE(scheme);
    Outrider proxy(R"(
    outrider: v1
    listeners: { main: { address: "127.0.0.1:0", timeouts: { stall: 1s } } }
    services: { big: "$BIG" }
    routes: [{ match: /big, to: big }, { match: /ok, respond: 204 }])",
                   {{"BIG", scheme + big.address()}});
    ASSERT_EQ(proxy.client().get("/big").body.size(), kBody);
    const std::size_t before = proxy.resident_bytes();
    std::atomic<bool> over = false;
    auto peak = std::async(std::launch::async, [&] {
      std::size_t most = 0;
      for (; !over; std::this_thread::sleep_for(5ms)) most = std::max(most, proxy.resident_bytes());
      return most;
    });
    const std::shared_ptr<void> ends(nullptr, [&](void*) { over = true; });

    {
      RawH2 closed(proxy.address(), {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}});
      std::string all;
      for (std::uint32_t i = 0; i < 100; ++i)
        all += h2_headers(2 * i + 1, h2_request_fields("GET", "/big"));
      closed.send(all);
      int resets = 0;  // on a slow machine before the last head has come
      for (int heads = 0; heads < 100;) {
        const std::uint8_t type = closed.read().type;
        if (type == NGHTTP2_HEADERS) ++heads;
        if (type == NGHTTP2_RST_STREAM) ++resets;
      }
      std::string updates;
      for (std::uint32_t i = 0; i < 100; ++i) updates += h2_window_update(2 * i + 1, 1);
      closed.send(updates);
      std::size_t bytes = 0;
      while (resets < 100) {
        const Frame frame = closed.read();
        if (frame.type == NGHTTP2_DATA) bytes += frame.payload.size();
        if (frame.type != NGHTTP2_RST_STREAM) continue;
        EXPECT_EQ(frame.code(), static_cast<std::uint32_t>(NGHTTP2_CANCEL));
        ++resets;
      }
      EXPECT_LE(bytes, 100u);
      EXPECT_EQ(proxy.log(101).back().at("reason"), "client_timeout");
    }
    {
      RawH2 deaf(proxy.address(), {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0x7FFFFFFF}});
      std::string all = h2_window_update(0, 0x7FFFFFFF - 65'535);
      for (std::uint32_t i = 0; i < 100; ++i)
        all += h2_headers(2 * i + 1, h2_request_fields("GET", "/big"));
      deaf.send(all);
      proxy.log(201);
      EXPECT_EQ(proxy.client().get("/ok").status, 204);
    }
    over = true;
    const std::size_t most = peak.get();
    if (kMeasures) {
      EXPECT_LT(most, before + 32 * kMebibyte);
    }
  }
}

TEST(Http2Limits, EndsAConnectionAfterItsRequests) {
  Outrider proxy(R"(
    outrider: v1
    listeners: { main: { address: "127.0.0.1:0", limits: { requests: 3 } } }
    routes: [{ match: /ok, respond: { status: 200, body: fine } }])");
  RawH2 h2(proxy.address());
  std::string all;
  for (std::uint32_t s = 1; s < 11; s += 2) all += h2_headers(s, h2_request_fields("GET", "/ok"));
  h2.send(all);
  const Ended ended = read_to_end(h2.raw());
  EXPECT_EQ(ended.code, static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_EQ(ended.count(NGHTTP2_HEADERS), 3u);  // what came behind is ignored, to be sent elsewhere
}

// Upstreams, by hand. The script runs for each connection that the proxy makes.
class FrameOrigin {
 public:
  using Script = std::function<void(RawH2& h2, int number)>;
  using Settings = std::vector<std::pair<std::uint16_t, std::uint32_t>>;

  explicit FrameOrigin(Script script, Settings settings = {})
      : origin_([script = std::move(script), settings = std::move(settings)](RawClient& accepted,
                                                                             int number) {
          RawH2 h2(accepted, settings);
          script(h2, number);
        }) {}

  const std::string& address() const { return origin_.address(); }
  Origin& origin() { return origin_; }

 private:
  Origin origin_;
};

std::string answer(std::uint32_t stream, bool end = true) {
  return h2_headers(stream, {{":status", "200"}}, end);
}

constexpr char kUpstream[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "h2c://$SHOP" }
    routes: [{ to: shop }])";

TEST(Http2Upstream, RetriesWhatWasRefusedOnce) {
  std::atomic<int> seen = 0;
  std::atomic<int> refuse = 0;
  FrameOrigin origin([&](RawH2& h2, int) {
    for (;;) {
      const Frame head = h2.read_until(NGHTTP2_HEADERS);
      ++seen;
      if (refuse-- > 0) {
        h2.send(h2_rst_stream(head.stream, NGHTTP2_REFUSED_STREAM));
      } else {
        h2.send(answer(head.stream));
      }
    }
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  std::size_t lines = 0;
  for (const char* method : {"GET", "POST"}) {
    SCOPED_TRACE(method);
    seen = 0;
    refuse = 1;
    EXPECT_EQ(client.request({.method = method, .body = "x"}).status, 200);
    EXPECT_EQ(seen, 2);
    EXPECT_EQ(proxy.log(++lines).back().at("attempts"), "2");

    seen = 0;
    refuse = 100;
    EXPECT_EQ(client.request({.method = method, .body = "x"}).status, 502);
    EXPECT_EQ(seen, 2);
    EXPECT_EQ(proxy.log(++lines).back().at("reason"), "upstream_reset");
  }
}

TEST(Http2Upstream, SendsAPostOnceWhenItIsReset) {
  std::atomic<int> seen = 0;
  FrameOrigin origin([&](RawH2& h2, int) {
    for (;;) {
      const Frame head = h2.read_until(NGHTTP2_HEADERS);
      ++seen;
      h2.send(h2_rst_stream(head.stream, NGHTTP2_INTERNAL_ERROR));
    }
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  EXPECT_EQ(client.post("/", "once").status, 502);
  EXPECT_EQ(seen, 1);
  EXPECT_EQ(client.get("/").status, 502);
  EXPECT_EQ(seen, 3);
  // Many of them do the connection to the client no harm.
  for (int i = 0; i < 300; ++i) ASSERT_EQ(client.post("/", "once").status, 502);
  EXPECT_EQ(client.connections(), 1);
}

TEST(Http2Upstream, TakesWhatAGoawayLeftUndoneElsewhere) {
  std::atomic<int> answered = 0;
  FrameOrigin origin([&](RawH2& h2, int number) {
    const Frame first = h2.read_until(NGHTTP2_HEADERS);
    if (number == 0) {
      // Nothing of it was processed, says the last stream.
      h2.send(h2_frame(NGHTTP2_GOAWAY, 0, 0, h2_u32(0) + h2_u32(NGHTTP2_NO_ERROR)));
      h2.raw().read_all();
      return;
    }
    // This one is finished here, the next one goes to another connection.
    h2.send(h2_frame(NGHTTP2_GOAWAY, 0, 0, h2_u32(first.stream) + h2_u32(NGHTTP2_NO_ERROR)));
    h2.barrier();
    ++answered;
    h2.send(answer(first.stream));
    h2.raw().read_all();
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}}, {.workers = 1});
  Client client = proxy.client(Protocol::kHttp2);
  EXPECT_EQ(client.post("/", "unprocessed").status, 200);
  EXPECT_EQ(origin.origin().connections(), 2);
  EXPECT_EQ(client.get("/").status, 200);
  EXPECT_EQ(client.post("/", "again").status, 200);
  EXPECT_EQ(origin.origin().connections(), 4);
  EXPECT_EQ(answered, 3);
}

TEST(Http2Upstream, RefusesPushesAndFloods) {
  struct Case {
    const char* name;
    int count;
    std::string (*unit)(std::uint32_t stream, int i);
    std::uint32_t code;
  };
  const Case cases[] = {
      {"PUSH_PROMISE", 1,
       [](std::uint32_t stream, int) {
         return h2_frame(NGHTTP2_PUSH_PROMISE, kEndHeaders, stream,
                         h2_u32(2) + hpack(h2_request_fields()));
       },
       NGHTTP2_PROTOCOL_ERROR},
      {"RST_STREAM on an idle stream", 1,
       [](std::uint32_t, int) { return h2_rst_stream(101, NGHTTP2_CANCEL); },
       NGHTTP2_PROTOCOL_ERROR},
      {"PING", 100'000, [](std::uint32_t, int) { return h2_frame(NGHTTP2_PING, 0, 0, "12345678"); },
       NGHTTP2_ENHANCE_YOUR_CALM},
      {"SETTINGS", 100'000, [](std::uint32_t, int) { return h2_settings({}); },
       NGHTTP2_ENHANCE_YOUR_CALM},
      {"empty DATA", 100'000,
       [](std::uint32_t stream, int i) {
         return i == 0 ? answer(stream, false) : data(stream, "");
       },
       NGHTTP2_ENHANCE_YOUR_CALM},
      {"CONTINUATION", 100'000,
       [](std::uint32_t stream, int i) {
         if (i == 0) return h2_frame(NGHTTP2_HEADERS, 0, stream, hpack({{":status", "200"}}));
         return h2_frame(NGHTTP2_CONTINUATION, 0, stream, hpack({{"x-a", "1234"}}));
       },
       NGHTTP2_ENHANCE_YOUR_CALM},
  };
  for (const Case& tested : cases) {
    SCOPED_TRACE(tested.name);
    std::mutex mutex;
    std::vector<std::uint32_t> codes;
    FrameOrigin origin([&](RawH2& h2, int) {
      const Frame head = h2.read_until(NGHTTP2_HEADERS);
      flood(h2.raw(), tested.count, [&](int i) { return tested.unit(head.stream, i); });
      const std::uint32_t code = read_to_end(h2.raw()).code;
      const std::lock_guard lock(mutex);
      codes.push_back(code);
    });
    Outrider proxy(kUpstream, {{"SHOP", origin.address()}});
    const std::size_t before = proxy.resident_bytes();
    Client client = proxy.client(Protocol::kHttp2);
    const auto stream = client.open();
    stream->send({.method = "POST", .body = "x"});
    // Of what comes in one read the flood is seen before the head.
    int status = 0;
    try {
      status = stream->read_head().status;
      stream->read_body();
      EXPECT_EQ(status, 502) << "a cut body must not look whole";
    } catch (const HarnessError&) {
      EXPECT_STREQ(tested.name, "empty DATA");
      EXPECT_TRUE(status == 200 || status == 0) << status;
    }
    EXPECT_EQ(proxy.log(1).at(0).at("reason"), "upstream_protocol_error");
    if (kMeasures) {
      EXPECT_LT(proxy.resident_bytes(), before + 8 * kMebibyte);
    }
    origin.origin().received(0);  // its script is over
    const std::lock_guard lock(mutex);
    ASSERT_FALSE(codes.empty());
    EXPECT_EQ(codes[0], tested.code);
  }
}

TEST(Http2Upstream, RefusesMalformedResponses) {
  const auto head = [](Fields fields) { return h2_headers(1, fields, true); };
  using namespace std::string_literals;
  const std::pair<const char*, std::string> whole[] = {
      {"no status", head({{"x-a", "b"}})},
      {"a status of letters", head({{":status", "2x0"}})},
      {"a status of two digits", head({{":status", "99"}})},
      {"a status of 600", head({{":status", "600"}})},
      {"two statuses", head({{":status", "200"}, {":status", "200"}})},
      {"a request's pseudo field", head({{":status", "200"}, {":path", "/"}})},
      {"an upper-case name", head({{":status", "200"}, {"X-A", "b"}})},
      {"a space in a name", head({{":status", "200"}, {"x a", "b"}})},
      {"a line break", head({{":status", "200"}, {"x-a", "b\r\nx: y"}})},
      {"a NUL", head({{":status", "200"}, {"x-a", "b\0"s}})},
      {"connection", head({{":status", "200"}, {"connection", "close"}})},
      {"transfer-encoding", head({{":status", "200"}, {"transfer-encoding", "chunked"}})},
      {"101", head({{":status", "101"}})},
      {"an interim end", head({{":status", "103"}})},
      {"two lengths", head({{":status", "200"}, {"content-length", "0"}, {"content-length", "1"}})},
      {"no length", head({{":status", "200"}, {"content-length", "many"}})},
      {"a length without a body", head({{":status", "200"}, {"content-length", "5"}})},
      {"DATA first", data(1, "x", true)},
      {"201 fields", head([] {
         Fields fields(201, {"x-many", "1"});
         fields.insert(fields.begin(), {":status", "200"});
         return fields;
       }())},
      {"11 interim answers",
       [] {
         std::string frames;
         for (int i = 0; i < 11; ++i) frames += h2_headers(1, {{":status", "103"}}, false);
         return frames + answer(1);
       }()},
  };
  const std::string begun = h2_headers(1, {{":status", "200"}, {"content-length", "5"}}, false);
  const std::pair<const char*, std::string> cut[] = {
      {"a body too short", begun + data(1, "123", true)},
      {"a body too long", begun + data(1, "1234567", true)},
      {"a pseudo field in trailers",
       answer(1, false) + data(1, "123") + h2_headers(1, {{":status", "200"}}, true)},
      {"a reset", begun + data(1, "123") + h2_rst_stream(1, NGHTTP2_INTERNAL_ERROR)},
      {"a reset without an error", begun + data(1, "123") + h2_rst_stream(1, NGHTTP2_NO_ERROR)},
  };
  std::mutex mutex;
  std::string frames;
  FrameOrigin origin([&](RawH2& h2, int) {
    h2.read_until(NGHTTP2_DATA);  // the client has sent all of its request
    std::unique_lock lock(mutex);
    const std::string bytes = frames;
    lock.unlock();
    h2.send(bytes);
    // One exchange for each connection.
    h2.send(h2_frame(NGHTTP2_GOAWAY, 0, 0, h2_u32(1) + h2_u32(NGHTTP2_NO_ERROR)));
    h2.raw().read_all();
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}}, {.workers = 1});
  Client client = proxy.client(Protocol::kHttp2);
  std::size_t lines = 0;
  for (const auto& [name, bytes] : whole) {
    SCOPED_TRACE(name);
    {
      const std::lock_guard lock(mutex);
      frames = bytes;
    }
    EXPECT_EQ(client.post("/", "x").status, 502);
    EXPECT_EQ(proxy.log(++lines).back().at("reason"), "upstream_protocol_error");
  }
  for (const auto& [name, bytes] : cut) {
    SCOPED_TRACE(name);
    {
      const std::lock_guard lock(mutex);
      frames = bytes;
    }
    const auto stream = client.h2().open();
    stream->send({.method = "POST", .body = "x"});
    try {
      stream->read_head();
      stream->read_body();
      ADD_FAILURE() << "the body looks whole";
    } catch (const HarnessError&) {
      EXPECT_EQ(stream->wait_end(), static_cast<std::uint32_t>(NGHTTP2_INTERNAL_ERROR));
    }
    proxy.log(++lines);
  }
  EXPECT_EQ(client.connections(), 1);
}

TEST(Http2Upstream, NeverEndsACutResponseInOrder) {
  Origin origin([](RawClient& connection, int) {
    const Request request = connection.read_request();
    if (request.target == "/chunk")
      connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100\r\nhalf a chunk");
    if (request.target == "/chunks")
      connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n");
    if (request.target == "/length")
      connection.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf a body");
    if (request.target == "/bad")
      connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\nxyz\r\n");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes: [{ to: shop }])",
                 {{"SHOP", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  for (const char* path : {"/chunk", "/chunks", "/length", "/bad"}) {
    SCOPED_TRACE(path);
    const auto stream = client.h2().open();
    stream->send({.method = "POST", .target = path, .body = "x"});
    try {
      stream->read_head();
      stream->read_body();
      ADD_FAILURE() << "the body looks whole";
    } catch (const HarnessError&) {
      EXPECT_EQ(stream->wait_end(), static_cast<std::uint32_t>(NGHTTP2_INTERNAL_ERROR));
    }
  }
  EXPECT_EQ(client.connections(), 1);
}

TEST(Http2Upstream, KeepsToTheStreamsItMayOpen) {
  std::atomic<int> together = 0;
  FrameOrigin origin(
      [&](RawH2& h2, int) {
        for (;;) {
          const Frame head = h2.read_until(NGHTTP2_HEADERS);
          for (const Frame& frame : h2.barrier())
            if (frame.type == NGHTTP2_HEADERS) ++together;
          h2.send(answer(head.stream));
        }
      },
      {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1}});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: { endpoints: ["h2c://$SHOP"], limits: { connections: 1, pending_time: 20s } } }
    routes: [{ to: shop }])",
                 {{"SHOP", origin.address()}});
  Client client = proxy.client(Protocol::kHttp2);
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < 20; ++i) {
    streams.push_back(client.open());
    streams.back()->send({.target = "/"});
  }
  for (const auto& stream : streams) EXPECT_EQ(stream->read_head().status, 200);
  EXPECT_EQ(together, 0);
  EXPECT_EQ(origin.origin().connections(), 1);
}

TEST(Http2Upstream, BoundsWhoWaitsForAStream) {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  FrameOrigin origin(
      [&](RawH2& h2, int) {
        {
          std::unique_lock lock(mutex);
          changed.wait_for(lock, patience(), [&] { return open; });
        }
        h2.send(h2_settings({{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 10}}));
        for (;;) h2.send(answer(h2.read_until(NGHTTP2_HEADERS).stream));
      },
      {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0}});
  const auto yaml = [](const char* time) {
    return std::string(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: { endpoints: ["h2c://$SHOP"], limits: { pending: 5, pending_time: )") +
           time + R"( } } }
    routes: [{ to: shop, retry: false }])";
  };
  {
    Outrider proxy(yaml("300ms"), {{"SHOP", origin.address()}}, {.workers = 1});
    Client client = proxy.client(Protocol::kHttp2);
    std::vector<std::shared_ptr<Stream>> streams;
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 10; ++i) {
      streams.push_back(client.open());
      streams.back()->send({.target = "/"});
    }
    for (const auto& stream : streams) EXPECT_EQ(stream->read_head().status, 503);
    EXPECT_GE(std::chrono::steady_clock::now() - began, 300ms);
    for (const auto& line : proxy.log(10)) EXPECT_EQ(line.at("reason"), "limit_pending");
    EXPECT_EQ(
        proxy.await_metric("outrider_limit_refused_total{service='shop',limit='pending'}", 10), 10);
    EXPECT_LE(origin.origin().connections(), 2);
  }
  Outrider proxy(yaml("20s"), {{"SHOP", origin.address()}}, {.workers = 1});
  Client client = proxy.client(Protocol::kHttp2);
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < 5; ++i) {
    streams.push_back(client.open());
    streams.back()->send({.target = "/"});
  }
  client.h2().ping();
  {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
  for (const auto& stream : streams) EXPECT_EQ(stream->read_head().status, 200);
}

// Who was told to speak HTTP/2 and does not, or not as it must begin: said at once, to everybody.
TEST(Http2Upstream, WhoSpeaksAnotherProtocolIsNamed) {
  for (const std::string& hello :
       {std::string("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        h2_settings({{NGHTTP2_SETTINGS_ENABLE_PUSH, 7}})}) {
    SCOPED_TRACE(testing::PrintToString(hello));
    Origin origin([&](RawClient& connection, int) {
      connection.read_exactly(kH2Preface.size());
      connection.send(hello);
      connection.read_all();
    });
    // Whoever waits for the connecting to end waits too long for this test.
    Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      shop: { endpoints: ["$SHOP"], protocol: http2, timeouts: { connect: 10m },
              limits: { pending_time: 10m } }
    routes: [{ to: shop }])",
                   {{"SHOP", origin.address()}});
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2})
      for (int i = 0; i < 2; ++i) {
        const Response response = proxy.client(protocol).get("/");
        EXPECT_EQ(response.status, 502);
        EXPECT_TRUE(response.body.starts_with("502 upstream_protocol_error: ")) << response.body;
      }
    EXPECT_EQ(origin.connections(), 4);
  }
}

// GOAWAY before anything was asked: another connection would be no better.
TEST(Http2Upstream, WhoTurnsEveryConnectionAwayIsNotAskedForEver) {
  FrameOrigin origin([](RawH2& h2, int) {
    h2.send(h2_frame(NGHTTP2_GOAWAY, 0, 0, h2_u32(0) + h2_u32(NGHTTP2_NO_ERROR)));
    h2.raw().read_all();
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}}, {.workers = 1});
  const Response response = proxy.client(Protocol::kHttp2).get("/");
  EXPECT_EQ(response.status, 502);
  EXPECT_TRUE(response.body.starts_with("502 upstream_reset: ")) << response.body;
  EXPECT_LE(origin.origin().connections(), 3);
}

// A kept connection that is lost, or that its GOAWAY ends, as requests arrive on it.
TEST(Http2Upstream, ALostConnectionCostsNoGet) {
  std::atomic<int> doomed = -1;  // the connection to be lost
  std::atomic<int> left = 0;     // with so many requests on it
  std::atomic<bool> politely = false;
  FrameOrigin origin([&](RawH2& h2, int number) {
    for (;;) {
      const Frame head = h2.read_until(NGHTTP2_HEADERS);
      const bool warm = h2.decode(head).value(":path") == "/warm";
      if (warm || number != doomed) {
        h2.send(answer(head.stream));
      } else if (--left == 0) {
        if (!politely) return;
        h2.send(h2_frame(NGHTTP2_GOAWAY, 0, 0, h2_u32(head.stream - 2) + h2_u32(NGHTTP2_NO_ERROR)));
        h2.raw().read_all();
        return;
      }
    }
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "h2c://$SHOP" }
    routes: [{ to: shop, retry: false }])",
                 {{"SHOP", origin.address()}}, {.workers = 1});
  Client client = proxy.client(Protocol::kHttp2);
  const auto doom = [&](int requests) {
    EXPECT_EQ(client.get("/warm").status, 200);
    left = requests;
    doomed = origin.origin().connections() - 1;
  };
  doom(1);
  EXPECT_EQ(client.get("/").status, 200);
  doom(1);
  const Response posted = client.post("/", "once");
  EXPECT_EQ(posted.status, 502);
  EXPECT_TRUE(posted.body.starts_with("502 stale_connection: ")) << posted.body;

  constexpr int kMany = 20;
  doom(kMany);
  const int before = origin.origin().connections();
  std::vector<std::shared_ptr<Stream>> streams;
  for (int i = 0; i < kMany; ++i) {
    streams.push_back(client.open());
    streams.back()->send({.target = "/"});
  }
  for (const auto& stream : streams) EXPECT_EQ(stream->read_head().status, 200);
  EXPECT_LE(origin.origin().connections(), before + 3);

  // Streams above the last one of a GOAWAY were never processed.
  doomed = -1;
  politely = true;
  for (const char* method : {"GET", "POST"}) {
    doom(1);
    const int connections = origin.origin().connections();
    EXPECT_EQ(client.request({.method = method, .body = "x"}).status, 200) << method;
    EXPECT_EQ(origin.origin().connections(), connections + 1);
  }
}

TEST(Http2Upstream, GrpcHearsOfACutInTrailers) {
  FrameOrigin origin([](RawH2& h2, int) {
    const Frame head = h2.read_until(NGHTTP2_HEADERS);
    h2.send(
        h2_headers(head.stream, {{":status", "200"}, {"content-type", "application/grpc"}}, false) +
        data(head.stream, std::string("\0\0\0\0\1a", 6)));
    h2.barrier();
  });
  Outrider proxy(kUpstream, {{"SHOP", origin.address()}});
  const Response response =
      proxy.client(Protocol::kHttp2)
          .request({.method = "POST",
                    .fields = {{"content-type", "application/grpc"}, {"te", "trailers"}},
                    .body = std::string(5, '\0')});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body.size(), 6U);
  EXPECT_EQ(response.trailers.value("grpc-status"), "14");
  EXPECT_FALSE(response.trailers.value("grpc-message").empty());
  const auto line = proxy.log(1).at(0);
  EXPECT_EQ(line.at("status"), "200");
  EXPECT_EQ(line.at("reason"), "upstream_reset");
  // Any other answer that is cut does not end in order.
  EXPECT_THROW(proxy.client(Protocol::kHttp2).post("/", "x"), HarnessError);
}

// Bodies on their way to streams that were answered early are no flood.
TEST(Http2Uploads, InFlightToAnsweredStreamsHarmNobody) {
  constexpr std::uint32_t kUploads = 20;
  std::promise<void> go;
  const auto gone = go.get_future().share();
  Origin origin([gone](RawClient& connection, int) {
    const Head head = connection.read_head();
    if (head.method == "GET") {
      gone.wait_for(patience());
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    } else {
      connection.send("HTTP/1.1 413 Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    connection.read_all();
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { one: "$ORIGIN" }
    routes: [{ to: one }])",
                 {{"ORIGIN", origin.address()}}, {.workers = 1});
  RawH2 h2(proxy.address());
  h2.send(h2_headers(1, h2_request_fields()));
  for (std::uint32_t i = 1; i <= kUploads; ++i)
    h2.send(h2_headers(1 + 2 * i, h2_request_fields("POST"), false));
  proxy.log(kUploads);  // all answered, which the client has not read
  const std::string bytes(1024, 'x');
  for (int round = 0; round < 60; ++round) {
    std::string all;
    for (std::uint32_t i = 1; i <= kUploads; ++i) all += data(1 + 2 * i, bytes);
    h2.send(all);
  }
  go.set_value();
  for (;;) {
    const Frame frame = h2.read();
    ASSERT_NE(frame.type, NGHTTP2_GOAWAY);
    if (frame.type != NGHTTP2_HEADERS) continue;
    const std::string status = h2.decode(frame).value(":status");
    EXPECT_EQ(status, frame.stream == 1 ? "200" : "413");
    if (frame.stream == 1) break;
  }
  EXPECT_EQ(h2.read_until(NGHTTP2_DATA, 1).payload, "ok");
  EXPECT_EQ(proxy.metric("outrider_limit_refused_total"), 0);
}

}  // namespace
}  // namespace outrider::test
