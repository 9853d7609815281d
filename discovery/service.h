// One worker's side of a service: its endpoints, what is in flight to each, and the choice among
// them (balancer.cc). What must hold for the whole process (limits, retry budget, which endpoints
// may be used) is in ServiceShared, the one place for atomics.
#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/model.h"
#include "config/reason.h"
#include "discovery/endpoint_state.h"
#include "discovery/view.h"

namespace outrider {

// xoshiro-like small generator; one per worker, seedable for replay.
class Random {
 public:
  explicit Random(std::uint64_t seed)
      : state_(seed * 0x9E3779B97F4A7C15ULL + 0xD1B54A32D192ED03ULL) {}
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBULL;
    return mixed ^ (mixed >> 31);
  }
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>(
        (static_cast<std::uint64_t>(static_cast<std::uint32_t>(next())) * bound) >> 32);
  }

 private:
  std::uint64_t state_;
};

enum class EjectedFor : std::uint8_t {
  kGatewayErrors,
  kServerErrors,
  kLocalFailures,
  kSuccessRate,
  kLatency,
  kCount
};

// Ejection's own of a service; see ejection.h.
struct EjectionState {
  std::mutex mutex;  // guards every EndpointState::ejection too
  std::atomic<std::uint32_t> out{0};
  std::array<std::uint64_t, static_cast<std::size_t>(EjectedFor::kCount)> count{};
  std::uint64_t refused = 0;  // because of `at_most`, or for want of another endpoint
};

class ConcurrencyLimit;  // concurrency.h

// Process-wide, one per service name, alive across reloads.
struct ServiceShared {
  explicit ServiceShared(std::size_t endpoint_count = 0);
  explicit ServiceShared(const config::Service& service);
  // After any state below has changed: makes a new view, which every worker takes up. Logs that a
  // panic begins or ends.
  void changed();
  std::shared_ptr<const View> view() const;
  std::vector<std::shared_ptr<EndpointState>> endpoints;  // as config::Service::endpoints

  // On a line of its own: requests look at it, and what follows is written by requests.
  alignas(64) std::atomic<std::uint64_t> version{1};

  alignas(64) std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> pending{0};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> retries{0};
  EjectionState ejection;
  std::shared_ptr<ConcurrencyLimit> concurrency;  // null: not adaptive
  // Asks every worker to close connections that idle while another waits for a place under the
  // limit. Set before the workers start; may be empty.
  std::function<void()> want_idle;

 private:
  mutable std::mutex mutex_;  // guards view_; held for as long as a new one takes
  std::shared_ptr<const View> view_;
};

// Counts itself in if the limit allows (0: no limit).
inline bool take(std::atomic<std::uint64_t>& count, std::uint64_t limit) {
  if (count.fetch_add(1, std::memory_order_relaxed) < limit || limit == 0) return true;
  count.fetch_sub(1, std::memory_order_relaxed);
  return false;
}
inline void give_back(std::atomic<std::uint64_t>& count) {
  count.fetch_sub(1, std::memory_order_relaxed);
}

// A socket address ready for connect().
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  explicit SocketAddress(const config::Address& address);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// What one worker saw of an endpoint since it was asked last, for the comparison with the others.
struct EndpointSample {
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;
  std::uint64_t latencies = 0;  // how many
  std::uint64_t latency_us = 0;
  void add(const EndpointSample& other) {
    requests += other.requests;
    failures += other.failures;
    latencies += other.latencies;
    latency_us += other.latency_us;
  }
};

class Endpoint {
 public:
  Endpoint(const config::Endpoint& endpoint, std::uint32_t index, std::uint64_t id)
      : config(endpoint),
        index(index),
        id(id),
        address(endpoint.address),
        text(endpoint.address.to_string()) {}
  const config::Endpoint& config;
  const std::uint32_t index;  // in its service
  const std::uint64_t id;     // endpoint_id()
  const SocketAddress address;
  const std::string text;
  std::uint32_t active = 0;  // this worker's requests in flight
  EndpointSample sample;

  // What one attempt took, until the head of the answer or its failure. Remembered is the peak,
  // which fades; a failure counts as a long wait, however soon it came.
  void note(std::uint64_t latency_ns, bool failed, std::uint64_t now_ns);
  // What an attempt is expected to take now; 0: nothing is known.
  double expected_ns(std::uint64_t now_ns) const;

  // The same for least-request: the average, in which no single answer counts for much.
  void learn(std::uint64_t latency_ns, bool failed, std::uint64_t now_ns);
  std::uint64_t average_ns(std::uint64_t now_ns) const;  // 0: nothing is known

 private:
  std::uint64_t average_ns_ = 0;
  std::uint64_t learned_ns_ = 0;
  double peak_ns_ = 0;
  std::uint64_t noted_ns_ = 0;
};

// What one attempt says of where it wants to go.
struct Aim {
  std::span<const Endpoint* const> tried = {};  // another is preferred
  std::uint64_t now_ns = 0;
  std::uint64_t key = 0;      // hash of what `balance: hash(KEY)` names
  bool has_key = false;       // false: the request has no such part
  std::uint64_t session = 0;  // the endpoint that its cookie names; 0: none
};

// What an attempt says of its endpoint.
enum class Outcome : std::uint8_t {
  kSuccess,
  kServerError,   // 500 and above, but for those of a gateway; of gRPC, what stands for them
  kGatewayError,  // 502, 503, 504
  kLocalFailure,  // no answer: not connected, reset, malformed, too late
  kNeither,       // nothing: the client left, a limit of ours
};
Outcome outcome_of(Reason reason, int status, int grpc_status = -1);

// How an attempt ended.
struct AttemptReport {
  Outcome outcome = Outcome::kNeither;
  Reason reason = Reason::kOk;
  int status = 0;
  int grpc_status = -1;  // -1: none
  bool answered = false;
  std::uint64_t latency_ns = 0;  // until the head of the answer, else until its end
  std::uint64_t now_ns = 0;
};

// The lower of what was written and what was found out; 0: none.
struct RequestLimit {
  std::uint64_t most;
  bool adapts;
};

class Service {
 public:
  Service(const config::Service& service, std::uint32_t label,
          std::shared_ptr<ServiceShared> shared);

  // An endpoint for one attempt, one not tried before if there is any; null: none may be used.
  // `subset` is an index in name order, -1: all.
  Endpoint* choose(std::int32_t subset, const Aim& aim, Random& random);
  // Around the attempt.
  void began(Endpoint& endpoint);
  void ended(Endpoint& endpoint, const AttemptReport& report);
  bool empty(std::int32_t subset) { return group(subset).shares.empty(); }
  // Whether the subset has the endpoint of a session, and it may keep its sessions.
  bool keeps(std::int32_t subset, std::uint64_t session);
  RequestLimit request_limit() const;
  // Why choose() found nothing.
  Nothing nothing(std::int32_t subset) const;

  const config::Service& config() const { return config_; }
  std::uint32_t label() const { return label_; }
  ServiceShared& shared() { return *shared_; }
  std::vector<std::unique_ptr<Endpoint>>& endpoints() { return endpoints_; }

 private:
  const View& view();
  const View::Group& group(std::int32_t subset) {
    return view().groups[static_cast<std::size_t>(subset + 1)];
  }
  Endpoint* endpoint_at(std::uint32_t index) { return endpoints_[index].get(); }
  Endpoint* of_session(const View::Group& group, std::uint64_t session);
  const View::Share& share_for(const View::Group& group, const Aim& aim, Random& random) const;
  bool is_ready(const Endpoint& endpoint, const Aim& aim, std::uint32_t draw) const;
  Endpoint* draw(const View::Share& share, const Aim& aim, Random& random);
  Endpoint* next_in_turn(const View::Share& share, const Aim& aim, Random& random);
  Endpoint* lighter_of_two(const View::Share& share, const Aim& aim, Random& random);
  Endpoint* by_key(const View::Group& group, std::size_t number, const View::Share& share,
                   const Aim& aim);
  Endpoint* another(const View::Group& group, const View::Share& first, const Aim& aim,
                    Random& random);
  std::pair<Endpoint*, Endpoint*> draw_two(const View::Share& share, const Aim& aim,
                                           Random& random);
  bool lighter(const Endpoint& a, const Endpoint& b, const Aim& aim, Random& random) const;

  const config::Service& config_;
  const std::uint32_t label_;
  std::shared_ptr<ServiceShared> shared_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::shared_ptr<const View> view_;
  std::uint64_t version_ = 0;             // of view_
  std::vector<std::uint64_t> turns_;      // round robin, by View::Share::slot
  std::vector<std::uint32_t> in_flight_;  // by group; for bounded load alone
};

}  // namespace outrider
