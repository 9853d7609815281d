// Keys of requests, and what an attempt is told of them.
#include "filters/hash_key.h"

#include <gtest/gtest.h>

#include "discovery/hash.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

using Kind = config::VariableKind;

class HashKeyTest : public testing::Test, public test::World {
 protected:
  std::optional<std::uint64_t> of(Kind kind, std::string name = {}) {
    return HashKey({kind, std::move(name)}).of(*x);
  }
  static std::uint64_t hash(std::string_view text) { return keyed_hash(text, 0, 0); }
};

TEST_F(HashKeyTest, IsOfTheTextOfThePart) {
  exchange("/a?user=u1&user=u2&flag");
  header("X-User", "ann");
  header("x-user", "bob");
  header("cookie", "a=1; sid=s7");
  x->client_ip_text = "192.0.2.9";
  EXPECT_EQ(of(Kind::kHeader, "x-user"), hash("ann"));
  EXPECT_EQ(of(Kind::kQuery, "user"), hash("u1"));
  EXPECT_EQ(of(Kind::kCookie, "sid"), hash("s7"));
  EXPECT_EQ(of(Kind::kClient), hash("192.0.2.9"));
}

TEST_F(HashKeyTest, ThereIsNoneWhereThePartIsAbsentOrEmpty) {
  exchange("/a?flag");
  header("x-empty", "");
  EXPECT_EQ(of(Kind::kHeader, "x-user"), std::nullopt);
  EXPECT_EQ(of(Kind::kHeader, "x-empty"), std::nullopt);
  EXPECT_EQ(of(Kind::kQuery, "flag"), std::nullopt);
  EXPECT_EQ(of(Kind::kCookie, "sid"), std::nullopt);
  EXPECT_EQ(of(Kind::kClientId), std::nullopt);
}

TEST_F(HashKeyTest, AnAttemptIsToldKeyAndSession) {
  exchange("/");
  header("x-user", "ann");
  EXPECT_FALSE(aim_of(*x).has_key);  // the service balances without one
  compiled.targets[0].hash_key.emplace(config::RequestPart{Kind::kHeader, "x-user"});
  x->session = 7;
  EXPECT_TRUE(aim_of(*x).has_key);
  EXPECT_EQ(aim_of(*x).key, hash("ann"));
  EXPECT_EQ(aim_of(*x).session, 7U);
  compiled.targets[0].hash_key.emplace(config::RequestPart{Kind::kHeader, "x-none"});
  EXPECT_FALSE(aim_of(*x).has_key);
}

}  // namespace
}  // namespace outrider
