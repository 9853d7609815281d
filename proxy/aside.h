// One thread of the process for what would hold a loop up (filters/filter.h, Errand). Invariant: at
// most limits::kErrands wait, and at most one core is spent on them, whatever clients send. Errands
// are done in order, so what a first one has found out the next one may know.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "filters/filter.h"

namespace outrider {

class Aside {
 public:
  Aside() = default;
  ~Aside();  // finishes the one that runs, drops the others
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  // From any thread. `done` is called on the thread of this, after the errand. One that its owner
  // has let go of before its turn is not run. False: too many wait.
  bool run(const std::shared_ptr<Errand>& errand, std::function<void()> done);

 private:
  struct Waiting {
    std::weak_ptr<Errand> errand;
    std::function<void()> done;
  };
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;
  bool stopping_ = false;
  std::thread thread_;  // from the first errand on
};

}  // namespace outrider
