#include "config/log_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

namespace outrider {
namespace {

using namespace std::chrono_literals;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/outrider-log-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() {
    for (const char* file : {"a.log", "b.log"}) ::unlink((path_ + "/" + file).c_str());
    ::rmdir(path_.c_str());
  }
  std::string operator/(const char* file) const { return path_ + "/" + file; }

 private:
  std::string path_;
};

std::string content(const std::string& path) {
  std::ifstream in(path);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

// The writer works beside us: waits for what must come, and fails if it never does.
template <class Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

void line(LogBuffer& buffer, std::string_view text) {
  buffer.append(text);
  buffer.end_line();
}

// Takes everything a descriptor holds, without waiting.
std::string take_all(int fd) {
  std::string all;
  char bytes[65536];
  for (ssize_t got; (got = ::read(fd, bytes, sizeof bytes)) > 0;)
    all.append(bytes, static_cast<std::size_t>(got));
  return all;
}

struct Pipe {
  explicit Pipe(bool socket = false) {
    EXPECT_EQ(socket ? ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
                     : ::pipe2(ends, O_CLOEXEC),
              0);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
  ~Pipe() {
    close_reader();
    ::close(ends[1]);
  }
  void close_reader() {
    if (ends[0] >= 0) ::close(ends[0]);
    ends[0] = -1;
  }
  int reader() const { return ends[0]; }
  int writer() const { return ends[1]; }
  int ends[2];
};

TEST(LogWriter, LinesReachAFileThatOthersCannotRead) {
  const Folder folder;
  const std::string path = folder / "a.log";
  LogWriter writer;
  std::string error;
  const auto sink = writer.file(path, error);
  ASSERT_TRUE(sink) << error;
  EXPECT_EQ(sink, writer.file(path, error));
  LogBuffer buffer(writer, sink);
  line(buffer, "one");
  line(buffer, "two");
  EXPECT_EQ(content(path), "");
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return content(path) == "one\ntwo\n"; }));
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_EQ(writer.dropped(), 0U);
}

TEST(LogWriter, AFileThatCannotBeOpenedIsAnErrorInWords) {
  LogWriter writer;
  std::string error;
  EXPECT_FALSE(writer.file("/nonexistent/folder/x.log", error));
  EXPECT_EQ(error, "No such file or directory");
}

TEST(LogWriter, WhatIsPendingAtTheEndIsWritten) {
  const Folder folder;
  {
    LogWriter writer;
    std::string error;
    LogBuffer buffer(writer, writer.file(folder / "a.log", error));
    for (int i = 0; i < 1000; ++i) line(buffer, "line");
  }
  const std::string all = content(folder / "a.log");
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 1000);
}

TEST(LogWriter, LinesOfManyThreadsStayWhole) {
  const Folder folder;
  constexpr int kThreads = 4, kLines = 20'000;
  {
    LogWriter writer;
    std::string error;
    const auto sink = writer.file(folder / "a.log", error);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        LogBuffer buffer(writer, sink);
        const std::string text(static_cast<std::size_t>(20 + 30 * t), static_cast<char>('a' + t));
        for (int i = 0; i < kLines; ++i) {
          line(buffer, text);
          if (i % 16 == 0) buffer.hand_over();
        }
      });
    for (std::thread& thread : threads) thread.join();
    comes_true([&] {
      struct stat status {};
      return ::stat((folder / "a.log").c_str(), &status) == 0 && status.st_size > 0;
    });
  }
  std::ifstream in(folder / "a.log");
  std::array<int, kThreads> counts{};
  for (std::string text; std::getline(in, text);) {
    const auto t = static_cast<std::size_t>(text[0] - 'a');
    ASSERT_LT(t, counts.size());
    ASSERT_EQ(text, std::string(20 + 30 * t, text[0]));
    ++counts[t];
  }
  for (const int count : counts) EXPECT_LE(count, kLines);
  EXPECT_GT(counts[0] + counts[1] + counts[2] + counts[3], 0);
}

TEST(LogWriter, AnUnfinishedLineIsNotHandedOver) {
  const Folder folder;
  LogWriter writer;
  std::string error;
  LogBuffer buffer(writer, writer.file(folder / "a.log", error));
  line(buffer, "whole");
  buffer.append("half");
  buffer.append(" of it");
  buffer.end_line();
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return content(folder / "a.log") == "whole\nhalf of it\n"; }));
}

TEST(LogWriter, ALineWithoutEndIsDroppedAndTheNextIsWhole) {
  const Folder folder;
  LogWriter writer;
  std::string error;
  LogBuffer buffer(writer, writer.file(folder / "a.log", error));
  line(buffer, "before");
  for (int i = 0; i < 100; ++i) buffer.append(std::string(10'000, 'x'));
  EXPECT_EQ(buffer.reserve(10'000), nullptr);
  buffer.end_line();
  line(buffer, "after");
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return content(folder / "a.log") == "before\nafter\n"; }));
  EXPECT_EQ(writer.dropped(), 1U);
}

class BlockedSink : public testing::TestWithParam<bool> {};

TEST_P(BlockedSink, NeverBlocksTheCallerAndDropsWholeCountedLines) {
  Pipe pipe(GetParam());
  const std::string text(200, 'x');
  std::uint64_t offered = 0, dropped = 0;
  std::string received;
  {
    LogWriter writer;
    std::optional<LogBuffer> buffer(std::in_place, writer, writer.descriptor(pipe.writer()));
    const auto began = std::chrono::steady_clock::now();
    while (writer.dropped() == 0) {  // nobody reads
      for (int i = 0; i < 100; ++i, ++offered) line(*buffer, text);
      buffer->hand_over();
      ASSERT_LT(offered, 1'000'000U);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - began, 10s);
    EXPECT_TRUE(comes_true([&] {  // somebody reads again: what was kept comes, then new lines
      received += take_all(pipe.reader());
      return received.size() > 512 * 1024;
    }));
    line(*buffer, "fresh");
    ++offered;
    buffer->hand_over();
    EXPECT_TRUE(comes_true([&] {
      received += take_all(pipe.reader());
      return received.ends_with("\nfresh\n");
    }));
    buffer.reset();
    dropped = writer.dropped();
  }
  received += take_all(pipe.reader());
  std::istringstream lines(received);
  std::uint64_t came = 0;
  for (std::string got; std::getline(lines, got); ++came)
    ASSERT_TRUE(got == text || got == "fresh") << got;
  EXPECT_EQ(came + dropped, offered);
}

INSTANTIATE_TEST_SUITE_P(PipeAndSocket, BlockedSink, testing::Bool());

TEST(LogWriter, EndsInTimeWhenNobodyReads) {
  Pipe pipe;
  const auto began = std::chrono::steady_clock::now();
  std::uint64_t dropped = 0;
  {
    LogWriter writer;
    LogBuffer buffer(writer, writer.descriptor(pipe.writer()));
    for (int i = 0; i < 5000; ++i) line(buffer, std::string(500, 'x'));
    buffer.hand_over();
    dropped = writer.dropped();
  }
  EXPECT_GT(dropped, 0U);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 8s);
}

TEST(LogWriter, AClosedPipeCostsLinesAndNothingElse) {
  Pipe pipe;
  pipe.close_reader();
  LogWriter writer;
  LogBuffer buffer(writer, writer.descriptor(pipe.writer()));
  line(buffer, "into nothing");
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return writer.dropped() == 1; }));
}

TEST(LogWriter, AFullDiskIsCounted) {
  LogWriter writer;
  std::string error;
  const auto sink = writer.file("/dev/full", error);
  ASSERT_TRUE(sink) << error;
  LogBuffer buffer(writer, sink);
  for (int i = 0; i < 3; ++i) line(buffer, "no room");
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return writer.dropped() == 3; }));
}

TEST(LogWriter, ReopenFollowsThePath) {
  const Folder folder;
  LogWriter writer;
  std::string error;
  LogBuffer buffer(writer, writer.file(folder / "a.log", error));
  line(buffer, "old");
  buffer.hand_over();
  ASSERT_TRUE(comes_true([&] { return content(folder / "a.log") == "old\n"; }));
  ASSERT_EQ(::rename((folder / "a.log").c_str(), (folder / "b.log").c_str()), 0);
  writer.reopen();
  ASSERT_TRUE(comes_true([&] { return ::access((folder / "a.log").c_str(), F_OK) == 0; }));
  line(buffer, "new");
  buffer.hand_over();
  EXPECT_TRUE(comes_true([&] { return content(folder / "a.log") == "new\n"; }));
  EXPECT_EQ(content(folder / "b.log"), "old\n");
}

TEST(LogWriter, AWriterThatSleepsIsWoken) {
  const Folder folder;
  LogWriter writer;
  std::string error;
  LogBuffer buffer(writer, writer.file(folder / "a.log", error));
  std::string expected;
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(45ms);  // longer than a nap: asleep by now
    line(buffer, "x");
    buffer.hand_over();
    expected += "x\n";
    ASSERT_TRUE(comes_true([&] { return content(folder / "a.log") == expected; })) << i;
  }
}

}  // namespace
}  // namespace outrider
