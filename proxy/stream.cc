#include "proxy/stream.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "filters/forwarded.h"
#include "filters/local_reply.h"
#include "filters/route_answer.h"
#include "proxy/downstream.h"
#include "proxy/worker.h"

namespace outrider {

namespace {

constexpr Millis kAnswerPatience{50};

AttemptResult attempt_result(Reason reason) {
  switch (reason) {
    case Reason::kOk: return AttemptResult::kOk;
    case Reason::kConnectFailure: return AttemptResult::kConnectFailure;
    case Reason::kConnectTimeout: return AttemptResult::kConnectTimeout;
    case Reason::kUpstreamReset: return AttemptResult::kReset;
    case Reason::kUpstreamProtocolError: return AttemptResult::kProtocolError;
    case Reason::kStaleConnection: return AttemptResult::kStale;
    case Reason::kTimeoutHeaders:
    case Reason::kTimeoutTotal:
    case Reason::kTimeoutPerTry:
    case Reason::kTimeoutIdle: return AttemptResult::kTimeout;
    default: return AttemptResult::kCancelled;
  }
}

// After these the rest of an HTTP/1 request is not worth reading, or cannot be trusted.
bool closes_connection(Reason reason) {
  return reason == Reason::kBadRequest || reason == Reason::kBodyTooLarge ||
         reason == Reason::kHeaderTooLarge || reason == Reason::kClientTimeout ||
         reason == Reason::kDrain;
}

}  // namespace

Stream* Stream::create(Downstream& owner, CodecStream& client) {
  return ::new (owner.worker().stream_memory()) Stream(owner, client);
}

Stream::Stream(Downstream& owner, CodecStream& client)
    : owner_(owner),
      worker_(owner.worker()),
      snapshot_(owner.worker().snapshot()),
      client_(&client),
      x_(owner.worker().blocks(), owner.info()),
      body_(owner.worker().flusher().slabs),
      total_timer_(worker_.loop(), call_member<&Stream::on_total_timeout, Stream>, this),
      try_timer_(worker_.loop(), call_member<&Stream::on_try_timeout, Stream>, this),
      head_timer_(worker_.loop(), call_member<&Stream::on_head_timeout, Stream>, this),
      idle_timer_(worker_.loop(), call_member<&Stream::on_idle_timeout, Stream>, this),
      watch_timer_(worker_.loop(), call_member<&Stream::on_watch, Stream>, this) {
  x_.started_ns = worker_.loop().now_ns();
  x_.request.scheme = x_.client.scheme();
  last_moved_ms_ = worker_.loop().now_ms();
  ++worker_.open_streams_;
}

Stream::~Stream() { --worker_.open_streams_; }

// ---- the life of an exchange

void Stream::advance() {
  for (Next next = Next::kGo; next == Next::kGo;) {
    switch (step_) {
      case Step::kRequest: next = request(); break;
      case Step::kAttempt: next = attempt(); break;
      case Step::kBackoff: next = Next::kWait; break;
      case Step::kRelay: next = relay(); break;
      case Step::kAnswer: next = answer(); break;
      case Step::kDone: next = done(); break;
    }
  }
}

Stream::Next Stream::request() {
  if (x_.route == nullptr && !x_.answer.set) {
    route_request(x_, *snapshot_, owner_.listener().snapshot());
    if (!x_.answer.set) draw_target();
    if (!x_.answer.set) start_timers();
  }
  if (!x_.answer.set && x_.request.version != Version::kTcp) {
    if (paused_ || (x_.whole_request != nullptr && !request_ended_)) return Next::kWait;
    const bool was_grpc = x_.is_grpc;
    const Verdict verdict = x_.target->chain.on_request(x_, *this, request_position_);
    if (x_.is_grpc != was_grpc) start_timers();
    if (verdict == Verdict::kPause) {
      paused_ = x_.whole_request == nullptr;
      if (!paused_) take_whole_request();
      return Next::kWait;
    }
  }
  const bool forwards = !x_.answer.set && x_.target->target != nullptr;
  step_ = forwards ? Step::kAttempt : Step::kAnswer;
  return Next::kGo;
}

// A filter wants all of the body before anything is sent.
void Stream::take_whole_request() {
  if (!awaits_continue_) return;
  x_.request.expects_continue = false;
  ResponseHead& interim = x_.response;
  interim.status = 100;
  client_->send_interim(interim);
  interim.status = 0;
  begin_body();
}

// The target by weight; one without endpoints leaves its share to the others unless `when_empty:
// fail`.
bool Stream::draw_target() {
  const CompiledRoute& route = *x_.route;
  const CompiledTarget* chosen = &route.targets.front();
  if (chosen->target != nullptr) {
    if (route.total_weight == 0) {
      x_.reply(Reason::kNoWeight, "every target of the route has weight 0");
      return false;
    }
    auto draw = [&](auto&& usable, std::uint32_t total) {
      std::uint32_t ticket = worker_.random().below(total);
      for (const CompiledTarget& target : route.targets) {
        if (!usable(target)) continue;
        if (ticket < target.weight) return &target;
        ticket -= target.weight;
      }
      return &route.targets.front();
    };
    auto is_empty = [&](const CompiledTarget& target) {
      return worker_.service(target.service).service.empty(target.subset);
    };
    if (route.targets.size() > 1)
      chosen = draw([](const CompiledTarget&) { return true; }, route.total_weight);
    const bool spill = !chosen->policy->when_empty ||
                       chosen->policy->when_empty->value == config::WhenEmpty::kSpill;
    if (route.targets.size() > 1 && spill && is_empty(*chosen)) {
      std::uint32_t total = 0;
      for (const CompiledTarget& target : route.targets)
        if (!is_empty(target)) total += target.weight;
      if (total != 0)
        chosen = draw([&](const CompiledTarget& target) { return !is_empty(target); }, total);
    }
  }
  x_.target = chosen;
  const config::Policy& policy = *chosen->policy;
  if (!x_.request.upgrade.empty() && !take_upgrade(*chosen)) return false;
  body_limit_ = policy.body_max ? policy.body_max->value : x_.client.listener->limits.body.value;
  if (body_limit_ != 0 && x_.request.content_length && *x_.request.content_length > body_limit_) {
    x_.reply(Reason::kBodyTooLarge, body_words());
    return false;
  }
  return true;
}

// Upgrades go only where the route says; otherwise the request is an ordinary one, but for extended
// CONNECT, which is nothing else.
bool Stream::take_upgrade(const CompiledTarget& target) {
  const std::string_view token = x_.request.upgrade;
  const auto names = [&](std::string_view listed) { return equal_ignoring_case(token, listed); };
  const auto& listed = target.policy->upgrade;
  const bool allowed =
      listed ? std::any_of(listed->value.begin(), listed->value.end(), names) : names("websocket");
  if (allowed && target.target != nullptr) return true;
  if (x_.request.version == Version::kHttp2) {
    x_.reply(Reason::kNotSupported, allowed
                                        ? "the route forwards nothing, so there is no tunnel"
                                        : "the route's upgrade list does not name the protocol");
    return false;
  }
  x_.request.upgrade = {};
  return true;
}

Stream::Next Stream::attempt() {
  if (client_ == nullptr) return Next::kWait;
  const CompiledTarget& target = *x_.target;
  runtime_ = &worker_.service(target.service);
  Service& service = runtime_->service;
  if (!counted_request_) {
    if (!take(service.shared().requests, service.config().limits.requests.value)) {
      worker_.metrics_ref().limit_refused(service.label(), RefusedLimit::kRequests);
      x_.reply(Reason::kLimitRequests, knob("limits.requests", service.config().limits.requests));
      step_ = Step::kAnswer;
      return Next::kGo;
    }
    counted_request_ = true;
  }
  Endpoint* endpoint =
      service.choose(target.subset, {tried_.data(), tried_count_}, worker_.random());
  if (endpoint == nullptr) {
    x_.reply(Reason::kNoEndpoint, target.subset < 0 ? "the service has no endpoint"
                                                    : "no endpoint carries the subset's labels");
    step_ = Step::kAnswer;
    return Next::kGo;
  }
  auto* attempt = x_.arena.make<Attempt>();
  attempt->endpoint = endpoint;
  attempt->started_ns = worker_.loop().now_ns();
  attempt->stale_retry = fresh_;
  (x_.attempt == nullptr ? x_.first_attempt : x_.attempt->next) = attempt;
  x_.attempt = attempt;
  x_.endpoint = endpoint;
  if (!fresh_) ++x_.attempts;
  ++endpoint->active;
  if (tried_count_ < tried_.size()) tried_[tried_count_++] = endpoint;
  const config::Policy& policy = *target.policy;
  if (policy.timeout_per_try && policy.timeout_per_try->value.count() != 0 && !x_.tunnel)
    try_timer_.start(policy.timeout_per_try->value);
  const config::Protocol protocol = service.config().protocol;
  endpoint_ = endpoint;
  const bool http2 =
      protocol == config::Protocol::kHttp2 ||
      (protocol == config::Protocol::kAuto && x_.is_grpc && x_.request.upgrade.empty());
  const bool tcp = x_.request.version == Version::kTcp;
  pool_ = &runtime_->pool(*endpoint, tcp ? Speaks::kTcp : http2 ? Speaks::kHttp2 : Speaks::kHttp1);
  fresh_only = fresh_;
  step_ = Step::kRelay;
  Lease lease;
  switch (pool_->acquire(*this, lease)) {
    case UpstreamPool::Got::kLease: on_lease(lease); return Next::kWait;
    case UpstreamPool::Got::kWaiting: return Next::kWait;
    case UpstreamPool::Got::kRefused: break;
  }
  worker_.metrics_ref().limit_refused(service.label(), RefusedLimit::kPending);
  attempt_failed({Reason::kLimitPending, Origin::kProxy, true},
                 knob("limits.pending", service.config().limits.pending));
  return Next::kGo;
}

void Stream::on_lease(const Lease& lease) {
  lease_ = lease;
  upstream_sent_ = upstream_held_ = false;
  x_.attempt->connected_ns = worker_.loop().now_ns();
  x_.attempt->reused = lease.reused;
  if (!x_.request.upgrade.empty() && !lease.connection->codec().takes_upgrades()) {
    attempt_failed({Reason::kUpstreamProtocolError, Origin::kUpstream, false},
                   "the upstream takes no extended CONNECT (RFC 8441)");
    advance();
    return;
  }
  send_request();
}

void Stream::on_lease_failed(const Error& error, std::string_view words) {
  attempt_failed(error, words);
  advance();
}

void Stream::send_request() {
  if (x_.request.version != Version::kTcp) x_.target->chain.on_attempt(x_);
  if (x_.is_grpc && deadline_ms_ != 0) {
    // What is left of the deadline goes on with the request.
    const std::uint64_t now = worker_.loop().now_ms();
    char text[16];
    char* end =
        std::to_chars(
            text, text + sizeof(text) - 1,
            deadline_ms_ > now ? std::min<std::uint64_t>(deadline_ms_ - now, 99'999'999) : 1)
            .ptr;
    *end++ = 'm';
    x_.request.headers.set(HeaderId::kGrpcTimeout,
                           x_.arena.copy({text, static_cast<std::size_t>(end - text)}));
  }
  const std::string_view as_came = x_.request.target;
  const bool unchanged = x_.path_out.data() == as_came.data() &&
                         x_.path_out.size() + x_.query.size() == as_came.size();
  if (!unchanged && x_.path != "*" && x_.request.version != Version::kTcp)
    x_.request.target = x_.arena.concat(x_.path_out, x_.query);
  const bool bodyless = request_ended_ && body_.empty() && trailers_ == nullptr;
  lease_.stream->send_request(x_.request, bodyless);
  x_.request.target = as_came;
  if (awaits_upgrade() || awaits_continue_) start_head_timer();
  if (!bodyless && !awaits_upgrade()) send_kept_body();
}

void Stream::send_kept_body() {
  const bool last = request_ended_ && trailers_ == nullptr;
  body_.for_each(
      [&](std::string_view piece, bool end) { lease_.stream->send_body(piece, last && end); });
  if (trailers_ != nullptr)
    lease_.stream->send_trailers(*trailers_);
  else if (last && body_.empty())
    lease_.stream->send_body({}, true);
  if (x_.tunnel || body_.size() > x_.target->policy->retry_buffer->value) {
    body_.clear();
    body_kept_ = false;
  }
  hold_client(lease_.stream->queued() > limits::kHighWater);
}

// Both halves move by themselves; this sees whether they have come to their end. A tunnel has two
// ends, another exchange the response's.
Stream::Next Stream::relay() {
  if (!response_ended_ || (x_.tunnel && !request_ended_)) return Next::kWait;
  if (lease_.stream != nullptr && (!x_.tunnel || upstream_sent_)) {
    // The connection goes back at once; the client may take its time.
    note_attempt_end(Reason::kOk);
    std::exchange(lease_.stream, nullptr)->release();
    pool_->give_back(lease_);
    total_timer_.stop();
    try_timer_.stop();
  }
  if (!sent_ || lease_.stream != nullptr) {
    watch_client();
    return Next::kWait;
  }
  step_ = Step::kDone;
  return Next::kGo;
}

Stream::Next Stream::answer() {
  for (Timer* timer : {&total_timer_, &try_timer_, &head_timer_}) timer->stop();
  if (client_ == nullptr || x_.request.version == Version::kTcp) {
    note_failure(x_, x_.answer.reason, x_.answer.detail);
    if (client_ != nullptr) std::exchange(client_, nullptr)->reset(ResetCode::kRefused);
    step_ = Step::kDone;
    return Next::kGo;
  }
  // A body on its way is let in first where it can come soon: it may show the request to be
  // malformed, and the connection stays usable.
  const bool may_wait = !request_ended_ && !request_broken_ && !x_.request.expects_continue &&
                        !x_.is_grpc && x_.request.upgrade.empty() &&
                        !(x_.answer.set && closes_connection(x_.answer.reason));
  if (may_wait && !std::exchange(answer_waited_, true)) {
    head_timer_.start(kAnswerPatience);
    return Next::kWait;
  }
  step_ = Step::kRelay;
  if (x_.answer.set)
    answer_body_ = local_reply(x_);
  else
    answer_body_ = answer_route(x_, *x_.route);
  x_.response_complete = answer_body_.empty() || x_.request.method == Method::kHead;
  if (x_.target != nullptr) x_.target->chain.on_response(x_, *this, response_position_);
  x_.response_started = true;
  hold_client(false);
  // What is wrong with an HTTP/1 request may leave its end unknown.
  if (x_.request.version != Version::kHttp2 &&
      (request_broken_ || x_.answer.close || closes_connection(x_.reason)))
    client_->close_after();
  client_->send_response(x_.response, x_.response_complete);
  if (x_.response_complete)
    response_ended_ = true;
  else
    x_.response_body.into(to_client_).on_body(answer_body_, true);
  return Next::kGo;
}

Stream::Next Stream::done() {
  if (logged_) return Next::kWait;
  logged_ = true;
  for (Timer* timer : {&total_timer_, &try_timer_, &head_timer_, &idle_timer_, &watch_timer_})
    timer->stop();
  drop_upstream(ResetCode::kCancel);
  note_attempt_end(x_.reason);
  x_.ended_ns = worker_.loop().now_ns();
  if (x_.target != nullptr && x_.request.version != Version::kTcp) x_.target->chain.on_done(x_);
  if (counted_request_) give_back(runtime_->service.shared().requests);
  if (counted_retry_) give_back(runtime_->service.shared().retries);
  const std::uint32_t service =
      x_.target != nullptr && x_.target->target != nullptr ? x_.target->service_label : 0;
  const std::uint32_t route = x_.route != nullptr ? x_.route->route_label : 0;
  worker_.metrics_ref().request(
      {x_.client.listener_label, route, service, static_cast<std::uint16_t>(x_.status), x_.reason},
      (x_.ended_ns - x_.started_ns) / 1000);
  for (std::size_t i = 0; i < x_.event_count; ++i) worker_.metrics_ref().event(route, x_.events[i]);
  worker_.log(x_);
  if (client_ != nullptr) {
    // The rest of a body that came too slowly is not waited for.
    if (x_.reason == Reason::kClientTimeout)
      std::exchange(client_, nullptr)->reset(ResetCode::kCancel);
    else
      std::exchange(client_, nullptr)->release();
  }
  unlink();
  owner_.stream_ended();
  worker_.loop().defer(this, [](void* it) {
    auto* self = static_cast<Stream*>(it);
    Worker& worker = self->worker_;
    self->~Stream();
    worker.give_back_stream_memory(self);
  });
  return Next::kWait;
}

// ---- the client's half

void Stream::on_head(bool last) {
  ended_with_head_ = request_ended_ = x_.request_complete = last;
  x_.started_wall_ms = worker_.wall_ms();
  if (!last) {
    body_began_ms_ = body_moved_ms_ = worker_.loop().now_ms();
    awaits_continue_ = x_.request.expects_continue;
    watch_client();
  }
  advance();
}

// The client sends its body from now on.
void Stream::begin_body() {
  awaits_continue_ = false;
  body_began_ms_ = body_moved_ms_ = worker_.loop().now_ms();
  if (step_ == Step::kRelay && !awaits_upgrade()) head_timer_.stop();  // until it is sent
}

void Stream::on_body(std::string_view bytes, bool last) {
  touch();
  if (awaits_continue_) begin_body();
  x_.bytes_in += bytes.size();
  body_moved_ms_ = last_moved_ms_;
  if (last) request_ended_ = x_.request_complete = true;
  if (logged_ || (response_ended_ && !x_.tunnel))
    return;  // the answer is complete: the rest is dropped
  if (step_ == Step::kAnswer) {
    if (last || x_.bytes_in > limits::kLingerBytes) advance();
    return;
  }
  if (body_limit_ != 0 && x_.bytes_in > body_limit_ && !x_.tunnel) {
    fail({Reason::kBodyTooLarge, Origin::kClient, false}, body_words());
    return;
  }
  x_.request_body.into(to_upstream_).on_body(bytes, last);
}

void Stream::send_up(std::string_view bytes, bool last) {
  if (logged_ || step_ == Step::kAnswer || step_ == Step::kDone) return;
  if (step_ == Step::kRequest && x_.whole_request != nullptr) {
    body_.append(bytes);
    if (body_.size() > x_.whole_request->value) {
      fail({Reason::kBodyTooLarge, Origin::kClient, false},
           x_.arena.concat("the body is larger than ", knob("buffer", *x_.whole_request)));
      return;
    }
    if (last) x_.request.content_length = body_.size();
  } else {
    forward_body(bytes, last);
  }
  if (last) advance();
}

void Stream::forward_body(std::string_view bytes, bool last) {
  if (body_kept_) keep_for_retry(bytes);
  // Without a lease, and until an upgrade is answered, the bytes wait here.
  if (lease_.stream == nullptr || awaits_upgrade()) {
    hold_client(body_.size() > limits::kHighWater);
    return;
  }
  lease_.stream->send_body(bytes, last);
  if (lease_.stream->queued() > limits::kHighWater) hold_client(true);
}

// What the other kernel buffer did not take is with its codec, and has the bounds of any body.
void Stream::on_passed(std::size_t bytes) {
  x_.bytes_in += bytes;
  on_body({}, false);
}

// While there is no lease everything is kept; after that only as much as a retry may cost.
void Stream::keep_for_retry(std::string_view bytes) {
  const bool sending = lease_.stream != nullptr && !awaits_upgrade();
  if (sending && (x_.response_started ||
                  body_.size() + bytes.size() > x_.target->policy->retry_buffer->value)) {
    body_.clear();
    body_kept_ = false;
    return;
  }
  body_.append(bytes);
}

void Stream::on_trailers(Headers& trailers) {
  touch();
  clean_trailers(trailers);
  request_ended_ = x_.request_complete = true;
  if (logged_ || (response_ended_ && !x_.tunnel)) return;
  if (step_ == Step::kAnswer) {
    advance();
    return;
  }
  x_.request_body.into(to_upstream_).on_trailers(trailers);
}

void Stream::send_up(Headers& trailers) {
  trailers_ = &trailers;
  if (lease_.stream != nullptr)
    lease_.stream->send_trailers(trailers);
  else if (step_ == Step::kRequest)
    advance();
}

void Stream::on_bad(const BadRequest& bad) {
  request_broken_ = true;
  x_.started_wall_ms = worker_.wall_ms();
  if (logged_ || response_ended_) return;  // the answer stands; the codec closes after it
  if (x_.response_started) {
    note_failure(x_, bad.reason, bad.detail);
    step_ = Step::kDone;
    if (client_ != nullptr) std::exchange(client_, nullptr)->reset(ResetCode::kProtocol);
  } else {
    drop_upstream(ResetCode::kCancel);
    if (x_.client_ip_text.empty()) trust(x_);
    x_.reply(bad.reason, bad.reason == Reason::kHeaderTooLarge ? head_words(bad) : bad.detail,
             bad.status);
    x_.answer.close = true;
    step_ = Step::kAnswer;
  }
  advance();
}

void Stream::on_reset(const Error& error, std::string_view detail) {
  client_ = nullptr;
  if (logged_) return;
  if (x_.started_wall_ms == 0) x_.started_wall_ms = worker_.wall_ms();
  // A client that has its whole Content-Length may leave before the upstream has said that this was
  // the end.
  const bool whole = x_.response_started && !x_.tunnel && x_.response.content_length &&
                     x_.bytes_out == *x_.response.content_length;
  if (!whole || error.reason != Reason::kClientClosed) note_failure(x_, error.reason, detail);
  if (!x_.response_started) x_.status = outrider::info(error.reason).status;
  step_ = Step::kDone;
  advance();
}

void Stream::on_writable() {
  touch();
  hold_upstream(false);
}

void Stream::on_sent() {
  sent_ = true;
  advance();
}

void Stream::hold_client(bool held) {
  if (held == client_held_ || client_ == nullptr) return;
  client_held_ = held;
  const std::uint64_t now = worker_.loop().now_ms();
  if (held) {
    held_since_ms_ = now;
    watch_client();
  } else {
    held_ms_ += now - held_since_ms_;
    body_moved_ms_ = now;
  }
  client_->hold(held);
}

void Stream::hold_upstream(bool held) {
  if (held == upstream_held_ || lease_.stream == nullptr) return;
  upstream_held_ = held;
  lease_.stream->hold(held);
}

// ---- the upstream's half

void Stream::upstream_sent() {
  upstream_sent_ = true;
  x_.attempt->sent_ns = worker_.loop().now_ns();
  if (x_.tunnel) {
    advance();
    return;
  }
  if (!x_.response_started && !upstream_ended_) start_head_timer();
}

void Stream::upstream_interim() {
  touch();
  interim_sent_ = true;
  if (awaits_continue_ && x_.response.status == 100) begin_body();
  if (client_ != nullptr && !x_.response_started && x_.request.version != Version::kHttp10)
    client_->send_interim(x_.response);
}

void Stream::upstream_head(bool last) {
  touch();
  x_.attempt->head_ns = worker_.loop().now_ns();
  head_timer_.stop();
  upstream_ended_ = last;
  x_.status = x_.response.status;
  const CompiledTarget& target = *x_.target;
  if (x_.request.version == Version::kHttp2 && awaits_upgrade() && x_.response.status / 100 == 2) {
    // To the client that would look like a tunnel.
    attempt_failed({Reason::kUpstreamProtocolError, Origin::kUpstream, false},
                   "the upstream answered without a change of protocol");
    advance();
    return;
  }
  if (x_.request.version != Version::kTcp) {
    // A failure that may be tried again is not yet the client's.
    const Error asks{Reason::kOk, Origin::kUpstream, false};
    x_.replayable = body_kept_ && !interim_sent_;
    if (x_.response.status >= 400 &&
        target.chain.on_attempt_failed(x_, asks, *this) == Verdict::kPause) {
      note_attempt_end(Reason::kOk);
      drop_upstream(ResetCode::kCancel);
      return;
    }
    x_.tunnel = x_.response.status == 101;
    if (x_.tunnel && x_.request.version == Version::kHttp2) x_.status = 200;  // as it will be sent
    x_.response_complete = last;
    x_.is_sse = x_.response.headers.get(HeaderId::kContentType).starts_with("text/event-stream");
    if (target.chain.on_response(x_, *this, response_position_) == Verdict::kReply) {
      drop_upstream(ResetCode::kCancel);
      note_attempt_end(Reason::kOk);
      step_ = Step::kAnswer;
      advance();
      return;
    }
  } else {
    x_.tunnel = true;
  }
  if (x_.tunnel || x_.is_sse) {
    total_timer_.stop();
    try_timer_.stop();
  }
  const bool upgraded = x_.tunnel && !x_.request.upgrade.empty();
  if (upgraded) {
    // Over HTTP/1 both halves begin anew; what the client sent ahead goes first.
    if (ended_with_head_ && x_.request.version != Version::kHttp2) request_ended_ = false;
    upstream_sent_ = false;
  } else {
    body_.clear();
  }
  body_kept_ = false;
  x_.response_started = true;
  response_ended_ = last;
  client_->send_response(x_.response, last);
  const bool as_it_comes = x_.request_body.empty() && x_.response_body.empty();
  if (!last && as_it_comes && x_.request.version != Version::kHttp2)
    owner_.link(*lease_.connection);
  if (upgraded && (request_ended_ || !body_.empty())) send_kept_body();
  if (last) advance();
}

void Stream::upstream_body(std::string_view bytes, bool last) {
  touch();
  upstream_ended_ |= last;
  x_.response_body.into(to_client_).on_body(bytes, last);
}

void Stream::send_down(std::string_view bytes, bool last) {
  if (client_ == nullptr || response_ended_) return;
  x_.bytes_out += bytes.size();
  response_ended_ = last;
  client_->send_body(bytes, last);
  if (last) {
    advance();
  } else if (client_->queued() > limits::kHighWater) {
    hold_upstream(true);
    watch_client();
  }
}

void Stream::upstream_passed(std::size_t bytes) {
  x_.bytes_out += bytes;
  upstream_body({}, false);
}

void Stream::upstream_trailers(Headers& trailers) {
  touch();
  upstream_ended_ = true;
  x_.response_body.into(to_client_).on_trailers(trailers);
}

void Stream::send_down(Headers& trailers) {
  if (client_ == nullptr || response_ended_) return;
  response_ended_ = true;
  client_->send_trailers(trailers);
  advance();
}

void Stream::upstream_reset(const Error& error, std::string_view detail) {
  lease_.stream = nullptr;
  pool_->give_back(lease_);
  Error failure = error;
  if (is_stale(error)) {
    failure.reason = Reason::kStaleConnection;
    const bool may_repeat = error.repeatable || is_idempotent(x_.request.method) ||
                            x_.request.headers.find(HeaderId::kIdempotencyKey) != nullptr;
    if (may_repeat && body_kept_ && client_ != nullptr && !std::exchange(stale_retried_, true)) {
      note_attempt_end(Reason::kStaleConnection);
      fresh_ = true;
      if (tried_count_ > 0) --tried_count_;
      step_ = Step::kAttempt;
      advance();
      return;
    }
  }
  attempt_failed(failure, detail);
  advance();
}

// A pooled connection that its peer had closed costs nobody a request: once, on a fresh connection.
bool Stream::is_stale(const Error& error) const {
  return lease_.reused && error.gone && !error.answered && !interim_sent_ &&
         error.reason == Reason::kUpstreamReset && x_.request.version != Version::kTcp;
}

// Ends what the attempt holds: its place in the queue, or its stream.
void Stream::drop_upstream(ResetCode code) {
  if (pool_ != nullptr) pool_->cancel(*this);
  if (lease_.stream == nullptr) return;
  std::exchange(lease_.stream, nullptr)->reset(code);
  pool_->give_back(lease_);
}

void Stream::note_attempt_end(Reason reason) {
  Attempt* attempt = x_.attempt;
  if (attempt == nullptr || attempt->ended_ns != 0) return;
  attempt->ended_ns = worker_.loop().now_ns();
  attempt->result = reason;
  --endpoint_->active;
  worker_.metrics_ref().attempt(x_.target->service_label, attempt_result(reason));
}

// One attempt is over without an answer: perhaps another, else the client hears why.
void Stream::attempt_failed(const Error& error, std::string_view words) {
  try_timer_.stop();
  head_timer_.stop();
  drop_upstream(ResetCode::kCancel);
  note_attempt_end(error.reason);
  x_.replayable = body_kept_ && !interim_sent_;
  fresh_ = false;
  if (!x_.response_started && client_ != nullptr) {
    if (x_.request.version != Version::kTcp) {
      if (x_.target->chain.on_attempt_failed(x_, error, *this) == Verdict::kPause) return;
    } else if (error.repeatable && x_.attempts <= x_.target->policy->retry_attempts->value &&
               may_retry()) {
      retry_after(Millis{0});
      return;
    }
  }
  give_up(error, words);
}

// The exchange is over without success. An answer if none has begun, else a cut that cannot look
// complete.
void Stream::give_up(const Error& error, std::string_view words) {
  if (logged_ || step_ == Step::kAnswer || step_ == Step::kDone) return;
  drop_upstream(ResetCode::kCancel);
  note_attempt_end(error.reason);
  if (!x_.response_started) {
    x_.reply(error.reason, words);
    step_ = Step::kAnswer;
    return;
  }
  note_failure(x_, error.reason, words);
  const bool takes_trailers =
      x_.request.version == Version::kHttp2 || !x_.response_body.empty();  // of gRPC-Web
  if (client_ != nullptr && x_.is_grpc && takes_trailers && !response_ended_) {
    for (Timer* timer : {&total_timer_, &try_timer_, &head_timer_}) timer->stop();
    step_ = Step::kRelay;
    x_.response_body.into(to_client_).on_trailers(grpc_trailers(x_));
    return;
  }
  if (client_ != nullptr) std::exchange(client_, nullptr)->reset(ResetCode::kInternal);
  step_ = Step::kDone;
}

void Stream::cut(Reason reason, std::string_view words) {
  fail({reason, Origin::kProxy, false}, words);
}

// ---- StreamControl

void Stream::resume() {
  paused_ = false;
  advance();
}

void Stream::resume_after(Millis delay) { head_timer_.start(delay); }

bool Stream::may_retry() {
  Service& service = runtime_->service;
  if (!counted_retry_ && !take(service.shared().retries, service.config().limits.retries.value)) {
    worker_.metrics_ref().limit_refused(service.label(), RefusedLimit::kRetries);
    return false;
  }
  counted_retry_ = true;
  return true;
}

void Stream::fail(const Error& error, std::string_view words) {
  give_up(error, words);
  advance();
}

void Stream::retry_after(Millis delay) {
  worker_.metrics_ref().retry(x_.target->service_label,
                              x_.attempt != nullptr ? x_.attempt->result : Reason::kOk);
  step_ = Step::kBackoff;
  head_timer_.start(delay);
}

}  // namespace outrider
