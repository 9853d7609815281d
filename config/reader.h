// Reads the positioned tree by the table of keys: a Value is one place in the tree and how it was
// reached, a Map is a map whose keys have been checked. Nothing throws or stops: what is wrong is
// reported, the rest is read on. A Value holds a pointer to its parent Value (for the path in
// messages), which must outlive it.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.h"
#include "config/grammar.h"
#include "config/keys.h"
#include "config/yaml.h"

namespace outrider::config {

// One document's surroundings.
struct Reading {
  Source& source;
  yaml::Tree& tree;
  Diagnostics& diagnostics;
  const Keys& keys;
  std::deque<std::string> texts;  // resolved references
};

class Value {
 public:
  Value(Reading& reading, const yaml::Node& node) : reading_(&reading), node_(&node) {}

  const yaml::Node& node() const { return *node_; }
  Reading& reading() const { return *reading_; }
  std::string_view name() const { return name_; }
  bool is_map() const { return node_->kind == yaml::Kind::kMap; }
  bool is_list() const { return node_->kind == yaml::Kind::kSequence; }
  bool is_scalar() const { return node_->kind == yaml::Kind::kScalar; }
  bool is_null() const { return node_->kind == yaml::Kind::kNull; }  // reported already
  Mark mark() const { return {reading_->source.index, node_->line, node_->column}; }
  Mark key_mark() const;  // of the key it stands behind, else its own
  std::string path() const;
  std::string shown() const;  // as written, references unresolved, quoted

  void error(std::string_view code, std::string text, std::string_view suggestion = {}) const;
  void error_at_key(std::string_view code, std::string text,
                    std::string_view suggestion = {}) const;
  void warn(std::string_view code, std::string text) const;  // at its key
  void fail(const Problem& problem) const;                   // `'x' is not a port`
  void wrong_type(std::string_view expected) const;
  // Refuses a map or list where a scalar is wanted.
  std::optional<std::string_view> text(std::string_view expected = "text") const;
  // `false`, for keys that may be switched off.
  bool is_false() const;

  // A list's items, or the value itself where one may stand for a list of one.
  std::uint32_t items() const { return is_list() ? node_->count : 1; }
  Value item(std::uint32_t index) const;
  std::uint32_t entries() const { return is_map() ? node_->count : 0; }
  Value entry(std::uint32_t index) const;

  bool read(bool& out) const;
  bool read_number(std::int64_t& out, std::int64_t min, std::int64_t max) const;
  bool read(Millis& out, bool or_false) const;
  bool read_size(std::uint64_t& out, std::int64_t max) const;
  // The index of the word, of those that are supported.
  std::optional<std::size_t> word(std::string_view words) const;
  template <class T>
  bool parse(Problem (*grammar)(std::string_view, T&), T& out,
             std::string_view expected = "text") const {
    const auto scalar = text(expected);
    if (!scalar) return false;
    const Problem problem = grammar(*scalar, out);
    if (problem) fail(problem);
    return !problem;
  }
  bool check(Problem (*grammar)(std::string_view), std::string_view text) const;

 private:
  friend class Map;
  void report(Place place, Severity severity, std::string_view code, std::string text,
              std::string_view suggestion) const;

  Reading* reading_;
  const yaml::Node* node_;
  const yaml::Node* key_ = nullptr;
  const Value* parent_ = nullptr;
  std::string_view name_;    // of an entry
  std::int64_t index_ = -1;  // of an item
};

// A map read by one section of the table. Unknown, reserved and missing keys are reported by the
// constructor.
class Map {
 public:
  Map(const Value& map, Section section);
  Map(const Value& map, const Key& rule);  // of the fields of an extension
  explicit operator bool() const { return map_ != nullptr; }
  Extensions extensions() const { return map_->reading().keys.extensions(); }
  std::optional<Value> operator[](std::string_view name) const;

  // Each reads the key if it stands there; true when a value was read. Bounds come from the table.
  bool get(std::string_view name, bool& out) const;
  bool get(std::string_view name, Millis& out) const;
  bool get_size(std::string_view name, std::uint64_t& out) const;
  bool get_number(std::string_view name, std::int64_t& out) const;
  template <class T>
  bool get_count(std::string_view name, T& out) const {
    std::int64_t number = 0;
    if (!get_number(name, number)) return false;
    out = static_cast<T>(number);
    return true;
  }
  std::optional<std::size_t> get_word(std::string_view name) const;
  bool get_text(std::string_view name, std::string& out) const;
  template <class T>
  bool get(std::string_view name, T& out, Problem (*grammar)(std::string_view, T&)) const {
    const auto value = (*this)[name];
    return value && value->parse(grammar, out);
  }
  // The same with the place, for leaves that inherit.
  template <class T>
  void leaf(std::string_view name, Maybe<T>& out) const {
    T value{};
    if (get(name, value)) out = Leaf<T>{std::move(value), (*this)[name]->mark()};
  }
  template <class T>
  void leaf(std::string_view name, Maybe<T>& out, Problem (*grammar)(std::string_view, T&)) const {
    T value{};
    if (get(name, value, grammar)) out = Leaf<T>{std::move(value), (*this)[name]->mark()};
  }

 private:
  const Key& rule(std::string_view name) const { return *find_key(keys_, name); }
  void check();
  void check_key(std::uint32_t entry);
  void check_required() const;

  const Value* map_;
  Section section_;
  std::span<const Key> keys_;
};

// `did you mean` over keys.
std::string_view nearest_key(std::span<const Key> keys, std::string_view wrong);

}  // namespace outrider::config
