// HTTP/1 towards upstreams: one exchange at a time. The codec is its own stream.
// Invariant: a connection is used again only when the request was written whole and the response
// ended where it said it would, with nothing behind it; whatever else comes is dropped and the
// connection closes, so no answer can reach the wrong request.
#include <memory>
#include <string>
#include <utility>

#include "proxy/codec.h"
#include "proxy/h1_body.h"
#include "proxy/h1_parser.h"
#include "proxy/h1_write.h"
#include "proxy/websocket.h"

namespace outrider {
namespace {

using h1::BodyReader;
using h1::Fault;
using h1::HeadScanner;
using h1::Outgoing;
using h1::RawHead;

class H1Client final : public Codec, private CodecStream {
 public:
  H1Client(Wire& wire, const CodecSettings& settings) : wire_(wire), limits_(settings) {}

  void feed(std::string_view bytes) override;
  void on_eof() override;
  void on_broken() override;
  void pump() override;
  void on_flushed() override;
  void drain(bool final) override;
  std::uint64_t passable() const override {
    if (sink_ == nullptr) return 0;
    return in_ == In::kTunnel ? UINT64_MAX : in_ == In::kBody ? body_.raw_left() : 0;
  }
  void passed(std::size_t bytes) override;
  bool takes_raw() const override { return sink_ != nullptr && !failed_ && out_.raw(); }
  void sent_past(std::size_t bytes) override { out_.past(bytes); }
  bool in_head() const override { return collector_.has_part() && in_ == In::kHead; }
  bool idle() const override { return sink_ == nullptr && !collector_.has_part(); }
  CodecStream* open(ResponseSink& sink) override;
  std::uint32_t free_streams() const override { return sink_ == nullptr && reusable() ? 1 : 0; }
  bool reusable() const override { return reusable_ && !closed_; }
  Millis keep_alive_hint() const override { return Millis{keep_alive_ms_}; }

 private:
  // The incoming half.
  enum class In : std::uint8_t { kNone, kHead, kBody, kWhole, kTunnel };
  // What a request that asks for another protocol needs until it has an answer.
  struct Upgrade {
    std::string token;
    WebsocketKey key{};
    bool ours =
        false;  // the key is: so the answer to it is checked, and kept from whoever has no key
    std::string early;  // body bytes before the answer
    bool early_end = false;
  };

  void send_request(const RequestHead& head, bool last) override;
  void send_body(std::string_view bytes, bool last) override;
  void send_trailers(const Headers& trailers) override;
  std::size_t queued() const override {
    return wire_.out.size() + (upgrade_ ? upgrade_->early.size() : 0);
  }
  void hold(bool held) override;
  void reset(ResetCode code) override;
  void release() override;

  void prepare_upgrade(const RequestHead& head, h1::Framing& framing);
  void read_head(std::string_view& bytes);
  void begin_response(RawHead raw, std::string_view rest);
  void begin_body(ResponseHead& head, const h1::MessageInfo& info, std::string_view rest);
  void interim(std::size_t head_bytes);
  void switch_protocols(ResponseHead& head, const h1::MessageInfo& info);
  void read_body(std::string_view& bytes);
  void end_with_trailers(RawHead raw, std::string_view rest);
  void response_is_whole(std::string_view rest);
  void unasked_bytes();
  void report();
  void fail();
  void protocol_error(std::string_view detail);
  Error error_of(Reason reason) const;
  void end_stream(Reason reason, std::string_view detail);
  void close(Wire::Close how);

  Wire& wire_;
  const h1::HeadLimits limits_;
  ResponseSink* sink_ = nullptr;
  h1::HeadCollector collector_;
  std::unique_ptr<Upgrade> upgrade_;
  BodyReader body_;
  Outgoing out_;
  std::uint32_t keep_alive_ms_ = 0;
  std::uint32_t interim_bytes_ = 0;
  In in_ = In::kNone;
  std::uint8_t interims_ = 0;
  bool head_request_ = false;
  bool reusable_ = true;
  bool wrote_ = false;  // bytes of the request may have left
  bool holding_ = false;
  bool failed_ = false;
  bool tunnel_ = false;
  bool closed_ = false;
};

CodecStream* H1Client::open(ResponseSink& sink) {
  if (free_streams() == 0) return nullptr;
  sink_ = &sink;
  out_ = {};
  interims_ = 0;
  interim_bytes_ = 0;
  wrote_ = false;
  return this;
}

// ---- the request

void H1Client::send_request(const RequestHead& head, bool last) {
  h1::Framing framing;
  Outgoing::Kind kind = Outgoing::Kind::kNone;
  if (!head.upgrade.empty()) {
    prepare_upgrade(head, framing);
  } else if (head.content_length) {
    kind = Outgoing::Kind::kLength;
    framing.length = head.content_length;
  } else if (!last) {
    kind = Outgoing::Kind::kChunked;
    framing.chunked = true;
  } else if (head.method == Method::kPost || head.method == Method::kPut ||
             head.method == Method::kPatch) {
    framing.length = 0;  // RFC 9110 §8.6: their bodies are expected
  }
  head_request_ = head.method == Method::kHead;
  in_ = In::kHead;
  if (!h1::write_request(wire_.out, head, framing)) {
    fail();
    return;
  }
  out_.begin(kind, framing.length.value_or(0), head.version == Version::kHttp2);
  if (!out_.body(wire_, {}, last)) fail();
  if (head.expects_continue) wire_.wake();  // the body waits for the answer to this
}

void H1Client::prepare_upgrade(const RequestHead& head, h1::Framing& framing) {
  upgrade_ = std::make_unique<Upgrade>();
  upgrade_->token = head.upgrade;
  framing.upgrade = upgrade_->token;
  if (head.upgrade != "websocket" || head.headers.find(HeaderId::kSecWebsocketKey) != nullptr)
    return;
  upgrade_->key = make_websocket_key();
  upgrade_->ours = true;
  framing.websocket_key = {upgrade_->key.data(), upgrade_->key.size()};
}

void H1Client::send_body(std::string_view bytes, bool last) {
  if (upgrade_ != nullptr) {
    upgrade_->early.append(bytes);
    upgrade_->early_end |= last;
    return;
  }
  if (!out_.body(wire_, bytes, last)) fail();
  if (bytes.size() >= limits::kSmallWrite) wrote_ = true;
  if (last && tunnel_) wire_.shutdown();
}

void H1Client::send_trailers(const Headers& trailers) {
  if (upgrade_ != nullptr)
    upgrade_->early_end = true;
  else if (!out_.trailers(wire_, trailers))
    fail();
}

void H1Client::hold(bool held) {
  if (held == holding_ || closed_) return;
  holding_ = held;
  wire_.hold_reading(held);
}

void H1Client::reset(ResetCode) {
  sink_ = nullptr;
  close(Wire::Close::kReset);
}

void H1Client::release() {
  sink_ = nullptr;
  upgrade_.reset();
  const bool whole = in_ == In::kWhole && out_.ended() && !failed_;
  hold(false);
  in_ = In::kNone;
  if (!whole || !reusable_) close(whole ? Wire::Close::kFlush : Wire::Close::kReset);
}

// ---- the response

void H1Client::feed(std::string_view bytes) {
  while (!closed_ && !bytes.empty()) {
    switch (in_) {
      case In::kHead:
        if (!wrote_ && !wire_.out.empty())
          unasked_bytes();
        else
          read_head(bytes);
        break;
      case In::kBody: read_body(bytes); break;
      case In::kTunnel: sink_->on_body(std::exchange(bytes, {}), false); break;
      case In::kNone:
      case In::kWhole:
        bytes = {};
        unasked_bytes();
        break;
    }
  }
}

// Of no response that was asked for: nothing that comes behind can be trusted to belong to a later
// request either.
void H1Client::unasked_bytes() {
  reusable_ = false;
  if (sink_ == nullptr)
    close(Wire::Close::kFlush);
  else if (in_ != In::kWhole)
    end_stream(Reason::kUpstreamReset, "bytes came before the request was sent");
}

void H1Client::read_head(std::string_view& bytes) {
  RawHead raw;
  Fault fault = nullptr;
  switch (collector_.take(bytes, h1::Section::kResponse, limits_, raw, fault)) {
    case HeadScanner::Found::kMore: return;
    case HeadScanner::Found::kWhole: begin_response(raw, bytes); break;
    case HeadScanner::Found::kFault: protocol_error(fault->detail); break;
  }
}

void H1Client::begin_response(RawHead raw, std::string_view rest) {
  ResponseHead& head = sink_->head();
  raw.block = head.headers.arena().copy(raw.block);
  collector_.clear();
  h1::MessageInfo info;
  if (const Fault fault = h1::read_response(raw, limits_, head, info)) {
    protocol_error(fault->detail);
    return;
  }
  if (head.status == 101)
    switch_protocols(head, info);
  else if (head.status < 200)
    interim(raw.block.size());
  else
    begin_body(head, info, rest);
}

void H1Client::interim(std::size_t head_bytes) {
  interim_bytes_ += static_cast<std::uint32_t>(head_bytes);
  if (++interims_ > limits::kInterim || interim_bytes_ > limits::kHeaderBytes)
    protocol_error("too many interim responses");
  else
    sink_->on_interim();
}

void H1Client::begin_body(ResponseHead& head, const h1::MessageInfo& info, std::string_view rest) {
  if (info.close || (head.version == Version::kHttp10 && !info.keep_alive)) reusable_ = false;
  keep_alive_ms_ = info.keep_alive_seconds * 1000;
  if (head.status == 204) head.content_length.reset();
  if (head_request_ || head.status == 204 || head.status == 304)
    body_.begin_none();
  else if (info.chunked)
    body_.begin_chunked();
  else if (head.content_length)
    body_.begin_length(*head.content_length);
  else
    body_.begin_until_close();
  if (body_.until_close()) reusable_ = false;
  if (upgrade_ != nullptr) {  // refused: what was meant for the tunnel goes nowhere
    upgrade_.reset();
    if (!out_.ended()) out_.end(wire_);
  }
  in_ = In::kBody;
  const bool whole = body_.done();
  if (whole) response_is_whole(rest);
  sink_->on_head(whole);
}

// Before the sink hears of it: the stream may be released, and lent again, inside that call.
void H1Client::response_is_whole(std::string_view rest) {
  collector_.clear();
  in_ = In::kWhole;
  // An upstream that answers before it has read the request may not read the rest, or read it as
  // the next one. What stands behind the answer was asked for by nobody.
  if (!out_.ended() || !wire_.out.empty() || !rest.empty()) reusable_ = false;
}

void H1Client::switch_protocols(ResponseHead& head, const h1::MessageInfo& info) {
  if (upgrade_ == nullptr || !equal_ignoring_case(info.upgrade, upgrade_->token)) {
    protocol_error("a change of protocol that was not asked for");
    return;
  }
  const std::unique_ptr<Upgrade> upgrade = std::move(upgrade_);
  if (upgrade->ours) {
    const WebsocketAccept accept = websocket_accept({upgrade->key.data(), upgrade->key.size()});
    if (head.headers.get(HeaderId::kSecWebsocketAccept) !=
        std::string_view(accept.data(), accept.size())) {
      protocol_error("a wrong Sec-WebSocket-Accept");
      return;
    }
    head.headers.remove(HeaderId::kSecWebsocketAccept);
  }
  head.content_length.reset();
  reusable_ = false;
  tunnel_ = true;
  in_ = In::kTunnel;
  out_.begin(Outgoing::Kind::kUntilClose, 0, false);
  if (!upgrade->early.empty() || upgrade->early_end) send_body(upgrade->early, upgrade->early_end);
  if (upgrade->early.size() > limits::kHighWater) out_.owe_writable();
  sink_->on_head(false);
}

void H1Client::read_body(std::string_view& bytes) {
  std::string_view data;
  RawHead raw;
  Fault fault = nullptr;
  switch (body_.next(bytes, limits_, collector_, data, raw, fault)) {
    case BodyReader::Event::kMore: break;
    case BodyReader::Event::kData: sink_->on_body(data, false); break;
    case BodyReader::Event::kEnd:
      response_is_whole(bytes);
      sink_->on_body(data, true);
      break;
    case BodyReader::Event::kTrailers: end_with_trailers(raw, bytes); break;
    case BodyReader::Event::kFault: protocol_error(fault->detail); break;
  }
}

void H1Client::passed(std::size_t bytes) {
  body_.skip(bytes);
  sink_->on_passed(bytes);
  if (sink_ == nullptr || in_ != In::kBody || !body_.done()) return;
  response_is_whole({});
  sink_->on_body({}, true);
}

void H1Client::end_with_trailers(RawHead raw, std::string_view rest) {
  Arena& arena = sink_->head().headers.arena();
  raw.block = arena.copy(raw.block);
  auto* const trailers = arena.make<Headers>(arena);
  if (const Fault fault = h1::read_trailers(raw, limits_, *trailers)) {
    protocol_error(fault->detail);
    return;
  }
  response_is_whole(rest);
  if (trailers->empty())
    sink_->on_body({}, true);
  else
    sink_->on_trailers(*trailers);
}

// ---- the connection

void H1Client::on_eof() {
  if (closed_) return;
  reusable_ = false;
  const bool ends_here = in_ == In::kTunnel || (in_ == In::kBody && body_.until_close());
  if (sink_ == nullptr) {
    close(Wire::Close::kFlush);
  } else if (ends_here) {
    in_ = In::kWhole;
    sink_->on_body({}, true);
  } else if (in_ != In::kWhole) {
    end_stream(Reason::kUpstreamReset,
               in_ == In::kBody ? "the upstream closed the connection within the body"
                                : "the upstream closed the connection before the response");
  }
}

void H1Client::on_broken() {
  closed_ = true;
  if (ResponseSink* sink = std::exchange(sink_, nullptr))
    sink->on_reset(error_of(Reason::kUpstreamReset), "the upstream reset the connection");
}

void H1Client::pump() {
  if (closed_) return;
  if (failed_ && sink_ != nullptr)
    end_stream(Reason::kInternal, "a request that cannot be sent whole");
  else
    report();
}

void H1Client::on_flushed() {
  if (in_ != In::kNone) wrote_ = true;
  report();
}

void H1Client::report() {
  while (sink_ != nullptr) {
    switch (out_.poll(wire_)) {
      case Outgoing::News::kNone: return;
      case Outgoing::News::kWritable: sink_->on_writable(); break;
      case Outgoing::News::kSent: sink_->on_sent(); break;
    }
  }
}

void H1Client::drain(bool final) {
  reusable_ = false;
  if (final && sink_ == nullptr && !closed_) close(Wire::Close::kFlush);
}

// The owner hears of it from pump(): this happens inside its own call.
void H1Client::fail() {
  failed_ = true;
  wire_.wake();
}

void H1Client::protocol_error(std::string_view detail) {
  end_stream(Reason::kUpstreamProtocolError, detail);
}

Error H1Client::error_of(Reason reason) const {
  return {.reason = reason,
          .origin = reason == Reason::kInternal ? Origin::kProxy : Origin::kUpstream,
          .repeatable = reason == Reason::kUpstreamReset && !wrote_,
          .gone = true,
          .answered = in_ != In::kHead || collector_.has_part()};
}

// The connection goes first, so that its place under the service's limits is free when the request
// looks for another.
void H1Client::end_stream(Reason reason, std::string_view detail) {
  const Error error = error_of(reason);
  ResponseSink* const sink = std::exchange(sink_, nullptr);
  close(Wire::Close::kReset);
  sink->on_reset(error, detail);
}

void H1Client::close(Wire::Close how) {
  closed_ = true;
  collector_.clear();
  upgrade_.reset();
  wire_.close(how);
}

}  // namespace

// A connection that is free again says so by free_streams() when its stream is released; nothing
// else changes that.
std::unique_ptr<Codec> make_h1_client(Wire& wire, ClientEvents&, const CodecSettings& settings) {
  static_assert(sizeof(H1Client) < 250, "idle connections are many");
  return std::make_unique<H1Client>(wire, settings);
}

}  // namespace outrider
