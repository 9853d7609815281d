// See query.h.
#include "filters/http/query.h"

namespace outrider {
namespace {

// The next piece of `text` up to `separator`; `text` keeps the rest.
std::string_view next_piece(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view piece = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return piece;
}

}  // namespace

std::optional<std::string_view> query_value(std::string_view query, std::string_view name) {
  if (query.starts_with('?')) query.remove_prefix(1);
  while (!query.empty()) {
    std::string_view value = next_piece(query, '&');
    if (value.empty()) continue;
    if (next_piece(value, '=') == name) return value;
  }
  return std::nullopt;
}

std::optional<std::string_view> cookie_value(const Headers& headers, std::string_view name) {
  for (const Header& header : headers) {
    if (header.id != HeaderId::kCookie) continue;
    for (std::string_view pairs = header.value; !pairs.empty();) {
      std::string_view value = trim_ows(next_piece(pairs, ';'));
      if (value.find('=') == std::string_view::npos) continue;
      if (trim_ows(next_piece(value, '=')) == name) return trim_ows(value);
    }
  }
  return std::nullopt;
}

}  // namespace outrider
