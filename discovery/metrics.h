// Counters and histograms, one set per worker: plain integers that only their worker writes. A scrape posts a function to
// each worker, which copies its set, and adds the copies up. Labels are interned names from configuration, never from clients.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/reason.h"

namespace outrider {

// Process-wide table of label values (names of listeners, routes, services); ids never change or end, so that series survive
// reloads. Control thread writes; workers only carry ids. Id 0 is `-`.
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
  static constexpr std::array<std::uint32_t, 14> kBounds = {500,     1'000,   2'500,     5'000,     10'000,    25'000,    50'000,
                                                            100'000, 250'000, 500'000, 1'000'000, 2'500'000, 5'000'000, 10'000'000};
  std::array<std::uint64_t, kBounds.size() + 1> buckets{};
  std::uint64_t sum_us = 0;
  void observe(std::uint64_t us);
  void add(const Histogram& other);
};

enum class AttemptResult : std::uint8_t { kOk, kConnectFailure, kConnectTimeout, kReset, kProtocolError, kTimeout, kStale, kCancelled, kCount };
enum class ConnectionState : std::uint8_t { kConnecting, kIdle, kActive, kCount };
enum class RefusedLimit : std::uint8_t { kConnections, kPerClient, kPending, kRequests, kRetries, kResets, kControlFrames, kHeaders, kHandshake, kOther, kCount };

class Metrics {
 public:
  // One request ended.
  void request(const RequestKey& key, std::uint64_t duration_us);
  void attempt(std::uint32_t service, AttemptResult result);
  void retry(std::uint32_t service, Reason reason);
  void upstream_connection(std::uint32_t service, ConnectionState state, int change);
  void downstream_connection(std::uint32_t listener, int change);
  void limit_refused(std::uint32_t service_or_listener, RefusedLimit limit);
  std::uint64_t log_lines_dropped = 0;
  std::uint64_t loop_stall_max_us = 0;

  void add(const Metrics& other);
  // Prometheus text of the sum; OpenMetrics when asked (then `# EOF`). `series_limit`: at most so many request series, the rest
  // folded into route "-" and counted.
  void render(std::string& out, bool open_metrics, std::uint32_t series_limit) const;
  // For tests and `apply`: value of one series by its exact text, e.g. outrider_requests_total{listener="main",…}.

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
  std::vector<RequestSlot> requests_;    // open addressing, power of two
  std::size_t request_count_ = 0;
  std::vector<DurationSlot> durations_;  // open addressing
  std::size_t duration_count_ = 0;
  struct PerService {
    std::array<std::uint64_t, static_cast<std::size_t>(AttemptResult::kCount)> attempts{};
    std::array<std::uint64_t, kReasonCount> retries{};
    std::array<std::int64_t, static_cast<std::size_t>(ConnectionState::kCount)> connections{};
    std::array<std::uint64_t, static_cast<std::size_t>(RefusedLimit::kCount)> refused{};
  };
  std::vector<PerService> services_;     // by label id, grown on demand
  std::vector<std::int64_t> downstream_;
  PerService& service(std::uint32_t label);
};

}  // namespace outrider
