// nghttp2's memory on one thread: free lists by size, so that streams and frames cost no heap call
// in steady state, and one frame buffer for all sessions. What a session is made of, and what is
// large, comes straight from the heap. Used by h2_session.cc alone, and trimmed by the worker; not
// shared between threads.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "filters/http/arena.h"

namespace outrider {

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
  }  // bytes handed out, the shared frame buffer not counted

  // While one lives, a session is being made. Its parts live as long as it does, so they are no
  // larger than they must be, and a block as large as a frame is the thread's shared one: a session
  // takes its frame buffer once, and fills it only within one call of mem_send (longer header
  // blocks go on in buffers of their own), so that sessions of a thread, which never serialise at
  // the same time, can use the same.
  class MakingSession {
   public:
    explicit MakingSession(H2Memory& memory) : memory_(memory) { memory_.making_session_ = true; }
    MakingSession(const MakingSession&) = delete;
    MakingSession& operator=(const MakingSession&) = delete;
    ~MakingSession() { memory_.making_session_ = false; }

   private:
    H2Memory& memory_;
  };

 private:
  static constexpr std::size_t kStep = 16;
  static constexpr std::size_t kLargest = 1024;  // of a free list
  static constexpr std::size_t kFrameBytes = 16 * 1024;
  struct Head;
  static Head& head_of(void* block);
  void* frame(std::size_t bytes);

  nghttp2_mem mem_{};
  std::array<BlockPool, kLargest / kStep> pools_;  // by size, in steps
  std::unique_ptr<char[]> frame_;
  std::size_t in_use_ = 0;
  bool making_session_ = false;
};

}  // namespace outrider
