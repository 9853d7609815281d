// Keys of policies that config does not know by itself: whoever acts on one, a filter, says here
// how it is written, read and inherited, and the loader is given the list. The settings are a
// struct of leaves (Maybe<>); extension_of<Settings> makes the rest of it.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "config/model.h"
#include "config/reader.h"

namespace outrider::config {

// A leaf as `explain` shows it.
struct Shown {
  std::vector<std::string> values;
  bool list = false;
};
Shown shown(bool value);
Shown shown(unsigned value);
Shown shown(Millis value);
Shown shown(std::uint64_t bytes);
Shown shown(double share);
Shown shown(const std::string& text);
Shown shown(const std::vector<std::string>& texts);
Shown shown(const std::vector<NamedMatch>& values);

struct ShownLeaf {
  std::string name;  // `cors.origins`
  Shown value;
  Mark mark;
};

// What the router has to know of settings before any filter runs.
struct Traits {
  bool guards = false;      // an access rule: no path that can be read in two ways goes past it
  bool preflights = false;  // answers a browser's preflight for the requests the route takes
  std::string_view secret_parameter = {};  // of the query, whose value no log may show
};

// Something wrong that only the settings as inherited show.
struct Finding {
  Mark mark;  // built in: of the route
  std::string text;
  std::string code;
};

struct Extension {
  Key key;  // its row among the keys of a policy
  std::shared_ptr<const void> (*read)(const Value& value);
  // `level` and what it does not say itself, from `from`.
  std::shared_ptr<const void> (*inherit)(const void* level, const void* from);
  void (*show)(const void* settings, std::vector<ShownLeaf>& out);
  bool upstream;  // has no effect where nothing is forwarded
  // Of what a route inherits in the end.
  void (*check)(const void* effective, std::vector<Finding>& out);
  Traits (*traits)(const void* effective);
};

// Settings:
//   static constexpr Key kKey = {.in = Section::kPolicy, .name = …, …};  `fields`: of its long form
//   static constexpr bool kUpstream = …;
//   static void read(const Value& value, Settings& out);    reports what is wrong
//   static auto leaves(auto& self) { return std::tie(self.a, self.b); }   in the order of the
//   fields
// and where there is need:
//   void inherit(const Settings& from);                       a level adds to what others say
//   void check(std::vector<Finding>& out) const;              of what a route inherits in the end
//   Traits traits() const;
template <class Settings>
std::shared_ptr<const void> read_settings(const Value& value) {
  auto out = std::make_shared<Settings>();
  Settings::read(value, *out);
  return out;
}

template <class Settings>
std::shared_ptr<const void> inherit_settings(const void* level, const void* from) {
  auto out = std::make_shared<Settings>(*static_cast<const Settings*>(level));
  const Settings& farther = *static_cast<const Settings*>(from);
  if constexpr (requires { out->inherit(farther); }) {
    out->inherit(farther);
  } else {
    auto mine = Settings::leaves(*out);
    auto theirs = Settings::leaves(farther);
    [&]<std::size_t... kAt>(std::index_sequence<kAt...>) {
      ((std::get<kAt>(mine) = std::get<kAt>(mine) ? std::get<kAt>(mine) : std::get<kAt>(theirs)),
       ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(mine)>>());
  }
  return out;
}

template <class Settings>
void show_settings(const void* settings, std::vector<ShownLeaf>& out) {
  const Key& key = Settings::kKey;
  std::size_t at = 0;
  const bool whole = key.type == Type::kTextsOrMaps;  // a list is one leaf
  const auto one = [&](const auto& leaf) {
    std::string name(key.name);
    if (!whole && !key.fields.empty()) name.append(".").append(key.fields[at++].name);
    if (leaf) out.push_back({std::move(name), shown(leaf->value), leaf->mark});
  };
  std::apply([&](const auto&... leaf) { (one(leaf), ...); },
             Settings::leaves(*static_cast<const Settings*>(settings)));
}

template <class Settings>
void check_settings(const void* effective, std::vector<Finding>& out) {
  if constexpr (requires(const Settings& settings) { settings.check(out); })
    static_cast<const Settings*>(effective)->check(out);
}

template <class Settings>
Traits traits_of(const void* effective) {
  if constexpr (requires(const Settings& settings) { settings.traits(); })
    return static_cast<const Settings*>(effective)->traits();
  return {};
}

template <class Settings>
inline constexpr Extension extension_of{
    Settings::kKey,          read_settings<Settings>, inherit_settings<Settings>,
    show_settings<Settings>, Settings::kUpstream,     check_settings<Settings>,
    traits_of<Settings>};

// What a policy says of it; null: nothing.
template <class Settings>
const Settings* told(const Policy& policy) {
  for (const auto& [extension, settings] : policy.told)
    if (extension == &extension_of<Settings>) return static_cast<const Settings*>(settings.get());
  return nullptr;
}

// Of all extensions together.
Traits traits_of(const Policy& policy);

// Readers of what several keys hold.
// Host, path, method, headers, query, cookies and client_ip, as far as the map may have them; lists
// of hosts and paths make several.
void read_match(const Value& at, const Map& map, std::vector<Match>& out);
std::vector<Cidr> read_cidrs(const Value& value);
std::vector<std::string> read_texts(const Value& value, Problem (*check)(std::string_view),
                                    std::string_view expected);
// A file that the value names, relative to the one that says it.
struct NamedFile {
  std::string name;  // as written
  std::string text;
};
std::optional<NamedFile> read_named_file(const Value& value, std::size_t limit);
// `each(line, number)` for the lines that are neither empty nor a comment (`#`); without white
// space at the ends.
template <class Each>
void each_line(std::string_view text, Each&& each) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    while (!line.empty() && line.find_last_of(" \t\r") == line.size() - 1) line.remove_suffix(1);
    while (!line.empty() && line.find_first_of(" \t") == 0) line.remove_prefix(1);
    if (!line.empty() && line.front() != '#') each(line, number);
  }
}

}  // namespace outrider::config
