// The look-up of known names: a perfect hash over a name's first and last eight bytes, its
// multiplier found at compile time, then one comparison of the same bytes. Invariant: every row of
// header_ids.inc has a slot of its own (static_assert below).
#include "filters/http/headers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

namespace outrider {
namespace {

// Bytes as a number, the same at compile time and later.
constexpr std::uint64_t load(const char* from, std::size_t bytes) {
  std::uint64_t word = 0;
  if (std::is_constant_evaluated())
    for (std::size_t i = 0; i < bytes; ++i)
      word |= std::uint64_t{static_cast<unsigned char>(from[i])} << (8 * i);
  else
    std::memcpy(&word, from, bytes);
  return word;
}
static_assert(std::endian::native == std::endian::little, "as load() says");

// All of fewer than eight bytes.
constexpr std::uint64_t load_short(const char* from, std::size_t size) {
  if (size >= 4) return load(from, 4) | load(from + size - 4, 4) << 32;
  if (size == 0) return 0;
  return load(from, 1) | load(from + size / 2, 1) << 8 | load(from + size - 1, 1) << 16;
}

// Eight bytes at either end. Up to 16 bytes they are all of the text.
struct Ends {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
constexpr Ends ends_of(std::string_view text) {
  const std::size_t size = text.size();
  if (size < 8) return {load_short(text.data(), size), 0};
  return {load(text.data(), 8), load(text.data() + size - 8, 8)};
}

constexpr std::uint64_t kOnes = 0x0101010101010101;
constexpr std::uint64_t kCase = kOnes * 0x20;  // the bit that tells the cases of a letter apart

// kCase where the byte of a lower-case name is a letter.
constexpr std::uint64_t case_bits(std::uint64_t word) { return word >> 1 & kCase; }

struct Row {
  constexpr Row(std::string_view text, unsigned bits)
      : name(text),
        ends(ends_of(text)),
        either{case_bits(ends.first), case_bits(ends.last)},
        flags(static_cast<std::uint8_t>(bits)) {}
  std::string_view name;
  Ends ends;
  Ends either;  // bits that may differ in a name of any case
  std::uint8_t flags;
};

constexpr Row kRows[] = {
    {"", 0},
#define HEADER(id, name, flags) {name, flags},
#include "filters/http/header_ids.inc"
#undef HEADER
};
constexpr std::size_t kCount = std::size(kRows);
static_assert(kCount <= 255, "ids are one byte");

constexpr bool rows_are_sound() {
  for (const Row& row : kRows)
    for (const char c : row.name)
      if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  return true;
}
static_assert(rows_are_sound(), "names of header_ids.inc are lower-case tokens");

// The same for both cases of a letter.
constexpr std::uint64_t key_of(const Ends& ends) {
  return (ends.first | kCase) ^ std::rotl(ends.last | kCase, 27);
}

constexpr unsigned kSlotBits = 10;
using Slots = std::array<std::uint8_t, 1U << kSlotBits>;
constexpr std::size_t slot_of(std::uint64_t key, std::uint64_t multiplier) {
  return key * multiplier >> (64 - kSlotBits);
}

constexpr bool fill(std::uint64_t multiplier, Slots& slots) {
  slots = {};
  for (std::size_t i = 1; i < kCount; ++i) {
    std::uint8_t& slot = slots[slot_of(key_of(kRows[i].ends), multiplier)];
    if (slot != 0) return false;
    slot = static_cast<std::uint8_t>(i);
  }
  return true;
}

struct PerfectHash {
  std::uint64_t multiplier = 0;
  Slots slots{};
};

constexpr PerfectHash make_hash() {
  PerfectHash hash;
  std::uint64_t multiplier = 0x9e3779b97f4a7c15;
  for (int attempt = 0; attempt < 2000; ++attempt) {
    if (fill(multiplier, hash.slots)) {
      hash.multiplier = multiplier;
      return hash;
    }
    multiplier = multiplier * 6364136223846793005U + 1442695040888963407U;
  }
  return hash;
}

constexpr PerfectHash kHash = make_hash();
static_assert(kHash.multiplier != 0, "two names of header_ids.inc share a slot: change key_of()");

// Eight bytes at once, A-Z made lower case, every other byte kept.
constexpr std::uint64_t lower(std::uint64_t word) {
  const std::uint64_t low = word & (kOnes * 0x7f);
  const std::uint64_t above_z = low + kOnes * (0x7f - 'Z');
  const std::uint64_t from_a = low + kOnes * (0x80 - 'A');
  const std::uint64_t upper = (from_a ^ above_z) & ~word & (kOnes * 0x80);
  return word | upper >> 2;
}

bool same(const char* a, const char* b, std::size_t size) {
  if (size < 8) return lower(load_short(a, size)) == lower(load_short(b, size));
  for (std::size_t i = 0; i + 8 < size; i += 8)
    if (lower(load(a + i, 8)) != lower(load(b + i, 8))) return false;
  return lower(load(a + size - 8, 8)) == lower(load(b + size - 8, 8));
}

template <bool kAnyCase>
HeaderId look_up(std::string_view name) {
  constexpr std::size_t kBothEnds = 2 * sizeof(std::uint64_t);
  const Ends ends = ends_of(name);
  const std::uint8_t found = kHash.slots[slot_of(key_of(ends), kHash.multiplier)];
  const Row& row = kRows[found];
  if (row.name.size() != name.size()) return HeaderId::kUnknown;
  const Ends either = kAnyCase ? row.either : Ends();
  const std::uint64_t apart = ((row.ends.first ^ ends.first) & ~either.first) |
                              ((row.ends.last ^ ends.last) & ~either.last);
  if (apart != 0) return HeaderId::kUnknown;
  if (name.size() > kBothEnds) {
    const std::size_t between = name.size() - kBothEnds;
    const char* const a = row.name.data() + sizeof(std::uint64_t);
    const char* const b = name.data() + sizeof(std::uint64_t);
    if (kAnyCase ? !same(a, b, between) : std::memcmp(a, b, between) != 0)
      return HeaderId::kUnknown;
  }
  return static_cast<HeaderId>(found);
}

}  // namespace

HeaderId header_id(std::string_view name) { return look_up<true>(name); }
HeaderId lower_header_id(std::string_view name) { return look_up<false>(name); }

std::string_view header_name(HeaderId id) { return kRows[static_cast<std::size_t>(id)].name; }

std::uint8_t header_flags(HeaderId id) { return kRows[static_cast<std::size_t>(id)].flags; }

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && same(a.data(), b.data(), a.size());
}

bool list_has_token(std::string_view list, std::string_view token) {
  while (true) {
    const std::size_t comma = list.find(',');
    if (equal_ignoring_case(trim_ows(list.substr(0, comma)), token)) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

std::string_view trim_ows(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

void Headers::set(HeaderId id, std::string_view value) { set(id, header_name(id), value); }

void Headers::set(HeaderId id, std::string_view name, std::string_view value) {
  const Header* const first = find(id, name);
  if (first == nullptr) return add(id, name, value);
  fields_[first - fields_].value = value;
  bool passed = false;
  remove_if([&](const Header& header) {
    const bool match =
        header.id == id && (id != HeaderId::kUnknown || equal_ignoring_case(header.name, name));
    return match && std::exchange(passed, true);
  });
}

std::size_t Headers::remove(HeaderId id) {
  return remove_if([id](const Header& header) { return header.id == id; });
}

std::size_t Headers::remove(HeaderId id, std::string_view name) {
  if (id != HeaderId::kUnknown) return remove(id);
  return remove_if([name](const Header& header) {
    return header.id == HeaderId::kUnknown && equal_ignoring_case(header.name, name);
  });
}

const Header* Headers::find(HeaderId id, std::string_view name) const {
  if (id != HeaderId::kUnknown) return find(id);
  for (const Header& header : *this)
    if (header.id == HeaderId::kUnknown && equal_ignoring_case(header.name, name)) return &header;
  return nullptr;
}

void Headers::grow() {
  constexpr std::uint32_t kFirst = 16;
  const std::uint32_t capacity = capacity_ == 0 ? kFirst : capacity_ * 2;
  Header* const fields = arena_->array<Header>(capacity);
  std::uninitialized_copy_n(fields_, size_, fields);
  fields_ = fields;
  capacity_ = capacity;
}

}  // namespace outrider
