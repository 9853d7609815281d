#include "proxy/cli.h"
#include "filters/registry.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <tuple>
#include <utility>

#include "config/diagnostics.h"
#include "config/log.h"
#include "config/reason.h"
#include "filters/route_table.h"
#include "proxy/crash.h"
#include "proxy/version.h"

namespace outrider::cli {

namespace {

// False: nobody reads it, or the disk is full; then the command has not done what it was asked for.
bool print(std::FILE* to, std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), to) == text.size() && std::fflush(to) == 0;
}

int answer(std::string_view text, int code = kOk) {
  return print(stdout, text) ? code : kRuntimeError;
}

void print_diagnostics(const std::vector<config::Diagnostic>& diagnostics) {
  std::string text;
  for (const config::Diagnostic& diagnostic : diagnostics) {
    text += config::render(diagnostic);
    if (!text.ends_with('\n')) text += '\n';
  }
  print(stderr, text);
}

std::string source_line(const std::string& text, std::uint32_t number) {
  std::size_t begin = 0;
  for (std::uint32_t line = 1; line < number && begin != std::string::npos; ++line) {
    begin = text.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  if (begin == std::string::npos) return {};
  std::string line = text.substr(begin, text.find('\n', begin) - begin);
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

// `routes[2]` as the file counts them.
std::string path_in_file(const config::Config& config, std::uint32_t index) {
  const auto same_file = [&](const config::Route& route) {
    return route.mark.file == config.routes[index].mark.file;
  };
  const auto count = std::count_if(config.routes.begin(), config.routes.begin() + index, same_file);
  return "routes[" + std::to_string(count) + "]";
}

config::Diagnostic shadowed_diagnostic(const config::Config& config, const Shadowed& shadowed) {
  const config::Route& route = config.routes[shadowed.route];
  const config::Route& by = config.routes[shadowed.by_route];
  config::Diagnostic diagnostic;
  if (!route.mark.built_in()) {
    const config::File& file = config.files[static_cast<std::size_t>(route.mark.file)];
    diagnostic.file = file.path;
    diagnostic.source = source_line(file.text, route.mark.line);
  }
  diagnostic.line = route.mark.line;
  diagnostic.column = route.mark.column;
  diagnostic.severity = config::Severity::kWarning;
  diagnostic.path = path_in_file(config, shadowed.route);
  diagnostic.text = "route '" + route.name + "' is never reached: route '" + by.name + "' (" +
                    config.where(by.mark) + ") takes everything it matches";
  diagnostic.code = "shadowed-route";
  return diagnostic;
}

std::size_t file_number(const config::Config& config, const std::string& path) {
  const auto found = std::find_if(config.files.begin(), config.files.end(),
                                  [&](const config::File& file) { return file.path == path; });
  return static_cast<std::size_t>(found - config.files.begin());
}

std::string count_of(std::size_t number, const char* noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

}  // namespace

void add_shadowed_routes(config::Loaded& loaded) {
  if (loaded.config == nullptr) return;
  const std::vector<Shadowed> all = shadowed_routes(*loaded.config);
  if (all.empty()) return;
  for (const Shadowed& shadowed : all)
    loaded.diagnostics.push_back(shadowed_diagnostic(*loaded.config, shadowed));
  const auto place = [&](const config::Diagnostic& diagnostic) {
    return std::make_tuple(file_number(*loaded.config, diagnostic.file), diagnostic.line,
                           diagnostic.column);
  };
  std::stable_sort(loaded.diagnostics.begin(), loaded.diagnostics.end(),
                   [&](const auto& a, const auto& b) { return place(a) < place(b); });
}

int run(RunOptions options, bool verbose) {
  install_crash_handlers();
  ::umask(0077);  // what this process makes is nobody else's
  if (verbose) log::set_level(log::Level::kDebug);
  config::Loaded loaded = config::load(options.paths, {.extensions = filter_keys()});
  add_shadowed_routes(loaded);
  print_diagnostics(loaded.diagnostics);
  if (loaded.config == nullptr) return kBadConfig;
  return Server(std::move(loaded.config), std::move(options)).run();
}

int check(const std::vector<std::string>& paths, bool strict, bool json) {
  config::Loaded loaded = config::load(paths, {.extensions = filter_keys()});
  add_shadowed_routes(loaded);
  const bool failed = loaded.config == nullptr || (strict && !loaded.diagnostics.empty());
  const int code = failed ? kBadConfig : kOk;
  if (json) {
    std::string text = config::render_json(loaded.diagnostics);
    if (!text.ends_with('\n')) text += '\n';
    return answer(text, code);
  }
  print_diagnostics(loaded.diagnostics);
  if (failed) return code;
  const config::Config& config = *loaded.config;
  std::string words = "ok: " + count_of(config.listeners.size(), "listener") + ", " +
                      count_of(config.services.size(), "service") + ", " +
                      count_of(config.routes.size(), "route");
  if (!loaded.diagnostics.empty()) words += "; " + count_of(loaded.diagnostics.size(), "warning");
  return answer(words + "\n");
}

int explain(const std::vector<std::string>& paths, const ExplainRequest& request) {
  const config::Loaded loaded = config::load(paths, {.extensions = filter_keys()});
  if (loaded.config == nullptr) {
    print_diagnostics(loaded.diagnostics);
    return kBadConfig;
  }
  std::string out;
  const int code = outrider::explain(loaded.config, request, out);
  if (code != kUsage) return answer(out, code);
  print(stderr, out);
  return code;
}

int config(const std::vector<std::string>& paths, bool origins) {
  const config::Loaded loaded =
      config::load(paths, {.expand = true, .origins = origins, .extensions = filter_keys()});
  if (loaded.config != nullptr) return answer(loaded.expanded);
  print_diagnostics(loaded.diagnostics);
  return kBadConfig;
}

int schema() {
  std::string text = config::json_schema(filter_keys());
  if (!text.ends_with('\n')) text += '\n';
  return answer(text);
}

int why(std::string_view word) {
  if (const std::optional<Reason> reason = reason_of(word)) {
    const ReasonInfo& about = info(*reason);
    std::string text(about.word);
    text += about.status == 0 ? ": the upstream's status, or the route's own"
                              : ": status " + std::to_string(about.status);
    text += ", grpc-status " + std::to_string(about.grpc_status) + "\n";
    text.append(about.sentence).append("\n\n").append(about.why).append("\n");
    return answer(text);
  }
  std::array<std::string_view, kReasonCount> words;
  for (std::size_t i = 0; i < kReasonCount; ++i) words[i] = kReasons[i].word;
  std::string text = "outrider: no reason is called '" + std::string(word) + "'";
  const std::string_view near = config::nearest(word, words);
  if (!near.empty()) text.append("; did you mean '").append(near).append("'?");
  text += "\nThe reasons are:";
  for (const std::string_view known : words) text.append(" ").append(known);
  print(stderr, text + "\n");
  return kNothingFound;
}

int version() { return answer(version_text()); }

}  // namespace outrider::cli
