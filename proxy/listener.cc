#include "proxy/listener.h"

#include "discovery/service.h"
#include "proxy/downstream.h"
#include "proxy/worker.h"

namespace outrider {

Listener::Listener(Worker& worker, const ListenerSnapshot& snapshot,
                   std::shared_ptr<ListenerShared> shared)
    : worker_(worker),
      snapshot_(snapshot),
      shared_(std::move(shared)),
      acceptor_(worker.loop(), worker.flusher().sockets, *this),
      // Loopback and Unix sockets are the application's way out: they drain last.
      inbound_(!config::is_loopback(snapshot.config->address)) {}

void Listener::close_all() {
  stop_accepting();
  for (ListNode* node = connections.next; node != &connections;) {
    auto& connection = static_cast<Downstream&>(*node);
    node = node->next;
    connection.cut(Reason::kDrain);
  }
  worker_.loop().end_turn();
  while (connections.linked()) static_cast<Downstream&>(*connections.next).abort();
}

void Listener::drain(bool final) {
  for (ListNode* node = connections.next; node != &connections;) {
    auto& connection = static_cast<Downstream&>(*node);
    node = node->next;
    connection.drain(final);
  }
}

void Listener::end_idle() {
  for (ListNode* node = connections.next; node != &connections;) {
    auto& connection = static_cast<Downstream&>(*node);
    node = node->next;
    if (!connection.streams.linked()) connection.cut(Reason::kOverload);
  }
}

bool Listener::admit(const std::array<std::uint8_t, 16>& ip) {
  const config::ListenerLimits& limits = snapshot_.config->limits;
  if (!take(shared_->connections, limits.connections)) {
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kConnections);
    return false;
  }
  if (limits.per_client != 0 && !shared_->clients.enter(ip, limits.per_client)) {
    give_back(shared_->connections);
    worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kPerClient);
    return false;
  }
  worker_.metrics_ref().downstream_connection(snapshot_.label, 1);
  return true;
}

void Listener::leave(const std::array<std::uint8_t, 16>& ip) {
  give_back(shared_->connections);
  if (snapshot_.config->limits.per_client != 0) shared_->clients.leave(ip);
  worker_.metrics_ref().downstream_connection(snapshot_.label, -1);
}

void Listener::on_accepted(SocketHandle socket) {
  auto connection = std::make_unique<Downstream>(*this);
  if (connection->accept(std::move(socket)))
    connection.release()->insert_before(connections);  // it defers its own end in on_closed()
}

void Listener::on_refused() {
  worker_.metrics_ref().limit_refused(snapshot_.label, RefusedLimit::kDescriptors);
}

}  // namespace outrider
