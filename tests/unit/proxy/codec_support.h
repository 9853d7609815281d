// A connection and owners of exchanges for codec tests, without a socket: FakeWire keeps what was
// written, the recorders write down every event as one line, so that two runs compare as texts.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/codec.h"

namespace outrider::test {

struct SlabHolder {
  Slabs slab_pool;
};

class FakeWire final : private SlabHolder, public Wire {
 public:
  FakeWire() : Wire(slab_pool) {}

  // One turn of the loop, repeated while anybody asks for another.
  void turn(Codec& codec) {
    for (int i = 0; i < 1000 && woken; ++i) {
      woken = false;
      if (!closed) codec.pump();
      flush();
      if (!closed) codec.on_flushed();
    }
  }
  void flush() {
    const std::size_t part = std::min(takes, out.size());
    iovec vectors[64];
    std::size_t left = part;
    const int count = out.peek(vectors, 64);
    for (int i = 0; i < count && left > 0; ++i) {
      const std::size_t here = std::min(left, vectors[i].iov_len);
      sent.append(static_cast<const char*>(vectors[i].iov_base), here);
      left -= here;
    }
    out.drop(part - left);
    takes -= part - left;
    if (left > 0) flush();
  }
  std::string take_sent() { return std::exchange(sent, {}); }

  void wake() override {
    woken = true;
    patient = false;
  }
  void wake_soon() override {
    patient = !woken;
    woken = true;
  }
  void write_through(std::string_view bytes) override {
    ++written_through;
    flush();
    const std::size_t part = out.empty() ? std::min(takes, bytes.size()) : 0;
    sent.append(bytes.substr(0, part));
    takes -= part;
    out.append(bytes.substr(part));
    wake();
  }
  void hold_reading(bool hold) override { held = hold; }
  void shutdown() override {
    shut = true;
    wake();
  }
  void close(Close how) override {
    if (!closed) closed = how;
    wake();
  }
  std::uint64_t now_ms() const override { return 0; }

  std::string sent;
  std::size_t takes = SIZE_MAX;  // bytes that the socket takes before it is full
  std::optional<Close> closed;
  int written_through = 0;
  bool woken = false;
  bool patient = false;  // what woke it can wait for more
  bool held = false;
  bool shut = false;
};

inline std::string text_of(const Headers& headers) {
  std::string text;
  for (const Header& header : headers)
    text.append(header.name).append(": ").append(header.value).append("\n");
  return text;
}

inline std::string text_of(const RequestHead& head) {
  std::string text = std::string(head.method_text) + " " + std::string(head.target) + " " +
                     std::string(to_string(head.version)) + " @" + std::string(head.authority);
  if (!head.upgrade.empty()) text += " upgrade=" + std::string(head.upgrade);
  if (head.content_length) text += " length=" + std::to_string(*head.content_length);
  if (head.expects_continue) text += " expects";
  if (head.te_trailers) text += " te";
  return text + "\n" + text_of(head.headers);
}

inline std::string text_of(const ResponseHead& head) {
  std::string text = std::to_string(head.status) + " " + std::string(head.reason);
  if (head.content_length) text += " length=" + std::to_string(*head.content_length);
  return text + "\n" + text_of(head.headers);
}

// What both kinds of owner write down.
struct Record {
  std::string head;
  std::string body;
  std::string trailers;
  std::string reset;  // the reason's word
  std::string reset_detail;
  Error error;  // of the reset
  bool repeatable = false;
  bool whole = false;
  int writable = 0;
  int sent = 0;
  bool over = false;  // released or reset: no event may follow

  void take(std::string_view bytes, bool last) {
    EXPECT_FALSE(over || whole) << "body after the end";
    body += bytes;
    whole = last;
  }
  void take(Headers& fields) {
    EXPECT_FALSE(over || whole) << "trailers after the end";
    trailers = text_of(fields);
    whole = true;
  }
  void end(const Error& why, std::string_view detail) {
    EXPECT_FALSE(over);
    over = true;
    error = why;
    reset = info(why.reason).word;
    reset_detail = detail;
    repeatable = why.repeatable;
  }
  std::string text() const {
    return head + "[" + body + "]" + (whole ? " whole" : "") +
           (trailers.empty() ? "" : "\n" + trailers) + (reset.empty() ? "" : " reset=" + reset) +
           "\n";
  }
};

class FakeClients;

class RequestOwner final : public RequestSink, public Record {
 public:
  RequestOwner(FakeClients& owner, CodecStream& codec_stream)
      : clients(owner), stream(codec_stream) {}
  RequestHead& head() override { return request; }
  void on_head(bool last) override;
  void on_bad(const BadRequest& problem) override;
  void on_body(std::string_view bytes, bool last) override;
  void on_trailers(Headers& fields) override;
  void on_reset(const Error& why, std::string_view detail) override { end(why, detail); }
  void on_writable() override { ++writable; }
  void on_sent() override;

  FakeClients& clients;
  CodecStream& stream;
  BlockPool blocks;
  Arena arena{blocks};
  RequestHead request{arena};
  int bad_status = 0;
  std::string bad_detail;
  bool answered = false;
};

// The owner of a server codec. By default it answers each request when it is whole, or at once when
// it is malformed.
class FakeClients final : public ServerEvents {
 public:
  RequestSink* on_stream(CodecStream& stream) override {
    if (refuse_streams) return nullptr;
    requests.push_back(std::make_unique<RequestOwner>(*this, stream));
    return requests.back().get();
  }
  void on_abuse(Reason, std::string_view) override { ++abuses; }
  RequestOwner& last() { return *requests.back(); }
  std::string text() const {
    std::string text;
    for (const auto& request : requests)
      text += request->text() +
              (request->bad_status != 0
                   ? "bad " + std::to_string(request->bad_status) + " " + request->bad_detail + "\n"
                   : "");
    return text;
  }

  std::vector<std::unique_ptr<RequestOwner>> requests;
  std::function<void(RequestOwner&)> on_whole = [](RequestOwner& request) {
    answer(request, 200, "ok");
  };
  std::function<void(RequestOwner&)> on_head;
  bool release_when_sent = true;
  bool refuse_streams = false;
  int abuses = 0;

  static void answer(RequestOwner& request, int status, std::string_view body) {
    if (std::exchange(request.answered, true)) return;
    ResponseHead head(request.arena);
    head.status = status;
    head.content_length = body.size();
    request.stream.send_response(head, body.empty());
    if (!body.empty()) request.stream.send_body(body, true);
  }
};

inline void RequestOwner::on_head(bool last) {
  Record::head = text_of(request);
  if (last) whole = request.upgrade.empty();
  if (clients.on_head) clients.on_head(*this);
  if (last && !over && !answered) clients.on_whole(*this);
}
inline void RequestOwner::on_bad(const BadRequest& problem) {
  EXPECT_FALSE(over);
  bad_status = problem.status != 0 ? problem.status : info(problem.reason).status;
  bad_detail = problem.detail;
  FakeClients::answer(*this, bad_status, "bad");
}
inline void RequestOwner::on_body(std::string_view bytes, bool last) {
  take(bytes, last);
  if (last && !answered) clients.on_whole(*this);
}
inline void RequestOwner::on_trailers(Headers& fields) {
  take(fields);
  if (!answered) clients.on_whole(*this);
}
inline void RequestOwner::on_sent() {
  EXPECT_FALSE(over);
  ++sent;
  if (!clients.release_when_sent) return;
  over = true;
  stream.release();
}

class ResponseOwner final : public ResponseSink, public Record {
 public:
  ResponseHead& head() override { return response; }
  void on_interim() override { interims += text_of(response); }
  void on_head(bool last) override {
    Record::head = text_of(response);
    whole = last;
    if (last) finished();
  }
  void on_body(std::string_view bytes, bool last) override {
    take(bytes, last);
    if (last) finished();
  }
  void on_trailers(Headers& fields) override {
    take(fields);
    finished();
  }
  void on_reset(const Error& why, std::string_view detail) override {
    end(why, detail);
    if (at_reset) at_reset();
  }
  void on_writable() override { ++writable; }
  void on_sent() override { ++sent; }
  void finished() {
    if (!release_when_whole) return;
    over = true;
    stream->release();
    if (at_release) at_release();
  }

  BlockPool blocks;
  Arena arena{blocks};
  ResponseHead response{arena};
  CodecStream* stream = nullptr;
  std::string interims;
  bool release_when_whole = true;
  std::function<void()> at_release, at_reset;  // inside the codec's call
};

class FakePool final : public ClientEvents {
 public:
  void on_capacity() override {}
};

}  // namespace outrider::test
