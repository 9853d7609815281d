// See request_part.h.
#include "filters/request_part.h"

namespace outrider {

RequestPart::RequestPart(const config::RequestPart& part)
    : part_{{},
            true,
            part.kind,
            part.kind == config::VariableKind::kHeader ? header_id(part.name) : HeaderId::kUnknown,
            part.name} {}

std::string_view RequestPart::of(const Exchange& x) const {
  Scratch scratch;  // for numbers and times, which none of these is
  return value_of(part_, x, scratch).text;
}

}  // namespace outrider
