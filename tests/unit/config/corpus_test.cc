// Broken configurations and the exact diagnostics each must have, from corpus/*.txt:
//   @@@ case NAME       begins a case; what follows is outrider.yaml
//   @@@ file NAME       a further file
//   @@@ env NAME=VALUE  for this case alone
//   @@@ escaped         the files hold \xNN and \r escapes
//   @@@ expect          the diagnostics, one a line, and `  did you mean '…'?`
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "config/load.h"
#include "filters/registry.h"
#include "tests/unit/config/folder.h"

namespace outrider::config {
namespace {

struct Case {
  std::string name;
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<std::pair<std::string, std::string>> environment;
  bool escaped = false;
  std::string expect;
};

std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "\\x") == 0) {
      out += static_cast<char>(std::stoi(text.substr(i + 2, 2), nullptr, 16));
      i += 3;
    } else if (text.compare(i, 2, "\\r") == 0) {
      out += '\r';
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<Case> read_cases(const std::filesystem::path& file) {
  std::vector<Case> cases;
  std::ifstream in(file);
  bool expect = false;
  const auto directive = [](const std::string& line, const std::string& word, std::string& rest) {
    if (line.rfind("@@@ " + word, 0) != 0) return false;
    rest = line.size() > word.size() + 5 ? line.substr(word.size() + 5) : "";
    return true;
  };
  for (std::string line, rest; std::getline(in, line);) {
    if (directive(line, "case", rest)) {
      cases.push_back({.name = rest,
                       .files = {{"outrider.yaml", ""}},
                       .environment = {},
                       .escaped = false,
                       .expect = ""});
      expect = false;
    } else if (directive(line, "file", rest)) {
      cases.back().files.emplace_back(rest, "");
    } else if (directive(line, "env", rest)) {
      cases.back().environment.emplace_back(rest.substr(0, rest.find('=')),
                                            rest.substr(rest.find('=') + 1));
    } else if (directive(line, "escaped", rest)) {
      cases.back().escaped = true;
    } else if (directive(line, "expect", rest)) {
      expect = true;
    } else {
      (expect ? cases.back().expect : cases.back().files.back().second) += line + "\n";
    }
  }
  return cases;
}

std::string run(const Case& one) {
  const Folder folder;
  for (const auto& [name, text] : one.files)
    folder.write(name, one.escaped ? unescape(text) : text);
  for (const auto& [name, value] : one.environment) ::setenv(name.c_str(), value.c_str(), 1);
  const Loaded loaded = load({"outrider.yaml"}, {.extensions = filter_keys()});
  for (const auto& [name, value] : one.environment) ::unsetenv(name.c_str());
  EXPECT_EQ(loaded.config, nullptr);
  std::ostringstream out;
  for (const Diagnostic& found : loaded.diagnostics) {
    out << found.file << ':' << found.line << ':' << found.column << ": "
        << (found.severity == Severity::kError ? "error: " : "warning: ")
        << (found.path.empty() ? "" : found.path + ": ") << found.text << " [" << found.code
        << "]\n";
    if (!found.suggestion.empty()) out << "  did you mean '" << found.suggestion << "'?\n";
    for (const auto& [name, value] : one.environment) {
      if (name == "OUTRIDER_TEST_SECRET") {
        EXPECT_EQ(render(found).find(value), std::string::npos);
      }
    }
  }
  return out.str();
}

TEST(Corpus, EveryBrokenConfigurationHasItsDiagnosticsAndNoOthers) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(OUTRIDER_SOURCE_DIR "/tests/unit/config/corpus"))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::size_t count = 0;
  for (const auto& file : files) {
    for (const Case& one : read_cases(file)) {
      SCOPED_TRACE(file.filename().string() + ": " + one.name);
      EXPECT_NE(one.expect, "");
      EXPECT_EQ(run(one), one.expect);
      ++count;
    }
  }
  EXPECT_GE(count, 300U);
}

}  // namespace
}  // namespace outrider::config
