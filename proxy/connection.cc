#include "proxy/connection.h"

#include <linux/sockios.h>
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

// As large as the kind of handle it is.
union Connection::Socket {
  uv_handle_t handle;
  uv_stream_t stream;
  uv_tcp_t tcp;
  uv_pipe_t pipe;
  static Socket* make(bool local) {
    return static_cast<Socket*>(::operator new(local ? sizeof(uv_pipe_t) : sizeof(uv_tcp_t)));
  }
  static void free(uv_handle_t* handle) { ::operator delete(handle); }
};

// A queued write. It outlives the connection when that closes first, and then takes the bytes with
// it.
struct Connection::Pending {
  uv_write_t request{};
  OutBuffer bytes;
};

namespace {
constexpr int kVectors = 32;
constexpr std::uint32_t kFirstRead = 16 * 1024;

// libuv takes a hang-up behind a short read for an end in order, also when it was a reset. EPIPE is
// a reset behind the peer's FIN: all that it had to say has come.
bool was_reset(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return true;
  return error != 0 && error != EPIPE;
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
  if (socket_ == nullptr) return;
  if (pending_ != nullptr) pending_->bytes.swap(out);
  pending_ = nullptr;
  in_flight_ = 0;
  socket_->handle.data = nullptr;
  uv_close(&socket_->handle, Socket::free);
  socket_ = nullptr;
}

uv_stream_t* Connection::stream() const { return &socket_->stream; }

int Connection::fd() const {
  uv_os_fd_t number = -1;
  if (socket_ == nullptr || uv_fileno(&socket_->handle, &number) != 0) return -1;
  return number;
}

std::size_t Connection::unacknowledged() const {
  int bytes = 0;
  return ioctl(fd(), SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

bool Connection::peer_is_gone() const {
  pollfd look{.fd = fd(), .events = 0, .revents = 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLERR | POLLHUP)) != 0;
}

bool Connection::accept(int fd, bool unix_socket) {
  socket_ = Socket::make(unix_socket);
  if (unix_socket)
    uv_pipe_init(flusher_.loop.uv(), &socket_->pipe, 0);
  else
    uv_tcp_init(flusher_.loop.uv(), &socket_->tcp);
  socket_->handle.data = this;
  const int status =
      unix_socket ? uv_pipe_open(&socket_->pipe, fd) : uv_tcp_open(&socket_->tcp, fd);
  if (status != 0) {
    ::close(fd);
    return false;
  }
  if (!unix_socket) uv_tcp_nodelay(&socket_->tcp, 1);
  return true;
}

int Connection::connect(const sockaddr* address) {
  socket_ = Socket::make(address->sa_family == AF_UNIX);
  auto* request = new uv_connect_t;
  auto connected = [](uv_connect_t* done, int status) {
    auto* self = static_cast<Connection*>(done->handle->data);
    delete done;
    if (self == nullptr || self->state_ != State::kOpen) return;
    self->events_.on_connected(status);
  };
  if (address->sa_family == AF_UNIX) {
    uv_pipe_init(flusher_.loop.uv(), &socket_->pipe, 0);
    socket_->handle.data = this;
    uv_pipe_connect(request, &socket_->pipe,
                    reinterpret_cast<const sockaddr_un*>(address)->sun_path, connected);
    return 0;
  }
  uv_tcp_init(flusher_.loop.uv(), &socket_->tcp);
  socket_->handle.data = this;
  const int status = uv_tcp_connect(request, &socket_->tcp, address, connected);
  if (status != 0)
    delete request;
  else
    uv_tcp_nodelay(&socket_->tcp, 1);
  return status;
}

void Connection::start_reading() {
  started_ = true;
  if (held_ || reading_) return;
  reading_ = true;
  uv_read_start(stream(), on_alloc, on_read);
}

void Connection::hold_reading(bool held) {
  if (held_ == held) return;
  held_ = held;
  if (held) read_size_ = kFirstRead;
  if (!started_ || state_ != State::kOpen) return;
  if (held) {
    reading_ = false;
    uv_read_stop(stream());
    if (write_broken_) wake();
  } else {
    start_reading();
  }
}

void Connection::on_alloc(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
  auto* self = static_cast<Connection*>(handle->data);
  *buffer = uv_buf_init(self->flusher_.read_buffer.get(), self->read_size_);
}

void Connection::on_read(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer) {
  auto* self = static_cast<Connection*>(stream->data);
  if (self == nullptr || size == 0) return;
  if (self->state_ != State::kOpen) {
    // Lingering: what comes is dropped, within bounds.
    if (size < 0 || self->closing_->to_drop <= static_cast<std::size_t>(size))
      self->finish_close();
    else
      self->closing_->to_drop -= static_cast<std::size_t>(size);
    return;
  }
  if (size > 0) {
    // A full read that nobody had to hold earns larger ones; one that went nowhere costs no more
    // than a small one.
    if (static_cast<std::uint32_t>(size) == self->read_size_ &&
        self->read_size_ < limits::kReadBuffer)
      self->read_size_ *= 4;
    self->events_.on_bytes({buffer->base, static_cast<std::size_t>(size)});
    return;
  }
  self->reading_ = false;
  uv_read_stop(stream);
  if (size == UV_EOF && !self->write_broken_ && !was_reset(self->fd()))
    self->events_.on_eof();
  else
    self->fail();
}

void Connection::fail() {
  if (broken_ || state_ == State::kClosed) return;
  broken_ = true;
  if (state_ == State::kOpen)
    events_.on_broken();
  else
    finish_close();
}

void Connection::write_through(std::string_view bytes) {
  if (broken_ || write_broken_ || state_ == State::kClosed) return;
  if (in_flight_ != 0) {
    out.append(bytes);
    return;
  }
  iovec vectors[kVectors];
  const int count = out.peek(vectors, kVectors - 1);
  vectors[count] = {const_cast<char*>(bytes.data()), bytes.size()};
  std::size_t before = 0;
  for (int i = 0; i < count; ++i) before += vectors[i].iov_len;
  if (before < out.size()) {  // more than one gather can take: keep the order
    out.append(bytes);
    wake();
    return;
  }
  const int wrote = uv_try_write(stream(), reinterpret_cast<const uv_buf_t*>(vectors),
                                 static_cast<unsigned>(count + 1));
  std::size_t taken = wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
  const std::size_t head = std::min(taken, before);
  out.drop(head);
  taken -= head;
  if (taken < bytes.size()) out.append(bytes.substr(taken));
  wake();  // the rest, an error, or just on_flushed()
}

bool Connection::write_some() {
  if (write_broken_) return true;
  while (!out.empty()) {
    iovec vectors[kVectors];
    const int count = out.peek(vectors, kVectors);
    std::size_t offered = 0;
    for (int i = 0; i < count; ++i) offered += vectors[i].iov_len;
    const int wrote = uv_try_write(stream(), reinterpret_cast<const uv_buf_t*>(vectors),
                                   static_cast<unsigned>(count));
    if (wrote == UV_EAGAIN) break;
    if (wrote < 0) return false;
    out.drop(static_cast<std::size_t>(wrote));
    if (static_cast<std::size_t>(wrote) < offered) break;
  }
  return true;
}

// What the socket did not take waits in libuv's queue; the slabs stay at the front of `out` until
// it is written.
void Connection::queue_rest() {
  iovec vectors[kVectors];
  const int count = out.peek(vectors, kVectors);
  for (int i = 0; i < count; ++i) in_flight_ += vectors[i].iov_len;
  pending_ = new Pending{{}, OutBuffer(out.slabs())};
  auto written = [](uv_write_t* request, int result) {
    auto* self = static_cast<Connection*>(request->handle->data);
    delete reinterpret_cast<Pending*>(request);
    if (self == nullptr) return;
    self->pending_ = nullptr;
    self->out.drop(std::exchange(self->in_flight_, 0));
    if (result < 0)
      self->write_failed();
    else
      self->wake();
  };
  if (uv_write(&pending_->request, stream(), reinterpret_cast<const uv_buf_t*>(vectors),
               static_cast<unsigned>(count), written) == 0)
    return;
  delete std::exchange(pending_, nullptr);
  in_flight_ = 0;
  write_failed();
}

// The peer takes no more, but what it said before may still be unread: an early answer. Reading on
// brings it, and then the error.
void Connection::write_failed() {
  out.clear();
  if (reading_ && state_ == State::kOpen)
    write_broken_ = true;
  else
    fail();
}

void Connection::flush() {
  if (state_ == State::kClosed || socket_ == nullptr) return;
  if (state_ == State::kOpen) {
    events_.before_flush();
    if (state_ == State::kClosed) return;
  }
  if (write_broken_ && !reading_) {
    fail();
    return;
  }
  if (in_flight_ == 0 && !broken_) {
    if (!write_some())
      write_failed();
    else if (!out.empty())
      queue_rest();
    if (state_ == State::kClosed) return;
  }
  if (write_broken_) out.clear();
  if (state_ == State::kOpen && !broken_ && !write_broken_) events_.on_flushed();
  if (state_ == State::kClosed || in_flight_ != 0 || !out.empty()) return;
  if (shutdown_wanted_ && !shutdown_done_) {
    shutdown_done_ = true;
    ::shutdown(fd(), SHUT_WR);
  }
  if (state_ == State::kFlushing) linger();
}

void Connection::shutdown() {
  shutdown_wanted_ = true;
  wake();
}

void Connection::close(Close how) {
  if (state_ == State::kClosed) return;
  if (how == Close::kReset || broken_ || socket_ == nullptr) {
    if (how == Close::kReset && fd() >= 0) {
      const struct linger hard = {1, 0};
      setsockopt(fd(), SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    finish_close();
    return;
  }
  if (state_ != State::kOpen) return;
  state_ = State::kFlushing;
  linger_ = how == Close::kLinger;
  closing_ = std::make_unique<Closing>(*this);
  closing_->timer.start(limits::kStall);  // for the bytes to leave
  if (reading_) {
    reading_ = false;
    uv_read_stop(stream());
  }
  wake();
}

void Connection::linger() {
  if (!linger_) {
    finish_close();
    return;
  }
  state_ = State::kLingering;
  if (!shutdown_done_) ::shutdown(fd(), SHUT_WR);
  closing_->timer.start(limits::kLinger);
  if (uv_read_start(stream(), on_alloc, on_read) != 0) finish_close();
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
