// Everything found wrong while a configuration is loaded, collected rather than thrown: one run
// names all of it. Invariant: no text here holds the value of an environment variable; messages
// quote what the file says.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "config/load.h"

namespace outrider::config {

// A place in a source, 1-based, columns in bytes.
struct Place {
  std::uint32_t line = 1;
  std::uint32_t column = 1;
};

// One file as read. Trees hold views into `text`, so a Source neither moves nor changes while it is
// read.
struct Source {
  std::string name;       // as diagnostics print it
  std::string directory;  // what relative paths in it are relative to
  std::string text;
  std::int32_t index = 0;  // in Config::files

  Place place(std::size_t offset) const;
  std::string_view line(std::uint32_t number) const;  // without its line end

 private:
  const std::vector<std::size_t>& starts() const;
  mutable std::vector<std::size_t> starts_;  // of lines, made when first asked for
};

class Diagnostics {
 public:
  struct Item {
    const Source* source = nullptr;
    Place place;
    Severity severity = Severity::kError;
    std::string path;
    std::string text;
    std::string code;
    std::string suggestion;
  };
  // The same finding at the same place counts once: an alias is read as often as it is used.
  void add(Item item);
  bool has_errors() const { return errors_ != 0; }
  // Whether one more name may be compared with `names` others for a suggestion: thousands of
  // misspelt names among thousands would take longer than anybody waits, and nobody reads so many.
  bool may_suggest(std::size_t names) {
    if (names > suggestions_left_) return false;
    suggestions_left_ -= names;
    return true;
  }
  // In file and line order.
  std::vector<Diagnostic> take();

 private:
  std::vector<Item> items_;
  std::unordered_set<std::string> seen_;
  std::size_t errors_ = 0;
  std::size_t suggestions_left_ = 200'000;  // comparisons; some 0.1 s
};

// The known name nearest to `wrong`, or empty when none is near enough to be meant.
std::string_view nearest(std::string_view wrong, std::span<const std::string_view> known);

}  // namespace outrider::config
