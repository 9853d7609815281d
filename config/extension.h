// Keys of policies that config does not know by itself: whoever acts on one, a filter, says here
// how it is written, read and inherited, and the loader is given the list. The settings are a
// struct of leaves (Maybe<>); extension_of<Settings> makes the rest of it.
#pragma once

#include <memory>
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

struct ShownLeaf {
  std::string name;  // `cors.origins`
  Shown value;
  Mark mark;
};

struct Extension {
  Key key;  // its row among the keys of a policy
  std::shared_ptr<const void> (*read)(const Value& value);
  // `level` and what it does not say itself, from `from`.
  std::shared_ptr<const void> (*inherit)(const void* level, const void* from);
  void (*show)(const void* settings, std::vector<ShownLeaf>& out);
  bool upstream;  // has no effect where nothing is forwarded
};

// Settings:
//   static constexpr Key kKey = {.in = Section::kPolicy, .name = …, …};  `fields`: of its long form
//   static constexpr bool kUpstream = …;
//   static void read(const Value& value, Settings& out);    reports what is wrong
//   static auto leaves(auto& self) { return std::tie(self.a, self.b); }   in the order of the
//   fields
// and where a level adds to what the others say: void inherit(const Settings& from).
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
inline constexpr Extension extension_of{Settings::kKey, read_settings<Settings>,
                                        inherit_settings<Settings>, show_settings<Settings>,
                                        Settings::kUpstream};

// What a policy says of it; null: nothing.
template <class Settings>
const Settings* told(const Policy& policy) {
  for (const auto& [extension, settings] : policy.told)
    if (extension == &extension_of<Settings>) return static_cast<const Settings*>(settings.get());
  return nullptr;
}

}  // namespace outrider::config
