// One spelling for every target; what can be read in two ways is refused.
#include "filters/http/path.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace outrider {
namespace {

class Path : public testing::Test {
 protected:
  // The normal form, or `! words`.
  std::string of(std::string_view target, bool merge_slashes = true) {
    std::string_view why;
    out_ = {};
    if (!normalise_target(target, merge_slashes, arena_, out_, why)) return "! " + std::string(why);
    return std::string(out_.path);
  }
  BlockPool blocks_;
  Arena arena_{blocks_};
  NormalisedTarget out_;
};

TEST_F(Path, NormalOnesAreNotCopied) {
  for (const std::string_view target :
       {"/", "/a", "/a/", "/.well-known/x", "/a.b/...", "/..a/.b/c..", "/a%20b",
        "/a:b@c!$&'()*+,;=", "/\xc3\xa4", "/a;x=..", "/..;/b"}) {
    EXPECT_EQ(of(target), target);
    EXPECT_EQ(out_.path.data(), target.data()) << target;
    EXPECT_EQ(out_.query, "");
  }
}

TEST_F(Path, DotSegmentsAreResolved) {
  EXPECT_EQ(of("/a/../b"), "/b");
  EXPECT_EQ(of("/./a/./b/."), "/a/b/");
  EXPECT_EQ(of("/a/b/.."), "/a/");
  EXPECT_EQ(of("/a/b/../"), "/a/");
  EXPECT_EQ(of("/a/b/c/../../d"), "/a/d");
  EXPECT_EQ(of("/a/.."), "/");
  EXPECT_EQ(of("/."), "/");
  EXPECT_EQ(of("/a/%2e%2E/b"), "/b");
  EXPECT_EQ(of("/a/.%2e/b"), "/b");
  EXPECT_EQ(of("/%2e/a"), "/a");
  EXPECT_EQ(of("/admin/../public"), "/public");
}

TEST_F(Path, AboveTheRootIsRefused) {
  for (const char* target :
       {"/..", "/../a", "/a/../..", "/%2e%2e/a", "/a/../../b", "//..", "/./..", "/../"})
    EXPECT_EQ(of(target), "! a path above the root") << target;
}

TEST_F(Path, SlashesAreMergedWhereAsked) {
  EXPECT_EQ(of("//a"), "/a");
  EXPECT_EQ(of("/a//b///c//"), "/a/b/c/");
  EXPECT_EQ(of("//"), "/");
  EXPECT_EQ(of("/a//../b"), "/b");
  EXPECT_EQ(of("/a/.//b"), "/a/b");
  EXPECT_EQ(of("//a//b", false), "//a//b");
  EXPECT_EQ(of("/a//../b", false), "/a/b");
  EXPECT_EQ(of("//..", false), "/");
  EXPECT_EQ(of("/..//", false), "! a path above the root");
}

TEST_F(Path, OnlyUnreservedBytesAreDecoded) {
  EXPECT_EQ(of("/%61dmin"), "/admin");
  EXPECT_EQ(of("/%41%7A%30%2d%2E%5f%7E"), "/Az0-._~");
  EXPECT_EQ(of("/%20%2B%3f%23%25%7f%c3%A4%0d%0a"), "/%20%2B%3f%23%25%7f%c3%A4%0d%0a");
  EXPECT_EQ(of("/%252e%252e/a"), "/%252e%252e/a");
  EXPECT_EQ(of("/%2561"), "/%2561");
}

TEST_F(Path, EscapedSlashesStayAndAreNoted) {
  EXPECT_EQ(of("/a%2fb"), "/a%2fb");
  EXPECT_TRUE(out_.escaped_slash);
  EXPECT_EQ(of("/a%5Cb/%61"), "/a%5Cb/a");
  EXPECT_TRUE(out_.escaped_slash);
  EXPECT_EQ(of("/a/..%2fb"), "/a/..%2fb");
  EXPECT_EQ(of("/a?b=%2f"), "/a");
  EXPECT_FALSE(out_.escaped_slash);
}

TEST_F(Path, WhatIsRefused) {
  for (const char* target : {"/%", "/%2", "/%2x", "/%x2", "/%%20", "/a%"})
    EXPECT_EQ(of(target), "! a bad percent escape in the path") << target;
  EXPECT_EQ(of("/%00"), "! an encoded NUL in the path");
  EXPECT_EQ(of("/a\\b"), "! a backslash in the path");
  EXPECT_EQ(of("/a#b"), "! a fragment in the target");
  EXPECT_EQ(of("/a?b#c"), "! a control byte, space or fragment in the query");
  for (const char* target : {"", "a", "*", "?a", "http://h/"})
    EXPECT_EQ(of(target), "! a path that does not begin with /") << target;
  for (int c = 0; c <= 0x7f; ++c) {
    if (c > ' ' && c != 0x7f) continue;
    EXPECT_EQ(of(std::string("/a") + static_cast<char>(c)),
              "! a control byte or space in the path");
    EXPECT_EQ(of(std::string("/a?") + static_cast<char>(c)),
              "! a control byte, space or fragment in the query");
  }
}

TEST_F(Path, TheQueryStaysAsItCame) {
  EXPECT_EQ(of("/a/../b?x=/../%61&y=%&z=\\?"), "/b");
  EXPECT_EQ(out_.query, "?x=/../%61&y=%&z=\\?");
  EXPECT_EQ(of("/a?"), "/a");
  EXPECT_EQ(out_.query, "?");
  EXPECT_EQ(of("/..?a"), "! a path above the root");
  EXPECT_EQ(of("/.?a"), "/");
  EXPECT_EQ(of("/a/..?a"), "/");
}

TEST_F(Path, ARewrittenPathHasNoQuery) {
  std::string_view why;
  EXPECT_FALSE(normalise_path("/a?b", true, arena_, out_, why));
  EXPECT_EQ(why, "a question mark in the path");
  EXPECT_FALSE(normalise_path("/a\r\nx: y", true, arena_, out_, why));
  ASSERT_TRUE(normalise_path("/a/./b", true, arena_, out_, why));
  EXPECT_EQ(out_.path, "/a/b");
}

// Whether a path, taken as a walk, ever has a dot segment or an empty one, in any spelling.
bool is_clean(std::string_view path, bool merged) {
  if (!path.starts_with('/')) return false;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    if (segment == "." || segment == "..") return false;
    if (merged && segment.empty() && !path.empty()) return false;
    for (std::size_t i = 0; i + 2 < segment.size(); ++i) {
      const std::string_view escape = segment.substr(i, 3);
      if (escape == "%2e" || escape == "%2E" || escape == "%61" || escape == "%00") return false;
    }
  }
  return true;
}

TEST_F(Path, RandomOnesNeverLeaveTheRootAndStayAsTheyAre) {
  constexpr std::string_view kPieces[] = {"/",   "//",   ".",    "..",  "/../", "/./", "%2e",
                                          "%2E", "%2f",  "%5c",  "%61", "%25",  "%00", "a",
                                          "b",   "?",    "#",    "\\",  " ",    ";",   "%",
                                          "%2",  "\x01", "\xff", "/..", "/.",   "/a/", "%252e"};
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    std::string target = "/";
    for (unsigned left = random() % 10; left > 0; --left) {
      // The rarely valid ones less often, so that enough targets are taken.
      const std::size_t pick = random() % std::size(kPieces);
      if (pick >= 15 && random() % 4 != 0 && kPieces[pick].size() < 3) continue;
      target += kPieces[pick];
    }
    const bool merge = random() % 2 == 0;
    const std::string once = of(target, merge);
    if (once.starts_with('!')) continue;
    ++accepted;
    ASSERT_TRUE(is_clean(once, merge)) << target << " -> " << once;
    ASSERT_LE(once.size(), target.size());
    const std::string query(out_.query);
    ASSERT_TRUE(target.ends_with(query));
    const bool escaped_slash = out_.escaped_slash;
    const std::string again = once + query;
    ASSERT_EQ(of(again, merge), once) << target;
    ASSERT_EQ(out_.query, query);
    // A segment with an escaped slash may be climbed over, never come anew.
    ASSERT_LE(out_.escaped_slash, escaped_slash);
    if (round % 1000 == 0) arena_.reset();
  }
  EXPECT_GT(accepted, 50'000);
}

class Authority : public testing::Test {
 protected:
  std::string of(std::string_view authority) {
    std::string_view host;
    std::string_view why;
    std::uint16_t port = 0;
    if (!parse_authority(authority, arena_, host, port, why)) return "! " + std::string(why);
    return std::string(host) + " " + std::to_string(port);
  }
  BlockPool blocks_;
  Arena arena_{blocks_};
};

TEST_F(Authority, LowerCaseWithoutPortAndTrailingDot) {
  EXPECT_EQ(of("shop.example"), "shop.example 0");
  EXPECT_EQ(of("SHOP.Example.:8080"), "shop.example 8080");
  EXPECT_EQ(of("shop.example.."), "shop.example. 0");
  EXPECT_EQ(of("10.0.0.1:80"), "10.0.0.1 80");
  EXPECT_EQ(of("[::1]"), "[::1] 0");
  EXPECT_EQ(of("[FE80::1]:443"), "[fe80::1] 443");
  EXPECT_EQ(of("[::ffff:1.2.3.4]:65535"), "[::ffff:1.2.3.4] 65535");
  EXPECT_EQ(of("a_b-c~d.e"), "a_b-c~d.e 0");
}

TEST_F(Authority, WhatIsRefused) {
  for (const char* text : {"", ".", ":80", ".:80"}) EXPECT_EQ(of(text), "! an empty host") << text;
  for (const char* text : {"a:", "a:0", "a:65536", "a:1x", "a:-1", "a:+1", "a: 1", "a:000080",
                           "a:1:2", "[::1]x", "[::1]80", "[::1]:", "u:p@h"})
    EXPECT_EQ(of(text), "! a bad port in the host") << text;
  for (const char* text : {"[", "[]", "[::1", "[::g]", "[1.2.3.4]", "[::1%25eth0]", "[v1.a]",
                           "[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]"})
    EXPECT_EQ(of(text), "! an IPv6 address that is none in the host") << text;
  for (const char* text : {"a b", "a,b", "u@h", "a/b", "a?b", "a#b", "a\\b", "a\x01", "a\tb",
                           "\xc3\xa4", "a%41", "a]", "a[", "a\"", "<a>", "a|b", "a^", "a`", "a{b}"})
    EXPECT_EQ(of(text), "! a byte that no host name has") << text;
  EXPECT_EQ(of(std::string_view("a\0b", 3)), "! a byte that no host name has");
  EXPECT_EQ(of(std::string_view("[::1\0x]", 7)), "! an IPv6 address that is none in the host");
}

TEST(DefaultPort, ByScheme) {
  EXPECT_EQ(default_port("http"), 80);
  EXPECT_EQ(default_port("https"), 443);
}

}  // namespace
}  // namespace outrider
