// Every key of the native form, in one table: the reader refuses what is not in it, the schema and
// the long form are made from it, the mutation test walks it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  kHealth,
  kEject,
  kOutliers,
  kPolicy,
  kRoute,
  kMatch,
  kTimeout,
  kRetry,
  kHedge,
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
  kOverload,
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
  kHedgePolicy,    // a duration, false, or a map
  kMirrorTo,       // `svc 5%`, or false
  kRedirectTo,     // a scheme, or a map
  kRespondWith,    // a status, or a map
  kRewriteTo,      // a path, or a map
  kRetryWhen,      // conditions and statuses
  kBackoffRange,
  kBalance,      // a word, or `hash(KEY)`, `maglev(KEY)`
  kFailures,     // `5 failures`
  kHealthTo,     // a probe, false, or a map
  kProbe,        // `GET /healthz`, `tcp`, `grpc`, `grpc shop.Cart`
  kCeiling,      // a share, a size, or false
  kStatuses,     // `200..299`, `204`, or a list of them
  kUploadRate,   // `240B/s after 5s`, or false
  kAccessLogTo,  // json, text, false, or a map
  kTextOrMap,    // a short form, or a map of `fields`
  kTextsOrMaps,  // … or a list of both
};

struct Extension;  // config/extension.h
using Extensions = std::span<const Extension* const>;

// The entries of a long form, for a short form of it.
using Expanded = std::vector<std::pair<std::string_view, std::string>>;

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
  std::string_view words = {};       // `http1|http2`; those behind `||` are not supported yet
  std::span<const Key> fields = {};  // in place of `of`, for extensions
  Expanded (*expand)(std::string_view text) = nullptr;  // of a short form
};

const Key* find_key(std::span<const Key> keys, std::string_view name);

// The table of keys, with the rows of extensions among those of policies and routes.
class Keys {
 public:
  explicit Keys(Extensions extensions = {});
  // In the order in which the contract lists them.
  std::span<const Key> of(Section section) const;
  const Key* find(Section section, std::string_view name) const {
    return find_key(of(section), name);
  }
  // Those of the map that stands behind `key`; none: its entries are names.
  std::span<const Key> below(const Key& key) const {
    return key.of == Section::kNone ? key.fields : of(key.of);
  }
  Extensions extensions() const { return extensions_; }

 private:
  Extensions extensions_;
  std::vector<Key> policy_, route_;
};

}  // namespace outrider::config
