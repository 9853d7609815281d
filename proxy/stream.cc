#include "proxy/stream.h"

#include <algorithm>
#include <utility>

#include "filters/access_log.h"
#include "filters/forwarded.h"
#include "filters/local_reply.h"
#include "filters/route_answer.h"
#include "filters/session.h"
#include "proxy/aside.h"
#include "proxy/downstream.h"
#include "proxy/worker.h"

namespace outrider {

namespace {

constexpr Millis kAnswerPatience{50};

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
      head_timer_(worker_.loop(), call_member<&Stream::on_head_timeout, Stream>, this),
      hedge_timer_(worker_.loop(), call_member<&Stream::on_slow, Stream>, this),
      idle_timer_(worker_.loop(), call_member<&Stream::on_idle_timeout, Stream>, this),
      watch_timer_(worker_.loop(), call_member<&Stream::on_watch, Stream>, this),
      flush_timer_(worker_.loop(), call_member<&Stream::on_flush, Stream>, this) {
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
    if (!x_.answer.set && worker_.refuses_requests()) {
      worker_.metrics_ref().limit_refused(x_.client.listener_label, RefusedLimit::kOverload);
      x_.reply(Reason::kOverload, worker_.refusal());
      x_.answer.retry_after_s = limits::kShedRetryAfter;
    }
    if (x_.route != nullptr) draw_target();
    if (!x_.answer.set) start_timers();
  }
  if (!x_.answer.set && x_.request.version != Version::kTcp) {
    if (paused_ || (x_.whole_request != nullptr && !request_ended_)) return Next::kWait;
    const bool was_grpc = x_.is_grpc;
    const Verdict verdict = x_.target->chain.on_request(x_, *this, request_position_);
    if (x_.is_grpc != was_grpc) start_timers();
    if (verdict == Verdict::kPause || verdict == Verdict::kAskAgain) {
      paused_ = x_.whole_request == nullptr || request_ended_;
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
  hold_client(false);
  if (!awaits_continue_) return;
  x_.request.expects_continue = false;
  x_.request.headers.remove(HeaderId::kExpect);
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
    // A session stays with the target that has its endpoint.
    const auto keeps = [&](const CompiledTarget& target) {
      return target.weight != 0 &&
             worker_.service(target.service)
                 .service.keeps(target.subset, session_of(x_, *target.policy));
    };
    if (route.targets.size() > 1)
      if (const auto held = std::find_if(route.targets.begin(), route.targets.end(), keeps);
          held != route.targets.end())
        chosen = &*held;
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

// Both halves move by themselves; this sees whether they have come to their end. A tunnel has two
// ends, another exchange the response's.
Stream::Next Stream::relay() {
  if (!response_ended_ || (x_.tunnel && !request_ended_)) return Next::kWait;
  if (live_->stream() != nullptr && (!x_.tunnel || live_->sent)) {
    // The connection goes back at once; the client may take its time.
    live_->end(Reason::kOk);
    live_->release();
    total_timer_.stop();
  }
  if (!sent_ || live_->stream() != nullptr) {
    watch_client();
    return Next::kWait;
  }
  step_ = Step::kDone;
  return Next::kGo;
}

Stream::Next Stream::answer() {
  for (Timer* timer : {&total_timer_, &hedge_timer_, &head_timer_}) timer->stop();
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
  x_.response_body.clear();  // what filters put there was for the response that this one replaces
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
  for (Timer* timer :
       {&total_timer_, &hedge_timer_, &head_timer_, &idle_timer_, &watch_timer_, &flush_timer_})
    timer->stop();
  if (ticket_ != nullptr) ticket_->stream = nullptr;
  errand_.reset();
  end_tries(x_.reason);
  send_mirror();
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
  if (!snapshot_->secret_parameters.empty()) hide_secrets(x_, snapshot_->secret_parameters);
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
  } else {
    forward_body(bytes, last);
  }
  if (last) advance();
}

void Stream::forward_body(std::string_view bytes, bool last) {
  if (body_kept_) keep_for_retry(bytes);
  // Without a lease, and until an upgrade is answered, the bytes wait here.
  CodecStream* const upstream = live_->stream();
  if (upstream == nullptr || awaits_upgrade()) {
    hold_client(body_.size() > limits::kHighWater);
    return;
  }
  if (last) send_mirror();
  upstream->send_body(bytes, last);
  if (upstream->queued() > limits::kHighWater) hold_client(true);
}

// What the other kernel buffer did not take is with its codec, and has the bounds of any body.
void Stream::on_passed(std::size_t bytes) {
  x_.bytes_in += bytes;
  on_body({}, false);
}

// While there is no lease everything is kept; after that only as much as a retry may cost.
void Stream::keep_for_retry(std::string_view bytes) {
  const bool sending = live_->stream() != nullptr && !awaits_upgrade();
  if (sending && (x_.response_started || body_.size() + bytes.size() > kept_bytes())) {
    drop_kept_body();
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
  send_mirror();
  if (live_->stream() != nullptr)
    live_->stream()->send_trailers(trailers);
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
    end_tries(bad.reason);
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
  live_->hold(false);
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

// ---- StreamControl

std::uint64_t Stream::now_ns() const { return worker_.loop().now_ns(); }

void Stream::resume() {
  paused_ = false;
  if (step_ == Step::kRequest) advance();
}

void Stream::resume_after(Millis delay) { head_timer_.start(delay); }

void Stream::flush_after(Millis delay) { flush_timer_.start(delay); }

void Stream::on_flush() { x_.response_body.into(to_client_).on_flush(); }

LimitStore* Stream::limit_store(const std::shared_ptr<SharedStore>& store) {
  return worker_.limit_store(store);
}

bool Stream::run_aside(std::shared_ptr<Errand> errand) {
  if (ticket_ == nullptr) ticket_ = std::make_shared<Ticket>(Ticket{this});
  auto back = [&loop = worker_.loop(), ticket = ticket_] {
    loop.post([ticket] {
      if (ticket->stream != nullptr) ticket->stream->resume();
    });
  };
  errand_ = std::move(errand);
  if (Aside* aside = worker_.aside()) return aside->run(errand_, std::move(back));
  errand_->run();
  back();
  return true;
}

void Stream::fail(const Error& error, std::string_view words) {
  give_up(error, words);
  advance();
}

void Stream::cut(Reason reason, std::string_view words) {
  fail({reason, Origin::kProxy, false}, words);
}

}  // namespace outrider
