// Looks at what the process may run out of – memory, descriptors, time – and has the workers refuse
// work in time, so that the process lives. On the control thread. Invariant: what is refused is
// said (503 `overload`, a metric, one line of log a step), and taken back by itself.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "config/model.h"
#include "discovery/event_loop.h"
#include "discovery/metrics.h"
#include "discovery/overload.h"

namespace outrider {

class Worker;

// Of the memory of this process, as the OOM killer will see it.
class MemoryGauge {
 public:
  explicit MemoryGauge(const config::Overload& settings);
  std::uint64_t ceiling() const { return ceiling_; }  // 0: there is none
  std::uint64_t used() const;
  // What the ceiling is a share of, or that it was written.
  const std::string& about() const { return about_; }

 private:
  std::string kernel_file_;  // where the cgroup says what the kernel holds for it; empty: not asked
  bool v2_ = false;
  std::uint64_t ceiling_ = 0;
  std::string about_;
};

class OverloadWatch {
 public:
  using EachWorker = std::function<void(std::function<void(Worker&)>)>;

  OverloadWatch(EventLoop& loop, const config::Overload& settings, EachWorker each_worker);
  void start();
  void stop() { timer_.stop(); }
  void render(MetricText& text) const;

 private:
  void look();
  void look_at_memory();
  void look_at_descriptors();
  void look_at_loops();

  EventLoop& loop_;
  const config::Overload settings_;
  const EachWorker each_worker_;
  const MemoryGauge memory_;
  std::string words_;  // of a refusal for memory
  double memory_share_ = 0;
  Shed shed_ = Shed::kNothing;
  int descriptors_ = 0;  // for clients; 0: not limited
  double descriptors_share_ = 0;
  std::uint64_t seldom_ms_ = 0;
  Timer timer_;
};

}  // namespace outrider
