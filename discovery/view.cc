// Tiers first, then zones within a tier. Everything here runs after a change, never for a request.
#include "discovery/view.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "discovery/hash.h"

namespace outrider {
namespace {

bool carries(const config::Endpoint& endpoint, const std::map<std::string, std::string>& labels) {
  return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
    const auto found = endpoint.labels.find(label.first);
    return found != endpoint.labels.end() && found->second == label.second;
  });
}

bool is_draining(const Membership::Member& member) {
  return member.state->draining.load(std::memory_order_relaxed);
}

constexpr double kSpare = 1.4;  // what is left of a tier can carry so much more than its share
constexpr double kPanic = 0.5;  // below this usable part a tier that has to carry all panics
constexpr double kWhole = 4294967296.0;  // of which View::Share::until says a part

// A tier as it is now.
struct Standing {
  const Membership::Tier* tier = nullptr;
  double wanted = 0;  // weight that is not draining
  double usable = 0;
  double load = 0;  // its part of the requests
  bool panic = false;
  double usable_part() const { return wanted == 0 ? 0 : usable / wanted; }
};

std::vector<Standing> standings(const Membership& membership, const Membership::Group& group) {
  std::vector<Standing> tiers;
  double left = 1;
  for (const Membership::Tier& tier : group.tiers) {
    Standing standing{.tier = &tier};
    for (const std::uint32_t index : tier.members) {
      const Membership::Member& member = membership.members[index];
      if (is_draining(member)) continue;
      standing.wanted += member.weight;
      if (member.state->usable()) standing.usable += member.weight;
    }
    if (standing.wanted == 0) continue;
    standing.load = std::min(left, std::min(1.0, kSpare * standing.usable_part()));
    left -= standing.load;
    tiers.push_back(standing);
  }
  if (tiers.empty() || left <= 1e-9) return tiers;
  for (Standing& tier : tiers) tier.load = left < 1 ? tier.load / (1 - left) : 0;
  if (left >= 1) tiers.front().load = 1;  // nothing is usable anywhere
  for (Standing& tier : tiers) tier.panic = tier.load > 0 && tier.usable_part() < kPanic;
  return tiers;
}

// Zones, with the part of the requests that each gets from a proxy in `near`. Callers are taken to
// be spread evenly over the zones that have endpoints. Ours keeps its callers while what is usable
// there is a fair share, a zone-th of the whole; else it keeps what it can carry, and the rest goes
// to the zones that have more than their own callers need, in proportion to that.
std::map<std::string, double> zone_parts(const Membership& membership, const Standing& standing,
                                         const std::string& near) {
  std::map<std::string, double> weight;
  for (const std::uint32_t index : standing.tier->members) {
    const Membership::Member& member = membership.members[index];
    if (is_draining(member)) continue;
    double& zone = weight[member.zone];
    if (member.state->usable()) zone += member.weight;
  }
  std::map<std::string, double> parts;
  if (!weight.contains(near) || weight.size() == 1) {
    for (const auto& [zone, usable] : weight) parts[zone] = usable / standing.usable;
    return parts;
  }
  const double fair = 1 / static_cast<double>(weight.size());
  const double kept = std::min(1.0, weight[near] / standing.usable / fair);
  double spare = 0;
  for (const auto& [zone, usable] : weight)
    if (zone != near) spare += parts[zone] = std::max(0.0, usable / standing.usable - fair);
  for (auto& [zone, part] : parts) part = spare > 0 ? part / spare * (1 - kept) : 0;
  parts[near] = kept;
  return parts;
}

// Visits every ticket once in `tickets` draws, each far from the last: the golden section leaves
// gaps of at most three lengths.
std::uint64_t stride_of(std::uint64_t tickets) {
  if (tickets <= 2) return 1;
  auto stride =
      static_cast<std::uint64_t>(std::llround(static_cast<double>(tickets) * 0.6180339887));
  while (std::gcd(stride, tickets) != 1) ++stride;
  return stride;
}

View::Share share_of(const Membership& membership, const Membership::Tier* tier,
                     std::vector<std::uint32_t> indices) {
  View::Share share;
  share.tier = tier;
  share.members = std::move(indices);
  const auto weight = [&](std::uint32_t index) { return membership.members[index].weight; };
  const std::uint32_t first = weight(share.members.front());
  const bool equal = std::all_of(share.members.begin(), share.members.end(),
                                 [&](std::uint32_t index) { return weight(index) == first; });
  if (equal) {
    share.tickets = share.members.size();
    return share;
  }
  std::uint64_t sum = 0;
  for (const std::uint32_t index : share.members) share.cumulative.push_back(sum += weight(index));
  share.tickets = sum;
  share.stride = stride_of(sum);
  return share;
}

// The shares of one tier, with `until` still the part of each.
void add_shares(const Membership& membership, const Standing& standing,
                std::vector<std::pair<double, View::Share>>& out) {
  std::map<std::string, std::vector<std::uint32_t>> by_zone;
  const bool zones = !membership.near_zone.empty() && !standing.panic;
  for (const std::uint32_t index : standing.tier->members) {
    const Membership::Member& member = membership.members[index];
    if (is_draining(member) || !(standing.panic || member.state->usable())) continue;
    by_zone[zones ? member.zone : std::string()].push_back(index);
  }
  std::map<std::string, double> parts;
  if (zones && standing.usable > 0) parts = zone_parts(membership, standing, membership.near_zone);
  for (auto& [zone, indices] : by_zone)
    out.emplace_back(standing.load * (parts.empty() ? 1 : parts[zone]),
                     share_of(membership, standing.tier, std::move(indices)));
}

View::Group group_of(const Membership& membership, const Membership::Group& from,
                     std::uint32_t& slots) {
  View::Group group;
  group.uses.assign(membership.members.size(), 0);
  std::vector<std::pair<double, View::Share>> shares;
  for (const Standing& standing : standings(membership, from)) {
    add_shares(membership, standing, shares);
    group.panic |= standing.panic;
  }
  std::stable_partition(shares.begin(), shares.end(),
                        [](const auto& share) { return share.first > 0; });
  double until = 0;
  for (auto& [part, share] : shares) {
    for (const std::uint32_t index : share.members) {
      group.uses[index] |= View::kTakes | View::kKeeps;
      if (part > 0) group.weight += membership.members[index].weight;
    }
    if (part > 0) ++group.taking;
    until += part;
    share.until = static_cast<std::uint64_t>(std::llround(until * kWhole));
    share.slot = slots++;
    group.shares.push_back(std::move(share));
  }
  if (group.taking != 0)  // sums of parts are not exact
    group.shares[group.taking - 1].until = static_cast<std::uint64_t>(kWhole);
  for (const std::uint32_t index : from.all) {
    const Membership::Member& member = membership.members[index];
    const bool up = !member.state->unhealthy.load(std::memory_order_relaxed) &&
                    !member.state->ejected.load(std::memory_order_relaxed);
    if (up) group.uses[index] |= View::kKeeps;
    if (member.weight == 0 || is_draining(member)) continue;
    ++group.wanted;
    if (up) ++group.usable;
  }
  return group;
}

}  // namespace

std::uint64_t endpoint_id(const std::string& service, const std::string& address) {
  const std::uint64_t id =
      keyed_hash(address, keyed_hash(service, 0, 0), keyed_hash(service, 0, 1));
  return id != 0 ? id : 1;  // 0 is nobody
}

Membership::Membership(const config::Service& service,
                       const std::vector<std::shared_ptr<EndpointState>>& states)
    : near_zone(service.near_zone),
      slow_start_ms(static_cast<std::uint64_t>(service.slow_start.count())) {
  const bool keyed =
      service.balance == config::Balance::kHash || service.balance == config::Balance::kMaglev;
  if (keyed) near_zone.clear();  // the key decides, wherever the endpoint is
  groups.resize(1 + service.subsets.size());
  groups_of.resize(service.endpoints.size());
  groups.front().name = service.name;
  std::vector<std::map<std::uint32_t, Tier>> tiers(groups.size());
  for (std::uint32_t index = 0; index < service.endpoints.size(); ++index) {
    const config::Endpoint& endpoint = service.endpoints[index];
    const std::uint64_t id = endpoint_id(service.name, endpoint.address.to_string());
    members.push_back({id, endpoint.zone, endpoint.weight, endpoint.priority, states[index]});
    index_of.emplace_back(id, index);
    const auto join = [&](std::size_t group) {
      groups[group].all.push_back(index);
      groups_of[index].push_back(static_cast<std::uint32_t>(group));
      if (endpoint.weight == 0) return;
      Tier& tier = tiers[group][endpoint.priority];
      tier.priority = endpoint.priority;
      tier.members.push_back(index);
    };
    join(0);
    std::size_t at = 1;
    for (const auto& [name, labels] : service.subsets) {
      groups[at].name = service.name + "@" + name;
      if (carries(endpoint, labels)) join(at);
      ++at;
    }
  }
  std::sort(index_of.begin(), index_of.end());
  for (std::size_t group = 0; group < groups.size(); ++group)
    for (auto& [priority, tier] : tiers[group]) {
      std::vector<HashNode> nodes;
      for (const std::uint32_t index : tier.members)
        nodes.push_back({members[index].id, index, members[index].weight});
      if (service.balance == config::Balance::kHash) tier.ring.emplace(nodes);
      if (service.balance == config::Balance::kMaglev) tier.maglev.emplace(nodes);
      groups[group].tiers.push_back(std::move(tier));
    }
}

View::View(std::shared_ptr<const Membership> of) : membership(std::move(of)) {
  groups.reserve(membership->groups.size());
  for (const Membership::Group& group : membership->groups)
    groups.push_back(group_of(*membership, group, slots));
  if (membership->slow_start_ms == 0) return;
  for (std::size_t i = 0; i < membership->members.size(); ++i) {
    const std::uint64_t since =
        membership->members[i].state->usable_since_ms.load(std::memory_order_relaxed);
    if (since == 0) continue;
    since_ms.resize(membership->members.size());
    since_ms[i] = since;
    ramps_until_ms = std::max(ramps_until_ms, since + membership->slow_start_ms);
  }
}

bool View::panic() const {
  return std::any_of(groups.begin(), groups.end(), [](const Group& group) { return group.panic; });
}

std::string_view state_of(const EndpointState& state) {
  if (state.draining.load(std::memory_order_relaxed)) return "draining";
  if (state.unhealthy.load(std::memory_order_relaxed)) return "unhealthy";
  return state.ejected.load(std::memory_order_relaxed) ? "ejected" : "healthy";
}

Nothing why_nothing(const View& view, std::size_t group) {
  if (view.membership->groups[group].all.empty())
    return {Reason::kNoEndpoint,
            group == 0 ? "the service has no endpoint" : "no endpoint carries the subset's labels"};
  return {Reason::kNoEndpointHealthy, "every endpoint is draining or has weight 0"};
}

std::string standing_of(const View& view, std::size_t group, std::uint32_t index) {
  const Membership::Member& member = view.membership->members[index];
  const View::Group& of = view.groups[group];
  if (member.weight == 0) return "weight 0: takes no new requests";
  if (is_draining(member)) return "draining: takes no new requests";
  if (!of.takes(index)) return {};
  if (!member.state->usable()) return "used in panic: too few others are usable";
  const auto share = std::find_if(of.shares.begin(), of.shares.end(), [&](const View::Share& it) {
    return std::find(it.members.begin(), it.members.end(), index) != it.members.end();
  });
  const auto at = static_cast<std::size_t>(share - of.shares.begin());
  if (at >= of.taking) {
    const bool first = share->tier == &view.membership->groups[group].tiers.front();
    return first ? "zone " + member.zone + ": stands by for the zone " + view.membership->near_zone
                 : "priority " + std::to_string(member.priority) + ": stands by";
  }
  const std::uint64_t from = at == 0 ? 0 : of.shares[at - 1].until;
  if (of.taking == 1) return {};
  const double part = static_cast<double>(share->until - from) / kWhole;
  return "one of " + std::to_string(share->members.size()) + " that take " +
         std::to_string(std::lround(part * 100)) + "% of the requests";
}

}  // namespace outrider
