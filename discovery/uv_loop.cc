#include "discovery/uv_loop.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "config/error.h"

namespace outrider {

UvLoop::UvLoop() {
  OUTRIDER_ASSERT(uv_loop_init(&loop_) == 0);
  loop_.data = this;
  uv_timer_init(&loop_, &alarm_);
  uv_prepare_init(&loop_, &prepare_);
  uv_check_init(&loop_, &check_);
  uv_idle_init(&loop_, &idle_);
  uv_async_init(&loop_, &async_,
                [](uv_async_t* handle) { static_cast<UvLoop*>(handle->loop->data)->run_posts(); });
  uv_prepare_start(&prepare_, [](uv_prepare_t* handle) {
    auto* self = static_cast<UvLoop*>(handle->loop->data);
    const bool only_look = self->before_wait();
    self->note_turn();
    if (only_look)
      uv_idle_start(&self->idle_, [](uv_idle_t*) {});
    else
      uv_idle_stop(&self->idle_);
  });
  uv_check_start(&check_, [](uv_check_t* handle) {
    auto* self = static_cast<UvLoop*>(handle->loop->data);
    self->waited_until_ms_ = uv_now(&self->loop_);
    self->end_turn();
  });
  uv_unref(reinterpret_cast<uv_handle_t*>(&prepare_));
  uv_unref(reinterpret_cast<uv_handle_t*>(&check_));
}

UvLoop::~UvLoop() {
  run_posts();
  end_turn();
  for (auto* handle :
       {reinterpret_cast<uv_handle_t*>(&alarm_), reinterpret_cast<uv_handle_t*>(&prepare_),
        reinterpret_cast<uv_handle_t*>(&check_), reinterpret_cast<uv_handle_t*>(&idle_),
        reinterpret_cast<uv_handle_t*>(&async_)})
    uv_close(handle, nullptr);
  on_turn_end(nullptr, nullptr);
  uv_run(&loop_, UV_RUN_DEFAULT);
  end_turn();
  OUTRIDER_ASSERT(uv_loop_close(&loop_) == 0);
}

// Before the next wait. What the last one brought is timed by libuv's clock, which it reads after a
// wait and before timers, and which costs nothing; timers, who come after that, by a finer one.
void UvLoop::note_turn() {
  std::uint64_t took = 0;
  if (waited_until_ms_ != 0)
    took = (uv_now(&loop_) - std::exchange(waited_until_ms_, 0)) * 1'000'000;
  if (timers_began_ns_ != 0) took += uv_hrtime() - std::exchange(timers_began_ns_, 0);
  longest_turn_ns = std::max(longest_turn_ns, took);
}

void UvLoop::run() { uv_run(&loop_, UV_RUN_DEFAULT); }
void UvLoop::stop() { uv_stop(&loop_); }

void UvLoop::settle() {
  uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
  uv_timer_stop(&alarm_);
  end_turn();
  uv_run(&loop_, UV_RUN_DEFAULT);
  end_turn();
  uv_ref(reinterpret_cast<uv_handle_t*>(&async_));
}

std::int64_t UvLoop::wall_ms() const {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

void UvLoop::set_alarm(std::uint64_t due_ms) {
  const std::uint64_t now = uv_now(&loop_);
  uv_timer_start(
      &alarm_,
      [](uv_timer_t* handle) {
        auto* self = static_cast<UvLoop*>(handle->loop->data);
        if (self->timers_began_ns_ == 0) self->timers_began_ns_ = uv_hrtime();
        self->fire_due();
      },
      due_ms > now ? due_ms - now : 0, 0);
}

}  // namespace outrider
