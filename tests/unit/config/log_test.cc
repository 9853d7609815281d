#include "config/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "config/log_writer.h"

namespace outrider {
namespace {

// Runs `speak` with the log going to a pipe; what came out of it.
template <class Speak>
std::string logged(Speak speak) {
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  {
    LogWriter writer;
    log::start(writer, ends[1]);
    speak();
    log::stop();
  }
  std::string all;
  char bytes[65536];
  for (ssize_t got; (got = ::read(ends[0], bytes, sizeof bytes)) > 0;)
    all.append(bytes, static_cast<std::size_t>(got));
  ::close(ends[0]);
  ::close(ends[1]);
  return all;
}

struct AtLevel {
  explicit AtLevel(log::Level level) { log::set_level(level); }
  ~AtLevel() { log::set_level(log::Level::kInfo); }
};

TEST(Log, ALineHasTimeLevelAndArguments) {
  const std::string out = logged(
      [] { log::warn("{} of {} {} is {} and {}", "one", 2, std::string("three"), 4.5, true); });
  ASSERT_GT(out.size(), 24U);
  EXPECT_EQ(out.substr(24), " warn one of 2 three is 4.5 and true\n");
  std::string shape = out.substr(0, 24);
  for (char& c : shape) c = c >= '0' && c <= '9' ? '0' : c;
  EXPECT_EQ(shape, "0000-00-00T00:00:00.000Z");
}

TEST(Log, NumbersKeepTheirSign) {
  const std::string out =
      logged([] { log::error("{} {}", -1, std::uint64_t{18446744073709551615U}); });
  EXPECT_NE(out.find(" error -1 18446744073709551615\n"), std::string::npos) << out;
}

TEST(Log, TheLevelDecidesAndChangesAtRunTime) {
  const std::string out = logged([] {
    log::debug("a");
    const AtLevel debug(log::Level::kDebug);
    log::debug("b");
    log::set_level(log::Level::kError);
    log::warn("c");
    log::error("d");
  });
  EXPECT_EQ(out.find(" debug a"), std::string::npos);
  EXPECT_NE(out.find(" debug b\n"), std::string::npos);
  EXPECT_EQ(out.find(" warn c"), std::string::npos);
  EXPECT_NE(out.find(" error d\n"), std::string::npos);
}

TEST(Log, LevelsHaveNames) {
  for (const char* word : {"debug", "info", "warn", "error"}) {
    ASSERT_TRUE(log::level_of(word)) << word;
    EXPECT_EQ(log::to_string(*log::level_of(word)), word);
  }
  EXPECT_FALSE(log::level_of("loud"));
  EXPECT_FALSE(log::level_of(""));
}

TEST(Log, ValuesCannotForgeLinesAndAreCut) {
  const std::string out = logged([] {
    log::warn("peer said {}", std::string("a\r\nINFO b\x1b[31m") + std::string(5000, 'x'));
  });
  EXPECT_NE(out.find("peer said a\\x0d\\x0aINFO b\\x1b[31m"), std::string::npos);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1);
  EXPECT_LT(out.size(), 1200U);
}

TEST(Log, PlainLinesAreAsTheyAre) {
  EXPECT_EQ(logged([] { log::plain("listening main 127.0.0.1:8080"); }),
            "listening main 127.0.0.1:8080\n");
}

TEST(Log, AReasonSpeaksTenTimesASecondAndTellsWhatItKept) {
  const std::string out = logged([] {
    for (int i = 0; i < 500; ++i) log::limited(Reason::kBadRequest, "bad {}", i);
    log::limited(Reason::kOverload, "another reason");
  });
  std::istringstream lines(out);
  std::uint64_t said = 0, kept = 0;
  for (std::string text; std::getline(lines, text);) {
    if (text.find(" bad ") != std::string::npos) ++said;
    if (const auto at = text.find("suppressed "); at != std::string::npos) {
      EXPECT_NE(text.find(" lines of bad_request"), std::string::npos) << text;
      kept += std::stoull(text.substr(at + 11));
    }
  }
  EXPECT_EQ(said + kept, 500U);
  EXPECT_GE(said, 10U);
  EXPECT_LE(said, 30U);  // the loop may touch a second or two
  EXPECT_NE(out.find(" warn another reason\n"), std::string::npos);
}

TEST(Log, WithoutAWriterLinesGoStraightToStandardError) {
  testing::internal::CaptureStderr();
  log::error("early {}", 1);
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(out.ends_with(" error early 1\n")) << out;
}

}  // namespace
}  // namespace outrider
