#include "proxy/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "discovery/service.h"
#include "proxy/downstream.h"
#include "proxy/worker.h"

namespace outrider {

namespace {

constexpr int kBacklog = 4096;
constexpr int kBatch = 64;  // accepted before others have their turn
constexpr Millis kPause{100};

int open_reserve() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace

bool is_outbound(const config::Address& address) {
  if (address.kind == config::Address::Kind::kUnix) return true;
  if (address.kind == config::Address::Kind::kAny) return false;
  if (!address.v6) return address.ip[0] == 127;
  static constexpr std::array<std::uint8_t, 16> kLoopback{0, 0, 0, 0, 0, 0, 0, 0,
                                                          0, 0, 0, 0, 0, 0, 0, 1};
  return address.ip == kLoopback;
}

// libuv's own listening never leaves its loop when descriptors run out and its spare one is lost to
// another thread.
struct Listener::Socket {
  uv_poll_t poll;
  int fd;
  int reserve;  // given up to tell a client that there is no descriptor for it
};

Listener::Listener(Worker& worker, const ListenerSnapshot& snapshot,
                   std::shared_ptr<ListenerShared> shared)
    : worker_(worker),
      snapshot_(snapshot),
      shared_(std::move(shared)),
      pause_(worker.loop(), call_member<&Listener::accept_again, Listener>, this),
      inbound_(!is_outbound(snapshot.config->address)) {}

Listener::~Listener() { stop_accepting(); }

bool Listener::open(int fd, std::string& why) {
  if (::listen(fd, kBacklog) != 0) {
    why = std::strerror(errno);
    ::close(fd);
    return false;
  }
  socket_ = new Socket{{}, fd, open_reserve()};
  uv_poll_init(worker_.loop().uv(), &socket_->poll, fd);
  socket_->poll.data = this;
  accept_again();
  return true;
}

void Listener::accept_again() {
  if (socket_ == nullptr) return;
  uv_poll_start(&socket_->poll, UV_READABLE, [](uv_poll_t* poll, int, int) {
    static_cast<Listener*>(poll->data)->on_readable();
  });
}

void Listener::stop_accepting() {
  if (socket_ == nullptr) return;
  pause_.stop();
  uv_close(reinterpret_cast<uv_handle_t*>(&socket_->poll),
           [](uv_handle_t* handle) { delete reinterpret_cast<Socket*>(handle); });
  ::close(socket_->fd);
  if (socket_->reserve >= 0) ::close(socket_->reserve);
  socket_ = nullptr;
}

void Listener::close_all() {
  stop_accepting();
  for (ListNode* node = connections.next; node != &connections;) {
    auto& connection = static_cast<Downstream&>(*node);
    node = node->next;
    connection.cut(Reason::kDrain);
  }
  worker_.loop().end_turn();
  while (connections.linked()) static_cast<Downstream&>(*connections.next).abort();
}

void Listener::drain(bool final) {
  for (ListNode* node = connections.next; node != &connections;) {
    auto& connection = static_cast<Downstream&>(*node);
    node = node->next;
    connection.drain(final);
  }
}

bool Listener::admit(const std::array<std::uint8_t, 16>& ip) {
  const config::ListenerLimits& limits = snapshot_.config->limits;
  if (!take(shared_->connections, limits.connections)) {
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kConnections);
    return false;
  }
  if (limits.per_client != 0 && !shared_->clients.enter(ip, limits.per_client)) {
    give_back(shared_->connections);
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kPerClient);
    return false;
  }
  worker_.metrics_ref().downstream_connection(snapshot_.label, 1);
  return true;
}

void Listener::leave(const std::array<std::uint8_t, 16>& ip) {
  give_back(shared_->connections);
  if (snapshot_.config->limits.per_client != 0) shared_->clients.leave(ip);
  worker_.metrics_ref().downstream_connection(snapshot_.label, -1);
}

void Listener::on_readable() {
  for (int i = 0; i < kBatch && socket_ != nullptr; ++i) {
    const int fd = ::accept4(socket_->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      auto connection = std::make_unique<Downstream>(*this);
      if (connection->accept(fd))
        connection.release()->insert_before(connections);  // it defers its own end in on_closed()
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      return refuse_and_pause();
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return;
    }
  }
}

// Out of descriptors or memory. Who waits hears of it at once where the reserve allows; then nobody
// is looked at for a while, so that nothing spins.
void Listener::refuse_and_pause() {
  if (socket_->reserve >= 0) ::close(socket_->reserve);
  for (int i = 0; i < kBatch; ++i) {
    const int fd = ::accept4(socket_->fd, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) break;
    ::close(fd);
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kOther);
  }
  socket_->reserve = open_reserve();
  uv_poll_stop(&socket_->poll);
  pause_.start(kPause);
}

// ---- binding, on the control thread

namespace {

int fail(int fd, std::string& why) {
  why = std::strerror(errno);
  if (fd >= 0) ::close(fd);
  return -1;
}

int bind_tcp(const config::Address& address, bool shared, std::string& why) {
  const SocketAddress target(address);
  const bool v6 = target.get()->sa_family == AF_INET6;
  int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 && errno == EAFNOSUPPORT && address.kind == config::Address::Kind::kAny) {
    config::Address v4;  // a machine without IPv6: every IPv4 address
    v4.port = address.port;
    return bind_tcp(v4, shared, why);
  }
  if (fd < 0) return fail(fd, why);
  const int on = 1;
  const int off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  if (v6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
               address.kind == config::Address::Kind::kAny ? &off : &on, sizeof(on));
  if (::bind(fd, target.get(), target.length) != 0) return fail(fd, why);
  return fd;
}

std::uint16_t bound_port(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(storage).sin_port);
}

// A socket file left by a process that is gone is replaced; one that answers is somebody's.
bool clear_stale_socket(const SocketAddress& address, const std::string& path, std::string& why) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return true;
  if (!S_ISSOCK(info.st_mode)) {
    why = "the path exists and is not a socket";
    return false;
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool alive = ::connect(probe, address.get(), address.length) == 0;
  ::close(probe);
  if (alive) {
    why = "address already in use";
    return false;
  }
  ::unlink(path.c_str());
  return true;
}

int bind_unix(const config::Address& address, std::string& why) {
  if (address.path.size() >= sizeof(sockaddr_un::sun_path)) {
    why = "the path is longer than a Unix socket's may be (107 bytes)";
    return -1;
  }
  const SocketAddress target(address);
  if (!clear_stale_socket(target, address.path, why)) return -1;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(fd, why);
  const mode_t before = ::umask(0177);  // closed to other users from the first moment
  const int status = ::bind(fd, target.get(), target.length);
  ::umask(before);
  return status == 0 ? fd : fail(fd, why);
}

}  // namespace

bool bind_listener(const config::Address& address, std::size_t count, std::vector<int>& fds,
                   config::Address& bound, std::string& why) {
  bound = address;
  if (address.kind == config::Address::Kind::kUnix) {
    const int fd = bind_unix(address, why);
    if (fd < 0) return false;
    fds.push_back(fd);
    while (fds.size() < count) fds.push_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return true;
  }
  // A port that another socket holds shows only to one that does not share; port 0 never picks such
  // a one.
  if (address.port != 0) {
    const int probe = bind_tcp(address, false, why);
    if (probe < 0) return false;
    ::close(probe);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const int fd = bind_tcp(bound, true, why);
    if (fd < 0) {
      for (const int open : fds) ::close(open);
      fds.clear();
      return false;
    }
    if (bound.port == 0) bound.port = bound_port(fd);
    fds.push_back(fd);
  }
  return true;
}

}  // namespace outrider
