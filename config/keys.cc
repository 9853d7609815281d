// The table of keys. Sorted by section; the rows of one section stand in the contract's order.
#include "config/keys.h"

#include <array>
#include <cstddef>

#include "config/extension.h"
#include "config/limits.h"

namespace outrider::config {
namespace {

using S = Section;
using T = Type;

constexpr std::int64_t kMaxCount = 4'294'967'295;
constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;
constexpr std::int64_t kMaxWeight = 1'000'000;

constexpr Key later(S in, std::string_view name) {
  return {.in = in, .name = name, .type = T::kLater, .text = {}};
}
constexpr Key map(S in, std::string_view name, S of, std::string_view text) {
  return {.in = in, .name = name, .type = T::kMap, .text = text, .of = of};
}
constexpr Key count(S in, std::string_view name, std::string_view text,
                    std::int64_t max = kMaxCount) {
  return {.in = in, .name = name, .type = T::kNumber, .text = text, .max = max};
}
constexpr Key size(S in, std::string_view name, std::string_view text) {
  return {.in = in, .name = name, .type = T::kSize, .text = text, .max = kMaxSize};
}
constexpr Key time(S in, std::string_view name, std::string_view text) {
  return {.in = in, .name = name, .type = T::kDuration, .text = text, .or_false = true};
}
constexpr Key word(S in, std::string_view name, std::string_view words, std::string_view text) {
  return {.in = in, .name = name, .type = T::kWord, .text = text, .words = words};
}
constexpr Key plain(S in, std::string_view name, T type, std::string_view text, S of = S::kNone) {
  return {.in = in, .name = name, .type = type, .text = text, .of = of};
}
constexpr Key required(Key key) {
  key.required = true;
  return key;
}
constexpr Key or_false(Key key) {
  key.or_false = true;
  return key;
}

constexpr std::string_view kBalances = "least-request|round-robin|random|peak-ewma|hash|maglev";
constexpr std::int64_t kMaxPriority = 1'000;
constexpr std::string_view kProtocols = "auto|http1|http2|tcp";

constexpr Key kKeys[] = {
    required(word(S::kTop, "outrider", "v1", "Marks a native document and its version.")),
    plain(S::kTop, "include", T::kTexts,
          "Further files, directories or globs, relative to this file."),
    {.in = S::kTop,
     .name = "workers",
     .type = T::kNumberOrAuto,
     .text = "Worker threads; auto follows the CPU quota.",
     .min = 1,
     .max = 1024},
    plain(S::kTop, "zone", T::kText, "Where this proxy runs, for services with `zone_aware`."),
    or_false(map(S::kTop, "overload", S::kOverload,
                 "When work is refused so that the process lives; false: never.")),
    plain(S::kTop, "listen", T::kAddress, "One more listener, named main."),
    plain(S::kTop, "listeners", T::kNamed, "Where clients connect, by name.", S::kListener),
    plain(S::kTop, "services", T::kServices, "Whom requests go to, by name.", S::kService),
    plain(S::kTop, "routes", T::kRoutes, "Which request goes where.", S::kRoute),
    plain(S::kTop, "policies", T::kNamed, "Bundles of route settings that routes `use`, by name.",
          S::kPolicy),
    later(S::kTop, "identity"),
    map(S::kTop, "defaults", S::kDefaults, "Settings that routes and services inherit last."),
    map(S::kTop, "telemetry", S::kTelemetry, "Access log and metrics."),
    or_false(map(S::kTop, "admin", S::kAdmin, "The admin interface; false switches it off.")),
    map(S::kTop, "drain", S::kDrain, "How a shutdown proceeds."),
    later(S::kTop, "dns"),
    later(S::kTop, "sidecar"),
    later(S::kTop, "dev"),
    later(S::kTop, "registry"),

    required(plain(S::kListener, "address", T::kAddress,
                   "Address and port to bind, or unix:/path; port 0 picks one.")),
    {.in = S::kListener,
     .name = "protocols",
     .type = T::kWords,
     .text = "HTTP versions taken; all of them unless said.",
     .words = "http1|http2"},
    word(S::kListener, "protocol", "tcp", "Raw TCP in place of HTTP."),
    plain(S::kListener, "to", T::kTargets, "Where a raw TCP listener's connections go."),
    plain(S::kListener, "redirect", T::kRedirectTo, "Answers everything with this redirect.",
          S::kRedirect),
    later(S::kListener, "tls"),
    later(S::kListener, "sni"),
    later(S::kListener, "proxy_protocol"),
    plain(S::kListener, "trust", T::kCidrs, "Peers whose forwarded headers are believed."),
    word(S::kListener, "forwarded", "add|false",
         "What is told upstream about the client; false: nothing."),
    map(S::kListener, "paths", S::kPaths, "How paths are normalised."),
    map(S::kListener, "limits", S::kListenerLimits,
        "Bounds of what clients may send; 0 is no limit."),
    map(S::kListener, "timeouts", S::kListenerTimeouts,
        "How long clients may take; false is for ever."),

    plain(S::kPaths, "merge_slashes", T::kBool, "Reads // as /."),
    word(S::kPaths, "escaped_slashes", "auto|keep|reject",
         "What becomes of %2f and %5c in a path."),

    size(S::kListenerLimits, "headers", "Bytes of a request's head."),
    size(S::kListenerLimits, "target", "Bytes of a request's target."),
    count(S::kListenerLimits, "fields", "Header fields of a request."),
    size(S::kListenerLimits, "body", "Bytes of a request's body."),
    count(S::kListenerLimits, "streams", "Concurrent HTTP/2 streams of a connection."),
    count(S::kListenerLimits, "connections", "Open connections."),
    count(S::kListenerLimits, "per_client", "Open connections of one client address."),
    count(S::kListenerLimits, "requests", "Requests of one connection."),

    time(S::kListenerTimeouts, "handshake", "For the TLS handshake."),
    time(S::kListenerTimeouts, "header", "For a request's head in all."),
    time(S::kListenerTimeouts, "body", "Between two pieces of a request's body."),
    time(S::kListenerTimeouts, "stall", "While the client takes nothing of the response."),
    time(S::kListenerTimeouts, "idle",
         "For a connection without a request; on raw TCP without a byte."),
    or_false(plain(S::kListenerTimeouts, "upload_rate", T::kUploadRate,
                   "Least rate of a request's body.")),

    required(plain(S::kService, "endpoints", T::kEndpoints, "The servers.", S::kEndpoint)),
    word(S::kService, "protocol", kProtocols, "What the servers speak."),
    {.in = S::kService,
     .name = "balance",
     .type = T::kBalance,
     .text = "How a server is chosen; hash and maglev go by a key: hash(header x-user).",
     .words = kBalances},
    plain(S::kService, "health", T::kHealthTo, "How servers are asked whether they are well.",
          S::kHealth),
    or_false(map(S::kService, "eject", S::kEject,
                 "When servers that fail are left alone; false: never.")),
    map(S::kService, "limits", S::kServiceLimits, "Bounds of the whole process; 0 is no limit."),
    map(S::kService, "timeouts", S::kServiceTimeouts, "Of connections to the servers."),
    plain(S::kService, "timeout", T::kTimeoutPolicy, "Timeouts of requests, as on a route.",
          S::kTimeout),
    plain(S::kService, "retry", T::kRetryPolicy, "Further attempts, as on a route.", S::kRetry),
    plain(S::kService, "hedge", T::kHedgePolicy,
          "A second attempt beside a slow one, as on a route.", S::kHedge),
    plain(S::kService, "subsets", T::kSubsets, "Named groups of servers, by their labels."),
    time(S::kService, "slow_start",
         "How long a server that became usable takes less than its share."),
    plain(S::kService, "zone_aware", T::kBool, "Prefers servers of this proxy's zone."),
    later(S::kService, "tls"),
    later(S::kService, "expect"),
    later(S::kService, "multiplex"),
    later(S::kService, "proxy_protocol"),

    required(plain(S::kEndpoint, "address", T::kText, "Host and port, or unix:/path.")),
    plain(S::kEndpoint, "labels", T::kLabels, "What subsets choose by."),
    plain(S::kEndpoint, "zone", T::kText, "Where it runs, for `zone_aware`."),
    count(S::kEndpoint, "weight", "Share of the requests; 0: no new ones.", kMaxWeight),
    count(S::kEndpoint, "priority", "Lower first; others stand by for them.", kMaxPriority),
    word(S::kEndpoint, "health", "healthy|draining", "draining: no new requests."),

    count(S::kServiceLimits, "connections", "Open connections."),
    count(S::kServiceLimits, "pending", "Requests that wait for a connection."),
    time(S::kServiceLimits, "pending_time", "How long a request may wait for a connection."),
    count(S::kServiceLimits, "requests", "Requests in flight."),
    count(S::kServiceLimits, "retries", "Retries in flight."),
    or_false(word(S::kServiceLimits, "concurrency", "adaptive",
                  "adaptive: as many requests in flight as do not slow the service down.")),

    time(S::kServiceTimeouts, "connect", "To establish a connection."),
    time(S::kServiceTimeouts, "idle", "For an unused connection."),

    plain(S::kHealth, "probe", T::kProbe, "GET /path, tcp, grpc, or grpc with a service's name."),
    plain(S::kHealth, "every", T::kDuration, "How often, give or take a tenth."),
    plain(S::kHealth, "timeout", T::kDuration, "For the whole probe."),
    {.in = S::kHealth,
     .name = "healthy",
     .type = T::kNumber,
     .text = "Probes in a row that must succeed before a server is used again.",
     .min = 1,
     .max = limits::kMaxProbes},
    {.in = S::kHealth,
     .name = "unhealthy",
     .type = T::kNumber,
     .text = "Probes in a row that must fail before a server is left alone.",
     .min = 1,
     .max = limits::kMaxProbes},
    plain(S::kHealth, "status", T::kStatuses, "Statuses of a good answer; 200..299 unless said."),
    plain(S::kHealth, "host", T::kText, "The probe's Host; the server's address unless said."),

    or_false(plain(S::kEject, "after", T::kFailures,
                   "Gateway errors in a row: 502 to 504, or no answer at all.")),
    or_false(plain(S::kEject, "after_5xx", T::kFailures, "Answers 500 to 599 in a row.")),
    or_false(plain(S::kEject, "after_local", T::kFailures,
                   "Failures without an answer in a row, which then count here alone.")),
    plain(S::kEject, "for", T::kDuration,
          "How long the first time; the second time twice as long, and so on."),
    plain(S::kEject, "at_most", T::kPercent, "Share of the servers that may be left alone."),
    map(S::kEject, "outliers", S::kOutliers, "How far a server may fall behind the others."),
    word(S::kEject, "mode", "enforce|observe", "observe: decides, counts and logs alone."),

    plain(S::kOutliers, "success", T::kPercent,
          "How far its success rate may be below the mean of the others."),
    {.in = S::kOutliers,
     .name = "latency",
     .type = T::kNumber,
     .text = "How many times the median latency of the others its own may be.",
     .min = 2,
     .max = 1000},
    {.in = S::kOutliers,
     .name = "volume",
     .type = T::kNumber,
     .text = "Least requests in ten seconds to be compared.",
     .min = 1,
     .max = kMaxCount},

// clang-format off
#define POLICY_KEYS(S_)                                                                            \
  plain(S_, "mirror", T::kMirrorTo, "A service that gets a copy of requests, or of a share of them."), \
  plain(S_, "rewrite", T::kRewriteTo, "The path and host the upstream sees.", S::kRewrite),        \
  map(S_, "headers", S::kHeaders, "Header fields changed on the way."),                            \
  plain(S_, "timeout", T::kTimeoutPolicy,                                                          \
        "How long the request may take; a duration is the total.", S::kTimeout),                   \
  plain(S_, "retry", T::kRetryPolicy, "Further attempts; a number is how many.", S::kRetry),       \
  plain(S_, "hedge", T::kHedgePolicy, "A second attempt beside a slow one; a duration is when.", S::kHedge), \
  map(S_, "body", S::kBody, "Bounds of the request's body."),                                      \
  plain(S_, "upgrade", T::kTexts, "Protocols that a connection may switch to; [] is none."),       \
  word(S_, "when_empty", "spill|fail",                                                             \
       "Whether a target without servers leaves its share to the others."),                        \
  later(S_, "jwt"),                                                                                \
  later(S_, "auth")
    // clang-format on

    POLICY_KEYS(S::kPolicy),

    plain(S::kRoute, "name", T::kText, "What logs and metrics call it; its match unless said."),
    plain(S::kRoute, "listeners", T::kTexts,
          "The listeners it stands on; all HTTP listeners unless said."),
    plain(S::kRoute, "match", T::kMatches, "Which requests it takes; all unless said.", S::kMatch),
    plain(S::kRoute, "use", T::kTexts, "Policies it inherits from, the first one first."),
    plain(S::kRoute, "to", T::kTargets, "The services it forwards to."),
    plain(S::kRoute, "redirect", T::kRedirectTo, "Answers with a redirect.", S::kRedirect),
    plain(S::kRoute, "respond", T::kRespondWith, "Answers by itself.", S::kRespond),
    POLICY_KEYS(S::kRoute),
    later(S::kRoute, "publish"),
    {.in = S::kRoute,
     .name = "priority",
     .type = T::kNumber,
     .text = "Higher is asked first, before specificity.",
     .min = -1'000'000,
     .max = 1'000'000},

    plain(S::kMatch, "host", T::kHosts, "Host names, exact, *.wildcard or *."),
    plain(S::kMatch, "path", T::kPathMatches, "Paths: /exact, /prefix/**, /{template}, ~regex."),
    plain(S::kMatch, "method", T::kMethods, "Methods."),
    plain(S::kMatch, "headers", T::kValueMatches, "Header fields that must fit."),
    plain(S::kMatch, "query", T::kValueMatches, "Query parameters that must fit."),
    plain(S::kMatch, "cookies", T::kValueMatches, "Cookies that must fit."),
    later(S::kMatch, "from"),
    plain(S::kMatch, "client_ip", T::kCidrs, "Client addresses."),

    time(S::kTimeout, "headers", "From the end of the request to the head of the response."),
    time(S::kTimeout, "total", "For everything, every attempt and the body."),
    time(S::kTimeout, "per_try", "For one attempt."),
    time(S::kTimeout, "idle", "While no byte moves."),

    count(S::kRetry, "attempts", "Attempts beyond the first.", limits::kMaxRetryAttempts),
    {.in = S::kRetry,
     .name = "when",
     .type = T::kRetryWhen,
     .text = "Failures and statuses that are tried again.",
     .words = "connect-failure|refused-stream|reset|per-try-timeout|5xx|gateway-error"},
    plain(S::kRetry, "backoff", T::kBackoffRange, "Range of the pause before a further attempt."),
    plain(S::kRetry, "budget", T::kPercent, "Share of the completed requests that may be retries."),
    word(S::kRetry, "methods", "idempotent|all", "Which methods may be sent twice."),
    size(S::kRetry, "buffer", "Bytes of the request's body kept for a further attempt."),

    time(S::kHedge, "after", "How long the attempts before may take for the response's head."),
    {.in = S::kHedge,
     .name = "at_most",
     .type = T::kNumber,
     .text = "Attempts beside the first.",
     .min = 0,
     .max = limits::kMaxHedges},

    {.in = S::kRedirect,
     .name = "status",
     .type = T::kWord,
     .text = "The redirect's status.",
     .words = "301|302|303|307|308"},
    word(S::kRedirect, "scheme", "http|https", "The new scheme."),
    plain(S::kRedirect, "host", T::kText, "The new host."),
    {.in = S::kRedirect,
     .name = "port",
     .type = T::kNumber,
     .text = "The new port.",
     .min = 1,
     .max = 65535},
    plain(S::kRedirect, "path", T::kTemplate, "The new path, with captures as in rewrite."),

    {.in = S::kRespond,
     .name = "status",
     .type = T::kNumber,
     .text = "The response's status.",
     .min = 200,
     .max = 599},
    plain(S::kRespond, "headers", T::kHeaderValues, "The response's header fields."),
    plain(S::kRespond, "body", T::kText, "The response's body."),
    plain(S::kRespond, "file", T::kFile, "The file that is the response's body."),

    plain(S::kRewrite, "path", T::kTemplate, "The whole new path, with captures of the match."),
    plain(S::kRewrite, "host", T::kText, "The Host the upstream sees."),
    plain(S::kRewrite, "regex", T::kRegexes,
          "Replaces every match of each regex in the path, in order."),

    map(S::kHeaders, "request", S::kHeaderEdits, "Of the request."),
    map(S::kHeaders, "response", S::kHeaderEdits, "Of the response."),

    plain(S::kHeaderEdits, "set", T::kHeaderValues, "Replaces the field, or adds it."),
    plain(S::kHeaderEdits, "add", T::kHeaderValues, "Adds a further field."),
    plain(S::kHeaderEdits, "remove", T::kTexts, "Removes all fields of these names."),

    size(S::kBody, "max", "Most bytes; 0 is no limit."),

    plain(S::kTelemetry, "access_log", T::kAccessLogTo,
          "One line per request: json, text, false, or a file and format.", S::kAccessLog),
    or_false(map(S::kTelemetry, "metrics", S::kMetrics,
                 "The read-only surface; false switches it off.")),
    later(S::kTelemetry, "traces"),

    plain(S::kAccessLog, "file", T::kFile, "Where lines go; standard output unless said."),
    plain(S::kAccessLog, "format", T::kText, "json, text, or a line with %{variables}."),

    plain(S::kMetrics, "address", T::kAddress, "Address and port of /metrics, /ready and /live."),
    count(S::kMetrics, "series_limit", "Most series; the rest is counted together."),

    plain(S::kAdmin, "address", T::kLoopback, "Address and port, on loopback or unix:."),

    time(S::kDrain, "delay", "How long new connections are still accepted."),
    time(S::kDrain, "deadline", "When what still runs is ended."),

    or_false(plain(S::kOverload, "memory", T::kCeiling,
                   "Ceiling of memory: a size, or a share of the cgroup's limit.")),
    or_false(plain(S::kOverload, "descriptors", T::kPercent,
                   "Share of the file descriptors that clients may take.")),
    time(S::kOverload, "loop_delay", "How long a worker's loop may keep its work waiting."),

    map(S::kDefaults, "route", S::kPolicy, "What every route inherits last."),
    map(S::kDefaults, "service", S::kDefaultService, "What every service inherits."),

    word(S::kDefaultService, "protocol", kProtocols, "What the servers speak."),
    {.in = S::kDefaultService,
     .name = "balance",
     .type = T::kBalance,
     .text = "How a server is chosen; hash and maglev go by a key: hash(header x-user).",
     .words = kBalances},
    plain(S::kDefaultService, "health", T::kHealthTo,
          "How servers are asked whether they are well.", S::kHealth),
    or_false(map(S::kDefaultService, "eject", S::kEject,
                 "When servers that fail are left alone; false: never.")),
    map(S::kDefaultService, "limits", S::kServiceLimits,
        "Bounds of the whole process; 0 is no limit."),
    map(S::kDefaultService, "timeouts", S::kServiceTimeouts, "Of connections to the servers."),
    plain(S::kDefaultService, "timeout", T::kTimeoutPolicy, "Timeouts of requests, as on a route.",
          S::kTimeout),
    plain(S::kDefaultService, "retry", T::kRetryPolicy, "Further attempts, as on a route.",
          S::kRetry),
    plain(S::kDefaultService, "hedge", T::kHedgePolicy,
          "A second attempt beside a slow one, as on a route.", S::kHedge),
    time(S::kDefaultService, "slow_start",
         "How long a server that became usable takes less than its share."),
    plain(S::kDefaultService, "zone_aware", T::kBool, "Prefers servers of this proxy's zone."),
    later(S::kDefaultService, "tls"),
};
#undef POLICY_KEYS

struct Range {
  std::size_t first = 0;
  std::size_t count = 0;
};
constexpr std::array<Range, kSections> kRanges = [] {
  std::array<Range, kSections> ranges{};
  for (std::size_t i = 0; i < std::size(kKeys); ++i) {
    Range& range = ranges[static_cast<std::size_t>(kKeys[i].in)];
    if (range.count == 0) range.first = i;
    ++range.count;
  }
  return ranges;
}();
static_assert(
    [] {
      for (std::size_t i = 1; i < std::size(kKeys); ++i)
        if (kKeys[i].in < kKeys[i - 1].in) return false;
      return true;
    }(),
    "rows of one section stand together");

}  // namespace

const Key* find_key(std::span<const Key> keys, std::string_view name) {
  for (const Key& key : keys)
    if (key.name == name) return &key;
  return nullptr;
}

Keys::Keys(Extensions extensions) : extensions_(extensions) {
  const auto with = [&](Section section, std::vector<Key>& rows) {
    const Range& range = kRanges[static_cast<std::size_t>(section)];
    rows.assign(kKeys + range.first, kKeys + range.first + range.count);
    for (const Extension* extension : extensions) {
      rows.push_back(extension->key);
      rows.back().in = section;
    }
  };
  with(Section::kPolicy, policy_);
  with(Section::kRoute, route_);
}

std::span<const Key> Keys::of(Section section) const {
  if (section == Section::kPolicy) return policy_;
  if (section == Section::kRoute) return route_;
  const Range& range = kRanges[static_cast<std::size_t>(section)];
  return {kKeys + range.first, range.count};
}

}  // namespace outrider::config
