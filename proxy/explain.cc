// The request is written as HTTP/1 and read by the codec of the data path, then routed, filtered
// and answered by the code that serves real ones; only the network is missing. Invariant: nothing
// here decides anything; it asks, and prints.
#include "proxy/explain.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>

#include "filters/forwarded.h"
#include "filters/http/path.h"
#include "filters/local_reply.h"
#include "filters/route_answer.h"
#include "proxy/codec.h"
#include "proxy/explain_policy.h"
#include "proxy/snapshot.h"

namespace outrider {

namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

constexpr int kNoRoute = 3;
constexpr int kUsage = 64;

// ---- the request as asked

struct Url {
  std::string scheme = "http";
  std::string authority;  // empty: the URL is a path alone
  std::string target;     // origin-form, or `*`
};

std::optional<Url> parse_url(std::string_view text, std::string& problem) {
  Url url;
  text = text.substr(0, text.find('#'));  // never sent
  const std::size_t scheme = text.find("://");
  const bool absolute = scheme < text.find('/');
  if (absolute) {
    url.scheme = text.substr(0, scheme);
    text.remove_prefix(scheme + 3);
    if (!equal_ignoring_case(url.scheme, "http") && !equal_ignoring_case(url.scheme, "https")) {
      problem = "the URL's scheme is neither http nor https";
      return std::nullopt;
    }
  }
  if (!absolute && (text == "*" || text.starts_with('/'))) {
    url.target = text;
    return url;
  }
  const std::size_t end = std::min(text.find_first_of("/?"), text.size());
  url.authority = text.substr(0, end);
  url.target = text.substr(end);
  if (url.target.empty() || url.target.front() == '?') url.target.insert(0, "/");
  if (url.authority.empty() || url.authority.find('@') != std::string::npos) {
    problem = "the URL has no host, or a user in front of it";
    return std::nullopt;
  }
  return url;
}

std::optional<std::uint16_t> port_of(const Url& url) {
  BlockPool blocks;
  Arena arena(blocks);
  std::string_view host, why;
  std::uint16_t port = 0;
  if (url.authority.empty() || !parse_authority(url.authority, arena, host, port, why))
    return std::nullopt;
  return port != 0 ? port
                   : default_port(equal_ignoring_case(url.scheme, "https") ? "https" : "http");
}

// The named one, else the one on the URL's port, else the first for HTTP, else the first.
const ListenerSnapshot* choose_listener(const Snapshot& snapshot, const std::string& name,
                                        const Url& url) {
  const auto first = [&](auto&& fits) -> const ListenerSnapshot* {
    const auto found = std::find_if(snapshot.listeners.begin(), snapshot.listeners.end(), fits);
    return found == snapshot.listeners.end() ? nullptr : &*found;
  };
  if (!name.empty())
    return first([&](const ListenerSnapshot& it) { return it.config->name == name; });
  const std::optional<std::uint16_t> port = port_of(url);
  if (const auto* found = first([&](const ListenerSnapshot& it) {
        return port && it.config->address.kind != config::Address::Kind::kUnix &&
               it.config->address.port == *port;
      }))
    return found;
  if (const auto* found = first([](const ListenerSnapshot& it) { return !it.config->tcp; }))
    return found;
  return &snapshot.listeners.front();
}

bool fill_client(ClientInfo& client, TlsPeer& peer, const ListenerSnapshot& listener,
                 const ExplainRequest& request) {
  const std::string_view ip =
      request.client_ip.empty() ? std::string_view("127.0.0.1") : request.client_ip;
  client.listener = listener.config;
  client.listener_label = listener.label;
  client.ip_text = ip;
  peer.identity = request.from;
  if (!request.from.empty()) client.tls = &peer;
  if (!parse_ip(ip, client.ip)) return false;
  client.local = config::is_loopback(client.ip);
  client.trusted =
      std::any_of(listener.config->trust.begin(), listener.config->trust.end(),
                  [&](const config::Cidr& range) { return range.contains(client.ip); });
  return true;
}

std::string wire_form(const ExplainRequest& request, const Url& url) {
  const bool connect = request.method == "CONNECT";
  std::string text =
      request.method + " " + (connect ? url.authority : url.target) + " HTTP/1.1\r\n";
  const auto is_host = [](const auto& field) { return equal_ignoring_case(field.first, "host"); };
  if (std::none_of(request.headers.begin(), request.headers.end(), is_host))
    text += "Host: " + (url.authority.empty() ? "localhost" : url.authority) + "\r\n";
  for (const auto& [name, value] : request.headers) text += name + ": " + value + "\r\n";
  return text + "\r\n";
}

// A connection with nobody at its other end.
class NoWire final : public Wire {
 public:
  using Wire::Wire;
  void wake() override {}
  void write_through(std::string_view) override {}
  void hold_reading(bool) override {}
  void shutdown() override {}
  void close(Close) override {}
  std::uint64_t now_ms() const override { return 0; }
};

class NoControl final : public StreamControl {
  std::uint64_t now_ns() const override { return 0; }
  void resume() override {}
  void resume_after(Millis) override {}
  void fail(const Error&, std::string_view) override {}
  std::string_view may_retry(Millis) override { return {}; }
  void retry_after(Millis) override {}
  void flush_after(Millis) override {}
};

// Takes the head that the codec reads into the exchange, or its refusal.
class Receiver final : public ServerEvents, public RequestSink {
 public:
  explicit Receiver(Exchange& exchange) : x_(exchange) {}

 private:
  RequestSink* on_stream(CodecStream&) override { return this; }
  void on_abuse(Reason reason, std::string_view detail) override { x_.reply(reason, detail); }
  RequestHead& head() override { return x_.request; }
  void on_head(bool) override {}
  void on_bad(const BadRequest& bad) override { x_.reply(bad.reason, bad.detail, bad.status); }
  void on_body(std::string_view, bool) override {}
  void on_trailers(Headers&) override {}
  void on_reset(const Error&, std::string_view) override {}
  void on_writable() override {}
  void on_sent() override {}

  Exchange& x_;
};

// ---- one run

class Explanation {
 public:
  Explanation(const Snapshot& snapshot, const ListenerSnapshot& listener, const ClientInfo& client)
      : snapshot_(snapshot), config_(*snapshot.config), listener_(listener), x_(blocks_, client) {
    x_.rehearsed = true;
  }

  void decide(const std::string& bytes);
  Json json() const;
  std::string text(const ExplainRequest& request) const;
  bool has_route() const { return x_.route != nullptr; }

 private:
  void consider();
  void read(const std::string& bytes);
  void take_target();
  void answer();
  bool leaves() const { return x_.status == 0 && x_.request.version != Version::kTcp; }
  std::string action() const;
  std::string target_name(const config::Target& target) const {
    return target.subset.empty() ? target.service : target.service + "@" + target.subset;
  }
  struct Candidate {
    std::string address, state, why;
  };
  const View& view(const CompiledTarget& target) const;  // as at the start
  std::size_t group(const CompiledTarget& target) const {
    return static_cast<std::size_t>(target.subset + 1);
  }
  bool is_empty(const CompiledTarget& target) const {  // no endpoint would be chosen
    return view(target).groups[group(target)].shares.empty();
  }
  std::vector<Candidate> endpoints() const;
  std::vector<std::pair<std::string, std::string>> request_headers() const;
  std::vector<std::pair<std::string, std::string>> response_headers() const;
  Json file_of(const config::Mark& mark) const;
  void append_routes(std::string& out) const;
  void append_decision(std::string& out) const;
  void append_outcome(std::string& out) const;

  const Snapshot& snapshot_;
  const config::Config& config_;
  const ListenerSnapshot& listener_;
  BlockPool blocks_;
  Exchange x_;
  mutable std::map<std::uint32_t, std::shared_ptr<const View>> views_;  // by service
  std::vector<Considered> considered_;
  std::string body_;
};

void Explanation::decide(const std::string& bytes) {
  if (listener_.config->tcp)
    x_.request.version = Version::kTcp;
  else
    read(bytes);
  if (!x_.answer.set) route_request(x_, snapshot_, listener_);
  if (listener_.routes != nullptr && !x_.path.empty() &&
      (x_.route != nullptr || x_.answer.reason == Reason::kRouteNotFound))
    consider();
  if (x_.route != nullptr) take_target();
  if (x_.request.version == Version::kTcp) return;
  if (!x_.answer.set) {
    NoControl control;
    std::uint8_t position = 0;
    x_.target->chain.on_request(x_, control, position);
    x_.attempts = 1;
    if (!x_.answer.set && x_.target->target != nullptr) {
      if (is_empty(*x_.target)) {
        const Nothing nothing = why_nothing(view(*x_.target), group(*x_.target));
        x_.reply(nothing.reason, nothing.words);
      } else {
        x_.target->chain.on_attempt(x_);
      }
    }
  }
  if (x_.answer.set || x_.target->target == nullptr) answer();
}

// Of a preflight the routes are shown as they were asked: perhaps for the request that it means.
void Explanation::consider() {
  considered_ = listener_.routes->explain(x_);
  const bool same = std::any_of(considered_.begin(), considered_.end(), [&](const Considered& one) {
    return one.why_not.empty() && one.match == x_.match;
  });
  if (same || x_.route == nullptr) return;
  const AsMeant meant(x_);
  considered_ = listener_.routes->explain(x_);
}

void Explanation::read(const std::string& bytes) {
  const config::ListenerLimits& limits = listener_.config->limits;
  Slabs slabs;
  NoWire wire(slabs);
  Receiver receiver(x_);
  x_.request.scheme = x_.client.scheme();
  const auto codec = make_h1_server(wire, receiver,
                                    {.scheme = x_.client.scheme(),
                                     .max_header_bytes = limits.headers.value,
                                     .max_target_bytes = limits.target.value,
                                     .max_fields = limits.fields.value});
  codec->feed(bytes);
  if (x_.answer.set) trust(x_);  // who hears of it decides how much it says
}

// The heaviest target stands for all; the others differ in service and policy alone. One without
// endpoints leaves its share to the others, where it may.
void Explanation::take_target() {
  const auto heaviest = [&](auto&& usable) {
    const CompiledTarget* found = nullptr;
    for (const CompiledTarget& target : x_.route->targets)
      if (usable(target) && (found == nullptr || target.weight > found->weight)) found = &target;
    return found;
  };
  x_.target = heaviest([](const CompiledTarget&) { return true; });
  if (x_.target->target == nullptr) return;
  if (x_.route->total_weight == 0) {
    x_.reply(Reason::kNoWeight, "every target of the route has weight 0");
    return;
  }
  const auto& when = x_.target->policy->when_empty;
  if (is_empty(*x_.target) && (!when || when->value == config::WhenEmpty::kSpill))
    if (const CompiledTarget* other =
            heaviest([&](const CompiledTarget& it) { return it.weight != 0 && !is_empty(it); }))
      x_.target = other;
  const config::Policy& policy = *x_.target->policy;
  if (!x_.request.upgrade.empty() && policy.upgrade) {
    const std::vector<std::string>& allowed = policy.upgrade->value;
    if (std::none_of(allowed.begin(), allowed.end(), [&](const std::string& token) {
          return equal_ignoring_case(token, x_.request.upgrade);
        }))
      x_.request.upgrade = {};
  }
  const std::uint64_t limit =
      policy.body_max ? policy.body_max->value : x_.client.listener->limits.body.value;
  if (limit != 0 && x_.request.content_length.value_or(0) > limit)
    x_.reply(Reason::kBodyTooLarge, "the body is larger than body.max");
}

void Explanation::answer() {
  body_ = x_.answer.set ? local_reply(x_) : answer_route(x_, *x_.route);
  NoControl control;
  std::uint8_t position = 0;
  if (x_.target != nullptr) x_.target->chain.on_response(x_, control, position);
}

std::string Explanation::action() const {
  if (x_.route == nullptr) return {};
  if (x_.route->route->redirect) return "redirect";
  return x_.route->route->respond ? "respond" : "to";
}

const View& Explanation::view(const CompiledTarget& target) const {
  std::shared_ptr<const View>& view = views_[target.service];
  if (view == nullptr) view = ServiceShared(config_.services[target.service]).view();
  return *view;
}

std::vector<Explanation::Candidate> Explanation::endpoints() const {
  std::vector<Candidate> all;
  if (x_.route == nullptr) return all;
  for (const CompiledTarget& target : x_.route->targets) {
    if (target.target == nullptr || target.weight == 0) continue;
    const Membership& membership = *view(target).membership;
    for (const std::uint32_t index : membership.groups[group(target)].all) {
      const std::string standing = standing_of(view(target), group(target), index);
      Candidate candidate{config_.services[target.service].endpoints[index].address.to_string(),
                          std::string(state_of(*membership.members[index].state)),
                          standing.empty() ? "no health check configured" : standing};
      if (std::none_of(all.begin(), all.end(),
                       [&](const Candidate& it) { return it.address == candidate.address; }))
        all.push_back(std::move(candidate));
    }
  }
  return all;
}

std::vector<std::pair<std::string, std::string>> Explanation::request_headers() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Header& header : x_.request.headers)
    if (header.id != HeaderId::kHost) out.emplace_back(header.name, header.value);
  if (!x_.request.upgrade.empty()) out.emplace_back("upgrade", x_.request.upgrade);
  if (x_.request.te_trailers) out.emplace_back("te", "trailers");
  return out;
}

std::vector<std::pair<std::string, std::string>> Explanation::response_headers() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Header& header : x_.response.headers) out.emplace_back(header.name, header.value);
  if (x_.response.content_length && x_.response.headers.find(HeaderId::kContentLength) == nullptr)
    out.emplace_back("content-length", std::to_string(*x_.response.content_length));
  return out;
}

// ---- JSON

Json pairs(const std::vector<std::pair<std::string, std::string>>& fields) {
  Json list = Json::array();
  for (const auto& [name, value] : fields) list.push_back({name, value});
  return list;
}

Json Explanation::file_of(const config::Mark& mark) const {
  return mark.built_in() ? Json() : Json(config_.files[static_cast<std::size_t>(mark.file)].path);
}

Json Explanation::json() const {
  Json out;
  out["listener"] = listener_.config->name;
  out["route"] = nullptr;
  out["action"] = nullptr;
  out["targets"] = Json::array();
  out["request"] = nullptr;
  out["response"] = nullptr;
  out["policy"] = Json::object();
  out["endpoints"] = Json::array();
  out["considered"] = Json::array();
  if (x_.route != nullptr) {
    const config::Route& route = *x_.route->route;
    out["route"] = {{"name", route.name}, {"file", file_of(route.mark)}, {"line", route.mark.line}};
    out["action"] = action();
    for (const config::Target& target : route.to)
      out["targets"].push_back({{"service", target.service},
                                {"subset", target.subset.empty() ? Json() : Json(target.subset)},
                                {"weight", target.weight}});
    for (const PolicyLeaf& leaf : policy_leaves(x_, config_))
      out["policy"][leaf.key] = {{"value", leaf.value}, {"origin", config_.where(leaf.origin)}};
    for (const Candidate& one : endpoints())
      out["endpoints"].push_back(
          {{"address", one.address}, {"state", one.state}, {"why", one.why}});
  }
  if (leaves())
    out["request"] = {{"method", std::string(x_.method())},
                      {"host", std::string(x_.request.authority)},
                      {"path", std::string(x_.path_out) + std::string(x_.query)},
                      {"headers", pairs(request_headers())}};
  if (x_.observed_count != 0) {
    out["observed"] = Json::array();
    for (std::size_t i = 0; i < x_.observed_count; ++i)
      out["observed"].push_back(std::string(x_.observed[i]));
  }
  if (x_.status != 0)
    out["response"] = {{"status", x_.status}, {"headers", pairs(response_headers())}};
  for (const Considered& one : considered_) {
    const config::Route& route = config_.routes[one.route];
    out["considered"].push_back({{"route", route.name},
                                 {"file", file_of(route.mark)},
                                 {"line", route.mark.line},
                                 {"why_not", one.why_not.empty() ? Json() : Json(one.why_not)}});
  }
  return out;
}

// ---- text

// Columns as wide as their widest entry, the last one as it is.
void append_table(std::string& out, const Rows& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    out += " ";
    for (std::size_t i = 0; i < row.size(); ++i) {
      out += " " + row[i];
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 1, ' ');
    }
    out += '\n';
  }
}

std::string words_of(const Json& value) {
  if (value.is_null()) return "none";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string words;
  for (const Json& one : value) words += (words.empty() ? "" : ", ") + one.get<std::string>();
  return words.empty() ? "none" : words;
}

void Explanation::append_routes(std::string& out) const {
  if (considered_.empty()) return;
  Rows rows;
  for (const Considered& one : considered_) {
    const config::Route& route = config_.routes[one.route];
    rows.push_back({one.why_not.empty() ? "->" : "  ", route.name, one.match->short_form,
                    config_.where(route.mark), one.why_not.empty() ? "takes it" : one.why_not});
  }
  out += "\nroutes, in the order of precedence\n";
  append_table(out, rows);
}

void Explanation::append_decision(std::string& out) const {
  if (x_.route == nullptr) {
    out += "\nno route takes this request\n";
    return;
  }
  const config::Route& route = *x_.route->route;
  const bool own = listener_.routes == nullptr;
  out += std::string("\n") + (own ? "listener " : "route ") + route.name + " (" +
         config_.where(route.mark) + "): " + action() + "\n";
  Rows targets;
  for (const config::Target& target : route.to)
    targets.push_back({target_name(target), "weight " + std::to_string(target.weight)});
  append_table(out, targets);
}

void Explanation::append_outcome(std::string& out) const {
  Rows rows;
  if (x_.observed_count != 0) out += "\nobserved, without effect\n";
  for (std::size_t i = 0; i < x_.observed_count; ++i)
    out.append("  ").append(x_.observed[i]).append("\n");
  if (leaves()) {
    out += "\nleaves as\n  " + std::string(x_.method()) + " " + std::string(x_.path_out) +
           std::string(x_.query) + "\n  host: " + std::string(x_.request.authority) + "\n";
    for (const auto& [name, value] : request_headers())
      out.append("  ").append(name).append(": ").append(value).append("\n");
  }
  if (x_.status != 0) {
    out += "\nis answered with\n  " + std::to_string(x_.status) + " " +
           std::string(status_phrase(x_.status));
    if (x_.answer.set) out.append(" (").append(info(x_.reason).word).append(")");
    out += "\n";
    for (const auto& [name, value] : response_headers())
      out.append("  ").append(name).append(": ").append(value).append("\n");
    if (x_.answer.set && !body_.empty()) out += "  " + body_ + (body_.ends_with('\n') ? "" : "\n");
  }
  if (x_.route == nullptr) return;
  for (const PolicyLeaf& leaf : policy_leaves(x_, config_))
    rows.push_back({leaf.key, words_of(leaf.value), config_.where(leaf.origin)});
  if (!rows.empty()) {
    out += "\npolicy";
    if (x_.route->targets.size() > 1) out += " for " + target_name(*x_.target->target);
    out += "\n";
    append_table(out, rows);
  }
  rows.clear();
  for (const Candidate& one : endpoints()) rows.push_back({one.address, one.state, one.why});
  if (rows.empty()) return;
  out += "\nendpoints";
  if (x_.target != nullptr && x_.target->target != nullptr && rows.size() > 1)
    out += ", chosen by " + config::balance_text(config_.services[x_.target->service]);
  out += "\n";
  append_table(out, rows);
}

std::string Explanation::text(const ExplainRequest& request) const {
  std::string out = request.method + " " + request.url + "\nlistener " + listener_.config->name +
                    " (" + listener_.config->address.to_string() + ", " +
                    config_.where(listener_.config->mark) + ")\n";
  append_routes(out);
  append_decision(out);
  append_outcome(out);
  return out;
}

int fail(std::string& out, std::string_view words) {
  out.assign("outrider: explain: ").append(words).append("\n");
  return kUsage;
}

}  // namespace

int explain(std::shared_ptr<const config::Config> config, const ExplainRequest& request,
            std::string& out) {
  std::string problem;
  const std::optional<Url> url = parse_url(request.url, problem);
  if (!url) return fail(out, problem);
  if (request.method.find_first_of(" \r\n") != std::string::npos || request.method.empty())
    return fail(out, "METHOD is one word, such as GET");
  if (request.url.find_first_of("\r\n") != std::string::npos)
    return fail(out, "the URL holds a line end");
  const std::shared_ptr<const Snapshot> snapshot = Snapshot::compile(std::move(config), 1);
  const ListenerSnapshot* listener = choose_listener(*snapshot, request.listener, *url);
  if (listener == nullptr) return fail(out, "no listener is called '" + request.listener + "'");
  ClientInfo client;
  TlsPeer peer;
  if (!fill_client(client, peer, *listener, request))
    return fail(out, "--client-ip is not an address");
  Explanation explanation(*snapshot, *listener, client);
  explanation.decide(wire_form(request, *url));
  out = request.json ? explanation.json().dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                     : explanation.text(request);
  return explanation.has_route() ? 0 : kNoRoute;
}

}  // namespace outrider
