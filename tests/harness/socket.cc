// Sockets for tests, on plain system calls: non-blocking descriptors, poll for every wait.
#include "tests/harness/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/harness/http.h"

namespace outrider::test {
namespace {

using Clock = std::chrono::steady_clock;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

[[noreturn]] void fail(const std::string& what) {
  throw HarnessError(what + ": " + std::strerror(errno));
}

SocketAddress parse(const std::string& text) {
  SocketAddress address;
  if (text.starts_with("unix:")) {
    auto* unix_address = reinterpret_cast<sockaddr_un*>(&address.storage);
    const std::string path = text.substr(5);
    if (path.size() >= sizeof unix_address->sun_path) throw HarnessError("path too long: " + path);
    unix_address->sun_family = AF_UNIX;
    std::memcpy(unix_address->sun_path, path.c_str(), path.size() + 1);
    address.size = sizeof *unix_address;
    return address;
  }
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw HarnessError("not an address: " + text);
  std::string host = text.substr(0, colon);
  const auto port = htons(static_cast<std::uint16_t>(std::atoi(text.c_str() + colon + 1)));
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  if (host == "::" || host.empty() || host == "*") host = "127.0.0.1";
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    address.size = sizeof *v4;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    address.size = sizeof *v6;
  } else {
    throw HarnessError("not an address: " + text);
  }
  return address;
}

std::string local_name(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (getsockname(fd, address.get(), &address.size) != 0) fail("getsockname");
  char host[INET6_ADDRSTRLEN] = "";
  if (address.storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    return std::string(host) + ":" + std::to_string(ntohs(v4->sin_port));
  }
  if (address.storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    return "[" + std::string(host) + "]:" + std::to_string(ntohs(v6->sin6_port));
  }
  return std::string("unix:") + reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
}

// False when the time is over.
bool wait_for(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{fd, events, 0};
    const int ready = poll(&waiting, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready > 0) return true;
    if (ready == 0 && left <= 0) return false;
    if (ready < 0 && errno != EINTR) fail("poll");
  }
}

int bound_socket(const std::string& where) {
  SocketAddress address = parse(where);
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) fail("socket");
  if (bind(fd, address.get(), address.size) != 0) {
    ::close(fd);
    fail("bind " + where);
  }
  return fd;
}

}  // namespace

std::chrono::milliseconds patience() {
  static const char* const seconds = std::getenv("OUTRIDER_TEST_PATIENCE");
  return std::chrono::seconds(seconds != nullptr ? std::atoi(seconds) : 30);
}

Socket::Socket(int fd) : fd_(fd) {
  if (fd_ < 0) return;
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), end_(other.end_) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
    end_ = other.end_;
  }
  return *this;
}

Socket::~Socket() { close(); }

Socket Socket::connect(const std::string& address) {
  SocketAddress peer = parse(address);
  Socket connecting(socket(peer.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (connecting.fd_ < 0) fail("socket");
  if (::connect(connecting.fd_, peer.get(), peer.size) == 0) return connecting;
  if (errno != EINPROGRESS) fail("connect " + address);
  if (!wait_for(connecting.fd_, POLLOUT, Clock::now() + patience()))
    throw HarnessError("connect " + address + ": no answer");
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(connecting.fd_, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0 && error != ECONNRESET) {  // reset since it was made: for who reads to find
    errno = error;
    fail("connect " + address);
  }
  return connecting;
}

void Socket::send(std::string_view bytes) {
  if (!try_send(bytes, patience())) throw HarnessError("the peer takes no more bytes, or is gone");
}

bool Socket::try_send(std::string_view bytes, std::chrono::milliseconds within) {
  const auto deadline = Clock::now() + within;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      if (!wait_for(fd_, POLLOUT, deadline)) return false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

std::size_t Socket::receive(char* into, std::size_t room) {
  const auto deadline = Clock::now() + patience();
  while (end_ == End::kOpen) {
    const ssize_t got = recv(fd_, into, room, 0);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) {
      end_ = End::kFin;
    } else if (errno == EAGAIN) {
      if (!wait_for(fd_, POLLIN, deadline)) throw HarnessError("nothing was received in time");
    } else if (errno == ECONNRESET || errno == EPIPE) {
      end_ = End::kReset;
    } else if (errno != EINTR) {
      fail("recv");
    }
  }
  return 0;
}

bool Socket::readable(std::chrono::milliseconds within) const {
  return end_ != End::kOpen || wait_for(fd_, POLLIN, Clock::now() + within);
}

void Socket::shutdown_write() { ::shutdown(fd_, SHUT_WR); }

void Socket::reset() {
  if (fd_ < 0) return;
  const linger abort{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  close();
}

void Socket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

std::string Socket::local_address() const { return local_name(fd_); }

ListeningSocket::ListeningSocket(int backlog, const std::string& address)
    : fd_(bound_socket(address)) {
  if (listen(fd_, backlog) != 0) fail("listen");
  address_ = local_name(fd_);
}

ListeningSocket::~ListeningSocket() { ::close(fd_); }

Socket ListeningSocket::accept() {
  for (;;) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) return Socket(fd);
    if (errno == EAGAIN) {
      pollfd waiting{fd_, POLLIN, 0};
      poll(&waiting, 1, -1);
      if ((waiting.revents & POLLHUP) != 0) return Socket();
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return Socket();
    }
  }
}

void ListeningSocket::shutdown() { ::shutdown(fd_, SHUT_RDWR); }

RefusingPort::RefusingPort() : fd_(bound_socket("127.0.0.1:0")), address_(local_name(fd_)) {}

RefusingPort::~RefusingPort() { ::close(fd_); }

Blackhole::Blackhole() {
  // The first ones fill the queue; the rest stay unanswered, as every later connection does.
  for (Socket& filler : fillers_) {
    SocketAddress peer = parse(listener_.address());
    filler = Socket(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(filler.fd(), peer.get(), peer.size) != 0 && errno != EINPROGRESS) fail("connect");
  }
}

}  // namespace outrider::test
