// A request is answered from its head alone; a body that comes with it is read and dropped within
// bounds, so that the connection can go on. Invariant: nothing here waits for a client: a head that
// is late, an answer that is not taken and an idle connection end after their time, and when all
// places are taken the connection that was quiet longest goes first.
#include "proxy/admin.h"

#include <uv.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "config/log.h"
#include "filters/forwarded.h"
#include "filters/http/accept.h"
#include "filters/http/path.h"
#include "filters/http/query.h"
#include "proxy/connection.h"
#include "proxy/server.h"

namespace outrider {

namespace {

constexpr std::size_t kMaxConnections = 64;
constexpr Millis kRequestTime{10'000};
constexpr Millis kQuietTime{60'000};  // between requests, and for an answer to be taken
constexpr std::size_t kBodyBytes = 64 * 1024;

constexpr std::string_view kText = "text/plain; charset=utf-8";
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kYaml = "application/yaml";
constexpr std::string_view kPrometheus = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::string_view kOpenMetrics =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

constexpr std::string_view kIndex =
    "GET  /ready           200, or 503 and why (also /readyz, /startupz)\n"
    "GET  /live            200 (also /livez)\n"
    "GET  /metrics         Prometheus text, or OpenMetrics by Accept\n"
    "GET  /config          effective configuration with the origin of each value\n"
    "GET  /config/status   generation and errors\n"
    "POST /config/reload   read the configuration again\n"
    "GET  /services        endpoints and what they are doing\n"
    "POST /drain           stop as on SIGTERM\n"
    "GET  /log             level of the log; PUT /log?level=debug sets it (debug info warn "
    "error)\n";

struct Answer {
  int status = 200;
  std::string_view type = kText;
  std::string body = {};
  std::string_view allow = {};  // of a 405
};

enum class Page : std::uint8_t {
  kNone,
  kReady,
  kLive,
  kMetrics,
  kIndex,
  kConfig,
  kStatus,
  kReload,
  kServices,
  kDrain,
  kLog,
};

struct Place {
  std::string_view path;
  Page page;
  bool on_read_only;
};
constexpr Place kPlaces[] = {
    {"/ready", Page::kReady, true},
    {"/readyz", Page::kReady, true},
    {"/startupz", Page::kReady, true},
    {"/live", Page::kLive, true},
    {"/livez", Page::kLive, true},
    {"/metrics", Page::kMetrics, true},
    {"/", Page::kIndex, false},
    {"/config", Page::kConfig, false},
    {"/config/status", Page::kStatus, false},
    {"/config/reload", Page::kReload, false},
    {"/services", Page::kServices, false},
    {"/drain", Page::kDrain, false},
    {"/log", Page::kLog, false},
};

Page page_of(std::string_view path, bool full) {
  for (const Place& place : kPlaces)
    if (place.path == path && (full || place.on_read_only)) return place.page;
  return Page::kNone;
}

std::string_view allowed_methods(Page page) {
  switch (page) {
    case Page::kReload:
    case Page::kDrain: return "POST";
    case Page::kLog: return "GET, HEAD, PUT";
    default: return "GET, HEAD";
  }
}

bool is_loopback_name(std::string_view host) {
  if (equal_ignoring_case(host, "localhost")) return true;
  std::array<std::uint8_t, 16> ip{};
  return parse_ip(host, ip) && config::is_loopback(ip);
}

// An Origin is `scheme://host[:port]`; anything else, `null` too, is foreign.
bool is_local_origin(std::string_view origin, Arena& arena) {
  const std::size_t scheme = origin.find("://");
  if (scheme == std::string_view::npos) return false;
  std::string_view host, why;
  std::uint16_t port = 0;
  return parse_authority(origin.substr(scheme + 3), arena, host, port, why) &&
         is_loopback_name(host);
}

}  // namespace

struct AdminServer::Impl final : Acceptor::Events {
  class Client;
  class Request;

  Impl(Server& the_server, const config::Address& the_address, bool is_full)
      : server(the_server),
        address(the_address),
        full(is_full),
        acceptor(the_server.loop(), the_server.flusher().sockets, *this) {}
  ~Impl() { close(); }
  void on_accepted(SocketHandle socket) override;
  void on_refused() override {}
  void close();

  Server& server;
  const config::Address address;
  const bool full;
  Acceptor acceptor;
  ListNode clients;  // quiet longest first
  std::size_t count = 0;
};

// One request; alive until its stream has ended, or its answer came too late for that.
class AdminServer::Impl::Request final : public RequestSink,
                                         public std::enable_shared_from_this<Request> {
 public:
  Request(Client& client, CodecStream& stream, BlockPool& blocks)
      : client_(client), stream_(&stream), arena_(blocks), head_(arena_) {}

 private:
  RequestHead& head() override { return head_; }
  void on_head(bool last) override;
  void on_body(std::string_view bytes, bool last) override;
  void on_trailers(Headers&) override { incoming_ended(); }
  void on_bad(const BadRequest& bad) override;
  void on_reset(const Error&, std::string_view) override;
  void on_writable() override {}
  void on_sent() override;

  Answer decide();
  Answer decide_log(std::string_view query);
  bool refused() const;
  void answer_later(Page page);
  void send(Answer answer);
  void incoming_ended();
  void finish();

  Client& client_;
  CodecStream* stream_;  // null once it has ended
  Arena arena_;
  RequestHead head_;
  std::string body_;
  std::size_t body_bytes_ = 0;
  bool incoming_ended_ = false;
  bool answered_ = false;
  bool sent_ = false;
};

class AdminServer::Impl::Client final : public ListNode,
                                        private Connection::Events,
                                        private ServerEvents {
 public:
  explicit Client(Impl& impl)
      : impl_(impl),
        wire_(impl.server.flusher(), *this),
        timer_(impl.server.loop(), call_member<&Client::on_timer, Client>, this) {
    ++impl_.count;
  }

  void accept(SocketHandle socket) {
    wire_.accept(std::move(socket));
    codec_ = make_h1_server(wire_, *this, {});
    wire_.start_reading();
    timer_.start(kRequestTime);
  }
  void reset() { wire_.close(Wire::Close::kReset); }
  // Ends it without waiting for what the peer has not taken; what the kernel has still arrives.
  void leave() {
    if (!linked()) return;
    unlink();
    --impl_.count;
    wire_.hold_reading(true);
    codec_->on_broken();
    timer_.stop();
    impl_.server.loop().defer(std::unique_ptr<Client>(this));
  }
  Impl& impl() { return impl_; }
  void answering() { timer_.start(kQuietTime); }
  void ended(const Request& request) {
    std::erase_if(requests_, [&](const auto& one) { return one.get() == &request; });
    if (requests_.empty() && !wire_.closing()) timer_.start(kQuietTime);
  }

 private:
  void on_connected(int) override {}
  void on_bytes(std::string_view bytes) override {
    const bool waited = requests_.empty() && codec_->idle();
    unlink();
    insert_before(impl_.clients);
    codec_->feed(bytes);
    if (waited && codec_->in_head()) timer_.start(kRequestTime);
  }
  void on_eof() override { codec_->on_eof(); }
  void on_broken() override {
    codec_->on_broken();
    wire_.close(Wire::Close::kReset);
  }
  void before_flush() override { codec_->pump(); }
  void on_flushed() override { codec_->on_flushed(); }
  void on_closed() override { leave(); }
  RequestSink* on_stream(CodecStream& stream) override {
    timer_.start(kRequestTime);
    return requests_.emplace_back(std::make_shared<Request>(*this, stream, impl_.server.blocks()))
        .get();
  }
  void on_abuse(Reason reason, std::string_view detail) override {
    log::limited(reason, "connection to {} closed: {}", impl_.full ? "admin" : "metrics", detail);
  }
  void on_timer() {
    if (requests_.empty() && codec_->in_head()) {
      codec_->expire_head();  // its 408 has the time of any answer
      if (!requests_.empty() || wire_.closing()) return;
    }
    wire_.close(requests_.empty() ? Wire::Close::kFlush : Wire::Close::kReset);
  }

  Impl& impl_;
  Connection wire_;
  std::unique_ptr<Codec> codec_;
  Timer timer_;
  std::vector<std::shared_ptr<Request>> requests_;
};

// ---- what is answered

bool AdminServer::Impl::Request::refused() const {
  const Impl& impl = client_.impl();
  if (!impl.full) return false;
  std::string_view host, why;
  std::uint16_t port = 0;
  Arena& arena = head_.headers.arena();
  if (!parse_authority(head_.authority, arena, host, port, why) || !is_loopback_name(host))
    return true;
  for (const Header& header : head_.headers)
    if (header.id == HeaderId::kOrigin && !is_local_origin(header.value, arena)) return true;
  return false;
}

Answer AdminServer::Impl::Request::decide_log(std::string_view query) {
  if (head_.method != Method::kPut)
    return {.body = std::string(log::to_string(log::level())) + "\n"};
  const std::optional<log::Level> level = log::level_of(query_value(query, "level").value_or(""));
  if (!level) return {.status = 400, .body = "say ?level= debug, info, warn or error\n"};
  log::set_level(*level);
  return {.body = std::string(log::to_string(*level)) + "\n"};
}

Answer AdminServer::Impl::Request::decide() {
  if (refused())
    return {.status = 403, .body = "only for this machine: Host or Origin names another\n"};
  Impl& impl = client_.impl();
  Server& server = impl.server;
  const std::size_t mark = std::min(head_.target.find('?'), head_.target.size());
  const Page page = page_of(head_.target.substr(0, mark), impl.full);
  if (page == Page::kNone)
    return {.status = 404,
            .body = impl.full ? "not found; GET / lists what there is\n" : "not found\n"};
  const std::string_view allowed = allowed_methods(page);
  if (!list_has_token(allowed, head_.method_text))
    return {.status = 405, .body = "use " + std::string(allowed) + "\n", .allow = allowed};
  switch (page) {
    case Page::kReady: {
      const Server::Readiness readiness = server.readiness();
      Answer answer{.status = readiness.ready ? 200 : 503,
                    .body = readiness.ready ? "ready\n" : ""};
      for (const std::string& reason : readiness.reasons) answer.body.append(reason).append("\n");
      return answer;
    }
    case Page::kLive: return {.body = "live\n"};
    case Page::kIndex: return {.body = std::string(kIndex)};
    case Page::kConfig: return {.type = kYaml, .body = server.config_text()};
    case Page::kStatus: return {.type = kJson, .body = server.config_status()};
    case Page::kReload: return {.status = 501, .body = "reloading is not supported yet\n"};
    case Page::kDrain: server.start_drain(true); return {.status = 202, .body = "draining\n"};
    case Page::kLog: return decide_log(head_.target.substr(mark));
    default: answer_later(page); return {.status = 0};  // it comes with send()
  }
}

// What the workers have to be asked for.
void AdminServer::Impl::Request::answer_later(Page page) {
  Server& server = client_.impl().server;
  if (page == Page::kServices) {
    server.collect_services([self = weak_from_this()](std::string json) {
      if (const auto request = self.lock()) request->send({.type = kJson, .body = std::move(json)});
    });
    return;
  }
  const bool open_metrics = accepts(head_.headers, [](std::string_view type) {
    return equal_ignoring_case(type, "application/openmetrics-text");
  });
  server.collect_metrics(open_metrics, [self = weak_from_this(), open_metrics](std::string text) {
    const auto request = self.lock();
    if (request != nullptr)
      request->send({.type = open_metrics ? kOpenMetrics : kPrometheus, .body = std::move(text)});
  });
}

void AdminServer::Impl::Request::on_head(bool last) {
  const auto keep = shared_from_this();
  incoming_ended_ = last;
  Answer answer = decide();
  if (answer.status != 0) send(std::move(answer));
}

void AdminServer::Impl::Request::on_bad(const BadRequest& bad) {
  const auto keep = shared_from_this();
  incoming_ended_ = true;
  if (answered_) {
    if (sent_) finish();
    return;
  }
  const ReasonInfo& about = info(bad.reason);
  send({.status = bad.status != 0 ? bad.status : about.status,
        .body = std::string(about.sentence) + "\n"});
}

void AdminServer::Impl::Request::send(Answer answer) {
  if (stream_ == nullptr || answered_) return;
  answered_ = true;
  body_ = std::move(answer.body);
  ResponseHead response(arena_);
  response.status = answer.status;
  response.content_length = body_.size();
  response.headers.add(HeaderId::kContentType, answer.type);
  response.headers.add(HeaderId::kCacheControl, "no-store");
  if (!answer.allow.empty()) response.headers.add(HeaderId::kAllow, answer.allow);
  if (head_.expects_continue && !incoming_ended_)
    stream_->close_after();  // its body may come or not
  const bool bodyless = head_.method == Method::kHead || body_.empty();
  client_.answering();
  stream_->send_response(response, bodyless);
  if (!bodyless) stream_->send_body(body_, true);
}

// ---- its end

void AdminServer::Impl::Request::on_body(std::string_view bytes, bool last) {
  const auto keep = shared_from_this();
  body_bytes_ += bytes.size();
  if (last) {
    incoming_ended();
  } else if (body_bytes_ > kBodyBytes) {
    if (!answered_) send({.status = 413, .body = "no body is wanted here\n"});
    if (sent_) finish();
  }
}

void AdminServer::Impl::Request::incoming_ended() {
  const auto keep = shared_from_this();
  incoming_ended_ = true;
  if (sent_) finish();
}

void AdminServer::Impl::Request::on_sent() {
  const auto keep = shared_from_this();
  sent_ = true;
  if (incoming_ended_ || body_bytes_ > kBodyBytes || head_.expects_continue) finish();
}

void AdminServer::Impl::Request::on_reset(const Error&, std::string_view) {
  const auto keep = shared_from_this();
  stream_ = nullptr;
  client_.ended(*this);
}

void AdminServer::Impl::Request::finish() {
  if (stream_ == nullptr) return;
  std::exchange(stream_, nullptr)->release();
  client_.ended(*this);
}

// ---- connections

void AdminServer::Impl::on_accepted(SocketHandle socket) {
  if (count >= kMaxConnections) static_cast<Client&>(*clients.next).reset();
  auto client = std::make_unique<Client>(*this);
  client->accept(std::move(socket));
  client.release()->insert_before(clients);  // it defers its own end in leave()
}

void AdminServer::Impl::close() {
  acceptor.close();
  while (clients.linked()) static_cast<Client&>(*clients.next).leave();
}

AdminServer::AdminServer(Server& server, const config::Address& address, bool full)
    : impl_(std::make_unique<Impl>(server, address, full)) {}
AdminServer::~AdminServer() = default;
void AdminServer::open(BoundSocket socket) { impl_->acceptor.open(std::move(socket)); }
void AdminServer::close() { impl_->close(); }

}  // namespace outrider
