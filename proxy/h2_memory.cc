// Every block has a head of 8 bytes that remembers its size. Under AddressSanitizer every block is
// the heap's own, so that use after free is seen.
#include "proxy/h2_memory.h"

#include <sys/mman.h>
#include <unistd.h>

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
  enum class From : std::uint32_t { kPool, kHeap, kSession, kFrame };
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

H2Memory::~H2Memory() {
  for (void* const map : maps_) munmap(map, kPlaces * SessionMemory::kBytes);
}

void* H2Memory::get(std::size_t bytes) {
  Head* head = nullptr;
  if (making_ != nullptr) return bytes < kFrameBytes ? part_of_session(bytes) : frame(bytes);
  if (kPooled && bytes <= kLargest) {
    const std::size_t at = bytes == 0 ? 0 : (bytes - 1) / kStep;
    head = ::new (pools_[at].get())
        Head{static_cast<std::uint32_t>((at + 1) * kStep), Head::From::kPool};
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
  if (head.from >= Head::From::kSession) return;  // goes with the session, or stays
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
  if (frame_ == nullptr) {
    frame_ = std::make_unique_for_overwrite<char[]>(sizeof(Head) + bytes);
    ::new (frame_.get()) Head{static_cast<std::uint32_t>(bytes), Head::From::kFrame};
  }
  auto* const head = reinterpret_cast<Head*>(frame_.get());
  OUTRIDER_ASSERT(head->capacity >= bytes);
  return head + 1;
}

void* H2Memory::part_of_session(std::size_t bytes) {
  const std::size_t capacity = (bytes + kStep - 1) / kStep * kStep;
  SessionMemory& session = *making_;
  OUTRIDER_ASSERT(session.used_ + sizeof(Head) + capacity <= SessionMemory::kBytes);
  auto* const head = ::new (session.place_ + session.used_)
      Head{static_cast<std::uint32_t>(capacity), Head::From::kSession};
  session.used_ += sizeof(Head) + capacity;
  in_use_ += sizeof(Head) + capacity;
  return head + 1;
}

// ---- what sessions are made of

namespace {
const bool kWholePages = SessionMemory::kBytes % static_cast<std::size_t>(getpagesize()) == 0;
}  // namespace

char* H2Memory::take_place() {
  if (places_.empty()) {
    constexpr std::size_t kMap = kPlaces * SessionMemory::kBytes;
    void* const map =
        mmap(nullptr, kMap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OUTRIDER_ASSERT(map != MAP_FAILED);
    madvise(map, kMap, MADV_NOHUGEPAGE);
    maps_.push_back(map);
    places_.reserve(maps_.size() * kPlaces);
    for (std::size_t i = kPlaces; i-- > 0;)
      places_.push_back(static_cast<char*>(map) + i * SessionMemory::kBytes);
  }
  char* const place = places_.back();
  places_.pop_back();
  return place;
}

void H2Memory::give_back_place(char* place) {
  if (kWholePages)
    madvise(place, SessionMemory::kBytes, MADV_DONTNEED);
  else
    std::memset(place, 0, SessionMemory::kBytes);
  places_.push_back(place);
}

SessionMemory::SessionMemory(H2Memory& memory) : memory_(memory), place_(memory.take_place()) {}

SessionMemory::~SessionMemory() {
  if (!is_aside()) memory_.in_use_ -= used_;
  memory_.give_back_place(place_);
}

SessionMemory::Making::Making(SessionMemory& session) : memory_(session.memory_) {
  memory_.making_ = &session;
}

SessionMemory::Making::~Making() { memory_.making_ = nullptr; }

namespace {

// So many words of zeros, then so many that are written out.
struct Run {
  std::uint16_t zeros;
  std::uint16_t words;
};

using Word = std::uint64_t;

}  // namespace

void SessionMemory::put_aside() {
  if (!kWholePages) return;
  const auto word = [this](std::size_t at) {
    Word value;
    std::memcpy(&value, place_ + at * sizeof(Word), sizeof(Word));
    return value;
  };
  const std::size_t count = used_ / sizeof(Word);
  // A run is smaller than the zeros it stands for, but for the first.
  std::array<char, kBytes + sizeof(Run)> packed;
  std::size_t size = 0;
  for (std::size_t at = 0; at < count;) {
    Run run{0, 0};
    while (at < count && word(at) == 0) ++run.zeros, ++at;
    const std::size_t begin = at;
    while (at < count && word(at) != 0) ++at;
    run.words = static_cast<std::uint16_t>(at - begin);
    std::memcpy(packed.data() + size, &run, sizeof(Run));
    std::memcpy(packed.data() + size + sizeof(Run), place_ + begin * sizeof(Word),
                run.words * sizeof(Word));
    size += sizeof(Run) + run.words * sizeof(Word);
  }
  kept_ = std::make_unique_for_overwrite<char[]>(size);
  std::memcpy(kept_.get(), packed.data(), size);
  madvise(place_, kBytes, MADV_DONTNEED);
  memory_.in_use_ -= used_;
}

void SessionMemory::bring_back() {
  const char* from = kept_.get();
  for (char* to = place_; to != place_ + used_;) {
    Run run;
    std::memcpy(&run, from, sizeof(Run));
    to += run.zeros * sizeof(Word);
    std::memcpy(to, from + sizeof(Run), run.words * sizeof(Word));
    to += run.words * sizeof(Word);
    from += sizeof(Run) + run.words * sizeof(Word);
  }
  kept_.reset();
  memory_.in_use_ += used_;
}

}  // namespace outrider
