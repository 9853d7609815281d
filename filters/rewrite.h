// Paths built from what a match captured, for `rewrite` and `redirect`.
#pragma once

#include <string_view>

#include "config/model.h"
#include "filters/exchange.h"
#include "filters/route_table.h"

namespace outrider {

// `/v2/{id}/**`, `/new/\1`: `{id}` what the match captured, a last `/**` the rest with its slash,
// `\1`…`\9` groups of a regex match. In the arena (or `pattern` itself); not yet checked as a path.
// `match` may be null: then nothing but the rest is captured.
std::string_view expand_path(std::string_view pattern, const config::Match* match,
                             const Captures& captures, Arena& arena);
// Does the pattern take anything from the request's path?
bool takes_captures(std::string_view pattern);

// `path` checked and normalised like a client's, by the rules of the exchange's listener. False:
// `why`.
bool check_path(Exchange& x, std::string_view path, std::string_view& checked,
                std::string_view& why);

}  // namespace outrider
