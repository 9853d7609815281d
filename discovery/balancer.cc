// The choice of an endpoint. First the share (tier, zone), then an endpoint in it, by the service's
// `balance`. Invariant: nothing here is shared with other workers but the immutable view, nothing
// allocates, and no choice looks at every endpoint but one that finds its first pick tried before.
#include <algorithm>
#include <cmath>

#include "discovery/ejection.h"
#include "discovery/service.h"

namespace outrider {
namespace {

using config::Balance;

// Slow start: an endpoint begins with this part of its weight.
constexpr double kFirstPart = 0.1;
// A draw that falls on one that is not ready yet is repeated so often; then it is taken.
constexpr int kDraws = 16;

// peak-ewma: a peak fades to a third in this time.
constexpr double kFadeNs = 10e9;
constexpr double kFailureNs = 100e6;  // a failure took at least as long
constexpr double kUnknownNs = 60e9;   // one that has not answered yet has no second request

// least-request: one that takes more than so many times as long as the other on average is as many
// times busier for each request that it has, but in one choice of so many, which shows when it is
// fast again. Bounded, so that what is in flight always counts.
constexpr double kSlower = 2;
constexpr double kSlowest = 8;
constexpr std::uint32_t kLooks = 64;
constexpr std::uint64_t kQuickNs = 500'000;          // below this nobody is slow
constexpr std::uint64_t kSilenceNs = 1'000'000'000;  // after it one answer counts for half
constexpr std::uint64_t kForgetNs = 10'000'000'000;  // and after this all is forgotten
constexpr std::uint64_t kMostAtOnce = 8;             // times the average that one may count for

// hash: nobody has more than so many times the mean in flight, if the mean is not tiny.
constexpr double kBound = 1.25;
constexpr std::uint32_t kAlwaysRoom = 2;

bool was_tried(const Aim& aim, const Endpoint* endpoint) {
  return std::find(aim.tried.begin(), aim.tried.end(), endpoint) != aim.tried.end();
}

// Of `members`, the one that the ticket falls on.
std::uint32_t member_at(const View::Share& share, std::uint64_t ticket) {
  if (share.cumulative.empty()) return share.members[ticket];
  const auto at = std::upper_bound(share.cumulative.begin(), share.cumulative.end(), ticket);
  return share.members[static_cast<std::size_t>(at - share.cumulative.begin())];
}

std::uint32_t drawn_member(const View::Share& share, Random& random) {
  if (share.cumulative.empty())
    return share.members[random.below(static_cast<std::uint32_t>(share.members.size()))];
  return member_at(share, random.next() % share.tickets);
}

}  // namespace

// ---- what is remembered of an endpoint

double Endpoint::expected_ns(std::uint64_t now_ns) const {
  if (peak_ns_ == 0 || now_ns <= noted_ns_) return peak_ns_;
  return peak_ns_ * std::exp(-static_cast<double>(now_ns - noted_ns_) / kFadeNs);
}

void Endpoint::note(std::uint64_t latency_ns, bool failed, std::uint64_t now_ns) {
  const double before = expected_ns(now_ns);
  double seen = static_cast<double>(std::max<std::uint64_t>(latency_ns, 1));
  if (failed) seen = std::max({seen, 2 * before, kFailureNs});
  if (seen < before) {
    const double kept =
        now_ns <= noted_ns_ ? 1 : std::exp(-static_cast<double>(now_ns - noted_ns_) / kFadeNs);
    seen = peak_ns_ * kept + seen * (1 - kept);
  }
  peak_ns_ = seen;
  noted_ns_ = now_ns;
}

std::uint64_t Endpoint::average_ns(std::uint64_t now_ns) const {
  return now_ns > learned_ns_ + kForgetNs ? 0 : average_ns_;
}

// The first after a long silence says little: a connection was made for it, a cache was cold.
void Endpoint::learn(std::uint64_t latency_ns, bool failed, std::uint64_t now_ns) {
  const bool known = learned_ns_ != 0 && now_ns <= learned_ns_ + kForgetNs;
  const bool silent = now_ns > learned_ns_ + kSilenceNs;
  learned_ns_ = now_ns;
  const std::uint64_t seen =
      std::max(latency_ns, failed ? static_cast<std::uint64_t>(kFailureNs) : kQuickNs);
  if (!known) {
    average_ns_ = 0;
  } else if (average_ns_ == 0) {
    average_ns_ = seen;
  } else {
    const auto part = static_cast<std::int64_t>(std::min(seen, kMostAtOnce * average_ns_)) -
                      static_cast<std::int64_t>(average_ns_);
    average_ns_ += static_cast<std::uint64_t>(part / (silent ? 2 : 8));
  }
}

void Service::began(Endpoint& endpoint) {
  ++endpoint.active;
  if (in_flight_.empty()) return;
  for (const std::uint32_t group : view_->membership->groups_of[endpoint.index])
    ++in_flight_[group];
}

void Service::ended(Endpoint& endpoint, const AttemptReport& report) {
  --endpoint.active;
  note_attempt(*this, endpoint, report);
  // One that was given up says only that it took so long.
  const bool failed = report.outcome != Outcome::kSuccess && report.outcome != Outcome::kNeither;
  const bool tells = report.answered || failed;
  if (config_.balance == Balance::kLeastRequest) {
    if (tells || report.latency_ns > endpoint.average_ns(report.now_ns))
      endpoint.learn(report.latency_ns, failed, report.now_ns);
  } else if (config_.balance == Balance::kPeakEwma) {
    if (tells || static_cast<double>(report.latency_ns) > endpoint.expected_ns(report.now_ns))
      endpoint.note(report.latency_ns, failed, report.now_ns);
  }
  if (in_flight_.empty()) return;
  for (const std::uint32_t group : view_->membership->groups_of[endpoint.index])
    --in_flight_[group];
}

// ---- the choice

Endpoint* Service::choose(std::int32_t subset, const Aim& aim, Random& random) {
  const View::Group& group = this->group(subset);
  if (aim.session != 0)
    if (Endpoint* kept = of_session(group, aim.session); kept != nullptr && !was_tried(aim, kept))
      return kept;
  if (group.shares.empty()) return nullptr;
  const View::Share& share = share_for(group, aim, random);
  Endpoint* chosen = nullptr;
  if (share.members.size() == 1) {
    chosen = endpoint_at(share.members.front());
  } else {
    switch (config_.balance) {
      case Balance::kRoundRobin: chosen = next_in_turn(share, aim, random); break;
      case Balance::kRandom: chosen = draw(share, aim, random); break;
      case Balance::kLeastRequest:
      case Balance::kPeakEwma: chosen = lighter_of_two(share, aim, random); break;
      case Balance::kHash:
      case Balance::kMaglev:
        chosen = aim.has_key ? by_key(group, static_cast<std::size_t>(subset + 1), share, aim)
                             : draw(share, aim, random);
        break;
    }
  }
  if (aim.tried.empty() || !was_tried(aim, chosen)) return chosen;
  Endpoint* other = another(group, share, aim, random);
  return other != nullptr ? other : chosen;
}

bool Service::keeps(std::int32_t subset, std::uint64_t session) {
  return session != 0 && of_session(group(subset), session) != nullptr;
}

Endpoint* Service::of_session(const View::Group& group, std::uint64_t session) {
  const auto& all = view_->membership->index_of;
  const auto found = std::lower_bound(all.begin(), all.end(), std::pair{session, std::uint32_t{0}});
  if (found == all.end() || found->first != session) return nullptr;
  return (group.uses[found->second] & View::kKeeps) != 0 ? endpoint_at(found->second) : nullptr;
}

// A key keeps to its tier, as long as the tiers stand as they do.
const View::Share& Service::share_for(const View::Group& group, const Aim& aim,
                                      Random& random) const {
  if (group.taking <= 1) return group.shares.front();
  constexpr std::uint64_t kOther = 0x5DEECE66DULL;  // unlike what the tables draw of the key
  const bool keyed =
      aim.has_key && (config_.balance == Balance::kHash || config_.balance == Balance::kMaglev);
  const std::uint64_t ticket = (keyed ? mix64(aim.key ^ kOther) : random.next()) >> 32;
  std::size_t at = 0;
  while (at + 1 < group.taking && ticket >= group.shares[at].until) ++at;
  return group.shares[at];
}

// Slow start: whether a draw (of 2^32) that falls on the endpoint may stay there.
bool Service::is_ready(const Endpoint& endpoint, const Aim& aim, std::uint32_t draw) const {
  const std::uint64_t now_ms = aim.now_ns / 1'000'000;
  if (view_->ramps_until_ms <= now_ms) return true;
  const std::uint64_t since = view_->since_ms[endpoint.index];
  const std::uint64_t whole = view_->membership->slow_start_ms;
  if (since == 0 || now_ms >= since + whole) return true;
  const double grown =
      now_ms <= since ? 0 : static_cast<double>(now_ms - since) / static_cast<double>(whole);
  return draw < (kFirstPart + (1 - kFirstPart) * grown) * 4294967296.0;
}

Endpoint* Service::draw(const View::Share& share, const Aim& aim, Random& random) {
  Endpoint* drawn = endpoint_at(drawn_member(share, random));
  if (view_->ramps_until_ms <= aim.now_ns / 1'000'000) return drawn;
  for (int again = 1; again < kDraws; ++again) {
    if (is_ready(*drawn, aim, static_cast<std::uint32_t>(random.next()))) return drawn;
    drawn = endpoint_at(drawn_member(share, random));
  }
  return drawn;
}

// The tickets of a share one after the other, each far from the last: exact over a round, and no
// bursts to the heavy one.
Endpoint* Service::next_in_turn(const View::Share& share, const Aim& aim, Random& random) {
  std::uint64_t& turn = turns_[share.slot];
  if (turn >= share.tickets) turn = random.next() % share.tickets;
  for (int again = 1;; ++again) {
    Endpoint* next = endpoint_at(member_at(share, turn));
    turn += share.stride;
    if (turn >= share.tickets) turn -= share.tickets;
    if (view_->ramps_until_ms <= aim.now_ns / 1'000'000 || again == kDraws ||
        is_ready(*next, aim, static_cast<std::uint32_t>(random.next())))
      return next;
  }
}

// Whether `a` would take less to answer one more request than `b`.
bool Service::lighter(const Endpoint& a, const Endpoint& b, const Aim& aim, Random& random) const {
  if (config_.balance != Balance::kPeakEwma) {
    const auto takes_a = static_cast<double>(a.average_ns(aim.now_ns));
    const auto takes_b = static_cast<double>(b.average_ns(aim.now_ns));
    const double less = std::min(takes_a, takes_b);
    if (less > 0 && std::max(takes_a, takes_b) > kSlower * less && random.below(kLooks) != 0) {
      const auto cost = [less](const Endpoint& endpoint, double takes) {
        return std::min(takes / less, kSlowest) * (endpoint.active + 1);
      };
      return cost(a, takes_a) * b.config.weight < cost(b, takes_b) * a.config.weight;
    }
    return static_cast<std::uint64_t>(a.active) * b.config.weight <
           static_cast<std::uint64_t>(b.active) * a.config.weight;
  }
  const auto cost = [now_ns = aim.now_ns](const Endpoint& endpoint) {
    const double expected = endpoint.expected_ns(now_ns);
    if (expected == 0) return endpoint.active * kUnknownNs;
    return expected * (endpoint.active + 1);
  };
  return cost(a) * b.config.weight < cost(b) * a.config.weight;
}

Endpoint* Service::lighter_of_two(const View::Share& share, const Aim& aim, Random& random) {
  const auto [first, second] = draw_two(share, aim, random);
  return lighter(*second, *first, aim, random) ? second : first;
}

// Different ones if it can be.
std::pair<Endpoint*, Endpoint*> Service::draw_two(const View::Share& share, const Aim& aim,
                                                  Random& random) {
  if (share.cumulative.empty() && view_->ramps_until_ms <= aim.now_ns / 1'000'000) {
    const auto count = static_cast<std::uint32_t>(share.members.size());
    const std::uint32_t one = random.below(count);
    const std::uint32_t other = random.below(count - 1);
    return {endpoint_at(share.members[one]),
            endpoint_at(share.members[other + (other >= one ? 1 : 0)])};
  }
  Endpoint* const first = draw(share, aim, random);
  Endpoint* second = draw(share, aim, random);
  for (int again = 0; second == first && again < 3; ++again) second = draw(share, aim, random);
  return {first, second};
}

// Those that may not be used, that start slowly and turn this key away, that were tried before or
// have too much to do are passed over, in this order of importance.
Endpoint* Service::by_key(const View::Group& group, std::size_t number, const View::Share& share,
                          const Aim& aim) {
  const auto find = [&](const auto& may) {
    return share.tier->ring ? share.tier->ring->find(aim.key, may)
                            : share.tier->maglev->find(aim.key, may);
  };
  const auto usable = [&](std::uint32_t index) { return group.takes(index); };
  const bool ramps = view_->ramps_until_ms > aim.now_ns / 1'000'000;
  const auto ready = [&](std::uint32_t index) {
    const Endpoint& endpoint = *endpoint_at(index);
    if (!group.takes(index) || was_tried(aim, &endpoint)) return false;
    // Each endpoint takes the same keys first, whatever else happens.
    const std::uint64_t draw = mix64(aim.key + view_->membership->members[index].id);
    return !ramps || is_ready(endpoint, aim, static_cast<std::uint32_t>(draw));
  };
  const bool plain = !ramps && aim.tried.empty();
  std::uint32_t found = plain ? find(usable) : find(ready);
  if (found == kNoNode) found = find(usable);
  if (config_.balance != Balance::kHash || found == kNoNode)
    return found == kNoNode ? endpoint_at(share.members.front()) : endpoint_at(found);
  const double mean = (in_flight_[number] + 1) / group.weight;
  const auto has_room = [&](std::uint32_t index) {
    const Endpoint& endpoint = *endpoint_at(index);
    return endpoint.active < kAlwaysRoom ||
           endpoint.active < kBound * mean * endpoint.config.weight;
  };
  if (has_room(found)) return endpoint_at(found);
  const std::uint32_t other =
      find([&](std::uint32_t index) { return has_room(index) && ready(index); });
  return endpoint_at(other != kNoNode ? other : found);
}

// One that was not tried, of the same share if there is any: the lightest, from a random place on.
Endpoint* Service::another(const View::Group& group, const View::Share& first, const Aim& aim,
                           Random& random) {
  const auto best_of = [&](const View::Share& share) -> Endpoint* {
    const auto size = static_cast<std::uint32_t>(share.members.size());
    const std::uint32_t start = random.below(size);
    Endpoint* best = nullptr;
    for (std::uint32_t i = 0; i < size; ++i) {
      Endpoint* endpoint = endpoint_at(share.members[(start + i) % size]);
      if (was_tried(aim, endpoint)) continue;
      if (best == nullptr || lighter(*endpoint, *best, aim, random)) best = endpoint;
    }
    return best;
  };
  if (Endpoint* best = best_of(first)) return best;
  for (const View::Share& share : group.shares)
    if (&share != &first)
      if (Endpoint* best = best_of(share)) return best;
  return nullptr;
}

}  // namespace outrider
