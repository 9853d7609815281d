// The kernel's sockets, watched by libuv.
#pragma once

#include "discovery/uv_loop.h"
#include "proxy/sockets.h"

namespace outrider {

class KernelSockets final : public Sockets {
 public:
  explicit KernelSockets(UvLoop& loop) : loop_(loop) {}
  ~KernelSockets() override { close_pipe(); }

  SocketHandle connect(const sockaddr& address, int& error) override;
  ListeningHandle listen(int descriptor) override;
  SocketHandle adopt(int descriptor);  // connected, not blocking; null: it cannot be watched
  std::size_t pipe_room() override;
  ssize_t fill_pipe(Socket& from, std::size_t most) override;
  ssize_t empty_pipe(Socket& to, std::size_t most) override;
  ssize_t read_pipe(char* to, std::size_t room) override;

 private:
  void close_pipe();

  UvLoop& loop_;
  int pipe_[2] = {-1, -1};
  std::size_t pipe_room_ = 0;
};

}  // namespace outrider
