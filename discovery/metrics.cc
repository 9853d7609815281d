// Counting is a comparison with the last key and two increments; everything else happens when
// somebody scrapes.
#include "discovery/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <tuple>
#include <unordered_map>

#include "config/error.h"

namespace outrider {
namespace {

constexpr std::size_t kFirstSlots = 64;

// ---- labels

struct Labels {
  std::mutex mutex;
  std::deque<std::string> texts{"-"};  // never moved, so that views into it stay
  std::unordered_map<std::string_view, std::uint32_t> ids{{"-", 0}};
};
Labels& labels() {
  static Labels* const only = new Labels;
  return *only;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t mixed = (a ^ b * 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL;
  return mixed ^ mixed >> 32;
}
std::uint64_t hash(const RequestKey& key) {
  return mix(static_cast<std::uint64_t>(key.listener) << 32 | key.route,
             static_cast<std::uint64_t>(key.service) << 32 |
                 static_cast<std::uint64_t>(key.code) << 8 |
                 static_cast<std::uint64_t>(key.reason));
}

auto order_of(const RequestKey& key) {
  return std::tuple(key.listener, key.route, key.service, key.code, key.reason);
}

// ---- words of the closed sets

constexpr std::string_view kAttemptResults[] = {"ok",    "connect_failure", "connect_timeout",
                                                "reset", "protocol_error",  "timeout",
                                                "stale", "cancelled"};
constexpr std::string_view kConnectionStates[] = {"connecting", "idle", "active"};
constexpr std::string_view kRefusedLimits[] = {
    "connections", "per_client",     "pending", "requests",  "retries",
    "resets",      "control_frames", "headers", "handshake", "concurrency",
    "overload",    "descriptors",    "other"};
struct EventRow {
  std::string_view family, help, name, label, value;  // `name`: of what, route or service
};
constexpr std::string_view kObserved = "outrider_observed";
constexpr std::string_view kObservedHelp =
    "What a policy in `mode: observe` would have done, and did not.";
constexpr std::string_view kFaults = "outrider_faults";
constexpr std::string_view kFaultsHelp = "Faults injected.";
constexpr std::string_view kMirrored = "outrider_mirrored";
constexpr std::string_view kMirroredHelp = "Copies of requests, by what became of them.";
constexpr std::string_view kHedges = "outrider_hedges";
constexpr std::string_view kHedgesHelp = "Second tries beside a slow first, and those that won.";
constexpr std::string_view kCompressed = "outrider_compressed";
constexpr std::string_view kCompressedHelp =
    "Responses compressed here, by coding; busy: none, as too many were being compressed.";
constexpr std::string_view kSharedLimit = "outrider_shared_limit";
constexpr std::string_view kSharedLimitHelp =
    "Requests under a shared limit, by who decided: the store, or this proxy alone.";
// One family's rows stand together.
constexpr EventRow kEvents[] = {
    {kObserved, kObservedHelp, "route", "policy", "allow"},
    {kObserved, kObservedHelp, "route", "policy", "deny"},
    {kObserved, kObservedHelp, "route", "policy", "limit"},
    {kObserved, kObservedHelp, "route", "policy", "fault"},
    {kFaults, kFaultsHelp, "route", "kind", "delay"},
    {kFaults, kFaultsHelp, "route", "kind", "abort"},
    {kMirrored, kMirroredHelp, "route", "result", "sent"},
    {kMirrored, kMirroredHelp, "route", "result", "failed"},
    {kMirrored, kMirroredHelp, "route", "result", "dropped"},
    {kHedges, kHedgesHelp, "service", "result", "sent"},
    {kHedges, kHedgesHelp, "service", "result", "won"},
    {kCompressed, kCompressedHelp, "route", "coding", "br"},
    {kCompressed, kCompressedHelp, "route", "coding", "zstd"},
    {kCompressed, kCompressedHelp, "route", "coding", "gzip"},
    {kCompressed, kCompressedHelp, "route", "coding", "busy"},
    {kSharedLimit, kSharedLimitHelp, "route", "decided_by", "store"},
    {kSharedLimit, kSharedLimitHelp, "route", "decided_by", "proxy"},
};
static_assert(std::size(kEvents) == static_cast<std::size_t>(Event::kCount));
static_assert(std::size(kAttemptResults) == static_cast<std::size_t>(AttemptResult::kCount));
static_assert(std::size(kConnectionStates) == static_cast<std::size_t>(ConnectionState::kCount));
static_assert(std::size(kRefusedLimits) == static_cast<std::size_t>(RefusedLimit::kCount));

template <class Into, class From>
void add_up(Into& into, const From& from) {
  for (std::size_t i = 0; i < from.size(); ++i) into[i] += from[i];
}

// ---- /proc

std::string read_all(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The fields of /proc/self/stat from `state` on (proc(5)'s third), or none.
std::vector<std::uint64_t> stat_fields(const std::string& stat) {
  std::vector<std::uint64_t> fields;
  const std::size_t name_end = stat.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return fields;
  const char* at = stat.data() + name_end + 1;
  const char* const end = stat.data() + stat.size();
  while (at < end) {
    while (at < end && *at == ' ') ++at;
    const char* const next = std::find(at, end, ' ');
    std::uint64_t value = 0;
    std::from_chars(at, next, value);
    fields.push_back(value);
    at = next;
  }
  return fields;
}

std::uint64_t boot_time() {
  const std::string stat = read_all("/proc/stat");
  const std::size_t at = stat.find("\nbtime ");
  std::uint64_t seconds = 0;
  if (at != std::string::npos)
    std::from_chars(stat.data() + at + 7, stat.data() + stat.size(), seconds);
  return seconds;
}

std::uint64_t open_descriptors() {
  DIR* const folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  std::uint64_t count = 0;
  while (const dirent* entry = ::readdir(folder)) count += entry->d_name[0] != '.' ? 1 : 0;
  ::closedir(folder);
  return count == 0 ? 0 : count - 1;  // without the folder itself
}

}  // namespace

std::uint32_t intern_label(std::string_view name) {
  Labels& table = labels();
  const std::lock_guard lock(table.mutex);
  if (const auto found = table.ids.find(name); found != table.ids.end()) return found->second;
  const auto id = static_cast<std::uint32_t>(table.texts.size());
  table.ids.emplace(table.texts.emplace_back(name), id);
  return id;
}

std::string label_text(std::uint32_t id) {
  Labels& table = labels();
  const std::lock_guard lock(table.mutex);
  return id < table.texts.size() ? table.texts[id] : "-";
}

void Histogram::observe(std::uint64_t us) {
  std::size_t bucket = 0;
  while (bucket < kBounds.size() && us > kBounds[bucket]) ++bucket;
  ++buckets[bucket];
  sum_us += us;
}

void Histogram::add(const Histogram& other) {
  add_up(buckets, other.buckets);
  sum_us += other.sum_us;
}

// ---- counting

// The slot of a key, or the free one where it belongs. There is always a free one.
std::size_t Metrics::find_request(const RequestKey& key) {
  const std::size_t mask = requests_.size() - 1;
  std::size_t at = hash(key) & mask;
  while (requests_[at].count != 0 && requests_[at].key != key) at = (at + 1) & mask;
  return at;
}

void Metrics::count_request(const RequestKey& key, std::uint64_t count) {
  if (count == 0) return;
  if (requests_.empty()) requests_.resize(kFirstSlots);
  std::size_t at = find_request(key);
  if (requests_[at].count == 0) {
    const RequestKey folded{key.listener, 0, 0, 0, key.reason};
    if (request_count_ >= kMaxRequestKeys && key != folded) return count_request(folded, count);
    if (++request_count_ * 2 > requests_.size()) {
      std::vector<RequestSlot> old(requests_.size() * 2);
      old.swap(requests_);
      for (const RequestSlot& slot : old)
        if (slot.count != 0) requests_[find_request(slot.key)] = slot;
      at = find_request(key);
    }
    requests_[at].key = key;
  }
  requests_[at].count += count;
  last_request_ = at;
}

std::size_t Metrics::find_duration(std::uint32_t route, std::uint32_t service) {
  const std::size_t mask = durations_.size() - 1;
  std::size_t at = mix(route, service) & mask;
  while (durations_[at].used &&
         (durations_[at].route != route || durations_[at].service != service))
    at = (at + 1) & mask;
  return at;
}

Histogram& Metrics::duration(std::uint32_t route, std::uint32_t service) {
  if (durations_.empty()) durations_.resize(kFirstSlots);
  std::size_t at = find_duration(route, service);
  if (!durations_[at].used) {
    if (++duration_count_ * 2 > durations_.size()) {
      std::vector<DurationSlot> old(durations_.size() * 2);
      old.swap(durations_);
      for (const DurationSlot& slot : old)
        if (slot.used) durations_[find_duration(slot.route, slot.service)] = slot;
      at = find_duration(route, service);
    }
    durations_[at].route = route;
    durations_[at].service = service;
    durations_[at].used = true;
  }
  last_duration_ = at;
  return durations_[at].histogram;
}

void Metrics::request(const RequestKey& key, std::uint64_t duration_us) {
  if (last_request_ < requests_.size() && requests_[last_request_].count != 0 &&
      requests_[last_request_].key == key)
    ++requests_[last_request_].count;
  else
    count_request(key, 1);
  if (last_duration_ < durations_.size()) {
    DurationSlot& last = durations_[last_duration_];
    if (last.used && last.route == key.route && last.service == key.service)
      return last.histogram.observe(duration_us);
  }
  duration(key.route, key.service).observe(duration_us);
}

void Metrics::retry(std::uint32_t label, Reason reason) {
  ++service(label).retries[static_cast<std::size_t>(reason)];
}

void Metrics::downstream_connection(std::uint32_t listener, int change) {
  if (listener >= downstream_.size()) downstream_.resize(listener + 1);
  downstream_[listener].count += change;
  downstream_[listener].seen = true;
}

void Metrics::limit_refused(std::uint32_t label, RefusedLimit limit) {
  ++service(label).refused[static_cast<std::size_t>(limit)];
}

void Metrics::event(std::uint32_t name, Event event) {
  ++service(name).events[static_cast<std::size_t>(event)];
}

void Metrics::add(const Metrics& other) {
  for (const RequestSlot& slot : other.requests_) count_request(slot.key, slot.count);
  for (const DurationSlot& slot : other.durations_)
    if (slot.used) duration(slot.route, slot.service).add(slot.histogram);
  for (std::size_t i = 0; i < other.services_.size(); ++i) {
    PerService& mine = service(static_cast<std::uint32_t>(i));
    add_up(mine.attempts, other.services_[i].attempts);
    add_up(mine.retries, other.services_[i].retries);
    add_up(mine.connections, other.services_[i].connections);
    add_up(mine.refused, other.services_[i].refused);
    add_up(mine.events, other.services_[i].events);
  }
  if (downstream_.size() < other.downstream_.size()) downstream_.resize(other.downstream_.size());
  for (std::size_t i = 0; i < other.downstream_.size(); ++i) {
    downstream_[i].count += other.downstream_[i].count;
    downstream_[i].seen |= other.downstream_[i].seen;
  }
  log_lines_dropped += other.log_lines_dropped;
  loop_stall_max_us = std::max(loop_stall_max_us, other.loop_stall_max_us);
}

// ---- text

void MetricText::family(std::string_view name, Type type, std::string_view help) {
  name_ = name;
  type_ = type;
  constexpr std::string_view kTypes[] = {"counter", "gauge", "histogram"};
  const std::string_view suffix = type == Type::kCounter && !open_metrics_ ? "_total" : "";
  for (const auto& [what, text] : {std::pair<std::string_view, std::string_view>{"# HELP ", help},
                                   {"# TYPE ", kTypes[static_cast<std::size_t>(type)]}}) {
    out_ += what;
    out_ += name;
    out_ += suffix;
    out_ += ' ';
    out_ += text;
    out_ += '\n';
  }
}

void MetricText::series(std::string_view suffix, std::initializer_list<Label> labels,
                        std::string_view le) {
  out_ += name_;
  out_ += suffix;
  char separator = '{';
  const auto put = [&](std::string_view name, std::string_view value) {
    out_ += separator;
    separator = ',';
    out_ += name;
    out_ += "=\"";
    for (const char c : value) {
      if (c == '\n') {
        out_ += "\\n";
        continue;
      }
      if (c == '"' || c == '\\') out_ += '\\';
      out_ += c;
    }
    out_ += '"';
  };
  for (const Label& label : labels) put(label.name, label.value);
  if (!le.empty()) put("le", le);
  if (separator == ',') out_ += '}';
  out_ += ' ';
}

void MetricText::sample(std::initializer_list<Label> labels, std::uint64_t value) {
  series(type_ == Type::kCounter ? "_total" : "", labels);
  out_ += std::to_string(value);
  out_ += '\n';
}

void MetricText::sample(std::initializer_list<Label> labels, std::int64_t value) {
  series(type_ == Type::kCounter ? "_total" : "", labels);
  out_ += std::to_string(value);
  out_ += '\n';
}

void MetricText::sample(std::initializer_list<Label> labels, double value) {
  series(type_ == Type::kCounter ? "_total" : "", labels);
  number(value);
  out_ += '\n';
}

void MetricText::number(double value) {
  char digits[32];
  const char* const end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out_.append(digits, static_cast<std::size_t>(end - digits));
}

void MetricText::histogram(std::initializer_list<Label> labels, const Histogram& histogram) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < histogram.buckets.size(); ++i) {
    count += histogram.buckets[i];
    std::string bound = "+Inf";
    if (i < Histogram::kBounds.size()) {
      char digits[32];
      const char* const end = std::to_chars(digits, digits + sizeof digits,
                                            Histogram::kBounds[i] / 1e6, std::chars_format::fixed)
                                  .ptr;
      bound.assign(digits, static_cast<std::size_t>(end - digits));
      if (bound.find('.') == std::string::npos)
        bound += ".0";  // OpenMetrics wants a float to look like one
    }
    series("_bucket", labels, bound);
    out_ += std::to_string(count);
    out_ += '\n';
  }
  series("_sum", labels);
  number(static_cast<double>(histogram.sum_us) / 1e6);
  out_ += '\n';
  series("_count", labels);
  out_ += std::to_string(count);
  out_ += '\n';
}

void MetricText::end() {
  if (open_metrics_) out_ += "# EOF\n";
}

void Metrics::render(std::string& out, bool open_metrics, std::uint32_t series_limit) const {
  MetricText text(out, open_metrics);
  render(text, series_limit);
  render_process(text);
  text.end();
}

void Metrics::render(MetricText& text, std::uint32_t series_limit) const {
  using Type = MetricText::Type;
  // The order of the labels' ids, which is that of configuration, so that the same series stay
  // within the limit.
  std::vector<std::pair<RequestKey, std::uint64_t>> requests;
  for (const RequestSlot& slot : requests_)
    if (slot.count != 0) requests.emplace_back(slot.key, slot.count);
  std::sort(requests.begin(), requests.end(),
            [](const auto& a, const auto& b) { return order_of(a.first) < order_of(b.first); });
  std::map<std::pair<std::uint32_t, Reason>, std::uint64_t> folded;  // by listener and reason
  const std::size_t shown = std::min<std::size_t>(requests.size(), series_limit);
  for (std::size_t i = shown; i < requests.size(); ++i)
    folded[{requests[i].first.listener, requests[i].first.reason}] += requests[i].second;
  text.family("outrider_requests", Type::kCounter, "Requests that ended, by outcome.");
  const auto put_request = [&](const RequestKey& key, std::uint64_t count) {
    const std::string code = key.code == 0 ? "-" : std::to_string(key.code);
    text.sample({{"listener", label_text(key.listener)},
                 {"route", label_text(key.route)},
                 {"service", label_text(key.service)},
                 {"code", code},
                 {"reason", info(key.reason).word}},
                count);
  };
  for (std::size_t i = 0; i < shown; ++i) {
    // A series that the fold below adds to stands once.
    const RequestKey& key = requests[i].first;
    std::uint64_t more = 0;
    if (key.route == 0 && key.service == 0 && key.code == 0)
      if (const auto found = folded.find({key.listener, key.reason}); found != folded.end()) {
        more = found->second;
        folded.erase(found);
      }
    put_request(key, requests[i].second + more);
  }
  for (const auto& [key, count] : folded) put_request({key.first, 0, 0, 0, key.second}, count);
  text.family("outrider_metric_series_folded", Type::kGauge,
              "Request series beyond series_limit, counted under route -.");
  text.sample({}, static_cast<std::uint64_t>(requests.size() - shown));

  std::map<std::pair<std::uint32_t, std::uint32_t>, Histogram> durations;
  for (const DurationSlot& slot : durations_)
    if (slot.used) durations[{slot.route, slot.service}] = slot.histogram;
  while (durations.size() > std::max<std::size_t>(series_limit, 1)) {
    const auto last = std::prev(durations.end());
    durations[{0, 0}].add(last->second);
    durations.erase(last);
  }
  text.family("outrider_request_duration_seconds", Type::kHistogram,
              "Time from the end of a request's head to the end of its exchange.");
  for (const auto& [key, histogram] : durations)
    text.histogram({{"route", label_text(key.first)}, {"service", label_text(key.second)}},
                   histogram);

  const auto per_service = [&](std::string_view name, Type type, std::string_view help,
                               std::string_view label, auto member, auto words) {
    text.family(name, type, help);
    for (std::size_t i = 0; i < services_.size(); ++i) {
      const auto& values = services_[i].*member;
      for (std::size_t k = 0; k < values.size(); ++k)
        if (values[k] != 0)
          text.sample({{"service", label_text(static_cast<std::uint32_t>(i))}, {label, words(k)}},
                      values[k]);
    }
  };
  per_service("outrider_attempts", Type::kCounter, "Tries upstream, by how they ended.", "result",
              &PerService::attempts, [](std::size_t i) { return kAttemptResults[i]; });
  per_service("outrider_retries", Type::kCounter, "Further tries, by what made them due.", "reason",
              &PerService::retries,
              [](std::size_t i) { return info(static_cast<Reason>(i)).word; });
  text.family("outrider_upstream_connections", Type::kGauge,
              "Connections to a service's endpoints.");
  for (std::size_t i = 0; i < services_.size(); ++i) {
    // All states of a service that ever had a connection, as above.
    const PerService& service = services_[i];
    const bool seen = std::any_of(service.attempts.begin(), service.attempts.end(),
                                  [](std::uint64_t n) { return n != 0; }) ||
                      std::any_of(service.connections.begin(), service.connections.end(),
                                  [](std::int64_t n) { return n != 0; });
    for (std::size_t k = 0; seen && k < service.connections.size(); ++k)
      text.sample(
          {{"service", label_text(static_cast<std::uint32_t>(i))}, {"state", kConnectionStates[k]}},
          service.connections[k]);
  }
  text.family("outrider_downstream_connections", Type::kGauge, "Open client connections.");
  for (std::size_t i = 0; i < downstream_.size(); ++i)
    if (downstream_[i].seen)
      text.sample({{"listener", label_text(static_cast<std::uint32_t>(i))}}, downstream_[i].count);
  per_service(
      "outrider_limit_refused", Type::kCounter,
      "Refused because a limit was reached; `service` names a listener where the limit is one's.",
      "limit", &PerService::refused, [](std::size_t i) { return kRefusedLimits[i]; });
  for (std::size_t k = 0; k < std::size(kEvents); ++k) {
    const EventRow& row = kEvents[k];
    if (k == 0 || kEvents[k - 1].family != row.family)
      text.family(row.family, Type::kCounter, row.help);
    for (std::size_t i = 0; i < services_.size(); ++i)
      if (const std::uint64_t count = services_[i].events[k]; count != 0)
        text.sample({{row.name, label_text(static_cast<std::uint32_t>(i))}, {row.label, row.value}},
                    count);
  }
  text.family("outrider_log_lines_dropped", Type::kCounter,
              "Log lines that their sink did not take in time.");
  text.sample({}, log_lines_dropped);
  text.family("outrider_loop_stall_seconds", Type::kGauge,
              "Longest turn of a worker's loop so far.");
  text.sample({}, static_cast<double>(loop_stall_max_us) / 1e6);
}

void render_process(MetricText& text) {
  using Type = MetricText::Type;
  const std::vector<std::uint64_t> stat = stat_fields(read_all("/proc/self/stat"));
  constexpr std::size_t kUserTime = 11, kSystemTime = 12, kThreads = 17, kStart = 19, kVirtual = 20,
                        kResident = 21;
  if (stat.size() > kResident) {
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    text.family("process_cpu_seconds", Type::kCounter, "User and system processor time.");
    text.sample({}, static_cast<double>(stat[kUserTime] + stat[kSystemTime]) / ticks);
    text.family("process_start_time_seconds", Type::kGauge, "Start time since the Unix epoch.");
    text.sample({}, static_cast<double>(boot_time()) + static_cast<double>(stat[kStart]) / ticks);
    text.family("process_threads", Type::kGauge, "Threads.");
    text.sample({}, stat[kThreads]);
    text.family("process_virtual_memory_bytes", Type::kGauge, "Virtual memory.");
    text.sample({}, stat[kVirtual]);
    text.family("process_resident_memory_bytes", Type::kGauge, "Resident memory.");
    text.sample({}, stat[kResident] * page);
  }
  text.family("process_open_fds", Type::kGauge, "Open file descriptors.");
  text.sample({}, open_descriptors());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    text.family("process_max_fds", Type::kGauge, "Most file descriptors that may be open.");
    text.sample({}, static_cast<std::uint64_t>(limit.rlim_cur));
  }
}

}  // namespace outrider
