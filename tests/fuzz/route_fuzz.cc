// Route tables made from the input, and requests asked of them. The table must agree with a plain
// walk over all candidates in their order (`explain`), captures must lie in the path, and no route
// called shadowed may win. Input: lines; `[-N ][METHOD ][host]PATH[ name=value]` adds a route (N:
// priority), `? METHOD host PATH [name=value]` asks.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "config/error.h"
#include "filters/http/path.h"
#include "filters/route_table.h"

namespace outrider {
namespace {

using config::HostMatch;
using config::Match;
using config::PathMatch;
using config::ValueMatch;

constexpr std::size_t kMaxRoutes = 64;
constexpr std::size_t kMaxRequests = 64;
constexpr std::size_t kMaxRegex = 64;

std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view piece = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return piece;
}

HostMatch host_of(std::string_view text) {
  HostMatch host;
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos) host.port = static_cast<std::uint16_t>(text.size());
  text = text.substr(0, colon);
  if (text.starts_with("*.") && text.size() > 2) {
    host.kind = HostMatch::Kind::kWildcard;
    host.text = text.substr(2);
  } else if (!text.empty() && text != "*") {
    host.kind = HostMatch::Kind::kExact;
    host.text = text;
  }
  return host;
}

PathMatch path_of(std::string_view text) {
  PathMatch path;
  path.text = text;
  if (text.empty()) return path;
  if (text[0] == '~') {
    path.kind = PathMatch::Kind::kRegex;
    path.regex = text.substr(1, kMaxRegex);
    return path;
  }
  path.kind = PathMatch::Kind::kExact;
  text.remove_prefix(1);
  while (!text.empty()) {
    const bool last = text.find('/') == std::string_view::npos;
    const std::string_view segment = take(text, '/');
    if (last && segment == "**") {
      path.kind = PathMatch::Kind::kPrefix;
    } else if (segment == "*" || segment.starts_with('{')) {
      path.kind = PathMatch::Kind::kTemplate;
      path.segments.push_back({PathMatch::Segment::Kind::kAny, std::string(segment)});
    } else {
      path.segments.push_back({PathMatch::Segment::Kind::kText, std::string(segment)});
    }
    if (!last && text.empty()) path.trailing_slash = true;
  }
  return path;
}

ValueMatch value_of(std::string_view text) {
  ValueMatch value;
  value.negated = text.starts_with('!');
  if (value.negated) text.remove_prefix(1);
  value.kind = text.empty() ? ValueMatch::Kind::kPresent : ValueMatch::Kind::kExact;
  if (text.starts_with('~')) {
    value.kind = ValueMatch::Kind::kRegex;
    text = text.substr(1, kMaxRegex);
  }
  value.text = text;
  return value;
}

void add_route(config::Config& config, std::string_view line) {
  config::Route route;
  route.name = std::to_string(config.routes.size());
  route.listeners = {"main"};
  if (line.starts_with('-')) route.priority = static_cast<std::int32_t>(take(line, ' ').size());
  Match match;
  const std::size_t space = line.find(' ');
  if (space < line.find_first_of("/~=")) match.methods.emplace_back(take(line, ' '));
  std::string_view place = take(line, ' ');
  const std::size_t path = std::min(place.find_first_of("/~"), place.size());
  match.host = host_of(place.substr(0, path));
  match.path = path_of(place.substr(path));
  for (int kind = 0; !line.empty(); ++kind) {
    std::string_view value = take(line, ' ');
    const std::string_view name = take(value, '=');
    auto& list = kind % 3 == 0 ? match.headers : kind % 3 == 1 ? match.query : match.cookies;
    list.emplace_back(name, value_of(value));
  }
  route.matches.push_back(std::move(match));
  config.routes.push_back(std::move(route));
}

bool within(std::string_view part, std::string_view whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void ask(const config::Config& config, const RouteTable& table,
         const std::vector<Shadowed>& shadowed, std::string_view line) {
  BlockPool blocks;
  ClientInfo client;
  Exchange x(blocks, client);
  x.request.scheme = "http";
  x.request.method_text = take(line, ' ');
  x.request.method = method_of(x.request.method_text);
  x.request.authority = take(line, ' ');
  std::string_view why;
  if (!parse_authority(x.request.authority, x.arena, x.host, x.host_port, why)) x.host = {};
  NormalisedTarget target;
  if (!normalise_target(take(line, ' '), line.size() % 2 == 0, x.arena, target, why))
    target.path = "*";
  x.path = target.path;
  x.query = target.query;
  if (!line.empty()) {
    std::string_view value = line;
    const std::string_view name = take(value, '=');
    x.request.headers.add(header_id(name), name, value);
    x.request.headers.add(HeaderId::kCookie, line);
  }
  RouteHit hit;
  const bool found = table.find(x, hit);
  const std::vector<Considered> considered = table.explain(x);
  OUTRIDER_ASSERT(considered.size() == config.routes.size());
  const auto winner = std::find_if(considered.begin(), considered.end(),
                                   [](const Considered& one) { return one.why_not.empty(); });
  OUTRIDER_ASSERT(found == (winner != considered.end()));
  if (!found) {
    OUTRIDER_ASSERT(!table.nearest_miss(x, x.arena).empty());
    return;
  }
  OUTRIDER_ASSERT(winner->match == hit.match && winner->route == hit.route);
  for (const Shadowed& one : shadowed) OUTRIDER_ASSERT(one.route != hit.route || x.path == "*");
  Captures captures;
  RouteTable::capture(*hit.match, x.path, captures);
  for (const std::string_view part : captures.segments) OUTRIDER_ASSERT(within(part, x.path));
  for (const std::string_view part : captures.groups) OUTRIDER_ASSERT(within(part, x.path));
  OUTRIDER_ASSERT(captures.rest.empty() || x.path.ends_with(captures.rest));
}

}  // namespace
}  // namespace outrider

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace outrider;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  config::Config config;
  config.listeners.emplace_back().name = "main";
  std::vector<std::string_view> requests;
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    if (line.starts_with("? ")) {
      if (requests.size() < kMaxRequests) requests.push_back(line.substr(2));
    } else if (config.routes.size() < kMaxRoutes) {
      add_route(config, line);
    }
  }
  const RouteTable table(config, config.listeners[0]);
  const std::vector<Shadowed> shadowed = shadowed_routes(config);
  for (const std::string_view request : requests) ask(config, table, shadowed, request);
  return 0;
}
