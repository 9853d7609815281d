#include "proxy/upstream_try.h"

#include <utility>

#include "discovery/concurrency.h"
#include "proxy/stream.h"
#include "proxy/worker.h"

namespace outrider {
namespace {

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

}  // namespace

UpstreamTry::UpstreamTry(Stream& stream, ResponseHead& head)
    : owner_(stream),
      head_(&head),
      per_try_(stream.worker().loop(), call_member<&UpstreamTry::on_per_try_timeout, UpstreamTry>,
               this) {}

UpstreamPool::Got UpstreamTry::begin(UpstreamPool& pool, Endpoint& endpoint, Attempt& trace,
                                     bool fresh) {
  OUTRIDER_ASSERT(trace_ == nullptr && stream_ == nullptr);
  pool_ = &pool;
  endpoint_ = &endpoint;
  trace_ = &trace;
  sent = ended = held_ = false;
  pool.service().began(endpoint);
  fresh_only = fresh;
  Lease lease;
  const UpstreamPool::Got got = pool.acquire(*this, lease);
  if (got == UpstreamPool::Got::kLease) take(lease);
  return got;
}

void UpstreamTry::take(const Lease& lease) {
  connection_ = lease.connection;
  stream_ = lease.stream;
  reused_ = lease.reused;
}

// Waiting for a connection to be free is our own time, not the endpoint's.
void UpstreamTry::end(Reason reason, Origin origin) {
  if (trace_ == nullptr) return;
  per_try_.stop();
  Worker& worker = owner_.worker();
  Attempt& trace = *std::exchange(trace_, nullptr);
  trace.result = reason;
  trace.ended_ns = worker.loop().now_ns();
  const bool answered = trace.head_ns != 0;
  const AttemptReport report{
      .outcome = origin == Origin::kUpstream ? outcome_of(reason, trace.status, trace.grpc_status)
                                             : Outcome::kNeither,
      .reason = reason,
      .status = trace.status,
      .grpc_status = trace.grpc_status,
      .answered = answered,
      .latency_ns = (answered ? trace.head_ns : trace.ended_ns) -
                    (trace.connected_ns != 0 ? trace.connected_ns : trace.started_ns),
      .now_ns = trace.ended_ns};
  Service& service = pool_->service();
  service.ended(*endpoint_, report);
  worker.metrics_ref().attempt(service.label(), attempt_result(reason));
  ServiceShared& shared = service.shared();
  // An error tells nothing of how long work takes.
  if (shared.concurrency != nullptr && answered && report.outcome == Outcome::kSuccess)
    shared.concurrency->note(report.latency_ns / 1000,
                             shared.requests.load(std::memory_order_relaxed),
                             trace.ended_ns / 1'000'000);
}

void UpstreamTry::drop(ResetCode code) {
  if (pool_ != nullptr) pool_->cancel(*this);
  if (stream_ == nullptr) return;
  std::exchange(stream_, nullptr)->reset(code);
  give_back();
}

void UpstreamTry::release() {
  std::exchange(stream_, nullptr)->release();
  give_back();
}

void UpstreamTry::give_back() { pool_->give_back({connection_, nullptr, reused_}); }

void UpstreamTry::hold(bool held) {
  if (held == held_ || stream_ == nullptr) return;
  held_ = held;
  stream_->hold(held);
}

void UpstreamTry::on_lease(const Lease& lease) {
  take(lease);
  owner_.try_leased(*this);
}
void UpstreamTry::on_lease_failed(const Error& error, std::string_view words) {
  if (error.reason == Reason::kLimitPending)
    words = owner_.pending_words(waits_until_ms != 0 &&
                                 waits_until_ms <= owner_.worker().loop().now_ms());
  owner_.try_failed(*this, error, words);
}
void UpstreamTry::on_interim() { owner_.upstream_interim(*this); }
void UpstreamTry::on_head(bool last) {
  ended = last;
  owner_.upstream_head(*this, last);
}
void UpstreamTry::on_body(std::string_view bytes, bool last) {
  ended = last;
  owner_.upstream_body(bytes, last);
}
void UpstreamTry::on_passed(std::size_t bytes) { owner_.upstream_passed(bytes); }
void UpstreamTry::on_trailers(Headers& trailers) {
  ended = true;
  owner_.upstream_trailers(trailers);
}
void UpstreamTry::on_reset(const Error& error, std::string_view detail) {
  stream_ = nullptr;
  give_back();
  owner_.upstream_reset(*this, error, detail);
}
void UpstreamTry::on_writable() { owner_.upstream_writable(*this); }
void UpstreamTry::on_sent() {
  sent = true;
  owner_.upstream_sent(*this);
}
void UpstreamTry::on_per_try_timeout() { owner_.try_timed_out(*this); }

}  // namespace outrider
