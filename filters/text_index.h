// A flat hash from (scope, text) to a number: hosts, whole paths and path segments of a route
// table, built once and read by every worker. The texts belong to somebody who outlives the index.
// A look-up allocates nothing and, where texts are short, touches one slot and one text.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider {

class TextIndex {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;

  std::uint32_t find(std::uint32_t scope, std::string_view text) const {
    if (text.size() > longest_ || slots_.empty()) return kNone;
    const std::uint32_t hash = hash_of(scope, text);
    for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.value == kNone) return kNone;
      if (slot.hash == hash && slot.scope == scope && same(slot.text, text)) return slot.value;
    }
  }

  // The value that stands there, or `value` when nothing did.
  std::uint32_t find_or_add(std::uint32_t scope, std::string_view text, std::uint32_t value) {
    const std::uint32_t found = find(scope, text);
    if (found != kNone) return found;
    if ((count_ + 1) * 2 > slots_.size()) grow();
    if (text.size() > longest_) longest_ = text.size();
    ++count_;
    put({text, scope, hash_of(scope, text), value});
    return value;
  }

 private:
  struct Slot {
    std::string_view text;
    std::uint32_t scope = 0;
    std::uint32_t hash = 0;
    std::uint32_t value = kNone;
  };

  __extension__ using Wide = unsigned __int128;
  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }
  static std::uint64_t load(const char* from, std::size_t bytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, from, bytes);
    return word;
  }
  // Up to 16 bytes as two words, which overlap where they are fewer.
  static std::pair<std::uint64_t, std::uint64_t> ends(const char* at, std::size_t size) {
    if (size >= 8) return {load(at, 8), load(at + size - 8, 8)};
    if (size >= 4) return {load(at, 4), load(at + size - 4, 4)};
    if (size == 0) return {0, 0};
    return {load(at, 1) << 16 | load(at + size / 2, 1) << 8 | load(at + size - 1, 1), 0};
  }
  static bool same(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    if (a.size() > 16) return std::memcmp(a.data(), b.data(), a.size()) == 0;
    return ends(a.data(), a.size()) == ends(b.data(), b.size());
  }
  // Folded multiplication, 16 bytes a step. What is looked up cannot lengthen a chain, so it needs
  // no secret.
  static std::uint32_t hash_of(std::uint32_t scope, std::string_view text) {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
    constexpr std::uint64_t kOther = 0xd6e8feb86659fd93;
    std::uint64_t state = (std::uint64_t{scope} << 32 | text.size()) ^ kOther;
    const char* at = text.data();
    std::size_t left = text.size();
    for (; left > 16; left -= 16, at += 16)
      state = mix(load(at, 8) ^ kOdd, load(at + 8, 8) ^ state);
    const auto [low, high] = ends(at, left);
    state = mix(low ^ kOdd, high ^ state);
    return static_cast<std::uint32_t>(mix(state, kOdd));
  }

  void put(const Slot& slot) {
    std::size_t at = slot.hash & mask_;
    while (slots_[at].value != kNone) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : slots_.size() * 2);
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old)
      if (slot.value != kNone) put(slot);
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::size_t mask_ = 0;
  std::size_t count_ = 0;
  std::size_t longest_ = 0;
};

}  // namespace outrider
