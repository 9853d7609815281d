// Listeners, and the shapes they share with routes: targets, redirects, address ranges.
#include <algorithm>

#include "config/draft.h"
#include "config/extension.h"

namespace outrider::config {
namespace {

constexpr std::int64_t kMaxWeight = 1'000'000;
constexpr int kRedirectStatuses[] = {301, 302, 303, 307, 308};
constexpr EscapedSlashes kEscapedSlashes[] = {EscapedSlashes::kAuto, EscapedSlashes::kKeep,
                                              EscapedSlashes::kReject};

void read_protocols(const Value& value, Listener& listener) {
  if (value.is_map()) return value.wrong_type("a list of http1 and http2");
  listener.http1 = listener.http2 = false;
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    const auto word = item.word("http1|http2");
    if (word && *word == 0) listener.http1 = true;
    if (word && *word == 1) listener.http2 = true;
  }
  if (value.is_list() && value.items() == 0)
    value.error("bad-value", "needs at least one of http1, http2");
}

void read_limits(const Value& value, ListenerLimits& limits) {
  const Map map(value, Section::kListenerLimits);
  if (!map) return;
  const auto size = [&](std::string_view name, Leaf<std::uint64_t>& out) {
    if (map.get_size(name, out.value)) out.mark = map[name]->mark();
  };
  size("headers", limits.headers);
  size("target", limits.target);
  if (map.get_count("fields", limits.fields.value)) limits.fields.mark = map["fields"]->mark();
  size("body", limits.body);
  map.get_count("streams", limits.streams);
  map.get_count("connections", limits.connections);
  map.get_count("per_client", limits.per_client);
  map.get_count("requests", limits.requests);
}

void read_timeouts(const Value& value, ListenerTimeouts& timeouts) {
  const Map map(value, Section::kListenerTimeouts);
  if (!map) return;
  map.get("handshake", timeouts.handshake);
  map.get("header", timeouts.header);
  map.get("body", timeouts.body);
  map.get("stall", timeouts.stall);
  map.get("idle", timeouts.idle);
  if (const auto rate = map["upload_rate"]) {
    if (rate->is_false())
      timeouts.upload_rate.bytes_per_second = 0;
    else
      rate->parse(parse_upload_rate, timeouts.upload_rate, "an upload rate, or false");
  }
}

void read_paths(const Value& value, Listener& listener) {
  const Map map(value, Section::kPaths);
  if (!map) return;
  map.get("merge_slashes", listener.merge_slashes);
  if (const auto word = map.get_word("escaped_slashes"))
    listener.escaped_slashes = kEscapedSlashes[*word];
}

// What HTTP alone has: keys that a raw TCP listener takes in vain.
void warn_http_keys(const Map& map) {
  for (const std::string_view name : {"trust", "forwarded", "paths"})
    if (const auto value = map[name]) value->warn("no-effect", "has no effect on raw TCP");
  for (const std::string_view group : {"limits", "timeouts"}) {
    const auto value = map[group];
    if (!value) continue;
    for (std::uint32_t i = 0; i < value->entries(); ++i) {
      const Value entry = value->entry(i);
      const bool known = value->reading().keys.find(
          group == "limits" ? Section::kListenerLimits : Section::kListenerTimeouts, entry.name());
      if (known && entry.name() != "connections" && entry.name() != "per_client" &&
          entry.name() != "idle")
        entry.warn("no-effect", "has no effect on raw TCP");
    }
  }
}

void read_tcp(Draft& draft, const Value& at, const Map& map, Listener& listener) {
  for (const std::string_view name : {"redirect", "protocols"})
    if (const auto value = map[name])
      value->error_at_key("conflict", "stands beside `protocol: tcp`: that is of HTTP");
  if (const auto to = map["to"]) {
    listener.to = read_targets(draft, *to);
    for (const Target& target : listener.to)
      if (const Service& service = draft.config.services[*draft.services.find(target.service)];
          service.protocol == Protocol::kHttp2)
        to->warn("no-effect",
                 "raw TCP goes through as it comes: `protocol: http2` of the service '" +
                     service.name + "' has no effect here");
  } else
    at.error_at_key("missing-key", "needs the key 'to': raw TCP has no routes");
  const auto timeouts = map["timeouts"];
  const bool idle = timeouts && timeouts->reading().tree.find(timeouts->node(), "idle") != nullptr;
  if (!idle) listener.timeouts.idle = limits::kTcpIdle;
  warn_http_keys(map);
}

bool read_address(const Value& value, Address& address) {
  if (!value.parse(parse_address, address, "an address")) return false;
  return place_socket(value, address);
}

void add_listener(Draft& draft, const Value& at, Listener listener) {
  if (!draft.listeners.add(at, listener.name, draft.config.listeners.size(), draft.where(at)))
    return;
  const auto same =
      std::find_if(draft.config.listeners.begin(), draft.config.listeners.end(),
                   [&](const Listener& other) { return overlap(other.address, listener.address); });
  if (same != draft.config.listeners.end())
    at.error_at_key("duplicate-address",
                    "the listener '" + same->name + "' " +
                        (same->address == listener.address
                             ? "has this address already"
                             : "takes this address too, with " + same->address.to_string()) +
                        ", at " + draft.where(same->mark));
  draft.config.listeners.push_back(std::move(listener));
}

// A listener has no match, so there is nothing to take but the rest of the path.
void check_redirect(const Value& at, std::string_view path) {
  Template wanted;
  if (path.empty() || parse_template(path, wanted)) return;
  if (!wanted.captures.empty() || wanted.group > 0)
    at.error("unknown-capture", "the path takes a capture, and a listener's redirect has no match");
}

void read_listener(Draft& draft, const Value& value) {
  if (const Problem problem = check_name(value.name()))
    value.error_at_key(problem.code, "'" + std::string(value.name()) + "' " + problem.text);
  const Map map(value, Section::kListener);
  if (!map) {
    draft.complete = false;  // it stands there, though nobody knows where
    return;
  }
  Listener listener;
  listener.name = value.name();
  listener.mark = value.key_mark();
  if (const auto address = map["address"]) {
    if (!read_address(*address, listener.address)) listener.address.port = 0;
    listener.address_mark = address->mark();
  }
  if (const auto protocols = map["protocols"]) read_protocols(*protocols, listener);
  listener.tcp = map.get_word("protocol").has_value();
  if (const auto trust = map["trust"]) listener.trust = read_cidrs(*trust);
  if (const auto word = map.get_word("forwarded")) listener.forwarded = *word == 0;
  if (const auto paths = map["paths"]) read_paths(*paths, listener);
  if (const auto limits = map["limits"]) read_limits(*limits, listener.limits);
  if (const auto timeouts = map["timeouts"]) read_timeouts(*timeouts, listener.timeouts);
  if (listener.tcp) {
    listener.http1 = listener.http2 = false;
    read_tcp(draft, value, map, listener);
  } else {
    if (const auto to = map["to"])
      to->error_at_key("conflict", "needs `protocol: tcp` beside it: HTTP goes by `routes`");
    if (const auto redirect = map["redirect"]) {
      listener.redirect = read_redirect(*redirect);
      if (listener.redirect) check_redirect(*redirect, listener.redirect->path);
    }
  }
  add_listener(draft, value, std::move(listener));
}

}  // namespace

std::vector<Cidr> read_cidrs(const Value& value) {
  std::vector<Cidr> out;
  if (value.is_map()) {
    value.wrong_type("a list of address ranges");
    return out;
  }
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    Cidr range;
    if (item.parse(parse_cidr, range, "an address range")) out.push_back(range);
  }
  return out;
}

bool want_target(Draft& draft, const Value& at, const Target& target, bool at_key) {
  const std::size_t* service = draft.services.want(at, target.service, at_key, draft.complete);
  if (service == nullptr) return false;
  const auto& subsets = draft.config.services[*service].subsets;
  if (target.subset.empty() || subsets.find(target.subset) != subsets.end()) return true;
  std::vector<std::string_view> known;
  if (at.reading().diagnostics.may_suggest(subsets.size()))
    for (const auto& subset : subsets) known.push_back(subset.first);
  const std::string_view near = nearest(target.subset, known);
  const std::string what = "the service '" + target.service + "' has no such subset";
  const std::string suggestion =
      near.empty() ? std::string() : target.service + "@" + std::string(near);
  at_key ? at.error_at_key("unknown-subset", what, suggestion)
         : at.error("unknown-subset", what, suggestion);
  return true;
}

std::vector<Target> read_targets(Draft& draft, const Value& value) {
  std::vector<Target> out;
  const auto add = [&](const Value& at, std::string_view text, bool key, std::uint32_t weight) {
    Target target;
    if (Problem problem = parse_target(text, target)) {
      if (key) return at.error_at_key(problem.code, "'" + std::string(text) + "' " + problem.text);
      return at.fail(problem);
    }
    const bool known = want_target(draft, at, target, key);
    target.weight = weight;
    target.mark = key ? at.key_mark() : at.mark();
    if (known) out.push_back(std::move(target));
  };
  if (!value.is_map()) {
    if (const auto text = value.text("a service, or a map of services and weights"))
      add(value, *text, false, 1);
    return out;
  }
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value entry = value.entry(i);
    std::int64_t weight = 1;
    entry.read_number(weight, 0, kMaxWeight);
    add(entry, entry.name(), true, static_cast<std::uint32_t>(weight));
  }
  if (value.entries() == 0) value.error("bad-value", "needs at least one service");
  return out;
}

std::optional<Redirect> read_redirect(const Value& value) {
  Redirect redirect;
  redirect.mark = value.mark();
  if (!value.is_map()) {
    const auto word = value.word("http|https");
    if (!word) return std::nullopt;
    redirect.scheme = *word == 0 ? "http" : "https";
    return redirect;
  }
  const Map map(value, Section::kRedirect);
  if (const auto word = map.get_word("status")) redirect.status = kRedirectStatuses[*word];
  if (const auto word = map.get_word("scheme")) redirect.scheme = *word == 0 ? "http" : "https";
  if (const auto host = map["host"])
    if (const auto text = host->text(); text && host->check(check_host, *text))
      redirect.host = *text;
  std::int64_t port = 0;
  if (map.get_number("port", port)) redirect.port = static_cast<std::uint16_t>(port);
  if (const auto path = map["path"]) {
    Template found;
    if (path->parse(parse_template, found)) redirect.path = *path->text();
  }
  if (!map["scheme"] && !map["host"] && !map["port"] && !map["path"])
    value.error_at_key("missing-key",
                       "changes nothing: needs one of 'scheme', 'host', 'port', 'path'");
  return redirect;
}

void read_listeners(Draft& draft) {
  for (const Top& top : draft.tops) {
    if (const auto listen = top.map["listen"]) {
      Listener listener;
      listener.name = "main";
      listener.mark = listen->key_mark();
      listener.address_mark = listen->mark();
      if (read_address(*listen, listener.address))
        add_listener(draft, *listen, std::move(listener));
      else
        draft.complete = false;
    }
    const auto listeners = top.map["listeners"];
    if (!listeners) continue;
    if (!listeners->is_map()) {
      listeners->wrong_type("a map of names and listeners");
      draft.complete = false;
    }
    for (std::uint32_t i = 0; i < listeners->entries(); ++i) {
      const Value entry = listeners->entry(i);
      read_listener(draft, entry);
    }
  }
}

}  // namespace outrider::config
