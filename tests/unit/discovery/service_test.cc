// Which endpoint an attempt goes to, by each way of balancing: weights, subsets, priorities, zones,
// slow start, panic, sessions, what was tried before; and limits that hold for the process.
#include "discovery/service.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <thread>

namespace outrider {
namespace {

config::Endpoint endpoint(std::uint8_t last, std::uint32_t weight = 1,
                          std::map<std::string, std::string> labels = {}) {
  config::Endpoint it;
  it.address.ip = {10, 0, 0, last};
  it.address.port = 80;
  it.weight = weight;
  it.labels = std::move(labels);
  return it;
}

config::Service service(std::vector<config::Endpoint> endpoints, config::Balance balance) {
  config::Service it;
  it.name = "shop";
  it.endpoints = std::move(endpoints);
  it.balance = balance;
  return it;
}

constexpr std::uint64_t kSecond = 1'000'000'000;

struct Fixture {
  explicit Fixture(config::Service of)
      : config(std::move(of)),
        shared(std::make_shared<ServiceShared>(config)),
        it(config, 1, shared) {}
  EndpointState& state(std::size_t index) { return *shared->endpoints[index]; }
  void set_unhealthy(std::initializer_list<std::size_t> which) {
    for (const std::size_t index : which) state(index).unhealthy = true;
    shared->changed();
  }
  Endpoint* choose(const Aim& aim = {}, std::int32_t subset = -1) {
    return it.choose(subset, aim, random);
  }
  std::uint32_t index(const Aim& aim = {}, std::int32_t subset = -1) {
    return choose(aim, subset)->index;
  }
  std::map<std::uint32_t, int> hits(int requests, const Aim& aim = {}, std::int32_t subset = -1) {
    std::map<std::uint32_t, int> hits;
    for (int i = 0; i < requests; ++i) ++hits[index(aim, subset)];
    return hits;
  }
  config::Service config;
  std::shared_ptr<ServiceShared> shared;
  Service it;
  Random random{42};
};

constexpr config::Balance kAll[] = {config::Balance::kLeastRequest, config::Balance::kRoundRobin,
                                    config::Balance::kRandom,       config::Balance::kPeakEwma,
                                    config::Balance::kHash,         config::Balance::kMaglev};

std::vector<config::Endpoint> endpoints(std::uint8_t count) {
  std::vector<config::Endpoint> all;
  for (std::uint8_t i = 1; i <= count; ++i) all.push_back(endpoint(i));
  return all;
}

Aim keyed(std::uint64_t number) { return {.key = mix64(number), .has_key = true}; }

TEST(Service, LeastRequestSpreadsAndAvoidsTheBusyOne) {
  Fixture f(service({endpoint(1), endpoint(2), endpoint(3)}, config::Balance::kLeastRequest));
  f.it.endpoints()[0]->active = 100;
  std::map<std::uint32_t, int> hits;
  for (int i = 0; i < 3000; ++i) ++hits[f.index()];
  EXPECT_LT(hits[0], 20);  // only when drawn twice in a row four times over
  EXPECT_NEAR(hits[1], hits[2], 250);
}

TEST(Service, LeastRequestFollowsWeights) {
  Fixture f(service({endpoint(1, 1), endpoint(2, 9)}, config::Balance::kLeastRequest));
  std::map<std::uint32_t, int> in_flight;
  for (int i = 0; i < 1000; ++i) {
    Endpoint* chosen = f.choose();
    ++chosen->active;
    ++in_flight[chosen->index];
  }
  EXPECT_NEAR(in_flight[0], 100, 60);
}

TEST(Service, RoundRobinIsExactAndWithoutBursts) {
  Fixture f(service({endpoint(1, 3), endpoint(2, 1)}, config::Balance::kRoundRobin));
  std::string order;
  for (int i = 0; i < 40; ++i) order += static_cast<char>('a' + f.index());
  for (std::size_t i = 0; i + 4 <= order.size(); ++i)
    EXPECT_EQ(std::count(order.begin() + static_cast<std::ptrdiff_t>(i),
                         order.begin() + static_cast<std::ptrdiff_t>(i) + 4, 'b'),
              1)
        << order;
}

TEST(Service, RoundRobinOfManyWeightsIsExactOverARound) {
  std::vector<config::Endpoint> all;
  std::uint32_t sum = 0;
  for (std::uint8_t i = 1; i <= 200; ++i) {
    all.push_back(endpoint(i, i));
    sum += i;
  }
  Fixture f(service(all, config::Balance::kRoundRobin));
  const auto hits = f.hits(static_cast<int>(sum));
  for (std::uint32_t i = 0; i < 200; ++i) EXPECT_EQ(hits.at(i), static_cast<int>(i) + 1);
}

TEST(Service, EveryBalancerFollowsWeights) {
  for (const auto balance : kAll) {
    Fixture f(service({endpoint(1, 1), endpoint(2, 2), endpoint(3, 5)}, balance));
    std::map<std::uint32_t, int> hits;
    for (std::uint64_t i = 0; i < 80'000; ++i) {
      Endpoint* chosen = f.choose(keyed(i));
      // In flight in proportion, or least-request has no reason to keep to the weights.
      f.it.began(*chosen);
      if (balance != config::Balance::kLeastRequest && balance != config::Balance::kPeakEwma)
        f.it.ended(*chosen, {});
      ++hits[chosen->index];
    }
    EXPECT_NEAR(hits[0], 10'000, 1'100) << static_cast<int>(balance);
    EXPECT_NEAR(hits[1], 20'000, 2'000) << static_cast<int>(balance);
    EXPECT_NEAR(hits[2], 50'000, 2'500) << static_cast<int>(balance);
  }
}

TEST(Service, EveryBalancerTriesAnotherEndpointFirst) {
  for (const auto balance : kAll) {
    Fixture f(service({endpoint(1), endpoint(2), endpoint(3)}, balance));
    for (std::uint64_t i = 0; i < 200; ++i) {
      Aim aim = keyed(i);
      const Endpoint* first[] = {f.choose(aim)};
      aim.tried = first;
      const Endpoint* second = f.choose(aim);
      EXPECT_NE(second, first[0]);
      const Endpoint* both[] = {first[0], second};
      aim.tried = both;
      const Endpoint* third = f.choose(aim);
      EXPECT_TRUE(third != first[0] && third != second);
      const Endpoint* all[] = {first[0], second, third};
      aim.tried = all;
      EXPECT_NE(f.choose(aim), nullptr);  // rather one again than none
    }
  }
}

TEST(Service, NoBalancerUsesWhatIsNotUsable) {
  for (const auto balance : kAll) {
    Fixture f(service(endpoints(6), balance));
    f.set_unhealthy({0});
    f.state(1).ejected = true;
    f.state(2).draining = true;
    f.shared->changed();
    for (std::uint64_t i = 0; i < 500; ++i) EXPECT_GE(f.index(keyed(i)), 3U);
    f.state(0).unhealthy = false;
    f.shared->changed();
    bool again = false;
    for (std::uint64_t i = 0; i < 500; ++i) again |= f.index(keyed(i)) == 0;
    EXPECT_TRUE(again) << static_cast<int>(balance);
  }
}

TEST(Service, AKeyFindsItsEndpointAndOnlyKeysOfALostOneMove) {
  for (const auto balance : {config::Balance::kHash, config::Balance::kMaglev}) {
    Fixture f(service(endpoints(10), balance));
    std::map<std::uint64_t, std::uint32_t> before;
    for (std::uint64_t key = 0; key < 2'000; ++key) before[key] = f.index(keyed(key));
    f.set_unhealthy({3});
    for (std::uint64_t key = 0; key < 2'000; ++key) {
      const std::uint32_t after = f.index(keyed(key));
      if (before[key] == 3) {
        EXPECT_NE(after, 3U);
      } else {
        EXPECT_EQ(after, before[key]);
      }
    }
  }
}

TEST(Service, ARequestWithoutTheKeyGoesAnywhere) {
  Fixture f(service(endpoints(4), config::Balance::kMaglev));
  EXPECT_EQ(f.hits(400).size(), 4U);
}

TEST(Service, AHotKeyOverflowsItsEndpointAtFiveQuartersOfTheMean) {
  Fixture f(service(endpoints(10), config::Balance::kHash));
  const std::uint32_t home = f.index(keyed(7));
  for (int i = 0; i < 400; ++i) f.it.began(*f.choose(keyed(7)));
  EXPECT_EQ(f.it.endpoints()[home]->active, 50U);
  for (const auto& endpoint : f.it.endpoints()) EXPECT_LE(endpoint->active, 50U);
  for (const auto& endpoint : f.it.endpoints())
    while (endpoint->active > 0) f.it.ended(*endpoint, {});
  EXPECT_EQ(f.index(keyed(7)), home);
}

// ---- least-request

// Answers what is chosen, a millisecond apart; `took_ms` of an endpoint 0: it fails at once. How
// many of the requests went to the first one.
int served(Fixture& f, int times, std::uint64_t& now_ns,
           const std::function<std::uint64_t(const Endpoint&)>& took_ms) {
  int hits = 0;
  for (int i = 0; i < times; ++i) {
    now_ns += 1'000'000;
    Endpoint& chosen = *f.choose({.now_ns = now_ns});
    hits += chosen.index == 0 ? 1 : 0;
    const std::uint64_t ms = took_ms(chosen);
    f.it.began(chosen);
    f.it.ended(chosen, {.outcome = ms == 0 ? Outcome::kServerError : Outcome::kSuccess,
                        .status = ms == 0 ? 500 : 200,
                        .answered = true,
                        .latency_ns = ms * 1'000'000,
                        .now_ns = now_ns});
  }
  return hits;
}

TEST(Service, LeastRequestAsksASlowOneSeldomAndSeesItBecomeFast) {
  Fixture f(service(endpoints(10), config::Balance::kLeastRequest));
  std::uint64_t now = kSecond;
  const auto with = [&](std::uint64_t ms) {
    return served(f, 10'000, now,
                  [ms](const Endpoint& it) { return it.index == 0 ? ms : std::uint64_t{2}; });
  };
  with(20);
  const int slow = with(20);
  EXPECT_GT(slow, 0);
  EXPECT_LT(slow, 60) << "of the thousand that would be its share";
  // It is the better choice once the others are as much busier.
  for (const auto& endpoint : f.it.endpoints())
    if (endpoint->index != 0) endpoint->active = 9;
  EXPECT_GT(f.hits(1'000, {.now_ns = now})[0], 150);
  for (const auto& endpoint : f.it.endpoints()) endpoint->active = 0;
  with(2);
  EXPECT_NEAR(with(2), 1'000, 150);
}

TEST(Service, LeastRequestTakesQuickFailuresForSlowButNotForLong) {
  Fixture f(service(endpoints(2), config::Balance::kLeastRequest));
  std::uint64_t now = kSecond;
  served(f, 3'000, now, [](const Endpoint& it) { return it.index == 0 ? 0U : 5U; });
  EXPECT_LT(served(f, 1'000, now, [](const Endpoint& it) { return it.index == 0 ? 0U : 5U; }), 40);
  served(f, 3'000, now, [](const Endpoint&) { return 5U; });
  EXPECT_NEAR(served(f, 1'000, now, [](const Endpoint&) { return 5U; }), 500, 80);
}

TEST(Service, LeastRequestForgetsWhatWasLongAgo) {
  Fixture f(service(endpoints(2), config::Balance::kLeastRequest));
  std::uint64_t now = kSecond;
  served(f, 1'000, now, [](const Endpoint& it) { return it.index == 0 ? 500U : 5U; });
  now += 11 * kSecond;
  EXPECT_NEAR(f.hits(1'000, {.now_ns = now})[0], 500, 80);
}

// A first answer that was slow, or every second one, is no reason to ask others.
TEST(Service, LeastRequestIsEvenAmongAlike) {
  for (const bool mixed : {false, true}) {
    Fixture f(service(endpoints(2), config::Balance::kLeastRequest));
    std::uint64_t now = kSecond;
    int answers = 0;
    const auto took = [&](const Endpoint&) {
      ++answers;
      return answers == 1 ? 5'000U : mixed && answers % 7 % 2 == 0 ? 200U : 1U;
    };
    for (int block = 0; block < 10; ++block) {
      EXPECT_NEAR(served(f, 1'000, now, took), 500, mixed ? 200 : 100) << block;
    }
  }
}

// ---- peak-ewma

TEST(Service, PeakEwmaPrefersWhoAnswersSooner) {
  Fixture f(service(endpoints(2), config::Balance::kPeakEwma));
  f.it.endpoints()[0]->note(50'000'000, false, kSecond);
  f.it.endpoints()[1]->note(5'000'000, false, kSecond);
  EXPECT_EQ(f.hits(1000, {.now_ns = kSecond})[0], 0);
  // Ten times the load makes them equal.
  f.it.endpoints()[1]->active = 11;
  EXPECT_LT(f.hits(1000, {.now_ns = kSecond})[1], 150);
}

TEST(Service, PeakEwmaRemembersThePeakAndForgetsItInTime) {
  Fixture f(service(endpoints(1), config::Balance::kPeakEwma));
  Endpoint& it = *f.it.endpoints()[0];
  it.note(5'000'000, false, kSecond);
  it.note(80'000'000, false, 2 * kSecond);
  EXPECT_EQ(it.expected_ns(2 * kSecond), 80'000'000);
  EXPECT_NEAR(it.expected_ns(12 * kSecond), 80e6 / 2.718, 1e6);
  for (int i = 0; i < 100; ++i)
    it.note(5'000'000, false, (2 + static_cast<std::uint64_t>(i)) * kSecond);
  EXPECT_NEAR(it.expected_ns(101 * kSecond), 5e6, 1e6);
}

TEST(Service, PeakEwmaTakesAQuickFailureForALongWait) {
  Fixture f(service(endpoints(2), config::Balance::kPeakEwma));
  for (const auto& endpoint : f.it.endpoints()) endpoint->note(20'000'000, false, kSecond);
  f.it.began(*f.it.endpoints()[0]);
  f.it.ended(*f.it.endpoints()[0],
             {.outcome = Outcome::kLocalFailure, .latency_ns = 1000, .now_ns = kSecond});
  EXPECT_LT(f.hits(1000, {.now_ns = kSecond})[0], 150);
  f.it.endpoints()[1]->note(20'000'000, false, 60 * kSecond);
  EXPECT_GT(f.hits(1000, {.now_ns = 60 * kSecond})[0], 850);  // and tries it again later
}

TEST(Service, PeakEwmaDoesNotTakeALeftRequestForAQuickAnswer) {
  Fixture f(service(endpoints(1), config::Balance::kPeakEwma));
  Endpoint& it = *f.it.endpoints()[0];
  it.note(20'000'000, false, kSecond);
  f.it.began(it);
  f.it.ended(it, {.latency_ns = 1'000, .now_ns = kSecond});
  EXPECT_EQ(it.expected_ns(kSecond), 20'000'000);
  f.it.began(it);
  f.it.ended(it, {.latency_ns = 90'000'000, .now_ns = kSecond});
  EXPECT_EQ(it.expected_ns(kSecond), 90'000'000);
}

// ---- slow start

TEST(Service, OneThatCameBackGrowsIntoItsShare) {
  for (const auto balance : kAll) {
    config::Service config = service(endpoints(4), balance);
    config.slow_start = std::chrono::seconds(30);
    Fixture f(std::move(config));
    f.state(0).usable_since_ms = 1'000'000;
    f.shared->changed();
    const auto share = [&](std::uint64_t now_s) {
      int hits = 0;
      for (std::uint64_t i = 0; i < 20'000; ++i) {
        Aim aim = keyed(i);
        aim.now_ns = now_s * kSecond;
        Endpoint* chosen = f.choose(aim);
        if (chosen->index == 0) ++hits;
      }
      return hits / 20'000.0;
    };
    // Without load least-request takes the first draw, so shares are those of draws.
    EXPECT_NEAR(share(1'000), 0.1 / 3.1, 0.012) << static_cast<int>(balance);
    EXPECT_NEAR(share(1'015), 0.55 / 3.55, 0.02) << static_cast<int>(balance);
    EXPECT_NEAR(share(1'031), 0.25, 0.02) << static_cast<int>(balance);
  }
}

TEST(Service, ThoseThatWereThereFromTheStartDoNotStartSlowly) {
  config::Service config = service(endpoints(2), config::Balance::kRoundRobin);
  config.slow_start = std::chrono::seconds(30);
  Fixture f(std::move(config));
  EXPECT_EQ(f.hits(100, {.now_ns = kSecond})[0], 50);
  EXPECT_EQ(f.shared->view()->ramps_until_ms, 0U);
}

// ---- tiers, panic, zones

std::vector<config::Endpoint> two_tiers() {
  auto all = endpoints(8);
  for (std::size_t i = 4; i < 8; ++i) all[i].priority = 1;
  return all;
}

double second_tier(Fixture& f) {
  int hits = 0;
  for (std::uint64_t i = 0; i < 20'000; ++i)
    if (f.index(keyed(i)) >= 4) ++hits;
  return hits / 20'000.0;
}

TEST(Service, TheNextTierTakesWhatTheFirstCannotCarry) {
  for (const auto balance : kAll) {
    Fixture f(service(two_tiers(), balance));
    EXPECT_EQ(second_tier(f), 0);
    f.set_unhealthy({0});
    EXPECT_EQ(second_tier(f), 0);  // three quarters times 1.4 is enough
    f.set_unhealthy({1});
    EXPECT_NEAR(second_tier(f), 0.3, 0.02) << static_cast<int>(balance);
    f.set_unhealthy({2});
    EXPECT_NEAR(second_tier(f), 0.65, 0.02) << static_cast<int>(balance);
    EXPECT_FALSE(f.shared->view()->panic());
    f.set_unhealthy({3});
    EXPECT_EQ(second_tier(f), 1);
    EXPECT_FALSE(f.shared->view()->panic());
  }
}

TEST(Service, ARetryGoesToTheTierThatStandsByBeforeItRepeats) {
  auto all = endpoints(2);
  all[1].priority = 1;
  Fixture f(service(all, config::Balance::kLeastRequest));
  const Endpoint* tried[] = {f.choose()};
  EXPECT_EQ(tried[0]->index, 0U);
  EXPECT_EQ(f.index({.tried = tried}), 1U);
}

TEST(Service, BelowHalfItPanicsAndUsesAllButThoseThatDrain) {
  for (const auto balance : kAll) {
    Fixture f(service(endpoints(5), balance));
    f.state(4).draining = true;
    f.set_unhealthy({0, 1});
    EXPECT_FALSE(f.shared->view()->panic());  // two of four
    for (std::uint64_t i = 0; i < 200; ++i) EXPECT_GE(f.index(keyed(i)), 2U);
    f.set_unhealthy({2});
    EXPECT_TRUE(f.shared->view()->panic());
    std::map<std::uint32_t, int> hits;
    for (std::uint64_t i = 0; i < 500; ++i) ++hits[f.index(keyed(i))];
    EXPECT_EQ(hits.size(), 4U) << static_cast<int>(balance);
    EXPECT_EQ(hits.count(4), 0U);
    f.set_unhealthy({3});
    EXPECT_NE(f.choose(keyed(1)), nullptr);  // none usable: rather a doubtful one
  }
}

TEST(Service, ATierThatCarriesNothingDoesNotPanic) {
  Fixture f(service(two_tiers(), config::Balance::kHash));
  f.set_unhealthy({0, 1, 2, 3, 4, 5, 6});  // nothing of the first, a quarter of the second
  EXPECT_TRUE(f.shared->view()->panic());
  EXPECT_EQ(second_tier(f), 1);
  EXPECT_FALSE(f.shared->view()->groups[0].takes(0));
  EXPECT_TRUE(f.shared->view()->groups[0].takes(4));
}

TEST(Service, APanicIsOfItsSubsetAlone) {
  config::Service config = service(
      {endpoint(1, 1, {{"v", "1"}}), endpoint(2, 1, {{"v", "2"}}), endpoint(3, 1, {{"v", "2"}})},
      config::Balance::kRandom);
  config.subsets = {{"one", {{"v", "1"}}}, {"two", {{"v", "2"}}}};
  Fixture f(std::move(config));
  f.set_unhealthy({0});
  EXPECT_FALSE(f.shared->view()->groups[0].panic);
  EXPECT_TRUE(f.shared->view()->groups[1].panic);
  EXPECT_EQ(f.index({}, 0), 0U);
  EXPECT_EQ(f.hits(100).count(0), 0U);
}

TEST(Service, WhereNoneMayBeUsedItSaysWhy) {
  Fixture draining(service(endpoints(2), config::Balance::kLeastRequest));
  for (std::size_t i : {0U, 1U}) draining.state(i).draining = true;
  draining.shared->changed();
  EXPECT_EQ(draining.choose(), nullptr);
  EXPECT_EQ(draining.it.nothing(-1).reason, Reason::kNoEndpointHealthy);
  EXPECT_FALSE(draining.shared->view()->panic());
  Fixture none(service({}, config::Balance::kHash));
  EXPECT_EQ(none.choose(keyed(1)), nullptr);
  EXPECT_EQ(none.it.nothing(-1).reason, Reason::kNoEndpoint);
}

std::vector<config::Endpoint> three_zones() {
  auto all = endpoints(9);
  for (std::size_t i = 0; i < 9; ++i) all[i].zone = std::string(1, static_cast<char>('a' + i / 3));
  return all;
}

std::array<double, 3> zone_shares(Fixture& f) {
  std::array<double, 3> shares{};
  for (const auto& [index, hits] : f.hits(30'000)) shares[index / 3] += hits;
  for (double& share : shares) share /= 30'000;
  return shares;
}

TEST(Service, RequestsStayInTheirZoneWhileItCanCarryThem) {
  config::Service config = service(three_zones(), config::Balance::kLeastRequest);
  config.near_zone = "b";
  Fixture f(std::move(config));
  EXPECT_EQ(zone_shares(f)[1], 1);
  // One of ours is down: two of eight are there for a third of the callers, so a quarter leaves,
  // to both others alike.
  f.set_unhealthy({3});
  auto shares = zone_shares(f);
  EXPECT_NEAR(shares[1], 0.75, 0.015);
  EXPECT_NEAR(shares[0], 0.125, 0.015);
  EXPECT_NEAR(shares[2], 0.125, 0.015);
  // A loss elsewhere leaves us more than our share.
  f.state(3).unhealthy = false;
  f.set_unhealthy({0});
  EXPECT_EQ(zone_shares(f)[1], 1);
}

TEST(Service, ALostZoneIsCarriedByTheOthersByWhatTheyHaveToSpare) {
  config::Service config = service(three_zones(), config::Balance::kRoundRobin);
  config.near_zone = "b";
  Fixture f(std::move(config));
  f.set_unhealthy({3, 4, 5, 0});  // of a two are left, of c three
  const auto shares = zone_shares(f);
  EXPECT_EQ(shares[1], 0);
  EXPECT_NEAR(shares[0], (2 / 5.0 - 1 / 3.0) / (1 / 3.0), 0.01);
  EXPECT_NEAR(shares[2], (3 / 5.0 - 1 / 3.0) / (1 / 3.0), 0.01);
}

TEST(Service, AProxyInAZoneWithoutEndpointsUsesAll) {
  config::Service config = service(three_zones(), config::Balance::kRandom);
  config.near_zone = "elsewhere";
  Fixture f(std::move(config));
  for (const double share : zone_shares(f)) EXPECT_NEAR(share, 1 / 3.0, 0.02);
}

TEST(Service, ARetryLeavesTheZoneBeforeItRepeats) {
  config::Service config = service(endpoints(2), config::Balance::kLeastRequest);
  config.endpoints[0].zone = "a";
  config.endpoints[1].zone = "b";
  config.near_zone = "a";
  Fixture f(std::move(config));
  const Endpoint* tried[] = {f.choose()};
  EXPECT_EQ(tried[0]->index, 0U);
  EXPECT_EQ(f.index({.tried = tried}), 1U);
}

// ---- sessions

TEST(Service, ASessionStaysWithItsEndpointUntilThatFails) {
  for (const auto balance : kAll) {
    Fixture f(service({endpoint(1), endpoint(2), endpoint(3), endpoint(4, 0)}, balance));
    const Aim aim{.session = f.it.endpoints()[1]->id};
    const Aim spare{.session = f.it.endpoints()[3]->id};
    for (int i = 0; i < 50; ++i) {
      EXPECT_EQ(f.index(aim), 1U);
      EXPECT_EQ(f.index(spare), 3U);  // weight 0 takes no new sessions, and keeps its own
    }
    f.state(1).draining = true;
    f.shared->changed();
    EXPECT_EQ(f.index(aim), 1U);
    f.set_unhealthy({1});
    EXPECT_NE(f.index(aim), 1U);
    EXPECT_FALSE(f.it.keeps(-1, aim.session));
    EXPECT_NE(f.choose({.session = 4711}), nullptr);  // of an endpoint that is no more
  }
}

TEST(Service, ASessionIsOnlyKeptInItsSubsetAndNotAfterAFailedTry) {
  config::Service config = service({endpoint(1, 1, {{"v", "1"}}), endpoint(2, 1, {{"v", "2"}})},
                                   config::Balance::kRandom);
  config.subsets = {{"one", {{"v", "1"}}}, {"two", {{"v", "2"}}}};
  Fixture f(std::move(config));
  const Aim aim{.session = f.it.endpoints()[1]->id};
  EXPECT_TRUE(f.it.keeps(1, aim.session));
  EXPECT_FALSE(f.it.keeps(0, aim.session));
  EXPECT_EQ(f.index(aim, 0), 0U);
  const Endpoint* tried[] = {f.it.endpoints()[1].get()};
  EXPECT_EQ(f.index({.tried = tried, .session = aim.session}), 0U);
}

TEST(Service, IdentitiesAreOfAddressAndServiceAlone) {
  EXPECT_EQ(endpoint_id("shop", "10.0.0.1:80"), endpoint_id("shop", "10.0.0.1:80"));
  EXPECT_NE(endpoint_id("shop", "10.0.0.1:80"), endpoint_id("cart", "10.0.0.1:80"));
  EXPECT_NE(endpoint_id("shop", "10.0.0.1:80"), endpoint_id("shop", "10.0.0.2:80"));
}

// ---- words

TEST(View, SaysWhereAnEndpointStands) {
  auto all = two_tiers();
  all[3].weight = 0;
  Fixture f(service(all, config::Balance::kRandom));
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 0), "");
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 3), "weight 0: takes no new requests");
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 5), "priority 1: stands by");
  f.state(6).draining = true;
  f.set_unhealthy({0, 1});
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 2), "one of 1 that take 47% of the requests");
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 5), "one of 3 that take 53% of the requests");
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 6), "draining: takes no new requests");
  f.set_unhealthy({2, 4, 5, 7});
  EXPECT_EQ(standing_of(*f.shared->view(), 0, 0), "used in panic: too few others are usable");
  EXPECT_EQ(state_of(f.state(0)), "unhealthy");
  EXPECT_EQ(state_of(f.state(6)), "draining");
}

TEST(View, AThousandEndpointsThatComeAndGoAreQuicklyWorkedOut) {
  std::vector<config::Endpoint> all;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    all.push_back(endpoint(static_cast<std::uint8_t>(i % 250), 1 + i % 3));
    all.back().address.ip[2] = static_cast<std::uint8_t>(i / 250);
  }
  Fixture f(service(all, config::Balance::kMaglev));
  for (std::size_t i = 0; i < 300; ++i) {
    f.state(i).unhealthy = true;
    f.shared->changed();
    const std::uint32_t index = f.index(keyed(i));
    EXPECT_TRUE(f.state(index).usable());
  }
  EXPECT_EQ(f.shared->view()->groups[0].usable, 700U);
}

TEST(Service, SubsetsByLabelAndWeightZeroTakesNothing) {
  config::Service config = service(
      {endpoint(1, 1, {{"version", "v1"}}), endpoint(2, 1, {{"version", "v2"}}), endpoint(3, 0)},
      config::Balance::kLeastRequest);
  config.subsets = {
      {"v1", {{"version", "v1"}}}, {"v2", {{"version", "v2"}}}, {"v3", {{"version", "v3"}}}};
  Fixture f(std::move(config));
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(f.index({}, 0), 0U);
    EXPECT_EQ(f.index({}, 1), 1U);
    EXPECT_NE(f.index(), 2U);
  }
  EXPECT_TRUE(f.it.empty(2));
  EXPECT_EQ(f.choose({}, 2), nullptr);
}

TEST(Service, LimitsAreExactAcrossThreads) {
  std::atomic<std::uint64_t> count{0};
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i)
        if (take(count, 100)) ++granted;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(granted.load(), 100);
  EXPECT_EQ(count.load(), 100U);
  EXPECT_TRUE(take(count, 0));  // 0: no limit
}

}  // namespace
}  // namespace outrider
