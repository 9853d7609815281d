// The long form of what was written: every shorthand expanded, files united, paths absolute.
#pragma once

#include <string>

namespace outrider::config {

struct Draft;

// For a draft without errors. `origins`: each entry's FILE:LINE as a comment.
std::string expand(const Draft& draft, bool origins);

}  // namespace outrider::config
