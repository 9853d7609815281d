// Shadowed routes as diagnostics: where they stand among the others, and what they show.
#include "proxy/cli.h"
#include "filters/registry.h"

#include <gtest/gtest.h>

#include <string>

namespace outrider::cli {
namespace {

config::Loaded loaded_from(const std::string& yaml) {
  config::Loaded loaded = config::load_text("t.yaml", yaml, {.extensions = filter_keys()});
  EXPECT_NE(loaded.config, nullptr);
  add_shadowed_routes(loaded);
  return loaded;
}

TEST(ShadowedRoutes, NoneWhereEveryRouteIsReached) {
  EXPECT_TRUE(loaded_from("outrider: v1\nlisten: 127.0.0.1:0\nroutes:\n"
                          "  - { match: /a, respond: 200 }\n  - { match: /b, respond: 200 }\n")
                  .diagnostics.empty());
}

TEST(ShadowedRoutes, AreWarningsAtTheRouteThatIsNeverReached) {
  const config::Loaded loaded = loaded_from(
      "outrider: v1\nlisten: 127.0.0.1:0\nroutes:\n"
      "  - { name: wide, match: /a/**, respond: 200, priority: 1 }\n"
      "  - name: never\n    match: /a/b\n    respond: 204\n"
      "  - { name: other, match: /c, respond: 200 }\n");
  ASSERT_EQ(loaded.diagnostics.size(), 1U);
  const config::Diagnostic& found = loaded.diagnostics[0];
  EXPECT_EQ(found.severity, config::Severity::kWarning);
  EXPECT_EQ(found.code, "shadowed-route");
  EXPECT_EQ(found.path, "routes[1]");
  EXPECT_EQ(found.file, "t.yaml");
  EXPECT_EQ(found.line, 5U);
  EXPECT_EQ(found.source, "  - name: never");
  EXPECT_EQ(found.text,
            "route 'never' is never reached: route 'wide' (t.yaml:4) takes everything it matches");
}

TEST(ShadowedRoutes, StandAmongTheOtherWarningsInTheOrderOfLines) {
  const config::Loaded loaded = loaded_from(
      "outrider: v1\nlisten: 127.0.0.1:0\nroutes:\n"
      "  - { match: /a, respond: 200, retry: 2 }\n"
      "  - { match: /a, respond: 200 }\n"
      "  - { match: /b, respond: 200, retry: 2 }\n");
  ASSERT_EQ(loaded.diagnostics.size(), 3U);
  EXPECT_EQ(loaded.diagnostics[0].line, 4U);
  EXPECT_EQ(loaded.diagnostics[1].line, 5U);
  EXPECT_EQ(loaded.diagnostics[1].code, "shadowed-route");
  EXPECT_EQ(loaded.diagnostics[2].line, 6U);
}

}  // namespace
}  // namespace outrider::cli
