#include "proxy/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

namespace outrider {

namespace {
constexpr int kVectors = 32;
constexpr int kReads = 4;  // of one connection in a row, while each fills the buffer
constexpr std::uint32_t kFirstRead = 16 * 1024;
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
  socket_ = nullptr;
}

void Connection::watch() {
  if (socket_ == nullptr) return;
  const int wanted =
      (reading_ ? Socket::kReadable : 0) | (wants_writable_ || connecting_ ? Socket::kWritable : 0);
  socket_->watch(static_cast<std::uint8_t>(wanted));
}

void Connection::accept(SocketHandle socket) {
  socket_ = std::move(socket);
  socket_->on_ready(
      [](void* self, std::uint8_t what) { static_cast<Connection*>(self)->on_ready(what); }, this);
}

int Connection::connect(const sockaddr* address) {
  int error = 0;
  SocketHandle socket = flusher_.sockets.connect(*address, error);
  if (socket == nullptr) return error;
  accept(std::move(socket));
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

void Connection::on_ready(std::uint8_t what) {
  if (connecting_) {
    const int error = socket_->take_error();
    connecting_ = false;
    watch();
    events_.on_connected(error);
    return;
  }
  if ((what & Socket::kWritable) != 0 && blocked_) {
    blocked_ = false;
    wake();
  }
  if ((what & Socket::kReadable) != 0 && reading_) {
    if (held_)
      reading_ = false;
    else
      read();
  }
  watch();
}

void Connection::read() {
  for (int i = 0; i < kReads; ++i) {
    // What splice does not take, an urgent byte or the end, recv does.
    if (const std::size_t most = passable(); most != 0 && pass(most)) return;
    const ssize_t size = socket_->receive(flusher_.read_buffer.get(), read_size_);
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
      to.state_ != State::kOpen || !to.codec_->takes_raw())
    return 0;
  const std::uint64_t most =
      std::min<std::uint64_t>(codec_->passable(), flusher_.sockets.pipe_room());
  return most < kFirstRead ? 0 : most;
}

// What the other's socket does not take comes out of the pipe again, which all connections share.
bool Connection::pass(std::size_t most) {
  Sockets& sockets = flusher_.sockets;
  Connection& to = *other_;
  const ssize_t came = sockets.fill_pipe(*socket_, most);
  if (came < 0 && came != -EAGAIN) error_taken_ = true;
  if (came <= 0) return false;
  auto left = static_cast<std::size_t>(came);
  while (left > 0) {
    const ssize_t went = sockets.empty_pipe(*to.socket_, left);
    if (went < 0 && went != -EAGAIN) to.error_taken_ = true;
    if (went <= 0) break;
    left -= static_cast<std::size_t>(went);
  }
  if (left > 0 || static_cast<std::size_t>(came) < kFirstRead) read_size_ = kFirstRead;
  while (left > 0) {
    const ssize_t size = sockets.read_pipe(flusher_.read_buffer.get(), limits::kReadBuffer);
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
  if (size == -EAGAIN || size == -EINTR) return false;
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
  if (size == 0 && !error_taken_)
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

// How many bytes the socket took; when not all, it is full. Negative: broken.
ssize_t Connection::write(const iovec* vectors, int count) {
  std::size_t offered = 0;
  for (int i = 0; i < count; ++i) offered += vectors[i].iov_len;
  ssize_t wrote = socket_->send(vectors, count);
  if (wrote == -EAGAIN) wrote = 0;
  blocked_ = wrote >= 0 && static_cast<std::size_t>(wrote) < offered;
  error_taken_ |= wrote < 0;
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
  if (state_ == State::kClosed || socket_ == nullptr) return;
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
    socket_->end_sending();
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
    if (how == Close::kReset && socket_ != nullptr) socket_->reset_when_closed();
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
  if (!shutdown_done_) socket_->end_sending();
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
