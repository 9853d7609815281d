// Versions: of this build, and of the libraries it was made from.
#pragma once

#include <string>

namespace outrider {

// `outrider 0.1.0 (commit 0123456789ab)`, then a line for each library.
std::string version_text();

}  // namespace outrider
