// What a route answers by itself: `redirect` and `respond`.
#pragma once

#include <string_view>

#include "filters/chain.h"
#include "filters/exchange.h"

namespace outrider {

// Builds x.response and sets x.status; the body (of the arena or the route), empty for HEAD, whose
// content_length is the body's all the same.
std::string_view answer_route(Exchange& x, const CompiledRoute& route);

}  // namespace outrider
