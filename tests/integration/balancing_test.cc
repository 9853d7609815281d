// Where requests go, through the binary: every way of balancing, keys and sessions, tiers, zones,
// endpoints that drain, and what is said of it. On HTTP/2, each request is balanced by itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

// Each answers with its number.
class Balancing : public testing::Test {
 protected:
  Balancing() {
    for (int i = 0; i < 4; ++i) {
      origins_.emplace_back(
          new HttpOrigin(HttpOrigin::answering({.status = 200, .body = std::to_string(i)})));
      substitutions_["O" + std::to_string(i)] = origins_.back()->address();
    }
  }
  // The origin that answered; -1 for another answer.
  static int ask(Client& client, Fields fields = {}, const std::string& target = "/") {
    const Response response = client.request({.target = target, .fields = std::move(fields)});
    return response.status == 200 ? std::stoi(response.body) : -1;
  }
  std::unique_ptr<Outrider> proxy(const std::string& service, const std::string& route = "") {
    return std::make_unique<Outrider>(
        "outrider: v1\nzone: b\nlisten: 127.0.0.1:0\nservices:\n  "
        "shop: { " +
            service + " }\nroutes:\n  - { to: shop" + route + " }\n",
        substitutions_);
  }
  static std::string cookie_of(const Response& response) {
    const std::string set = response.fields.value("set-cookie");
    return set.substr(0, set.find(';'));
  }
  std::vector<std::unique_ptr<HttpOrigin>> origins_;
  Outrider::Substitutions substitutions_;
};

TEST_F(Balancing, EveryBalancerReachesEveryEndpointOverEveryProtocol) {
  for (const char* balance : {"least-request", "round-robin", "random", "peak-ewma",
                              "hash(header x-user)", "maglev(query user)"}) {
    const auto it = proxy("endpoints: [$O0, $O1, $O2, $O3], balance: " + std::string(balance));
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      Client client = it->client(protocol);
      std::set<int> seen;
      for (int i = 0; i < 100; ++i) {
        const std::string user = "u" + std::to_string(i);
        seen.insert(ask(client, {{"x-user", user}}, "/?user=" + user));
      }
      // On a busy machine one may seem slow, which peak-ewma then leaves alone.
      EXPECT_GE(seen.size(), std::string(balance) == "peak-ewma" ? 2U : 4U) << balance;
      EXPECT_EQ(seen.count(-1), 0U) << balance;
      EXPECT_EQ(client.connections(), 1) << balance;
    }
  }
}

TEST_F(Balancing, AKeyFindsItsEndpointOnEveryProxyWhateverTheOrder) {
  for (const char* balance : {"hash", "maglev"}) {
    const std::string by = std::string(", balance: ") + balance + "(header x-user)";
    const auto one = proxy("endpoints: [$O0, $O1, $O2, $O3]" + by);
    const auto other = proxy("endpoints: [$O2, $O0, $O3, $O1]" + by);
    Client a = one->client(), b = other->client(Protocol::kHttp2);
    for (int i = 0; i < 40; ++i) {
      const Fields fields{{"x-user", "u" + std::to_string(i)}};
      const int home = ask(a, fields);
      EXPECT_EQ(ask(a, fields), home);
      EXPECT_EQ(ask(b, fields), home);
    }
  }
}

TEST_F(Balancing, ARetryOfAKeyGoesToTheSameOtherEndpoint) {
  const auto it = proxy("endpoints: [$REFUSING, $O1, $O2], balance: hash(header x-user), retry: 1");
  Client client = it->client();
  for (int i = 0; i < 30; ++i) {
    const Fields fields{{"x-user", "u" + std::to_string(i)}};
    const int home = ask(client, fields);
    EXPECT_NE(home, -1);
    EXPECT_EQ(ask(client, fields), home);
  }
}

TEST_F(Balancing, ASessionStaysWithItsEndpoint) {
  const auto it = proxy("endpoints: [$O0, $O1, $O2, $O3]", ", session: { cookie: sid, ttl: 1h }");
  std::set<int> homes;
  for (int i = 0; i < 20; ++i) {
    Client client = it->client(i % 2 == 0 ? Protocol::kHttp1 : Protocol::kHttp2);
    const Response first = client.get("/");
    EXPECT_THAT(first.fields.value("set-cookie"),
                MatchesRegex("sid=[0-9a-f]{16}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"));
    homes.insert(std::stoi(first.body));
    for (int k = 0; k < 10; ++k) {
      const Response next = client.request({.fields = {{"cookie", "x=y; " + cookie_of(first)}}});
      EXPECT_EQ(next.body, first.body);
      EXPECT_FALSE(next.fields.has("set-cookie"));
    }
  }
  EXPECT_GT(homes.size(), 1U);
}

TEST_F(Balancing, ASessionOutlivesRestartsAndChangesAndTheLossOfItsEndpoint) {
  std::string cookie, home;
  {
    const auto it = proxy("endpoints: [$O0, $O1]", ", session: { cookie: sid }");
    const Response first = it->client().get("/");
    cookie = cookie_of(first);
    home = first.body;
    EXPECT_THAT(first.fields.value("set-cookie"), Not(HasSubstr("Max-Age")));
  }
  const auto more = proxy("endpoints: [$O3, $O2, $O1, $O0]", ", session: { cookie: sid }");
  Client client = more->client();
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(client.request({.fields = {{"cookie", cookie}}}).body, home);
  const auto without = proxy("endpoints: [$O2, $O3]", ", session: { cookie: sid }");
  const Response moved = without->client().request({.fields = {{"cookie", cookie}}});
  EXPECT_EQ(moved.status, 200);
  EXPECT_NE(cookie_of(moved), cookie);
  EXPECT_NE(cookie_of(moved), "");
}

TEST_F(Balancing, ASessionStaysWithItsTargetToo) {
  Outrider it(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { a: [$O0, $O1], b: [$O2, $O3] }
    routes: [{ to: { a: 50, b: 50 }, session: { cookie: sid } }])",
              substitutions_);
  Client client = it.client();
  for (int i = 0; i < 10; ++i) {
    const Response first = client.get("/");
    for (int k = 0; k < 8; ++k)
      EXPECT_EQ(client.request({.fields = {{"cookie", cookie_of(first)}}}).body, first.body);
  }
}

TEST_F(Balancing, AnEndpointThatDrainsKeepsItsSessionsAndTakesNoOthers) {
  std::string cookie;
  {
    const auto it = proxy("endpoints: [$O0]", ", session: { cookie: sid }");
    cookie = cookie_of(it->client().get("/"));
  }
  const auto it =
      proxy("endpoints: [{ address: $O0, health: draining }, $O1]", ", session: { cookie: sid }");
  Client client = it->client();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask(client), 1);
    EXPECT_EQ(ask(client, {{"cookie", cookie}}), 0);
  }
  EXPECT_EQ(it->metric("outrider_endpoints{service='shop',state='draining'}"), 1);
  EXPECT_EQ(it->metric("outrider_endpoints{service='shop',state='healthy'}"), 1);
  EXPECT_EQ(it->metric("outrider_service_panic{service='shop'}"), 0);
  const json services = json::parse(it->admin("/services").body);
  EXPECT_EQ(services[0]["panic"], false);
  EXPECT_EQ(services[0]["endpoints"][0]["health"], "draining");
  EXPECT_EQ(services[0]["endpoints"][0]["why"], "draining: takes no new requests");
  EXPECT_EQ(services[0]["endpoints"][1]["health"], "healthy");
}

TEST_F(Balancing, ATargetThatDrainsKeepsItsSessionsAndLeavesTheRestToTheOthers) {
  std::string cookie;
  {
    const auto it = proxy("endpoints: [$O0]", ", session: { cookie: sid }");
    cookie = cookie_of(it->client().get("/"));
  }
  Outrider it(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: [{ address: $O0, health: draining }], other: [$O1] }
    routes: [{ to: { shop: 50, other: 50 }, session: { cookie: sid } }])",
              substitutions_);
  Client client = it.client();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask(client), 1);
    EXPECT_EQ(ask(client, {{"cookie", cookie}}), 0);
  }
}

TEST_F(Balancing, WhereAllDrainNoneIsHealthy) {
  const auto it =
      proxy("endpoints: [{ address: $O0, health: draining }, { address: $O1, weight: 0 }]");
  const Response response = it->client().get("/");
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, AllOf(HasSubstr("no_endpoint_healthy"), HasSubstr("draining")));
  const CommandResult explained = run_outrider({"explain", it->config_path(), "GET", "/"});
  EXPECT_THAT(explained.out, AllOf(HasSubstr("no_endpoint_healthy"), HasSubstr("weight 0")));
}

TEST_F(Balancing, TiersStandByAndZonesAreKept) {
  const auto tiers = proxy("endpoints: [$O0, { address: $O1, priority: 1 }]");
  Client to_tiers = tiers->client();
  const auto zones =
      proxy("endpoints: [{ address: $O0, zone: a }, { address: $O1, zone: b }], zone_aware: true");
  Client to_zones = zones->client();
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(ask(to_tiers), 0);
    EXPECT_EQ(ask(to_zones), 1);
  }
  const CommandResult explained = run_outrider({"explain", tiers->config_path(), "GET", "/"});
  EXPECT_THAT(explained.out, AllOf(HasSubstr("endpoints, chosen by least-request"),
                                   HasSubstr("priority 1: stands by")));
  const json services = json::parse(zones->admin("/services").body);
  EXPECT_EQ(services[0]["endpoints"][0]["why"], "zone a: stands by for the zone b");
  // The first tier refuses: the retry goes on to the next.
  const auto refusing = proxy("endpoints: [$REFUSING, { address: $O1, priority: 1 }]");
  Client to_refusing = refusing->client();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ask(to_refusing), 1);
}

}  // namespace
}  // namespace outrider::test
