// A flat hash from (scope, text) to a number: hosts, whole paths and path segments of a route table, built once and read by
// every worker. The texts belong to somebody who outlives the index. A look-up allocates nothing and, where texts are
// short, touches one slot and one text.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
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
      if (slot.hash == hash && slot.scope == scope && slot.text == text) return slot.value;
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
  // Folded multiplication, 16 bytes a step. What is looked up cannot lengthen a chain, so it needs no secret.
  static std::uint32_t hash_of(std::uint32_t scope, std::string_view text) {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
    constexpr std::uint64_t kOther = 0xd6e8feb86659fd93;
    std::uint64_t state = (std::uint64_t{scope} << 32 | text.size()) ^ kOther;
    const char* at = text.data();
    std::size_t left = text.size();
    for (; left > 16; left -= 16, at += 16)
      state = mix(load(at, 8) ^ kOdd, load(at + 8, 8) ^ state);
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    if (left >= 8) {
      low = load(at, 8);
      high = load(at + left - 8, 8);
    } else if (left >= 4) {
      low = load(at, 4);
      high = load(at + left - 4, 4);
    } else if (left > 0) {
      const auto byte = [at](std::size_t i) { return static_cast<unsigned char>(at[i]); };
      low = static_cast<std::uint64_t>(byte(0)) << 16 |
            static_cast<std::uint64_t>(byte(left / 2)) << 8 | byte(left - 1);
    }
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
