// Every key of the native form, in one table: the reader refuses what is not in it, the schema and
// the long form are made from it, the mutation test walks it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace outrider::config {

enum class Section : std::uint8_t {
  kNone,
  kTop,
  kListener,
  kPaths,
  kListenerLimits,
  kListenerTimeouts,
  kService,
  kEndpoint,
  kServiceLimits,
  kServiceTimeouts,
  kPolicy,
  kRoute,
  kMatch,
  kTimeout,
  kRetry,
  kRedirect,
  kRespond,
  kRewrite,
  kHeaders,
  kHeaderEdits,
  kBody,
  kTelemetry,
  kAccessLog,
  kMetrics,
  kAdmin,
  kDrain,
  kDefaults,
  kDefaultService,
};
inline constexpr std::size_t kSections = static_cast<std::size_t>(Section::kDefaultService) + 1;

enum class Type : std::uint8_t {
  kLater,  // a reserved name: refused with `not supported yet`
  kText,
  kBool,
  kNumber,    // an integer within [min, max]
  kDuration,  // `250ms`; with `or_false`, `false` is 0: none
  kSize,      // `64KiB`, at most max
  kPercent,
  kWord,   // one of `words`
  kTexts,  // a list of text, or one
  kWords,  // a list of `words`, or one
  kNumberOrAuto,
  kFile,  // a path, relative to the file that says it
  kAddress,
  kLoopback,  // an address on loopback, or unix:
  kCidrs,
  kHosts,
  kPathMatches,
  kMethods,
  kValueMatches,   // map: name → value match
  kHeaderValues,   // map: header name → text with variables
  kLabels,         // map: name → text
  kSubsets,        // map: name → labels
  kRegexes,        // map: regex → replacement
  kTemplate,       // a path with captures
  kMap,            // `of`; with `or_false`, `false` switches it off
  kNamed,          // map: name → `of`
  kRoutes,         // list of `of`
  kServices,       // map: name → service, or its endpoints
  kEndpoints,      // a list of endpoints, one endpoint, or a source
  kMatches,        // a short form, a map, or a list of them
  kTargets,        // `svc`, `svc@subset`, or a map of weights
  kTimeoutPolicy,  // a duration (total), false, or a map
  kRetryPolicy,    // attempts, false, or a map
  kRedirectTo,     // a scheme, or a map
  kRespondWith,    // a status, or a map
  kRewriteTo,      // a path, or a map
  kRetryWhen,      // conditions and statuses
  kBackoffRange,
  kUploadRate,   // `240B/s after 5s`, or false
  kAccessLogTo,  // json, text, false, or a map
};

struct Key {
  Section in = Section::kNone;
  std::string_view name;
  Type type = Type::kLater;
  std::string_view text = {};  // what it does, one sentence
  Section of = Section::kNone;
  bool required = false;
  bool or_false = false;
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::string_view words = {};  // `http1|http2`; those behind `||` are not supported yet
};

// In the order in which the contract lists them.
std::span<const Key> keys_of(Section section);
const Key* find_key(Section section, std::string_view name);

}  // namespace outrider::config
