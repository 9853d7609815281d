// Which requests: hosts, paths, methods, values. Patterns are kept in the form that a normalised
// request has.
#include <re2/re2.h>

#include <algorithm>
#include <charconv>

#include "config/grammar.h"

namespace outrider::config {
namespace {

constexpr std::size_t kMaxCaptures = 16;  // what a request's capture table holds

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}
unsigned hex(char c) {
  if (c <= '9') return static_cast<unsigned>(c - '0');
  return static_cast<unsigned>((c | 0x20) - 'a') + 10;
}
bool unreserved(unsigned c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}
bool token_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
bool capture_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || (name[0] >= '0' && name[0] <= '9') || name[0] == '-')
    return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return unreserved(static_cast<unsigned char>(c)) && c != '.' && c != '~';
  });
}

// One segment as a normalised request has it: unreserved bytes plain, what is not ASCII escaped.
Problem normalise_segment(std::string_view text, std::string& out) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '?') return {"has a '?': a path has no query; use `query`", "bad-value", {}};
    if (c == '#' || c == '\\' || c <= ' ' || c == 0x7f)
      return {"has a character that no path has: blank, control, '#' or '\\'", "bad-value", {}};
    if (c == '*')
      return {"has a '*' beside other text: '*' stands for a whole segment, '**' for the rest",
              "bad-value",
              {}};
    if (c == '{' || c == '}')
      return {"has a brace beside other text: {name} stands for a whole segment", "bad-value", {}};
    if (c == '%') {
      if (i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2]))
        return {"has a '%' without two hex digits", "bad-value", {}};
      const unsigned byte = hex(text[i + 1]) * 16 + hex(text[i + 2]);
      if (byte == 0) return {"has a %00, which no request may have", "bad-value", {}};
      if (unreserved(byte))
        out += static_cast<char>(byte);
      else
        out += text.substr(i, 3);
      i += 2;
    } else if (c >= 0x80) {
      out += '%';
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    } else {
      out += text[i];
    }
  }
  if (out == "." || out == "..")
    return {"has a dot segment, which no request keeps", "bad-value", {}};
  return {};
}

Problem add_segment(std::string_view text, PathMatch& out) {
  using Segment = PathMatch::Segment;
  Segment& segment = out.segments.emplace_back();
  if (text == "*") {
    segment.kind = Segment::Kind::kAny;
    return {};
  }
  if (text.starts_with('{') && text.ends_with('}')) {
    const std::string_view name = text.substr(1, text.size() - 2);
    if (!capture_name(name))
      return {"has a capture whose name is not letters, digits, '_' and '-'", "bad-value", {}};
    for (const Segment& other : out.segments)
      if (other.kind == Segment::Kind::kAny && other.text == name)
        return {"captures two segments under one name", "bad-value", {}};
    segment.kind = Segment::Kind::kAny;
    segment.text = name;
    return {};
  }
  return normalise_segment(text, segment.text);
}

Problem parse_segments(std::string_view text, PathMatch& out) {
  std::string_view rest = text.substr(1);
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    const std::string_view segment = rest.substr(0, slash);
    const bool last = slash == std::string_view::npos;
    if (segment == "**") {
      if (!last)
        return {"has '**' before its end: it stands for the rest of the path", "bad-value", {}};
      out.kind = PathMatch::Kind::kPrefix;
      return {};
    }
    if (segment.empty())
      out.segments.emplace_back();  // whether a request can have one is for its listeners to say
    else if (Problem problem = add_segment(segment, out))
      return problem;
    if (out.segments.back().kind == PathMatch::Segment::Kind::kAny)
      out.kind = PathMatch::Kind::kTemplate;
    if (last) return {};
    rest.remove_prefix(slash + 1);
  }
  out.trailing_slash = true;
  return {};
}

bool host_label_chars(std::string_view text) {
  if (text.empty() || text.size() > 253 || text.front() == '.' ||
      text.find("..") != std::string_view::npos)
    return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

bool ip_literal(std::string_view text) {
  return text.size() > 4 && text.front() == '[' && text.back() == ']' &&
         text.find_first_not_of("0123456789abcdef:.", 1) == text.size() - 1;
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  return out;
}

Problem parse_host(std::string_view text, HostMatch& out) {
  std::string host = lower(text);
  HostMatch match;
  const std::size_t colon = host.find(':', host.starts_with('[') ? host.find(']') : 0);
  if (colon != std::string::npos) {
    std::int64_t port = 0;
    if (parse_integer(std::string_view(host).substr(colon + 1), 1, 65535, port))
      return {"has no valid port behind its ':'", "bad-value", {}};
    match.port = static_cast<std::uint16_t>(port);
    host.resize(colon);
  }
  if (host.size() > 1 && host.ends_with('.') && host != "*.") host.pop_back();
  if (host == "*") {
    match.kind = HostMatch::Kind::kAny;
  } else if (host.starts_with("*.") && host_label_chars(std::string_view(host).substr(2))) {
    match.kind = HostMatch::Kind::kWildcard;
    match.text = host.substr(2);
  } else if (host_label_chars(host) || ip_literal(host)) {
    match.kind = HostMatch::Kind::kExact;
    match.text = std::move(host);
  } else if (std::any_of(host.begin(), host.end(),
                         [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    return {"is not a host: write international names as they travel, xn--…", "bad-value", {}};
  } else if (host.find('*') != std::string::npos) {
    return {"is not a host: a wildcard is '*' alone or '*.' in front", "bad-value", {}};
  } else {
    return {"is not a host: write shop.example, *.shop.example or *", "bad-value", {}};
  }
  out = std::move(match);
  return {};
}

Problem parse_path(std::string_view text, PathMatch& out) {
  PathMatch path;
  path.text = text;
  if (text.starts_with('~')) {
    path.kind = PathMatch::Kind::kRegex;
    path.regex = text.substr(1);
    if (path.regex.empty()) return {"has no regex behind its '~'", "bad-value", {}};
    if (Problem problem = check_regex(path.regex)) return problem;
  } else if (text.starts_with('/')) {
    path.kind = PathMatch::Kind::kExact;
    if (Problem problem = parse_segments(text, path)) return problem;
    const auto captures = std::count_if(
        path.segments.begin(), path.segments.end(),
        [](const PathMatch::Segment& s) { return s.kind == PathMatch::Segment::Kind::kAny; });
    if (static_cast<std::size_t>(captures) > kMaxCaptures)
      return {"has over 16 wildcards", "out-of-range", {}};
  } else {
    return {"is not a path: it begins with '/', or with '~' for a regex", "bad-value", {}};
  }
  out = std::move(path);
  return {};
}

Problem parse_method(std::string_view text) {
  if (text.empty() || text.size() > limits::kMethodBytes ||
      !std::all_of(text.begin(), text.end(), token_char))
    return {"is not a method", "bad-value", {}};
  std::string upper(text);
  for (char& c : upper)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c & ~0x20);
  if (upper != text) return {"is not a method: they are upper case", "bad-value", std::move(upper)};
  return {};
}

Problem parse_match(std::string_view text, Match& out) {
  Match match;
  const std::size_t path = text.find_first_of("/~");
  std::string_view head = text.substr(0, path);
  const std::size_t blank = head.find(' ');
  if (blank != std::string_view::npos) {
    std::string_view methods = head.substr(0, blank);
    head.remove_prefix(blank + 1);
    if (methods.ends_with(','))
      return {"has a blank between methods: write GET,POST /path", "bad-value", {}};
    while (true) {
      const std::size_t comma = methods.find(',');
      const std::string_view method = methods.substr(0, comma);
      if (Problem problem = parse_method(method)) {
        problem.text = "does not begin with methods: they are upper case, as in GET,POST /path";
        problem.suggestion.clear();
        return problem;
      }
      match.methods.emplace_back(method);
      if (comma == std::string_view::npos) break;
      methods.remove_prefix(comma + 1);
    }
  }
  if (path == std::string_view::npos) {
    const bool method = blank == std::string_view::npos && !parse_method(head);
    if (method)
      return {"has no path: write METHOD /path, in quotes if it holds a comma", "bad-value", {}};
    return {"has no path: write host/** for every path", "bad-value", std::string(text) + "/**"};
  }
  if (!head.empty())
    if (Problem problem = parse_host(head, match.host)) return problem;
  if (Problem problem = parse_path(text.substr(path), match.path)) return problem;
  out.host = std::move(match.host);
  out.path = std::move(match.path);
  out.methods = std::move(match.methods);
  return {};
}

Problem parse_value_match(std::string_view text, ValueMatch& out) {
  ValueMatch match;
  if (text.starts_with('!')) {
    match.negated = true;
    text.remove_prefix(1);
  }
  if (text.empty()) {
    match.kind = ValueMatch::Kind::kPresent;
  } else if (text.starts_with('~')) {
    match.kind = ValueMatch::Kind::kRegex;
    text.remove_prefix(1);
    if (text.empty()) return {"has no regex behind its '~'", "bad-value", {}};
    if (Problem problem = check_regex(text)) return problem;
  }
  match.text = text;
  out = std::move(match);
  return {};
}

Problem check_regex(std::string_view regex) {
  re2::RE2::Options options(re2::RE2::Quiet);
  options.set_max_mem(limits::kRegexMemory);
  const re2::RE2 compiled({regex.data(), regex.size()}, options);
  if (compiled.ok()) return {};
  if (compiled.error_code() == re2::RE2::ErrorPatternTooLarge)
    return {"is too large a regex: fewer or smaller repetitions", "bad-regex", {}};
  const std::string& why = compiled.error();
  return {"is not a regex (RE2): " + why.substr(0, why.find(": ")), "bad-regex", {}};
}

std::string short_form(const Match& match) {
  std::string out;
  for (const std::string& method : match.methods) out += (out.empty() ? "" : ",") + method;
  if (!out.empty()) out += ' ';
  switch (match.host.kind) {
    case HostMatch::Kind::kAny: out += match.host.port ? "*" : ""; break;
    case HostMatch::Kind::kWildcard: out += "*." + match.host.text; break;
    case HostMatch::Kind::kExact: out += match.host.text; break;
  }
  if (match.host.port) out += ":" + std::to_string(*match.host.port);
  return out + (match.path.kind == PathMatch::Kind::kAny ? "/**" : match.path.text);
}

}  // namespace outrider::config
