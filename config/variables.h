// The words between `%{` and `}` in header values and log formats. The only list of them: the
// reader checks with it what filters/template.h later expands.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::config {

enum class VariableKind : std::uint8_t {
  // Access log fields, in the order of the JSON line.
  kTime,
  kListener,
  kClient,
  kClientId,
  kMethod,
  kHost,
  kPath,
  kProtocol,
  kStatus,
  kReason,
  kRoute,
  kService,
  kEndpoint,
  kAttempts,
  kBytesIn,
  kBytesOut,
  kDuration,
  kUpstream,
  kRequestId,
  kTraceId,
  kUserAgent,
  kTls,
  // With an argument.
  kHeader,   // `header N`, of the request
  kQuery,    // `query N`, the first, undecoded
  kCookie,   // `cookie N`, the first, undecoded
  kCapture,  // `path.NAME`, what `{NAME}` of the match took
};

struct Variable {
  VariableKind kind = VariableKind::kTime;
  std::string_view argument;  // a view into the parsed text
};

// Literal text (`%%{` is already `%{`), or a variable.
struct Piece {
  std::string_view literal;
  std::optional<Variable> variable;
};

// `inside` is what stands between the braces; nothing if no variable is called so.
std::optional<Variable> variable_of(std::string_view inside);

// Splits a text into pieces that view it; the error (`unknown variable 'x'`) or empty.
std::string split_text(std::string_view text, std::vector<Piece>& pieces);

// Every name without an argument, then the beginnings `header `, `query `, `cookie `, `path.`; for
// `did you mean`.
std::span<const std::string_view> variable_names();

}  // namespace outrider::config
