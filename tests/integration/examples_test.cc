// What the documents show has to work: every example file and every whole configuration in
// README.md and docs/ is accepted without a warning, and the demo of scripts/run does what it
// prints.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/harness/client.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

namespace fs = std::filesystem;

std::string source_file(const std::string& name) {
  std::ifstream file(fs::path(OUTRIDER_SOURCE_DIR) / name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The ```yaml blocks of a document which begin with `outrider:`.
std::vector<std::string> configurations(const std::string& document) {
  constexpr std::string_view kOpen = "```yaml\n";
  std::vector<std::string> found;
  for (std::size_t at = 0; (at = document.find(kOpen, at)) != std::string::npos;) {
    at += kOpen.size();
    const std::size_t end = document.find("```", at);
    std::string block = document.substr(at, end - at);
    if (block.find("outrider: v1\n") != std::string::npos) found.push_back(std::move(block));
    at = end;
  }
  return found;
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

TEST(Examples, FilesAreAccepted) {
  int files = 0;
  for (const auto& entry :
       fs::directory_iterator(fs::path(OUTRIDER_SOURCE_DIR) / "docs/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    const CommandResult result = run_outrider({"check", "--strict", entry.path().string()});
    EXPECT_EQ(result.exit_code, 0) << entry.path() << '\n' << result.err;
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST(Examples, ConfigurationsOfTheDocumentsAreAccepted) {
  std::vector<std::string> documents{"README.md"};
  for (const auto& entry : fs::directory_iterator(fs::path(OUTRIDER_SOURCE_DIR) / "docs"))
    if (entry.path().extension() == ".md")
      documents.push_back("docs/" + entry.path().filename().string());
  for (const std::string& document : documents) {
    const auto blocks = configurations(source_file(document));
    EXPECT_TRUE(!blocks.empty() || document != "README.md");
    for (const std::string& block : blocks) {
      const CommandResult result = run_outrider({"check", "--strict", "-"}, block);
      EXPECT_EQ(result.exit_code, 0) << document << '\n' << block << '\n' << result.err;
    }
  }
}

TEST(Examples, TheDemoDoesWhatItPrints) {
  // The same file, with sockets that no other test and no running demo has.
  std::string yaml = source_file("docs/examples/demo.yaml");
  yaml = replaced(yaml, "127.0.0.1:${DEMO_PORT:-8080}", "127.0.0.1:0");
  yaml = replaced(yaml, "127.0.0.1:8081", "unix:$FOLDER/red.sock");
  yaml = replaced(yaml, "127.0.0.1:8082", "unix:$FOLDER/blue.sock");
  Outrider demo(yaml);
  Client client = demo.client(Protocol::kHttp1, "edge");

  std::set<std::string> colours;
  for (int i = 0; i < 10; ++i) colours.insert(client.get("/colour").body);
  EXPECT_EQ(colours, (std::set<std::string>{"blue\n", "red\n"}));
  EXPECT_EQ(demo.client(Protocol::kHttp2, "edge").get("/colour").status, 200);
  EXPECT_EQ(client.get("/shop/cart/7").status, 200);

  const Response nowhere = client.get("/nowhere");
  EXPECT_EQ(nowhere.status, 404);
  EXPECT_NE(nowhere.body.find("/colour"), std::string::npos) << nowhere.body;
}

}  // namespace
}  // namespace outrider::test
