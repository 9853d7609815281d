// One listener's routes, compiled: exact hosts hashed, wildcard hosts by suffix, paths in a trie,
// regexes in one RE2 set, so that a look-up does not grow with the number of routes. Decides which
// match of which route takes a request, by the one order of config.md §3 (Precedence), and can say
// for every route why it did not.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/model.h"
#include "filters/exchange.h"

namespace re2 {
class RE2;
}

namespace outrider {

struct RouteHit {
  std::uint32_t route = 0;  // index in Config::routes
  const config::Match* match = nullptr;
};

// What the path of a request left in a match's wildcards.
struct Captures {
  static constexpr std::size_t kMax = 16;
  std::array<std::string_view, kMax> segments{};  // of `*` and `{id}`, in order
  std::array<std::string_view, 10> groups{};      // of a regex; [0] the whole match
  std::string_view rest;                          // what `/**` took, with its slash; empty for none
};

struct Considered {
  std::uint32_t route = 0;
  const config::Match* match = nullptr;
  std::string why_not;  // `method: GET is not POST`; empty for the winner
};

class RouteTable {
 public:
  RouteTable(const config::Config& config, const config::Listener& listener);
  ~RouteTable();
  RouteTable(const RouteTable&) = delete;
  RouteTable& operator=(const RouteTable&) = delete;

  // Uses x.request (method, headers), x.path, x.query, x.host, x.host_port, x.client_ip.
  bool find(const Exchange& x, RouteHit& hit) const;
  // Every candidate in the order of precedence, up to and including the winner's, then the rest
  // (why_not `shadowed by …`).
  std::vector<Considered> explain(const Exchange& x) const;
  // For 404 bodies: `closest: route cart, method: GET is not POST`. Into the arena.
  std::string_view nearest_miss(const Exchange& x, Arena& arena) const;
  // Compiles the regex of a match that has one: what runs per request keeps a Capturer.
  static void capture(const config::Match& match, std::string_view path, Captures& captures);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The captures of one route's matches, their regexes compiled once; for filters that use captures.
class Capturer {
 public:
  explicit Capturer(const config::Route& route);
  ~Capturer();
  Capturer(const Capturer&) = delete;
  Capturer& operator=(const Capturer&) = delete;
  // `match` is one of the route's.
  void capture(const config::Match& match, std::string_view path, Captures& captures) const;

 private:
  const config::Route& route_;
  std::vector<std::unique_ptr<const re2::RE2>> regexes_;  // by match; null for none
};

struct Shadowed {
  std::uint32_t route = 0;     // never reached …
  std::uint32_t by_route = 0;  // … because of this one
};
// Routes all of whose matches are always taken by others first, on every listener they stand on.
std::vector<Shadowed> shadowed_routes(const config::Config& config);

}  // namespace outrider
