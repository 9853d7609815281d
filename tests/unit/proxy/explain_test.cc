// What `explain` says of one request: the listener it takes, the decision, and where each value
// comes from.
#include "proxy/explain.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "config/load.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using Json = nlohmann::json;

constexpr char kYaml[] = R"(outrider: v1
listeners:
  first: { address: "127.0.0.1:8080", trust: [10.0.0.0/8], limits: { body: 1KiB } }
  second: { address: "127.0.0.1:8081", forwarded: false }
  moved: { address: "127.0.0.1:8082", redirect: https }
  raw: { address: "127.0.0.1:8083", protocol: tcp, to: web }
services:
  web: ["127.0.0.1:3000", "127.0.0.1:3001"]
  cart:
    endpoints:
      - { address: "127.0.0.1:4000", labels: { version: v2 } }
      - { address: "127.0.0.1:4001", labels: { version: v2 }, weight: 0 }
    subsets: { v1: { version: v1 }, v2: { version: v2 } }
    retry: 3
defaults:
  route: { timeout: { idle: 90s } }
routes:
  - { name: all, to: web }
  - { name: cart, match: "/cart/{id}/**", to: { cart@v1: 0, cart@v2: 5 }, rewrite: "/c/{id}/**" }
  - { name: none, match: /none, to: { web: 0, cart: 0 } }
  - { name: inside, match: { path: /inside, client_ip: 192.168.0.0/16 }, respond: 204 }
  - { name: only-second, listeners: [second], match: /second, respond: 200 }
  - { name: no-upgrade, match: /plain, to: web, upgrade: [] }
  - { name: groups, match: "~^/v([0-9]+)/(.*)$", to: web, rewrite: "/\\2/\\1" }
)";

struct Outcome {
  int code = 0;
  Json json;
  std::string text;
};

Outcome run(ExplainRequest request, const std::string& yaml = kYaml) {
  const config::Loaded loaded = config::load_text("t.yaml", yaml, {.extensions = filter_keys()});
  std::string problems;
  for (const config::Diagnostic& one : loaded.diagnostics) problems += config::render(one);
  Outcome outcome;
  if (loaded.config == nullptr) {
    ADD_FAILURE() << problems;
    return outcome;
  }
  request.json = true;
  outcome.code = explain(loaded.config, request, outcome.text);
  outcome.json = Json::parse(outcome.text, nullptr, false);
  return outcome;
}

bool has_field(const Json& fields, const std::string& name, const std::string& value) {
  for (const Json& field : fields)
    if (field[0] == name && field[1] == value) return true;
  return false;
}

std::string listener_for(const std::string& url, const std::string& named = {}) {
  return run({.method = "GET", .url = url, .listener = named}).json["listener"];
}

TEST(Explain, TheListenerIsNamedOrOnThePortOrTheFirstForHttp) {
  EXPECT_EQ(listener_for("http://a:8081/"), "second");
  EXPECT_EQ(listener_for("http://a:9/"), "first");
  EXPECT_EQ(listener_for("http://a/"), "first");
  EXPECT_EQ(listener_for("/"), "first");
  EXPECT_EQ(listener_for("http://a:8083/"), "raw");
  EXPECT_EQ(listener_for("http://a:8081/", "first"), "first");
}

TEST(Explain, AUrlThatIsNoneIsAUsageError) {
  for (const char* url :
       {"ftp://a/", "http://", "http://user@a/", "http:///x", "http://a/\r\nx: y"})
    EXPECT_EQ(run({.method = "GET", .url = url}).code, 64) << url;
  EXPECT_EQ(run({.method = "G T", .url = "/"}).code, 64);
  EXPECT_EQ(run({.method = "", .url = "/"}).code, 64);
  EXPECT_EQ(run({.method = "GET", .url = "/", .listener = "third"}).code, 64);
  EXPECT_EQ(run({.method = "GET", .url = "/", .client_ip = "10.0.0"}).code, 64);
}

TEST(Explain, TheRequestLeavesRewritten) {
  const Outcome outcome = run({.method = "PUT", .url = "http://Shop.example/cart/7/x/y?z=%20"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.json["route"]["name"], "cart");
  EXPECT_EQ(outcome.json["route"]["line"], 19);
  EXPECT_EQ(outcome.json["request"]["method"], "PUT");
  EXPECT_EQ(outcome.json["request"]["path"], "/c/7/x/y?z=%20");
  EXPECT_EQ(run({.method = "GET", .url = "/v2/shop"}).json["request"]["path"], "/shop/2");
}

TEST(Explain, CandidatesAreThoseOfTargetsWithWeight) {
  const Json json = run({.method = "GET", .url = "/cart/7/x"}).json;
  ASSERT_EQ(json["targets"].size(), 2U);
  EXPECT_EQ(json["targets"][0]["weight"], 0);
  ASSERT_EQ(json["endpoints"].size(), 2U);
  EXPECT_EQ(json["endpoints"][1]["address"], "127.0.0.1:4001");
  EXPECT_NE(std::string(json["endpoints"][1]["why"]).find("weight 0"), std::string::npos);
}

TEST(Explain, PolicySaysWhereItsLeavesWereWritten) {
  const Json cart = run({.method = "GET", .url = "/cart/7/x"}).json["policy"];
  EXPECT_EQ(cart["retry.attempts"], Json({{"value", 3}, {"origin", "t.yaml:14"}}));
  EXPECT_EQ(cart["timeout.idle"], Json({{"value", "1m30s"}, {"origin", "t.yaml:16"}}));
  EXPECT_EQ(cart["timeout.total"], Json({{"value", nullptr}, {"origin", "built-in"}}));
  EXPECT_EQ(cart["rewrite.path"]["value"], "/c/{id}/**");
  EXPECT_EQ(cart["body.max"], Json({{"value", "1KiB"}, {"origin", "t.yaml:3"}}));
  EXPECT_EQ(cart["retry.when"]["value"], Json({"connect-failure", "refused-stream", "reset"}));
}

TEST(Explain, GrpcHasNoTimeForHeadersUnlessWritten) {
  const Json policy =
      run({.method = "POST", .url = "/", .headers = {{"content-type", "application/grpc"}}})
          .json["policy"];
  EXPECT_EQ(policy["timeout.headers"]["value"], nullptr);
}

TEST(Explain, AllWeightsZeroIs500) {
  const Outcome outcome = run({.method = "GET", .url = "/none"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.json["response"]["status"], 500);
  EXPECT_EQ(outcome.json["request"], nullptr);
}

TEST(Explain, WithoutAnEndpointTheAnswerIs503) {
  const std::string yaml = R"(outrider: v1
listen: 127.0.0.1:8080
services:
  none: { endpoints: [] }
  some: { endpoints: [{ address: "127.0.0.1:1", weight: 0 }], subsets: { v1: { version: v1 } } }
  web: 127.0.0.1:3000
routes:
  - { match: /none, to: none }
  - { match: /some, to: some }
  - { match: /subset, to: some@v1 }
  - { match: /spill, to: { none: 9, web: 1 } }
  - { match: /fail, to: { none: 9, web: 1 }, when_empty: fail }
)";
  for (const char* path : {"/none", "/some", "/subset", "/fail"}) {
    const Outcome outcome = run({.method = "GET", .url = path}, yaml);
    EXPECT_EQ(outcome.code, 0) << path;
    EXPECT_EQ(outcome.json["response"]["status"], 503) << path;
    EXPECT_EQ(outcome.json["request"], nullptr) << path;
  }
  EXPECT_EQ(run({.method = "GET", .url = "/spill"}, yaml).json["response"], nullptr);
}

TEST(Explain, ClientAddressAndTrustDecide) {
  EXPECT_EQ(run({.method = "GET", .url = "/inside"}).json["route"]["name"], "all");
  EXPECT_EQ(
      run({.method = "GET", .url = "/inside", .client_ip = "192.168.7.7"}).json["route"]["name"],
      "inside");
  ExplainRequest forwarded{.method = "GET",
                           .url = "/inside",
                           .headers = {{"X-Forwarded-For", "192.168.7.7"}},
                           .client_ip = "10.1.2.3"};
  EXPECT_EQ(run(forwarded).json["route"]["name"], "inside");
  forwarded.client_ip = "11.1.2.3";
  EXPECT_EQ(run(forwarded).json["route"]["name"], "all");
}

TEST(Explain, RoutesOfAnotherListenerAreNotConsidered) {
  const Outcome here = run({.method = "GET", .url = "/second"});
  for (const Json& one : here.json["considered"]) EXPECT_NE(one["route"], "only-second");
  EXPECT_EQ(run({.method = "GET", .url = "http://a:8081/second"}).json["route"]["name"],
            "only-second");
}

TEST(Explain, TheListenersOwnRedirect) {
  const Outcome outcome = run({.method = "GET", .url = "http://a:8082/x?y"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.json["action"], "redirect");
  EXPECT_TRUE(has_field(outcome.json["response"]["headers"], "location", "https://a/x?y"));
  EXPECT_TRUE(outcome.json["considered"].empty());
}

TEST(Explain, RawTcpGoesToItsTargets) {
  const Outcome outcome = run({.method = "GET", .url = "/", .listener = "raw"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.json["action"], "to");
  EXPECT_EQ(outcome.json["endpoints"].size(), 2U);
  EXPECT_EQ(outcome.json["policy"].size(), 1U);
}

TEST(Explain, UpgradesGoWhereTheRouteSays) {
  const std::vector<std::pair<std::string, std::string>> ask = {
      {"Connection", "Upgrade"},
      {"Upgrade", "websocket"},
      {"Sec-WebSocket-Version", "13"},
      {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}};
  const auto fields = [&](const char* url) {
    return run({.method = "GET", .url = url, .headers = ask}).json["request"]["headers"];
  };
  EXPECT_TRUE(has_field(fields("/"), "upgrade", "websocket"));
  EXPECT_FALSE(has_field(fields("/plain"), "upgrade", "websocket"));
}

TEST(Explain, BodiesOverTheLimitAreRefused) {
  const auto status = [](const char* length) {
    return run({.method = "POST", .url = "/", .headers = {{"Content-Length", length}}})
        .json["response"];
  };
  EXPECT_EQ(status("1024"), nullptr);
  EXPECT_EQ(status("1025")["status"], 413);
}

TEST(Explain, WhatTheCodecRefusesIsRefusedHere) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"b@d", "x"},
                                                        {"content-length", "x"},
                                                        {"transfer-encoding", "xchunked"},
                                                        {"host", "a b"}}) {
    const Outcome outcome = run({.method = "GET", .url = "/", .headers = {{name, value}}});
    EXPECT_EQ(outcome.code, 3) << name;
    EXPECT_EQ(outcome.json["response"]["status"], 400) << name;
  }
}

TEST(Explain, TheTextNamesEveryDecision) {
  const config::Loaded loaded = config::load_text("t.yaml", kYaml, {.extensions = filter_keys()});
  std::string text;
  ASSERT_EQ(explain(loaded.config, {.method = "GET", .url = "/cart/7/x"}, text), 0);
  for (const char* part :
       {"listener first (127.0.0.1:8080, t.yaml:3)", "-> ", "takes it", "shadowed by cart",
        "route cart (t.yaml:19): to", "cart@v2  weight 5", "GET /c/7/x", "policy for cart@v2",
        "retry.attempts       3", "t.yaml:14", "127.0.0.1:4001"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

}  // namespace
}  // namespace outrider
