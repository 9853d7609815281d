// From a key to an endpoint, so that the same key finds the same endpoint on every proxy and a
// change of endpoints moves few keys. Immutable, made once per set of endpoints and shared by all
// workers. What a key finds depends on the identities and weights alone, not on their order.
// Invariant: an endpoint that `may` refuses moves its own keys and no others.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "discovery/hash.h"

namespace outrider {

struct HashNode {
  std::uint64_t id = 0;     // of its address
  std::uint32_t index = 0;  // what is found
  std::uint32_t weight = 1;
};

inline constexpr std::uint32_t kNoNode = 0xFFFFFFFF;

// Each endpoint stands at points all around a ring. A key looks at several places and takes the
// endpoint whose point comes soonest after one of them: with k places, shares are as even as with
// 2k-1 times the points, which keeps a ring of a thousand endpoints in 6 MB and quick to build.
// Whoever goes leaves only keys of its own, as on any ring: the places of others did not move.
class HashRing {
 public:
  static constexpr std::uint32_t kPoints = 512;  // of an endpoint of middle weight
  static constexpr std::uint32_t kPlaces = 8;

  explicit HashRing(std::span<const HashNode> nodes);

  // kNoNode: `may` takes none of them.
  template <class May>
  std::uint32_t find(std::uint64_t key, const May& may) const {
    std::uint32_t best = kNoNode;
    std::uint32_t nearest = 0;
    for (std::uint32_t i = 0; i < kPlaces; ++i) {
      // Two places of each number.
      const std::uint64_t drawn = sequence64(key, i / 2);
      const auto place = static_cast<std::uint32_t>(i % 2 == 0 ? drawn : drawn >> 32);
      std::uint32_t at = starts_[place >> shift_];
      while (at < points_.size() && points_[at].place < place) ++at;
      for (std::size_t seen = 0; seen < points_.size(); ++seen, ++at) {
        if (at == points_.size()) at = 0;
        const std::uint32_t distance = points_[at].place - place;  // around the ring
        if (best != kNoNode && distance >= nearest) break;
        if (!may(points_[at].index)) continue;
        best = points_[at].index;
        nearest = distance;
        break;
      }
      if (best == kNoNode) return best;  // a whole turn without one
    }
    return best;
  }

 private:
  struct Point {
    std::uint32_t place;
    std::uint32_t index;
  };
  std::vector<Point> points_;          // by place
  std::vector<std::uint32_t> starts_;  // the first point of each equal part of the ring
  int shift_ = 31;                     // a place's part
};

// Maglev hashing (Eisenbud et al., NSDI 2016): a table of a prime number of slots which endpoints
// fill in turns, each in an order of its own. Shares are as even as they can be; whoever goes also
// moves a few keys of others.
class MaglevTable {
 public:
  static constexpr std::uint32_t kSlots = 65'537;
  static constexpr std::uint32_t kManySlots = 655'373;
  static constexpr std::size_t kManyNodes = 6'553;  // with more, a table of ten slots each

  explicit MaglevTable(std::span<const HashNode> nodes);

  template <class May>
  std::uint32_t find(std::uint64_t key, const May& may) const {
    // Another slot at random for each that is refused, so that the keys of one spread over all.
    constexpr std::uint64_t kDraws = 64;
    std::uint64_t slot = 0;
    for (std::uint64_t i = 0; i < kDraws; ++i) {
      slot = sequence64(key, i) % slots_.size();
      if (may(slots_[slot])) return slots_[slot];
    }
    for (std::size_t seen = 0; seen < slots_.size(); ++seen) {
      if (++slot == slots_.size()) slot = 0;
      if (may(slots_[slot])) return slots_[slot];
    }
    return kNoNode;
  }

 private:
  std::vector<std::uint32_t> slots_;
};

}  // namespace outrider
