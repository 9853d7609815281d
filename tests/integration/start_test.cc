// What a start takes, what it leaves alone, and what the command line says.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using testing::HasSubstr;
using testing::Not;

// A socket that stands at a path, and nothing more.
class Standing {
 public:
  Standing(const std::string& path, int type, int backlog = -1)
      : fd_(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    if (backlog >= 0) {
      EXPECT_EQ(::listen(fd_, backlog), 0);
    }
  }
  ~Standing() { ::close(fd_); }
  Standing(const Standing&) = delete;
  Standing& operator=(const Standing&) = delete;

 private:
  int fd_;
};

// A non-blocking connection, or its failure.
int connect_to(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

CommandResult run_with(const TemporaryFolder& folder, const std::string& yaml) {
  const std::string file = folder.write(
      "outrider.yaml", "outrider: v1\nadmin: false\nroutes: [{ respond: 404 }]\n" + yaml);
  return run_outrider({"run", file});
}

constexpr char kNoMetrics[] = "telemetry: { metrics: false }\n";

TEST(Start, ASocketOfAnotherKindIsLeftAlone) {
  const TemporaryFolder folder;
  const Standing datagrams(folder.path() + "/s.sock", SOCK_DGRAM);
  const CommandResult result = run_with(folder, std::string(kNoMetrics) + "listen: unix:s.sock\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("address already in use"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() + "/s.sock"));
}

TEST(Start, ASocketWhoseQueueIsFullIsInUse) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/s.sock";
  const Standing busy(path, SOCK_STREAM, 0);
  std::vector<int> waiting;
  for (int fd = connect_to(path); fd >= 0; fd = connect_to(path)) waiting.push_back(fd);
  const CommandResult result = run_with(folder, std::string(kNoMetrics) + "listen: unix:s.sock\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("address already in use"));
  for (const int fd : waiting) ::close(fd);
}

TEST(Start, ASocketThatWasLeftBehindIsReplaced) {
  const TemporaryFolder folder;
  { const Standing gone(folder.path() + "/s.sock", SOCK_STREAM, 1); }
  ASSERT_TRUE(std::filesystem::exists(folder.path() + "/s.sock"));
  Outrider proxy(R"(
    outrider: v1
    listen: "unix:$SOCKET"
    routes: [{ respond: 204 }])",
                 {{"SOCKET", folder.path() + "/s.sock"}});
  EXPECT_EQ(proxy.client().get("/").status, 204);
}

TEST(Start, OneThatFailsLeavesNoSocketBehind) {
  const TemporaryFolder folder;
  const Standing taken(folder.path() + "/taken.sock", SOCK_STREAM, 8);
  const CommandResult result = run_with(folder,
                                        "listeners:\n  a: { address: unix:a.sock }\n"
                                        "  b: { address: unix:b.sock }\n"
                                        "telemetry: { metrics: { address: unix:taken.sock } }\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/a.sock"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/b.sock"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() + "/taken.sock"));
}

TEST(Start, AllSocketsGoWithTheProcess) {
  const TemporaryFolder folder;
  Outrider proxy(R"(
    outrider: v1
    listen: "unix:$FOLDER/a.sock"
    admin: { address: "unix:$FOLDER/admin.sock" }
    telemetry: { metrics: { address: "unix:$FOLDER/metrics.sock" } }
    routes: [{ respond: 204 }])");
  for (const char* name : {"/a.sock", "/admin.sock", "/metrics.sock"})
    EXPECT_TRUE(std::filesystem::exists(proxy.folder().path() + name)) << name;
  EXPECT_EQ(proxy.stop(SIGINT), 0);
  for (const char* name : {"/a.sock", "/admin.sock", "/metrics.sock"})
    EXPECT_FALSE(std::filesystem::exists(proxy.folder().path() + name)) << name;
}

// Two names of one socket that only the file system knows to be one.
TEST(Start, ASocketOfOurOwnIsInUseBeforeWeAreReady) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.path() + "/real");
  std::filesystem::create_symlink("real", folder.path() + "/link");
  const CommandResult result = run_with(folder, std::string(kNoMetrics) +
                                                    "listeners:\n"
                                                    "  a: { address: unix:real/s.sock }\n"
                                                    "  b: { address: unix:link/s.sock }\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("address already in use"));
}

TEST(Start, APortThatAnotherSharesIsInUse) {
  Outrider first(R"(
    outrider: v1
    listen: 127.0.0.1:0
    routes: [{ respond: 204 }])");
  const std::string port = first.address().substr(first.address().rfind(':') + 1);
  for (const std::string& address : {"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port}) {
    const TemporaryFolder folder;
    const CommandResult result =
        run_with(folder, std::string(kNoMetrics) + "listen: \"" + address + "\"\n");
    EXPECT_EQ(result.exit_code, 1) << address;
  }
}

TEST(Start, ADefaultAddressGivesWayToAWrittenOne) {
  Outrider::Options options;
  options.await_ready = options.add_surfaces = false;
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    telemetry: { metrics: { address: 127.0.0.1:9901 } }
    routes: [{ respond: 204 }])",
                 {}, options);
  proxy.expect_failure();
  proxy.await_error("127.0.0.1:9901");
  if (proxy.errors().find("cannot listen on 127.0.0.1:9901 (metrics)") != std::string::npos)
    GTEST_SKIP() << "the default port is somebody else's";
  proxy.await_error("ready");
  EXPECT_THAT(proxy.errors(), HasSubstr("listening metrics 127.0.0.1:9901"));
  EXPECT_THAT(proxy.errors(), HasSubstr("admin is off"));
}

TEST(CommandLine, WordsTooManyAndTooFewAreUsageErrors) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--version", "x"}, {"--help", "x"}, {"version", "x"}})
    EXPECT_EQ(run_outrider(words).exit_code, 64) << words.front();
  const CommandResult run = run_outrider({"run"});
  EXPECT_EQ(run.exit_code, 64);
  EXPECT_THAT(run.err, HasSubstr("CONFIG is required"));
  EXPECT_EQ(run_outrider({"--help"}).exit_code, 0);
}

TEST(CommandLine, TheVersionNamesItsLibraries) {
  const CommandResult result = run_outrider({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* library :
       {"\nyaml-cpp ", "\nre2 ", "\nnghttp2 ", "\nzlib ", "\nbrotli ", "\nzstd "})
    EXPECT_THAT(result.out, HasSubstr(library));
  EXPECT_THAT(result.out, Not(HasSubstr("unknown\n")));
}

}  // namespace
}  // namespace outrider::test
