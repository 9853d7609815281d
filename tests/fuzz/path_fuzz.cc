// Targets and authorities: what is accepted is normal, stays as it is when normalised again, and
// never climbs above the root; what is refused says why. The first byte chooses the options.
#include "filters/http/path.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "config/error.h"

namespace outrider {
namespace {

bool is_unreserved(int c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

void check_segment(std::string_view segment) {
  OUTRIDER_ASSERT(segment != "." && segment != "..");
  for (std::size_t i = 0; i < segment.size(); ++i) {
    const auto byte = static_cast<unsigned char>(segment[i]);
    OUTRIDER_ASSERT(byte > ' ' && byte != 0x7f && byte != '\\' && byte != '#' && byte != '?');
    if (byte != '%') continue;
    OUTRIDER_ASSERT(i + 2 < segment.size());
    const std::string digits(segment.substr(i + 1, 2));
    const int escaped = std::stoi(digits, nullptr, 16);
    OUTRIDER_ASSERT(escaped != 0 && !is_unreserved(escaped));
  }
}

void check_path(std::string_view path, bool merge_slashes) {
  OUTRIDER_ASSERT(path.starts_with('/'));
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t end = std::min(path.find('/'), path.size());
    check_segment(path.substr(0, end));
    OUTRIDER_ASSERT(!merge_slashes || end > 0 || path.empty());
    path.remove_prefix(end);
  }
}

void check_target(std::string_view target, bool merge_slashes, Arena& arena) {
  NormalisedTarget out;
  std::string_view why;
  if (!normalise_target(target, merge_slashes, arena, out, why)) {
    OUTRIDER_ASSERT(!why.empty());
    return;
  }
  check_path(out.path, merge_slashes);
  OUTRIDER_ASSERT(out.path.size() + out.query.size() <= target.size());
  OUTRIDER_ASSERT(out.query.empty() || (out.query[0] == '?' && target.ends_with(out.query)));
  NormalisedTarget again;
  OUTRIDER_ASSERT(
      normalise_target(arena.concat(out.path, out.query), merge_slashes, arena, again, why));
  OUTRIDER_ASSERT(again.path == out.path && again.query == out.query);
  OUTRIDER_ASSERT(normalise_path(out.path, merge_slashes, arena, again, why));
  OUTRIDER_ASSERT(again.path.data() == out.path.data() && again.query.empty());
}

void check_authority(std::string_view authority, Arena& arena) {
  std::string_view host;
  std::string_view why;
  std::uint16_t port = 0;
  if (!parse_authority(authority, arena, host, port, why)) {
    OUTRIDER_ASSERT(!why.empty());
    return;
  }
  OUTRIDER_ASSERT(!host.empty());
  for (const char c : host)
    OUTRIDER_ASSERT(static_cast<unsigned char>(c) > ' ' && static_cast<unsigned char>(c) < 0x7f &&
                    !(c >= 'A' && c <= 'Z') &&
                    std::string_view("/?#@,\\%\"").find(c) == std::string_view::npos);
  // A name may keep a second trailing dot, which parsing again would take.
  if (host.back() == '.') return;
  const std::string text = std::string(host) + (port != 0 ? ":" + std::to_string(port) : "");
  std::string_view again;
  std::uint16_t again_port = 0;
  OUTRIDER_ASSERT(parse_authority(text, arena, again, again_port, why));
  OUTRIDER_ASSERT(again == host && again_port == port);
}

}  // namespace
}  // namespace outrider

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  outrider::BlockPool blocks;
  outrider::Arena arena(blocks);
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 4 == 0)
    outrider::check_authority(text, arena);
  else
    outrider::check_target(text, data[0] % 2 == 0, arena);
  return 0;
}
