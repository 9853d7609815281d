// Starting, watching and ending the binary; its metrics and log lines as values.
#include "tests/harness/outrider.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

extern char** environ;

namespace outrider::test {
namespace {

namespace fs = std::filesystem;

struct Pipe {
  Pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) throw HarnessError("no pipe");
    read = fds[0];
    write = fds[1];
  }
  int read;
  int write;
};

// Starts the binary; `in` (or nothing), `out` and `err` become its standard streams.
pid_t spawn(const std::vector<std::string>& arguments, int in, int out, int err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (in >= 0) {
    posix_spawn_file_actions_adddup2(&actions, in, 0);
  } else {
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  }
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  const std::string binary = outrider_binary();
  std::vector<char*> argv{const_cast<char*>(binary.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw HarnessError(binary + ": " + std::strerror(error));
  return pid;
}

// Calls `on_line` for each line up to the end of the stream, without its newline.
template <class OnLine>
void read_lines(int fd, OnLine on_line) {
  std::string pending;
  char chunk[16 * 1024];
  for (ssize_t size = 0; (size = ::read(fd, chunk, sizeof chunk)) > 0;) {
    pending.append(chunk, static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = pending.find('\n', begin)) != std::string::npos;
         begin = end + 1)
      on_line(std::string_view(pending).substr(begin, end - begin));
    pending.erase(0, begin);
  }
  if (!pending.empty()) on_line(pending);
  ::close(fd);
}

int exit_code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status); }

std::string substitute(std::string text, const Outrider::Substitutions& substitutions) {
  // Longer names first, so that $ORIGIN does not eat the start of $ORIGIN2.
  std::vector<std::pair<std::string, std::string>> ordered(substitutions.begin(),
                                                           substitutions.end());
  std::sort(ordered.begin(), ordered.end(),
            [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  for (const auto& [name, value] : ordered) {
    const std::string variable = "$" + name;
    for (std::size_t at = 0; (at = text.find(variable, at)) != std::string::npos;
         at += value.size())
      text.replace(at, variable.size(), value);
  }
  return text;
}

bool has_key(const std::string& yaml, std::string_view key) {
  return yaml.starts_with(key) || yaml.find("\n" + std::string(key)) != std::string::npos;
}

// "name{a='1',b='2'}" or a Prometheus line's "name{a="1",b="2"}" as name and labels.
struct Series {
  std::string name;
  std::map<std::string, std::string> labels;
};

Series parse_series(std::string_view text) {
  Series series;
  const std::size_t brace = text.find('{');
  series.name = text.substr(0, brace);
  if (brace == std::string_view::npos) return series;
  std::size_t at = brace + 1;
  while (at < text.size() && text[at] != '}') {
    const std::size_t equals = text.find('=', at);
    if (equals == std::string_view::npos || equals + 1 >= text.size()) break;
    const char quote = text[equals + 1];
    std::string value;
    std::size_t end = equals + 2;
    for (; end < text.size() && text[end] != quote; ++end) {
      if (text[end] == '\\' && end + 1 < text.size()) ++end;
      value += text[end];
    }
    series.labels[std::string(text.substr(at, equals - at))] = std::move(value);
    at = end + 1;
    while (at < text.size() && (text[at] == ',' || text[at] == ' ')) ++at;
  }
  return series;
}

bool contains(const Series& all, const Series& asked) {
  return all.name == asked.name &&
         std::all_of(asked.labels.begin(), asked.labels.end(), [&](const auto& label) {
           const auto found = all.labels.find(label.first);
           return found != all.labels.end() && found->second == label.second;
         });
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace

std::string outrider_binary() {
  const char* const path = std::getenv("OUTRIDER_BINARY");
  return path != nullptr ? path : OUTRIDER_BUILT_BINARY;
}

bool release_build() { return std::getenv("OUTRIDER_RELEASE") != nullptr; }

CommandResult run_outrider(const std::vector<std::string>& arguments, std::string_view input) {
  Pipe in;
  Pipe out;
  Pipe err;
  const pid_t pid = spawn(arguments, in.read, out.write, err.write);
  ::close(in.read);
  ::close(out.write);
  ::close(err.write);
  CommandResult result;
  const auto drain = [](int fd, std::string& into) {
    char chunk[16 * 1024];
    for (ssize_t size = 0; (size = ::read(fd, chunk, sizeof chunk)) > 0;)
      into.append(chunk, static_cast<std::size_t>(size));
    ::close(fd);
  };
  std::thread read_out([&] { drain(out.read, result.out); });
  std::thread read_err([&] { drain(err.read, result.err); });
  std::thread write_in([&] {
    // A command that does not read its input must not stop this with SIGPIPE.
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
    for (std::string_view rest = input; !rest.empty();) {
      const ssize_t size = ::write(in.write, rest.data(), rest.size());
      if (size <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(size));
    }
    ::close(in.write);
  });
  int status = 0;
  const auto deadline = std::chrono::steady_clock::now() + patience();
  bool late = false;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline && !late) {
      late = true;
      kill(pid, SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  read_out.join();
  read_err.join();
  write_in.join();
  if (late) throw HarnessError("the command did not end:\n" + result.err);
  result.exit_code = exit_code_of(status);
  return result;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "outrider-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw HarnessError("no temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, std::string_view content) const {
  const fs::path path = fs::path(path_) / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path.string();
}

std::string dedent(std::string_view text) {
  std::vector<std::string_view> lines;
  std::size_t shared = std::string_view::npos;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    const std::size_t indent = lines.back().find_first_not_of(' ');
    if (indent != std::string_view::npos) shared = std::min(shared, indent);
    begin = end + 1;
  }
  std::string result;
  for (const std::string_view line : lines) {
    const bool blank = line.find_first_not_of(' ') == std::string_view::npos;
    if (blank && result.empty()) continue;
    if (!blank) result += line.substr(shared);
    result += '\n';
  }
  return result;
}

Outrider::Outrider(std::string_view yaml, const Substitutions& substitutions)
    : Outrider(yaml, substitutions, Options{}) {}

Outrider::Outrider(std::string_view yaml, const Substitutions& substitutions, Options options) {
  Substitutions all = substitutions;
  all.emplace("REFUSING", refusing_.address());
  all.emplace("FOLDER", folder_.path());
  yaml_ = substitute(dedent(yaml), all);
  if (options.add_surfaces && !has_key(yaml_, "admin:"))
    yaml_ += "admin: { address: \"127.0.0.1:0\" }\n";
  if (options.add_surfaces && !has_key(yaml_, "telemetry:"))
    yaml_ += "telemetry: { access_log: json, metrics: { address: \"127.0.0.1:0\" } }\n";
  folder_.write("outrider.yaml", yaml_);
  for (const auto& [name, content] : options.files) folder_.write(name, substitute(content, all));
  start(options);
  if (!options.await_ready) return;
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_for(lock, patience(), [&] { return ready_ || errors_over_; });
  if (ready_) return;
  const std::string written = errors_;
  lock.unlock();
  expect_failure_ = true;
  if (!in_time) kill(pid_, SIGKILL);
  reap(patience());
  errors_reader_.join();
  output_reader_.join();
  waiter_.join();
  throw HarnessError("outrider did not become ready:\n" + written + "\nwith\n" + yaml_);
}

void Outrider::start(const Options& options) {
  Pipe out;
  Pipe err;
  std::vector<std::string> arguments{"run", config_path(), "--no-watch", "--workers",
                                     std::to_string(options.workers)};
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  pid_ = spawn(arguments, -1, out.write, err.write);
  ::close(out.write);
  ::close(err.write);
  errors_reader_ = std::thread([this, fd = err.read] { read_errors(fd); });
  output_reader_ = std::thread([this, fd = out.read] { read_output(fd); });
  waiter_ = std::thread([this] {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
    const std::lock_guard lock(mutex_);
    exited_ = true;
    exit_code_ = exit_code_of(status);
    changed_.notify_all();
  });
}

void Outrider::read_errors(int fd) {
  read_lines(fd, [this](std::string_view line) {
    const std::lock_guard lock(mutex_);
    errors_.append(line).push_back('\n');
    constexpr std::string_view kListening = "listening ";
    if (line == "ready") ready_ = true;
    if (line.starts_with(kListening)) {
      const std::string_view rest = line.substr(kListening.size());
      const std::size_t space = rest.rfind(' ');
      if (space != std::string_view::npos)
        addresses_[std::string(rest.substr(0, space))] = rest.substr(space + 1);
    }
    changed_.notify_all();
  });
  const std::lock_guard lock(mutex_);
  errors_over_ = true;
  changed_.notify_all();
}

void Outrider::read_output(int fd) {
  read_lines(fd, [this](std::string_view line) {
    LogLine values;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object()) {
      for (const auto& [key, value] : json.items())
        values[key] = value.is_null()     ? ""
                      : value.is_string() ? value.get<std::string>()
                                          : value.dump();
    } else {
      values["line"] = line;
    }
    const std::lock_guard lock(mutex_);
    log_.push_back(std::move(values));
    changed_.notify_all();
  });
  const std::lock_guard lock(mutex_);
  output_over_ = true;
  changed_.notify_all();
}

Outrider::~Outrider() {
  if (!waiter_.joinable()) return;
  // SIGINT drains without delay; a second one does not wait for what is still open.
  kill(pid_, SIGINT);
  if (!reap(std::chrono::milliseconds(500))) {
    kill(pid_, SIGINT);
    if (!reap(patience())) {
      ADD_FAILURE() << "outrider did not end after two SIGINT; it wrote:\n" << last_errors();
      expect_failure_ = true;
      kill(pid_, SIGKILL);
    }
  }
  waiter_.join();
  errors_reader_.join();
  output_reader_.join();
  if (!expect_failure_ && exit_code_ != 0)
    ADD_FAILURE() << "outrider ended with " << exit_code_ << "; it wrote:\n" << last_errors();
}

std::string Outrider::last_errors() {
  const std::lock_guard lock(mutex_);
  constexpr std::size_t kShown = 16 * 1024;
  return errors_.size() > kShown ? errors_.substr(errors_.size() - kShown) : errors_;
}

bool Outrider::reap(std::chrono::milliseconds within) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, within, [&] { return exited_; });
}

std::string Outrider::address(const std::string& listener) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience(),
                    [&] { return addresses_.contains(listener) || ready_ || errors_over_; });
  const auto found = addresses_.find(listener);
  if (found == addresses_.end())
    throw HarnessError("no listener '" + listener + "' in:\n" + errors_);
  return found->second;
}

std::string Outrider::surface(const std::string& name, const std::string& target,
                              const std::string& accept) {
  Client client(address(name));
  const Response response = client.request(
      {.target = target, .authority = address(name), .fields = {{"accept", accept}}});
  if (response.status != 200)
    throw HarnessError(target + " answered " + std::to_string(response.status));
  return response.body;
}

double Outrider::metric(const std::string& series) {
  const Series asked = parse_series(series);
  std::istringstream text(surface("metrics", "/metrics", "text/plain"));
  double sum = 0;
  for (std::string line; std::getline(text, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    // Label values may hold spaces: the value stands behind the labels.
    const std::size_t space =
        line.find(' ', line.find('{') == std::string::npos ? 0 : line.rfind('}'));
    if (space != std::string::npos &&
        contains(parse_series(std::string_view(line).substr(0, space)), asked))
      sum += std::strtod(line.c_str() + space, nullptr);
  }
  return sum;
}

double Outrider::await_metric(const std::string& series, double value) {
  const auto deadline = std::chrono::steady_clock::now() + patience();
  double seen = metric(series);
  while (seen != value && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    seen = metric(series);
  }
  return seen;
}

Response Outrider::admin(const std::string& target, const std::string& method) {
  return Client(address("admin"))
      .request({.method = method, .target = target, .authority = address("admin")});
}

std::vector<Outrider::LogLine> Outrider::log(std::size_t at_least) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience(), [&] { return log_.size() >= at_least || output_over_; });
  if (log_.size() < at_least)
    throw HarnessError("only " + std::to_string(log_.size()) + " access log lines; stderr:\n" +
                       errors_);
  return log_;
}

std::string Outrider::errors() {
  const std::lock_guard lock(mutex_);
  return errors_;
}

void Outrider::await_error(std::string_view text) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience(),
                    [&] { return errors_.find(text) != std::string::npos || errors_over_; });
  if (errors_.find(text) == std::string::npos)
    throw HarnessError("'" + std::string(text) + "' is not in:\n" + errors_);
}

void Outrider::signal(int number) const { kill(pid_, number); }

int Outrider::stop() { return stop(SIGTERM); }

int Outrider::stop(int signal_number) {
  signal(signal_number);
  return wait_exit();
}

int Outrider::wait_exit() {
  if (!reap(patience())) throw HarnessError("outrider did not end:\n" + last_errors());
  return exit_code_;
}

std::size_t Outrider::resident_bytes() const {
  std::istringstream rollup(read_file("/proc/" + std::to_string(pid_) + "/status"));
  for (std::string line; std::getline(rollup, line);)
    if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
  return 0;
}

std::size_t Outrider::descriptors() const {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       fs::directory_iterator("/proc/" + std::to_string(pid_) + "/fd"))
    ++count;
  return count;
}

double Outrider::cpu_seconds() const {
  const std::string stat = read_file("/proc/" + std::to_string(pid_) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace outrider::test
