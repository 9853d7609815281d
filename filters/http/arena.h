// Per-exchange memory: bump allocation from blocks of the worker's free list, all given back when
// the exchange ends. Only trivially destructible things live here. Nothing is freed singly; views
// into it never outlive the exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

namespace outrider {

// A worker's free list of equal blocks. Not shared between threads.
class BlockPool {
 public:
  static constexpr std::size_t kBlockBytes = 4096;
  explicit BlockPool(std::size_t block_bytes = kBlockBytes) : block_bytes_(block_bytes) {}
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool() { clear(); }

  void* get() {
    if (free_ == nullptr) return ::operator new(block_bytes_);
    Link* block = free_;
    free_ = block->next;
    if (--count_ < least_) least_ = count_;
    return block;
  }
  void put(void* block) {
    Link* link = ::new (block) Link{free_};
    free_ = link;
    ++count_;
  }
  // Gives back what nobody needed since the last call; how many bytes. Steady traffic keeps all.
  std::size_t trim() {
    const std::size_t surplus = least_;
    for (std::size_t i = 0; i < surplus; ++i) ::operator delete(get());
    least_ = count_;
    return surplus * block_bytes_;
  }
  void clear() {
    while (count_ != 0) ::operator delete(get());
  }
  std::size_t block_bytes() const { return block_bytes_; }
  std::size_t free_blocks() const { return count_; }

 private:
  struct Link {
    Link* next;
  };
  const std::size_t block_bytes_;
  Link* free_ = nullptr;
  std::size_t count_ = 0;
  std::size_t least_ = 0;  // free blocks at the busiest moment since the last trim()
};

class Arena {
 public:
  explicit Arena(BlockPool& pool) : pool_(pool) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { reset(); }

  void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
    auto at = (reinterpret_cast<std::uintptr_t>(next_) + alignment - 1) & ~(alignment - 1);
    if (next_ == nullptr || at + bytes > reinterpret_cast<std::uintptr_t>(end_))
      return grow(bytes, alignment);
    next_ = reinterpret_cast<char*>(at + bytes);
    return reinterpret_cast<void*>(at);
  }
  char* bytes(std::size_t count) { return static_cast<char*>(allocate(count, 1)); }
  std::string_view copy(std::string_view text) {
    if (text.empty()) return {};
    char* to = bytes(text.size());
    std::memcpy(to, text.data(), text.size());
    return {to, text.size()};
  }
  // Texts joined in one allocation.
  template <class... Texts>
  std::string_view concat(const Texts&... texts) {
    const std::size_t size = (std::string_view(texts).size() + ... + 0);
    if (size == 0) return {};
    char* const start = bytes(size);
    char* to = start;
    auto append = [&to](std::string_view text) {
      if (!text.empty()) std::memcpy(to, text.data(), text.size());
      to += text.size();
    };
    (append(texts), ...);
    return {start, size};
  }
  template <class T, class... Args>
  T* make(Args&&... args) {
    static_assert(std::is_trivially_destructible_v<T>, "arenas run no destructors");
    return ::new (allocate(sizeof(T), alignof(T))) T{std::forward<Args>(args)...};
  }
  template <class T>
  T* array(std::size_t count) {
    static_assert(std::is_trivially_destructible_v<T>, "arenas run no destructors");
    return static_cast<T*>(allocate(sizeof(T) * count, alignof(T)));
  }
  void reset();

 private:
  struct Block {
    Block* next;
    std::size_t bytes;  // 0: from the pool
  };
  void* grow(std::size_t bytes, std::size_t alignment);

  BlockPool& pool_;
  Block* blocks_ = nullptr;
  char* next_ = nullptr;
  char* end_ = nullptr;
};

}  // namespace outrider
