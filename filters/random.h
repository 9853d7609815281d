// One generator a thread for what only has to be unlike: request ids, jitter. Seeded from the
// kernel, or by a simulation for replay.
#pragma once

#include "discovery/service.h"

namespace outrider {

Random& thread_random();
void seed_thread_random(std::uint64_t seed);

}  // namespace outrider
