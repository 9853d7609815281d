// Services: their endpoints in all shapes, and what is said of connections to them.
#include <algorithm>
#include <unordered_set>

#include "config/draft.h"

namespace outrider::config {
namespace {

constexpr Protocol kProtocols[] = {Protocol::kAuto, Protocol::kHttp1, Protocol::kHttp2,
                                   Protocol::kTcp};

bool read_labels(const Value& value, std::map<std::string, std::string>& out) {
  if (!value.is_map()) {
    value.wrong_type("a map of labels");
    return false;
  }
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value entry = value.entry(i);
    if (const auto text = entry.text()) out.emplace(entry.name(), *text);
  }
  return true;
}

struct Endpoints {
  std::vector<Endpoint> list;
  std::unordered_set<std::string> addresses;
  std::optional<EndpointScheme> scheme;
};

void read_address(const Value& value, Endpoint& endpoint, Endpoints& all) {
  const auto text = value.text("an address");
  if (!text) return;
  EndpointScheme scheme = EndpointScheme::kNone;
  if (const Problem problem = parse_endpoint(*text, endpoint.address, scheme))
    return value.fail(problem);
  if (!place_socket(value, endpoint.address)) return;
  if (all.scheme && *all.scheme != scheme)
    value.fail({"has another scheme than the endpoints before it: one service, one scheme",
                "conflict",
                {}});
  all.scheme = scheme;
  if (!all.addresses.insert(endpoint.address.to_string()).second)
    return value.warn("duplicate-endpoint",
                      value.shown() + " stands in the list already; counted once");
  all.list.push_back(std::move(endpoint));
}

void read_endpoint(const Value& value, Endpoints& all) {
  Endpoint endpoint;
  endpoint.mark = value.mark();
  if (!value.is_map()) return read_address(value, endpoint, all);
  const Map map(value, Section::kEndpoint);
  map.get_count("weight", endpoint.weight);
  map.get_count("priority", endpoint.priority);
  map.get_text("zone", endpoint.zone);
  if (const auto health = map.get_word("health"))
    endpoint.health = *health == 0 ? Health::kHealthy : Health::kDraining;
  if (const auto labels = map["labels"]) read_labels(*labels, endpoint.labels);
  if (const auto address = map["address"]) read_address(*address, endpoint, all);
}

Endpoints read_endpoints(const Value& value) {
  Endpoints all;
  if (value.is_null()) return all;
  if (value.is_scalar()) {
    const auto text = value.text();
    if (text && is_source(*text)) {
      value.fail({"is not supported yet: endpoints are lists of addresses", kNotYet, {}});
      return all;
    }
  }
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    read_endpoint(item, all);
  }
  if (value.is_list() && value.items() == 0)
    value.warn("no-endpoint", "the service has no endpoint: it answers 503");
  return all;
}

// The prefix of the endpoints says the protocol where `protocol` does not, and may not contradict
// it.
void apply_scheme(const Endpoints& endpoints, const std::optional<Value>& protocol,
                  Service& service) {
  if (!endpoints.scheme || *endpoints.scheme == EndpointScheme::kNone) return;
  const bool h2c = *endpoints.scheme == EndpointScheme::kH2c;
  const bool fits = !protocol || (h2c ? service.protocol == Protocol::kHttp2 ||
                                            service.protocol == Protocol::kAuto
                                      : service.protocol != Protocol::kTcp);
  if (!fits)
    return protocol->error("conflict", protocol->shown() + " contradicts the " +
                                           (h2c ? "h2c://" : "http://") + " of the endpoints");
  if (h2c) service.protocol = Protocol::kHttp2;
}

void read_subsets(const Value& value, Service& service) {
  if (!value.is_map()) return value.wrong_type("a map of names and labels");
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value entry = value.entry(i);
    if (const Problem problem = check_name(entry.name()))
      entry.error_at_key(problem.code, "'" + std::string(entry.name()) + "' " + problem.text);
    std::map<std::string, std::string> labels;
    if (!read_labels(entry, labels)) continue;
    const bool any = std::any_of(
        service.endpoints.begin(), service.endpoints.end(), [&](const Endpoint& endpoint) {
          return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
            const auto found = endpoint.labels.find(label.first);
            return found != endpoint.labels.end() && found->second == label.second;
          });
        });
    if (!any && !service.endpoints.empty())
      entry.warn("empty-subset", "no endpoint carries these labels");
    service.subsets.emplace(entry.name(), std::move(labels));
  }
}

template <class T>
void count_leaf(const Map& map, std::string_view name, Leaf<T>& out) {
  if (map.get_count(name, out.value)) out.mark = map[name]->mark();
}

void time_leaf(const Map& map, std::string_view name, Leaf<Millis>& out) {
  if (map.get(name, out.value)) out.mark = map[name]->mark();
}

void read_balance(const Value& value, Service& service) {
  const auto text = value.text();
  if (!text) return;
  BalanceChoice choice;
  if (Problem problem = parse_balance(*text, choice)) {
    constexpr std::string_view kKnown[] = {"least-request", "round-robin",     "random",
                                           "peak-ewma",     "hash(client.ip)", "maglev(client.ip)"};
    if (text->find('(') == std::string_view::npos) problem.suggestion = nearest(*text, kKnown);
    return value.fail(problem);
  }
  service.balance = choice.balance;
  service.balance_key = std::move(choice.key);
}

// `5 failures`, or false: 0.
void failures_leaf(const Map& map, std::string_view name, Leaf<unsigned>& out) {
  const auto value = map[name];
  if (!value) return;
  unsigned count = 0;
  if (value->is_false() || value->parse(parse_failures, count, "a number of failures"))
    out = {count, value->mark()};
}

void share_leaf(const Map& map, std::string_view name, Leaf<double>& out) {
  double share = 0;
  if (map.get(name, share, parse_percent)) out = {share, map[name]->mark()};
}

// A duration that is at least `least`.
bool read_time(const Map& map, std::string_view name, Millis least, Millis& out) {
  Millis time{};
  if (!map.get(name, time)) return false;
  if (time < least) {
    map[name]->fail({"is below " + std::to_string(least.count()) + "ms", "out-of-range", {}});
    return false;
  }
  out = time;
  return true;
}

void read_eject(const Value& value, Eject& eject) {
  if (value.is_false()) {
    eject.on = false;
    return;
  }
  if (!value.is_map()) return value.wrong_type("a map or false");
  const Map map(value, Section::kEject);
  if (!map) return;
  eject.on = true;
  failures_leaf(map, "after", eject.after);
  failures_leaf(map, "after_5xx", eject.after_5xx);
  failures_leaf(map, "after_local", eject.after_local);
  if (read_time(map, "for", limits::kEjectForLeast, eject.span.value))
    eject.span.mark = map["for"]->mark();
  share_leaf(map, "at_most", eject.at_most);
  if (const auto outliers = map["outliers"]) {
    const Map rules(*outliers, Section::kOutliers);
    if (rules) {
      share_leaf(rules, "success", eject.success);
      count_leaf(rules, "latency", eject.latency);
      count_leaf(rules, "volume", eject.volume);
    }
  }
  if (const auto mode = map.get_word("mode")) eject.observe = *mode == 1;
}

void read_health(const Value& value, HealthCheck& health) {
  if (value.is_false()) {
    health.probe = HealthCheck::Probe::kNone;
    return;
  }
  health.mark = value.mark();
  if (!value.is_map()) {
    value.parse(parse_probe, health, "a probe, a map or false");
    return;
  }
  const Map map(value, Section::kHealth);
  if (!map) return;
  map.get("probe", health, parse_probe);
  read_time(map, "every", limits::kProbeEveryLeast, health.every);
  read_time(map, "timeout", Millis{1}, health.timeout);
  map.get_count("healthy", health.healthy);
  map.get_count("unhealthy", health.unhealthy);
  if (const auto host = map["host"])
    if (const auto text = host->text(); text && host->check(check_host, *text)) health.host = *text;
  const auto status = map["status"];
  if (!status) return;
  if (status->is_map()) return status->wrong_type("a list of statuses");
  health.statuses.clear();
  for (std::uint32_t i = 0; i < status->items(); ++i) {
    const Value item = status->item(i);
    std::pair<int, int> range;
    if (item.parse(parse_statuses, range, "a status")) health.statuses.push_back(range);
  }
  if (status->is_list() && status->items() == 0)
    status->error("bad-value", "names no status: no answer would be good");
}

// What raw TCP has no use for: it has no response head, and only a connection that failed is tried
// again, at once.
void warn_http_keys(const Value& service) {
  for (std::uint32_t i = 0; i < service.entries(); ++i) {
    const Value group = service.entry(i);
    BalanceChoice choice;
    if (group.name() == "balance" && !parse_balance(group.text().value_or(""), choice) &&
        choice.key.kind != VariableKind::kClient && choice.key.kind != VariableKind::kClientId)
      group.warn("no-effect", "has no effect on raw TCP: a connection has no such key");
    if (group.name() != "timeout" && group.name() != "retry" && group.name() != "eject") continue;
    for (std::uint32_t k = 0; k < group.entries(); ++k) {
      const Value entry = group.entry(k);
      for (const std::string_view name :
           {"headers", "when", "backoff", "budget", "methods", "after_5xx", "outliers"})
        if (entry.name() == name) entry.warn("no-effect", "has no effect on raw TCP");
    }
  }
}

void read_service(Draft& draft, const Value& value, Service service) {
  service.name = value.name();
  service.mark = value.key_mark();
  Policy policy;
  if (!value.is_map()) {
    Endpoints endpoints = read_endpoints(value);
    apply_scheme(endpoints, std::nullopt, service);
    service.endpoints = std::move(endpoints.list);
  } else {
    const Map map(value, Section::kService);
    read_service_settings(map, draft.config.zone, service, policy);
    if (const auto list = map["endpoints"]) {
      Endpoints endpoints = read_endpoints(*list);
      apply_scheme(endpoints, map["protocol"], service);
      service.endpoints = std::move(endpoints.list);
    }
    const auto health = map["health"];
    if (health && health->is_map() && !service.health.on())
      health->error_at_key("missing-key", "needs the key 'probe', here or in defaults.service");
    if (const auto subsets = map["subsets"]) read_subsets(*subsets, service);
  }
  if (service.protocol == Protocol::kTcp) warn_http_keys(value);
  if (const Problem problem = check_name(value.name()))
    value.error_at_key(problem.code, "'" + std::string(value.name()) + "' " + problem.text);
  if (!draft.services.add(value, value.name(), draft.config.services.size(), draft.where(value)))
    return;
  draft.config.services.push_back(std::move(service));
  draft.service_levels.push_back(std::move(policy));
}

}  // namespace

void read_service_settings(const Map& map, const std::string& zone, Service& service,
                           Policy& policy) {
  if (const auto word = map.get_word("protocol")) service.protocol = kProtocols[*word];
  if (const auto balance = map["balance"]) read_balance(*balance, service);
  map.get("slow_start", service.slow_start);
  if (bool aware = false; map.get("zone_aware", aware)) {
    service.near_zone = aware ? zone : std::string();
    if (aware && zone.empty())
      map["zone_aware"]->warn("no-effect", "has no effect: no `zone` says where this proxy runs");
  }
  if (const auto value = map["health"]) read_health(*value, service.health);
  if (const auto value = map["eject"]) read_eject(*value, service.eject);
  if (const auto value = map["limits"]) {
    const Map limits(*value, Section::kServiceLimits);
    if (limits) {
      count_leaf(limits, "connections", service.limits.connections);
      count_leaf(limits, "pending", service.limits.pending);
      time_leaf(limits, "pending_time", service.limits.pending_time);
      count_leaf(limits, "requests", service.limits.requests);
      count_leaf(limits, "retries", service.limits.retries);
      if (const auto concurrency = limits["concurrency"])
        if (concurrency->is_false() || limits.get_word("concurrency"))
          service.limits.adaptive = {!concurrency->is_false(), concurrency->mark()};
    }
  }
  if (const auto value = map["timeouts"]) {
    const Map timeouts(*value, Section::kServiceTimeouts);
    if (timeouts) {
      time_leaf(timeouts, "connect", service.connect);
      time_leaf(timeouts, "idle", service.idle);
    }
  }
  policy = read_policy(map);
}

void read_services(Draft& draft) {
  for (const Top& top : draft.tops) top.map.get_text("zone", draft.config.zone);
  Service defaults;
  for (const Top& top : draft.tops) {
    const auto value = top.map["defaults"];
    if (!value || !value->is_map()) continue;
    const Value holder = *value;
    for (std::uint32_t i = 0; i < holder.entries(); ++i) {
      const Value entry = holder.entry(i);
      if (entry.name() != "service") continue;
      const Map map(entry, Section::kDefaultService);
      if (map) read_service_settings(map, draft.config.zone, defaults, draft.service_defaults);
    }
  }
  for (const Top& top : draft.tops) {
    const auto services = top.map["services"];
    if (!services) continue;
    if (!services->is_map()) {
      services->wrong_type("a map of names and services");
      draft.complete = false;
    }
    for (std::uint32_t i = 0; i < services->entries(); ++i) {
      const Value entry = services->entry(i);
      read_service(draft, entry, defaults);
    }
  }
}

}  // namespace outrider::config
