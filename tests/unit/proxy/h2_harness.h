// What the HTTP/2 tests share: a wire in memory with a clock of its own, frames written and read by
// hand, and sinks that note what they are told. No socket, no time but the test's.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proxy/codec.h"

namespace outrider::h2test {

using Fields = std::vector<std::pair<std::string, std::string>>;

inline Slabs& slabs() {
  static Slabs pool;
  return pool;
}
inline BlockPool& blocks() {
  static BlockPool pool(256);  // small, so that arenas grow all the time
  return pool;
}

class MemoryWire final : public Wire {
 public:
  MemoryWire() : Wire(slabs()) {}
  void wake() override { woken = true; }
  void write_through(std::string_view) override { FAIL(); }
  void hold_reading(bool) override {}
  void shutdown() override {}
  void close(Close how) override {
    EXPECT_FALSE(closed) << "closed twice";
    closed = true;
    close_how = how;
  }
  std::uint64_t now_ms() const override { return now; }

  // What a turn of the loop does: pump, then write everything (or up to `most` bytes).
  std::string turn(Codec& codec, std::size_t most = SIZE_MAX) {
    std::string written;
    for (int rounds = 0; rounds < 10'000; ++rounds) {
      const bool flushes = std::exchange(woken, false);
      if (flushes && !closed) codec.pump();
      const std::size_t before = written.size();
      iovec piece;
      while (written.size() < most && out.peek(&piece, 1) == 1) {
        const std::size_t part = std::min(piece.iov_len, most - written.size());
        written.append(static_cast<const char*>(piece.iov_base), part);
        out.drop(part);
      }
      if ((flushes || written.size() != before) && !closed) codec.on_flushed();
      if (!woken && (out.empty() || written.size() >= most)) break;
    }
    return written;
  }

  std::uint64_t now = 1'000'000;
  bool woken = false;
  bool closed = false;
  Close close_how = Close::kFlush;
};

// --- Frames

struct Frame {
  std::uint8_t type = 0;
  std::uint8_t flags = 0;
  std::uint32_t stream = 0;
  std::string payload;
  bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
  std::uint32_t number(std::size_t at) const {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
      value = value << 8 | static_cast<std::uint8_t>(payload.at(at + i));
    return value;
  }
};

inline std::string number(std::uint32_t value, int bytes = 4) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i));
  return text;
}

inline std::string frame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                         std::string_view payload = {}) {
  return number(static_cast<std::uint32_t>(payload.size()), 3) + static_cast<char>(type) +
         static_cast<char>(flags) + number(stream) + std::string(payload);
}

constexpr std::uint8_t kEnd = NGHTTP2_FLAG_END_STREAM;
constexpr std::uint8_t kEndHeaders = NGHTTP2_FLAG_END_HEADERS;

inline std::string hpack_string(std::string_view text) {
  std::string coded;
  std::size_t left = text.size();
  if (left < 127) {
    coded += static_cast<char>(left);
  } else {
    coded += static_cast<char>(127);
    for (left -= 127; left >= 128; left /= 128) coded += static_cast<char>(left % 128 + 128);
    coded += static_cast<char>(left);
  }
  return coded + std::string(text);
}
// Literals without indexing, nothing compressed: anything at all can be said.
inline std::string hpack(const Fields& fields) {
  std::string block;
  for (const auto& [name, value] : fields) block += '\0' + hpack_string(name) + hpack_string(value);
  return block;
}
inline std::string headers(std::uint32_t stream, const Fields& fields, bool last) {
  return frame(NGHTTP2_HEADERS, static_cast<std::uint8_t>(kEndHeaders | (last ? kEnd : 0)), stream,
               hpack(fields));
}
inline std::string data(std::uint32_t stream, std::string_view bytes, bool last) {
  return frame(NGHTTP2_DATA, last ? kEnd : 0, stream, bytes);
}
inline std::string rst(std::uint32_t stream, std::uint32_t code = NGHTTP2_CANCEL) {
  return frame(NGHTTP2_RST_STREAM, 0, stream, number(code));
}
inline std::string window_update(std::uint32_t stream, std::uint32_t size) {
  return frame(NGHTTP2_WINDOW_UPDATE, 0, stream, number(size));
}
inline std::string settings(
    const std::vector<std::pair<std::uint32_t, std::uint32_t>>& values = {}) {
  std::string payload;
  for (const auto& [id, value] : values) payload += number(id, 2) + number(value);
  return frame(NGHTTP2_SETTINGS, 0, 0, payload);
}
inline std::string preface() {
  return NGHTTP2_CLIENT_MAGIC + settings() + frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0);
}
inline Fields get(std::string_view path = "/") {
  return {{":method", "GET"},
          {":scheme", "http"},
          {":authority", "shop.example"},
          {":path", std::string(path)}};
}
inline Fields with(Fields fields, const Fields& more) {
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

// Reads what a codec wrote; decodes header blocks in order, as a peer must.
class FrameReader {
 public:
  FrameReader() { nghttp2_hd_inflate_new(&inflater_); }
  ~FrameReader() { nghttp2_hd_inflate_del(inflater_); }
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;

  std::vector<Frame> read(std::string_view bytes) {
    buffer_ += bytes;
    std::vector<Frame> frames;
    if (std::string_view(buffer_).starts_with(NGHTTP2_CLIENT_MAGIC))
      buffer_.erase(0, NGHTTP2_CLIENT_MAGIC_LEN);
    while (buffer_.size() >= 9) {
      const auto byte = [this](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<std::uint8_t>(buffer_[i]));
      };
      const std::size_t length = byte(0) << 16 | byte(1) << 8 | byte(2);
      if (buffer_.size() < 9 + length) break;
      frames.push_back({static_cast<std::uint8_t>(buffer_[3]),
                        static_cast<std::uint8_t>(buffer_[4]),
                        (byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8)) & 0x7fffffff,
                        buffer_.substr(9, length)});
      buffer_.erase(0, 9 + length);
    }
    return frames;
  }
  Fields decode(std::string_view block) {
    Fields fields;
    auto* at = reinterpret_cast<const std::uint8_t*>(block.data());
    std::size_t left = block.size();
    while (true) {
      nghttp2_nv nv;
      int flags = 0;
      const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &nv, &flags, at, left, 1);
      if (used < 0) {
        ADD_FAILURE() << "bad HPACK";
        break;
      }
      at += used;
      left -= static_cast<std::size_t>(used);
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
        fields.emplace_back(std::string(reinterpret_cast<char*>(nv.name), nv.namelen),
                            std::string(reinterpret_cast<char*>(nv.value), nv.valuelen));
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
    }
    nghttp2_hd_inflate_end_headers(inflater_);
    return fields;
  }
  std::size_t pending() const { return buffer_.size(); }

 private:
  std::string buffer_;
  nghttp2_hd_inflater* inflater_ = nullptr;
};

inline std::string value_of(const Fields& fields, std::string_view name) {
  for (const auto& field : fields)
    if (field.first == name) return field.second;
  return "(none)";
}
inline std::size_t count_of(const Fields& fields, std::string_view name) {
  return static_cast<std::size_t>(std::count_if(
      fields.begin(), fields.end(), [&](const auto& field) { return field.first == name; }));
}
inline Fields copy_of(const Headers& headers) {
  Fields fields;
  for (const Header& header : headers)
    fields.emplace_back(std::string(header.name), std::string(header.value));
  return fields;
}

// --- Sinks

// Notes everything; what it should do at an event is a function that a test may set.
template <class Sink, class Head>
struct Noting : Sink {
  std::unique_ptr<Arena> arena = std::make_unique<Arena>(blocks());
  Head message{*arena};
  CodecStream* stream = nullptr;  // null once it has ended
  std::string body;
  Fields fields, trailers;
  std::string detail;
  Error error;
  int heads = 0, resets = 0, sent = 0, writable = 0, trailer_blocks = 0;
  int parts_sent = 0;  // for tests that count their own
  bool ended = false;
  bool release_when_whole = true;
  std::function<void()> at_body, at_head, at_end, at_sent, at_writable, at_reset;

  void run(const std::function<void()>& what) {
    if (what) what();
  }
  void whole() {
    if (release_when_whole && ended && sent != 0 && stream != nullptr)
      std::exchange(stream, nullptr)->release();
  }
  void end() {
    EXPECT_FALSE(ended);
    ended = true;
    run(at_end);
    whole();
  }
  Head& head() override { return message; }
  void on_head(bool last) override {
    EXPECT_NE(stream, nullptr);
    ++heads;
    fields = copy_of(message.headers);
    run(at_head);
    if (last) end();
  }
  void on_body(std::string_view bytes, bool last) override {
    EXPECT_NE(stream, nullptr);
    EXPECT_FALSE(ended);
    body += bytes;
    run(at_body);
    if (last) end();
  }
  void on_trailers(Headers& headers) override {
    EXPECT_NE(stream, nullptr);
    ++trailer_blocks;
    trailers = copy_of(headers);
    end();
  }
  void on_reset(const Error& why, std::string_view words) override {
    EXPECT_NE(stream, nullptr) << "told after the end: " << words;
    ++resets;
    stream = nullptr;
    error = why;
    detail = words;
    run(at_reset);
  }
  void on_writable() override {
    ++writable;
    run(at_writable);
  }
  void on_sent() override {
    EXPECT_EQ(sent, 0);
    ++sent;
    run(at_sent);
    whole();
  }
};

struct Request final : Noting<RequestSink, RequestHead> {
  BadRequest bad;
  int bads = 0;
  std::function<void()> at_bad;
  std::unique_ptr<ResponseHead> response = std::make_unique<ResponseHead>(*arena);
  void on_bad(const BadRequest& what) override {
    EXPECT_NE(stream, nullptr);
    bad = what;
    ++bads;
    run(at_bad);
  }
  ResponseHead& answer_head(int status, const Fields& more = {}) {
    response->status = status;
    for (const auto& [name, value] : more)
      response->headers.add(header_id(name), arena->copy(name), arena->copy(value));
    return *response;
  }
  void answer(int status, std::string_view text, const Fields& more = {}) {
    stream->send_response(answer_head(status, more), text.empty());
    if (!text.empty() && stream != nullptr) stream->send_body(text, true);
  }
};

struct Response final : Noting<ResponseSink, ResponseHead> {
  std::vector<int> interims;
  void on_interim() override {
    EXPECT_NE(stream, nullptr);
    interims.push_back(message.status);
  }
};

// --- Codecs with their surroundings

class Server final : public ServerEvents {
 public:
  explicit Server(const CodecSettings& settings = {})
      : codec(make_h2_server(wire, *this, settings)) {}
  ~Server() {
    codec->on_broken();
    for (Request& request : requests)
      EXPECT_TRUE(request.stream == nullptr) << "a stream was left open";
  }
  RequestSink* on_stream(CodecStream& stream) override {
    if (refuse) return nullptr;
    requests.emplace_back();
    requests.back().stream = &stream;
    if (at_stream) at_stream(requests.back());
    return &requests.back();
  }
  void on_abuse(Reason reason, std::string_view words) override {
    ++abuses;
    abuse_reason = reason;
    abuse = words;
  }
  void feed(std::string_view bytes) {
    if (!wire.closed) codec->feed(bytes);
  }
  // Feeds, lets a turn pass, and keeps what came out.
  std::vector<Frame> exchange(std::string_view bytes) {
    feed(bytes);
    return turn();
  }
  std::vector<Frame> turn(std::size_t most = SIZE_MAX) {
    std::vector<Frame> frames = reader.read(wire.turn(*codec, most));
    all.insert(all.end(), frames.begin(), frames.end());
    return frames;
  }
  Request& last() { return requests.back(); }
  Request& nth(std::size_t n) {
    return *std::next(requests.begin(), static_cast<std::ptrdiff_t>(n));
  }
  std::size_t count(std::uint8_t type, std::uint32_t code) const {
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const Frame& frame) {
      return frame.type == type && frame.number(type == NGHTTP2_GOAWAY ? 4 : 0) == code;
    }));
  }
  std::size_t resets(std::uint32_t code) const { return count(NGHTTP2_RST_STREAM, code); }
  std::size_t goaways(std::uint32_t code) const { return count(NGHTTP2_GOAWAY, code); }

  MemoryWire wire;
  std::list<Request> requests;
  std::function<void(Request&)> at_stream;
  std::vector<Frame> all;
  FrameReader reader;
  int abuses = 0;
  Reason abuse_reason{};
  std::string abuse;
  bool refuse = false;
  std::unique_ptr<Codec> codec;
};

inline void answering(Server& server, int status = 200, const std::string& text = "hello") {
  server.at_stream = [status, text](Request& request) {
    request.at_end = [&request, status, text] { request.answer(status, text); };
  };
}

class Client final : public ClientEvents {
 public:
  explicit Client(const CodecSettings& settings = {})
      : codec(make_h2_client(wire, *this, settings)) {}
  ~Client() {
    codec->on_broken();
    for (Response& response : responses)
      EXPECT_TRUE(response.stream == nullptr) << "a stream was left open";
  }
  void on_capacity() override {
    ++capacity_changes;
    if (at_capacity) at_capacity();
  }
  Response* open() {
    responses.emplace_back();
    responses.back().stream = codec->open(responses.back());
    if (responses.back().stream != nullptr) return &responses.back();
    responses.pop_back();
    return nullptr;
  }
  RequestHead& request(std::string_view method, std::string_view path, const Fields& more = {}) {
    heads.push_back(std::make_unique<RequestHead>(arena));
    RequestHead& head = *heads.back();
    head.method_text = arena.copy(method);
    head.method = method_of(head.method_text);
    head.scheme = "http";
    head.authority = "shop.example";
    head.target = arena.copy(path);
    for (const auto& [name, value] : more)
      head.headers.add(header_id(name), arena.copy(name), arena.copy(value));
    return head;
  }
  Response& send(std::string_view method, std::string_view path, bool last = true,
                 const Fields& more = {}) {
    Response* const response = open();
    EXPECT_NE(response, nullptr);
    response->stream->send_request(request(method, path, more), last);
    return *response;
  }
  // What waits goes out; then the bytes come in.
  std::vector<Frame> exchange(std::string_view bytes) {
    turn();
    if (!wire.closed) codec->feed(bytes);
    return turn();
  }
  std::vector<Frame> turn() {
    std::vector<Frame> frames = reader.read(wire.turn(*codec));
    all.insert(all.end(), frames.begin(), frames.end());
    return frames;
  }
  std::size_t count(std::uint8_t type, std::uint32_t code) const {
    return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const Frame& frame) {
      return frame.type == type && frame.number(type == NGHTTP2_GOAWAY ? 4 : 0) == code;
    }));
  }

  MemoryWire wire;
  Arena arena{blocks()};
  std::vector<std::unique_ptr<RequestHead>> heads;
  std::list<Response> responses;
  std::vector<Frame> all;
  FrameReader reader;
  int capacity_changes = 0;
  std::function<void()> at_capacity;
  std::unique_ptr<Codec> codec;
};

// Client and server codec, each the other's peer.
struct Pair {
  Server server;
  Client client;
  // Until nothing moves; `most` bytes a step and direction.
  void run(std::size_t most = SIZE_MAX) {
    for (int quiet = 0; quiet < 2;) {
      const std::string up = client.wire.turn(*client.codec, most);
      if (!up.empty()) server.feed(up);
      const std::string down = server.wire.turn(*server.codec, most);
      if (!down.empty() && !client.wire.closed) client.codec->feed(down);
      quiet = up.empty() && down.empty() ? quiet + 1 : 0;
    }
  }
};

}  // namespace outrider::h2test
