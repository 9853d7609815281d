// Header fields as ids and views, in the order they came. Views point into the exchange's arena (or
// static text). Names keep the case they came in; ids are matched once, in the codec; after that
// compare ids, or case-blind names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "filters/http/arena.h"

namespace outrider {

enum class HeaderId : std::uint8_t {
  kUnknown,
#define HEADER(id, name, flags) id,
#include "filters/http/header_ids.inc"
#undef HEADER
};

enum HeaderFlag : std::uint8_t {
  kHopByHop = 1,
  kFraming = 2,
  kNoTrailer = 4,
  kInternal = 8,
  kSecret = 16,
  kSingle = 32,
};

// Case-blind; `name` may be in any case.
HeaderId header_id(std::string_view name);
// The same for names that must be in lower case (HTTP/2): in another case they are unknown.
HeaderId lower_header_id(std::string_view name);
std::string_view header_name(HeaderId id);  // lower case; empty for kUnknown
std::uint8_t header_flags(HeaderId id);     // 0 for kUnknown
bool equal_ignoring_case(std::string_view a, std::string_view b);
// Does a comma-separated list hold this token, case-blind?
bool list_has_token(std::string_view list, std::string_view token);
std::string_view trim_ows(std::string_view text);

struct Header {
  HeaderId id = HeaderId::kUnknown;
  std::string_view name;
  std::string_view value;
};

class Headers {
 public:
  explicit Headers(Arena& arena) : arena_(&arena) {}

  // The views must live as long as the arena; use the arena's copy() otherwise.
  [[gnu::always_inline]] void add(HeaderId id, std::string_view name, std::string_view value) {
    if (size_ == capacity_) [[unlikely]]
      grow();
    fields_[size_++] = {id, name, value};
  }
  void add(HeaderId id, std::string_view value) { add(id, header_name(id), value); }
  // Replaces the first of that id in place (name and position kept) and removes the others, or
  // appends.
  void set(HeaderId id, std::string_view value);
  // By name: for names without an id too.
  void set(HeaderId id, std::string_view name, std::string_view value);
  std::size_t remove(HeaderId id);  // how many
  std::size_t remove(HeaderId id, std::string_view name);
  template <class Predicate>
  std::size_t remove_if(Predicate&& gone) {
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i < size_; ++i)
      if (!gone(static_cast<const Header&>(fields_[i]))) fields_[kept++] = fields_[i];
    const std::size_t removed = size_ - kept;
    size_ = kept;
    return removed;
  }
  const Header* find(HeaderId id) const {
    for (const Header& header : *this)
      if (header.id == id) return &header;
    return nullptr;
  }
  const Header* find(HeaderId id, std::string_view name) const;
  std::string_view get(HeaderId id) const {
    const Header* header = find(id);
    return header == nullptr ? std::string_view() : header->value;
  }
  void clear() { size_ = 0; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Header* begin() { return fields_; }
  Header* end() { return fields_ + size_; }
  const Header* begin() const { return fields_; }
  const Header* end() const { return fields_ + size_; }
  Arena& arena() const { return *arena_; }

 private:
  void grow();
  Arena* arena_;
  Header* fields_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t capacity_ = 0;
};

}  // namespace outrider
