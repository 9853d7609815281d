// What operators and clients are told: the access log in each of its forms, metrics, the bodies of
// errors. Invariant: one line per request, every line one valid record whatever was sent, no secret
// anywhere, no series by what a client sends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

// ---- access log

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// The file's lines once it has so many: it is written behind the answer.
std::vector<std::string> await_lines(const std::string& path, std::size_t count) {
  const auto deadline = std::chrono::steady_clock::now() + patience();
  std::vector<std::string> lines;
  while ((lines = lines_of(path)).size() < count && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(5ms);
  return lines;
}

std::string logging(const std::string& access_log) {
  return R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      near: { address: 127.0.0.1:0, trust: [127.0.0.0/8] }
    services: { shop: "$SHOP", gone: { endpoints: ["$REFUSING"], retry: false } }
    routes:
      - { name: hello, match: /hello, respond: { status: 200, body: hello } }
      - { name: buy, match: /shop/**, to: shop }
      - { name: lost, match: /gone, to: gone }
    telemetry: { access_log: )" +
         access_log + R"(, metrics: { address: "127.0.0.1:0" } })";
}

class AccessLog : public testing::Test {
 protected:
  HttpOrigin shop_ = HttpOrigin::echoing();
  const Outrider::Substitutions substitutions_{{"SHOP", shop_.address()}};
};

TEST_F(AccessLog, HasEveryFieldOfEveryRequest) {
  Outrider proxy(logging("{ file: access.log }"), substitutions_);
  const std::string path = proxy.folder().path() + "/access.log";
  const Response response = proxy.client(Protocol::kHttp1, "near")
                                .request({.method = "POST",
                                          .target = "/shop/cart?item=1",
                                          .authority = "Shop.Test:81",
                                          .fields = {{"user-agent", "me/1"},
                                                     {"x-request-id", "abc-123"},
                                                     {"x-forwarded-for", "203.0.113.9"}},
                                          .body = "two apples"});
  EXPECT_EQ(response.body, "two apples");
  const json line = json::parse(await_lines(path, 1).at(0));

  std::set<std::string> keys;
  for (const auto& [key, value] : line.items()) keys.insert(key);
  EXPECT_EQ(keys,
            (std::set<std::string>{
                "time",       "listener", "client",     "client_id", "method",      "host",
                "path",       "protocol", "status",     "reason",    "route",       "service",
                "endpoint",   "attempts", "bytes_in",   "bytes_out", "duration_ms", "upstream_ms",
                "request_id", "trace_id", "user_agent", "tls"}));
  EXPECT_THAT(line["time"].get<std::string>(),
              MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z"));
  EXPECT_EQ(line["listener"], "near");
  EXPECT_EQ(line["client"], "203.0.113.9");
  EXPECT_TRUE(line["client_id"].is_null());
  EXPECT_EQ(line["method"], "POST");
  EXPECT_EQ(line["host"], "shop.test");
  EXPECT_EQ(line["path"], "/shop/cart?item=1");
  EXPECT_EQ(line["protocol"], "HTTP/1.1");
  EXPECT_EQ(line["status"], 200);
  EXPECT_EQ(line["reason"], "ok");
  EXPECT_EQ(line["route"], "buy");
  EXPECT_EQ(line["service"], "shop");
  EXPECT_EQ(line["endpoint"], shop_.address());
  EXPECT_EQ(line["attempts"], 1);
  EXPECT_EQ(line["bytes_in"], 10);
  EXPECT_EQ(line["bytes_out"], 10);
  EXPECT_TRUE(line["duration_ms"].is_number());
  EXPECT_TRUE(line["upstream_ms"].is_number());
  EXPECT_GE(line["duration_ms"].get<double>(), line["upstream_ms"].get<double>());
  EXPECT_EQ(line["request_id"], "abc-123");
  EXPECT_EQ(line["user_agent"], "me/1");
  EXPECT_TRUE(line["tls"].is_null());
}

TEST_F(AccessLog, HasOneLineForEachRequestAlsoForThoseThatFail) {
  Outrider proxy(logging("json"), substitutions_);
  Client h2 = proxy.client(Protocol::kHttp2);
  EXPECT_EQ(h2.get("/hello").status, 200);
  EXPECT_EQ(h2.get("/nowhere").status, 404);
  EXPECT_EQ(h2.get("/gone").status, 503);
  RawClient bad = proxy.raw();
  bad.send("GET /bad path HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(bad.read_response().status, 400);

  const auto lines = proxy.log(4);
  ASSERT_EQ(lines.size(), 4U);
  const auto of = [&](const std::string& reason) {
    for (auto line : lines)
      if (line.at("reason") == reason) return line;
    ADD_FAILURE() << "no line with " << reason;
    return lines.front();
  };
  EXPECT_EQ(of("ok").at("protocol"), "HTTP/2");
  EXPECT_EQ(of("ok").at("service"), "");
  EXPECT_EQ(of("ok").at("endpoint"), "");
  EXPECT_EQ(of("ok").at("bytes_out"), "5");
  EXPECT_EQ(of("route_not_found").at("route"), "");
  EXPECT_EQ(of("route_not_found").at("status"), "404");
  EXPECT_EQ(of("connect_failure").at("route"), "lost");
  EXPECT_EQ(of("connect_failure").at("attempts"), "1");
  EXPECT_EQ(of("bad_request").at("status"), "400");
  EXPECT_NE(of("ok").at("request_id"), "");
}

TEST_F(AccessLog, EscapesAndCutsWhatClientsSend) {
  Outrider proxy(logging("{ file: access.log }"), substitutions_);
  const std::string path = proxy.folder().path() + "/access.log";
  const std::vector<std::string> agents = {"quote\" back\\slash",
                                           "tab\there",
                                           "broken \xff\xfe utf-8",
                                           "sound \xc3\xa9",
                                           "\"}\", \"reason\": \"forged",
                                           std::string(5000, 'a'),
                                           "\xc2\x9b"
                                           "31m"};
  Client client = proxy.client();
  for (const std::string& agent : agents)
    EXPECT_EQ(
        client.request({.target = "/hello?q=%22%0a", .fields = {{"user-agent", agent}}}).status,
        200);
  const auto lines = await_lines(path, agents.size());
  ASSERT_EQ(lines.size(), agents.size());
  for (std::size_t i = 0; i < agents.size(); ++i) {
    const json line = json::parse(lines[i], nullptr, false);
    ASSERT_TRUE(line.is_object()) << lines[i];
    EXPECT_EQ(line["reason"], "ok");
    EXPECT_EQ(line["path"], "/hello?q=%22%0a");
    for (const char c : lines[i]) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << lines[i];
  }
  const auto agent = [&](std::size_t i) { return json::parse(lines[i])["user_agent"]; };
  EXPECT_EQ(agent(0), agents[0]);
  EXPECT_EQ(agent(1), agents[1]);
  EXPECT_EQ(agent(3), agents[3]);
  EXPECT_EQ(agent(4), agents[4]);
  EXPECT_EQ(agent(5), std::string(1024, 'a'));
}

TEST_F(AccessLog, TextIsTheCombinedFormatPlusReason) {
  Outrider proxy(logging("text"), substitutions_);
  proxy.client().request({.target = "/hello?x=1",
                          .fields = {{"referer", "http://ref.test/"}, {"user-agent", "a \"b\""}}});
  proxy.log(1);  // the order of lines is that of one worker alone
  proxy.client(Protocol::kHttp2).get("/nowhere");
  const auto lines = proxy.log(2);
  EXPECT_THAT(lines.at(0).at("line"),
              MatchesRegex("127\\.0\\.0\\.1 - - \\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8} "
                           "\\+0000\\] \"GET /hello\\?x=1 HTTP/1\\.1\" 200 5 "
                           "\"http://ref\\.test/\" \"a \\\\\"b\\\\\"\" ok"));
  EXPECT_THAT(lines.at(1).at("line"),
              MatchesRegex(".* \"GET /nowhere HTTP/2\" 404 [0-9]+ \"-\" \"-\" route_not_found"));
}

TEST_F(AccessLog, AFormatHoldsWhatItNames) {
  Outrider proxy(
      logging("{ format: '%{method} %{path} %{status} %{reason} %{route} <%{header x-a}> "
              "<%{query q}> %{client.ip} %%{literal} <%{service}>' }"),
      substitutions_);
  proxy.client().request({.target = "/hello?q=7", .fields = {{"x-a", "1"}}});
  EXPECT_EQ(proxy.log(1).at(0).at("line"),
            "GET /hello?q=7 200 ok hello <1> <7> 127.0.0.1 %{literal} <>");
}

TEST_F(AccessLog, SecretsAreInNoForm) {
  for (const std::string form :
       {"json", "text",
        "{ format: '%{path} [%{header authorization}] [%{header cookie}] [%{cookie sid}] "
        "[%{header proxy-authorization}]' }"}) {
    Outrider proxy(logging(form), substitutions_);
    Client client = proxy.client();
    for (const char* path : {"/shop/a", "/nowhere", "/gone"})
      client.request({.target = path,
                      .fields = {{"authorization", "Bearer s3cret"},
                                 {"proxy-authorization", "Basic s3cret"},
                                 {"cookie", "sid=s3cret"}}});
    for (const auto& line : proxy.log(3))
      for (const auto& [key, value] : line) EXPECT_THAT(value, Not(HasSubstr("s3cret"))) << form;
    EXPECT_THAT(proxy.errors(), Not(HasSubstr("s3cret")));
    EXPECT_THAT(proxy.admin("/metrics").body, Not(HasSubstr("s3cret")));
  }
}

TEST_F(AccessLog, OffMeansNothing) {
  Outrider proxy(logging("false"), substitutions_);
  EXPECT_EQ(proxy.client().get("/hello").status, 200);
  EXPECT_EQ(proxy.await_metric("outrider_requests_total{route='hello'}", 1), 1);
  EXPECT_EQ(proxy.stop(SIGINT), 0);
  EXPECT_TRUE(proxy.log(0).empty());
}

TEST_F(AccessLog, Sigusr1OpensTheFileAgain) {
  Outrider proxy(logging("{ file: access.log, format: '%{path}' }"), substitutions_);
  const std::string path = proxy.folder().path() + "/access.log";
  Client client = proxy.client();
  client.get("/hello?1");
  EXPECT_EQ(await_lines(path, 1), std::vector<std::string>{"/hello?1"});
  const auto mode = std::filesystem::status(path).permissions();
  EXPECT_EQ(mode & (std::filesystem::perms::group_all | std::filesystem::perms::others_all),
            std::filesystem::perms::none);

  std::filesystem::rename(path, path + ".1");
  proxy.signal(SIGUSR1);
  const auto deadline = std::chrono::steady_clock::now() + patience();
  while (!std::filesystem::exists(path) && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(5ms);
  client.get("/hello?2");
  EXPECT_EQ(await_lines(path, 1), std::vector<std::string>{"/hello?2"});
  EXPECT_EQ(lines_of(path + ".1"), std::vector<std::string>{"/hello?1"});
}

// ---- metrics

TEST_F(AccessLog, MetricsCountWhatHappened) {
  Outrider proxy(logging("json"), substitutions_);
  Client client = proxy.client();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.get("/shop/x").status, 200);
  EXPECT_EQ(client.get("/gone").status, 503);
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(proxy.await_metric("outrider_requests_total{listener='main',route='buy',service='shop',"
                               "code='200',reason='ok'}",
                               3),
            3);
  EXPECT_EQ(proxy.metric("outrider_requests_total{listener='main',route='lost',service='gone',"
                         "code='503',reason='connect_failure'}"),
            1);
  EXPECT_EQ(proxy.metric("outrider_requests_total{route='-',service='-',code='404',"
                         "reason='route_not_found'}"),
            1);
  EXPECT_EQ(proxy.metric("outrider_request_duration_seconds_count{route='buy',service='shop'}"), 3);
  EXPECT_EQ(proxy.metric("outrider_request_duration_seconds_bucket{route='buy',le='+Inf'}"), 3);
  EXPECT_GT(proxy.metric("outrider_request_duration_seconds_sum{route='buy'}"), 0);
  EXPECT_EQ(proxy.metric("outrider_attempts_total{service='shop',result='ok'}"), 3);
  EXPECT_EQ(proxy.metric("outrider_attempts_total{service='gone',result='connect_failure'}"), 1);
  EXPECT_EQ(proxy.metric("outrider_upstream_connections{service='shop'}"), 1);
  EXPECT_EQ(proxy.metric("outrider_downstream_connections{listener='main'}"), 1);
  EXPECT_EQ(proxy.metric("outrider_endpoints{service='shop',state='healthy'}"), 1);
  EXPECT_EQ(proxy.metric("outrider_service_panic{service='shop'}"), 0);
  EXPECT_EQ(proxy.metric("outrider_config_generation"), 1);
  EXPECT_EQ(proxy.metric("outrider_config_stale"), 0);
  EXPECT_GT(proxy.metric("process_resident_memory_bytes"), 0);
  EXPECT_GT(proxy.metric("process_start_time_seconds"), 1e9);

  const std::string text = proxy.admin("/metrics").body;
  for (const char* family :
       {"outrider_requests_total counter", "outrider_request_duration_seconds histogram",
        "outrider_attempts_total counter", "outrider_retries_total counter",
        "outrider_upstream_connections gauge", "outrider_downstream_connections gauge",
        "outrider_endpoints gauge", "outrider_service_panic gauge",
        "outrider_limit_refused_total counter", "outrider_config_generation gauge",
        "outrider_config_stale gauge", "outrider_config_reloads_total counter",
        "process_cpu_seconds_total counter", "process_open_fds gauge"})
    EXPECT_THAT(text, HasSubstr(std::string("# TYPE ") + family + "\n"));
}

TEST_F(AccessLog, ClientsMakeNoSeries) {
  Outrider proxy(logging("false"), substitutions_);
  Client client = proxy.client();
  const auto series = [&] {
    const std::string text = proxy.admin("/metrics").body;
    return std::count(text.begin(), text.end(), '\n');
  };
  client.get("/hello");
  client.get("/nowhere");
  EXPECT_EQ(proxy.await_metric("outrider_requests_total", 2), 2);
  const auto before = series();
  for (int i = 0; i < 200; ++i) {
    const std::string n = std::to_string(i);
    client.request({.method = "METHOD" + n,
                    .target = "/path" + n,
                    .authority = "host" + n,
                    .fields = {{"user-agent", n}, {"x-request-id", "id" + n}}});
  }
  EXPECT_EQ(proxy.await_metric("outrider_requests_total{code='404'}", 201), 201);
  EXPECT_EQ(series(), before);
}

// ---- error bodies

class ErrorBodies : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    proxy_ = std::make_unique<Outrider>(R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      near: { address: 127.0.0.1:0, trust: [127.0.0.0/8, 10.0.0.0/8] }
    services: { gone: "$REFUSING" }
    routes:
      - { name: lost, match: /gone, to: gone, retry: false }
      - { name: cart, match: "GET shop.test/cart/{id}", respond: 200 }
      - { name: beta, match: { path: /beta, headers: { x-beta: "true" } }, respond: 200 })");
  }
  static void TearDownTestSuite() { proxy_.reset(); }

  static Response get(const std::string& target, Fields fields = {},
                      const std::string& listener = "main") {
    return proxy_->client(Protocol::kHttp1, listener)
        .request({.target = target, .authority = "shop.test", .fields = std::move(fields)});
  }
  static Response from(const std::string& address, const std::string& target) {
    return get(target, {{"x-forwarded-for", address}}, "near");
  }

  static inline std::unique_ptr<Outrider> proxy_;
};

TEST_F(ErrorBodies, AreOneLineOfText) {
  for (const Fields& fields : {Fields{}, Fields{{"accept", "*/*"}}, Fields{{"accept", "text/html"}},
                               Fields{{"accept", "application/json;q=0"}}}) {
    const Response response = get("/gone", fields);
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.fields.value("content-type"), "text/plain; charset=utf-8");
    EXPECT_THAT(response.body, MatchesRegex("503 connect_failure: [^\n]+\n"));
  }
  const Response head = proxy_->client().request({.method = "HEAD", .target = "/gone"});
  EXPECT_EQ(head.status, 503);
  EXPECT_EQ(head.body, "");
}

TEST_F(ErrorBodies, AreAProblemForThoseWhoTakeJson) {
  for (const char* accept : {"application/json", "text/html, application/problem+json;q=0.5",
                             "Application/JSON; charset=utf-8"}) {
    const Response response = get("/gone", {{"accept", accept}, {"x-request-id", "id-7"}}, "near");
    EXPECT_EQ(response.fields.value("content-type"), "application/problem+json") << accept;
    const json problem = json::parse(response.body, nullptr, false);
    ASSERT_TRUE(problem.is_object()) << response.body;
    EXPECT_EQ(problem["status"], 503);
    EXPECT_EQ(problem["reason"], "connect_failure");
    EXPECT_EQ(problem["request_id"], "id-7");
    for (const char* key : {"type", "title", "detail"})
      EXPECT_TRUE(problem[key].is_string()) << key;
  }
}

TEST_F(ErrorBodies, AreTrailersForGrpc) {
  const Response response =
      proxy_->client(Protocol::kHttp2)
          .request({.method = "POST",
                    .target = "/gone",
                    .fields = {{"content-type", "application/grpc+proto"}, {"te", "trailers"}}});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.fields.value("grpc-status"), "14");
  EXPECT_NE(response.fields.value("grpc-message"), "");
  EXPECT_EQ(response.fields.value("content-type"), "application/grpc");
  EXPECT_EQ(response.body, "");
  EXPECT_TRUE(response.trailers.empty());
  const Response missing = proxy_->client(Protocol::kHttp2)
                               .request({.method = "POST",
                                         .target = "/no.Such/Method",
                                         .fields = {{"content-type", "application/grpc"}}});
  EXPECT_EQ(missing.fields.value("grpc-status"), "12");
}

TEST_F(ErrorBodies, NameTheClosestRouteToThoseNearby) {
  EXPECT_THAT(get("/beta").body, testing::AllOf(StartsWith("404 route_not_found: "),
                                                HasSubstr("beta"), HasSubstr("x-beta")));
  const Response method =
      proxy_->client().request({.method = "POST", .target = "/cart/7", .authority = "shop.test"});
  EXPECT_THAT(method.body, testing::AllOf(HasSubstr("cart"), HasSubstr("method")));
  EXPECT_THAT(from("10.0.0.1", "/beta").body, HasSubstr("x-beta"));
}

TEST_F(ErrorBodies, SayNoMoreThanTheReasonToStrangers) {
  const Response missing = from("203.0.113.9", "/beta");
  EXPECT_THAT(missing.body, StartsWith("404 route_not_found: "));
  EXPECT_THAT(missing.body, Not(HasSubstr("beta")));
  const Response gone = from("203.0.113.9", "/gone");
  EXPECT_EQ(gone.body, "503 connect_failure: The upstream refused the connection.\n");
}

// Clients elsewhere hear a reason's own sentence; the log has the rest.
TEST(Observe, AFailureOfAnUpstreamIsInTheProcessLog) {
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { gone: "$REFUSING" }
    routes: [{ name: gone, to: gone, retry: false }])");
  EXPECT_EQ(proxy.client().get("/x").status, 503);
  proxy.await_error("warn connect_failure: status 503, client 127.0.0.1, GET ");
  proxy.await_error("route gone, request ");
}

}  // namespace
}  // namespace outrider::test
