#include "config/written.h"

#include <charconv>
#include <utility>

namespace outrider::config {

std::string written(Millis duration) {
  static constexpr std::pair<std::int64_t, const char*> kUnits[] = {
      {3'600'000, "h"}, {60'000, "m"}, {1'000, "s"}, {1, "ms"}};
  std::int64_t rest = duration.count();
  if (rest == 0) return "0s";
  std::string text;
  for (const auto& [factor, name] : kUnits) {
    if (rest < factor) continue;
    text += std::to_string(rest / factor) + name;
    rest %= factor;
  }
  return text;
}

std::string written_size(std::uint64_t bytes) {
  static constexpr std::pair<std::uint64_t, const char*> kUnits[] = {
      {1ULL << 30, "GiB"}, {1'000'000'000, "GB"}, {1ULL << 20, "MiB"},
      {1'000'000, "MB"},   {1ULL << 10, "KiB"},   {1'000, "KB"}};
  for (const auto& [factor, name] : kUnits)
    if (bytes >= factor && bytes % factor == 0) return std::to_string(bytes / factor) + name;
  return std::to_string(bytes) + "B";
}

std::string written_share(double share) {
  char text[32];
  const auto result = std::to_chars(text, text + sizeof(text), share * 100);
  return std::string(text, result.ptr) + "%";
}

}  // namespace outrider::config
