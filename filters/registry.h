// The list of filters (registry.cc), in the order of every chain.
#pragma once

#include <memory>
#include <span>

#include "filters/chain.h"

namespace outrider {

// Makes the filter for one target; null when it has nothing to do there.
using MakeFilter = std::unique_ptr<const Filter> (*)(const FilterContext& context);

std::span<const MakeFilter> filter_registry();

}  // namespace outrider
