// The admin surface and the read-only one, as operators, probes, scrapers and browsers meet them.
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

constexpr char kYaml[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      shop: { endpoints: [{ address: "$REFUSING", labels: { version: v1 } }] }
    routes:
      - { name: shop, match: /shop/**, to: shop, retry: false }
      - { name: hello, match: /hello, respond: { status: 200, body: hello } })";

Response ask(Outrider& proxy, const std::string& surface, const Request& request) {
  return Client(proxy.address(surface)).request(request);
}

TEST(Admin, ReadyAndLiveUnderAllTheirNames) {
  Outrider proxy(kYaml);
  for (const char* path : {"/ready", "/readyz", "/startupz"}) {
    const Response response = proxy.admin(path);
    EXPECT_EQ(response.status, 200) << path;
    EXPECT_EQ(response.body, "ready\n") << path;
  }
  for (const char* path : {"/live", "/livez"}) EXPECT_EQ(proxy.admin(path).status, 200) << path;
}

TEST(Admin, TheReadOnlySurfaceServesProbesAndMetricsAlone) {
  Outrider proxy(kYaml);
  for (const char* path : {"/ready", "/live", "/metrics"})
    EXPECT_EQ(ask(proxy, "metrics", {.target = path}).status, 200) << path;
  for (const char* path : {"/", "/config", "/config/status", "/services", "/log", "/drain"})
    EXPECT_EQ(ask(proxy, "metrics", {.target = path}).status, 404) << path;
  EXPECT_EQ(ask(proxy, "metrics", {.method = "POST", .target = "/drain"}).status, 404);
  EXPECT_EQ(proxy.admin("/ready").status, 200);  // and nothing drained
}

TEST(Admin, MetricsInBothFormats) {
  Outrider proxy(kYaml);
  ASSERT_EQ(proxy.client().get("/hello").status, 200);
  ASSERT_EQ(proxy.await_metric("outrider_requests_total{route='hello',code='200'}", 1), 1);

  const Response text = proxy.admin("/metrics");
  EXPECT_EQ(text.fields.value("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_NE(text.body.find("outrider_requests_total{"), std::string::npos);

  Request open_metrics{.target = "/metrics", .authority = "localhost"};
  open_metrics.fields = {{"accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}};
  const Response open = ask(proxy, "admin", open_metrics);
  EXPECT_EQ(open.fields.value("content-type"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8");
  EXPECT_TRUE(open.body.ends_with("# EOF\n"));

  open_metrics.fields = {{"accept", "application/openmetrics-text;q=0, text/plain"}};
  EXPECT_EQ(ask(proxy, "admin", open_metrics).fields.value("content-type"),
            "text/plain; version=0.0.4; charset=utf-8");
}

TEST(Admin, MetricsHaveAllFamiliesOfTheContract) {
  Outrider proxy(kYaml);
  const std::string text = proxy.admin("/metrics").body;
  for (const char* family :
       {"requests_total counter", "request_duration_seconds histogram", "attempts_total counter",
        "retries_total counter", "upstream_connections gauge", "downstream_connections gauge",
        "endpoints gauge", "service_panic gauge", "limit_refused_total counter",
        "config_generation gauge", "config_stale gauge", "config_reloads_total counter",
        "tls_handshakes_total counter", "tls_not_after_seconds gauge", "dns_queries_total counter"})
    EXPECT_NE(text.find(std::string("# TYPE outrider_") + family + "\n"), std::string::npos)
        << family;
}

TEST(Admin, ConfigurationIsTheOneThatServesWhateverItsFilesSayNow) {
  Outrider proxy(kYaml);
  const std::string before = proxy.admin("/config").body;
  proxy.folder().write("outrider.yaml", "outrider: v1\nlisten: 1\n");
  EXPECT_EQ(proxy.admin("/config").body, before);
}

TEST(Admin, FileNamesNeedNotBeUtf8) {
  const std::string name = "more-\xff.yaml";
  Outrider proxy(std::string(kYaml) + "\n    include: 'more-*.yaml'", {},
                 {.files = {{name, "outrider: v1\nservices: { web: 127.0.0.1:1 }\n"}}});
  const auto services = nlohmann::json::parse(proxy.admin("/services").body);
  EXPECT_EQ(services[1]["name"], "web");
  EXPECT_EQ(proxy.admin("/config").status, 200);
}

TEST(Admin, ConfigurationWithOriginsAndItsStatus) {
  Outrider proxy(kYaml);
  const Response config = proxy.admin("/config");
  EXPECT_EQ(config.status, 200);
  EXPECT_NE(config.body.find("shop"), std::string::npos);
  EXPECT_NE(config.body.find("outrider.yaml:"), std::string::npos);

  const auto status = nlohmann::json::parse(proxy.admin("/config/status").body);
  EXPECT_EQ(status["generation"], 1);
  EXPECT_EQ(status["stale"], false);
  EXPECT_TRUE(status["loaded_at"].is_string());
  EXPECT_TRUE(status["errors"].empty());

  const Response reload = proxy.admin("/config/reload", "POST");
  EXPECT_EQ(reload.status, 501);
  EXPECT_NE(reload.body.find("not supported yet"), std::string::npos);
}

TEST(Admin, ServicesWithTheirEndpoints) {
  Outrider proxy(kYaml);
  const Response response = proxy.admin("/services");
  EXPECT_EQ(response.fields.value("content-type"), "application/json");
  EXPECT_NE(response.body.find("\"shop\""), std::string::npos);
  EXPECT_NE(response.body.find("\"version\""), std::string::npos);
  EXPECT_TRUE(nlohmann::json::accept(response.body));
}

TEST(Admin, HeadIsGetWithoutItsBody) {
  Outrider proxy(kYaml);
  const Response get = proxy.admin("/");
  const Response head = proxy.admin("/", "HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(head.fields.value("content-length"), get.fields.value("content-length"));
}

TEST(Admin, GetChangesNothing) {
  Outrider proxy(kYaml);
  for (const char* path : {"/drain", "/config/reload"}) {
    const Response response = proxy.admin(path);
    EXPECT_EQ(response.status, 405) << path;
    EXPECT_EQ(response.fields.value("allow"), "POST") << path;
  }
  for (const char* method : {"POST", "DELETE", "OPTIONS"}) {
    const Response response = proxy.admin("/ready", method);
    EXPECT_EQ(response.status, 405) << method;
    EXPECT_EQ(response.fields.value("allow"), "GET, HEAD") << method;
  }
  EXPECT_EQ(proxy.admin("/log?level=debug").body, "info\n");
  EXPECT_EQ(proxy.admin("/log").body, "info\n");
  EXPECT_EQ(proxy.admin("/nothing/here").status, 404);
  EXPECT_EQ(proxy.admin("/ready").status, 200);
}

TEST(Admin, TheLogLevelIsSetByPut) {
  Outrider proxy(kYaml);
  EXPECT_EQ(proxy.admin("/log?level=debug", "PUT").status, 200);
  EXPECT_EQ(proxy.admin("/log").body, "debug\n");
  EXPECT_EQ(proxy.admin("/log?level=loud", "PUT").status, 400);
  EXPECT_EQ(proxy.admin("/log", "PUT").status, 400);
  EXPECT_EQ(proxy.admin("/log").body, "debug\n");
}

TEST(Admin, OnlyNamesOfThisMachineAreServed) {
  Outrider proxy(kYaml);
  const std::string port = proxy.address("admin").substr(proxy.address("admin").rfind(':'));
  for (const std::string host : {"localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]"}) {
    EXPECT_EQ(ask(proxy, "admin", {.target = "/ready", .authority = host}).status, 200) << host;
    EXPECT_EQ(ask(proxy, "admin", {.target = "/ready", .authority = host + port}).status, 200);
  }
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "10.0.0.1", "0.0.0.0", "[::2]", "127.1"})
    EXPECT_EQ(ask(proxy, "admin", {.target = "/ready", .authority = host}).status, 403) << host;
  // A scraper reaches the read-only surface by whatever name it has.
  EXPECT_EQ(ask(proxy, "metrics", {.target = "/ready", .authority = "pod-7.example"}).status, 200);
}

TEST(Admin, ForeignOriginsAreRefused) {
  Outrider proxy(kYaml);
  const auto status = [&](const std::string& origin) {
    return ask(proxy, "admin",
               {.method = "POST",
                .target = "/config/reload",
                .authority = "localhost",
                .fields = {{"origin", origin}}})
        .status;
  };
  EXPECT_EQ(status("http://localhost:3000"), 501);
  EXPECT_EQ(status("http://[::1]"), 501);
  for (const char* origin :
       {"http://evil.example", "null", "", "file://", "http://localhost@evil.example"})
    EXPECT_EQ(status(origin), 403) << origin;
}

TEST(Admin, DrainAnswersThenDrains) {
  Outrider proxy(std::string(kYaml) + "\n    drain: { delay: 30s, deadline: 60s }");
  EXPECT_EQ(proxy.admin("/drain", "POST").status, 202);
  const Response ready = proxy.admin("/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_NE(ready.body.find("drain"), std::string::npos);
  EXPECT_EQ(proxy.admin("/live").status, 200);
  EXPECT_EQ(proxy.client().get("/hello").status, 200);  // within the delay
}

TEST(Admin, OneConnectionTakesManyRequestsAndBodiesAreDropped) {
  Outrider proxy(kYaml);
  RawClient client = proxy.raw("admin");
  const std::string body(40'000, 'x');
  for (int i = 0; i < 3; ++i) {
    client.send("POST /config/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n" +
                body);
    EXPECT_EQ(client.read_response("POST").status, 501);
    client.send("GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(client.read_response().status, 200);
  }
}

TEST(Admin, ALargeBodyEndsTheConnectionAfterTheAnswer) {
  Outrider proxy(kYaml);
  RawClient client = proxy.raw("admin");
  client.send(
      "POST /config/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n");
  client.send(std::string(100'000, 'x'));
  EXPECT_EQ(client.read_response("POST").status, 501);
  client.try_send(std::string(1'000'000, 'x'), std::chrono::seconds(5));
  EXPECT_EQ(proxy.admin("/ready").status, 200);
}

TEST(Admin, MalformedRequestsAreAnsweredAndClosed) {
  Outrider proxy(kYaml);
  for (const char* bytes :
       {"GET /ready HTTP/1.1\r\n\r\n", "GET  /ready HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /ready HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n"}) {
    RawClient client = proxy.raw("admin");
    client.send(bytes);
    EXPECT_EQ(client.read_response().status, 400) << bytes;
    EXPECT_EQ(client.read_end(), Socket::End::kFin) << bytes;
  }
}

TEST(Admin, NobodyIsLockedOutByIdleConnections) {
  Outrider proxy(kYaml);
  for (const char* surface : {"admin", "metrics"}) {
    std::vector<RawClient> idle;
    for (int i = 0; i < 200; ++i) idle.emplace_back(proxy.address(surface));
    EXPECT_EQ(ask(proxy, surface, {.target = "/ready", .authority = "localhost"}).status, 200);
    EXPECT_EQ(idle.front().read_end(), Socket::End::kReset);  // quiet longest
  }
}

// Until nothing more arrives at a socket that nobody reads.
void await_full(int fd) {
  int before = -1;
  int now = 0;
  const auto deadline = std::chrono::steady_clock::now() + patience();
  for (int still = 0; still < 10 && std::chrono::steady_clock::now() < deadline; before = now) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ASSERT_EQ(::ioctl(fd, FIONREAD, &now), 0);
    still = now == before ? still + 1 : 0;
  }
}

TEST(Admin, ReadersThatDoNotReadHoldNothingUp) {
  Outrider proxy(kYaml);
  std::vector<RawClient> stuck;
  std::string requests;
  for (int n = 0; n < 10'000; ++n) requests += "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
  for (int i = 0; i < 3; ++i) {
    stuck.emplace_back(proxy.address("metrics"));
    const int small = 4096;
    ::setsockopt(stuck.back().socket().fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    stuck.back().try_send(requests, std::chrono::seconds(1));
  }
  for (RawClient& client : stuck) await_full(client.socket().fd());
  EXPECT_EQ(proxy.admin("/ready").status, 200);
  EXPECT_EQ(proxy.client().get("/hello").status, 200);
  if (release_build()) {
    EXPECT_LT(proxy.resident_bytes(), 50U << 20);
  }
  EXPECT_EQ(proxy.stop(SIGINT), 0);  // nor the end
}

TEST(Admin, OverAUnixSocketThatIsClosedToOthers) {
  Outrider proxy(std::string(kYaml) + "\n    admin: { address: 'unix:$FOLDER/admin.sock' }");
  for (const char* path : {"/ready", "/config"})
    EXPECT_EQ(ask(proxy, "admin", {.target = path, .authority = "localhost"}).status, 200) << path;
  struct stat info {};
  ASSERT_EQ(::stat((proxy.folder().path() + "/admin.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST(Admin, OffMeansNoListener) {
  Outrider proxy(std::string(kYaml) + "\n    admin: false\n    telemetry: { metrics: false }");
  EXPECT_EQ(proxy.client().get("/hello").status, 200);
  EXPECT_EQ(proxy.errors().find("listening admin"), std::string::npos);
  EXPECT_EQ(proxy.errors().find("listening metrics"), std::string::npos);
}

}  // namespace
}  // namespace outrider::test
