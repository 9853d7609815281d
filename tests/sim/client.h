// Who asks: requests come by chance at a rate, whatever became of those before, over connections
// that are kept for the next. One request a connection at a time.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/http.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"

namespace outrider::sim {

class Client {
 public:
  struct Settings {
    double per_second = 100;
    double posts = 0.2;  // share; the others are GET
    std::size_t post_body = 300;
    std::size_t answer_body = 200;  // as Origin::Settings::body
    Nanos patience = 20 * kSecond;
    Nanos idle = 2 * kSecond;  // then a connection is closed
    bool again = false;        // asks once more, a moment later, when it fails: as users do
  };
  Client(Net& net, Ledger& ledger, Host host, std::vector<Place> proxies, Settings settings);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void begin(Nanos until);  // asks until then
  void ask();
  bool done() const { return open_ == 0; }
  const std::vector<Place>& proxies() const { return proxies_; }
  Host host() const { return host_; }
  std::size_t connections() const { return connections_.size(); }
  Settings settings;

 private:
  struct Connection;
  void next();
  void send(std::uint64_t number, std::uint64_t id);
  void on_ready(std::uint64_t number);
  void finish(Connection& connection, Outcome outcome, int status, bool right);
  void close(std::uint64_t number, bool reset);
  void write(Connection& connection);

  Net& net_;
  World& world_;
  Ledger& ledger_;
  const Host host_;
  const std::vector<Place> proxies_;
  std::map<std::uint64_t, std::unique_ptr<Connection>> connections_;
  std::vector<std::uint64_t> idle_;  // most recently used last
  std::uint64_t numbers_ = 0;
  std::size_t open_ = 0;
  Nanos until_ = 0;
};

}  // namespace outrider::sim
