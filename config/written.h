// Amounts as a file would say them; what grammar.h parses.
#pragma once

#include <cstdint>
#include <string>

#include "config/limits.h"

namespace outrider::config {

std::string written(Millis duration);           // `250ms`, `1m30s`, `2h`
std::string written_size(std::uint64_t bytes);  // `64KiB`
std::string written_share(double share);        // `20%`

}  // namespace outrider::config
