// Values are read where they lie; only numbers and times are written, into the caller's scratch.
#include "filters/template.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "config/timestamp.h"
#include "discovery/service.h"
#include "filters/chain.h"
#include "filters/http/query.h"
#include "filters/route_table.h"

namespace outrider {
namespace {

using Kind = config::VariableKind;

Value number(std::uint64_t value, Scratch& scratch) {
  const auto end = std::to_chars(scratch.bytes, scratch.bytes + sizeof scratch.bytes, value).ptr;
  return {{scratch.bytes, static_cast<std::size_t>(end - scratch.bytes)}, {}};
}

// Milliseconds with three decimals; nothing while either end is missing.
Value milliseconds(std::uint64_t from_ns, std::uint64_t to_ns, Scratch& scratch) {
  if (from_ns == 0 || to_ns < from_ns) return {};
  const std::uint64_t us = (to_ns - from_ns) / 1000;
  char* end = std::to_chars(scratch.bytes, scratch.bytes + sizeof scratch.bytes - 4, us / 1000).ptr;
  *end++ = '.';
  for (std::uint64_t unit = 100; unit != 0; unit /= 10)
    *end++ = static_cast<char>('0' + us / unit % 10);
  return {{scratch.bytes, static_cast<std::size_t>(end - scratch.bytes)}, {}};
}

// From the last attempt's start to its response head; to its end when none came.
Value upstream_time(const Exchange& x, Scratch& scratch) {
  if (x.attempt == nullptr) return {};
  const Attempt& last = *x.attempt;
  return milliseconds(last.started_ns, last.head_ns != 0 ? last.head_ns : last.ended_ns, scratch);
}

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// Of a well-formed traceparent (W3C Trace Context §3.2).
std::string_view trace_id(const Headers& headers) {
  const std::string_view parent = headers.get(HeaderId::kTraceparent);
  if (parent.size() < 55 || parent[2] != '-' || parent[35] != '-' || parent[52] != '-') return {};
  const std::string_view version = parent.substr(0, 2), trace = parent.substr(3, 32),
                         span = parent.substr(36, 16);
  const bool sound = is_hex(version) && is_hex(trace) && is_hex(span) &&
                     is_hex(parent.substr(53, 2)) && version != "ff" &&
                     (parent.size() == 55 || (version != "00" && parent[55] == '-'));
  const auto all_zero = [](std::string_view id) {
    return id.find_first_not_of('0') == std::string_view::npos;
  };
  return sound && !all_zero(trace) && !all_zero(span) ? trace : std::string_view();
}

// A head that never was complete has no method, and a raw connection has none either.
bool has_head(const Exchange& x) {
  return x.request.version != Version::kTcp && !(x.path.empty() && x.request.target.empty());
}

Value path_and_query(const Exchange& x) {
  if (x.path.empty()) return {x.request.target, {}};
  return {x.path, x.query};
}

std::string_view capture_named(std::string_view name, const Exchange& x) {
  if (x.match == nullptr) return {};
  Captures captures;
  RouteTable::capture(*x.match, x.path, captures);
  std::size_t at = 0;
  for (const config::PathMatch::Segment& segment : x.match->path.segments) {
    if (segment.kind != config::PathMatch::Segment::Kind::kAny) continue;
    if (segment.text == name)
      return at < Captures::kMax ? captures.segments[at] : std::string_view();
    ++at;
  }
  return {};
}

}  // namespace

Value value_of(Kind field, const Exchange& x, Scratch& scratch) {
  switch (field) {
    case Kind::kTime: return {format_timestamp(x.started_wall_ms, scratch.bytes), {}};
    case Kind::kListener:
      return {x.client.listener != nullptr ? std::string_view(x.client.listener->name) : "", {}};
    case Kind::kClient: return {x.client_ip_text.empty() ? x.client.ip_text : x.client_ip_text, {}};
    case Kind::kClientId: return {x.caller(), {}};
    case Kind::kMethod: return {has_head(x) ? x.method() : std::string_view(), {}};
    case Kind::kHost: return {x.host, {}};
    case Kind::kPath: return path_and_query(x);
    case Kind::kProtocol: return {to_string(x.request.version), {}};
    case Kind::kStatus:
      return x.status == 0 ? Value{} : number(static_cast<std::uint64_t>(x.status), scratch);
    case Kind::kReason: return {info(x.reason).word, {}};
    case Kind::kRoute:
      return {x.route != nullptr ? std::string_view(x.route->route->name) : "", {}};
    case Kind::kService:
      return {x.target != nullptr && x.target->target != nullptr
                  ? std::string_view(x.target->target->service)
                  : "",
              {}};
    case Kind::kEndpoint:
      return {x.endpoint != nullptr ? std::string_view(x.endpoint->text) : "", {}};
    case Kind::kAttempts: return number(x.attempts, scratch);
    case Kind::kBytesIn: return number(x.bytes_in, scratch);
    case Kind::kBytesOut: return number(x.bytes_out, scratch);
    case Kind::kDuration: return milliseconds(x.started_ns, x.ended_ns, scratch);
    case Kind::kUpstream: return upstream_time(x, scratch);
    case Kind::kRequestId: return {x.request_id, {}};
    case Kind::kTraceId: return {trace_id(x.request.headers), {}};
    case Kind::kUserAgent: return {x.request.headers.get(HeaderId::kUserAgent), {}};
    case Kind::kTls:
      return {x.client.tls == nullptr ? std::string_view() : x.client.tls->version, {}};
    default: return {};  // those with an argument: the other overload
  }
}

Value value_of(const Template::Part& part, const Exchange& x, Scratch& scratch) {
  switch (part.kind) {
    case Kind::kHeader: {
      const Header* const header = x.request.headers.find(part.header, part.argument);
      return {part.header == HeaderId::kHost ? x.request.authority
              : header != nullptr            ? header->value
                                             : std::string_view(),
              {}};
    }
    case Kind::kQuery:
      return {query_value(x.query, part.argument).value_or(std::string_view()), {}};
    case Kind::kCookie:
      return {cookie_value(x.request.headers, part.argument).value_or(std::string_view()), {}};
    case Kind::kCapture: return {capture_named(part.argument, x), {}};
    default: return value_of(part.kind, x, scratch);
  }
}

Template::Template(std::string_view text) {
  std::vector<config::Piece> pieces;
  if (!config::split_text(text, pieces).empty()) pieces.assign(1, {text, std::nullopt});
  for (const config::Piece& piece : pieces) {
    if (piece.variable) {
      constant_ = false;
      const auto& [kind, argument] = *piece.variable;
      parts_.push_back({{},
                        true,
                        kind,
                        kind == Kind::kHeader ? header_id(argument) : HeaderId::kUnknown,
                        std::string(argument)});
    } else if (!parts_.empty() && !parts_.back().variable) {
      parts_.back().literal += piece.literal;
    } else {
      parts_.push_back({std::string(piece.literal), false, Kind::kTime, HeaderId::kUnknown, {}});
    }
  }
}

std::string_view Template::expand(Exchange& x) const {
  if (parts_.empty()) return {};
  if (constant_) return parts_.front().literal;
  // Pieces first, then one copy: the result is as long as it must be.
  std::string_view whole;
  for (const Part& part : parts_) {
    Scratch scratch;
    const Value value = part.variable ? value_of(part, x, scratch) : Value{part.literal, {}};
    if (!value.empty()) whole = x.arena.concat(whole, value.text, value.tail);
  }
  return whole;
}

std::string_view expand_text(std::string_view text, Exchange& x) {
  if (text.find("%{") == std::string_view::npos) return text;
  return x.arena.copy(Template(text).expand(x));
}

bool is_header_value(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\t') || byte == 0x7f;
  });
}

}  // namespace outrider
