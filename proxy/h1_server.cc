// HTTP/1 towards clients: one exchange at a time, later requests wait as bytes. The codec is its
// own stream. Invariant: a byte of a request's body, of a refused request or of a tunnel is never
// read as the head of a request, and an answer that is not whole never looks whole.
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

class H1Server final : public Codec, private CodecStream {
 public:
  H1Server(Wire& wire, ServerEvents& events, const CodecSettings& settings)
      : wire_(wire),
        events_(events),
        limits_(settings),
        scheme_(settings.scheme),
        max_requests_(settings.max_requests) {}

  void feed(std::string_view bytes) override;
  void on_eof() override;
  void on_broken() override;
  void pump() override;
  void on_flushed() override { report(); }
  void drain(bool final) override;
  void expire_head() override;
  std::uint64_t passable() const override {
    if (sink_ == nullptr || waiting_ != nullptr) return 0;
    return in_ == In::kTunnel ? UINT64_MAX : in_ == In::kBody ? body_.raw_left() : 0;
  }
  void passed(std::size_t bytes) override;
  bool takes_raw() const override { return sink_ != nullptr && !failed_ && out_.raw(); }
  void sent_past(std::size_t bytes) override {
    head_bytes_ = 0;
    out_.past(bytes);
  }
  bool in_head() const override {
    return sink_ == nullptr && (collector_.has_part() || in_ == In::kBody);
  }
  bool idle() const override {
    return sink_ == nullptr && in_ == In::kHead && !collector_.has_part() && waiting_ == nullptr;
  }

 private:
  // The incoming half.
  enum class In : std::uint8_t {
    kHead,
    kBody,   // without a sink: dropped up to its end
    kWhole,  // what comes now belongs to later requests
    kTunnel,
    kDead,  // refused: all that comes is dropped
  };
  // Bytes behind the current request, not yet read.
  struct Waiting {
    std::string bytes;
    std::size_t begin = 0;
    std::size_t heads = 0;  // about as many requests
    std::string_view view() const { return std::string_view(bytes).substr(begin); }
    void append(std::string_view more);
  };

  void send_interim(const ResponseHead& head) override;
  void send_response(const ResponseHead& head, bool last) override;
  void send_body(std::string_view bytes, bool last) override;
  void send_trailers(const Headers& trailers) override;
  std::size_t queued() const override { return wire_.out.size(); }
  void hold(bool held) override;
  bool take_back() override;
  void close_after() override { keep_ = false; }
  void reset(ResetCode code) override;
  void release() override;

  void process(std::string_view bytes);
  void keep(std::string_view bytes);
  void read_head(std::string_view& bytes);
  void begin_request(RawHead raw);
  bool begin_stream();
  void read_body(std::string_view& bytes);
  void end_body(std::string_view data);
  void end_with_trailers(RawHead raw);
  void drop_body(std::size_t bytes);
  void refuse(const BadRequest& bad);
  void switch_protocols(const ResponseHead& head);
  Outgoing::Kind frame(const ResponseHead& head, bool last, h1::Framing& framing) const;
  bool must_close(const ResponseHead& head, bool last) const;
  void next_request();
  void report();
  void fail();
  void end_stream(const Error& error, std::string_view detail, Wire::Close how);
  void close(Wire::Close how);
  void update_hold();

  Wire& wire_;
  ServerEvents& events_;
  const h1::HeadLimits limits_;
  const std::string_view scheme_;
  const std::uint64_t max_requests_;
  std::uint64_t requests_ = 0;
  RequestSink* sink_ = nullptr;
  h1::HeadCollector collector_;
  std::unique_ptr<Waiting> waiting_;
  BodyReader body_;
  Outgoing out_;
  std::size_t dropped_ = 0;       // of a body nobody wants
  std::uint32_t head_bytes_ = 0;  // of the response, while nothing is behind it
  In in_ = In::kHead;
  Version version_ = Version::kHttp11;
  bool head_request_ = false;
  bool may_await_continue_ = false;  // the client may wait for 100 before it sends its body
  bool keep_ = true;                 // the connection outlives this exchange
  bool draining_ = false;
  bool final_ = false;
  bool held_ = false;
  bool holding_ = false;
  bool failed_ = false;
  bool tunnel_ = false;
  bool closed_ = false;
};

// ---- bytes in

void H1Server::Waiting::append(std::string_view more) {
  bytes.erase(0, std::exchange(begin, 0));
  bytes.append(more);
  for (std::size_t at = 0; (at = more.find("\r\n\r\n", at)) != std::string_view::npos; at += 4)
    ++heads;
}

void H1Server::feed(std::string_view bytes) {
  if (closed_) return;
  if (waiting_ == nullptr) {
    process(bytes);
    return;
  }
  waiting_->append(bytes);
  update_hold();
}

// Reads on until the bytes are used up, or belong to a request whose turn has not come.
void H1Server::process(std::string_view bytes) {
  while (!closed_ && !bytes.empty() && in_ != In::kWhole) {
    switch (in_) {
      case In::kHead: read_head(bytes); break;
      case In::kBody: read_body(bytes); break;
      case In::kTunnel: sink_->on_body(std::exchange(bytes, {}), false); break;
      case In::kDead: bytes = {}; break;
      case In::kWhole: break;
    }
  }
  keep(closed_ ? std::string_view() : bytes);
}

// `bytes` are the end of what waits already, or the end of what was fed while nothing waited.
void H1Server::keep(std::string_view bytes) {
  if (bytes.empty()) {
    waiting_.reset();
  } else if (waiting_ == nullptr) {
    waiting_ = std::make_unique<Waiting>();
    waiting_->append(bytes);
  } else {
    waiting_->begin = waiting_->bytes.size() - bytes.size();
  }
  update_hold();
}

void H1Server::read_head(std::string_view& bytes) {
  RawHead raw;
  Fault fault = nullptr;
  switch (collector_.take(bytes, h1::Section::kRequest, limits_, raw, fault)) {
    case HeadScanner::Found::kMore: return;
    case HeadScanner::Found::kWhole: begin_request(raw); break;
    case HeadScanner::Found::kFault:
      if (fault == &h1::kNotHttp && requests_ == 0) {
        events_.on_abuse(fault->reason, fault->detail);
        close(Wire::Close::kFlush);
        break;
      }
      if (!begin_stream()) break;
      raw.block = sink_->head().headers.arena().copy(raw.block.substr(0, raw.line.bytes));
      h1::read_start_line(raw, sink_->head());
      head_request_ = sink_->head().method == Method::kHead;
      refuse(*fault);
      break;
  }
  collector_.clear();
}

bool H1Server::begin_stream() {
  out_ = {};
  head_bytes_ = 0;
  version_ = Version::kHttp11;
  head_request_ = may_await_continue_ = false;
  keep_ = true;
  ++requests_;
  if (waiting_ != nullptr && waiting_->heads != 0) --waiting_->heads;
  sink_ = events_.on_stream(*this);
  if (sink_ == nullptr) close(Wire::Close::kFlush);
  return sink_ != nullptr;
}

void H1Server::begin_request(RawHead raw) {
  if (!begin_stream()) return;
  RequestHead& head = sink_->head();
  raw.block = head.headers.arena().copy(raw.block);
  head.scheme = scheme_;
  h1::MessageInfo info;
  const Fault fault = h1::read_request(raw, limits_, head, info);
  version_ = head.version;
  head_request_ = head.method == Method::kHead;
  if (fault != nullptr) {
    refuse(*fault);
    return;
  }
  keep_ = !info.close && (version_ == Version::kHttp11 || info.keep_alive) &&
          head.method != Method::kConnect && (max_requests_ == 0 || requests_ < max_requests_);
  if (info.chunked)
    body_.begin_chunked();
  else
    body_.begin_length(head.content_length.value_or(0));
  in_ = body_.done() ? In::kWhole : In::kBody;
  may_await_continue_ = head.expects_continue && in_ == In::kBody;
  sink_->on_head(in_ == In::kWhole);
}

void H1Server::read_body(std::string_view& bytes) {
  const std::size_t before = bytes.size();
  std::string_view data;
  RawHead raw;
  Fault fault = nullptr;
  switch (body_.next(bytes, limits_, collector_, data, raw, fault)) {
    case BodyReader::Event::kMore: break;
    case BodyReader::Event::kData:
      if (sink_ != nullptr) sink_->on_body(data, false);
      break;
    case BodyReader::Event::kEnd: end_body(data); return;
    case BodyReader::Event::kTrailers: end_with_trailers(raw); return;
    case BodyReader::Event::kFault: refuse(*fault); return;
  }
  if (sink_ == nullptr && in_ == In::kBody) drop_body(before - bytes.size());
}

void H1Server::passed(std::size_t bytes) {
  body_.skip(bytes);
  sink_->on_passed(bytes);
  if (sink_ != nullptr && in_ == In::kBody && body_.done()) end_body({});
}

void H1Server::end_body(std::string_view data) {
  collector_.clear();
  in_ = In::kWhole;
  if (sink_ == nullptr)
    next_request();
  else
    sink_->on_body(data, true);
}

void H1Server::end_with_trailers(RawHead raw) {
  if (sink_ == nullptr) {
    end_body({});
    return;
  }
  Arena& arena = sink_->head().headers.arena();
  raw.block = arena.copy(raw.block);
  collector_.clear();
  auto* const trailers = arena.make<Headers>(arena);
  if (const Fault fault = h1::read_trailers(raw, limits_, *trailers)) {
    refuse(*fault);
    return;
  }
  in_ = In::kWhole;
  if (trailers->empty())
    sink_->on_body({}, true);
  else
    sink_->on_trailers(*trailers);
}

void H1Server::drop_body(std::size_t bytes) {
  dropped_ += bytes;
  if (dropped_ > limits::kLingerBytes) close(Wire::Close::kLinger);
}

void H1Server::refuse(const BadRequest& bad) {
  collector_.clear();
  in_ = In::kDead;
  keep_ = false;
  if (sink_ == nullptr)
    close(Wire::Close::kLinger);
  else
    sink_->on_bad(bad);
}

void H1Server::expire_head() {
  if (closed_ || sink_ != nullptr) return;
  if (in_ == In::kBody)
    close(Wire::Close::kLinger);
  else if (!collector_.has_part())
    close(Wire::Close::kFlush);
  else if (begin_stream())
    refuse(h1::kHeadTimedOut);
}

// ---- the connection

void H1Server::on_eof() {
  if (closed_) return;
  if (sink_ == nullptr) {
    close(Wire::Close::kFlush);
    return;
  }
  if (in_ == In::kTunnel) {
    if (waiting_ != nullptr) process(waiting_->view());
    if (in_ != In::kTunnel || closed_) return;
    in_ = In::kWhole;
    sink_->on_body({}, true);
    return;
  }
  keep_ = false;
  if (out_.ended()) return;  // the answer is on its way
  end_stream({Reason::kClientClosed, Origin::kClient, false}, "the client closed the connection",
             out_.begun() ? Wire::Close::kReset : Wire::Close::kFlush);
}

void H1Server::on_broken() {
  closed_ = true;
  waiting_.reset();
  if (RequestSink* sink = std::exchange(sink_, nullptr))
    sink->on_reset({Reason::kClientClosed, Origin::kClient, false},
                   "the client's connection broke");
}

void H1Server::pump() {
  if (closed_) return;
  if (failed_) {
    end_stream({Reason::kInternal, Origin::kProxy, false}, "an answer that cannot be sent whole",
               Wire::Close::kReset);
    return;
  }
  if (waiting_ != nullptr && in_ != In::kWhole) process(waiting_->view());
  report();
}

void H1Server::report() {
  while (sink_ != nullptr) {
    switch (out_.poll(wire_)) {
      case Outgoing::News::kNone: return;
      case Outgoing::News::kWritable: sink_->on_writable(); break;
      case Outgoing::News::kSent: sink_->on_sent(); break;
    }
  }
}

void H1Server::drain(bool final) {
  draining_ = true;
  final_ |= final;
  if (!final || closed_ || sink_ != nullptr) return;
  if (idle())
    close(Wire::Close::kFlush);
  else if (in_ == In::kBody)
    close(Wire::Close::kLinger);
}

void H1Server::close(Wire::Close how) {
  closed_ = true;
  collector_.clear();
  wire_.close(how);
}

void H1Server::end_stream(const Error& error, std::string_view detail, Wire::Close how) {
  closed_ = true;
  std::exchange(sink_, nullptr)->on_reset(error, detail);
  close(how);
}

// The owner hears of it from pump(): this happens inside its own call.
void H1Server::fail() {
  failed_ = true;
  wire_.wake();
}

// ---- the answer

void H1Server::send_interim(const ResponseHead& head) {
  if (version_ == Version::kHttp10 || out_.begun()) return;
  if (head.status == 100) may_await_continue_ = false;
  if (!h1::write_response(wire_.out, head, {})) fail();
  wire_.wake();
}

void H1Server::send_response(const ResponseHead& head, bool last) {
  if (head.status == 101) {
    switch_protocols(head);
    return;
  }
  h1::Framing framing;
  const Outgoing::Kind kind = frame(head, last, framing);
  if (must_close(head, last) || kind == Outgoing::Kind::kUntilClose) keep_ = false;
  framing.close = !keep_;
  framing.keep_alive = version_ == Version::kHttp10;
  const std::size_t before = wire_.out.size();
  if (!h1::write_response(wire_.out, head, framing)) {
    fail();
    return;
  }
  head_bytes_ = static_cast<std::uint32_t>(wire_.out.size() - before);
  out_.begin(kind, framing.length.value_or(0), head.version == Version::kHttp2);
  send_body({}, last);
}

bool H1Server::take_back() {
  if (head_bytes_ == 0 || wire_.out.size() < head_bytes_ || out_.ended()) return false;
  wire_.out.take_back(std::exchange(head_bytes_, 0));
  out_ = {};
  return true;
}

Outgoing::Kind H1Server::frame(const ResponseHead& head, bool last, h1::Framing& framing) const {
  if (head_request_ || head.status == 204 || head.status == 304) {
    if (head.status != 204) framing.length = head.content_length;
    return Outgoing::Kind::kNone;
  }
  if (head.content_length || last) {
    framing.length = head.content_length.value_or(0);
    return Outgoing::Kind::kLength;
  }
  if (version_ == Version::kHttp10) return Outgoing::Kind::kUntilClose;
  framing.chunked = true;
  return Outgoing::Kind::kChunked;
}

// Whether the connection ends with this answer although the client asked for more.
bool H1Server::must_close(const ResponseHead& head, bool last) const {
  if (draining_) return true;
  if (in_ != In::kBody) return false;
  // Part of the request is still to come. Known to be little, or perhaps on its way while the
  // answer is: read to its end.
  constexpr int kFirstError = 400;
  return may_await_continue_ ||
         (body_.left() > limits::kLingerBytes && (last || head.status >= kFirstError));
}

void H1Server::switch_protocols(const ResponseHead& head) {
  const RequestHead& request = sink_->head();
  h1::Framing framing;
  framing.upgrade = request.upgrade;
  WebsocketAccept accept;
  // HTTP/2 has no such proof (RFC 8441 §5): what vouches for the upstream there is its status.
  if (request.upgrade == "websocket" && head.version == Version::kHttp2) {
    accept = websocket_accept(request.headers.get(HeaderId::kSecWebsocketKey));
    framing.websocket_accept = {accept.data(), accept.size()};
  }
  if (request.upgrade.empty() || in_ != In::kWhole ||
      !h1::write_response(wire_.out, head, framing)) {
    fail();
    return;
  }
  keep_ = false;
  tunnel_ = true;
  in_ = In::kTunnel;
  out_.begin(Outgoing::Kind::kUntilClose, 0, false);
  wire_.wake();  // for what waits, too
}

void H1Server::send_body(std::string_view bytes, bool last) {
  if (!bytes.empty()) head_bytes_ = 0;
  if (!out_.body(wire_, bytes, last)) fail();
  // Only in a tunnel does the other half go on when this one has ended.
  if (last && tunnel_) wire_.shutdown();
}

void H1Server::send_trailers(const Headers& trailers) {
  if (!out_.trailers(wire_, trailers)) fail();
}

void H1Server::hold(bool held) {
  held_ = held;
  update_hold();
}

void H1Server::update_hold() {
  const bool full = waiting_ != nullptr && (waiting_->view().size() >= limits::kPipelinedBytes ||
                                            waiting_->heads >= limits::kPipelined);
  const bool wanted = held_ || full;
  if (wanted == holding_ || closed_) return;
  holding_ = wanted;
  wire_.hold_reading(wanted);
}

void H1Server::reset(ResetCode) {
  if (out_.ended() && !failed_) {
    keep_ = false;
    if (!wire_.out.empty()) {  // the client has not taken it
      sink_ = nullptr;
      return close(Wire::Close::kReset);
    }
  }
  release();
}

void H1Server::release() {
  sink_ = nullptr;
  held_ = false;
  if (!out_.ended() || failed_) {
    close(out_.begun() ? Wire::Close::kReset : Wire::Close::kLinger);
  } else if (!keep_ || final_) {
    close(in_ == In::kWhole && waiting_ == nullptr ? Wire::Close::kFlush : Wire::Close::kLinger);
  } else if (in_ == In::kBody) {
    dropped_ = 0;
    if (body_.left() > limits::kLingerBytes && body_.left() != UINT64_MAX)
      close(Wire::Close::kLinger);
    else
      update_hold();
  } else {
    next_request();
  }
}

void H1Server::next_request() {
  in_ = In::kHead;
  update_hold();
  if (waiting_ != nullptr) wire_.wake();
}

}  // namespace

std::unique_ptr<Codec> make_h1_server(Wire& wire, ServerEvents& events,
                                      const CodecSettings& settings) {
  static_assert(sizeof(H1Server) < 250, "idle connections are many");
  return std::make_unique<H1Server>(wire, events, settings);
}

}  // namespace outrider
