// One socket's bytes in both directions, with back-pressure. Reads land in the worker's shared
// buffer; writes gather in `out` and leave once a turn. Everything that can go wrong with a socket
// arrives as on_broken(), never inside a call made on it.
#pragma once

#include <uv.h>

#include <memory>

#include "discovery/event_loop.h"
#include "proxy/codec.h"

namespace outrider {

// What connections of one worker share.
class Flusher {
 public:
  explicit Flusher(EventLoop& event_loop) : loop(event_loop), slabs(limits::kSlabBytes) {
    loop.on_turn_end([](void* self) { return static_cast<Flusher*>(self)->flush(); }, this);
  }
  ~Flusher() { loop.on_turn_end(nullptr, nullptr); }
  EventLoop& loop;
  BlockPool slabs;
  ListNode dirty;  // of Hook<Connection>
  // Called once at the end of every turn that flushed something or set `after_due`.
  void (*after)(void*) = nullptr;
  void* after_owner = nullptr;
  bool after_due = false;
  std::unique_ptr<char[]> read_buffer = std::make_unique_for_overwrite<char[]>(limits::kReadBuffer);

 private:
  bool flush();
};

class Connection final : public Wire {
 public:
  class Events {
   public:
    virtual void on_connected(int status) = 0;  // after connect(); 0 or a libuv error
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

  bool accept(int fd, bool unix_socket);  // takes it over
  // The outcome comes as on_connected(), later; an error code here when not even that could be
  // begun.
  int connect(const sockaddr* address);
  void start_reading();
  int fd() const;
  std::size_t unacknowledged() const;  // bytes the kernel has taken and the peer's has not

  bool peer_is_gone() const;  // looked for while nothing is read

  void wake() override {
    if (!dirty_.linked()) dirty_.insert_before(flusher_.dirty);
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
  union Socket;  // the libuv handle; frees itself when closed
  struct Pending;
  enum class State : std::uint8_t { kOpen, kFlushing, kLingering, kClosed };

  static void on_alloc(uv_handle_t* handle, std::size_t hint, uv_buf_t* buffer);
  static void on_read(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer);
  uv_stream_t* stream() const;
  void flush();
  bool write_some();  // false: broken
  void write_failed();
  void queue_rest();
  void fail();
  void finish_close();
  void close_socket();
  void linger();
  void on_close_timer();

  Flusher& flusher_;
  Events& events_;
  Socket* socket_ = nullptr;
  Hook<Connection> dirty_{*this};
  Pending* pending_ = nullptr;
  std::size_t in_flight_ = 0;  // bytes at the front of `out` that a queued write owns
  struct Closing;              // the timer and bounds of the time between close() and the end
  std::unique_ptr<Closing> closing_;
  std::uint32_t read_size_;  // grows while what was read went through, see on_read()
  State state_ = State::kOpen;
  bool linger_ = false;
  bool reading_ = false;
  bool started_ = false;
  bool held_ = false;
  bool broken_ = false;
  bool write_broken_ = false;  // what is still to be read ends it
  bool shutdown_wanted_ = false;
  bool shutdown_done_ = false;
};

}  // namespace outrider
