// One thread's loop: a timer wheel, posts from other threads, and destruction put off to the end of
// the turn. A turn is: timers, reads, then everything that wants to be flushed, then what was
// deferred. Nothing here is shared but post(). What time it is, how long to wait and who wakes whom
// is for what drives it: UvLoop in production, a virtual clock in the simulation.
#pragma once

#include <array>
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
    if (!armed()) return;
    deadline_ = 0;
    unlink();
  }
  bool armed() const { return deadline_ != 0; }

 private:
  friend class EventLoop;
  EventLoop& loop_;
  Fire fire_;
  void* owner_;
  std::uint64_t deadline_ = 0;   // in ticks of the loop's clock; 0: not armed
  std::uint64_t slot_tick_ = 0;  // the tick whose slot holds it, <= deadline_
};

// Turns `void Owner::method()` into a Timer::Fire.
template <auto Method, class Owner>
void call_member(void* owner) {
  (static_cast<Owner*>(owner)->*Method)();
}

class EventLoop {
 public:
  virtual ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  virtual void run() = 0;     // until stop()
  virtual void stop() = 0;    // from the loop's own thread
  virtual void settle() = 0;  // runs until all that others opened is closed; for shutting down

  // Monotonic, both read once a turn.
  std::uint64_t now_ms() const {
    if (now_ms_ == 0) now_ms_ = clock_ms();
    return now_ms_;
  }
  std::uint64_t now_ns() {
    if (now_ns_ == 0) now_ns_ = clock_ns();
    return now_ns_;
  }
  // Since the Unix epoch; may jump.
  virtual std::int64_t wall_ms() const = 0;

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

 protected:
  EventLoop() = default;
  // For what drives it, on the loop's thread.
  void run_posts();    // soon after each notify()
  void fire_due();     // at the alarm's time, or later
  bool before_wait();  // true: not to wait, only to look

 private:
  friend class Timer;
  static constexpr std::uint64_t kTickMs = 8;
  static constexpr std::size_t kSlots = 512;
  static constexpr std::size_t kKeptDeferred = 1024;
  struct Deferred {
    void* object;
    void (*destroy)(void*);
  };

  virtual std::uint64_t clock_ms() const = 0;  // from 1
  virtual std::uint64_t clock_ns() const = 0;
  virtual void notify() = 0;                         // from any thread
  virtual void set_alarm(std::uint64_t due_ms) = 0;  // in place of the one before
  virtual void clear_alarm() = 0;

  void arm(Timer& timer);
  void schedule();
  std::uint64_t tick_now() const { return tick_at(now_ms()); }
  static std::uint64_t tick_at(std::uint64_t ms) { return ms / kTickMs + 1; }

  std::array<ListNode, kSlots> slots_;
  std::array<std::uint64_t, kSlots / 64> occupied_{};
  std::uint64_t wheel_tick_ = 0;      // slots up to this tick have been fired
  std::uint64_t armed_for_ = 0;       // tick that the alarm is set for; 0: none
  mutable std::uint64_t now_ms_ = 0;  // 0: not read in this turn
  std::uint64_t now_ns_ = 0;          // likewise
  bool (*turn_end_)(void*) = nullptr;
  void* turn_end_owner_ = nullptr;
  bool (*wait_)(void*) = nullptr;
  void* wait_owner_ = nullptr;
  std::vector<Deferred> deferred_, spare_deferred_;
  std::mutex posts_mutex_;
  std::vector<std::function<void()>> posts_;
};

}  // namespace outrider
