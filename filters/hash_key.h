// What a request says of the endpoint it wants: the hash of its key for `balance: hash(KEY)` and
// `maglev(KEY)`, and the endpoint that its session cookie names. Read after rewrite and header
// edits, as the order of everything has it; nothing is kept.
#pragma once

#include <cstdint>
#include <optional>

#include "config/model.h"
#include "discovery/service.h"
#include "filters/request_part.h"

namespace outrider {

class HashKey {
 public:
  explicit HashKey(const config::RequestPart& part);
  // The same on every proxy; nothing: the request has no such part, or an empty one.
  std::optional<std::uint64_t> of(const Exchange& x) const;

 private:
  RequestPart part_;
};

// For an attempt of the exchange; `tried` and the time are the caller's.
Aim aim_of(const Exchange& x);

}  // namespace outrider
