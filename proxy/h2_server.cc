// HTTP/2 as a server: requests in, responses out. What is malformed at the level of HTTP/2 (RFC
// 9113 §8.1.1) is reset with PROTOCOL_ERROR and never seen above as a request; what HTTP/1 would
// answer with 4xx is answered the same way here (on_bad). Extended CONNECT (RFC 8441) becomes the
// upgrade it stands for, and 101 becomes 200 again on the way back.
#include <algorithm>
#include <array>

#include "proxy/h2_session.h"

namespace outrider {
namespace {

constexpr auto kStatusTexts = [] {
  std::array<char, 3 * 500> texts{};  // 100 … 599
  for (std::size_t i = 0; i < 500; ++i) {
    texts[3 * i] = static_cast<char>('1' + i / 100);
    texts[3 * i + 1] = static_cast<char>('0' + i / 10 % 10);
    texts[3 * i + 2] = static_cast<char>('0' + i % 10);
  }
  return texts;
}();

std::string_view status_text(int status) {
  OUTRIDER_ASSERT(status >= 100 && status <= 599);
  return {kStatusTexts.data() + 3 * (status - 100), 3};
}

bool is_http_scheme(std::string_view scheme) {
  return equal_ignoring_case(scheme, "http") || equal_ignoring_case(scheme, "https");
}

// Cookie crumbs make one field again (RFC 9113 §8.2.3), where the first one stood.
void join_cookies(Headers& headers) {
  std::size_t size = 0;
  for (const Header& header : headers)
    if (header.id == HeaderId::kCookie) size += header.value.size() + 2;
  char* const joined = headers.arena().bytes(size);
  char* to = joined;
  for (const Header& header : headers) {
    if (header.id != HeaderId::kCookie) continue;
    if (to != joined) {
      *to++ = ';';
      *to++ = ' ';
    }
    to = std::copy(header.value.begin(), header.value.end(), to);
  }
  headers.set(HeaderId::kCookie, {joined, static_cast<std::size_t>(to - joined)});
}

}  // namespace

class H2Server final : public H2Session {
 public:
  H2Server(Wire& wire, ServerEvents& events, const CodecSettings& settings)
      : H2Session(wire, settings, true, on_header), events_(events) {}

  void submit_response(H2Stream& stream, const ResponseHead& head, bool interim,
                       bool last) override;

 private:
  static int on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t* name,
                       std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                       std::uint8_t, void* self) noexcept {
    return static_cast<H2Server*>(self)->on_field({chars(name), name_size},
                                                  {chars(value), value_size});
  }
  int on_begin_headers(const nghttp2_frame& frame) override;
  void on_block(bool last) override;
  Error error_of(const H2Stream& stream, End end, std::uint32_t code) const override;
  void on_failed() override { events_.on_abuse(fail_reason_, fail_detail_); }

  int on_field(std::string_view name, std::string_view value);
  std::string_view read_pseudo(std::string_view name, std::string_view value);
  std::string_view read_field(std::string_view name, std::string_view value);
  std::string_view finish_pseudo();
  std::string_view finish_head();
  void refuse(std::string_view detail, int status = 0, Reason reason = Reason::kBadRequest) {
    if (bad_.detail.empty()) bad_ = {.reason = reason, .status = status, .detail = detail};
  }

  ServerEvents& events_;
  std::uint64_t requests_ = 0;
  // Of the request head that is being decoded.
  RequestHead* head_ = nullptr;
  std::string_view host_;
  std::string_view protocol_;
  std::string_view scheme_;
  BadRequest bad_;  // the first thing that is answered with a status; no detail: nothing
  std::uint32_t cookies_ = 0;
};

int H2Server::on_begin_headers(const nghttp2_frame& frame) {
  const std::int32_t id = frame.hd.stream_id;
  if (frame.headers.cat != NGHTTP2_HCAT_REQUEST)
    return begin_trailers(id, [](H2Stream& stream) { return &stream.request_->head().headers; });

  block_.stream = nullptr;
  ++open_count_;
  const bool full = settings_.max_streams != 0 && open_count_ > settings_.max_streams;
  H2Stream* stream = nullptr;
  if (!full && id <= goaway_last_) {
    stream = new_stream(id);
    RequestSink* const sink = events_.on_stream(*stream);
    if (sink == nullptr) {
      recycle(*stream);
      stream = nullptr;
    } else {
      stream->sink_ = stream->request_ = sink;
    }
  }
  if (stream == nullptr) {
    reset_stream(id, NGHTTP2_REFUSED_STREAM);
    if (full) spend_reset();
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // nghttp2 skips the block
  }
  nghttp2_session_set_stream_user_data(session_, id, stream);
  if (++requests_ == settings_.max_requests) drain(true);
  head_ = &stream->request_->head();
  head_->version = Version::kHttp2;
  head_->scheme = settings_.scheme;  // the connection's: what the client claims is not believed
  head_->method_text = head_->authority = head_->target = {};
  host_ = protocol_ = scheme_ = {};
  bad_ = {};
  cookies_ = 0;
  begin_block(*stream, head_->headers, false);
  return 0;
}

int H2Server::on_field(std::string_view name, std::string_view value) {
  if (block_.stream == nullptr || !count_field(name, value))
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (block_.skip || block_.too_large) return 0;
  std::string_view wrong;
  if (block_.trailers)
    wrong = read_trailer(name, value);
  else if (!name.empty() && name[0] == ':')
    wrong = read_pseudo(name, value);
  else
    wrong = read_field(name, value);
  if (wrong.empty()) return 0;
  drop(*block_.stream, wrong);
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

std::string_view H2Server::read_pseudo(std::string_view name, std::string_view value) {
  if (block_.regular_seen) return "a pseudo-header behind other fields";
  std::string_view* to = nullptr;
  if (name == ":method") to = &head_->method_text;
  if (name == ":path") to = &head_->target;
  if (name == ":scheme") to = &scheme_;
  if (name == ":authority") to = &head_->authority;
  if (name == ":protocol") to = &protocol_;
  if (to == nullptr) return "an unknown pseudo-header";
  if (!to->empty()) return "a pseudo-header twice";
  if (value.empty()) return "an empty pseudo-header";
  if (!plain(value)) return "a space or a control byte in a pseudo-header";
  if (to == &head_->method_text && value.size() > limits::kMethodBytes) {
    refuse("a method longer than 32 bytes");
    value = value.substr(0, limits::kMethodBytes);
  }
  if (to == &head_->target && settings_.max_target_bytes != 0 &&
      value.size() > settings_.max_target_bytes) {
    refuse("the target is too long", 414, Reason::kHeaderTooLarge);
    value = value.substr(0, settings_.max_target_bytes);
  }
  *to = head_->headers.arena().copy(value);
  return {};
}

std::string_view H2Server::read_field(std::string_view name, std::string_view value) {
  block_.regular_seen = true;
  HeaderId id;
  const std::string_view wrong = check_field(name, value, id);
  if (!wrong.empty()) return wrong;
  using enum HeaderId;
  switch (id) {
    case kUnknown: break;
    case kHost:
      if (!host_.empty()) return "two host fields";
      if (value.empty() || !plain(value)) return "an empty host, or a space in it";
      host_ = head_->headers.arena().copy(value);
      return {};
    case kContentLength: return read_length(value, block_.stream->expected_);
    case kTe: head_->te_trailers = true; return {};
    case kCookie: ++cookies_; break;
    case kExpect:
      if (head_->expects_continue || !equal_ignoring_case(value, "100-continue"))
        refuse("an Expect other than 100-continue", 417);
      head_->expects_continue = true;
      break;
    default: {
      const std::uint8_t flags = header_flags(id);
      if ((flags & kHopByHop) != 0) return {};
      if ((flags & kSingle) != 0 && head_->headers.find(id) != nullptr)
        refuse("a field twice that may stand once");
    }
  }
  store_field(id, name, value);
  return {};
}

// The rules of RFC 9113 §8.3.1 and RFC 8441 §4 about which pseudo-headers there are.
std::string_view H2Server::finish_pseudo() {
  RequestHead& head = *head_;
  if (head.method_text.empty()) return "no :method";
  if (nghttp2_check_method(octets(head.method_text.data()), head.method_text.size()) == 0)
    return "a :method that is not a token";
  head.method = method_of(head.method_text);
  const bool connect = head.method == Method::kConnect;
  if (!protocol_.empty() && !connect) return ":protocol without CONNECT";
  if (connect && head.authority.empty()) return "CONNECT without :authority";
  if (connect && protocol_.empty()) {
    if (!scheme_.empty() || !head.target.empty()) return "CONNECT with :scheme or :path";
    head.target = head.authority;
    return {};
  }
  if (scheme_.empty()) return "no :scheme";
  if (head.target.empty()) return "no :path";
  return {};
}

std::string_view H2Server::finish_head() {
  RequestHead& head = *head_;
  H2Stream& stream = *block_.stream;
  const std::string_view wrong = finish_pseudo();
  if (!wrong.empty()) return wrong;

  if (!host_.empty() && !head.authority.empty() && !equal_ignoring_case(host_, head.authority))
    refuse("host and :authority differ");
  if (head.authority.empty()) head.authority = host_;
  if (head.authority.empty()) refuse("neither :authority nor host");
  if (head.method == Method::kConnect && protocol_.empty()) {
    stream.expected_ = H2Stream::kAnyLength;
  } else {
    if (!is_http_scheme(scheme_)) refuse("a :scheme other than http and https");
    if (head.target[0] != '/' && (head.target != "*" || head.method != Method::kOptions))
      refuse("a :path that does not begin with a slash");
  }
  if (!protocol_.empty()) {
    if (!equal_ignoring_case(protocol_, "websocket"))
      refuse("extended CONNECT to another protocol than websocket", 501, Reason::kNotSupported);
    stream.tunnel_ = true;
    stream.expected_ = H2Stream::kAnyLength;
    head.method = Method::kGet;
    head.method_text = "GET";
    head.upgrade = "websocket";
  }
  if (cookies_ > 1) join_cookies(head.headers);
  if (stream.expected_ != H2Stream::kAnyLength) head.content_length = stream.expected_;
  return {};
}

void H2Server::on_block(bool last) {
  H2Stream& stream = *block_.stream;
  if (!block_.too_large) {
    if (block_.trailers) return finish_trailers(last);
    const std::string_view wrong = finish_head();
    if (!wrong.empty()) return drop(stream, wrong);
    if (last && !end_incoming(stream)) return;
    if (bad_.detail.empty()) return stream.request_->on_head(last);
  } else {
    if (block_.trailers)
      bad_ = {};
    else
      head_->method = method_of(head_->method_text);
    refuse("the header block is too large", 0, Reason::kHeaderTooLarge);
  }
  stream.in_dead_ = true;
  stream.in_ended_ = last;
  stream.request_->on_bad(bad_);
}

// When the connection fails, its reason is that of the stream whose head broke the rule, if it was
// one.
Error H2Server::error_of(const H2Stream& stream, End end, std::uint32_t) const {
  Reason reason = Reason::kClientClosed;
  if (end == End::kMalformed) reason = Reason::kBadRequest;
  if (end == End::kFailed && &stream == block_.stream) reason = fail_reason_;
  return {.reason = reason, .origin = Origin::kClient};
}

void H2Server::submit_response(H2Stream& stream, const ResponseHead& head, bool interim,
                               bool last) {
  int status = head.status;
  if (status == 101 && stream.tunnel_)
    status = 200;
  else if (status == 101 || (stream.tunnel_ && status / 100 == 2))
    status = 502;  // whatever else answers must not look like a tunnel
  const bool with_length = !interim && status != 204 && head.status != 101;
  begin_fields();
  add(":status", status_text(status));
  add_fields(
      head.headers, stream,
      with_length ? head.content_length.value_or(H2Stream::kAnyLength) : H2Stream::kAnyLength,
      false);
  if (interim) {
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, stream.id_, nullptr, fields().data(),
                           fields().size(), nullptr);
    return;
  }
  const nghttp2_data_provider body = provider(stream);
  nghttp2_submit_response(session_, stream.id_, fields().data(), fields().size(),
                          last ? nullptr : &body);
}

std::unique_ptr<Codec> make_h2_server(Wire& wire, ServerEvents& events,
                                      const CodecSettings& settings) {
  return std::make_unique<H2Server>(wire, events, settings);
}

}  // namespace outrider
