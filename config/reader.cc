// See reader.h.
#include "config/reader.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "config/yaml_text.h"

namespace outrider::config {
namespace {

constexpr std::size_t kShownBytes = 80;

std::string_view kind_of(const yaml::Node& node) {
  switch (node.kind) {
    case yaml::Kind::kMap: return "a map";
    case yaml::Kind::kSequence: return "a list";
    case yaml::Kind::kScalar: return "text";
    case yaml::Kind::kNull: break;
  }
  return "null";
}

bool name_char(char c, bool first) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
         (!first && c >= '0' && c <= '9');
}

// `${NAME}` and `${NAME:-default}` in `text`; `$${` is a literal `${`. What is wrong, or nothing.
Problem resolve(std::string_view text, std::string& out) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    if (rest.starts_with("$${")) {
      out += "${";
      i += 2;
      continue;
    }
    if (!rest.starts_with("${")) {
      out += text[i];
      continue;
    }
    const std::size_t end = rest.find('}');
    if (end == std::string_view::npos)
      return {"has a '${' without its '}'; '$${' is a literal one", "env-syntax", {}};
    const std::string_view inside = rest.substr(2, end - 2);
    const std::size_t dash = inside.find(":-");
    const std::string name(inside.substr(0, dash));
    bool good = !name.empty();
    for (std::size_t k = 0; k < name.size(); ++k) good = good && name_char(name[k], k == 0);
    if (!good)
      return {"has a '${' that begins no ${NAME} or ${NAME:-default}; '$${' is a literal one",
              "env-syntax",
              {}};
    const char* value = std::getenv(name.c_str());
    if (value == nullptr && dash == std::string_view::npos)
      return {"needs the environment variable " + name + ", which is not set: set it, or write ${" +
                  name + ":-default}",
              "env-unset",
              {}};
    if (value != nullptr && !yaml::is_utf8(value))
      return {"needs the environment variable " + name + ", whose value is not UTF-8",
              "env-encoding",
              {}};
    if (value != nullptr)
      out += value;
    else
      out += inside.substr(dash + 2);
    i += end;
  }
  return {};
}

}  // namespace

Mark Value::key_mark() const {
  if (key_ == nullptr) return mark();
  return {reading_->source.index, key_->line, key_->column};
}

std::string Value::path() const {
  std::string out = parent_ != nullptr ? parent_->path() : std::string();
  if (index_ >= 0) return out + '[' + std::to_string(index_) + ']';
  if (!out.empty() && !name_.empty()) out += '.';
  return out.append(name_);
}

std::string Value::shown() const {
  if (!is_scalar()) return std::string(kind_of(*node_));
  std::size_t size = std::min(node_->text.size(), kShownBytes);
  while (size < node_->text.size() &&
         (static_cast<unsigned char>(node_->text[size]) & 0xC0) == 0x80)
    --size;  // not inside a character
  std::string out = "'" + std::string(node_->text.substr(0, size));
  if (size < node_->text.size()) out += "…";
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return out + "'";
}

void Value::report(Place place, Severity severity, std::string_view code, std::string text,
                   std::string_view suggestion) const {
  reading_->diagnostics.add({&reading_->source, place, severity, path(), std::move(text),
                             std::string(code), std::string(suggestion)});
}

void Value::error(std::string_view code, std::string text, std::string_view suggestion) const {
  report(node_->place(), Severity::kError, code, std::move(text), suggestion);
}

void Value::error_at_key(std::string_view code, std::string text,
                         std::string_view suggestion) const {
  report(key_ != nullptr ? key_->place() : node_->place(), Severity::kError, code, std::move(text),
         suggestion);
}

void Value::warn(std::string_view code, std::string text) const {
  report(key_ != nullptr ? key_->place() : node_->place(), Severity::kWarning, code,
         std::move(text), {});
}

void Value::fail(const Problem& problem) const {
  error(problem.code, shown() + " " + problem.text, problem.suggestion);
}

void Value::wrong_type(std::string_view expected) const {
  if (is_null()) return;
  error("wrong-type",
        "expected " + std::string(expected) + ", not " + std::string(kind_of(*node_)));
}

std::optional<std::string_view> Value::text(std::string_view expected) const {
  if (!is_scalar()) {
    wrong_type(expected);
    return std::nullopt;
  }
  if (!node_->reference) return node_->text;
  std::string& resolved = reading_->texts.emplace_back();
  if (const Problem problem = resolve(node_->text, resolved)) {
    fail(problem);
    return std::nullopt;
  }
  return resolved;
}

bool Value::is_false() const {
  if (!is_scalar()) return false;
  if (!node_->reference) return node_->text == "false";
  std::string resolved;
  return !resolve(node_->text, resolved) && resolved == "false";
}

Value Value::item(std::uint32_t index) const {
  if (!is_list()) return *this;
  Value out(*reading_, reading_->tree.items(*node_)[index]);
  out.parent_ = this;
  out.index_ = index;
  return out;
}

Value Value::entry(std::uint32_t index) const {
  Value out(*reading_, reading_->tree.value(*node_, index));
  out.key_ = &reading_->tree.key(*node_, index);
  out.parent_ = this;
  out.name_ = out.key_->text;
  return out;
}

bool Value::read(bool& out) const {
  const auto scalar = text("true or false");
  if (!scalar) return false;
  if (*scalar != "true" && *scalar != "false") {
    fail({"is not true or false", "wrong-type", {}});
    return false;
  }
  out = *scalar == "true";
  return true;
}

bool Value::read_number(std::int64_t& out, std::int64_t min, std::int64_t max) const {
  const auto scalar = text("a number");
  if (!scalar) return false;
  const Problem problem = parse_integer(*scalar, min, max, out);
  if (problem) fail(problem);
  return !problem;
}

bool Value::read(Millis& out, bool or_false) const {
  const auto scalar = text("a duration");
  if (!scalar) return false;
  if (or_false && *scalar == "false") {
    out = Millis(0);
    return true;
  }
  const Problem problem = parse_duration(*scalar, out);
  if (problem) fail(problem);
  return !problem;
}

bool Value::read_size(std::uint64_t& out, std::int64_t max) const {
  const auto scalar = text("a size");
  if (!scalar) return false;
  std::uint64_t size = 0;
  Problem problem = parse_size(*scalar, size);
  if (!problem && size > static_cast<std::uint64_t>(max))
    problem = {"is too large", "out-of-range", {}};
  if (problem) {
    fail(problem);
    return false;
  }
  out = size;
  return true;
}

std::optional<std::size_t> Value::word(std::string_view words) const {
  const std::string_view supported = words.substr(0, words.find("||"));
  std::string list;
  for (const char c : supported) list += c == '|' ? std::string(", ") : std::string(1, c);
  const auto scalar = text(supported.find('|') == std::string_view::npos ? list : "one of " + list);
  if (!scalar) return std::nullopt;
  std::vector<std::string_view> known;
  bool later = false;
  for (std::size_t index = 0; !words.empty();) {
    const std::size_t bar = words.find('|');
    const std::string_view word = words.substr(0, bar);
    words.remove_prefix(bar == std::string_view::npos ? words.size() : bar + 1);
    if (word.empty()) {
      later = true;
      continue;
    }
    if (word == *scalar && later) {
      fail({"is not supported yet", kNotYet, {}});
      return std::nullopt;
    }
    if (word == *scalar) return index;
    known.push_back(word);
    ++index;
  }
  fail({known.size() > 1 ? "is none of " + list : "is not " + list, "bad-value",
        std::string(nearest(*scalar, known))});
  return std::nullopt;
}

bool Value::check(Problem (*grammar)(std::string_view), std::string_view text) const {
  const Problem problem = grammar(text);
  if (problem) fail(problem);
  return !problem;
}

std::string_view nearest_key(std::span<const Key> keys, std::string_view wrong) {
  std::vector<std::string_view> names;
  for (const Key& key : keys) names.push_back(key.name);
  return nearest(wrong, names);
}

Map::Map(const Value& map, Section section)
    : map_(&map), section_(section), keys_(map.reading().keys.of(section)) {
  check();
}

Map::Map(const Value& map, const Key& rule)
    : map_(&map), section_(Section::kNone), keys_(rule.fields) {
  check();
}

void Map::check() {
  if (!map_->is_map()) {
    std::exchange(map_, nullptr)->wrong_type("a map");
    return;
  }
  for (std::uint32_t i = 0; i < map_->entries(); ++i) check_key(i);
  check_required();
}

void Map::check_key(std::uint32_t entry) {
  const Value value = map_->entry(entry);
  const Key* key = find_key(keys_, value.name());
  if (key == nullptr) {
    if (section_ == Section::kTop && value.name().starts_with("x-")) return;
    const bool trap = !value.key_->quoted && (value.name() == "<<" || value.name().empty());
    if (trap || value.is_null()) return;  // reported already
    const bool of_route = section_ == Section::kPolicy || section_ == Section::kService ||
                          section_ == Section::kDefaultService;
    if (of_route && value.reading().keys.find(Section::kRoute, value.name()) != nullptr)
      value.error_at_key("unknown-key", "unknown key: it stands on a route");
    else
      value.error_at_key("unknown-key", "unknown key", nearest_key(keys_, value.name()));
  } else if (key->type == Type::kLater) {
    value.error_at_key(kNotYet, "not supported yet");
  }
}

void Map::check_required() const {
  for (const Key& key : keys_) {
    if (!key.required) continue;
    if (!(*this)[key.name])
      map_->error_at_key("missing-key", "needs the key '" + std::string(key.name) + "'");
  }
}

std::optional<Value> Map::operator[](std::string_view name) const {
  if (map_ == nullptr) return std::nullopt;
  for (std::uint32_t i = 0; i < map_->entries(); ++i)
    if (map_->reading().tree.key(map_->node(), i).text == name) {
      if (find_key(keys_, name) == nullptr) return std::nullopt;  // reported as unknown here
      return map_->entry(i);
    }
  return std::nullopt;
}

bool Map::get(std::string_view name, bool& out) const {
  const auto value = (*this)[name];
  return value && value->read(out);
}

bool Map::get(std::string_view name, Millis& out) const {
  const auto value = (*this)[name];
  return value && value->read(out, rule(name).or_false);
}

bool Map::get_size(std::string_view name, std::uint64_t& out) const {
  const auto value = (*this)[name];
  return value && value->read_size(out, rule(name).max);
}

bool Map::get_number(std::string_view name, std::int64_t& out) const {
  const auto value = (*this)[name];
  const Key& key = rule(name);
  return value && value->read_number(out, key.min, key.max);
}

std::optional<std::size_t> Map::get_word(std::string_view name) const {
  const auto value = (*this)[name];
  if (!value) return std::nullopt;
  return value->word(rule(name).words);
}

bool Map::get_text(std::string_view name, std::string& out) const {
  const auto value = (*this)[name];
  if (!value) return false;
  const auto scalar = value->text();
  if (!scalar) return false;
  out = *scalar;
  return true;
}

}  // namespace outrider::config
