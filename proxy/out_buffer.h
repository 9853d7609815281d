// Bytes on their way out of one connection: a chain of slabs from the worker's free lists, given
// back as they are written. An idle connection holds no slab, and the body of a small call a small
// one. Appending copies; the socket takes from the front.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "config/limits.h"
#include "filters/http/arena.h"

namespace outrider {

struct Slabs {
  BlockPool small{limits::kSmallSlabBytes};
  BlockPool large{limits::kSlabBytes};
};

class OutBuffer {
 public:
  explicit OutBuffer(Slabs& slabs) : slabs_(&slabs) {}
  OutBuffer(const OutBuffer&) = delete;
  OutBuffer& operator=(const OutBuffer&) = delete;
  OutBuffer(OutBuffer&& other) noexcept { swap(other); }
  OutBuffer& operator=(OutBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~OutBuffer() { clear(); }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::size_t room = room_at_end();
      if (room == 0) {
        add_slab(bytes.size());
        continue;
      }
      const std::size_t part = bytes.size() < room ? bytes.size() : room;
      std::memcpy(data(last_) + last_->end, bytes.data(), part);
      last_->end += static_cast<std::uint32_t>(part);
      size_ += part;
      bytes.remove_prefix(part);
    }
  }
  // `bytes` in one piece to be written by the caller; then commit() what was used. bytes <=
  // kMaxReserve.
  char* reserve(std::size_t bytes) {
    if (room_at_end() < bytes) add_slab(bytes);
    return data(last_) + last_->end;
  }
  void commit(std::size_t bytes) {
    last_->end += static_cast<std::uint32_t>(bytes);
    size_ += bytes;
  }
  // Fills up to `max` vectors from the front; how many it filled.
  int peek(iovec* vectors, int max) const {
    int filled = 0;
    for (Slab* slab = first_; slab != nullptr && filled < max; slab = slab->next)
      if (slab->end > slab->begin)
        vectors[filled++] = {data(slab) + slab->begin, slab->end - slab->begin};
    return filled;
  }
  // Every piece from the front, as string_view, and whether it is the last.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (Slab* slab = first_; slab != nullptr; slab = slab->next)
      visit(std::string_view(data(slab) + slab->begin, slab->end - slab->begin),
            slab->next == nullptr);
  }
  void drop(std::size_t bytes) {
    size_ -= bytes;
    while (first_ != nullptr) {
      const std::size_t here = first_->end - first_->begin;
      if (bytes < here) {
        first_->begin += static_cast<std::uint32_t>(bytes);
        return;
      }
      bytes -= here;
      Slab* gone = first_;
      first_ = gone->next;
      if (first_ == nullptr) last_ = nullptr;
      give_back(gone);
      if (bytes == 0 && size_ != 0) return;
    }
  }
  // From the end, where the caller has put them last.
  void take_back(std::size_t bytes) {
    const std::size_t left = size_ - bytes;
    std::size_t before = 0;
    last_ = first_;
    while (before + last_->end - last_->begin < left) {
      before += last_->end - last_->begin;
      last_ = last_->next;
    }
    last_->end = last_->begin + static_cast<std::uint32_t>(left - before);
    size_ = left;
    for (Slab* slab = std::exchange(last_->next, nullptr); slab != nullptr;)
      give_back(std::exchange(slab, slab->next));
  }
  void clear() { drop(size_); }
  void swap(OutBuffer& other) noexcept {
    std::swap(slabs_, other.slabs_);
    std::swap(first_, other.first_);
    std::swap(last_, other.last_);
    std::swap(size_, other.size_);
  }
  Slabs& slabs() const { return *slabs_; }

 private:
  struct Slab {
    Slab* next;
    std::uint32_t begin;
    std::uint32_t end;
    std::uint32_t room;
  };
  static char* data(Slab* slab) { return reinterpret_cast<char*>(slab + 1); }

 public:
  static constexpr std::size_t kMaxReserve = limits::kSlabBytes - sizeof(Slab);

 private:
  static constexpr std::size_t kSmall = limits::kSmallSlabBytes - sizeof(Slab);

  std::size_t room_at_end() const { return last_ == nullptr ? 0 : last_->room - last_->end; }
  void give_back(Slab* slab) { (slab->room == kSmall ? slabs_->small : slabs_->large).put(slab); }
  void add_slab(std::size_t wanted) {
    const bool small = first_ == nullptr && wanted <= kSmall;
    Slab* slab = ::new ((small ? slabs_->small : slabs_->large).get())
        Slab{nullptr, 0, 0, static_cast<std::uint32_t>(small ? kSmall : kMaxReserve)};
    (last_ == nullptr ? first_ : last_->next) = slab;
    last_ = slab;
  }

  Slabs* slabs_ = nullptr;
  Slab* first_ = nullptr;
  Slab* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace outrider
