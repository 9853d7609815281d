// Reads the characters around a place in a YAML text; see the header.
#include "config/yaml_text.h"

#include <algorithm>
#include <cstdint>

#include "config/limits.h"

namespace outrider::config::yaml {
namespace {

bool blank(char c) { return c == ' ' || c == '\t'; }
bool line_end(char c) { return c == '\n' || c == '\r'; }

// Length of the UTF-8 sequence at `at`, 0 when it is none (overlong, surrogate, beyond U+10FFFF,
// cut).
std::size_t utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
  };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if (lead < 0xE0) return tail(1) ? 2 : 0;
  if (lead < 0xF0) {
    if (!tail(1) || !tail(2) || (lead == 0xE0 && byte(1) < 0xA0) ||
        (lead == 0xED && byte(1) >= 0xA0))
      return 0;
    return 3;
  }
  if (!tail(1) || !tail(2) || !tail(3) || (lead == 0xF0 && byte(1) < 0x90) ||
      (lead == 0xF4 && byte(1) >= 0x90))
    return 0;
  return 4;
}

std::size_t word_start(std::string_view text, std::size_t offset) {
  constexpr std::string_view kSeparators = " \t\r\n,[]{}";
  while (offset > 0 && kSeparators.find(text[offset - 1]) == std::string_view::npos) --offset;
  return offset;
}

// Where the bracket that closes at `close` was opened, on the same line; `close` when it was not.
std::size_t bracket_start(std::string_view text, std::size_t close) {
  int depth = 0;
  for (std::size_t i = close + 1; i > 0 && !line_end(text[i - 1]); --i) {
    const char c = text[i - 1];
    if (c == '}' || c == ']') ++depth;
    if ((c == '{' || c == '[') && --depth == 0) return i - 1;
  }
  return close;
}

std::string quote(std::string_view word) { return "'" + std::string(word.substr(0, 80)) + "'"; }

bool has(std::string_view message, std::string_view part) {
  return message.find(part) != std::string_view::npos;
}

// Inside { } and [ ] unquoted text ends at any of `{ } [ ] , ?`.
std::optional<TextError> flow_trap(std::string_view text, std::size_t offset,
                                   std::string_view message) {
  const char here = offset < text.size() ? text[offset] : '\0';
  const char before = offset > 0 ? text[offset - 1] : '\0';
  const auto trap = [&](std::size_t start) {
    return TextError{start, "yaml-flow",
                     quote(word_at(text, start)) +
                         " must be quoted: inside { } and [ ] unquoted text ends at '" +
                         (here == '?'   ? "?"
                          : here == '[' ? "["
                                        : "{") +
                         "'"};
  };
  if (here == '?' && (has(message, "unknown token") || has(message, "flow")))
    return trap(word_start(text, offset));
  const bool glued =
      before != '\0' && std::string_view(" \t\r\n,[{:").find(before) == std::string_view::npos;
  if ((here == '{' || here == '[') && glued && before != '"' && before != '\'' && before != '}' &&
      before != ']')
    return trap(word_start(text, offset));
  if ((before == '}' || before == ']') && here != '\0' && !blank(here) && !line_end(here)) {
    const std::size_t start = bracket_start(text, offset - 1);
    return TextError{start, "yaml-flow",
                     quote(word_at(text, start)) + " must be quoted: text that begins with '" +
                         (before == '}' ? "{" : "[") + "' is read as a " +
                         (before == '}' ? "map" : "list")};
  }
  return std::nullopt;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::optional<TextError> check_bytes(std::string_view text) {
  if (text.size() > limits::kConfigBytes) return TextError{0, "file-too-large", "over 16 MiB"};
  const std::string_view two = text.substr(0, 2);
  if (two == "\xFF\xFE" || two == "\xFE\xFF")
    return TextError{0, "encoding", "this is UTF-16 (or UTF-32): save the file as UTF-8"};
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == 0) return TextError{i, "encoding", "a NUL byte: this is not a text file in UTF-8"};
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F)
      return TextError{i, "encoding", "a control byte: write it as an escape in double quotes"};
    const std::size_t length = c < 0x80 ? 1 : utf8(text, i);
    if (length == 0) return TextError{i, "encoding", "not valid UTF-8: save the file as UTF-8"};
    i += length;
  }
  return std::nullopt;
}

std::optional<std::size_t> tab_in_indent(std::string_view text, std::size_t offset) {
  offset = std::min(offset, text.size());
  std::size_t start = offset;
  while (start > 0 && blank(text[start - 1])) --start;
  if (start > 0 && !line_end(text[start - 1])) return std::nullopt;
  const std::size_t tab = text.substr(start, offset - start).find('\t');
  if (tab == std::string_view::npos) return std::nullopt;
  return start + tab;
}

std::string_view word_at(std::string_view text, std::size_t offset) {
  if (offset >= text.size()) return {};
  std::size_t end = offset;
  int depth = 0;
  for (; end < text.size(); ++end) {
    const char c = text[end];
    if (blank(c) || line_end(c)) break;
    if (depth == 0 && (c == ',' || c == '}' || c == ']')) break;
    depth += c == '{' || c == '[' ? 1 : 0;
    depth -= c == '}' || c == ']' ? 1 : 0;
  }
  return text.substr(offset, end - offset);
}

bool is_null_word(std::string_view word) {
  return word == "~" || word == "null" || word == "Null" || word == "NULL";
}

std::size_t empty_value(std::string_view text, std::size_t offset) {
  offset = std::min(offset, text.size());
  std::size_t at = offset;
  while (at > 0 && (blank(text[at - 1]) || line_end(text[at - 1]))) --at;
  if (at > 0 && (text[at - 1] == '-' || text[at - 1] == ':')) return at - 1;
  return offset;
}

bool colon_follows(std::string_view text, std::size_t offset) {
  while (offset < text.size() && (blank(text[offset]) || line_end(text[offset]))) ++offset;
  return offset < text.size() && text[offset] == ':';
}

std::size_t skip_properties(std::string_view text, std::size_t offset) {
  while (offset < text.size() && (text[offset] == '&' || text[offset] == '!')) {
    while (offset < text.size() && !blank(text[offset]) && !line_end(text[offset])) ++offset;
    while (offset < text.size() && (blank(text[offset]) || line_end(text[offset]))) ++offset;
  }
  return offset;
}

std::size_t quote_end(std::string_view text, std::size_t offset) {
  if (offset >= text.size() || (text[offset] != '"' && text[offset] != '\'')) return offset;
  const char quote = text[offset];
  for (std::size_t i = offset + 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      const bool doubled = quote == '\'' && i + 1 < text.size() && text[i + 1] == quote;
      if (!doubled) return i + 1;
      ++i;
    }
  }
  return std::string_view::npos;
}

namespace {

// What unquoted text cannot begin with, or nothing.
std::optional<TextError> start_trap(std::string_view text, std::size_t offset,
                                    std::string_view message) {
  const auto error = [&](std::size_t at, std::string_view code, std::string_view what) {
    std::string_view word = word_at(text, at);
    if (word.empty()) word = text.substr(at, 1);
    return TextError{at, std::string(code), quote(word) + " must be quoted: " + std::string(what)};
  };
  const auto sign = [&](char c) {
    return offset > 0 && offset < text.size() && text[offset] != c && text[offset - 1] == c;
  };
  if (has(message, "anchor is not defined") || has(message, "alias"))
    return error(sign('*') ? offset - 1 : offset, "yaml-alias",
                 "unquoted text that begins with '*' is a YAML alias");
  if (has(message, "anchor"))
    return error(sign('&') ? offset - 1 : offset, "yaml-alias",
                 "unquoted text that begins with '&' is a YAML anchor");
  const char here = offset < text.size() ? text[offset] : '\0';
  if (has(message, "unknown token") && (here == '%' || here == '@' || here == '`'))
    return error(offset, "yaml-quote",
                 std::string("unquoted text cannot begin with '") + here + "'");
  return std::nullopt;
}

// A value that ended and text that goes on.
std::optional<TextError> tail_trap(std::string_view text, std::size_t offset, Scalar last) {
  const bool quoted = last.end > last.begin && last.end <= text.size() &&
                      (text[last.end - 1] == '"' || text[last.end - 1] == '\'');
  const std::string_view between =
      text.substr(std::min(last.end, offset), offset - std::min(last.end, offset));
  if (between.find_first_not_of(" \t") != std::string_view::npos) return std::nullopt;
  if (quoted && text.substr(last.begin, last.end - last.begin).find('\n') != std::string_view::npos)
    return TextError{last.begin, std::string(kSyntaxCode),
                     "this quote is closed on a later line, and text goes on behind it: is the "
                     "closing quote missing?"};
  if (quoted)
    return TextError{offset, std::string(kSyntaxCode),
                     "text behind the closing quote: quote all of the value"};
  return std::nullopt;
}

}  // namespace

TextError explain_syntax(std::string_view text, std::size_t offset, std::string_view message,
                         Scalar last, std::size_t open) {
  offset = std::min(offset, text.size());
  const bool flow = open != std::string_view::npos;
  const auto error = [](std::size_t at, std::string_view code, std::string what) {
    return TextError{at, std::string(code), std::move(what)};
  };
  std::size_t word = offset;
  while (word < text.size() && blank(text[word])) ++word;
  if (!flow)
    if (const auto tab = tab_in_indent(text, word))
      return error(*tab, "yaml-tab", "a tab cannot indent in YAML: use spaces");
  if (auto trap = start_trap(text, offset, message)) return *trap;
  if (auto trap = flow_trap(text, offset, message)) return *trap;
  if (has(message, "EOF in scalar")) {
    const std::size_t quote_at = text.find_first_of("\"'", std::min(last.end, text.size()));
    return error(quote_at != std::string_view::npos ? quote_at : offset, kSyntaxCode,
                 "this quote is never closed");
  }
  if (auto trap = tail_trap(text, offset, last)) return *trap;
  if (has(message, "map value"))
    return error(offset, kSyntaxCode,
                 "unexpected ':': a key at the wrong indentation, or unquoted text with ': ' in it "
                 "(quote it)");
  if (has(message, "block scalar") || has(message, "zero indentation"))
    return error(offset, "yaml-quote", "unquoted text cannot begin with '|' or '>': quote it");
  if (flow && offset >= text.size())
    return error(open, kSyntaxCode, std::string("this '") + text[open] + "' is never closed");
  if (flow)
    return error(offset, kSyntaxCode,
                 std::string("expected ',' or '") + (text[open] == '{' ? "}" : "]") + "' of the '" +
                     text[open] + "' opened before");
  if (has(message, "end of map not found") || has(message, "end of sequence not found"))
    return error(offset, kSyntaxCode, "the indentation fits no key or item above");
  return error(offset, kSyntaxCode, "not valid YAML: " + std::string(message));
}

}  // namespace outrider::config::yaml
