#include "proxy/kernel_platform.h"

namespace outrider {

std::unique_ptr<Platform> kernel_platform() { return std::make_unique<KernelPlatform>(); }

}  // namespace outrider
