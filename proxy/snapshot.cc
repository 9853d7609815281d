#include "proxy/snapshot.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "config/error.h"
#include "discovery/metrics.h"
#include "filters/forwarded.h"
#include "filters/http/path.h"
#include "proxy/crash.h"

namespace outrider {

namespace {

std::int32_t subset_index(const config::Service& service, const std::string& name) {
  if (name.empty()) return -1;
  const auto found = service.subsets.find(name);
  OUTRIDER_ASSERT(found != service.subsets.end());
  return static_cast<std::int32_t>(std::distance(service.subsets.begin(), found));
}

using ServiceIndex = std::unordered_map<std::string_view, std::uint32_t>;

void compile_route(const config::Config& config, const ServiceIndex& services,
                   const config::Route& route, LimitBook& limits, CompiledRoute& out) {
  out.route = &route;
  out.route_label = intern_label(route.name);
  const std::size_t count = std::max<std::size_t>(route.to.size(), 1);
  OUTRIDER_ASSERT(route.policies.size() == count);
  out.targets.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    CompiledTarget& target = out.targets[i];
    target.policy = &route.policies[i];
    const config::Traits traits = config::traits_of(*target.policy);
    out.traits.guards = out.traits.guards || traits.guards;
    out.traits.preflights = out.traits.preflights || traits.preflights;
    const config::Service* service = nullptr;
    if (!route.to.empty()) {
      target.target = &route.to[i];
      const auto found = services.find(target.target->service);
      OUTRIDER_ASSERT(found != services.end());
      target.service = found->second;
      service = &config.services[target.service];
      target.subset = subset_index(*service, target.target->subset);
      target.weight = target.target->weight;
      target.service_label = intern_label(service->name);
      out.total_weight += target.weight;
      if (service->balance == config::Balance::kHash ||
          service->balance == config::Balance::kMaglev)
        target.hash_key.emplace(service->balance_key);
    }
    if (const auto& mirror = target.policy->mirror; mirror && mirror->value.share > 0) {
      const config::Target& to = mirror->value.target;
      target.mirror.service = services.at(to.service);
      target.mirror.subset = subset_index(config.services[target.mirror.service], to.subset);
      target.mirror.share = mirror->value.share;
    }
    target.chain =
        Chain(FilterContext{config, route, *target.policy, service, service != nullptr, limits});
  }
}

// What a TCP listener does, or one that redirects everything, as the route it amounts to.
config::Route own_route(const config::Listener& listener) {
  config::Route route;
  route.name = listener.name;
  route.mark = listener.mark;
  route.to = listener.to;
  route.redirect = listener.redirect;
  route.matches.emplace_back();
  route.policies = listener.policies;
  return route;
}

}  // namespace

std::shared_ptr<const Snapshot> Snapshot::compile(std::shared_ptr<const config::Config> config,
                                                  std::uint64_t generation,
                                                  std::shared_ptr<LimitBook> limits) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->limits = std::move(limits);
  snapshot->config = std::move(config);
  snapshot->generation = generation;
  const config::Config& model = *snapshot->config;
  ServiceIndex services;
  for (const config::Service& service : model.services) {
    services.emplace(service.name, static_cast<std::uint32_t>(services.size()));
    snapshot->service_labels.push_back(intern_label(service.name));
  }
  snapshot->routes.resize(model.routes.size());
  for (std::size_t i = 0; i < model.routes.size(); ++i) {
    snapshot->routes[i].index = static_cast<std::uint32_t>(i);
    compile_route(model, services, model.routes[i], *snapshot->limits, snapshot->routes[i]);
    for (const config::Policy& policy : model.routes[i].policies)
      if (const auto secret = config::traits_of(policy).secret_parameter; !secret.empty())
        snapshot->secret_parameters.insert(secret);
  }
  for (std::size_t i = 0; i < model.listeners.size(); ++i) {
    const config::Listener& listener = model.listeners[i];
    ListenerSnapshot out;
    out.config = &listener;
    out.index = static_cast<std::uint32_t>(i);
    out.label = intern_label(listener.name);
    out.port_text = std::to_string(listener.address.port);
    if (listener.tcp || listener.redirect) {
      snapshot->own_routes.push_back(own_route(listener));
      out.always = std::make_unique<CompiledRoute>();
      compile_route(model, services, snapshot->own_routes.back(), *snapshot->limits, *out.always);
    } else {
      out.routes = std::make_unique<RouteTable>(model, listener);
    }
    snapshot->listeners.push_back(std::move(out));
  }
  return snapshot;
}

// `application/grpc`, `application/grpc+proto`; not grpc-web, which is for HTTP/1.
static bool is_grpc(std::string_view type) {
  constexpr std::string_view kType = "application/grpc";
  if (!equal_ignoring_case(type.substr(0, kType.size()), kType)) return false;
  return type.size() == kType.size() || type[kType.size()] == '+' || type[kType.size()] == ';';
}

AsMeant::AsMeant(Exchange& x)
    : request_(x.request), method_(request_.method), method_text_(request_.method_text) {
  request_.method_text = request_.headers.get(HeaderId::kAccessControlRequestMethod);
  request_.method = method_of(request_.method_text);
}

AsMeant::~AsMeant() {
  request_.method = method_;
  request_.method_text = method_text_;
}

static bool find_route(Exchange& x, const Snapshot& snapshot, const RouteTable& routes,
                       RouteHit& hit) {
  if (is_preflight(x.request)) {
    const AsMeant meant(x);
    if (routes.find(x, hit) && snapshot.routes[hit.route].traits.preflights) return true;
  }
  return routes.find(x, hit);
}

void route_request(Exchange& x, const Snapshot& snapshot, const ListenerSnapshot& listener) {
  if (x.request.version == Version::kTcp) {
    x.client_ip = x.client.ip;
    x.client_ip_text = x.client.ip_text;
    x.route = listener.always.get();
    return;
  }
  std::string_view why;
  const config::Listener& settings = *listener.config;
  x.is_grpc = x.request.upgrade.empty() && is_grpc(x.request.headers.get(HeaderId::kContentType));
  trust(x);  // first: whatever is refused is logged, and explained, with what it says of the client
  note_request(x.request_id);
  if (!x.request.authority.empty() &&
      !parse_authority(x.request.authority, x.arena, x.host, x.host_port, why)) {
    x.reply(Reason::kBadRequest, why);
    return;
  }
  if (x.request.method == Method::kConnect || x.request.method == Method::kTrace) {
    x.reply(Reason::kNotSupported, "CONNECT and TRACE are not forwarded");
    return;
  }
  if (x.request.target == "*") {
    x.path = "*";
  } else {
    NormalisedTarget target;
    if (!normalise_target(x.request.target, settings.merge_slashes, x.arena, target, why)) {
      x.reply(Reason::kBadRequest, why);
      return;
    }
    x.path = target.path;
    x.query = target.query;
    x.escaped_slash = target.escaped_slash;
  }
  x.path_out = x.path;
  if (x.escaped_slash && settings.escaped_slashes == config::EscapedSlashes::kReject) {
    x.reply(Reason::kBadRequest, "%2f or %5c in the path (paths.escaped_slashes: reject)");
    return;
  }
  if (listener.always != nullptr) {
    x.route = listener.always.get();
    return;
  }
  RouteHit hit;
  if (!find_route(x, snapshot, *listener.routes, hit)) {
    x.reply(Reason::kRouteNotFound,
            x.talkative ? listener.routes->nearest_miss(x, x.arena) : std::string_view());
    return;
  }
  x.route = &snapshot.routes[hit.route];
  x.match = hit.match;
  // What the rules compare and what a service makes of the path could differ.
  if (x.escaped_slash && x.route->traits.guards &&
      settings.escaped_slashes == config::EscapedSlashes::kAuto)
    x.reply(Reason::kBadRequest,
            "%2f or %5c in the path of a route with access rules (paths.escaped_slashes: auto)");
}

}  // namespace outrider
