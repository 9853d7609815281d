// Every filter, in the order of every chain; the response meets them in reverse. Each line declares
// and registers at once, so a filter that is listed is linked, and one that is not listed is not
// there.
#include "filters/registry.h"

// config.md §3 fixes the order. What comes before routing (trust, the listener's limits) and the
// choice of an endpoint are no filters: forwarded.h, proxy/.
#define OUTRIDER_FILTERS(FILTER)                                                                 \
  FILTER(forwarded) /* what the upstream learns about the client; sees the request as it came */ \
  FILTER(rewrite)   /* path and host */                                                          \
  FILTER(header_edits) /* after rewrite, before the first attempt */                             \
  FILTER(retry)        /* after each failed attempt */

namespace outrider {

#define FILTER(name) std::unique_ptr<const Filter> make_##name(const FilterContext& context);
OUTRIDER_FILTERS(FILTER)
#undef FILTER

namespace {
#define FILTER(name) make_##name,
constexpr MakeFilter kFilters[] = {OUTRIDER_FILTERS(FILTER)};
#undef FILTER
}  // namespace

std::span<const MakeFilter> filter_registry() { return kFilters; }

}  // namespace outrider
