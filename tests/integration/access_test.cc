// Who may: browsers' CORS, address rules, passwords, keys; and faults on purpose. docs/access.md
// tells of the same file that runs here.
#include <gtest/gtest.h>
#include <algorithm>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

constexpr char kPage[] = "https://app.example";
constexpr char kAnn[] = "Basic YW5uOm9wZW5zZXNhbWU=";  // ann:opensesame

std::string example(const std::string& name) {
  std::ifstream file(std::filesystem::path(OUTRIDER_SOURCE_DIR) / "docs/examples" / name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

Outrider::Options with_files(int workers = 2) {
  return {.workers = workers,
          .files = {{"access.users", example("access.users")},
                    {"access.keys", example("access.keys")}}};
}

// docs/examples/access.yaml, before an origin that answers everything.
class AccessExample : public ::testing::TestWithParam<Protocol> {
 protected:
  Client client() { return proxy_.client(GetParam()); }
  HttpOrigin origin_ =
      HttpOrigin::answering({.status = 200,
                             .fields = {{"access-control-allow-origin", "*"}, {"x-total", "1"}},
                             .body = "hello"});
  Outrider proxy_{replaced(replaced(example("access.yaml"), "127.0.0.1:8080", "127.0.0.1:0"),
                           "shop: 3000", "shop: " + origin_.address()),
                  {},
                  with_files()};
};

INSTANTIATE_TEST_SUITE_P(Protocols, AccessExample,
                         ::testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(AccessExample, APageAsksAndThenSends) {
  Client browser = client();
  // The route takes GET and PUT alone, and the preflight carries no key.
  const Response preflight =
      browser.request({.method = "OPTIONS",
                       .target = "/api/cart",
                       .fields = {{"origin", kPage},
                                  {"access-control-request-method", "PUT"},
                                  {"access-control-request-headers", "content-type,x-api-key"}}});
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.body, "");
  EXPECT_FALSE(preflight.fields.has("content-length"));
  EXPECT_FALSE(preflight.fields.has("content-type"));
  EXPECT_EQ(preflight.fields.value("access-control-allow-origin"), kPage);
  EXPECT_EQ(preflight.fields.value("access-control-allow-credentials"), "true");
  EXPECT_EQ(preflight.fields.value("access-control-allow-headers"), "content-type,x-api-key");
  EXPECT_EQ(preflight.fields.value("vary"), "Origin");
  EXPECT_EQ(origin_.requests(), 0);

  const Response sent =
      browser.request({.method = "PUT",
                       .target = "/api/cart",
                       .fields = {{"origin", kPage}, {"x-api-key", "sekrit-key-1"}},
                       .body = "{}"});
  EXPECT_EQ(sent.status, 200);
  EXPECT_EQ(sent.fields.count("access-control-allow-origin"), 1U);
  EXPECT_EQ(sent.fields.value("access-control-allow-origin"), kPage);
  EXPECT_EQ(sent.fields.value("access-control-expose-headers"), "x-total");
  EXPECT_FALSE(origin_.heads().at(0).fields.has("x-api-key"));

  // Without a key the page must be able to read the 401.
  const Response refused = browser.request({.target = "/api/cart", .fields = {{"origin", kPage}}});
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.fields.value("access-control-allow-origin"), kPage);
  EXPECT_EQ(refused.fields.value("www-authenticate"), "ApiKey");

  const auto lines = proxy_.log(3);
  EXPECT_EQ(lines[0].at("reason"), "ok");
  EXPECT_EQ(lines[0].at("route"), "api");
  EXPECT_EQ(lines[1].at("client_id"), "till");
  EXPECT_EQ(lines[2].at("reason"), "unauthenticated");
  EXPECT_EQ(lines[2].at("client_id"), "");
}

TEST_P(AccessExample, AForeignPageLearnsNothing) {
  Client browser = client();
  const Response preflight = browser.request(
      {.method = "OPTIONS",
       .target = "/api/cart",
       .fields = {{"origin", "https://evil.example"}, {"access-control-request-method", "PUT"}}});
  EXPECT_EQ(preflight.status, 403);
  EXPECT_FALSE(preflight.fields.has("access-control-allow-origin"));
  const Response got = browser.request(
      {.target = "/api/cart",
       .fields = {{"origin", "https://evil.example"}, {"x-api-key", "sekrit-key-2"}}});
  EXPECT_EQ(got.status, 200);
  EXPECT_FALSE(got.fields.has("access-control-allow-origin"));
  EXPECT_EQ(got.fields.value("vary"), "Origin");
}

TEST_P(AccessExample, OnlyPreflightsOfARouteWithCorsAreAnswered) {
  // `rest` has none: the service answers, and its route is `rest` although `/api/` knows no
  // OPTIONS.
  Client browser = client();
  const Response other =
      browser.request({.method = "OPTIONS",
                       .target = "/elsewhere",
                       .fields = {{"origin", kPage}, {"access-control-request-method", "PUT"}}});
  EXPECT_EQ(other.status, 200);
  EXPECT_EQ(browser.request({.method = "OPTIONS", .target = "/api/cart"}).status, 200);
  EXPECT_EQ(proxy_.log(2)[1].at("route"), "rest");
}

TEST_P(AccessExample, ANameAndPasswordOpenTheAdmin) {
  Client person = client();
  EXPECT_EQ(person.get("/admin/").status, 401);
  const Response in = person.request({.target = "/admin/", .fields = {{"authorization", kAnn}}});
  EXPECT_EQ(in.status, 200);
  EXPECT_FALSE(origin_.heads().at(0).fields.has("authorization"));
  EXPECT_EQ(
      person.request({.target = "/admin/", .fields = {{"authorization", "Basic YW5uOndyb25n"}}})
          .status,
      401);
  const Response denied = person.request(
      {.method = "DELETE", .target = "/admin/audit/1", .fields = {{"authorization", kAnn}}});
  EXPECT_EQ(denied.status, 403);
  EXPECT_NE(denied.body.find("`deny` at "), std::string::npos) << denied.body;
  EXPECT_EQ(person.request({.target = "/admin/old/1", .fields = {{"authorization", kAnn}}}).status,
            200);
  const auto lines = proxy_.log(5);
  EXPECT_EQ(lines[0].at("reason"), "unauthenticated");
  EXPECT_EQ(lines[1].at("client_id"), "ann");
  EXPECT_EQ(lines[3].at("reason"), "denied");
  EXPECT_EQ(proxy_.await_metric("outrider_observed_total{route='admin',policy='deny'}", 1), 1);
  proxy_.await_error("would be denied: `deny` at ");
}

TEST_P(AccessExample, APathOfTwoReadingsIsRefusedWhereRulesStand) {
  Client person = client();
  for (const char* path : {"/admin/x%2fy", "/admin/x%5Cy", "/api/x%2Fy"})
    EXPECT_EQ(person.request({.target = path, .fields = {{"origin", kPage}}}).status, 400) << path;
  EXPECT_EQ(person.get("/else/x%2fy").status, 200);
}

TEST(Access, TheClientIsTheOneAfterTrust) {
  const HttpOrigin origin = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listeners: { main: { address: "127.0.0.1:0", trust: [127.0.0.0/8] } }
    services: { shop: $ORIGIN }
    routes: [{ to: shop, allow: 10.0.0.0/8 }])",
                 {{"ORIGIN", origin.address()}});
  Client client = proxy.client();
  EXPECT_EQ(client.get("/").status, 403);
  EXPECT_EQ(client.request({.fields = {{"x-forwarded-for", "10.0.0.1"}}}).status, 200);
  EXPECT_EQ(client.request({.fields = {{"x-forwarded-for", "10.0.0.1, 11.0.0.1"}}}).status, 403);
}

TEST(Access, AnErrorOfOursIsReadableForThePage) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $REFUSING }
    routes: [{ to: shop, cors: { origins: ["https://app.example"] } }])");
  const Response failed = proxy.client().request({.fields = {{"origin", kPage}}});
  EXPECT_EQ(failed.status, 503);
  EXPECT_EQ(failed.fields.value("access-control-allow-origin"), kPage);
}

TEST(Access, AKeyInTheQueryReachesNeitherServiceNorLog) {
  const HttpOrigin origin = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes: [{ to: shop, api_key: { from: query key, keys: access.keys } }])",
                 {{"ORIGIN", origin.address()}}, with_files());
  Client client = proxy.client();
  EXPECT_EQ(client.get("/a?x=1&key=sekrit-key-1&y=2").status, 200);
  EXPECT_EQ(client.get("/a?key=sekrit-key-3").status, 401);
  EXPECT_EQ(origin.heads().at(0).target, "/a?x=1&y=2");
  const auto lines = proxy.log(2);
  EXPECT_EQ(lines[0].at("path"), "/a?x=1&y=2");
  EXPECT_EQ(lines[1].at("path"), "/a");
}

// One worker, and passwords that take it a quarter of a second each.
TEST(Access, CheckingPasswordsHoldsNobodyUp) {
  const HttpOrigin origin = HttpOrigin::answering({.status = 200});
  Outrider::Options options = with_files(1);
  options.files["access.users"] = "ann:$2y$12$abcdefghijklmnopqrstuu" + std::string(31, 'a') + "\n";
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes:
    - { match: /login, to: shop, basic: { users: access.users } }
    - { to: shop })",
                 {{"ORIGIN", origin.address()}}, options);
  constexpr int kLogins = 8;
  std::vector<RawClient> logins;
  for (int i = 0; i < kLogins; ++i) {
    logins.push_back(proxy.raw());
    // ann:0 … ann:7
    logins.back().send("GET /login HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YW5uOj" +
                       std::string(1, "ABCDEFGH"[i]) + "=\r\n\r\n");
  }
  EXPECT_EQ(proxy.client().get("/free").status, 200);
  // A client that leaves while its password is checked.
  logins.front().close();
  for (int i = 1; i < kLogins; ++i)
    EXPECT_EQ(logins[static_cast<std::size_t>(i)].read_response().status, 401);
  const auto lines = proxy.log(kLogins + 1);
  std::size_t free = lines.size();
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (lines[i].at("path") == "/free") free = i;
  EXPECT_LT(free, lines.size() - 1) << "answered before the last login";
}

TEST(Faults, AnAbortIsCountedAndNamed) {
  const HttpOrigin origin = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes:
    - { name: web, match: /web, to: shop, fault: { abort: 503, headers: { x-fault: "" } } }
    - { name: rpc, match: /rpc, to: shop, fault: { abort: "grpc:resource-exhausted" } }
    - { name: tried, match: /tried, to: shop, fault: { abort: 503, mode: observe } })",
                 {{"ORIGIN", origin.address()}});
  Client client = proxy.client();
  EXPECT_EQ(client.get("/web").status, 200);
  EXPECT_EQ(client.request({.target = "/web", .fields = {{"x-fault", "1"}}}).status, 503);
  EXPECT_EQ(client.get("/rpc").status, 200);
  const Response rpc = proxy.client(Protocol::kHttp2)
                           .request({.method = "POST",
                                     .target = "/rpc",
                                     .fields = {{"content-type", "application/grpc"}}});
  EXPECT_EQ(rpc.status, 200);
  EXPECT_EQ(rpc.fields.value("grpc-status"), "8");
  EXPECT_EQ(client.get("/tried").status, 200);
  EXPECT_EQ(origin.requests(), 3);
  const auto lines = proxy.log(5);
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const auto& line) { return line.at("reason") == "fault_abort"; }),
            2);
  EXPECT_EQ(proxy.await_metric("outrider_faults_total{route='web',kind='abort'}", 1), 1);
  EXPECT_EQ(proxy.await_metric("outrider_faults_total{route='rpc',kind='abort'}", 1), 1);
  EXPECT_EQ(proxy.await_metric("outrider_observed_total{route='tried',policy='fault'}", 1), 1);
}

TEST(Faults, ADelayRunsWithinTheTotal) {
  const HttpOrigin origin = HttpOrigin::answering({.status = 200});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes:
    - { match: /slow, to: shop, fault: { delay: 100ms } }
    - { match: /cut, to: shop, timeout: 100ms, fault: { delay: 1h, abort: 418 } })",
                 {{"ORIGIN", origin.address()}});
  Client client = proxy.client();
  EXPECT_EQ(client.post("/slow", "a body that waits").status, 200);
  EXPECT_EQ(client.get("/cut").status, 504);
  const auto lines = proxy.log(2);
  EXPECT_GE(std::stod(lines[0].at("duration_ms")), 100);
  EXPECT_EQ(lines[1].at("reason"), "timeout_total");
  EXPECT_EQ(origin.requests(), 1);
}

TEST(Access, ExplainDecidesTheSame) {
  const std::string file = std::string(OUTRIDER_SOURCE_DIR) + "/docs/examples/access.yaml";
  const auto explain = [&](std::vector<std::string> rest) {
    rest.insert(rest.begin(), {"explain", file});
    return run_outrider(rest).out;
  };
  EXPECT_NE(explain({"GET", "http://localhost:8080/admin/old/x", "-H",
                     std::string("authorization: ") + kAnn})
                .find("would be denied: `deny` at "),
            std::string::npos);
  EXPECT_NE(explain({"GET", "http://localhost:8080/admin/", "--client-ip", "192.0.2.1"})
                .find("403 Forbidden (denied)"),
            std::string::npos);
  EXPECT_NE(explain({"GET", "http://localhost:8080/admin/a%2fb"}).find("400 Bad Request"),
            std::string::npos);
  const std::string preflight =
      explain({"OPTIONS", "http://localhost:8080/api/x", "-H", "origin: https://app.example", "-H",
               "access-control-request-method: PUT"});
  EXPECT_NE(preflight.find("204 No Content"), std::string::npos) << preflight;
  EXPECT_NE(preflight.find("->  api"), std::string::npos) << preflight;
}

// A value that is longer than regexes see is denied and not allowed, whatever stands in it.
TEST(AccessRules, PaddingIsNoWayAround) {
  HttpOrigin origin = HttpOrigin::answering({.status = 200, .body = "x"});
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes:
    - { match: /denied, to: shop, deny: [{ headers: { user-agent: "~badbot" } }] }
    - { match: /allowed, to: shop, allow: [{ headers: { x-kind: "!~evil" } }] })",
                 {{"ORIGIN", origin.address()}});
  const auto status = [&](const char* target, const char* name, const std::string& value) {
    return proxy.client().request({.target = target, .fields = {{name, value}}}).status;
  };
  const std::string padding(9'000, 'a');
  EXPECT_EQ(status("/denied", "user-agent", "good"), 200);
  EXPECT_EQ(status("/denied", "user-agent", "badbot"), 403);
  EXPECT_EQ(status("/denied", "user-agent", padding + "badbot"), 403);
  EXPECT_EQ(status("/allowed", "x-kind", "good"), 200);
  EXPECT_EQ(status("/allowed", "x-kind", "evil"), 403);
  EXPECT_EQ(status("/allowed", "x-kind", padding + "evil"), 403);
}

// Whoever refuses the request, and wherever it was going.
TEST(ApiKeys, OfTheQueryAreInNoLog) {
  HttpOrigin origin = HttpOrigin::answering({.status = 200, .body = "x"});
  const std::filesystem::path keys =
      std::filesystem::path(OUTRIDER_SOURCE_DIR) / "docs/examples/access.keys";
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: $ORIGIN }
    routes:
    - { match: /denied, to: shop, deny: 127.0.0.1, api_key: { from: query k, keys: $KEYS } }
    - { match: /wrong, to: shop, api_key: { from: query k, keys: $KEYS, forward: true } }
    - { match: /other, to: shop })",
                 {{"ORIGIN", origin.address()}, {"KEYS", keys.string()}});
  Client client = proxy.client();
  for (const char* target : {"/denied?a=1&k=TOPSECRET", "/wrong?k=TOPSECRET&b",
                             "/other?k=TOPSECRET", "/nowhere?x=&k=TOPSECRET#"})
    client.get(target);
  std::string all = proxy.errors();
  for (const auto& line : proxy.log(4)) all += line.at("path") + '\n';
  EXPECT_EQ(all.find("TOPSECRET"), std::string::npos) << all;
  EXPECT_NE(all.find("a=1&k=-"), std::string::npos) << all;
  EXPECT_NE(all.find("k=-&b"), std::string::npos) << all;
}

}  // namespace
}  // namespace outrider::test
