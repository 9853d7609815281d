#include "proxy/overload_watch.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>

#include "config/log.h"
#include "proxy/worker.h"

namespace outrider {

namespace {

constexpr Millis kEvery{100};    // memory grows by what a network brings meanwhile
constexpr Millis kSeldom{1000};  // for what changes slowly
constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 60;  // cgroup v1 says about 2^63

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc()) return std::nullopt;
  return value;
}

// The number behind `name ` at the beginning of a line; 0: it is not there.
std::uint64_t field(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.starts_with(name)) continue;
    std::string_view rest = line.substr(name.size());
    const std::size_t begin = rest.find_first_not_of(": \t");
    if (begin == 0 || begin == std::string_view::npos) continue;
    return number(rest.substr(begin)).value_or(0);
  }
  return 0;
}

struct Cgroup {
  std::string folder;
  bool v2 = false;
  std::uint64_t limit = 0;
};

// The tightest limit of the cgroups that the process is in; of v1 where memory is still its own.
std::optional<Cgroup> tightest_cgroup() {
  const std::string own = read_file("/proc/self/cgroup");
  std::optional<Cgroup> found;
  const auto climb = [&](const std::string& root, std::string path, const char* name, bool v2) {
    for (;; path = path.substr(0, path.rfind('/'))) {
      const auto limit = number(read_file(root + path + "/" + name));  // `max`: none
      if (limit && *limit < kUnlimited && (!found || *limit < found->limit))
        found = Cgroup{root + path, v2, *limit};
      if (path.empty() || path == "/") return;
    }
  };
  for (std::string_view rest = own; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view kinds = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    if (kinds.empty()) climb("/sys/fs/cgroup", path, "memory.max", true);
    // Inside a container the path may be the host's, and the root be our own.
    if (kinds.empty() && !found) climb("/sys/fs/cgroup", "", "memory.max", true);
    if (kinds == "memory") climb("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", false);
    if (kinds == "memory" && !found)
      climb("/sys/fs/cgroup/memory", "", "memory.limit_in_bytes", false);
  }
  return found;
}

// Resident and not in a file: what is in one can be dropped.
std::uint64_t own_bytes() {
  const std::string text = read_file("/proc/self/status");
  return (field(text, "RssAnon") + field(text, "RssShmem")) * 1024;
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

int open_descriptors() {
  struct stat info {};
  if (::stat("/proc/self/fd", &info) == 0 && info.st_size > 0)  // since Linux 6.2
    return static_cast<int>(info.st_size);
  std::error_code error;
  std::filesystem::directory_iterator all("/proc/self/fd", error);
  return error ? 0 : static_cast<int>(std::distance(begin(all), end(all)));
}

std::string_view word(Shed step) {
  constexpr std::string_view kWords[] = {
      "all is taken again", "no new connections", "no new connections, new requests are refused",
      "no new connections or requests, idle connections and the largest exchanges end"};
  return kWords[static_cast<std::size_t>(step)];
}

}  // namespace

MemoryGauge::MemoryGauge(const config::Overload& settings) {
  if (settings.memory != 0) {
    ceiling_ = settings.memory;
    about_ = "as written";
    return;
  }
  if (settings.memory_share == 0) return;
  std::uint64_t whole = 0;
  if (const auto cgroup = tightest_cgroup()) {
    whole = cgroup->limit;
    v2_ = cgroup->v2;
    kernel_file_ = cgroup->folder + (v2_ ? "/memory.stat" : "/memory.kmem.tcp.usage_in_bytes");
    about_ = "of the cgroup's " + mebibytes(whole);
  } else {
    whole = field(read_file("/proc/meminfo"), "MemTotal") * 1024;
    about_ = "of the machine's " + mebibytes(whole);
  }
  ceiling_ = static_cast<std::uint64_t>(static_cast<double>(whole) * settings.memory_share);
}

// The OOM killer looks at what cannot be given back: anonymous pages, and what the kernel holds for
// the cgroup – sockets and their buffers above all, which no process shows as its own. Caches of
// files can be given back. Pages of others in the cgroup are left out: refusing work would free
// none of them.
std::uint64_t MemoryGauge::used() const {
  std::uint64_t bytes = own_bytes();
  if (kernel_file_.empty()) return bytes;
  const std::string text = read_file(kernel_file_);
  if (!v2_) return bytes + number(text).value_or(0);
  const std::uint64_t kernel = field(text, "kernel");
  const std::uint64_t reclaimable = field(text, "slab_reclaimable");
  return bytes + field(text, "sock") + (kernel > reclaimable ? kernel - reclaimable : 0);
}

OverloadWatch::OverloadWatch(EventLoop& loop, const config::Overload& settings,
                             EachWorker each_worker)
    : loop_(loop),
      settings_(settings),
      each_worker_(std::move(each_worker)),
      memory_(settings),
      timer_(loop, call_member<&OverloadWatch::look, OverloadWatch>, this) {
  if (memory_.ceiling() != 0)
    words_ = "overload.memory " + mebibytes(memory_.ceiling()) + " (" + memory_.about() +
             ") is nearly used up";
}

void OverloadWatch::start() {
  const bool any =
      memory_.ceiling() != 0 || settings_.descriptors > 0 || settings_.loop_delay.count() != 0;
  if (any) look();
}

void OverloadWatch::look() {
  if (memory_.ceiling() != 0) look_at_memory();
  const std::uint64_t now = loop_.now_ms();
  if (now >= seldom_ms_) {
    seldom_ms_ = now + static_cast<std::uint64_t>(kSeldom.count());
    if (settings_.descriptors > 0) look_at_descriptors();
    if (settings_.loop_delay.count() != 0) look_at_loops();
    // What workers have given back to the heap goes back to the system.
    if (shed_ != Shed::kNothing) malloc_trim(0);
  }
  // While there is much room a look can wait.
  timer_.start(memory_share_ < 0.5 ? kSeldom / 4 : kEvery);
}

void OverloadWatch::look_at_memory() {
  const std::uint64_t used = memory_.used();
  memory_share_ = static_cast<double>(used) / static_cast<double>(memory_.ceiling());
  const Shed before = shed_;
  shed_ = shed_at(memory_share_, before);
  if (shed_ != before) {
    if (shed_ > before)
      log::warn("overload: {} of memory in use, the ceiling is {} ({}): {}", mebibytes(used),
                mebibytes(memory_.ceiling()), memory_.about(), word(shed_));
    else
      log::info("overload: {} of memory in use, the ceiling is {} ({}): {}", mebibytes(used),
                mebibytes(memory_.ceiling()), memory_.about(), word(shed_));
  }
  if (shed_ == Shed::kNothing && before == Shed::kNothing) return;
  each_worker_([step = shed_, words = std::string_view(words_)](Worker& worker) {
    worker.shed(step, words);
  });
}

void OverloadWatch::look_at_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const double share = settings_.descriptors * static_cast<double>(limit.rlim_cur);
  const int most = static_cast<int>(std::min(share, 1e9));
  const double before = descriptors_share_;
  descriptors_share_ = static_cast<double>(open_descriptors()) / std::max(most, 1);
  if (descriptors_share_ >= 1 && before < 1)
    log::warn("overload: {} of {} descriptors are in use: no new connections", most,
              static_cast<std::uint64_t>(limit.rlim_cur));
  if (most == descriptors_) return;
  descriptors_ = most;
  each_worker_([most](Worker& worker) { worker.limit_clients(most); });
}

void OverloadWatch::look_at_loops() {
  each_worker_([posted = loop_.now_ms(), most = settings_.loop_delay](Worker& worker) {
    const std::uint64_t now = worker.loop().now_ms();
    worker.note_loop_delay(Millis(now > posted ? now - posted : 0), most);
  });
}

void OverloadWatch::render(MetricText& text) const {
  using Type = MetricText::Type;
  text.family("outrider_overload", Type::kGauge,
              "How much of a resource's ceiling is in use; 1 is all of it.");
  if (memory_.ceiling() != 0) text.sample({{"resource", "memory"}}, memory_share_);
  if (settings_.descriptors > 0) text.sample({{"resource", "descriptors"}}, descriptors_share_);
  text.family("outrider_overload_step", Type::kGauge,
              "0: nothing is refused, 1: connections, 2: requests too, 3: what idles or holds much "
              "ends.");
  text.sample({}, static_cast<std::uint64_t>(shed_));
}

}  // namespace outrider
