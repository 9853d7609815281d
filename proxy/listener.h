// Accepts connections on one address for one worker, within the listener's limits.
#pragma once

#include <memory>
#include <utility>

#include "proxy/acceptor.h"
#include "proxy/snapshot.h"

namespace outrider {

class Worker;
class Downstream;
struct ListenerShared;

class Listener final : private Acceptor::Events {
 public:
  Listener(Worker& worker, const ListenerSnapshot& snapshot,
           std::shared_ptr<ListenerShared> shared);
  void open(BoundSocket socket) { acceptor_.open(std::move(socket)); }
  void stop_accepting() { acceptor_.close(); }
  void hold(bool held) { acceptor_.hold(held); }
  void end_idle();         // connections without a request, or with a part of its head
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
  void on_accepted(SocketHandle socket) override;
  void on_refused() override;

  Worker& worker_;
  const ListenerSnapshot& snapshot_;
  std::shared_ptr<ListenerShared> shared_;
  Acceptor acceptor_;
  const bool inbound_;
};

}  // namespace outrider
