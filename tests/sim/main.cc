// outrider_sim: the data path of the real proxy under a virtual clock, on a simulated network.
// Every run has a process of its own, so that a crash is a failed run and no run knows of another.
//
//   outrider_sim --seeds 16 [--scenario NAME] [--seed FIRST] [--jobs N]    many; exit 1 if one
//   fails outrider_sim --seed N --scenario NAME                                  one, again
//   outrider_sim --twice …            each twice: both must go the same way, step by step
//   outrider_sim --figures …          the table of docs/simulation.md
//   outrider_sim --list
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/sim/run.h"

namespace outrider::sim {
namespace {

constexpr unsigned kLongest = 240;  // real seconds, of one run

struct Options {
  std::uint64_t seed = 1;
  std::uint64_t seeds = 1;
  std::string scenario;  // empty: all
  std::string policy = "outrider";
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  bool twice = false;
  bool figures = false;
  bool list = false;
};

struct Task {
  const Scenario* scenario;
  const Policy* policy;
  std::uint64_t seed;
};

// In a process of its own.
bool run(const Task& task, Figures& figures) {
  ::alarm(kLongest);
  Run run(task.seed, *task.policy);
  task.scenario->build(run);
  figures = run.play();
  for (const std::string& what : run.world.violations()) std::fprintf(stderr, "%s\n", what.c_str());
  return run.world.violations().empty();
}

class Runner {
 public:
  explicit Runner(const std::vector<Task>& tasks)
      : tasks_(tasks),
        bytes_(sizeof(Figures) * std::max<std::size_t>(tasks.size(), 1)),
        results_(static_cast<Figures*>(
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~Runner() { ::munmap(results_, bytes_); }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  std::size_t run_all(unsigned jobs) {
    for (std::size_t next = 0; next < tasks_.size() || !running_.empty();) {
      if (next < tasks_.size() && running_.size() < jobs)
        start(next++);
      else
        wait();
    }
    return failed_;
  }
  const Figures& result(std::size_t task) const { return results_[task]; }

 private:
  void start(std::size_t task) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) std::exit(run(tasks_[task], results_[task]) ? 0 : 1);
    running_[child] = task;
  }
  void wait() {
    int status = 0;
    const pid_t child = ::wait(&status);
    const auto found = running_.find(child);
    if (found == running_.end()) return;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      const Task& task = tasks_[found->second];
      ++failed_;
      std::fprintf(stderr, "FAILED%s: outrider_sim --seed %llu --scenario %s --policy %s\n",
                   WIFSIGNALED(status) ? ::strsignal(WTERMSIG(status)) : "",
                   static_cast<unsigned long long>(task.seed),
                   std::string(task.scenario->name).c_str(),
                   std::string(task.policy->name).c_str());
    }
    running_.erase(found);
  }

  const std::vector<Task>& tasks_;
  const std::size_t bytes_;
  Figures* const results_;
  std::map<pid_t, std::size_t> running_;
  std::size_t failed_ = 0;
};

int usage() {
  std::fputs(
      "usage: outrider_sim [--scenario NAME] [--seed N] [--seeds COUNT] [--policy NAME]\n"
      "                    [--jobs N] [--twice] [--figures] | --list\n",
      stderr);
  return 64;
}

bool parse(const std::vector<std::string_view>& words, Options& options) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--twice" || word == "--figures" || word == "--list") {
      (word == "--twice"  ? options.twice
       : word == "--list" ? options.list
                          : options.figures) = true;
      continue;
    }
    if (i + 1 == words.size()) return false;
    const std::string value(words[++i]);
    if (word == "--scenario")
      options.scenario = value == "all" ? "" : value;
    else if (word == "--policy")
      options.policy = value;
    else if (word == "--seed")
      options.seed = std::strtoull(value.c_str(), nullptr, 10);
    else if (word == "--seeds")
      options.seeds = std::strtoull(value.c_str(), nullptr, 10);
    else if (word == "--jobs")
      options.jobs = std::max(1U, static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10)));
    else
      return false;
  }
  return true;
}

std::vector<Task> tasks_of(const Options& options) {
  std::vector<Task> tasks;
  for (const Scenario& scenario : kScenarios) {
    if (!options.scenario.empty() && scenario.name != options.scenario) continue;
    for (const Policy& policy : kPolicies) {
      if (options.figures ? policy.name == "mixed" : policy.name != options.policy) continue;
      for (std::uint64_t i = 0; i < options.seeds; ++i)
        for (int again = 0; again < (options.twice ? 2 : 1); ++again)
          tasks.push_back({&scenario, &policy, options.seed + i});
    }
  }
  return tasks;
}

std::string milliseconds(Nanos nanos) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f ms", nanos < 100 * kMilli ? 1 : 0,
                static_cast<double>(nanos) / static_cast<double>(kMilli));
  return text;
}

// Seeds together: sums, and the median of their quantiles.
void print_row(const std::vector<Task>& tasks, const Runner& runner, std::size_t from,
               std::size_t count) {
  std::size_t requests = 0;
  std::size_t right = 0;
  std::size_t arrivals = 0;
  std::vector<Nanos> p50;
  std::vector<Nanos> p99;
  for (std::size_t i = from; i < from + count; ++i) {
    const Figures& figures = runner.result(i);
    requests += figures.requests;
    right += figures.right;
    arrivals += figures.arrivals;
    p50.push_back(figures.p50);
    p99.push_back(figures.p99);
  }
  std::sort(p50.begin(), p50.end());
  std::sort(p99.begin(), p99.end());
  const double all = std::max<double>(1, static_cast<double>(requests));
  std::printf("| %s | %s | %.2f %% | %s | %s | %.2f |\n",
              std::string(tasks[from].scenario->name).c_str(),
              std::string(tasks[from].policy->name).c_str(), 100 * static_cast<double>(right) / all,
              milliseconds(p50[p50.size() / 2]).c_str(), milliseconds(p99[p99.size() / 2]).c_str(),
              static_cast<double>(arrivals) / all);
}

int main_of(const std::vector<std::string_view>& words) {
  Options options;
  if (!parse(words, options)) return usage();
  if (options.list) {
    for (const Scenario& scenario : kScenarios)
      std::printf("%-12s %s\n", std::string(scenario.name).c_str(),
                  std::string(scenario.words).c_str());
    return 0;
  }
  const std::vector<Task> tasks = tasks_of(options);
  if (tasks.empty()) return usage();
  Runner runner(tasks);
  std::size_t failed = runner.run_all(options.jobs);
  for (std::size_t i = 0; options.twice && i < tasks.size(); i += 2) {
    const Figures& one = runner.result(i);
    const Figures& two = runner.result(i + 1);
    if (one.trace == two.trace && one.steps == two.steps && one.steps != 0) continue;
    ++failed;
    std::fprintf(stderr, "seed %llu of %s did not go the same way twice\n",
                 static_cast<unsigned long long>(tasks[i].seed),
                 std::string(tasks[i].scenario->name).c_str());
  }
  if (options.figures) {
    std::puts(
        "| scenario | policy | right answers | p50 | p99 | requests at origins, per request |");
    std::puts("|---|---|---|---|---|---|");
    for (std::size_t i = 0; i < tasks.size(); i += options.seeds)
      print_row(tasks, runner, i, options.seeds);
  } else if (tasks.size() == 1) {
    const Figures& figures = runner.result(0);
    std::printf(
        "requests %zu\nright %zu\narrivals %zu\np50 %s\np99 %s\nsteps %llu\ntrace %016llx\n",
        figures.requests, figures.right, figures.arrivals, milliseconds(figures.p50).c_str(),
        milliseconds(figures.p99).c_str(), static_cast<unsigned long long>(figures.steps),
        static_cast<unsigned long long>(figures.trace));
  }
  std::printf("%zu runs, %zu failed\n", tasks.size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace outrider::sim

int main(int argc, char** argv) {
  return outrider::sim::main_of({argv + std::min(argc, 1), argv + argc});
}
