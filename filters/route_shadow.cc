// Which routes no request can reach. Sound, not complete: it compares what is written, one match
// with one match, and looks at a bounded number of them, so that it stays quick with many thousands
// of routes. Called once, by the checks of the loader's user.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "filters/route_match.h"
#include "filters/route_table.h"

namespace outrider {
namespace {

using config::HostMatch;
using config::Match;
using config::PathMatch;

constexpr std::size_t kCompared = 256;  // matches that one match is compared with, per group

struct Candidate {
  std::uint32_t route;
  std::int32_t priority;
  const Match* match;
};

bool asked_before(const Candidate& a, const Candidate& b) {
  if (a.priority != b.priority) return a.priority > b.priority;
  if (const auto by = compare_hosts(a.match->host, b.match->host); by != 0) return by < 0;
  if (const auto by = compare_paths(a.match->path, b.match->path); by != 0) return by < 0;
  if (const auto by = compare_conditions(*a.match, *b.match); by != 0) return by < 0;
  return a.route != b.route ? a.route < b.route : a.match < b.match;
}

void append_number(std::string& key, std::int64_t number) { key += std::to_string(number) + '\n'; }

std::string host_key(const Candidate& candidate) {
  const HostMatch& host = candidate.match->host;
  std::string key;
  append_number(key, candidate.priority);
  append_number(key, static_cast<int>(host.kind));
  append_number(key, host.port ? *host.port : -1);
  return key + host.text + '\n';
}

const PathMatch& everything() {
  static const PathMatch path = [] {
    PathMatch whole;
    whole.kind = PathMatch::Kind::kPrefix;
    return whole;
  }();
  return path;
}

// Matches of equal keys fit the same hosts and paths.
std::string group_key(const Candidate& candidate, const PathMatch& path) {
  std::string key = host_key(candidate);
  append_number(key, static_cast<int>(path.kind));
  append_number(key, path.trailing_slash ? 1 : 0);
  for (const PathMatch::Segment& segment : path.segments)
    key += segment.kind == PathMatch::Segment::Kind::kText ? "/" + segment.text : "\n";
  return path.kind == PathMatch::Kind::kRegex ? key + path.regex : key;
}

// One listener's matches, in the order they are asked.
class Asked {
 public:
  Asked(const config::Config& config, const config::Listener& listener) {
    for (std::uint32_t i = 0; i < config.routes.size(); ++i) {
      const config::Route& route = config.routes[i];
      if (std::find(route.listeners.begin(), route.listeners.end(), listener.name) !=
          route.listeners.end())
        for (const Match& match : route.matches) candidates_.push_back({i, route.priority, &match});
    }
    std::sort(candidates_.begin(), candidates_.end(), asked_before);
    for (const Candidate& candidate : candidates_)
      groups_[group_key(candidate, candidate.match->path)].push_back(&candidate);
  }

  const std::vector<Candidate>& candidates() const { return candidates_; }

  // Another route's candidate that takes all of this one's requests first, or null.
  const Candidate* taken_by(const Candidate& candidate) const {
    const PathMatch& path = candidate.match->path;
    if (const Candidate* other = in_group(group_key(candidate, path), candidate)) return other;
    if (path.kind == PathMatch::Kind::kRegex || path.kind == PathMatch::Kind::kAny)
      if (const Candidate* other = in_group(group_key(candidate, everything()), candidate))
        return other;
    return among_higher(candidate);
  }

 private:
  static bool takes(const Candidate& one, const Candidate& other) {
    return one.route != other.route && asked_before(one, other) && covers(*one.match, *other.match);
  }
  const Candidate* in_group(const std::string& key, const Candidate& candidate) const {
    const auto group = groups_.find(key);
    if (group == groups_.end()) return nullptr;
    const auto& members = group->second;
    auto at = std::lower_bound(
        members.begin(), members.end(), &candidate,
        [](const Candidate* a, const Candidate* b) { return asked_before(*a, *b); });
    for (std::size_t left = kCompared; at != members.begin() && left > 0; --left)
      if (takes(**--at, candidate)) return *at;
    return nullptr;
  }
  // The least specific of higher priority take most, so they are asked first here.
  const Candidate* among_higher(const Candidate& candidate) const {
    auto at = std::partition_point(
        candidates_.begin(), candidates_.end(),
        [&](const Candidate& one) { return one.priority > candidate.priority; });
    for (std::size_t left = kCompared; at != candidates_.begin() && left > 0; --left)
      if (takes(*--at, candidate)) return &*at;
    return nullptr;
  }

  std::vector<Candidate> candidates_;
  std::unordered_map<std::string, std::vector<const Candidate*>> groups_;
};

struct Fate {
  bool asked = false;
  bool reached = false;
  std::uint32_t by_route = 0;
};

}  // namespace

std::vector<Shadowed> shadowed_routes(const config::Config& config) {
  std::vector<Fate> fates(config.routes.size());
  for (const config::Listener& listener : config.listeners) {
    if (listener.tcp || listener.redirect) continue;
    const Asked asked(config, listener);
    for (const Candidate& candidate : asked.candidates()) {
      Fate& fate = fates[candidate.route];
      if (fate.reached) continue;
      const Candidate* const by = asked.taken_by(candidate);
      fate.reached = by == nullptr;
      if (by != nullptr && !fate.asked) fate.by_route = by->route;
      fate.asked = true;
    }
  }
  std::vector<Shadowed> shadowed;
  for (std::uint32_t i = 0; i < fates.size(); ++i)
    if (fates[i].asked && !fates[i].reached) shadowed.push_back({i, fates[i].by_route});
  return shadowed;
}

}  // namespace outrider
