// See observe.h.
#include "filters/observe.h"

#include "config/log.h"
#include "filters/chain.h"

namespace outrider {

void observe(Exchange& x, Event event, Reason reason, std::string_view words) {
  x.count(event);
  if (x.observed_count < x.observed.size()) x.observed[x.observed_count++] = words;
  if (x.rehearsed || !log::enabled(log::Level::kWarn)) return;
  log::limited(reason, "observed: client {}, route {}, request {}: {}", x.client_ip_text,
               x.route != nullptr ? std::string_view(x.route->route->name) : "-", x.request_id,
               words);
}

}  // namespace outrider
