// One table of names, read in both directions. Used while loading and while compiling snapshots,
// never per request.
#include "config/variables.h"

#include <algorithm>
#include <array>

namespace outrider::config {
namespace {

constexpr std::array<std::string_view, 28> kNames = {
    "time",     "listener",  "client",      "client_id",   "method",     "host",     "path",
    "protocol", "status",    "reason",      "route",       "service",    "endpoint", "attempts",
    "bytes_in", "bytes_out", "duration_ms", "upstream_ms", "request_id", "trace_id", "user_agent",
    "tls",      "client.ip", "client.id",   "header ",     "query ",     "cookie ",  "path."};
constexpr std::size_t kFields = static_cast<std::size_t>(VariableKind::kTls) + 1;
constexpr std::size_t kAliases = kFields + 2;
static_assert(kNames[kFields - 1] == "tls" && kNames[kAliases] == "header ");

constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";  // of tokens, RFC 9110 §5.6.2

bool is_token(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

// Nothing that could not stand in a query or a capture's name.
bool is_word(std::string_view name) {
  return !name.empty() && std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
  });
}

}  // namespace

std::optional<Variable> variable_of(std::string_view inside) {
  for (std::size_t i = 0; i < kFields; ++i)
    if (inside == kNames[i]) return Variable{static_cast<VariableKind>(i), {}};
  if (inside == "client.ip") return Variable{VariableKind::kClient, {}};
  if (inside == "client.id") return Variable{VariableKind::kClientId, {}};
  for (std::size_t i = kAliases; i < kNames.size(); ++i) {
    if (!inside.starts_with(kNames[i])) continue;
    const auto kind = static_cast<VariableKind>(kFields + i - kAliases);
    const std::string_view argument = inside.substr(kNames[i].size());
    const bool sound = kind == VariableKind::kHeader || kind == VariableKind::kCookie
                           ? is_token(argument)
                           : is_word(argument);
    if (sound) return Variable{kind, argument};
  }
  return std::nullopt;
}

std::string split_text(std::string_view text, std::vector<Piece>& pieces) {
  std::size_t from = 0;  // of the literal being gathered
  for (std::size_t at = text.find("%{"); at != std::string_view::npos; at = text.find("%{", at)) {
    if (at > from && text[at - 1] == '%') {
      pieces.push_back({text.substr(from, at - 1 - from), std::nullopt});
      from = at;  // the literal goes on with `%{`
      at += 2;
      continue;
    }
    if (at > from) pieces.push_back({text.substr(from, at - from), std::nullopt});
    const std::size_t end = text.find('}', at);
    if (end == std::string_view::npos) return "'%{' without '}' (write '%%{' for the text itself)";
    const std::string_view inside = text.substr(at + 2, end - at - 2);
    const std::optional<Variable> variable = variable_of(inside);
    if (!variable) return "unknown variable '" + std::string(inside) + "'";
    pieces.push_back({{}, variable});
    at = from = end + 1;
  }
  if (from < text.size()) pieces.push_back({text.substr(from), std::nullopt});
  std::erase_if(pieces,
                [](const Piece& piece) { return !piece.variable && piece.literal.empty(); });
  return {};
}

std::span<const std::string_view> variable_names() { return kNames; }

}  // namespace outrider::config
