#include "proxy/prober.h"

#include <uv.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "config/log.h"
#include "config/written.h"

namespace outrider {

namespace {

constexpr Millis kApart{1};  // the first probes of two endpoints
constexpr std::size_t kGrpcPrefix = 5;
constexpr std::size_t kGrpcMessageBytes = 1024;
constexpr std::string_view kResults[] = {"ok",    "connect_failure", "timeout",
                                         "reset", "protocol_error",  "status"};
static_assert(std::size(kResults) == static_cast<std::size_t>(ProbeResult::kCount));

// HealthCheckRequest { string service = 1; } with gRPC's prefix.
std::string grpc_request(std::string_view service) {
  std::string message;
  if (!service.empty()) {
    message += '\x0a';
    std::size_t size = service.size();
    for (; size >= 0x80; size >>= 7) message += static_cast<char>((size & 0x7f) | 0x80);
    message += static_cast<char>(size);
    message += service;
  }
  std::string frame(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8)
    frame += static_cast<char>((message.size() >> shift) & 0xff);
  return frame + message;
}

// The `status` (field 1) of a HealthCheckResponse; -1: malformed.
std::int64_t grpc_serving(std::string_view body) {
  if (body.size() < kGrpcPrefix || body[0] != 0) return -1;
  std::size_t size = 0;
  for (std::size_t i = 1; i < kGrpcPrefix; ++i)
    size = size << 8 | static_cast<unsigned char>(body[i]);
  body.remove_prefix(kGrpcPrefix);
  if (size != body.size()) return -1;
  if (body.empty()) return 0;
  if (body[0] != '\x08') return -1;  // nothing else is known of that message
  std::int64_t value = 0;
  for (std::size_t i = 1; i < body.size() && i <= 5; ++i) {
    const auto byte = static_cast<unsigned char>(body[i]);
    value |= std::int64_t{byte & 0x7f} << (7 * (i - 1));
    if ((byte & 0x80) == 0) return value;
  }
  return -1;
}

std::string grpc_words(std::int64_t serving) {
  constexpr std::string_view kNames[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  if (serving < 0) return "a malformed message";
  if (serving < static_cast<std::int64_t>(std::size(kNames)))
    return std::string(kNames[static_cast<std::size_t>(serving)]);
  return "status " + std::to_string(serving);
}

}  // namespace

// ---- one endpoint

class Prober::Target {
 public:
  Target(Prober& prober, std::size_t service, std::size_t endpoint, ServiceShared& shared)
      : prober_(prober),
        service_(service),
        config_(prober.config_.services[service]),
        shared_(shared),
        endpoint_(endpoint),
        address_(config_.endpoints[endpoint].address),
        timer_(prober.flusher_.loop, call_member<&Target::on_timer, Target>, this) {}

  void start(Millis delay) { timer_.start(delay); }
  void stop() { timer_.stop(); }
  const config::Service& service() const { return config_; }
  const sockaddr* address() const { return address_.get(); }
  std::string text() const { return config_.endpoints[endpoint_].address.to_string(); }
  // Host, unless said: the address, and what a Unix socket's clients say.
  std::string host() const {
    if (!config_.health.host.empty()) return config_.health.host;
    const config::Address& address = config_.endpoints[endpoint_].address;
    return address.kind == config::Address::Kind::kUnix ? "localhost" : address.to_string();
  }
  void ended(ProbeResult result, std::string words);

  HealthRecord record;

 private:
  void on_timer();

  Prober& prober_;
  const std::size_t service_;
  const config::Service& config_;
  ServiceShared& shared_;
  const std::size_t endpoint_;
  const SocketAddress address_;
  Timer timer_;  // until the next probe; while one is under way, until it is too late
  Probe* probe_ = nullptr;
  std::uint64_t began_ms_ = 0;
};

// ---- one probe, from connecting until its connection is closed

class Prober::Probe final : public ListNode,
                            private Connection::Events,
                            private ClientEvents,
                            private ResponseSink {
 public:
  Probe(Prober& prober, Target& target)
      : target_(&target),
        check_(target.service().health),
        wire_(prober.flusher_, *this),
        arena_(prober.blocks_),
        request_(arena_),
        response_(arena_) {}

  // False: it could not be begun.
  bool begin(int& error) {
    error = wire_.connect(target_->address());
    return error == 0;
  }
  // Its time is over.
  void expire() {
    conclude(ProbeResult::kTimeout, "no answer within " + config::written(check_.timeout), false);
  }
  void abort() {
    target_ = nullptr;
    wire_.abort();
  }

 private:
  using Kind = config::HealthCheck::Probe;
  bool grpc() const { return check_.probe == Kind::kGrpc; }

  void on_connected(int status) override {
    if (status != 0) return conclude(ProbeResult::kConnectFailure, uv_strerror(status), false);
    if (check_.probe == Kind::kTcp) return conclude(ProbeResult::kOk, "connected", true);
    http2_ = grpc() || target_->service().protocol == config::Protocol::kHttp2;
    const CodecSettings settings{.max_fields = limits::kUpstreamFields};
    codec_ =
        http2_ ? make_h2_client(wire_, *this, settings) : make_h1_client(wire_, *this, settings);
    wire_.start_reading();
    wire_.wake();
    ask();
  }
  void on_bytes(std::string_view bytes) override {
    codec_->feed(bytes);
    ask();
  }
  void on_eof() override {
    codec_->on_eof();
    if (stream_ == nullptr) conclude(ProbeResult::kReset, "the connection ended", false);
    if (target_ == nullptr && !wire_.closing()) wire_.close(Wire::Close::kFlush);
  }
  void on_broken() override {
    if (codec_ != nullptr) codec_->on_broken();
    conclude(ProbeResult::kReset, "the connection broke", false);
    if (!wire_.closing()) wire_.close(Wire::Close::kReset);
  }
  void before_flush() override {
    if (codec_ != nullptr) codec_->pump();
  }
  void on_flushed() override {
    if (codec_ != nullptr) codec_->on_flushed();
  }
  void on_closed() override {
    unlink();
    stream_ = nullptr;
    if (codec_ != nullptr) codec_->on_broken();
    conclude(ProbeResult::kProtocolError, "the connection was closed", false);
    wire_.loop().defer(std::unique_ptr<Probe>(this));
  }
  void on_capacity() override {}

  // The request, once the connection takes it.
  void ask() {
    if (target_ == nullptr || asked_ || wire_.closing() || !codec_->settled()) return;
    asked_ = true;
    stream_ = codec_->open(*this);
    if (stream_ == nullptr)
      return conclude(ProbeResult::kProtocolError, "the connection takes no request", false);
    request_.scheme = "http";
    request_.authority = arena_.copy(target_->host());
    request_.headers.add(HeaderId::kUserAgent, "outrider/health");
    if (grpc()) {
      request_.method = Method::kPost;
      request_.method_text = "POST";
      request_.target = "/grpc.health.v1.Health/Check";
      request_.te_trailers = true;
      request_.headers.add(HeaderId::kContentType, "application/grpc");
      stream_->send_request(request_, false);
      stream_->send_body(grpc_request(check_.service), true);
    } else {
      request_.method = method_of(check_.method);
      request_.method_text = check_.method;
      request_.target = check_.target;
      if (request_.method == Method::kPost) request_.content_length = 0;
      stream_->send_request(request_, true);
    }
  }

  ResponseHead& head() override { return response_; }
  void on_interim() override {}
  void on_head(bool last) override {
    const int status = response_.status;
    if (grpc()) {
      good_ = status == 200;
      if (!good_) return conclude(ProbeResult::kStatus, std::to_string(status), false);
      if (last) judge_grpc(response_.headers);
      return;
    }
    for (const auto& [first, end] : check_.statuses) good_ |= status >= first && status <= end;
    if (!good_ || last) judge(last);
  }
  void on_body(std::string_view bytes, bool last) override {
    if (stream_ == nullptr) return;
    bytes_ += bytes.size();
    if (grpc() && message_.size() <= kGrpcMessageBytes) message_.append(bytes);
    if (grpc() && (last || bytes_ > kGrpcMessageBytes))
      conclude(ProbeResult::kProtocolError, "an answer without its gRPC status", last);
    else if (last || bytes_ >= limits::kProbeBytes)
      judge(last);
  }
  void on_trailers(Headers& trailers) override {
    if (grpc())
      judge_grpc(trailers);
    else
      judge(true);
  }
  void on_reset(const Error& error, std::string_view detail) override {
    stream_ = nullptr;
    const bool malformed = error.reason == Reason::kUpstreamProtocolError;
    conclude(malformed ? ProbeResult::kProtocolError : ProbeResult::kReset,
             std::string(detail.empty() ? info(error.reason).sentence : detail), false);
  }
  void on_writable() override {}
  void on_sent() override {}

  void judge(bool whole) {
    conclude(good_ ? ProbeResult::kOk : ProbeResult::kStatus, std::to_string(response_.status),
             whole);
  }
  void judge_grpc(const Headers& headers) {
    const std::string_view status = headers.get(HeaderId::kGrpcStatus);
    if (status != "0")
      return conclude(ProbeResult::kStatus, "grpc-status " + std::string(status), true);
    const std::int64_t serving = grpc_serving(message_);
    conclude(serving == 1 ? ProbeResult::kOk : ProbeResult::kStatus, grpc_words(serving), true);
  }

  // Once; what follows is the end of the connection, which the target no longer waits for.
  void conclude(ProbeResult result, std::string words, bool whole) {
    Target* const target = std::exchange(target_, nullptr);
    if (target == nullptr) return;
    if (stream_ != nullptr) {
      CodecStream* const stream = std::exchange(stream_, nullptr);
      if (whole)
        stream->release();
      else
        stream->reset(ResetCode::kCancel);
    }
    if (!wire_.closing()) {
      if (whole && http2_)
        codec_->drain(true);  // closes by itself behind its GOAWAY
      else
        wire_.close(whole ? Wire::Close::kFlush : Wire::Close::kReset);
    }
    target->ended(result, std::move(words));
  }

  Target* target_;  // null once it has been told
  const config::HealthCheck& check_;
  Connection wire_;
  std::unique_ptr<Codec> codec_;
  CodecStream* stream_ = nullptr;
  Arena arena_;
  RequestHead request_;
  ResponseHead response_;
  std::string message_;  // of gRPC
  std::size_t bytes_ = 0;
  bool http2_ = false;
  bool asked_ = false;
  bool good_ = false;
};

void Prober::Target::on_timer() {
  if (probe_ != nullptr) return probe_->expire();
  began_ms_ = prober_.flusher_.loop.now_ms();
  auto probe = std::make_unique<Probe>(prober_, *this);
  int error = 0;
  if (!probe->begin(error)) {
    prober_.flusher_.loop.defer(std::move(probe));
    if (is_our_own(error)) return timer_.start(config_.health.every);
    return ended(ProbeResult::kConnectFailure, uv_strerror(error));
  }
  probe_ = probe.release();  // it defers its own end in on_closed()
  probe_->insert_before(prober_.probes_);
  timer_.start(config_.health.timeout);
}

void Prober::Target::ended(ProbeResult result, std::string words) {
  probe_ = nullptr;
  ++prober_.results_[service_][static_cast<std::size_t>(result)];
  const auto every = static_cast<std::uint64_t>(config_.health.every.count());
  const std::uint64_t spread = std::min<std::uint64_t>(every / 5, UINT32_MAX - 1);
  const std::uint64_t due = began_ms_ + every - spread / 2 +
                            prober_.random_.below(static_cast<std::uint32_t>(spread + 1));
  const std::uint64_t now = prober_.flusher_.loop.now_ms();
  timer_.start(Millis(due > now ? due - now : 0));
  if (!note_probe(config_.health, record, result == ProbeResult::kOk, std::move(words))) return;
  EndpointState& state = *shared_.endpoints[endpoint_];
  if (record.unhealthy)
    log::warn("service {}: endpoint {} is unhealthy: {}", config_.name, text(),
              why_healthy(config_.health, record));
  else
    log::info("service {}: endpoint {} is healthy: {}", config_.name, text(),
              why_healthy(config_.health, record));
  state.unhealthy.store(record.unhealthy, std::memory_order_relaxed);
  if (!record.unhealthy) state.usable_since_ms.store(now, std::memory_order_relaxed);
  shared_.changed();
}

// ---- all of them

Prober::Prober(Flusher& flusher, const config::Config& config,
               const std::vector<std::shared_ptr<ServiceShared>>& services, std::uint64_t seed)
    : flusher_(flusher), config_(config), random_(seed) {
  targets_.resize(services.size());
  results_.resize(services.size());
  for (std::size_t s = 0; s < services.size(); ++s) {
    if (!config.services[s].health.on()) continue;
    for (std::size_t e = 0; e < services[s]->endpoints.size(); ++e)
      targets_[s].push_back(std::make_unique<Target>(*this, s, e, *services[s]));
  }
}

Prober::~Prober() { OUTRIDER_ASSERT(!probes_.linked()); }

void Prober::start() {
  Millis delay{0};
  for (const auto& service : targets_)
    for (const auto& target : service) target->start(std::exchange(delay, delay + kApart));
}

void Prober::stop() {
  for (const auto& service : targets_)
    for (const auto& target : service) target->stop();
  while (probes_.linked()) static_cast<Probe&>(*probes_.next).abort();
}

const HealthRecord* Prober::record(std::size_t service, std::size_t endpoint) const {
  return targets_[service].empty() ? nullptr : &targets_[service][endpoint]->record;
}

void Prober::render(MetricText& text) const {
  text.family("outrider_health_probes", MetricText::Type::kCounter, "Health checks, by result.");
  for (std::size_t s = 0; s < results_.size(); ++s)
    for (std::size_t r = 0; r < results_[s].size(); ++r)
      if (results_[s][r] != 0)
        text.sample({{"service", config_.services[s].name}, {"result", kResults[r]}},
                    results_[s][r]);
}

}  // namespace outrider
