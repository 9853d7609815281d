// nghttp2's memory on one thread: free lists by size, so that streams and frames cost no heap call
// in steady state; what a session itself is made of, at addresses of its own, so that it can be put
// aside while nobody needs it; and one frame buffer for all sessions. Used by h2_session.cc alone,
// and trimmed by the worker; not shared between threads.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "filters/http/arena.h"

namespace outrider {

class H2Memory;

// The parts of one session, which live as long as it does: 5 KiB, nearly all zeros. Put aside, only
// the rest is kept, and the pages go back to the system until it is brought back, to the same
// addresses.
class SessionMemory {
 public:
  explicit SessionMemory(H2Memory& memory);
  SessionMemory(const SessionMemory&) = delete;
  SessionMemory& operator=(const SessionMemory&) = delete;
  ~SessionMemory();

  // While one lives, a session is being made, and what it asks for is its parts. A block as large
  // as a frame is the thread's shared one: a session takes its frame buffer once, and fills it only
  // within one call of mem_send (longer header blocks go on in buffers of their own), so that
  // sessions of a thread, which never serialise at the same time, can use the same.
  class Making {
   public:
    explicit Making(SessionMemory& session);
    Making(const Making&) = delete;
    Making& operator=(const Making&) = delete;
    ~Making();

   private:
    H2Memory& memory_;
  };

  void put_aside();
  void bring_back();
  bool is_aside() const { return kept_ != nullptr; }
  std::size_t bytes() const { return used_; }

  static constexpr std::size_t kBytes = 12 * 1024;  // of addresses

 private:
  friend class H2Memory;
  H2Memory& memory_;
  char* const place_;
  std::size_t used_ = 0;
  std::unique_ptr<char[]> kept_;
};

class H2Memory {
 public:
  static H2Memory& of_this_thread();
  H2Memory();
  H2Memory(const H2Memory&) = delete;
  H2Memory& operator=(const H2Memory&) = delete;
  ~H2Memory();

  void* get(std::size_t bytes);  // aligned for pointers
  void put(void* block);
  std::size_t trim();  // see BlockPool
  nghttp2_mem& for_nghttp2() { return mem_; }
  std::vector<nghttp2_nv> fields;  // of the message that is being sent
  bool serialising = false;        // a session fills the shared frame
  std::size_t in_use() const {
    return in_use_;
  }  // bytes handed out, but for the shared frame and what was put aside

 private:
  static constexpr std::size_t kStep = 16;
  static constexpr std::size_t kLargest = 1024;  // of a free list
  static constexpr std::size_t kFrameBytes = 16 * 1024;
  static constexpr std::size_t kPlaces = 32;  // mapped at once
  friend class SessionMemory;
  struct Head;
  static Head& head_of(void* block);
  void* frame(std::size_t bytes);
  void* part_of_session(std::size_t bytes);
  char* take_place();
  void give_back_place(char* place);

  nghttp2_mem mem_{};
  std::array<BlockPool, kLargest / kStep> pools_;  // by size, in steps
  std::unique_ptr<char[]> frame_;
  std::size_t in_use_ = 0;
  SessionMemory* making_ = nullptr;
  std::vector<void*> maps_;
  std::vector<char*> places_;  // free, their pages with the system
};

}  // namespace outrider
