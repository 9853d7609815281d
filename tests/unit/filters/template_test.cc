#include "filters/template.h"

#include <gtest/gtest.h>

#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

class TemplateTest : public testing::Test, public test::World {
 protected:
  std::string expand(std::string_view text) { return std::string(Template(text).expand(*x)); }
};

TEST_F(TemplateTest, TextWithoutVariablesIsItself) {
  exchange();
  for (const char* text : {"", "plain", "100%", "a}b{c"}) {
    EXPECT_EQ(expand(text), text);
    EXPECT_TRUE(Template(text).constant());
  }
  EXPECT_EQ(expand("%%{time}"), "%{time}");
  EXPECT_TRUE(Template("a%%{time}").constant());
  EXPECT_FALSE(Template("%{time}").constant());
}

TEST_F(TemplateTest, EveryFieldHasItsValue) {
  exchange("/cart/7?x=1&q=blue", "shop.example:8443");
  header("User-Agent", "curl/8");
  header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  x->client_ip_text = "198.51.100.9";
  x->request_id = "req-1";
  x->status = 201;
  x->attempts = 2;
  x->bytes_in = 12;
  x->bytes_out = 34567;
  x->started_wall_ms = 1'000;
  x->started_ns = 5'000'000'000;
  x->ended_ns = 5'012'345'678;
  Service shop(service, 0, std::make_shared<ServiceShared>(service));
  x->endpoint = shop.endpoints()[0].get();
  auto* const attempt = x->arena.make<Attempt>();
  attempt->started_ns = 5'000'000'000;
  attempt->head_ns = 5'000'900'000;
  attempt->ended_ns = 5'010'000'000;
  x->attempt = attempt;
  const TlsPeer peer{"spiffe://shop/frontend", "TLSv1.3"};
  client.tls = &peer;
  const std::pair<const char*, const char*> cases[] = {
      {"time", "1970-01-01T00:00:01.000Z"},
      {"listener", "main"},
      {"client", "198.51.100.9"},
      {"client.ip", "198.51.100.9"},
      {"client_id", "spiffe://shop/frontend"},
      {"client.id", "spiffe://shop/frontend"},
      {"method", "GET"},
      {"host", "shop.example"},
      {"path", "/cart/7?x=1&q=blue"},
      {"protocol", "HTTP/1.1"},
      {"status", "201"},
      {"reason", "ok"},
      {"route", "cart"},
      {"service", "shop"},
      {"endpoint", "10.0.0.7:8080"},
      {"attempts", "2"},
      {"bytes_in", "12"},
      {"bytes_out", "34567"},
      {"duration_ms", "12.345"},
      {"upstream_ms", "0.900"},
      {"request_id", "req-1"},
      {"trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"},
      {"user_agent", "curl/8"},
      {"tls", "TLSv1.3"}};
  for (const auto& [name, value] : cases)
    EXPECT_EQ(expand("%{" + std::string(name) + "}"), value) << name;
  attempt->head_ns = 0;
  EXPECT_EQ(expand("%{upstream_ms}"), "10.000");
}

TEST_F(TemplateTest, AbsentIsEmpty) {
  exchange("/", "");
  x->route = nullptr;
  x->target = nullptr;
  for (const char* name : {"client_id", "host", "status", "route", "service", "endpoint",
                           "duration_ms", "upstream_ms", "request_id", "trace_id", "user_agent",
                           "tls", "header x-none", "query none", "cookie none", "path.none"})
    EXPECT_EQ(expand("[%{" + std::string(name) + "}]"), "[]") << name;
}

TEST_F(TemplateTest, KeysReadTheRequest) {
  match("/users/{id}/orders/{order}/**");
  exchange("/users/42/orders/a%2Fb/rest?q=1%0d%0a&q=2&empty");
  header("X-Tenant", "acme");
  header("X-Tenant", "other");
  header("Cookie", "a=1; lane=canary");
  header("Cookie", "lane=other");
  EXPECT_EQ(expand("%{header x-tenant}-%{header X-TENANT}"), "acme-acme");
  EXPECT_EQ(expand("%{header host}"), "shop.example");
  EXPECT_EQ(expand("%{query q}"), "1%0d%0a") << "undecoded";
  EXPECT_EQ(expand("%{query empty}"), "");
  EXPECT_EQ(expand("%{cookie lane}"), "canary");
  EXPECT_EQ(expand("u=%{path.id};o=%{path.order}"), "u=42;o=a%2Fb");
}

TEST_F(TemplateTest, ATraceIdIsReadOnlyFromAWellFormedParent) {
  for (const char* bad : {"", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                          "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                          "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                          "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                          "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                          "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
                          "00x4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                          "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01"}) {
    exchange();
    header("traceparent", bad);
    EXPECT_EQ(expand("%{trace_id}"), "") << bad;
  }
  exchange();
  header("traceparent", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later");
  EXPECT_EQ(expand("%{trace_id}"), "4bf92f3577b34da6a3ce929d0e0e4736");
}

TEST_F(TemplateTest, ARequestThatNeverWasHasNoMethod) {
  exchange();
  x->path = {};
  x->request.target = {};
  EXPECT_EQ(expand("[%{method}]"), "[]");
  exchange();
  x->request.version = Version::kTcp;
  EXPECT_EQ(expand("[%{method}]"), "[]");
}

TEST_F(TemplateTest, ARefusedTargetIsShownAsItCame) {
  exchange("/fine");
  x->path = {};
  x->request.target = "/a\\b";
  EXPECT_EQ(expand("%{path}"), "/a\\b");
}

TEST_F(TemplateTest, TextsThatNobodyCompiledExpandToo) {
  exchange();
  EXPECT_EQ(expand_text("plain", *x), "plain");
  EXPECT_EQ(expand_text("%%{time} %{listener}", *x), "%{time} main");
}

TEST_F(TemplateTest, UnknownNamesStayText) {
  exchange();
  EXPECT_EQ(expand("%{nope} %{"), "%{nope} %{");
}

TEST(HeaderValue, HasNoControlBytes) {
  EXPECT_TRUE(is_header_value(""));
  EXPECT_TRUE(is_header_value("a\tb \xff"));
  for (const char* bad : {"a\rb", "a\nb", "\x7f", "\x1b[0m"}) EXPECT_FALSE(is_header_value(bad));
  EXPECT_FALSE(is_header_value(std::string_view("\0", 1)));
}

}  // namespace
}  // namespace outrider
