// A policy in `mode: observe` decided, and does nothing: it is counted by route, said in the
// process log (a few lines a second of each reason), and shown by `explain`.
#pragma once

#include <string_view>

#include "filters/exchange.h"

namespace outrider {

// `words`: `would be denied: …`; static, of the arena or of the snapshot.
void observe(Exchange& x, Event event, Reason reason, std::string_view words);

}  // namespace outrider
