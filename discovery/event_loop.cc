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
  deadline_ = EventLoop::tick_at(loop_.now_ms() + ms + EventLoop::kTickMs - 1);
  if (was_armed && slot_tick_ <= deadline_) return;  // the slot comes up first and moves it on
  unlink();
  loop_.arm(*this);
}

EventLoop::~EventLoop() { OUTRIDER_ASSERT(deferred_.empty()); }

void EventLoop::post(std::function<void()> function) {
  {
    const std::lock_guard lock(posts_mutex_);
    posts_.push_back(std::move(function));
  }
  notify();
}

void EventLoop::run_posts() {
  std::vector<std::function<void()>> ready;
  {
    const std::lock_guard lock(posts_mutex_);
    ready.swap(posts_);
  }
  for (auto& function : ready) function();
}

bool EventLoop::before_wait() {
  end_turn();
  now_ms_ = 0;
  now_ns_ = 0;
  return wait_ != nullptr && wait_(wait_owner_);
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
    set_alarm((armed_for_ - 1) * kTickMs);
    return;
  }
  armed_for_ = 0;
  clear_alarm();
}

void EventLoop::fire_due() {
  armed_for_ = 0;
  now_ms_ = 0;  // what came before in this turn may have taken its time
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
