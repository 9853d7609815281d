#include "proxy/upstream_pool.h"

#include <uv.h>

#include <algorithm>

namespace outrider {

namespace {
constexpr Millis kPendingTick{10};  // a connection given up by another worker is noticed this soon
constexpr std::size_t kStreamsExpected =
    100;  // of an HTTP/2 connection whose SETTINGS have not come
constexpr std::string_view kNoSettings = "no SETTINGS where they must come first";
}  // namespace

// ---- one connection

UpstreamConnection::UpstreamConnection(UpstreamPool& pool)
    : number(++pool.opened_),
      pool_(pool),
      wire_(pool.flusher_, *this),
      timer_(pool.flusher_.loop,
             call_member<&UpstreamConnection::on_connect_timeout, UpstreamConnection>, this) {
  pool_.metrics_.upstream_connection(pool_.service_.label(), state_, 1);
}

UpstreamConnection::~UpstreamConnection() {
  pool_.metrics_.upstream_connection(pool_.service_.label(), state_, -1);
}

void UpstreamConnection::count(ConnectionState state) {
  if (state == state_) return;
  pool_.metrics_.upstream_connection(pool_.service_.label(), state_, -1);
  pool_.metrics_.upstream_connection(pool_.service_.label(), state, 1);
  state_ = state;
}

bool UpstreamConnection::http2() const { return pool_.http2_; }

void UpstreamConnection::connect() {
  const int status = wire_.connect(pool_.endpoint_.address.get());
  if (status != 0) {
    connect_status_ = status;  // as if it had been refused, but not inside the caller
    timer_.start(Millis{0});
    return;
  }
  const Millis limit = pool_.service_.config().connect.value;
  if (limit.count() != 0) timer_.start(limit);
}

void UpstreamConnection::on_connected(int status) {
  if (status != 0) {
    connect_status_ = 0;
    fail_connecting(Reason::kConnectFailure, uv_strerror(status),
                    is_our_own(status) ? Origin::kProxy : Origin::kUpstream);
    return;
  }
  const CodecSettings settings{.max_fields = limits::kUpstreamFields};
  switch (pool_.speaks_) {
    case Speaks::kTcp: codec_ = make_tcp_client(wire_, *this); break;
    case Speaks::kHttp1: codec_ = make_h1_client(wire_, *this, settings); break;
    case Speaks::kHttp2: codec_ = make_h2_client(wire_, *this, settings); break;
  }
  wire_.start_reading();
  wire_.wake();
  if (codec_->settled()) settle();
}

void UpstreamConnection::settle() {
  if (!codec_->reusable()) {  // HTTP/2: GOAWAY came with the SETTINGS
    fail_connecting(Reason::kUpstreamReset, "the upstream turned the connection away (GOAWAY)");
    return;
  }
  settled_ = true;
  timer_.stop();
  --pool_.connecting_count_;
  place();
  pool_.serve_waiters();
  // Of raw TCP each is one client's; servers that speak first would count its time.
  if (pool_.speaks_ == Speaks::kTcp && leases == 0) close(Wire::Close::kReset);
}

// Nobody has a lease of it yet, so nothing was sent that could have been processed.
void UpstreamConnection::fail_connecting(Reason reason, std::string_view words, Origin origin) {
  timer_.stop();
  told_ = true;
  wire_.close(Wire::Close::kReset);
  pool_.connect_failed({reason, origin, true}, words);
}

void UpstreamConnection::on_connect_timeout() {
  if (connect_status_ != 0)
    on_connected(connect_status_);
  else if (settled_)  // the same timer measures idleness later
    on_idle_timeout();
  else
    fail_connecting(Reason::kConnectTimeout, "no answer within timeouts.connect");
}

void UpstreamConnection::on_idle_timeout() {
  if (leases == 0) close(Wire::Close::kFlush);
}

void UpstreamConnection::place() {
  if (wire_.closing() || !settled_) return;
  const bool usable = codec_->reusable() && codec_->free_streams() > 0;
  set_barren(leases == 0 && !usable && codec_->reusable());
  if (leases == 0 && !codec_->reusable()) {
    close(Wire::Close::kFlush);
    return;
  }
  unlink();
  if (usable)
    insert_before(*pool_.idle_.next);  // most recently used first
  else
    insert_before(pool_.busy_);
  count(leases == 0 ? ConnectionState::kIdle : ConnectionState::kActive);
  if (leases != 0) return;  // the timer runs on, which is less work than to stop it
  Millis idle = pool_.service_.config().idle.value;
  const Millis hint = codec_->keep_alive_hint();
  if (hint.count() != 0) {
    const Millis within = std::max(hint - Millis{1000}, Millis{1});
    idle = idle.count() == 0 ? within : std::min(idle, within);
  }
  if (idle.count() != 0) timer_.start(idle);
}

void UpstreamConnection::set_barren(bool barren) {
  if (barren == barren_) return;
  barren_ = barren;
  barren ? ++pool_.barren_count_ : --pool_.barren_count_;
}

void UpstreamConnection::close(Wire::Close how) {
  timer_.stop();
  told_ = true;
  if (how == Wire::Close::kFlush) {  // it closes in a while, and is not lent until then
    unlink();
    insert_before(pool_.busy_);
  }
  if (how == Wire::Close::kFlush && settled_ && http2())
    codec_->drain(true);  // closes by itself behind its GOAWAY
  else
    wire_.close(how);
}

void UpstreamConnection::on_bytes(std::string_view bytes) {
  codec_->feed(bytes);
  if (!settled_) {
    if (wire_.closing())
      fail_settling(Reason::kUpstreamProtocolError, kNoSettings);
    else if (codec_->settled())
      settle();
    return;
  }
  if (leases == 0 && (http2() || !codec_->reusable())) place();
}
void UpstreamConnection::on_eof() {
  if (!settled_) {
    fail_settling(Reason::kUpstreamReset, "the connection ended before its SETTINGS");
    return;
  }
  codec_->on_eof();
  if (leases == 0 && !wire_.closing()) close(Wire::Close::kFlush);
}
void UpstreamConnection::on_broken() {
  if (!settled_) {
    fail_settling(Reason::kUpstreamReset, "the connection broke before its SETTINGS");
    return;
  }
  wire_.close(Wire::Close::kReset);
}
void UpstreamConnection::before_flush() {
  if (codec_ == nullptr) return;
  codec_->pump();
  if (!settled_ && wire_.closing()) fail_settling(Reason::kUpstreamProtocolError, kNoSettings);
}

// Where gRPC was called over `protocol: auto` it was the client who said that the server would
// speak HTTP/2.
void UpstreamConnection::fail_settling(Reason reason, std::string_view words) {
  const bool asked = pool_.service_.config().protocol == config::Protocol::kAuto;
  if (!told_) fail_connecting(reason, words, asked ? Origin::kProxy : Origin::kUpstream);
}
void UpstreamConnection::on_flushed() {
  if (codec_ != nullptr) codec_->on_flushed();
}
void UpstreamConnection::on_closed() {
  timer_.stop();
  pool_.gone(*this);
  if (codec_ != nullptr) codec_->on_broken();
}
void UpstreamConnection::on_capacity() {
  place();
  pool_.serve_waiters();
}

// ---- the pool of one endpoint

UpstreamPool::UpstreamPool(Flusher& flusher, Metrics& metrics, Service& service, Endpoint& endpoint,
                           Speaks speaks)
    : flusher_(flusher),
      metrics_(metrics),
      service_(service),
      endpoint_(endpoint),
      speaks_(speaks),
      http2_(speaks == Speaks::kHttp2),
      pending_tick_(flusher.loop, call_member<&UpstreamPool::on_pending_tick, UpstreamPool>, this) {
}

UpstreamPool::~UpstreamPool() { OUTRIDER_ASSERT(count_ == 0 && waiter_count_ == 0); }

std::size_t UpstreamPool::expected_streams() const {
  return connecting_count_ * (http2_ ? kStreamsExpected : 1);
}

bool UpstreamPool::try_lease(LeaseWaiter& waiter, Lease& lease) {
  for (ListNode* node = idle_.next; node != &idle_; node = node->next) {
    auto& connection = static_cast<UpstreamConnection&>(*node);
    if (connection.number < waiter.oldest) continue;
    CodecStream* stream = connection.codec_->open(waiter.sink());
    if (stream == nullptr) continue;
    lease = {&connection, stream, connection.served != 0};
    ++connection.leases;
    ++connection.served;
    connection.place();
    return true;
  }
  return false;
}

UpstreamPool::Got UpstreamPool::acquire(LeaseWaiter& waiter, Lease& lease) {
  waiter.oldest = waiter.fresh_only ? fresh_from_ : 0;
  waiter.waits_until_ms = 0;
  if (waiter_count_ == 0 || waiter.fresh_only || http2_)
    if (try_lease(waiter, lease)) return Got::kLease;
  if (expected_streams() <= waiter_count_ && !open_connection()) {
    if (!queue(waiter)) return Got::kRefused;
  }
  waiter.place.insert_before(waiters_);
  ++waiter_count_;
  return Got::kWaiting;
}

bool UpstreamPool::open_connection() {
  if (barren_count_ != 0) return false;  // another would be told the same
  if (!take(service_.shared().connections, service_.config().limits.connections.value))
    return false;
  auto* connection = new UpstreamConnection(*this);
  connection->insert_before(connecting_);
  ++connecting_count_;
  ++count_;
  connection->connect();
  return true;
}

// From now on it waits for what others give back, as one of `limits.pending`.
bool UpstreamPool::queue(LeaseWaiter& waiter) {
  const config::ServiceLimits& limits = service_.config().limits;
  if (!take(service_.shared().pending, limits.pending.value)) return false;
  waiter.counted = true;
  waiter.oldest = 0;  // who has to wait takes what there is
  waiter.waits_until_ms =
      flusher_.loop.now_ms() + static_cast<std::uint64_t>(limits.pending_time.value.count());
  first_ends_ms_ =
      pending_ == 0 ? waiter.waits_until_ms : std::min(first_ends_ms_, waiter.waits_until_ms);
  ++pending_;
  ask_for_idle();
  return true;
}

void UpstreamPool::remove(LeaseWaiter& waiter) {
  waiter.place.unlink();
  --waiter_count_;
  if (!waiter.counted) return;
  waiter.counted = false;
  --pending_;
  outrider::give_back(service_.shared().pending);
}

void UpstreamPool::cancel(LeaseWaiter& waiter) {
  if (waiter.place.linked()) remove(waiter);
}

void UpstreamPool::serve_waiters() {
  for (ListNode* node = waiters_.next; node != &waiters_;) {
    auto& waiter = static_cast<Hook<LeaseWaiter>&>(*node).owner;
    Lease lease;
    if (!try_lease(waiter, lease)) {
      if (!waiter.fresh_only) break;
      node = node->next;
      continue;
    }
    remove(waiter);
    waiter.on_lease(lease);
    node = waiters_.next;  // the call may have changed the list
  }
  connect_for_waiters();
}

// Those that wait without a connection on its way, as far as the limit allows.
void UpstreamPool::connect_for_waiters() {
  while (waiter_count_ > expected_streams())
    if (!open_connection()) return queue_waiters();
}

// Those that no connection is on its way for.
void UpstreamPool::queue_waiters() {
  if (pending_ == waiter_count_) return;
  std::size_t covered = expected_streams();
  for (ListNode* node = waiters_.next; node != &waiters_;) {
    auto& waiter = static_cast<Hook<LeaseWaiter>&>(*node).owner;
    node = node->next;
    if (covered > 0) {
      --covered;
    } else if (!waiter.counted && !queue(waiter)) {
      remove(waiter);
      metrics_.limit_refused(service_.label(), RefusedLimit::kPending);
      waiter.on_lease_failed({Reason::kLimitPending, Origin::kProxy, true},
                             "limits.pending wait already");
      node = waiters_.next;  // the call may have changed the list
      covered = expected_streams();
    }
  }
}

void UpstreamPool::connect_failed(const Error& error, std::string_view words) {
  // HTTP/1: the one who waited longest; HTTP/2: all, since all waited for it.
  std::size_t fails = http2_ ? waiter_count_ : std::min<std::size_t>(waiter_count_, 1);
  for (; fails > 0 && waiters_.linked(); --fails) {
    auto& waiter = static_cast<Hook<LeaseWaiter>&>(*waiters_.next).owner;
    remove(waiter);
    waiter.on_lease_failed(error, words);
  }
  connect_for_waiters();
}

void UpstreamPool::on_pending_tick() {
  if (flusher_.loop.now_ms() >= first_ends_ms_) end_waiting();
  serve_waiters();
  if (pending_ != 0) ask_for_idle();
}

// Those that have waited for too long.
void UpstreamPool::end_waiting() {
  const std::uint64_t now = flusher_.loop.now_ms();
  first_ends_ms_ = UINT64_MAX;
  for (ListNode* node = waiters_.next; node != &waiters_;) {
    auto& waiter = static_cast<Hook<LeaseWaiter>&>(*node).owner;
    if (!waiter.counted || waiter.waits_until_ms > now) {
      if (waiter.counted) first_ends_ms_ = std::min(first_ends_ms_, waiter.waits_until_ms);
      node = node->next;
      continue;
    }
    remove(waiter);
    metrics_.limit_refused(service_.label(), RefusedLimit::kPending);
    waiter.on_lease_failed({Reason::kLimitPending, Origin::kProxy, true},
                           "waited longer than limits.pending_time");
    node = waiters_.next;  // the call may have changed the list
    first_ends_ms_ = UINT64_MAX;
  }
}

// The limit is the process's, the pools are the workers': what idles in one gives way to who waits
// in another.
void UpstreamPool::ask_for_idle() {
  if (service_.shared().want_idle) service_.shared().want_idle();
  pending_tick_.start(kPendingTick);
}

void UpstreamPool::give_back(const Lease& lease) {
  --lease.connection->leases;
  lease.connection->wire_.unlink();
  lease.connection->place();
  if (waiter_count_ != 0) serve_waiters();
}

std::size_t UpstreamPool::yield_idle(std::size_t most) {
  std::size_t closed = 0;
  if (waiter_count_ != 0) return closed;
  for (ListNode* node = idle_.next; node != &idle_ && closed < most;) {
    auto& connection = static_cast<UpstreamConnection&>(*node);
    node = node->next;
    if (connection.leases != 0) continue;
    connection.close(Wire::Close::kFlush);
    ++closed;
  }
  return closed;
}

void UpstreamPool::close_idle() {
  for (ListNode* node = idle_.next; node != &idle_;) {
    auto& connection = static_cast<UpstreamConnection&>(*node);
    node = node->next;
    if (connection.leases == 0) connection.close(Wire::Close::kFlush);
  }
}

void UpstreamPool::close_all() {
  for (ListNode* list : {&idle_, &busy_, &connecting_})
    while (list->linked()) static_cast<UpstreamConnection&>(*list->next).close(Wire::Close::kReset);
}

void UpstreamPool::gone(UpstreamConnection& connection) {
  if (!connection.settled_) --connecting_count_;
  connection.set_barren(false);
  connection.unlink();
  --count_;
  fresh_from_ = opened_ + 1;
  outrider::give_back(service_.shared().connections);
  if (waiter_count_ != 0) pending_tick_.start(Millis{0});
  flusher_.loop.defer(std::unique_ptr<UpstreamConnection>(&connection));
}

}  // namespace outrider
