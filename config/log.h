// The process's own log: levelled lines on standard error, through the log writer once there is
// one. For what an operator should know; requests are in the access log, and a failed request adds
// here at most ten lines a second of its reason. Any thread may call these; none of them belongs on
// the hot path.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <type_traits>

#include "config/reason.h"

namespace outrider {

class LogWriter;

namespace log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError };
std::string_view to_string(Level level);
std::optional<Level> level_of(std::string_view word);  // debug info warn error

void start(LogWriter& writer, int fd = 2);  // until then lines are written at once
void stop();                                // before the writer ends
void set_level(Level level);
Level level();
inline bool enabled(Level of) { return of >= level(); }
// Says what was suppressed in the second that ended; the control thread calls it about once a
// second.
void tick();
// A line as it is, without time and level, whatever the level: `ready`, `listening NAME ADDRESS`.
void plain(std::string_view text);

class Argument {
 public:
  Argument(std::string_view text)
      : kind_(Kind::kText), text_(text) {}                         // NOLINT: implicit by design
  Argument(const char* text) : kind_(Kind::kText), text_(text) {}  // NOLINT: implicit by design
  Argument(double number) : kind_(Kind::kReal), real_(number) {}   // NOLINT: implicit by design
  Argument(bool truth)
      : kind_(Kind::kText), text_(truth ? "true" : "false") {}  // NOLINT: implicit by design
  template <std::integral T>
  Argument(T number)
      : kind_(std::signed_integral<T> ? Kind::kSigned
                                      : Kind::kUnsigned),  // NOLINT: implicit by design
        integer_(static_cast<std::uint64_t>(number)) {}
  template <class T>
  requires std::convertible_to<const T&, std::string_view> Argument(const T& text)
      : Argument(std::string_view(text)) {}  // NOLINT: implicit by design

 private:
  friend class Line;
  enum class Kind : std::uint8_t { kText, kSigned, kUnsigned, kReal };
  Kind kind_;
  std::string_view text_;
  std::uint64_t integer_ = 0;
  double real_ = 0;
};

// A text with one `{}` for each argument; anything else does not compile.
template <std::size_t count>
struct Format {
  template <std::size_t size>
  consteval Format(const char (&literal)[size])
      : text(literal, size - 1) {  // NOLINT: implicit by design
    std::size_t places = 0;
    for (std::size_t at = text.find("{}"); at != std::string_view::npos;
         at = text.find("{}", at + 2))
      ++places;
    if (places != count) throw "places and arguments differ in number";
  }
  std::string_view text;
};

void write(Level level, std::string_view format, std::initializer_list<Argument> arguments);
void write_limited(Reason reason, std::string_view format,
                   std::initializer_list<Argument> arguments);

template <class... Arguments>
void debug(Format<sizeof...(Arguments)> format, const Arguments&... arguments) {
  if (enabled(Level::kDebug)) write(Level::kDebug, format.text, {Argument(arguments)...});
}
template <class... Arguments>
void info(Format<sizeof...(Arguments)> format, const Arguments&... arguments) {
  if (enabled(Level::kInfo)) write(Level::kInfo, format.text, {Argument(arguments)...});
}
template <class... Arguments>
void warn(Format<sizeof...(Arguments)> format, const Arguments&... arguments) {
  if (enabled(Level::kWarn)) write(Level::kWarn, format.text, {Argument(arguments)...});
}
template <class... Arguments>
void error(Format<sizeof...(Arguments)> format, const Arguments&... arguments) {
  write(Level::kError, format.text, {Argument(arguments)...});
}
// A warning, of each reason at most limits::kLogLinesPerReason a second; then `suppressed N lines
// of REASON`.
template <class... Arguments>
void limited(Reason reason, Format<sizeof...(Arguments)> format, const Arguments&... arguments) {
  if (enabled(Level::kWarn)) write_limited(reason, format.text, {Argument(arguments)...});
}

}  // namespace log
}  // namespace outrider
