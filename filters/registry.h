// The list of filters (registry.cc), in the order of every chain.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "config/extension.h"
#include "filters/chain.h"

namespace outrider {

struct FilterKind {
  // Makes the filter for one target; null when it has nothing to do there.
  std::unique_ptr<const Filter> (*make)(const FilterContext& context);
  // The keys of policies that only this filter knows.
  std::vector<const config::Extension*> keys = {};
};

std::span<const FilterKind> filter_registry();
// The keys of all of them, for the loader.
config::Extensions filter_keys();

}  // namespace outrider
