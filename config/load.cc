// The order of loading: files → services → listeners → policies → routes → process, then what
// concerns all of them.
#include "config/load.h"

#include <algorithm>

#include "config/draft.h"
#include "config/dump.h"

namespace outrider::config {
namespace {

// Keys that stand once in all files together; maps of names and lists of routes unite.
void check_once(Draft& draft) {
  for (const Key& key : draft.keys.of(Section::kTop)) {
    if (key.type == Type::kNamed || key.type == Type::kServices || key.type == Type::kRoutes ||
        key.name == "outrider" || key.name == "include" || key.name == "listen")
      continue;
    std::string first;
    for (const Top& top : draft.tops) {
      const auto value = top.map[key.name];
      if (!value) continue;
      if (first.empty())
        first = draft.where(*value);
      else
        value->error_at_key("duplicate-key", "stands in another file already, at " + first);
    }
  }
}

void check_version(const Draft& draft) {
  for (const Top& top : draft.tops)
    if (const auto value = top.map["outrider"]) static_cast<void>(value->word("v1"));
}

void check_listeners(Draft& draft) {
  if (draft.complete && draft.config.listeners.empty())
    draft.diagnostics.add({draft.units.empty() ? nullptr : &draft.units.front()->source,
                           {},
                           Severity::kError,
                           {},
                           "nothing listens: write `listen: 8080`, or `listeners`",
                           "no-listener",
                           {}});
  bool http = false;
  for (const Listener& listener : draft.config.listeners)
    http = http || (!listener.tcp && !listener.redirect);
  if (!draft.complete) return;
  bool any = false;  // written, be it with errors
  for (const Top& top : draft.tops) {
    const auto routes = top.map["routes"];
    if (!routes) continue;
    any = any || !routes->is_list() || routes->items() != 0;
    if (!http && !draft.config.listeners.empty())
      routes->warn("no-effect", "has no effect: no listener takes routes");
  }
  if (http && !any && !draft.tops.empty())
    draft.tops.front().root.warn("no-route", "no route: every request is answered 404");
}

Loaded finish(Draft& draft, Diagnostics& diagnostics, const LoadOptions& options) {
  Loaded out;
  if (!diagnostics.has_errors()) {
    for (const auto& unit : draft.units)
      draft.config.files.push_back({unit->source.name, unit->source.directory, unit->source.text});
    if (options.expand) out.expanded = expand(draft, options.origins);
    draft.config.extensions = options.extensions;
    out.config = std::make_shared<const Config>(std::move(draft.config));
  }
  out.diagnostics = diagnostics.take();
  return out;
}

Loaded read(Draft& draft, Diagnostics& diagnostics, const LoadOptions& options) {
  for (const auto& unit : draft.units)
    if (unit->native != nullptr) draft.tops.emplace_back(*unit);
  check_version(draft);
  check_once(draft);
  read_services(draft);
  read_listeners(draft);
  read_policies(draft);
  read_routes(draft);
  read_process(draft);
  check_listeners(draft);
  return finish(draft, diagnostics, options);
}

}  // namespace

bool Names::add(const Value& at, std::string_view name, std::size_t index, std::string_view where) {
  const auto [entry, fresh] =
      entries_.try_emplace(std::string(name), Entry{index, std::string(where)});
  if (!fresh)
    at.error_at_key("duplicate-name", "the " + std::string(kind_) + " '" + std::string(name) +
                                          "' stands already at " + entry->second.where);
  return fresh;
}

const std::size_t* Names::find(std::string_view name) const {
  const auto entry = entries_.find(std::string(name));
  return entry != entries_.end() ? &entry->second.index : nullptr;
}

const std::size_t* Names::want(const Value& at, std::string_view name, bool at_key,
                               bool complete) const {
  if (const std::size_t* index = find(name)) return index;
  if (!complete) return nullptr;
  std::vector<std::string_view> known;
  if (at.reading().diagnostics.may_suggest(entries_.size())) {
    for (const auto& entry : entries_) known.push_back(entry.first);
    std::sort(known.begin(), known.end());
  }
  const std::string code = "unknown-" + std::string(kind_);
  const std::string text = "no " + std::string(kind_) + " is called " +
                           (at_key ? "'" + std::string(name) + "'" : at.shown());
  const std::string_view near = nearest(name, known);
  at_key ? at.error_at_key(code, text, near) : at.error(code, text, near);
  return nullptr;
}

const Source* Draft::source_of(const Mark& mark) const {
  return mark.built_in() ? nullptr : &units[static_cast<std::size_t>(mark.file)]->source;
}

std::string Draft::where(const Mark& mark) const {
  const Source* source = source_of(mark);
  if (source == nullptr) return "built-in";
  return source->name + ":" + std::to_string(mark.line) + ":" + std::to_string(mark.column);
}

Loaded load(const std::vector<std::string>& paths, const LoadOptions& options) {
  Diagnostics diagnostics;
  Draft draft(diagnostics, options.extensions);
  collect_files(draft, paths);
  return read(draft, diagnostics, options);
}

std::string long_form(const Config& config) {
  Diagnostics diagnostics;
  Draft draft(diagnostics, config.extensions);
  collect_again(draft, config.files);
  for (const auto& unit : draft.units)
    if (unit->native != nullptr) draft.tops.emplace_back(*unit);
  return expand(draft, true);
}

Loaded load_text(std::string name, std::string text, const LoadOptions& options) {
  Diagnostics diagnostics;
  Draft draft(diagnostics, options.extensions);
  collect_text(draft, std::move(name), std::move(text));
  return read(draft, diagnostics, options);
}

}  // namespace outrider::config
