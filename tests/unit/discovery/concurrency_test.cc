// The adaptive limit against a queueing model: c servers, exponential times, more arrivals than
// they can take, a clock of its own. It has to find the number of servers, keep them busy, and find
// it again when it changes.
#include "discovery/concurrency.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <queue>
#include <vector>

#include "discovery/service.h"

namespace outrider {
namespace {

class Model {
 public:
  Model(unsigned servers, double service_us, std::uint64_t seed)
      : servers(servers), service_us(service_us), random_(seed) {}

  // `load`: arrivals as a share of what all servers can take.
  struct Figures {
    double limit = 0;       // mean over time
    double busy = 0;        // share of the servers
    double latency_us = 0;  // mean
    double refused = 0;     // share of the arrivals
  };
  Figures run(double seconds, double load) {
    const double end = now_us_ + seconds * 1e6;
    const double between = service_us / (servers * load);
    double next = now_us_ + exponential(between);
    Figures figures;
    double done = 0, arrived = 0, refused = 0, last = now_us_;
    const double began = now_us_;
    while (true) {
      const bool departs = !working_.empty() && working_.top().ends < next;
      const double at = departs ? working_.top().ends : next;
      if (at > end) break;
      figures.limit += limit.limit() * (at - last);
      last = now_us_ = at;
      if (departs) {
        const Work work = working_.top();
        working_.pop();
        ++done;
        figures.latency_us += at - work.arrived;
        limit.note(static_cast<std::uint64_t>(at - work.arrived), in_flight(), now_ms());
      } else {
        next = at + exponential(between);
        ++arrived;
        if (in_flight() < limit.limit())
          waiting_.push_back(at);
        else
          ++refused;
      }
      while (!waiting_.empty() && working_.size() < servers) {
        working_.push({at + exponential(service_us), waiting_.front()});
        waiting_.pop_front();
      }
    }
    now_us_ = end;
    figures.limit /= last - began;
    figures.busy = done / (seconds * 1e6 / service_us * servers);
    figures.latency_us /= std::max(done, 1.0);
    figures.refused = refused / std::max(arrived, 1.0);
    return figures;
  }
  unsigned servers;
  double service_us;
  ConcurrencyLimit limit;

 private:
  struct Work {
    double ends, arrived;
    bool operator>(const Work& other) const { return ends > other.ends; }
  };
  double exponential(double mean) {
    return -mean * std::log1p(-static_cast<double>(random_.next() >> 11) * 0x1.0p-53);
  }
  std::size_t in_flight() const { return working_.size() + waiting_.size(); }
  std::uint64_t now_ms() const { return 1'000 + static_cast<std::uint64_t>(now_us_ / 1000); }

  Random random_;
  double now_us_ = 0;
  std::priority_queue<Work, std::vector<Work>, std::greater<>> working_;
  std::deque<double> waiting_;
};

// Within 35 % of the number of servers, and the few more that wait so that none is idle.
void expect_knee(const Model& model, const Model::Figures& figures) {
  EXPECT_GE(figures.limit, model.servers * 0.9) << model.servers;
  EXPECT_LE(figures.limit, model.servers * 1.35 + 5) << model.servers;
  EXPECT_GE(figures.busy, 0.9) << model.servers;
  EXPECT_LE(figures.latency_us, model.service_us * (1.4 + 3.5 / model.servers)) << model.servers;
}

TEST(ConcurrencyLimit, FindsTheKnee) {
  for (const unsigned servers : {8U, 32U, 150U})
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      Model model(servers, 10'000, seed);
      model.run(10, 2);
      expect_knee(model, model.run(20, 2));
    }
}

TEST(ConcurrencyLimit, FollowsTheCapacity) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Model model(32, 10'000, seed);
    model.run(10, 2);
    model.servers = 16;
    model.run(5, 2);
    expect_knee(model, model.run(20, 2));
    model.servers = 64;
    model.run(10, 2);
    expect_knee(model, model.run(20, 2));
  }
}

TEST(ConcurrencyLimit, ASlowerServiceIsNotTakenForABusyOne) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Model model(32, 5'000, seed);
    model.run(10, 2);
    model.service_us = 20'000;
    model.run(20, 2);
    expect_knee(model, model.run(20, 2));
    model.service_us = 5'000;
    model.run(20, 2);
    expect_knee(model, model.run(20, 2));
  }
}

TEST(ConcurrencyLimit, RefusesLittleBelowTheKnee) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Model model(64, 10'000, seed);
    model.run(5, 0.6);
    EXPECT_LE(model.run(40, 0.6).refused, 0.02);
  }
}

TEST(ConcurrencyLimit, StartsFast) {
  Model model(500, 10'000, 1);
  model.run(3, 1.5);
  EXPECT_GE(model.limit.limit(), 400U);
}

TEST(ConcurrencyLimit, StaysWithinItsBounds) {
  ConcurrencyLimit limit;
  std::uint64_t now = 1'000;
  const auto windows = [&](int count, auto latency) {
    for (int i = 0; i < count; ++i, now += 100)
      for (int k = 0; k < 50; ++k) limit.note(latency(i), limit.limit(), now + 99);
  };
  windows(10, [](int) { return 1'000; });
  windows(28, [](int i) { return std::uint64_t{1'000} << (i < 28 ? i : 28); });
  EXPECT_GE(limit.limit(), limits::kConcurrencyLeast);
  windows(3'000, [](int) { return 1; });
  EXPECT_LE(limit.limit(), limits::kConcurrencyMost);
  windows(10, [](int) { return 0; });
}

}  // namespace
}  // namespace outrider
