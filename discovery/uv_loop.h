// The loop of production: libuv waits, tells the time and wakes. One a thread.
#pragma once

#include <uv.h>

#include <memory>

#include "discovery/event_loop.h"

namespace outrider {

class UvLoop final : public EventLoop {
 public:
  UvLoop();
  ~UvLoop() override;

  uv_loop_t* uv() { return &loop_; }
  void run() override;
  void stop() override;
  void settle() override;
  std::int64_t wall_ms() const override;

 private:
  std::uint64_t clock_ms() const override { return uv_now(&loop_); }
  std::uint64_t clock_ns() const override { return uv_hrtime(); }
  void notify() override { uv_async_send(&async_); }
  void set_alarm(std::uint64_t due_ms) override;
  void clear_alarm() override { uv_timer_stop(&alarm_); }
  void note_turn();

  uv_loop_t loop_;
  uv_timer_t alarm_;
  uv_prepare_t prepare_;
  uv_check_t check_;
  uv_idle_t idle_;  // while active, a wait returns at once
  uv_async_t async_;
  std::uint64_t timers_began_ns_ = 0;
  std::uint64_t waited_until_ms_ = 0;
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
