// Routes: what they match, what they do, and the policy that results for each of their targets.
#include <algorithm>
#include <unordered_set>

#include "config/draft.h"
#include "config/extension.h"

namespace outrider::config {
namespace {

// What is the same for every route.
struct Shared {
  std::vector<std::string> http_listeners;
  std::vector<Policy> of_service;  // by index: service > defaults > built-in
  Policy of_none;                  // for redirect and respond
};

Shared prepare(Draft& draft) {
  Shared shared;
  for (const Listener& listener : draft.config.listeners)
    if (!listener.tcp && !listener.redirect) shared.http_listeners.push_back(listener.name);
  shared.of_none = draft.route_defaults;
  inherit(shared.of_none, built_in_policy());
  for (Policy level : draft.service_levels) {
    inherit(level, draft.route_defaults);
    inherit(level, draft.service_defaults);
    inherit(level, built_in_policy());
    shared.of_service.push_back(std::move(level));
  }
  return shared;
}

Respond warn_of_body(const Value& at, Respond respond) {
  if (!respond.body.empty() && (respond.status == 204 || respond.status == 304))
    at.warn("no-effect", "a " + std::to_string(respond.status) + " has no body");
  return respond;
}

std::optional<Respond> read_respond(const Value& value) {
  Respond respond;
  respond.mark = value.mark();
  if (!value.is_map()) {
    std::int64_t status = 0;
    if (!value.read_number(status, 200, 599)) return std::nullopt;
    respond.status = static_cast<int>(status);
    return respond;
  }
  const Map map(value, Section::kRespond);
  map.get_count("status", respond.status);
  if (const auto headers = map["headers"]) {
    Fields fields;
    read_header_values(*headers, fields);
    for (auto& [name, leaf] : fields) respond.headers.emplace_back(name, std::move(leaf.value));
  }
  if (const auto body = map["body"];
      body && map.get_text("body", respond.body) && respond.body.size() > limits::kRespondBytes)
    body->error("out-of-range", "the body is over 1 MiB");
  if (const auto file = map["file"]) {
    if (map["body"])
      file->error_at_key("conflict", "stands beside `body`: one of them is the body");
    if (const auto name = file->text("a file")) {
      const std::string problem = read_file(relative_to(value.reading().source, *name),
                                            limits::kRespondBytes, respond.body);
      if (problem.empty()) return warn_of_body(*file, std::move(respond));
      file->error("file", file->shown() + " " + problem);
    }
  }
  if (const auto body = map["body"]) return warn_of_body(*body, std::move(respond));
  return respond;
}

class RouteReader {
 public:
  RouteReader(Draft& draft, const Shared& shared, Names& names, const Value& value)
      : draft_(draft),
        shared_(shared),
        names_(names),
        value_(value),
        map_(value, Section::kRoute) {}

  // False when it is no route at all.
  bool read(Route& route) {
    if (!map_) return false;
    route.mark = value_.mark();
    if (const auto match = map_["match"])
      route.matches = read_matches(*match);
    else
      route.matches.push_back(any());
    if (route.matches.empty()) route.matches.push_back(any());  // reported
    if (const auto name = map_["name"]) read_name(*name, route);
    map_.get_count("priority", route.priority);
    read_listeners_of(route);
    read_action(route);
    read_levels(route);
    return true;
  }

 private:
  static Match any() {
    Match match;
    match.short_form = short_form(match);
    return match;
  }

  void read_name(const Value& value, Route& route) const {
    const auto text = value.text();
    if (!text || !value.check(check_route_name, *text)) return;
    route.name = *text;
    names_.add(value, route.name, 0, draft_.where(value));
  }

  void read_listeners_of(Route& route) const {
    const auto value = map_["listeners"];
    if (!value) {
      route.listeners = shared_.http_listeners;
      return;
    }
    if (value->is_map()) return value->wrong_type("a list of listeners");
    if (value->items() == 0)
      value->error("bad-value", "an empty list: the route would stand nowhere");
    for (std::uint32_t i = 0; i < value->items(); ++i) {
      const Value item = value->item(i);
      const auto name = item.text();
      const std::size_t* index =
          name ? draft_.listeners.want(item, *name, false, draft_.complete) : nullptr;
      if (index == nullptr) continue;
      const Listener& listener = draft_.config.listeners[*index];
      if (listener.tcp || listener.redirect)
        item.fail({listener.tcp ? "is a raw TCP listener: it takes no routes"
                                : "answers everything with its redirect: it takes no routes",
                   "conflict",
                   {}});
      else if (std::find(route.listeners.begin(), route.listeners.end(), listener.name) ==
               route.listeners.end())
        route.listeners.push_back(listener.name);
    }
  }

  void read_action(Route& route) const {
    int actions = 0;
    std::string_view first;
    for (const std::string_view name : {"to", "redirect", "respond"}) {
      const auto value = map_[name];
      if (!value) continue;
      if (++actions == 1)
        first = name;
      else
        value->error_at_key("conflict", "stands beside `" + std::string(first) +
                                            "`: a route does exactly one of to, redirect, respond");
    }
    if (actions == 0 && !reserved_action())
      value_.error_at_key("missing-key", "needs one of 'to', 'redirect', 'respond'");
    if (const auto to = map_["to"]) {
      route.to = read_targets(draft_, *to);
      check_targets(*to, route);
    }
    if (const auto redirect = map_["redirect"]) route.redirect = read_redirect(*redirect);
    if (const auto respond = map_["respond"]) route.respond = read_respond(*respond);
    if (actions == 1 && first != "to") warn_upstream_keys(first);
  }

  bool reserved_action() const {
    return value_.reading().tree.find(value_.node(), "publish") != nullptr;
  }

  void check_targets(const Value& to, const Route& route) const {
    for (const Target& target : route.to) {
      const Service& service = draft_.config.services[*draft_.services.find(target.service)];
      if (service.protocol == Protocol::kTcp)
        to.error("conflict", "the service '" + service.name +
                                 "' speaks raw TCP: it is for listeners with `protocol: tcp`");
    }
    const bool weighted = std::any_of(route.to.begin(), route.to.end(),
                                      [](const Target& t) { return t.weight != 0; });
    if (!route.to.empty() && !weighted)
      to.warn("no-weight", "all weights are 0: every request is answered 500");
    if (const auto value = map_["when_empty"]; value && route.to.size() == 1)
      value->warn("no-effect", "has no effect with a single target");
  }

  void warn_upstream_keys(std::string_view action) const {
    const auto warn = [&](std::string_view name) {
      if (const auto value = map_[name])
        value->warn("no-effect",
                    "has no effect beside `" + std::string(action) + "`: nothing goes upstream");
    };
    for (const std::string_view name :
         {"timeout", "retry", "hedge", "mirror", "rewrite", "upgrade", "when_empty"})
      warn(name);
    for (const Extension* extension : map_.extensions())
      if (extension->upstream) warn(extension->key.name);
    const auto headers = map_["headers"];
    if (!headers || !headers->is_map()) return;
    for (std::uint32_t i = 0; i < headers->entries(); ++i) {
      const Value entry = headers->entry(i);
      if (entry.name() == "request")
        entry.warn("no-effect",
                   "has no effect beside `" + std::string(action) + "`: nothing goes upstream");
    }
  }

  void read_levels(Route& route) const {
    Policy own = read_policy(map_);
    check_mirror(draft_, map_, own);
    if (const auto use = map_["use"]) {
      if (use->is_map()) use->wrong_type("a list of policies");
      for (std::uint32_t i = 0; !use->is_map() && i < use->items(); ++i) {
        const Value item = use->item(i);
        const auto name = item.text();
        const std::size_t* index =
            name ? draft_.policies.want(item, *name, false, draft_.complete) : nullptr;
        if (index != nullptr) inherit(own, draft_.policy_levels[*index]);
      }
    }
    if (route.to.empty()) {
      route.policies.push_back(std::move(own));
      inherit(route.policies.back(), shared_.of_none);
      return;
    }
    route.policies.reserve(route.to.size());
    for (const Target& target : route.to) {
      Policy& policy = route.policies.emplace_back(own);
      inherit(policy, shared_.of_service[*draft_.services.find(target.service)]);
    }
  }

  Draft& draft_;
  const Shared& shared_;
  Names& names_;
  const Value& value_;
  const Map map_;
};

// Names by match where none was written; a second such is `…#2`.
void name_routes(std::vector<Route>& routes) {
  std::unordered_set<std::string> taken;
  for (const Route& route : routes)
    if (!route.name.empty()) taken.insert(route.name);
  std::unordered_map<std::string, unsigned> count;
  for (Route& route : routes) {
    if (!route.name.empty()) continue;
    const std::string& base = route.matches.front().short_form;
    unsigned& number = count[base];
    std::string name;
    do {
      ++number;
      name = number == 1 ? base : base + '#' + std::to_string(number);
    } while (!taken.insert(name).second);
    route.name = std::move(name);
  }
}

// Listeners that take no routes. Of raw TCP what the target's service says holds, but for the idle
// time the listener's own where it has one.
void read_listener_policies(Draft& draft) {
  for (Listener& listener : draft.config.listeners) {
    if (listener.redirect) listener.policies.push_back(built_in_policy());
    if (!listener.tcp) continue;
    for (const Target& target : listener.to) {
      Policy& policy = listener.policies.emplace_back();
      if (const std::size_t* const index = draft.services.find(target.service))
        policy = draft.service_levels[*index];
      if (listener.timeouts.idle != limits::kTcpIdle || !policy.timeout_idle)
        policy.timeout_idle = {listener.timeouts.idle, listener.mark};
      inherit(policy, built_in_policy());
      policy.timeout_headers.reset();  // there are none
    }
  }
}

}  // namespace

void read_routes(Draft& draft) {
  const Shared shared = prepare(draft);
  Names names("route");
  for (const Top& top : draft.tops) {
    const auto routes = top.map["routes"];
    if (!routes) continue;
    if (!routes->is_list()) {
      routes->wrong_type("a list of routes");
      continue;
    }
    draft.config.routes.reserve(draft.config.routes.size() + routes->items());
    for (std::uint32_t i = 0; i < routes->items(); ++i) {
      const Value item = routes->item(i);
      if (item.is_null()) continue;
      Route& route = draft.config.routes.emplace_back();
      if (RouteReader(draft, shared, names, item).read(route))
        check_route(draft, item, route);
      else
        draft.config.routes.pop_back();
    }
  }
  name_routes(draft.config.routes);
  read_listener_policies(draft);
}

}  // namespace outrider::config
