#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind basic_filter();

namespace {

using test::World;
using ::testing::Test;

// ann:opensesame (bcrypt), bob:hunter2 (SHA-512), cyd:pw256 (SHA-256).
const std::string kUsers = OUTRIDER_SOURCE_DIR "/tests/unit/config/full.d/users.htpasswd";
constexpr char kAnn[] = "Basic YW5uOm9wZW5zZXNhbWU=";

class BasicTest : public Test, protected World {
 protected:
  void start(const std::string& more = "") {
    say("basic: { users: " + kUsers + more + " }");
    filter = basic_filter().make(context());
    ASSERT_NE(filter, nullptr);
  }
  // Until it is decided.
  Verdict request(const std::string& authorization) {
    exchange();
    control.now = now_ns;
    if (!authorization.empty()) header("Authorization", x->arena.copy(authorization));
    control.errand = nullptr;
    Verdict verdict = filter->on_request(*x, control);
    asked_again = verdict == Verdict::kAskAgain;
    if (asked_again) verdict = filter->on_request(*x, control);
    return verdict;
  }
  void expect_refused(const std::string& authorization) {
    EXPECT_EQ(request(authorization), Verdict::kReply) << authorization;
    EXPECT_EQ(x->answer.reason, Reason::kUnauthenticated);
    EXPECT_EQ(x->caller(), "");
    filter->on_response(*x, control);
    EXPECT_EQ(answered("www-authenticate"), "Basic realm=\"restricted\", charset=\"UTF-8\"");
  }
  static std::vector<std::string> refused_file(const std::string& lines) {
    const std::string path = ::testing::TempDir() + "outrider_basic_test";
    std::ofstream(path) << lines;
    std::vector<std::string> all = refused("basic: { users: " + path + " }");
    for (std::string& one : all)
      if (const std::size_t at = one.find(path); at != std::string::npos)
        one.erase(at, path.size());
    return all;
  }
  std::unique_ptr<const Filter> filter;
  std::uint64_t now_ns = 1;
  bool asked_again = false;
};

TEST_F(BasicTest, EachKindOfHashIsUnderstood) {
  start();
  for (const auto& [authorization, name] : {std::pair<const char*, const char*>{kAnn, "ann"},
                                            {"basic  Ym9iOmh1bnRlcjI", "bob"},
                                            {"BASIC Y3lkOnB3MjU2", "cyd"}}) {
    EXPECT_EQ(request(authorization), Verdict::kContinue);
    EXPECT_EQ(x->caller(), name);
    EXPECT_EQ(sent("authorization"), "-") << "the service does not learn the password";
    filter->on_response(*x, control);
    EXPECT_EQ(answered("www-authenticate"), "-");
  }
}

TEST_F(BasicTest, WhatDoesNotFitIsRefusedAlike) {
  start();
  expect_refused("");
  expect_refused("Bearer YW5uOm9wZW5zZXNhbWU=");
  expect_refused("Basic");
  expect_refused("Basic ");
  expect_refused("Basic YW5u");                      // no colon
  expect_refused("Basic YW5uOm9wZW5zZXNhbWU!");      // no base64
  expect_refused("Basic YW5uOndyb25n");              // ann:wrong
  expect_refused("Basic bm9ib2R5Om9wZW5zZXNhbWU=");  // nobody:opensesame
  expect_refused("Basic YW5uOg==");                  // ann:
  expect_refused("Basic YW5uOm9wZW5zZXNhbWUAeA==");  // ann:opensesame\0x
}

TEST_F(BasicTest, AnUnknownNameIsCheckedLikeAnother) {
  start();
  request("Basic bm9ib2R5OnNvbWV0aGluZw==");  // nobody:something
  EXPECT_TRUE(asked_again) << "else the time tells which names there are";
}

TEST_F(BasicTest, APasswordIsCheckedOnceInAWhile) {
  start();
  constexpr char kOther[] = "Basic Ym9iOndyb25n";  // bob:wrong
  now_ns = 1'000'000'000'000;
  request(kAnn);
  request(kOther);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(request(kAnn), Verdict::kContinue);
    EXPECT_FALSE(asked_again);
    EXPECT_EQ(request(kOther), Verdict::kReply);
    EXPECT_FALSE(asked_again);
  }
  now_ns += static_cast<std::uint64_t>(std::chrono::nanoseconds(limits::kVerdictAge).count());
  EXPECT_EQ(request(kAnn), Verdict::kContinue);
  EXPECT_TRUE(asked_again);
}

TEST_F(BasicTest, NothingIsCheckedHereAndTooManyAreTurnedAway) {
  start();
  control.errands_allowed = false;
  EXPECT_EQ(request("Basic Y3lkOm5ldmVyIHNlZW4="), Verdict::kReply);  // cyd:never seen
  EXPECT_EQ(x->answer.reason, Reason::kOverload);
}

TEST_F(BasicTest, ARehearsalAsksNobody) {
  start();
  control.errands_allowed = false;
  exchange();
  x->rehearsed = true;
  header("authorization", "Basic Y3lkOnB3MjU2");
  now_ns += 1'000'000'000'000'000;
  control.now = now_ns;
  EXPECT_EQ(filter->on_request(*x, control), Verdict::kContinue);
}

TEST_F(BasicTest, ForwardKeepsTheCredentialsAndTheRealmIsQuoted) {
  start(", forward: true, realm: 'a \"b\\'");
  request(kAnn);
  EXPECT_EQ(sent("authorization"), kAnn);
  request("");
  filter->on_response(*x, control);
  EXPECT_EQ(answered("www-authenticate"), "Basic realm=\"a \\\"b\\\\\", charset=\"UTF-8\"");
}

TEST_F(BasicTest, BadLinesAreNamedAndNotShown) {
  const std::string weak =
      "this kind of hash (MD5, SHA-1) is guessed too fast: make it anew with "
      "`htpasswd -B` [bad-value]";
  EXPECT_EQ(refused_file("# one\nann:$apr1$x$y\n\nbob:{SHA}abc=\n"),
            (std::vector<std::string>{":2: " + weak, ":4: " + weak, " holds no user [bad-value]"}));
  EXPECT_EQ(refused_file("ann:plain").at(0),
            ":1: the hash is none of bcrypt ($2y$), SHA-256 ($5$), SHA-512 ($6$): make it with "
            "`htpasswd -B` [bad-value]");
  EXPECT_EQ(refused_file("ann\n").at(0), ":1: the line is not NAME:HASH [bad-value]");
  EXPECT_EQ(refused_file("ann:$2y$05$short\n").at(0),
            ":1: the bcrypt hash is malformed [bad-value]");
  EXPECT_EQ(refused_file("ann:$6$salt$short\n").at(0), ":1: the SHA hash is malformed [bad-value]");
  const std::string tail(53, 'a');
  EXPECT_EQ(refused_file("ann:$2y$31$" + tail).at(0),
            ":1: the bcrypt cost is above 14: each login would take seconds [bad-value]");
  EXPECT_EQ(refused_file("ann:$5$rounds=9999999$salt$" + std::string(43, 'a')).at(0),
            ":1: the SHA hash has over 1000000 rounds: each login would take seconds [bad-value]");
  EXPECT_EQ(refused_file("a:$2y$05$" + tail + "\na:$2y$05$" + tail + "\n"),
            std::vector<std::string>{":2: the name stands twice [bad-value]"});
  EXPECT_EQ(refused("basic: { users: /nowhere/users }"),
            std::vector<std::string>{
                "'/nowhere/users' cannot be read: No such file or directory [file]"});
  EXPECT_EQ(refused("basic: { realm: x }"),
            std::vector<std::string>{"`basic` has no `users` [missing-key]"});
}

TEST_F(BasicTest, NothingToDoIsNoFilter) { EXPECT_EQ(basic_filter().make(context()), nullptr); }

}  // namespace
}  // namespace outrider
