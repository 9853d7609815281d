#include "proxy/connection.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

namespace outrider {

namespace {
constexpr int kVectors = 32;
constexpr int kReads = 4;  // of one connection in a row, while each fills the buffer
constexpr std::uint32_t kFirstRead = 16 * 1024;
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
}  // namespace

bool Flusher::flush() {
  if (!dirty.linked()) {
    if (std::exchange(after_due, false) && after != nullptr) after(after_owner);
    return dirty.linked();
  }
  // What is woken meanwhile joins the end and has its turn in the next call.
  ListNode now;
  while (dirty.linked()) {
    ListNode* node = dirty.next;
    node->unlink();
    node->insert_before(now);
  }
  while (now.linked()) {
    auto& hook = static_cast<Hook<Connection>&>(*now.next);
    hook.unlink();
    hook.owner.flush();
  }
  after_due = true;
  return true;
}

bool Flusher::wear_patience() {
  const bool some = patient.linked();
  for (ListNode* node = patient.next; node != &patient;) {
    Connection& connection = static_cast<Hook<Connection>&>(*node).owner;
    node = node->next;
    if (connection.patience_ == 1)
      connection.wake();
    else
      --connection.patience_;
  }
  return some;
}

void Pipe::close() {
  for (int& end : ends_)
    if (end >= 0) ::close(std::exchange(end, -1));
}

bool Pipe::open() {
  if (room_ != 0) return true;
  if (pipe2(ends_, O_NONBLOCK | O_CLOEXEC) != 0) return false;
  fcntl(in(), F_SETPIPE_SZ, kPipeBytes);  // may be more than the system allows
  const int room = fcntl(in(), F_GETPIPE_SZ);
  if (room <= 0) close();
  room_ = room > 0 ? static_cast<std::size_t>(room) : 0;
  return room_ != 0;
}

struct Connection::Closing {
  explicit Closing(Connection& connection)
      : timer(connection.flusher_.loop, call_member<&Connection::on_close_timer, Connection>,
              &connection),
        until_ms(connection.now_ms() + static_cast<std::uint64_t>(limits::kStall.count())) {}
  Timer timer;
  std::uint64_t until_ms;  // for the peer to take what was written
  std::size_t to_drop = limits::kLingerBytes;
};

Connection::Connection(Flusher& flusher, Events& events)
    : Wire(flusher.slabs), flusher_(flusher), events_(events), read_size_(kFirstRead) {}

Connection::~Connection() { close_socket(); }

void Connection::close_socket() {
  unlink();
  if (poll_ != nullptr) {
    poll_->data = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(poll_),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
    poll_ = nullptr;
  }
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

std::size_t Connection::unacknowledged() const {
  int bytes = 0;
  return ioctl(fd_, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

bool Connection::peer_is_gone() const {
  pollfd look{.fd = fd_, .events = 0, .revents = 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLERR | POLLHUP)) != 0;
}

bool Connection::watch_socket() {
  poll_ = new uv_poll_t;
  if (uv_poll_init(flusher_.loop.uv(), poll_, fd_) != 0) {
    delete std::exchange(poll_, nullptr);
    return false;
  }
  poll_->data = this;
  return true;
}

void Connection::watch() {
  const int wanted =
      (reading_ ? UV_READABLE : 0) | (wants_writable_ || connecting_ ? UV_WRITABLE : 0);
  if (wanted == watched_ || poll_ == nullptr) return;
  watched_ = static_cast<std::uint8_t>(wanted);
  if (wanted == 0)
    uv_poll_stop(poll_);
  else
    uv_poll_start(poll_, wanted, on_poll);
}

bool Connection::accept(int fd, bool unix_socket) {
  fd_ = fd;
  if (!unix_socket) send_at_once(fd_);
  return watch_socket();
}

int Connection::connect(const sockaddr* address) {
  fd_ = ::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return -errno;
  if (address->sa_family != AF_UNIX) send_at_once(fd_);
  if (::connect(fd_, address, size_of(*address)) != 0 && errno != EINPROGRESS) return -errno;
  if (!watch_socket()) return UV_ENOMEM;
  connecting_ = true;
  watch();
  return 0;
}

void Connection::start_reading() {
  reading_ = true;
  watch();
}

// Whoever is held stops when bytes come: most are let go before.
void Connection::hold_reading(bool held) {
  if (held_ == held) return;
  held_ = held;
  if (state_ != State::kOpen) return;
  if (!held)
    start_reading();
  else if (write_broken_)
    wake();
  if (held) read_size_ = kFirstRead;
}

void Connection::on_poll(uv_poll_t* handle, int status, int events) {
  auto* self = static_cast<Connection*>(handle->data);
  if (status < 0) {  // an error waits on the socket: libuv watches it no more
    self->watched_ = 0;
    events = UV_READABLE | UV_WRITABLE;
  }
  if (self->connecting_) {
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(self->fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    self->connecting_ = false;
    self->watch();
    self->events_.on_connected(-error);
    return;
  }
  if ((events & UV_WRITABLE) != 0 && self->blocked_) {
    self->blocked_ = false;
    self->wake();
  }
  if ((events & UV_READABLE) != 0 && self->reading_) {
    if (self->held_)
      self->reading_ = false;
    else
      self->read();
  }
  self->watch();
}

void Connection::read() {
  for (int i = 0; i < kReads; ++i) {
    // What splice does not take, an urgent byte or the end, recv does.
    if (const std::size_t most = passable(); most != 0 && pass(most)) return;
    const ssize_t size = ::recv(fd_, flusher_.read_buffer.get(), read_size_, 0);
    if (!take_in(size)) return;
  }
}

void Connection::link(Connection& a, Codec& a_codec, Connection& b, Codec& b_codec) {
  OUTRIDER_ASSERT(a.other_ == nullptr && b.other_ == nullptr);
  a.other_ = &b;
  b.other_ = &a;
  a.codec_ = &a_codec;
  b.codec_ = &b_codec;
}

void Connection::unlink() {
  if (other_ != nullptr) std::exchange(other_, nullptr)->other_ = nullptr;
}

// Only where much comes at once: a small read costs less through our own buffer.
std::size_t Connection::passable() const {
  if (other_ == nullptr || read_size_ < limits::kReadBuffer || state_ != State::kOpen) return 0;
  const Connection& to = *other_;
  if (!to.out.empty() || to.blocked_ || to.broken_ || to.write_broken_ || to.shutdown_wanted_ ||
      to.state_ != State::kOpen || !to.codec_->takes_raw() || !flusher_.pipe.open())
    return 0;
  const std::uint64_t most = std::min<std::uint64_t>(codec_->passable(), flusher_.pipe.room());
  return most < kFirstRead ? 0 : most;
}

// What the other's kernel buffer does not take comes out of the pipe again, which all connections
// share.
bool Connection::pass(std::size_t most) {
  Pipe& pipe = flusher_.pipe;
  Connection& to = *other_;
  constexpr unsigned kHow = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
  const ssize_t came = ::splice(fd_, nullptr, pipe.in(), nullptr, most, kHow);
  if (came <= 0) return false;
  auto left = static_cast<std::size_t>(came);
  while (left > 0) {
    const ssize_t went = ::splice(pipe.out(), nullptr, to.fd_, nullptr, left, kHow);
    if (went < 0 && errno != EAGAIN) to.write_failed_ = true;
    if (went <= 0) break;
    left -= static_cast<std::size_t>(went);
  }
  if (left > 0 || static_cast<std::size_t>(came) < kFirstRead) read_size_ = kFirstRead;
  while (left > 0) {
    const ssize_t size = ::read(pipe.out(), flusher_.read_buffer.get(), limits::kReadBuffer);
    OUTRIDER_ASSERT(size > 0);
    to.out.append({flusher_.read_buffer.get(), static_cast<std::size_t>(size)});
    left -= static_cast<std::size_t>(size);
  }
  to.wake();
  const auto bytes = static_cast<std::size_t>(came);
  to.codec_->sent_past(bytes);
  codec_->passed(bytes);
  return true;
}

bool Connection::take_in(ssize_t size) {
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (state_ != State::kOpen) {
    // Lingering: what comes is dropped, within bounds.
    if (size > 0 && closing_->to_drop > static_cast<std::size_t>(size)) {
      closing_->to_drop -= static_cast<std::size_t>(size);
      return true;
    }
    finish_close();
    return false;
  }
  if (size > 0) {
    // A full read that nobody had to hold earns larger ones; one that went nowhere costs no more
    // than a small one.
    const bool full = static_cast<std::uint32_t>(size) == read_size_;
    if (other_ != nullptr && !other_->out.empty() && other_->patience_ == 0)
      read_size_ = kFirstRead;
    else if (full && read_size_ < limits::kReadBuffer)
      read_size_ *= 4;
    events_.on_bytes({flusher_.read_buffer.get(), static_cast<std::size_t>(size)});
    return full && state_ == State::kOpen && !held_;
  }
  reading_ = false;
  if (size == 0 && !write_failed_)
    events_.on_eof();
  else
    fail();
  return false;
}

void Connection::fail() {
  if (broken_ || state_ == State::kClosed) return;
  broken_ = true;
  if (state_ == State::kOpen)
    events_.on_broken();
  else
    finish_close();
}

// How many bytes the kernel took; when not all, it is full. Negative: broken.
ssize_t Connection::write(iovec* vectors, int count) {
  std::size_t offered = 0;
  for (int i = 0; i < count; ++i) offered += vectors[i].iov_len;
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = static_cast<std::size_t>(count);
  ssize_t wrote = 0;
  do {
    wrote = count == 1 ? ::send(fd_, vectors->iov_base, vectors->iov_len, MSG_NOSIGNAL)
                       : ::sendmsg(fd_, &message, MSG_NOSIGNAL);
  } while (wrote < 0 && errno == EINTR);
  if (wrote < 0 && errno == EAGAIN) wrote = 0;
  blocked_ = wrote >= 0 && static_cast<std::size_t>(wrote) < offered;
  write_failed_ |= wrote < 0;
  return wrote;
}

void Connection::write_through(std::string_view bytes) {
  if (broken_ || write_broken_ || state_ == State::kClosed) return;
  iovec vectors[kVectors];
  const int count = blocked_ ? 0 : out.peek(vectors, kVectors - 1);
  std::size_t before = 0;
  for (int i = 0; i < count; ++i) before += vectors[i].iov_len;
  if (before < out.size()) {  // full, or more than one gather can take: keep the order
    out.append(bytes);
    wake();
    return;
  }
  vectors[count] = {const_cast<char*>(bytes.data()), bytes.size()};
  const ssize_t wrote = write(vectors, count + 1);
  std::size_t taken = wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
  const std::size_t head = std::min(taken, before);
  out.drop(head);
  taken -= head;
  if (taken < bytes.size()) out.append(bytes.substr(taken));
  wake();  // the rest, an error, or just on_flushed()
}

bool Connection::write_some() {
  while (!out.empty() && !blocked_) {
    iovec vectors[kVectors];
    const ssize_t wrote = write(vectors, out.peek(vectors, kVectors));
    if (wrote < 0) return false;
    out.drop(static_cast<std::size_t>(wrote));
  }
  return true;
}

// The peer takes no more, but what it said before may still be unread: an early answer. Reading on
// brings it, and then the error.
void Connection::write_failed() {
  out.clear();
  if (reads() && state_ == State::kOpen)
    write_broken_ = true;
  else
    fail();
}

void Connection::flush() {
  if (state_ == State::kClosed || fd_ < 0) return;
  if (state_ == State::kOpen) {
    events_.before_flush();
    if (state_ == State::kClosed) return;
  }
  if (write_broken_ && !reads()) {
    fail();
    return;
  }
  if (!broken_ && !write_broken_ && !write_some()) write_failed();
  if (state_ == State::kClosed) return;
  if (write_broken_) out.clear();
  wants_writable_ = blocked_;
  watch();
  if (state_ == State::kOpen && !broken_ && !write_broken_) events_.on_flushed();
  if (state_ == State::kClosed || !out.empty()) return;
  if (shutdown_wanted_ && !shutdown_done_) {
    shutdown_done_ = true;
    ::shutdown(fd_, SHUT_WR);
  }
  if (state_ == State::kFlushing) linger();
}

void Connection::shutdown() {
  shutdown_wanted_ = true;
  wake();
}

void Connection::close(Close how) {
  if (state_ == State::kClosed) return;
  if (how == Close::kReset || broken_ || fd_ < 0) {
    if (how == Close::kReset && fd_ >= 0) {
      const struct linger hard = {1, 0};
      setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    finish_close();
    return;
  }
  if (state_ != State::kOpen) return;
  state_ = State::kFlushing;
  linger_ = how == Close::kLinger;
  closing_ = std::make_unique<Closing>(*this);
  closing_->timer.start(limits::kStall);  // for the bytes to leave
  reading_ = false;
  wake();
}

void Connection::linger() {
  if (!linger_) {
    finish_close();
    return;
  }
  state_ = State::kLingering;
  if (!shutdown_done_) ::shutdown(fd_, SHUT_WR);
  closing_->timer.start(limits::kLinger);
  reading_ = true;
  held_ = false;
  watch();
}

// A peer that is still taking what was written gets the time for it: a socket closed before would
// answer its next byte with a reset, and lose the rest. One that does not take it is reset.
void Connection::on_close_timer() {
  const bool late = now_ms() >= closing_->until_ms;
  if (state_ == State::kLingering && unacknowledged() == 0) return finish_close();
  if (state_ == State::kLingering && !late) {
    closing_->timer.start(limits::kLinger);
    return;
  }
  close(Close::kReset);
}

void Connection::finish_close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (closing_) closing_->timer.stop();
  dirty_.unlink();
  close_socket();
  events_.on_closed();
}

}  // namespace outrider
