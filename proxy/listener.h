// Accepts connections on one address for one worker, within the listener's limits.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "discovery/event_loop.h"
#include "proxy/snapshot.h"

namespace outrider {

class Worker;
class Downstream;
struct ListenerShared;

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

class Listener {
 public:
  Listener(Worker& worker, const ListenerSnapshot& snapshot,
           std::shared_ptr<ListenerShared> shared);
  ~Listener();
  // Takes the socket over.
  bool open(BoundSocket socket, std::string& why);
  void stop_accepting();
  void close_all();        // connections too: streams are cut, what can be written at once still is
  void drain(bool final);  // its connections

  Worker& worker() { return worker_; }
  const ListenerSnapshot& snapshot() const { return snapshot_; }
  bool inbound() const { return inbound_; }
  ListNode connections;  // of Downstream

  // Counts a connection in, if the limits allow; leave() counts it out.
  bool admit(const std::array<std::uint8_t, 16>& ip);
  void leave(const std::array<std::uint8_t, 16>& ip);

 private:
  struct Socket;
  void on_connection(int status);

  Worker& worker_;
  const ListenerSnapshot& snapshot_;
  std::shared_ptr<ListenerShared> shared_;
  Socket* socket_ = nullptr;
  std::shared_ptr<SocketFile> file_;
  const bool inbound_;
};

// Binds and listens: `count` sockets that share the port, or one Unix socket duplicated. Exclusive:
// an address that another socket holds, or a part of it, is an error, even of the same user.
// `bound` is the address with the port that was picked.
bool bind_listener(const config::Address& address, std::size_t count,
                   std::vector<BoundSocket>& sockets, config::Address& bound, std::string& why);

}  // namespace outrider
