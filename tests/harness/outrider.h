// The built binary on a configuration, as a child process: the thing under test of every
// integration test. Invariant: a test that lets it go sees it end cleanly; anything else (a crash,
// a sanitizer's report, a hang) fails that test with what the process wrote.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/raw_client.h"

namespace outrider::test {

// The path of the binary under test; OUTRIDER_BINARY overrides the one of this build.
std::string outrider_binary();
// True where the binary is a release build: the tests that need its speed or its memory figures
// ask.
bool release_build();

// One run of a command to its end.
struct CommandResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};
CommandResult run_outrider(const std::vector<std::string>& arguments, std::string_view input = {});

// A folder of its own under the temporary one, removed with this.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  // Writes a file, folders above it included; its full path.
  std::string write(const std::string& name, std::string_view content) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Removes the indentation that all lines share, so that YAML may stand indented in a test.
std::string dedent(std::string_view text);

class Outrider {
 public:
  using Substitutions = std::map<std::string, std::string>;
  using LogLine =
      std::map<std::string, std::string>;  // values as text; strings without quotes, null as ""

  struct Options {
    int workers = 2;
    std::vector<std::string> arguments = {};        // after `run FILE`
    std::map<std::string, std::string> files = {};  // beside the configuration, by relative name
    bool await_ready = true;
    bool add_surfaces = true;  // admin, metrics and access log as below
  };

  // $NAME in the YAML stands for a substitution; $REFUSING for an address where connecting is
  // refused. Unless the YAML says otherwise, the admin and metrics surfaces are on free ports and
  // the access log is JSON.
  explicit Outrider(std::string_view yaml, const Substitutions& substitutions = {});
  Outrider(std::string_view yaml, const Substitutions& substitutions, Options options);
  ~Outrider();
  Outrider(const Outrider&) = delete;
  Outrider& operator=(const Outrider&) = delete;

  // Where the listener of this name is bound.
  std::string address(const std::string& listener = "main");
  Client client(Protocol protocol = Protocol::kHttp1, const std::string& listener = "main") {
    return Client(address(listener), protocol);
  }
  RawClient raw(const std::string& listener = "main") { return RawClient(address(listener)); }

  // The sum of all series that have these labels:
  // metric("outrider_requests_total{service='shop',code='200'}"); 0 if none.
  double metric(const std::string& series);
  // Polls until the metric has the value; the last value seen, for EXPECT_EQ.
  double await_metric(const std::string& series, double value);
  Response admin(const std::string& target, const std::string& method = "GET");

  // Waits for this many access log lines; all lines so far.
  std::vector<LogLine> log(std::size_t at_least);
  // All of stderr so far; await_error() waits until it contains the text.
  std::string errors();
  void await_error(std::string_view text);

  void signal(int number) const;
  // Sends the signal and waits for the end: the exit code, or -N when signal N ended it.
  int stop(int signal_number);
  int stop();  // SIGTERM
  int wait_exit();
  // The test expects an unclean end: the destructor says nothing of the exit code.
  void expect_failure() { expect_failure_ = true; }

  pid_t pid() const { return pid_; }
  // From /proc: resident memory without shared file pages, open descriptors, consumed CPU time.
  std::size_t resident_bytes() const;
  std::size_t descriptors() const;
  double cpu_seconds() const;

  const std::string& yaml() const { return yaml_; }
  const TemporaryFolder& folder() const { return folder_; }
  std::string config_path() const { return folder_.path() + "/outrider.yaml"; }

 private:
  void start(const Options& options);
  void read_errors(int fd);
  void read_output(int fd);
  bool reap(std::chrono::milliseconds within);
  std::string surface(const std::string& name, const std::string& target,
                      const std::string& accept);
  std::string last_errors();

  TemporaryFolder folder_;
  RefusingPort refusing_;
  std::string yaml_;
  pid_t pid_ = -1;
  bool expect_failure_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> addresses_;
  std::vector<LogLine> log_;
  std::string errors_;
  bool ready_ = false;
  bool errors_over_ = false;
  bool output_over_ = false;
  bool exited_ = false;
  int exit_code_ = 0;
  std::thread errors_reader_;
  std::thread output_reader_;
  std::thread waiter_;
};

}  // namespace outrider::test
