#include "proxy/kernel_sockets.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "config/error.h"

namespace outrider {

namespace {

constexpr int kPipeBytes = 256 * 1024;

socklen_t size_of(const sockaddr& address) {
  switch (address.sa_family) {
    case AF_INET: return sizeof(sockaddr_in);
    case AF_INET6: return sizeof(sockaddr_in6);
    default: return sizeof(sockaddr_un);
  }
}

void send_at_once(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

ssize_t result(ssize_t of_call) { return of_call < 0 ? -errno : of_call; }

// A descriptor and libuv's handle for it, which frees itself when closed.
template <class Kind>
class Polled : public Kind {
 public:
  explicit Polled(int fd) : fd_(fd) {}
  bool begin(UvLoop& loop) {
    poll_.data = this;
    return uv_poll_init(loop.uv(), &poll_, fd_) == 0;
  }
  void close() override {
    uv_close(reinterpret_cast<uv_handle_t*>(&poll_),
             [](uv_handle_t* handle) { static_cast<Polled*>(handle->data)->free(); });
    ::close(std::exchange(fd_, -1));
  }

 protected:
  ~Polled() = default;
  virtual void free() = 0;
  int fd_;

 private:
  void update() override {
    if (this->watched_ == 0)
      uv_poll_stop(&poll_);
    else
      uv_poll_start(&poll_, this->watched_, on_poll);
  }
  static void on_poll(uv_poll_t* handle, int status, int events) {
    auto* self = static_cast<Polled*>(handle->data);
    if (status < 0) {  // libuv watches it no more
      self->watched_ = 0;
      events = Watched::kReadable | Watched::kWritable;
    }
    self->ready(static_cast<std::uint8_t>(events));
  }
  uv_poll_t poll_{};
};
static_assert(Watched::kReadable == UV_READABLE && Watched::kWritable == UV_WRITABLE);

class KernelSocket final : public Polled<Socket> {
 public:
  using Polled::Polled;
  int fd() const { return fd_; }

 private:
  void free() override { delete this; }

  ssize_t receive(char* to, std::size_t room) override { return result(::recv(fd_, to, room, 0)); }

  ssize_t send(const iovec* vectors, int count) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vectors);
    message.msg_iovlen = static_cast<std::size_t>(count);
    ssize_t sent = 0;
    do {
      sent = count == 1 ? ::send(fd_, vectors->iov_base, vectors->iov_len, MSG_NOSIGNAL)
                        : ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return result(sent);
  }

  void end_sending() override { ::shutdown(fd_, SHUT_WR); }

  void reset_when_closed() override {
    const struct linger hard = {1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  }

  int take_error() override {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    return -error;
  }

  bool peer_is_gone() const override {
    pollfd look{.fd = fd_, .events = 0, .revents = 0};
    return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLERR | POLLHUP)) != 0;
  }

  std::size_t unacknowledged() const override {
    int bytes = 0;
    return ioctl(fd_, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
  }

  bool peer_address(sockaddr_storage& address) const override {
    socklen_t length = sizeof(address);
    return getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  }
};

int open_reserve() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

class KernelListeningSocket final : public Polled<ListeningSocket> {
 public:
  KernelListeningSocket(KernelSockets& sockets, int fd) : Polled(fd), sockets_(sockets) {
    sockaddr_storage address{};
    socklen_t length = sizeof(address);
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    tcp_ = address.ss_family != AF_UNIX;
  }

 private:
  void free() override { delete this; }
  void close() override {
    Polled::close();
    if (reserve_ >= 0) ::close(reserve_);
  }

  SocketHandle accept(int& error) override {
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      error = -errno;
      return nullptr;
    }
    if (fd >= sockets_.descriptors_for_clients) {
      ::close(fd);
      error = -EDQUOT;
      return nullptr;
    }
    if (tcp_) send_at_once(fd);
    error = -ECONNABORTED;
    return sockets_.adopt(fd);
  }

  int turn_away(int most) override {
    if (reserve_ >= 0) ::close(reserve_);
    int told = 0;
    for (int fd = 0; told < most && (fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;
         ++told)
      ::close(fd);
    reserve_ = open_reserve();
    return told;
  }

  KernelSockets& sockets_;
  int reserve_ = open_reserve();  // given up to tell a client that there is no descriptor for it
  bool tcp_ = true;
};

}  // namespace

SocketHandle KernelSockets::adopt(int descriptor) {
  auto* socket = new KernelSocket(descriptor);
  if (socket->begin(loop_)) return SocketHandle(socket);
  ::close(descriptor);
  delete socket;
  return nullptr;
}

ListeningHandle KernelSockets::listen(int descriptor) {
  auto* socket = new KernelListeningSocket(*this, descriptor);
  OUTRIDER_ASSERT(socket->begin(loop_));
  return ListeningHandle(socket);
}

SocketHandle KernelSockets::connect(const sockaddr& address, int& error) {
  const int fd = ::socket(address.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    error = -errno;
    return nullptr;
  }
  if (address.sa_family != AF_UNIX) send_at_once(fd);
  if (::connect(fd, &address, size_of(address)) != 0 && errno != EINPROGRESS) {
    error = -errno;
    ::close(fd);
    return nullptr;
  }
  error = -ENOMEM;
  return adopt(fd);
}

void KernelSockets::close_pipe() {
  for (int& end : pipe_)
    if (end >= 0) ::close(std::exchange(end, -1));
}

std::size_t KernelSockets::pipe_room() {
  if (pipe_room_ != 0) return pipe_room_;
  if (pipe2(pipe_, O_NONBLOCK | O_CLOEXEC) != 0) return 0;
  fcntl(pipe_[1], F_SETPIPE_SZ, kPipeBytes);  // may be more than the system allows
  const int room = fcntl(pipe_[1], F_GETPIPE_SZ);
  if (room <= 0) close_pipe();
  pipe_room_ = room > 0 ? static_cast<std::size_t>(room) : 0;
  return pipe_room_;
}

ssize_t KernelSockets::fill_pipe(Socket& from, std::size_t most) {
  return result(::splice(static_cast<KernelSocket&>(from).fd(), nullptr, pipe_[1], nullptr, most,
                         SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
}

ssize_t KernelSockets::empty_pipe(Socket& to, std::size_t most) {
  return result(::splice(pipe_[0], nullptr, static_cast<KernelSocket&>(to).fd(), nullptr, most,
                         SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
}

ssize_t KernelSockets::read_pipe(char* to, std::size_t room) {
  return result(::read(pipe_[0], to, room));
}

}  // namespace outrider
