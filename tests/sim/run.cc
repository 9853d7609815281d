#include "tests/sim/run.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "config/log.h"
#include "filters/random.h"

namespace outrider::sim {

namespace {
constexpr Host kClients = 10U << 24 | 1U << 16;
constexpr Host kProxies = 10U << 24 | 2U << 16;
constexpr Host kOrigins = 10U << 24 | 3U << 16;
constexpr std::uint16_t kPort = 8080;
constexpr Nanos kSettle = 400 * kSecond;  // longer than any idle connection may last
constexpr Nanos kLook = 100 * kMilli;
}  // namespace

const std::vector<Policy> kPolicies = {
    {"outrider", "", ""},
    {"round-robin", "balance: round-robin, eject: false, ", ", retry: false"},
    {"naive-retries", "balance: round-robin, eject: false, ",
     ", retry: { attempts: 3, when: [connect-failure, refused-stream, reset, 5xx], "
     "backoff: 1ms..2ms, budget: 100% }"},
    {"mixed", "", ""},
};

namespace {
// What else may be asked of a service, for seeds to draw from.
constexpr std::string_view kServiceKeys[] = {
    "",
    "balance: round-robin, ",
    "balance: random, ",
    "balance: peak-ewma, ",
    "balance: hash(header x-key), ",
    "balance: maglev(header x-key), ",
    "slow_start: 3s, ",
    "limits: { connections: 40, requests: 60, retries: 5 }, ",
    "timeouts: { connect: 300ms, idle: 700ms }, ",
};
constexpr std::string_view kRouteKeys[] = {
    "",
    ", retry: 3",
    ", retry: { attempts: 2, when: [connect-failure, refused-stream, reset, 5xx] }",
    ", retry: { attempts: 5, budget: 5%, backoff: 1ms..10ms }",
};
}  // namespace

Run::Run(std::uint64_t seed, const Policy& policy)
    : world(seed), policy_(policy), began_(world.now()) {
  log::set_level(log::Level::kError);
  seed_thread_random(world.random().next());
}

Run::~Run() {
  all_clients.clear();
  all_proxies.clear();
  all_origins.clear();
}

Origin& Run::origin(const Origin::Settings& settings) {
  const auto number = static_cast<Host>(all_origins.size() + 1);
  return *all_origins.emplace_back(
      std::make_unique<Origin>(net, ledger, Place{kOrigins + number, kPort}, settings));
}

std::vector<Origin*> Run::origins(std::size_t count, const Origin::Settings& settings) {
  std::vector<Origin*> made;
  for (std::size_t i = 0; i < count; ++i) made.push_back(&origin(settings));
  return made;
}

std::vector<Place> Run::places(const std::vector<Origin*>& origins) {
  std::vector<Place> places;
  for (const Origin* origin : origins) places.push_back(origin->place());
  return places;
}

Proxy& Run::proxy(const Tier& tier) {
  const std::string number = std::to_string(all_proxies.size() + 1);
  std::string service(policy_.service);
  std::string route(policy_.route);
  if (policy_.name == "mixed") {
    service += tier.service.empty() ? kServiceKeys[world.below(std::size(kServiceKeys))] : "";
    route += kRouteKeys[world.below(std::size(kRouteKeys))];
  }
  std::string text = "listeners: { main: { address: \"10.2.0." + number +
                     ":8080\", trust: [10.0.0.0/8], forwarded: add } }\n";
  // A name of its own: retry budgets are known by it.
  text += "services: { s" + number + ": { " + service + tier.service;
  text += std::string(tier.http2 ? "protocol: http2, " : "") + "endpoints: [";
  for (const Place& place : tier.to) text += '"' + to_string(place) + "\", ";
  text += "] } }\nroutes: [ { to: s" + number + route + tier.route;
  text += ", timeout: { headers: 5s, total: 10s } } ]\n";
  return *all_proxies.emplace_back(std::make_unique<Proxy>(net, text, tier.workers));
}

Client& Run::client(const std::vector<Place>& proxies, const Client::Settings& settings) {
  const auto number = static_cast<Host>(all_clients.size() + 1);
  return *all_clients.emplace_back(
      std::make_unique<Client>(net, ledger, kClients + number, proxies, settings));
}

Figures Run::play() {
  world.look = [this] {
    for (const auto& proxy : all_proxies) proxy->check_limits();
  };
  for (const auto& client : all_clients) client->begin(began_ + load);
  world.run_until(began_ + load);
  const auto busy = [this] {
    return std::any_of(all_clients.begin(), all_clients.end(),
                       [](const auto& client) { return !client->done(); });
  };
  while (busy()) world.run_until(world.now() + kLook);
  // Whatever happened, nothing may be left of it.
  world.run_until(world.now() + kSettle);
  for (const auto& proxy : all_proxies) proxy->check_idle();
  check_logs();
  check_answers();
  return figures();
}

void Run::check_answers() {
  for (std::size_t id = 0; id < ledger.records.size(); ++id) {
    const Record& record = ledger.records[id];
    const auto complain = [&](const char* what) {
      world.violated("request " + std::to_string(id) + ' ' + what + " (logged: " + logged_[id] +
                     ')');
    };
    if (record.outcome == Outcome::kOpen) complain("is still open");
    if (record.outcome == Outcome::kUnheard && !lossy_clients) complain("got no answer at all");
    if (record.outcome == Outcome::kAbandoned && !lossy_clients && !slow_answers)
      complain("was not answered within its time");
    if (record.outcome == Outcome::kAnswered && record.status == 200 && !record.right && !lies)
      complain("was answered by what looks whole and is not");
    if (record.outcome == Outcome::kAnswered && record.status == 200 && record.right &&
        record.applied == 0)
      complain("was answered by nobody");
  }
}

// In front, one line for each request and no other; and at every proxy no more retries than its
// budget.
void Run::check_logs() {
  std::vector<unsigned> lines(ledger.records.size());
  logged_.resize(ledger.records.size(), "nothing");
  for (const auto& proxy : all_proxies) {
    const bool in_front = std::any_of(all_clients.begin(), all_clients.end(), [&](const auto& it) {
      const auto& asked = it->proxies();
      return std::find(asked.begin(), asked.end(), place(*proxy)) != asked.end();
    });
    std::size_t retries = 0;
    const std::vector<Logged>& logged = proxy->end();
    for (const Logged& line : logged) {
      retries += line.attempts > 1 ? line.attempts - 1 : 0;
      if (line.id >= lines.size()) {
        world.violated("a line of the log belongs to no request");
      } else if (in_front) {
        ++lines[line.id];
        logged_[line.id] = std::to_string(line.status) + ' ' + line.reason;
        const Record& record = ledger.records[line.id];
        if (record.outcome == Outcome::kAnswered && record.status != line.status)
          world.violated("request " + std::to_string(line.id) + " got another status than logged");
      }
    }
    const double seconds = static_cast<double>(load) / kSecond + 12;
    if (policy_.route.empty() &&
        static_cast<double>(retries) > 0.2 * static_cast<double>(logged.size()) + 10 * seconds)
      world.violated(std::to_string(retries) + " retries are more than the budget of " +
                     std::to_string(logged.size()) + " requests");
  }
  for (std::size_t id = 0; id < lines.size(); ++id) {
    const Outcome outcome = ledger.records[id].outcome;
    const bool heard = outcome == Outcome::kAnswered || outcome == Outcome::kCut;
    if (lines[id] > 1 || (heard && lines[id] == 0))
      world.violated("request " + std::to_string(id) + " was logged " + std::to_string(lines[id]) +
                     " times");
  }
}

Figures Run::figures() {
  Figures figures;
  std::vector<Nanos> took;
  for (const Record& record : ledger.records) {
    ++figures.requests;
    figures.right += record.right ? 1 : 0;
    figures.arrivals += record.arrivals;
    took.push_back(record.ended - record.sent);
  }
  std::sort(took.begin(), took.end());
  if (!took.empty()) {
    figures.p50 = took[took.size() / 2];
    figures.p99 = took[took.size() * 99 / 100];
  }
  figures.trace = world.trace();
  figures.steps = world.steps();
  return figures;
}

}  // namespace outrider::sim
