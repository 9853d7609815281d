// The one order of config.md §3, rule by rule, and then against a matcher that sorts every
// candidate and asks each.
#include "filters/route_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace outrider {
namespace {

using config::HostMatch;
using config::Match;
using config::PathMatch;
using config::ValueMatch;

// ---- the model from short forms

HostMatch host_of(std::string text) {
  HostMatch host;
  if (const std::size_t colon = text.find(':'); colon != std::string::npos) {
    host.port = static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1)));
    text.resize(colon);
  }
  if (text.starts_with("*.")) {
    host.kind = HostMatch::Kind::kWildcard;
    host.text = text.substr(2);
  } else if (!text.empty() && text != "*") {
    host.kind = HostMatch::Kind::kExact;
    host.text = text;
  }
  return host;
}

PathMatch path_of(const std::string& text) {
  PathMatch path;
  path.text = text;
  if (text.empty()) return path;
  if (text[0] == '~') {
    path.kind = PathMatch::Kind::kRegex;
    path.regex = text.substr(1);
    return path;
  }
  path.kind = PathMatch::Kind::kExact;
  for (std::size_t at = 1; at <= text.size();) {
    const std::size_t end = std::min(text.find('/', at), text.size());
    const std::string segment = text.substr(at, end - at);
    at = end + 1;
    if (segment == "**") {
      path.kind = PathMatch::Kind::kPrefix;
    } else if (segment.empty() && at > text.size()) {
      path.trailing_slash = true;
    } else if (segment == "*" || segment.starts_with('{')) {
      path.kind = PathMatch::Kind::kTemplate;
      path.segments.push_back({PathMatch::Segment::Kind::kAny,
                               segment == "*" ? "" : segment.substr(1, segment.size() - 2)});
    } else {
      path.segments.push_back({PathMatch::Segment::Kind::kText, segment});
    }
  }
  return path;
}

ValueMatch value_of(const std::string& text) {
  ValueMatch value;
  std::string rest = text;
  if (rest.starts_with('!')) {
    value.negated = true;
    rest.erase(0, 1);
  }
  if (rest.empty())
    value.kind = ValueMatch::Kind::kPresent;
  else if (rest.starts_with('~')) {
    value.kind = ValueMatch::Kind::kRegex;
    rest.erase(0, 1);
  }
  value.text = rest;
  return value;
}

// `[METHODS ][host]PATH`
Match match_of(std::string text) {
  Match match;
  match.short_form = text;
  if (const std::size_t space = text.find(' '); space != std::string::npos) {
    for (std::size_t at = 0; at < space;) {
      const std::size_t end = std::min(text.find(',', at), space);
      match.methods.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    text.erase(0, space + 1);
  }
  const std::size_t path = std::min(text.find_first_of("/~"), text.size());
  match.host = host_of(text.substr(0, path));
  match.path = path_of(text.substr(path));
  return match;
}

config::Cidr net(std::uint8_t last, std::uint8_t bits) {
  config::Cidr cidr;
  cidr.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last};
  cidr.bits = bits;
  return cidr;
}

struct Routes {
  Routes() {
    config::Listener listener;
    listener.name = "main";
    config.listeners.push_back(listener);
  }
  // The route's name is its first match unless given.
  config::Route& add(std::vector<Match> matches, std::string name = "", std::int32_t priority = 0) {
    config::Route route;
    route.name = name.empty() ? matches.front().short_form : name;
    route.listeners = {"main"};
    route.matches = std::move(matches);
    route.priority = priority;
    config.routes.push_back(std::move(route));
    return config.routes.back();
  }
  Routes& operator()(const std::string& match) {
    add({match_of(match)});
    return *this;
  }
  config::Config config;
};

// A request, `[METHOD ]host[:port]/path[?query]`.
struct Request {
  explicit Request(std::string text) : x(blocks, client) {
    if (const std::size_t space = text.find(' '); space != std::string::npos) {
      method(text.substr(0, space));
      text.erase(0, space + 1);
    }
    const std::size_t path = text.find('/');
    std::string host = text.substr(0, path);
    x.request.scheme = "http";
    x.request.authority = x.arena.copy(host);
    if (const std::size_t colon = host.find(':'); colon != std::string::npos) {
      x.host_port = static_cast<std::uint16_t>(std::stoi(host.substr(colon + 1)));
      host.resize(colon);
    }
    x.host = x.arena.copy(host);
    const std::string target = path == std::string::npos ? "*" : text.substr(path);
    const std::size_t query = std::min(target.find('?'), target.size());
    x.path = x.arena.copy(target.substr(0, query));
    x.query = x.arena.copy(target.substr(query));
    x.request.target = x.arena.copy(target);
  }
  void method(const std::string& text) {
    x.request.method_text = x.arena.copy(text);
    x.request.method = method_of(text);
  }
  Request& header(std::string_view name, std::string_view value) {
    x.request.headers.add(header_id(name), x.arena.copy(name), x.arena.copy(value));
    return *this;
  }
  Request& from(std::uint8_t last) {
    x.client_ip = net(last, 128).ip;
    x.client_ip_text = x.arena.concat("10.0.0.", std::to_string(last));
    return *this;
  }
  BlockPool blocks;
  ClientInfo client;
  Exchange x;
};

std::string find(const Routes& routes, const Request& request) {
  const RouteTable table(routes.config, routes.config.listeners[0]);
  RouteHit hit;
  return table.find(request.x, hit) ? routes.config.routes[hit.route].name : "-";
}
std::string find(const Routes& routes, const std::string& request) {
  return find(routes, Request(request));
}

// ---- what a match takes

TEST(RouteTable, WithoutRoutesNothingIsFound) {
  Routes routes;
  EXPECT_EQ(find(routes, "h/"), "-");
}

TEST(RouteTable, ExactPathsAreWhole) {
  Routes routes;
  routes("/a")("/a/b/")("/");
  EXPECT_EQ(find(routes, "h/a"), "/a");
  EXPECT_EQ(find(routes, "h/a?x=/"), "/a");
  EXPECT_EQ(find(routes, "h/a/b/"), "/a/b/");
  EXPECT_EQ(find(routes, "h/"), "/");
  for (const char* request : {"h/a/", "h/a/b", "h/A", "h/aa", "h/a%2Fb"})
    EXPECT_EQ(find(routes, request), "-");
}

TEST(RouteTable, PrefixesAreOfSegments) {
  Routes routes;
  routes("/a/**")("/a/b/c/**");
  EXPECT_EQ(find(routes, "h/a"), "/a/**");
  EXPECT_EQ(find(routes, "h/a/"), "/a/**");
  EXPECT_EQ(find(routes, "h/a/x/y"), "/a/**");
  EXPECT_EQ(find(routes, "h/a/b/cc"), "/a/**");
  EXPECT_EQ(find(routes, "h/a/b/c"), "/a/b/c/**");
  EXPECT_EQ(find(routes, "h/a/b/c/d/"), "/a/b/c/**");
  EXPECT_EQ(find(routes, "h/ab"), "-");
  EXPECT_EQ(find(routes, "h/"), "-");
}

TEST(RouteTable, AnEmptySegmentIsNone) {
  Routes routes;
  routes("/a/{id}")("/b/*/c")("/p/{id}/**")("/s/{id}/");
  EXPECT_EQ(find(routes, "h/a/7"), "/a/{id}");
  EXPECT_EQ(find(routes, "h/b/7/c"), "/b/*/c");
  EXPECT_EQ(find(routes, "h/p/7"), "/p/{id}/**");
  EXPECT_EQ(find(routes, "h/p/7/"), "/p/{id}/**");
  EXPECT_EQ(find(routes, "h/s/7/"), "/s/{id}/");
  for (const char* request :
       {"h/a/", "h/a", "h/a/7/", "h/a/7/8", "h/b//c", "h/p/", "h/p", "h/p//", "h/s/7", "h/s//"})
    EXPECT_EQ(find(routes, request), "-") << request;
}

TEST(RouteTable, EmptySegmentsStayApartWhereSlashesAreNotMerged) {
  Routes routes;
  routes("/a/b/**")("/**");
  EXPECT_EQ(find(routes, "h/a//b"), "/**");
  EXPECT_EQ(find(routes, "h//a/b"), "/**");
  EXPECT_EQ(find(routes, "h/a/b//c"), "/a/b/**");
}

TEST(RouteTable, RegexesAreUnanchoredAndSeeNoQuery) {
  Routes routes;
  routes("~^/v[0-9]+/")("~q$");
  EXPECT_EQ(find(routes, "h/v1/x"), "~^/v[0-9]+/");
  EXPECT_EQ(find(routes, "h/a/q"), "~q$");
  EXPECT_EQ(find(routes, "h/a?q"), "-");
  EXPECT_EQ(find(routes, "h/a/v1/"), "-");
}

TEST(RouteTable, ManyRegexesGoThroughTheSetInOrder) {
  Routes routes;
  for (int i = 0; i < 50; ++i) routes("~^/v" + std::to_string(i) + "($|/)");
  routes("GET ~^/v7")("~^/v");
  EXPECT_EQ(find(routes, "h/v49/x"), "~^/v49($|/)");
  EXPECT_EQ(find(routes, "GET h/v7/x"), "GET ~^/v7");
  EXPECT_EQ(find(routes, "PUT h/v7/x"), "~^/v7($|/)");
  EXPECT_EQ(find(routes, "h/v77"), "GET ~^/v7");
  EXPECT_EQ(find(routes, "h/v99"), "~^/v");
  EXPECT_EQ(find(routes, "h/w"), "-");
}

TEST(RouteTable, RegexInputIsBounded) {
  Routes routes;
  routes("~z$")("~a$");
  EXPECT_EQ(find(routes, "h/" + std::string(limits::kRegexInputBytes - 1, 'a') + "z"), "~a$");
}

TEST(RouteTable, NoPathTakesEverythingAndComesLast) {
  Routes routes;
  routes("shop")("shop~^/v1/");
  EXPECT_EQ(find(routes, "shop/v1/"), "shop~^/v1/");
  EXPECT_EQ(find(routes, "shop/v2/"), "shop");
  EXPECT_EQ(find(routes, "OPTIONS shop"), "shop");
  Routes paths;
  paths("/**")("~.");
  EXPECT_EQ(find(paths, "OPTIONS shop"), "-");
}

TEST(RouteTable, HostsAreExactOrEndInLabels) {
  Routes routes;
  routes("shop.example/**")("*.shop.example/**")("*.a.shop.example/**");
  EXPECT_EQ(find(routes, "shop.example/"), "shop.example/**");
  EXPECT_EQ(find(routes, "b.shop.example/"), "*.shop.example/**");
  EXPECT_EQ(find(routes, "c.b.shop.example/"), "*.shop.example/**");
  EXPECT_EQ(find(routes, "a.shop.example/"), "*.shop.example/**");
  EXPECT_EQ(find(routes, "b.a.shop.example/"), "*.a.shop.example/**");
  for (const char* request :
       {"example/", "xshop.example/", ".shop.example/", "shop.example.x/", "/"})
    EXPECT_EQ(find(routes, request), "-") << request;
}

TEST(RouteTable, PortsCountOnlyWhereWritten) {
  Routes routes;
  routes("h/**")("h:8080/**")("*.h:8080/**")("*:90/**");
  EXPECT_EQ(find(routes, "h/"), "h/**");
  EXPECT_EQ(find(routes, "h:1/"), "h/**");
  EXPECT_EQ(find(routes, "h:8080/"), "h:8080/**");
  EXPECT_EQ(find(routes, "a.h:8080/"), "*.h:8080/**");
  EXPECT_EQ(find(routes, "a.h/"), "-");
  EXPECT_EQ(find(routes, "x:90/"), "*:90/**");
  EXPECT_EQ(find(routes, "h:90/"), "h/**");
}

TEST(RouteTable, TheSchemesPortIsTheOneNotWritten) {
  Routes routes;
  routes("h:443/**")("h:80/**");
  EXPECT_EQ(find(routes, "h/"), "h:80/**");
  Request request("h/");
  request.x.request.scheme = "https";
  EXPECT_EQ(find(routes, request), "h:443/**");
}

TEST(RouteTable, OnlyRoutesOfTheListener) {
  Routes routes;
  routes("/a")("/b");
  routes.config.routes[0].listeners = {"other"};
  routes.config.routes[1].listeners = {"other", "main"};
  EXPECT_EQ(find(routes, "h/a"), "-");
  EXPECT_EQ(find(routes, "h/b"), "/b");
}

// ---- values

struct ValueCase {
  const char* wanted;
  std::vector<const char*> values;  // of the field, in order
  bool holds;
};

TEST(RouteTable, HeaderValues) {
  const std::vector<ValueCase> cases = {
      {"true", {"true"}, true},
      {"true", {"True"}, false},
      {"true", {}, false},
      {"true", {"false", "true"}, true},
      {"~fox", {"Firefox"}, true},
      {"~^fox", {"Firefox"}, false},
      {"", {"x"}, true},
      {"", {""}, true},
      {"", {}, false},
      {"!", {}, true},
      {"!", {""}, false},
      {"!true", {"false"}, true},
      {"!true", {"true"}, false},
      {"!true", {}, true},
      {"!true", {"false", "true"}, false},
      {"!~fox", {"Firefox"}, false},
      {"!~fox", {"a", "b"}, true},
  };
  for (const char* name : {"x-beta", "accept"}) {
    for (const ValueCase& one : cases) {
      Routes routes;
      Match match = match_of("/**");
      match.headers = {{name, value_of(one.wanted)}};
      routes.add({match}, "hit");
      Request request("h/");
      request.header("other", "true");
      std::string upper = name;
      upper[0] = static_cast<char>(upper[0] - 32);
      for (const char* value : one.values) request.header(upper, value);
      EXPECT_EQ(find(routes, request), one.holds ? "hit" : "-") << name << ": " << one.wanted;
    }
  }
}

TEST(RouteTable, HostAsAHeaderIsTheAuthority) {
  Routes routes;
  Match match = match_of("/**");
  match.headers = {{"host", value_of("~:8080$")}};
  routes.add({match}, "hit");
  Request request("h:8080/");
  request.header("Host", "stale");
  EXPECT_EQ(find(routes, request), "hit");
}

TEST(RouteTable, QueryAndCookieValuesAreTheFirst) {
  Routes routes;
  Match query = match_of("/q");
  query.query = {{"debug", value_of("1")}};
  routes.add({query}, "query");
  Match cookie = match_of("/c");
  cookie.cookies = {{"lane", value_of("canary")}};
  routes.add({cookie}, "cookie");
  EXPECT_EQ(find(routes, "h/q?debug=1&debug=2"), "query");
  EXPECT_EQ(find(routes, "h/q?debug=2&debug=1"), "-");
  EXPECT_EQ(find(routes, "h/q"), "-");
  EXPECT_EQ(find(routes, Request("h/c").header("cookie", "a=b; lane=canary")), "cookie");
  EXPECT_EQ(find(routes, Request("h/c").header("cookie", "lane=x; lane=canary")), "-");
}

TEST(RouteTable, MethodsAndClientAddresses) {
  Routes routes;
  Match near = match_of("GET,PURGE /**");
  near.client_ip = {net(1, 128), net(8, 125)};
  routes.add({near}, "near");
  EXPECT_EQ(find(routes, Request("GET h/").from(1)), "near");
  EXPECT_EQ(find(routes, Request("PURGE h/").from(15)), "near");
  EXPECT_EQ(find(routes, Request("GET h/").from(2)), "-");
  EXPECT_EQ(find(routes, Request("POST h/").from(1)), "-");
  EXPECT_EQ(find(routes, Request("PURG h/").from(1)), "-");
  EXPECT_EQ(find(routes, Request("get h/").from(1)), "-");
}

// ---- precedence

TEST(Precedence, PriorityComesBeforeEverything) {
  Routes routes;
  routes("h/a");
  routes.add({match_of("~.")}, "high", 5);
  routes.add({match_of("/b")}, "low", -1);
  EXPECT_EQ(find(routes, "h/a"), "high");
  EXPECT_EQ(find(routes, "h/b"), "high");
  routes.config.routes[1].matches[0].methods = {"POST"};
  EXPECT_EQ(find(routes, "GET h/a"), "h/a");
  EXPECT_EQ(find(routes, "GET h/b"), "low");
}

TEST(Precedence, HostsBeforePaths) {
  Routes routes;
  routes("/a")("*.example/a")("*.shop.example/a")("x.shop.example/**")("x.shop.example:80~.");
  EXPECT_EQ(find(routes, "x.shop.example/a"), "x.shop.example:80~.");
  EXPECT_EQ(find(routes, "x.shop.example:1/a"), "x.shop.example/**");
  EXPECT_EQ(find(routes, "y.shop.example/a"), "*.shop.example/a");
  EXPECT_EQ(find(routes, "y.example/a"), "*.example/a");
  EXPECT_EQ(find(routes, "y/a"), "/a");
}

TEST(Precedence, AHostWhosePathsDoNotFitEndsNothing) {
  Routes routes;
  routes("a.b.example/x")("POST a.b.example/y")("*.b.example/y/z")("*.example/y/**")("/**");
  EXPECT_EQ(find(routes, "a.b.example/x"), "a.b.example/x");
  EXPECT_EQ(find(routes, "a.b.example/y"), "*.example/y/**");
  EXPECT_EQ(find(routes, "a.b.example/y/z"), "*.b.example/y/z");
  EXPECT_EQ(find(routes, "a.b.example/z"), "/**");
}

TEST(Precedence, KindsOfPaths) {
  Routes routes;
  routes("")("~.")("/**")("/a/**")("/a/b/**")("/a/{x}/**")("/a/{x}")("/{x}/b")("/a/b");
  EXPECT_EQ(find(routes, "h/a/b"), "/a/b");
  routes.config.routes.pop_back();
  EXPECT_EQ(find(routes, "h/a/b"), "/a/{x}");
  EXPECT_EQ(find(routes, "h/c/b"), "/{x}/b");
  EXPECT_EQ(find(routes, "h/a/b/c"), "/a/b/**");
  EXPECT_EQ(find(routes, "h/a/c/d"), "/a/{x}/**");
  EXPECT_EQ(find(routes, "h/a"), "/a/**");
  EXPECT_EQ(find(routes, "h/b"), "/**");
}

TEST(Precedence, MoreSegmentsOfPrefixesBeforeText) {
  Routes routes;
  routes("/a/**")("/{x}/{y}/**")("/a/{y}/**")("/{x}/b/**");
  EXPECT_EQ(find(routes, "h/a/b"), "/a/{y}/**");
  EXPECT_EQ(find(routes, "h/c/b"), "/{x}/b/**");
  EXPECT_EQ(find(routes, "h/c/d/e"), "/{x}/{y}/**");
  EXPECT_EQ(find(routes, "h/a/"), "/a/**");
}

TEST(Precedence, TheSearchComesBackFromDeadEnds) {
  Routes routes;
  routes("POST /a/b/c")("/a/b/{z}/d")("PUT /a/b/{z}")("PUT /a/{y}/c")("/{x}/b/c")("PUT /a/b/**")(
      "/a/**");
  EXPECT_EQ(find(routes, "h/a/b/c"), "/{x}/b/c");
  EXPECT_EQ(find(routes, "PUT h/a/b/c"), "PUT /a/b/{z}");
  EXPECT_EQ(find(routes, "PUT h/a/y/c"), "PUT /a/{y}/c");
  EXPECT_EQ(find(routes, "PUT h/a/b/y/z"), "PUT /a/b/**");
  EXPECT_EQ(find(routes, "h/a/b/y/z"), "/a/**");
  EXPECT_EQ(find(routes, "h/a/b/y/d"), "/a/b/{z}/d");
}

TEST(Precedence, ConditionsInTheirOrder) {
  Routes routes;
  const auto add = [&](const char* name, int headers, int query, int cookies, bool address,
                       bool method) {
    Match match = match_of(method ? "GET /**" : "/**");
    for (int i = 0; i < headers; ++i)
      match.headers.push_back({"h" + std::to_string(i), value_of("!x")});
    for (int i = 0; i < query; ++i)
      match.query.push_back({"q" + std::to_string(i), value_of("!x")});
    for (int i = 0; i < cookies; ++i)
      match.cookies.push_back({"c" + std::to_string(i), value_of("!x")});
    if (address) match.client_ip = {net(0, 96)};
    routes.add({match}, name);
  };
  add("plain", 0, 0, 0, false, false);
  add("plain again", 0, 0, 0, false, false);
  add("address", 0, 0, 0, true, false);
  add("cookie", 0, 0, 1, false, false);
  add("query", 0, 1, 0, false, false);
  add("two cookies", 0, 0, 2, true, false);
  add("header", 1, 0, 0, false, false);
  add("two headers", 2, 0, 0, false, false);
  add("method", 0, 0, 0, false, true);
  add("method and header", 1, 0, 0, false, true);
  const std::vector<std::string> order = {
      "method and header", "method", "two headers", "header", "query",
      "two cookies",       "cookie", "address",     "plain",  "plain again"};
  for (const std::string& name : order) {
    EXPECT_EQ(find(routes, Request("h/").from(1)), name);
    std::erase_if(routes.config.routes,
                  [&](const config::Route& route) { return route.name == name; });
  }
}

TEST(Precedence, FileOrderIsTheLastWord) {
  Routes routes;
  routes.add({match_of("/x"), match_of("/a/{id}")}, "first");
  routes.add({match_of("/a/{name}"), match_of("/x")}, "second");
  EXPECT_EQ(find(routes, "h/a/1"), "first");
  EXPECT_EQ(find(routes, "h/x"), "first");
}

// ---- captures

TEST(Capture, SegmentsAndRest) {
  Captures captures;
  RouteTable::capture(match_of("/a/{id}/x/*/**"), "/a/7/x/%2f/r/s", captures);
  EXPECT_EQ(captures.segments[0], "7");
  EXPECT_EQ(captures.segments[1], "%2f");
  EXPECT_EQ(captures.rest, "/r/s");
  RouteTable::capture(match_of("/api/**"), "/api", captures);
  EXPECT_EQ(captures.rest, "");
  EXPECT_EQ(captures.segments[0], "");
  RouteTable::capture(match_of("/api/**"), "/api/", captures);
  EXPECT_EQ(captures.rest, "/");
  RouteTable::capture(match_of("/**"), "/x", captures);
  EXPECT_EQ(captures.rest, "/x");
  RouteTable::capture(match_of(""), "/x", captures);
  EXPECT_EQ(captures.rest, "/x");
  RouteTable::capture(match_of("/a/{id}"), "/a/7", captures);
  EXPECT_EQ(captures.segments[0], "7");
  EXPECT_EQ(captures.rest, "");
}

TEST(Capture, ManySegmentsAreBounded) {
  std::string path;
  for (std::size_t i = 0; i < Captures::kMax + 4; ++i) path += "/{s" + std::to_string(i) + "}";
  Captures captures;
  const std::string request = path + "/end";
  RouteTable::capture(match_of(path + "/**"), request, captures);
  EXPECT_EQ(captures.segments[Captures::kMax - 1], "{s15}");
  EXPECT_EQ(captures.rest, "/end");
}

TEST(Capture, GroupsOfRegexes) {
  Routes routes;
  routes.add({match_of("/x"), match_of("~^/(a+)/(z)?(.*)$")});
  const Capturer capturer(routes.config.routes[0]);
  for (int round = 0; round < 2; ++round) {
    Captures captures;
    if (round == 0)
      RouteTable::capture(routes.config.routes[0].matches[1], "/aa/b", captures);
    else
      capturer.capture(routes.config.routes[0].matches[1], "/aa/b", captures);
    EXPECT_EQ(captures.groups[0], "/aa/b");
    EXPECT_EQ(captures.groups[1], "aa");
    EXPECT_EQ(captures.groups[2], "");
    EXPECT_EQ(captures.groups[3], "b");
    EXPECT_EQ(captures.groups[4], "");
  }
  Captures captures;
  capturer.capture(routes.config.routes[0].matches[0], "/x", captures);
  EXPECT_EQ(captures.groups[0], "");
}

// ---- words

std::vector<std::string> explain(const Routes& routes, const Request& request) {
  const RouteTable table(routes.config, routes.config.listeners[0]);
  std::vector<std::string> lines;
  for (const Considered& one : table.explain(request.x))
    lines.push_back(routes.config.routes[one.route].name + " | " + one.why_not);
  return lines;
}

TEST(Explain, EveryCandidateInOrderWithItsFirstFailure) {
  Routes routes;
  routes("/**")("POST h/a")("GET,PUT h/a")("*.h/**")("other:90/a")("~^/b")("h/b/{id}")("h/**")(
      "*:81/a");
  EXPECT_EQ(explain(routes, Request("DELETE h/a")),
            (std::vector<std::string>{
                "other:90/a | host: h is not other:90",
                "POST h/a | method: DELETE is not POST",
                "GET,PUT h/a | method: DELETE is not GET or PUT",
                "h/b/{id} | path: /a is not /b/{id}",
                "h/** | ",
                "*.h/** | host: h is not *.h",
                "*:81/a | host: h is not on port 81",
                "/** | shadowed by h/**",
                "~^/b | path: /a does not match ~^/b",
            }));
}

TEST(Explain, ConditionsSayWhatTheyWanted) {
  Routes routes;
  const auto add = [&](const char* kind, const char* name, const char* value) {
    Match match = match_of("/**");
    auto& list = kind[0] == 'h' ? match.headers : kind[0] == 'q' ? match.query : match.cookies;
    list = {{name, value_of(value)}};
    routes.add({match}, std::string(kind) + " " + value);
  };
  add("h", "x-beta", "true");
  add("h", "x-none", "");
  add("h", "x-beta", "!");
  add("h", "x-beta", "!false");
  add("h", "x-beta", "~^t");
  add("h", "authorization", "secret");
  add("q", "debug", "1");
  add("c", "lane", "canary");
  Match address = match_of("/**");
  address.client_ip = {net(0, 127)};
  routes.add({address}, "ip");
  Request request("h/?debug=2");
  request.header("X-Beta", "false")
      .header("Authorization", "hidden")
      .header("cookie", "lane=hidden")
      .from(9);
  EXPECT_EQ(explain(routes, request),
            (std::vector<std::string>{
                "h true | header x-beta: false is not true",
                "h  | header x-none: is absent",
                "h ! | header x-beta: is present",
                "h !false | header x-beta: false is false",
                "h ~^t | header x-beta: false does not match ~^t",
                "h secret | header authorization: is not secret",
                "q 1 | query debug: 2 is not 1",
                "c canary | cookie lane: is not canary",
                "ip | client_ip: 10.0.0.9 is not in " + net(0, 127).to_string(),
            }));
}

TEST(NearestMiss, SaysTheClosestRouteWithoutTheClientsBytes) {
  Routes routes;
  const auto nearest = [&](const Request& request) {
    const RouteTable table(routes.config, routes.config.listeners[0]);
    BlockPool blocks;
    Arena arena(blocks);
    return std::string(table.nearest_miss(request.x, arena));
  };
  EXPECT_EQ(nearest(Request("h/")), "no route on this listener");
  routes("shop/cart/**")("shop/orders/**")("POST shop/pay")("other/**");
  EXPECT_EQ(nearest(Request("GET shop/pay")),
            "closest: route POST shop/pay, method: GET is not POST");
  EXPECT_EQ(nearest(Request("EVIL shop/pay")), "closest: route POST shop/pay, method: is not POST");
  EXPECT_EQ(nearest(Request("GET shop/orderz")),
            "closest: route shop/orders/**, path: is not /orders/**");
  EXPECT_EQ(nearest(Request("GET evil/zzz")), "closest: route other/**, host: is not other");
}

// ---- shadows

std::string shadows(const Routes& routes) {
  std::string all;
  for (const Shadowed& one : shadowed_routes(routes.config))
    all += routes.config.routes[one.route].name + " < " + routes.config.routes[one.by_route].name +
           "; ";
  return all;
}

TEST(Shadowed, OnlyWhatIsSurelyNeverReached) {
  const auto of = [](std::initializer_list<const char*> matches) {
    Routes routes;
    for (const char* match : matches) routes(match);
    return shadows(routes);
  };
  EXPECT_EQ(of({"/a", "/a"}), "/a < /a; ");
  EXPECT_EQ(of({"/a/{x}", "GET /a/{x}", "/a/{y}"}), "/a/{y} < /a/{x}; ");
  EXPECT_EQ(of({"GET /a", "GET,PUT /a", "POST /a", "PUT /a"}), "PUT /a < GET,PUT /a; ");
  EXPECT_EQ(of({"~^/v1", "/**"}), "~^/v1 < /**; ");
  EXPECT_EQ(of({"h", "h/**"}), "h < h/**; ");
  EXPECT_EQ(of({"~a", "~a", "~b"}), "~a < ~a; ");
  EXPECT_EQ(of({"h/**", "/**", "*.h/**", "h:80/**", "/a/**", "/a", "/{x}", "g~.", ""}), " < /**; ");
  EXPECT_EQ(of({"/a", "/a/", "/a/**", "/a/b/**", "/{x}/**"}), "");
}

TEST(Shadowed, ConditionsMustFollowFromTheOthers) {
  const auto with = [](const char* first, const char* second) {
    Routes routes;
    for (const char* value : {first, second}) {
      Match match = match_of("/a");
      match.headers = {{"x", value_of(value)}};
      routes.add({match}, value);
    }
    return !shadows(routes).empty();
  };
  EXPECT_TRUE(with("1", "1"));
  EXPECT_TRUE(with("", "1"));
  EXPECT_TRUE(with("", "~r"));
  EXPECT_TRUE(with("!", "!"));
  EXPECT_FALSE(with("1", "2"));
  EXPECT_FALSE(with("1", ""));
  EXPECT_FALSE(with("", "!"));
  EXPECT_FALSE(with("", "!1"));
  EXPECT_FALSE(with("1", "!1"));
}

TEST(Shadowed, AddressesMustLieWithin) {
  const auto with = [](config::Cidr first, config::Cidr second) {
    Routes routes;
    for (const config::Cidr& cidr : {first, second}) {
      Match match = match_of("/a");
      match.client_ip = {cidr};
      routes.add({match});
    }
    return !shadows(routes).empty();
  };
  EXPECT_TRUE(with(net(0, 120), net(7, 128)));
  EXPECT_TRUE(with(net(0, 120), net(0, 120)));
  EXPECT_FALSE(with(net(7, 128), net(0, 120)));
  EXPECT_FALSE(with(net(0, 121), net(200, 128)));
}

TEST(Shadowed, HigherPriorityTakesAllThatItCovers) {
  Routes routes;
  routes("x.h/a")("x.h/b/c")("y/a");
  routes.add({match_of("*.h/{x}")}, "high", 1);
  EXPECT_EQ(shadows(routes), "x.h/a < high; ");
}

TEST(Shadowed, EveryMatchOnEveryListener) {
  Routes routes;
  routes.config.listeners.push_back(routes.config.listeners[0]);
  routes.config.listeners[1].name = "other";
  routes("/a")("/b");
  routes.add({match_of("/a"), match_of("/b")}, "both");
  EXPECT_EQ(shadows(routes), "both < /a; ");
  routes.config.routes[2].listeners = {"main", "other"};
  EXPECT_EQ(shadows(routes), "");
  routes.config.routes[2].listeners = {"main"};
  routes.config.routes[2].matches.push_back(match_of("/c"));
  EXPECT_EQ(shadows(routes), "");
}

// ---- against a slow matcher

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> segments(1);
  for (const char c : path.substr(1)) {
    if (c == '/')
      segments.emplace_back();
    else
      segments.back() += c;
  }
  return segments;
}

bool slow_path(const PathMatch& path, const std::string& text) {
  if (path.kind == PathMatch::Kind::kAny) return true;
  if (text == "*") return false;
  // The random regexes are a caret and plain text.
  if (path.kind == PathMatch::Kind::kRegex) return text.starts_with(path.regex.substr(1));
  std::vector<std::string> want;
  std::vector<bool> any;
  for (const auto& segment : path.segments) {
    want.push_back(segment.text);
    any.push_back(segment.kind == PathMatch::Segment::Kind::kAny);
  }
  std::vector<std::string> have = split(text);
  if (path.kind == PathMatch::Kind::kPrefix) {
    if (have.size() < want.size()) return false;
    have.resize(want.size());
  } else if (path.trailing_slash || want.empty()) {
    want.emplace_back();
    any.push_back(false);
  }
  if (have.size() != want.size()) return false;
  for (std::size_t i = 0; i < want.size(); ++i)
    if (any[i] ? have[i].empty() : have[i] != want[i]) return false;
  return true;
}

bool slow_host(const HostMatch& host, const std::string& name, int port) {
  if (host.port && *host.port != port) return false;
  if (host.kind == HostMatch::Kind::kAny) return true;
  if (host.kind == HostMatch::Kind::kExact) return name == host.text;
  const std::string suffix = "." + host.text;
  return name.size() > suffix.size() && name.ends_with(suffix);
}

// Values of the random conditions are `1`, `2` or any.
bool slow_value(const ValueMatch& match, const std::vector<std::string>& values) {
  const bool fits = std::any_of(values.begin(), values.end(), [&](const std::string& value) {
    return match.kind == ValueMatch::Kind::kPresent || value == match.text;
  });
  return fits != match.negated;
}

struct Facts {  // of a random request, apart from how the table sees it
  std::string method, host, path;
  int port = 80;
  std::vector<std::string> header, query, cookie;
  std::uint8_t address = 1;
};

std::vector<std::string> first_of(std::vector<std::string> values) {
  if (values.size() > 1) values.resize(1);
  return values;
}

bool slow_fits(const Match& match, const Facts& facts) {
  if (!slow_host(match.host, facts.host, facts.port) || !slow_path(match.path, facts.path))
    return false;
  if (!match.methods.empty() &&
      std::find(match.methods.begin(), match.methods.end(), facts.method) == match.methods.end())
    return false;
  for (const auto& [name, value] : match.headers)
    if (!slow_value(value, name == "x-h" ? facts.header : std::vector<std::string>())) return false;
  for (const auto& [name, value] : match.query)
    if (!slow_value(value, name == "q" ? first_of(facts.query) : std::vector<std::string>()))
      return false;
  for (const auto& [name, value] : match.cookies)
    if (!slow_value(value, name == "c" ? first_of(facts.cookie) : std::vector<std::string>()))
      return false;
  return match.client_ip.empty() || match.client_ip[0].ip[15] == facts.address;
}

using Key = std::tuple<int, int, int, int, int, int, std::string, int, int, int, int, int,
                       std::size_t, std::size_t>;

// Smaller is asked first.
Key key_of(const config::Config& config, std::size_t route, std::size_t index) {
  const Match& match = config.routes[route].matches[index];
  const int host = match.host.kind == HostMatch::Kind::kExact      ? 0
                   : match.host.kind == HostMatch::Kind::kWildcard ? 1
                                                                   : 2;
  int path = 4;
  if (match.path.kind == PathMatch::Kind::kExact) path = 0;
  if (match.path.kind == PathMatch::Kind::kTemplate) path = 1;
  if (match.path.kind == PathMatch::Kind::kPrefix) path = 2;
  if (match.path.kind == PathMatch::Kind::kRegex) path = 3;
  std::string shape;
  for (const auto& segment : match.path.segments)
    shape += segment.kind == PathMatch::Segment::Kind::kText ? 'a' : 'b';
  const int size = host == 1 ? -static_cast<int>(match.host.text.size()) : 0;
  const int segments = path == 2 ? -static_cast<int>(match.path.segments.size()) : 0;
  return {-config.routes[route].priority,
          host,
          size,
          match.host.port ? 0 : 1,
          path,
          segments,
          shape,
          match.methods.empty() ? 1 : 0,
          -static_cast<int>(match.headers.size()),
          -static_cast<int>(match.query.size()),
          -static_cast<int>(match.cookies.size()),
          match.client_ip.empty() ? 1 : 0,
          route,
          index};
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  unsigned below(unsigned bound) { return static_cast<unsigned>(engine_() % bound); }
  bool one_in(unsigned count) { return below(count) == 0; }
  template <std::size_t N>
  std::string pick(const std::array<const char*, N>& from) {
    return from[below(N)];
  }

 private:
  std::mt19937 engine_;
};

constexpr std::array<const char*, 9> kHostsWritten = {"",    "",      "",     "h",     "a.h",
                                                      "*.h", "*.a.h", "h:80", "*.h:81"};
constexpr std::array<const char*, 7> kHostsAsked = {"h", "a.h",  "b.h",     "b.a.h",
                                                    "x", "h:81", "b.a.h:81"};
constexpr std::array<const char*, 3> kSegments = {"a", "b", "c"};
constexpr std::array<const char*, 3> kMethods = {"GET", "POST", "PURGE"};
constexpr std::array<const char*, 5> kValues = {"1", "2", "", "!", "!1"};

Match random_match(Random& random) {
  std::string path;
  for (unsigned left = random.below(4); left > 0; --left)
    path += "/" + (random.one_in(3) ? "{x}" : random.pick(kSegments));
  switch (random.below(6)) {
    case 0: path += "/"; break;
    case 1:
    case 2: path += "/**"; break;
    case 3: path = "~^" + std::string(random.one_in(2) ? "/" : "") + random.pick(kSegments); break;
    default:
      if (path.empty() && random.one_in(2)) path = "/";
      break;
  }
  Match match = match_of(random.pick(kHostsWritten) + path);
  if (random.one_in(5)) match.methods.push_back(random.pick(kMethods));
  while (random.one_in(6)) match.headers.push_back({"x-h", value_of(random.pick(kValues))});
  while (random.one_in(8)) match.query.push_back({"q", value_of(random.pick(kValues))});
  while (random.one_in(8)) match.cookies.push_back({"c", value_of(random.pick(kValues))});
  if (random.one_in(8))
    match.client_ip.push_back(net(static_cast<std::uint8_t>(random.below(3)), 128));
  return match;
}

Routes random_routes(Random& random) {
  Routes routes;
  for (unsigned left = 1 + random.below(25); left > 0; --left) {
    std::vector<Match> matches;
    do {
      matches.push_back(random_match(random));
    } while (random.one_in(3));
    routes.add(std::move(matches), "r",
               random.one_in(6) ? static_cast<std::int32_t>(random.below(3)) - 1 : 0);
  }
  return routes;
}

Facts random_facts(Random& random, std::string& line) {
  Facts facts;
  facts.method = random.pick(kMethods);
  const std::string host = random.pick(kHostsAsked);
  facts.host = host.substr(0, host.find(':'));
  if (host.find(':') != std::string::npos) facts.port = std::stoi(host.substr(host.find(':') + 1));
  if (random.one_in(30)) {
    facts.path = "*";
  } else {
    for (unsigned left = random.below(5); left > 0; --left)
      facts.path += "/" + (random.one_in(12) ? "" : random.pick(kSegments));
    if (facts.path.empty() || random.one_in(5)) facts.path += "/";
  }
  facts.address = static_cast<std::uint8_t>(random.below(3));
  const auto values = [&](std::vector<std::string>& into) {
    while (random.one_in(2)) into.push_back(random.one_in(2) ? "1" : "2");
  };
  values(facts.header);
  values(facts.query);
  values(facts.cookie);
  line = facts.method + " " + host;
  if (facts.path != "*") line += facts.path;
  for (std::size_t i = 0; i < facts.query.size() && facts.path != "*"; ++i)
    line += (i == 0 ? "?q=" : "&q=") + facts.query[i];
  if (facts.path == "*") facts.query.clear();
  return facts;
}

TEST(Property, TheTableAgreesWithAskingEveryCandidateInOrder) {
  Random random(20240607);
  int found = 0;
  for (int set = 0; set < 1000; ++set) {
    const Routes routes = random_routes(random);
    std::vector<std::pair<std::size_t, std::size_t>> order;
    for (std::size_t route = 0; route < routes.config.routes.size(); ++route)
      for (std::size_t i = 0; i < routes.config.routes[route].matches.size(); ++i)
        order.emplace_back(route, i);
    std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
      return key_of(routes.config, a.first, a.second) < key_of(routes.config, b.first, b.second);
    });
    const RouteTable table(routes.config, routes.config.listeners[0]);
    std::vector<bool> reached(routes.config.routes.size());
    for (int ask = 0; ask < 40; ++ask) {
      std::string line;
      const Facts facts = random_facts(random, line);
      Request request(line);
      request.from(facts.address);
      for (const std::string& value : facts.header) request.header("X-H", value);
      for (const std::string& value : facts.cookie) request.header("Cookie", "c=" + value);
      const Match* wanted = nullptr;
      for (const auto& [route, i] : order) {
        const Match& match = routes.config.routes[route].matches[i];
        if (wanted == nullptr && slow_fits(match, facts)) {
          wanted = &match;
          if (facts.path != "*")
            reached[route] = true;  // `/**` hides a match without path all the same
        }
      }
      RouteHit hit;
      const bool any = table.find(request.x, hit);
      ASSERT_EQ(any, wanted != nullptr) << line;
      if (any) {
        ASSERT_EQ(hit.match, wanted)
            << line << ": " << hit.match->short_form << " instead of " << wanted->short_form;
        ++found;
      }
      // `explain` says the same, and lists every candidate once.
      const std::vector<Considered> considered = table.explain(request.x);
      ASSERT_EQ(considered.size(), order.size());
      const auto winner = std::find_if(considered.begin(), considered.end(),
                                       [](const Considered& one) { return one.why_not.empty(); });
      ASSERT_EQ(winner != considered.end() ? winner->match : nullptr, wanted) << line;
    }
    for (const Shadowed& one : shadowed_routes(routes.config)) ASSERT_FALSE(reached[one.route]);
  }
  EXPECT_GT(found, 20'000);
}

}  // namespace
}  // namespace outrider
