// A model as text without its places, to compare what two configurations mean.
#pragma once

#include <string>

#include "config/model.h"

namespace outrider::config {

std::string describe(const Config& config);
std::string describe(const Policy& policy);
std::string describe(const Match& match);

}  // namespace outrider::config
