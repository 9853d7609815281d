// All log output leaves through one background thread, so that a full disk or an unread pipe never
// holds a loop up. A worker gathers lines in a LogBuffer of its own and hands them over once per
// turn (a copy under a short lock); the writer takes them to their sink. Everything is bounded:
// what does not fit is dropped in whole lines, and counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace outrider {

class LogSink;  // a file or descriptor; log_writer.cc
class LogWriter;

// A byte array that grows without being cleared first.
class LogBytes {
 public:
  const char* data() const { return data_.get(); }
  char* at(std::size_t position) { return data_.get() + position; }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }
  void resize(std::size_t size) { size_ = size; }  // within the capacity
  void reserve(std::size_t bytes);
  void append(std::string_view text) {
    reserve(size_ + text.size());
    std::memcpy(at(size_), text.data(), text.size());
    size_ += text.size();
  }
  void give_up() { *this = LogBytes(); }

 private:
  std::unique_ptr<char[]> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// One thread's lines for one sink. A line is begun by the first reserve() and counts only once
// end_line() was called.
class LogBuffer {
 public:
  static constexpr std::size_t kPendingBytes =
      1024 * 1024;  // handed over and not yet taken: 20 ms at 150,000 lines a second
  static constexpr std::size_t kLineBytes =
      256 * 1024;  // every field of a line at its longest, escaped, fits twice
  static constexpr std::size_t kHandOverBytes = 64 * 1024;  // within a turn

  LogBuffer(LogWriter& writer, std::shared_ptr<LogSink> sink);
  ~LogBuffer();  // hands over what is left
  LogBuffer(const LogBuffer&) = delete;
  LogBuffer& operator=(const LogBuffer&) = delete;

  // Room for `bytes` at the end of the line being written; null when the line has become too long,
  // which drops it.
  char* reserve(std::size_t bytes) {
    if (position_ + bytes > front_.capacity() && !grow(bytes)) return nullptr;
    return front_.at(position_);
  }
  void commit(std::size_t bytes) { position_ += bytes; }
  void append(std::string_view text) {
    char* const to = reserve(text.size());
    if (to == nullptr) return;
    std::memcpy(to, text.data(), text.size());
    commit(text.size());
  }
  void end_line();   // adds the line feed
  void hand_over();  // once per turn of the loop

 private:
  friend class LogWriter;
  struct Shared {  // what the writer sees
    explicit Shared(std::shared_ptr<LogSink> to) : sink(std::move(to)) {}
    const std::shared_ptr<LogSink> sink;
    std::mutex mutex;
    LogBytes pending;     // under mutex
    bool closed = false;  // under mutex
  };
  bool grow(std::size_t bytes);

  LogWriter& writer_;
  const std::shared_ptr<Shared> shared_;
  LogBytes front_;            // size(): end of the last whole line
  std::size_t position_ = 0;  // end of the line being written
  bool too_long_ = false;
};

class LogWriter {
 public:
  LogWriter();
  ~LogWriter();  // writes what is pending for at most a second
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // Appends to a file, made readable by its owner alone; the same path gives the same sink. Null:
  // `error` says why.
  std::shared_ptr<LogSink> file(const std::string& path, std::string& error);
  // Standard output or error; the descriptor stays its owner's.
  std::shared_ptr<LogSink> descriptor(int fd);
  void reopen();  // files, by their paths; soon, on the writer's thread
  std::uint64_t dropped() const {
    return dropped_.load(std::memory_order_relaxed);
  }  // lines, since the start

 private:
  friend class LogBuffer;
  void add(std::shared_ptr<LogBuffer::Shared> shared);
  void drop(std::uint64_t lines) { dropped_.fetch_add(lines, std::memory_order_relaxed); }
  void handed_over(std::size_t pending);
  void signal();
  void run();
  bool write_all();
  bool wait(int timeout_ms);
  void tidy();

  const int wake_fd_;
  std::atomic<bool> waiting_{false};  // asleep until signalled
  std::atomic<bool> napping_{false};  // asleep for a moment while lines gather
  std::atomic<bool> signalled_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> reopen_{false};
  std::atomic<std::uint64_t> dropped_{0};
  std::mutex mutex_;  // of the two lists
  std::vector<std::shared_ptr<LogBuffer::Shared>> buffers_;
  std::vector<std::shared_ptr<LogSink>> sinks_;
  std::thread thread_;
};

}  // namespace outrider
