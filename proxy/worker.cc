#include "proxy/worker.h"

#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "filters/local_reply.h"
#include "proxy/downstream.h"
#include "proxy/h2_memory.h"
#include "proxy/listener.h"
#include "proxy/mirror.h"
#include "proxy/stream.h"

namespace outrider {

namespace {
constexpr Millis kTrimEvery{400};
constexpr std::size_t kWorthTrimming = 512 * 1024;
constexpr std::size_t kWorthAStall = 16 * 1024 * 1024;
constexpr std::size_t kConnectionBytes = 1024;  // at least
}  // namespace

bool ClientCounts::enter(const std::array<std::uint8_t, 16>& ip, std::uint64_t limit) {
  const std::lock_guard lock(mutex_);
  std::uint64_t& count = counts_[ip];
  if (count >= limit) return false;
  ++count;
  return true;
}

void ClientCounts::leave(const std::array<std::uint8_t, 16>& ip) {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(ip);
  if (found != counts_.end() && --found->second == 0) counts_.erase(found);
}

ServiceRuntime::ServiceRuntime(Flusher& flusher, Metrics& metrics, const config::Service& config,
                               std::uint32_t label, std::shared_ptr<ServiceShared> shared)
    : service(config, label, std::move(shared)), flusher_(flusher), metrics_(metrics) {
  pools_.resize(service.endpoints().size() * kSpeaks);
}

UpstreamPool& ServiceRuntime::pool(Endpoint& endpoint, Speaks speaks) {
  auto& pool = pools_[endpoint.index * kSpeaks + static_cast<std::size_t>(speaks)];
  if (pool == nullptr)
    pool = std::make_unique<UpstreamPool>(flusher_, metrics_, service, endpoint, speaks);
  return *pool;
}

void ServiceRuntime::close_idle() {
  for (const auto& pool : pools_)
    if (pool != nullptr) pool->close_idle();
}

void ServiceRuntime::yield_idle() {
  std::size_t most = service.shared().pending.load(std::memory_order_relaxed);
  for (const auto& pool : pools_)
    if (pool != nullptr && most != 0) most -= pool->yield_idle(most);
}

void ServiceRuntime::close_all() {
  for (const auto& pool : pools_)
    if (pool != nullptr) pool->close_all();
}

std::size_t ServiceRuntime::connections(const Endpoint& endpoint) const {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kSpeaks; ++i)
    if (const auto& pool = pools_[endpoint.index * kSpeaks + i]; pool != nullptr)
      sum += pool->connections();
  return sum;
}

Worker::Worker(std::uint32_t index, std::shared_ptr<const Snapshot> snapshot, Shared shared,
               std::unique_ptr<Platform> platform)
    : index_(index),
      platform_(std::move(platform)),
      loop_(platform_->loop),
      flusher_(loop_, platform_->sockets),
      stream_blocks_(sizeof(Stream)),
      random_(platform_->seed + index),
      snapshot_(std::move(snapshot)),
      shared_(std::move(shared)),
      trim_timer_(loop_, call_member<&Worker::trim, Worker>, this) {
  const config::Config& config = *snapshot_->config;
  for (std::size_t i = 0; i < config.services.size(); ++i)
    services_.push_back(std::make_unique<ServiceRuntime>(
        flusher_, metrics_, config.services[i], snapshot_->service_labels[i], shared_.services[i]));
  for (const auto& store : snapshot_->limits->stores())
    limit_stores_.push_back(std::make_unique<RedisLimits>(flusher_, store));
  if (!limit_stores_.empty())
    loop_.post([this] {
      for (const auto& store : limit_stores_) store->start();
    });
  if (shared_.access_log != nullptr)
    access_log_ =
        std::make_unique<AccessLog>(config.telemetry, *shared_.access_log, shared_.access_sink);
  flusher_.after = [](void* self) { static_cast<Worker*>(self)->turn_ended(); };
  flusher_.after_owner = this;
}

Worker::~Worker() {
  shut_down();  // one that never ran
  OUTRIDER_ASSERT(open_streams_ == 0);
}

// On the worker's own thread: codecs keep free lists per thread.
void Worker::shut_down() {
  cut_streams_ = open_streams_;
  for (const auto& listener : listeners_) listener->close_all();
  while (mirrors_.linked()) static_cast<Mirror&>(*mirrors_.next).end(Event::kMirrorFailed);
  for (const auto& service : services_) service->close_all();
  for (const auto& store : limit_stores_) store->close();
  loop_.settle();
}

void Worker::listen(std::size_t listener_index, BoundSocket socket) {
  listeners_.push_back(std::make_unique<Listener>(*this, snapshot_->listeners[listener_index],
                                                  shared_.listeners[listener_index]));
  listeners_.back()->open(std::move(socket));
}

void Worker::start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), ("worker-" + std::to_string(index_)).c_str());
    loop_.run();
    shut_down();
  });
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::stop_accepting(bool inbound, bool outbound) {
  for (const auto& listener : listeners_)
    if (listener->inbound() ? inbound : outbound) listener->stop_accepting();
}

void Worker::drain(Drain stage, bool inbound, bool outbound) {
  for (const auto& listener : listeners_)
    if (listener->inbound() ? inbound : outbound) listener->drain(stage == Drain::kClose);
}

std::size_t Worker::open_connections(bool inbound, bool outbound) const {
  std::size_t count = 0;
  for (const auto& listener : listeners_)
    if (listener->inbound() ? inbound : outbound)
      for (const ListNode* node = listener->connections.next; node != &listener->connections;
           node = node->next)
        ++count;
  return count;
}

const Metrics& Worker::metrics() {
  metrics_.loop_stall_max_us = std::max(metrics_.loop_stall_max_us, loop_.longest_turn_ns / 1000);
  return metrics_;
}

std::vector<Worker::EndpointView> Worker::endpoints() {
  std::vector<EndpointView> views;
  for (const auto& runtime : services_)
    for (const auto& endpoint : runtime->service.endpoints())
      views.push_back({runtime->service.config().name, endpoint->text, endpoint->active,
                       runtime->connections(*endpoint)});
  return views;
}

LimitStore* Worker::limit_store(const std::shared_ptr<SharedStore>& store) {
  for (const auto& known : limit_stores_)
    if (&known->store() == store.get()) return known.get();
  limit_stores_.push_back(std::make_unique<RedisLimits>(flusher_, store));
  limit_stores_.back()->start();
  return limit_stores_.back().get();
}

void Worker::shed(Shed step, std::string_view words) {
  shed_ = step;
  shed_words_ = words;
  for (const auto& listener : listeners_) listener->hold(step >= Shed::kClients);
  if (step >= Shed::kIdle) {
    for (const auto& listener : listeners_) listener->end_idle();
    for (const auto& service : services_) service->close_idle();
    cut_largest();
  }
  if (step != Shed::kNothing) give_back_memory();
}

// A tenth of those that hold much, the largest first: they give most back.
void Worker::cut_largest() {
  std::vector<std::pair<std::size_t, Stream*>> holding;
  for (const auto& listener : listeners_)
    for (ListNode* node = listener->connections.next; node != &listener->connections;
         node = node->next) {
      ListNode& streams = static_cast<Downstream&>(*node).streams;
      for (ListNode* inner = streams.next; inner != &streams; inner = inner->next) {
        auto* const stream = static_cast<Stream*>(inner);
        if (const std::size_t bytes = stream->held_bytes(); bytes >= limits::kSlabBytes)
          holding.emplace_back(bytes, stream);
      }
    }
  const std::size_t cut = (holding.size() + 9) / 10;
  std::partial_sort(holding.begin(), holding.begin() + static_cast<std::ptrdiff_t>(cut),
                    holding.end(), std::greater<>());
  for (std::size_t i = 0; i < cut; ++i)
    holding[i].second->cut(Reason::kOverload, "overload.memory: it held more than others");
}

void Worker::note_loop_delay(Millis delay, Millis most) {
  slow_.look(delay >= most, delay < most / 2);
}

std::string_view Worker::refusal() const {
  return shed_ >= Shed::kRequests ? shed_words_
                                  : "overload.loop_delay: the worker's loop keeps its work waiting";
}

std::vector<std::vector<EndpointSample>> Worker::take_samples() {
  std::vector<std::vector<EndpointSample>> all(services_.size());
  for (std::size_t i = 0; i < services_.size(); ++i) {
    Service& service = services_[i]->service;
    if (!service.config().eject.compares()) continue;
    for (const auto& endpoint : service.endpoints())
      all[i].push_back(std::exchange(endpoint->sample, {}));
  }
  return all;
}

void Worker::log(const Exchange& x) {
  log_failure(x);
  if (access_log_ == nullptr) return;
  access_log_->write(x);
  flusher_.after_due = true;
}

void* Worker::stream_memory() { return stream_blocks_.get(); }

void Worker::give_back_stream_memory(void* memory) { stream_blocks_.put(memory); }

void Worker::add(Mirror& mirror) {
  mirror.insert_before(mirrors_);
  ++mirror_count_;
}

void Worker::remove(Mirror& mirror) {
  mirror.unlink();
  --mirror_count_;
}

void Worker::turn_ended() {
  if (access_log_ != nullptr) access_log_->hand_over();
  active_ = true;
  if (!trim_timer_.armed()) trim_timer_.start(kTrimEvery);
}

// From the free lists to the heap.
void Worker::give_back_memory() {
  trimmed_ += flusher_.slabs.small.trim() + flusher_.slabs.large.trim() + blocks_.trim() +
              stream_blocks_.trim() + H2Memory::of_this_thread().trim();
}

// What a peak took is given back when nobody has needed it for a while, by us to the heap, and by
// the heap to the system. The latter takes its time, so a busy worker waits until it is worth more.
void Worker::trim() {
  const bool quiet = !std::exchange(active_, false);
  if (!quiet) trim_timer_.start(kTrimEvery);  // for what is needed no more
  give_back_memory();
  trimmed_ += (std::exchange(clients_peak_, clients_) - clients_) * kConnectionBytes;
  if (trimmed_ < (quiet ? kWorthTrimming : kWorthAStall)) return;
  trimmed_ = 0;
  malloc_trim(0);
}

}  // namespace outrider
