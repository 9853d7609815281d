#include "proxy/redis_reply.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace outrider {
namespace {

using Kind = RedisReply::Kind;

RedisReply only(std::string_view bytes) {
  RedisReply reply;
  EXPECT_EQ(take_reply(bytes, reply), Took::kReply);
  EXPECT_TRUE(bytes.empty());
  return reply;
}

TEST(RedisReplies, EveryKind) {
  EXPECT_EQ(only("+PONG\r\n").text, "PONG");
  EXPECT_EQ(only("+PONG\r\n").kind, Kind::kStatus);
  EXPECT_EQ(only("-ERR no\r\n").kind, Kind::kError);
  EXPECT_EQ(only("-ERR no\r\n").text, "ERR no");
  EXPECT_EQ(only(":-42\r\n").numbers[0], -42);
  EXPECT_EQ(only("$4\r\na\r\nb\r\n").text, "a\r\nb");
  EXPECT_EQ(only("$0\r\n\r\n").kind, Kind::kText);
  EXPECT_EQ(only("$-1\r\n").kind, Kind::kNothing);
  const RedisReply numbers = only("*2\r\n:1\r\n:250000\r\n");
  EXPECT_EQ(numbers.kind, Kind::kNumbers);
  EXPECT_EQ(numbers.count, 2U);
  EXPECT_EQ(numbers.numbers[1], 250'000);
}

TEST(RedisReplies, OneBehindTheOtherAndInPieces) {
  const std::string all = "+OK\r\n*2\r\n:1\r\n:7\r\n$3\r\nabc\r\n-NO\r\n";
  const std::vector<Kind> kinds{Kind::kStatus, Kind::kNumbers, Kind::kText, Kind::kError};
  for (std::size_t piece = 1; piece <= all.size(); ++piece) {
    std::vector<Kind> seen;
    std::string rest;
    for (std::size_t at = 0; at < all.size(); at += piece) {
      rest += all.substr(at, piece);
      std::string_view bytes = rest;
      RedisReply reply;
      Took took = Took::kReply;
      while (!bytes.empty() && (took = take_reply(bytes, reply)) == Took::kReply)
        seen.push_back(reply.kind);
      ASSERT_NE(took, Took::kBad);
      rest = std::string(bytes);
    }
    EXPECT_EQ(seen, kinds) << "in pieces of " << piece;
    EXPECT_EQ(rest, "");
  }
}

TEST(RedisReplies, WhatIsNoneIsRefused) {
  for (const std::string& bad :
       {std::string("HTTP/1.1 400 Bad Request\r\n"), std::string("\r\n"), std::string("?1\r\n"),
        std::string(":\r\n"), std::string(":1x\r\n"), std::string(":99999999999999999999\r\n"),
        std::string("$x\r\n"), std::string("$-2\r\n"), std::string("$4097\r\n"),
        std::string("$3\r\nabcd\r\n"), std::string("*5\r\n"), std::string("*-1\r\n"),
        std::string("*1\r\n$1\r\na\r\n"), std::string("*1\r\n*1\r\n:1\r\n"),
        std::string("*1\r\n:x\r\n"), "+" + std::string(600, 'a'), std::string(600, '1')}) {
    std::string_view bytes = bad;
    RedisReply reply;
    EXPECT_EQ(take_reply(bytes, reply), Took::kBad) << bad.substr(0, 30);
    EXPECT_EQ(bytes, bad);
  }
  for (const char* more :
       {"", "+", "+OK", "+OK\r", ":", "$3\r\nab", "$3\r\nabc\r", "*2\r\n:1\r\n", "*2\r\n:1\r\n:"}) {
    std::string_view bytes = more;
    RedisReply reply;
    EXPECT_EQ(take_reply(bytes, reply), Took::kMore) << more;
    EXPECT_EQ(bytes, more);
  }
}

}  // namespace
}  // namespace outrider
