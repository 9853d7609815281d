// Definitions in the executable come before the C library's. Built without link-time optimisation:
// there the compiler knows malloc() too well.
#include "tests/cost/instruments.h"

#include <errno.h>
#include <execinfo.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace outrider::cost {

namespace {

constexpr std::uint64_t kEpochAheadSeconds = 1'700'000'000;
constexpr int kMostFrames = 32;
void* first_allocation[kMostFrames];
int first_frames = 0;

void count_allocation() {
  if (!counting) return;
  if (counts.allocations++ != 0) return;
  counting = false;  // backtrace() may allocate when it is first called
  first_frames = backtrace(first_allocation, kMostFrames);
  counting = true;
}

const pthread_t main_thread = pthread_self();
std::mutex threads_mutex;
std::condition_variable threads_changed;
bool threads_held = false;
bool sleeping = false;

// Until the main thread lets it go on.
void sleep_held() {
  std::unique_lock lock(threads_mutex);
  if (!threads_held) return;
  sleeping = true;
  threads_changed.notify_all();
  threads_changed.wait(lock, [] { return !sleeping; });
}

void wake_held() {
  sleeping = false;
  threads_changed.notify_all();
}

}  // namespace

void hold_threads() {
  const std::lock_guard lock(threads_mutex);
  threads_held = true;
}

void let_threads_run() {
  std::unique_lock lock(threads_mutex);
  wake_held();
  threads_changed.wait(lock, [] { return sleeping; });
}

void release_threads() {
  const std::lock_guard lock(threads_mutex);
  threads_held = false;
  wake_held();
}

void print_first_allocation() {
  constexpr int kOwn = 2;  // count_allocation() and malloc()
  if (first_frames > kOwn)
    backtrace_symbols_fd(first_allocation + kOwn, first_frames - kOwn, STDERR_FILENO);
}

}  // namespace outrider::cost

using outrider::cost::count_allocation;

extern "C" {

void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* block, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

void* malloc(std::size_t bytes) noexcept {
  count_allocation();
  return __libc_malloc(bytes);
}

void* calloc(std::size_t count, std::size_t bytes) noexcept {
  count_allocation();
  return __libc_calloc(count, bytes);
}

void* realloc(void* block, std::size_t bytes) noexcept {
  count_allocation();
  return __libc_realloc(block, bytes);
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}

void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) noexcept {
  count_allocation();
  *block = __libc_memalign(alignment, bytes);
  return *block == nullptr ? ENOMEM : 0;
}

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  if (outrider::cost::counting) ++outrider::cost::counts.clock_reads;
  const std::uint64_t ns = outrider::cost::clock_ns.load(std::memory_order_relaxed);
  const bool wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
  now->tv_sec =
      static_cast<time_t>(ns / 1'000'000'000 + (wall ? outrider::cost::kEpochAheadSeconds : 0));
  now->tv_nsec = static_cast<long>(ns % 1'000'000'000);
  return 0;
}

int poll(pollfd* polled, nfds_t count, int timeout_ms) {
  if (timeout_ms != 0 && pthread_equal(pthread_self(), outrider::cost::main_thread) == 0) {
    outrider::cost::sleep_held();
    timeout_ms = 0;
  }
  const timespec timeout{timeout_ms / 1000, timeout_ms % 1000 * 1'000'000L};
  return ppoll(polled, count, timeout_ms < 0 ? nullptr : &timeout, nullptr);
}

}  // extern "C"
