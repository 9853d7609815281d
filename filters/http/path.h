// One spelling for every target and authority, so that routing, policy and forwarding cannot see
// different things. Invariant of a normalised path: it begins with `/`, has no dot segment, no
// backslash, no raw control byte or space, no encoded NUL and no encoded unreserved byte;
// normalising it again changes nothing. Used before routing, and again on whatever a rewrite made.
#pragma once

#include <cstdint>
#include <string_view>

#include "filters/http/arena.h"

namespace outrider {

struct NormalisedTarget {
  std::string_view path;       // views of the input when it was normal already, else of the arena
  std::string_view query;      // with its `?`, or empty; as it came
  bool escaped_slash = false;  // the path came with %2f or %5c, which stay
};

// Origin-form only (`*` is the caller's). False: answer 400, `why` says what is wrong in static
// words.
bool normalise_target(std::string_view target, bool merge_slashes, Arena& arena,
                      NormalisedTarget& out, std::string_view& why);
// A path alone, as rewrites make them: a `?` in it is an error too.
bool normalise_path(std::string_view path, bool merge_slashes, Arena& arena, NormalisedTarget& out,
                    std::string_view& why);

// `host[:port]`, from Host, :authority or an absolute target. `host` comes back in lower case,
// without port and one trailing dot, an IPv6 literal with its brackets; port 0: none written.
bool parse_authority(std::string_view authority, Arena& arena, std::string_view& host,
                     std::uint16_t& port, std::string_view& why);
// 443 for `https`, else 80.
std::uint16_t default_port(std::string_view scheme);

}  // namespace outrider
