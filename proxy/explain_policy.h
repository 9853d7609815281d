// The effective policy of a route's target as leaves: key as the contract names it, value, and
// where it was written.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/model.h"
#include "filters/exchange.h"

namespace outrider {

struct PolicyLeaf {
  std::string key;
  nlohmann::ordered_json value;  // text, number, bool or a list of text; null: none
  config::Mark origin;
};

// For the exchange's route and target; only what has an effect on it.
std::vector<PolicyLeaf> policy_leaves(const Exchange& x, const config::Config& config);

}  // namespace outrider
