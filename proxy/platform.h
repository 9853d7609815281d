// What one thread of the proxy runs on, and all that reaches it from outside: time, sockets and
// chance. The kernel's in production; a simulation gives its own, and then nothing is left to luck.
#pragma once

#include <cstdint>
#include <memory>

#include "discovery/event_loop.h"
#include "proxy/sockets.h"

namespace outrider {

class Platform {
 public:
  Platform(EventLoop& the_loop, Sockets& the_sockets, std::uint64_t random_seed)
      : loop(the_loop), sockets(the_sockets), seed(random_seed) {}
  virtual ~Platform() = default;
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;

  EventLoop& loop;
  Sockets& sockets;
  const std::uint64_t seed;
};

std::unique_ptr<Platform> kernel_platform();  // kernel_platform.h

}  // namespace outrider
