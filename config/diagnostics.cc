// Collecting, ordering and printing diagnostics; the only place that knows what they look like.
#include "config/diagnostics.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

namespace outrider::config {
namespace {

constexpr std::size_t kShownBytes =
    160;  // of a source line; a minified file would flood the terminal

// Optimal string alignment: insert, delete, replace, swap neighbours; `limit` when it is reached.
std::size_t distance(std::string_view a, std::string_view b, std::size_t limit) {
  const std::size_t gap = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (gap >= limit) return limit;
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(above.begin(), above.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t same = a[i - 1] == b[j - 1] ? 0 : 1;
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + same});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(above);
    above.swap(row);
  }
  return std::min(above[b.size()], limit);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  return out;
}

// `FILE:LINE:COL: error: PATH: TEXT [CODE]` in parts, because JSON has them apart.
std::string message(const Diagnostic& diagnostic) {
  if (diagnostic.path.empty()) return diagnostic.text;
  return diagnostic.path + ": " + diagnostic.text;
}

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// The part of a line around `column` (1-based) as a terminal may have it: no control bytes, not
// endless.
std::string excerpt(std::string_view line, std::uint32_t column, std::uint32_t& offset) {
  std::size_t from = 0;
  if (line.size() > kShownBytes && column > kShownBytes / 2) {
    from = std::min<std::size_t>(column - kShownBytes / 2, line.size());
    while (from < line.size() && continues(line[from])) ++from;
  }
  std::string out(line.substr(from, kShownBytes));
  while (!out.empty() && from + out.size() < line.size() && continues(line[from + out.size()]))
    out.pop_back();
  for (char& c : out)
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) c = '?';
  offset = static_cast<std::uint32_t>(from);
  return out;
}

}  // namespace

const std::vector<std::size_t>& Source::starts() const {
  if (starts_.empty()) {
    starts_.push_back(0);
    for (std::size_t end = text.find('\n'); end != std::string::npos;
         end = text.find('\n', end + 1))
      starts_.push_back(end + 1);
  }
  return starts_;
}

Place Source::place(std::size_t offset) const {
  offset = std::min(offset, text.size());
  const auto next = std::upper_bound(starts().begin(), starts().end(), offset);
  const auto line = next - starts().begin();
  return {static_cast<std::uint32_t>(line), static_cast<std::uint32_t>(offset - *(next - 1) + 1)};
}

std::string_view Source::line(std::uint32_t number) const {
  if (number == 0 || number > starts().size()) return {};
  const std::size_t start = starts()[number - 1];
  const std::size_t end = number < starts().size() ? starts()[number] - 1 : text.size();
  std::string_view rest = std::string_view(text).substr(start, end - start);
  if (rest.ends_with('\r')) rest.remove_suffix(1);
  return rest;
}

void Diagnostics::add(Item item) {
  std::string key = std::to_string(item.source != nullptr ? item.source->index : -1) + ':' +
                    std::to_string(item.place.line) + ':' + std::to_string(item.place.column) +
                    ':' + item.text;
  if (!seen_.insert(std::move(key)).second) return;
  if (item.severity == Severity::kError) ++errors_;
  items_.push_back(std::move(item));
}

std::vector<Diagnostic> Diagnostics::take() {
  std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    const auto key = [](const Item& x) {
      return std::make_tuple(x.source != nullptr ? x.source->index : -1, x.place.line,
                             x.place.column);
    };
    return key(a) < key(b);
  });
  std::vector<Diagnostic> out;
  out.reserve(items_.size());
  for (Item& item : items_) {
    Diagnostic& to = out.emplace_back();
    if (item.source != nullptr) {
      to.file = item.source->name;
      to.source = excerpt(item.source->line(item.place.line), item.place.column, to.source_offset);
    }
    to.line = item.place.line;
    to.column = item.place.column;
    to.severity = item.severity;
    to.path = std::move(item.path);
    to.text = std::move(item.text);
    to.code = std::move(item.code);
    to.suggestion = std::move(item.suggestion);
  }
  items_.clear();
  seen_.clear();
  errors_ = 0;
  return out;
}

std::string_view nearest(std::string_view wrong, std::span<const std::string_view> known) {
  std::size_t best = wrong.size() <= 2 ? 2 : std::min<std::size_t>(wrong.size() / 3 + 2, 4);
  const std::string word = lower(wrong);
  std::string_view found;
  for (const std::string_view name : known) {
    const std::size_t far = distance(word, lower(name), best);
    if (far < best) {
      best = far;
      found = name;
    }
  }
  if (!found.empty() || word.size() < 3) return found;
  const auto begins = std::find_if(known.begin(), known.end(), [&](std::string_view name) {
    return lower(name).starts_with(word);
  });
  return begins != known.end() ? *begins : found;  // `addr`
}

std::string render(const Diagnostic& diagnostic) {
  std::string out = diagnostic.file + ":" + std::to_string(diagnostic.line) + ":" +
                    std::to_string(diagnostic.column) + ": ";
  out += diagnostic.severity == Severity::kError ? "error: " : "warning: ";
  out += message(diagnostic) + " [" + diagnostic.code + "]\n";
  if (!diagnostic.source.empty()) {
    const std::size_t column =
        diagnostic.column - std::min(diagnostic.column, diagnostic.source_offset + 1);
    out += "    " + diagnostic.source + "\n    ";
    for (std::size_t i = 0; i < std::min(column, diagnostic.source.size()); ++i)
      if (!continues(diagnostic.source[i])) out += diagnostic.source[i] == '\t' ? '\t' : ' ';
    out += "^\n";
  }
  if (!diagnostic.suggestion.empty()) out += "    did you mean '" + diagnostic.suggestion + "'?\n";
  return out;
}

std::string render_json(const std::vector<Diagnostic>& diagnostics) {
  auto out = nlohmann::ordered_json::array();
  for (const Diagnostic& diagnostic : diagnostics) {
    auto& item = out.emplace_back();
    item["file"] = diagnostic.file;
    item["line"] = diagnostic.line;
    item["column"] = diagnostic.column;
    item["severity"] = diagnostic.severity == Severity::kError ? "error" : "warning";
    item["code"] = diagnostic.code;
    item["message"] = message(diagnostic);
    item["suggestion"] = nullptr;
    if (!diagnostic.suggestion.empty()) item["suggestion"] = diagnostic.suggestion;
  }
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace outrider::config
