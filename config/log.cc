// One mutex around one buffer: lines are rare. Values from outside are escaped here, so that one
// call is one line whatever a peer sent.
#include "config/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "config/limits.h"
#include "config/log_writer.h"
#include "config/timestamp.h"

namespace outrider::log {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMessageBytes = 8 * 1024;
constexpr std::size_t kPrefixBytes = 64;

struct Window {  // of one reason
  std::int64_t second = -1;
  std::uint32_t lines = 0;
  std::uint64_t suppressed = 0;
};

struct State {
  std::mutex mutex;
  std::optional<LogBuffer> buffer;
  std::array<Window, kReasonCount> windows{};
};
State& state() {
  static State* const only = new State;  // outlives every thread that may still log
  return *only;
}
std::atomic<Level> g_level{Level::kInfo};

std::int64_t monotonic_second() {
  return std::chrono::duration_cast<std::chrono::seconds>(Clock::now().time_since_epoch()).count();
}

std::int64_t wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void put(State& held, std::string_view line) {
  if (held.buffer) {
    held.buffer->append(line);
    held.buffer->end_line();
    held.buffer->hand_over();
    return;
  }
  char whole[kPrefixBytes + kMessageBytes + 1];
  const std::size_t size = std::min(line.size(), sizeof whole - 1);
  std::memcpy(whole, line.data(), size);
  whole[size] = '\n';
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, whole, size + 1);
}

}  // namespace

// A line under construction, cut at its room.
class Line {
 public:
  void add(std::string_view text) {
    for (const char c : text) add(c);
  }
  void add_escaped(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte != 0x7f) {
        add(c);
        continue;
      }
      const char escaped[] = {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      add({escaped, sizeof escaped});
    }
  }
  void add_argument(const Argument& argument) {
    char digits[32];
    std::to_chars_result end{digits, {}};
    switch (argument.kind_) {
      case Argument::Kind::kText:
        return add_escaped(argument.text_.substr(0, limits::kLogValueBytes));
      case Argument::Kind::kSigned:
        end = std::to_chars(digits, digits + sizeof digits,
                            static_cast<std::int64_t>(argument.integer_));
        break;
      case Argument::Kind::kUnsigned:
        end = std::to_chars(digits, digits + sizeof digits, argument.integer_);
        break;
      case Argument::Kind::kReal:
        end = std::to_chars(digits, digits + sizeof digits, argument.real_);
        break;
    }
    add({digits, static_cast<std::size_t>(end.ptr - digits)});
  }
  std::string_view text() const { return {bytes_, size_}; }

 private:
  void add(char c) {
    if (size_ < sizeof bytes_) bytes_[size_++] = c;
  }
  char bytes_[kMessageBytes];
  std::size_t size_ = 0;
};

namespace {

void put_formatted(State& held, Level of, std::string_view format,
                   std::initializer_list<Argument> arguments) {
  Line line;
  char time[kTimestampBytes];
  line.add(format_timestamp(wall_ms(), time));
  line.add(" ");
  line.add(to_string(of));
  line.add(" ");
  for (const Argument& argument : arguments) {
    const std::size_t place = format.find("{}");
    line.add(format.substr(0, place));
    line.add_argument(argument);
    format.remove_prefix(place + 2);
  }
  line.add(format);
  put(held, line.text());
}

void tell_suppressed(State& held, Reason reason, Window& window) {
  if (window.suppressed == 0) return;
  const std::uint64_t lines = std::exchange(window.suppressed, 0);
  put_formatted(held, Level::kWarn, "suppressed {} lines of {}", {lines, info(reason).word});
}

}  // namespace

std::string_view to_string(Level level) {
  switch (level) {
    case Level::kDebug: return "debug";
    case Level::kInfo: return "info";
    case Level::kWarn: return "warn";
    case Level::kError: return "error";
  }
  return {};
}

std::optional<Level> level_of(std::string_view word) {
  for (const Level level : {Level::kDebug, Level::kInfo, Level::kWarn, Level::kError})
    if (to_string(level) == word) return level;
  return std::nullopt;
}

void start(LogWriter& writer, int fd) {
  State& held = state();
  const std::lock_guard lock(held.mutex);
  held.buffer.emplace(writer, writer.descriptor(fd));
}

void stop() {
  tick();
  State& held = state();
  const std::lock_guard lock(held.mutex);
  for (std::size_t i = 0; i < kReasonCount; ++i)
    tell_suppressed(held, static_cast<Reason>(i), held.windows[i]);
  held.buffer.reset();
}

void set_level(Level level) { g_level.store(level, std::memory_order_relaxed); }
Level level() { return g_level.load(std::memory_order_relaxed); }

void tick() {
  State& held = state();
  const std::lock_guard lock(held.mutex);
  const std::int64_t now = monotonic_second();
  for (std::size_t i = 0; i < kReasonCount; ++i)
    if (held.windows[i].second < now)
      tell_suppressed(held, static_cast<Reason>(i), held.windows[i]);
}

void plain(std::string_view text) {
  State& held = state();
  const std::lock_guard lock(held.mutex);
  put(held, text);
}

void write(Level level, std::string_view format, std::initializer_list<Argument> arguments) {
  State& held = state();
  const std::lock_guard lock(held.mutex);
  put_formatted(held, level, format, arguments);
}

void write_limited(Reason reason, std::string_view format,
                   std::initializer_list<Argument> arguments) {
  State& held = state();
  const std::lock_guard lock(held.mutex);
  Window& window = held.windows[static_cast<std::size_t>(reason)];
  const std::int64_t now = monotonic_second();
  if (window.second != now) {
    tell_suppressed(held, reason, window);
    window.second = now;
    window.lines = 0;
  }
  if (window.lines >= limits::kLogLinesPerReason) {
    ++window.suppressed;
    return;
  }
  ++window.lines;
  put_formatted(held, Level::kWarn, format, arguments);
}

}  // namespace outrider::log
