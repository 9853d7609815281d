// How the tables are made. Nodes are brought into the order of their identities first: proxies that
// know the same endpoints in another order must find the same.
#include "discovery/hash_table.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace outrider {
namespace {

std::vector<HashNode> sorted(std::span<const HashNode> nodes) {
  std::vector<HashNode> all(nodes.begin(), nodes.end());
  std::sort(all.begin(), all.end(),
            [](const HashNode& a, const HashNode& b) { return a.id < b.id; });
  return all;
}

// With more endpoints than this, each has fewer points: half as many for twice the endpoints.
constexpr double kMostOfFullSize = 4'096;

}  // namespace

// Points follow the weight. What a unit of weight is worth is a power of two, so that it changes
// seldom: when it does, every endpoint gains or loses points.
HashRing::HashRing(std::span<const HashNode> nodes) {
  if (nodes.empty()) return;
  const std::vector<HashNode> all = sorted(nodes);
  double sum = 0;
  for (const HashNode& node : all) sum += node.weight;
  const auto count = static_cast<double>(all.size());
  const int unit = static_cast<int>(std::lround(std::log2(sum / count))) +
                   static_cast<int>(std::max(0.0, std::ceil(std::log2(count / kMostOfFullSize))));
  std::vector<std::uint32_t> points_of;
  std::size_t total = 0;
  for (const HashNode& node : all) {
    const double points = std::ldexp(static_cast<double>(kPoints) * node.weight, -unit);
    points_of.push_back(static_cast<std::uint32_t>(std::max(1.0, std::round(points))));
    total += points_of.back();
  }
  // As many parts as points: a part has one on average, and sorting is counting.
  const int bits = std::clamp(static_cast<int>(std::bit_width(total)), 1, 31);
  shift_ = 32 - bits;
  starts_.assign((std::size_t{1} << bits) + 1, 0);
  const auto each = [&](auto&& visit) {
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::uint32_t k = 0; k < points_of[i]; ++k) {
        const std::uint64_t drawn = sequence64(all[i].id, k / 2);
        visit(Point{static_cast<std::uint32_t>(k % 2 == 0 ? drawn : drawn >> 32), all[i].index});
      }
  };
  each([&](const Point& point) { ++starts_[(point.place >> shift_) + 1]; });
  for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
  std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
  points_.resize(total);
  each([&](const Point& point) { points_[next[point.place >> shift_]++] = point; });
  for (std::size_t i = 0; i + 1 < starts_.size(); ++i)
    std::stable_sort(points_.begin() + starts_[i], points_.begin() + starts_[i + 1],
                     [](const Point& a, const Point& b) { return a.place < b.place; });
}

// In each turn an endpoint gains its weight, and takes a slot for every heaviest weight it has
// gained.
MaglevTable::MaglevTable(std::span<const HashNode> nodes) {
  if (nodes.empty()) return;
  const std::vector<HashNode> all = sorted(nodes);
  const std::uint64_t size = all.size() > kManyNodes ? kManySlots : kSlots;
  slots_.assign(size, kNoNode);
  std::uint64_t heaviest = 0;
  for (const HashNode& node : all) heaviest = std::max<std::uint64_t>(heaviest, node.weight);
  struct Order {
    std::uint64_t slot, skip, gained;
  };
  std::vector<Order> orders;
  orders.reserve(all.size());
  for (const HashNode& node : all)
    orders.push_back({sequence64(node.id, 1) % size, sequence64(node.id, 2) % (size - 1) + 1, 0});
  for (std::uint64_t filled = 0; filled < size;) {
    for (std::size_t i = 0; i < all.size() && filled < size; ++i) {
      Order& order = orders[i];
      order.gained += all[i].weight;
      if (order.gained < heaviest) continue;
      order.gained -= heaviest;
      while (slots_[order.slot] != kNoNode) order.slot = (order.slot + order.skip) % size;
      slots_[order.slot] = all[i].index;
      ++filled;
    }
  }
}

}  // namespace outrider
