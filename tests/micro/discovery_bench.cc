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

// Among as many endpoints as the argument says, of two weights, each request with a key of its own.
config::Service endpoints(std::int64_t count, config::Balance balance) {
  config::Service config;
  config.name = "shop";
  config.balance = balance;
  for (std::int64_t i = 0; i < count; ++i) {
    config::Endpoint endpoint;
    endpoint.address.ip = {10, 0, static_cast<std::uint8_t>(i / 250),
                           static_cast<std::uint8_t>(i % 250 + 1)};
    endpoint.address.port = 80;
    endpoint.weight = i % 2 == 0 ? 1 : 2;
    config.endpoints.push_back(endpoint);
  }
  return config;
}

void endpoint_chosen(benchmark::State& state, config::Balance balance) {
  const config::Service config = endpoints(state.range(0), balance);
  Service service(config, 1, std::make_shared<ServiceShared>(config));
  for (const auto& endpoint : service.endpoints()) endpoint->note(5'000'000, false, 1);
  Random random(42);
  Aim aim{.now_ns = 1'000'000'000, .has_key = true};
  for (auto _ : state) {
    aim.key = mix64(++aim.now_ns);
    benchmark::DoNotOptimize(service.choose(-1, aim, random));
  }
}
#define EACH_SIZE ->Arg(3)->Arg(100)->Arg(1'000)
BENCHMARK_CAPTURE(endpoint_chosen, least_request, config::Balance::kLeastRequest) EACH_SIZE;
BENCHMARK_CAPTURE(endpoint_chosen, round_robin, config::Balance::kRoundRobin) EACH_SIZE;
BENCHMARK_CAPTURE(endpoint_chosen, random, config::Balance::kRandom) EACH_SIZE;
BENCHMARK_CAPTURE(endpoint_chosen, peak_ewma, config::Balance::kPeakEwma) EACH_SIZE;
BENCHMARK_CAPTURE(endpoint_chosen, hash, config::Balance::kHash) EACH_SIZE;
BENCHMARK_CAPTURE(endpoint_chosen, maglev, config::Balance::kMaglev) EACH_SIZE;
#undef EACH_SIZE

// An endpoint fails or comes back: what everybody may use is worked out anew.
void endpoint_changed(benchmark::State& state) {
  const config::Service config = endpoints(state.range(0), config::Balance::kHash);
  ServiceShared shared(config);
  for (auto _ : state) {
    EndpointState& first = *shared.endpoints.front();
    first.unhealthy = !first.unhealthy;
    shared.changed();
  }
}
BENCHMARK(endpoint_changed)->Arg(100)->Arg(1'000);

// Other endpoints: the tables of keys are made anew.
void endpoints_replaced(benchmark::State& state, config::Balance balance) {
  const config::Service config = endpoints(state.range(0), balance);
  for (auto _ : state) benchmark::DoNotOptimize(ServiceShared(config).view());
}
BENCHMARK_CAPTURE(endpoints_replaced, hash, config::Balance::kHash)->Arg(100)->Arg(1'000);
BENCHMARK_CAPTURE(endpoints_replaced, maglev, config::Balance::kMaglev)->Arg(100)->Arg(1'000);

}  // namespace
}  // namespace outrider
