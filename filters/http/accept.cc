#include "filters/http/accept.h"

namespace outrider {
namespace {

// `;q=0` and its like.
bool is_refused(std::string_view parameters) {
  while (!parameters.empty()) {
    const std::size_t end = parameters.find(';');
    std::string_view parameter = trim_ows(parameters.substr(0, end));
    parameters.remove_prefix(end == std::string_view::npos ? parameters.size() : end + 1);
    if (parameter.size() < 3 || (parameter[0] | 0x20) != 'q' || parameter[1] != '=') continue;
    return parameter.find_first_not_of("0.", 2) == std::string_view::npos;
  }
  return false;
}

}  // namespace

bool accepts(const Headers& headers, bool (*fits)(std::string_view type)) {
  for (const Header& header : headers) {
    if (header.id != HeaderId::kAccept) continue;
    for (std::string_view list = header.value; !list.empty();) {
      const std::size_t comma = list.find(',');
      const std::string_view item = list.substr(0, comma);
      list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
      const std::size_t semicolon = item.find(';');
      if (!fits(trim_ows(item.substr(0, semicolon)))) continue;
      if (semicolon == std::string_view::npos || !is_refused(item.substr(semicolon + 1)))
        return true;
    }
  }
  return false;
}

}  // namespace outrider
