#include "filters/route_answer.h"

#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

// The model's structs with every member optional.
struct To {
  int status = 301;
  std::string scheme = {}, host = {};
  std::optional<std::uint16_t> port = {};
  std::string path = {};
  operator config::Redirect() const { return {status, scheme, host, port, path, {}}; }
};
struct Says {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  operator config::Respond() const { return {status, headers, body, {}}; }
};

class RouteAnswer : public testing::Test, public test::World {
 protected:
  void SetUp() override { route.to.clear(); }
  std::string location(const To& redirect, std::string_view target,
                       std::string_view authority = "shop.example") {
    route.redirect = redirect;
    exchange(target, authority);
    EXPECT_EQ(answer_route(*x, compiled), "");
    EXPECT_EQ(x->status, redirect.status);
    EXPECT_EQ(x->response.status, redirect.status);
    EXPECT_EQ(x->response.content_length, 0U);
    EXPECT_EQ(x->reason, Reason::kOk);
    return answered("location");
  }
  std::string_view respond(const Says& with, std::string_view target = "/") {
    route.redirect.reset();
    route.respond = with;
    exchange(target);
    return answer_route(*x, compiled);
  }
};

TEST_F(RouteAnswer, WhatARedirectDoesNotSayStaysTheRequests) {
  EXPECT_EQ(location({.path = "/new"}, "/old?q=1", "Shop.Example:8080"),
            "http://shop.example:8080/new?q=1");
  EXPECT_EQ(location({.status = 308, .scheme = "https"}, "/a/b?c", "shop.example:8080"),
            "https://shop.example/a/b?c")
      << "the port goes";
  EXPECT_EQ(location({.host = "other.example"}, "/a", "shop.example:8080"),
            "http://other.example/a");
  EXPECT_EQ(location({.scheme = "https", .port = 8443}, "/a", "shop.example:8080"),
            "https://shop.example:8443/a");
  EXPECT_EQ(location({.port = 9090}, "/a"), "http://shop.example:9090/a");
  EXPECT_EQ(location({.scheme = "https", .port = 443}, "/a"), "https://shop.example/a");
  EXPECT_EQ(location({.scheme = "https"}, "/a", "[::1]:80"), "https://[::1]/a");
}

TEST_F(RouteAnswer, ARedirectsPathIsWrittenAsInRewrite) {
  match("/old/{id}/**");
  EXPECT_EQ(location({.path = "/new/{id}/**"}, "/old/7/x?q"), "http://shop.example/new/7/x?q");
  match("~^/v([0-9])");
  EXPECT_EQ(location({.path = "/version/\\1"}, "/v3"), "http://shop.example/version/3");
}

TEST_F(RouteAnswer, AListenersOwnRedirectHasNoMatch) {
  route.redirect = To{.scheme = "https", .path = "/x/**"};
  exchange("/a/b");
  x->match = nullptr;
  answer_route(*x, compiled);
  EXPECT_EQ(answered("location"), "https://shop.example/x/a/b");
}

TEST_F(RouteAnswer, NoPathLeadsToAnotherHost) {
  listener.merge_slashes = false;
  EXPECT_EQ(location({.scheme = "https"}, "//evil.example/x"),
            "https://shop.example/evil.example/x");
  EXPECT_EQ(location({.scheme = "https"}, "//evil.example/x", ""), "/evil.example/x");
  match("/go/**");
  EXPECT_EQ(location({.path = "/**"}, "/go//evil.example", ""), "/evil.example");
}

TEST_F(RouteAnswer, ARefusedPathIsABadRequest) {
  match("~^/d(.*)$");
  route.redirect = To{.path = "/.\\1"};
  exchange("/d./x");
  EXPECT_EQ(answer_route(*x, compiled), "400 bad_request: The request is malformed.\n");
  EXPECT_EQ(x->status, 400);
  EXPECT_EQ(answered("location"), "-");
}

TEST_F(RouteAnswer, ATrustedProxysSchemeIsTheRequests) {
  route.redirect = To{.path = "/new"};
  exchange("/old");
  header("x-forwarded-proto", "https");
  answer_route(*x, compiled);
  EXPECT_EQ(answered("location"), "https://shop.example/new");
}

TEST_F(RouteAnswer, OptionsStarIsRedirectedToTheRoot) {
  EXPECT_EQ(location({.scheme = "https"}, "*"), "https://shop.example/");
}

TEST_F(RouteAnswer, RespondGivesItsBody) {
  EXPECT_EQ(respond({.status = 200, .body = "pong\n"}), "pong\n");
  EXPECT_EQ(x->status, 200);
  EXPECT_EQ(x->response.content_length, 5U);
  EXPECT_EQ(answered("content-type"), "text/plain; charset=utf-8");
}

TEST_F(RouteAnswer, RespondWithoutABody) {
  EXPECT_EQ(respond({.status = 404}), "");
  EXPECT_EQ(x->response.content_length, 0U);
  EXPECT_EQ(answered("content-type"), "-");
  for (const int status : {204, 304}) {
    EXPECT_EQ(respond({.status = status, .body = "ignored"}), "");
    EXPECT_FALSE(x->response.content_length);
  }
}

TEST_F(RouteAnswer, RespondHeadersAreTemplates) {
  respond({.status = 200,
           .headers = {{"Content-Type", "application/json"}, {"X-Path", "%{path} "}},
           .body = "{}"},
          "/a?b");
  EXPECT_EQ(answered("content-type"), "application/json");
  EXPECT_EQ(answered("x-path"), "/a?b");
}

TEST_F(RouteAnswer, HeadHearsTheLengthAlone) {
  route.respond = Says{.status = 200, .body = "pong\n"};
  exchange();
  x->request.method = Method::kHead;
  EXPECT_EQ(answer_route(*x, compiled), "");
  EXPECT_EQ(x->response.content_length, 5U);
}

TEST_F(RouteAnswer, AValueThatWouldSplitTheResponseIsABadRequest) {
  route.respond = Says{.status = 200, .headers = {{"x-copy", "%{header x-evil}"}}, .body = "b"};
  exchange();
  header("x-evil", "a\r\nset-cookie: b");
  EXPECT_EQ(answer_route(*x, compiled), "400 bad_request: The request is malformed.\n");
  EXPECT_EQ(answered("x-copy"), "-");
}

}  // namespace
}  // namespace outrider
