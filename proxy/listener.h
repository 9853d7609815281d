// Accepts connections on one address for one worker, within the listener's limits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "discovery/event_loop.h"
#include "proxy/snapshot.h"

namespace outrider {

class Worker;
class Downstream;
struct ListenerShared;

class Listener {
 public:
  Listener(Worker& worker, const ListenerSnapshot& snapshot,
           std::shared_ptr<ListenerShared> shared);
  ~Listener();
  // Takes the bound socket over.
  bool open(int fd, std::string& why);
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
  void accept_again();
  void on_readable();
  void refuse_and_pause();

  Worker& worker_;
  const ListenerSnapshot& snapshot_;
  std::shared_ptr<ListenerShared> shared_;
  Socket* socket_ = nullptr;
  Timer pause_;
  const bool inbound_;
};

// Loopback and Unix sockets are the application's way out: they drain last.
bool is_outbound(const config::Address& address);

// Binds (not yet listening): `count` sockets that share the port, or one Unix socket duplicated.
// Exclusive: an address that another socket holds is an error, even of the same user. `bound` is
// the address with the port that was picked.
bool bind_listener(const config::Address& address, std::size_t count, std::vector<int>& fds,
                   config::Address& bound, std::string& why);

}  // namespace outrider
