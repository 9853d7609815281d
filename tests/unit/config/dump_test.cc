// The long form: a valid file, absolute, that means the same.
#include "config/dump.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/load.h"
#include "filters/registry.h"
#include "tests/unit/config/describe.h"
#include "tests/unit/config/folder.h"

namespace outrider::config {
namespace {

std::string all(const Loaded& loaded) {
  std::string out;
  for (const Diagnostic& found : loaded.diagnostics) out += render(found);
  return out;
}

std::string expanded(const std::string& text, bool origins = false) {
  const Loaded loaded = load_text(
      "test.yaml", text, {.expand = true, .origins = origins, .extensions = filter_keys()});
  EXPECT_NE(loaded.config, nullptr) << all(loaded);
  return loaded.expanded;
}

// From another folder, so that only absolute paths lead back.
void expect_round_trip(const Loaded& first) {
  ASSERT_NE(first.config, nullptr) << all(first);
  const Folder elsewhere;
  const Loaded second =
      load_text("long.yaml", first.expanded, {.expand = true, .extensions = filter_keys()});
  ASSERT_NE(second.config, nullptr) << all(second) << first.expanded;
  EXPECT_EQ(second.expanded, first.expanded);
  EXPECT_EQ(describe(*second.config), describe(*first.config));
}

TEST(Dump, TheFullExampleMeansTheSame) {
  const std::filesystem::path before = std::filesystem::current_path();
  const std::string folder = OUTRIDER_SOURCE_DIR "/tests/unit/config";
  const Loaded plain = load({folder + "/full.yaml"}, {.expand = true, .extensions = filter_keys()});
  expect_round_trip(plain);
  std::filesystem::current_path(before);
}

TEST(Dump, OriginsAreComments) {
  EXPECT_EQ(expanded("outrider: v1\nlisten: 8080\nservices: { web: [3000] }\nroutes:\n  - { match: "
                     "GET a.example/x, to: web, timeout: 3s }\n",
                     true),
            R"(outrider: v1  # test.yaml:1
listeners:
  main:
    address: 8080  # test.yaml:2
services:
  web:
    endpoints:
      - address: 3000  # test.yaml:3
routes:
  - match:
      method:
        - GET  # test.yaml:5
      host:
        - "a.example"  # test.yaml:5
      path:
        - "/x"  # test.yaml:5
    to:
      web: 1  # test.yaml:5
    timeout:
      total: 3s  # test.yaml:5
)");
  const std::string with = expanded("outrider: v1\nlisten: 8080\nroutes: [{ respond: 404 }]", true);
  const Loaded loaded = load_text("long.yaml", with, {.extensions = filter_keys()});
  EXPECT_NE(loaded.config, nullptr) << all(loaded);
}

TEST(Dump, EveryShorthandSurvives) {
  const char* texts[] = {
      "routes: []",
      "routes: [{ to: { web: 0, api@a: 3 }, when_empty: fail }]",
      "routes: [{ match: {}, to: web }]",
      "routes: [{ match: [/a, GET /b, { path: /c }], to: web }]",
      "routes: [{ match: \"~^/a'b\\\"c\\\\d\", to: web }]",
      "routes: [{ match: \"*:81/**\", to: web }]",
      "routes: [{ match: \"*.a.example/\", to: web }]",
      "routes: [{ match: { query: { \"a b\": \"\", \"null\": \"!\", \"#\": \"~x\" } }, to: web }]",
      "routes: [{ respond: { status: 200, body: \"tab\\tline\\nquote\\\"back\\\\bell\\u0007ü "
      "null\" } }]",
      "routes: [{ respond: { body: \"\" } }]",
      "routes: [{ respond: { body: 'null', headers: { x: \"no\", y: \"~\", z: \"- a\" } } }]",
      "routes: [{ redirect: { status: 307, port: 81 } }]",
      "routes: [{ to: web, retry: false, timeout: false, upgrade: [], use: [] }]",
      "routes: [{ to: web, retry: { when: 503 } }]",
      "routes: [{ to: web, rewrite: { regex: { \"^/(a|b)\": \"/\\\\1\" } } }]",
      "admin: false\ntelemetry: { access_log: false, metrics: false }",
      "telemetry: { access_log: text }",
      "workers: auto\ndrain: { delay: 0s }",
      "policies: { p: {} }\nroutes: [{ use: p, to: web }]",
  };
  for (const char* text : texts) {
    SCOPED_TRACE(text);
    const std::string whole =
        std::string(
            "outrider: v1\nlisten: 8080\nservices: { web: 3000, api: { endpoints: [{ address: 1, "
            "labels: { v: a } }], subsets: { a: { v: a } } } }\n") +
        text;
    const Loaded loaded =
        load_text("test.yaml", whole, {.expand = true, .extensions = filter_keys()});
    expect_round_trip(loaded);
  }
}

TEST(Dump, ReferencesStayReferences) {
  ::setenv("OUTRIDER_TEST_SECRET", "5", 1);
  ::setenv("OUTRIDER_TEST_MATCH", "GET /a", 1);
  const std::string text =
      "outrider: v1\nlisten: 8080\nservices: { web: 3000 }\nroutes:\n"
      "  - match: ${OUTRIDER_TEST_MATCH}\n    to: web\n    retry: ${OUTRIDER_TEST_SECRET}\n    "
      "headers: { request: { set: { x-key: \"k${OUTRIDER_TEST_SECRET}$${a}\" } } }\n"
      "telemetry: { access_log: { file: \"log-${OUTRIDER_TEST_SECRET}\" } }\n";
  const Folder folder;
  const Loaded loaded = load_text("test.yaml", text, {.expand = true, .extensions = filter_keys()});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  EXPECT_EQ(loaded.config->routes[0].policies[0].retry_attempts->value, 5U);
  EXPECT_NE(loaded.expanded.find("retry: \"${OUTRIDER_TEST_SECRET}\""), std::string::npos)
      << loaded.expanded;
  EXPECT_NE(loaded.expanded.find("x-key: \"k${OUTRIDER_TEST_SECRET}$${a}\""), std::string::npos)
      << loaded.expanded;
  EXPECT_NE(loaded.expanded.find("match: \"${OUTRIDER_TEST_MATCH}\""), std::string::npos)
      << loaded.expanded;
  EXPECT_NE(loaded.expanded.find("file: \"" + folder.path() + "/log-${OUTRIDER_TEST_SECRET}\""),
            std::string::npos)
      << loaded.expanded;
  expect_round_trip(
      load_text("test.yaml", loaded.expanded, {.expand = true, .extensions = filter_keys()}));
  ::unsetenv("OUTRIDER_TEST_SECRET");
  ::unsetenv("OUTRIDER_TEST_MATCH");
}

TEST(Dump, FilesUniteAndPathsAreAbsolute) {
  const Folder folder;
  folder.write("a.yaml",
               "outrider: v1\nlisten: unix:a.sock\ninclude: [conf/b.yaml]\nservices: { a: 1 "
               "}\nroutes: [{ match: /a, to: a }]\n");
  folder.write("conf/b.yaml",
               "outrider: v1\nservices: { b: unix:b.sock }\nroutes: [{ match: /b, to: b }, { "
               "match: /p, respond: { file: page } }]\n");
  folder.write("conf/page", "hello");
  const Loaded loaded = load({"a.yaml"}, {.expand = true, .extensions = filter_keys()});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  EXPECT_NE(loaded.expanded.find("address: \"unix:" + folder.path() + "/a.sock\""),
            std::string::npos)
      << loaded.expanded;
  EXPECT_NE(loaded.expanded.find("address: \"unix:" + folder.path() + "/conf/b.sock\""),
            std::string::npos)
      << loaded.expanded;
  EXPECT_NE(loaded.expanded.find(folder.path() + "/conf/page"), std::string::npos)
      << loaded.expanded;
  EXPECT_EQ(loaded.expanded.find("include"), std::string::npos);
  const Loaded again =
      load_text("long.yaml", loaded.expanded, {.expand = true, .extensions = filter_keys()});
  ASSERT_NE(again.config, nullptr) << all(again);
  EXPECT_EQ(again.expanded, loaded.expanded);
  EXPECT_EQ(again.config->routes[2].respond->body, "hello");
}

TEST(Dump, ASocketThatOnlyFitsAsWrittenStaysRelative) {
  const Folder folder;
  const std::string name(95, 's');
  EXPECT_NE(expanded("outrider: v1\nlisten: unix:" + name + "\n").find("\"unix:" + name),
            std::string::npos);
}

TEST(Dump, SocketsBehindReferencesAreAbsoluteToo) {
  const Folder folder;
  ::setenv("OUTRIDER_TEST_DIR", "run", 1);
  ::setenv("OUTRIDER_TEST_ROOT", "/run", 1);
  const std::string text = expanded(
      "outrider: v1\nlisteners:\n  a: { address: \"unix:${OUTRIDER_TEST_DIR}/a.sock\" }\n"
      "  b: { address: \"unix:${OUTRIDER_TEST_ROOT}/b.sock\" }\n"
      "  c: { address: \"${OUTRIDER_TEST_UNSET:-unix:c.sock}\" }\n");
  ::unsetenv("OUTRIDER_TEST_DIR");
  ::unsetenv("OUTRIDER_TEST_ROOT");
  for (const std::string& address : {"unix:" + folder.path() + "/${OUTRIDER_TEST_DIR}/a.sock",
                                     std::string("unix:${OUTRIDER_TEST_ROOT}/b.sock"),
                                     "${OUTRIDER_TEST_UNSET:-unix:" + folder.path() + "/c.sock}"})
    EXPECT_NE(text.find("address: \"" + address + "\""), std::string::npos) << address << text;
}

TEST(Dump, TheLongFormIsMadeAgainWithoutTheFiles) {
  const Folder folder;
  folder.write("a.yaml", "outrider: v1\nlisten: unix:a.sock\ninclude: [conf/b.yaml]\n");
  folder.write("conf/b.yaml", "outrider: v1\nroutes: [{ match: /b, respond: { file: page } }]\n");
  folder.write("conf/page", "hello");
  const Loaded loaded = load({"a.yaml"}, {.expand = true, .origins = true});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  std::filesystem::remove_all(folder.path() + "/conf");
  folder.write("a.yaml", "outrider: v1\nlisten: 1\n");
  EXPECT_EQ(long_form(*loaded.config), loaded.expanded);
  EXPECT_NE(loaded.expanded.find("# conf/b.yaml:2"), std::string::npos) << loaded.expanded;
}

TEST(Dump, BrokenConfigurationsHaveNone) {
  EXPECT_EQ(load_text("test.yaml", "outrider: v1\n", {.expand = true, .extensions = filter_keys()})
                .expanded,
            "");
  EXPECT_EQ(load_text("test.yaml", "outrider: v1\nlisten: 8080\n").expanded, "");
}

}  // namespace
}  // namespace outrider::config
