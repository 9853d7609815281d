// Which files there are: arguments, directories, includes; each read once, parsed, and its
// documents sorted by kind.
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "config/draft.h"

namespace outrider::config {
namespace {

namespace fs = std::filesystem;

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
}

std::string canonical(const std::string& path) {
  char* real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) return path;
  std::string out(real);
  std::free(real);
  return out;
}

bool is_directory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string why_not(int error) { return std::string("cannot be read: ") + std::strerror(error); }

std::string read_all(int fd, std::size_t limit, std::string& out) {
  out.clear();
  while (true) {
    const std::size_t have = out.size();
    out.resize(have + 64 * 1024);
    const ssize_t got = ::read(fd, out.data() + have, out.size() - have);
    out.resize(have + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return why_not(errno);
    if (got == 0) return {};
    if (out.size() > limit) return "is over " + std::to_string(limit / (1024 * 1024)) + " MiB";
  }
}

// Files of a directory, in byte order.
std::vector<std::string> list_directory(const std::string& path, std::error_code& error) {
  std::vector<std::string> out;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool kind = name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json");
    std::string file = path + (path.ends_with('/') ? "" : "/") + name;
    if (kind && !name.starts_with('.') && !is_directory(file)) out.push_back(std::move(file));
  }
  std::sort(out.begin(), out.end());
  return out;
}

class Collector {
 public:
  explicit Collector(Draft& draft) : draft_(draft) {}

  // `at`: the include that names it; null for an argument of the command line.
  void add(const std::string& path, const Value* at) {
    if (path == "-" && at == nullptr) return add_stdin();
    if (is_directory(path)) return add_directory(path, at);
    const std::string real = canonical(path);
    if (std::find(open_.begin(), open_.end(), real) != open_.end()) {
      if (at != nullptr)
        at->error("include-cycle", at->shown() + " includes itself, directly or through others");
      return;
    }
    if (std::find(seen_.begin(), seen_.end(), real) != seen_.end()) return;
    seen_.push_back(real);
    std::string text;
    const std::string problem = read_file(path, limits::kConfigBytes, text);
    if (!problem.empty()) return missing(path, problem, at);
    open_.push_back(real);
    add_text(path, directory_of(path), std::move(text));
    open_.pop_back();
  }

  void add_text(std::string name, std::string directory, std::string text) {
    Unit& unit = parse(std::move(name), std::move(directory), std::move(text));
    if (unit.native == nullptr || unit.native->kind != yaml::Kind::kMap) return;
    const Value root(unit.reading, *unit.native);
    for (std::uint32_t i = 0; i < root.entries(); ++i) {
      const Value entry = root.entry(i);
      if (entry.name() == "include") follow(entry);
    }
  }

  Unit& parse(std::string name, std::string directory, std::string text) {
    const auto index = static_cast<std::int32_t>(draft_.units.size());
    draft_.units.push_back(std::make_unique<Unit>(std::move(name), std::move(directory),
                                                  std::move(text), index, draft_.diagnostics,
                                                  draft_.keys));
    Unit& unit = *draft_.units.back();
    const bool whole = yaml::parse(unit.source, draft_.diagnostics, unit.tree);
    draft_.complete = draft_.complete && whole;
    sort_documents(unit, whole);
    return unit;
  }

 private:
  void add_stdin() {
    if (std::find(seen_.begin(), seen_.end(), "-") != seen_.end()) return;
    seen_.emplace_back("-");
    std::string text;
    const std::string problem = read_all(STDIN_FILENO, limits::kConfigBytes, text);
    if (!problem.empty()) return missing("-", problem, nullptr);
    add_text("-", {}, std::move(text));
  }

  void add_directory(const std::string& path, const Value* at) {
    std::error_code error;
    const std::vector<std::string> files = list_directory(path, error);
    if (error) return missing(path, why_not(error.value()), at);
    if (files.empty()) return missing(path, "holds no *.yaml, *.yml or *.json", at);
    for (const std::string& file : files) add(file, at);
  }

  // A file that cannot be read stands for itself in the diagnostics, or for the include that names
  // it.
  void missing(const std::string& path, const std::string& problem, const Value* at) {
    draft_.complete = false;
    // Of a reference only what stands in the file: its value may be nobody's business.
    if (at != nullptr)
      return at->error("file",
                       (at->node().reference ? at->shown() : "'" + path + "'") + " " + problem);
    const auto index = static_cast<std::int32_t>(draft_.units.size());
    draft_.units.push_back(std::make_unique<Unit>(path, std::string(), std::string(), index,
                                                  draft_.diagnostics, draft_.keys));
    draft_.diagnostics.add(
        {&draft_.units.back()->source, {}, Severity::kError, {}, problem, "file", {}});
  }

  void follow(const Value& include) {
    if (include.is_map()) return include.wrong_type("a list of files");
    for (std::uint32_t i = 0; i < include.items(); ++i) {
      const Value item = include.item(i);
      const auto text = item.text("a file");
      if (!text) continue;
      const std::string path = relative_to(include.reading().source, *text);
      if (text->find_first_of("*?[") == std::string_view::npos) {
        if (text->empty())
          item.fail({"is no file", "bad-value", {}});
        else
          add(path, &item);
        continue;
      }
      glob_t found{};
      if (::glob(path.c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
        std::vector<std::string> files(found.gl_pathv, found.gl_pathv + found.gl_pathc);
        std::sort(files.begin(), files.end());
        for (const std::string& file : files)
          if (!is_directory(file)) add(file, &item);
      }
      ::globfree(&found);
    }
  }

  void error_at(Unit& unit, const yaml::Node& node, std::string_view code, std::string text) {
    draft_.diagnostics.add(
        {&unit.source, node.place(), Severity::kError, {}, std::move(text), std::string(code), {}});
    draft_.complete = false;
  }

  void sort_documents(Unit& unit, bool whole) {
    bool empty = true;
    for (const yaml::Document& document : unit.tree.documents()) {
      const yaml::Node& root = unit.tree.root(document);
      const bool native = unit.tree.find(root, "outrider") != nullptr;
      const yaml::Node* kind = unit.tree.find(root, "apiVersion");
      if (root.kind == yaml::Kind::kNull) continue;  // behind a last `---`
      empty = false;
      if (!native && kind != nullptr && unit.tree.find(root, "kind") != nullptr) {
        error_at(unit, root, kNotYet, "Kubernetes documents are not supported yet");
      } else if (!native && !looks_native(unit.tree, root)) {
        error_at(unit, root, "not-native",
                 "not a configuration: it needs `outrider: v1` at its top level");
      } else if (unit.native != nullptr) {
        error_at(unit, root, "second-native", "a second native document: one a file");
      } else {
        for (const Diagnostics::Item& trap : document.traps) draft_.diagnostics.add(trap);
        unit.native = &root;
      }
    }
    if (empty && whole)
      error_at(unit, yaml::Node{}, "not-native",
               "nothing in it: a configuration begins with `outrider: v1`");
  }

  bool looks_native(const yaml::Tree& tree, const yaml::Node& root) const {
    if (root.kind != yaml::Kind::kMap) return false;
    for (std::uint32_t i = 0; i < root.count; ++i)
      if (draft_.keys.find(Section::kTop, tree.key(root, i).text) != nullptr) return true;
    return false;
  }

  Draft& draft_;
  std::vector<std::string> seen_;  // canonical
  std::vector<std::string> open_;  // being read, outermost first
};

}  // namespace

namespace {

// Without what changes nothing: `.` and empty segments. (`..` behind a link would.)
std::string plain_path(std::string_view path) {
  std::string out(path.starts_with('/') ? "/" : "");
  while (!path.empty()) {
    const std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(segment.size() + 1, path.size()));
    if (segment.empty() || segment == ".") continue;
    if (!out.empty() && !out.ends_with('/')) out += '/';
    out += segment;
  }
  return out;
}

}  // namespace

std::string relative_to(const Source& source, std::string_view path) {
  if (path.starts_with('/')) return std::string(path);
  return source.directory + std::string(path);
}

bool place_socket(const Value& at, Address& address) {
  if (address.kind != Address::Kind::kUnix) return true;
  address.path = plain_path(relative_to(at.reading().source, address.path));
  const Problem problem = check_socket_path(address.path);
  if (problem) at.fail(problem);
  return !problem;
}

std::string read_file(const std::string& path, std::size_t limit, std::string& out) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return why_not(errno);
  std::string problem = read_all(fd, limit, out);
  ::close(fd);
  return problem;
}

void collect_files(Draft& draft, const std::vector<std::string>& paths) {
  Collector collector(draft);
  for (const std::string& path : paths) collector.add(path, nullptr);
}

void collect_again(Draft& draft, const std::vector<File>& files) {
  Collector collector(draft);
  for (const File& file : files) collector.parse(file.path, file.directory, file.text);
}

void collect_text(Draft& draft, std::string name, std::string text) {
  Collector(draft).add_text(std::move(name), {}, std::move(text));
}

}  // namespace outrider::config
