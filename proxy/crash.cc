#include "proxy/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "config/build_info.h"

extern "C" const char __executable_start;  // of the linker: where the program is loaded

namespace outrider {

namespace {

constexpr int kMaxFrames = 48;

// A line gathered on the stack and written at once, so that threads do not mix.
class Line {
 public:
  Line& text(std::string_view words) {
    const std::size_t count = std::min(words.size(), sizeof(bytes_) - 1 - size_);
    std::memcpy(bytes_ + size_, words.data(), count);
    size_ += count;
    return *this;
  }
  Line& number(std::uint64_t value, unsigned base = 10) {
    char digits[24];
    char* at = digits + sizeof(digits);
    do {
      *--at = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    return text({at, static_cast<std::size_t>(digits + sizeof(digits) - at)});
  }
  void write() {
    bytes_[size_++] = '\n';
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, bytes_, size_);
  }

 private:
  char bytes_[1536];
  std::size_t size_ = 0;
};

// Offsets in the executable, for addr2line; of other modules plain addresses.
_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* line) {
  auto& out = *static_cast<std::pair<Line*, int>*>(line);
  if (out.second++ == kMaxFrames) return _URC_END_OF_STACK;
  const std::uintptr_t at = _Unwind_GetIP(context);
  const auto base = reinterpret_cast<std::uintptr_t>(&__executable_start);
  constexpr std::uintptr_t kLargest = 512 << 20;
  const bool ours = at >= base && at - base < kLargest;
  out.first->text(ours ? " +0x" : " 0x").number(ours ? at - base : at, 16);
  return _URC_NO_REASON;
}

void write_stack() {
  Line line;
  line.text("outrider: stack of thread ")
      .number(static_cast<std::uint64_t>(::syscall(SYS_gettid)))
      .text(":");
  std::pair<Line*, int> frames{&line, 0};
  _Unwind_Backtrace(add_frame, &frames);
  line.write();
}

std::string_view name_of(int signal) {
  switch (signal) {
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGILL: return "SIGILL";
    case SIGABRT: return "SIGABRT";
    default: return "?";
  }
}

// The action is the default again (SA_RESETHAND), so the raised signal ends the process as it would
// have.
[[maybe_unused]] void on_fatal(int signal) {
  Line line;
  line.text("outrider: fatal signal ")
      .number(static_cast<std::uint64_t>(signal))
      .text(" (")
      .text(name_of(signal));
  line.text("), outrider ").text(kVersion).text(" (commit ").text(kCommit).text("), last request ");
  const CurrentRequest& current = current_request;
  line.text(current.size == 0 ? std::string_view("none")
                              : std::string_view(current.id, current.size))
      .write();
  write_stack();
  ::raise(signal);
}

// Passes the question on to the process's other threads.
void ask_others() {
  const int folder = ::open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  alignas(std::uint64_t) char entries[4096];
  const long self = ::syscall(SYS_gettid);
  for (long size = 0; (size = ::syscall(SYS_getdents64, folder, entries, sizeof(entries))) > 0;) {
    for (long at = 0; at < size;) {
      // struct linux_dirent64: d_ino and d_off of eight bytes, d_reclen of two, d_type of one,
      // d_name.
      std::uint16_t length = 0;
      std::memcpy(&length, entries + at + 16, sizeof(length));
      long thread = 0;
      for (const char* digit = entries + at + 19; *digit >= '0' && *digit <= '9'; ++digit)
        thread = thread * 10 + (*digit - '0');
      if (thread != 0 && thread != self) ::syscall(SYS_tgkill, ::getpid(), thread, SIGQUIT);
      at += length;
    }
  }
  ::close(folder);
}

void on_quit(int, siginfo_t* info, void*) {
  const int before = errno;
  if (info->si_code != SI_TKILL) ask_others();
  write_stack();
  errno = before;
}

}  // namespace

void install_crash_handlers() {
  struct sigaction quit {};
  quit.sa_sigaction = on_quit;
  quit.sa_flags = SA_SIGINFO | SA_RESTART;
  ::sigaction(SIGQUIT, &quit, nullptr);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which report by themselves
  struct sigaction fatal {};
  fatal.sa_handler = on_fatal;
  fatal.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
    ::sigaction(signal, &fatal, nullptr);
#endif
}

}  // namespace outrider
