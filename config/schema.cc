// JSON Schema of the native form, from the same table as the reader. Reserved keys are left out: an
// editor then marks them, as the reader refuses them.
#include <nlohmann/json.hpp>
#include <string>

#include "config/extension.h"
#include "config/keys.h"
#include "config/load.h"

namespace outrider::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kReference =
    R"(\$\{)";  // a value from the environment may stand wherever a scalar may
constexpr std::string_view kDuration = R"(^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$)";
constexpr std::string_view kProbe = R"(^((GET|HEAD|OPTIONS|POST) /.*|tcp|grpc( .+)?)$)";
constexpr std::string_view kSize = R"(^[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)?$)";

std::string section_name(Section section) {
  constexpr std::string_view kNames[] = {"none",
                                         "top",
                                         "listener",
                                         "paths",
                                         "listener_limits",
                                         "listener_timeouts",
                                         "service",
                                         "endpoint",
                                         "service_limits",
                                         "service_timeouts",
                                         "health",
                                         "eject",
                                         "outliers",
                                         "policy",
                                         "route",
                                         "match",
                                         "timeout",
                                         "retry",
                                         "hedge",
                                         "redirect",
                                         "respond",
                                         "rewrite",
                                         "headers",
                                         "header_edits",
                                         "body",
                                         "telemetry",
                                         "access_log",
                                         "metrics",
                                         "admin",
                                         "drain",
                                         "overload",
                                         "defaults",
                                         "default_service"};
  static_assert(std::size(kNames) == kSections);
  return std::string(kNames[static_cast<std::size_t>(section)]);
}

Json ref(Section section) { return {{"$ref", "#/$defs/" + section_name(section)}}; }
Json text() { return {{"type", Json::array({"string", "number", "boolean"})}}; }
Json pattern(std::string_view expression) {
  return {{"type", "string"}, {"pattern", std::string(expression) + "|" + std::string(kReference)}};
}
Json any_of(std::initializer_list<Json> choices) {
  Json out;
  for (const Json& choice : choices) out["anyOf"].push_back(choice);
  return out;
}
Json map_of(Json values) {
  return {{"type", "object"}, {"additionalProperties", std::move(values)}};
}
Json list_of(Json items) { return {{"type", "array"}, {"items", std::move(items)}}; }
Json one_or_list(const Json& items) { return any_of({items, list_of(items)}); }
Json boolean() { return any_of({{{"type", "boolean"}}, pattern("^(true|false)$")}); }
Json no() { return {{"const", false}}; }
Json number(std::int64_t min, std::int64_t max) {
  return any_of({{{"type", "integer"}, {"minimum", min}, {"maximum", max}}, pattern("^-?[0-9]+$")});
}
Json duration() { return pattern(kDuration); }

// The supported words; numbers and booleans among them as such too.
Json words_of(std::string_view words) {
  Json out;
  words = words.substr(0, words.find("||"));
  while (!words.empty()) {
    const std::string word(words.substr(0, words.find('|')));
    words.remove_prefix(std::min(words.size(), word.size() + 1));
    out["enum"].push_back(word);
    if (word == "false") out["enum"].push_back(false);
    if (word.find_first_not_of("0123456789") == std::string::npos)
      out["enum"].push_back(std::stoi(word));
  }
  return any_of({out, {{"type", "string"}, {"pattern", kReference}}});
}

Json object(std::span<const Key> keys);

Json type_of(const Key& key) {
  switch (key.type) {
    case Type::kText:
    case Type::kFile:
    case Type::kAddress:
    case Type::kLoopback: return text();
    case Type::kBool: return boolean();
    case Type::kNumber: return number(key.min, key.max);
    case Type::kNumberOrAuto: return any_of({{{"const", "auto"}}, number(key.min, key.max)});
    case Type::kDuration: return duration();
    case Type::kSize: return any_of({{{"type", "integer"}, {"minimum", 0}}, pattern(kSize)});
    case Type::kPercent: return pattern(R"(^[0-9]+(\.[0-9]+)?%$)");
    case Type::kWord: return words_of(key.words);
    case Type::kWords: return one_or_list(words_of(key.words));
    case Type::kRetryWhen:
      return one_or_list(any_of({words_of(key.words), number(400, 599), pattern("^grpc:")}));
    case Type::kTexts:
    case Type::kCidrs:
    case Type::kHosts:
    case Type::kMethods: return one_or_list(text());
    case Type::kPathMatches: return one_or_list(pattern("^[/~]"));
    case Type::kValueMatches:
    case Type::kHeaderValues:
    case Type::kLabels:
    case Type::kRegexes: return map_of(text());
    case Type::kSubsets: return map_of(map_of(text()));
    case Type::kTemplate: return pattern("^/");
    case Type::kTextOrMap: return any_of({text(), object(key.fields)});
    case Type::kTextsOrMaps: return one_or_list(any_of({text(), object(key.fields)}));
    case Type::kMap: return key.of == Section::kNone ? object(key.fields) : ref(key.of);
    case Type::kNamed: return map_of(ref(key.of));
    case Type::kRoutes: return list_of(ref(key.of));
    case Type::kEndpoints: return one_or_list(any_of({text(), ref(key.of)}));
    case Type::kServices:
      return map_of(any_of({ref(key.of), one_or_list(any_of({text(), ref(Section::kEndpoint)}))}));
    case Type::kMatches: return one_or_list(any_of({text(), ref(key.of)}));
    case Type::kTargets: return any_of({text(), map_of(number(0, 1'000'000))});
    case Type::kTimeoutPolicy: return any_of({duration(), no(), ref(key.of)});
    case Type::kRetryPolicy: return any_of({number(0, 10), no(), ref(key.of)});
    case Type::kHedgePolicy: return any_of({duration(), no(), ref(key.of)});
    case Type::kMirrorTo: return any_of({text(), no()});
    case Type::kRedirectTo: return any_of({words_of("http|https"), ref(key.of)});
    case Type::kRespondWith: return any_of({number(200, 599), ref(key.of)});
    case Type::kRewriteTo: return any_of({pattern("^/"), ref(key.of)});
    case Type::kAccessLogTo: return any_of({words_of("json|text|false"), ref(key.of)});
    case Type::kFailures: return pattern("^[0-9]+ failures?$");
    case Type::kProbe: return pattern(kProbe);
    case Type::kHealthTo: return any_of({pattern(kProbe), no(), ref(key.of)});
    case Type::kCeiling: return any_of({pattern(R"(^[0-9]+(\.[0-9]+)?%$)"), pattern(kSize), no()});
    case Type::kStatuses:
      return one_or_list(any_of({number(100, 599), pattern(R"(^[0-9]+\.\.[0-9]+$)")}));
    case Type::kBackoffRange: return pattern(R"(^[0-9a-z]+(\.\.[0-9a-z]+)?$)");
    case Type::kBalance:
      return any_of(
          {words_of("least-request|round-robin|random|peak-ewma"),
           pattern(R"(^(hash|maglev)\((client\.(ip|id)|(header|query|cookie) [^ ]+)\)$)")});
    case Type::kUploadRate: return pattern(R"(^[0-9]+[A-Za-z]*/s( after [0-9a-z]+)?$)");
    case Type::kLater: break;
  }
  return {};
}

Json object(std::span<const Key> keys) {
  Json out{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  for (const Key& key : keys) {
    if (key.type == Type::kLater) continue;
    Json value = type_of(key);
    if (key.or_false) value = any_of({value, no()});
    value["description"] = key.text;
    out["properties"][std::string(key.name)] = std::move(value);
    if (key.required) out["required"].push_back(key.name);
  }
  return out;
}

}  // namespace

std::string json_schema(Extensions extensions) {
  const Keys keys(extensions);
  Json out{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
           {"title", "outrider configuration, native form"}};
  out.update(object(keys.of(Section::kTop)));
  out["patternProperties"] = {{"^x-", true}};
  for (std::size_t i = static_cast<std::size_t>(Section::kListener); i < kSections; ++i)
    out["$defs"][section_name(static_cast<Section>(i))] = object(keys.of(static_cast<Section>(i)));
  return out.dump(2) + "\n";
}

}  // namespace outrider::config
