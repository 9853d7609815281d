#include "filters/forwarded.h"
#include "filters/registry.h"

#include <gtest/gtest.h>

#include <set>

#include "filters/random.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind forwarded_filter();

namespace {

using test::cidr;

class Forwarded : public testing::Test, public test::World {
 protected:
  void from_untrusted() { peer("192.0.2.1"); }
  void from_trusted() {
    listener.trust = {cidr("10.0.0.0", 8)};
    peer("10.0.0.1", true);
  }
  // The request as it leaves, after trust and the filter.
  Verdict forward() {
    trust(*x);
    const auto filter = forwarded_filter().make(context());
    const Verdict verdict = filter->on_request(*x, control);
    if (verdict == Verdict::kContinue) {
      x->attempts = 1;
      filter->on_attempt(*x);
    }
    return verdict;
  }
};

TEST_F(Forwarded, AnOrdinaryRequestLearnsAboutItsClient) {
  exchange("/a", "shop.example:8080");
  header("user-agent", "curl");
  EXPECT_EQ(forward(), Verdict::kContinue);
  EXPECT_EQ(sent("x-forwarded-for"), "192.0.2.1");
  EXPECT_EQ(sent("x-forwarded-proto"), "http");
  EXPECT_EQ(sent("x-forwarded-host"), "shop.example:8080");
  EXPECT_EQ(sent("x-outrider-hops"), "1");
  EXPECT_EQ(sent("x-outrider-attempt"), "-");
  EXPECT_EQ(sent("x-request-id"), x->request_id);
  EXPECT_EQ(sent("user-agent"), "curl");
  EXPECT_EQ(x->client_ip_text, "192.0.2.1");
  EXPECT_FALSE(x->talkative);
}

TEST_F(Forwarded, NothingIsAddedWhenTheListenerSaysSo) {
  listener.forwarded = false;
  exchange();
  header("x-request-id", "mine");
  forward();
  EXPECT_EQ(sent("x-forwarded-for"), "-");
  EXPECT_EQ(sent("x-forwarded-proto"), "-");
  EXPECT_EQ(sent("x-outrider-hops"), "-");
  EXPECT_EQ(sent("x-request-id"), "mine");
}

TEST_F(Forwarded, WhatAnUntrustedPeerClaimsIsGone) {
  exchange();
  for (const char* name :
       {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded",
        "X-Real-IP", "X-Forwarded-Prefix", "X-Envoy-Retry-On", "x-envoy-force-trace",
        "X-OUTRIDER-Debug", "l5d-dst-override", "L5d-Retry-Limit", "X-Original-URL",
        "X-Rewrite-Url", "Proxy", "X-Forwarded-Client-Cert", "x-b3-flags"})
    header(name, "1.2.3.4");
  header("accept", "*/*");
  forward();
  EXPECT_EQ(sent("X-Forwarded-For"), "192.0.2.1");
  EXPECT_EQ(sent("X-Forwarded-Proto"), "http");
  EXPECT_EQ(sent("X-Forwarded-Host"), "shop.example");
  for (const char* name :
       {"X-Forwarded-Port", "Forwarded", "X-Real-IP", "X-Forwarded-Prefix", "X-Envoy-Retry-On",
        "x-envoy-force-trace", "X-OUTRIDER-Debug", "l5d-dst-override", "L5d-Retry-Limit",
        "X-Original-URL", "X-Rewrite-Url", "Proxy", "X-Forwarded-Client-Cert", "x-b3-flags"})
    EXPECT_EQ(sent(name), "-") << name;
  EXPECT_EQ(sent("accept"), "*/*");
}

TEST_F(Forwarded, NamesThatImitateKnownOnesAreGoneOthersGoOn) {
  for (const bool trusted : {false, true}) {
    trusted ? from_trusted() : from_untrusted();
    exchange();
    for (const char* name : {"X_Forwarded_For", "x-forwarded_client-cert", "Content_Length",
                             "x_outrider_debug", "L5D_dst", "AUTHORIZATION_"})
      header(name, "v");
    header("my_header", "kept");
    header("x_team", "kept");
    forward();
    for (const char* name : {"X_Forwarded_For", "x-forwarded_client-cert", "Content_Length",
                             "x_outrider_debug", "L5D_dst"})
      EXPECT_EQ(sent(name), "-") << name << trusted;
    EXPECT_EQ(sent("AUTHORIZATION_"), "v");  // `authorization-` is no known name
    EXPECT_EQ(sent("my_header"), "kept");
    EXPECT_EQ(sent("x_team"), "kept");
  }
}

TEST_F(Forwarded, TrustedPeersAreBelieved) {
  from_trusted();
  exchange();
  header("X-Forwarded-For", "198.51.100.9, 10.2.2.2");
  header("X-Forwarded-Proto", "https");
  header("X-Forwarded-Host", "outer.example");
  header("X-Forwarded-Port", "443");
  header("x-envoy-retry-on", "5xx");
  header("X-Forwarded-Client-Cert", "By=spiffe://x");
  forward();
  EXPECT_EQ(x->client_ip_text, "198.51.100.9");
  EXPECT_EQ(sent("X-Forwarded-For"), "198.51.100.9, 10.2.2.2, 10.0.0.1");
  EXPECT_EQ(sent("X-Forwarded-Proto"), "https");
  EXPECT_EQ(sent("X-Forwarded-Host"), "outer.example");
  EXPECT_EQ(sent("X-Forwarded-Port"), "443");
  EXPECT_EQ(sent("x-envoy-retry-on"), "5xx");
  EXPECT_EQ(sent("X-Forwarded-Client-Cert"), "-");
  EXPECT_FALSE(x->talkative) << "the client is not the peer";
}

// Of anyone: there is no peer whose trailers are believed.
TEST_F(Forwarded, TrailersSayNothingThatOnlyAHeadMay) {
  from_trusted();
  exchange();
  Headers trailers(x->arena);
  for (const char* name :
       {"X_Forwarded_For", "Content_Length", "X-Envoy-Original-Path", "X-Original-URL",
        "X-Rewrite-URL", "l5d-dst-override", "X_Outrider_Hops", "X-Forwarded-Host",
        "x-outrider-debug", "X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Client-Cert",
        "X-Sum", "Grpc-Status", "my_trailer"})
    trailers.add(header_id(name), name, "v");
  clean_trailers(trailers);
  std::string left;
  for (const Header& header : trailers) left.append(header.name).append(" ");
  EXPECT_EQ(left, "X-Sum Grpc-Status my_trailer ");
}

struct Chain {
  const char* what;
  std::vector<std::pair<const char*, const char*>> fields;
  const char* client;
  bool talkative;
};

TEST_F(Forwarded, TheClientIsTheFirstAddressFromTheRightThatNobodyVouchesFor) {
  const Chain cases[] = {
      {"no field", {}, "10.0.0.1", true},
      {"one", {{"x-forwarded-for", "198.51.100.9"}}, "198.51.100.9", false},
      {"forged on the left",
       {{"x-forwarded-for", "127.0.0.1, 198.51.100.9, 10.1.1.1"}},
       "198.51.100.9",
       false},
      {"all trusted: the leftmost", {{"x-forwarded-for", "10.3.3.3, 10.1.1.1"}}, "10.3.3.3", true},
      {"two fields, last first",
       {{"x-forwarded-for", "198.51.100.9"}, {"x-forwarded-for", "203.0.113.5 , 10.1.1.1"}},
       "203.0.113.5",
       false},
      {"goes on in the field before",
       {{"x-forwarded-for", "198.51.100.9"}, {"x-forwarded-for", "10.1.1.1"}},
       "198.51.100.9",
       false},
      {"rubbish ends it", {{"x-forwarded-for", "198.51.100.9, evil, 10.1.1.1"}}, "10.1.1.1", true},
      {"empty", {{"x-forwarded-for", ""}}, "10.0.0.1", true},
      {"empty entry ends it", {{"x-forwarded-for", "198.51.100.9,,10.1.1.1"}}, "10.1.1.1", true},
      {"with ports", {{"x-forwarded-for", "198.51.100.9:5000"}}, "198.51.100.9", false},
      {"IPv6", {{"x-forwarded-for", "2001:DB8::1"}}, "2001:db8::1", false},
      {"IPv6 with port", {{"x-forwarded-for", "[2001:db8::1]:443"}}, "2001:db8::1", false},
      {"loopback", {{"x-forwarded-for", "127.0.0.1"}}, "127.0.0.1", true},
      {"Forwarded",
       {{"forwarded", "for=198.51.100.9;proto=https, for=10.1.1.1"}},
       "198.51.100.9",
       false},
      {"Forwarded, quoted",
       {{"forwarded", "proto=http; For=\"[2001:db8::1]:80\""}},
       "2001:db8::1",
       false},
      {"Forwarded, obfuscated", {{"forwarded", "for=198.51.100.9, for=_hidden"}}, "10.0.0.1", true},
      {"X-Forwarded-For comes first",
       {{"forwarded", "for=198.51.100.1"}, {"x-forwarded-for", "198.51.100.9"}},
       "198.51.100.9",
       false},
  };
  for (const Chain& chain : cases) {
    from_trusted();
    exchange();
    for (const auto& [name, value] : chain.fields) header(name, value);
    trust(*x);
    EXPECT_EQ(x->client_ip_text, chain.client) << chain.what;
    EXPECT_EQ(x->talkative, chain.talkative) << chain.what;
    std::array<std::uint8_t, 16> ip{};
    ASSERT_TRUE(parse_ip(chain.client, ip));
    EXPECT_EQ(x->client_ip, ip) << chain.what;
  }
}

TEST_F(Forwarded, LocalClientsMayHearMore) {
  peer("127.0.0.1");
  client.local = true;
  exchange();
  trust(*x);
  EXPECT_TRUE(x->talkative);
}

TEST_F(Forwarded, AUnixPeerHasNoAddressToAppend) {
  client.unix_socket = client.local = true;
  client.ip = {};
  client.ip_text = "unix";
  exchange();
  forward();
  EXPECT_EQ(sent("x-forwarded-for"), "-");
  EXPECT_EQ(sent("x-forwarded-proto"), "http");
}

TEST_F(Forwarded, WithoutAHostThereIsNoneToForward) {
  exchange("/", "");
  forward();
  EXPECT_EQ(sent("x-forwarded-host"), "-");
}

TEST_F(Forwarded, HopsAreCountedAndALoopEnds) {
  for (std::uint32_t hops = 0; hops < 10; ++hops) {
    exchange();
    header("x-outrider-hops", x->arena.copy(std::to_string(hops)));
    EXPECT_EQ(forward(), Verdict::kContinue);
    EXPECT_EQ(sent("x-outrider-hops"), std::to_string(hops + 1));
  }
  for (const char* hops : {"10", "11", "99999999999999999999"}) {
    exchange();
    header("x-outrider-hops", hops);
    EXPECT_EQ(forward(), Verdict::kReply) << hops;
    EXPECT_EQ(x->answer.reason, Reason::kLoopDetected);
  }
}

TEST_F(Forwarded, TheHighestCountOfHopsHoldsAndRubbishIsNone) {
  exchange();
  header("x-outrider-hops", "2");
  header("x-outrider-hops", "7");
  header("x-outrider-hops", "-3");
  header("x-outrider-hops", "1e9");
  header("x-outrider-hops", "");
  forward();
  EXPECT_EQ(sent("x-outrider-hops"), "8");
}

TEST_F(Forwarded, AttemptsAreToldOnRetriesAndCarriedOn) {
  exchange();
  forward();
  const auto filter = forwarded_filter().make(context());
  x->attempts = 2;
  filter->on_attempt(*x);
  EXPECT_EQ(sent("x-outrider-attempt"), "2");
  x->attempts = 3;
  filter->on_attempt(*x);
  EXPECT_EQ(sent("x-outrider-attempt"), "3");

  exchange();
  header("x-outrider-attempt", "2");
  forward();
  EXPECT_EQ(x->inbound_attempt, 2U);
  EXPECT_EQ(sent("x-outrider-attempt"), "2");
  x->attempts = 2;
  filter->on_attempt(*x);
  EXPECT_EQ(sent("x-outrider-attempt"), "3");
}

TEST_F(Forwarded, ASaneRequestIdIsKept) {
  for (const char* id :
       {"a", "req-1.2_3", "0123456789abcdefABCDEF0123456789-0123456789abcdefABCDEF012345678"}) {
    exchange();
    header("X-Request-Id", id);
    forward();
    EXPECT_EQ(sent("x-request-id"), id);
    EXPECT_EQ(x->request_id, id);
  }
}

TEST_F(Forwarded, AnInsaneRequestIdIsReplaced) {
  for (const char* id : {"", "a b", "a\"b", "x\xff", "a/b", "{\"json\":1}",
                         "0123456789abcdefABCDEF0123456789-0123456789abcdefABCDEF0123456789"}) {
    exchange();
    header("x-request-id", id);
    forward();
    EXPECT_NE(sent("x-request-id"), id);
    EXPECT_EQ(sent("x-request-id").size(), 32U);
  }
}

TEST_F(Forwarded, OneRequestIdLeaves) {
  exchange();
  header("x-request-id", "first");
  header("x-request-id", "second");
  forward();
  EXPECT_EQ(sent("x-request-id"), "first");
}

TEST_F(Forwarded, MadeRequestIdsDifferAndReplayFromASeed) {
  std::set<std::string> ids;
  seed_thread_random(7);
  for (int i = 0; i < 1000; ++i) {
    exchange();
    trust(*x);
    ids.insert(std::string(x->request_id));
  }
  EXPECT_EQ(ids.size(), 1000U);
  for (std::size_t at = 0; at < 32; ++at) {
    std::set<char> digits;
    for (const std::string& id : ids) digits.insert(id.at(at));
    EXPECT_EQ(std::string(digits.begin(), digits.end()), "0123456789abcdef") << at;
  }
  seed_thread_random(7);
  exchange();
  trust(*x);
  EXPECT_TRUE(ids.contains(std::string(x->request_id)));
}

TEST_F(Forwarded, RawConnectionsAreLeftAlone) {
  exchange();
  x->request.version = Version::kTcp;
  forward();
  EXPECT_TRUE(x->request.headers.empty());
}

TEST_F(Forwarded, OnlyWhatIsForwardedNeedsIt) {
  EXPECT_EQ(forwarded_filter().make(context(false)), nullptr);
}

TEST(ParseIp, TakesAddressesWithAndWithoutPorts) {
  std::array<std::uint8_t, 16> ip{};
  for (const char* good :
       {"1.2.3.4", "1.2.3.4:80", "::1", "[::1]", "[::1]:65535", "2001:db8::1", "::ffff:1.2.3.4"})
    EXPECT_TRUE(parse_ip(good, ip)) << good;
  for (const char* bad :
       {"",          "1.2.3",        "1.2.3.4.5", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456",
        "[1.2.3.4]", "[::1",         "[::1]80",   "[::1]:",   "::1]",      "host",
        "1.2.3.4 ",  "fe80::1%eth0", "0x7f.1",    "unknown",  ":",         "[",
        "[]",        "]:1"})
    EXPECT_FALSE(parse_ip(bad, ip)) << bad;
  EXPECT_FALSE(parse_ip(std::string_view("1.2.3.4\0", 8), ip));
  EXPECT_FALSE(parse_ip(std::string(1000, ':'), ip));
}

TEST(ParseIp, MappedAddressesAreIPv4) {
  std::array<std::uint8_t, 16> plain{}, mapped{};
  ASSERT_TRUE(parse_ip("1.2.3.4", plain));
  ASSERT_TRUE(parse_ip("::ffff:1.2.3.4", mapped));
  EXPECT_EQ(plain, mapped);
  BlockPool blocks;
  Arena arena(blocks);
  EXPECT_EQ(format_ip(mapped, arena), "1.2.3.4");
}

}  // namespace
}  // namespace outrider
