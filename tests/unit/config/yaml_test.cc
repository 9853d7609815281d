#include "config/yaml.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "config/limits.h"
#include "config/load.h"
#include "config/yaml_text.h"

namespace outrider::config {
namespace {

struct Parsed {
  Source source;
  Diagnostics diagnostics;
  yaml::Tree tree;
  bool complete = false;
  const yaml::Node& root() const { return tree.root(tree.documents()[0]); }
  const yaml::Node& at(std::string_view key) const { return *tree.find(root(), key); }
};

std::unique_ptr<Parsed> parse(std::string text) {
  auto out = std::make_unique<Parsed>();
  out->source.name = "test.yaml";
  out->source.text = std::move(text);
  out->complete = yaml::parse(out->source, out->diagnostics, out->tree);
  return out;
}

std::string code_of(std::string text) {
  const auto parsed = parse(std::move(text));
  const auto found = parsed->diagnostics.take();
  return found.empty() ? "" : found[0].code;
}

TEST(Yaml, KeepsPlacesInBytes) {
  const auto parsed = parse("a: 1\nü: { b: [x, \"y\"] }\n");
  ASSERT_TRUE(parsed->complete);
  EXPECT_EQ(parsed->root().count, 2U);
  EXPECT_EQ(parsed->tree.key(parsed->root(), 1).line, 2U);
  EXPECT_EQ(parsed->at("ü").column, 5U);
  const yaml::Node& list = *parsed->tree.find(parsed->at("ü"), "b");
  EXPECT_EQ(parsed->tree.items(list)[1].column, 14U);
  EXPECT_TRUE(parsed->tree.items(list)[1].quoted);
  EXPECT_FALSE(parsed->tree.items(list)[0].quoted);
}

TEST(Yaml, TextsAreViewsIntoTheSourceWhereTheyCanBe) {
  const auto parsed = parse("a: plain\nb: \"es\\tcaped\"\nc: |\n  block\n");
  const std::string_view source = parsed->source.text;
  EXPECT_EQ(parsed->at("a").text.data(), source.data() + 3);
  EXPECT_EQ(parsed->at("b").text, "es\tcaped");
  EXPECT_EQ(parsed->at("c").text, "block\n");
}

TEST(Yaml, AliasesStandForWhatTheyName) {
  const auto parsed = parse("a: &x { b: [1, 2] }\nc: *x\nd: [*x, *x]\n");
  ASSERT_TRUE(parsed->complete);
  EXPECT_EQ(parsed->tree.items(*parsed->tree.find(parsed->at("c"), "b"))[1].text, "2");
  EXPECT_EQ(parsed->at("d").count, 2U);
}

TEST(Yaml, AnAnchorAndATagDoNotHideTheQuote) {
  const auto parsed = parse("a: &x \"q\"\nb: !!str \"r\"\n");
  ASSERT_TRUE(parsed->complete);
  EXPECT_EQ(parsed->at("a").text, "q");
  EXPECT_TRUE(parsed->tree.documents()[0].traps.empty());
  EXPECT_EQ(code_of("a: &x \"never\n"), "yaml-syntax");
}

TEST(Yaml, TakesABomAndWindowsLineEnds) {
  const auto parsed = parse(
      "\xEF\xBB\xBF"
      "a: 1\r\nb: \"two\"\r\n");
  ASSERT_TRUE(parsed->complete);
  EXPECT_EQ(parsed->at("a").column, 4U);
  EXPECT_EQ(parsed->at("b").text, "two");
  EXPECT_EQ(parsed->source.line(2), "b: \"two\"");
}

TEST(Yaml, ReadsJsonWithTabs) {
  const auto parsed = parse("{\n\t\"a\": {\"b\": [1,2]},\n\t\"c\": \"d\"\n}\n");
  ASSERT_TRUE(parsed->complete) << render(parsed->diagnostics.take()[0]);
  EXPECT_EQ(parsed->at("c").text, "d");
}

TEST(Yaml, KeepsTheDocumentsOfAStream) {
  const auto parsed = parse("a: 1\n---\nb: &x 2\n---\nc: 3\n");
  ASSERT_EQ(parsed->tree.documents().size(), 3U);
  EXPECT_NE(parsed->tree.find(parsed->tree.root(parsed->tree.documents()[2]), "c"), nullptr);
  EXPECT_EQ(code_of("b: &x 2\n---\nc: *x\n"), "yaml-alias");  // anchors end with their document
}

TEST(Yaml, NestingEndsAtSixtyFour) {
  const auto nested = [](std::size_t levels) {
    return std::string(levels, '[') + std::string(levels, ']');
  };
  EXPECT_EQ(code_of("a: " + nested(63)), "");
  EXPECT_EQ(code_of("a: " + nested(64)), "yaml-too-deep");
}

TEST(Yaml, NestingCountsThroughAliases) {
  const std::string half(32, '[');
  const std::string close(32, ']');
  EXPECT_EQ(code_of("a: &x " + half + close + "\nb: " + std::string(31, '[') + "*x" +
                    std::string(31, ']')),
            "");
  EXPECT_EQ(code_of("a: &x " + half + close + "\nb: " + half + "*x" + close), "yaml-too-deep");
}

TEST(Yaml, DuplicatesAreDroppedAndNamedOnce) {
  const auto parsed = parse("a: 1\nb: 2\na: 3\n");
  const auto found = parsed->diagnostics.take();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].line, 3U);
  EXPECT_EQ(parsed->root().count, 2U);
  EXPECT_EQ(parsed->at("a").text, "1");
}

TEST(YamlText, Utf8) {
  for (const char* good : {"", "ascii", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x90\x8E",
                           "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"})
    EXPECT_FALSE(yaml::check_bytes(good)) << good;
  for (const char* bad : {"\xC3", "\xC1\x81", "\xE0\x80\x80", "\xED\xBF\xBF", "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xFF"})
    EXPECT_TRUE(yaml::check_bytes(bad)) << bad;
  EXPECT_TRUE(yaml::check_bytes(std::string(limits::kConfigBytes + 1, 'a')));
}

TEST(YamlText, QuotesEnd) {
  EXPECT_EQ(yaml::quote_end("\"a\\\"b\" c", 0), 6U);
  EXPECT_EQ(yaml::quote_end("'it''s' c", 0), 7U);
  EXPECT_EQ(yaml::quote_end("'it''s", 0), std::string_view::npos);
  EXPECT_EQ(yaml::quote_end("plain", 0), 0U);
}

std::string repeat(std::string_view text, std::size_t times) {
  std::string out;
  out.reserve(text.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

std::string laughs() {
  std::string out = "outrider: v1\nx-a: &a [l,l,l,l,l,l,l,l,l,l]\n";
  for (char c = 'b'; c < 'm'; ++c)
    out += std::string("x-") + c + ": &" + c + " [" +
           repeat(std::string("*") + static_cast<char>(c - 1) + ",", 9) + "*" +
           static_cast<char>(c - 1) + "]\n";
  return out;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// In a child of its own, whose peak memory the kernel reports.
void expect_refused_cheaply(const std::string& name, const std::string& text) {
  SCOPED_TRACE(name);
  rusage own{};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &own), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const Loaded loaded = load_text("bomb.yaml", text);
    ::_exit(loaded.config == nullptr && !loaded.diagnostics.empty() &&
                    loaded.diagnostics[0].line > 0
                ? 0
                : 1);
  }
  int status = 0;
  rusage used{};
  ASSERT_EQ(::wait4(child, &status, 0, &used), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  const double seconds = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  if (kSanitized) return;
  EXPECT_LT(seconds, 1.0);  // of processor time: the machine may have others to serve
  EXPECT_LT(used.ru_maxrss, 64 * 1024 + own.ru_maxrss);
}

TEST(YamlBombs, AreRefusedCheaply) {
  expect_refused_cheaply("billion laughs", laughs());
  expect_refused_cheaply("lists in lists", std::string(1'000'000, '['));
  expect_refused_cheaply("maps in maps", std::string(1'000'000, '{'));
  expect_refused_cheaply("lists over lines", repeat("[\n", 500'000));
  expect_refused_cheaply("lists as a value", "a: " + std::string(1'000'000, '['));
  expect_refused_cheaply("items of items", repeat("- ", 500'000));
  expect_refused_cheaply("keys of keys", repeat("? ", 500'000));
  expect_refused_cheaply("tags", repeat("!a ", 500'000));
  expect_refused_cheaply("anchors",
                         "outrider: v1\nx-a: [" + repeat("&a b,", 100'000) + "c]\nlisten: x\n");
  expect_refused_cheaply("cycle", "outrider: v1\nx-a: &a [*a, *a]\n");
  expect_refused_cheaply("documents", repeat("---\n", 500'000));
  expect_refused_cheaply("one key over and over",
                         "outrider: v1\nx-a: {" + repeat("k: 1,", 50'000) + "}\n");
  expect_refused_cheaply("nulls", "outrider: v1\nx-a: [" + repeat("~,", 50'000) + "a]\n");
}

TEST(YamlBombs, TooManyValuesAreRefused) {
  EXPECT_EQ(code_of("a: [" + repeat("b,", limits::kConfigNodes) + "b]"), "yaml-too-many-nodes");
  EXPECT_EQ(code_of(repeat("- a\n", limits::kConfigNodes)), "yaml-too-many-nodes");
  EXPECT_EQ(code_of(repeat("- a\n", limits::kConfigNodes - 1)), "");
}

}  // namespace
}  // namespace outrider::config
