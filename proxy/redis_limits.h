// One worker's connection to the Redis that counts a shared limit: a question is one run of a small
// script, atomic there, with the clock of the server; all questions go over one connection, one
// behind the other. Invariant: nobody waits longer than the store's timeout, and while the store
// is away nobody waits at all: one answer that is late ends the connection, and until a new one
// has answered ask() refuses. The store is asked for what it is (a new connection, a PING) whether
// or not there are questions, so that its loss and return are known.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "discovery/service.h"
#include "filters/limit_store.h"
#include "proxy/connection.h"
#include "proxy/redis_reply.h"

namespace outrider {

class RedisLimits final : public LimitStore, public Connection::Events {
 public:
  RedisLimits(Flusher& flusher, std::shared_ptr<SharedStore> store);
  ~RedisLimits();

  void start();  // connects; on the loop's thread, as all of this
  void close();  // when nobody asks any more
  bool ask(LimitQuestion& question) override;
  void forget(LimitQuestion& question) override;
  const SharedStore& store() const { return *store_; }

 private:
  enum class State : std::uint8_t { kClosed, kAway, kConnecting, kGreeting, kUp };
  enum class Command : std::uint8_t { kGreet, kLoad, kPing, kAsk };
  // What was sent and is not answered yet.
  struct Sent {
    Command command = Command::kPing;
    LimitQuestion* question = nullptr;  // null: forgotten
    std::uint64_t due_ms = 0;
  };

  void on_connected(int status) override;
  void on_bytes(std::string_view bytes) override;
  void on_eof() override { lose("it closed the connection"); }
  void on_broken() override { lose("the connection broke"); }
  void before_flush() override {}
  void on_flushed() override {}
  void on_closed() override {}

  void connect();
  void on_timer();
  void send(Command command, std::initializer_list<std::string_view> words,
            LimitQuestion* question = nullptr);
  void take(const RedisReply& reply);
  void answer(const Sent& sent, const RedisReply& reply);
  void come_up();
  void lose(std::string_view why);
  void drop_wire();
  Sent& sent(std::uint64_t ticket) { return sent_[ticket % sent_.size()]; }
  Sent pop() { return sent(first_++); }
  std::size_t waiting() const { return static_cast<std::size_t>(next_ - first_); }

  Flusher& flusher_;
  const std::shared_ptr<SharedStore> store_;
  const SocketAddress address_;
  Timer timer_;  // what it ends depends on the state
  std::unique_ptr<Connection> wire_;
  std::string rest_;    // of a reply that is not whole yet
  std::string script_;  // what the server calls it
  std::array<Sent, limits::kStoreQueue> sent_;
  std::uint64_t first_ = 0, next_ = 0;  // tickets: of the oldest in sent_, and of the next
  State state_ = State::kClosed;
};

}  // namespace outrider
