// What the cost program puts in the place of the machine's own: a clock that moves only when it is
// told to, threads that run only when they are told to, so that two runs do the same, and a heap
// that counts.
#pragma once

#include <atomic>
#include <cstdint>

namespace outrider::cost {

// What clock_gettime() says, of every clock; CLOCK_REALTIME is ahead by a fixed time.
inline std::atomic<std::uint64_t> clock_ns{1'000'000'000'000};

struct Counts {
  std::uint64_t allocations = 0;  // calls of malloc and its kin; `operator new` makes one
  std::uint64_t clock_reads = 0;
};
inline Counts counts;
inline thread_local bool counting = false;  // this thread's calls count

// Where the first allocation that counted was made, innermost first, as addr2line takes it.
void print_first_allocation();

// From hold_threads() on, whoever else would sleep in poll() stays there: let_threads_run() wakes
// it and returns when it sleeps again. There is one at most, the access log's writer.
void hold_threads();
void let_threads_run();
void release_threads();

}  // namespace outrider::cost
