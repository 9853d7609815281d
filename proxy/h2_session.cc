// The half of HTTP/2 that client and server share. Bytes pass a scanner of frame heads first: it counts what costs us without serving
// anybody, drops PRIORITY (RFC 9113 §5.3.2 lets us), and tells a closed stream from one that was never opened, which nghttp2 forgets.
#include "proxy/h2_session.h"

#include <algorithm>
#include <array>
#include <vector>

namespace outrider {
namespace {

constexpr std::size_t kFrameHead = 9;
constexpr std::uint32_t kCreditBatch = limits::kH2Window / 4;  // window given back in pieces of this size: one look-up for many frames
constexpr std::uint32_t kContinuations = 64;                   // of one header block, beyond what a full one needs
constexpr std::uint32_t kUnlimited = 1U << 30;
constexpr std::size_t kHeadBytesSent = 16 * 1024 * 1024;       // heads were bounded when they came in
static_assert(NGHTTP2_VERSION_NUM >= 0x013400);

constexpr std::string_view kGone = "the connection closed";
constexpr std::string_view kReset = "the peer reset the stream";
constexpr std::string_view kFlowControl = "the peer overran a flow-control window";
constexpr std::string_view kConnectionError = "a connection error of HTTP/2";

const char* chars(const std::uint8_t* bytes) { return reinterpret_cast<const char*>(bytes); }
std::uint8_t* octets(const char* text) {
  return reinterpret_cast<std::uint8_t*>(const_cast<char*>(text));  // nghttp2_nv is not const-correct; nothing is written
}

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

// From the front of one buffer to the end of another.
void move_bytes(OutBuffer& from, OutBuffer& to, std::size_t bytes) {
  while (bytes != 0) {
    std::array<iovec, 2> pieces;
    const int count = from.peek(pieces.data(), static_cast<int>(pieces.size()));
    std::size_t moved = 0;
    for (int i = 0; i < count && moved < bytes; ++i) {
      const std::size_t part = std::min(pieces[static_cast<std::size_t>(i)].iov_len, bytes - moved);
      to.append({static_cast<const char*>(pieces[static_cast<std::size_t>(i)].iov_base), part});
      moved += part;
    }
    from.drop(moved);
    bytes -= moved;
  }
}

std::vector<nghttp2_nv>& scratch_fields() {
  thread_local std::vector<nghttp2_nv> fields;
  return fields;
}

// Values that are new with every message would only push useful entries out of the peer's table.
bool is_unique(HeaderId id) {
  using enum HeaderId;
  switch (id) {
    case kXRequestId:
    case kTraceparent:
    case kTracestate:
    case kGrpcTimeout:
    case kSecWebsocketKey:
    case kIdempotencyKey: return true;
    default: return false;
  }
}

std::string_view lower_name(const Header& header, Arena& arena) {
  if (header.id != HeaderId::kUnknown) return header_name(header.id);
  const auto upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  if (std::none_of(header.name.begin(), header.name.end(), upper)) return header.name;
  char* const name = arena.bytes(header.name.size());
  std::transform(header.name.begin(), header.name.end(), name,
                 [&](char c) { return upper(c) ? static_cast<char>(c | 0x20) : c; });
  return {name, header.name.size()};
}

std::string_view digits(std::uint64_t number, Arena& arena) {
  std::array<char, 20> text;
  std::size_t at = text.size();
  do {
    text[--at] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  return arena.copy({text.data() + at, text.size() - at});
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
  out_ended_ = last;
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
  if (held || closed_ || uncredited_ < kCreditBatch) return;
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
    // Both are counted by us, with codes and a clock of ours; nghttp2 counts reads, too, when a frame head comes in pieces.
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
      preface_left_(server ? NGHTTP2_CLIENT_MAGIC_LEN : 0),
      server_(server) {
  const auto make = server ? nghttp2_session_server_new3 : nghttp2_session_client_new3;
  {
    const H2Memory::SharedFrame shared(memory_);
    const int made = make(&session_, callbacks(server, on_header), this, options(),
                          &memory_.for_nghttp2());
    OUTRIDER_ASSERT(made == 0);
  }
  begin();
}

H2Session::~H2Session() {
  while (streams_ != nullptr) recycle(*streams_);
  nghttp2_session_del(session_);
}

// What opens the connection leaves at once: the client's preface waits in the frame buffer that all sessions share.
void H2Session::begin() {
  std::array<nghttp2_settings_entry, 4> entries;
  std::size_t count = 0;
  const auto entry = [&](int id, std::uint32_t value) { entries[count++] = {id, value}; };
  // nghttp2 ends the connection of a peer that opens more streams than it may; we refuse the stream. So nghttp2 is told another limit,
  // and the true one is written over it below.
  if (server_)
    entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kUnlimited);
  else
    entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0);
  entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits::kH2Window);
  if (server_) entry(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1);
  if (settings_.max_header_bytes != 0)
    entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
          static_cast<std::uint32_t>(std::min<std::size_t>(settings_.max_header_bytes, UINT32_MAX)));
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries.data(), count);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, limits::kH2ConnectionWindow);

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

void H2Session::submit_request(H2Stream&, const RequestHead&, bool) { OUTRIDER_ASSERT(false && "server stream"); }
void H2Session::submit_response(H2Stream&, const ResponseHead&, bool, bool) { OUTRIDER_ASSERT(false && "client stream"); }

void H2Session::feed(std::string_view bytes) {
  if (dead_) return;
  feeding_ = true;
  open_stream_ = 0;
  scan(bytes);
  feeding_ = false;
  settle();
}

void H2Session::on_eof() {
  if (dead_) return;
  dead_ = true;
  end_streams(End::kGone);
  wire_.close(Wire::Close::kFlush);
}

void H2Session::on_broken() {
  dead_ = true;
  end_streams(End::kGone);
}

void H2Session::pump() {
  dirty_ = false;
  if (dead_) return;
  serialise(limits::kHighWater);
  settle();
}

void H2Session::on_flushed() {
  if (dead_) return;
  if (wire_.out.size() < limits::kHighWater && nghttp2_session_want_write(session_)) {
    serialise(limits::kHighWater);
    if (!wire_.out.empty()) wire_.wake();
  }
  settle();
}

void H2Session::drain(bool final) {
  if (dead_ || final_) return;
  if (!final) {
    if (server_) nghttp2_submit_shutdown_notice(session_);
    mark();
    return;
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
  fail(NGHTTP2_NO_ERROR, Reason::kClientTimeout, "a header block did not come in time");
  settle();
}

bool H2Session::idle() const {
  return stream_count_ == 0 && preface_left_ == 0 && head_size_ == 0 && payload_left_ == 0 &&
         !block_open_;
}

// --- Frames on their way in

void H2Session::scan(std::string_view bytes) {
  const char* run = bytes.data();  // from here on nghttp2 has not seen it
  const char* at = run;
  const char* const end = at + bytes.size();
  const auto frame_of = [](const char* head) {
    const auto byte = [head](int i) { return static_cast<std::uint32_t>(static_cast<std::uint8_t>(head[i])); };
    return Frame{.length = byte(0) << 16 | byte(1) << 8 | byte(2),
                 .type = static_cast<std::uint8_t>(head[3]),
                 .flags = static_cast<std::uint8_t>(head[4]),
                 .stream = static_cast<std::int32_t>((byte(5) & 0x7f) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8))};
  };
  while (at != end && !failed_) {
    const auto left = static_cast<std::size_t>(end - at);
    if (preface_left_ != 0) {
      const std::size_t part = std::min<std::size_t>(left, preface_left_);
      if (std::memcmp(NGHTTP2_CLIENT_MAGIC + NGHTTP2_CLIENT_MAGIC_LEN - preface_left_, at, part) != 0)
        return fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "not a connection preface of HTTP/2");
      preface_left_ -= static_cast<std::uint8_t>(part);
      at += part;
    } else if (payload_left_ != 0) {
      const std::size_t part = std::min<std::size_t>(left, payload_left_);
      if (skipping_) inspect_priority({at, part});
      if (!outline_.done()) inspect_block({at, part});
      payload_left_ -= static_cast<std::uint32_t>(part);
      at += part;
      if (skipping_) run = at;
    } else if (head_size_ == 0 && left >= kFrameHead) {
      const Frame frame = frame_of(at);
      skipping_ = !inspect(frame, run, at);
      if (skipping_) give(run, at);
      at += kFrameHead;
      if (skipping_) run = at;
      payload_left_ = frame.length;
    } else {  // a frame head in pieces: nghttp2 gets it when it is whole
      give(run, at);
      const std::size_t part = std::min(left, kFrameHead - head_size_);
      std::memcpy(head_ + head_size_, at, part);
      head_size_ += static_cast<std::uint8_t>(part);
      run = at += part;
      if (head_size_ < kFrameHead) continue;
      head_size_ = 0;
      const Frame frame = frame_of(head_);
      skipping_ = !inspect(frame, run, at);
      if (!skipping_) give(head_, head_ + kFrameHead);
      payload_left_ = frame.length;
    }
  }
  give(run, at);
}

void H2Session::give(const char* from, const char* to) {
  if (from == to || failed_) return;
  const ssize_t taken = nghttp2_session_mem_recv(session_, octets(from), static_cast<std::size_t>(to - from));
  if (taken >= 0) return;
  OUTRIDER_ASSERT(taken != NGHTTP2_ERR_NOMEM);
  if (taken == NGHTTP2_ERR_FLOODED)
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest, "more PING or SETTINGS than answers are taken");
  else
    fail(NGHTTP2_INTERNAL_ERROR, Reason::kBadRequest, kConnectionError);
}

bool H2Session::inspect(const Frame& frame, const char*& run, const char* at) {
  frame_ = frame;
  if (frame.type != NGHTTP2_CONTINUATION) outline_.end();
  const std::int32_t open_stream = std::exchange(open_stream_, 0);
  const auto closed = [&] {  // what came before may open or close the stream
    give(run, at);
    run = at;
    return !failed_ && !is_open(frame.stream);
  };
  if (block_open_ || !settings_seen_) {  // anything but what belongs here is an error that nghttp2 finds
    if (block_open_ && frame.type == NGHTTP2_CONTINUATION) inspect_continuation(frame);
    settings_seen_ = settings_seen_ || frame.type == NGHTTP2_SETTINGS;
    return true;
  }
  const bool by_peer = server_ && (frame.stream & 1) != 0;
  switch (frame.type) {
    case NGHTTP2_DATA:
      if (frame.length == 0 && (frame.flags & NGHTTP2_FLAG_END_STREAM) == 0) spend_control();
      if (by_peer && frame.stream != open_stream && frame.stream <= last_id_ && closed()) {
        on_closed_stream(frame);
      } else if ((frame.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        open_stream_ = frame.stream;
      }
      return true;
    case NGHTTP2_HEADERS:
      block_open_ = (frame.flags & NGHTTP2_FLAG_END_HEADERS) == 0;
      continuations_ = empty_continuations_ = 0;
      outline_.begin(static_cast<std::uint8_t>(((frame.flags & NGHTTP2_FLAG_PADDED) != 0 ? 1 : 0) +
                                               ((frame.flags & NGHTTP2_FLAG_PRIORITY) != 0 ? 5 : 0)),
                     !block_open_ || (frame.flags & NGHTTP2_FLAG_PADDED) != 0);
      if (by_peer && frame.stream > last_id_) {
        const std::int32_t next = last_id_ == 0 ? 1 : last_id_ + 2;
        if (frame.stream > next) {
          skipped_from_ = next;
          skipped_to_ = frame.stream - 2;
        }
        last_id_ = frame.stream;
        if ((frame.flags & NGHTTP2_FLAG_END_STREAM) == 0) open_stream_ = frame.stream;
      } else if (by_peer && closed()) {
        on_closed_stream(frame);
      }
      return true;
    case NGHTTP2_PRIORITY:
      spend_control();
      if (frame.length != 5)
        fail(NGHTTP2_FRAME_SIZE_ERROR, Reason::kBadRequest, "a PRIORITY frame of another size than 5");
      else if (frame.stream == 0)
        fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "PRIORITY on stream 0");
      return false;
    case NGHTTP2_PUSH_PROMISE:
      fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "PUSH_PROMISE");
      return true;
    case NGHTTP2_RST_STREAM:     // counted when its stream is known
    case NGHTTP2_CONTINUATION:   // nghttp2's to refuse
      return true;
    default:  // SETTINGS, PING, GOAWAY, WINDOW_UPDATE and what nobody knows
      spend_control();
      return true;
  }
}

void H2Session::inspect_continuation(const Frame& frame) {
  if ((frame.flags & NGHTTP2_FLAG_END_HEADERS) != 0) block_open_ = false;
  if (frame.length == 0) ++empty_continuations_;
  const std::size_t needed = settings_.max_header_bytes / (4 * 1024);  // four times the limit in full frames
  if (++continuations_ > kContinuations + needed || empty_continuations_ >= limits::kEmptyContinuations)
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest, "too many CONTINUATION frames");
}

void H2Session::inspect_block(std::string_view payload) {
  switch (outline_.read(payload)) {
    case HpackOutline::Fault::kNone: return;
    case HpackOutline::Fault::kSizeUpdates:
      return fail(NGHTTP2_COMPRESSION_ERROR, Reason::kBadRequest, "too many table size updates");
    case HpackOutline::Fault::kLongString:
      return fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kHeaderTooLarge, "a field longer than any header block may be");
  }
}

// The dependency comes first in the payload of PRIORITY.
void H2Session::inspect_priority(std::string_view payload) {
  for (std::size_t i = 0; i < payload.size(); ++i) {
    const std::size_t at = 5 - payload_left_ + i;
    if (at < sizeof priority_) priority_[at] = payload[i];
    if (at + 1 != sizeof priority_) continue;
    std::uint32_t parent = 0;
    for (const char byte : priority_) parent = parent << 8 | static_cast<std::uint8_t>(byte);
    if (static_cast<std::int32_t>(parent & 0x7fffffff) == frame_.stream)
      fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "a stream that depends on itself");
  }
}

bool H2Session::is_open(std::int32_t id) {
  if (find(id) != nullptr) return true;
  nghttp2_stream* const stream = nghttp2_session_find_stream(session_, id);
  return stream != nullptr && nghttp2_stream_get_state(stream) != NGHTTP2_STREAM_STATE_IDLE &&
         nghttp2_stream_get_state(stream) != NGHTTP2_STREAM_STATE_CLOSED;
}

void H2Session::on_closed_stream(const Frame& frame) {
  if (frame.stream <= highest_reset_ || frame.stream > goaway_last_) return spend_control();
  if (frame.stream >= skipped_from_ && frame.stream <= skipped_to_)
    fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "a stream identifier that was passed over");
  else
    fail(NGHTTP2_STREAM_CLOSED, Reason::kBadRequest, "a frame on a closed stream");
}

int H2Session::on_data(std::uint8_t flags, std::int32_t id, std::string_view bytes) {
  nghttp2_session_consume_connection(session_, bytes.size());
  data_left_ -= static_cast<std::uint32_t>(bytes.size());
  H2Stream* const stream = find(id);
  if (stream == nullptr || stream->in_dead_) return 0;
  budgets_.earn(bytes.size());
  stream->received_ += bytes.size();
  if (!server_ && !stream->head_done_) {
    drop(*stream, "a body before the head");
    return 0;
  }
  if (stream->bodyless_ || stream->received_ > stream->expected_) {
    drop(*stream, "more body than announced");
    return 0;
  }
  // Padding counts in data_left_, so that the end of a padded frame comes as an empty body.
  const bool last = data_left_ == 0 && (flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (last && !end_incoming(*stream)) return 0;
  if (!last) {
    stream->uncredited_ += static_cast<std::uint32_t>(bytes.size());
    if (!stream->held_ && stream->uncredited_ >= kCreditBatch)
      nghttp2_session_consume_stream(session_, id, std::exchange(stream->uncredited_, 0));
  }
  stream->sink_->on_body(bytes, last);
  return 0;
}

bool H2Session::end_incoming(H2Stream& stream) {
  if (!stream.bodyless_ && stream.expected_ != H2Stream::kAnyLength &&
      stream.received_ != stream.expected_) {
    drop(stream, "less body than announced");
    return false;
  }
  stream.in_ended_ = true;
  return true;
}

void H2Session::on_frame_received(const nghttp2_frame& frame) {
  const bool last = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame.hd.type) {
    case NGHTTP2_DATA:
      if (!last) return;
      if (H2Stream* const stream = find(frame.hd.stream_id); stream != nullptr && !stream->in_ended_) {
        if (stream->in_dead_)
          stream->in_ended_ = true;
        else if (!server_ && !stream->head_done_)
          drop(*stream, "a body before the head");
        else if (end_incoming(*stream))
          stream->sink_->on_body({}, true);
      }
      return;
    case NGHTTP2_HEADERS:
      if (block_.stream == nullptr) return;
      if (block_.skip) {
        block_.stream->in_ended_ = block_.stream->in_ended_ || last;
      } else {
        budgets_.earn(block_.bytes);
        on_block(last);
      }
      block_.stream = nullptr;
      return;
    case NGHTTP2_RST_STREAM:
      if (find(frame.hd.stream_id) == nullptr) return spend_control();
      reset_by_peer_ = frame.hd.stream_id;
      if (server_) spend_reset();
      return;
    case NGHTTP2_GOAWAY:
      goaway_received_ = true;
      return on_frame(frame);
    default: return on_frame(frame);
  }
}

// --- Header blocks

void H2Session::begin_block(H2Stream& stream, Headers& fields, bool trailers) {
  block_ = Block{.stream = &stream, .fields = &fields, .trailers = trailers};
}

int H2Session::begin_trailers(std::int32_t id, Headers* (*fields_of)(H2Stream&)) {
  H2Stream* const stream = find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // reset already: nghttp2 skips the block
  begin_block(*stream, *fields_of(*stream), true);
  block_.skip = stream->in_dead_;
  if (block_.skip) return 0;
  Arena& arena = block_.fields->arena();
  block_.fields = arena.make<Headers>(arena);
  return 0;
}

bool H2Session::count_field(std::string_view name, std::string_view value) {
  block_.bytes += name.size() + value.size() + 32;
  const std::size_t limit = settings_.max_header_bytes;
  if (limit != 0 && block_.bytes > limit) {
    block_.too_large = true;
    if (block_.bytes > 4 * limit) {
      fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kHeaderTooLarge, "a header block four times as large as allowed");
      return false;
    }
  }
  const std::size_t most = server_ ? settings_.max_fields : limits::kUpstreamFields;
  if (most != 0 && (name.empty() || name[0] != ':') && ++block_.count > most) block_.too_large = true;
  return true;
}

// Visible bytes alone, eight at a time: none below 0x21 and no DEL; 0x80-0xff are left to who reads the text.
bool H2Session::plain(std::string_view text) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHigh = kOnes * 0x80;
  const char* at = text.data();
  std::size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    const std::uint64_t del = word ^ kOnes * 0x7f;
    if ((((word - kOnes * 0x21) & ~word) | ((del - kOnes) & ~del)) & kHigh) return false;
  }
  for (; left != 0; ++at, --left)
    if (static_cast<std::uint8_t>(*at) <= ' ' || *at == 0x7f) return false;
  return true;
}

std::string_view H2Session::check_field(std::string_view name, std::string_view value, HeaderId& id) {
  id = header_id(name);
  if (id == HeaderId::kUnknown ? nghttp2_check_header_name(octets(name.data()), name.size()) == 0
                               : name != header_name(id))
    return "a field name that is not a lower-case token";
  if (!plain(value) && nghttp2_check_header_value_rfc9113(octets(value.data()), value.size()) == 0)
    return "a control byte, or a space at an end, in a field value";
  using enum HeaderId;
  switch (id) {
    case kConnection:
    case kKeepAlive:
    case kProxyConnection:
    case kTransferEncoding:
    case kUpgrade: return "a field that HTTP/2 does not know";
    case kTe: return equal_ignoring_case(value, "trailers") ? std::string_view() : "a te other than trailers";
    default: return {};
  }
}

void H2Session::store_field(HeaderId id, std::string_view name, std::string_view value) {
  Headers& fields = *block_.fields;
  Arena& arena = fields.arena();
  fields.add(id, id == HeaderId::kUnknown ? arena.copy(name) : header_name(id), arena.copy(value));
}

std::string_view H2Session::read_trailer(std::string_view name, std::string_view value) {
  if (!name.empty() && name[0] == ':') return "a pseudo-header among trailers";
  HeaderId id;
  const std::string_view wrong = check_field(name, value, id);
  if (!wrong.empty()) return wrong;
  if ((header_flags(id) & (kHopByHop | kFraming | kNoTrailer)) == 0) store_field(id, name, value);
  return {};
}

std::string_view H2Session::read_length(std::string_view value, std::uint64_t& length) {
  constexpr std::string_view kBad = "a content-length that is not a number";
  if (value.empty() || value.size() > 19) return kBad;
  std::uint64_t number = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') return kBad;
    number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (number > INT64_MAX) return kBad;
  if (length != H2Stream::kAnyLength) return "two content-length fields";
  length = number;
  return {};
}

void H2Session::finish_trailers(bool last) {
  H2Stream& stream = *block_.stream;
  if (!last) return drop(stream, "trailers that do not end the stream");
  if (!end_incoming(stream)) return;
  stream.sink_->on_trailers(*block_.fields);
}

// --- Streams and their ends

H2Stream* H2Session::find(std::int32_t id) {
  if (current_ == nullptr || current_->id_ != id || current_->closed_)
    current_ = static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session_, id));
  return current_;
}

H2Stream* H2Session::new_stream(std::int32_t id) {
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
  if (!server_ && stream->in_ended_) {             // answered before the request was through: the rest is not wanted
    stream->out_.clear();
    stream->out_ended_ = true;
    return tell_sent(*stream);
  }
  // nghttp2 itself resets a stream for its flow control, and refuses one above the last of a GOAWAY.
  const bool by_peer = id == reset_by_peer_ || code == NGHTTP2_REFUSED_STREAM;
  const Error error = error_of(*stream, by_peer ? End::kPeerReset : End::kMalformed, code);
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
    dead_ = true;
    return wire_.close(Wire::Close::kFlush);
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

// --- Frames on their way out

void H2Session::serialise(std::size_t high_water) {
  if (pumping_) return;
  pumping_ = true;
  while (wire_.out.size() < high_water) {
    const std::uint8_t* bytes = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
    OUTRIDER_ASSERT(size >= 0);
    if (size == 0) break;
    wire_.out.append({chars(bytes), static_cast<std::size_t>(size)});
  }
  pumping_ = false;
}

ssize_t H2Session::read_body(nghttp2_session* session, std::int32_t id, std::uint8_t*, std::size_t length,
                             std::uint32_t* flags, nghttp2_data_source* source, void* self) {
  auto& codec = *static_cast<H2Session*>(self);
  if (codec.dead_) return NGHTTP2_ERR_DEFERRED;
  auto& stream = *static_cast<H2Stream*>(source->ptr);
  const std::size_t size = std::min(length, stream.out_.size());
  if (size == 0 && !stream.out_ended_) {
    stream.deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (size < stream.out_.size() || !stream.out_ended_) return static_cast<ssize_t>(size);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (!stream.trailers_) return static_cast<ssize_t>(size);
  codec.begin_fields();
  codec.add_fields(*stream.trailers_, stream, H2Stream::kAnyLength, true);
  if (!fields().empty()) {
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, id, fields().data(), fields().size());
  }
  return static_cast<ssize_t>(size);
}

int H2Session::on_send_data(const std::uint8_t* head, std::size_t length, H2Stream& stream) {
  wire_.out.append({chars(head), kFrameHead});
  move_bytes(stream.out_, wire_.out, length);
  budgets_.earn(length);
  sending_ = &stream;
  if (stream.above_high_ && stream.out_.size() <= limits::kLowWater) {
    stream.above_high_ = false;
    stream.sink_->on_writable();  // may end the stream
  }
  return wire_.out.size() < limits::kHighWater ? 0 : NGHTTP2_ERR_PAUSE;
}

void H2Session::on_frame_sent(const nghttp2_frame& frame) {
  if (dead_) return;
  const bool last = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
      if (frame.headers.cat == NGHTTP2_HCAT_REQUEST) last_request_ = frame.hd.stream_id;
      if (H2Stream* const stream = last ? find(frame.hd.stream_id) : nullptr) tell_sent(*stream);
      return;
    case NGHTTP2_DATA:
      if (last && sending_ != nullptr) tell_sent(*sending_);
      return;
    case NGHTTP2_RST_STREAM: highest_reset_ = std::max(highest_reset_, frame.hd.stream_id); return;
    case NGHTTP2_GOAWAY:
      if (failed_ || frame.goaway.error_code == NGHTTP2_NO_ERROR) return;
      failed_ = true;  // a rule that nghttp2 itself found broken
      fail_detail_ = kConnectionError;
      return;
    default: return;
  }
}

void H2Session::on_frame_not_sent(const nghttp2_frame& frame, int error) {
  if (dead_ || frame.hd.type != NGHTTP2_HEADERS || error != NGHTTP2_ERR_FRAME_SIZE_ERROR) return;
  H2Stream* const stream = find(frame.hd.stream_id);
  if (stream == nullptr) return;
  StreamSink& sink = *stream->sink_;
  stream->reset(ResetCode::kInternal);
  sink.on_reset({.reason = Reason::kInternal, .origin = Origin::kProxy}, "a head too large to send");
}

void H2Session::tell_sent(H2Stream& stream) {
  stream.sent_ = true;
  stream.sink_->on_sent();
}

void H2Session::begin_fields() { scratch_fields().clear(); }

std::span<const nghttp2_nv> H2Session::fields() { return scratch_fields(); }

void H2Session::add(std::string_view name, std::string_view value, std::uint8_t flags) {
  scratch_fields().push_back(
      {octets(name.data()), octets(value.data()), name.size(), value.size(),
       static_cast<std::uint8_t>(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)});
}

void H2Session::add_fields(const Headers& headers, const H2Stream& stream, std::uint64_t length, bool trailers) {
  Arena& arena = headers.arena();
  for (const Header& header : headers) {
    const std::uint8_t flags = header_flags(header.id);
    if ((flags & (kHopByHop | kFraming)) != 0) {
      if (header.id == HeaderId::kContentLength && length != H2Stream::kAnyLength)
        add("content-length", digits(std::exchange(length, H2Stream::kAnyLength), arena));
      continue;
    }
    if (trailers && (flags & kNoTrailer) != 0) continue;
    // RFC 8441 §5: the handshake of HTTP/1.1 has no place here.
    if (stream.tunnel_ && (header.id == HeaderId::kSecWebsocketKey || header.id == HeaderId::kSecWebsocketAccept))
      continue;
    // Towards upstreams many clients share one table; what is secret to one must not be guessed by another.
    const bool apart = is_unique(header.id) || (!server_ && (flags & kSecret) != 0);
    add(lower_name(header, arena), header.value, apart ? NGHTTP2_NV_FLAG_NO_INDEX : 0);
  }
  if (length != H2Stream::kAnyLength) add("content-length", digits(length, arena));
}

nghttp2_data_provider H2Session::provider(H2Stream& stream) {
  nghttp2_data_provider made;
  made.source.ptr = &stream;
  made.read_callback = read_body;
  return made;
}

}  // namespace outrider
