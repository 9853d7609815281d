// The boundary between wire and meaning: codecs turn bytes into heads, bodies and trailers and
// back. Above it nobody knows llhttp from nghttp2, and any downstream protocol reaches any upstream
// protocol.
//
// Life of a CodecStream (one request and its response on one connection; owned by its codec):
//   server: a request head arrives → ServerEvents::on_stream() gives the sink → sink events; the
//   owner sends the response. client: Codec::open(sink) → the owner sends the request → sink events
//   bring the response.
// It ends in exactly one of these ways, after which neither side touches it again:
//   - sink.on_reset(): the codec, the peer or the connection ended it;
//   - owner calls reset(): no further event;
//   - owner calls release(): both halves are complete (incoming `last` seen, on_sent() seen) or the
//   owner no longer cares for
//     the rest of the incoming half (then HTTP/1 closes after a lingering read or drains a bounded
//     rest; HTTP/2 sends RST_STREAM(NO_ERROR) if the outgoing half is complete, CANCEL otherwise).
// Callbacks come from inside feed(), pump(), on_flushed() or on_broken(), never from inside a call
// the owner makes on the stream, so the owner's call stack is its own. The owner may call any
// method of any stream from inside a callback.
//
// An upgrade over HTTP/1 has no body: on_head(last) and send_request(last) end that half, on_sent()
// included. Status 101 opens both halves again: on_body and send_body go on until their own `last`,
// and on_sent() comes a second time. What is sent before the answer waits in the codec; any other
// status drops it.
//
// Views given to on_body are valid during the call. Views in heads and trailers live in the sink's
// arena. Views that the owner passes in send_head/send_trailers stay valid until on_sent(),
// on_reset(), or reset()/release() has returned; views passed to send_body only during the call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "config/error.h"
#include "filters/http/message.h"
#include "proxy/out_buffer.h"

namespace outrider {

// Why a request never became one, or its body broke off. `status` overrides the reason's own (414,
// 417, 501, 505 …). `detail` is static text for the log and for trusted clients: the rule that was
// broken, never the peer's bytes.
struct BadRequest {
  Reason reason = Reason::kBadRequest;
  int status = 0;
  std::string_view detail;
};

enum class ResetCode : std::uint8_t { kNoError, kCancel, kRefused, kInternal, kProtocol, kCalm };

// What both directions have in common: the incoming half, and how the outgoing half fares.
class StreamSink {
 public:
  virtual void on_body(std::string_view bytes, bool last) = 0;  // `bytes` may be empty when `last`
  virtual void on_passed(std::size_t) {}  // bytes of a body that went on within the kernel
  virtual void on_trailers(Headers& trailers) = 0;  // ends the incoming half
  // The stream is gone. Server side: kClientClosed, kBadRequest (malformed over HTTP/2),
  // kClientTimeout. Client side: kUpstreamReset, kUpstreamProtocolError; `repeatable` when the peer
  // vouched that nothing was processed (REFUSED_STREAM, GOAWAY) or no byte was written.
  virtual void on_reset(const Error& error, std::string_view detail) = 0;
  virtual void on_writable() = 0;  // queued() fell to kLowWater after it had been above kHighWater
  virtual void
  on_sent() = 0;  // the outgoing half, its end included, is with the kernel (HTTP/2: serialised)
 protected:
  ~StreamSink() = default;
};

class RequestSink : public StreamSink {
 public:
  virtual RequestHead& head() = 0;      // the codec fills it, strings in head().headers.arena()
  virtual void on_head(bool last) = 0;  // head() is complete; `last`: no body follows
  // Malformed, before or after on_head. The incoming half is dead; a response may still be sent
  // (the connection closes after it).
  virtual void on_bad(const BadRequest& bad) = 0;

 protected:
  ~RequestSink() = default;
};

class ResponseSink : public StreamSink {
 public:
  virtual ResponseHead& head() = 0;     // filled anew for each interim response and the final one
  virtual void on_interim() = 0;        // head() is a 1xx (not 101)
  virtual void on_head(bool last) = 0;  // head() is final; status 101: the body is now a tunnel
 protected:
  ~ResponseSink() = default;
};

class CodecStream {
 public:
  // Outgoing half. Exactly one head, then bodies, then `last` in one of them or trailers.
  // A head with status 101 (server) makes both halves a tunnel.
  virtual void send_request(const RequestHead& head, bool last);
  virtual void send_interim(const ResponseHead& head);
  virtual void send_response(const ResponseHead& head, bool last);
  virtual void send_body(std::string_view bytes,
                         bool last) = 0;  // takes all of it, copying what the socket does not
  virtual void send_trailers(
      const Headers& trailers) = 0;  // to a peer that cannot take them: just the end
  virtual std::size_t queued()
      const = 0;  // outgoing bytes of this stream (H1: of the connection) not yet written
  // Undoes send_response() of a head that nothing was sent behind, if no byte of it has left.
  virtual bool take_back() { return false; }
  // Incoming half: stop or go on reading (at most one more read's worth of on_body follows).
  virtual void hold(bool held) = 0;
  // The response (server) will be the connection's last: `Connection: close`, GOAWAY. Before
  // send_response.
  virtual void close_after() {}
  virtual void reset(ResetCode code) = 0;
  virtual void release() = 0;
  virtual std::uint64_t wire_id() const { return 0; }  // HTTP/2 stream id, for logs

 protected:
  ~CodecStream() = default;
};

inline void CodecStream::send_request(const RequestHead&, bool) {
  OUTRIDER_ASSERT(false && "server stream");
}
inline void CodecStream::send_interim(const ResponseHead&) {
  OUTRIDER_ASSERT(false && "client stream");
}
inline void CodecStream::send_response(const ResponseHead&, bool) {
  OUTRIDER_ASSERT(false && "client stream");
}

// What a codec needs of its connection. Implemented by Connection (transport.h) and by tests.
class Wire {
 public:
  explicit Wire(Slabs& slabs) : out(slabs) {}
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  enum class Close : std::uint8_t {
    kFlush,   // write what is in `out`, shut down, close when the peer does or soon after
    kLinger,  // the same, but read and drop up to kLingerBytes / kLinger first, so that the peer
              // sees the answer
    kReset,   // TCP RST: what was sent must not look complete
  };
  OutBuffer out;  // codecs append; written after wake(), at the end of the loop's turn, after
                  // Codec::pump()
  virtual void wake() = 0;  // `out` has bytes, or pump() has work
  // The same, but what `out` has is better sent with what follows, if that comes within a few
  // turns of the loop, in none of which it sleeps.
  virtual void wake_soon() { wake(); }
  // Writes `out` and then `bytes` now; what the socket does not take is copied to `out`. For large
  // bodies.
  virtual void write_through(std::string_view bytes) = 0;
  virtual void hold_reading(bool held) = 0;
  virtual void shutdown() = 0;        // after `out` is written: half-close (tunnels, TCP)
  virtual void close(Close how) = 0;  // feed() and the like are not called again, but on_broken()
                                      // may still end open streams
  virtual std::uint64_t now_ms() const = 0;

 protected:
  ~Wire() = default;
};

class ServerEvents {
 public:
  // A request begins (HTTP/2: its HEADERS; HTTP/1: its head is complete or malformed). Null: refuse
  // it (HTTP/2 REFUSED_STREAM).
  virtual RequestSink* on_stream(CodecStream& stream) = 0;
  // The codec closed the connection for a reason that belongs to no request (flood, bad preface):
  // for log and metrics.
  virtual void on_abuse(Reason reason, std::string_view detail) = 0;

 protected:
  ~ServerEvents() = default;
};

class ClientEvents {
 public:
  virtual void on_capacity() = 0;  // free_streams() may have changed, up (a stream ended, SETTINGS)
                                   // or down (GOAWAY)
 protected:
  ~ClientEvents() = default;
};

struct CodecSettings {
  std::string_view scheme = "http";                     // static text
  std::size_t max_header_bytes = limits::kHeaderBytes;  // 0: no limit, in all of these
  std::size_t max_target_bytes = limits::kTargetBytes;
  std::size_t max_fields = limits::kFields;
  std::uint32_t max_streams = limits::kStreams;
  std::uint64_t max_requests = limits::kRequestsPerConnection;
};

class Codec {
 public:
  virtual ~Codec() = default;

  virtual void feed(std::string_view bytes) = 0;  // bytes read; views into them are not kept
  virtual void on_eof() = 0;                      // the peer will send no more
  virtual void on_broken() = 0;   // the connection is gone: every open stream gets on_reset
  virtual void pump() = 0;        // called before each flush: serialise into wire.out (bounded)
  virtual void on_flushed() = 0;  // wire.out has been written (called also when it became short:
                                  // check out.size())
  // Server: stop taking requests. First call: H1 `Connection: close` on what follows, H2
  // GOAWAY(2^31-1). `final`: H2 GOAWAY(last id), H1: close now if idle, else after the current
  // response.
  virtual void drain(bool final) = 0;
  virtual bool in_head() const = 0;  // part of a head has arrived (header time runs)
  // The head did not come in time. H1: the partial request gets on_bad(kClientTimeout), or the
  // connection closes if no byte of one came; H2: GOAWAY(NO_ERROR).
  virtual void expire_head() {}
  virtual bool idle() const = 0;  // no stream, nothing half read
  virtual void rest() {}          // idle for a while: hold as little memory as can be

  // Bodies of plain bytes may go from socket to socket without being fed, see Connection::link():
  // how many of what comes next, and that so many did; whether what is sent now is nothing but the
  // body, and that so many bytes of it were.
  virtual std::uint64_t passable() const { return 0; }
  virtual void passed(std::size_t) {}
  virtual bool takes_raw() const { return false; }
  virtual void sent_past(std::size_t) {}

  // Client side.
  virtual CodecStream* open(ResponseSink& sink);  // null when free_streams() is 0
  virtual std::uint32_t free_streams() const { return 0; }
  virtual bool reusable() const {
    return false;
  }  // may serve further requests (after the current ones)
  virtual Millis keep_alive_hint() const {
    return Millis{0};
  }                                                     // peer's Keep-Alive: timeout=, 0: none
  virtual bool settled() const { return true; }         // H2: the peer's SETTINGS are known
  virtual bool takes_upgrades() const { return true; }  // H2: SETTINGS_ENABLE_CONNECT_PROTOCOL seen
};

inline CodecStream* Codec::open(ResponseSink&) { return nullptr; }

std::unique_ptr<Codec> make_h1_server(Wire& wire, ServerEvents& events,
                                      const CodecSettings& settings);
std::unique_ptr<Codec> make_h1_client(Wire& wire, ClientEvents& events,
                                      const CodecSettings& settings);
std::unique_ptr<Codec> make_h2_server(Wire& wire, ServerEvents& events,
                                      const CodecSettings& settings);
std::unique_ptr<Codec> make_h2_client(Wire& wire, ClientEvents& events,
                                      const CodecSettings& settings);
// Raw bytes: one stream, empty heads; the head of the response comes as soon as the request's was
// sent.
std::unique_ptr<Codec> make_tcp_server(Wire& wire, ServerEvents& events);
std::unique_ptr<Codec> make_tcp_client(Wire& wire, ClientEvents& events);

// What the first bytes of a connection are. kMore: cannot tell yet.
enum class Preface : std::uint8_t { kHttp1, kHttp2, kMore };
Preface detect_preface(std::string_view first_bytes);

}  // namespace outrider
