// A server that fails always, under any number of clients: retries may cost it a fifth of its load
// and ten a second, whatever the route asks for, and however many workers there are. Counted where
// it hurts, at the server.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <string>

#include "tests/harness/load.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int kConcurrency[] = {1, 2, 5, 10, 50, 100, 300, 1000};
constexpr auto kLoadFor = 800ms;

struct Failing {
  const char* name;
  int status;  // that its clients hear
  LoadServer::Cuts cuts;
};

class RetryBudget : public testing::TestWithParam<Failing> {};

TEST_P(RetryBudget, BoundsTheLoadOnAServerThatFailsAlways) {
  LoadServer server([](const Head&) { return Response{.status = 503, .body = "no"}; },
                    GetParam().cuts);
  // Each concurrency has a service, and so a budget, of its own.
  std::string yaml = R"(
    outrider: v1
    listen: 127.0.0.1:0
    telemetry: { access_log: false, metrics: { address: "127.0.0.1:0" } }
    defaults:
      route: { retry: { attempts: 2, when: [5xx, reset, connect-failure, refused-stream] } }
    services:)";
  for (const int clients : kConcurrency)
    yaml += "\n      at" + std::to_string(clients) + ": \"$SERVER\"";
  yaml += "\n    routes:";
  for (const int clients : kConcurrency)
    yaml += "\n      - { match: /" + std::to_string(clients) + ", to: at" +
            std::to_string(clients) + " }";
  Outrider proxy(yaml, {{"SERVER", server.address()}}, {.workers = 4});

  for (const int clients : kConcurrency) {
    SCOPED_TRACE(std::to_string(clients) + " clients");
    const std::uint64_t before = server.requests();
    std::uint64_t load = 0;
    std::uint64_t others = 0;
    const std::string request =
        "GET /" + std::to_string(clients) + " HTTP/1.1\r\nHost: a.test\r\n\r\n";
    const auto begun = Clock::now();
    run_load(
        proxy.address(), clients,
        {.request = [&](std::uint64_t) { return Clock::now() - begun < kLoadFor ? request : ""; },
         .outcome =
             [&](std::uint64_t, int status, std::string_view) {
               ++load;
               if (status != GetParam().status) ++others;
             }});
    const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    const auto seen = static_cast<double>(server.requests() - before);

    EXPECT_EQ(others, 0u);
    EXPECT_GT(seen, static_cast<double>(load));  // there are retries to be bounded
    // The ten of a second that had begun, and of the one that began last.
    EXPECT_LE(seen, 1.2 * static_cast<double>(load) + 10 * (std::ceil(seconds) + 1));
    const std::string service = "{service='at" + std::to_string(clients) + "'}";
    EXPECT_EQ(
        proxy.await_metric("outrider_retries_total" + service, seen - static_cast<double>(load)),
        seen - static_cast<double>(load));
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, RetryBudget,
                         testing::Values(Failing{"Answering503", 503, {}},
                                         Failing{"Resetting", 502,
                                                 [](LoadServer::Moment moment) {
                                                   return moment == LoadServer::Moment::kApplied;
                                                 }}),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace outrider::test
