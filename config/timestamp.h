// Wall-clock time as text, UTC. The date is worked out once a second and thread, so that a log line
// costs a copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace outrider {

struct CivilTime {
  std::int64_t year = 1970;
  unsigned month = 1, day = 1, hour = 0, minute = 0, second = 0;
};

// Proleptic Gregorian; eras of 400 years that begin in March make leap days the last day of their
// year.
constexpr CivilTime civil_time(std::int64_t unix_seconds) {
  std::int64_t days = unix_seconds / 86400;
  std::int64_t rest = unix_seconds % 86400;
  if (rest < 0) {
    rest += 86400;
    --days;
  }
  days += 719468;  // from 0000-03-01
  const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const auto day_of_era = static_cast<unsigned>(days - era * 146097);
  const unsigned year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const unsigned day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const unsigned march_month = (5 * day_of_year + 2) / 153;
  CivilTime civil;
  civil.day = day_of_year - (153 * march_month + 2) / 5 + 1;
  civil.month = march_month < 10 ? march_month + 3 : march_month - 9;
  civil.year = static_cast<std::int64_t>(year_of_era) + era * 400 + (civil.month <= 2 ? 1 : 0);
  civil.hour = static_cast<unsigned>(rest / 3600);
  civil.minute = static_cast<unsigned>(rest / 60 % 60);
  civil.second = static_cast<unsigned>(rest % 60);
  return civil;
}

inline constexpr std::size_t kTimestampBytes = 24;  // 2006-01-02T15:04:05.678Z

// RFC 3339 with milliseconds into `out`, which has room for kTimestampBytes. Years outside
// 0000..9999 are clamped.
inline std::string_view format_timestamp(std::int64_t wall_ms, char* out) {
  constexpr std::int64_t kLowest = -62'167'219'200'000, kHighest = 253'402'300'799'999;
  wall_ms = wall_ms < kLowest ? kLowest : wall_ms > kHighest ? kHighest : wall_ms;
  std::int64_t second = wall_ms / 1000;
  std::int64_t ms = wall_ms % 1000;
  if (ms < 0) {
    ms += 1000;
    --second;
  }
  const auto digits = [](char* to, std::int64_t value, int width) {
    for (int i = width - 1; i >= 0; --i, value /= 10) to[i] = static_cast<char>('0' + value % 10);
  };
  thread_local std::int64_t cached_second = INT64_MIN;
  thread_local char cached[kTimestampBytes];
  if (second != cached_second) {
    const CivilTime civil = civil_time(second);
    std::memcpy(cached, "0000-00-00T00:00:00.000Z", kTimestampBytes);
    digits(cached, civil.year, 4);
    digits(cached + 5, civil.month, 2);
    digits(cached + 8, civil.day, 2);
    digits(cached + 11, civil.hour, 2);
    digits(cached + 14, civil.minute, 2);
    digits(cached + 17, civil.second, 2);
    cached_second = second;
  }
  std::memcpy(out, cached, kTimestampBytes);
  digits(out + 20, ms, 3);
  return {out, kTimestampBytes};
}

}  // namespace outrider
