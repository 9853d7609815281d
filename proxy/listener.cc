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

}  // namespace

SocketFile::SocketFile(std::string path) : path_(std::move(path)) {
  struct stat info {};
  if (::lstat(path_.c_str(), &info) != 0) return;
  device_ = info.st_dev;
  inode_ = info.st_ino;
}

SocketFile::~SocketFile() {
  struct stat info {};
  if (::lstat(path_.c_str(), &info) == 0 && S_ISSOCK(info.st_mode) && info.st_dev == device_ &&
      info.st_ino == inode_)
    ::unlink(path_.c_str());
}

struct Listener::Socket {
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  };
};

Listener::Listener(Worker& worker, const ListenerSnapshot& snapshot,
                   std::shared_ptr<ListenerShared> shared)
    : worker_(worker),
      snapshot_(snapshot),
      shared_(std::move(shared)),
      // Loopback and Unix sockets are the application's way out: they drain last.
      inbound_(!config::is_loopback(snapshot.config->address)) {}

Listener::~Listener() { stop_accepting(); }

bool Listener::open(BoundSocket socket, std::string& why) {
  socket_ = new Socket;
  file_ = std::move(socket.file);
  const bool local = snapshot_.config->address.kind == config::Address::Kind::kUnix;
  int status = 0;
  if (local) {
    uv_pipe_init(worker_.loop().uv(), &socket_->pipe, 0);
    status = uv_pipe_open(&socket_->pipe, socket.fd);
  } else {
    uv_tcp_init(worker_.loop().uv(), &socket_->tcp);
    status = uv_tcp_open(&socket_->tcp, socket.fd);
  }
  socket_->handle.data = this;
  if (status == 0)
    status = uv_listen(&socket_->stream, kBacklog, [](uv_stream_t* server, int result) {
      if (server->data != nullptr) static_cast<Listener*>(server->data)->on_connection(result);
    });
  if (status != 0) why = uv_strerror(status);
  return status == 0;
}

void Listener::stop_accepting() {
  if (socket_ == nullptr) return;
  file_ = nullptr;  // first: while this socket answers, nobody else takes the name
  socket_->handle.data = nullptr;
  uv_close(&socket_->handle, [](uv_handle_t* handle) { delete reinterpret_cast<Socket*>(handle); });
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

void Listener::on_connection(int status) {
  if (status !=
      0) {  // out of descriptors: libuv has taken and closed what waited, so nothing spins
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kOther);
    return;
  }
  auto connection = std::make_unique<Downstream>(*this);
  if (!connection->accept(&socket_->stream)) return;
  connection.release()->insert_before(connections);  // it defers its own end in on_closed()
}

// ---- binding, on the control thread

namespace {

int fail(int fd, std::string& why) {
  why = std::strerror(errno);
  if (fd >= 0) ::close(fd);
  return -1;
}

// The first of several shares its port only once it listens, so that bind() and listen() refuse an
// address any part of which somebody holds; the others join it.
int bind_tcp(const config::Address& address, bool first, std::string& why) {
  const SocketAddress target(address);
  const bool v6 = target.get()->sa_family == AF_INET6;
  int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 && errno == EAFNOSUPPORT && address.kind == config::Address::Kind::kAny) {
    config::Address v4;  // a machine without IPv6: every IPv4 address
    v4.port = address.port;
    return bind_tcp(v4, first, why);
  }
  if (fd < 0) return fail(fd, why);
  const int on = 1;
  const int off = 0;
  const auto share = [&] { setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)); };
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!first) share();
  if (v6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY,
               address.kind == config::Address::Kind::kAny ? &off : &on, sizeof(on));
  if (::bind(fd, target.get(), target.length) != 0 || ::listen(fd, kBacklog) != 0)
    return fail(fd, why);
  if (first) share();
  return fd;
}

std::uint16_t bound_port(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(storage).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(storage).sin_port);
}

// A socket file left by a process that is gone is replaced. Only one that refuses is left over: any
// other answer, or none, is somebody's.
bool clear_stale_socket(const SocketAddress& address, const std::string& path, std::string& why) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return true;
  if (!S_ISSOCK(info.st_mode)) {
    why = "the path exists and is not a socket";
    return false;
  }
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return fail(probe, why) == 0;
  const int status = ::connect(probe, address.get(), address.length);
  const int error = status == 0 ? 0 : errno;
  ::close(probe);
  if (error == ECONNREFUSED) ::unlink(path.c_str());
  if (error == ECONNREFUSED || error == ENOENT) return true;
  why = error == EACCES ? "the socket there is somebody else's" : "address already in use";
  return false;
}

int bind_unix(const config::Address& address, std::shared_ptr<SocketFile>& file, std::string& why) {
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
  if (status != 0) return fail(fd, why);
  file = std::make_shared<SocketFile>(address.path);
  if (::listen(fd, kBacklog) == 0) return fd;
  fail(fd, why);
  file = nullptr;
  return -1;
}

}  // namespace

bool bind_listener(const config::Address& address, std::size_t count,
                   std::vector<BoundSocket>& sockets, config::Address& bound, std::string& why) {
  bound = address;
  if (address.kind == config::Address::Kind::kUnix) {
    std::shared_ptr<SocketFile> file;
    const int fd = bind_unix(address, file, why);
    if (fd < 0) return false;
    sockets.push_back({fd, file});
    while (sockets.size() < count) sockets.push_back({::fcntl(fd, F_DUPFD_CLOEXEC, 0), file});
    return true;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const int fd = bind_tcp(bound, i == 0, why);
    if (fd < 0) {
      for (const BoundSocket& open : sockets) ::close(open.fd);
      sockets.clear();
      return false;
    }
    if (bound.port == 0) bound.port = bound_port(fd);
    sockets.push_back({fd});
  }
  return true;
}

}  // namespace outrider
