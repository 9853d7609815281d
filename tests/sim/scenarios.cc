// What happens to services. Times, places and victims are the seed's choice, so that no two seeds
// are alike.
#include "tests/sim/run.h"

namespace outrider::sim {

namespace {

constexpr Nanos kIll = 3 * kSecond;    // when something begins
constexpr Nanos kWell = 11 * kSecond;  // and ends

struct Plain {
  std::vector<Origin*> origins;
  Proxy* proxy;
  Client* client;
};

// Clients, a proxy, origins.
Plain plain(Run& run, std::size_t origins = 4, const Client::Settings& settings = {}) {
  Plain it;
  it.origins = run.origins(origins);
  it.proxy = &run.proxy({.to = Run::places(it.origins)});
  it.client = &run.client({Run::place(*it.proxy)}, settings);
  return it;
}

Origin& some(Run& run, const std::vector<Origin*>& origins) {
  return *origins[run.world.below(origins.size())];
}

// From kIll to kWell.
void ail(Run& run, Origin& origin, Ailment ailment) {
  run.at(kIll, [&origin, ailment] { origin.ailment = ailment; });
  run.at(kWell, [&origin] { origin.ailment = {}; });
}

void steady(Run& run) { plain(run); }

void slow(Run& run) {
  const Plain it = plain(run);
  ail(run, some(run, it.origins), {.slowness = 40});
}

void flapping(Run& run) {
  const Plain it = plain(run);
  Origin& victim = some(run, it.origins);
  for (Nanos at = kIll; at < kWell;) {
    run.at(at, [&victim] { victim.stop(); });
    at += 200 * kMilli + run.world.below(kSecond);
    run.at(at, [&victim] { victim.start(); });
    at += 200 * kMilli + run.world.below(kSecond);
  }
}

void blackholed(Run& run) {
  const Plain it = plain(run);
  const Host victim = some(run, it.origins).place().host;
  run.at(kIll, [&run, victim] { run.net.blackhole(victim, true); });
  run.at(kWell, [&run, victim] { run.net.blackhole(victim, false); });
}

void lying(Run& run) {
  const Plain it = plain(run);
  run.lies = true;
  ail(run, some(run, it.origins), {.garbage = 0.7});
}

void errors(Run& run) {
  const Plain it = plain(run);
  ail(run, some(run, it.origins), {.errors = 0.5});
}

void silent(Run& run) {
  const Plain it = plain(run);
  ail(run, some(run, it.origins), {.silent = true});
}

void resets(Run& run) {
  const Plain it = plain(run);
  for (Origin* origin : it.origins) ail(run, *origin, {.resets = 0.05});
  for (Nanos at = kIll; at < kWell; at += run.world.below(500 * kMilli)) {
    const Host victim = some(run, it.origins).place().host;
    run.at(at, [&run, victim] { run.net.reset_all(victim); });
  }
}

void zone_loss(Run& run) {
  const Plain it = plain(run, 6);
  for (std::size_t i = 0; i < 3; ++i) {
    Origin& victim = *it.origins[i];
    run.at(kIll + run.world.below(50 * kMilli), [&victim] { victim.stop(); });
    run.at(kWell + run.world.below(2 * kSecond), [&victim] { victim.start(); });
  }
}

// Everything is away for a while; who asks, asks again; what comes back is barely large enough.
void herd(Run& run) {
  std::vector<Origin*> origins = run.origins(3, {.work = 10 * kMilli, .at_once = 2});
  Proxy& proxy = run.proxy({.to = Run::places(origins)});
  run.client({Run::place(proxy)}, {.per_second = 250, .patience = 2 * kSecond, .again = true});
  run.slow_answers = true;
  for (Origin* origin : origins) {
    run.at(kIll, [origin] { origin->stop(); });
    run.at(kIll + 2 * kSecond, [origin] { origin->start(); });
  }
}

// Three tiers that each try again, above origins that fail.
void retry_storm(Run& run) {
  std::vector<Origin*> origins = run.origins(3);
  std::vector<Place> above = Run::places(origins);
  for (const std::size_t size : {2U, 2U, 1U}) {
    std::vector<Place> tier;
    for (std::size_t i = 0; i < size; ++i)
      tier.push_back(Run::place(
          run.proxy({.to = above, .workers = 1, .http2 = above.front().host >> 16 == 0x0a02})));
    above = tier;
  }
  run.client(above, {.per_second = 150});
  for (Origin* origin : origins) ail(run, *origin, {.errors = 0.5, .resets = 0.4});
}

// A thousand endpoints, of which some leave and come at any time.
void churn(Run& run) {
  std::vector<Origin*> origins = run.origins(1'000);
  Proxy& proxy = run.proxy({.to = Run::places(origins), .workers = 1});
  run.client({Run::place(proxy)}, {.per_second = 300});
  const auto states = [&proxy]() -> ServiceShared& { return *proxy.shared().services.front(); };
  for (int i = 0; i < 1'000; ++i) {
    const std::size_t which = run.world.below(origins.size());
    const Nanos at = run.world.below(run.load);
    const Nanos back = at + run.world.below(3 * kSecond);
    const bool announced = run.world.below(4) != 0;
    run.at(at, [states, which, announced, origin = origins[which]] {
      if (announced)
        states().endpoints[which]->draining = true;
      else
        origin->stop();
      states().changed();
    });
    run.at(back, [states, which, origin = origins[which]] {
      states().endpoints[which]->draining = false;
      origin->start();
      states().changed();
    });
  }
}

void partition(Run& run) {
  const Plain it = plain(run);
  run.lossy_clients = run.slow_answers = true;
  const Host proxy = it.proxy->host();
  for (std::size_t i = 0; i < it.origins.size() / 2; ++i) {
    const Host victim = it.origins[i]->place().host;
    run.at(kIll, [&run, proxy, victim] { run.net.part(proxy, victim, true); });
    run.at(kWell, [&run, proxy, victim] { run.net.part(proxy, victim, false); });
  }
  const Host client = it.client->host();
  const Nanos from = run.world.below(10 * kSecond);
  run.at(from, [&run, proxy, client] { run.net.part(proxy, client, true); });
  run.at(from + run.world.below(3 * kSecond),
         [&run, proxy, client] { run.net.part(proxy, client, false); });
}

// The wall clock is set, and a process stands still for a while, as under a debugger or in a
// machine that is moved.
void clock_jump(Run& run) {
  const Plain it = plain(run);
  run.slow_answers = true;
  for (int i = 0; i < 6; ++i) {
    SimLoop& loop = it.proxy->platform(run.world.below(it.proxy->workers())).virtual_loop();
    const auto by = static_cast<std::int64_t>(run.world.below(7'200'000)) - 3'600'000;
    run.at(run.world.below(run.load), [&loop, by] { loop.wall_offset_ms += by; });
    run.at(run.world.below(run.load),
           [&loop, time = run.world.below(8 * kSecond)] { loop.stall(time); });
  }
}

// Every limit is small, and met.
void limits(Run& run) {
  std::vector<Origin*> origins = run.origins(3, {.work = 40 * kMilli});
  Proxy& proxy = run.proxy({.to = Run::places(origins),
                            .service = "limits: { connections: 6, pending: 8, pending_time: 300ms, "
                                       "requests: 12, retries: 2 }, timeouts: { idle: 2s }, ",
                            .workers = 3});
  run.client({Run::place(proxy)}, {.per_second = 200});
  for (Origin* origin : origins) ail(run, *origin, {.resets = 0.1});
}

// Large bodies both ways over a poor network, for clients that often give up.
void large(Run& run) {
  std::vector<Origin*> origins = run.origins(3, {.body = 700'000});
  Proxy& proxy = run.proxy({.to = Run::places(origins)});
  run.client({Run::place(proxy)}, {.per_second = 8,
                                   .posts = 0.5,
                                   .post_body = 400'000,
                                   .answer_body = 700'000,
                                   .patience = 2 * kSecond});
  run.lossy_clients = run.slow_answers = true;
  run.net.lose(0.01);
  ail(run, *origins[0], {.resets = 0.3});
}

// A process that has few descriptors.
void descriptors(Run& run) {
  const Plain it = plain(run, 4, {.per_second = 300});
  run.lossy_clients = run.slow_answers = true;
  for (std::size_t i = 0; i < it.proxy->workers(); ++i)
    it.proxy->platform(i).net_sockets().most = 6 + run.world.below(20);
  ail(run, some(run, it.origins), {.slowness = 20});
}

}  // namespace

const std::vector<Scenario> kScenarios = {
    {"steady", "nothing happens", steady},
    {"slow", "one of four endpoints is 40 times as slow", slow},
    {"flapping", "one of four dies and returns, again and again", flapping},
    {"blackholed", "one of four is behind a hole in the network", blackholed},
    {"lying", "one of four answers 200 with nonsense, or no HTTP at all", lying},
    {"errors", "one of four answers half its requests with 503", errors},
    {"silent", "one of four takes requests and never answers", silent},
    {"resets", "connections are reset, before, while and after the work was done", resets},
    {"zone-loss", "three of six endpoints die at once", zone_loss},
    {"herd", "all endpoints are away for two seconds, clients ask again", herd},
    {"retry-storm", "three tiers of proxies above failing origins", retry_storm},
    {"churn", "1,000 endpoints leave and come", churn},
    {"partition", "half of the endpoints, then the clients, are cut off", partition},
    {"clock-jump", "the wall clock is set, workers stand still", clock_jump},
    {"limits", "every limit is small, and met", limits},
    {"large", "large bodies, lost segments, impatient clients", large},
    {"descriptors", "workers that run out of descriptors", descriptors},
};

}  // namespace outrider::sim
