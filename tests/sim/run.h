// One run: a world, a network, proxies, clients and origins, what a scenario does to them, and what
// must hold whatever it does.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/client.h"
#include "tests/sim/ledger.h"
#include "tests/sim/origin.h"
#include "tests/sim/proxy.h"

namespace outrider::sim {

// How the proxies are told to treat their services.
struct Policy {
  std::string_view name;
  std::string_view service;  // keys of a service
  std::string_view route;    // keys of a route
};
extern const std::vector<Policy> kPolicies;  // the first: the defaults; the last: by the seed

struct Figures {
  std::size_t requests = 0;
  std::size_t right = 0;     // answered with what the origin has for them
  std::size_t arrivals = 0;  // at origins
  Nanos p50 = 0;
  Nanos p99 = 0;
  std::uint64_t trace = 0;
  std::uint64_t steps = 0;
};

class Run {
 public:
  Run(std::uint64_t seed, const Policy& policy);
  ~Run();

  // An origin at 10.3.0.1, .2, …
  Origin& origin(const Origin::Settings& settings = {});
  std::vector<Origin*> origins(std::size_t count, const Origin::Settings& settings = {});
  struct Tier {
    std::vector<Place> to;
    std::string service = {};  // more keys of it
    std::string route = {};    // likewise
    unsigned workers = 2;
    bool http2 = false;  // upwards
  };
  // A proxy at 10.2.0.1, .2, …, port 8080.
  Proxy& proxy(const Tier& tier);
  static std::vector<Place> places(const std::vector<Origin*>& origins);
  static Place place(const Proxy& proxy) { return {proxy.host(), 8080}; }
  Client& client(const std::vector<Place>& proxies, const Client::Settings& settings = {});

  World world;
  Net net{world};
  Ledger ledger{world};
  // What a scenario excuses.
  bool lossy_clients = false;  // faults between clients and proxies: answers may be lost there
  bool slow_answers = false;   // … or late
  bool lies = false;           // origins answer 200 with what is not theirs to say
  Nanos load = 15 * kSecond;   // how long clients ask

  // Runs it all to its end and looks at what has become of it.
  Figures play();

  // At a time from the beginning.
  void at(Nanos when, std::function<void()> what) { world.at(began_ + when, std::move(what)); }
  Nanos since_began() const { return world.now() - began_; }

  std::vector<std::unique_ptr<Origin>> all_origins;
  std::vector<std::unique_ptr<Proxy>> all_proxies;
  std::vector<std::unique_ptr<Client>> all_clients;

 private:
  void check_answers();
  void check_logs();
  Figures figures();
  const Policy& policy_;
  std::vector<std::string> logged_;  // in front, by request
  const Nanos began_;
};

struct Scenario {
  std::string_view name;
  std::string_view words;
  void (*build)(Run& run);
};
extern const std::vector<Scenario> kScenarios;

}  // namespace outrider::sim
