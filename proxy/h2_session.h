// HTTP/2 on nghttp2, what both ends have in common: frames checked before nghttp2 sees them,
// budgets against floods, streams and their bodies, one serialising pass a turn. nghttp2 does
// framing, HPACK and flow control; the meaning of header blocks is checked by our own code
// (no_http_messaging), in h2_server.cc and h2_client.cc. Invariants: an nghttp2 stream's user data
// is its H2Stream as long as the owner of that has not been told of its end; nghttp2 never reads a
// name or value of a head (NO_COPY) after the stream was reset, because it drops the frames of a
// stream that is closing before it packs them; nothing is sent from inside a call that the owner
// makes.
#pragma once

#include <nghttp2/nghttp2.h>

#include <optional>
#include <span>

#include "proxy/codec.h"
#include "proxy/h2_hpack_outline.h"
#include "proxy/h2_memory.h"

namespace outrider {

class H2Session;

inline const char* chars(const std::uint8_t* bytes) { return reinterpret_cast<const char*>(bytes); }
// nghttp2_nv and some others are not const-correct; nothing is written.
inline std::uint8_t* octets(const char* text) {
  return reinterpret_cast<std::uint8_t*>(const_cast<char*>(text));
}

class H2Stream final : public CodecStream {
 public:
  H2Stream(H2Session& session, std::int32_t id);
  static void* operator new(std::size_t bytes) { return H2Memory::of_this_thread().get(bytes); }
  static void operator delete(void* stream) { H2Memory::of_this_thread().put(stream); }

  void send_request(const RequestHead& head, bool last) override;
  void send_interim(const ResponseHead& head) override;
  void send_response(const ResponseHead& head, bool last) override;
  void send_body(std::string_view bytes, bool last) override;
  void send_trailers(const Headers& trailers) override;
  std::size_t queued() const override { return out_.size(); }
  void hold(bool held) override;
  void close_after() override;
  void reset(ResetCode code) override;
  void release() override;
  std::uint64_t wire_id() const override { return static_cast<std::uint64_t>(id_); }

 private:
  friend class H2Session;
  friend class H2Server;
  friend class H2Client;
  static constexpr std::uint64_t kAnyLength = UINT64_MAX;

  H2Session& session_;
  StreamSink* sink_ = nullptr;
  RequestSink* request_ = nullptr;    // of a server stream
  ResponseSink* response_ = nullptr;  // of a client stream
  H2Stream* next_ = nullptr;          // all streams of the session
  H2Stream* prev_ = nullptr;
  OutBuffer out_;
  std::optional<Headers> trailers_;      // to be sent behind out_
  std::uint64_t expected_ = kAnyLength;  // content-length of the incoming half
  std::uint64_t received_ = 0;
  std::uint32_t uncredited_ = 0;  // received, not yet given back to the peer's window
  std::int32_t id_;               // 0: request not submitted yet
  std::uint8_t interims_ = 0;
  bool held_ = false;
  bool in_ended_ = false;   // the incoming half is complete
  bool in_dead_ = false;    // … or refused: what still comes is dropped
  bool out_ended_ = false;  // the owner has sent everything
  bool sent_ = false;       // END_STREAM is serialised
  bool above_high_ = false;
  bool deferred_ = false;   // nghttp2 waits for more body
  bool closed_ = false;     // nghttp2 knows it no more
  bool head_done_ = false;  // client: the final head has come
  bool tunnel_ = false;     // extended CONNECT
  bool bodyless_ = false;   // client: the answer to HEAD, 204 or 304
};

// Allowances that refill with time: a peer that uses them up is cut off.
class H2Budgets {
 public:
  bool spend_reset(std::uint64_t now_ms);
  bool spend_control(std::uint64_t now_ms);
  // Work that the peer is here for; pays for a few control frames, so that long transfers never run
  // out.
  void earn(std::size_t bytes) {
    const std::size_t frames = 1 + (bytes < 448 ? bytes / 64 : 7);
    control_ = control_ > frames ? control_ - static_cast<std::uint32_t>(frames) : 0;
  }

 private:
  std::uint64_t refilled_ms_ = 0;
  std::uint64_t control_since_ms_ = 0;
  std::uint64_t resets_ = std::uint64_t{limits::kResetBurst} * 1000;  // in thousandths
  std::uint32_t control_ = 0;
};

class H2Session : public Codec {
 public:
  ~H2Session() override;
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

  void feed(std::string_view bytes) override;
  void on_eof() override;
  void on_broken() override;
  void pump() override;
  void on_flushed() override;
  void drain(bool final) override;
  bool in_head() const override;
  void expire_head() override;
  bool idle() const override;
  void rest() override;

  virtual void submit_request(H2Stream& stream, const RequestHead& head, bool last);
  virtual void submit_response(H2Stream& stream, const ResponseHead& head, bool interim, bool last);

 protected:
  friend class H2Stream;
  // The header block that is being decoded.
  struct Block {
    H2Stream* stream = nullptr;  // null: gone while its block came
    Headers* fields = nullptr;   // regular fields go here
    std::size_t bytes = 0;
    std::size_t count = 0;
    bool trailers = false;
    bool skip = false;  // counted, not read
    bool too_large = false;
    bool regular_seen = false;  // no pseudo-header may follow
  };
  struct Frame {
    std::uint32_t length = 0;
    std::uint8_t type = 0;
    std::uint8_t flags = 0;
    std::int32_t stream = 0;
  };
  // How a stream came to its end before its time: the peer broke a rule, reset it, left, or the
  // connection failed; kLeftBehind: above the last stream of the peer's GOAWAY.
  enum class End : std::uint8_t { kMalformed, kPeerReset, kLeftBehind, kGone, kFailed };

  static constexpr std::size_t kFrameHead = 9;
  static constexpr std::string_view kConnectionError = "a connection error of HTTP/2";
  // Window is given back in pieces of this size: one look-up for many frames.
  static constexpr std::uint32_t kCreditBatch = limits::kH2Window / 4;

  H2Session(Wire& wire, const CodecSettings& settings, bool server,
            nghttp2_on_header_callback on_header);

  virtual int on_begin_headers(const nghttp2_frame& frame) = 0;
  virtual void on_block(bool last) = 0;  // block_ is complete and its stream there
  virtual Error error_of(const H2Stream& stream, End end, std::uint32_t code) const = 0;
  virtual void on_frame(const nghttp2_frame&) {}
  virtual void on_failed() {}
  virtual void on_settled() {}  // the last thing done in feed(), pump() and on_flushed()

  H2Stream* find(std::int32_t id);
  H2Stream* new_stream(std::int32_t id);
  void recycle(H2Stream& stream);
  void forget(H2Stream& stream);  // nghttp2 will not name it again
  void reset_stream(std::int32_t id, std::uint32_t code);
  // The peer broke a rule: RST_STREAM, on_reset, and a piece of the peer's allowance.
  void drop(H2Stream& stream, std::string_view detail, std::uint32_t code = NGHTTP2_PROTOCOL_ERROR);
  void fail(std::uint32_t code, Reason reason, std::string_view detail);
  void spend_reset();
  void spend_control();
  // nghttp2 has something to send. Within feed() and pump() that is looked at once, at their end.
  void mark() {
    if (!dirty_ && !feeding_ && !pumping_) {
      dirty_ = true;
      wire_.wake();
    }
  }

  void begin_block(H2Stream& stream, Headers& fields, bool trailers);
  int begin_trailers(std::int32_t id, Headers* (*fields_of)(H2Stream&));
  bool count_field(std::string_view name, std::string_view value);  // false: stop decoding
  static std::string_view check_field(std::string_view name, std::string_view value, HeaderId& id);
  static bool plain(std::string_view text);  // no control byte, no space
  void store_field(HeaderId id, std::string_view name, std::string_view value);
  std::string_view read_trailer(std::string_view name, std::string_view value);
  static std::string_view read_length(std::string_view value, std::uint64_t& length);
  bool end_incoming(H2Stream& stream);  // END_STREAM with nothing to hand over: do the sums fit?
  void finish_trailers(bool last);

  // The outgoing fields, gathered in a buffer of the thread's.
  void begin_fields();
  std::span<const nghttp2_nv> fields() const { return memory_.fields; }
  void add(std::string_view name, std::string_view value, std::uint8_t flags = 0);
  void add_fields(const Headers& headers, const H2Stream& stream, std::uint64_t length,
                  bool trailers);
  nghttp2_data_provider provider(H2Stream& stream);

  Wire& wire_;
  const CodecSettings settings_;
  H2Memory& memory_;
  SessionMemory session_memory_;
  nghttp2_session* session_ = nullptr;  // not to be touched while put aside
  Block block_;
  H2Stream* streams_ = nullptr;
  std::uint32_t stream_count_ = 0;  // ours
  std::uint32_t open_count_ =
      0;  // nghttp2's, those included that only wait for their RST_STREAM to leave
  std::int32_t goaway_last_ = INT32_MAX;  // newer ones of the peer's are refused
  std::int32_t last_request_ = 0;         // client: the newest whose HEADERS are serialised
  bool goaway_received_ = false;
  bool dead_ = false;    // closed: nothing goes in or out any more
  bool failed_ = false;  // a connection error; closes when the call from nghttp2 has returned
  Reason fail_reason_ = Reason::kBadRequest;
  std::string_view fail_detail_;

 private:
  static const nghttp2_session_callbacks* callbacks(bool server,
                                                    nghttp2_on_header_callback on_header);
  static const nghttp2_option* options();
  static ssize_t read_body(nghttp2_session*, std::int32_t id, std::uint8_t*, std::size_t length,
                           std::uint32_t* flags, nghttp2_data_source* source, void* self);
  int on_send_data(const std::uint8_t* head, std::size_t length, H2Stream& stream);
  int on_data(std::uint8_t flags, std::int32_t id, std::string_view bytes);
  void on_frame_received(const nghttp2_frame& frame);
  void on_frame_sent(const nghttp2_frame& frame);
  void on_frame_not_sent(const nghttp2_frame& frame, int error);
  void on_stream_closed(std::int32_t id, std::uint32_t code);

  void begin();
  void wake() {
    if (session_memory_.is_aside()) session_memory_.bring_back();
  }
  void scan(std::string_view bytes);
  void give(const char* from, const char* to);
  bool inspect(const Frame& frame, const char*& run, const char* at);  // false: not for nghttp2
  void inspect_continuation(const Frame& frame);
  void inspect_block(std::string_view payload);
  void inspect_priority(std::string_view payload);
  bool is_open(std::int32_t id);
  void on_closed_stream(const Frame& frame);
  void serialise(std::size_t high_water);
  void settle();
  void finish();
  void end_streams(End end);
  void tell_sent(H2Stream& stream);

  H2Budgets budgets_;
  H2Stream* current_ = nullptr;  // the last one found
  H2Stream* sending_ = nullptr;  // whose DATA is being serialised
  // The frame whose bytes are passing.
  Frame frame_;
  HpackOutline outline_;
  char head_[9] = {};
  std::uint8_t head_size_ = 0;
  std::uint8_t preface_left_ = 0;
  std::uint32_t payload_left_ = 0;
  std::uint32_t data_left_ = 0;  // of the DATA frame in nghttp2's hands
  std::uint32_t continuations_ = 0;
  std::uint32_t empty_continuations_ = 0;
  std::int32_t last_id_ = 0;       // newest stream of the peer's
  std::int32_t open_stream_ = 0;   // known to be open when its DATA goes on
  std::int32_t skipped_from_ = 0;  // ids left out before it, never to be used
  std::int32_t skipped_to_ = 0;
  std::int32_t highest_reset_ = 0;  // up to here the peer may not know yet that we ended a stream
  std::int32_t reset_by_peer_ = 0;
  std::uint32_t in_flight_ = 0;  // body bytes that may still come on streams we have reset
  char priority_[4] = {};
  bool skipping_ = false;  // the payload is not for nghttp2
  bool settings_seen_ = false;
  bool block_open_ = false;  // HEADERS without END_HEADERS so far
  const bool server_;
  bool noticed_ = false;  // GOAWAY(2^31-1) is queued or sent
  bool final_ = false;    // the last GOAWAY is queued or sent
  bool resting_ = false;  // until the next stream
  bool dirty_ = false;
  bool feeding_ = false;
  bool pumping_ = false;
};

}  // namespace outrider
