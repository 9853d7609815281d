// What production runs on.
#pragma once

#include "discovery/uv_loop.h"
#include "proxy/kernel_sockets.h"
#include "proxy/platform.h"

namespace outrider {

struct Kernel {
  UvLoop uv;
  KernelSockets kernel_sockets{uv};
};

class KernelPlatform final : private Kernel, public Platform {
 public:
  KernelPlatform() : Platform(uv, kernel_sockets, uv_hrtime()) {}
  UvLoop& uv_loop() { return uv; }
};

}  // namespace outrider
