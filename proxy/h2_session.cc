// The life of a session and of its streams: set-up, budgets, drain, failure. What comes in is
// h2_receive.cc, what goes out h2_send.cc.
#include "proxy/h2_session.h"

#include <algorithm>
#include <array>

namespace outrider {
namespace {

constexpr std::uint32_t kUnlimited = 1U << 30;
constexpr std::size_t kHeadBytesSent = 16 * 1024 * 1024;  // heads were bounded when they came in
static_assert(NGHTTP2_VERSION_NUM >= 0x013400);

constexpr std::string_view kGone = "the connection closed";
constexpr std::string_view kReset = "the peer reset the stream";
constexpr std::string_view kFlowControl = "the peer overran a flow-control window";

std::uint32_t code_of(ResetCode code) {
  switch (code) {
    case ResetCode::kNoError: return NGHTTP2_NO_ERROR;
    case ResetCode::kCancel: return NGHTTP2_CANCEL;
    case ResetCode::kRefused: return NGHTTP2_REFUSED_STREAM;
    case ResetCode::kInternal: return NGHTTP2_INTERNAL_ERROR;
    case ResetCode::kProtocol: return NGHTTP2_PROTOCOL_ERROR;
    case ResetCode::kCalm: return NGHTTP2_ENHANCE_YOUR_CALM;
  }
  return NGHTTP2_INTERNAL_ERROR;
}

}  // namespace

// --- Budgets

bool H2Budgets::spend_reset(std::uint64_t now_ms) {
  constexpr std::uint64_t kFull = std::uint64_t{limits::kResetBurst} * 1000;
  if (refilled_ms_ == 0) refilled_ms_ = now_ms;
  resets_ = std::min(kFull, resets_ + (now_ms - refilled_ms_) * limits::kResetsPerSecond);
  refilled_ms_ = now_ms;
  if (resets_ < 1000) return false;
  resets_ -= 1000;
  return true;
}

bool H2Budgets::spend_control(std::uint64_t now_ms) {
  const auto window = static_cast<std::uint64_t>(limits::kControlWindow.count());
  if (control_ == 0 || now_ms - control_since_ms_ > window) {
    control_ = 0;
    control_since_ms_ = now_ms;
  }
  return ++control_ <= limits::kControlFrames;
}

// --- Streams, as their owners see them

H2Stream::H2Stream(H2Session& session, std::int32_t id)
    : session_(session), out_(session.wire_.out.slabs()), id_(id) {}

void H2Stream::send_request(const RequestHead& head, bool last) {
  OUTRIDER_ASSERT(id_ == 0 && !out_ended_);
  session_.submit_request(*this, head, last);
  session_.mark();
}

void H2Stream::send_interim(const ResponseHead& head) {
  if (closed_) return;
  session_.submit_response(*this, head, true, false);
  session_.mark();
}

void H2Stream::send_response(const ResponseHead& head, bool last) {
  if (closed_) return;
  OUTRIDER_ASSERT(!out_ended_);
  out_ended_ = last;
  session_.submit_response(*this, head, false, last);
  session_.mark();
}

void H2Stream::send_body(std::string_view bytes, bool last) {
  if (closed_) return;
  OUTRIDER_ASSERT(!out_ended_);
  out_.append(bytes);
  out_ended_ = last;
  if (out_.size() > limits::kHighWater) above_high_ = true;
  if (deferred_ && (last || !bytes.empty())) {
    deferred_ = false;
    nghttp2_session_resume_data(session_.session_, id_);
  }
  session_.mark();
}

void H2Stream::send_trailers(const Headers& trailers) {
  if (!trailers.empty()) trailers_ = trailers;
  send_body({}, true);
}

void H2Stream::hold(bool held) {
  held_ = held;
  if (held || closed_ || uncredited_ < H2Session::kCreditBatch) return;
  nghttp2_session_consume_stream(session_.session_, id_, std::exchange(uncredited_, 0));
  session_.mark();
}

void H2Stream::close_after() { session_.drain(true); }

void H2Stream::reset(ResetCode code) {
  H2Session& session = session_;
  if (id_ != 0 && !closed_ && !session.dead_) {
    session.reset_stream(id_, code_of(code));
    session.forget(*this);
  }
  session.recycle(*this);
}

void H2Stream::release() {
  H2Session& session = session_;
  if (id_ != 0 && !closed_ && !session.dead_) {
    if (!sent_ || !in_ended_) session.reset_stream(id_, sent_ ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
    session.forget(*this);
  }
  session.recycle(*this);
}

// --- Session

const nghttp2_option* H2Session::options() {
  static const nghttp2_option* const kOptions = [] {
    nghttp2_option* option = nullptr;
    OUTRIDER_ASSERT(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_peer_max_concurrent_streams(option, limits::kStreams);
    nghttp2_option_set_max_send_header_block_length(option, kHeadBytesSent);
    nghttp2_option_set_max_outbound_ack(option, limits::kControlFrames);
    // Both are counted by us, with codes and a clock of ours; nghttp2 counts reads, too, when a
    // frame head comes in pieces.
    nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX, UINT64_MAX);
    nghttp2_option_set_max_continuations(option, UINT32_MAX);
    return option;
  }();
  return kOptions;
}

const nghttp2_session_callbacks* H2Session::callbacks(bool server,
                                                      nghttp2_on_header_callback on_header) {
  static const auto make = [](nghttp2_on_header_callback header) {
    nghttp2_session_callbacks* made = nullptr;
    OUTRIDER_ASSERT(nghttp2_session_callbacks_new(&made) == 0);
    using Session = nghttp2_session;
    nghttp2_session_callbacks_set_on_header_callback(made, header);
    nghttp2_session_callbacks_set_on_begin_headers_callback(
        made, [](Session*, const nghttp2_frame* frame, void* self) noexcept {
          return static_cast<H2Session*>(self)->on_begin_headers(*frame);
        });
    nghttp2_session_callbacks_set_on_begin_frame_callback(
        made, [](Session*, const nghttp2_frame_hd* head, void* self) noexcept {
          static_cast<H2Session*>(self)->data_left_ = static_cast<std::uint32_t>(head->length);
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        made, [](Session*, std::uint8_t flags, std::int32_t id, const std::uint8_t* bytes,
                 std::size_t size, void* self) noexcept {
          return static_cast<H2Session*>(self)->on_data(flags, id, {chars(bytes), size});
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        made, [](Session*, const nghttp2_frame* frame, void* self) noexcept {
          static_cast<H2Session*>(self)->on_frame_received(*frame);
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_send_callback(
        made, [](Session*, const nghttp2_frame* frame, void* self) noexcept {
          static_cast<H2Session*>(self)->on_frame_sent(*frame);
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_not_send_callback(
        made, [](Session*, const nghttp2_frame* frame, int error, void* self) noexcept {
          static_cast<H2Session*>(self)->on_frame_not_sent(*frame, error);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        made, [](Session*, std::int32_t id, std::uint32_t code, void* self) noexcept {
          static_cast<H2Session*>(self)->on_stream_closed(id, code);
          return 0;
        });
    nghttp2_session_callbacks_set_send_data_callback(
        made, [](Session*, nghttp2_frame*, const std::uint8_t* head, std::size_t length,
                 nghttp2_data_source* source, void* self) noexcept {
          auto& stream = *static_cast<H2Stream*>(source->ptr);
          return static_cast<H2Session*>(self)->on_send_data(head, length, stream);
        });
    return made;
  };
  if (server) {
    static const nghttp2_session_callbacks* const kServer = make(on_header);
    return kServer;
  }
  static const nghttp2_session_callbacks* const kClient = make(on_header);
  return kClient;
}

H2Session::H2Session(Wire& wire, const CodecSettings& settings, bool server,
                     nghttp2_on_header_callback on_header)
    : wire_(wire),
      settings_(settings),
      memory_(H2Memory::of_this_thread()),
      session_memory_(memory_),
      preface_left_(server ? NGHTTP2_CLIENT_MAGIC_LEN : 0),
      server_(server) {
  const auto make = server ? nghttp2_session_server_new3 : nghttp2_session_client_new3;
  {
    const SessionMemory::Making making(session_memory_);
    const int made =
        make(&session_, callbacks(server, on_header), this, options(), &memory_.for_nghttp2());
    OUTRIDER_ASSERT(made == 0);
  }
  begin();
}

H2Session::~H2Session() {
  wake();
  while (streams_ != nullptr) recycle(*streams_);
  nghttp2_session_del(session_);
}

// What opens the connection leaves at once: the client's preface waits in the frame buffer that all
// sessions share.
void H2Session::begin() {
  std::array<nghttp2_settings_entry, 4> entries;
  std::size_t count = 0;
  const auto entry = [&](int id, std::uint32_t value) { entries[count++] = {id, value}; };
  // nghttp2 ends the connection of a peer that opens more streams than it may; we refuse the
  // stream. So nghttp2 is told another limit, and the true one is written over it below.
  if (server_)
    entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kUnlimited);
  else
    entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0);
  entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits::kH2Window);
  if (server_) entry(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1);
  if (settings_.max_header_bytes != 0)
    entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(std::min<std::size_t>(
                                                     settings_.max_header_bytes, UINT32_MAX)));
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries.data(), count);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                        limits::kH2ConnectionWindow);

  const std::uint8_t* bytes = nullptr;
  for (ssize_t size; (size = nghttp2_session_mem_send(session_, &bytes)) > 0;) {
    std::array<char, 64> piece;
    OUTRIDER_ASSERT(static_cast<std::size_t>(size) <= piece.size());
    std::memcpy(piece.data(), bytes, static_cast<std::size_t>(size));
    if (server_ && bytes[3] == NGHTTP2_SETTINGS && settings_.max_streams != 0)
      for (std::size_t i = 0; i < 4; ++i)
        piece[kFrameHead + 2 + i] = static_cast<char>(settings_.max_streams >> (24 - 8 * i));
    wire_.out.append({piece.data(), static_cast<std::size_t>(size)});
  }
  mark();
}

void H2Session::submit_request(H2Stream&, const RequestHead&, bool) {
  OUTRIDER_ASSERT(false && "server stream");
}
void H2Session::submit_response(H2Stream&, const ResponseHead&, bool, bool) {
  OUTRIDER_ASSERT(false && "client stream");
}

void H2Session::feed(std::string_view bytes) {
  if (dead_) return;
  wake();
  feeding_ = true;
  open_stream_ = 0;
  scan(bytes);
  feeding_ = false;
  settle();
  if (resting_) wire_.wake();  // what needed no answer ends no rest
}

void H2Session::on_eof() {
  if (dead_) return;
  // Towards an upstream the connection goes first, so that its place under the service's limits is
  // free when the requests look for another.
  dead_ = true;
  wire_.close(server_ || stream_count_ == 0 ? Wire::Close::kFlush : Wire::Close::kReset);
  end_streams(End::kGone);
}

void H2Session::on_broken() {
  dead_ = true;
  end_streams(End::kGone);
}

void H2Session::pump() {
  dirty_ = false;
  if (dead_) return;
  wake();
  serialise(limits::kHighWater);
  settle();
}

void H2Session::on_flushed() {
  if (dead_) return;
  wake();
  if (wire_.out.size() < limits::kHighWater && nghttp2_session_want_write(session_)) {
    serialise(limits::kHighWater);
    if (!wire_.out.empty()) wire_.wake();
  }
  settle();
  if (resting_) rest();
}

// Nobody has needed it for a while, and perhaps nobody will for longer.
void H2Session::rest() {
  if (dead_ || !idle()) return;
  resting_ = true;  // as soon as nothing is left to send
  if (open_count_ != 0 || dirty_ || session_memory_.is_aside()) return;
  session_memory_.put_aside();
}

void H2Session::drain(bool final) {
  if (dead_ || final_) return;
  wake();
  if (!final) {
    if (!server_ || std::exchange(noticed_, true)) return;
    nghttp2_submit_shutdown_notice(session_);
    return mark();
  }
  final_ = true;
  goaway_last_ = nghttp2_session_get_last_proc_stream_id(session_);
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, goaway_last_, NGHTTP2_NO_ERROR, nullptr, 0);
  mark();
}

bool H2Session::in_head() const {
  if (!server_) return false;
  if (preface_left_ != 0 || !settings_seen_ || block_open_) return true;
  if (payload_left_ != 0 && (frame_.type == NGHTTP2_HEADERS || frame_.type == NGHTTP2_CONTINUATION))
    return true;
  return stream_count_ == 0 && (head_size_ != 0 || payload_left_ != 0);
}

void H2Session::expire_head() {
  if (dead_) return;
  wake();
  fail(NGHTTP2_NO_ERROR, Reason::kClientTimeout, "a header block did not come in time");
  settle();
}

bool H2Session::idle() const {
  return stream_count_ == 0 && preface_left_ == 0 && head_size_ == 0 && payload_left_ == 0 &&
         !block_open_;
}

// --- Streams and their ends

H2Stream* H2Session::find(std::int32_t id) {
  if (current_ == nullptr || current_->id_ != id || current_->closed_)
    current_ = static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session_, id));
  return current_;
}

H2Stream* H2Session::new_stream(std::int32_t id) {
  resting_ = false;
  auto* const stream = new H2Stream(*this, id);
  stream->next_ = streams_;
  if (streams_ != nullptr) streams_->prev_ = stream;
  streams_ = stream;
  ++stream_count_;
  return stream;
}

void H2Session::recycle(H2Stream& stream) {
  (stream.prev_ == nullptr ? streams_ : stream.prev_->next_) = stream.next_;
  if (stream.next_ != nullptr) stream.next_->prev_ = stream.prev_;
  --stream_count_;
  if (stream.id_ == 0) --open_count_;
  if (current_ == &stream) current_ = nullptr;
  if (sending_ == &stream) sending_ = nullptr;
  if (block_.stream == &stream) block_.stream = nullptr;
  delete &stream;
  if (stream_count_ == 0 && !dead_ && (final_ || goaway_received_)) mark();  // time to close
}

void H2Session::forget(H2Stream& stream) {
  nghttp2_session_set_stream_user_data(session_, stream.id_, nullptr);
}

void H2Session::reset_stream(std::int32_t id, std::uint32_t code) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, code);
  in_flight_ = std::min(in_flight_ + limits::kH2Window, limits::kH2ConnectionWindow);
  mark();
}

void H2Session::drop(H2Stream& stream, std::string_view detail, std::uint32_t code) {
  const Error error = error_of(stream, End::kMalformed, code);
  StreamSink& sink = *stream.sink_;
  reset_stream(stream.id_, code);
  forget(stream);
  recycle(stream);
  if (server_) spend_reset();
  sink.on_reset(error, detail);
}

void H2Session::on_stream_closed(std::int32_t id, std::uint32_t code) {
  if (dead_) return;
  --open_count_;
  H2Stream* const stream = find(id);
  current_ = nullptr;
  if (stream == nullptr) return;
  stream->closed_ = true;
  if (stream->in_ended_ && stream->sent_) return;  // whole; its owner releases it
  if (!server_ &&
      stream->in_ended_) {  // answered before the request was through: the rest is not wanted
    stream->out_.clear();
    stream->out_ended_ = true;
    return tell_sent(*stream);
  }
  // nghttp2 itself resets a stream for its flow control, and refuses one above the last of a
  // GOAWAY.
  const bool left_behind = code == NGHTTP2_REFUSED_STREAM && id != reset_by_peer_;
  const bool by_peer = id == reset_by_peer_ || left_behind;
  const Error error = error_of(*stream,
                               left_behind ? End::kLeftBehind
                               : by_peer   ? End::kPeerReset
                                           : End::kMalformed,
                               code);
  StreamSink& sink = *stream->sink_;
  recycle(*stream);
  if (server_ && !by_peer) spend_reset();
  sink.on_reset(error, by_peer ? kReset : kFlowControl);
}

void H2Session::end_streams(End end) {
  while (streams_ != nullptr) {
    const Error error = error_of(*streams_, end, NGHTTP2_NO_ERROR);
    StreamSink& sink = *streams_->sink_;
    recycle(*streams_);
    sink.on_reset(error, end == End::kFailed ? fail_detail_ : kGone);
  }
}

void H2Session::fail(std::uint32_t code, Reason reason, std::string_view detail) {
  if (failed_ || dead_) return;
  failed_ = true;
  fail_reason_ = reason;
  fail_detail_ = detail;
  nghttp2_session_terminate_session(session_, code);
}

void H2Session::spend_reset() {
  if (!budgets_.spend_reset(wire_.now_ms()))
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest, "streams opened only to be reset");
}

void H2Session::spend_control() {
  if (!budgets_.spend_control(wire_.now_ms()))
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest, "control frames without progress");
}

// The end of feed(), pump() and on_flushed(), when nothing of nghttp2 is on the call stack.
void H2Session::settle() {
  if (dead_) return;
  if (failed_) return finish();
  const bool wants_write = nghttp2_session_want_write(session_) != 0;
  if (stream_count_ == 0 && !wants_write && nghttp2_session_want_read(session_) == 0) {
    dead_ = true;  // what still comes are answers to what was sent: no reset before that is read
    return wire_.close(server_ ? Wire::Close::kLinger : Wire::Close::kFlush);
  }
  if (wants_write && wire_.out.size() < limits::kHighWater) mark();  // else on_flushed() goes on
  on_settled();
}

void H2Session::finish() {
  dead_ = true;
  end_streams(End::kFailed);
  serialise(SIZE_MAX);  // the GOAWAY: nghttp2 packs nothing else once it is ending
  on_failed();
  wire_.close(Wire::Close::kLinger);
}

}  // namespace outrider
