// See route_match.h.
#include "filters/route_match.h"

#include <re2/re2.h>

#include <algorithm>

#include "filters/http/path.h"
#include "filters/http/query.h"

namespace outrider {
namespace {

using config::HostMatch;
using config::Match;
using config::NamedMatch;
using config::PathMatch;
using config::ValueMatch;
using Segment = config::PathMatch::Segment;

std::string cut(std::string_view text) {
  constexpr std::size_t kShown = 64;
  return std::string(text.substr(0, kShown)) + (text.size() > kShown ? "…" : "");
}

// `: false is not true`, for a value as it came; absent: nullopt.
std::string value_failure(const ValueMatch& match, std::optional<std::string_view> value,
                          bool echo) {
  const std::string shown = echo && value ? cut(*value) + " " : "";
  if (match.kind == ValueMatch::Kind::kPresent) return match.negated ? "is present" : "is absent";
  if (!value) return "is absent";
  const bool regex = match.kind == ValueMatch::Kind::kRegex;
  if (match.negated) return shown + (regex ? "matches ~" : "is ") + match.text;
  return shown + (regex ? "does not match ~" : "is not ") + match.text;
}

// The head of a path: its first segment, and what follows it.
struct Head {
  std::string_view segment;
  std::string_view rest;
};

Head split(std::string_view path) {
  const std::string_view tail = path.substr(1);
  const std::size_t slash = std::min(tail.find('/'), tail.size());
  return {tail.substr(0, slash), tail.substr(slash)};
}

bool segment_fits(const Segment& segment, std::string_view text) {
  return segment.kind == Segment::Kind::kText ? segment.text == text : !text.empty();
}

bool segments_fit(const PathMatch& path, std::string_view text) {
  if (!text.starts_with('/')) return false;
  for (const Segment& segment : path.segments) {
    if (text.empty()) return false;
    const Head head = split(text);
    if (!segment_fits(segment, head.segment)) return false;
    text = head.rest;
  }
  if (path.kind == PathMatch::Kind::kPrefix) return true;
  return text == (path.trailing_slash || path.segments.empty() ? "/" : "");
}

std::weak_ordering more_first(std::size_t a, std::size_t b) { return b <=> a; }

bool segment_covers(const Segment& wide, const Segment& narrow) {
  if (wide.kind == Segment::Kind::kAny)
    return narrow.kind == Segment::Kind::kAny || !narrow.text.empty();
  return narrow.kind == Segment::Kind::kText && wide.text == narrow.text;
}

bool segments_cover(const PathMatch& wide, const PathMatch& narrow) {
  return wide.segments.size() <= narrow.segments.size() &&
         std::equal(wide.segments.begin(), wide.segments.end(), narrow.segments.begin(),
                    segment_covers);
}

bool path_covers(const PathMatch& wide, const PathMatch& narrow) {
  using enum PathMatch::Kind;
  if (wide.kind == kAny) return true;
  if (wide.kind == kPrefix && wide.segments.empty()) return true;
  if (wide.kind == kRegex) return narrow.kind == kRegex && wide.regex == narrow.regex;
  if (narrow.kind == kAny || narrow.kind == kRegex) return false;
  if (!segments_cover(wide, narrow)) return false;
  if (wide.kind == kPrefix) return true;
  return narrow.kind != kPrefix && wide.segments.size() == narrow.segments.size() &&
         (wide.segments.empty() || wide.trailing_slash == narrow.trailing_slash);
}

bool host_covers(const HostMatch& wide, const HostMatch& narrow) {
  if (wide.port && wide.port != narrow.port) return false;
  if (wide.kind == HostMatch::Kind::kAny) return true;
  if (wide.kind == narrow.kind && wide.text == narrow.text) return true;
  return wide.kind == HostMatch::Kind::kWildcard && narrow.kind != HostMatch::Kind::kAny &&
         narrow.text.size() > wide.text.size() + 1 && narrow.text.ends_with(wide.text) &&
         narrow.text[narrow.text.size() - wide.text.size() - 1] == '.';
}

bool value_covers(const ValueMatch& wide, const ValueMatch& narrow) {
  if (wide.kind == ValueMatch::Kind::kPresent && !wide.negated) return !narrow.negated;
  return wide.kind == narrow.kind && wide.negated == narrow.negated && wide.text == narrow.text;
}

bool values_cover(const std::vector<NamedMatch>& wide, const std::vector<NamedMatch>& narrow) {
  return std::all_of(wide.begin(), wide.end(), [&](const NamedMatch& one) {
    return std::any_of(narrow.begin(), narrow.end(), [&](const NamedMatch& other) {
      return one.first == other.first && value_covers(one.second, other.second);
    });
  });
}

bool methods_cover(const Match& wide, const Match& narrow) {
  if (wide.methods.empty()) return true;
  return !narrow.methods.empty() &&
         std::all_of(narrow.methods.begin(), narrow.methods.end(), [&](const std::string& method) {
           return std::find(wide.methods.begin(), wide.methods.end(), method) != wide.methods.end();
         });
}

bool addresses_cover(const Match& wide, const Match& narrow) {
  if (wide.client_ip.empty()) return true;
  return !narrow.client_ip.empty() &&
         std::all_of(narrow.client_ip.begin(), narrow.client_ip.end(),
                     [&](const config::Cidr& one) {
                       return std::any_of(wide.client_ip.begin(), wide.client_ip.end(),
                                          [&](const config::Cidr& net) {
                                            return net.bits <= one.bits && net.contains(one.ip);
                                          });
                     });
}

}  // namespace

// ---- regexes

Regexes::Regexes() = default;
Regexes::~Regexes() = default;

const re2::RE2* Regexes::get(const std::string& text) {
  auto& regex = by_text_[text];
  if (!regex) regex = std::make_unique<re2::RE2>(text, re2::RE2::Quiet);
  return regex.get();
}

bool Regexes::fits(const re2::RE2& regex, std::string_view text) {
  const std::string_view seen = text.substr(0, limits::kRegexInputBytes);
  return regex.ok() &&
         regex.Match({seen.data(), seen.size()}, 0, seen.size(), re2::RE2::UNANCHORED, nullptr, 0);
}

// ---- conditions

Conditions::Conditions(const Match& match, Regexes& regexes, bool unseen)
    : match_(&match),
      any_(!match.methods.empty() || !match.headers.empty() || !match.query.empty() ||
           !match.cookies.empty() || !match.client_ip.empty()) {
  const auto value_test = [&](const ValueMatch& value) {
    const bool regex = value.kind == ValueMatch::Kind::kRegex;
    return ValueTest{&value, regex ? regexes.get(value.text) : nullptr, unseen};
  };
  for (const std::string& method : match.methods) {
    const Method known = method_of(method);
    if (known == Method::kOther)
      other_methods_ = true;
    else
      methods_ |= static_cast<std::uint16_t>(1U << static_cast<unsigned>(known));
  }
  for (const auto& [name, value] : match.headers)
    headers_.push_back({header_id(name), name, value_test(value)});
  for (const auto& [name, value] : match.query) query_.push_back({name, value_test(value)});
  for (const auto& [name, value] : match.cookies) cookies_.push_back({name, value_test(value)});
}

bool Conditions::ValueTest::fits(std::string_view value) const {
  switch (match->kind) {
    case ValueMatch::Kind::kExact: return value == match->text;
    case ValueMatch::Kind::kRegex: return Regexes::fits(*regex, value);
    case ValueMatch::Kind::kPresent: return true;
  }
  return false;
}

bool Conditions::ValueTest::holds(std::optional<std::string_view> value) const {
  if (value && is_unseen(*value)) return unseen;
  return (value && fits(*value)) != match->negated;
}

bool Conditions::FieldTest::holds(const RequestHead& request) const {
  if (id == HeaderId::kHost) return value.holds(request.authority);
  for (const Header& header : request.headers) {
    if (header.id != id || (id == HeaderId::kUnknown && !equal_ignoring_case(header.name, name)))
      continue;
    if (value.is_unseen(header.value)) return value.unseen;
    if (value.fits(header.value)) return !value.match->negated;
  }
  return value.match->negated;
}

bool Conditions::method_holds(const RequestHead& request) const {
  if (match_->methods.empty()) return true;
  if (request.method != Method::kOther)
    return (methods_ >> static_cast<unsigned>(request.method) & 1U) != 0;
  return other_methods_ && std::find(match_->methods.begin(), match_->methods.end(),
                                     request.method_text) != match_->methods.end();
}

bool Conditions::client_ip_holds(const Exchange& x) const {
  return match_->client_ip.empty() ||
         std::any_of(match_->client_ip.begin(), match_->client_ip.end(),
                     [&](const config::Cidr& net) { return net.contains(x.client_ip); });
}

bool Conditions::all_hold(const Exchange& x) const {
  return method_holds(x.request) &&
         std::all_of(headers_.begin(), headers_.end(),
                     [&](const FieldTest& test) { return test.holds(x.request); }) &&
         std::all_of(query_.begin(), query_.end(),
                     [&](const NamedTest& test) {
                       return test.value.holds(query_value(x.query, test.name));
                     }) &&
         std::all_of(cookies_.begin(), cookies_.end(),
                     [&](const NamedTest& test) {
                       return test.value.holds(cookie_value(x.request.headers, test.name));
                     }) &&
         client_ip_holds(x);
}

std::string Conditions::method_failure(const RequestHead& request, bool echo) const {
  std::string words = "method: ";
  if (echo || request.method != Method::kOther) words += cut(request.method_text) + " ";
  words += "is not ";
  for (std::size_t i = 0; i < match_->methods.size(); ++i)
    words += (i == 0 ? "" : i + 1 < match_->methods.size() ? ", " : " or ") + match_->methods[i];
  return words;
}

std::string Conditions::header_failure(const FieldTest& test, const RequestHead& request,
                                       bool echo) const {
  const Header* const first = request.headers.find(test.id, test.name);
  std::optional<std::string_view> value;
  if (test.id == HeaderId::kHost)
    value = request.authority;
  else if (first != nullptr)
    value = first->value;
  const bool show = echo && (header_flags(test.id) & kSecret) == 0;
  return "header " + std::string(test.name) + ": " + value_failure(*test.value.match, value, show);
}

std::string Conditions::client_ip_failure(const Exchange& x, bool echo) const {
  std::string words = "client_ip: ";
  if (echo) words += std::string(x.client_ip_text) + " ";
  words += "is not in ";
  for (std::size_t i = 0; i < match_->client_ip.size(); ++i)
    words += (i == 0 ? "" : ", ") + match_->client_ip[i].to_string();
  return words;
}

std::string Conditions::failure(const Exchange& x, bool echo) const {
  if (!method_holds(x.request)) return method_failure(x.request, echo);
  for (const FieldTest& test : headers_)
    if (!test.holds(x.request)) return header_failure(test, x.request, echo);
  for (const NamedTest& test : query_) {
    const auto value = query_value(x.query, test.name);
    if (!test.value.holds(value))
      return "query " + std::string(test.name) + ": " +
             value_failure(*test.value.match, value, echo);
  }
  for (const NamedTest& test : cookies_) {
    const auto value = cookie_value(x.request.headers, test.name);
    if (!test.value.holds(value))
      return "cookie " + std::string(test.name) + ": " +
             value_failure(*test.value.match, value, false);
  }
  return client_ip_holds(x) ? std::string() : client_ip_failure(x, echo);
}

// ---- host and path

std::uint16_t effective_port(const Exchange& x) {
  return x.host_port != 0 ? x.host_port : default_port(x.request.scheme);
}

bool host_fits(const HostMatch& host, const Exchange& x) {
  if (host.port && *host.port != effective_port(x)) return false;
  switch (host.kind) {
    case HostMatch::Kind::kAny: return true;
    case HostMatch::Kind::kExact: return x.host == host.text;
    case HostMatch::Kind::kWildcard:
      return x.host.size() > host.text.size() + 1 && x.host.ends_with(host.text) &&
             x.host[x.host.size() - host.text.size() - 1] == '.';
  }
  return false;
}

bool path_fits(const PathMatch& path, std::string_view text, const re2::RE2* regex) {
  if (path.kind == PathMatch::Kind::kAny) return true;
  if (path.kind != PathMatch::Kind::kRegex) return segments_fit(path, text);
  return text.starts_with('/') && regex != nullptr && Regexes::fits(*regex, text);
}

std::string exact_text(const PathMatch& path) {
  std::string text;
  for (const Segment& segment : path.segments) text.append("/").append(segment.text);
  if (path.trailing_slash || text.empty()) text += '/';
  return text;
}

// ---- order

std::weak_ordering compare_hosts(const HostMatch& a, const HostMatch& b) {
  const auto rank = [](const HostMatch& host) {
    return host.kind == HostMatch::Kind::kExact      ? 0
           : host.kind == HostMatch::Kind::kWildcard ? 1
                                                     : 2;
  };
  if (const auto order = rank(a) <=> rank(b); order != 0) return order;
  if (a.kind == HostMatch::Kind::kWildcard)
    if (const auto order = more_first(a.text.size(), b.text.size()); order != 0) return order;
  return more_first(a.port.has_value(), b.port.has_value());
}

std::weak_ordering compare_paths(const PathMatch& a, const PathMatch& b) {
  const auto rank = [](const PathMatch& path) {
    switch (path.kind) {
      case PathMatch::Kind::kExact: return 0;
      case PathMatch::Kind::kTemplate: return 1;
      case PathMatch::Kind::kPrefix: return 2;
      case PathMatch::Kind::kRegex: return 3;
      case PathMatch::Kind::kAny: return 4;
    }
    return 4;
  };
  if (const auto order = rank(a) <=> rank(b); order != 0) return order;
  if (a.kind == PathMatch::Kind::kPrefix)
    if (const auto order = more_first(a.segments.size(), b.segments.size()); order != 0)
      return order;
  const std::size_t size = std::min(a.segments.size(), b.segments.size());
  for (std::size_t i = 0; i < size; ++i)  // kText is below kAny
    if (const auto order = a.segments[i].kind <=> b.segments[i].kind; order != 0) return order;
  return more_first(a.segments.size(), b.segments.size());
}

std::weak_ordering compare_conditions(const Match& a, const Match& b) {
  if (const auto order = more_first(!a.methods.empty(), !b.methods.empty()); order != 0)
    return order;
  if (const auto order = more_first(a.headers.size(), b.headers.size()); order != 0) return order;
  if (const auto order = more_first(a.query.size(), b.query.size()); order != 0) return order;
  if (const auto order = more_first(a.cookies.size(), b.cookies.size()); order != 0) return order;
  return more_first(!a.client_ip.empty(), !b.client_ip.empty());
}

bool covers(const Match& wide, const Match& narrow) {
  return host_covers(wide.host, narrow.host) && path_covers(wide.path, narrow.path) &&
         methods_cover(wide, narrow) && values_cover(wide.headers, narrow.headers) &&
         values_cover(wide.query, narrow.query) && values_cover(wide.cookies, narrow.cookies) &&
         addresses_cover(wide, narrow);
}

}  // namespace outrider
