#include "proxy/downstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "config/log.h"
#include "proxy/worker.h"

namespace outrider {

namespace {
constexpr std::size_t kPrefaceBytes = 24;
constexpr Millis kParkAfter{250};
constexpr std::size_t kPrefaceBegun = 3;  // "PRI": no method of HTTP/1 in use
constexpr Millis kPrefaceTime{900};       // from there to its last byte
}  // namespace

Downstream::Downstream(Listener& listener)
    : listener_(listener),
      wire_(listener.worker().flusher(), *this),
      timer_(listener.worker().loop(), call_member<&Downstream::on_timer, Downstream>, this) {
  info_.listener = listener.snapshot().config;
  info_.listener_label = listener.snapshot().label;
  draining_ = listener.worker().draining;
  listener.worker().client_came();
}

Downstream::~Downstream() {
  OUTRIDER_ASSERT(!streams.linked());
  listener_.worker().client_left();
  if (admitted_) listener_.leave(info_.ip);
}

bool Downstream::accept(SocketHandle socket) {
  const config::Listener& settings = *info_.listener;
  info_.unix_socket = settings.address.kind == config::Address::Kind::kUnix;
  wire_.accept(std::move(socket));
  if (!learn_peer()) return false;
  if (!listener_.admit(info_.ip)) return false;
  admitted_ = true;
  if (settings.tcp)
    codec_ = make_tcp_server(wire_, *this);
  else if (!settings.http2)
    parked_ = true;  // HTTP/1 whatever comes: no codec before it is needed
  else if (!settings.http1)
    codec_ = make_h2_server(wire_, *this, codec_settings());
  if (codec_ != nullptr && draining_) codec_->drain(false);
  wire_.start_reading();
  if (codec_ != nullptr) wire_.wake();
  watch();
  return true;
}

CodecSettings Downstream::codec_settings() const {
  const config::ListenerLimits& limits = info_.listener->limits;
  // A parked connection's codec starts anew, its count of requests does not.
  const std::uint64_t requests =
      limits.requests == 0
          ? 0
          : limits.requests - std::min<std::uint64_t>(requests_, limits.requests - 1);
  return {.scheme = info_.scheme(),
          .max_header_bytes = limits.headers.value,
          .max_target_bytes = limits.target.value,
          .max_fields = limits.fields.value,
          .max_streams = static_cast<std::uint32_t>(limits.streams),
          .max_requests = requests};
}

bool Downstream::learn_peer() {
  if (info_.unix_socket) {
    info_.local = true;
    info_.ip_text = "unix";
    return true;
  }
  sockaddr_storage storage{};
  if (!wire_.peer_address(storage)) return false;
  if (storage.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(storage);
    std::memcpy(info_.ip.data(), &in6.sin6_addr, 16);
    info_.port = ntohs(in6.sin6_port);
  } else {
    const auto& in4 = reinterpret_cast<const sockaddr_in&>(storage);
    info_.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    std::memcpy(info_.ip.data() + 12, &in4.sin_addr, 4);
    info_.port = ntohs(in4.sin_port);
  }
  static constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  const bool v4 = std::equal(kMapped.begin(), kMapped.end(), info_.ip.begin());
  char text[INET6_ADDRSTRLEN];
  inet_ntop(v4 ? AF_INET : AF_INET6, info_.ip.data() + (v4 ? 12 : 0), text, sizeof(text));
  const std::size_t size = std::strlen(text);
  char* const to =
      size < sizeof(ip_text_) ? ip_text_ : (long_ip_text_ = std::make_unique<char[]>(size)).get();
  std::memcpy(to, text, size);
  info_.ip_text = {to, size};
  info_.local = config::is_loopback(info_.ip);
  info_.trusted =
      std::any_of(info_.listener->trust.begin(), info_.listener->trust.end(),
                  [this](const config::Cidr& range) { return range.contains(info_.ip); });
  return true;
}

void Downstream::choose_codec(std::string_view bytes) {
  if (first_bytes_ == nullptr) first_bytes_ = std::make_unique<std::string>();
  first_bytes_->append(bytes.substr(0, kPrefaceBytes - first_bytes_->size()));
  const Preface preface = parked_ ? Preface::kHttp1 : detect_preface(*first_bytes_);
  if (preface == Preface::kMore) return;
  parked_ = false;
  http1_ = preface == Preface::kHttp1;
  codec_ = preface == Preface::kHttp2 ? make_h2_server(wire_, *this, codec_settings())
                                      : make_h1_server(wire_, *this, codec_settings());
  if (draining_) codec_->drain(false);
}

void Downstream::on_bytes(std::string_view bytes) {
  if (codec_ == nullptr) {
    const std::size_t kept = first_bytes_ == nullptr ? 0 : first_bytes_->size();
    choose_codec(bytes);
    if (codec_ == nullptr) {
      if (kept < kPrefaceBegun && first_bytes_->size() >= kPrefaceBegun) timer_.start(kPrefaceTime);
      return;
    }
    if (kept >= kPrefaceBegun) watch_ = Watch::kNone;
    const auto before = std::move(first_bytes_);
    if (kept != 0) codec_->feed(std::string_view(*before).substr(0, kept));
    if (wire_.closing()) return;
  }
  codec_->feed(bytes);
  watch();
}

void Downstream::on_eof() {
  if (codec_ == nullptr)
    wire_.close(Wire::Close::kFlush);
  else
    codec_->on_eof();
}

void Downstream::on_broken() {
  if (codec_ != nullptr) codec_->on_broken();
  wire_.close(Wire::Close::kReset);
}

void Downstream::before_flush() {
  if (codec_ == nullptr) return;
  codec_->pump();
  watch();  // requests that had waited may have begun
}

void Downstream::on_flushed() {
  if (codec_ != nullptr) codec_->on_flushed();
}

void Downstream::on_closed() {
  timer_.stop();
  if (codec_ != nullptr) codec_->on_broken();
  unlink();
  worker().loop().defer(std::unique_ptr<Downstream>(this));
}

RequestSink* Downstream::on_stream(CodecStream& stream) {
  ++requests_;
  Stream* exchange = Stream::create(*this, stream);
  exchange->insert_before(streams);
  return &exchange->request_sink();
}

void Downstream::stream_ended() {
  if (!wire_.closing()) watch();
}

void Downstream::on_abuse(Reason reason, std::string_view detail) {
  worker().metrics_ref().limit_refused(info_.listener_label,
                                       reason == Reason::kHeaderTooLarge ? RefusedLimit::kHeaders
                                       : detail.find("reset") != std::string_view::npos
                                           ? RefusedLimit::kResets
                                           : RefusedLimit::kControlFrames);
  log::limited(reason, "connection of {} on {} closed: {}", info_.ip_text, info_.listener->name,
               detail);
}

void Downstream::watch() {
  if (wire_.closing() || info_.listener->tcp) return;
  const config::ListenerTimeouts& timeouts = info_.listener->timeouts;
  Watch wanted = Watch::kNone;
  if (requests_ == 0 || (codec_ != nullptr ? codec_->in_head() : !parked_))
    wanted = Watch::kHeader;
  else if (!streams.linked())
    wanted = Watch::kIdle;
  if (wanted == watch_) return;
  watch_ = wanted;
  waited_ = false;
  if (wanted == Watch::kNone)
    return;  // what is armed finds nothing to do, and moving it later is cheap
  if (wanted == Watch::kIdle)
    timer_.start(timeouts.idle.count() == 0 ? kParkAfter : std::min(timeouts.idle, kParkAfter));
  else if (timeouts.header.count() == 0)
    timer_.stop();
  else
    timer_.start(timeouts.header);
}

// An idle HTTP/1 connection keeps its socket and its counts; a codec is made again when bytes come.
// One of HTTP/2 puts its session aside.
void Downstream::park() {
  const Millis idle = info_.listener->timeouts.idle;
  if (http1_ && codec_->idle()) {
    codec_ = nullptr;
    parked_ = true;
  }
  if (codec_ != nullptr) codec_->rest();
  if (idle.count() != 0) timer_.start(idle - std::min(idle, kParkAfter));
}

void Downstream::on_timer() {
  if (watch_ == Watch::kNone) return;
  if (watch_ == Watch::kIdle && !waited_) {
    waited_ = true;
    park();
    return;
  }
  if (codec_ == nullptr && first_bytes_ != nullptr) {
    if (first_bytes_->size() >= kPrefaceBegun) {
      on_abuse(Reason::kBadRequest, "a part of HTTP/2's preface");
    } else {
      parked_ = true;  // part of a request after all
      on_bytes({});
    }
  }
  if (codec_ == nullptr)
    wire_.close(Wire::Close::kFlush);
  else if (watch_ == Watch::kHeader && codec_->in_head())
    codec_->expire_head();
  else
    codec_->drain(true);  // HTTP/1 closes, HTTP/2 behind its GOAWAY
}

bool Downstream::check_peer() {
  if (!wire_.peer_is_gone()) return true;
  on_broken();
  return false;
}

void Downstream::drain(bool final) {
  draining_ = true;
  if (codec_ != nullptr)
    codec_->drain(final);
  else if (final)
    wire_.close(Wire::Close::kFlush);
}

void Downstream::cut(Reason reason) {
  for (ListNode* node = streams.next; node != &streams;) {
    auto& stream = static_cast<Stream&>(*node);
    node = node->next;
    stream.cut(reason, outrider::info(reason).sentence);
  }
  if (codec_ != nullptr && !wire_.closing()) {
    codec_->drain(true);
    codec_->pump();  // what was said of it leaves before the end
  }
  if (!wire_.closing()) wire_.close(Wire::Close::kFlush);
}

}  // namespace outrider
