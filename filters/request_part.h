// The part of a request that its bucket, or its endpoint, goes by: `client.ip`, `header x-user`.
// Absent and empty are the same. Invariant: nothing is allocated; a view into the exchange.
#pragma once

#include <string_view>

#include "config/model.h"
#include "filters/template.h"

namespace outrider {

class RequestPart {
 public:
  explicit RequestPart(const config::RequestPart& part);
  std::string_view of(const Exchange& x) const;
  bool is_client_ip() const { return part_.kind == config::VariableKind::kClient; }

 private:
  Template::Part part_;
};

}  // namespace outrider
