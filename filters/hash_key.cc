// See hash_key.h.
#include "filters/hash_key.h"

#include "discovery/hash.h"
#include "filters/chain.h"

namespace outrider {

HashKey::HashKey(const config::RequestPart& part) : part_(part) {}

std::optional<std::uint64_t> HashKey::of(const Exchange& x) const {
  const std::string_view key = part_.of(x);
  if (key.empty()) return std::nullopt;
  return keyed_hash(key, 0, 0);
}

Aim aim_of(const Exchange& x) {
  Aim aim{.session = x.session};
  const std::optional<HashKey>& of = x.target->hash_key;
  if (!of) return aim;
  const std::optional<std::uint64_t> key = of->of(x);
  aim.has_key = key.has_value();
  aim.key = key.value_or(0);
  return aim;
}

}  // namespace outrider
