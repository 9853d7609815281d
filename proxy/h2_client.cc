// HTTP/2 as a client: many requests at once on one connection to an upstream. Whatever the peer
// vouches it has not processed (REFUSED_STREAM, streams above the last of its GOAWAY) comes back as
// repeatable, and so does what never left.
#include "proxy/h2_session.h"

namespace outrider {

class H2Client final : public H2Session {
 public:
  H2Client(Wire& wire, ClientEvents& events, const CodecSettings& settings)
      : H2Session(wire, settings, false, on_header), events_(events) {}

  CodecStream* open(ResponseSink& sink) override;
  std::uint32_t free_streams() const override;
  bool reusable() const override {
    return !dead_ && !failed_ && nghttp2_session_check_request_allowed(session_) != 0;
  }
  bool takes_upgrades() const override {
    return nghttp2_session_get_remote_settings(session_,
                                               NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
  }
  bool settled() const override { return settled_; }
  void submit_request(H2Stream& stream, const RequestHead& head, bool last) override;

 private:
  void on_frame(const nghttp2_frame& frame) override {
    if (frame.hd.type == NGHTTP2_SETTINGS && (frame.hd.flags & NGHTTP2_FLAG_ACK) == 0)
      settled_ = true;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t* name,
                       std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                       std::uint8_t, void* self) noexcept {
    return static_cast<H2Client*>(self)->on_field({chars(name), name_size},
                                                  {chars(value), value_size});
  }
  int on_begin_headers(const nghttp2_frame& frame) override;
  void on_block(bool last) override;
  Error error_of(const H2Stream& stream, End end, std::uint32_t code) const override;
  void on_settled() override;

  int on_field(std::string_view name, std::string_view value);
  std::string_view read_status(std::string_view name, std::string_view value);
  std::string_view read_field(std::string_view name, std::string_view value);
  std::string_view finish_head(bool last);

  ClientEvents& events_;
  ResponseHead* head_ = nullptr;  // that is being decoded
  std::uint32_t told_free_ = 0;
  bool told_reusable_ = true;
  bool settled_ = false;
};

CodecStream* H2Client::open(ResponseSink& sink) {
  if (free_streams() == 0 || !reusable()) return nullptr;
  H2Stream* const stream = new_stream(0);
  stream->sink_ = stream->response_ = &sink;
  ++open_count_;
  return stream;
}

std::uint32_t H2Client::free_streams() const {
  if (dead_ || failed_) return 0;
  const std::uint32_t most =
      nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return most > open_count_ ? most - open_count_ : 0;
}

void H2Client::on_settled() {
  const std::uint32_t free = free_streams();
  const bool more = reusable();
  if (std::exchange(told_free_, free) == free && std::exchange(told_reusable_, more) == more)
    return;
  told_reusable_ = more;
  events_.on_capacity();  // last: the owner may do anything now
}

void H2Client::submit_request(H2Stream& stream, const RequestHead& head, bool last) {
  stream.tunnel_ = !head.upgrade.empty() && takes_upgrades();
  if (stream.tunnel_) last = false;  // the half that an upgrade over HTTP/1 would begin anew
  stream.out_ended_ = last;
  stream.bodyless_ = head.method == Method::kHead;
  begin_fields();
  add(":method", stream.tunnel_ ? "CONNECT" : head.method_text);
  if (stream.tunnel_) add(":protocol", head.upgrade);
  add(":scheme", head.scheme);
  if (!head.authority.empty()) add(":authority", head.authority);
  add(":path", head.target);
  add_fields(
      head.headers, stream,
      stream.tunnel_ ? H2Stream::kAnyLength : head.content_length.value_or(H2Stream::kAnyLength),
      false);
  if (head.te_trailers) add("te", "trailers");
  const nghttp2_data_provider body = provider(stream);
  stream.id_ = nghttp2_submit_request(session_, nullptr, fields().data(), fields().size(),
                                      last ? nullptr : &body, &stream);
  OUTRIDER_ASSERT(stream.id_ > 0);  // reusable() looked for an identifier
}

int H2Client::on_begin_headers(const nghttp2_frame& frame) {
  H2Stream* const stream = find(frame.hd.stream_id);
  if (stream != nullptr && stream->head_done_)
    return begin_trailers(frame.hd.stream_id,
                          [](H2Stream& of) { return &of.response_->head().headers; });
  block_.stream = nullptr;
  if (stream == nullptr)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // reset by us: nghttp2 skips the block
  head_ = &stream->response_->head();
  head_->status = 0;
  head_->version = Version::kHttp2;
  head_->reason = {};
  head_->content_length.reset();
  head_->headers.clear();
  stream->expected_ = H2Stream::kAnyLength;
  begin_block(*stream, head_->headers, false);
  return 0;
}

int H2Client::on_field(std::string_view name, std::string_view value) {
  if (block_.stream == nullptr || !count_field(name, value))
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  std::string_view wrong;
  if (block_.too_large)
    wrong = "the header block is too large";
  else if (block_.trailers)
    wrong = read_trailer(name, value);
  else if (!name.empty() && name[0] == ':')
    wrong = read_status(name, value);
  else
    wrong = read_field(name, value);
  if (wrong.empty()) return 0;
  drop(*block_.stream, wrong);
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

std::string_view H2Client::read_status(std::string_view name, std::string_view value) {
  if (name != ":status") return "an unknown pseudo-header";
  if (block_.regular_seen || head_->status != 0) return ":status twice or behind other fields";
  if (value.size() != 3 || value[0] < '1' || value[0] > '5') return "a :status outside 100-599";
  for (const char c : value) {
    if (c < '0' || c > '9') return "a :status outside 100-599";
    head_->status = head_->status * 10 + (c - '0');
  }
  return {};
}

std::string_view H2Client::read_field(std::string_view name, std::string_view value) {
  block_.regular_seen = true;
  HeaderId id;
  const std::string_view wrong = check_field(name, value, id);
  if (!wrong.empty()) return wrong;
  if (id == HeaderId::kContentLength) return read_length(value, block_.stream->expected_);
  if ((header_flags(id) & (kHopByHop | kFraming)) == 0) store_field(id, name, value);
  return {};
}

std::string_view H2Client::finish_head(bool last) {
  H2Stream& stream = *block_.stream;
  const int status = head_->status;
  if (status == 0) return "no :status";
  if (status == 101) return "status 101 in HTTP/2";
  if (status < 200) {
    if (last) return "an interim response that ends the stream";
    stream.received_ += block_.bytes;  // the body has not begun
    if (++stream.interims_ > limits::kInterim || stream.received_ > limits::kHeaderBytes)
      return "too many interim responses";
    return {};
  }
  stream.head_done_ = true;
  stream.received_ = 0;
  if (stream.tunnel_ && status < 300) {
    head_->status = 101;
    stream.expected_ = H2Stream::kAnyLength;
  } else {
    stream.tunnel_ = false;
    if (status == 204)
      stream.expected_ = H2Stream::kAnyLength;  // some send `content-length: 0` with it
    if (status == 204 || status == 304) stream.bodyless_ = true;
    if (stream.expected_ != H2Stream::kAnyLength) head_->content_length = stream.expected_;
  }
  return {};
}

void H2Client::on_block(bool last) {
  if (block_.trailers) return finish_trailers(last);
  H2Stream& stream = *block_.stream;
  const std::string_view wrong = finish_head(last);
  if (!wrong.empty()) return drop(stream, wrong);
  if (!stream.head_done_) return stream.response_->on_interim();
  if (last && !end_incoming(stream)) return;
  stream.response_->on_head(last);
}

Error H2Client::error_of(const H2Stream& stream, End end, std::uint32_t code) const {
  Error error{.reason = Reason::kUpstreamReset,
              .origin = Origin::kUpstream,
              .gone = end == End::kLeftBehind || end == End::kGone,
              .answered = stream.head_done_};
  switch (end) {
    case End::kMalformed: error.reason = Reason::kUpstreamProtocolError; break;
    case End::kPeerReset:
      error.repeatable = code == NGHTTP2_REFUSED_STREAM && !stream.head_done_;
      break;
    case End::kLeftBehind: error.repeatable = !stream.head_done_; break;
    case End::kFailed: error.reason = Reason::kUpstreamProtocolError; [[fallthrough]];
    case End::kGone: error.repeatable = stream.id_ == 0 || stream.id_ > last_request_; break;
  }
  return error;
}

std::unique_ptr<Codec> make_h2_client(Wire& wire, ClientEvents& events,
                                      const CodecSettings& settings) {
  return std::make_unique<H2Client>(wire, events, settings);
}

}  // namespace outrider
