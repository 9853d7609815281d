// One socket's bytes in both directions, with back-pressure. Reads land in the worker's shared
// buffer; writes gather in `out` and leave once a turn, or with wake_soon() a few turns later; what
// the kernel does not take stays there until it does. Everything that can go wrong with a socket
// arrives as on_broken(), never inside a call made on it.
#pragma once

#include <memory>
#include <utility>

#include "discovery/event_loop.h"
#include "proxy/codec.h"
#include "proxy/sockets.h"

namespace outrider {

// What connections of one worker share.
class Flusher {
 public:
  Flusher(EventLoop& event_loop, Sockets& the_sockets) : loop(event_loop), sockets(the_sockets) {
    loop.on_turn_end([](void* self) { return static_cast<Flusher*>(self)->flush(); }, this);
    loop.on_wait([](void* self) { return static_cast<Flusher*>(self)->wear_patience(); }, this);
  }
  ~Flusher() {
    loop.on_turn_end(nullptr, nullptr);
    loop.on_wait(nullptr, nullptr);
  }
  EventLoop& loop;
  Sockets& sockets;
  Slabs slabs;
  ListNode dirty;    // of Hook<Connection>
  ListNode patient;  // likewise, for a few turns yet
  // Called once at the end of every turn that flushed something or set `after_due`.
  void (*after)(void*) = nullptr;
  void* after_owner = nullptr;
  bool after_due = false;
  std::unique_ptr<char[]> read_buffer = std::make_unique_for_overwrite<char[]>(limits::kReadBuffer);

 private:
  bool flush();
  bool wear_patience();  // whether there was any
};

class Connection final : public Wire {
 public:
  class Events {
   public:
    virtual void on_connected(int status) = 0;  // after connect(); 0 or a negative error number
    virtual void on_bytes(std::string_view bytes) = 0;
    virtual void on_eof() = 0;
    virtual void on_broken() = 0;  // reset, or a write failed; close() is called next by the owner
    virtual void before_flush() = 0;
    virtual void on_flushed() = 0;
    virtual void on_closed() = 0;  // after close(): the last event; the owner may go

   protected:
    ~Events() = default;
  };

  Connection(Flusher& flusher, Events& events);
  ~Connection();

  void accept(SocketHandle socket);
  // The outcome comes as on_connected(), later; an error number here when not even that could be
  // begun.
  int connect(const sockaddr* address);
  void start_reading();
  bool peer_address(sockaddr_storage& address) const { return socket_->peer_address(address); }
  std::size_t unacknowledged() const { return socket_->unacknowledged(); }
  bool peer_is_gone() const { return socket_->peer_is_gone(); }  // while nothing is read
  // What one codec lets pass and the other takes raw goes on within the kernel, unseen, until
  // unlink().
  static void link(Connection& a, Codec& a_codec, Connection& b, Codec& b_codec);
  void unlink();

  void wake() override {
    if (std::exchange(patience_, 0) != 0) dirty_.unlink();
    if (!dirty_.linked()) dirty_.insert_before(flusher_.dirty);
  }
  void wake_soon() override {
    if (dirty_.linked()) return;
    patience_ = kPatience;
    dirty_.insert_before(flusher_.patient);
  }
  void write_through(std::string_view bytes) override;
  void hold_reading(bool held) override;
  void shutdown() override;
  void close(Close how) override;
  std::uint64_t now_ms() const override { return flusher_.loop.now_ms(); }

  void abort() { finish_close(); }  // now, with what is queued lost
  bool closing() const { return state_ != State::kOpen; }
  EventLoop& loop() { return flusher_.loop; }

 private:
  friend class Flusher;
  static constexpr std::uint8_t kPatience = 3;
  enum class State : std::uint8_t { kOpen, kFlushing, kLingering, kClosed };

  void on_ready(std::uint8_t what);
  void watch();  // tells the loop what is waited for
  void read();
  bool take_in(ssize_t size);  // false: no further read now
  std::size_t passable() const;
  bool pass(std::size_t most);
  bool reads() const { return reading_ && !held_; }
  ssize_t write(const iovec* vectors, int count);
  bool write_some();  // false: broken
  void write_failed();
  void flush();
  void fail();
  void finish_close();
  void close_socket();
  void linger();
  void on_close_timer();

  Flusher& flusher_;
  Events& events_;
  SocketHandle socket_;          // null before connect() or accept(), and when closed
  Connection* other_ = nullptr;  // see link(); knows this one too
  Codec* codec_ = nullptr;       // ours, while linked
  Hook<Connection> dirty_{*this};
  struct Closing;  // the timer and bounds of the time between close() and the end
  std::unique_ptr<Closing> closing_;
  std::uint32_t read_size_;  // grows while what was read went through, see take_in()
  State state_ = State::kOpen;
  bool connecting_ = false;
  bool linger_ = false;
  bool reading_ = false;  // wanted; while `held_` only until bytes come
  bool held_ = false;
  std::uint8_t patience_ = 0;    // waits of the loop that may pass before it is written
  bool blocked_ = false;         // the kernel's buffer is full
  bool wants_writable_ = false;  // watched for that until all has left
  bool broken_ = false;
  bool error_taken_ = false;   // by a write or a splice: what looks like an end is none
  bool write_broken_ = false;  // what is still to be read ends it
  bool shutdown_wanted_ = false;
  bool shutdown_done_ = false;
};

}  // namespace outrider
