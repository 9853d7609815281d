// Words for anyone are the reason's sentence; the detail is for local and trusted clients, and for
// the log. Neither holds request bytes that could mean anything where they are written: each form
// escapes them.
#include "filters/local_reply.h"

#include <charconv>

#include "config/log.h"
#include "filters/http/accept.h"
#include "filters/template.h"

namespace outrider {
namespace {

constexpr std::string_view kMethodsAllowed = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";
constexpr char kHexLower[] = "0123456789abcdef";
constexpr char kHexUpper[] = "0123456789ABCDEF";

std::string_view decimal(std::uint64_t number, Arena& arena) {
  char digits[24];
  const char* const end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  return arena.copy({digits, static_cast<std::size_t>(end - digits)});
}

// `text` with what `escape` writes in place of each byte that `plain` refuses. At most `kWidest`
// bytes for one.
constexpr std::size_t kWidest = 6;
template <class Plain, class Escape>
std::string_view escaped(std::string_view text, Arena& arena, Plain plain, Escape escape) {
  std::size_t odd = 0;
  for (const char c : text) odd += plain(static_cast<unsigned char>(c)) ? 0 : 1;
  if (odd == 0) return text;
  char* const start = arena.bytes(text.size() + odd * kWidest);
  char* to = start;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (plain(byte))
      *to++ = c;
    else
      to = escape(to, byte);
  }
  return {start, static_cast<std::size_t>(to - start)};
}

// gRPC's percent encoding of grpc-message: all but printable ASCII, and the percent sign.
std::string_view grpc_message(std::string_view words, Arena& arena) {
  return escaped(
      words, arena, [](unsigned char byte) { return byte >= 0x20 && byte < 0x7f && byte != '%'; },
      [](char* to, unsigned char byte) {
        *to++ = '%';
        *to++ = kHexUpper[byte >> 4];
        *to++ = kHexUpper[byte & 15];
        return to;
      });
}

// Into a JSON string. Bytes that are not ASCII may not be UTF-8, so they are escaped one by one.
std::string_view json_text(std::string_view words, Arena& arena) {
  return escaped(
      words, arena,
      [](unsigned char byte) { return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\'; },
      [](char* to, unsigned char byte) {
        for (const char c : {'\\', 'u', '0', '0', kHexLower[byte >> 4], kHexLower[byte & 15]})
          *to++ = c;
        return to;
      });
}

std::string_view text_line(std::string_view words, Arena& arena) {
  return escaped(
      words, arena, [](unsigned char byte) { return byte >= 0x20 && byte != 0x7f; },
      [](char* to, unsigned char byte) {
        for (const char c : {'\\', 'x', kHexLower[byte >> 4], kHexLower[byte & 15]}) *to++ = c;
        return to;
      });
}

// `application/json`, `application/problem+json`.
bool is_json(std::string_view type) {
  if (type.size() < 5 || !equal_ignoring_case(type.substr(type.size() - 4), "json")) return false;
  const char before = type[type.size() - 5];
  return before == '/' || before == '+';
}

std::string_view problem_json(const Exchange& x, std::string_view words, Arena& arena) {
  const std::string_view phrase = status_phrase(x.status);
  return arena.concat(R"({"type":"about:blank","title":")",
                      phrase.empty() ? info(x.reason).word : phrase, R"(","status":)",
                      decimal(static_cast<std::uint64_t>(x.status), arena), R"(,"detail":")",
                      json_text(words, arena), R"(","reason":")", info(x.reason).word,
                      R"(","request_id":")", json_text(x.request_id, arena), "\"}\n");
}

std::string_view words_of(const Exchange& x) {
  return x.talkative && !x.detail.empty() ? x.detail : info(x.reason).sentence;
}

std::uint64_t grpc_status_of(const Exchange& x) {
  const bool own = x.answer.set && x.answer.grpc_status >= 0 && x.reason == x.answer.reason;
  return static_cast<std::uint64_t>(own ? x.answer.grpc_status : info(x.reason).grpc_status);
}

void add_grpc_status(const Exchange& x, Headers& headers) {
  Arena& arena = headers.arena();
  headers.add(HeaderId::kGrpcStatus, decimal(grpc_status_of(x), arena));
  headers.add(HeaderId::kGrpcMessage, grpc_message(words_of(x), arena));
}

}  // namespace

std::string_view local_reply(Exchange& x) {
  const LocalAnswer& answer = x.answer;
  const ReasonInfo& why = info(answer.reason);
  x.reason = answer.reason;
  x.detail = answer.detail;
  x.status = answer.status != 0 ? answer.status
             : why.status != 0  ? why.status
                                : info(Reason::kInternal).status;
  x.response.status = x.status;
  x.response.reason = {};
  x.response.content_length.reset();
  Headers& headers = x.response.headers;
  headers.clear();
  const std::string_view words = words_of(x);
  if (answer.retry_after_s != 0)
    headers.add(HeaderId::kRetryAfter, decimal(answer.retry_after_s, x.arena));
  if (x.is_grpc) {
    x.status = x.response.status = 200;
    headers.add(HeaderId::kContentType, "application/grpc");
    add_grpc_status(x, headers);
    return {};
  }
  if (answer.bare) {
    if (x.status != 204) x.response.content_length = 0;
    return {};
  }
  if (x.status == 405) headers.add(HeaderId::kAllow, kMethodsAllowed);  // RFC 9110 §15.5.6
  const bool json = accepts(x.request.headers, is_json);
  const std::string_view body =
      json ? problem_json(x, words, x.arena)
           : x.arena.concat(decimal(static_cast<std::uint64_t>(x.status), x.arena), " ", why.word,
                            ": ", text_line(words, x.arena), "\n");
  headers.add(HeaderId::kContentType,
              json ? "application/problem+json" : "text/plain; charset=utf-8");
  x.response.content_length = body.size();
  return x.request.method == Method::kHead ? std::string_view() : body;
}

Headers& grpc_trailers(Exchange& x) {
  auto* const trailers = x.arena.make<Headers>(x.arena);
  add_grpc_status(x, *trailers);
  return *trailers;
}

void note_failure(Exchange& x, Reason reason, std::string_view words) {
  if (x.reason != Reason::kOk && x.reason != Reason::kRetryBudget)
    return;  // the first cause stands
  x.reason = reason;
  x.detail = words;
  if (x.status == 0) x.status = info(reason).status;
}

void log_failure(const Exchange& x) {
  if (info(x.reason).status < 500 || !log::enabled(log::Level::kWarn)) return;
  Scratch scratch;
  const Value method = value_of(config::VariableKind::kMethod, x, scratch);
  const Value client = value_of(config::VariableKind::kClient, x, scratch);
  const Value route = value_of(config::VariableKind::kRoute, x, scratch);
  log::limited(x.reason, "{}: status {}, client {}, {} {}{}, route {}, request {}: {}",
               info(x.reason).word, x.status, client.text, method.text, x.host, x.path,
               route.text.empty() ? std::string_view("-") : route.text, x.request_id,
               x.detail.empty() ? info(x.reason).sentence : x.detail);
}

}  // namespace outrider
