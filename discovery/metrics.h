// Counters and histograms, one set per worker: plain integers that only their worker writes. A
// scrape posts a function to each worker, which copies its set, and adds the copies up. Labels are
// interned names from configuration, never from clients.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "config/reason.h"

namespace outrider {

// Process-wide table of label values (names of listeners, routes, services); ids never change or
// end, so that series survive reloads. Control thread writes; workers only carry ids. Id 0 is `-`.
std::uint32_t intern_label(std::string_view name);
std::string label_text(std::uint32_t id);

struct RequestKey {
  std::uint32_t listener = 0, route = 0, service = 0;
  std::uint16_t code = 0;
  Reason reason = Reason::kOk;
  friend bool operator==(const RequestKey&, const RequestKey&) = default;
};

struct Histogram {
  // Upper bounds in microseconds; the last bucket is +Inf.
  static constexpr std::array<std::uint32_t, 14> kBounds = {
      500,     1'000,   2'500,   5'000,     10'000,    25'000,    50'000,
      100'000, 250'000, 500'000, 1'000'000, 2'500'000, 5'000'000, 10'000'000};
  std::array<std::uint64_t, kBounds.size() + 1> buckets{};
  std::uint64_t sum_us = 0;
  void observe(std::uint64_t us);
  void add(const Histogram& other);
};

enum class AttemptResult : std::uint8_t {
  kOk,
  kConnectFailure,
  kConnectTimeout,
  kReset,
  kProtocolError,
  kTimeout,
  kStale,
  kCancelled,
  kCount
};
enum class ConnectionState : std::uint8_t { kConnecting, kIdle, kActive, kCount };
enum class RefusedLimit : std::uint8_t {
  kConnections,
  kPerClient,
  kPending,
  kRequests,
  kRetries,
  kResets,
  kControlFrames,
  kHeaders,
  kHandshake,
  kConcurrency,
  kOverload,
  kDescriptors,
  kOther,
  kCount
};

// What is counted by the name of a route or service alone; the rows of a table in metrics.cc.
enum class Event : std::uint8_t {
  kObservedAllow,
  kObservedDeny,
  kObservedLimit,
  kObservedFault,
  kFaultDelay,
  kFaultAbort,
  kMirrorSent,
  kMirrorFailed,
  kMirrorDropped,
  kHedgeSent,
  kHedgeWon,
  kCompressedBr,
  kCompressedZstd,
  kCompressedGzip,
  kCompressBusy,
  kLimitShared,
  kLimitAlone,
  kCount
};

// Writes families in Prometheus' text format, or OpenMetrics'. A family's samples follow it at
// once; a counter is named without `_total`.
class MetricText {
 public:
  enum class Type : std::uint8_t { kCounter, kGauge, kHistogram };
  struct Label {
    std::string_view name;
    std::string_view value;  // any text: escaped here
  };
  MetricText(std::string& out, bool open_metrics) : out_(out), open_metrics_(open_metrics) {}
  void family(std::string_view name, Type type, std::string_view help);
  void sample(std::initializer_list<Label> labels, std::uint64_t value);
  void sample(std::initializer_list<Label> labels, std::int64_t value);
  void sample(std::initializer_list<Label> labels, double value);
  void histogram(std::initializer_list<Label> labels, const Histogram& histogram);
  void end();  // `# EOF` where the format wants it

 private:
  void series(std::string_view suffix, std::initializer_list<Label> labels,
              std::string_view le = {});
  void number(double value);
  std::string& out_;
  const bool open_metrics_;
  std::string_view name_;
  Type type_ = Type::kGauge;
};

// process_*: processor time, memory, descriptors, start time, from /proc.
void render_process(MetricText& text);

class Metrics {
 public:
  // One request ended.
  void request(const RequestKey& key, std::uint64_t duration_us);
  void attempt(std::uint32_t label, AttemptResult result) {
    ++service(label).attempts[static_cast<std::size_t>(result)];
  }
  void retry(std::uint32_t service, Reason reason);
  void upstream_connection(std::uint32_t label, ConnectionState state, int change) {
    service(label).connections[static_cast<std::size_t>(state)] += change;
  }
  void downstream_connection(std::uint32_t listener, int change);
  void limit_refused(std::uint32_t service_or_listener, RefusedLimit limit);
  void event(std::uint32_t name, Event event);
  std::uint64_t log_lines_dropped = 0;
  std::uint64_t loop_stall_max_us = 0;

  void add(const Metrics& other);
  // Prometheus text of the sum; OpenMetrics when asked (then `# EOF`). `series_limit`: at most so
  // many request series, the rest folded into route "-" and counted.
  void render(std::string& out, bool open_metrics, std::uint32_t series_limit) const;
  // The same without process_* and end, for who has families to add.
  void render(MetricText& text, std::uint32_t series_limit) const;

 private:
  struct RequestSlot {
    RequestKey key;
    std::uint64_t count = 0;
  };
  struct DurationSlot {
    std::uint32_t route = 0, service = 0;
    bool used = false;
    Histogram histogram;
  };
  // More keys than this (an upstream that makes statuses up, times routes) are counted under route
  // and service `-`.
  static constexpr std::size_t kMaxRequestKeys = 32'768;
  void count_request(const RequestKey& key, std::uint64_t count);
  Histogram& duration(std::uint32_t route, std::uint32_t service);
  std::size_t find_request(const RequestKey& key);
  std::size_t find_duration(std::uint32_t route, std::uint32_t service);
  std::vector<RequestSlot>
      requests_;  // open addressing, power of two; a slot is used when its count is not 0
  std::size_t request_count_ = 0;
  std::size_t last_request_ = 0;         // most requests are like the one before
  std::vector<DurationSlot> durations_;  // open addressing
  std::size_t duration_count_ = 0;
  std::size_t last_duration_ = 0;
  struct PerService {
    std::array<std::uint64_t, static_cast<std::size_t>(AttemptResult::kCount)> attempts{};
    std::array<std::uint64_t, kReasonCount> retries{};
    std::array<std::int64_t, static_cast<std::size_t>(ConnectionState::kCount)> connections{};
    std::array<std::uint64_t, static_cast<std::size_t>(RefusedLimit::kCount)> refused{};
    std::array<std::uint64_t, static_cast<std::size_t>(Event::kCount)> events{};
  };
  std::vector<PerService> services_;  // by label id, grown on demand
  struct Open {
    std::int64_t count = 0;
    bool seen = false;  // a gauge that fell to nothing is 0, not absent
  };
  std::vector<Open> downstream_;  // by label id of the listener
  PerService& service(std::uint32_t label) {
    if (label >= services_.size()) [[unlikely]]
      services_.resize(label + 1);
    return services_[label];
  }
};

}  // namespace outrider
