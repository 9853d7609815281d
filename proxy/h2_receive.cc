// What comes in. Bytes pass a scanner of frame heads before nghttp2 has them: it counts what costs
// us without serving anybody, drops PRIORITY (RFC 9113 §5.3.2 lets us), and tells a closed stream
// from one that was never opened, which nghttp2 forgets. Header blocks are bounded while they are
// decoded; what their fields mean is the server's and the client's affair.
#include <algorithm>

#include "proxy/h2_session.h"

namespace outrider {
namespace {

constexpr std::uint32_t kContinuations = 64;  // of one header block, beyond what a full one needs

}  // namespace

void H2Session::scan(std::string_view bytes) {
  const char* run = bytes.data();  // from here on nghttp2 has not seen it
  const char* at = run;
  const char* const end = at + bytes.size();
  const auto frame_of = [](const char* head) {
    const auto byte = [head](int i) {
      return static_cast<std::uint32_t>(static_cast<std::uint8_t>(head[i]));
    };
    return Frame{.length = byte(0) << 16 | byte(1) << 8 | byte(2),
                 .type = static_cast<std::uint8_t>(head[3]),
                 .flags = static_cast<std::uint8_t>(head[4]),
                 .stream = static_cast<std::int32_t>((byte(5) & 0x7f) << 24 | byte(6) << 16 |
                                                     byte(7) << 8 | byte(8))};
  };
  while (at != end && !failed_) {
    const auto left = static_cast<std::size_t>(end - at);
    if (preface_left_ != 0) {
      const std::size_t part = std::min<std::size_t>(left, preface_left_);
      constexpr std::string_view kMagic = NGHTTP2_CLIENT_MAGIC;
      if (kMagic.substr(kMagic.size() - preface_left_, part) != std::string_view(at, part))
        return fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest,
                    "not a connection preface of HTTP/2");
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
  const ssize_t taken =
      nghttp2_session_mem_recv(session_, octets(from), static_cast<std::size_t>(to - from));
  if (taken >= 0) return;
  OUTRIDER_ASSERT(taken != NGHTTP2_ERR_NOMEM);
  if (taken == NGHTTP2_ERR_FLOODED)
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest,
         "more PING or SETTINGS than answers are taken");
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
  // Here anything but what belongs is an error that nghttp2 finds.
  if (block_open_ || !settings_seen_) {
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
      outline_.begin(
          static_cast<std::uint8_t>(((frame.flags & NGHTTP2_FLAG_PADDED) != 0 ? 1 : 0) +
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
        fail(NGHTTP2_FRAME_SIZE_ERROR, Reason::kBadRequest,
             "a PRIORITY frame of another size than 5");
      else if (frame.stream == 0)
        fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "PRIORITY on stream 0");
      return false;
    case NGHTTP2_PUSH_PROMISE:
      fail(NGHTTP2_PROTOCOL_ERROR, Reason::kBadRequest, "PUSH_PROMISE");
      return true;
    case NGHTTP2_RST_STREAM:    // counted when its stream is known
    case NGHTTP2_CONTINUATION:  // nghttp2's to refuse
      return true;
    default:  // SETTINGS, PING, GOAWAY, WINDOW_UPDATE and what nobody knows
      spend_control();
      return true;
  }
}

void H2Session::inspect_continuation(const Frame& frame) {
  if ((frame.flags & NGHTTP2_FLAG_END_HEADERS) != 0) block_open_ = false;
  if (frame.length == 0) ++empty_continuations_;
  // Four times the limit, in frames of 16 KiB.
  const std::size_t needed = settings_.max_header_bytes / (4 * 1024);
  if (++continuations_ > kContinuations + needed ||
      empty_continuations_ >= limits::kEmptyContinuations)
    fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kBadRequest, "too many CONTINUATION frames");
}

void H2Session::inspect_block(std::string_view payload) {
  switch (outline_.read(payload)) {
    case HpackOutline::Fault::kNone: return;
    case HpackOutline::Fault::kSizeUpdates:
      return fail(NGHTTP2_COMPRESSION_ERROR, Reason::kBadRequest, "too many table size updates");
    case HpackOutline::Fault::kLongString:
      return fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kHeaderTooLarge,
                  "a field longer than any header block may be");
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
  if (frame.stream <= highest_reset_ || frame.stream > goaway_last_) {
    // What was on its way when we reset the stream is no flood; small frames count as larger.
    constexpr std::uint32_t kLeast = 64;
    const std::uint32_t cost = std::max(frame.length, kLeast);
    if (frame.type != NGHTTP2_DATA || cost > in_flight_) return spend_control();
    in_flight_ -= cost;
    return;
  }
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
      if (H2Stream* const stream = find(frame.hd.stream_id);
          stream != nullptr && !stream->in_ended_) {
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
    case NGHTTP2_GOAWAY: goaway_received_ = true; return on_frame(frame);
    default: return on_frame(frame);
  }
}

// --- Header blocks

void H2Session::begin_block(H2Stream& stream, Headers& fields, bool trailers) {
  block_ = Block{.stream = &stream, .fields = &fields, .trailers = trailers};
}

int H2Session::begin_trailers(std::int32_t id, Headers* (*fields_of)(H2Stream&)) {
  H2Stream* const stream = find(id);
  if (stream == nullptr)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // reset already: nghttp2 skips the block
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
      fail(NGHTTP2_ENHANCE_YOUR_CALM, Reason::kHeaderTooLarge,
           "a header block four times as large as allowed");
      return false;
    }
  }
  const std::size_t most = server_ ? settings_.max_fields : limits::kUpstreamFields;
  if (most != 0 && (name.empty() || name[0] != ':') && ++block_.count > most)
    block_.too_large = true;
  return true;
}

// Visible bytes alone, eight at a time: none below 0x21 and no DEL; 0x80-0xff are left to who reads
// the text.
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

std::string_view H2Session::check_field(std::string_view name, std::string_view value,
                                        HeaderId& id) {
  id = lower_header_id(name);
  if (id == HeaderId::kUnknown && nghttp2_check_header_name(octets(name.data()), name.size()) == 0)
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
    case kTe:
      return equal_ignoring_case(value, "trailers") ? std::string_view()
                                                    : "a te other than trailers";
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

}  // namespace outrider
