// One thread's loop: libuv's, a timer wheel, posts from other threads, and destruction put off to
// the end of the turn. A turn is: timers, reads, then everything that wants to be flushed, then
// what was deferred. Nothing here is shared but post().
#pragma once

#include <uv.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "config/limits.h"

namespace outrider {

class EventLoop;

// A doubly linked ring; a node unlinks itself when destroyed.
struct ListNode {
  ListNode* prev = this;
  ListNode* next = this;
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { unlink(); }
  bool linked() const { return next != this; }
  void unlink() {
    prev->next = next;
    next->prev = prev;
    prev = next = this;
  }
  void insert_before(ListNode& other) {
    prev = other.prev;
    next = &other;
    prev->next = this;
    other.prev = this;
  }
};

// A place in a ring for something that is in several, or that is a ListNode for another.
template <class Owner>
struct Hook : ListNode {
  explicit Hook(Owner& it) : owner(it) {}
  Owner& owner;
};

// A member of what it wakes, so it cannot outlive it. Fires once, never early, up to one tick late.
// Starting an armed timer moves it; moving it later costs a store (the wheel looks at the deadline
// again when the old slot comes up).
class Timer : private ListNode {
 public:
  using Fire = void (*)(void* owner);
  Timer(EventLoop& loop, Fire fire, void* owner) : loop_(loop), fire_(fire), owner_(owner) {}
  ~Timer() = default;
  void start(Millis delay);
  void stop() {
    deadline_ = 0;
    unlink();
  }
  bool armed() const { return deadline_ != 0; }

 private:
  friend class EventLoop;
  EventLoop& loop_;
  Fire fire_;
  void* owner_;
  std::uint64_t deadline_ = 0;   // in ticks since the loop began; 0: not armed
  std::uint64_t slot_tick_ = 0;  // the tick whose slot holds it, <= deadline_
};

// Turns `void Owner::method()` into a Timer::Fire.
template <auto Method, class Owner>
void call_member(void* owner) {
  (static_cast<Owner*>(owner)->*Method)();
}

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  uv_loop_t* uv() { return &loop_; }
  void run();     // until stop()
  void stop();    // from the loop's own thread
  void settle();  // runs until every handle that others opened is closed; for shutting down

  std::uint64_t now_ms() const { return uv_now(&loop_); }
  // Monotonic, read once a turn.
  std::uint64_t now_ns() {
    if (now_ns_ == 0) now_ns_ = uv_hrtime();
    return now_ns_;
  }

  // From any thread; runs on the loop in order.
  void post(std::function<void()> function);

  // Destroys at the end of the turn: for what might still be on the call stack.
  template <class T>
  void defer(std::unique_ptr<T> gone) {
    defer(gone.release(), [](void* it) { delete static_cast<T*>(it); });
  }
  void defer(void* object, void (*destroy)(void*)) { deferred_.push_back({object, destroy}); }

  // Called after reads and after timers of every turn, until it returns false (nothing more to
  // flush).
  void on_turn_end(bool (*function)(void*), void* owner) {
    turn_end_ = function;
    turn_end_owner_ = owner;
  }
  // Called before every wait; true: something is to be done soon, so only look for events.
  void on_wait(bool (*function)(void*), void* owner) {
    wait_ = function;
    wait_owner_ = owner;
  }
  // Flushes and destroys what this turn has gathered so far; the loop does it by itself.
  void end_turn();
  std::uint64_t longest_turn_ns = 0;  // without waiting

 private:
  friend class Timer;
  static constexpr std::uint64_t kTickMs = 8;
  static constexpr std::size_t kSlots = 512;
  static constexpr std::size_t kKeptDeferred = 1024;
  struct Deferred {
    void* object;
    void (*destroy)(void*);
  };

  void arm(Timer& timer);
  void fire_due();
  void schedule();
  void note_turn();
  void run_posts();
  std::uint64_t tick_now() const { return tick_at(uv_now(&loop_)); }
  std::uint64_t tick_at(std::uint64_t ms) const { return (ms - began_ms_) / kTickMs + 1; }

  uv_loop_t loop_;
  uv_timer_t tick_;
  uv_prepare_t prepare_;
  uv_check_t check_;
  uv_idle_t idle_;  // while active, a wait returns at once
  uv_async_t async_;
  std::array<ListNode, kSlots> slots_;
  std::array<std::uint64_t, kSlots / 64> occupied_{};
  std::uint64_t began_ms_ = 0;
  std::uint64_t wheel_tick_ = 0;  // slots up to this tick have been fired
  std::uint64_t armed_for_ = 0;   // tick the libuv timer waits for; 0: not running
  std::uint64_t now_ns_ = 0;
  std::uint64_t timers_began_ns_ = 0;
  std::uint64_t waited_until_ms_ = 0;
  bool (*turn_end_)(void*) = nullptr;
  void* turn_end_owner_ = nullptr;
  bool (*wait_)(void*) = nullptr;
  void* wait_owner_ = nullptr;
  std::vector<Deferred> deferred_, spare_deferred_;
  std::mutex posts_mutex_;
  std::vector<std::function<void()>> posts_;
};

// Owns a libuv handle, which may only be freed in its close callback: so that is what the deleter
// does.
template <class H>
struct CloseHandle {
  void operator()(H* handle) const noexcept {
    auto* base = reinterpret_cast<uv_handle_t*>(handle);
    base->data = nullptr;  // a callback already queued finds no owner
    uv_close(base, [](uv_handle_t* closed) { delete reinterpret_cast<H*>(closed); });
  }
};
template <class H>
using Handle = std::unique_ptr<H, CloseHandle<H>>;

}  // namespace outrider
