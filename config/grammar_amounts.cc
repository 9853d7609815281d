// Numbers with units. Nothing here wraps, rounds or guesses a unit.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

#include "config/diagnostics.h"
#include "config/grammar.h"

namespace outrider::config {
namespace {

using namespace std::chrono_literals;

constexpr Millis kLongest = 8760h;  // a year; more is a slip of the pen
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 50;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr Unit kTimes[] = {
    {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};  // in the order they may follow
constexpr Unit kSizes[] = {
    {"B", 1},      {"KiB", 1ULL << 10}, {"MiB", 1ULL << 20},  {"GiB", 1ULL << 30},
    {"KB", 1'000}, {"MB", 1'000'000},   {"GB", 1'000'000'000}};

// Digits at the front of `text`, taken off it; nothing when there are none or too many.
std::optional<std::uint64_t> take_digits(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string_view take_letters(std::string_view& text) {
  std::size_t count = 0;
  while (count < text.size() &&
         ((text[count] >= 'a' && text[count] <= 'z') || (text[count] >= 'A' && text[count] <= 'Z')))
    ++count;
  return std::exchange(text, text.substr(count)).substr(0, count);
}

Problem no_duration() {
  return {"is not a duration: write 250ms, 3s, 1m30s or 2h", "bad-value", {}};
}

constexpr std::pair<std::string_view, RetryOn> kConditions[] = {
    {"connect-failure", RetryOn::kConnectFailure},
    {"refused-stream", RetryOn::kRefusedStream},
    {"reset", RetryOn::kReset},
    {"per-try-timeout", RetryOn::kPerTryTimeout},
    {"5xx", RetryOn::k5xx},
    {"gateway-error", RetryOn::kGatewayError}};

}  // namespace

Problem parse_integer(std::string_view text, std::int64_t min, std::int64_t max,
                      std::int64_t& out) {
  std::int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool overflow = failed == std::errc::result_out_of_range;
  const bool zeros = text.size() > 1 && text.front() == '0';  // 010 is 8 to some
  if (text.empty() || end != text.data() + text.size() || (failed != std::errc() && !overflow) ||
      zeros)
    return {"is not a whole number", "wrong-type", {}};
  const bool negative = text.front() == '-';
  if ((overflow && !negative) || (!overflow && value > max))
    return {"is above " + std::to_string(max), "out-of-range", {}};
  if (overflow || value < min) return {"is below " + std::to_string(min), "out-of-range", {}};
  out = value;
  return {};
}

Problem parse_duration(std::string_view text, Millis& out) {
  if (all_digits(text))
    return {"has no unit: write " + std::string("250ms, 3s, 1m30s or 2h"), "missing-unit", {}};
  std::uint64_t total = 0;
  const Unit* next = std::begin(kTimes);
  if (text.empty()) return no_duration();
  while (!text.empty()) {
    const auto digits = take_digits(text);
    if (!digits) return no_duration();
    const std::string_view name = take_letters(text);
    while (next != std::end(kTimes) && next->name != name) ++next;
    if (next == std::end(kTimes)) return no_duration();
    if (*digits > static_cast<std::uint64_t>(kLongest.count()) / next->factor)
      return {"is above 8760h", "out-of-range", {}};
    total += *digits * next->factor;
    ++next;
  }
  if (total > static_cast<std::uint64_t>(kLongest.count()))
    return {"is above 8760h", "out-of-range", {}};
  out = Millis(total);
  return {};
}

Problem parse_size(std::string_view text, std::uint64_t& out) {
  const Problem no_size{"is not a size: write 512, 64KiB (1024) or 10MB (1000)", "bad-value", {}};
  const auto digits = take_digits(text);
  if (!digits) return no_size;
  if (text.empty()) text = "B";
  for (const Unit& unit : kSizes) {
    if (unit.name != text) continue;
    if (*digits > kMostBytes / unit.factor) return {"is too large", "out-of-range", {}};
    out = *digits * unit.factor;
    return {};
  }
  return no_size;
}

Problem parse_percent(std::string_view text, double& out) {
  const Problem no_share{"is not a share: write 20% or 0.5%", "bad-value", {}};
  if (!text.ends_with('%')) return no_share;
  text.remove_suffix(1);
  double value = 0;
  const auto [end, failed] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (failed != std::errc() || end != text.data() + text.size() || text.starts_with('-') ||
      !(value >= 0))
    return no_share;
  if (value > 100) return {"is above 100%", "out-of-range", {}};
  out = value / 100;
  return {};
}

Problem parse_backoff(std::string_view text, Backoff& out) {
  const std::size_t dots = text.find("..");
  Backoff range;
  if (Problem problem = parse_duration(text.substr(0, dots), range.min)) return problem;
  range.max = range.min;
  if (dots != std::string_view::npos)
    if (Problem problem = parse_duration(text.substr(dots + 2), range.max)) return problem;
  if (range.max < range.min) return {"ends below where it begins", "out-of-range", {}};
  out = range;
  return {};
}

Problem parse_upload_rate(std::string_view text, UploadRate& out) {
  const Problem no_rate{"is not an upload rate: write 240B/s after 5s", "bad-value", {}};
  UploadRate rate;
  const std::size_t slash = text.find("/s");
  if (slash == std::string_view::npos) return no_rate;
  if (parse_size(text.substr(0, slash), rate.bytes_per_second)) return no_rate;
  std::string_view rest = text.substr(slash + 2);
  constexpr std::string_view kAfter = " after ";
  if (rest.starts_with(kAfter)) {
    if (parse_duration(rest.substr(kAfter.size()), rate.after)) return no_rate;
    rest = {};
  }
  if (!rest.empty()) return no_rate;
  out = rate;
  return {};
}

Problem parse_rate(std::string_view text, Rate& out) {
  constexpr std::pair<std::string_view, Millis> kPeriods[] = {{"/s", 1s}, {"/m", 1min}, {"/h", 1h}};
  const Problem no_rate{"is not a rate: write 50/s, 600/m or 10/h", "bad-value", {}};
  const auto count = take_digits(text);
  if (!count) return no_rate;
  for (const auto& [name, period] : kPeriods) {
    if (name != text) continue;
    if (*count == 0) return {"lets nothing through: `deny` says that", "out-of-range", {}};
    const auto seconds = static_cast<std::uint64_t>(period / 1s);
    if (*count > limits::kMostPerSecond * seconds)
      return {
          "is above " + std::to_string(limits::kMostPerSecond) + " a second", "out-of-range", {}};
    out = {*count, period};
    return {};
  }
  return no_rate;
}

Problem parse_failures(std::string_view text, unsigned& out) {
  const std::size_t blank = text.find(' ');
  std::int64_t count = 0;
  const std::string_view unit = blank == std::string_view::npos ? "" : text.substr(blank + 1);
  if (!all_digits(text.substr(0, blank)) || (unit != "failures" && unit != "failure"))
    return {"is not a number of failures: write 5 failures", "bad-value", {}};
  if (Problem problem = parse_integer(text.substr(0, blank), 1, limits::kMaxEjectAfter, count))
    return problem;
  out = static_cast<unsigned>(count);
  return {};
}

Problem parse_statuses(std::string_view text, std::pair<int, int>& out) {
  const std::size_t dots = text.find("..");
  std::int64_t first = 0;
  std::int64_t last = 0;
  const std::string_view from = text.substr(0, dots);
  const std::string_view to = dots == std::string_view::npos ? from : text.substr(dots + 2);
  if (!all_digits(from) || !all_digits(to))
    return {"is not a status: write 204 or 200..299", "bad-value", {}};
  if (Problem problem = parse_integer(from, 100, 599, first)) return problem;
  if (Problem problem = parse_integer(to, 100, 599, last)) return problem;
  if (last < first) return {"ends below where it begins", "out-of-range", {}};
  out = {static_cast<int>(first), static_cast<int>(last)};
  return {};
}

Problem parse_retry_on(std::string_view text, RetryWhen& out) {
  for (const auto& [name, bit] : kConditions) {
    if (name != text) continue;
    out.bits = static_cast<std::uint16_t>(out.bits | static_cast<std::uint16_t>(bit));
    return {};
  }
  constexpr std::string_view kGrpc = "grpc:";
  if (text.starts_with(kGrpc)) {
    int code = 0;
    Problem problem = parse_grpc_name(text.substr(kGrpc.size()), code);
    if (!problem.suggestion.empty()) problem.suggestion.insert(0, kGrpc);
    if (!problem && code == 0) problem = {"is no failure", "bad-value", {}};
    if (!problem) out.grpc |= 1U << code;
    return problem;
  }
  std::int64_t status = 0;
  if (!all_digits(text) || text.size() != 3)
    return {"is neither a condition nor a status", "bad-value", {}};
  if (Problem problem = parse_integer(text, 400, 599, status)) return problem;
  out.statuses.push_back(static_cast<int>(status));
  return {};
}

namespace {
// By number: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
constexpr std::string_view kGrpcNames[] = {
    "ok",        "cancelled",      "unknown",           "invalid-argument",   "deadline-exceeded",
    "not-found", "already-exists", "permission-denied", "resource-exhausted", "failed-precondition",
    "aborted",   "out-of-range",   "unimplemented",     "internal",           "unavailable",
    "data-loss", "unauthenticated"};
}  // namespace

std::string_view grpc_name(int status) {
  const auto at = static_cast<std::size_t>(status);
  return status >= 0 && at < std::size(kGrpcNames) ? kGrpcNames[at] : std::string_view();
}

Problem parse_grpc_name(std::string_view text, int& status) {
  const auto found = std::find(std::begin(kGrpcNames), std::end(kGrpcNames), text);
  if (found == std::end(kGrpcNames))
    return {"names no status of gRPC", "bad-value", std::string(nearest(text, kGrpcNames))};
  status = static_cast<int>(found - std::begin(kGrpcNames));
  return {};
}

Problem parse_mirror(std::string_view text, Mirror& out) {
  const std::size_t space = text.find(' ');
  if (space != std::string_view::npos) {
    if (Problem problem = parse_percent(text.substr(space + 1), out.share))
      return {"is not written as 'service 5%'", "bad-value", {}};
  }
  return parse_target(text.substr(0, space), out.target);
}

}  // namespace outrider::config
