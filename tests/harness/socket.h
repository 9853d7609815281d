// One TCP or Unix socket with deadlines on everything, and the ways in which tests end connections.
// Invariant: no call blocks longer than patience(); what would is thrown as HarnessError.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace outrider::test {

// How long anything may take that must happen: OUTRIDER_TEST_PATIENCE seconds, 30 without it. It is
// generous, since sanitizers and busy machines are slow, and only ever spent by a test that fails.
std::chrono::milliseconds patience();

class Socket {
 public:
  // How the peer has ended its side, as far as reads have seen.
  enum class End { kOpen, kFin, kReset };

  Socket() = default;
  explicit Socket(int fd);
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  // "127.0.0.1:80", "[::1]:80" or "unix:/path".
  static Socket connect(const std::string& address);

  void send(std::string_view bytes);
  // False when the peer does not take it all within the time: it stalls, or is gone.
  bool try_send(std::string_view bytes, std::chrono::milliseconds within);
  // At least one byte, or 0 when the peer ended (see end()).
  std::size_t receive(char* into, std::size_t room);
  // True if bytes or an end are there, or come in time.
  bool readable(std::chrono::milliseconds within) const;

  void shutdown_write();
  // Ends with RST instead of FIN, whatever is still buffered.
  void reset();
  void close();

  int fd() const { return fd_; }
  End end() const { return end_; }
  // "127.0.0.1:port" of this side.
  std::string local_address() const;

 private:
  int fd_ = -1;
  End end_ = End::kOpen;
};

// A listening socket on a free loopback port.
class ListeningSocket {
 public:
  explicit ListeningSocket(int backlog = 1024, const std::string& address = "127.0.0.1:0");
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket();

  // The next connection; an invalid socket (fd -1) once shutdown() was called.
  Socket accept();
  void shutdown();
  const std::string& address() const { return address_; }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
  std::string address_;
};

// An address where connecting is refused, for as long as this object holds the port.
class RefusingPort {
 public:
  RefusingPort();
  RefusingPort(const RefusingPort&) = delete;
  RefusingPort& operator=(const RefusingPort&) = delete;
  ~RefusingPort();
  const std::string& address() const { return address_; }

 private:
  int fd_;
  std::string address_;
};

// An address where connecting gets no answer: a listener whose queue is full, so the kernel drops
// each SYN.
class Blackhole {
 public:
  Blackhole();
  const std::string& address() const { return listener_.address(); }

 private:
  ListeningSocket listener_{0};
  Socket fillers_[4];
};

}  // namespace outrider::test
