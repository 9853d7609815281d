// The time of an exchange: its deadlines, each naming itself, and the client's pace.
#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "filters/local_reply.h"
#include "proxy/downstream.h"
#include "proxy/stream.h"
#include "proxy/worker.h"

namespace outrider {
namespace {

constexpr Millis kWatchTick{1000};

// `grpc-timeout: 250m` in milliseconds, at least 1; nothing when malformed.
std::optional<Millis> parse_grpc_timeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  std::uint64_t amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size() - 1, amount);
  if (error != std::errc() || end != text.data() + text.size() - 1) return std::nullopt;
  std::uint64_t micros = 0;
  switch (text.back()) {
    case 'H': micros = amount * 3'600'000'000ULL; break;
    case 'M': micros = amount * 60'000'000ULL; break;
    case 'S': micros = amount * 1'000'000ULL; break;
    case 'm': micros = amount * 1'000ULL; break;
    case 'u': micros = amount; break;
    case 'n': micros = amount / 1'000; break;
    default: return std::nullopt;
  }
  return Millis{std::max<std::uint64_t>(1, (micros + 999) / 1000)};
}

}  // namespace

void Stream::start_timers() {
  const config::Policy& policy = *x_.target->policy;
  Millis total{policy.timeout_total ? policy.timeout_total->value : Millis{0}};
  if (x_.is_grpc) {
    if (const Header* header = x_.request.headers.find(HeaderId::kGrpcTimeout)) {
      const std::optional<Millis> asked = parse_grpc_timeout(header->value);
      if (!asked) {
        x_.reply(Reason::kBadRequest, "grpc-timeout is malformed");
        return;
      }
      clients_deadline_ = total.count() == 0 || *asked < total;
      if (clients_deadline_) total = *asked;
    }
  }
  if (total.count() != 0) {
    deadline_ms_ = worker_.loop().now_ms() + static_cast<std::uint64_t>(total.count());
    total_timer_.start(total);
  }
  if (policy.timeout_idle && policy.timeout_idle->value.count() != 0)
    idle_timer_.start(policy.timeout_idle->value);
}

void Stream::start_head_timer() {
  const config::Policy& policy = *x_.target->policy;
  if (!policy.timeout_headers || policy.timeout_headers->value.count() == 0) return;
  if (x_.is_grpc && policy.timeout_headers->mark.built_in()) return;
  head_timer_.start(policy.timeout_headers->value);
}

void Stream::touch() { last_moved_ms_ = worker_.loop().now_ms(); }

std::string_view Stream::pending_words(bool waited) {
  const config::Service& service = runtime_->service.config();
  const config::ServiceLimits& limits = service.limits;
  return x_.arena.concat("no connection to service ", std::string_view(service.name),
                         waited ? " became free within " : " is free and as many wait as may: ",
                         waited ? knob("limits.pending_time", limits.pending_time)
                                : knob("limits.pending", limits.pending),
                         "; ", knob("limits.connections", limits.connections));
}

std::string_view Stream::body_words() {
  const auto& own = x_.target->policy->body_max;
  return x_.arena.concat(
      "the body is larger than ",
      own ? knob("body.max", *own) : knob("limits.body", x_.client.listener->limits.body));
}

std::string_view Stream::head_words(const BadRequest& bad) {
  const config::ListenerLimits& limits = x_.client.listener->limits;
  if (bad.status == 414)
    return x_.arena.concat(bad.detail, ": ", knob("limits.target", limits.target));
  return x_.arena.concat(bad.detail, ": ", knob("limits.headers", limits.headers), "; ",
                         knob("limits.fields", limits.fields));
}

std::string_view Stream::knob(const char* name, const config::Leaf<std::uint64_t>& leaf) {
  char amount[24];
  const char* const end = std::to_chars(amount, amount + sizeof(amount), leaf.value).ptr;
  return knob(name, {amount, static_cast<std::size_t>(end - amount)}, leaf.mark);
}

std::string_view Stream::knob(const char* name, const config::Leaf<Millis>& leaf) {
  char amount[24];
  const std::int64_t ms = leaf.value.count();
  char* end =
      std::to_chars(amount, amount + sizeof(amount) - 2, ms % 1000 == 0 ? ms / 1000 : ms).ptr;
  if (ms % 1000 != 0) *end++ = 'm';
  *end++ = 's';
  return knob(name, {amount, static_cast<std::size_t>(end - amount)}, leaf.mark);
}

std::string_view Stream::knob(const char* name, std::string_view amount, const config::Mark& mark) {
  if (mark.built_in()) return x_.arena.concat(std::string_view(name), " ", amount, ", the default");
  const std::string where = snapshot_->config->where(mark);
  return x_.arena.concat(std::string_view(name), " ", amount, ", set at ", std::string_view(where));
}

void Stream::on_total_timeout() {
  if (x_.tunnel || x_.is_sse) return;
  const config::Policy& policy = *x_.target->policy;
  fail({Reason::kTimeoutTotal, Origin::kProxy, false},
       !clients_deadline_ ? knob("timeout.total", *policy.timeout_total)
                          : "the client's grpc-timeout");
}

void Stream::on_head_timeout() {
  if (step_ == Step::kRequest) return resume();
  if (step_ == Step::kBackoff || step_ == Step::kAnswer) {
    if (step_ == Step::kBackoff) step_ = Step::kAttempt;
    advance();
    return;
  }
  tries_failed({Reason::kTimeoutHeaders, Origin::kUpstream, false},
               knob("timeout.headers", *x_.target->policy->timeout_headers));
}

void Stream::on_idle_timeout() {
  const config::Leaf<Millis>& limit = *x_.target->policy->timeout_idle;
  const auto still = Millis(worker_.loop().now_ms() - last_moved_ms_);
  if (still < limit.value) {
    idle_timer_.start(limit.value - still);
    return;
  }
  if (!x_.tunnel && (live_->held() || response_ended_)) {
    idle_timer_.start(limit.value);  // it is the client that is slow: its stall time decides
    return;
  }
  fail({Reason::kTimeoutIdle, Origin::kProxy, false}, knob("timeout.idle", limit));
}

// The client's own pace: its body's gaps and rate, whether it takes what we send, and whether it is
// there at all while we do not read. Looked at once a second while any of it matters.
void Stream::watch_client() {
  if (watch_timer_.armed() || logged_) return;
  taken_ms_ = worker_.loop().now_ms();
  taken_queued_ = client_ != nullptr ? client_->queued() : 0;
  taken_in_kernel_ = 0;
  watch_timer_.start(kWatchTick);
}

void Stream::on_watch() {
  if (client_ == nullptr || logged_) return;
  if (client_held_ && !owner_.check_peer()) return;
  if (x_.tunnel) {  // the rest is for timeout.idle
    if (client_held_) watch_timer_.start(kWatchTick);
    return;
  }
  const std::uint64_t now = worker_.loop().now_ms();
  const config::ListenerTimeouts& timeouts = x_.client.listener->timeouts;
  auto longer = [](std::uint64_t ms, Millis limit) {
    return limit.count() != 0 && ms >= static_cast<std::uint64_t>(limit.count());
  };

  // A gRPC call may be silent for as long as it likes, and so may whoever is being answered.
  const bool calling = x_.is_grpc && x_.request.version == Version::kHttp2;
  const bool may_upload = !request_ended_ && !calling && !x_.response_started && !awaits_upgrade();
  if (may_upload && !client_held_ && !request_broken_ && !awaits_continue_) {
    const std::uint64_t running = now - body_began_ms_ - held_ms_;
    const config::UploadRate& rate = timeouts.upload_rate;
    const bool slow = rate.bytes_per_second != 0 && longer(running, rate.after) &&
                      x_.bytes_in * 1000 < rate.bytes_per_second * running;
    if (slow || longer(now - body_moved_ms_, timeouts.body)) {
      request_broken_ = true;
      fail({Reason::kClientTimeout, Origin::kClient, false},
           slow ? "the body came slower than timeouts.upload_rate"
                : "no body byte within timeouts.body");
      return;
    }
  }
  // Our queue moves in steps as large as the kernel's buffer; what the peer acknowledges shows a
  // slow reader at work.
  const std::size_t queued = client_->queued();
  const std::size_t in_kernel = owner_.unacknowledged();
  if (queued == 0 || queued < taken_queued_ || in_kernel < taken_in_kernel_) taken_ms_ = now;
  taken_queued_ = queued;
  taken_in_kernel_ = in_kernel;
  if (longer(now - taken_ms_, timeouts.stall)) {
    note_failure(x_, Reason::kClientTimeout, "the client took no byte within timeouts.stall");
    std::exchange(client_, nullptr)->reset(ResetCode::kCancel);
    step_ = Step::kDone;
    advance();
    return;
  }
  if (queued != 0 || may_upload || response_ended_ || client_held_) watch_timer_.start(kWatchTick);
}

}  // namespace outrider
