#include "config/timestamp.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>

namespace outrider {
namespace {

std::string shown(std::int64_t ms) {
  char out[kTimestampBytes];
  return std::string(format_timestamp(ms, out));
}

TEST(Timestamp, KnownMoments) {
  EXPECT_EQ(shown(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(shown(951'782'400'007), "2000-02-29T00:00:00.007Z");
  EXPECT_EQ(shown(1'709'251'199'999), "2024-02-29T23:59:59.999Z");
  EXPECT_EQ(shown(-1), "1969-12-31T23:59:59.999Z");
}

TEST(Timestamp, OutOfRangeIsClampedNotWritten) {
  EXPECT_EQ(shown(INT64_MAX), "9999-12-31T23:59:59.999Z");
  EXPECT_EQ(shown(INT64_MIN), "0000-01-01T00:00:00.000Z");
}

TEST(Timestamp, TheCacheFollowsTheSecond) {
  EXPECT_EQ(shown(1'000), "1970-01-01T00:00:01.000Z");
  EXPECT_EQ(shown(1'500), "1970-01-01T00:00:01.500Z");
  EXPECT_EQ(shown(2'001), "1970-01-01T00:00:02.001Z");
  EXPECT_EQ(shown(1'999), "1970-01-01T00:00:01.999Z");
}

TEST(Timestamp, AgreesWithTheLibraryOverFiveCenturies) {
  for (std::int64_t second = -6'000'000'000; second < 10'000'000'000; second += 7'777'777) {
    const std::time_t time = second;
    std::tm expected{};
    gmtime_r(&time, &expected);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.000Z", &expected);
    ASSERT_EQ(shown(second * 1000), text);
  }
}

}  // namespace
}  // namespace outrider
