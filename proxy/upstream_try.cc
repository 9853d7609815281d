#include "proxy/upstream_try.h"

#include <utility>

#include "discovery/concurrency.h"
#include "discovery/ejection.h"
#include "proxy/stream.h"
#include "proxy/worker.h"

namespace outrider {

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
  owner_.try_began(endpoint);
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

void UpstreamTry::end(Reason reason) {
  if (trace_ == nullptr) return;
  per_try_.stop();
  Attempt* const trace = std::exchange(trace_, nullptr);
  trace->result = reason;
  owner_.try_ended(*endpoint_, *trace);
  report(*trace);
}

// What it says of its endpoint and service. Waiting for a connection is our own time, not theirs.
void UpstreamTry::report(const Attempt& trace) {
  const std::uint64_t began = trace.connected_ns;
  const std::uint64_t latency = trace.head_ns > began && began != 0 ? trace.head_ns - began : 0;
  const int status = trace.head_ns != 0 ? head_->status : 0;
  const AttemptReport report{outcome_of(trace.result, status), trace.result, status,
                             latency / 1000};
  Service& service = pool_->service();
  const std::uint64_t now = owner_.worker().loop().now_ms();
  note_attempt(service, *endpoint_, report, now);
  ServiceShared& shared = service.shared();
  if (shared.concurrency != nullptr && report.latency_us != 0)
    shared.concurrency->note(report.latency_us, shared.requests.load(std::memory_order_relaxed),
                             now);
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
