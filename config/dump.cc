// Turns the documents as they were read into one long document, by the table of keys, and writes it
// as YAML. It works on what was written rather than on the model: references to the environment
// stay references, what nobody said is not said here.
#include "config/dump.h"

#include <filesystem>
#include <utility>

#include "config/draft.h"

namespace outrider::config {
namespace {

// A value in its long form; scalars are YAML already.
struct Long {
  enum class Kind : std::uint8_t { kScalar, kList, kMap };
  Kind kind = Kind::kScalar;
  std::string text;
  std::string name;  // of an entry of a map
  std::vector<Long> children;
  Mark mark;

  Long& add(std::string_view called, Long child) {
    child.name = called;
    children.push_back(std::move(child));
    return *this;
  }
};

bool plain_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '/' || c == '-' || c == '%';
}

// May stand without quotes, everywhere and for every YAML reader.
bool plain(std::string_view text) {
  constexpr std::string_view kWords[] = {"null", "yes", "no", "on", "off", "y", "n"};
  if (text.empty() || text[0] == '-' || text[0] == '.' || text[0] == '%') return false;
  for (const char c : text)
    if (!plain_char(c)) return false;
  for (const std::string_view word : kWords)
    if (lower(text) == word) return false;
  return true;
}

std::string in_quotes(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string absolute(const Source& source, std::string_view path) {
  std::error_code error;
  const std::string meant = relative_to(source, path);
  const auto out = std::filesystem::absolute(meant.empty() ? "." : meant, error);
  return error ? meant : out.lexically_normal().string();
}

// A relative path made absolute; with a reference in it, what that stands for decides whether it is
// one.
std::string file_text(const Value& value) {
  const std::string written(value.node().text);
  const auto meant = value.text();
  if (!meant || meant->starts_with('/')) return written;
  const Source& source = value.reading().source;
  if (!value.node().reference) return absolute(source, written);
  const std::string directory = absolute(source, {});
  return directory + (directory.ends_with('/') ? "" : "/") + written;
}

std::string address_text(const Value& value) {
  constexpr std::string_view kUnix = "unix:";
  std::string written(value.node().text);
  const auto meant = value.text();
  const std::size_t at = written.find(kUnix);
  const std::size_t said = meant ? meant->find(kUnix) : std::string::npos;
  if (at == std::string::npos || said == std::string::npos) return written;
  const std::string_view path = meant->substr(said + kUnix.size());
  // Only as short as it is written can it be bound.
  if (path.starts_with('/') || check_socket_path(absolute(value.reading().source, path)))
    return written;
  const std::size_t begin = at + kUnix.size();
  if (!value.node().reference)
    return written.substr(0, begin) + absolute(value.reading().source, path);
  const std::string directory = absolute(value.reading().source, {});
  return written.insert(begin, directory + (directory.ends_with('/') ? "" : "/"));
}

Long scalar(std::string text, bool quotes, const Mark& mark) {
  Long out;
  out.text = quotes || !plain(text) ? in_quotes(text) : std::move(text);
  out.mark = mark;
  return out;
}

Long scalar(const Value& value, Type type = Type::kText) {
  std::string text(value.node().text);
  if (type == Type::kFile) text = file_text(value);
  if (type == Type::kAddress || type == Type::kLoopback) text = address_text(value);
  return scalar(std::move(text), value.node().quoted, value.mark());
}

Long collection(Long::Kind kind, const Mark& mark) {
  Long out;
  out.kind = kind;
  out.mark = mark;
  return out;
}

// A shorthand that says one key of its long form.
Long wrap(std::string_view key, Long value) {
  Long out = collection(Long::Kind::kMap, value.mark);
  out.add(key, std::move(value));
  return out;
}

Long texts(const Value& value) {
  if (!value.is_map()) return scalar(value);
  Long out = collection(Long::Kind::kMap, value.mark());
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value one = value.entry(i);
    out.add(one.name(), texts(one));
  }
  return out;
}

Long list_of_scalars(const Value& value) {
  Long out = collection(Long::Kind::kList, value.mark());
  for (std::uint32_t i = 0; i < value.items(); ++i) out.add({}, scalar(value.item(i)));
  return out;
}

Long long_form(const Value& value, const Key& rule);

Long section(const Value& value, std::span<const Key> keys) {
  Long out = collection(Long::Kind::kMap, value.mark());
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value one = value.entry(i);
    out.add(one.name(), long_form(one, *find_key(keys, one.name())));
  }
  return out;
}

Long section(const Value& value, Section of) { return section(value, value.reading().keys.of(of)); }

Long endpoints(const Value& value) {
  if (value.is_scalar() && is_source(value.node().text)) return scalar(value);
  Long out = collection(Long::Kind::kList, value.mark());
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    out.add({}, item.is_map() ? section(item, Section::kEndpoint)
                              : wrap("address", scalar(item, Type::kAddress)));
  }
  return out;
}

Long match(const Value& value) {
  Match parsed;
  if (value.is_map()) return section(value, Section::kMatch);
  if (value.node().reference || parse_match(value.node().text, parsed)) return scalar(value);
  Long out = collection(Long::Kind::kMap, value.mark());
  if (!parsed.methods.empty()) {
    Long methods = collection(Long::Kind::kList, value.mark());
    for (const std::string& method : parsed.methods)
      methods.add({}, scalar(method, false, value.mark()));
    out.add("method", std::move(methods));
  }
  std::string host = parsed.host.kind == HostMatch::Kind::kAny ? "*" : parsed.host.text;
  if (parsed.host.kind == HostMatch::Kind::kWildcard) host.insert(0, "*.");
  if (parsed.host.port) host += ":" + std::to_string(*parsed.host.port);
  if (host != "*") {
    Long hosts = collection(Long::Kind::kList, value.mark());
    out.add("host", std::move(hosts.add({}, scalar(std::move(host), true, value.mark()))));
  }
  Long paths = collection(Long::Kind::kList, value.mark());
  return std::move(
      out.add("path", std::move(paths.add({}, scalar(parsed.path.text, true, value.mark())))));
}

Long matches(const Value& value) {
  if (!value.is_list()) return match(value);
  Long out = collection(Long::Kind::kList, value.mark());
  for (std::uint32_t i = 0; i < value.items(); ++i) out.add({}, match(value.item(i)));
  return out;
}

Long shorthand(const Value& value, const Key& rule) {
  if (rule.expand != nullptr) {
    Long out = collection(Long::Kind::kMap, value.mark());
    for (auto& [name, text] : rule.expand(value.node().text))
      out.add(name, scalar(std::move(text), false, value.mark()));
    return out;
  }
  switch (rule.type) {
    case Type::kTargets: {
      Long out = collection(Long::Kind::kMap, value.mark());
      return std::move(out.add(value.node().text, scalar("1", false, value.mark())));
    }
    case Type::kRedirectTo: return wrap("scheme", scalar(value));
    case Type::kRespondWith: return wrap("status", scalar(value));
    case Type::kRewriteTo: return wrap("path", scalar(value));
    case Type::kTimeoutPolicy: return wrap("total", scalar(value));
    case Type::kHedgePolicy: return wrap("after", scalar(value));
    case Type::kHealthTo: return value.is_false() ? scalar(value) : wrap("probe", scalar(value));
    case Type::kRetryPolicy:
      return wrap("attempts", value.is_false() ? scalar("0", false, value.mark()) : scalar(value));
    default: return scalar(value, rule.type);
  }
}

Long long_form(const Value& value, const Key& rule) {
  switch (rule.type) {
    case Type::kTexts:
    case Type::kWords:
    case Type::kCidrs:
    case Type::kHosts:
    case Type::kPathMatches:
    case Type::kMethods:
    case Type::kStatuses:
    case Type::kRetryWhen: return list_of_scalars(value);
    case Type::kEndpoints: return endpoints(value);
    case Type::kMatches: return matches(value);
    default: break;
  }
  if (value.is_scalar() && value.node().reference)
    return scalar(value, rule.type);  // what it says is not known here
  if (value.is_scalar()) return shorthand(value, rule);
  if (value.is_list() && rule.type == Type::kTextsOrMaps) {
    Long out = collection(Long::Kind::kList, value.mark());
    for (std::uint32_t i = 0; i < value.items(); ++i) out.add({}, long_form(value.item(i), rule));
    return out;
  }
  const std::span<const Key> keys = value.reading().keys.below(rule);
  if (keys.empty() || rule.type == Type::kTargets) return texts(value);
  return section(value, keys);
}

Long service(const Value& value) {
  if (value.is_map()) return section(value, Section::kService);
  return wrap("endpoints", endpoints(value));
}

class Writer {
 public:
  Writer(const Draft& draft, bool origins) : draft_(draft), origins_(origins) {}

  void entry(std::size_t indent, std::string_view name, const Long& value) {
    std::string head = plain(name) ? std::string(name) : in_quotes(name);
    head += ':';
    if (value.kind != Long::Kind::kScalar && !value.children.empty()) {
      line(indent, head, {});
      return children(indent + 2, value);
    }
    line(indent,
         head + ' ' +
             (value.kind == Long::Kind::kScalar ? value.text
              : value.kind == Long::Kind::kList ? "[]"
                                                : "{}"),
         value.mark);
  }

  std::string take() { return std::move(out_); }

 private:
  void children(std::size_t indent, const Long& value) {
    for (const Long& child : value.children) {
      if (value.kind == Long::Kind::kMap) {
        entry(indent, child.name, child);
      } else if (child.kind == Long::Kind::kScalar) {
        line(indent, "- " + child.text, child.mark);
      } else if (child.children.empty()) {
        line(indent, child.kind == Long::Kind::kList ? "- []" : "- {}", child.mark);
      } else {
        const std::size_t start = out_.size();
        children(indent + 2, child);
        out_[start + indent] = '-';  // the first line is indented by two more
      }
    }
  }

  void line(std::size_t indent, std::string_view text, const Mark& mark) {
    out_.append(indent, ' ').append(text);
    if (origins_ && !mark.built_in())
      out_ += "  # " + draft_.source_of(mark)->name + ":" + std::to_string(mark.line);
    out_ += '\n';
  }

  const Draft& draft_;
  bool origins_;
  std::string out_;
};

// What all documents say under one key, which unites or stands in one of them alone.
Long united(const Draft& draft, const Key& key) {
  Long out = collection(key.type == Type::kRoutes ? Long::Kind::kList : Long::Kind::kMap, {});
  for (const Top& top : draft.tops) {
    if (key.name == "listeners")
      if (const auto listen = top.map["listen"])
        out.add("main", wrap("address", scalar(*listen, Type::kAddress)));
    const auto value = top.map[key.name];
    if (!value) continue;
    for (std::uint32_t i = 0; i < (value->is_list() ? value->items() : value->entries()); ++i) {
      const Value one = value->is_list() ? value->item(i) : value->entry(i);
      out.add(one.name(), key.type == Type::kServices ? service(one) : section(one, key.of));
    }
  }
  return out;
}

}  // namespace

std::string expand(const Draft& draft, bool origins) {
  Writer writer(draft, origins);
  for (const Key& key : draft.keys.of(Section::kTop)) {
    if (key.name == "include" || key.name == "listen") continue;
    if (key.type == Type::kNamed || key.type == Type::kServices || key.type == Type::kRoutes) {
      const Long all = united(draft, key);
      if (!all.children.empty()) writer.entry(0, key.name, all);
      continue;
    }
    for (const Top& top : draft.tops) {
      const auto value = top.map[key.name];
      if (!value) continue;
      writer.entry(0, key.name, long_form(*value, key));
      if (key.name == "outrider") break;
    }
  }
  return writer.take();
}

}  // namespace outrider::config
