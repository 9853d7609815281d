#include "config/grammar.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/config/describe.h"

namespace outrider::config {
namespace {

using namespace std::chrono_literals;

TEST(Grammar, Integers) {
  std::int64_t out = 0;
  EXPECT_FALSE(parse_integer("0", 0, 10, out));
  EXPECT_FALSE(parse_integer("-3", -5, 10, out));
  EXPECT_EQ(out, -3);
  for (const char* bad : {"", "-", "+1", "1 ", " 1", "01", "1.0", "1e1", "0x1", "1_0", "11", "-1",
                          "99999999999999999999"})
    EXPECT_TRUE(parse_integer(bad, 0, 10, out)) << bad;
  EXPECT_EQ(parse_integer("99999999999999999999", 0, 10, out).code, "out-of-range");
  EXPECT_EQ(parse_integer("-99999999999999999999", 0, 10, out).text, "is below 0");
}

TEST(Grammar, Durations) {
  const auto of = [](std::string_view text) {
    Millis out{-1};
    return parse_duration(text, out) ? Millis(-1) : out;
  };
  EXPECT_EQ(of("250ms"), 250ms);
  EXPECT_EQ(of("0s"), 0ms);
  EXPECT_EQ(of("1m30s"), 90s);
  EXPECT_EQ(of("2h"), 2h);
  EXPECT_EQ(of("1h1m1s1ms"), 3661001ms);
  EXPECT_EQ(of("8760h"), 8760h);
  for (const char* bad : {"", "5", "s", "5 s", "-5s", "5S", "1s1m", "1s1s", "1.5s", "5sec", "8761h",
                          "8760h1ms", "99999999999999999999h", "1m30", "5d"})
    EXPECT_EQ(of(bad), -1ms) << bad;
}

TEST(Grammar, Sizes) {
  const auto of = [](std::string_view text) {
    std::uint64_t out = 0;
    return parse_size(text, out) ? -1 : static_cast<std::int64_t>(out);
  };
  EXPECT_EQ(of("512"), 512);
  EXPECT_EQ(of("0"), 0);
  EXPECT_EQ(of("1B"), 1);
  EXPECT_EQ(of("64KiB"), 65536);
  EXPECT_EQ(of("10MB"), 10'000'000);
  EXPECT_EQ(of("2GiB"), 2147483648);
  for (const char* bad : {"", "-1", "KiB", "1 KiB", "1kb", "1K", "1.5MB", "18446744073709551615",
                          "99999999999999GiB"})
    EXPECT_EQ(of(bad), -1) << bad;
}

TEST(Grammar, RatesOfRequests) {
  Rate rate;
  EXPECT_FALSE(parse_rate("50/s", rate));
  EXPECT_EQ(rate.count, 50U);
  EXPECT_EQ(rate.period, 1s);
  EXPECT_FALSE(parse_rate("60000000/m", rate));
  EXPECT_EQ(rate.period, 1min);
  EXPECT_FALSE(parse_rate("1/h", rate));
  EXPECT_EQ(rate.period, 1h);
  for (const char* bad : {"", "50", "/s", "50/", "50/d", "50 /s", "50/ s", "50/S", "-1/s", "1.5/s",
                          "50/s ", "99999999999999999999/s"})
    EXPECT_EQ(parse_rate(bad, rate).code, "bad-value") << bad;
  for (const char* bad : {"0/s", "1000001/s", "60000001/m", "18446744073709551615/h"})
    EXPECT_EQ(parse_rate(bad, rate).code, "out-of-range") << bad;
}

TEST(Grammar, PartsOfRequests) {
  RequestPart part;
  EXPECT_FALSE(parse_request_part("client.ip", part));
  EXPECT_EQ(part.kind, VariableKind::kClient);
  EXPECT_FALSE(parse_request_part("header X-User", part));
  EXPECT_EQ(part.kind, VariableKind::kHeader);
  EXPECT_EQ(part.name, "X-User");
  EXPECT_FALSE(parse_request_part("cookie sid", part));
  EXPECT_EQ(part.kind, VariableKind::kCookie);
  for (const char* bad : {"", "client", "client_id", "header", "header ", "header a b", "query ",
                          "path.id", "status", "client.ip ", "cookie a;b"})
    EXPECT_EQ(parse_request_part(bad, part).code, "bad-value") << bad;
}

TEST(Grammar, Stores) {
  StoreUrl url;
  EXPECT_FALSE(parse_store_url("redis://127.0.0.1", url));
  EXPECT_EQ(url.name(), "127.0.0.1:6379");
  EXPECT_EQ(url.timeout, 50ms);
  EXPECT_FALSE(parse_store_url("redis://me:p%40s/@w%@[::1]:7000/3?timeout=2s", url));
  EXPECT_EQ(url.name(), "[::1]:7000/3");
  EXPECT_EQ(url.user, "me");
  EXPECT_EQ(url.password, "p@s/@w%");
  EXPECT_EQ(url.timeout, 2s);
  EXPECT_FALSE(parse_store_url("redis://:secret@localhost:7000/", url));
  EXPECT_EQ(url.user, "");
  EXPECT_EQ(url.password, "secret");
  EXPECT_EQ(url.database, 0U);
  EXPECT_FALSE(parse_store_url("redis+unix://:secret@/run/redis.sock?timeout=10ms", url));
  EXPECT_EQ(url.name(), "unix:/run/redis.sock");
  for (const char* bad :
       {"", "127.0.0.1:6379", "http://127.0.0.1", "redis:127.0.0.1", "redis://", "redis://:6379",
        "redis://secret@127.0.0.1", "redis://127.0.0.1/x", "redis://127.0.0.1/-1",
        "redis://127.0.0.1/0?", "redis://127.0.0.1?timeout=5", "redis://127.0.0.1?timeout=0s",
        "redis://127.0.0.1?db=1", "redis://127.0.0.1:70000", "redis://::1:6379",
        "redis+unix://run/redis.sock", "redis+unix:///", "redis://127.0.0.1:6379/0/1"})
    EXPECT_TRUE(parse_store_url(bad, url)) << bad;
  for (const char* later : {"rediss://127.0.0.1", "redis://redis.internal:6379"})
    EXPECT_EQ(parse_store_url(later, url).code, kNotYet) << later;
}

TEST(Grammar, PercentBackoffAndRates) {
  double share = 0;
  EXPECT_FALSE(parse_percent("0.5%", share));
  EXPECT_DOUBLE_EQ(share, 0.005);
  EXPECT_FALSE(parse_percent("100%", share));
  for (const char* bad : {"", "%", "5", "-1%", "101%", "1e1%", "nan%", "inf%", "5 %"})
    EXPECT_TRUE(parse_percent(bad, share)) << bad;
  Backoff backoff;
  EXPECT_FALSE(parse_backoff("25ms..1s", backoff));
  EXPECT_EQ(backoff.max, 1s);
  EXPECT_FALSE(parse_backoff("100ms", backoff));
  EXPECT_EQ(backoff.min, backoff.max);
  for (const char* bad : {"", "..", "1s..", "..1s", "2s..1s", "1s...2s"})
    EXPECT_TRUE(parse_backoff(bad, backoff)) << bad;
  UploadRate rate;
  EXPECT_FALSE(parse_upload_rate("1KiB/s", rate));
  EXPECT_EQ(rate.bytes_per_second, 1024U);
  EXPECT_EQ(rate.after, limits::kUploadGrace);
  EXPECT_FALSE(parse_upload_rate("240B/s after 10s", rate));
  EXPECT_EQ(rate.after, 10s);
  for (const char* bad :
       {"", "240", "240B", "240B/m", "240B/s after", "240B/s after 5", "240B/s 5s"})
    EXPECT_TRUE(parse_upload_rate(bad, rate)) << bad;
}

TEST(Grammar, RetryConditions) {
  RetryWhen when{.bits = 0, .statuses = {}};
  EXPECT_FALSE(parse_retry_on("5xx", when));
  EXPECT_FALSE(parse_retry_on("503", when));
  EXPECT_TRUE(when.has(RetryOn::k5xx));
  EXPECT_FALSE(when.has(RetryOn::kReset));
  EXPECT_EQ(when.statuses, std::vector<int>{503});
  EXPECT_FALSE(parse_retry_on("grpc:unavailable", when));
  EXPECT_TRUE(when.has_grpc(14));
  EXPECT_FALSE(when.has_grpc(13));
  EXPECT_EQ(parse_retry_on("grpc:unavailible", when).suggestion, "grpc:unavailable");
  for (const char* bad : {"", "timeout", "200", "600", "50", "5XX", "grpc:ok", "grpc:", "grpc:14"})
    EXPECT_TRUE(parse_retry_on(bad, when)) << bad;
}

std::string address(std::string_view text) {
  Address out;
  return parse_address(text, out) ? "bad" : out.to_string();
}

TEST(Grammar, Addresses) {
  EXPECT_EQ(address("8080"), "127.0.0.1:8080");
  EXPECT_EQ(address(":0"), ":0");
  EXPECT_EQ(address(":8443"), ":8443");
  EXPECT_EQ(address("0.0.0.0:80"), "0.0.0.0:80");
  EXPECT_EQ(address("localhost:80"), "127.0.0.1:80");
  EXPECT_EQ(address("[::1]:80"), "[::1]:80");
  EXPECT_EQ(address("[0:0::1]:80"), "[::1]:80");
  EXPECT_EQ(address("unix:/run/x.sock"), "unix:/run/x.sock");
  for (const char* bad :
       {"", ":", "::1", "[::1]", "[::1]80", "::1:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:+80",
        "127.0.0.1:65536", "1.2.3:80", "shop.example:80", "unix:", "-1", "65536", "a b:80",
        "127.0.0.1:80:80", "[fe80::1%eth0]:80", "http://127.0.0.1:80"})
    EXPECT_EQ(address(bad), "bad") << bad;
}

TEST(Grammar, Endpoints) {
  const auto of = [](std::string_view text) {
    Address out;
    EndpointScheme scheme{};
    const Problem problem = parse_endpoint(text, out, scheme);
    if (problem) return std::string(problem.code);
    return out.to_string() + (scheme == EndpointScheme::kH2c    ? " h2c"
                              : scheme == EndpointScheme::kHttp ? " http"
                                                                : "");
  };
  EXPECT_EQ(of("3000"), "127.0.0.1:3000");
  EXPECT_EQ(of("localhost:3000"), "127.0.0.1:3000");
  EXPECT_EQ(of("http://10.0.0.1"), "10.0.0.1:80 http");
  EXPECT_EQ(of("http://localhost:81"), "127.0.0.1:81 http");
  EXPECT_EQ(of("h2c://[::1]:81"), "[::1]:81 h2c");
  EXPECT_EQ(of("h2c://[::1]"), "[::1]:80 h2c");
  EXPECT_EQ(of("unix:/run/app.sock"), "unix:/run/app.sock");
  EXPECT_EQ(of("shop.internal:80"), kNotYet);
  EXPECT_EQ(of("http://shop.internal"), kNotYet);
  EXPECT_EQ(of("https://10.0.0.1"), kNotYet);
  for (const char* bad : {"", ":80", "10.0.0.1", "http://10.0.0.1/", "ftp://10.0.0.1", "dns://a:80",
                          "http://", "http://8080", "0"})
    EXPECT_TRUE(of(bad) == "bad-value" || of(bad) == "out-of-range") << bad << " " << of(bad);
}

TEST(Grammar, AddressRanges) {
  const auto of = [](std::string_view text) {
    Cidr out;
    return parse_cidr(text, out) ? "bad" : out.to_string();
  };
  EXPECT_EQ(of("10.0.0.0/8"), "10.0.0.0/8");
  EXPECT_EQ(of("10.1.2.3"), "10.1.2.3/32");
  EXPECT_EQ(of("0.0.0.0/0"), "0.0.0.0/0");
  EXPECT_EQ(of("fd00::/8"), "fd00::/8");
  EXPECT_EQ(of("::/0"), "::/0");
  EXPECT_EQ(of("::1"), "::1/128");
  for (const char* bad : {"", "10.0.0.0/33", "10.0.0.1/8", "fd00::1/8", "fd00::/129", "10.0.0.0/-1",
                          "10.0.0.0/", "10.0.0.0/08", "x", "10.0.0"})
    EXPECT_EQ(of(bad), "bad") << bad;
  Cidr range;
  ASSERT_FALSE(parse_cidr("10.128.0.0/9", range));
  const auto mapped = [](std::uint8_t a, std::uint8_t b) {
    return std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, 0, 1};
  };
  EXPECT_TRUE(range.contains(mapped(10, 128)));
  EXPECT_TRUE(range.contains(mapped(10, 255)));
  EXPECT_FALSE(range.contains(mapped(10, 127)));
  EXPECT_FALSE(range.contains(mapped(11, 128)));
}

TEST(Grammar, Loopback) {
  const auto of = [](std::string_view text) {
    Address out;
    EXPECT_FALSE(parse_address(text, out)) << text;
    return is_loopback(out);
  };
  for (const char* inside : {"8080", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/x"})
    EXPECT_TRUE(of(inside)) << inside;
  for (const char* outside : {":8080", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::2]:1"})
    EXPECT_FALSE(of(outside)) << outside;
}

TEST(Grammar, Hosts) {
  const auto of = [](std::string_view text) {
    HostMatch out;
    if (parse_host(text, out)) return std::string("bad");
    return std::to_string(static_cast<int>(out.kind)) + out.text +
           (out.port ? ":" + std::to_string(*out.port) : "");
  };
  EXPECT_EQ(of("*"), "0");
  EXPECT_EQ(of("*:8080"), "0:8080");
  EXPECT_EQ(of("Shop.Example."), "1shop.example");
  EXPECT_EQ(of("shop.example:8443"), "1shop.example:8443");
  EXPECT_EQ(of("10.0.0.1"), "110.0.0.1");
  EXPECT_EQ(of("[::1]:80"), "1[::1]:80");
  EXPECT_EQ(of("*.shop.example"), "2shop.example");
  EXPECT_EQ(of("my_host"), "1my_host");
  for (const char* bad : {"", ".", "a..b", "*.", "*a", "a.*", "*.*.a", "a b", "a:0", "a:65536",
                          "a:", "ä.example", "a/b", "[::1", "http://a"})
    EXPECT_EQ(of(bad), "bad") << bad;
}

TEST(Grammar, Paths) {
  const auto of = [](std::string_view text) {
    PathMatch out;
    if (parse_path(text, out)) return std::string("bad");
    std::string all = std::to_string(static_cast<int>(out.kind));
    for (const auto& segment : out.segments)
      all += "/" + (segment.kind == PathMatch::Segment::Kind::kAny ? "{" + segment.text + "}"
                                                                   : segment.text);
    return all + (out.trailing_slash ? "/" : "") + out.regex;
  };
  EXPECT_EQ(of("/"), "1/");
  EXPECT_EQ(of("/a"), "1/a");
  EXPECT_EQ(of("/a/"), "1/a/");
  EXPECT_EQ(of("/a//b"), "1/a//b");
  EXPECT_EQ(of("//"), "1//");
  EXPECT_EQ(of("/a/*/b"), "2/a/{}/b");
  EXPECT_EQ(of("/a/{id}/"), "2/a/{id}/");
  EXPECT_EQ(of("/**"), "3");
  EXPECT_EQ(of("/a/{id}/**"), "3/a/{id}");
  EXPECT_EQ(of("~^/v[0-9]+/"), "4^/v[0-9]+/");
  EXPECT_EQ(of("/%61%2f%C3%a4"), "1/a%2f%C3%a4");  // unreserved decoded, the rest as it was
  EXPECT_EQ(of("/\xC3\xA4"), "1/%C3%A4");
  EXPECT_EQ(of("/a;b=c,d:e@f!$&'()+~"), "1/a;b=c,d:e@f!$&'()+~");
  for (const char* bad :
       {"",        "a",        "/a/**/b", "/**/",  "/a*",     "/{a", "/a}",  "/{}",
        "/{a}{b}", "/{a}/{a}", "/.",      "/a/..", "/%2E%2e", "/%",  "/%g0", "/%00",
        "/a?b",    "/a#b",     "/a b",    "/a\\b", "/a\tb",   "~",   "~("})
    EXPECT_EQ(of(bad), "bad") << bad;
}

TEST(Grammar, ShortForms) {
  for (const char* text : {"/a", "/**", "GET /a", "GET,POST shop.example/a/**",
                           "*.shop.example:8443/x", "~^/a b", "shop.example~^/x", "M-SEARCH /a"}) {
    Match match;
    EXPECT_FALSE(parse_match(text, match)) << text;
    EXPECT_EQ(short_form(match), text);
  }
  Match match;
  EXPECT_EQ(short_form(match), "/**");
  EXPECT_FALSE(parse_match("*/a", match));
  EXPECT_EQ(short_form(match), "/a");
  for (const char* bad : {"", "GET", "shop.example", "get /a", "GET, POST /a", "GET  /a", "GET,/a",
                          ",GET /a", "GET POST /a", " /a", "a b/c"})
    EXPECT_TRUE(parse_match(bad, match)) << bad;
}

TEST(Grammar, ValueMatches) {
  const auto of = [](std::string_view text) {
    ValueMatch out;
    if (parse_value_match(text, out)) return std::string("bad");
    return std::to_string(static_cast<int>(out.kind)) + (out.negated ? "!" : "=") + out.text;
  };
  EXPECT_EQ(of("text"), "0=text");
  EXPECT_EQ(of("!text"), "0!text");
  EXPECT_EQ(of("~^a"), "1=^a");
  EXPECT_EQ(of("!~^a"), "1!^a");
  EXPECT_EQ(of(""), "2=");
  EXPECT_EQ(of("!"), "2!");
  EXPECT_EQ(of("~("), "bad");
  EXPECT_EQ(of("~"), "bad");
}

TEST(Grammar, Targets) {
  Target target;
  EXPECT_FALSE(parse_target("cart@v2", target));
  EXPECT_EQ(target.service, "cart");
  EXPECT_EQ(target.subset, "v2");
  EXPECT_FALSE(parse_target("cart", target));
  EXPECT_EQ(target.subset, "");
  for (const char* bad : {"", "@", "@v2", "cart@", "a b", "a@b@c", "cart@v 2"})
    EXPECT_TRUE(parse_target(bad, target)) << bad;
}

TEST(Grammar, Templates) {
  Template out;
  EXPECT_FALSE(parse_template("/v2/{id}/x-{name}/**", out));
  EXPECT_EQ(out.captures, (std::vector<std::string_view>{"id", "name"}));
  EXPECT_TRUE(out.rest);
  EXPECT_FALSE(parse_template("/**", out));
  EXPECT_TRUE(out.rest);
  EXPECT_FALSE(parse_template("/a/\\2/\\1", out));
  EXPECT_EQ(out.group, 2);
  EXPECT_FALSE(out.rest);
  for (const char* bad : {"", "a", "/*", "/a/*/b", "/**/a", "/a**", "/{", "/{}", "/{a b}", "/a}",
                          "/\\0", "/\\", "/\\x", "/a?b", "/a#b", "/a b"})
    EXPECT_TRUE(parse_template(bad, out)) << bad;
}

TEST(Grammar, CapturesMustBeInTheMatch) {
  const auto fits = [](const char* wanted, const char* path) {
    Template taken;
    PathMatch match;
    EXPECT_FALSE(parse_template(wanted, taken));
    EXPECT_FALSE(parse_path(path, match));
    return !check_captures(taken, match);
  };
  EXPECT_TRUE(fits("/b/{id}", "/a/{id}"));
  EXPECT_FALSE(fits("/b/{id}", "/a/*"));
  EXPECT_FALSE(fits("/b/{id}", "/a/id"));
  EXPECT_TRUE(fits("/b/**", "/a/**"));
  EXPECT_FALSE(fits("/b/**", "/a"));
  EXPECT_TRUE(fits("/b/\\1", "~^/(a)"));
  EXPECT_FALSE(fits("/b/\\2", "~^/(a)"));
  EXPECT_FALSE(fits("/b/\\1", "/a"));
}

TEST(Grammar, Fields) {
  for (const char* ours :
       {"Connection", "content-length", "Transfer-Encoding", "upgrade", "te", "host"})
    EXPECT_TRUE(check_edited_field(ours)) << ours;
  for (const char* fine : {"x-a", "Cookie", "content-type", "x-forwarded-for"})
    EXPECT_FALSE(check_edited_field(fine)) << fine;
  for (const char* bad : {"", "a b", "a:", "ä", "a\r"}) EXPECT_TRUE(check_field_name(bad)) << bad;
  for (const char* bad : {"a\nb", "a\r", " a", "a ", "\ta"})
    EXPECT_TRUE(check_field_value(bad)) << bad;
  for (const char* fine : {"", "a b", "a\tb", "\xC3\xA4"})
    EXPECT_FALSE(check_field_value(fine)) << fine;
}

}  // namespace
}  // namespace outrider::config
