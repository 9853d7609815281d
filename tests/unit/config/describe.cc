#include "tests/unit/config/describe.h"

#include <sstream>

namespace outrider::config {
namespace {

std::string text(Millis time) { return std::to_string(time.count()) + "ms"; }

template <class T>
void leaf(std::ostringstream& out, const char* name, const Maybe<T>& value) {
  if (value) out << ' ' << name << '=' << value->value;
}
void leaf(std::ostringstream& out, const char* name, const Maybe<Millis>& value) {
  if (value) out << ' ' << name << '=' << text(value->value);
}

void edits(std::ostringstream& out, const char* name, const HeaderEdits& edits) {
  for (const auto& [field, value] : edits.set)
    out << ' ' << name << ".set." << field << "='" << value.value << "'";
  for (const auto& [field, value] : edits.add)
    out << ' ' << name << ".add." << field << "='" << value.value << "'";
  if (!edits.remove) return;
  out << ' ' << name << ".remove=[";
  for (const std::string& field : edits.remove->value) out << field << ',';
  out << ']';
}

void values(std::ostringstream& out, const char* name, const std::vector<NamedMatch>& matches) {
  for (const auto& [field, match] : matches)
    out << ' ' << name << '.' << field << '=' << static_cast<int>(match.kind) << match.negated
        << "'" << match.text << "'";
}

std::string describe(const Redirect& redirect) {
  std::ostringstream out;
  out << "redirect " << redirect.status << ' ' << redirect.scheme << ' ' << redirect.host << ' '
      << (redirect.port ? std::to_string(*redirect.port) : "-") << ' ' << redirect.path;
  return out.str();
}

std::string describe(const std::vector<Target>& targets) {
  std::ostringstream out;
  for (const Target& target : targets)
    out << " to " << target.service << '@' << target.subset << '*' << target.weight;
  return out.str();
}

std::string describe(const Listener& listener) {
  std::ostringstream out;
  const ListenerLimits& l = listener.limits;
  const ListenerTimeouts& t = listener.timeouts;
  out << "listener " << listener.name << ' ' << listener.address.to_string() << ' '
      << listener.http1 << listener.http2 << listener.tcp << listener.forwarded
      << listener.merge_slashes << static_cast<int>(listener.escaped_slashes) << " limits "
      << l.headers.value << ' ' << l.target.value << ' ' << l.fields.value << ' ' << l.body.value
      << ' ' << l.streams << ' ' << l.connections << ' ' << l.per_client << ' ' << l.requests
      << " timeouts " << text(t.handshake) << ' ' << text(t.header) << ' ' << text(t.body) << ' '
      << text(t.stall) << ' ' << text(t.idle) << ' ' << t.upload_rate.bytes_per_second << ' '
      << text(t.upload_rate.after);
  for (const Cidr& range : listener.trust) out << " trust " << range.to_string();
  if (listener.redirect) out << ' ' << describe(*listener.redirect);
  out << describe(listener.to) << '\n';
  return out.str();
}

std::string describe(const Service& service) {
  std::ostringstream out;
  const ServiceLimits& l = service.limits;
  out << "service " << service.name << " protocol " << static_cast<int>(service.protocol)
      << " balance " << balance_text(service) << " slow " << text(service.slow_start) << " zone "
      << service.near_zone << " limits " << l.connections.value << ' ' << l.pending.value << ' '
      << text(l.pending_time.value) << ' ' << l.requests.value << ' ' << l.retries.value
      << " connect " << text(service.connect.value) << " idle " << text(service.idle.value);
  const Eject& e = service.eject;
  out << " eject " << e.on << e.observe << ' ' << e.after.value << ' ' << e.after_5xx.value << ' '
      << e.after_local.value << ' ' << text(e.span.value) << ' ' << e.at_most.value << ' '
      << e.success.value << ' ' << e.latency.value << ' ' << e.volume.value << " adaptive "
      << l.adaptive.value << '\n';
  const HealthCheck& h = service.health;
  out << "  health " << h.text << '|' << h.method << '|' << h.target << '|' << h.service << '|'
      << h.host << ' ' << text(h.every) << ' ' << text(h.timeout) << ' ' << h.healthy << ' '
      << h.unhealthy;
  for (const auto& [first, last] : h.statuses) out << ' ' << first << ".." << last;
  out << '\n';
  for (const Endpoint& endpoint : service.endpoints) {
    out << "  endpoint " << endpoint.address.to_string() << " weight " << endpoint.weight
        << " priority " << endpoint.priority << " zone " << endpoint.zone << " health "
        << static_cast<int>(endpoint.health);
    for (const auto& [key, value] : endpoint.labels) out << ' ' << key << '=' << value;
    out << '\n';
  }
  for (const auto& [name, labels] : service.subsets) {
    out << "  subset " << name;
    for (const auto& [key, value] : labels) out << ' ' << key << '=' << value;
    out << '\n';
  }
  return out.str();
}

}  // namespace

std::string describe(const Match& match) {
  std::ostringstream out;
  out << match.short_form << " host " << static_cast<int>(match.host.kind) << match.host.text << ':'
      << (match.host.port ? std::to_string(*match.host.port) : "-") << " path "
      << static_cast<int>(match.path.kind) << match.path.trailing_slash << match.path.regex;
  for (const PathMatch::Segment& segment : match.path.segments)
    out << '/' << static_cast<int>(segment.kind) << segment.text;
  for (const std::string& method : match.methods) out << ' ' << method;
  values(out, "header", match.headers);
  values(out, "query", match.query);
  values(out, "cookie", match.cookies);
  for (const Cidr& range : match.client_ip) out << " from " << range.to_string();
  return out.str();
}

std::string describe(const Policy& policy) {
  std::ostringstream out;
  leaf(out, "headers", policy.timeout_headers);
  leaf(out, "total", policy.timeout_total);
  leaf(out, "per_try", policy.timeout_per_try);
  leaf(out, "idle", policy.timeout_idle);
  leaf(out, "attempts", policy.retry_attempts);
  if (policy.retry_when) {
    out << " when=" << policy.retry_when->value.bits;
    for (const int status : policy.retry_when->value.statuses) out << ',' << status;
  }
  if (policy.retry_backoff)
    out << " backoff=" << text(policy.retry_backoff->value.min) << ".."
        << text(policy.retry_backoff->value.max);
  leaf(out, "budget", policy.retry_budget);
  if (policy.retry_methods) out << " methods=" << static_cast<int>(policy.retry_methods->value);
  leaf(out, "buffer", policy.retry_buffer);
  leaf(out, "body", policy.body_max);
  if (policy.upgrade) {
    out << " upgrade=";
    for (const std::string& protocol : policy.upgrade->value) out << protocol << ',';
  }
  if (policy.when_empty) out << " when_empty=" << static_cast<int>(policy.when_empty->value);
  leaf(out, "path", policy.rewrite_path);
  leaf(out, "host", policy.rewrite_host);
  if (policy.rewrite_regex)
    for (const auto& [regex, replacement] : policy.rewrite_regex->value)
      out << " s/" << regex << '/' << replacement << '/';
  edits(out, "request", policy.request_headers);
  edits(out, "response", policy.response_headers);
  return out.str();
}

std::string describe(const Config& config) {
  std::ostringstream out;
  out << "workers " << (config.workers ? std::to_string(*config.workers) : "auto") << " overload "
      << config.overload.memory_share << ' ' << config.overload.memory << ' '
      << config.overload.descriptors << ' ' << text(config.overload.loop_delay) << '\n';
  out << "zone " << config.zone << '\n';
  for (const Listener& listener : config.listeners) out << describe(listener);
  for (const Service& service : config.services) out << describe(service);
  for (const Route& route : config.routes) {
    out << "route " << route.name << " priority " << route.priority << " on";
    for (const std::string& listener : route.listeners) out << ' ' << listener;
    out << describe(route.to) << '\n';
    if (route.redirect) out << "  " << describe(*route.redirect) << '\n';
    if (route.respond) {
      out << "  respond " << route.respond->status << " '" << route.respond->body << "'";
      for (const auto& [name, value] : route.respond->headers)
        out << ' ' << name << "='" << value << "'";
      out << '\n';
    }
    for (const Match& match : route.matches) out << "  match " << describe(match) << '\n';
    for (const Policy& policy : route.policies) out << "  policy" << describe(policy) << '\n';
  }
  const Telemetry& t = config.telemetry;
  out << "log " << static_cast<int>(t.access_log) << ' ' << t.access_log_file << ' '
      << t.access_log_format << '\n';
  out << "metrics " << t.metrics << t.metrics_written << ' ' << t.metrics_address.to_string() << ' '
      << t.series_limit << '\n';
  out << "admin " << config.admin.on << config.admin.written << ' '
      << config.admin.address.to_string() << '\n';
  out << "drain " << text(config.drain_delay) << ' ' << text(config.drain_deadline) << '\n';
  return out.str();
}

}  // namespace outrider::config
