// A compiled text with `%{…}`: access log fields, keys and captures of one exchange
// (config/variables.h has the names). Absent is empty. Expansion goes to the exchange's arena; a
// text without variables is a view of itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/variables.h"
#include "filters/exchange.h"
#include "filters/http/headers.h"

namespace outrider {

// Room for a value that is nowhere as text: a number, a time.
struct Scratch {
  char bytes[32];
};

class Template {
 public:
  struct Part {
    std::string literal;  // of a literal part
    bool variable = false;
    config::VariableKind kind = config::VariableKind::kTime;
    HeaderId header = HeaderId::kUnknown;  // of `header N`
    std::string argument;
  };

  Template() = default;
  // The loader has checked the text; what it would refuse stands here as literal text.
  explicit Template(std::string_view text);

  bool constant() const { return constant_; }
  std::span<const Part> parts() const { return parts_; }
  // A view of this template, of the exchange, or of its arena.
  std::string_view expand(Exchange& x) const;

 private:
  std::vector<Part> parts_;
  bool constant_ = true;
};

// Texts that nobody compiled, such as those of `respond`.
std::string_view expand_text(std::string_view text, Exchange& x);

// A value in at most two pieces (path and query may lie apart); empty when absent. May view
// `scratch`.
struct Value {
  std::string_view text;
  std::string_view tail;
  bool empty() const { return text.empty() && tail.empty(); }
};
Value value_of(const Template::Part& part, const Exchange& x, Scratch& scratch);
// Of an access log field alone.
Value value_of(config::VariableKind field, const Exchange& x, Scratch& scratch);

// May it be sent as a header value: no control byte but tab (RFC 9110 §5.5).
bool is_header_value(std::string_view text);

}  // namespace outrider
