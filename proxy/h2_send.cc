// What goes out: one pass over nghttp2's queue a turn, bounded by the high-water mark. Bodies go
// from the stream's own buffer behind nghttp2's frame heads; trailers are submitted when the last
// of the body is taken.
#include <algorithm>
#include <array>

#include "proxy/h2_session.h"

namespace outrider {
namespace {

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

void H2Session::serialise(std::size_t high_water) {
  if (pumping_) return;
  OUTRIDER_ASSERT(!memory_.serialising);
  pumping_ = memory_.serialising = true;
  while (wire_.out.size() < high_water) {
    const std::uint8_t* bytes = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
    OUTRIDER_ASSERT(size >= 0);
    if (size == 0) break;
    wire_.out.append({chars(bytes), static_cast<std::size_t>(size)});
  }
  pumping_ = memory_.serialising = false;
}

ssize_t H2Session::read_body(nghttp2_session* session, std::int32_t id, std::uint8_t*,
                             std::size_t length, std::uint32_t* flags, nghttp2_data_source* source,
                             void* self) {
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
  if (const std::span<const nghttp2_nv> fields = codec.fields(); !fields.empty()) {
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, id, fields.data(), fields.size());
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
  sink.on_reset({.reason = Reason::kInternal, .origin = Origin::kProxy},
                "a head too large to send");
}

void H2Session::tell_sent(H2Stream& stream) {
  stream.sent_ = true;
  stream.sink_->on_sent();
}

void H2Session::begin_fields() { memory_.fields.clear(); }

void H2Session::add(std::string_view name, std::string_view value, std::uint8_t flags) {
  if (value.empty()) value = "";  // nghttp2 compares no bytes as well, and not at a null pointer
  memory_.fields.push_back({octets(name.data()), octets(value.data()), name.size(), value.size(),
                            static_cast<std::uint8_t>(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME |
                                                      NGHTTP2_NV_FLAG_NO_COPY_VALUE)});
}

void H2Session::add_fields(const Headers& headers, const H2Stream& stream, std::uint64_t length,
                           bool trailers) {
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
    if (stream.tunnel_ &&
        (header.id == HeaderId::kSecWebsocketKey || header.id == HeaderId::kSecWebsocketAccept))
      continue;
    // Towards upstreams many clients share one table; what is secret to one must not be guessed by
    // another.
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
