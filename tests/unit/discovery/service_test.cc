// Which endpoint an attempt goes to: weights, subsets, what was tried before, and limits that hold
// for the process.
#include "discovery/service.h"

#include <gtest/gtest.h>

#include <map>
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

struct Fixture {
  explicit Fixture(config::Service config)
      : config(std::move(config)), it(this->config, 1, std::make_shared<ServiceShared>()) {}
  config::Service config;
  Service it;
  Random random{42};
};

TEST(Service, LeastRequestSpreadsAndAvoidsTheBusyOne) {
  Fixture f(service({endpoint(1), endpoint(2), endpoint(3)}, config::Balance::kLeastRequest));
  f.it.endpoints()[0]->active = 100;
  std::map<std::uint32_t, int> hits;
  for (int i = 0; i < 3000; ++i) ++hits[f.it.choose(-1, {}, f.random)->index];
  EXPECT_LT(hits[0], 20);  // only when drawn twice in a row four times over
  EXPECT_NEAR(hits[1], hits[2], 250);
}

TEST(Service, LeastRequestFollowsWeights) {
  Fixture f(service({endpoint(1, 1), endpoint(2, 9)}, config::Balance::kLeastRequest));
  std::map<std::uint32_t, int> in_flight;
  for (int i = 0; i < 1000; ++i) {
    Endpoint* chosen = f.it.choose(-1, {}, f.random);
    ++chosen->active;
    ++in_flight[chosen->index];
  }
  EXPECT_NEAR(in_flight[0], 100, 60);
}

TEST(Service, RoundRobinIsSmoothAndWeighted) {
  Fixture f(service({endpoint(1, 3), endpoint(2, 1)}, config::Balance::kRoundRobin));
  std::string order;
  for (int i = 0; i < 8; ++i)
    order += static_cast<char>('a' + f.it.choose(-1, {}, f.random)->index);
  EXPECT_EQ(order, "aabaaaba");
}

TEST(Service, AnotherEndpointFirstOnARetry) {
  for (const auto balance : {config::Balance::kLeastRequest, config::Balance::kRoundRobin}) {
    Fixture f(service({endpoint(1), endpoint(2)}, balance));
    for (int i = 0; i < 200; ++i) {
      const Endpoint* tried[] = {f.it.endpoints()[0].get()};
      EXPECT_EQ(f.it.choose(-1, tried, f.random)->index, 1U);
    }
    const Endpoint* all[] = {f.it.endpoints()[0].get(), f.it.endpoints()[1].get()};
    EXPECT_NE(f.it.choose(-1, all, f.random), nullptr);  // rather one again than none
  }
}

TEST(Service, SubsetsByLabelAndWeightZeroTakesNothing) {
  config::Service config = service(
      {endpoint(1, 1, {{"version", "v1"}}), endpoint(2, 1, {{"version", "v2"}}), endpoint(3, 0)},
      config::Balance::kLeastRequest);
  config.subsets = {
      {"v1", {{"version", "v1"}}}, {"v2", {{"version", "v2"}}}, {"v3", {{"version", "v3"}}}};
  Fixture f(std::move(config));
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(f.it.choose(0, {}, f.random)->index, 0U);
    EXPECT_EQ(f.it.choose(1, {}, f.random)->index, 1U);
    EXPECT_NE(f.it.choose(-1, {}, f.random)->index, 2U);
  }
  EXPECT_TRUE(f.it.empty(2));
  EXPECT_EQ(f.it.choose(2, {}, f.random), nullptr);
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
