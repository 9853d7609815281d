// Whom a request is for and what it says of where it came from, against the binary: authorities and
// targets in every form, one spelling of the path for routing and forwarding, fields that steer
// proxies, hop-by-hop fields, loops, redirects. A recording origin says what really arrived.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/harness/outrider.h"
#include "tests/harness/recorder.h"

namespace outrider::test {
namespace {

using namespace std::string_literals;
using testing::AnyOf;
using testing::Contains;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kYaml[] = R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      trusting: { address: 127.0.0.1:0, trust: [127.0.0.0/8, 10.0.0.0/8] }
      bare: { address: 127.0.0.1:0, forwarded: false }
      literal: { address: 127.0.0.1:0, paths: { merge_slashes: false } }
      strict: { address: 127.0.0.1:0, paths: { escaped_slashes: reject } }
      keeping: { address: 127.0.0.1:0, paths: { escaped_slashes: keep } }
      old: { address: 127.0.0.1:0, redirect: https }
      loop: { address: "unix:$FOLDER/loop.sock" }
    services:
      origin: "$ORIGIN"
      self: "unix:$FOLDER/loop.sock"
    routes:
      - { name: all, listeners: [main, trusting, bare, literal, strict, keeping], to: origin }
      - name: kept
        listeners: [main, literal, strict, keeping]
        match: /admin/**
        respond: { status: 403, body: kept }
      - { name: moved, listeners: [main, literal], match: /r/**, redirect: { path: "/**" } }
      - { name: secure, listeners: [main, literal], match: /s/**, redirect: { scheme: https } }
      - name: elsewhere
        listeners: [main, literal]
        match: /h/**
        redirect: { scheme: https, host: b.test, path: "/**" }
      - { name: rewritten, listeners: [main, literal], match: /w/**, to: origin, rewrite: "/**" }
      - { name: no-upgrade, listeners: [main], match: /tunnel-less, to: origin, upgrade: [] }
      - { name: round, listeners: [main], match: /loop/**, to: self }
      - { name: again, listeners: [loop], to: self })";

class TargetsAndTrust : public testing::Test {
 protected:
  Response send(const std::string& bytes, const std::string& listener = "main") {
    RawClient client = proxy_.raw(listener);
    client.send(bytes);
    return client.read_response();
  }

  Response get(const std::string& target, const std::string& fields = "",
               const std::string& listener = "main") {
    return send("GET " + target + " HTTP/1.1\r\nHost: a.test\r\n" + fields + "\r\n", listener);
  }

  // Sends one with these fields; as it arrived.
  Request forwarded(const std::string& fields, const std::string& listener = "main",
                    const std::string& head = "GET /@ HTTP/1.1\r\nHost: a.test\r\n") {
    const std::string target = "/row-" + std::to_string(++rows_);
    std::string bytes = head + fields + "\r\n";
    bytes.replace(bytes.find("/@"), 2, target);
    const Response response = send(bytes, listener);
    EXPECT_EQ(response.status, 200) << fields << response.body;
    const std::vector<Request> arrived = origin_.requests(target);
    EXPECT_THAT(arrived, SizeIs(1)) << fields;
    return arrived.empty() ? Request{} : arrived.front();
  }

  // Each is answered 400, the connection closes, and nothing arrives.
  void refused(const std::vector<std::string>& rows) {
    const std::size_t before = origin_.requests().size();
    for (const std::string& bytes : rows) {
      SCOPED_TRACE(testing::PrintToString(bytes));
      try {
        RawClient client = proxy_.raw();
        client.send(bytes);
        const Response response = client.read_response();
        EXPECT_EQ(response.status, 400);
        EXPECT_TRUE(response.body.starts_with("400 bad_request: ")) << response.body;
        EXPECT_EQ(client.read_end(), Socket::End::kFin);
      } catch (const HarnessError& error) {
        ADD_FAILURE() << error.what();
      }
    }
    EXPECT_EQ(origin_.requests().size(), before);
  }

  Recorder origin_;
  Outrider proxy_{kYaml, {{"ORIGIN", origin_.address()}}};
  int rows_ = 0;
};

// ---- authority

TEST_F(TargetsAndTrust, RefusesHostsThatAreNone) {
  std::vector<std::string> rows = {"GET / HTTP/1.1\r\n\r\n",
                                   "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
                                   "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
                                   "GET / HTTP/1.1\r\nHost: a.test\r\nhOST: b.test\r\n\r\n",
                                   "GET http://a.test/ HTTP/1.1\r\n\r\n",
                                   "GET http://a.test/ HTTP/1.1\r\nHost: a b\r\n\r\n"};
  for (const std::string& host : {"a b"s,
                                  "a,b"s,
                                  "a.test, b.test"s,
                                  "user@a.test"s,
                                  "@a.test"s,
                                  "a.test/"s,
                                  "a.test/x"s,
                                  "a.test?x"s,
                                  "a.test#x"s,
                                  "a\\b"s,
                                  "a.test:"s + "x",
                                  "a.test:-1"s,
                                  "a.test:65536"s,
                                  "a.test:99999999999"s,
                                  "a.test:80:80"s,
                                  "a.test:80x"s,
                                  "a.test:+80"s,
                                  ":80"s,
                                  "[::1"s,
                                  "::1"s,
                                  "[::1]x"s,
                                  "[::1]80"s,
                                  "[zz]"s,
                                  "[]"s,
                                  "[::1]:x"s,
                                  "a]b"s,
                                  "[a"s,
                                  "http://a.test"s,
                                  "a\x01.test"s,
                                  "a\x7f"s,
                                  "a\0b"s,
                                  "a.test\t b"s,
                                  "a%00b"s,
                                  "a<b>"s,
                                  "a\"b"s,
                                  "a^b"s,
                                  "a|b"s,
                                  "a`b"s,
                                  "a{b}"s})
    rows.push_back("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
  refused(rows);
}

TEST_F(TargetsAndTrust, CarriesHostAsItIs) {
  for (const char* host : {"a.test", "A.Test", "a.test.", "a.test:80", "a.test:8443", "[::1]",
                           "[2001:db8::1]:8080", "127.0.0.1:1", "a_b.test", "xn--bcher-kva.test"})
    EXPECT_EQ(forwarded("", "main", "GET /@ HTTP/1.1\r\nHost: "s + host + "\r\n").authority, host);
  const Request old = forwarded("", "main", "GET /@ HTTP/1.0\r\n");
  EXPECT_EQ(old.fields.count("host"), 1U);
}

// ---- forms of the target

TEST_F(TargetsAndTrust, AbsoluteFormBecomesOriginForm) {
  struct Row {
    std::string target;
    std::string path;
    std::string authority;
  };
  for (const Row& row : std::vector<Row>{{"http://b.test/x", "/x", "b.test"},
                                         {"http://b.test/x?y=//z", "/x?y=//z", "b.test"},
                                         {"http://b.test", "/", "b.test"},
                                         {"http://b.test?y", "/?y", "b.test"},
                                         {"HTTP://b.test/x2", "/x2", "b.test"},
                                         {"http://b.test:8080/x3", "/x3", "b.test:8080"},
                                         {"http://[::1]:80/x4", "/x4", "[::1]:80"},
                                         {"http://b.test/a/%2e%2e//x5", "/x5", "b.test"}}) {
    SCOPED_TRACE(row.target);
    const Response response = get(row.target);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.fields.value("x-target"), row.path);
    const Request arrived = origin_.requests().back();
    EXPECT_EQ(arrived.target, row.path);
    EXPECT_EQ(arrived.authority, row.authority);
    EXPECT_EQ(arrived.fields.count("host"), 1U);
  }
  EXPECT_EQ(get("http://b.test/x/../admin").status, 403);
  EXPECT_EQ(get("http://b.test/%61dmin/x").status, 403);
}

TEST_F(TargetsAndTrust, RefusesOtherForms) {
  std::vector<std::string> rows;
  for (const std::string& target : {"http://user@b.test/x"s,
                                    "http://user:pw@b.test/x"s,
                                    "http:///x"s,
                                    "http://:80/x"s,
                                    "http://?x"s,
                                    "http://"s,
                                    "ftp://b.test/x"s,
                                    "file:///etc/passwd"s,
                                    "ws://b.test/x"s,
                                    "gopher://b.test/"s,
                                    "http:/x"s,
                                    "http:b.test/x"s,
                                    "http://b.test:99999/x"s,
                                    "http://b.test:x/x"s,
                                    "http://b.test/x#f"s,
                                    "http://b test/x"s,
                                    "http://b.test\\x"s,
                                    "http://b.test\\@c.test/x"s,
                                    "http://b,c/x"s,
                                    "//b.test@c"s + "\x01",
                                    "b.test:80"s,
                                    "b.test"s,
                                    "x"s,
                                    "x/y"s,
                                    "?x"s,
                                    "*"s,
                                    "*/x"s,
                                    "/x#f"s,
                                    "#"s,
                                    "/x\x01"s,
                                    "/x\x7f"s,
                                    "/x\0y"s,
                                    "/x\ty"s,
                                    "http://b.test/../x"s,
                                    "http://b.test/%2e%2e/x"s,
                                    "http://b.test/x%00"s,
                                    "http://b.test/x%zz"s})
    rows.push_back("GET " + target + " HTTP/1.1\r\nHost: a.test\r\n\r\n");
  rows.push_back("OPTIONS ** HTTP/1.1\r\nHost: a.test\r\n\r\n");
  refused(rows);
}

TEST_F(TargetsAndTrust, OptionsOfTheServerItself) {
  const Response response = send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.fields.value("x-target"), "*");
}

// ---- paths

struct Path {
  std::string sent;
  int status;
  std::string arrives = {};  // with status 200
};

const std::vector<Path>& paths() {
  static const std::vector<Path> all = {
      // dot segments
      {"/a/../b", 200, "/b"},
      {"/a/./b", 200, "/a/b"},
      {"/./b", 200, "/b"},
      {"/a/..", 200, "/"},
      {"/a/b/..", 200, "/a/"},
      {"/a/.", 200, "/a/"},
      {"/a/b/../../c", 200, "/c"},
      {"/a/%2e%2e/b", 200, "/b"},
      {"/a/%2E%2e/b", 200, "/b"},
      {"/a/.%2e/b", 200, "/b"},
      {"/a/%2e./b", 200, "/b"},
      {"/%2e/b", 200, "/b"},
      {"/a/%2E/b", 200, "/a/b"},
      {"/a/.../b", 200, "/a/.../b"},
      {"/a/..b/.c", 200, "/a/..b/.c"},
      {"/..", 400},
      {"/../a", 400},
      {"/a/../../b", 400},
      {"/%2e%2e/a", 400},
      {"/a/%2e%2e/%2E%2E/b", 400},
      {"/./../a", 400},
      {"//../a", 400},
      // slashes
      {"//", 200, "/"},
      {"/a//b", 200, "/a/b"},
      {"///a///b///", 200, "/a/b/"},
      {"/a//../b", 200, "/b"},
      // what is kept, byte for byte
      {"/a%2fb", 200, "/a%2fb"},
      {"/a%2Fb%5c%5C", 200, "/a%2Fb%5c%5C"},
      {"/..%2fadmin", 200, "/..%2fadmin"},
      {"/x/..%2f..%2fadmin", 200, "/x/..%2f..%2fadmin"},
      {"/%2fadmin", 200, "/%2fadmin"},
      {"/..;/admin", 200, "/..;/admin"},
      {"/a;x=../admin", 200, "/a;x=../admin"},
      {"/%252e%252e/admin", 200, "/%252e%252e/admin"},
      {"/%2561dmin", 200, "/%2561dmin"},
      {"/%c0%ae%c0%ae/admin", 200, "/%c0%ae%c0%ae/admin"},
      {"/%e0%80%af", 200, "/%e0%80%af"},
      {"/%C3%BC", 200, "/%C3%BC"},
      {"/%21%24%26%3b%3D%3a%40", 200, "/%21%24%26%3b%3D%3a%40"},
      {"/!$&'()*+,;=:@", 200, "/!$&'()*+,;=:@"},
      {"/ADMIN", 200, "/ADMIN"},
      {"/admins", 200, "/admins"},
      // unreserved bytes
      {"/%41%7a%30%2d%2E%5f%7e", 200, "/Az0-._~"},
      {"/%2e%2e%2e", 200, "/..."},
      // the query is the origin's
      {"/a?x=/../..//%2e%2E&y=%zz", 200, "/a?x=/../..//%2e%2E&y=%zz"},
      {"/a/..?x", 200, "/?x"},
      {"/a?", 200, "/a?"},
      // no spelling passes the door
      {"/admin", 403},
      {"/admin/", 403},
      {"/admin/x", 403},
      {"/admin?x", 403},
      {"/x/../admin", 403},
      {"/./admin", 403},
      {"/.//admin", 403},
      {"//admin", 403},
      {"//admin//x", 403},
      {"/x/..//admin", 403},
      {"/%61dmin", 403},
      {"/adm%69n/x", 403},
      {"/%61%64%6D%69%6e", 403},
      {"/x/%2e%2e/%61dmin", 403},
      {"/%2e/admin", 403},
      {"/admin/./x", 403},
      {"/admin/../admin", 403},
      {"/admin/x/..", 403},
      // what no path has
      {"/a%00b", 400},
      {"/%", 400},
      {"/a%2", 400},
      {"/a%zz", 400},
      {"/a%g0", 400},
      {"/a%0", 400},
      {"/a%%41", 400},
      {"/a\\b", 400},
      {"/..\\admin", 400},
      {"\\admin", 400},
  };
  return all;
}

class Paths : public TargetsAndTrust, public testing::WithParamInterface<Protocol> {};

TEST_P(Paths, AreTheSameForRoutingAndForwarding) {
  for (const Path& path : paths()) {
    SCOPED_TRACE(path.sent);
    Client client = proxy_.client(GetParam());
    Response response;
    try {
      response = client.get(path.sent);
    } catch (const HarnessError& error) {
      // With HTTP/2, a reset of the stream refuses it as well.
      EXPECT_TRUE(GetParam() == Protocol::kHttp2 && path.status == 400) << error.what();
      continue;
    }
    EXPECT_EQ(response.status, path.status);
    EXPECT_EQ(response.fields.value("x-target"), path.arrives);
  }
  for (const Request& request : origin_.requests())
    EXPECT_FALSE(request.target.starts_with("/admin") && request.target != "/admins");
}

INSTANTIATE_TEST_SUITE_P(TargetsAndTrust, Paths,
                         testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& tested) { return std::string(name_of(tested.param)); });

// What the contract says of a path, in other words than the proxy's: decode what need not be
// encoded, merge slashes, walk the segments. Empty: above the root.
std::string reference_path(const std::string& path, bool merge) {
  std::string decoded;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const char byte =
        path[i] == '%' ? static_cast<char>(std::stoi(path.substr(i + 1, 2), nullptr, 16)) : '\0';
    const bool unreserved =
        (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
        (byte >= '0' && byte <= '9') ||
        (byte != '\0' && std::string_view("-._~").find(byte) != std::string_view::npos);
    if (unreserved) {
      decoded += byte;
      i += 2;
    } else {
      decoded += path[i];
    }
  }
  if (merge)
    decoded.erase(std::unique(decoded.begin(), decoded.end(),
                              [](char a, char b) { return a == '/' && b == '/'; }),
                  decoded.end());
  std::vector<std::string> kept;
  bool directory = false;
  for (std::size_t begin = 1; begin <= decoded.size();) {
    const std::size_t end = std::min(decoded.find('/', begin), decoded.size());
    const std::string segment = decoded.substr(begin, end - begin);
    directory = segment == "." || segment == "..";
    if (segment == "..") {
      if (kept.empty()) return "";
      kept.pop_back();
    } else if (segment != ".") {
      kept.push_back(segment);
    }
    begin = end + 1;
  }
  std::string result;
  for (const std::string& segment : kept) result += "/" + segment;
  return directory || kept.empty() ? result + "/" : result;
}

TEST_F(TargetsAndTrust, RandomSpellingsMeetAnIndependentReading) {
  const std::vector<std::string> segments = {
      "a",     "admin", "%61dmin", "adm%69n", "..",   ".",   "%2e",    "%2E%2e", ".%2e", "",  "..;",
      "%252e", "a%2fb", "...",     "%2f",     "b%5c", "%41", "%c0%ae", "admins", "%7e~", ";", "@:"};
  std::mt19937 random(20240229);
  const auto below = [&](std::size_t bound) { return random() % bound; };
  int refused = 0;
  int kept = 0;
  for (const bool merge : {true, false}) {
    const std::string listener = merge ? "main" : "literal";
    Client client = proxy_.client(Protocol::kHttp1, listener);
    for (int i = 0; i < 1000; ++i) {
      std::string path;
      for (std::size_t n = 1 + below(6); n > 0; --n) path += "/" + segments[below(segments.size())];
      SCOPED_TRACE(listener + " " + path);
      const std::string expected = reference_path(path, merge);
      const Response response = client.get(path);
      if (expected.empty()) {
        ++refused;
        ASSERT_EQ(response.status, 400);
      } else if (expected == "/admin" || expected.starts_with("/admin/")) {
        ++kept;
        ASSERT_EQ(response.status, 403) << expected;
      } else {
        ASSERT_EQ(response.status, 200) << expected;
        ASSERT_EQ(response.fields.value("x-target"), expected);
      }
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(kept, 50);
}

TEST_F(TargetsAndTrust, SlashesStayWhereTheListenerSaysSo) {
  for (const Path& path : std::vector<Path>{{"/a//b", 200, "/a//b"},
                                            {"//a", 200, "//a"},
                                            {"/a//../b", 200, "/a/b"},
                                            {"//../a", 200, "/a"},
                                            {"//admin", 200, "//admin"},
                                            {"/admin//x", 403}}) {
    SCOPED_TRACE(path.sent);
    const Response response = get(path.sent, "", "literal");
    EXPECT_EQ(response.status, path.status);
    EXPECT_EQ(response.fields.value("x-target"), path.arrives);
  }
}

TEST_F(TargetsAndTrust, EscapedSlashesAsTheListenerSays) {
  for (const char* path : {"/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/admin%2fx", "/admin/%2f"}) {
    EXPECT_EQ(get(path, "", "strict").status, 400) << path;
    const bool behind_the_door = "/admin/%2f"s == path;
    EXPECT_EQ(get(path, "", "keeping").fields.value("x-target"), behind_the_door ? "" : path);
  }
  EXPECT_EQ(get("/a%252fb", "", "strict").status, 200);
  EXPECT_EQ(get("/a?b=%2f", "", "strict").status, 200);
}

TEST_F(TargetsAndTrust, ARewriteMakesNoOtherKindOfPath) {
  EXPECT_EQ(get("/w/x").fields.value("x-target"), "/x");
  EXPECT_EQ(get("/w/%2e%2e/w/%61").fields.value("x-target"), "/a");
  EXPECT_EQ(get("/w//x").fields.value("x-target"), "/x");
  EXPECT_EQ(get("/w/..;/x").fields.value("x-target"), "/..;/x");
  const Response doubled = get("/w//evil.test/x", "", "literal");
  EXPECT_THAT(doubled.status, AnyOf(200, 400));
}

// ---- redirects

TEST_F(TargetsAndTrust, RedirectsLeadNowhereElse) {
  for (const char* listener : {"main", "literal", "old"})
    for (const std::string& target : {"/r/x"s,
                                      "/r//evil.test/x"s,
                                      "/r///evil.test"s,
                                      "/r/%2fevil.test"s,
                                      "/r/%5cevil.test"s,
                                      "/r/.//evil.test"s,
                                      "/r/;//evil.test"s,
                                      "/s//evil.test/x"s,
                                      "/s/x"s,
                                      "//evil.test/x"s,
                                      "//evil.test/%2e%2e/s"s,
                                      "/h//evil.test/x"s,
                                      "/h/@evil.test"s,
                                      "/s/@evil.test"s,
                                      "/r/@evil.test"s,
                                      "/r/http://evil.test/"s,
                                      "/r/\tx"s,
                                      "/r/%09/evil.test"s,
                                      "/s//"s,
                                      "/r//"s}) {
      SCOPED_TRACE(listener + " "s + target);
      const Response response = get(target, "", listener);
      if (response.status < 300 || response.status >= 400) continue;
      const std::string location = response.fields.value("location");
      std::string path = location;
      for (const char* base : {"https://a.test", "http://a.test", "https://b.test"})
        if (location.starts_with(base)) path = location.substr(std::string(base).size());
      EXPECT_TRUE(path.starts_with("/")) << location;
      EXPECT_FALSE(path.starts_with("//")) << location;
      EXPECT_FALSE(path.starts_with("/\\")) << location;
    }
  EXPECT_EQ(get("/s/x?y=1").fields.value("location"), "https://a.test/s/x?y=1");
  EXPECT_EQ(get("/h/x?y=1").fields.value("location"), "https://b.test/x?y=1");
  EXPECT_EQ(get("/x?y=1", "", "old").fields.value("location"), "https://a.test/x?y=1");
  EXPECT_EQ(send("GET /s/x HTTP/1.1\r\nHost: a.test:8080\r\n\r\n").fields.value("location"),
            "https://a.test/s/x");
  for (const char* host : {"evil.test@a.test", "a.test/evil", "a.test\\evil", "a.test, evil.test"})
    EXPECT_EQ(send("GET /s/x HTTP/1.1\r\nHost: "s + host + "\r\n\r\n").status, 400) << host;
}

// ---- fields of hops

TEST_F(TargetsAndTrust, RemovesHopByHopFieldsOfRequests) {
  const Request arrived = forwarded(
      "Connection: keep-alive, X-Secret , TE\r\nConnection: x-other\r\nX-Secret: 1\r\nX-Other: "
      "2\r\n"
      "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\n"
      "Upgrade: foo/1\r\nProxy-Authorization: Basic eA==\r\nX-Kept: 3\r\n");
  for (const char* name :
       {"x-secret", "x-other", "keep-alive", "proxy-connection", "upgrade", "proxy-authorization"})
    EXPECT_FALSE(arrived.fields.has(name)) << name;
  EXPECT_THAT(arrived.fields.value("te"), AnyOf("", "trailers"));
  EXPECT_EQ(arrived.fields.value("connection").find("x-"), std::string::npos);
  EXPECT_EQ(arrived.fields.value("x-kept"), "3");
}

TEST_F(TargetsAndTrust, ConnectionCannotRemoveWhatOthersRelyOn) {
  const Request arrived = forwarded(
      "Connection: Host, Content-Length, Transfer-Encoding, Authorization, Cookie, "
      "X-Forwarded-For, "
      "X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, X-Outrider-Hops, Content-Type\r\n"
      "Authorization: Bearer x\r\nCookie: a=b\r\nX-Outrider-Hops: 3\r\nContent-Type: text/x\r\n"
      "X-Request-Id: mine\r\nContent-Length: 0\r\n");
  EXPECT_EQ(arrived.authority, "a.test");
  EXPECT_EQ(arrived.fields.value("content-length"), "0");
  EXPECT_EQ(arrived.fields.value("authorization"), "Bearer x");
  EXPECT_EQ(arrived.fields.value("cookie"), "a=b");
  EXPECT_EQ(arrived.fields.value("x-forwarded-for"), "127.0.0.1");
  EXPECT_EQ(arrived.fields.value("x-forwarded-proto"), "http");
  EXPECT_EQ(arrived.fields.value("x-forwarded-host"), "a.test");
  EXPECT_EQ(arrived.fields.value("x-outrider-hops"), "4");
  EXPECT_NE(arrived.fields.value("x-request-id"), "");

  // The body's end stays the body's end.
  const Request chunked = forwarded(
      "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
      "main", "POST /@ HTTP/1.1\r\nHost: a.test\r\n");
  EXPECT_EQ(chunked.body, "hello");
}

TEST(HopByHop, FieldsOfResponsesAreRemoved) {
  Origin origin([](RawClient& connection, int) {
    connection.read_request();
    connection.send(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Secret, Content-Length, Content-Type\r\n"
        "Content-Type: text/x\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: "
        "close\r\n"
        "Upgrade: h2c\r\nX-Kept: 2\r\nContent-Length: 2\r\n\r\nok");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { origin: "$ORIGIN" }
    routes: [{ to: origin }])",
                 {{"ORIGIN", origin.address()}});
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    const Response response = proxy.client(protocol).get("/");
    EXPECT_EQ(response.body, "ok");
    for (const char* name : {"x-secret", "keep-alive", "proxy-connection", "upgrade"})
      EXPECT_FALSE(response.fields.has(name)) << name;
    EXPECT_FALSE(equal_case_blind(response.fields.value("connection"), "close"));
    EXPECT_EQ(response.fields.value("x-kept"), "2");
    EXPECT_EQ(response.fields.value("content-length"), "2");
  }
}

TEST_F(TargetsAndTrust, NeverSwitchesToHttp2) {
  for (const char* fields :
       {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
        "AAMAAABkAAQAAP__\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: h2\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
        "Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "Connection: Upgrade\r\nUpgrade: foo\r\n"}) {
    SCOPED_TRACE(fields);
    const Request arrived = forwarded(fields);
    EXPECT_THAT(arrived.fields.value("upgrade"), AnyOf("", "websocket"));
    EXPECT_FALSE(arrived.fields.has("http2-settings"));
    EXPECT_EQ(arrived.fields.value("connection").find("ettings"), std::string::npos);
  }
  EXPECT_FALSE(forwarded("Upgrade: websocket\r\n").fields.has("upgrade"));  // not in Connection

  const std::string websocket =
      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  EXPECT_TRUE(equal_case_blind(forwarded(websocket).fields.value("upgrade"), "websocket"));
  ASSERT_EQ(get("/tunnel-less", websocket).status, 200);
  EXPECT_FALSE(origin_.requests("/tunnel-less").at(0).fields.has("upgrade"));
}

// ---- what a request says of its past

constexpr char kClaims[] =
    "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n"
    "X-Forwarded-Port: 9999\r\nForwarded: for=1.2.3.4;host=evil.test\r\nX-Real-IP: 1.2.3.4\r\n";

TEST_F(TargetsAndTrust, BelievesNothingOfAnUntrustedPeer) {
  const Request arrived = forwarded(kClaims);
  EXPECT_EQ(arrived.fields.value("x-forwarded-for"), "127.0.0.1");
  EXPECT_EQ(arrived.fields.value("x-forwarded-proto"), "http");
  EXPECT_EQ(arrived.fields.value("x-forwarded-host"), "a.test");
  EXPECT_NE(arrived.fields.value("x-forwarded-port"), "9999");
  for (const char* name : {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"})
    EXPECT_EQ(arrived.fields.count(name), 1U) << name;
  EXPECT_FALSE(arrived.fields.has("forwarded"));
  EXPECT_FALSE(arrived.fields.has("x-real-ip"));
  EXPECT_EQ(proxy_.log(1).at(0).at("client"), "127.0.0.1");

  const Request twice = forwarded("X-Forwarded-For: 1.2.3.4\r\nx-forwarded-FOR: 5.6.7.8\r\n");
  EXPECT_EQ(twice.fields.value("x-forwarded-for"), "127.0.0.1");
  EXPECT_EQ(twice.fields.count("x-forwarded-for"), 1U);
}

TEST_F(TargetsAndTrust, KeepsWhatATrustedPeerSays) {
  const Request arrived = forwarded(kClaims, "trusting");
  EXPECT_EQ(arrived.fields.value("x-forwarded-for"), "1.2.3.4, 127.0.0.1");
  EXPECT_EQ(arrived.fields.value("x-forwarded-proto"), "https");
  EXPECT_EQ(arrived.fields.value("x-forwarded-host"), "evil.test");
  EXPECT_EQ(proxy_.log(1).at(0).at("client"), "1.2.3.4");

  struct Row {
    std::string fields;
    std::string client;
    std::string arrives;
  };
  std::size_t lines = 1;
  for (const Row& row : std::vector<Row>{
           {"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.9.9.9\r\n", "1.2.3.4",
            "6.6.6.6, 1.2.3.4, 10.9.9.9, 127.0.0.1"},
           {"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 10.0.0.1\r\n", "6.6.6.6",
            "6.6.6.6, 10.0.0.1, 127.0.0.1"},
           {"X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "10.0.0.1", "10.0.0.1, 10.0.0.2, 127.0.0.1"},
           {"", "127.0.0.1", "127.0.0.1"}}) {
    SCOPED_TRACE(row.fields);
    EXPECT_EQ(forwarded(row.fields, "trusting").fields.value("x-forwarded-for"), row.arrives);
    EXPECT_EQ(proxy_.log(++lines).back().at("client"), row.client);
  }
}

TEST_F(TargetsAndTrust, AddsNothingWhereToldSo) {
  const Request arrived = forwarded(kClaims, "bare");
  for (const char* name :
       {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded",
        "x-real-ip", "x-request-id", "x-outrider-hops", "x-outrider-attempt"})
    EXPECT_FALSE(arrived.fields.has(name)) << name;
}

TEST_F(TargetsAndTrust, RequestIdsAreTheClientsIfSane) {
  EXPECT_EQ(forwarded("X-Request-Id: abc-123_x.y\r\n").fields.value("x-request-id"), "abc-123_x.y");
  for (const std::string& id :
       {"with space"s, "a\"b"s, std::string(1000, 'x'), ""s, "a\tb"s, "\xff"s}) {
    const Request arrived = forwarded("X-Request-Id: " + id + "\r\n");
    EXPECT_EQ(arrived.fields.count("x-request-id"), 1U);
    EXPECT_NE(arrived.fields.value("x-request-id"), id);
    EXPECT_NE(arrived.fields.value("x-request-id"), "");
  }
}

TEST_F(TargetsAndTrust, RemovesFieldsThatSteerProxies) {
  std::string fields;
  const std::vector<std::string> names = {"X-Outrider-Debug",
                                          "X-Outrider-Retry",
                                          "x-outrider-timeout",
                                          "X-OUTRIDER-Anything",
                                          "X-Envoy-Retry-On",
                                          "x-envoy-upstream-rq-timeout-ms",
                                          "X-Envoy-Original-Path",
                                          "X-Envoy-Force-Trace",
                                          "l5d-dst-override",
                                          "L5D-Client-Id",
                                          "X-Original-URL",
                                          "X-Original-Path",
                                          "X-Rewrite-URL",
                                          "Proxy",
                                          "proxy",
                                          "X-Forwarded-Client-Cert",
                                          "x-forwarded-CLIENT-cert",
                                          "X-Forwarded-Server",
                                          "X-Forwarded-Prefix"};
  for (const std::string& name : names) fields += name + ": 1\r\n";
  const Request arrived = forwarded(fields + "X-Mine: 1\r\n");
  for (const std::string& name : names) EXPECT_FALSE(arrived.fields.has(name)) << name;
  EXPECT_TRUE(arrived.fields.has("x-mine"));

  // These not even from a trusted peer.
  const Request trusted = forwarded(
      "Proxy: 1\r\nX-Forwarded-Client-Cert: Hash=1\r\nX_Forwarded_Client_Cert: Hash=1\r\n"
      "x-forwarded-client-cert: Hash=2\r\n",
      "trusting");
  for (const char* name : {"proxy", "x-forwarded-client-cert", "x_forwarded_client_cert"})
    EXPECT_FALSE(trusted.fields.has(name)) << name;
}

TEST_F(TargetsAndTrust, RemovesLookAlikes) {
  std::string fields;
  const std::vector<std::string> names = {"X_Forwarded_For",
                                          "X-Forwarded_For",
                                          "x_forwarded-proto",
                                          "Content_Length",
                                          "Transfer_Encoding",
                                          "X_Real_IP",
                                          "X_Forwarded_Client_Cert",
                                          "x_outrider_hops",
                                          "Proxy_Authorization",
                                          "X_Request_Id",
                                          "Content_Type",
                                          "X_Envoy_Retry_On",
                                          "User_Agent"};
  for (const std::string& name : names) fields += name + ": 1\r\n";
  for (const char* listener : {"main", "trusting"}) {
    const Request arrived = forwarded(fields + "my_header: 2\r\n_x: 3\r\n", listener);
    for (const std::string& name : names)
      EXPECT_FALSE(arrived.fields.has(name)) << listener << name;
    EXPECT_EQ(arrived.fields.value("my_header"), "2");
    EXPECT_EQ(arrived.fields.value("_x"), "3");
  }
}

TEST_F(TargetsAndTrust, TrailersSayNothingThatOnlyAHeadMay) {
  const std::vector<std::string> names = {
      "X_Forwarded_For", "Content_Length",   "X-Envoy-Original-Path",
      "X-Original-URL",  "X-Rewrite-URL",    "l5d-dst-override",
      "X_Outrider_Hops", "X-Forwarded-Host", "x-outrider-debug"};
  for (const char* listener : {"main", "trusting"})
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      SCOPED_TRACE(std::string(listener) + std::string(name_of(protocol)));
      Request request{.method = "POST",
                      .target = "/row-" + std::to_string(++rows_),
                      .body = "body",
                      .trailers = {{"x-sum", "1"}, {"grpc-status", "0"}}};
      for (std::string name : names) {
        if (protocol == Protocol::kHttp2)
          for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        request.trailers.push_back({name, "1"});
      }
      EXPECT_EQ(proxy_.client(protocol, listener).request(request).status, 200);
      const std::vector<Request> arrived = origin_.requests(request.target);
      ASSERT_THAT(arrived, SizeIs(1));
      EXPECT_EQ(arrived.front().body, "body");
      EXPECT_EQ(arrived.front().trailers.size(), 2U);
      EXPECT_EQ(arrived.front().trailers.value("x-sum"), "1");
      EXPECT_EQ(arrived.front().trailers.value("grpc-status"), "0");
    }
}

// ---- loops

TEST_F(TargetsAndTrust, EndsALoopThroughItself) {
  const Response response = get("/loop/x");
  EXPECT_EQ(response.status, 508);
  EXPECT_TRUE(response.body.starts_with("508 loop_detected: ")) << response.body;
  const auto lines = proxy_.log(11);  // one for each time round, the last refused
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const auto& line) { return line.at("reason") == "loop_detected"; }),
            1);
  EXPECT_EQ(proxy_.await_metric("outrider_requests_total", 11), 11);
}

TEST_F(TargetsAndTrust, CountsHopsFromAnyone) {
  EXPECT_EQ(forwarded("").fields.value("x-outrider-hops"), "1");
  EXPECT_EQ(forwarded("X-Outrider-Hops: 8\r\n").fields.value("x-outrider-hops"), "9");
  EXPECT_EQ(
      forwarded("X-Outrider-Hops: 5\r\nX-Outrider-Hops: 2\r\n").fields.value("x-outrider-hops"),
      "6");
  for (const char* hops : {"10", "11", "4294967296", "99999999999999999999999999"})
    EXPECT_EQ(get("/x", "X-Outrider-Hops: "s + hops + "\r\n").status, 508) << hops;
  EXPECT_EQ(get("/x", "X-Outrider-Hops: 1\r\nX-Outrider-Hops: 10\r\n").status, 508);
  for (const char* hops : {"", "-1", "x", "1 0", "0x10", "1.5"})
    EXPECT_EQ(forwarded("X-Outrider-Hops: "s + hops + "\r\n").fields.value("x-outrider-hops"), "1");
  EXPECT_EQ(get("/x", "X-Outrider-Hops: 10\r\n", "bare").status, 200);
}

}  // namespace
}  // namespace outrider::test
