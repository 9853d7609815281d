// One worker's view of a service: its endpoints, what is in flight to each, and the choice among
// them. What must hold for the whole process (limits, retry budget) is in ServiceShared, the one
// place for atomics.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/model.h"
#include "discovery/endpoint_state.h"

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

// Process-wide, one per service name, alive across reloads.
struct ServiceShared {
  explicit ServiceShared(std::size_t endpoint_count = 0);
  // After any state below has changed: every worker looks at them anew.
  void changed() { version.fetch_add(1, std::memory_order_release); }
  std::atomic<std::uint64_t> version{1};
  std::vector<std::shared_ptr<EndpointState>> endpoints;  // as config::Service::endpoints

  std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> pending{0};
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> retries{0};
  // Asks every worker to close connections that idle while another waits for a place under the
  // limit. Set before the workers start; may be empty.
  std::function<void()> want_idle;
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

class Endpoint {
 public:
  Endpoint(const config::Endpoint& endpoint, std::uint32_t index)
      : config(endpoint),
        index(index),
        address(endpoint.address),
        text(endpoint.address.to_string()) {}
  const config::Endpoint& config;
  const std::uint32_t index;  // in its service
  const SocketAddress address;
  const std::string text;
  std::uint32_t active = 0;  // this worker's requests in flight
  std::int64_t turn = 0;     // smooth weighted round robin
};

class Service {
 public:
  Service(const config::Service& service, std::uint32_t label,
          std::shared_ptr<ServiceShared> shared);

  // A usable endpoint, one not in `tried` if there is any; null: none. `subset` is an index in name
  // order, -1: all.
  Endpoint* choose(std::int32_t subset, std::span<const Endpoint* const> tried, Random& random);
  bool empty(std::int32_t subset) const { return group(subset).members.empty(); }

  const config::Service& config() const { return config_; }
  std::uint32_t label() const { return label_; }
  ServiceShared& shared() { return *shared_; }
  std::vector<std::unique_ptr<Endpoint>>& endpoints() { return endpoints_; }

 private:
  struct Group {
    std::vector<Endpoint*> members;         // weight > 0
    std::vector<std::uint64_t> cumulative;  // of weights; empty when all are equal
  };
  const Group& group(std::int32_t subset) const {
    return groups_[static_cast<std::size_t>(subset + 1)];
  }
  static Endpoint* draw(const Group& group, Random& random);
  Endpoint* least_request(const Group& group, std::span<const Endpoint* const> tried,
                          Random& random) const;
  static Endpoint* round_robin(const Group& group, std::span<const Endpoint* const> tried);

  const config::Service& config_;
  const std::uint32_t label_;
  std::shared_ptr<ServiceShared> shared_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::vector<Group> groups_;  // [0] all, then subsets in name order
};

}  // namespace outrider
