// See aside.h.
#include "proxy/aside.h"

#include <utility>

#include "config/limits.h"

namespace outrider {

Aside::~Aside() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    waiting_.clear();
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool Aside::run(const std::shared_ptr<Errand>& errand, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= limits::kErrands) return false;
    waiting_.push_back({errand, std::move(done)});
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  }
  changed_.notify_one();
  return true;
}

void Aside::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    const Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    if (const std::shared_ptr<Errand> errand = next.errand.lock()) {
      errand->run();
      next.done();
    }
    lock.lock();
  }
}

}  // namespace outrider
