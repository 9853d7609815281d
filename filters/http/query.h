// Values of query parameters and cookies, as match conditions see them: the first of a name, not
// decoded, names compared byte for byte. Nothing is allocated; views into the request.
#pragma once

#include <optional>
#include <string_view>

#include "filters/http/headers.h"

namespace outrider {

// `query` with or without its `?`. A parameter without `=` is present and empty.
std::optional<std::string_view> query_value(std::string_view query, std::string_view name);
// Over all Cookie fields in order (RFC 6265 §4.2.1; HTTP/2 may split them). Quotes stay.
std::optional<std::string_view> cookie_value(const Headers& headers, std::string_view name);

}  // namespace outrider
