#include "proxy/endpoint_watch.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "discovery/ejection.h"
#include "proxy/worker.h"

namespace outrider {

namespace {
constexpr Millis kLook{1000};  // how soon it is noticed that somebody was ejected
}  // namespace

struct EndpointWatch::Gathered {
  std::size_t left;
  std::vector<std::vector<EndpointSample>> sums;
};

EndpointWatch::EndpointWatch(Flusher& flusher, const config::Config& config,
                             std::vector<std::shared_ptr<ServiceShared>> services,
                             std::uint64_t seed)
    : loop_(flusher.loop),
      config_(config),
      services_(std::move(services)),
      prober_(flusher, config, services_, seed),
      return_timer_(loop_, call_member<&EndpointWatch::on_return, EndpointWatch>, this),
      compare_timer_(loop_, call_member<&EndpointWatch::on_compare, EndpointWatch>, this) {}

void EndpointWatch::start(std::size_t workers, EachWorker each_worker) {
  workers_ = workers;
  each_worker_ = std::move(each_worker);
  prober_.start();
  return_timer_.start(kLook);
  const bool compares =
      std::any_of(config_.services.begin(), config_.services.end(),
                  [](const config::Service& service) { return service.eject.compares(); });
  if (compares) compare_timer_.start(limits::kOutlierEvery);
}

void EndpointWatch::stop() {
  prober_.stop();
  return_timer_.stop();
  compare_timer_.stop();
}

void EndpointWatch::on_return() {
  const std::uint64_t now = loop_.now_ms();
  Millis wait = kLook;
  for (std::size_t i = 0; i < services_.size(); ++i) {
    const std::uint64_t next = return_ejected(config_.services[i], *services_[i], now);
    if (next != 0) wait = std::min(wait, Millis(next - now));
  }
  return_timer_.start(wait);
}

void EndpointWatch::on_compare() {
  compare_timer_.start(limits::kOutlierEvery);
  auto gathered = std::make_shared<Gathered>();
  gathered->left = workers_;
  for (const auto& service : services_) gathered->sums.emplace_back(service->endpoints.size());
  each_worker_([this, gathered](Worker& worker) {
    loop_.post([this, gathered, samples = worker.take_samples()] {
      for (std::size_t s = 0; s < samples.size(); ++s)
        for (std::size_t e = 0; e < samples[s].size(); ++e) gathered->sums[s][e].add(samples[s][e]);
      if (--gathered->left != 0) return;
      for (std::size_t s = 0; s < services_.size(); ++s)
        if (config_.services[s].eject.compares())
          eject_outliers(config_.services[s], *services_[s], gathered->sums[s], loop_.now_ms());
    });
  });
}

void EndpointWatch::render(MetricText& text) const {
  using Type = MetricText::Type;
  prober_.render(text);
  text.family("outrider_ejections", Type::kCounter,
              "Endpoints that were ejected, or with mode observe would have been, by reason.");
  for (std::size_t i = 0; i < services_.size(); ++i) {
    const config::Service& service = config_.services[i];
    const std::lock_guard lock(services_[i]->ejection.mutex);
    for (std::size_t k = 0; k < services_[i]->ejection.count.size(); ++k)
      if (const std::uint64_t count = services_[i]->ejection.count[k]; count != 0)
        text.sample({{"service", service.name},
                     {"why", to_string(static_cast<EjectedFor>(k))},
                     {"mode", service.eject.observe ? "observe" : "enforce"}},
                    count);
  }
  text.family("outrider_ejections_refused", Type::kCounter,
              "Endpoints that were not ejected, because of at_most or for want of another.");
  for (std::size_t i = 0; i < services_.size(); ++i) {
    const std::lock_guard lock(services_[i]->ejection.mutex);
    if (const std::uint64_t count = services_[i]->ejection.refused; count != 0)
      text.sample({{"service", config_.services[i].name}}, count);
  }
}

EndpointWatch::Description EndpointWatch::describe(std::size_t service,
                                                   std::size_t endpoint) const {
  ServiceShared& shared = *services_[service];
  const EndpointState& state = *shared.endpoints[endpoint];
  Description out;
  const auto say = [&out](const std::string& words) {
    out.why += out.why.empty() ? words : "; " + words;
  };
  {
    const std::lock_guard lock(shared.ejection.mutex);
    const EjectionRecord& record = state.ejection;
    const bool observed = !state.ejected.load(std::memory_order_relaxed);
    if (record.out) say((observed ? "would be ejected (mode: observe): " : "") + record.why);
    if (record.out && !observed) {
      const std::uint64_t now = loop_.now_ms();
      out.ejected_for_ms = record.until_ms > now ? record.until_ms - now : 1;
    }
  }
  if (const HealthRecord* const health = prober_.record(service, endpoint); health != nullptr)
    say(why_healthy(config_.services[service].health, *health));
  return out;
}

}  // namespace outrider
