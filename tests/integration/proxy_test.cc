// The first things a proxy must do, over every pair of protocols: carry a request and its answer,
// name what it refuses, count and log it, end cleanly.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

struct Pair {
  Protocol downstream;
  Protocol upstream;
};

class AnyProtocolPair : public testing::TestWithParam<Pair> {
 protected:
  // The service with the scheme that makes the upstream side speak this pair's protocol.
  static std::string service(const std::string& address) {
    return (GetParam().upstream == Protocol::kHttp2 ? "h2c://" : "http://") + address;
  }
};

constexpr char kOneService[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes: [{ name: all, to: shop }])";

TEST_P(AnyProtocolPair, CarriesARequestAndItsAnswer) {
  HttpOrigin shop = HttpOrigin::echoing();
  Outrider proxy(kOneService, {{"SHOP", service(shop.address())}});
  Client client = proxy.client(GetParam().downstream);

  const Response response = client.request({.method = "POST",
                                            .target = "/cart?item=1",
                                            .fields = {{"x-tenant", "acme"}},
                                            .body = "two apples"});

  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "two apples");
  EXPECT_EQ(response.fields.value("x-method"), "POST");
  EXPECT_EQ(response.fields.value("x-target"), "/cart?item=1");
  EXPECT_EQ(response.fields.value("x-authority"), kAuthority);
  EXPECT_EQ(shop.heads().at(0).fields.value("x-tenant"), "acme");
}

TEST_P(AnyProtocolPair, CarriesTrailersBothWays) {
  HttpOrigin shop = HttpOrigin::echoing();
  Outrider proxy(kOneService, {{"SHOP", service(shop.address())}});
  Client client = proxy.client(GetParam().downstream);

  const Response response = client.request({.method = "POST",
                                            .fields = {{"te", "trailers"}, {"trailer", "x-sum"}},
                                            .body = "body",
                                            .trailers = {{"x-sum", "4711"}}});

  EXPECT_EQ(response.body, "body");
  EXPECT_EQ(response.trailers.value("x-sum"), "4711");
}

TEST_P(AnyProtocolPair, KeepsConnectionsForTheNextRequest) {
  HttpOrigin shop = HttpOrigin::echoing();
  Outrider proxy(kOneService, {{"SHOP", service(shop.address())}}, {.workers = 1});
  Client client = proxy.client(GetParam().downstream);

  for (int i = 0; i < 20; ++i) ASSERT_EQ(client.get("/").status, 200);

  EXPECT_EQ(client.connections(), 1);
  EXPECT_EQ(shop.connections(), 1);
}

TEST_P(AnyProtocolPair, CountsAndLogsEachRequestOnce) {
  HttpOrigin shop = HttpOrigin::echoing();
  Outrider proxy(kOneService, {{"SHOP", service(shop.address())}});

  EXPECT_EQ(proxy.client(GetParam().downstream).get("/logged").status, 200);

  const auto line = proxy.log(1).at(0);
  EXPECT_EQ(line.at("path"), "/logged");
  EXPECT_EQ(line.at("status"), "200");
  EXPECT_EQ(line.at("reason"), "ok");
  EXPECT_EQ(line.at("route"), "all");
  EXPECT_EQ(proxy.await_metric("outrider_requests_total{service='shop',code='200',reason='ok'}", 1),
            1);
}

INSTANTIATE_TEST_SUITE_P(Proxy, AnyProtocolPair,
                         testing::Values(Pair{Protocol::kHttp1, Protocol::kHttp1},
                                         Pair{Protocol::kHttp1, Protocol::kHttp2},
                                         Pair{Protocol::kHttp2, Protocol::kHttp1},
                                         Pair{Protocol::kHttp2, Protocol::kHttp2}),
                         [](const auto& tested) {
                           return std::string(name_of(tested.param.downstream)) + "To" +
                                  std::string(name_of(tested.param.upstream));
                         });

TEST(Proxy, AnswersWhatNoRouteTakes) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ match: /ping, respond: { status: 200, body: "pong" } }])");
  Client client = proxy.client();

  EXPECT_EQ(client.get("/ping").body, "pong");
  const Response missing = client.get("/pong");
  EXPECT_EQ(missing.status, 404);
  EXPECT_TRUE(missing.body.starts_with("404 route_not_found: ")) << missing.body;
}

TEST(Proxy, NamesARefusedConnection) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$REFUSING" }
    routes: [{ to: shop }])");

  EXPECT_EQ(proxy.client().get("/").status, 503);
  EXPECT_EQ(proxy.log(1).at(0).at("reason"), "connect_failure");
}

TEST(Proxy, EndsWithZeroOnSigterm) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    drain: { delay: 0s }
    routes: [{ respond: 204 }])");

  EXPECT_EQ(proxy.admin("/ready").status, 200);
  EXPECT_EQ(proxy.stop(), 0);
}

}  // namespace
}  // namespace outrider::test
