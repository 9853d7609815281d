// See route_table.h. Three indexes serve all hosts of the listener: host names, whole paths by
// (bucket, path), and trie edges by (node, segment). A bucket is one host pattern (with its port,
// if written) at one priority; it has a trie of segments, a list of regexes and a list of matches
// without path. What stands at one place is a slot: a run of candidates, best first. Invariant: a
// search asks the slots that fit in the order of precedence, so the first candidate that holds
// wins.
#include "filters/route_table.h"

#include <re2/re2.h>
#include <re2/set.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <tuple>

#include "filters/route_match.h"
#include "filters/text_index.h"

namespace outrider {
namespace {

using config::HostMatch;
using config::Match;
using config::PathMatch;

constexpr std::uint32_t kNone = TextIndex::kNone;

// What a search needs of a candidate; the same index in `candidates` has the rest.
struct Entry {
  const Match* match;
  std::uint32_t route;
  bool conditional;
};

struct Candidate {
  std::uint32_t route;
  std::uint32_t slot;
  std::int32_t priority;
  const Match* match;
  const re2::RE2* regex;  // of the path
  std::uint32_t in_set;   // the regex's number in its bucket's set
  Conditions conditions;
};

struct Slot {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

struct Node {
  std::uint32_t parent = kNone;
  std::uint32_t any_child = kNone;
  std::uint32_t prefix = kNone;          // slot of `…/**` here
  std::uint32_t exact = kNone;           // slot of templates that end here
  std::uint32_t slash = kNone;           // … and end with a slash
  std::uint32_t nearest_prefix = kNone;  // this node or its closest ancestor with a prefix slot
  bool has_children = false;             // by text
};

struct Bucket {
  std::uint32_t root = kNone;          // trie node; kNone: neither templates nor prefixes
  std::uint32_t regex = kNone;         // slot
  std::uint32_t any = kNone;           // slot of matches without path
  bool exact = false;                  // has whole paths
  bool wild = false;                   // its trie has nodes for any segment
  std::unique_ptr<re2::RE2::Set> set;  // of its regexes, when they are many
};

// Buckets of one host pattern: with a port, and without.
struct Host {
  std::vector<std::pair<std::uint16_t, std::uint32_t>> by_port;
  std::uint32_t any_port = kNone;
};

// All of one priority.
struct Level {
  std::int32_t priority = 0;
  bool exact_hosts = false;
  std::size_t longest_wildcard = 0;
  std::size_t shortest_wildcard = 0;  // 0: none
  std::uint32_t any_host = kNone;     // index in hosts
};

// Longest run of leading bytes that two texts share.
std::size_t common(std::string_view a, std::string_view b) {
  const std::size_t size = std::min(a.size(), b.size());
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(size), b.begin()).first -
      a.begin());
}

}  // namespace

struct RouteTable::Impl {
  Impl(const config::Config& the_config, const config::Listener& listener);

  // ---- building
  void insert(Candidate& candidate);
  std::uint32_t bucket_of(const HostMatch& host);
  std::uint32_t node_of(Bucket& bucket, const PathMatch& path);
  std::uint32_t slot_in(std::uint32_t& place);
  void sort_into_slots();
  void link_prefixes();
  void make_set(Bucket& bucket);

  // ---- searching
  bool search(const Level& level, const Exchange& x, RouteHit& hit) const;
  bool search_host(std::uint32_t host, const Exchange& x, RouteHit& hit) const;
  bool search_bucket(std::uint32_t index, const Exchange& x, RouteHit& hit) const;
  bool search_text_trie(std::uint32_t node, const Exchange& x, RouteHit& hit) const;
  bool search_wild_trie(std::uint32_t root, const Exchange& x, RouteHit& hit) const;
  bool search_templates(std::uint32_t node, std::string_view rest, std::uint32_t depth,
                        std::uint32_t& deepest, const Exchange& x, RouteHit& hit) const;
  bool search_prefixes(std::uint32_t node, std::string_view rest, std::uint32_t below,
                       const Exchange& x, RouteHit& hit) const;
  bool search_regexes(const Bucket& bucket, const Exchange& x, RouteHit& hit) const;
  bool try_slot(std::uint32_t slot, const Exchange& x, RouteHit& hit) const;

  // ---- explaining
  std::vector<const Candidate*> in_order() const;
  std::string failure(const Candidate& candidate, const Exchange& x, bool echo) const;

  const config::Config& config;
  Regexes regexes;
  std::vector<Candidate> candidates;  // by slot, and in it by precedence
  std::vector<Entry> entries;         // of the candidates
  std::vector<Slot> slots;
  std::vector<Node> nodes;
  std::vector<Bucket> buckets;
  std::vector<Host> hosts;
  std::vector<Level> levels;      // highest priority first
  std::deque<std::string> texts;  // whole paths that `paths` views
  TextIndex exact_hosts;          // (level, host) → hosts
  TextIndex wildcard_hosts;       // (level, suffix) → hosts
  TextIndex paths;                // (bucket, path) → slots
  TextIndex edges;                // (node, segment) → nodes
};

namespace {

// The first segment of `rest`, which begins with a slash; `rest` keeps what follows.
std::string_view take_segment(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('/', 1), rest.size());
  const std::string_view segment = rest.substr(1, end - 1);
  rest.remove_prefix(end);
  return segment;
}

}  // namespace

// ---- building

RouteTable::Impl::Impl(const config::Config& the_config, const config::Listener& listener)
    : config(the_config) {
  std::vector<std::uint32_t> routes;
  std::size_t matches = 0;
  for (std::uint32_t i = 0; i < config.routes.size(); ++i) {
    const config::Route& route = config.routes[i];
    if (std::find(route.listeners.begin(), route.listeners.end(), listener.name) ==
        route.listeners.end())
      continue;
    routes.push_back(i);
    matches += route.matches.size();
  }
  std::stable_sort(routes.begin(), routes.end(), [&](std::uint32_t a, std::uint32_t b) {
    return config.routes[a].priority > config.routes[b].priority;
  });
  candidates.reserve(matches);
  for (const std::uint32_t index : routes) {
    const config::Route& route = config.routes[index];
    if (levels.empty() || levels.back().priority != route.priority)
      levels.emplace_back().priority = route.priority;
    for (const Match& match : route.matches) {
      const bool regex = match.path.kind == PathMatch::Kind::kRegex;
      candidates.push_back({index, kNone, route.priority, &match,
                            regex ? regexes.get(match.path.regex) : nullptr, 0,
                            Conditions(match, regexes)});
      insert(candidates.back());
    }
  }
  sort_into_slots();
  link_prefixes();
  for (Bucket& bucket : buckets) make_set(bucket);
}

std::uint32_t RouteTable::Impl::slot_in(std::uint32_t& place) {
  if (place == kNone) {
    place = static_cast<std::uint32_t>(slots.size());
    slots.emplace_back();
  }
  return place;
}

void RouteTable::Impl::insert(Candidate& candidate) {
  const PathMatch& path = candidate.match->path;
  const std::uint32_t index = bucket_of(candidate.match->host);
  Bucket& bucket = buckets[index];
  switch (path.kind) {
    case PathMatch::Kind::kAny: candidate.slot = slot_in(bucket.any); return;
    case PathMatch::Kind::kRegex: candidate.slot = slot_in(bucket.regex); return;
    case PathMatch::Kind::kExact: {
      bucket.exact = true;
      const auto fresh = static_cast<std::uint32_t>(slots.size());
      candidate.slot = paths.find_or_add(index, texts.emplace_back(exact_text(path)), fresh);
      if (candidate.slot == fresh) slots.emplace_back();
      return;
    }
    case PathMatch::Kind::kPrefix:
      candidate.slot = slot_in(nodes[node_of(bucket, path)].prefix);
      return;
    case PathMatch::Kind::kTemplate: {
      Node& node = nodes[node_of(bucket, path)];
      candidate.slot = slot_in(path.trailing_slash ? node.slash : node.exact);
      return;
    }
  }
}

std::uint32_t RouteTable::Impl::bucket_of(const HostMatch& host) {
  Level& level = levels.back();
  const auto scope = static_cast<std::uint32_t>(levels.size() - 1);
  const auto fresh = static_cast<std::uint32_t>(hosts.size());
  std::uint32_t index = kNone;
  switch (host.kind) {
    case HostMatch::Kind::kAny:
      if (level.any_host == kNone) level.any_host = fresh;
      index = level.any_host;
      break;
    case HostMatch::Kind::kExact:
      level.exact_hosts = true;
      index = exact_hosts.find_or_add(scope, host.text, fresh);
      break;
    case HostMatch::Kind::kWildcard: {
      const std::size_t size = host.text.size();
      level.longest_wildcard = std::max(level.longest_wildcard, size);
      if (level.shortest_wildcard == 0 || size < level.shortest_wildcard)
        level.shortest_wildcard = size;
      index = wildcard_hosts.find_or_add(scope, host.text, fresh);
      break;
    }
  }
  if (index == fresh) hosts.emplace_back();
  std::uint32_t* place = &hosts[index].any_port;
  if (host.port) {
    auto& ports = hosts[index].by_port;
    auto at = std::find_if(ports.begin(), ports.end(),
                           [&](const auto& one) { return one.first == *host.port; });
    if (at == ports.end()) at = ports.insert(at, {*host.port, kNone});
    place = &at->second;
  }
  if (*place == kNone) {
    *place = static_cast<std::uint32_t>(buckets.size());
    buckets.emplace_back();
  }
  return *place;
}

std::uint32_t RouteTable::Impl::node_of(Bucket& bucket, const PathMatch& path) {
  if (bucket.root == kNone) {
    bucket.root = static_cast<std::uint32_t>(nodes.size());
    nodes.emplace_back();
  }
  std::uint32_t at = bucket.root;
  for (const PathMatch::Segment& segment : path.segments) {
    const auto fresh = static_cast<std::uint32_t>(nodes.size());
    std::uint32_t child = fresh;
    if (segment.kind == PathMatch::Segment::Kind::kText) {
      nodes[at].has_children = true;
      child = edges.find_or_add(at, segment.text, fresh);
    } else {
      bucket.wild = true;
      if (nodes[at].any_child == kNone) nodes[at].any_child = fresh;
      child = nodes[at].any_child;
    }
    if (child == fresh) nodes.emplace_back().parent = at;
    at = child;
  }
  return at;
}

void RouteTable::Impl::sort_into_slots() {
  // Stable: file order is the last word, and that is how they came.
  std::stable_sort(
      candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
        return a.slot != b.slot ? a.slot < b.slot : compare_conditions(*a.match, *b.match) < 0;
      });
  entries.reserve(candidates.size());
  for (std::uint32_t i = 0; i < candidates.size(); ++i) {
    Slot& slot = slots[candidates[i].slot];
    if (slot.end == 0) slot.begin = i;
    slot.end = i + 1;
    const Candidate& candidate = candidates[i];
    entries.push_back({candidate.match, candidate.route, candidate.conditions.any()});
  }
}

void RouteTable::Impl::link_prefixes() {
  for (std::uint32_t i = 0; i < nodes.size(); ++i) {  // parents stand before their children
    Node& node = nodes[i];
    if (node.prefix != kNone)
      node.nearest_prefix = i;
    else if (node.parent != kNone)
      node.nearest_prefix = nodes[node.parent].nearest_prefix;
  }
}

void RouteTable::Impl::make_set(Bucket& bucket) {
  // A set costs an allocation a search, so a few are searched one by one.
  constexpr std::uint32_t kFew = 4;
  constexpr std::int64_t kSetBytes =
      64 * 1024 * 1024;  // a bound; what is used grows with the requests seen
  if (bucket.regex == kNone) return;
  const Slot slot = slots[bucket.regex];
  if (slot.end - slot.begin <= kFew) return;
  re2::RE2::Options options(re2::RE2::Quiet);
  options.set_max_mem(kSetBytes);
  auto set = std::make_unique<re2::RE2::Set>(options, re2::RE2::UNANCHORED);
  for (std::uint32_t i = slot.begin; i < slot.end; ++i) {
    const int number = set->Add(candidates[i].match->path.regex, nullptr);
    if (number < 0) return;
    candidates[i].in_set = static_cast<std::uint32_t>(number);
  }
  if (set->Compile()) bucket.set = std::move(set);
}

// ---- searching

inline bool RouteTable::Impl::try_slot(std::uint32_t slot, const Exchange& x, RouteHit& hit) const {
  if (slot == kNone) return false;
  const Slot run = slots[slot];
  for (std::uint32_t i = run.begin; i < run.end; ++i) {
    const Entry& entry = entries[i];
    if (entry.conditional && !candidates[i].conditions.hold(x)) continue;
    hit = {entry.route, entry.match};
    return true;
  }
  return false;
}

bool RouteTable::Impl::search(const Level& level, const Exchange& x, RouteHit& hit) const {
  const auto scope = static_cast<std::uint32_t>(&level - levels.data());
  if (level.exact_hosts && search_host(exact_hosts.find(scope, x.host), x, hit)) return true;
  if (level.shortest_wildcard != 0) {
    for (std::size_t dot = x.host.find('.', 1); dot < x.host.size();
         dot = x.host.find('.', dot + 1)) {
      const std::string_view suffix = x.host.substr(dot + 1);
      if (suffix.size() < level.shortest_wildcard) break;
      if (suffix.size() > level.longest_wildcard) continue;
      if (search_host(wildcard_hosts.find(scope, suffix), x, hit)) return true;
    }
  }
  return search_host(level.any_host, x, hit);
}

bool RouteTable::Impl::search_host(std::uint32_t index, const Exchange& x, RouteHit& hit) const {
  if (index == kNone) return false;
  const Host& host = hosts[index];
  if (!host.by_port.empty()) {
    const std::uint16_t port = effective_port(x);
    for (const auto& [written, bucket] : host.by_port)
      if (written == port && search_bucket(bucket, x, hit)) return true;
  }
  return host.any_port != kNone && search_bucket(host.any_port, x, hit);
}

bool RouteTable::Impl::search_bucket(std::uint32_t index, const Exchange& x, RouteHit& hit) const {
  const Bucket& bucket = buckets[index];
  if (x.path.starts_with('/')) {
    if (bucket.exact && try_slot(paths.find(index, x.path), x, hit)) return true;
    if (bucket.root != kNone && (bucket.wild ? search_wild_trie(bucket.root, x, hit)
                                             : search_text_trie(bucket.root, x, hit)))
      return true;
    if (bucket.regex != kNone && search_regexes(bucket, x, hit)) return true;
  }
  return try_slot(bucket.any, x, hit);
}

// Prefixes of plain text alone: one way down, then up again from prefix to prefix.
bool RouteTable::Impl::search_text_trie(std::uint32_t node, const Exchange& x,
                                        RouteHit& hit) const {
  for (std::string_view rest = x.path; !rest.empty() && nodes[node].has_children;) {
    const std::uint32_t child = edges.find(node, take_segment(rest));
    if (child == kNone) break;
    node = child;
  }
  for (node = nodes[node].nearest_prefix; node != kNone;) {
    if (try_slot(nodes[node].prefix, x, hit)) return true;
    const std::uint32_t parent = nodes[node].parent;
    node = parent == kNone ? kNone : nodes[parent].nearest_prefix;
  }
  return false;
}

bool RouteTable::Impl::search_wild_trie(std::uint32_t root, const Exchange& x,
                                        RouteHit& hit) const {
  std::uint32_t deepest = 0;
  if (search_templates(root, x.path, 0, deepest, x, hit)) return true;
  for (std::uint32_t depth = deepest + 1; depth-- > 0;)
    if (search_prefixes(root, x.path, depth, x, hit)) return true;
  return false;
}

// Depth first, text before any: the order of precedence among templates. Notes the deepest prefix
// on the ways.
bool RouteTable::Impl::search_templates(std::uint32_t index, std::string_view rest,
                                        std::uint32_t depth, std::uint32_t& deepest,
                                        const Exchange& x, RouteHit& hit) const {
  const Node& node = nodes[index];
  if (node.prefix != kNone) deepest = std::max(deepest, depth);
  if (rest.empty()) return try_slot(node.exact, x, hit);
  if (rest.size() == 1 && try_slot(node.slash, x, hit)) return true;
  if (!node.has_children && node.any_child == kNone) return false;
  const std::string_view segment = take_segment(rest);
  if (node.has_children) {
    const std::uint32_t child = edges.find(index, segment);
    if (child != kNone && search_templates(child, rest, depth + 1, deepest, x, hit)) return true;
  }
  return node.any_child != kNone && !segment.empty() &&
         search_templates(node.any_child, rest, depth + 1, deepest, x, hit);
}

// The prefixes of nodes exactly `below` levels further down, text before any.
bool RouteTable::Impl::search_prefixes(std::uint32_t index, std::string_view rest,
                                       std::uint32_t below, const Exchange& x,
                                       RouteHit& hit) const {
  const Node& node = nodes[index];
  if (below == 0) return try_slot(node.prefix, x, hit);
  if (rest.empty()) return false;
  const std::string_view segment = take_segment(rest);
  if (node.has_children) {
    const std::uint32_t child = edges.find(index, segment);
    if (child != kNone && search_prefixes(child, rest, below - 1, x, hit)) return true;
  }
  return node.any_child != kNone && !segment.empty() &&
         search_prefixes(node.any_child, rest, below - 1, x, hit);
}

bool RouteTable::Impl::search_regexes(const Bucket& bucket, const Exchange& x,
                                      RouteHit& hit) const {
  const Slot slot = slots[bucket.regex];
  std::vector<int> found;
  bool complete = false;  // `found` says which ones fit; else they are asked singly
  if (bucket.set) {
    const std::string_view seen = x.path.substr(0, limits::kRegexInputBytes);
    re2::RE2::Set::ErrorInfo error{re2::RE2::Set::kNoError};
    if (bucket.set->Match({seen.data(), seen.size()}, &found, &error))
      std::sort(found.begin(), found.end());
    complete = error.kind == re2::RE2::Set::kNoError;
    if (complete && found.empty()) return false;
  }
  for (std::uint32_t i = slot.begin; i < slot.end; ++i) {
    const Candidate& candidate = candidates[i];
    const bool fits = complete ? std::binary_search(found.begin(), found.end(),
                                                    static_cast<int>(candidate.in_set))
                               : Regexes::fits(*candidate.regex, x.path);
    if (!fits || !candidate.conditions.hold(x)) continue;
    hit = {candidate.route, candidate.match};
    return true;
  }
  return false;
}

// ---- explaining

std::vector<const Candidate*> RouteTable::Impl::in_order() const {
  std::vector<const Candidate*> order;
  order.reserve(candidates.size());
  for (const Candidate& candidate : candidates) order.push_back(&candidate);
  std::sort(order.begin(), order.end(), [](const Candidate* a, const Candidate* b) {
    if (a->priority != b->priority) return a->priority > b->priority;
    if (const auto by = compare_hosts(a->match->host, b->match->host); by != 0) return by < 0;
    if (const auto by = compare_paths(a->match->path, b->match->path); by != 0) return by < 0;
    if (const auto by = compare_conditions(*a->match, *b->match); by != 0) return by < 0;
    return std::tie(a->route, a->match) < std::tie(b->route, b->match);
  });
  return order;
}

std::string RouteTable::Impl::failure(const Candidate& candidate, const Exchange& x,
                                      bool echo) const {
  const Match& match = *candidate.match;
  if (!host_fits(match.host, x)) {
    std::string words = "host: ";
    if (echo) words.append(x.host.empty() ? "none" : x.host).append(" ");
    words += "is not ";
    if (match.host.kind == HostMatch::Kind::kWildcard) words += "*.";
    words += match.host.kind == HostMatch::Kind::kAny ? "on" : match.host.text;
    if (match.host.kind == HostMatch::Kind::kAny) words += " port";
    if (match.host.port)
      words +=
          (match.host.kind == HostMatch::Kind::kAny ? " " : ":") + std::to_string(*match.host.port);
    return words;
  }
  if (!path_fits(match.path, x.path, candidate.regex)) {
    std::string words = "path: ";
    if (echo) words.append(x.path).append(" ");
    words += match.path.kind == PathMatch::Kind::kRegex ? "does not match ~" + match.path.regex
                                                        : "is not " + match.path.text;
    return words;
  }
  return candidate.conditions.failure(x, echo);
}

// ---- the interface

RouteTable::RouteTable(const config::Config& config, const config::Listener& listener)
    : impl_(std::make_unique<Impl>(config, listener)) {}
RouteTable::~RouteTable() = default;

bool RouteTable::find(const Exchange& x, RouteHit& hit) const {
  for (const Level& level : impl_->levels)
    if (impl_->search(level, x, hit)) return true;
  return false;
}

std::vector<Considered> RouteTable::explain(const Exchange& x) const {
  std::vector<Considered> considered;
  const Candidate* winner = nullptr;
  for (const Candidate* candidate : impl_->in_order()) {
    std::string why_not = impl_->failure(*candidate, x, true);
    if (why_not.empty() && winner != nullptr)
      why_not = "shadowed by " + impl_->config.routes[winner->route].name;
    else if (why_not.empty())
      winner = candidate;
    considered.push_back({candidate->route, candidate->match, std::move(why_not)});
  }
  return considered;
}

std::string_view RouteTable::nearest_miss(const Exchange& x, Arena& arena) const {
  // How far a candidate got: host, then path (and how much of it), then the rest.
  using Score = std::tuple<bool, bool, std::size_t>;
  const Candidate* nearest = nullptr;
  Score best;
  for (const Candidate& candidate : impl_->candidates) {
    const Match& match = *candidate.match;
    const bool path = path_fits(match.path, x.path, candidate.regex);
    const Score score(host_fits(match.host, x), path, path ? 0 : common(match.path.text, x.path));
    if (nearest != nullptr && score <= best) continue;
    nearest = &candidate;
    best = score;
  }
  if (nearest == nullptr) return "no route on this listener";
  return arena.concat("closest: route ", impl_->config.routes[nearest->route].name, ", ",
                      impl_->failure(*nearest, x, false));
}

// ---- captures

namespace {

void capture_groups(const re2::RE2& regex, std::string_view path, Captures& captures) {
  const std::string_view seen = path.substr(0, limits::kRegexInputBytes);
  std::array<re2::StringPiece, 10> groups;
  const int count = std::min(regex.NumberOfCapturingGroups() + 1, static_cast<int>(groups.size()));
  if (!regex.ok() || !regex.Match({seen.data(), seen.size()}, 0, seen.size(), re2::RE2::UNANCHORED,
                                  groups.data(), count))
    return;
  for (std::size_t i = 0; i < groups.size(); ++i)
    captures.groups[i] = {groups[i].data(), groups[i].size()};
}

void capture_segments(const PathMatch& match, std::string_view path, Captures& captures) {
  if (!path.starts_with('/')) return;
  std::size_t count = 0;
  for (const PathMatch::Segment& segment : match.segments) {
    if (path.empty()) return;
    const std::string_view text = take_segment(path);
    if (segment.kind == PathMatch::Segment::Kind::kAny && count < Captures::kMax)
      captures.segments[count++] = text;
  }
  if (match.kind == PathMatch::Kind::kPrefix || match.kind == PathMatch::Kind::kAny)
    captures.rest = path;
}

}  // namespace

void RouteTable::capture(const Match& match, std::string_view path, Captures& captures) {
  captures = {};
  if (match.path.kind == PathMatch::Kind::kRegex)
    capture_groups(re2::RE2(match.path.regex, re2::RE2::Quiet), path, captures);
  else
    capture_segments(match.path, path, captures);
}

Capturer::Capturer(const config::Route& route) : route_(route) {
  for (const Match& match : route.matches)
    regexes_.push_back(match.path.kind == PathMatch::Kind::kRegex
                           ? std::make_unique<const re2::RE2>(match.path.regex, re2::RE2::Quiet)
                           : nullptr);
}
Capturer::~Capturer() = default;

void Capturer::capture(const Match& match, std::string_view path, Captures& captures) const {
  const auto index = static_cast<std::size_t>(&match - route_.matches.data());
  OUTRIDER_ASSERT(index < regexes_.size());
  captures = {};
  if (regexes_[index])
    capture_groups(*regexes_[index], path, captures);
  else
    capture_segments(match.path, path, captures);
}

}  // namespace outrider
