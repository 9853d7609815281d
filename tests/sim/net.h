// A simulated network: hosts, TCP-like connections of bounded buffers, latency, and every fault
// that a network has. Bytes arrive in their order or not at all; what is closed with bytes unread
// is reset, as in the kernel; whoever does not read stops who sends.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/sim/world.h"

namespace outrider::sim {

using Host = std::uint32_t;  // an IPv4 address

struct Place {
  Host host = 0;
  std::uint16_t port = 0;
  friend auto operator<=>(const Place&, const Place&) = default;
};
std::string to_string(const Place& place);

class Net;

// One side of a connection. Its user ends it with close() and does not touch it afterwards.
class End {
 public:
  static constexpr std::size_t kBuffers = 192 * 1024;  // both kernels' together, of one direction

  End(Net& net, std::uint64_t number, Host host, Place peer)
      : number(number), net_(net), host_(host), peer_(peer) {}
  const std::uint64_t number;

  // All of these as the system calls: a negative error number, -EAGAIN for later.
  std::int64_t receive(char* to, std::size_t room);
  std::int64_t send(std::string_view bytes);
  void end_sending();
  void close(bool reset);
  int take_error();

  bool readable() const { return !inbox_.empty() || ended_ || error_ != 0 || dead_; }
  bool writable() const;
  bool in_error() const { return error_ != 0; }
  bool gone() const { return dead_ || (ended_ && sending_ended_); }
  bool established() const { return established_; }
  std::size_t unacknowledged() const;
  Host host() const { return host_; }
  Place peer() const { return peer_; }

  std::function<void()> changed;  // may be ready for something else than before

 private:
  friend class Net;
  struct Segment {
    enum class Kind : std::uint8_t { kBytes, kEnd, kReset, kEstablished, kRefused };
    Kind kind;
    std::string bytes;
    Nanos due;
  };
  std::size_t room() const;
  void post(Segment::Kind kind, std::string bytes, Nanos extra = 0);
  void pump();
  void arrive(Segment segment);
  void tell() {
    if (changed) changed();
  }

  Net& net_;
  const Host host_;
  const Place peer_;
  End* other_ = nullptr;
  std::deque<Segment> flight_;  // to us
  std::size_t flight_bytes_ = 0;
  std::string inbox_;
  Nanos last_due_ = 0;
  Nanos resend_ = 0;
  int error_ = 0;
  bool pumping_ = false;
  bool established_ = false;
  bool ended_ = false;          // the peer sends no more
  bool sending_ended_ = false;  // we do not
  bool dead_ = false;           // reset, by either side
  bool closed_ = false;
  bool opener_ = false;       // it has connected
  bool counted_out_ = false;  // of what is open
};

class Listening {
 public:
  std::deque<End*> backlog;
  std::function<void()> changed;
};

class Net {
 public:
  explicit Net(World& the_world) : world(the_world) {}
  Net(const Net&) = delete;
  Net& operator=(const Net&) = delete;

  End* connect(Host from, Place to);
  // Several may listen at one place: they share what comes.
  std::shared_ptr<Listening> listen(Place place);
  void stop_listening(Place place, const std::shared_ptr<Listening>& listening);

  // Faults.
  void latency(Host host, Nanos base, Nanos jitter);  // of all that goes to or comes from it
  void lose(double share) { loss_ = share; }          // a lost segment comes 200 ms later
  void part(Host a, Host b, bool parted);             // nothing passes until they are joined
  void blackhole(Host host, bool black);              // likewise, with everybody
  void reset_all(Host host);                          // every connection of it, now
  void refuse(Place place, bool refused);
  bool passes(Host a, Host b) const;

  // Connections that `from` has opened to `to` and not yet closed; with `to` 0 all that it has.
  std::size_t open(Host from, Host to) const;

  World& world;

 private:
  friend class End;
  Nanos delay(Host a, Host b);
  End* find(std::uint64_t number);
  End* make(Host host, Place peer, bool opener);
  void closed(End& end);
  void syn(std::uint64_t opener, Place to, Nanos resend);
  struct Latency {
    Nanos base = 100 * kMicro;
    Nanos jitter = 100 * kMicro;
  };
  std::map<Host, Latency> latencies_;
  std::map<Place, std::vector<std::shared_ptr<Listening>>> listening_;
  std::set<Place> refused_;
  std::set<std::pair<Host, Host>> parted_;
  std::set<Host> black_;
  std::map<std::uint64_t, std::unique_ptr<End>> ends_;
  std::map<std::pair<Host, Host>, std::size_t> open_;
  std::uint64_t opened_ = 0;
  std::uint16_t next_port_ = 1024;
  double loss_ = 0;
};

}  // namespace outrider::sim
