// What a worker of the proxy runs on in a simulation: a loop that the world turns, and sockets of
// the simulated network. A turn costs virtual time, so a busy worker falls behind as a real one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/error.h"
#include "proxy/platform.h"
#include "tests/sim/net.h"

namespace outrider::sim {

class SimLoop;

// What a loop looks after, by number: it may go while the loop is at it.
class Hot {
 public:
  virtual void deliver() = 0;
  virtual bool due() const = 0;  // is there something that it is watched for?

 protected:
  ~Hot() = default;
};

class SimLoop final : public EventLoop {
 public:
  explicit SimLoop(World& world) : world_(world) {}
  ~SimLoop() override;

  void run() override { OUTRIDER_ASSERT(false && "the world turns it"); }
  void stop() override {}
  void settle() override;
  std::int64_t wall_ms() const override {
    return static_cast<std::int64_t>(world_.now() / kMilli) + wall_offset_ms;
  }
  void stall(Nanos time);  // a long turn, or a process that was stopped

  std::uint64_t add(Hot& it);
  void remove(std::uint64_t number) { known_.erase(number); }
  void heat(std::uint64_t number);  // may have something to deliver

  std::int64_t wall_offset_ms = 1'700'000'000'000;
  std::uint64_t turns = 0;

 private:
  std::uint64_t clock_ms() const override { return world_.now() / kMilli; }
  std::uint64_t clock_ns() const override { return world_.now(); }
  void notify() override;
  void set_alarm(std::uint64_t due_ms) override;
  void clear_alarm() override { alarm_ = 0; }
  void wake(Nanos when);
  void turn();

  World& world_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::map<std::uint64_t, Hot*> known_;
  std::vector<std::uint64_t> hot_;
  std::uint64_t numbers_ = 0;
  Nanos alarm_ = 0;    // 0: none
  Nanos turn_at_ = 0;  // 0: none asked for
  Nanos busy_until_ = 0;
  bool notified_ = false;
};

class SimSockets final : public Sockets {
 public:
  SimSockets(Net& net, SimLoop& loop, Host host) : net_(net), loop_(loop), host_(host) {}

  SocketHandle connect(const sockaddr& address, int& error) override;
  ListeningHandle listen(int descriptor) override;
  std::size_t pipe_room() override { return 64 * 1024; }
  ssize_t fill_pipe(Socket& from, std::size_t most) override;
  ssize_t empty_pipe(Socket& to, std::size_t most) override;
  ssize_t read_pipe(char* to, std::size_t room) override;

  int bind(Place place);  // a descriptor for listen()
  SocketHandle adopt(End& end);
  bool full() const { return open >= most; }
  std::size_t open = 0;
  std::size_t most = SIZE_MAX;  // descriptors

 private:
  Net& net_;
  SimLoop& loop_;
  const Host host_;
  std::vector<std::pair<Place, std::shared_ptr<Listening>>> bound_;
  std::string pipe_;
};

struct SimMachine {
  SimMachine(Net& net, Host host) : sim_loop(net.world), sim_sockets(net, sim_loop, host) {}
  SimLoop sim_loop;
  SimSockets sim_sockets;
};

class SimPlatform final : private SimMachine, public Platform {
 public:
  SimPlatform(Net& net, Host host)
      : SimMachine(net, host), Platform(sim_loop, sim_sockets, net.world.random().next()) {}
  SimLoop& virtual_loop() { return sim_loop; }
  SimSockets& net_sockets() { return sim_sockets; }
};

}  // namespace outrider::sim
