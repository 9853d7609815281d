// Configuration text: a whole configuration or at least one error, never both or neither; every
// diagnostic stands somewhere in the text; the long form of what loads loads again without an
// error.
#include <cstdint>
#include <string>

#include "config/error.h"
#include "config/load.h"
#include "filters/registry.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace outrider::config;
  using outrider::filter_keys;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const Loaded loaded = load_text("fuzz.yaml", text, {.expand = true, .extensions = filter_keys()});
  bool failed = false;
  for (const Diagnostic& diagnostic : loaded.diagnostics) {
    OUTRIDER_ASSERT(diagnostic.line >= 1 && diagnostic.column >= 1 && !diagnostic.text.empty() &&
                    !diagnostic.code.empty());
    OUTRIDER_ASSERT(!render(diagnostic).empty());
    failed = failed || diagnostic.severity == Severity::kError;
  }
  OUTRIDER_ASSERT(failed == (loaded.config == nullptr));
  if (failed) return 0;
  OUTRIDER_ASSERT(
      load_text("expanded.yaml", loaded.expanded, {.extensions = filter_keys()}).config != nullptr);
  return 0;
}
