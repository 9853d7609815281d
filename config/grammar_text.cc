// Names, header fields, targets and the templates that make new paths of old ones.
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <string>

#include "config/grammar.h"

namespace outrider::config {
namespace {

constexpr std::size_t kNameBytes = 253;

// Fields that frame the message or belong to the connection: the codecs write them.
constexpr std::array<std::string_view, 11> kOurs = {
    "connection",        "content-length", "keep-alive",     "proxy-connection", "te",  "trailer",
    "transfer-encoding", "upgrade",        "http2-settings", "expect",           "host"};

bool control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }
bool word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

// The `{name}` that begins at `text`; taken off it.
Problem take_capture(std::string_view& text, Template& out) {
  const std::size_t end = text.find('}');
  const std::string_view name = text.substr(1, end == std::string_view::npos ? 0 : end - 1);
  if (name.empty() || !std::all_of(name.begin(), name.end(), word))
    return {"has a '{' that begins no {name}", "bad-value", {}};
  out.captures.push_back(name);
  text.remove_prefix(end + 1);
  return {};
}

}  // namespace

Problem check_name(std::string_view text) {
  if (text.empty() || text.size() > kNameBytes)
    return {"is not a name: 1 to 253 bytes", "bad-name", {}};
  for (const char c : text)
    if (control(c) || c == ' ' || c == '@' || c == ',')
      return {"is not a name: it has a blank, a control byte, '@' or ','", "bad-name", {}};
  return {};
}

Problem check_route_name(std::string_view text) {
  if (text.empty() || text.size() > kNameBytes || std::any_of(text.begin(), text.end(), control))
    return {"is not a name: 1 to 253 bytes, no control bytes", "bad-name", {}};
  return {};
}

Problem parse_request_part(std::string_view text, RequestPart& out) {
  const std::optional<Variable> found = variable_of(text);
  const bool part =
      found &&
      (text == "client.ip" || text == "client.id" || found->kind == VariableKind::kHeader ||
       found->kind == VariableKind::kQuery || found->kind == VariableKind::kCookie);
  if (!part)
    return {"is no key: write client.ip, client.id, header NAME, query NAME or cookie NAME",
            "bad-value",
            {}};
  out = {found->kind, std::string(found->argument)};
  return {};
}

Problem parse_balance(std::string_view text, BalanceChoice& out) {
  constexpr std::pair<std::string_view, Balance> kWords[] = {
      {"least-request", Balance::kLeastRequest},
      {"round-robin", Balance::kRoundRobin},
      {"random", Balance::kRandom},
      {"peak-ewma", Balance::kPeakEwma}};
  for (const auto& [word, balance] : kWords)
    if (word == text) {
      out = {balance, {}};
      return {};
    }
  for (const auto& [word, balance] : {std::pair<std::string_view, Balance>{"hash", Balance::kHash},
                                      {"maglev", Balance::kMaglev}}) {
    if (!text.starts_with(word)) continue;
    std::string_view rest = text.substr(word.size());
    if (!rest.empty() && rest.front() != '(') continue;
    if (rest.size() < 3 || rest.back() != ')')
      return {"names no key: write " + std::string(word) + "(client.ip)", "bad-value", {}};
    rest = rest.substr(1, rest.size() - 2);
    out.balance = balance;
    return parse_request_part(rest, out.key);
  }
  return {"is none of least-request, round-robin, random, peak-ewma, hash(KEY), maglev(KEY)",
          "bad-value",
          {}};
}

Problem check_token(std::string_view text) {
  const bool token = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return word(c) || std::string_view("!#$%&'*+.^`|~").find(c) != std::string_view::npos;
  });
  if (!token) return {"is not a token: letters, digits and !#$%&'*+-.^_`|~", "bad-value", {}};
  return {};
}

Problem check_field_name(std::string_view text) {
  if (check_token(text)) return {"is not a header field's name", "bad-name", {}};
  return {};
}

Problem check_edited_field(std::string_view text) {
  if (Problem problem = check_field_name(text)) return problem;
  const std::string name = lower(text);
  if (name == "host") return {"is set by `rewrite: { host: … }`", "forbidden-field", {}};
  if (std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end())
    return {"belongs to the connection or frames the body: it cannot be changed",
            "forbidden-field",
            {}};
  if (name.starts_with("x-outrider-"))
    return {"is the proxy's own: it cannot be changed", "forbidden-field", {}};
  return {};
}

Problem check_field_value(std::string_view text) {
  if (std::any_of(text.begin(), text.end(), [](char c) { return control(c) && c != '\t'; }))
    return {"has a control byte, which no header value may have", "bad-value", {}};
  if (!text.empty() &&
      (text.front() == ' ' || text.back() == ' ' || text.front() == '\t' || text.back() == '\t'))
    return {"begins or ends with a blank, which no header value keeps", "bad-value", {}};
  return {};
}

Problem check_host(std::string_view text) {
  HostMatch host;
  if (parse_host(text, host) || host.kind != HostMatch::Kind::kExact)
    return {"is not a host: write shop.example or shop.example:8443", "bad-value", {}};
  return {};
}

Problem parse_probe(std::string_view text, HealthCheck& out) {
  constexpr std::string_view kMethods[] = {"GET", "HEAD", "OPTIONS", "POST"};
  const Problem no_probe{
      "is not a probe: write GET /healthz, tcp, grpc or grpc shop.Cart", "bad-value", {}};
  const std::size_t blank = text.find(' ');
  const std::string_view word = text.substr(0, blank);
  const std::string_view rest =
      blank == std::string_view::npos ? std::string_view() : text.substr(blank + 1);
  const bool printable =
      std::all_of(rest.begin(), rest.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!printable) return no_probe;
  using Probe = HealthCheck::Probe;
  if (word == "tcp" || word == "grpc") {
    if (blank != std::string_view::npos && (rest.empty() || word == "tcp")) return no_probe;
    if (rest.size() > limits::kGrpcServiceBytes)
      return {"names a service of more than 512 bytes", "out-of-range", {}};
    out.probe = word == "tcp" ? Probe::kTcp : Probe::kGrpc;
    out.service = rest;
  } else {
    const bool known =
        std::find(std::begin(kMethods), std::end(kMethods), word) != std::end(kMethods);
    if (!known || !rest.starts_with('/') || rest.find('#') != std::string_view::npos)
      return no_probe;
    if (rest.size() > limits::kTargetBytes) return {"is longer than 8 KiB", "out-of-range", {}};
    out.probe = Probe::kHttp;
    out.method = word;
    out.target = rest;
  }
  out.text = text;
  return {};
}

Problem parse_target(std::string_view text, Target& out) {
  const std::size_t at = text.find('@');
  const std::string_view subset =
      at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  if (at != std::string_view::npos && subset.empty())
    return {"names no subset behind its '@'", "bad-value", {}};
  if (check_name(text.substr(0, at)) || (!subset.empty() && check_name(subset)))
    return {"is not a target: write service or service@subset", "bad-value", {}};
  out.service = text.substr(0, at);
  out.subset = subset;
  return {};
}

Problem parse_template(std::string_view text, Template& out) {
  Template found;
  if (!text.starts_with('/')) return {"is not a path: it begins with '/'", "bad-value", {}};
  std::string_view rest = text;
  while (!rest.empty()) {
    const char c = rest.front();
    if (rest == "/**") {
      found.rest = true;
      break;
    }
    if (c == '*')
      return {"has a '*': {name} stands for a capture, a last /** for the rest", "bad-value", {}};
    if (c == '{') {
      if (Problem problem = take_capture(rest, found)) return problem;
      continue;
    }
    if (c == '\\') {
      if (rest.size() < 2 || rest[1] < '1' || rest[1] > '9')
        return {"has a '\\' that begins no \\1 to \\9", "bad-value", {}};
      found.group = std::max(found.group, rest[1] - '0');
      rest.remove_prefix(2);
      continue;
    }
    if (c == '?' || c == '#')
      return {"has a '?' or '#': a path only, the query is kept", "bad-value", {}};
    if (control(c) || c == ' ' || c == '}')
      return {"has a character that no path has", "bad-value", {}};
    rest.remove_prefix(1);
  }
  out = std::move(found);
  return {};
}

Problem check_captures(const Template& wanted, const PathMatch& match) {
  for (const std::string_view name : wanted.captures) {
    const bool has = std::any_of(
        match.segments.begin(), match.segments.end(), [&](const PathMatch::Segment& segment) {
          return segment.kind == PathMatch::Segment::Kind::kAny && segment.text == name;
        });
    if (!has) return {"takes {" + std::string(name) + "}, which", "unknown-capture", {}};
  }
  const bool rest = match.kind == PathMatch::Kind::kPrefix || match.kind == PathMatch::Kind::kAny;
  if (wanted.rest && !rest) return {"takes the rest (/**), which", "unknown-capture", {}};
  if (wanted.group > 0) {
    const re2::RE2 regex(match.regex, re2::RE2::Quiet);
    if (match.kind != PathMatch::Kind::kRegex || regex.NumberOfCapturingGroups() < wanted.group)
      return {"takes \\" + std::to_string(wanted.group) + ", which", "unknown-capture", {}};
  }
  return {};
}

Problem check_replacement(std::string_view regex, std::string_view replacement) {
  const re2::RE2 compiled({regex.data(), regex.size()}, re2::RE2::Quiet);
  std::string why;
  if (!compiled.CheckRewriteString({replacement.data(), replacement.size()}, &why))
    return {"is not a replacement: '\\\\' and \\0 to \\9 as far as the regex has groups",
            "bad-value",
            {}};
  return {};
}

}  // namespace outrider::config
