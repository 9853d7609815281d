// Parts of what is decided per request: header and route look-ups, the arena, the access log's
// line.
#include <benchmark/benchmark.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "discovery/hash.h"
#include "filters/access_log.h"
#include "filters/route_table.h"
#include "filters/token_buckets.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind limit_filter();

namespace {

// ---- headers

void header_name_to_id(benchmark::State& state, std::string_view name) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(name);
    benchmark::DoNotOptimize(header_id(name));
  }
}
BENCHMARK_CAPTURE(header_name_to_id, known, "Content-Type");
BENCHMARK_CAPTURE(header_name_to_id, known_long, "Access-Control-Request-Method");
BENCHMARK_CAPTURE(header_name_to_id, unknown, "X-Shop-Tenant");

// Among as many others as the argument says; it stands last.
void header_by_id(benchmark::State& state) {
  BlockPool blocks;
  Arena arena(blocks);
  Headers headers(arena);
  for (std::int64_t i = 1; i < state.range(0); ++i) headers.add(HeaderId::kCookie, "a=b");
  headers.add(HeaderId::kContentType, "text/plain");
  for (auto _ : state) benchmark::DoNotOptimize(headers.get(HeaderId::kContentType));
}
BENCHMARK(header_by_id)->Arg(4)->Arg(16)->Arg(64);

// ---- limits

// Of as many keys as the argument says, in turn.
void bucket_take(benchmark::State& state) {
  static TokenBuckets buckets({1'000, 1'000'000'000});
  const auto keys = static_cast<std::uint64_t>(state.range(0));
  std::uint64_t number = static_cast<std::uint64_t>(state.thread_index()) << 32, now = 1'000'000;
  for (auto _ : state) benchmark::DoNotOptimize(buckets.take(mix64(number++ % keys), now += 1'000));
}
BENCHMARK(bucket_take)->Arg(1)->Arg(1'000)->Arg(100'000);
BENCHMARK(bucket_take)->Arg(1)->Arg(1'000)->Threads(2)->UseRealTime();

// `limit: 50/s per client.ip` on a request and on its answer.
void limit_per_client(benchmark::State& state) {
  test::World world;
  world.say("limit: 1000000/s per client.ip");
  const auto filter = limit_filter().make(world.context());
  BlockPool blocks;
  std::uint64_t now = 1'000'000;
  for (auto _ : state) {
    Exchange x(blocks, world.client);
    x.client_ip_text = "192.0.2.1";
    world.control.now = now += 1'000;
    benchmark::DoNotOptimize(filter->on_request(x, world.control));
    benchmark::DoNotOptimize(filter->on_response(x, world.control));
    filter->on_done(x);
  }
}
BENCHMARK(limit_per_client);

// ---- routes

// A table of prefixes `/r0000000/**`, built once for each size.
struct Routes {
  explicit Routes(std::int64_t count) : world() {
    world.model.listeners.push_back(world.listener);
    for (std::int64_t i = 0; i < count; ++i) {
      config::Route route = world.route;
      route.name = "r" + std::to_string(i);
      route.listeners = {world.listener.name};
      route.matches.assign(1, test::match_of(path(i) + "/**"));
      world.model.routes.push_back(std::move(route));
    }
    table = std::make_unique<RouteTable>(world.model, world.model.listeners[0]);
  }
  static std::string path(std::int64_t number) {
    std::string digits = std::to_string(number);
    return "/r" + std::string(7 - digits.size(), '0') + digits;
  }
  static Routes& of(std::int64_t count) {
    static std::map<std::int64_t, std::unique_ptr<Routes>> all;
    std::unique_ptr<Routes>& routes = all[count];
    if (routes == nullptr) routes = std::make_unique<Routes>(count);
    return *routes;
  }
  test::World world;
  std::unique_ptr<RouteTable> table;
};

void route_found(benchmark::State& state) {
  Routes& routes = Routes::of(state.range(0));
  Exchange& x = routes.world.exchange(Routes::path(state.range(0) / 2) + "/item/7");
  RouteHit hit;
  bool found = false;
  for (auto _ : state) benchmark::DoNotOptimize(found = routes.table->find(x, hit));
  if (!found || hit.route != state.range(0) / 2) state.SkipWithError("the wrong route");
}
BENCHMARK(route_found)->Arg(1)->Arg(1'000)->Arg(100'000);

void route_not_found(benchmark::State& state) {
  Routes& routes = Routes::of(state.range(0));
  Exchange& x = routes.world.exchange("/elsewhere/item/7");
  RouteHit hit;
  bool found = false;
  for (auto _ : state) benchmark::DoNotOptimize(found = routes.table->find(x, hit));
  if (found) state.SkipWithError("a route was found");
}
BENCHMARK(route_not_found)->Arg(1)->Arg(1'000)->Arg(100'000);

// ---- the arena

// Thirty strings, as a head has, and everything given back.
void arena_of_a_head(benchmark::State& state) {
  BlockPool blocks;
  const std::string text(24, 'x');
  for (auto _ : state) {
    Arena arena(blocks);
    for (int i = 0; i < 30; ++i) benchmark::DoNotOptimize(arena.copy(text));
  }
}
BENCHMARK(arena_of_a_head);

// ---- the access log

void access_log_line(benchmark::State& state, config::Telemetry::Log form) {
  config::Telemetry telemetry;
  telemetry.access_log = form;
  LogWriter writer;
  std::string error;
  AccessLog log(telemetry, writer, writer.file("/dev/null", error));
  test::World world;
  Exchange& x = world.exchange("/cart/7?q=1");
  world.header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101");
  world.header("referer", "https://shop.example/catalogue/shoes?page=1");
  x.status = 200;
  x.attempts = 1;
  x.bytes_out = 100;
  x.started_ns = 1'000'000;
  x.ended_ns = 1'350'000;
  x.started_wall_ms = 1'700'000'000'123;
  x.request_id = "0b6a1e52-7a4e-4a57-9f0a-3f0f4a1d2c3b";
  int lines = 0;
  for (auto _ : state) {
    log.write(x);
    if (++lines % 16 == 0) log.hand_over();  // as a turn of the loop does
  }
}
BENCHMARK_CAPTURE(access_log_line, json, config::Telemetry::Log::kJson);
BENCHMARK_CAPTURE(access_log_line, text, config::Telemetry::Log::kText);

}  // namespace
}  // namespace outrider
