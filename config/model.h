// What was asked: the structs that YAML becomes, after shorthands, includes and cross-checks,
// before compilation. Immutable once loaded. Everything that decides a request carries the place it
// was written (Mark), because `explain`, error bodies and `config --origins` name it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/keys.h"
#include "config/limits.h"
#include "config/variables.h"

namespace outrider::config {

// A place in a file of Config::files; file < 0: built in.
struct Mark {
  std::int32_t file = -1;
  std::uint32_t line = 0;    // 1-based
  std::uint32_t column = 0;  // 1-based, in bytes
  bool built_in() const { return file < 0; }
};

// A value and where it was written.
template <class T>
struct Leaf {
  T value{};
  Mark mark;
};
template <class T>
using Maybe = std::optional<Leaf<T>>;

struct Address {
  enum class Kind : std::uint8_t {
    kIp,    // one address and port
    kAny,   // every address of the machine, dual-stack
    kUnix,  // path
  };
  Kind kind = Kind::kIp;
  bool v6 = false;
  std::array<std::uint8_t, 16> ip{};  // network order; IPv4 in the first four bytes
  std::uint16_t port = 0;
  std::string path;
  std::string to_string() const;  // `127.0.0.1:80`, `[::1]:80`, `:80`, `unix:/run/x.sock`
  friend bool operator==(const Address&, const Address&) = default;
};
// Reached from this machine alone; a Unix socket is.
bool is_loopback(const Address& address);
bool is_loopback(const std::array<std::uint8_t, 16>& ip);  // IPv4 as ::ffff:a.b.c.d
// Whether two cannot be bound side by side: one takes connections that are the other's. Port 0
// never does.
bool overlap(const Address& a, const Address& b);

struct Cidr {
  std::array<std::uint8_t, 16> ip{};  // IPv4 as ::ffff:a.b.c.d
  std::uint8_t bits = 128;
  bool contains(const std::array<std::uint8_t, 16>& mapped) const;
  std::string to_string() const;
};

// `text` exact · `~re` · `""` present · `"!x"` not x · `"!"` absent.
struct ValueMatch {
  enum class Kind : std::uint8_t { kExact, kRegex, kPresent };
  Kind kind = Kind::kExact;
  bool negated = false;
  std::string text;
};

// ---- listeners

enum class EscapedSlashes : std::uint8_t { kAuto, kKeep, kReject };

struct UploadRate {
  std::uint64_t bytes_per_second = limits::kUploadBytesPerSecond;
  Millis after = limits::kUploadGrace;
};

struct ListenerLimits {  // 0: no limit
  Leaf<std::uint64_t> headers{limits::kHeaderBytes, {}};
  Leaf<std::uint64_t> target{limits::kTargetBytes, {}};
  Leaf<std::uint64_t> fields{limits::kFields, {}};
  Leaf<std::uint64_t> body{0, {}};
  std::uint64_t streams = limits::kStreams;
  std::uint64_t connections = limits::kConnections;
  std::uint64_t per_client = 0;
  std::uint64_t requests = limits::kRequestsPerConnection;
};

struct ListenerTimeouts {  // 0: none
  Millis handshake = limits::kHandshake;
  Millis header = limits::kHeader;
  Millis body = limits::kBodyGap;
  Millis stall = limits::kStall;
  Millis idle = limits::kKeepAlive;
  UploadRate upload_rate;
};

struct Target {
  std::string service;
  std::string subset;  // empty: all endpoints
  std::uint32_t weight = 1;
  Mark mark;
};

struct Redirect {
  int status = 301;
  std::string scheme;  // empty: the request's
  std::string host;
  std::optional<std::uint16_t> port;
  std::string path;  // as in Rewrite::path; empty: the request's
  Mark mark;
};

struct Policy;

struct Listener {
  std::string name;
  Mark mark;
  Address address;
  Mark address_mark;
  bool http1 = true;
  bool http2 = true;
  bool tcp = false;  // protocol: tcp; `to` then says where
  std::vector<Target> to;
  std::vector<Policy> policies;      // of raw TCP and redirects, as Route::policies
  std::optional<Redirect> redirect;  // answers everything; takes no routes
  std::vector<Cidr> trust;
  bool forwarded = true;
  bool merge_slashes = true;
  EscapedSlashes escaped_slashes = EscapedSlashes::kAuto;
  ListenerLimits limits;
  ListenerTimeouts timeouts;
};

// ---- services

enum class Protocol : std::uint8_t { kAuto, kHttp1, kHttp2, kTcp };
enum class Balance : std::uint8_t {
  kLeastRequest,
  kRoundRobin,
  kRandom,
  kPeakEwma,
  kHash,    // a ring, by a key
  kMaglev,  // a table, by a key
};

// The part of a request that a hash or a limit goes by: a client's address or identity, the first
// header field, query parameter or cookie of a name.
struct RequestPart {
  VariableKind kind = VariableKind::kClient;  // kClient, kClientId, kHeader, kQuery or kCookie
  std::string name;                           // of the last three
};

enum class Health : std::uint8_t { kUnknown, kHealthy, kUnhealthy, kDraining };

struct Endpoint {
  Address address;
  std::map<std::string, std::string> labels;
  std::string zone;
  std::uint32_t weight = 1;    // 0: no new requests
  std::uint32_t priority = 0;  // lower first
  Health health = Health::kUnknown;
  Mark mark;
};

struct ServiceLimits {  // process-wide; 0: no limit
  Leaf<std::uint64_t> connections{limits::kServiceConnections, {}};
  Leaf<std::uint64_t> pending{limits::kPending, {}};
  Leaf<Millis> pending_time{limits::kPendingTime, {}};
  Leaf<std::uint64_t> requests{0, {}};
  Leaf<std::uint64_t> retries{0, {}};
  Leaf<bool> adaptive{false, {}};  // concurrency: found out from latencies
};

// When an endpoint is left alone because requests fail there.
struct Eject {
  bool on = true;
  bool observe = false;                           // decides, counts and logs, but does nothing
  Leaf<unsigned> after{limits::kEjectAfter, {}};  // gateway errors in a row; 0: not counted
  Leaf<unsigned> after_5xx{0, {}};
  Leaf<unsigned> after_local{0, {}};  // failures without an answer, apart; 0: among the others
  Leaf<Millis> span{limits::kEjectFor, {}};        // the first time; then twice, thrice …
  Leaf<double> at_most{limits::kEjectAtMost, {}};  // share of the endpoints
  // Against the other endpoints over limits::kOutlierEvery; 0: not compared.
  Leaf<double> success{0, {}};    // so much below the mean of their success rates
  Leaf<unsigned> latency{0, {}};  // so many times the median of their latencies
  Leaf<unsigned> volume{limits::kOutlierVolume, {}};  // least requests to be compared
  bool compares() const { return on && (success.value > 0 || latency.value != 0); }
};

// How endpoints are asked whether they are well.
struct HealthCheck {
  enum class Probe : std::uint8_t { kNone, kHttp, kTcp, kGrpc };
  Probe probe = Probe::kNone;
  std::string text;    // as written: `GET /healthz`, `tcp`, `grpc shop.Cart`
  std::string method;  // kHttp
  std::string target;
  std::string service;                                    // kGrpc; empty: the server as a whole
  std::string host;                                       // empty: the endpoint's address
  std::vector<std::pair<int, int>> statuses{{200, 299}};  // of a good answer, ends included
  Millis every = limits::kProbeEvery;
  Millis timeout = limits::kProbeTimeout;
  unsigned healthy = limits::kProbesHealthy;      // good answers in a row to be used again
  unsigned unhealthy = limits::kProbesUnhealthy;  // bad ones in a row to be left alone
  Mark mark;
  bool on() const { return probe != Probe::kNone; }
};

struct Service {
  std::string name;
  Mark mark;
  std::vector<Endpoint> endpoints;
  Protocol protocol = Protocol::kAuto;
  Balance balance = Balance::kLeastRequest;
  RequestPart balance_key;  // of kHash and kMaglev
  Millis slow_start{0};     // 0: none
  std::string near_zone;    // where this proxy runs, if that matters to the choice; else empty
  HealthCheck health;
  Eject eject;
  ServiceLimits limits;
  Leaf<Millis> connect{limits::kConnect, {}};
  Leaf<Millis> idle{limits::kPoolIdle, {}};
  std::map<std::string, std::map<std::string, std::string>>
      subsets;  // name → labels that an endpoint must carry
};

std::string balance_text(const Service& service);  // `hash(header x-user)`, as it is written

// ---- policy: the keys that inherit, leaf by leaf

enum class RetryOn : std::uint16_t {  // bits; statuses stand apart
  kConnectFailure = 1,
  kRefusedStream = 2,
  kReset = 4,
  kPerTryTimeout = 8,
  k5xx = 16,
  kGatewayError = 32,
};
struct RetryWhen {
  std::uint16_t bits = 7;  // connect-failure, refused-stream, reset
  std::vector<int> statuses;
  std::uint32_t grpc = 0;  // bits by gRPC's status numbers
  bool has_grpc(int status) const {
    return status >= 0 && status < 32 && (grpc >> status & 1) != 0;
  }
  bool has(RetryOn on) const { return (bits & static_cast<std::uint16_t>(on)) != 0; }
};
struct Backoff {
  Millis min = limits::kBackoffMin;
  Millis max = limits::kBackoffMax;
};
enum class RetryMethods : std::uint8_t { kIdempotent, kAll };
enum class WhenEmpty : std::uint8_t { kSpill, kFail };

using Fields =
    std::vector<std::pair<std::string, Leaf<std::string>>>;  // as written; values may hold %{…}
struct HeaderEdits {
  Fields set;
  Fields add;
  Maybe<std::vector<std::string>> remove;
};

struct Mirror {
  Target target;
  double share = 1;  // 0.05 = 5 %; 0: none
};

using RegexRewrites = std::vector<std::pair<std::string, std::string>>;

// What one level says. `effective()` merges levels; then every Maybe but the optional ones below is
// set.
struct Policy {
  Maybe<Millis> timeout_headers;
  Maybe<Millis> timeout_total;    // unset: none
  Maybe<Millis> timeout_per_try;  // unset: none
  Maybe<Millis> timeout_idle;
  Maybe<unsigned> retry_attempts;
  Maybe<RetryWhen> retry_when;
  Maybe<Backoff> retry_backoff;
  Maybe<double> retry_budget;  // share, 0.2 = 20 %
  Maybe<RetryMethods> retry_methods;
  Maybe<std::uint64_t> retry_buffer;
  Maybe<Millis> hedge_after;  // unset or 0: none
  Maybe<unsigned> hedge_at_most;
  Maybe<Mirror> mirror;           // unset: none
  Maybe<std::uint64_t> body_max;  // unset: the listener's; 0: none
  Maybe<std::vector<std::string>> upgrade;
  Maybe<WhenEmpty> when_empty;
  Maybe<std::string> rewrite_path;     // unset: none
  Maybe<std::string> rewrite_host;     // unset: none
  Maybe<RegexRewrites> rewrite_regex;  // unset: none
  HeaderEdits request_headers;
  HeaderEdits response_headers;
  // What filters are told, by the extension that read it (extension.h).
  std::vector<std::pair<const Extension*, std::shared_ptr<const void>>> told;
};

// ---- routes

struct PathMatch {
  enum class Kind : std::uint8_t { kAny, kExact, kTemplate, kPrefix, kRegex };
  // kExact: `/a` no wildcards; kTemplate: has `*`/`{id}`, no `**`; kPrefix: ends in `/**`; kRegex:
  // text after `~`.
  Kind kind = Kind::kAny;
  struct Segment {
    enum class Kind : std::uint8_t { kText, kAny };  // kAny: `*` or `{name}`
    Kind kind = Kind::kText;
    std::string text;  // kText: the segment, normalised; kAny: the capture's name, empty for `*`
  };
  std::vector<Segment> segments;  // without the `**`; empty for `/**` and for kAny
  bool trailing_slash = false;    // `/a/` exact: ends with a slash
  std::string regex;
  std::string text;  // as written
};

struct HostMatch {
  enum class Kind : std::uint8_t {
    kAny,
    kExact,
    kWildcard
  };  // kWildcard: `*.shop.example`, text is `shop.example`
  Kind kind = Kind::kAny;
  std::string text;  // lower case
  std::optional<std::uint16_t> port;
};

using NamedMatch = std::pair<std::string, ValueMatch>;

// One candidate: all of its conditions must hold. A route has one per element of its match list
// (times hosts and paths given as lists).
struct Match {
  HostMatch host;
  PathMatch path;
  std::vector<std::string> methods;  // empty: any
  std::vector<NamedMatch> headers;   // lower-case names
  std::vector<NamedMatch> query;
  std::vector<NamedMatch> cookies;
  std::vector<Cidr> client_ip;
  Mark mark;
  std::string short_form;  // `GET shop.example/a/**`
};

struct Respond {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  Mark mark;
};

struct Route {
  std::string name;
  Mark mark;
  std::vector<std::string> listeners;  // resolved: every HTTP listener when none was named
  std::vector<Match> matches;  // never empty; a route without `match` has one that takes all
  std::int32_t priority = 0;
  // Exactly one of these three.
  std::vector<Target> to;
  std::optional<Redirect> redirect;
  std::optional<Respond> respond;
  // Effective policy of each target (same index as `to`), or one element for redirect and respond.
  std::vector<Policy> policies;
};

// ---- process

struct Telemetry {
  enum class Log : std::uint8_t { kJson, kText, kFormat, kOff };
  Log access_log = Log::kJson;
  std::string access_log_file;    // empty: stdout
  std::string access_log_format;  // kFormat: with %{…}
  bool metrics = true;
  bool metrics_written =
      false;                // a default address that is taken is a warning, a written one an error
  Address metrics_address;  // :9900
  std::uint32_t series_limit = limits::kMetricSeries;
};

struct Admin {
  bool on = true;
  bool written = false;
  Address address;  // 127.0.0.1:9901
};

// When the process begins to refuse work in order to live; 0: not looked at.
struct Overload {
  double memory_share = limits::kOverloadMemory;  // of the cgroup's limit, else of the machine's
  std::uint64_t memory = 0;                       // bytes, in place of the share
  double descriptors = limits::kOverloadDescriptors;  // share of RLIMIT_NOFILE
  Millis loop_delay = limits::kOverloadLoopDelay;
};

struct File {
  std::string path;       // as named on the command line or by include
  std::string directory;  // what relative paths in it are relative to
  std::string text;
};

struct Config {
  std::vector<File> files;
  Extensions extensions;            // it was read with
  std::optional<unsigned> workers;  // unset: auto
  std::string zone;                 // where this proxy runs; empty: not said
  std::vector<Listener> listeners;  // file order
  std::vector<Service> services;    // file order
  std::vector<Route> routes;        // file order
  Telemetry telemetry;
  Admin admin;
  Overload overload;
  Millis drain_delay = limits::kDrainDelay;
  Millis drain_deadline = limits::kDrainDeadline;  // 0: none

  std::string where(const Mark& mark) const;  // `edge.yaml:12`, or `built-in`
};

}  // namespace outrider::config
