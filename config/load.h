// Text → model: reads every file, collects every diagnostic of all of them, and either yields a
// whole Config or none.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/model.h"

namespace outrider::config {

enum class Severity : std::uint8_t { kError, kWarning };

struct Diagnostic {
  std::string file;
  std::uint32_t line = 1;
  std::uint32_t column = 1;
  Severity severity = Severity::kError;
  std::string path;  // `routes[2].retry.attempts`; empty at the top
  std::string text;
  std::string code;                 // kebab-case
  std::string suggestion;           // nearest known name, or empty
  std::string source;               // the line of the file around the column, for the caret
  std::uint32_t source_offset = 0;  // bytes of the line left out in front of it
};

struct Loaded {
  std::shared_ptr<const Config> config;  // null when there is any error
  std::vector<Diagnostic> diagnostics;   // in file and line order
  std::string expanded;                  // long form as YAML, when LoadOptions::expand
};

struct LoadOptions {
  bool expand = false;   // fill Loaded::expanded
  bool origins = false;  // … with origins as comments
  Extensions extensions = {};
};

// `paths`: files, directories, or `-` (standard input). Never throws.
Loaded load(const std::vector<std::string>& paths, const LoadOptions& options = {});
// One native document in memory, for tests, fuzzers and the admin interface. Relative paths are
// relative to the working directory.
Loaded load_text(std::string name, std::string text, const LoadOptions& options = {});

// The long form with origins, made again of the texts that were read: no file is opened.
std::string long_form(const Config& config);

// `FILE:LINE:COL: error: PATH: TEXT [CODE]`, the source line, a caret, and `did you mean`.
std::string render(const Diagnostic& diagnostic);
std::string render_json(const std::vector<Diagnostic>& diagnostics);

// JSON Schema (draft 2020-12) of the native form, made from the same tables as the reader.
std::string json_schema(Extensions extensions = {});

}  // namespace outrider::config
