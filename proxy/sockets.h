// Sockets as the proxy sees them: the kernel's (kernel_sockets.h), or those of a simulated network.
// None blocks. What goes wrong comes back as a negative error number, -EAGAIN when nothing can be
// done now. They belong to one thread, and to who has opened them.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace outrider {

// Errors that tell of this process or machine, not of the peer.
constexpr bool is_our_own(int error) {
  return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM ||
         error == -EADDRNOTAVAIL;
}

// What a loop can be asked to look at.
class Watched {
 public:
  static constexpr std::uint8_t kReadable = 1;
  static constexpr std::uint8_t kWritable = 2;
  using Ready = void (*)(void* owner, std::uint8_t what);

  Watched() = default;
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  // `ready` is called from the loop with what holds of `what`, as long as it does. An error that
  // waits shows as both, and the socket is then no longer watched.
  void on_ready(Ready ready, void* owner) {
    ready_ = ready;
    owner_ = owner;
  }
  void watch(std::uint8_t what) {
    if (what == watched_) return;
    watched_ = what;
    update();
  }
  virtual void close() = 0;  // and frees it: now, or when the loop has let go of it

 protected:
  ~Watched() = default;
  void ready(std::uint8_t what) { ready_(owner_, what); }
  virtual void update() = 0;  // `watched_` has changed
  std::uint8_t watched_ = 0;

 private:
  Ready ready_ = nullptr;
  void* owner_ = nullptr;
};

struct CloseWatched {
  void operator()(Watched* socket) const noexcept { socket->close(); }
};

class Socket : public Watched {
 public:
  virtual ssize_t receive(char* to, std::size_t room) = 0;    // 0: the end
  virtual ssize_t send(const iovec* vectors, int count) = 0;  // fewer than offered: it is full
  virtual void end_sending() = 0;
  virtual void reset_when_closed() = 0;
  virtual int take_error() = 0;  // of connecting: 0 or a negative error number
  virtual bool peer_is_gone() const = 0;
  virtual std::size_t unacknowledged() const = 0;  // bytes taken from us that the peer's side lacks
  virtual bool peer_address(sockaddr_storage& address) const = 0;

 protected:
  ~Socket() = default;
};
using SocketHandle = std::unique_ptr<Socket, CloseWatched>;

class ListeningSocket : public Watched {
 public:
  // Null: `error` says why; -EDQUOT: one was turned away for `descriptors_for_clients`.
  virtual SocketHandle accept(int& error) = 0;
  // Out of descriptors: up to so many of those who wait are told, by an end; how many.
  virtual int turn_away(int most) = 0;

 protected:
  ~ListeningSocket() = default;
};
using ListeningHandle = std::unique_ptr<ListeningSocket, CloseWatched>;

class Sockets {
 public:
  Sockets() = default;
  Sockets(const Sockets&) = delete;
  Sockets& operator=(const Sockets&) = delete;
  virtual ~Sockets() = default;

  // A client that would take this descriptor, or a later one, is turned away: those are kept for
  // connections to servers. Descriptors are given from the lowest, so as many are in use.
  int descriptors_for_clients = INT_MAX;

  // On its way: it is writable when the outcome is known. Null: `error` says why.
  virtual SocketHandle connect(const sockaddr& address, int& error) = 0;
  // Takes over a descriptor that listens already.
  virtual ListeningHandle listen(int descriptor) = 0;

  // A buffer below us, between two sockets whose bytes we need not see: always empty between uses.
  virtual std::size_t pipe_room() = 0;  // 0: there is none
  virtual ssize_t fill_pipe(Socket& from, std::size_t most) = 0;
  virtual ssize_t empty_pipe(Socket& to, std::size_t most) = 0;
  virtual ssize_t read_pipe(char* to, std::size_t room) = 0;
};

}  // namespace outrider
