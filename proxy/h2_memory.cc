// Every block has a head of 8 bytes that remembers its size. Under AddressSanitizer every block is
// the heap's own, so that use after free is seen.
#include "proxy/h2_memory.h"

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "config/error.h"

namespace outrider {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooled = false;
#elif defined(__has_feature)
constexpr bool kPooled = !__has_feature(address_sanitizer);
#else
constexpr bool kPooled = true;
#endif

struct alignas(8) H2Memory::Head {
  enum class From : std::uint32_t { kPool, kHeap, kFrame };
  std::uint32_t capacity;
  From from;
};

H2Memory::Head& H2Memory::head_of(void* block) { return static_cast<Head*>(block)[-1]; }

H2Memory& H2Memory::of_this_thread() {
  thread_local H2Memory memory;
  return memory;
}

H2Memory::H2Memory()
    : pools_([]<std::size_t... kAt>(std::index_sequence<kAt...>) {
        return std::array{BlockPool(sizeof(Head) + (kAt + 1) * kStep)...};
      }(std::make_index_sequence<kLargest / kStep>())) {
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
    const std::size_t capacity = head_of(block).capacity;
    if (capacity >= bytes) return block;
    void* const grown = memory->get(bytes);
    std::memcpy(grown, block, capacity);
    memory->put(block);
    return grown;
  };
}

H2Memory::~H2Memory() = default;

void* H2Memory::get(std::size_t bytes) {
  Head* head = nullptr;
  if (kPooled && bytes <= kLargest && !making_session_) {
    const std::size_t at = bytes == 0 ? 0 : (bytes - 1) / kStep;
    head = ::new (pools_[at].get())
        Head{static_cast<std::uint32_t>((at + 1) * kStep), Head::From::kPool};
  } else if (making_session_ && bytes >= kFrameBytes) {
    return frame(bytes);
  } else {
    OUTRIDER_ASSERT(bytes <= UINT32_MAX);
    head = ::new (::operator new(sizeof(Head) + bytes))
        Head{static_cast<std::uint32_t>(bytes), Head::From::kHeap};
  }
  in_use_ += head->capacity;
  return head + 1;
}

void H2Memory::put(void* released) {
  Head& head = head_of(released);
  if (head.from == Head::From::kFrame) return;
  in_use_ -= head.capacity;
  if (head.from == Head::From::kPool)
    pools_[head.capacity / kStep - 1].put(&head);
  else
    ::operator delete(&head);
}

std::size_t H2Memory::trim() {
  std::size_t bytes = 0;
  for (BlockPool& pool : pools_) bytes += pool.trim();
  return bytes;
}

void* H2Memory::frame(std::size_t bytes) {
  making_session_ = false;  // one a session
  if (frame_ == nullptr) {
    frame_ = std::make_unique_for_overwrite<char[]>(sizeof(Head) + bytes);
    ::new (frame_.get()) Head{static_cast<std::uint32_t>(bytes), Head::From::kFrame};
  }
  auto* const head = reinterpret_cast<Head*>(frame_.get());
  OUTRIDER_ASSERT(head->capacity >= bytes);
  return head + 1;
}

}  // namespace outrider
