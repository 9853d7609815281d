// What a client takes (RFC 9110 §12.5.1, §12.5.3).
#pragma once

#include <string_view>

#include "filters/http/headers.h"

namespace outrider {

// Whether Accept names a media type that `fits`, other than with `;q=0`.
bool accepts(const Headers& headers, bool (*fits)(std::string_view type));

// The weight that Accept-Encoding gives a coding, or `*` for it, in thousandths; 0 is a refusal,
// and what cannot be read is one too.
inline constexpr int kNotNamed = -1;
int coding_weight(const Headers& headers, std::string_view coding);

}  // namespace outrider
