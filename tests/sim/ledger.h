// What every request came to, seen from its two ends and from the proxies' logs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/world.h"

namespace outrider::sim {

enum class Outcome : std::uint8_t {
  kOpen,       // nothing heard yet
  kAnswered,   // one whole answer
  kCut,        // an answer that broke off
  kUnheard,    // a connection that ended without one
  kAbandoned,  // the client gave up
};

struct Record {
  bool idempotent = true;
  Nanos sent = 0;
  Nanos ended = 0;
  Outcome outcome = Outcome::kOpen;
  int status = 0;
  bool right = false;     // the answer's body was the origin's for this request
  unsigned applied = 0;   // origins that acted on it
  unsigned arrivals = 0;  // heads that came to an origin
  unsigned retries = 0;   // of those, with x-outrider-attempt
};

class Ledger {
 public:
  explicit Ledger(World& world) : world_(world) {}

  std::uint64_t begin(bool idempotent) {
    records.push_back({.idempotent = idempotent, .sent = world_.now()});
    return records.size() - 1;
  }
  void end(std::uint64_t id, Outcome outcome, int status, bool right) {
    Record& record = records[id];
    if (record.outcome != Outcome::kOpen)
      world_.violated("request " + std::to_string(id) + " was answered twice");
    record.outcome = outcome;
    record.status = status;
    record.right = right;
    record.ended = world_.now();
    world_.note("ended", id, static_cast<std::uint64_t>(status));
  }
  void arrived(std::uint64_t id, bool retry) {
    ++records[id].arrivals;
    records[id].retries += retry ? 1 : 0;
    world_.note("arrived", id);
  }
  void applied(std::uint64_t id) {
    Record& record = records[id];
    if (++record.applied > 1 && !record.idempotent)
      world_.violated("POST " + std::to_string(id) + " was applied twice");
    world_.note("applied", id);
  }
  std::vector<Record> records;

 private:
  World& world_;
};

}  // namespace outrider::sim
