// How even the tables are, and how few keys move.
#include "discovery/hash_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "discovery/view.h"

namespace outrider {
namespace {

constexpr std::uint64_t kKeys = 1'000'000;

std::vector<HashNode> nodes(std::uint32_t count, std::uint32_t first = 0) {
  std::vector<HashNode> all;
  for (std::uint32_t i = first; i < first + count; ++i)
    all.push_back({endpoint_id("shop", "10.0." + std::to_string(i / 250) + "." +
                                           std::to_string(i % 250) + ":80"),
                   i, 1});
  return all;
}

std::uint64_t key(std::uint64_t number) { return keyed_hash(std::to_string(number), 0, 0); }

constexpr auto kAny = [](std::uint32_t) { return true; };

template <class Table, class May>
std::vector<std::uint32_t> found(const Table& table, std::uint64_t keys, const May& may) {
  std::vector<std::uint32_t> all;
  all.reserve(keys);
  for (std::uint64_t i = 0; i < keys; ++i) all.push_back(table.find(key(i), may));
  return all;
}

double unevenness(const std::vector<std::uint32_t>& found, std::size_t count) {
  std::vector<double> share(count);
  for (const std::uint32_t index : found) share.at(index) += 1;
  const double even = static_cast<double>(found.size()) / static_cast<double>(count);
  double worst = 0;
  for (const double one : share) worst = std::max(worst, std::abs(one / even - 1));
  return worst;
}

double moved(const std::vector<std::uint32_t>& a, const std::vector<std::uint32_t>& b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i]) ++count;
  return static_cast<double>(count) / static_cast<double>(a.size());
}

template <class Table>
class Tables : public testing::Test {};
using Both = testing::Types<HashRing, MaglevTable>;
TYPED_TEST_SUITE(Tables, Both);

TYPED_TEST(Tables, SharesAreWithinFivePercentOfEven) {
  EXPECT_LT(unevenness(found(TypeParam(nodes(100)), kKeys, kAny), 100), 0.05);
  EXPECT_LT(unevenness(found(TypeParam(nodes(3)), kKeys / 10, kAny), 3), 0.05);
}

TYPED_TEST(Tables, OneOfAHundredRemovedMovesFewKeys) {
  constexpr double kMost = std::is_same_v<TypeParam, HashRing> ? 0.012 : 0.02;
  const auto all = nodes(100);
  const auto before = found(TypeParam(all), kKeys / 4, kAny);
  for (const std::size_t gone : {0U, 99U}) {
    auto fewer = all;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(gone));
    const auto after = found(TypeParam(fewer), kKeys / 4, kAny);
    EXPECT_LT(moved(before, after), kMost);
    EXPECT_EQ(std::count(after.begin(), after.end(), gone), 0);
  }
}

TYPED_TEST(Tables, OneAddedTakesNoMoreThanItMust) {
  constexpr double kMost = std::is_same_v<TypeParam, HashRing> ? 0.012 : 0.02;
  const auto before = found(TypeParam(nodes(99)), kKeys / 8, kAny);
  const auto after = found(TypeParam(nodes(100)), kKeys / 8, kAny);
  EXPECT_LT(moved(before, after), kMost);
}

TYPED_TEST(Tables, AnUnusableOneMovesItsOwnKeysAloneAndSpreadsThem) {
  const TypeParam table(nodes(10));
  const auto before = found(table, 100'000, kAny);
  const auto after = found(table, 100'000, [](std::uint32_t index) { return index != 4; });
  std::vector<int> heirs(10);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != 4) {
      ASSERT_EQ(before[i], after[i]);
    } else {
      ++heirs.at(after[i]);
    }
  }
  EXPECT_EQ(heirs[4], 0);
  for (std::size_t i = 0; i < heirs.size(); ++i) {
    if (i != 4) {
      EXPECT_NEAR(heirs[i], 10'000 / 9, 250) << i;
    }
  }
}

TYPED_TEST(Tables, TheOrderInWhichEndpointsAreKnownDoesNotMatter) {
  auto all = nodes(50);
  const auto before = found(TypeParam(all), 20'000, kAny);
  std::reverse(all.begin(), all.end());
  EXPECT_EQ(before, found(TypeParam(all), 20'000, kAny));
}

TYPED_TEST(Tables, WeightsAreRespected) {
  auto all = nodes(10);
  for (HashNode& node : all) node.weight = node.index == 3 ? 30 : 10;
  const auto keys = found(TypeParam(all), kKeys / 4, kAny);
  std::vector<double> share(10);
  for (const std::uint32_t index : keys) share[index] += 12.0 / (kKeys / 4.0);
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_NEAR(share[i] / (i == 3 ? 3 : 1), 1, 0.08) << i;
}

TYPED_TEST(Tables, OfNobodyNothingIsFound) {
  const TypeParam table(nodes(5));
  EXPECT_EQ(table.find(1, [](std::uint32_t) { return false; }), kNoNode);
  EXPECT_EQ(table.find(1, [](std::uint32_t index) { return index == 2; }), 2U);
}

TEST(HashRing, AThousandAreNearlyAsEven) {
  // Of a thousand keys each, chance alone makes 10 % of the worst of them.
  EXPECT_LT(unevenness(found(HashRing(nodes(1000)), kKeys, kAny), 1000), 0.17);
}

// While the unit of points stays what it is.
TEST(HashRing, AWeightThatGrowsTakesKeysAndMovesNoOthers) {
  auto all = nodes(20);
  const auto before = found(HashRing(all), 100'000, kAny);
  all[7].weight = 2;
  const auto after = found(HashRing(all), 100'000, kAny);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != after[i]) {
      ASSERT_EQ(after[i], 7U);
    }
  }
}

}  // namespace
}  // namespace outrider
