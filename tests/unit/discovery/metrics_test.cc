#include "discovery/metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <thread>

namespace outrider {
namespace {

std::string text_of(const Metrics& metrics, bool open_metrics = false, std::uint32_t limit = 5000) {
  std::string out;
  metrics.render(out, open_metrics, limit);
  return out;
}

// The value of one series by its exact text; `none` when it is not there.
std::string value(const std::string& text, const std::string& series) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(series + " ")) return line.substr(series.size() + 1);
  return "none";
}

RequestKey key(const char* route, std::uint16_t code = 200, Reason reason = Reason::kOk) {
  return {intern_label("main"), intern_label(route), intern_label("shop"), code, reason};
}

TEST(Labels, AreInternedOnceAndStay) {
  const std::uint32_t id = intern_label("cart");
  EXPECT_EQ(intern_label("cart"), id);
  EXPECT_EQ(label_text(id), "cart");
  EXPECT_EQ(label_text(0), "-");
  EXPECT_EQ(intern_label("-"), 0U);
  EXPECT_EQ(label_text(4'000'000'000), "-");
}

TEST(Labels, ManyThreadsAgree) {
  std::vector<std::thread> threads;
  std::array<std::vector<std::uint32_t>, 4> ids;
  for (auto& mine : ids)
    threads.emplace_back([&mine] {
      for (int i = 0; i < 500; ++i) mine.push_back(intern_label("label-" + std::to_string(i)));
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : ids) EXPECT_EQ(mine, ids[0]);
}

TEST(Metrics, RequestsAreCountedByAllTheirLabels) {
  Metrics metrics;
  for (int i = 0; i < 3; ++i) metrics.request(key("cart"), 700);
  metrics.request(key("cart", 503, Reason::kConnectFailure), 2'000'000);
  metrics.request({intern_label("main"), 0, 0, 404, Reason::kRouteNotFound}, 10);
  const std::string text = text_of(metrics);
  EXPECT_EQ(
      value(
          text,
          R"(outrider_requests_total{listener="main",route="cart",service="shop",code="200",reason="ok"})"),
      "3");
  EXPECT_EQ(
      value(
          text,
          R"(outrider_requests_total{listener="main",route="cart",service="shop",code="503",reason="connect_failure"})"),
      "1");
  EXPECT_EQ(
      value(
          text,
          R"(outrider_requests_total{listener="main",route="-",service="-",code="404",reason="route_not_found"})"),
      "1");
}

TEST(Metrics, DurationsAreACumulativeHistogramInSeconds) {
  Metrics metrics;
  for (const std::uint64_t us : {500, 501, 700'000, 60'000'000}) metrics.request(key("cart"), us);
  const std::string text = text_of(metrics);
  const auto bucket = [&](const char* le) {
    return value(
        text, std::string(
                  R"(outrider_request_duration_seconds_bucket{route="cart",service="shop",le=")") +
                  le + "\"}");
  };
  EXPECT_EQ(bucket("0.0005"), "1");
  EXPECT_EQ(bucket("0.001"), "2");
  EXPECT_EQ(bucket("0.5"), "2");
  EXPECT_EQ(bucket("1.0"), "3");
  EXPECT_EQ(bucket("10.0"), "3");
  EXPECT_EQ(bucket("+Inf"), "4");
  EXPECT_EQ(value(text, R"(outrider_request_duration_seconds_count{route="cart",service="shop"})"),
            "4");
  EXPECT_EQ(value(text, R"(outrider_request_duration_seconds_sum{route="cart",service="shop"})"),
            "60.701001");
}

TEST(Metrics, EveryKeyHasItsOwnCountHoweverManyThereAre) {
  Metrics metrics;
  for (int round = 0; round < 3; ++round)
    for (std::uint32_t route = 1; route <= 700; ++route)
      for (std::uint16_t code = 200; code < 204; ++code)
        metrics.request({1, route, route, code, Reason::kOk}, route);
  const std::string text = text_of(metrics, false, 100'000);
  std::istringstream lines(text);
  int series = 0;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("outrider_requests_total{")) {
      ++series;
      EXPECT_TRUE(line.ends_with(" 3")) << line;
    }
  EXPECT_EQ(series, 2800);
}

TEST(Metrics, WorkersAddUp) {
  Metrics one, two;
  const std::uint32_t shop = intern_label("shop"), main = intern_label("main");
  for (Metrics* metrics : {&one, &two}) {
    metrics->request(key("cart"), 1000);
    metrics->attempt(shop, AttemptResult::kOk);
    metrics->attempt(shop, AttemptResult::kReset);
    metrics->retry(shop, Reason::kUpstreamReset);
    metrics->upstream_connection(shop, ConnectionState::kIdle, 2);
    metrics->downstream_connection(main, 3);
    metrics->limit_refused(shop, RefusedLimit::kPending);
    metrics->log_lines_dropped = 4;
  }
  one.request(key("only-one"), 5);
  two.upstream_connection(shop, ConnectionState::kIdle, -1);
  one.loop_stall_max_us = 1500;
  two.loop_stall_max_us = 500;
  Metrics sum;
  sum.add(one);
  sum.add(two);
  const std::string text = text_of(sum);
  EXPECT_EQ(
      value(
          text,
          R"(outrider_requests_total{listener="main",route="cart",service="shop",code="200",reason="ok"})"),
      "2");
  EXPECT_EQ(
      value(
          text,
          R"(outrider_requests_total{listener="main",route="only-one",service="shop",code="200",reason="ok"})"),
      "1");
  EXPECT_EQ(value(text, R"(outrider_request_duration_seconds_count{route="cart",service="shop"})"),
            "2");
  EXPECT_EQ(value(text, R"(outrider_attempts_total{service="shop",result="ok"})"), "2");
  EXPECT_EQ(value(text, R"(outrider_attempts_total{service="shop",result="reset"})"), "2");
  EXPECT_EQ(value(text, R"(outrider_retries_total{service="shop",reason="upstream_reset"})"), "2");
  EXPECT_EQ(value(text, R"(outrider_upstream_connections{service="shop",state="idle"})"), "3");
  EXPECT_EQ(value(text, R"(outrider_upstream_connections{service="shop",state="active"})"), "0");
  EXPECT_EQ(value(text, R"(outrider_downstream_connections{listener="main"})"), "6");
  EXPECT_EQ(value(text, R"(outrider_limit_refused_total{service="shop",limit="pending"})"), "2");
  EXPECT_EQ(value(text, "outrider_log_lines_dropped_total"), "8");
  EXPECT_EQ(value(text, "outrider_loop_stall_seconds"), "0.0015");
}

TEST(Metrics, AGaugeThatFellToNothingIsZero) {
  Metrics metrics;
  const std::uint32_t id = intern_label("gauge-listener");
  metrics.downstream_connection(id, 1);
  metrics.downstream_connection(id, -1);
  EXPECT_EQ(
      value(text_of(metrics), R"(outrider_downstream_connections{listener="gauge-listener"})"),
      "0");
}

TEST(Metrics, BeyondTheLimitSeriesAreFoldedAndNothingIsLost) {
  Metrics metrics;
  for (std::uint32_t route = 1; route <= 100; ++route)
    metrics.request({1, route, 1, 200, Reason::kOk}, 1);
  const std::string text = text_of(metrics, false, 10);
  std::istringstream lines(text);
  std::uint64_t series = 0, total = 0;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("outrider_requests_total{")) {
      ++series;
      total += std::stoull(line.substr(line.rfind(' ')));
    }
  EXPECT_EQ(series, 11U);
  EXPECT_EQ(total, 100U);
  EXPECT_EQ(value(text, "outrider_metric_series_folded"), "90");
  EXPECT_EQ(value(text, R"(outrider_request_duration_seconds_count{route="-",service="-"})"), "91");
  EXPECT_EQ(value(text_of(metrics), "outrider_metric_series_folded"), "0");
}

TEST(Metrics, StatusesThatAnUpstreamMakesUpCannotGrowTheTableWithoutEnd) {
  Metrics metrics;
  std::uint64_t counted = 0;
  for (std::uint32_t route = 1; route <= 80; ++route)
    for (std::uint16_t code = 100; code < 1000; ++code, ++counted)
      metrics.request({1, route, 1, code, Reason::kOk}, 1);
  const std::string text = text_of(metrics, false, 1'000'000);
  std::istringstream lines(text);
  std::uint64_t series = 0, total = 0;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("outrider_requests_total{")) {
      ++series;
      total += std::stoull(line.substr(line.rfind(' ')));
    }
  EXPECT_LE(series, 40'000U);
  EXPECT_EQ(total, counted);
}

TEST(Metrics, LabelsAreEscaped) {
  Metrics metrics;
  metrics.request({intern_label("a\"b\\c\nd"), 0, 0, 200, Reason::kOk}, 1);
  EXPECT_NE(text_of(metrics).find(R"({listener="a\"b\\c\nd",)"), std::string::npos);
}

TEST(Metrics, EveryFamilyIsDescribedOnceBeforeItsSamples) {
  for (const bool open_metrics : {false, true}) {
    Metrics metrics;
    metrics.request(key("cart"), 1);
    metrics.attempt(intern_label("shop"), AttemptResult::kOk);
    std::set<std::string> described;
    std::string current;
    std::istringstream lines(text_of(metrics, open_metrics));
    for (std::string line; std::getline(lines, line);) {
      if (line == "# EOF") break;
      if (line.starts_with("# HELP ")) {
        current = line.substr(7, line.find(' ', 7) - 7);
        EXPECT_TRUE(described.insert(current).second) << current;
      } else if (line.starts_with("# TYPE ")) {
        EXPECT_TRUE(line.starts_with("# TYPE " + current + " ")) << line;
      } else {
        EXPECT_TRUE(line.starts_with(current)) << line << " under " << current;
      }
    }
    for (const char* family : {"outrider_requests", "outrider_attempts", "process_cpu_seconds"}) {
      EXPECT_EQ(described.contains(family), open_metrics) << family;
      EXPECT_EQ(described.contains(std::string(family) + "_total"), !open_metrics) << family;
    }
  }
}

TEST(Metrics, OnlyOpenMetricsHasAnEnd) {
  const Metrics metrics;
  EXPECT_TRUE(text_of(metrics, true).ends_with("\n# EOF\n"));
  EXPECT_EQ(text_of(metrics, false).find("# EOF"), std::string::npos);
}

TEST(Metrics, TheProcessSpeaksOfItself) {
  const std::string text = text_of(Metrics());
  EXPECT_GT(std::stod(value(text, "process_resident_memory_bytes")), 1e6);
  EXPECT_GE(std::stod(value(text, "process_open_fds")), 3);
  EXPECT_GE(std::stod(value(text, "process_threads")), 1);
  EXPECT_GE(std::stod(value(text, "process_cpu_seconds_total")), 0);
  EXPECT_GT(std::stod(value(text, "process_start_time_seconds")), 1.5e9);
}

}  // namespace
}  // namespace outrider
