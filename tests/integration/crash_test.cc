// What the process says when it is asked for its stacks, and when it cannot go on.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

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

// The thread of the only worker.
pid_t worker_thread(pid_t process) {
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
    std::string name;
    std::ifstream(entry.path() / "comm") >> name;
    if (name == "worker-0") return std::stoi(entry.path().filename());
  }
  return -1;
}

TEST(Crash, AFatalSignalIsNamedWithTheBuildAndTheRequest) {
  Outrider proxy(kYaml, {}, {.workers = 1});
  ASSERT_EQ(proxy.client()
                .request({.target = "/hello", .fields = {{"x-request-id", "the-last-one"}}})
                .status,
            200);
  proxy.expect_failure();
  const pid_t thread = worker_thread(proxy.pid());
  ASSERT_GT(thread, 0);
  ASSERT_EQ(::syscall(SYS_tgkill, proxy.pid(), thread, SIGSEGV), 0);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  EXPECT_NE(proxy.wait_exit(), 0);
#else
  EXPECT_EQ(proxy.wait_exit(), -SIGSEGV);
  proxy.await_error("outrider: fatal signal 11 (SIGSEGV), outrider ");
  proxy.await_error("last request the-last-one");
  proxy.await_error("outrider: stack of thread ");
#endif
}

}  // namespace
}  // namespace outrider::test
