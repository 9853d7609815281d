// What loading works on: the files as trees, the model as it grows, and the levels of policy that
// routes inherit from. The steps are one file each, in the order of load.cc: files, services,
// listeners, policies, routes, process.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/reader.h"

namespace outrider::config {

// A file and its tree.
struct Unit {
  Unit(std::string name, std::string directory, std::string text, std::int32_t index,
       Diagnostics& diagnostics, const Keys& keys)
      : reading{source, tree, diagnostics, keys, {}} {
    source.name = std::move(name);
    source.directory = std::move(directory);
    source.text = std::move(text);
    source.index = index;
  }
  Source source;
  yaml::Tree tree;
  Reading reading;
  const yaml::Node* native = nullptr;  // root of its native document
};

// A native document being read. Neither moves: values point up to `root`.
struct Top {
  explicit Top(Unit& unit) : root(unit.reading, *unit.native), map(root, Section::kTop) {}
  Top(const Top&) = delete;
  Top& operator=(const Top&) = delete;
  Value root;
  Map map;
};

// Names of one kind: where each was written, and what to say of one that is not there.
class Names {
 public:
  explicit Names(std::string_view kind) : kind_(kind) {}
  // False and an error that shows both places when the name stands already.
  bool add(const Value& at, std::string_view name, std::size_t index, std::string_view where);
  const std::size_t* find(std::string_view name) const;
  // The index, or an error with the nearest name (at the key for entries of a map).
  const std::size_t* want(const Value& at, std::string_view name, bool at_key, bool complete) const;

 private:
  struct Entry {
    std::size_t index;
    std::string where;
  };
  std::string_view kind_;
  std::unordered_map<std::string, Entry> entries_;
};

struct Draft {
  Draft(Diagnostics& diagnostics, Extensions extensions)
      : diagnostics(diagnostics), keys(extensions) {}

  Diagnostics& diagnostics;
  const Keys keys;
  std::vector<std::unique_ptr<Unit>> units;
  std::deque<Top> tops;
  bool complete = true;  // every file was read as a whole, so what is not there was not written
  Config config;
  Names services{"service"};
  Names listeners{"listener"};
  Names policies{"policy"};
  std::vector<Policy> policy_levels;   // by index in `policies`
  std::vector<Policy> service_levels;  // by index in Config::services
  Policy route_defaults;
  Policy service_defaults;
  const Source* source_of(const Mark& mark) const;
  std::string where(const Mark& mark) const;  // FILE:LINE:COL
  std::string where(const Value& at) const { return where(at.key_mark()); }
};

// files.cc: everything named, read and parsed; includes followed.
void collect_files(Draft& draft, const std::vector<std::string>& paths);
void collect_text(Draft& draft, std::string name, std::string text);
// Texts that were read before, includes among them.
void collect_again(Draft& draft, const std::vector<File>& files);
// `path` as the file that says it means it.
std::string relative_to(const Source& source, std::string_view path);
// … for the path of a Unix socket, without `.` and empty segments; it has a longest length: false
// and an error when it is over.
bool place_socket(const Value& at, Address& address);
// At most `limit` bytes; a problem in words, or empty.
std::string read_file(const std::string& path, std::size_t limit, std::string& out);

// read_services.cc, read_listeners.cc, read_policies.cc, read_matches.cc, read_routes.cc,
// read_process.cc
void read_services(Draft& draft);
void read_listeners(Draft& draft);
void read_policies(Draft& draft);  // and defaults
void read_routes(Draft& draft);
void read_process(Draft& draft);

// Shared by several steps.
std::vector<Target> read_targets(Draft& draft, const Value& value);
std::optional<Redirect> read_redirect(const Value& value);
Policy read_policy(const Map& map);
void check_mirror(Draft& draft, const Map& map, const Policy& policy);
// False and an error where the service or subset is not there; `at_key`: it is an entry's name.
bool want_target(Draft& draft, const Value& at, const Target& target, bool at_key);
std::vector<Match> read_matches(const Value& value);
bool read_header_values(const Value& value, Fields& out);
void read_service_settings(const Map& map, const std::string& zone, Service& service,
                           Policy& policy);

// check_routes.cc: whether what a route takes from its match is there, wherever it was written.
void check_route(Draft& draft, const Value& at, const Route& route);

// inherit.cc
void inherit(Policy& level, const Policy& from);  // what `level` does not say, leaf by leaf
const Policy& built_in_policy();

}  // namespace outrider::config
