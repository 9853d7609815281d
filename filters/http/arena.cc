#include "filters/http/arena.h"

namespace outrider {

void Arena::reset() {
  for (Block* block = blocks_; block != nullptr;) {
    Block* next = block->next;
    if (block->bytes == 0)
      pool_.put(block);
    else
      ::operator delete(block);
    block = next;
  }
  blocks_ = nullptr;
  next_ = end_ = nullptr;
}

void* Arena::grow(std::size_t bytes, std::size_t alignment) {
  const std::size_t usable = pool_.block_bytes() - sizeof(Block);
  if (bytes + alignment > usable) {
    // A large thing gets a block of its own, behind the current one, which stays in use.
    const std::size_t whole = sizeof(Block) + bytes + alignment;
    Block* block = ::new (::operator new(whole)) Block{nullptr, whole};
    if (blocks_ == nullptr) {
      blocks_ = block;
    } else {
      block->next = blocks_->next;
      blocks_->next = block;
    }
    auto at = reinterpret_cast<std::uintptr_t>(block + 1);
    return reinterpret_cast<void*>((at + alignment - 1) & ~(alignment - 1));
  }
  blocks_ = ::new (pool_.get()) Block{blocks_, 0};
  next_ = reinterpret_cast<char*>(blocks_ + 1);
  end_ = reinterpret_cast<char*>(blocks_) + pool_.block_bytes();
  return allocate(bytes, alignment);
}

}  // namespace outrider
