#include "discovery/service.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

namespace outrider {

SocketAddress::SocketAddress(const config::Address& address) {
  using Kind = config::Address::Kind;
  if (address.kind == Kind::kUnix) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage);
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, address.path.data(),
                std::min(address.path.size(), sizeof(un.sun_path) - 1));
    length = static_cast<socklen_t>(sizeof(un.sun_family) + address.path.size() + 1);
  } else if (address.v6 || address.kind == Kind::kAny) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(address.port);
    std::memcpy(&in6.sin6_addr, address.ip.data(), 16);
    length = sizeof(in6);
  } else {
    auto& in4 = reinterpret_cast<sockaddr_in&>(storage);
    in4.sin_family = AF_INET;
    in4.sin_port = htons(address.port);
    std::memcpy(&in4.sin_addr, address.ip.data(), 4);
    length = sizeof(in4);
  }
}

ServiceShared::ServiceShared(std::size_t endpoint_count) {
  for (std::size_t i = 0; i < endpoint_count; ++i)
    endpoints.push_back(std::make_shared<EndpointState>());
}

Service::Service(const config::Service& service, std::uint32_t label,
                 std::shared_ptr<ServiceShared> shared)
    : config_(service), label_(label), shared_(std::move(shared)) {
  std::uint32_t index = 0;
  for (const config::Endpoint& endpoint : service.endpoints)
    endpoints_.push_back(std::make_unique<Endpoint>(endpoint, index++));
  groups_.resize(1 + service.subsets.size());
  auto carries = [](const config::Endpoint& endpoint,
                    const std::map<std::string, std::string>& labels) {
    return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
      const auto found = endpoint.labels.find(label.first);
      return found != endpoint.labels.end() && found->second == label.second;
    });
  };
  for (const auto& endpoint : endpoints_) {
    if (endpoint->config.weight == 0) continue;
    groups_[0].members.push_back(endpoint.get());
    std::size_t at = 1;
    for (const auto& [name, labels] : service.subsets) {
      if (carries(endpoint->config, labels)) groups_[at].members.push_back(endpoint.get());
      ++at;
    }
  }
  for (Group& group : groups_) {
    const bool equal =
        std::all_of(group.members.begin(), group.members.end(), [&](const Endpoint* endpoint) {
          return endpoint->config.weight == group.members.front()->config.weight;
        });
    std::uint64_t sum = 0;
    if (!equal)
      for (const Endpoint* endpoint : group.members)
        group.cumulative.push_back(sum += endpoint->config.weight);
  }
}

Endpoint* Service::choose(std::int32_t subset, std::span<const Endpoint* const> tried,
                          Random& random) {
  const Group& candidates = group(subset);
  if (candidates.members.empty()) return nullptr;
  if (candidates.members.size() == 1) return candidates.members.front();
  switch (config_.balance) {
    case config::Balance::kRoundRobin: return round_robin(candidates, tried);
    case config::Balance::kLeastRequest: return least_request(candidates, tried, random);
  }
  return nullptr;
}

Endpoint* Service::draw(const Group& group, Random& random) {
  const auto size = static_cast<std::uint32_t>(group.members.size());
  if (group.cumulative.empty()) return group.members[random.below(size)];
  const std::uint64_t ticket = random.next() % group.cumulative.back();
  const auto at = std::upper_bound(group.cumulative.begin(), group.cumulative.end(), ticket);
  return group.members[static_cast<std::size_t>(at - group.cumulative.begin())];
}

namespace {
bool was_tried(std::span<const Endpoint* const> tried, const Endpoint* endpoint) {
  return std::find(tried.begin(), tried.end(), endpoint) != tried.end();
}
}  // namespace

// Two draws by weight, the one with less in flight for its weight.
Endpoint* Service::least_request(const Group& group, std::span<const Endpoint* const> tried,
                                 Random& random) const {
  Endpoint* first = draw(group, random);
  Endpoint* second = draw(group, random);
  for (int again = 0; second == first && again < 3; ++again) second = draw(group, random);
  auto load = [](const Endpoint& endpoint) {
    return static_cast<double>(endpoint.active) / endpoint.config.weight;
  };
  Endpoint* chosen = load(*second) < load(*first) ? second : first;
  if (!was_tried(tried, chosen)) return chosen;
  Endpoint* other = nullptr;
  for (Endpoint* endpoint : group.members)
    if (!was_tried(tried, endpoint) && (other == nullptr || load(*endpoint) < load(*other)))
      other = endpoint;
  return other != nullptr ? other : chosen;
}

// Each gains its weight, the richest is taken and pays the sum: even spread, no bursts to the heavy
// one.
Endpoint* Service::round_robin(const Group& group, std::span<const Endpoint* const> tried) {
  std::int64_t sum = 0;
  Endpoint* richest = nullptr;
  Endpoint* fresh = nullptr;
  for (Endpoint* endpoint : group.members) {
    endpoint->turn += endpoint->config.weight;
    sum += endpoint->config.weight;
    if (richest == nullptr || endpoint->turn > richest->turn) richest = endpoint;
    if (!was_tried(tried, endpoint) && (fresh == nullptr || endpoint->turn > fresh->turn))
      fresh = endpoint;
  }
  Endpoint* chosen = fresh != nullptr ? fresh : richest;
  chosen->turn -= sum;
  return chosen;
}

}  // namespace outrider
