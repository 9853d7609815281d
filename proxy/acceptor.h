// Sockets that listen, and who accepts on them. libuv's own listening is not used: out of
// descriptors it never leaves its loop once another thread has taken its spare one.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "config/error.h"
#include "config/model.h"
#include "discovery/event_loop.h"
#include "proxy/sockets.h"

namespace outrider {

// The name of a Unix socket in the file system. Whoever accepts on the socket holds it until just
// before closing; with the last one the name goes, if it still is this socket's.
class SocketFile {
 public:
  explicit SocketFile(std::string path);  // of a socket just bound
  ~SocketFile();
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;

 private:
  const std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// A socket that listens, though nobody accepts yet.
struct BoundSocket {
  int fd = -1;
  std::shared_ptr<SocketFile> file = nullptr;  // of a Unix socket
};

// Binds and listens: `count` sockets that share the port, or one Unix socket duplicated. Exclusive:
// an address that another socket holds, or a part of it, is an error, even of the same user.
// `bound` is the address with the port that was picked.
bool bind_listener(const config::Address& address, std::size_t count,
                   std::vector<BoundSocket>& sockets, config::Address& bound, std::string& why);

class Acceptor {
 public:
  class Events {
   public:
    virtual void on_accepted(SocketHandle socket) = 0;
    virtual void on_refused() = 0;  // out of descriptors: one more was closed at once

   protected:
    ~Events() = default;
  };

  Acceptor(EventLoop& loop, Sockets& sockets, Events& events);
  void open(BoundSocket socket);  // takes it over
  void close();
  void hold(bool held);  // nobody is accepted meanwhile: clients wait

 private:
  void resume();
  void on_readable();
  void refuse_and_pause();

  Sockets& sockets_;
  Events& events_;
  ListeningHandle socket_;
  std::shared_ptr<SocketFile> file_;
  Timer pause_;
  bool held_ = false;
};

}  // namespace outrider
