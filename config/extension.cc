// How values are shown, as a file would say them; and what the keys of several filters hold.
#include "config/extension.h"

#include "config/draft.h"
#include "config/written.h"

namespace outrider::config {

Shown shown(bool value) { return {{value ? "true" : "false"}}; }
Shown shown(unsigned value) { return {{std::to_string(value)}}; }
Shown shown(Millis value) { return {{written(value)}}; }
Shown shown(std::uint64_t bytes) { return {{written_size(bytes)}}; }
Shown shown(double share) { return {{written_share(share)}}; }
Shown shown(const std::string& text) { return {{text}}; }
Shown shown(const std::vector<std::string>& texts) { return {texts, true}; }
Shown shown(const std::vector<NamedMatch>& values) {
  Shown out{{}, true};
  for (const auto& [name, value] : values) {
    const bool regex = value.kind == ValueMatch::Kind::kRegex;
    out.values.push_back(name + ": " + (value.negated ? "!" : "") + (regex ? "~" : "") +
                         value.text);
  }
  return out;
}

Traits traits_of(const Policy& policy) {
  Traits all;
  for (const auto& [extension, settings] : policy.told) {
    const Traits one = extension->traits(settings.get());
    all.guards = all.guards || one.guards;
    all.preflights = all.preflights || one.preflights;
    if (!one.secret_parameter.empty()) all.secret_parameter = one.secret_parameter;
  }
  return all;
}

std::vector<std::string> read_texts(const Value& value, Problem (*check)(std::string_view),
                                    std::string_view expected) {
  std::vector<std::string> out;
  if (value.is_map()) {
    value.wrong_type(expected);
    return out;
  }
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    if (const auto text = item.text(expected); text && item.check(check, *text))
      out.emplace_back(*text);
  }
  return out;
}

std::optional<NamedFile> read_named_file(const Value& value, std::size_t limit) {
  const auto name = value.text("a file");
  if (!name) return std::nullopt;
  NamedFile file{std::string(*name), {}};
  const std::string problem =
      read_file(relative_to(value.reading().source, *name), limit, file.text);
  if (problem.empty()) return file;
  value.error("file", value.shown() + " " + problem);
  return std::nullopt;
}

}  // namespace outrider::config
