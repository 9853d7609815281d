// The writer's rounds: take what each buffer handed over, write it as far as the sink takes it, nap
// while more gathers, sleep when nothing comes. A sink holds one chunk; while that chunk is stuck
// nothing more is taken for it, its buffers fill and drop. Descriptors that can block are written
// only when poll() says so, in pieces that then cannot block.
#include "config/log_writer.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "config/error.h"

namespace outrider {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kNapMs = 20;                             // longest a line waits while others follow
constexpr std::chrono::milliseconds kLastWords{1000};  // for what is pending at the end
constexpr std::chrono::milliseconds kLookEvery{1000};  // whether files still have a name

std::uint64_t count_lines(std::string_view text) {
  return static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
}

int open_log(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                0600);
}

// A descriptor we may make non-blocking: the flag on a shared one would change it for everybody.
// Sockets cannot be opened so.
int open_own(int fd) {
  const std::string self = "/proc/self/fd/" + std::to_string(fd);
  return ::open(self.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

}  // namespace

void LogBytes::reserve(std::size_t bytes) {
  if (bytes <= capacity_) return;
  const std::size_t capacity = std::max<std::size_t>({bytes, capacity_ * 2, 4096});
  auto data = std::make_unique_for_overwrite<char[]>(capacity);
  if (size_ != 0) std::memcpy(data.get(), data_.get(), size_);
  data_ = std::move(data);
  capacity_ = capacity;
}

// Once made it belongs to the writer's thread; others only compare what it was made from.
class LogSink {
 public:
  LogSink(std::string path, int fd, bool owned) : path_(std::move(path)), shown_fd_(fd) {
    take(fd, owned);
  }
  ~LogSink() { close(); }
  LogSink(const LogSink&) = delete;
  LogSink& operator=(const LogSink&) = delete;

  bool is(const std::string& path) const { return !path_.empty() && path_ == path; }
  bool is(int fd) const { return path_.empty() && shown_fd_ == fd; }
  int fd() const { return fd_; }
  bool stuck() const { return written_ < chunk_.size(); }

  // The next chunk; what the sink had is given for it to be filled again.
  void take_chunk(LogBytes& pending) {
    std::swap(chunk_, pending);
    pending.resize(0);
    written_ = 0;
  }
  // Until all is written or the sink blocks. Lines that the sink refuses are gone: returns how
  // many.
  std::uint64_t write() {
    std::uint64_t dropped = 0;
    while (stuck()) {
      const ssize_t put = torn_ ? put_piece("\n", 1)
                                : put_piece(chunk_.data() + written_, chunk_.size() - written_);
      if (put < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) break;
        dropped += abandon();
      } else if (torn_) {
        torn_ = put == 0;
      } else if (put > 0) {
        written_ += static_cast<std::size_t>(put);
        mid_line_ = chunk_.data()[written_ - 1] != '\n';
      }
    }
    return dropped;
  }
  void idle() {
    if (stuck()) return;
    chunk_.give_up();
    written_ = 0;
  }
  std::uint64_t abandon() {
    const std::uint64_t lines = count_lines({chunk_.data() + written_, chunk_.size() - written_});
    written_ = chunk_.size();
    torn_ = std::exchange(mid_line_, false) ||
            torn_;  // the next line must not continue half of this one
    return lines;
  }
  void reopen() {
    if (path_.empty()) return;
    const int fresh = open_log(path_);
    if (fresh < 0) return;  // better the old file than none
    close();
    take(fresh, true);
    torn_ = mid_line_ = false;
  }
  void reopen_if_removed() {
    struct stat ours {};
    if (regular_ && ::fstat(fd_, &ours) == 0 && ours.st_nlink == 0) reopen();
  }

 private:
  void take(int fd, bool owned) {
    fd_ = fd;
    owned_ = owned;
    waits_ = socket_ = false;
    struct stat status {};
    regular_ = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (owned || regular_) return;
    socket_ = S_ISSOCK(status.st_mode);
    if (socket_) return;
    const int own = open_own(fd);
    waits_ = own < 0;
    if (waits_) return;
    fd_ = own;
    owned_ = true;
  }
  void close() {
    if (owned_) ::close(fd_);
  }
  ssize_t put_piece(const char* from, std::size_t size) {
    if (socket_) return ::send(fd_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!waits_) return ::write(fd_, from, size);
    pollfd ready{fd_, POLLOUT, 0};
    if (::poll(&ready, 1, 0) == 0) {
      errno = EAGAIN;
      return -1;
    }
    return ::write(
        fd_, from,
        std::min<std::size_t>(size, PIPE_BUF));  // a writable pipe has room for that much
  }

  const std::string path_;
  const int shown_fd_;
  int fd_ = -1;
  bool owned_ = false;
  bool regular_ = false;
  bool socket_ = false;
  bool waits_ = false;  // a blocking descriptor that is not ours alone
  bool mid_line_ = false;
  bool torn_ = false;
  LogBytes chunk_;
  std::size_t written_ = 0;
};

// ---- buffers

LogBuffer::LogBuffer(LogWriter& writer, std::shared_ptr<LogSink> sink)
    : writer_(writer), shared_(std::make_shared<Shared>(std::move(sink))) {
  writer_.add(shared_);
}

LogBuffer::~LogBuffer() {
  hand_over();
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->closed = true;
  }
  writer_.signal();
}

bool LogBuffer::grow(std::size_t bytes) {
  if (too_long_ || position_ + bytes - front_.size() > kLineBytes) {
    too_long_ = true;
    return false;
  }
  // The line in progress lies beyond size(): count it in while it moves.
  const std::size_t whole = front_.size();
  front_.resize(position_);
  front_.reserve(position_ + bytes);
  front_.resize(whole);
  return true;
}

void LogBuffer::end_line() {
  append("\n");
  if (too_long_) {
    position_ = front_.size();
    too_long_ = false;
    writer_.drop(1);
    return;
  }
  front_.resize(position_);
  if (front_.size() >= kHandOverBytes) hand_over();
}

void LogBuffer::hand_over() {
  if (front_.size() == 0) return;
  std::size_t pending = 0;
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->pending.size() + front_.size() <= kPendingBytes)
      shared_->pending.append({front_.data(), front_.size()});
    else
      writer_.drop(count_lines({front_.data(), front_.size()}));
    pending = shared_->pending.size();
  }
  front_.resize(0);
  position_ = 0;
  writer_.handed_over(pending);
}

// ---- the writer

LogWriter::LogWriter() : wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  OUTRIDER_ASSERT(wake_fd_ >= 0);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all,
                  &before);  // signals are for the control thread; SIGPIPE for nobody
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

LogWriter::~LogWriter() {
  stop_.store(true);
  signal();
  thread_.join();
  ::close(wake_fd_);
}

std::shared_ptr<LogSink> LogWriter::file(const std::string& path, std::string& error) {
  const std::lock_guard lock(mutex_);
  for (const auto& sink : sinks_)
    if (sink->is(path)) return sink;
  const int fd = open_log(path);
  if (fd < 0) {
    error = std::generic_category().message(errno);
    return nullptr;
  }
  return sinks_.emplace_back(std::make_shared<LogSink>(path, fd, true));
}

std::shared_ptr<LogSink> LogWriter::descriptor(int fd) {
  const std::lock_guard lock(mutex_);
  for (const auto& sink : sinks_)
    if (sink->is(fd)) return sink;
  return sinks_.emplace_back(std::make_shared<LogSink>("", fd, false));
}

void LogWriter::reopen() {
  reopen_.store(true);
  signal();
}

void LogWriter::add(std::shared_ptr<LogBuffer::Shared> shared) {
  const std::lock_guard lock(mutex_);
  buffers_.push_back(std::move(shared));
}

// The buffer's mutex was held since the lines came in: a writer that missed them in its last look
// has set waiting_ before.
void LogWriter::handed_over(std::size_t pending) {
  if (waiting_.load() || (pending > LogBuffer::kPendingBytes / 2 && napping_.load())) signal();
}

void LogWriter::signal() {
  if (signalled_.exchange(true)) return;
  const std::uint64_t one = 1;
  // Can only fail when the counter is full: then the writer wakes all the same.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

// One round over all buffers. Did anything come?
bool LogWriter::write_all() {
  std::vector<std::shared_ptr<LogBuffer::Shared>> buffers;
  {
    const std::lock_guard lock(mutex_);
    buffers = buffers_;
  }
  bool came = false;
  for (const auto& buffer : buffers) {
    LogSink& sink = *buffer->sink;
    drop(sink.write());
    if (sink.stuck()) continue;
    {
      const std::lock_guard lock(buffer->mutex);
      if (buffer->pending.size() == 0) continue;
      sink.take_chunk(buffer->pending);
    }
    came = true;
    drop(sink.write());
  }
  return came;
}

// Until signalled, a stuck sink takes bytes again, or the time is over. Was anything stuck?
bool LogWriter::wait(int timeout_ms) {
  std::vector<pollfd> waited{{wake_fd_, POLLIN, 0}};
  {
    const std::lock_guard lock(mutex_);
    for (const auto& sink : sinks_)
      if (sink->stuck()) waited.push_back({sink->fd(), POLLOUT, 0});
  }
  ::poll(waited.data(), waited.size(), timeout_ms);
  std::uint64_t count = 0;
  if (::read(wake_fd_, &count, sizeof count) > 0) signalled_.store(false);
  return waited.size() > 1;
}

// Nothing comes: room that a burst took is given back, and what ended is forgotten; a file closes
// with its last buffer.
void LogWriter::tidy() {
  const std::lock_guard lock(mutex_);
  std::erase_if(buffers_, [](const auto& buffer) {
    const std::lock_guard held(buffer->mutex);
    if (buffer->pending.size() != 0) return false;
    buffer->pending.give_up();
    return buffer->closed;
  });
  for (const auto& sink : sinks_) sink->idle();
  std::erase_if(sinks_, [](const auto& sink) { return sink.use_count() == 1 && !sink->stuck(); });
}

void LogWriter::run() {
  Clock::time_point looked = Clock::now();
  while (!stop_.load()) {
    if (reopen_.exchange(false)) {
      const std::lock_guard lock(mutex_);
      for (const auto& sink : sinks_) sink->reopen();
    }
    bool came = write_all();
    if (came && Clock::now() - looked > kLookEvery) {
      const std::lock_guard lock(mutex_);
      for (const auto& sink : sinks_) sink->reopen_if_removed();
      looked = Clock::now();
    }
    if (came) {
      napping_.store(true);
      wait(kNapMs);
      napping_.store(false);
      continue;
    }
    tidy();
    waiting_.store(true);
    came = write_all();  // what was handed over before the flag was seen
    if (!came && !stop_.load()) wait(-1);
    waiting_.store(false);
  }
  const Clock::time_point deadline = Clock::now() + kLastWords;
  while (write_all() || (wait(kNapMs) && Clock::now() < deadline)) {}
  const std::lock_guard lock(mutex_);
  for (const auto& buffer : buffers_) {
    const std::lock_guard held(buffer->mutex);
    drop(count_lines({buffer->pending.data(), buffer->pending.size()}));
  }
  for (const auto& sink : sinks_) drop(sink->abandon());
}

}  // namespace outrider
