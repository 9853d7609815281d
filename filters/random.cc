// See random.h.
#include "filters/random.h"

#include <sys/random.h>

namespace outrider {
namespace {

std::uint64_t kernel_seed() {
  std::uint64_t seed = 0;
  while (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {}
  return seed;
}

}  // namespace

Random& thread_random() {
  thread_local Random random(kernel_seed());
  return random;
}

void seed_thread_random(std::uint64_t seed) { thread_random() = Random(seed); }

}  // namespace outrider
