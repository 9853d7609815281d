// What the process says when it is asked for its stacks, and when it cannot go on.
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

constexpr char kYaml[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ match: /hello, respond: { status: 200, body: hello } }])";

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++found;
  return found;
}

TEST(Crash, SigquitShowsTheStacksOfAllThreadsAndChangesNothing) {
  Outrider proxy(kYaml, {}, {.workers = 2});
  proxy.signal(SIGQUIT);
  const auto deadline = std::chrono::steady_clock::now() + patience();
  while (count(proxy.errors(), "outrider: stack of thread ") < 3 &&
         std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GE(count(proxy.errors(), "outrider: stack of thread "), 3U);  // control and workers
  EXPECT_EQ(proxy.client().get("/hello").body, "hello");
}

TEST(Crash, AFatalSignalIsNamedWithTheBuild) {
  Outrider proxy(kYaml);
  ASSERT_EQ(proxy.client().get("/hello").status, 200);
  proxy.expect_failure();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  EXPECT_NE(proxy.stop(SIGSEGV), 0);
#else
  EXPECT_EQ(proxy.stop(SIGSEGV), -SIGSEGV);
  EXPECT_NE(proxy.errors().find("outrider: fatal signal 11 (SIGSEGV), outrider "),
            std::string::npos)
      << proxy.errors();
  EXPECT_NE(proxy.errors().find("last request none"), std::string::npos);
#endif
}

}  // namespace
}  // namespace outrider::test
