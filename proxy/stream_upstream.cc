// The upstream half of an exchange: its tries, one after the other or, when one is slow, side by
// side; what comes back of them; and how it ends when nothing does.
#include <algorithm>
#include <charconv>
#include <utility>

#include "discovery/retry_budget.h"
#include "filters/local_reply.h"
#include "filters/session.h"
#include "proxy/downstream.h"
#include "proxy/mirror.h"
#include "proxy/stream.h"
#include "proxy/worker.h"

namespace outrider {

namespace {

// -1: not said.
int grpc_status_of(const Headers& headers) {
  const std::string_view text = headers.get(HeaderId::kGrpcStatus);
  int status = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), status);
  return error == std::errc() && end == text.data() + text.size() ? status : -1;
}

}  // namespace

// ---- tries

Stream::Next Stream::attempt() {
  if (client_ == nullptr) return Next::kWait;
  const CompiledTarget& target = *x_.target;
  runtime_ = &worker_.service(target.service);
  Service& service = runtime_->service;
  if (!counted_request_) {
    const RequestLimit limit = service.request_limit();
    if (!take(service.shared().requests, limit.most)) {
      worker_.metrics_ref().limit_refused(
          service.label(), limit.adapts ? RefusedLimit::kConcurrency : RefusedLimit::kRequests);
      const config::ServiceLimits& limits = service.config().limits;
      x_.reply(Reason::kLimitRequests, limit.adapts ? knob("limits.concurrency: adaptive, now",
                                                           {limit.most, limits.adaptive.mark})
                                                    : knob("limits.requests", limits.requests));
      step_ = Step::kAnswer;
      return Next::kGo;
    }
    counted_request_ = true;
  }
  Endpoint* endpoint = choose_endpoint();
  if (endpoint == nullptr) {
    const Nothing nothing = service.nothing(target.subset);
    x_.reply(nothing.reason, nothing.words);
    step_ = Step::kAnswer;
    return Next::kGo;
  }
  if (hedges_ != nullptr) worker_.loop().defer(std::move(hedges_));
  live_ = &first_;
  step_ = Step::kRelay;
  if (const auto& hedge = target.policy->hedge_after;
      hedge && hedge->value.count() != 0 && x_.request.upgrade.empty())
    hedge_timer_.start(hedge->value);
  begin(first_, *endpoint);
  return step_ == Step::kRelay ? Next::kWait : Next::kGo;
}

// Another than those that were tried, if there is one.
Endpoint* Stream::choose_endpoint() {
  Aim aim = aim_of(x_);
  aim.tried = {tried_.data(), tried_count_};
  aim.now_ns = worker_.loop().now_ns();
  return runtime_->service.choose(x_.target->subset, aim, worker_.random());
}

void Stream::begin(UpstreamTry& attempt, Endpoint& endpoint) {
  const config::Policy& policy = *x_.target->policy;
  Service& service = runtime_->service;
  const bool fresh = fresh_ && &attempt == &first_;
  auto* trace = x_.arena.make<Attempt>();
  trace->endpoint = &endpoint;
  trace->started_ns = worker_.loop().now_ns();
  trace->stale_retry = fresh;
  x_.response_trailers = nullptr;
  Attempt** place = &x_.first_attempt;
  while (*place != nullptr) place = &(*place)->next;
  *place = x_.attempt = trace;
  x_.endpoint = &endpoint;
  if (!fresh) ++x_.attempts;
  if (tried_count_ < tried_.size()) tried_[tried_count_++] = &endpoint;
  if (policy.timeout_per_try && policy.timeout_per_try->value.count() != 0 && !x_.tunnel)
    attempt.per_try().start(policy.timeout_per_try->value);
  const config::Protocol protocol = service.config().protocol;
  const bool http2 =
      protocol == config::Protocol::kHttp2 ||
      (protocol == config::Protocol::kAuto && x_.is_grpc && x_.request.upgrade.empty());
  const bool tcp = x_.request.version == Version::kTcp;
  UpstreamPool& pool = runtime_->pool(endpoint, tcp     ? Speaks::kTcp
                                                : http2 ? Speaks::kHttp2
                                                        : Speaks::kHttp1);
  switch (attempt.begin(pool, endpoint, *trace, fresh)) {
    case UpstreamPool::Got::kLease: return leased(attempt);
    case UpstreamPool::Got::kWaiting: return;
    case UpstreamPool::Got::kRefused: break;
  }
  worker_.metrics_ref().limit_refused(service.label(), RefusedLimit::kPending);
  attempt_failed(attempt, {Reason::kLimitPending, Origin::kProxy, true}, pending_words(false));
}

void Stream::try_leased(UpstreamTry& attempt) {
  leased(attempt);
  advance();
}

void Stream::leased(UpstreamTry& attempt) {
  attempt.trace().connected_ns = worker_.loop().now_ns();
  attempt.trace().reused = attempt.reused();
  if (!x_.request.upgrade.empty() && !attempt.connection().codec().takes_upgrades())
    return attempt_failed(attempt, {Reason::kUpstreamProtocolError, Origin::kUpstream, false},
                          "the upstream takes no extended CONNECT (RFC 8441)");
  send_request(attempt);
}

void Stream::try_failed(UpstreamTry& attempt, const Error& error, std::string_view words) {
  attempt_failed(attempt, error, words);
  advance();
}

void Stream::try_timed_out(UpstreamTry& attempt) {
  try_failed(attempt, {Reason::kTimeoutPerTry, Origin::kUpstream, false},
             knob("timeout.per_try", *x_.target->policy->timeout_per_try));
}

// The first try has not answered for a while: another beside it, if there is an endpoint that was
// not asked yet and the request may be sent twice.
void Stream::on_slow() {
  const config::Policy& policy = *x_.target->policy;
  const Millis after = policy.hedge_after->value;
  const bool open = step_ == Step::kRelay && !x_.response_started && !head_held_ &&
                    !interim_sent_ && client_ != nullptr;
  if (!open || x_.hedges >= policy.hedge_at_most->value) return;
  if (!request_ended_) return hedge_timer_.start(after);
  x_.replayable = replayable();
  Endpoint* const other = choose_endpoint();
  if (other == nullptr || was_tried(*other) || !x_.target->chain.on_slow(x_, *this)) return;
  ++x_.hedges;
  worker_.metrics_ref().event(x_.target->service_label, Event::kHedgeSent);
  hedges_ = std::make_unique<Hedge>(*this, std::move(hedges_));
  if (x_.hedges < policy.hedge_at_most->value) hedge_timer_.start(after);
  begin(hedges_->attempt, *other);
  advance();
}

bool Stream::was_tried(const Endpoint& endpoint) const {
  const auto end = tried_.begin() + tried_count_;
  return std::find(tried_.begin(), end, &endpoint) != end;
}

template <class Visit>
void Stream::each_try(Visit&& visit) {
  visit(first_);
  for (Hedge* hedge = hedges_.get(); hedge != nullptr; hedge = hedge->next.get())
    visit(hedge->attempt);
}

UpstreamTry* Stream::another(const UpstreamTry& attempt) {
  UpstreamTry* found = nullptr;
  each_try([&](UpstreamTry& it) {
    if (&it != &attempt && it.running()) found = &it;
  });
  return found;
}

std::size_t Stream::held_bytes() {
  std::size_t bytes = body_.size();
  if (client_ != nullptr) bytes += client_->queued();
  each_try([&](UpstreamTry& attempt) {
    if (attempt.stream() != nullptr) bytes += attempt.stream()->queued();
  });
  return bytes;
}

// All that is still held upstream.
void Stream::end_tries(Reason reason) {
  each_try([&](UpstreamTry& attempt) {
    attempt.drop(ResetCode::kCancel);
    attempt.end(reason);
  });
}

// This one is relayed, the others are of no use any more.
void Stream::choose(UpstreamTry& winner) {
  hedge_timer_.stop();
  if (live_ != &winner) worker_.metrics_ref().event(x_.target->service_label, Event::kHedgeWon);
  live_ = &winner;
  x_.attempt = &winner.trace();
  x_.endpoint = x_.attempt->endpoint;
  if (&winner != &first_) {
    x_.response = winner.head();
    winner.read_into(x_.response);
  }
  each_try([&](UpstreamTry& attempt) {
    if (&attempt == &winner) return;
    attempt.drop(ResetCode::kCancel);
    attempt.end(Reason::kClientClosed);
  });
}

void Stream::send_request(UpstreamTry& attempt) {
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
  if (x_.whole_request != nullptr && !ended_with_head_ && trailers_ == nullptr)
    x_.request.content_length = body_.size();
  attempt.stream()->send_request(x_.request, bodyless);
  x_.request.target = as_came;
  if (awaits_upgrade() || awaits_continue_) start_head_timer();
  if (x_.target->mirror.share > 0 && x_.attempts == 1 && !fresh_) draw_mirror();
  if (!bodyless && !awaits_upgrade()) send_kept_body(attempt);
}

bool Stream::replayable() const {
  return body_kept_ && !interim_sent_ && body_.size() <= replay_limit();
}

// As the first try's head left, so does the copy's; its body follows when all of it is here.
void Stream::draw_mirror() {
  const double draw = static_cast<double>(worker_.random().next() >> 11) * 0x1p-53;
  if (!x_.request.upgrade.empty() || draw >= x_.target->mirror.share) return;
  mirrored_ = true;
  if (request_ended_) send_mirror();
}

void Stream::send_mirror() {
  if (!std::exchange(mirrored_, false)) return;
  if (body_kept_ && request_ended_)
    Mirror::send(worker_, x_, x_.target->mirror, body_);
  else
    worker_.metrics_ref().event(x_.route->route_label, Event::kMirrorDropped);
}

void Stream::send_kept_body(UpstreamTry& attempt) {
  CodecStream& upstream = *attempt.stream();
  const bool last = request_ended_ && trailers_ == nullptr;
  body_.for_each([&](std::string_view piece, bool end) { upstream.send_body(piece, last && end); });
  if (trailers_ != nullptr)
    upstream.send_trailers(*trailers_);
  else if (last && body_.empty())
    upstream.send_body({}, true);
  if (x_.tunnel || body_.size() > kept_bytes()) drop_kept_body();
  hold_client(upstream.queued() > limits::kHighWater);
}

// What a filter has held back is kept for a further try, too.
std::size_t Stream::replay_limit() const {
  const std::size_t held = x_.whole_request != nullptr ? x_.whole_request->value : 0;
  return std::max(held, x_.target->policy->retry_buffer->value);
}

// Of the request's body, while it is sent: for a further try, and for the copy.
std::size_t Stream::kept_bytes() const {
  return mirrored_ ? std::max(replay_limit(), limits::kMirrorBytes) : replay_limit();
}

void Stream::drop_kept_body() {
  x_.body_dropped = true;
  body_.clear();
  body_kept_ = false;
}

// ---- what comes back

void Stream::upstream_sent(UpstreamTry& attempt) {
  if (attempt.running()) attempt.trace().sent_ns = worker_.loop().now_ns();
  if (x_.tunnel) {
    advance();
    return;
  }
  const bool timed = head_timer_.armed() && another(attempt) != nullptr;
  if (!x_.response_started && !head_held_ && !attempt.ended && !timed) start_head_timer();
}

void Stream::upstream_writable(const UpstreamTry& attempt) {
  if (&attempt == live_) hold_client(false);
}

void Stream::upstream_interim(UpstreamTry& attempt) {
  touch();
  if (&attempt != live_ || another(attempt) != nullptr) return;
  interim_sent_ = true;
  const ResponseHead& interim = attempt.head();
  if (awaits_continue_ && interim.status == 100) begin_body();
  if (client_ != nullptr && !x_.response_started && x_.request.version != Version::kHttp10)
    client_->send_interim(interim);
}

void Stream::upstream_head(UpstreamTry& attempt, bool last) {
  touch();
  Attempt& trace = attempt.trace();
  trace.head_ns = worker_.loop().now_ns();
  trace.status = attempt.head().status;
  if (x_.is_grpc && last) trace.grpc_status = grpc_status_of(attempt.head().headers);
  const bool failure = trace.status >= 500 || trace.grpc_status > 0;
  if (failure && another(attempt) != nullptr) {  // that one may do better
    attempt.drop(ResetCode::kCancel);
    attempt.end(Reason::kOk);
    if (&attempt == live_) live_ = another(attempt);
    return;
  }
  choose(attempt);
  head_timer_.stop();
  x_.status = x_.response.status;
  if (x_.request.version == Version::kHttp2 && awaits_upgrade() && x_.response.status / 100 == 2) {
    // To the client that would look like a tunnel.
    try_failed(attempt, {Reason::kUpstreamProtocolError, Origin::kUpstream, false},
               "the upstream answered without a change of protocol");
    return;
  }
  if (x_.request.version != Version::kTcp && wants_another()) return;
  // Of a unary call only the trailers tell whether it failed.
  head_held_ = !last && x_.is_grpc && request_ended_ && x_.response.status == 200 &&
               x_.target->policy->retry_when->value.grpc != 0;
  if (!head_held_) accept_head(last);
}

// Whether what has come so far is a failure that is tried again; it is not yet the client's.
bool Stream::wants_another() {
  if (x_.response.status < 400 && x_.attempt->grpc_status <= 0) return false;
  x_.replayable = replayable();
  const Error asks{Reason::kOk, Origin::kUpstream, false};
  if (x_.target->chain.on_attempt_failed(x_, asks, *this) != Verdict::kPause) return false;
  head_held_ = false;
  live_->end(Reason::kOk);
  if (live_->ended && live_->sent)
    live_->release();
  else
    live_->drop(ResetCode::kCancel);
  return true;
}

// The head goes to the client.
void Stream::accept_head(bool last) {
  head_held_ = false;
  if (x_.request.version != Version::kTcp) {
    x_.tunnel = x_.response.status == 101;
    if (x_.tunnel && x_.request.version == Version::kHttp2) x_.status = 200;  // as it will be sent
    x_.response_complete = last;
    x_.is_sse = x_.response.headers.get(HeaderId::kContentType).starts_with("text/event-stream");
    if (x_.target->chain.on_response(x_, *this, response_position_) == Verdict::kReply) {
      end_tries(Reason::kOk);
      step_ = Step::kAnswer;
      advance();
      return;
    }
  } else {
    x_.tunnel = true;
  }
  if (x_.tunnel || x_.is_sse) {
    total_timer_.stop();
    live_->per_try().stop();
  }
  const bool upgraded = x_.tunnel && !x_.request.upgrade.empty();
  if (upgraded) {
    // Over HTTP/1 both halves begin anew; what the client sent ahead goes first.
    if (ended_with_head_ && x_.request.version != Version::kHttp2) request_ended_ = false;
    live_->sent = false;
  } else {
    body_.clear();
  }
  body_kept_ = false;
  if (x_.request.version == Version::kTcp) x_.response_complete = last;
  x_.response_started = true;
  response_ended_ = x_.response_complete;
  client_->send_response(x_.response, x_.response_complete);
  const bool as_it_comes = x_.request_body.empty() && x_.response_body.empty();
  if (!last && as_it_comes && x_.request.version != Version::kHttp2)
    owner_.link(live_->connection());
  if (upgraded && (request_ended_ || !body_.empty())) send_kept_body(*live_);
  if (last && !response_ended_) x_.response_body.into(to_client_).on_body({}, true);
  if (last) advance();
}

void Stream::upstream_body(std::string_view bytes, bool last) {
  touch();
  if (head_held_) accept_head(false);
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
    live_->hold(true);
    watch_client();
  }
}

void Stream::upstream_passed(std::size_t bytes) {
  x_.bytes_out += bytes;
  upstream_body({}, false);
}

void Stream::upstream_trailers(Headers& trailers) {
  touch();
  if (x_.is_grpc) x_.attempt->grpc_status = grpc_status_of(trailers);
  if (head_held_) {
    x_.response_trailers = &trailers;
    if (wants_another()) return;
    accept_head(false);
  }
  x_.response_body.into(to_client_).on_trailers(trailers);
}

void Stream::send_down(Headers& trailers) {
  if (client_ == nullptr || response_ended_) return;
  response_ended_ = true;
  client_->send_trailers(trailers);
  advance();
}

void Stream::upstream_reset(UpstreamTry& attempt, const Error& error, std::string_view detail) {
  Error failure = error;
  if (is_stale(attempt, error)) {
    failure.reason = Reason::kStaleConnection;
    const bool may_repeat = error.repeatable || is_idempotent(x_.request.method) ||
                            x_.request.headers.find(HeaderId::kIdempotencyKey) != nullptr;
    if (may_repeat && body_kept_ && client_ != nullptr && another(attempt) == nullptr &&
        !std::exchange(stale_retried_, true)) {
      fresh_ = true;
      head_timer_.stop();
      const auto end = tried_.begin() + tried_count_;
      const auto again = std::find(tried_.begin(), end, attempt.trace().endpoint);
      if (again != end) {
        std::copy(again + 1, end, again);
        --tried_count_;
      }
      attempt.end(Reason::kStaleConnection);
      step_ = Step::kAttempt;
      advance();
      return;
    }
  }
  try_failed(attempt, failure, detail);
}

// A pooled connection that its peer had closed costs nobody a request: once, on a fresh connection.
bool Stream::is_stale(const UpstreamTry& attempt, const Error& error) const {
  return attempt.reused() && error.gone && !error.answered && !interim_sent_ &&
         error.reason == Reason::kUpstreamReset && x_.request.version != Version::kTcp;
}

// ---- when it fails

// None of them came in time.
void Stream::tries_failed(const Error& error, std::string_view words) {
  each_try([&](UpstreamTry& attempt) {
    if (&attempt == live_) return;
    attempt.drop(ResetCode::kCancel);
    attempt.end(error.reason);
  });
  try_failed(*live_, error, words);
}

// One try is over without an answer: another may be on its way, or be made; else the client hears
// why.
void Stream::attempt_failed(UpstreamTry& attempt, const Error& error, std::string_view words) {
  attempt.drop(ResetCode::kCancel);
  attempt.end(error.reason, error.origin);
  if (UpstreamTry* const other = another(attempt); other != nullptr && !x_.response_started) {
    if (live_ == &attempt) live_ = other;
    return;
  }
  head_timer_.stop();
  hedge_timer_.stop();
  head_held_ = false;
  x_.replayable = replayable();
  fresh_ = false;
  if (!x_.response_started && client_ != nullptr) {
    if (x_.request.version != Version::kTcp) {
      if (x_.target->chain.on_attempt_failed(x_, error, *this) == Verdict::kPause) return;
    } else if (may_connect_again(error)) {
      retry_after(Millis{0});
      return;
    }
  }
  give_up(error, words);
}

// Of a raw connection, which has no filters: when nobody has it yet.
bool Stream::may_connect_again(const Error& error) {
  const config::Policy& policy = *x_.target->policy;
  const bool connects =
      error.reason == Reason::kConnectFailure || error.reason == Reason::kConnectTimeout;
  return connects && x_.attempts <= policy.retry_attempts->value && may_retry(Millis{0}).empty() &&
         retry_budget_of(runtime_->service.config().name)
             .take(worker_.loop().now_ns(), policy.retry_budget->value);
}

// The exchange is over without success. An answer if none has begun, else a cut that cannot look
// complete.
void Stream::give_up(const Error& error, std::string_view words) {
  if (logged_ || step_ == Step::kAnswer || step_ == Step::kDone) return;
  end_tries(error.reason);
  if (!x_.no_retry.empty()) words = x_.arena.concat(words, "; not tried again: ", x_.no_retry);
  if (!x_.response_started || take_back()) {
    x_.reply(error.reason, words);
    step_ = Step::kAnswer;
    return;
  }
  note_failure(x_, error.reason, words);
  const bool takes_trailers =
      x_.request.version == Version::kHttp2 || !x_.response_body.empty();  // of gRPC-Web
  if (client_ != nullptr && x_.is_grpc && takes_trailers && !response_ended_) {
    for (Timer* timer : {&total_timer_, &hedge_timer_, &head_timer_}) timer->stop();
    step_ = Step::kRelay;
    x_.response_body.into(to_client_).on_trailers(grpc_trailers(x_));
    return;
  }
  if (client_ != nullptr) std::exchange(client_, nullptr)->reset(ResetCode::kInternal);
  step_ = Step::kDone;
}

// A head that still waits for its body gives way to an answer that says what happened.
bool Stream::take_back() {
  if (client_ == nullptr || x_.bytes_out != 0 || x_.tunnel || response_ended_ ||
      !client_->take_back())
    return false;
  x_.response_started = false;
  x_.is_sse = false;
  response_position_ = 0;
  return true;
}

std::string_view Stream::may_retry(Millis delay) {
  if (deadline_ms_ != 0 && delay.count() != 0 &&
      worker_.loop().now_ms() + static_cast<std::uint64_t>(delay.count()) >= deadline_ms_)
    return "the request's time would be over";
  Service& service = runtime_->service;
  const config::Leaf<std::uint64_t>& most = service.config().limits.retries;
  if (!counted_retry_ && !take(service.shared().retries, most.value)) {
    worker_.metrics_ref().limit_refused(service.label(), RefusedLimit::kRetries);
    return x_.arena.concat("as many retries as may are in flight: ", knob("limits.retries", most));
  }
  counted_retry_ = true;
  return {};
}

void Stream::retry_after(Millis delay) {
  worker_.metrics_ref().retry(x_.target->service_label,
                              x_.attempt != nullptr ? x_.attempt->result : Reason::kOk);
  step_ = Step::kBackoff;
  head_timer_.start(delay);
}

}  // namespace outrider
