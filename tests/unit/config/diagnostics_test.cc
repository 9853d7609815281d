#include "config/diagnostics.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/keys.h"
#include "config/load.h"
#include "filters/registry.h"

namespace outrider::config {
namespace {

TEST(Diagnostics, ReadLikeACompilers) {
  const Loaded loaded = load_text(
      "edge.yaml",
      "outrider: v1\nlisten: 8080\nservces: { web: 3000 }\nroutes: [{ respond: 404, retry: 2 }]\n");
  ASSERT_EQ(loaded.diagnostics.size(), 2U);
  EXPECT_EQ(render(loaded.diagnostics[0]),
            "edge.yaml:3:1: error: servces: unknown key [unknown-key]\n"
            "    servces: { web: 3000 }\n"
            "    ^\n"
            "    did you mean 'services'?\n");
  EXPECT_EQ(render(loaded.diagnostics[1]),
            "edge.yaml:4:26: warning: routes[0].retry: has no effect beside `respond`: nothing "
            "goes upstream [no-effect]\n"
            "    routes: [{ respond: 404, retry: 2 }]\n"
            "                             ^\n");
}

TEST(Diagnostics, TheCaretStandsUnderTabsAndWideText) {
  const Loaded loaded = load_text(
      "edge.yaml", "outrider: v1\nlisten: 8080\nroutes: [{\tname: \"ü\",\trespond: x }]\n");
  ASSERT_EQ(loaded.diagnostics.size(), 1U);
  EXPECT_EQ(render(loaded.diagnostics[0]),
            "edge.yaml:3:33: error: routes[0].respond: 'x' is not a whole number [wrong-type]\n"
            "    routes: [{\tname: \"ü\",\trespond: x }]\n"
            "              \t          \t         ^\n");
}

TEST(Diagnostics, LongLinesAreCutAroundTheColumn) {
  const Loaded loaded =
      load_text("edge.yaml", "outrider: v1\nlisten: 8080\nx-a: [" + std::string(5000, 'x') +
                                 ", ~, " + std::string(5000, 'y') + "]\nroutes: []\n");
  const Diagnostic& found = loaded.diagnostics.back();
  EXPECT_EQ(found.column, 5009U);
  EXPECT_LT(found.source.size(), 200U);
  const std::string text = render(found);
  const std::size_t line = text.find("    x");
  const std::size_t caret = text.find('^') - (text.find('\n', line) + 1);
  EXPECT_EQ(text[line + caret], '~');
}

TEST(Diagnostics, AsJson) {
  const Loaded loaded = load_text(
      "edge.yaml", "outrider: v1\nlisten: 8080\nservces: {}\nroutes: [{ respond: \"a\\\"b\" }]\n");
  const auto json = nlohmann::json::parse(render_json(loaded.diagnostics));
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json[0], (nlohmann::json{{"file", "edge.yaml"},
                                     {"line", 3},
                                     {"column", 1},
                                     {"severity", "error"},
                                     {"code", "unknown-key"},
                                     {"message", "servces: unknown key"},
                                     {"suggestion", "services"}}));
  EXPECT_EQ(json[1]["suggestion"], nullptr);
  EXPECT_EQ(nlohmann::json::parse(render_json({})), nlohmann::json::array());
}

TEST(Diagnostics, AFileThatIsNoTextStillRenders) {
  const Loaded loaded = load_text("edge.yaml", std::string("outrider: v1\nx: \xff\x1b[31m\n", 22));
  ASSERT_FALSE(loaded.diagnostics.empty());
  EXPECT_EQ(render(loaded.diagnostics[0]).find('\x1b'), std::string::npos);
  EXPECT_NO_FATAL_FAILURE(static_cast<void>(render_json(loaded.diagnostics)));
}

TEST(Diagnostics, NearestNames) {
  const std::vector<std::string_view> known = {"services", "listeners", "listen", "address", "to"};
  EXPECT_EQ(nearest("servces", known), "services");
  EXPECT_EQ(nearest("sevrices", known), "services");
  EXPECT_EQ(nearest("Services", known), "services");
  EXPECT_EQ(nearest("listeners ", known), "listeners");
  EXPECT_EQ(nearest("addr", known), "address");
  EXPECT_EQ(nearest("too", known), "to");
  EXPECT_EQ(nearest("zebra", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest("x", {}), "");
}

const Keys kKeys(filter_keys());

TEST(Keys, AreDescribedAndStandOnce) {
  for (std::size_t section = 1; section < kSections; ++section) {
    const auto keys = kKeys.of(static_cast<Section>(section));
    EXPECT_FALSE(keys.empty()) << section;
    for (const Key& key : keys) {
      EXPECT_EQ(kKeys.find(key.in, key.name), &key) << key.name;
      if (key.type == Type::kLater) continue;
      EXPECT_TRUE(key.text.ends_with('.')) << key.name;
      EXPECT_TRUE(key.type != Type::kMap || !kKeys.below(key).empty()) << key.name;
    }
  }
}

TEST(Schema, HasEveryKeyThatIsSupportedAndNoOther) {
  const auto schema = nlohmann::json::parse(json_schema(filter_keys()));
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  const auto check = [&](const nlohmann::json& object, Section section) {
    std::size_t supported = 0;
    for (const Key& key : kKeys.of(section)) {
      const bool listed = object["properties"].contains(std::string(key.name));
      EXPECT_EQ(listed, key.type != Type::kLater) << key.name;
      if (!listed) continue;
      ++supported;
      EXPECT_EQ(object["properties"][std::string(key.name)]["description"], key.text);
    }
    EXPECT_EQ(object["properties"].size(), supported);
    EXPECT_EQ(object["additionalProperties"], false);
  };
  check(schema, Section::kTop);
  EXPECT_EQ(schema["$defs"].size(), kSections - 2);
  for (const auto& [name, object] : schema["$defs"].items()) {
    EXPECT_TRUE(object.contains("properties")) << name;
  }
  check(schema["$defs"]["route"], Section::kRoute);
  check(schema["$defs"]["listener"], Section::kListener);
  check(schema["$defs"]["service"], Section::kService);
  check(schema["$defs"]["default_service"], Section::kDefaultService);
  check(schema["$defs"]["retry"], Section::kRetry);
}

// Every reference leads to a definition.
void check_references(const nlohmann::json& value, const nlohmann::json& schema) {
  if (value.is_object() && value.contains("$ref")) {
    const std::string name =
        value["$ref"].get<std::string>().substr(std::string("#/$defs/").size());
    EXPECT_TRUE(schema["$defs"].contains(name)) << name;
  }
  if (value.is_structured())
    for (const auto& child : value) check_references(child, schema);
}

TEST(Schema, ReferencesLeadSomewhere) {
  const auto schema = nlohmann::json::parse(json_schema(filter_keys()));
  check_references(schema, schema);
}

}  // namespace
}  // namespace outrider::config
