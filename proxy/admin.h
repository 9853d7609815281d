// The admin surface and the read-only one: small HTTP/1 servers on the control thread, built on the
// same connection and codec as the data path.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/model.h"
#include "discovery/event_loop.h"
#include "proxy/acceptor.h"

namespace outrider {

class Server;

class AdminServer {
 public:
  // `full`: everything of config.md §7; else /metrics, /ready, /live and their aliases alone.
  AdminServer(Server& server, const config::Address& address, bool full);
  ~AdminServer();
  // Takes the socket over.
  void open(BoundSocket socket);
  void close();  // listener and connections; handles end as the loop turns

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace outrider
