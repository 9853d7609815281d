// What a client takes (RFC 9110 §12.5.1).
#pragma once

#include <string_view>

#include "filters/http/headers.h"

namespace outrider {

// Whether Accept names a media type that `fits`, other than with `;q=0`.
bool accepts(const Headers& headers, bool (*fits)(std::string_view type));

}  // namespace outrider
