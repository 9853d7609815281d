// The timer wheel, and the choice of an endpoint.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "discovery/service.h"
#include "discovery/uv_loop.h"

namespace outrider {
namespace {

// Timers of a second to a minute that stand in the wheel, as many as the argument says.
struct Wheel {
  explicit Wheel(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      others.push_back(std::make_unique<Timer>(
          loop, [](void*) {}, nullptr));
      others.back()->start(Millis{1'000 + i * 59'000 / count});
    }
  }
  UvLoop loop;
  std::vector<std::unique_ptr<Timer>> others;
};

void timer_armed_and_stopped(benchmark::State& state) {
  Wheel wheel(state.range(0));
  Timer timer(
      wheel.loop, [](void*) {}, nullptr);
  for (auto _ : state) {
    timer.start(Millis{15'000});
    benchmark::DoNotOptimize(timer.armed());
    timer.stop();
  }
}
BENCHMARK(timer_armed_and_stopped)->Arg(10)->Arg(10'000);

void timer_moved_later(benchmark::State& state) {
  Wheel wheel(state.range(0));
  Timer timer(
      wheel.loop, [](void*) {}, nullptr);
  timer.start(Millis{15'000});
  for (auto _ : state) {
    timer.start(Millis{15'000});
    benchmark::DoNotOptimize(timer.armed());
  }
}
BENCHMARK(timer_moved_later)->Arg(10)->Arg(10'000);

// Among as many endpoints as the argument says, of two weights.
void endpoint_chosen(benchmark::State& state, config::Balance balance) {
  config::Service config;
  config.name = "shop";
  config.balance = balance;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    config::Endpoint endpoint;
    endpoint.address.ip = {10, 0, static_cast<std::uint8_t>(i / 250),
                           static_cast<std::uint8_t>(i % 250 + 1)};
    endpoint.address.port = 80;
    endpoint.weight = i % 2 == 0 ? 1 : 2;
    config.endpoints.push_back(endpoint);
  }
  Service service(config, 1, std::make_shared<ServiceShared>());
  Random random(42);
  for (auto _ : state) benchmark::DoNotOptimize(service.choose(-1, {}, random));
}
BENCHMARK_CAPTURE(endpoint_chosen, least_request, config::Balance::kLeastRequest)
    ->Arg(1)
    ->Arg(10)
    ->Arg(1'000);
BENCHMARK_CAPTURE(endpoint_chosen, round_robin, config::Balance::kRoundRobin)->Arg(10);

}  // namespace
}  // namespace outrider
