// nghttp2's memory on one thread: free lists of small size classes, so that streams and frames cost
// no heap call in steady state, and one frame buffer for all sessions. Invariant: a free list keeps
// at most kKept bytes; larger blocks go straight to the heap. Used by h2_session.cc alone; not
// shared between threads.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <vector>

namespace outrider {

class H2Memory {
 public:
  static H2Memory& of_this_thread();
  H2Memory();
  H2Memory(const H2Memory&) = delete;
  H2Memory& operator=(const H2Memory&) = delete;
  ~H2Memory();

  void* get(std::size_t bytes);
  void put(void* block);
  nghttp2_mem& for_nghttp2() { return mem_; }
  std::vector<nghttp2_nv> fields;  // of the message that is being sent
  bool serialising = false;        // a session fills the shared frame
  std::size_t in_use() const {
    return in_use_;
  }  // bytes handed out, the shared frame buffer not counted

  // While one lives, a block as large as a frame is the thread's shared one. A session takes its
  // frame buffer once, when it is made, and fills it only within one call of mem_send (longer
  // header blocks go on in buffers of their own), so that sessions of a thread, which never
  // serialise at the same time, can use the same. An idle session is then a third of its size.
  class SharedFrame {
   public:
    explicit SharedFrame(H2Memory& memory) : memory_(memory) { memory_.share_frame_ = true; }
    SharedFrame(const SharedFrame&) = delete;
    SharedFrame& operator=(const SharedFrame&) = delete;
    ~SharedFrame() { memory_.share_frame_ = false; }

   private:
    H2Memory& memory_;
  };

 private:
  static constexpr std::size_t kStep = 64;
  static constexpr std::size_t kSteps = 8;  // 64, 128 … 512, then 1, 2 and 4 KiB
  static constexpr std::size_t kClasses = kSteps + 3;
  static constexpr std::size_t kKept = 256 * 1024;
  static constexpr std::size_t kFrameBytes = 16 * 1024;
  struct Block;
  struct List {
    Block* first = nullptr;
    std::size_t bytes = 0;
  };
  Block* shared_frame(std::size_t bytes);

  std::array<List, kClasses> lists_{};
  nghttp2_mem mem_{};
  Block* frame_ = nullptr;
  std::size_t in_use_ = 0;
  bool share_frame_ = false;
};

}  // namespace outrider
