// Every filter, in the order of every chain; the response meets them in reverse. Each line declares
// and registers at once, so a filter that is listed is linked, and one that is not listed is not
// there.
#include "filters/registry.h"

// config.md §3 fixes the order. What comes before routing (trust, the listener's limits) and the
// choice of an endpoint are no filters: forwarded.h, proxy/.
#define OUTRIDER_FILTERS(FILTER)                                                                 \
  FILTER(grpc_web)  /* all others see gRPC */                                                    \
  FILTER(cors)      /* answers preflights, which carry no credentials; decorates every answer */ \
  FILTER(access)    /* allow, deny */                                                            \
  FILTER(basic)     /* a name and password */                                                    \
  FILTER(api_key)   /* a key */                                                                  \
  FILTER(limit)     /* how often; before anything is done for the request */                     \
  FILTER(fault)     /* delays and aborts */                                                      \
  FILTER(compress)  /* what the client takes; the response as it leaves */                       \
  FILTER(buffer)    /* once it is clear that the request goes on */                              \
  FILTER(forwarded) /* what the upstream learns about the client; sees the request as it came */ \
  FILTER(session)   /* which endpoint a cookie names; header edits may take it away */           \
  FILTER(rewrite)   /* path and host */                                                          \
  FILTER(header_edits) /* after rewrite, before the first attempt */                             \
  FILTER(retry)        /* after each failed attempt */

namespace outrider {

#define FILTER(name) FilterKind name##_filter();
OUTRIDER_FILTERS(FILTER)
#undef FILTER

std::span<const FilterKind> filter_registry() {
#define FILTER(name) name##_filter(),
  static const FilterKind kFilters[] = { OUTRIDER_FILTERS(FILTER) };
#undef FILTER
  return kFilters;
}

config::Extensions filter_keys() {
  static const std::vector<const config::Extension*> keys = [] {
    std::vector<const config::Extension*> all;
    for (const FilterKind& kind : filter_registry())
      all.insert(all.end(), kind.keys.begin(), kind.keys.end());
    return all;
  }();
  return keys;
}

}  // namespace outrider
