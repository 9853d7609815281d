// `match` in all shapes: a short form, the long form, or a list of either.
#include <algorithm>

#include "config/draft.h"
#include "config/extension.h"

namespace outrider::config {
namespace {

constexpr std::size_t kMaxMatches = 10'000;  // of one route, lists of hosts and paths multiplied

void read_values(const Value& value, Problem (*check)(std::string_view), bool lower_names,
                 std::vector<NamedMatch>& out) {
  if (!value.is_map()) return value.wrong_type("a map of names and values");
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value entry = value.entry(i);
    std::string name = lower_names ? lower(entry.name()) : std::string(entry.name());
    if (const Problem problem = check != nullptr ? check(entry.name()) : Problem{})
      entry.error_at_key(problem.code, "'" + std::string(entry.name()) + "' " + problem.text);
    if (std::any_of(out.begin(), out.end(),
                    [&](const NamedMatch& other) { return other.first == name; }))
      entry.error_at_key("duplicate-key", "the same header field twice: names are blind to case");
    ValueMatch match;
    if (entry.parse(parse_value_match, match)) out.emplace_back(std::move(name), std::move(match));
  }
}

// One value or a list of them, each through `grammar`.
template <class T>
std::vector<T> read_list(const Value& value, Problem (*grammar)(std::string_view, T&),
                         std::string_view expected) {
  std::vector<T> out;
  if (value.is_map()) {
    value.wrong_type(expected);
    return out;
  }
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    T one;
    if (item.parse(grammar, one)) out.push_back(std::move(one));
  }
  if (value.is_list() && value.items() == 0)
    value.error("bad-value", "an empty list fits no request");
  return out;
}

Problem method_of(std::string_view text, std::string& out) {
  out = text;
  return parse_method(text);
}

void read_long(const Value& value, std::vector<Match>& out) {
  const Map map(value, Section::kMatch);
  if (map) read_match(value, map, out);
}

void read_one(const Value& value, std::vector<Match>& out) {
  if (value.is_map()) return read_long(value, out);
  Match match;
  match.mark = value.mark();
  if (!value.parse(parse_match, match, "a match")) return;
  match.short_form = short_form(match);
  out.push_back(std::move(match));
}

}  // namespace

void read_match(const Value& at, const Map& map, std::vector<Match>& out) {
  Match match;
  match.mark = at.mark();
  std::vector<HostMatch> hosts(1);
  std::vector<PathMatch> paths(1);
  if (const auto host = map["host"])
    hosts = read_list(*host, parse_host, "a host, or a list of hosts");
  if (const auto path = map["path"])
    paths = read_list(*path, parse_path, "a path, or a list of paths");
  if (const auto method = map["method"])
    match.methods = read_list(*method, method_of, "a method, or a list of methods");
  if (const auto headers = map["headers"])
    read_values(*headers, check_field_name, true, match.headers);
  if (const auto query = map["query"]) read_values(*query, nullptr, false, match.query);
  if (const auto cookies = map["cookies"]) read_values(*cookies, check_token, false, match.cookies);
  if (const auto client_ip = map["client_ip"]) match.client_ip = read_cidrs(*client_ip);
  if (hosts.size() * paths.size() > kMaxMatches)
    return at.error("out-of-range", "hosts times paths are over " + std::to_string(kMaxMatches));
  for (const HostMatch& host : hosts) {
    for (const PathMatch& path : paths) {
      Match& one = out.emplace_back(match);
      one.host = host;
      one.path = path;
      one.short_form = short_form(one);
    }
  }
}

std::vector<Match> read_matches(const Value& value) {
  std::vector<Match> out;
  if (value.is_list() && value.items() == 0)
    value.error("bad-value", "an empty list fits no request");
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    if (item.is_list())
      item.wrong_type("a match");
    else
      read_one(item, out);
  }
  return out;
}

}  // namespace outrider::config
