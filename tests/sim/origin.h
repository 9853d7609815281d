// A server behind the proxies: so many requests at a time, the others wait in its queue, and it
// does the work of those whose client has gone, as servers do. What ails it changes while it runs.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>

#include "tests/sim/http.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"

namespace outrider::sim {

struct Ailment {
  double errors = 0;    // share answered with 503
  double resets = 0;    // share reset when the work is done, in the answer or before it
  double garbage = 0;   // share answered by 200 and nonsense
  double slowness = 1;  // times as slow
  bool silent = false;  // reads and never answers
};

class Origin {
 public:
  struct Settings {
    Nanos work = 5 * kMilli;  // of a request, on average
    std::size_t at_once = 64;
    std::size_t body = 200;  // of an answer
  };
  Origin(Net& net, Ledger& ledger, Place place, Settings settings);
  ~Origin();
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;

  void stop();  // as by kill -9: its connections are reset, its port refuses, its work is lost
  void start();
  Place place() const { return place_; }
  std::string address() const { return to_string(place_); }
  std::size_t served() const { return served_; }
  std::size_t connections() const { return connections_.size(); }

  Ailment ailment;

  // Of the request with that number, however large it was to be.
  static std::string body_of(std::uint64_t id, std::size_t size);

 private:
  struct Connection;
  struct Job {
    std::uint64_t connection;
    std::uint64_t id;
    std::uint64_t epoch;
  };
  void accept();
  void on_ready(std::uint64_t number);
  void take(std::uint64_t number, const Message& request);
  void work_on(const Job& job);
  void done(const Job& job);
  void answer(Connection& connection, const Job& job);
  void reset_within(std::uint64_t number);
  void write(Connection& connection);
  void close(std::uint64_t number, bool reset);

  Net& net_;
  World& world_;
  Ledger& ledger_;
  const Place place_;
  const Settings settings_;
  std::shared_ptr<Listening> listening_;
  std::map<std::uint64_t, std::unique_ptr<Connection>> connections_;
  std::deque<Job> queue_;
  std::size_t working_ = 0;
  std::size_t served_ = 0;
  std::uint64_t numbers_ = 0;
  std::uint64_t epoch_ = 0;  // of its life: what was begun before a stop is lost
};

}  // namespace outrider::sim
