#include "filters/http/accept.h"

#include <algorithm>

namespace outrider {
namespace {

constexpr int kWhole = 1000;

// `0.25` in thousandths; 0 when malformed.
int parse_weight(std::string_view text) {
  constexpr std::size_t kLongest = 5;  // 0.123
  if (text.empty() || text.size() > kLongest || (text[0] != '0' && text[0] != '1')) return 0;
  int weight = (text[0] - '0') * kWhole;
  if (text.size() > 1 && text[1] != '.') return 0;
  int place = kWhole / 10;
  for (const char c : text.substr(text.size() > 1 ? 2 : 1)) {
    if (c < '0' || c > '9') return 0;
    weight += (c - '0') * place;
    place /= 10;
  }
  return weight <= kWhole ? weight : 0;
}

// Of `;level=1;q=0.5`.
int weight_of(std::string_view parameters) {
  while (!parameters.empty()) {
    const std::size_t end = parameters.find(';');
    const std::string_view parameter = trim_ows(parameters.substr(0, end));
    parameters.remove_prefix(end == std::string_view::npos ? parameters.size() : end + 1);
    if (parameter.size() >= 2 && (parameter[0] | 0x20) == 'q' && parameter[1] == '=')
      return parse_weight(parameter.substr(2));
  }
  return kWhole;
}

// Calls `visit` with the name and the parameters of each item of a list, until it says so.
template <class Visit>
void each_item(std::string_view list, Visit&& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
    const std::size_t semicolon = std::min(item.find(';'), item.size());
    if (visit(trim_ows(item.substr(0, semicolon)), item.substr(semicolon))) return;
  }
}

}  // namespace

bool accepts(const Headers& headers, bool (*fits)(std::string_view type)) {
  bool found = false;
  for (const Header& header : headers) {
    if (header.id != HeaderId::kAccept) continue;
    each_item(header.value, [&](std::string_view type, std::string_view parameters) {
      return found = found || (fits(type) && weight_of(parameters) != 0);
    });
  }
  return found;
}

int coding_weight(const Headers& headers, std::string_view coding) {
  int own = kNotNamed;
  int any = kNotNamed;
  for (const Header& header : headers) {
    if (header.id != HeaderId::kAcceptEncoding) continue;
    each_item(header.value, [&](std::string_view name, std::string_view parameters) {
      const bool old_name = name.size() > 2 && (name[0] | 0x20) == 'x' && name[1] == '-';
      if (equal_ignoring_case(old_name ? name.substr(2) : name, coding))  // RFC 9110 §8.4.1.3
        own = weight_of(parameters);
      else if (name == "*")
        any = weight_of(parameters);
      return own != kNotNamed;
    });
    if (own != kNotNamed) return own;
  }
  return any;
}

}  // namespace outrider
