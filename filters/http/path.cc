// See path.h. One scan checks every byte; only a path that needs it is written anew, in one pass,
// never longer than it came.
#include "filters/http/path.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>

namespace outrider {
namespace {

enum class Byte : std::uint8_t { kPlain, kSlash, kPercent, kQuestion, kBad };

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_unreserved(char c) {  // RFC 3986 §2.3
  return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

constexpr auto kBytes = [] {
  std::array<Byte, 256> table{};
  for (std::size_t c = 0; c <= ' '; ++c) table[c] = Byte::kBad;
  table[0x7f] = table['\\'] = table['#'] = Byte::kBad;
  table['/'] = Byte::kSlash;
  table['%'] = Byte::kPercent;
  table['?'] = Byte::kQuestion;
  return table;
}();

constexpr auto kHex = [] {
  std::array<std::int8_t, 256> table{};
  for (std::int8_t& digit : table) digit = -1;
  for (int i = 0; i < 10; ++i)
    table[static_cast<std::size_t>('0' + i)] = static_cast<std::int8_t>(i);
  for (int i = 0; i < 6; ++i) {
    table[static_cast<std::size_t>('a' + i)] = static_cast<std::int8_t>(10 + i);
    table[static_cast<std::size_t>('A' + i)] = static_cast<std::int8_t>(10 + i);
  }
  return table;
}();

Byte kind_of(char c) { return kBytes[static_cast<unsigned char>(c)]; }
int hex(char c) { return kHex[static_cast<unsigned char>(c)]; }

// The byte that `%XY` at `at` stands for; -1: not an escape.
int escaped(std::string_view text, std::size_t at) {
  if (text.size() - at < 3) return -1;
  const int high = hex(text[at + 1]);
  const int low = hex(text[at + 2]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool is_dot_segment(std::string_view segment) { return segment == "." || segment == ".."; }

struct Scan {
  std::size_t path_size = 0;
  bool query = false;
  bool normal = true;
  bool escaped_slash = false;
  std::string_view error;
};

std::string_view bad_byte(char c) {
  if (c == '\\') return "a backslash in the path";
  if (c == '#') return "a fragment in the target";
  return "a control byte or space in the path";
}

// Does a segment that begins at `at` need work: is it empty (`//`), or a dot segment?
bool odd_segment(std::string_view text, std::size_t at, bool merge_slashes) {
  if (at == text.size()) return false;
  if (text[at] == '/') return merge_slashes;
  if (text[at] != '.') return false;
  return is_dot_segment(text.substr(at, std::min(text.find_first_of("/?", at), text.size()) - at));
}

Scan scan(std::string_view text, bool merge_slashes) {
  Scan found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    while (kind_of(text[i]) == Byte::kPlain)
      if (++i == text.size()) break;
    if (i == text.size()) break;
    switch (kind_of(text[i])) {
      case Byte::kPlain: break;
      case Byte::kSlash:
        if (odd_segment(text, i + 1, merge_slashes)) found.normal = false;
        break;
      case Byte::kPercent: {
        const int byte = escaped(text, i);
        if (byte <= 0) {
          found.error =
              byte == 0 ? "an encoded NUL in the path" : "a bad percent escape in the path";
          return found;
        }
        if (is_unreserved(static_cast<char>(byte))) found.normal = false;
        if (byte == '/' || byte == '\\') found.escaped_slash = true;
        i += 2;
        break;
      }
      case Byte::kQuestion:
        found.path_size = i;
        found.query = true;
        return found;
      case Byte::kBad: found.error = bad_byte(text[i]); return found;
    }
  }
  found.path_size = text.size();
  return found;
}

// Writes the normal form of a scanned path; its size, or 0 for one that climbs above the root.
std::size_t rewrite(std::string_view path, bool merge_slashes, char* const out) {
  out[0] = '/';
  std::size_t size = 1;
  std::size_t segment = 1;  // where the current one begins; out[segment - 1] is a slash
  for (std::size_t i = 1; i <= path.size(); ++i) {
    if (i < path.size() && path[i] != '/') {
      const int byte = path[i] == '%' ? escaped(path, i) : path[i];
      if (path[i] == '%' && is_unreserved(static_cast<char>(byte))) {
        out[size++] = static_cast<char>(byte);
        i += 2;
      } else {
        out[size++] = path[i];
      }
      continue;
    }
    const std::string_view written(out + segment, size - segment);
    if (written == ".") {
      size = segment;
    } else if (written == "..") {
      if (segment == 1) return 0;
      size = segment - 1;
      while (out[size - 1] != '/') --size;
    } else if (i < path.size() && !(merge_slashes && written.empty())) {
      out[size++] = '/';
    }
    segment = size;
  }
  return size;
}

bool query_is_sound(std::string_view query) {
  unsigned bad = 0;
  for (const char c : query) bad |= static_cast<unsigned>(kind_of(c) == Byte::kBad && c != '\\');
  return bad == 0;
}

bool normalise(std::string_view target, bool merge_slashes, bool may_have_query, Arena& arena,
               NormalisedTarget& out, std::string_view& why) {
  if (target.empty() || target.front() != '/') {
    why = "a path that does not begin with /";
    return false;
  }
  const Scan found = scan(target, merge_slashes);
  if (!found.error.empty()) {
    why = found.error;
    return false;
  }
  out.path = target.substr(0, found.path_size);
  out.query = target.substr(found.path_size);
  out.escaped_slash = found.escaped_slash;
  if (found.query && !may_have_query) {
    why = "a question mark in the path";
    return false;
  }
  if (!query_is_sound(out.query)) {
    why = "a control byte, space or fragment in the query";
    return false;
  }
  if (found.normal) return true;
  char* const to = arena.bytes(out.path.size());
  out.path = {to, rewrite(out.path, merge_slashes, to)};
  if (!out.path.empty()) return true;
  why = "a path above the root";
  return false;
}

enum HostByte : std::uint8_t { kNoHostByte = 1, kUpperCase = 2 };

// RFC 3986's reg-name without escapes, which two readers could decode differently, and without the
// comma of lists.
constexpr auto kHostBytes = [] {
  std::array<std::uint8_t, 256> table{};
  for (std::size_t c = 0; c < table.size(); ++c) {
    const auto byte = static_cast<char>(c);
    const bool fine =
        is_unreserved(byte) || std::string_view("!$&'()*+;=").find(byte) != std::string_view::npos;
    table[c] = fine ? 0 : kNoHostByte;
    if (byte >= 'A' && byte <= 'Z') table[c] |= kUpperCase;
  }
  return table;
}();

// The HostByte bits of all bytes.
unsigned host_bytes(std::string_view text) {
  unsigned bits = 0;
  for (const char c : text) bits |= kHostBytes[static_cast<unsigned char>(c)];
  return bits;
}

bool is_ipv6(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof buffer) return false;
  if (text.find('\0') != std::string_view::npos) return false;  // inet_pton would stop there
  *std::copy(text.begin(), text.end(), buffer) = '\0';
  in6_addr address;
  return inet_pton(AF_INET6, buffer, &address) == 1;
}

bool parse_port(std::string_view text, std::uint16_t& port) {
  constexpr std::size_t kDigits = 5;
  if (text.empty() || text.size() > kDigits) return false;
  std::uint32_t value = 0;
  for (const char c : text) {
    if (!is_digit(c)) return false;
    value = value * 10 + static_cast<std::uint32_t>(c - '0');
  }
  port = static_cast<std::uint16_t>(value);
  return value > 0 && value <= 0xffff;
}

std::string_view lower_case(std::string_view text, Arena& arena) {
  char* const to = arena.bytes(text.size());
  std::transform(text.begin(), text.end(), to,
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  return {to, text.size()};
}

}  // namespace

bool normalise_target(std::string_view target, bool merge_slashes, Arena& arena,
                      NormalisedTarget& out, std::string_view& why) {
  return normalise(target, merge_slashes, true, arena, out, why);
}

bool normalise_path(std::string_view path, bool merge_slashes, Arena& arena, NormalisedTarget& out,
                    std::string_view& why) {
  return normalise(path, merge_slashes, false, arena, out, why);
}

bool parse_authority(std::string_view authority, Arena& arena, std::string_view& host,
                     std::uint16_t& port, std::string_view& why) {
  const bool literal = !authority.empty() && authority.front() == '[';
  const std::size_t end = literal ? authority.find(']') : authority.find(':');
  std::string_view name = authority;
  std::string_view rest;
  if (end != std::string_view::npos) {
    const std::size_t size = literal ? end + 1 : end;
    name = authority.substr(0, size);
    rest = authority.substr(size);
  }
  const unsigned bytes = host_bytes(name);
  if (literal) {
    if (end == std::string_view::npos || !is_ipv6(name.substr(1, name.size() - 2))) {
      why = "an IPv6 address that is none in the host";
      return false;
    }
  } else if ((bytes & kNoHostByte) != 0) {
    why = "a byte that no host name has";
    return false;
  }
  port = 0;
  if (!rest.empty() && (rest.front() != ':' || !parse_port(rest.substr(1), port))) {
    why = "a bad port in the host";
    return false;
  }
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  if (name.empty()) {
    why = "an empty host";
    return false;
  }
  host = (bytes & kUpperCase) != 0 ? lower_case(name, arena) : name;
  return true;
}

std::uint16_t default_port(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

}  // namespace outrider
