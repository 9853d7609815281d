// Walks the example that uses every supported key (full.yaml) and breaks it in one place at a time:
// each key renamed, each value of another type, each required key gone. Every break must be named
// on its line. And the example must use every key.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>

#include "config/keys.h"
#include "config/load.h"
#include "config/yaml.h"
#include "filters/registry.h"
#include "tests/unit/config/folder.h"

namespace outrider::config {
namespace {

const std::filesystem::path kFolder = OUTRIDER_SOURCE_DIR "/tests/unit/config";

const Keys kKeys(filter_keys());

// A document that can be changed and printed, one key or item a line.
struct Item {
  yaml::Kind kind = yaml::Kind::kScalar;
  std::string text;
  std::vector<std::string> keys;  // of a map
  std::vector<Item> children;
  std::span<const Key> rules;  // what its keys mean; none: they are names
  const Key* rule = nullptr;
  std::size_t line = 0;  // when printed last
};

void annotate(Item& item, const Key* rule);

void annotate_map(Item& item, std::span<const Key> rules) {
  if (item.kind != yaml::Kind::kMap) return;
  item.rules = rules;
  for (std::size_t i = 0; i < item.keys.size(); ++i)
    annotate(item.children[i], find_key(rules, item.keys[i]));
}

// Finds the section of every map by the table, as the reader does.
void annotate(Item& item, const Key* rule) {
  item.rule = rule;
  if (rule == nullptr || kKeys.below(*rule).empty()) return;
  const bool each = rule->type == Type::kNamed || rule->type == Type::kServices ||
                    rule->type == Type::kRoutes || item.kind == yaml::Kind::kSequence;
  if (!each) return annotate_map(item, kKeys.below(*rule));
  for (Item& child : item.children) {
    annotate_map(child, kKeys.below(*rule));
    if (child.kind == yaml::Kind::kScalar && rule->type == Type::kServices) child.rule = rule;
  }
}

Item copy(const yaml::Tree& tree, const yaml::Node& node) {
  Item item;
  item.kind = node.kind;
  item.text = node.text;
  for (std::uint32_t i = 0; i < node.count; ++i) {
    if (node.kind == yaml::Kind::kMap) item.keys.emplace_back(tree.key(node, i).text);
    item.children.push_back(
        copy(tree, node.kind == yaml::Kind::kMap ? tree.value(node, i) : tree.items(node)[i]));
  }
  return item;
}

std::string in_quotes(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + "\"";
}

void print(Item& item, const std::string& indent, std::string& out, std::size_t& line) {
  for (std::size_t i = 0; i < item.children.size(); ++i) {
    Item& child = item.children[i];
    child.line = ++line;
    out += indent + (item.kind == yaml::Kind::kMap ? in_quotes(item.keys[i]) + ":" : "-");
    if (child.kind == yaml::Kind::kScalar) {
      // Flow collections stand in `text` when the break put them there.
      out += " " + (child.text.rfind("{zz", 0) == 0 ? child.text : in_quotes(child.text)) + "\n";
    } else if (child.children.empty()) {
      out += child.kind == yaml::Kind::kMap ? " {}\n" : " []\n";
    } else {
      out += "\n";
      print(child, indent + "  ", out, line);
    }
  }
}

class Mutation : public ::testing::Test {
 protected:
  void SetUp() override {
    before_ = std::filesystem::current_path();
    std::filesystem::current_path(kFolder);
    Source source;
    source.name = "full.yaml";
    std::ifstream in("full.yaml");
    std::stringstream text;
    text << in.rdbuf();
    source.text = text.str();
    Diagnostics diagnostics;
    yaml::Tree tree;
    ASSERT_TRUE(yaml::parse(source, diagnostics, tree));
    root_ = copy(tree, tree.root(tree.documents()[0]));
    annotate_map(root_, kKeys.of(Section::kTop));
  }
  void TearDown() override { std::filesystem::current_path(before_); }

  std::string printed() {
    std::string out;
    std::size_t line = 0;
    print(root_, "", out, line);
    return out;
  }

  // Loads what stands now and demands an error on `line`.
  void expect_error(const std::function<std::size_t()>& line, const std::string& what) {
    ++breaks_;
    const std::string text = printed();
    const Loaded loaded = load_text("full.yaml", text, {.extensions = filter_keys()});
    EXPECT_EQ(loaded.config, nullptr) << what;
    for (const Diagnostic& found : loaded.diagnostics)
      if (found.severity == Severity::kError && found.line == line()) return;
    std::string all;
    for (const Diagnostic& found : loaded.diagnostics) all += render(found);
    ADD_FAILURE() << what << ": nothing on line " << line() << " but\n" << all;
  }

  void walk(Item& item, const std::string& path,
            const std::function<void(Item& parent, std::size_t, const std::string&)>& visit) {
    for (std::size_t i = 0; i < item.children.size(); ++i) {
      const std::string name = item.kind == yaml::Kind::kMap ? item.keys[i] : std::to_string(i);
      if (name.rfind("x-shared", 0) == 0) continue;
      visit(item, i, path + "/" + name);
      walk(item.children[i], path + "/" + name, visit);
    }
  }

  std::filesystem::path before_;
  Item root_;
  std::size_t breaks_ = 0;
};

TEST_F(Mutation, TheExampleLoadsAndUsesEveryKey) {
  const Loaded loaded = load_text("full.yaml", printed(), {.extensions = filter_keys()});
  for (const Diagnostic& found : loaded.diagnostics) ADD_FAILURE() << render(found);
  ASSERT_NE(loaded.config, nullptr);
  std::set<const Key*> used;
  walk(root_, "", [&](Item& parent, std::size_t i, const std::string&) {
    if (!parent.rules.empty()) used.insert(find_key(parent.rules, parent.keys[i]));
  });
  for (std::size_t section = 1; section < kSections; ++section)
    for (const Key& key : kKeys.of(static_cast<Section>(section))) {
      // Policies share their rows with routes, so the example need not repeat all of them.
      if (key.type == Type::kLater || key.in == Section::kPolicy) continue;
      EXPECT_TRUE(used.count(&key)) << "section " << section << ": " << key.name;
      for (const Key& field : key.fields)
        EXPECT_TRUE(field.type == Type::kLater || used.count(&field))
            << key.name << "." << field.name;
    }
}

TEST_F(Mutation, EveryRenamedKeyIsNamed) {
  walk(root_, "", [&](Item& parent, std::size_t i, const std::string& path) {
    if (parent.rules.empty()) return;
    const std::string key = parent.keys[i];
    parent.keys[i] = key + "_zz";
    expect_error([&] { return parent.children[i].line; }, "renamed " + path);
    parent.keys[i] = key;
  });
  EXPECT_GT(breaks_, 120U);
}

TEST_F(Mutation, EveryValueOfAnotherTypeIsNamed) {
  walk(root_, "", [&](Item& parent, std::size_t i, const std::string& path) {
    const Item value = parent.children[i];
    Item other;
    other.text = value.kind == yaml::Kind::kMap ? "zz zz" : "{zz: {zz: zz}}";
    parent.children[i] = other;
    expect_error([&] { return parent.children[i].line; }, "retyped " + path);
    parent.children[i] = value;
  });
  EXPECT_GT(breaks_, 180U);
}

TEST_F(Mutation, EveryMissingRequiredKeyIsNamedOnItsParent) {
  std::size_t top = 1;
  walk(root_, "", [&](Item& parent, std::size_t i, const std::string& path) {
    for (std::size_t k = 0; k < parent.children[i].keys.size(); ++k) {
      Item& map = parent.children[i];
      const Key* key = find_key(map.rules, map.keys[k]);
      const bool action =
          key != nullptr && key->in == Section::kRoute &&
          (map.keys[k] == "to" || map.keys[k] == "redirect" || map.keys[k] == "respond");
      if (key == nullptr || (!key->required && !action)) continue;
      const Item whole = map;
      map.keys.erase(map.keys.begin() + static_cast<std::ptrdiff_t>(k));
      map.children.erase(map.children.begin() + static_cast<std::ptrdiff_t>(k));
      // An item of a list begins on the line of its first key.
      const bool item = parent.kind == yaml::Kind::kSequence;
      expect_error([&] { return parent.children[i].line + (item ? 1U : 0U); },
                   "deleted " + path + "/" + whole.keys[k]);
      map = whole;
    }
  });
  root_.keys.erase(root_.keys.begin());
  root_.children.erase(root_.children.begin());
  expect_error([&] { return top; }, "deleted outrider");
  EXPECT_GT(breaks_, 8U);
}

TEST_F(Mutation, EveryReservedKeyIsRefusedWhereverItMayStand) {
  walk(root_, "", [&](Item& parent, std::size_t i, const std::string& path) {
    Item& map = parent.children[i];
    if (map.rules.empty()) return;
    for (const Key& key : map.rules) {
      if (key.type != Type::kLater) continue;
      map.keys.emplace_back(key.name);
      map.children.push_back(Item{});
      const Loaded loaded = load_text("full.yaml", printed(), {.extensions = filter_keys()});
      bool refused = false;
      for (const Diagnostic& found : loaded.diagnostics)
        refused = refused ||
                  (found.line == map.children.back().line && found.code == "not-supported-yet" &&
                   found.text.find("not supported yet") != std::string::npos);
      EXPECT_TRUE(refused) << path << "/" << key.name;
      EXPECT_EQ(loaded.config, nullptr);
      map.keys.pop_back();
      map.children.pop_back();
    }
  });
}

}  // namespace
}  // namespace outrider::config
