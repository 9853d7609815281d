// Which route takes a request, and what it makes of it: matchers and their order, weights and
// subsets, redirects, fixed answers, rewrites, header edits, through the binary. One proxy serves
// all cases of a suite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"
#include "tests/harness/recorder.h"

namespace outrider::test {
namespace {

using testing::AllOf;
using testing::Ge;
using testing::Le;

// ---- matchers and precedence

// Each answers with its name, so that a body says which route took the request.
std::string named_routes(const std::vector<std::pair<std::string, std::string>>& matches) {
  std::string yaml;
  for (const auto& [name, keys] : matches)
    yaml += "      - { name: " + name + ", " + keys + ", respond: { status: 200, body: " + name +
            " } }\n";
  return yaml;
}

struct Matched {
  Request request;
  std::string route;
};

class Matching : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string head = R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0, trust: [127.0.0.0/8] }
      inner: { address: 127.0.0.1:0 }
    routes:
)";
    proxy_ = std::make_unique<Outrider>(
        head + named_routes({
                   {"any", "match: /**"},
                   {"inner", "listeners: [inner], match: /listener"},
                   // hosts
                   {"exact", "match: exact.test/**"},
                   {"wild", "match: '*.wild.test/**'"},
                   {"deep", "match: '*.deep.wild.test/**'"},
                   {"inside", "match: in.deep.wild.test/**"},
                   {"ported", "match: 'ported.test:8080/**'"},
                   {"partly", "match: partly.test/only"},
                   {"hosts", "match: { host: [one.test, '*.two.test'], path: [/l1, '/l2/**'] }"},
                   {"short-list", "match: [/list-a, 'POST /list-b']"},
                   // paths
                   {"path-exact", "match: /e"},
                   {"path-slash", "match: /slash/"},
                   {"path-prefix", "match: '/p/**'"},
                   {"path-longer", "match: '/p/q/**'"},
                   {"path-template", "match: '/p/{x}/r'"},
                   {"path-star", "match: '/star/*/end'"},
                   {"path-text", "match: /p/q/r"},
                   {"path-regex", "match: { host: re.test, path: '~^/(p|v[0-9]+)/' }"},
                   {"not-regex", "match: 're.test/p/**'"},
                   {"text-first", "match: '/s/b/{c}'"},
                   {"text-late", "match: '/s/{a}/x'"},
                   {"template-prefix", "match: '/p/{x}/s/**'"},
                   {"urgent", "match: '~^/urgent', priority: 1"},
                   {"not-urgent", "match: exact.test/urgent"},
                   // methods
                   {"m-any", "match: /m"},
                   {"m-get", "match: 'GET,PUT /m'"},
                   // fields
                   {"h-none", "match: /h"},
                   {"h-one", "match: { path: /h, headers: { x-a: '1' } }"},
                   {"h-two", "match: { path: /h, headers: { x-a: '1', x-b: '2' } }"},
                   {"h-regex", "match: { path: /hr, headers: { user-agent: '~Fire(fox|bird)' } }"},
                   {"h-present", "match: { path: /hp, headers: { x-a: '' } }"},
                   {"h-not", "match: { path: /hn, headers: { x-a: '!1' } }"},
                   {"h-absent", "match: { path: /ha, headers: { x-a: '!' } }"},
                   {"h-method", "match: { path: /hm, method: [GET] }"},
                   {"h-fields", "match: { path: /hm, headers: { x-a: '1', x-b: '2' } }"},
                   // queries
                   {"q-none", "match: /q"},
                   {"q-value", "match: { path: /q, query: { debug: '1' } }"},
                   {"q-present", "match: { path: /qp, query: { debug: '' } }"},
                   {"q-raw", "match: { path: /qr, query: { v: 'a%20b' } }"},
                   {"q-header", "match: { path: /qh, headers: { x-a: '1' } }"},
                   {"q-queries", "match: { path: /qh, query: { a: '1', b: '2' } }"},
                   // cookies and addresses
                   {"c-lane", "match: { path: /c, cookies: { lane: canary } }"},
                   {"c-none", "match: /c"},
                   {"ip-ten", "match: { path: /ip, client_ip: [10.0.0.0/8, '2001:db8::/32'] }"},
                   {"ip-own", "match: { path: /ip, client_ip: 127.0.0.1 }"},
                   {"ip-none", "match: /ip"},
                   // order in the file
                   {"first", "match: '/twice/{a}'"},
                   {"second", "match: { path: '/twice/{b}' }"},
               }),
        Outrider::Substitutions{}, Outrider::Options{.workers = 1});
  }
  static void TearDownTestSuite() { proxy_.reset(); }

  static void expect(const std::vector<Matched>& rows) {
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      Client client = proxy_->client(protocol);
      for (const Matched& row : rows) {
        const Response response = client.request(row.request);
        EXPECT_EQ(response.body, row.route) << name_of(protocol) << " " << row.request.method << " "
                                            << row.request.authority << " " << row.request.target;
      }
    }
  }
  static Matched get(std::string target, std::string route, Fields fields = {}) {
    return {{.target = std::move(target), .fields = std::move(fields)}, std::move(route)};
  }
  static Matched host(std::string authority, std::string route, std::string target = "/x") {
    return {{.target = std::move(target), .authority = std::move(authority)}, std::move(route)};
  }

  static inline std::unique_ptr<Outrider> proxy_;
};

TEST_F(Matching, Hosts) {
  expect({host("exact.test", "exact"), host("EXACT.Test", "exact"), host("exact.test.", "exact"),
          host("exact.test:81", "exact"), host("a.exact.test", "any"), host("exact.testing", "any"),
          host("a.wild.test", "wild"), host("a.b.wild.test", "wild"), host("wild.test", "any"),
          host("deep.wild.test", "wild"), host("a.deep.wild.test", "deep"),
          host("in.deep.wild.test", "inside"), host("xwild.test", "any"),
          host("ported.test:8080", "ported"), host("ported.test:8081", "any"),
          host("ported.test", "any"), host("[::1]", "any"), host("127.0.0.1:80", "any")});
}

TEST_F(Matching, AHostWhosePathsDoNotFitEndsNothing) {
  expect({host("partly.test", "partly", "/only"), host("partly.test", "path-exact", "/e"),
          host("partly.test", "any", "/only/")});
}

TEST_F(Matching, ListsAreAlternatives) {
  expect({host("one.test", "hosts", "/l1"),
          host("x.two.test", "hosts", "/l2/a"),
          host("two.test", "any", "/l1"),
          host("one.test", "any", "/l3"),
          get("/list-a", "short-list"),
          get("/list-b", "any"),
          {{.method = "POST", .target = "/list-b"}, "short-list"}});
}

TEST_F(Matching, ListenersHaveTheirOwnRoutes) {
  EXPECT_EQ(proxy_->client(Protocol::kHttp1, "inner").get("/listener").body, "inner");
  expect({get("/listener", "any")});
}

TEST_F(Matching, Paths) {
  expect({get("/e", "path-exact"), get("/e?q=/e/", "path-exact"), get("/e/", "any"),
          get("/E", "any"), get("/slash/", "path-slash"), get("/slash", "any"),
          get("/p", "path-prefix"), get("/p/", "path-prefix"), get("/p/a/b", "path-prefix"),
          get("/px", "any"), get("/star/a/end", "path-star"), get("/star//end", "any"),
          get("/star/a/b/end", "any"), host("re.test", "path-regex", "/v12/?x"),
          host("re.test", "any", "/v12"), host("re.test", "any", "/x/v12/")});
}

TEST_F(Matching, TheBetterPathWins) {
  expect({get("/p/q/r", "path-text"), get("/p/z/r", "path-template"), get("/p/q", "path-longer"),
          get("/p/q/s/t", "template-prefix"), get("/p/q/t", "path-longer"),
          get("/p/z/s", "template-prefix"), get("/p//r", "path-prefix"),
          get("/s/b/x", "text-first"), get("/s/c/x", "text-late"), get("/twice/a", "first"),
          host("re.test", "not-regex", "/p/x")});
}

TEST_F(Matching, PriorityComesBeforeEverything) {
  expect({get("/urgent", "urgent"), host("exact.test", "urgent", "/urgent")});
}

TEST_F(Matching, Methods) {
  expect({get("/m", "m-get"),
          {{.method = "PUT", .target = "/m"}, "m-get"},
          {{.method = "POST", .target = "/m"}, "m-any"},
          {{.method = "PURGE", .target = "/m"}, "m-any"}});
}

TEST_F(Matching, Headers) {
  expect({get("/h", "h-none"), get("/h", "h-one", {{"x-a", "1"}}),
          get("/h", "h-none", {{"x-a", "11"}}), get("/h", "h-one", {{"x-a", "0"}, {"x-a", "1"}}),
          get("/h", "h-two", {{"x-b", "2"}, {"x-a", "1"}}), get("/h", "h-none", {{"x-b", "2"}}),
          get("/hr", "h-regex", {{"user-agent", "Mozilla Firebird/1"}}),
          get("/hr", "any", {{"user-agent", "Mozilla"}}), get("/hp", "h-present", {{"x-a", ""}}),
          get("/hp", "any"), get("/hn", "h-not", {{"x-a", "2"}}), get("/hn", "any", {{"x-a", "1"}}),
          get("/ha", "h-absent"), get("/ha", "any", {{"x-a", ""}}),
          get("/hm", "h-method", {{"x-a", "1"}, {"x-b", "2"}})});
}

TEST_F(Matching, QueriesCookiesAndAddresses) {
  const auto from = [](const char* address, const char* route) {
    return get("/ip", route, {{"x-forwarded-for", address}});
  };
  expect({get("/q", "q-none"),
          get("/q?debug=1", "q-value"),
          get("/q?a=1&debug=1", "q-value"),
          get("/q?debug=0&debug=1", "q-none"),
          get("/q?debug=%31", "q-none"),
          get("/qp?debug", "q-present"),
          get("/qp?debug=", "q-present"),
          get("/qp?xdebug=", "any"),
          get("/qr?v=a%20b", "q-raw"),
          get("/qr?v=a+b", "any"),
          get("/qh?a=1&b=2", "q-header", {{"x-a", "1"}}),
          get("/qh?a=1&b=2", "q-queries"),
          get("/c", "c-none"),
          get("/c", "c-lane", {{"cookie", "a=b; lane=canary"}}),
          get("/c", "c-none", {{"cookie", "lane=x; lane=canary"}}),
          get("/ip", "ip-own"),
          from("10.1.2.3", "ip-ten"),
          from("2001:db8::7", "ip-ten"),
          from("11.1.2.3", "ip-none"),
          from("10.1.2.3, 11.1.2.3", "ip-none"),
          from("11.1.2.3, 10.1.2.3, 127.0.0.9", "ip-ten")});
}

// ---- what becomes of a request

// Services that answer with their name, reached over Unix sockets of the same proxy.
constexpr char kActions[] = R"yaml(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      bare: { address: 127.0.0.1:0, forwarded: false }
      small: { address: 127.0.0.1:0, limits: { body: 100 } }
      v1: { address: "unix:$FOLDER/v1.sock" }
      v2: { address: "unix:$FOLDER/v2.sock" }
    services:
      cart:
        endpoints:
          - { address: "unix:$FOLDER/v1.sock", labels: { version: v1 } }
          - { address: "unix:$FOLDER/v2.sock", labels: { version: v2 } }
        subsets: { v1: { version: v1 }, v2: { version: v2 }, v3: { version: v3 } }
      echo: "$ECHO"
      echo2: "h2c://$ECHO"
      bytes: "$BYTES"
    routes:
      - { name: is-v1, listeners: [v1], priority: 1, respond: { status: 200, body: v1 } }
      - { name: is-v2, listeners: [v2], priority: 1, respond: { status: 200, body: v2 } }
      - { name: all, listeners: [main, bare, small], to: echo }
      - { match: /two/**, to: echo2 }
      - { match: /bytes/**, listeners: [main, bare], to: bytes }
      # weights and subsets
      - { match: /w/90-10, to: { cart@v1: 90, cart@v2: 10 } }
      - { match: /w/1-0, to: { cart@v1: 1, cart@v2: 0 } }
      - { match: /w/0-0, to: { cart@v1: 0, cart@v2: 0 } }
      - { match: /w/v2, to: cart@v2 }
      - { match: /w/spill, to: { cart@v1: 1, cart@v3: 9 } }
      - { match: /w/fail, to: { cart@v1: 1, cart@v3: 1 }, when_empty: fail }
      - { match: /w/empty, to: cart@v3 }
      # redirects
      - { match: /r/https, redirect: https }
      - { match: /r/host/**, redirect: { status: 308, host: b.test, path: "/n/**" } }
      - { match: "/r/id/{id}", redirect: { status: 302, path: "/new/{id}" } }
      - { match: /r/port, redirect: { status: 307, scheme: https, port: 8443 } }
      - { match: "~^/r/re/([a-z]+)/([0-9]+)$", redirect: { status: 303, path: '/\2/\1' } }
      # fixed answers
      - { match: /f/status, respond: 418 }
      - { match: /f/body, respond: { status: 200, body: "pong\n" } }
      - match: /f/json
        respond: { status: 201, headers: { content-type: application/json, x-m: "%{method}" }, body: "{}" }
      - { match: /f/file, respond: { status: 200, file: page.html } }
      - { match: /f/204, respond: 204 }
      # rewrites
      - { match: /rw/api/**, to: echo, rewrite: "/v2/**" }
      - { match: /rw/strip/**, to: echo, rewrite: "/**" }
      - { match: "/rw/u/{id}/**", to: echo, rewrite: "/users/{id}/**" }
      - { match: "/rw/swap/{a}/{b}", to: echo, rewrite: "/{b}/{a}" }
      - { match: '~^/rw/re/([0-9]+)/(.*)$', to: echo, rewrite: '/n/\2/\1' }
      - { match: /rw/old/**, to: echo, rewrite: { regex: { "^/rw/old/(.*)": '/new/\1', "a+": b } } }
      - { match: /rw/host, to: echo, rewrite: { host: inner.test } }
      - { match: /rw/bad, to: echo, rewrite: { regex: { "^/rw/bad": "/%zz" } } }
      # header edits
      - name: edits
        match: "/edit/{id}"
        to: echo
        headers:
          request:
            remove: [cookie, X-Gone]
            set: { x-route: "%{route}", x-id: "<%{path.id}>", x-query: "%{query q}", x-cookie: "%{cookie c}",
                   x-in: "%{header x-in}!", x-method: "%{method}", x-ip: "%{client.ip}", x-literal: "100%%{no}",
                   x-absent: "[%{query none}]", x-both: new }
            add: { x-multi: b }
          response:
            remove: [x-method]
            set: { x-service: "%{service}", x-status: "%{status}", x-target: replaced }
            add: { x-more: "1" }
      - { match: /limited, to: echo, body: { max: 10 } }
)yaml";

class Actions : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    echo_.reset(new HttpOrigin(HttpOrigin::echoing()));
    bytes_ = std::make_unique<Origin>(serve_bytes);
    proxy_ = std::make_unique<Outrider>(
        kActions, Outrider::Substitutions{{"ECHO", echo_->address()}, {"BYTES", bytes_->address()}},
        Outrider::Options{.files = {{"page.html", "<p>hello</p>"}}});
  }
  static void TearDownTestSuite() {
    proxy_.reset();
    bytes_.reset();
    echo_.reset();
  }

  // Answers each path with bytes of its own; what arrived is in the body of /bytes/seen.
  static void serve_bytes(RawClient& connection, int) {
    while (!connection.peek(1).empty()) {
      const std::string head = connection.read_head_text();
      const std::string path =
          head.substr(head.find(' ') + 1, head.find(" HTTP") - head.find(' ') - 1);
      if (path == "/bytes/204") {
        connection.send("HTTP/1.1 204 No Content\r\nX-Empty: yes\r\n\r\n");
      } else if (path == "/bytes/304") {
        connection.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n");
      } else if (path == "/bytes/head") {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n");
      } else if (path == "/bytes/103") {
        connection.send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
            "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n"
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      } else if (path == "/bytes/case") {
        connection.send(
            "HTTP/1.1 200 OK\r\nX-UPPER: 1\r\nx-lower: 2\r\nMiXeD: 3\r\n"
            "Set-Cookie: a=1\r\nX-UPPER: 4\r\nset-cookie: b=2\r\nContent-Length: " +
            std::to_string(head.size()) + "\r\n\r\n" + head);
      } else if (path == "/bytes/chunked") {
        connection.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
      } else if (path == "/bytes/until-end") {
        connection.send("HTTP/1.1 200 OK\r\n\r\nto the end");
        return;
      } else if (path == "/bytes/continue") {
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        const std::string body = connection.read_exactly(5);
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body);
      } else if (path == "/bytes/refuse") {
        connection.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        return;
      }
    }
  }

  static std::map<std::string, int> bodies(const std::string& target, int times) {
    RawClient raw = proxy_->raw();
    std::map<std::string, int> counts;
    constexpr int kAtOnce = 50;
    for (int sent = 0; sent < times; sent += kAtOnce) {
      std::string requests;
      for (int i = 0; i < kAtOnce; ++i)
        requests += "GET " + target + " HTTP/1.1\r\nHost: a.test\r\n\r\n";
      raw.send(requests);
      for (int i = 0; i < kAtOnce; ++i) {
        const Response response = raw.read_response();
        ++counts[response.status == 200 ? response.body : std::to_string(response.status)];
      }
    }
    return counts;
  }
  static Response send(const std::string& bytes, const std::string& listener = "main") {
    RawClient raw = proxy_->raw(listener);
    raw.send(bytes);
    return raw.read_response(bytes.substr(0, bytes.find(' ')));
  }
  // The head that arrived last at the echoing origin.
  static Head arrived() { return echo_->heads().back(); }

  static inline std::unique_ptr<HttpOrigin> echo_;
  static inline std::unique_ptr<Origin> bytes_;
  static inline std::unique_ptr<Outrider> proxy_;
};

TEST_F(Actions, WeightsAreShares) {
  auto counts = bodies("/w/90-10", 2000);
  EXPECT_EQ(counts["v1"] + counts["v2"], 2000);
  EXPECT_THAT(counts["v2"], AllOf(Ge(120), Le(290)));  // 6 standard deviations about 200
  EXPECT_EQ(bodies("/w/1-0", 100)["v1"], 100);
  EXPECT_EQ(bodies("/w/v2", 100)["v2"], 100);
}

TEST_F(Actions, AllWeightsZeroIsAnError) {
  const Response response = proxy_->client().get("/w/0-0");
  EXPECT_EQ(response.status, 500);
  EXPECT_TRUE(response.body.starts_with("500 no_weight: ")) << response.body;
}

TEST_F(Actions, ATargetWithoutEndpointsSpillsOrFails) {
  EXPECT_EQ(bodies("/w/spill", 100)["v1"], 100);
  auto counts = bodies("/w/fail", 300);
  EXPECT_EQ(counts["v1"] + counts["503"], 300);
  EXPECT_THAT(counts["503"], AllOf(Ge(90), Le(210)));
  const Response alone = proxy_->client().get("/w/empty");
  EXPECT_EQ(alone.status, 503);
  EXPECT_TRUE(alone.body.starts_with("503 no_endpoint: ")) << alone.body;
}

TEST_F(Actions, Redirects) {
  struct Row {
    std::string target;
    std::string host;
    int status;
    std::string location;
  };
  const std::vector<Row> rows = {
      {"/r/https?a=1", "a.test:8080", 301, "https://a.test/r/https?a=1"},
      {"/r/https", "a.test", 301, "https://a.test/r/https"},
      {"/r/host/x/y?q", "a.test:81", 308, "http://b.test/n/x/y?q"},
      {"/r/host", "a.test", 308, "http://b.test/n"},
      {"/r/id/7?x=1", "a.test:81", 302, "http://a.test:81/new/7?x=1"},
      {"/r/id/a%20b", "a.test", 302, "http://a.test/new/a%20b"},
      {"/r/port", "a.test:81", 307, "https://a.test:8443/r/port"},
      {"/r/re/abc/12", "a.test", 303, "http://a.test/12/abc"},
  };
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy_->client(protocol);
    for (const Row& row : rows) {
      const Response response = client.request({.target = row.target, .authority = row.host});
      EXPECT_EQ(response.status, row.status) << row.target;
      EXPECT_EQ(response.fields.value("location"), row.location) << row.target;
      EXPECT_EQ(response.body, "");
    }
  }
}

TEST_F(Actions, FixedAnswers) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy_->client(protocol);
    const Response status = client.get("/f/status");
    EXPECT_EQ(status.status, 418);
    EXPECT_EQ(status.body, "");
    EXPECT_EQ(status.fields.value("content-length"), "0");

    const Response text = client.get("/f/body");
    EXPECT_EQ(text.body, "pong\n");
    EXPECT_EQ(text.fields.value("content-type"), "text/plain; charset=utf-8");

    const Response json = client.post("/f/json", "ignored");
    EXPECT_EQ(json.status, 201);
    EXPECT_EQ(json.fields.value("content-type"), "application/json");
    EXPECT_EQ(json.fields.count("content-type"), 1U);
    EXPECT_EQ(json.fields.value("x-m"), "POST");

    EXPECT_EQ(client.get("/f/file").body, "<p>hello</p>");

    const Response head = client.request({.method = "HEAD", .target = "/f/body"});
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.body, "");
    EXPECT_EQ(head.fields.value("content-length"), "5");

    const Response none = client.get("/f/204");
    EXPECT_EQ(none.status, 204);
    EXPECT_FALSE(none.fields.has("content-length"));
    EXPECT_FALSE(none.fields.has("transfer-encoding"));
    EXPECT_EQ(client.get("/f/body").body, "pong\n");  // the connection is still in step
    EXPECT_EQ(client.connections(), 1);
  }
}

TEST_F(Actions, Rewrites) {
  const std::vector<std::pair<std::string, std::string>> rows = {
      {"/rw/api", "/v2"},
      {"/rw/api/", "/v2/"},
      {"/rw/api/x?q", "/v2/x?q"},
      {"/rw/api/a%2Fb/c", "/v2/a%2Fb/c"},
      {"/rw/strip", "/"},
      {"/rw/strip/", "/"},
      {"/rw/strip/a/b", "/a/b"},
      {"/rw/strip?q=1", "/?q=1"},
      {"/rw/u/7/cart/1", "/users/7/cart/1"},
      {"/rw/u/7", "/users/7"},
      {"/rw/u/a%20b/", "/users/a%20b/"},
      {"/rw/swap/1/2?x", "/2/1?x"},
      {"/rw/re/12/abc?x", "/n/abc/12?x"},
      {"/rw/old/xaay", "/new/xby"},
      {"/rw/old/a?aa", "/new/b?aa"},
      {"/rw/host", "/rw/host"},
  };
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy_->client(protocol);
    for (const auto& [target, expected] : rows) {
      const Response response = client.get(target);
      EXPECT_EQ(response.status, 200) << target << response.body;
      EXPECT_EQ(response.fields.value("x-target"), expected) << target;
      EXPECT_EQ(response.fields.value("x-authority"),
                target == "/rw/host" ? "inner.test" : kAuthority);
    }
    const Response bad = client.get("/rw/bad");
    EXPECT_EQ(bad.status, 400);
    EXPECT_TRUE(bad.body.starts_with("400 bad_request: ")) << bad.body;
  }
}

TEST_F(Actions, HeaderEdits) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    const Response response =
        proxy_->client(protocol).request({.method = "PUT",
                                          .target = "/edit/a%20b?q=1%2B1&q=2",
                                          .fields = {{"cookie", "c=sweet; d=e"},
                                                     {"x-gone", "1"},
                                                     {"x-gone", "2"},
                                                     {"x-in", "in"},
                                                     {"x-both", "old"},
                                                     {"x-both", "older"},
                                                     {"x-multi", "a"}}});
    const Fields sent = arrived().fields;
    EXPECT_FALSE(sent.has("cookie"));
    EXPECT_FALSE(sent.has("x-gone"));
    EXPECT_EQ(sent.value("x-route"), "edits");
    EXPECT_EQ(sent.value("x-id"), "<a%20b>");
    EXPECT_EQ(sent.value("x-query"), "1%2B1");
    EXPECT_EQ(sent.value("x-cookie"), "");  // removed first
    EXPECT_EQ(sent.value("x-in"), "in!");
    EXPECT_EQ(sent.value("x-method"), "PUT");
    EXPECT_EQ(sent.value("x-ip"), "127.0.0.1");
    EXPECT_EQ(sent.value("x-literal"), "100%{no}");
    EXPECT_EQ(sent.value("x-absent"), "[]");
    EXPECT_EQ(sent.count("x-both"), 1U);
    EXPECT_EQ(sent.value("x-both"), "new");
    EXPECT_EQ(sent.count("x-multi"), 2U);

    EXPECT_FALSE(response.fields.has("x-method"));
    EXPECT_EQ(response.fields.value("x-service"), "echo");
    EXPECT_EQ(response.fields.value("x-status"), "200");
    EXPECT_EQ(response.fields.count("x-target"), 1U);
    EXPECT_EQ(response.fields.value("x-target"), "replaced");
    EXPECT_EQ(response.fields.value("x-more"), "1");
  }
}

// ---- messages on their way

TEST_F(Actions, AnswersWithoutABodyHaveNone) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy_->client(protocol);
    const Response none = client.get("/bytes/204");
    EXPECT_EQ(none.status, 204);
    EXPECT_EQ(none.fields.value("x-empty"), "yes");
    EXPECT_FALSE(none.fields.has("content-length"));
    const Response same = client.get("/bytes/304");
    EXPECT_EQ(same.status, 304);
    EXPECT_EQ(same.fields.value("etag"), "\"a\"");
    const Response head = client.request({.method = "HEAD", .target = "/bytes/head"});
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.fields.value("content-length"), "77");
    EXPECT_EQ(client.get("/f/body").body, "pong\n");
    EXPECT_EQ(client.connections(), 1);
  }
}

TEST_F(Actions, EarlyHintsReachTheClient) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    const Response response = proxy_->client(protocol).get("/bytes/103");
    EXPECT_EQ(response.body, "ok");
    ASSERT_EQ(response.informational.size(), 2U) << name_of(protocol);
    EXPECT_EQ(response.informational[0].status, 103);
    EXPECT_EQ(response.informational[0].fields.value("link"), "</a.css>");
    EXPECT_EQ(response.informational[1].fields.value("link"), "</b.css>");
  }
  const Response old = send("GET /bytes/103 HTTP/1.0\r\nHost: a.test\r\n\r\n");
  EXPECT_TRUE(old.informational.empty());
  EXPECT_EQ(old.body, "ok");
}

TEST_F(Actions, NamesKeepTheirCaseAndOrder) {
  const std::string head =
      "GET /bytes/case HTTP/1.1\r\nX-UPPER: 1\r\nhOsT: a.test\r\nx-lower: 2\r\nMiXeD: 3\r\n"
      "X-UPPER: 4\r\nUSER-agent: me\r\n\r\n";
  const Response response = send(head, "bare");
  EXPECT_EQ(response.body, head);
  EXPECT_EQ(response.fields, (Fields{{"X-UPPER", "1"},
                                     {"x-lower", "2"},
                                     {"MiXeD", "3"},
                                     {"Set-Cookie", "a=1"},
                                     {"X-UPPER", "4"},
                                     {"set-cookie", "b=2"},
                                     {"Content-Length", std::to_string(head.size())}}));
}

TEST_F(Actions, NamesFromHttp2AreTrainCase) {
  const Response response =
      proxy_->client(Protocol::kHttp2, "bare")
          .request({.target = "/bytes/case",
                    .authority = "a.test",
                    .fields = {{"x-tenant-id", "7"}, {"user-agent", "me"}, {"etag", "x"}}});
  EXPECT_NE(response.body.find("\r\nHost: a.test\r\n"), std::string::npos) << response.body;
  EXPECT_NE(response.body.find("\r\nX-Tenant-Id: 7\r\nUser-Agent: me\r\nE"), std::string::npos)
      << response.body;
  EXPECT_EQ(response.fields.value("mixed"), "3");
  for (const Field& field : response.fields)
    EXPECT_EQ(field.name.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), std::string::npos)
        << field.name;
}

TEST_F(Actions, ExpectIsCarriedToTheOriginAndBack) {
  RawClient raw = proxy_->raw();
  raw.send(
      "POST /bytes/continue HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n"
      "Content-Length: 5\r\n\r\n");
  EXPECT_TRUE(raw.read_head_text().starts_with("HTTP/1.1 100 "));
  raw.send("hello");
  const Response carried = raw.read_response("POST");
  EXPECT_EQ(carried.status, 200);
  EXPECT_EQ(carried.body, "hello");

  RawClient refused = proxy_->raw();
  refused.send(
      "POST /bytes/refuse HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n"
      "Content-Length: 5\r\n\r\n");
  const Response answer = refused.read_response("POST");
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.body, "no");
  EXPECT_TRUE(answer.informational.empty());
}

TEST_F(Actions, AnUnknownExpectationIsRefused) {
  const Response response =
      send("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(response.status, 417);
}

TEST_F(Actions, OldClientsGetWhatTheyUnderstand) {
  // Chunked, and with a length that only the end tells, become bytes up to the end.
  for (const char* path : {"/bytes/chunked", "/bytes/until-end"}) {
    RawClient raw = proxy_->raw();
    raw.send(std::string("GET ") + path + " HTTP/1.0\r\n\r\n");
    const Response response = raw.read_response();
    EXPECT_EQ(response.status, 200);
    EXPECT_FALSE(response.fields.has("transfer-encoding")) << path;
    EXPECT_EQ(response.body, path == std::string("/bytes/chunked") ? "hello" : "to the end");
    EXPECT_EQ(raw.read_end(), Socket::End::kFin);
  }
  RawClient kept = proxy_->raw();
  for (int i = 0; i < 2; ++i) {
    kept.send("GET /f/body HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const Response response = kept.read_response();
    EXPECT_EQ(response.body, "pong\n");
    EXPECT_TRUE(equal_case_blind(response.fields.value("connection"), "keep-alive"));
  }
  kept.send("GET /f/body HTTP/1.0\r\n\r\n");
  EXPECT_EQ(kept.read_response().body, "pong\n");
  EXPECT_EQ(kept.read_end(), Socket::End::kFin);
}

TEST_F(Actions, ABodyUpToTheEndIsChunkedForNewClients) {
  RawClient raw = proxy_->raw();
  raw.send(
      "GET /bytes/until-end HTTP/1.1\r\nHost: a.test\r\n\r\n"
      "GET /bytes/chunked HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\n\r\n");
  EXPECT_EQ(raw.read_response().body, "to the end");
  const Response chunked = raw.read_response();
  EXPECT_EQ(chunked.body, "hello");
  EXPECT_EQ(chunked.trailers.value("x-sum"), "1");
}

TEST_F(Actions, PipelinedRequestsAreAnsweredInOrder) {
  RawClient raw = proxy_->raw();
  std::string requests;
  const std::vector<std::string> paths = {"/f/body", "/echo", "/f/status",
                                          "/two/x",  "/w/v2", "/bytes/204"};
  constexpr int kRounds = 10;
  for (int i = 0; i < kRounds; ++i)
    for (const std::string& path : paths)
      requests += "POST " + path + " HTTP/1.1\r\nHost: a.test\r\nContent-Length: " +
                  (path == "/bytes/204" ? "0\r\n\r\n" : "2\r\n\r\n" + std::to_string(10 + i));
  raw.send(requests);
  for (int i = 0; i < kRounds; ++i) {
    const std::string body = std::to_string(10 + i);
    EXPECT_EQ(raw.read_response("POST").body, "pong\n");
    EXPECT_EQ(raw.read_response("POST").body, body);
    EXPECT_EQ(raw.read_response("POST").status, 418);
    EXPECT_EQ(raw.read_response("POST").body, body);
    EXPECT_EQ(raw.read_response("POST").body, "v2");
    EXPECT_EQ(raw.read_response("POST").status, 204);
  }
}

TEST_F(Actions, BodiesHaveLimits) {
  struct Row {
    std::string listener;
    std::string target;
    std::size_t fits;
  };
  for (const Row& row :
       {Row{"main", "/limited", 10}, Row{"small", "/x", 100}, Row{"small", "/limited", 10}}) {
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      for (const bool with_length : {true, false}) {
        SCOPED_TRACE(row.listener + row.target + std::string(name_of(protocol)) +
                     (with_length ? " with length" : ""));
        Client client = proxy_->client(protocol, row.listener);
        const auto post = [&](std::size_t size) {
          Request request{.method = "POST", .target = row.target, .body = std::string(size, 'b')};
          if (with_length) request.fields = {{"content-length", std::to_string(size)}};
          return client.request(request);
        };
        EXPECT_EQ(post(row.fits).status, 200);
        const int before = echo_->requests();
        const Response refused = post(row.fits + 1);
        EXPECT_EQ(refused.status, 413);
        EXPECT_TRUE(refused.body.starts_with("413 body_too_large: ")) << refused.body;
        if (with_length) {
          EXPECT_EQ(echo_->requests(), before);
        }
      }
    }
  }
  EXPECT_EQ(proxy_->client().post("/x", std::string(500, 'b')).status, 200);
}

TEST_F(Actions, AnAnnouncedBodyThatIsTooLargeIsRefusedAtOnce) {
  RawClient raw = proxy_->raw();
  raw.send("POST /limited HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n");
  EXPECT_EQ(raw.read_response("POST").status, 413);
  EXPECT_EQ(raw.read_end(), Socket::End::kFin);
}

// ---- protocols

// In the clear, gRPC goes upstream as HTTP/2 by prior knowledge, everything else as HTTP/1.
TEST(Grpc, IsToldByItsContentType) {
  std::mutex mutex;
  std::string spoken;
  Origin origin([&](RawClient& connection, int) {
    const std::string begun(connection.peek(3));
    {
      const std::lock_guard lock(mutex);
      spoken = begun;
    }
    if (begun == "PRI") return;
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { any: "$ORIGIN" }
    routes: [{ to: any, retry: false }])",
                 {{"ORIGIN", origin.address()}});
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2})
    for (const auto& [type, expected] :
         std::vector<std::pair<std::string, std::string>>{{"application/grpc", "PRI"},
                                                          {"Application/gRPC+proto", "PRI"},
                                                          {"application/grpc;charset=utf-8", "PRI"},
                                                          {"application/grpc-web", "POS"},
                                                          {"application/grpc-web+proto", "POS"},
                                                          {"application/grpc-web-text", "POS"},
                                                          {"application/grpcx", "POS"},
                                                          {"application/json", "POS"}}) {
      SCOPED_TRACE(type + std::string(name_of(protocol)));
      const Response response = proxy.client(protocol).request(
          {.method = "POST", .fields = {{"content-type", type}}, .body = "x"});
      EXPECT_EQ(response.status, 200);
      EXPECT_EQ(response.fields.value("grpc-status"), expected == "PRI" ? "14" : "");
      const std::lock_guard lock(mutex);
      EXPECT_EQ(spoken, expected);
    }
}

}  // namespace
}  // namespace outrider::test
