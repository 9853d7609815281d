// Arguments in, one command out (cli.h). Each command parses its own words, so that a start pays
// for nothing but its own. Invariant: usage errors are words on standard error and exit code 64; a
// name that is reserved says so.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.h"
#include "proxy/cli.h"

namespace outrider::cli {
namespace {

using Words = std::vector<std::string>;

struct Command {
  std::string_view name;
  const char* arguments;
  const char* sentence;
  int (*run)(const Command& self, Words words);
};

constexpr unsigned kMaxWorkers = 1024;

void say(const std::string& text) { std::fprintf(stderr, "outrider: %s\n", text.c_str()); }

int usage_error(const Command& command, const std::string& problem) {
  const std::string name(command.name);
  say(name + ": " + problem);
  std::fprintf(stderr, "usage: outrider %s %s\n", name.c_str(), command.arguments);
  return kUsage;
}

int unsupported(const std::string& what) {
  say(what + " is not supported yet");
  return kUsage;
}

std::string title(const Command& command) { return "outrider " + std::string(command.name); }

// An exit code, or nothing: all is as it should be.
std::optional<int> parse(const Command& command, CLI::App& app, Words words) {
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  try {
    app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    std::printf("%s", app.help().c_str());
    return kOk;
  } catch (const CLI::ParseError& error) {
    return usage_error(command, error.what());
  }
  return std::nullopt;
}

void add_config(CLI::App& app, Words& paths) {
  app.add_option("CONFIG", paths, "File, directory, or - for standard input")->required();
}

void add_format(CLI::App& app, std::string& format) {
  app.add_option("--format", format, "text or json")->check(CLI::IsMember({"text", "json"}));
}

int run_command(const Command& self, Words words) {
  if (std::find(words.begin(), words.end(), "--") != words.end())
    return unsupported("running a command (-- COMMAND)");
  RunOptions options;
  bool no_watch = false, verbose = false, takeover = false;
  CLI::App app(self.sentence, title(self));
  app.add_option("CONFIG,--config", options.paths, "File, directory, or - for standard input");
  app.add_option("--workers", options.workers, "Threads that serve; default: as configured")
      ->check(CLI::Range(1U, kMaxWorkers));
  app.add_flag("--no-watch", no_watch, "Do not look for changes of files");
  app.add_flag("-v", verbose, "Log at level debug");
  app.add_flag("--takeover", takeover)->group("");
  if (const auto code = parse(self, app, std::move(words))) return *code;
  if (options.paths.empty()) return usage_error(self, "CONFIG is required");
  if (takeover) return unsupported("--takeover");
  options.watch = !no_watch;
  return run(std::move(options), verbose);
}

int check_command(const Command& self, Words words) {
  Words paths;
  bool strict = false;
  std::string format = "text";
  CLI::App app(self.sentence, title(self));
  add_config(app, paths);
  app.add_flag("--strict", strict, "Fail on warnings too");
  add_format(app, format);
  if (const auto code = parse(self, app, std::move(words))) return *code;
  return check(paths, strict, format == "json");
}

// `name: value`, as it goes on the wire.
bool split_header(const std::string& text, std::pair<std::string, std::string>& out) {
  const std::size_t colon = text.find(':');
  if (colon == 0 || colon == std::string::npos) return false;
  if (text.find_first_of("\r\n") != std::string::npos) return false;
  const std::size_t value = text.find_first_not_of(" \t", colon + 1);
  out = {text.substr(0, colon), value == std::string::npos ? "" : text.substr(value)};
  return true;
}

int explain_command(const Command& self, Words words) {
  Words positional, headers;
  std::string format = "text";
  ExplainRequest request;
  CLI::App app(self.sentence, title(self));
  app.add_option("CONFIG... METHOD URL", positional, "Configuration, then one request")->required();
  app.add_option("-H", headers, "Header field `name: value`; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--listener", request.listener, "Listener; default: by the URL's port");
  app.add_option("--from", request.from, "Identity of the client");
  app.add_option("--client-ip", request.client_ip, "Address of the client; default: 127.0.0.1");
  add_format(app, format);
  if (const auto code = parse(self, app, std::move(words))) return *code;
  if (positional.size() < 3) return usage_error(self, "CONFIG, METHOD and URL are required");
  request.url = std::move(positional.back());
  positional.pop_back();
  request.method = std::move(positional.back());
  positional.pop_back();
  request.json = format == "json";
  for (const std::string& header : headers)
    if (!split_header(header, request.headers.emplace_back()))
      return usage_error(self, "-H '" + header + "': write it as 'name: value'");
  return explain(positional, request);
}

int config_command(const Command& self, Words words) {
  Words paths;
  bool origins = false;
  CLI::App app(self.sentence, title(self));
  add_config(app, paths);
  app.add_flag("--origins", origins, "Say as comments where each value was written");
  if (const auto code = parse(self, app, std::move(words))) return *code;
  return config(paths, origins);
}

int schema_command(const Command& self, Words words) {
  CLI::App app(self.sentence, title(self));
  if (const auto code = parse(self, app, std::move(words))) return *code;
  return schema();
}

int why_command(const Command& self, Words words) {
  std::string reason;
  CLI::App app(self.sentence, title(self));
  app.add_option("REASON", reason, "The word of a log line, a metric or an error body")->required();
  if (const auto code = parse(self, app, std::move(words))) return *code;
  return why(reason);
}

int version_command(const Command& self, Words words) {
  CLI::App app(self.sentence, title(self));
  if (const auto code = parse(self, app, std::move(words))) return *code;
  return version();
}

constexpr Command kCommands[] = {
    {"run", "CONFIG... [--workers N] [--no-watch] [-v]", "Serves.", run_command},
    {"check", "CONFIG... [--strict] [--format json]",
     "Reports every error and warning of a configuration.", check_command},
    {"explain",
     "CONFIG... METHOD URL [-H 'name: value']... [--listener NAME] [--from ID] [--client-ip IP] "
     "[--format json]",
     "Shows what would happen to a request, and why.", explain_command},
    {"config", "CONFIG... [--origins]", "Prints the long form of a configuration.", config_command},
    {"schema", "", "Prints the JSON Schema of configurations.", schema_command},
    {"why", "REASON", "Says what a reason means, its causes and its knobs.", why_command},
    {"version", "", "Prints the versions of outrider and its libraries.", version_command},
};
constexpr std::string_view kReserved[] = {
    "apply",          "drain",     "dev",    "init",   "inject", "webhook", "intercept", "identity",
    "support-matrix", "tls-check", "record", "replay", "diff",   "import",  "doctor",
};

void print_usage(std::FILE* to) {
  std::fputs("usage: outrider COMMAND ...\n\n", to);
  for (const Command& command : kCommands) {
    const std::string name(command.name);
    std::fprintf(to, "  %s %s\n      %s\n", name.c_str(), command.arguments, command.sentence);
  }
  std::fputs(
      "\noutrider --config FILE is the same as run FILE, --version as version; COMMAND --help says "
      "more.\n",
      to);
}

int unknown_command(const std::string& name) {
  std::vector<std::string_view> known;
  for (const Command& command : kCommands) known.push_back(command.name);
  const std::string_view near = config::nearest(name, known);
  std::string problem = "no command is called '" + name + "'";
  if (!near.empty()) problem.append("; did you mean '").append(near).append("'?");
  say(problem);
  print_usage(stderr);
  return kUsage;
}

int dispatch(Words words) {
  if (words.empty()) {
    print_usage(stderr);
    return kUsage;
  }
  const std::string first = words.front();
  const bool help = first == "--help" || first == "-h" || first == "help";
  if (help && words.size() == 1) {
    print_usage(stdout);
    return kOk;
  }
  if (help) {
    say(first + ": takes no further words; COMMAND --help says more of one");
    print_usage(stderr);
    return kUsage;
  }
  if (first.starts_with('-') && first != "--version")
    return run_command(kCommands[0], std::move(words));
  words.erase(words.begin());
  for (const Command& command : kCommands)
    if (command.name == (first == "--version" ? "version" : first))
      return command.run(command, std::move(words));
  if (std::find(std::begin(kReserved), std::end(kReserved), first) != std::end(kReserved))
    return unsupported("'" + first + "'");
  return unknown_command(first);
}

// So that no socket or file of ours becomes somebody's standard output.
void fill_standard_descriptors() {
  int fd = 0;
  do fd = ::open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

}  // namespace
}  // namespace outrider::cli

int main(int argc, char** argv) {
  outrider::cli::fill_standard_descriptors();
  return outrider::cli::dispatch({argv + std::min(argc, 1), argv + argc});
}
