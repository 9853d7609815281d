// `limit` in the whole proxy: exact at any number of workers, and across proxies through a real
// Redis, whose loss and return nobody waits for. Limits are by the hour, so that none of their
// tokens comes back while a test runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdlib.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"
#include "tests/harness/redis.h"

namespace outrider::test {
namespace {

using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string yaml(const std::string& limit) {
  return R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$ORIGIN" }
    routes:
      - { name: free, match: /free, respond: 200 }
      - { name: buy, to: shop, limit: )" +
         limit + " }";
}

// How many of so many requests are let through, each on a connection of its own, so that every
// worker has some; the others must be told that they are too many.
int admitted(Outrider& proxy, int asked, const Fields& fields = {},
             Protocol protocol = Protocol::kHttp1) {
  int count = 0;
  for (int i = 0; i < asked; ++i) {
    Client client = proxy.client(protocol);
    const int status = client.request({.target = "/buy", .fields = fields}).status;
    EXPECT_THAT(status, AnyOf(200, 429));
    count += status == 200;
  }
  return count;
}

class RateLimits : public testing::TestWithParam<Protocol> {
 protected:
  HttpOrigin shop_ = HttpOrigin::answering({.status = 200, .body = "bought"});
  const Outrider::Substitutions origin_{{"ORIGIN", shop_.address()}};
};
INSTANTIATE_TEST_SUITE_P(Over, RateLimits, testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(RateLimits, AreExactAtAnyNumberOfWorkers) {
  Outrider proxy(yaml("20/h per client.ip"), origin_, {.workers = 4});
  EXPECT_EQ(admitted(proxy, 40, {}, GetParam()), 20);
  EXPECT_EQ(shop_.requests(), 20);
  EXPECT_EQ(proxy.client(GetParam()).get("/free").status, 200) << "other routes are not limited";
  EXPECT_EQ(proxy.metric("outrider_requests_total{route='buy',code='429',reason='rate_limited'}"),
            20);
}

TEST_P(RateLimits, TellTheClientWhatIsLeftAndWhenToComeBack) {
  Outrider proxy(yaml("2/h per client.ip"), origin_);
  Client client = proxy.client(GetParam());
  const Response first = client.get("/buy");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.fields.value("ratelimit-policy"), "\"2/h per client.ip\";q=2;w=3600");
  EXPECT_EQ(first.fields.value("ratelimit"), "\"2/h per client.ip\";r=1;t=1800");
  client.get("/buy");
  const Response refused = client.get("/buy");
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.fields.value("ratelimit"), StartsWith("\"2/h per client.ip\";r=0;t="));
  EXPECT_GT(std::stoi(refused.fields.value("retry-after")), 1000);
  EXPECT_THAT(refused.body, ContainsRegex("limit 2/h per client.ip, set at .*outrider.yaml:[0-9]"));
  EXPECT_EQ(proxy.log(3)[2].at("reason"), "rate_limited");
}

TEST_F(RateLimits, AreGrpcsResourceExhausted) {
  Outrider proxy(yaml("1/h"), origin_);
  const Request call{
      .method = "POST", .target = "/a.B/C", .fields = {{"content-type", "application/grpc"}}};
  Client client = proxy.client(Protocol::kHttp2);
  client.request(call);
  const Response refused = client.request(call);
  EXPECT_EQ(refused.status, 200);
  EXPECT_EQ(refused.fields.value("grpc-status"), "8");
  EXPECT_TRUE(refused.fields.has("retry-after"));
}

TEST_F(RateLimits, ObservedRefuseNobody) {
  Outrider proxy(yaml("{ rate: 2/h, mode: observe }"), origin_);
  EXPECT_EQ(admitted(proxy, 5), 5);
  EXPECT_EQ(proxy.metric("outrider_observed_total{route='buy',policy='limit'}"), 3);
}

TEST_F(RateLimits, KeysAreWithoutNumberAndMemoryIsNot) {
  Outrider proxy(yaml("1/h per header x-key"), origin_);
  Client client = proxy.client();
  for (int i = 0; i < 2000; ++i) {
    const std::string key = std::to_string(i % 1000);
    const Response response = client.request({.target = "/buy", .fields = {{"x-key", key}}});
    ASSERT_EQ(response.status, i < 1000 ? 200 : 429) << i;
  }
}

// ---- shared

class SharedLimits : public RateLimits {
 protected:
  void SetUp() override {
    if (!RedisServer::available()) GTEST_SKIP() << "no redis-server; scripts/setup tests has it";
  }
  // Patient, so that a busy machine is not taken for a Redis that is away.
  static std::string shared(const std::string& rate, const std::string& url) {
    return "{ rate: " + rate + ", per: header x-who, shared: \"" + url + "?timeout=20s\" }";
  }
  static std::string url(const RedisServer& redis) { return "redis+unix://" + redis.socket(); }
  static Fields who(const char* name) { return {{"x-who", name}}; }
  static double decided(Outrider& proxy, const char* by) {
    return proxy.metric(std::string("outrider_shared_limit_total{route='buy',decided_by='") + by +
                        "'}");
  }
  static void await_connections(Outrider& proxy, int count) {
    EXPECT_EQ(proxy.await_metric("outrider_shared_limit_connections", count), count);
  }
  static std::size_t count(const std::string& text, const std::string& of) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(of, at)) != std::string::npos; ++at) ++found;
    return found;
  }
};

TEST_F(SharedLimits, TwoProxiesAdmitNoMoreThanOneWould) {
  RedisServer redis;
  const std::string config = yaml(shared("20/h", "redis://" + redis.address() + "/3"));
  Outrider one(config, origin_, {.workers = 1}), two(config, origin_, {.workers = 1});
  await_connections(one, 1);
  await_connections(two, 1);
  int sum = 0;
  for (int i = 0; i < 15; ++i) sum += admitted(one, 1, who("a")) + admitted(two, 1, who("a"));
  EXPECT_EQ(sum, 20);
  EXPECT_EQ(decided(one, "store") + decided(two, "store"), 30) << "none was decided alone";
  EXPECT_EQ(admitted(two, 25, who("b")), 20);
  EXPECT_EQ(admitted(one, 5, who("b")), 0);
  const Response refused = one.client().request({.target = "/buy", .fields = who("b")});
  EXPECT_THAT(refused.fields.value("ratelimit"), StartsWith("\"20/h per header x-who\";r=0;t="));
  EXPECT_GT(std::stoi(refused.fields.value("retry-after")), 60);
  EXPECT_EQ(one.client().get("/buy").fields.value("ratelimit"),
            "\"20/h per header x-who\";r=19;t=180");
}

TEST_F(SharedLimits, KeysInRedisSayNothingAndEnd) {
  RedisServer redis;
  Outrider proxy(yaml(shared("5/h", url(redis))), origin_, {.workers = 1});
  await_connections(proxy, 1);
  EXPECT_EQ(admitted(proxy, 1, who("alice@example.com")), 1);
  const std::string keys = redis.command("KEYS *");
  EXPECT_THAT(keys, StartsWith("outrider:limit:"));
  EXPECT_EQ(keys.size(), std::string("outrider:limit:").size() + 33);
  const std::string name = keys.substr(0, keys.size() - 1);
  EXPECT_GT(std::stol(redis.command("TTL " + name).substr(1)), 600);
  EXPECT_THAT(redis.command("GET " + name), Not(HasSubstr("alice")));
}

TEST_F(SharedLimits, OfARedisThatIsKilledTheProxyDecidesAloneUntilItIsBack) {
  RedisServer redis;
  const std::string config = yaml(shared("10/h", url(redis)));
  Outrider one(config, origin_), two(config, origin_);
  await_connections(one, 2);
  await_connections(two, 2);
  EXPECT_EQ(admitted(one, 4, who("a")), 4);
  EXPECT_EQ(one.admin("/ready").body, "ready\n");

  redis.kill();
  for (Outrider* proxy : {&one, &two}) {
    await_connections(*proxy, 0);
    proxy->await_error("is away");
    const Response ready = proxy->admin("/ready");
    EXPECT_EQ(ready.status, 200);
    EXPECT_THAT(ready.body, HasSubstr("shared limits hold for this proxy alone"));
  }
  EXPECT_EQ(admitted(one, 20, who("a")), 6) << "what it had let through counts";
  EXPECT_EQ(admitted(two, 20, who("a")), 10);
  EXPECT_GT(decided(two, "proxy"), 0);

  redis.start();
  for (Outrider* proxy : {&one, &two}) {
    await_connections(*proxy, 2);
    proxy->await_error("answers again");
    EXPECT_EQ(proxy->admin("/ready").body, "ready\n");
    EXPECT_EQ(count(proxy->errors(), "is away"), 1U) << "said once, not by every worker";
  }
  EXPECT_EQ(admitted(one, 7, who("b")) + admitted(two, 7, who("b")), 10);
}

TEST_F(SharedLimits, AScriptThatWasFlushedIsLoadedAgain) {
  RedisServer redis;
  Outrider proxy(yaml(shared("10/h", url(redis))), origin_, {.workers = 1});
  await_connections(proxy, 1);
  EXPECT_EQ(admitted(proxy, 1, who("a")), 1);
  redis.command("SCRIPT FLUSH");
  EXPECT_EQ(admitted(proxy, 2, who("a")), 2);
  EXPECT_EQ(decided(proxy, "proxy"), 1);
  EXPECT_EQ(decided(proxy, "store"), 2);
}

TEST_F(SharedLimits, APasswordFromTheEnvironment) {
  RedisServer redis({"--requirepass", "open@sesame"});
  ASSERT_EQ(::setenv("OUTRIDER_TEST_REDIS_PASSWORD", "open@sesame", 1), 0);
  const std::string place = "@" + redis.address() + "/2";
  Outrider good(yaml(shared("3/h", "redis://:${OUTRIDER_TEST_REDIS_PASSWORD}" + place)), origin_);
  await_connections(good, 2);
  EXPECT_EQ(admitted(good, 4, who("a")), 3);
  EXPECT_GT(decided(good, "store"), 0);
  EXPECT_THAT(good.admin("/config").body, Not(HasSubstr("sesame")));
  Outrider bad(yaml(shared("3/h", "redis://:guess" + place)), origin_);
  bad.await_error("is away (WRONGPASS");
  EXPECT_EQ(admitted(bad, 4, who("a")), 3);
  EXPECT_EQ(decided(bad, "store"), 0);
  EXPECT_THAT(bad.errors(), Not(HasSubstr("guess")));
}

TEST_F(SharedLimits, AStoppedRedisIsWaitedForOnce) {
  RedisServer redis;
  const std::string limit = "{ rate: 10/h, shared: \"" + url(redis) + "?timeout=1s\" }";
  Outrider proxy(yaml(limit), origin_, {.workers = 1});
  await_connections(proxy, 1);
  redis.signal(SIGSTOP);
  EXPECT_EQ(admitted(proxy, 30), 10);
  proxy.await_error("is away (no answer in time)");
  EXPECT_EQ(proxy.metric("outrider_shared_limit_connections"), 0);
  redis.signal(SIGCONT);
  await_connections(proxy, 1);
}

// What looks like a Redis and is none: they greet as one does, and then say something else.

TEST(FalseStores, AreNotBelieved) {
  HttpOrigin shop = HttpOrigin::answering({.status = 200});
  const std::string sha = "$40\r\n" + std::string(40, 'a') + "\r\n";
  const std::vector<std::string> lies{"HTTP/1.1 400 Bad Request\r\n\r\n",
                                      "-LOADING in memory\r\n",
                                      "*2\r\n:1\r\n:-5\r\n",
                                      "*2\r\n:1\r\n:9223372036854775807\r\n",
                                      "*1000000000\r\n",
                                      "$999999999\r\n",
                                      "+OK\r\n+OK\r\n+OK\r\n",
                                      ":1\r\n",
                                      std::string(100'000, ':'),
                                      ""};
  for (const std::string& lie : lies) {
    Origin liar([&](RawClient& connection, int) {
      char bytes[4096];
      if (connection.socket().receive(bytes, sizeof bytes) == 0) return;  // the script
      connection.socket().send(sha);
      if (connection.socket().receive(bytes, sizeof bytes) == 0) return;  // a question, or PING
      connection.socket().send(lie);
    });
    const std::string limit =
        "{ rate: 5/h, shared: \"redis://" + liar.address() + "?timeout=20s\" }";
    Outrider proxy(yaml(limit), {{"ORIGIN", shop.address()}}, {.workers = 1});
    liar.wait_connections(1);
    EXPECT_EQ(admitted(proxy, 8), 5) << lie.substr(0, 40);
    proxy.await_error("is away");
  }
}

TEST(FalseStores, NobodyWaitsForOneThatIsNotThere) {
  HttpOrigin shop = HttpOrigin::answering({.status = 200});
  Blackhole nowhere;
  for (const std::string& place : {std::string("$REFUSING"), nowhere.address()}) {
    Outrider proxy(yaml("{ rate: 5/h, shared: \"redis://" + place + "?timeout=1h\" }"),
                   {{"ORIGIN", shop.address()}});
    EXPECT_EQ(admitted(proxy, 8), 5);
    proxy.await_error("is away");
  }
}

}  // namespace
}  // namespace outrider::test
