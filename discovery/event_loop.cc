#include "discovery/event_loop.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "config/error.h"

namespace outrider {

void Timer::start(Millis delay) {
  // The loop's clock counts whole milliseconds, so it may be almost one behind.
  const auto ms = static_cast<std::uint64_t>(delay.count() <= 0 ? 0 : delay.count() + 1);
  const bool was_armed = armed();
  deadline_ = loop_.tick_at(loop_.now_ms() + ms + EventLoop::kTickMs - 1);
  if (was_armed && slot_tick_ <= deadline_) return;  // the slot comes up first and moves it on
  unlink();
  loop_.arm(*this);
}

EventLoop::EventLoop() {
  OUTRIDER_ASSERT(uv_loop_init(&loop_) == 0);
  loop_.data = this;
  uv_timer_init(&loop_, &tick_);
  uv_prepare_init(&loop_, &prepare_);
  uv_check_init(&loop_, &check_);
  uv_idle_init(&loop_, &idle_);
  uv_async_init(&loop_, &async_, [](uv_async_t* handle) {
    static_cast<EventLoop*>(handle->loop->data)->run_posts();
  });
  uv_prepare_start(&prepare_, [](uv_prepare_t* handle) {
    auto* self = static_cast<EventLoop*>(handle->loop->data);
    self->end_turn();
    self->note_turn();
    self->now_ns_ = 0;
    if (self->wait_ != nullptr && self->wait_(self->wait_owner_))
      uv_idle_start(&self->idle_, [](uv_idle_t*) {});
    else
      uv_idle_stop(&self->idle_);
  });
  uv_check_start(&check_, [](uv_check_t* handle) {
    auto* self = static_cast<EventLoop*>(handle->loop->data);
    self->waited_until_ms_ = uv_now(&self->loop_);
    self->end_turn();
  });
  uv_unref(reinterpret_cast<uv_handle_t*>(&prepare_));
  uv_unref(reinterpret_cast<uv_handle_t*>(&check_));
  began_ms_ = uv_now(&loop_);
  wheel_tick_ = tick_now();
}

EventLoop::~EventLoop() {
  run_posts();
  end_turn();
  for (auto* handle :
       {reinterpret_cast<uv_handle_t*>(&tick_), reinterpret_cast<uv_handle_t*>(&prepare_),
        reinterpret_cast<uv_handle_t*>(&check_), reinterpret_cast<uv_handle_t*>(&idle_),
        reinterpret_cast<uv_handle_t*>(&async_)})
    uv_close(handle, nullptr);
  turn_end_ = nullptr;
  uv_run(&loop_, UV_RUN_DEFAULT);
  end_turn();
  OUTRIDER_ASSERT(uv_loop_close(&loop_) == 0);
}

// Before the next wait. What the last one brought is timed by libuv's clock, which it reads after a
// wait and before timers, and which costs nothing; timers, who come after that, by a finer one.
void EventLoop::note_turn() {
  std::uint64_t took = 0;
  if (waited_until_ms_ != 0)
    took = (uv_now(&loop_) - std::exchange(waited_until_ms_, 0)) * 1'000'000;
  if (timers_began_ns_ != 0) took += uv_hrtime() - std::exchange(timers_began_ns_, 0);
  longest_turn_ns = std::max(longest_turn_ns, took);
}

void EventLoop::run() { uv_run(&loop_, UV_RUN_DEFAULT); }
void EventLoop::stop() { uv_stop(&loop_); }

void EventLoop::settle() {
  uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
  uv_timer_stop(&tick_);
  end_turn();
  uv_run(&loop_, UV_RUN_DEFAULT);
  end_turn();
  uv_ref(reinterpret_cast<uv_handle_t*>(&async_));
}

void EventLoop::post(std::function<void()> function) {
  {
    const std::lock_guard lock(posts_mutex_);
    posts_.push_back(std::move(function));
  }
  uv_async_send(&async_);
}

void EventLoop::run_posts() {
  std::vector<std::function<void()>> ready;
  {
    const std::lock_guard lock(posts_mutex_);
    ready.swap(posts_);
  }
  for (auto& function : ready) function();
}

void EventLoop::end_turn() {
  do {
    while (turn_end_ != nullptr && turn_end_(turn_end_owner_)) {}
    // Destructors may defer more, and may want a flush. Two arrays take turns, so that a turn
    // allocates none; a peak's is not kept.
    std::vector<Deferred> gone = std::move(spare_deferred_);
    gone.swap(deferred_);
    for (const Deferred& it : gone) it.destroy(it.object);
    gone.clear();
    if (gone.capacity() <= kKeptDeferred) spare_deferred_ = std::move(gone);
  } while (!deferred_.empty());
}

void EventLoop::arm(Timer& timer) {
  if (armed_for_ == 0)
    wheel_tick_ = std::max(wheel_tick_, tick_now());  // an empty wheel's hand may be far behind
  // A slot is visited at its own tick; what is due further round stays and is looked at each time.
  timer.slot_tick_ = timer.deadline_ <= wheel_tick_ ? wheel_tick_ + 1 : timer.deadline_;
  const std::size_t slot = timer.slot_tick_ % kSlots;
  if (timer.slot_tick_ - wheel_tick_ > kSlots) {
    // First time its slot comes up.
    timer.slot_tick_ = wheel_tick_ + 1 + (slot + kSlots - (wheel_tick_ + 1) % kSlots) % kSlots;
  }
  timer.insert_before(slots_[slot]);
  occupied_[slot / 64] |= std::uint64_t{1} << (slot % 64);
  if (armed_for_ == 0 || timer.slot_tick_ < armed_for_) schedule();
}

void EventLoop::schedule() {
  // The next occupied slot after the wheel's hand; a slot that timers have left stays marked until
  // it is looked at.
  for (std::size_t ahead = 1; ahead <= kSlots;) {
    const std::size_t slot = (wheel_tick_ + ahead) % kSlots;
    const std::uint64_t word = occupied_[slot / 64] >> (slot % 64);
    if (word == 0) {
      ahead += 64 - slot % 64;
      continue;
    }
    if ((word & 1) == 0) {
      ahead += static_cast<std::size_t>(std::countr_zero(word));
      continue;
    }
    if (!slots_[slot].linked()) {
      occupied_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
      continue;
    }
    armed_for_ = wheel_tick_ + ahead;
    const std::uint64_t due_ms = began_ms_ + (armed_for_ - 1) * kTickMs;
    const std::uint64_t now = uv_now(&loop_);
    uv_timer_start(
        &tick_, [](uv_timer_t* handle) { static_cast<EventLoop*>(handle->loop->data)->fire_due(); },
        due_ms > now ? due_ms - now : 0, 0);
    return;
  }
  armed_for_ = 0;
  uv_timer_stop(&tick_);
}

void EventLoop::fire_due() {
  if (timers_began_ns_ == 0) timers_began_ns_ = uv_hrtime();
  armed_for_ = 0;
  const std::uint64_t now = tick_now();
  // After a pause longer than one round every slot is due once.
  const std::uint64_t from = now - wheel_tick_ > kSlots ? now - kSlots + 1 : wheel_tick_ + 1;
  ListNode due;
  for (std::uint64_t tick = from; tick <= now; ++tick) {
    const std::size_t slot = tick % kSlots;
    if ((occupied_[slot / 64] >> (slot % 64) & 1) == 0) continue;
    occupied_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    while (slots_[slot].linked()) {
      ListNode* node = slots_[slot].next;
      node->unlink();
      node->insert_before(due);
    }
  }
  wheel_tick_ = now;
  while (due.linked()) {
    auto& timer = static_cast<Timer&>(*due.next);
    timer.unlink();
    if (timer.deadline_ > now) {
      arm(timer);
      continue;
    }
    timer.deadline_ = 0;
    timer.fire_(timer.owner_);
  }
  if (armed_for_ == 0) schedule();
}

}  // namespace outrider
