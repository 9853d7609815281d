// An exchange with everything around it that a filter looks at, built by hand: no socket, no
// clock.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/load.h"
#include "config/model.h"
#include "discovery/service.h"
#include "filters/chain.h"
#include "filters/exchange.h"
#include "filters/forwarded.h"
#include "filters/http/path.h"
#include "filters/limit_book.h"
#include "filters/registry.h"

namespace outrider::test {

inline config::Cidr cidr(std::string_view ip, std::uint8_t bits_of_v4) {
  config::Cidr cidr;
  EXPECT_TRUE(parse_ip(ip, cidr.ip));
  cidr.bits = static_cast<std::uint8_t>(96 + bits_of_v4);
  return cidr;
}

// `/cart/{id}/**`, `/a`, `~re` or nothing.
inline config::Match match_of(const std::string& path) {
  using config::PathMatch;
  config::Match match;
  match.path.text = path;
  if (path.empty()) return match;
  if (path[0] == '~') {
    match.path.kind = PathMatch::Kind::kRegex;
    match.path.regex = path.substr(1);
    return match;
  }
  match.path.kind = PathMatch::Kind::kExact;
  for (std::size_t at = 1; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string text = path.substr(at, end - at);
    at = end + 1;
    if (text == "**") {
      match.path.kind = PathMatch::Kind::kPrefix;
    } else if (text == "*" || text.front() == '{') {
      if (match.path.kind == PathMatch::Kind::kExact) match.path.kind = PathMatch::Kind::kTemplate;
      match.path.segments.push_back(
          {PathMatch::Segment::Kind::kAny, text == "*" ? "" : text.substr(1, text.size() - 2)});
    } else {
      match.path.segments.push_back({PathMatch::Segment::Kind::kText, text});
    }
  }
  return match;
}

// What a filter asked of its driver.
struct Driver : StreamControl {
  std::uint64_t now_ns() const override { return now; }
  void resume() override { resumed = true; }
  void resume_after(Millis wait) override { delay = wait; }
  void flush_after(Millis wait) override { flush = wait; }
  void fail(const Error& error, std::string_view) override { failed = error.reason; }
  bool run_aside(std::shared_ptr<Errand> work) override {
    if (!errands_allowed) return false;
    errand = std::move(work);
    errand->run();
    return true;
  }
  std::string_view may_retry(Millis) override {
    return retries_allowed ? "" : "limits.retries of the service are in flight";
  }
  void retry_after(Millis wait) override { delay = wait; }
  std::uint64_t now = 0;
  bool retries_allowed = true;
  bool errands_allowed = true;
  std::shared_ptr<Errand> errand;  // has run
  bool resumed = false;
  std::optional<Millis> delay;
  std::optional<Millis> flush;
  std::optional<Reason> failed;
};

// One listener `main`, one route `cart` to the service `shop`; change them before the first use of
// chain().
struct World {
  World() {
    listener.name = "main";
    service.name = "shop";
    config::Endpoint endpoint;
    endpoint.address.ip = {10, 0, 0, 7};
    endpoint.address.port = 8080;
    service.endpoints.push_back(endpoint);
    route.name = "cart";
    route.matches.push_back(match_of(""));
    route.to.push_back({"shop", "", 1, {}});
    client.listener = &listener;
    peer("192.0.2.1");
  }

  void peer(std::string_view ip, bool trusted = false) {
    EXPECT_TRUE(parse_ip(ip, client.ip));
    client.ip_text = ip;
    client.trusted = trusted;
  }
  // What the route's policy says, as it would be written there: `cors: { origins: [x] }`.
  void say(const std::string& yaml) {
    const config::Loaded loaded = config::load_text(
        "test.yaml",
        "outrider: v1\nlisten: 8080\nservices: {shop: 8081}\nroutes:\n- to: shop\n  " + yaml + "\n",
        {.extensions = filter_keys()});
    for (const config::Diagnostic& found : loaded.diagnostics)
      ADD_FAILURE() << config::render(found);
    ASSERT_NE(loaded.config, nullptr);
    said = loaded.config;
    policy = said->routes[0].policies[0];
  }
  // What the loader has against it, each as `TEXT [CODE]`; none: it is accepted.
  static std::vector<std::string> refused(const std::string& yaml) {
    const config::Loaded loaded = config::load_text(
        "test.yaml",
        "outrider: v1\nlisten: 8080\nservices: {shop: 8081}\nroutes:\n- to: shop\n  " + yaml + "\n",
        {.extensions = filter_keys()});
    std::vector<std::string> all;
    for (const config::Diagnostic& found : loaded.diagnostics)
      all.push_back(found.text + " [" + found.code + "]");
    return all;
  }
  void match(const std::string& path) { route.matches.assign(1, match_of(path)); }
  FilterContext context(bool forwards = true) {
    return {said != nullptr ? *said : model, route,    policy,
            forwards ? &service : nullptr,   forwards, limits};
  }
  // The exchange, routed; made anew each time.
  Exchange& exchange(std::string_view target = "/", std::string_view authority = "shop.example") {
    x.emplace(blocks, client);
    x->request.target = x->arena.copy(target);
    x->request.authority = authority;
    std::string_view why;
    NormalisedTarget normal;
    if (target == "*") {
      x->path = target;
    } else {
      EXPECT_TRUE(
          normalise_target(x->request.target, listener.merge_slashes, x->arena, normal, why))
          << why;
      x->path = normal.path;
      x->query = normal.query;
    }
    x->path_out = x->path;
    if (!authority.empty()) {
      EXPECT_TRUE(parse_authority(authority, x->arena, x->host, x->host_port, why)) << why;
    }
    compiled.route = &route;
    compiled.targets.resize(1);
    compiled.targets[0].target = route.to.empty() ? nullptr : &route.to[0];
    compiled.targets[0].policy = &policy;
    x->route = &compiled;
    x->match = &route.matches[0];
    x->target = &compiled.targets[0];
    return *x;
  }
  void header(std::string_view name, std::string_view value) {
    x->request.headers.add(header_id(name), name, value);
  }
  // All values of a request header, joined with `|`; `-` when there is none.
  std::string sent(std::string_view name) { return joined(x->request.headers, name); }
  std::string answered(std::string_view name) { return joined(x->response.headers, name); }
  static std::string joined(const Headers& headers, std::string_view name) {
    std::string all;
    for (const Header& header : headers)
      if (equal_ignoring_case(header.name, name)) (all += all.empty() ? "" : "|") += header.value;
    return headers.find(header_id(name), name) == nullptr ? "-" : all;
  }

  BlockPool blocks{256};  // small, so that growing is always part of a test
  config::Config model;
  config::Listener listener;
  config::Service service;
  config::Route route;
  config::Policy policy;
  std::shared_ptr<const config::Config> said;
  ClientInfo client;
  LimitBook limits;
  CompiledRoute compiled;
  Driver control;
  std::optional<Exchange> x;
};

}  // namespace outrider::test
