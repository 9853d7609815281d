#include "proxy/mirror.h"

#include <utility>

#include "proxy/worker.h"

namespace outrider {

void Mirror::send(Worker& worker, const Exchange& x, const MirrorTarget& to,
                  const OutBuffer& body) {
  if (worker.mirrors() >= limits::kMirrored) {
    worker.metrics_ref().event(x.route->route_label, Event::kMirrorDropped);
    return;
  }
  auto* const mirror = new Mirror(worker, x, to, body);
  worker.add(*mirror);
  mirror->begin();
}

// Strings of the exchange end with it, so all are copied.
Mirror::Mirror(Worker& worker, const Exchange& x, const MirrorTarget& to, const OutBuffer& body)
    : worker_(worker),
      route_label_(x.route->route_label),
      to_(to),
      arena_(worker.blocks()),
      request_(arena_),
      response_(arena_),
      body_(worker.flusher().slabs),
      timer_(worker.loop(), call_member<&Mirror::on_timeout, Mirror>, this),
      began_ns_(worker.loop().now_ns()),
      grpc_(x.is_grpc) {
  const RequestHead& from = x.request;
  request_.method = from.method;
  request_.version = from.version;
  request_.method_text = arena_.copy(from.method_text);
  request_.scheme = from.scheme;
  request_.authority = arena_.copy(from.authority);
  request_.target = x.path == "*" ? arena_.copy(x.path) : arena_.concat(x.path_out, x.query);
  request_.content_length = from.content_length;
  request_.te_trailers = from.te_trailers;
  for (const Header& header : from.headers)
    request_.headers.add(header.id, arena_.copy(header.name), arena_.copy(header.value));
  request_.headers.add(HeaderId::kUnknown, "x-outrider-mirror", "1");
  body.for_each([this](std::string_view piece, bool) { body_.append(piece); });
}

void Mirror::begin() {
  ServiceRuntime& runtime = worker_.service(to_.service);
  Service& service = runtime.service;
  timer_.start(limits::kMirrorTime);
  counted_ = take(service.shared().requests, service.request_limit().most);
  if (!counted_) return end(Event::kMirrorDropped);
  Aim aim;
  aim.now_ns = began_ns_;
  Endpoint* const endpoint = service.choose(to_.subset, aim, worker_.random());
  if (endpoint == nullptr) return end(Event::kMirrorFailed);
  service.began(*endpoint);
  endpoint_ = endpoint;
  const config::Protocol protocol = service.config().protocol;
  const bool http2 =
      protocol == config::Protocol::kHttp2 || (protocol == config::Protocol::kAuto && grpc_);
  pool_ = &runtime.pool(*endpoint, http2 ? Speaks::kHttp2 : Speaks::kHttp1);
  Lease lease;
  switch (pool_->acquire(*this, lease)) {
    case UpstreamPool::Got::kLease: return on_lease(lease);
    case UpstreamPool::Got::kWaiting: return;
    case UpstreamPool::Got::kRefused: return end(Event::kMirrorDropped);
  }
}

void Mirror::on_lease(const Lease& lease) {
  lease_ = lease;
  lease_.stream->send_request(request_, body_.empty());
  body_.for_each(
      [this](std::string_view piece, bool last) { lease_.stream->send_body(piece, last); });
  body_.clear();
}

void Mirror::on_head(bool last) {
  if (!last) return;
  answered_ = true;
  finish();
}

void Mirror::on_body(std::string_view, bool last) { on_head(last); }
void Mirror::on_trailers(Headers&) { on_head(true); }

void Mirror::on_sent() {
  sent_ = true;
  finish();
}

void Mirror::on_reset(const Error&, std::string_view) {
  lease_.stream = nullptr;
  pool_->give_back(lease_);
  end(Event::kMirrorFailed);
}

void Mirror::finish() {
  if (!sent_ || !answered_ || lease_.stream == nullptr) return;
  std::exchange(lease_.stream, nullptr)->release();
  pool_->give_back(lease_);
  end(Event::kMirrorSent);
}

void Mirror::end(Event result) {
  if (std::exchange(ended_, true)) return;
  timer_.stop();
  if (pool_ != nullptr) pool_->cancel(*this);
  if (lease_.stream != nullptr) {
    std::exchange(lease_.stream, nullptr)->reset(ResetCode::kCancel);
    pool_->give_back(lease_);
  }
  Service& service = worker_.service(to_.service).service;
  if (endpoint_ != nullptr) {
    const std::uint64_t now_ns = worker_.loop().now_ns();
    // A copy says how long it took; whether it may fail is nobody's concern.
    service.ended(*endpoint_,
                  {.answered = answered_, .latency_ns = now_ns - began_ns_, .now_ns = now_ns});
  }
  if (counted_) give_back(service.shared().requests);
  worker_.metrics_ref().event(route_label_, result);
  worker_.remove(*this);
  worker_.loop().defer(this, [](void* it) { delete static_cast<Mirror*>(it); });
}

}  // namespace outrider
