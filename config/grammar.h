// The string grammars of the contract, one function each: text → value, or a Problem in words.
// Invariant: a Problem never repeats the text it is about (it may come from the environment); the
// reader does, as written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/model.h"

namespace outrider::config {

// What is wrong, to follow the quoted value: `is not a duration`. Empty: nothing.
struct [[nodiscard]] Problem {
  std::string text;
  std::string_view code = "bad-value";
  std::string suggestion;
  explicit operator bool() const { return !text.empty(); }
};
inline constexpr std::string_view kNotYet = "not-supported-yet";

// Amounts (grammar_amounts.cc).
Problem parse_integer(std::string_view text, std::int64_t min, std::int64_t max, std::int64_t& out);
Problem parse_duration(std::string_view text, Millis& out);         // `250ms` `1m30s` `0s`
Problem parse_size(std::string_view text, std::uint64_t& out);      // `64KiB` `10MB` `512`
Problem parse_percent(std::string_view text, double& out);          // `20%` is 0.2
Problem parse_backoff(std::string_view text, Backoff& out);         // `25ms..250ms` `100ms`
Problem parse_upload_rate(std::string_view text, UploadRate& out);  // `240B/s after 5s`
struct Rate {
  std::uint64_t count = 0;
  Millis period{0};  // a second, a minute or an hour
};
Problem parse_rate(std::string_view text, Rate& out);          // `50/s` `600/m` `10/h`
Problem parse_failures(std::string_view text, unsigned& out);  // `5 failures`
Problem parse_probe(std::string_view text, HealthCheck& out);  // `GET /healthz` `tcp` `grpc a.B`
Problem parse_statuses(std::string_view text, std::pair<int, int>& out);  // `204` `200..299`
// `client.ip` `client.id` `header N` `query N` `cookie N`
Problem parse_request_part(std::string_view text, RequestPart& out);
struct BalanceChoice {
  Balance balance = Balance::kLeastRequest;
  RequestPart key;
};
Problem parse_balance(std::string_view text, BalanceChoice& out);  // `random` `hash(header x-user)`
// `503`, a named condition, or `grpc:unavailable`; adds to `out`.
Problem parse_retry_on(std::string_view text, RetryWhen& out);
std::string_view grpc_name(int status);  // `unavailable`; empty: no such status
Problem parse_grpc_name(std::string_view text, int& status);
Problem parse_mirror(std::string_view text, Mirror& out);  // `svc@subset 5%`

// Addresses (grammar_address.cc).
enum class EndpointScheme : std::uint8_t { kNone, kHttp, kH2c };
Problem parse_address(std::string_view text, Address& out);  // to bind
Problem parse_endpoint(std::string_view text, Address& out, EndpointScheme& scheme);
Problem parse_cidr(std::string_view text, Cidr& out);
// `dns://…` and its like: where endpoints come from, rather than one.
bool is_source(std::string_view text);
Problem check_socket_path(std::string_view path);
// Where proxies keep what they share: `redis://USER:PASSWORD@HOST:PORT/DATABASE?timeout=50ms`, all
// but the host optional, or `redis+unix://USER:PASSWORD@/run/redis.sock`.
struct StoreUrl {
  Address address;
  std::string user;
  std::string password;  // empty: none is sent
  std::uint32_t database = 0;
  Millis timeout = limits::kStoreTimeout;  // of an answer
  std::string name() const;                // without user and password
  friend bool operator==(const StoreUrl&, const StoreUrl&) = default;
};
Problem parse_store_url(std::string_view text, StoreUrl& out);

// Matches (grammar_match.cc).
Problem parse_host(std::string_view text, HostMatch& out);
Problem parse_path(std::string_view text, PathMatch& out);
Problem parse_match(std::string_view text, Match& out);  // `GET,POST shop.example/a/**`
Problem parse_method(std::string_view text);
Problem parse_value_match(std::string_view text, ValueMatch& out);
Problem check_regex(std::string_view regex);
std::string short_form(const Match& match);

// Names and texts (grammar_text.cc).
Problem check_name(std::string_view text);  // of a listener, service, subset, policy
Problem check_route_name(std::string_view text);
Problem check_field_name(std::string_view text);    // an HTTP token
Problem check_edited_field(std::string_view text);  // … that routes may set, add or remove
Problem check_field_value(std::string_view text);
Problem check_host(std::string_view text);  // `shop.example:8443`, to send
Problem check_token(std::string_view text);
Problem parse_target(std::string_view text, Target& out);  // `svc` `svc@subset`

// What a rewrite takes from the match that took the request.
struct Template {
  std::vector<std::string_view> captures;  // `{id}`; views into the text
  bool rest = false;                       // `/**`
  int group = 0;                           // the highest `\N`
};
Problem parse_template(std::string_view text, Template& out);
// Whether `match` supplies what `wanted` takes; a Problem says what it lacks.
Problem check_captures(const Template& wanted, const PathMatch& match);
Problem check_replacement(std::string_view regex, std::string_view replacement);
std::string lower(std::string_view text);

}  // namespace outrider::config
