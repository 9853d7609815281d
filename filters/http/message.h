// Request and response heads: what a codec parsed, already checked, one meaning each. Where HTTP/1
// and HTTP/2 differ, this is the form both translate to, so nothing above a codec asks which one it
// was.
//
// Invariants after a codec: no hop-by-hop field is left (Connection, what it named, Upgrade, TE but
// `trailers`, …); Host and Content-Length may stand in `headers` only as place holders of position
// and case: the sending codec writes `authority` and `content_length` there. A WebSocket over
// HTTP/2 (RFC 8441) looks like the HTTP/1 upgrade: method GET, `upgrade` set, and status 101 when
// it was taken.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "filters/http/headers.h"

namespace outrider {

enum class Method : std::uint8_t {
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kPatch,
  kOptions,
  kConnect,
  kTrace,
  kOther
};

Method method_of(std::string_view text);
// Safe to apply twice (RFC 9110 §9.2.2).
constexpr bool is_idempotent(Method method) {
  return method != Method::kPost && method != Method::kPatch && method != Method::kConnect &&
         method != Method::kOther;
}

enum class Version : std::uint8_t { kHttp10, kHttp11, kHttp2, kTcp };
std::string_view to_string(Version version);  // `HTTP/1.1`

struct RequestHead;
// A browser asks whether it may send a request (Fetch §3.2.2), whose method is in
// Access-Control-Request-Method.
bool is_preflight(const RequestHead& request);

struct RequestHead {
  explicit RequestHead(Arena& arena) : headers(arena) {}
  Method method = Method::kGet;
  Version version = Version::kHttp11;
  std::string_view method_text = "GET";
  std::string_view scheme;  // `http`, `https`: from the connection, or :scheme
  std::string_view
      authority;  // as it came, checked: host[:port], never empty but in HTTP/1.0 without Host
  std::string_view target;   // origin-form: path and query as they came (`*` for OPTIONS *)
  std::string_view upgrade;  // token of an upgrade asked for (`websocket`), empty: none
  std::optional<std::uint64_t> content_length;  // unset with a body: chunked / until END_STREAM
  bool expects_continue = false;
  bool te_trailers = false;
  Headers headers;
};

struct ResponseHead {
  explicit ResponseHead(Arena& arena) : headers(arena) {}
  int status = 200;
  Version version = Version::kHttp11;
  std::string_view reason;  // HTTP/1 phrase; empty: the standard one
  std::optional<std::uint64_t> content_length;
  Headers headers;
};

std::string_view status_phrase(int status);

}  // namespace outrider
