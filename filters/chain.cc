// Made once per target and snapshot; running it is in the header.
#include "filters/chain.h"

#include <algorithm>
#include <utility>

#include "filters/registry.h"

namespace outrider {

Chain::Chain(const FilterContext& context) {
  for (const FilterKind& kind : filter_registry()) {
    std::unique_ptr<const Filter> filter = kind.make(context);
    if (filter == nullptr) continue;
    const auto list = [&](Phase phase, std::vector<const Filter*>& filters) {
      if (filter->in(phase)) filters.push_back(filter.get());
    };
    list(Phase::kRequest, request_);
    list(Phase::kAttempt, attempt_);
    list(Phase::kAttemptFailed, attempt_failed_);
    list(Phase::kResponse, response_);
    list(Phase::kSlow, slow_);
    list(Phase::kDone, done_);
    filters_.push_back(std::move(filter));
  }
  std::reverse(response_.begin(), response_.end());
}

}  // namespace outrider
