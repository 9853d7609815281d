// What concerns the process as a whole: workers, telemetry, admin, drain.
#include <algorithm>

#include "config/draft.h"
#include "config/variables.h"

namespace outrider::config {
namespace {

bool read_bound(const Value& value, Address& address) {
  if (!value.parse(parse_address, address, "an address")) return false;
  return place_socket(value, address);
}

void read_workers(const Value& value, Config& config) {
  const auto text = value.text("auto, or a number");
  if (!text || *text == "auto") return;
  std::int64_t workers = 0;
  const Key& key = *value.reading().keys.find(Section::kTop, "workers");
  if (const Problem problem = parse_integer(*text, key.min, key.max, workers))
    value.fail(problem.code == "wrong-type"
                   ? Problem{"is neither auto nor a number", "wrong-type", {}}
                   : problem);
  else
    config.workers = static_cast<unsigned>(workers);
}

void read_format(const Value& value, Telemetry& telemetry) {
  const auto text = value.text();
  if (!text) return;
  telemetry.access_log = *text == "json"   ? Telemetry::Log::kJson
                         : *text == "text" ? Telemetry::Log::kText
                                           : Telemetry::Log::kFormat;
  if (telemetry.access_log != Telemetry::Log::kFormat) return;
  telemetry.access_log_format = *text;
  std::vector<Piece> pieces;
  if (const std::string problem = split_text(*text, pieces); !problem.empty()) {
    value.error("unknown-variable", value.shown() + ": " + problem);
    return;
  }
  if (std::none_of(pieces.begin(), pieces.end(),
                   [](const Piece& piece) { return piece.variable.has_value(); })) {
    constexpr std::string_view kKnown[] = {"json", "text"};
    value.fail({"names no variable: write json, text, or a line with %{…}", "bad-value",
                std::string(nearest(*text, kKnown))});
  }
}

void read_access_log(const Value& value, Telemetry& telemetry) {
  if (!value.is_map()) {
    const auto word = value.word("json|text|false");
    if (word)
      telemetry.access_log = *word == 0   ? Telemetry::Log::kJson
                             : *word == 1 ? Telemetry::Log::kText
                                          : Telemetry::Log::kOff;
    return;
  }
  const Map map(value, Section::kAccessLog);
  if (const auto file = map["file"])
    if (const auto name = file->text("a file")) {
      if (name->empty())
        file->fail({"is no file", "bad-value", {}});
      else
        telemetry.access_log_file = relative_to(value.reading().source, *name);
    }
  if (const auto format = map["format"]) read_format(*format, telemetry);
}

void read_metrics(const Value& value, Telemetry& telemetry) {
  if (value.is_false()) {
    telemetry.metrics = false;
    return;
  }
  if (!value.is_map()) return value.wrong_type("a map or false");
  const Map map(value, Section::kMetrics);
  if (!map) return;
  if (const auto address = map["address"])
    telemetry.metrics_written = read_bound(*address, telemetry.metrics_address);
  map.get_count("series_limit", telemetry.series_limit);
}

void read_admin(const Value& value, Admin& admin) {
  if (value.is_false()) {
    admin.on = false;
    return;
  }
  if (!value.is_map()) return value.wrong_type("a map or false");
  const Map map(value, Section::kAdmin);
  const auto address = map["address"];
  if (!address || !read_bound(*address, admin.address)) return;
  admin.written = true;
  if (!is_loopback(admin.address))
    address->fail({"is reachable from outside: the admin interface binds loopback or unix: only",
                   "bad-value",
                   {}});
}

void read_drain(const Value& value, Config& config) {
  const Map map(value, Section::kDrain);
  if (!map) return;
  const bool delay = map.get("delay", config.drain_delay);
  map.get("deadline", config.drain_deadline);
  if (config.drain_deadline.count() == 0) return;  // none
  if (!delay) config.drain_delay = std::min(config.drain_delay, config.drain_deadline);
  if (config.drain_deadline < config.drain_delay)
    value.error_at_key("conflict",
                       "`deadline` comes before `delay` is over: both run from the signal");
}

// `80%`, `512MiB`, or false.
void read_ceiling(const Value& value, Overload& overload) {
  double share = 0;
  std::uint64_t size = 0;
  const auto text = value.text("a share, a size or false");
  if (!text) return;
  if (*text == "false") {
    overload.memory_share = 0;
  } else if (text->ends_with('%') ? parse_percent(*text, share) : parse_size(*text, size)) {
    value.fail({"is neither a share nor a size: write 80% or 512MiB", "bad-value", {}});
  } else if (text->ends_with('%') ? share == 0 : size == 0) {
    value.fail({"is nothing: false switches it off", "out-of-range", {}});
  } else {
    overload.memory_share = share;
    overload.memory = size;
  }
}

void read_overload(const Value& value, Overload& overload) {
  if (value.is_false()) {
    overload = {.memory_share = 0, .memory = 0, .descriptors = 0, .loop_delay = Millis{0}};
    return;
  }
  if (!value.is_map()) return value.wrong_type("a map or false");
  const Map map(value, Section::kOverload);
  if (!map) return;
  if (const auto memory = map["memory"]) read_ceiling(*memory, overload);
  if (const auto descriptors = map["descriptors"]) {
    if (descriptors->is_false())
      overload.descriptors = 0;
    else if (descriptors->parse(parse_percent, overload.descriptors) && overload.descriptors == 0)
      descriptors->fail({"is nothing: false switches it off", "out-of-range", {}});
  }
  if (Millis delay{}; map.get("loop_delay", delay)) {
    if (delay.count() != 0 && delay < limits::kLoopDelayLeast)
      map["loop_delay"]->fail({"is below 10ms", "out-of-range", {}});
    else
      overload.loop_delay = delay;
  }
}

// Surfaces that were written may not share an address with each other or a listener.
void check_surfaces(Draft& draft) {
  const Config& config = draft.config;
  struct Bound {
    std::string name;
    const Address* address;
  };
  std::vector<Bound> bound;
  for (const Listener& listener : config.listeners)
    bound.push_back({"listener '" + listener.name + "'", &listener.address});
  const auto add = [&](std::string_view group, std::string_view name, const Address& address) {
    const auto same = std::find_if(bound.begin(), bound.end(), [&](const Bound& other) {
      return overlap(*other.address, address);
    });
    if (same != bound.end())
      for (const Top& top : draft.tops) {
        const auto outer = top.map[group];
        if (!outer || !outer->is_map()) continue;
        for (std::uint32_t i = 0; i < outer->entries(); ++i) {
          const Value entry = outer->entry(i);
          if (entry.name() == name || name.empty())
            entry.error_at_key("duplicate-address",
                               "the " + same->name +
                                   (*same->address == address ? " has this address already"
                                                              : " takes this address too, with " +
                                                                    same->address->to_string()));
        }
      }
    bound.push_back({name.empty() ? "admin interface" : "metrics surface", &address});
  };
  if (config.admin.on && config.admin.written) add("admin", {}, config.admin.address);
  if (config.telemetry.metrics && config.telemetry.metrics_written)
    add("telemetry", "metrics", config.telemetry.metrics_address);
}

}  // namespace

void read_process(Draft& draft) {
  Config& config = draft.config;
  config.telemetry.metrics_address = {
      .kind = Address::Kind::kAny, .v6 = false, .ip = {}, .port = 9900, .path = {}};
  config.admin.address = {
      .kind = Address::Kind::kIp, .v6 = false, .ip = {127, 0, 0, 1}, .port = 9901, .path = {}};
  for (const Top& top : draft.tops) {
    if (const auto value = top.map["workers"]) read_workers(*value, config);
    if (const auto value = top.map["telemetry"]) {
      const Map map(*value, Section::kTelemetry);
      if (map) {
        if (const auto log = map["access_log"]) read_access_log(*log, config.telemetry);
        if (const auto metrics = map["metrics"]) read_metrics(*metrics, config.telemetry);
      }
    }
    if (const auto value = top.map["admin"]) read_admin(*value, config.admin);
    if (const auto value = top.map["drain"]) read_drain(*value, config);
    if (const auto value = top.map["overload"]) read_overload(*value, config.overload);
  }
  check_surfaces(draft);
}

}  // namespace outrider::config
