#include "proxy/acceptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "discovery/service.h"

namespace outrider {

namespace {

constexpr int kBacklog = 4096;
constexpr int kBatch = 64;  // accepted before others have their turn
constexpr Millis kPause{100};

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

Acceptor::Acceptor(EventLoop& loop, Sockets& sockets, Events& events)
    : sockets_(sockets),
      events_(events),
      pause_(loop, call_member<&Acceptor::resume, Acceptor>, this) {}

void Acceptor::open(BoundSocket socket) {
  file_ = std::move(socket.file);
  socket_ = sockets_.listen(socket.fd);
  socket_->on_ready([](void* self, std::uint8_t) { static_cast<Acceptor*>(self)->on_readable(); },
                    this);
  resume();
}

void Acceptor::resume() {
  if (!held_) socket_->watch(Watched::kReadable);
}

void Acceptor::hold(bool held) {
  held_ = held;
  if (socket_ == nullptr || pause_.armed()) return;
  socket_->watch(held ? 0 : Watched::kReadable);
}

void Acceptor::close() {
  file_ = nullptr;  // first: while this socket answers, nobody else takes the name
  pause_.stop();
  socket_ = nullptr;
}

void Acceptor::on_readable() {
  for (int i = 0; i < kBatch && socket_ != nullptr; ++i) {
    int error = 0;
    SocketHandle socket = socket_->accept(error);
    if (socket != nullptr)
      events_.on_accepted(std::move(socket));
    else if (is_our_own(error))
      return refuse_and_pause();
    else if (error == -EDQUOT) {
      events_.on_refused();
      return refuse_and_pause();
    } else if (error != -EINTR && error != -ECONNABORTED)
      return;
  }
}

// Who waits hears of it at once where that can be; then nobody is looked at for a while, so that
// nothing spins.
void Acceptor::refuse_and_pause() {
  for (int left = socket_->turn_away(kBatch); left > 0; --left) events_.on_refused();
  socket_->watch(0);
  pause_.start(kPause);
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
