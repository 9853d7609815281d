// Size classes behind a 16-byte head that remembers the class. Under AddressSanitizer every block
// is the heap's own, so that use after free is seen.
#include "proxy/h2_memory.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <new>

#include "config/error.h"

namespace outrider {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;
#elif defined(__has_feature)
constexpr bool kPooled = !__has_feature(address_sanitizer);
#else
constexpr bool kPooled = true;
#endif

struct alignas(16) H2Memory::Block {
  Block* next;
  std::uint32_t capacity;
  std::uint16_t list;  // kClasses: the heap's; kClasses + 1: the shared frame
};

H2Memory& H2Memory::of_this_thread() {
  thread_local H2Memory memory;
  return memory;
}

H2Memory::H2Memory() {
  mem_.mem_user_data = this;
  mem_.malloc = [](std::size_t bytes, void* self) noexcept {
    return static_cast<H2Memory*>(self)->get(bytes);
  };
  mem_.free = [](void* block, void* self) noexcept {
    if (block != nullptr) static_cast<H2Memory*>(self)->put(block);
  };
  mem_.calloc = [](std::size_t count, std::size_t bytes, void* self) noexcept {
    void* const block = static_cast<H2Memory*>(self)->get(count * bytes);
    return std::memset(block, 0, count * bytes);
  };
  mem_.realloc = [](void* block, std::size_t bytes, void* self) noexcept {
    auto* const memory = static_cast<H2Memory*>(self);
    if (block == nullptr) return memory->get(bytes);
    const std::size_t capacity = (static_cast<Block*>(block) - 1)->capacity;
    if (capacity >= bytes) return block;
    void* const grown = memory->get(bytes);
    std::memcpy(grown, block, capacity);
    memory->put(block);
    return grown;
  };
}

H2Memory::~H2Memory() {
  for (List& list : lists_)
    while (Block* const block = list.first) {
      list.first = block->next;
      ::operator delete(block);
    }
  ::operator delete(frame_);
}

void* H2Memory::get(std::size_t bytes) {
  std::size_t at = kClasses;
  std::size_t capacity = bytes;
  if (bytes <= kStep * kSteps) {
    at = bytes == 0 ? 0 : (bytes - 1) / kStep;
    capacity = (at + 1) * kStep;
  } else if (bytes <= kStep * kSteps << (kClasses - kSteps)) {
    const auto power = static_cast<std::size_t>(std::bit_width((bytes - 1) / (kStep * kSteps)));
    at = kSteps - 1 + power;
    capacity = kStep * kSteps << power;
  } else if (share_frame_ && bytes >= kFrameBytes) {
    return shared_frame(bytes) + 1;
  }
  in_use_ += capacity;
  if (kPooled && at < kClasses) {
    List& list = lists_[at];
    if (Block* const block = list.first) {
      list.first = block->next;
      list.bytes -= capacity;
      return block + 1;
    }
  } else if (!kPooled) {
    in_use_ -= capacity - bytes;
    capacity = bytes;
  }
  OUTRIDER_ASSERT(capacity <= UINT32_MAX);
  auto* const block = ::new (::operator new(sizeof(Block) + capacity)) Block;
  block->capacity = static_cast<std::uint32_t>(capacity);
  block->list = static_cast<std::uint16_t>(at);
  return block + 1;
}

void H2Memory::put(void* released) {
  Block* const block = static_cast<Block*>(released) - 1;
  if (block->list > kClasses) return;  // the shared frame stays
  in_use_ -= block->capacity;
  if (kPooled && block->list < kClasses && lists_[block->list].bytes < kKept) {
    List& list = lists_[block->list];
    block->next = list.first;
    list.first = block;
    list.bytes += block->capacity;
    return;
  }
  ::operator delete(block);
}

H2Memory::Block* H2Memory::shared_frame(std::size_t bytes) {
  share_frame_ = false;  // one a session
  if (frame_ == nullptr) {
    frame_ = ::new (::operator new(sizeof(Block) + bytes)) Block;
    frame_->capacity = static_cast<std::uint32_t>(bytes);
    frame_->list = kClasses + 1;
  }
  OUTRIDER_ASSERT(frame_->capacity >= bytes);
  return frame_;
}

}  // namespace outrider
