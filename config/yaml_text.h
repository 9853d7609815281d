// What the characters of a YAML text tell beyond yaml-cpp's events: bytes it must never see, and
// what the author of a trap meant, so that the message can say what to do.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace outrider::config::yaml {

inline constexpr std::string_view kSyntaxCode = "yaml-syntax";

struct TextError {
  std::size_t offset = 0;
  std::string code;
  std::string text;
};

bool is_utf8(std::string_view text);

// Size, encoding, NUL and control bytes.
std::optional<TextError> check_bytes(std::string_view text);
// Where the tab is, when the first word of a line stands at `offset` behind one.
std::optional<std::size_t> tab_in_indent(std::string_view text, std::size_t offset);
// From `offset` to the next blank or separator, brackets kept together: `/a/{id}`,
// `*.shop.example`.
std::string_view word_at(std::string_view text, std::size_t offset);
bool is_null_word(std::string_view word);
// The `-` or `:` that lacks its value, searched backwards from where the parser noticed.
std::size_t empty_value(std::string_view text, std::size_t offset);
// Whether the key that ends at `offset` is followed by its colon.
bool colon_follows(std::string_view text, std::size_t offset);
// The offset behind the quote that closes the one at `offset`, npos when none does. yaml-cpp ends
// it silently at the end of the text. Not a quote: `offset`.
std::size_t quote_end(std::string_view text, std::size_t offset);
// Behind the anchor and tag that stand in front of a value.
std::size_t skip_properties(std::string_view text, std::size_t offset);

struct Scalar {
  std::size_t begin = 0;
  std::size_t end = 0;
};
// The parser's `message` at `offset`, in words that say what to do. `last`: the scalar read last;
// `open`: offset of the innermost open bracket, npos for none.
TextError explain_syntax(std::string_view text, std::size_t offset, std::string_view message,
                         Scalar last, std::size_t open);

}  // namespace outrider::config::yaml
