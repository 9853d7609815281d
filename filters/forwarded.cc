// Most requests have none of these fields: one pass over the head, a switch on the id, and nothing
// else to do.
#include "filters/forwarded.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "filters/filter.h"
#include "filters/random.h"
#include "filters/registry.h"

namespace outrider {
namespace {

constexpr std::size_t kRequestIdBytes = 64;   // of one we are given, at most
constexpr std::size_t kRequestIdDigits = 32;  // of one we make
constexpr std::uint32_t kCountCeiling =
    1'000'000;  // of hops and attempts, so that sums stay in range

bool starts_with_ignoring_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() && equal_ignoring_case(text.substr(0, start.size()), start);
}

// Names without an id that steer proxies, or say what only a proxy in front may say.
bool steers(std::string_view name) {
  if (name.empty()) return false;
  switch (name.front() | 0x20) {
    case 'x':
      return starts_with_ignoring_case(name, "x-outrider-") ||
             starts_with_ignoring_case(name, "x-envoy-") ||
             starts_with_ignoring_case(name, "x-original-") ||
             starts_with_ignoring_case(name, "x-forwarded-") ||
             equal_ignoring_case(name, "x-rewrite-url") || equal_ignoring_case(name, "x-b3-flags");
    case 'l': return starts_with_ignoring_case(name, "l5d-");
    default: return false;
  }
}

// `X_Forwarded_For`: to servers that turn names into variables it is the header it imitates.
bool imitates(std::string_view name) {
  char dashed[64];
  if (name.size() > sizeof dashed || name.find('_') == std::string_view::npos) return false;
  std::transform(name.begin(), name.end(), dashed, [](char c) { return c == '_' ? '-' : c; });
  return header_id({dashed, name.size()}) != HeaderId::kUnknown || steers({dashed, name.size()});
}

// Digits alone, no more than the ceiling.
bool parse_count(std::string_view text, std::uint32_t& count) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return false;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), count);
  if (result.ec != std::errc() || count > kCountCeiling) count = kCountCeiling;
  return true;
}

bool unwanted(const Header& header, bool trusted) {
  std::uint32_t count = 0;
  switch (header.id) {
    case HeaderId::kUnknown: return (!trusted && steers(header.name)) || imitates(header.name);
    case HeaderId::kForwarded:
    case HeaderId::kXForwardedFor:
    case HeaderId::kXForwardedHost:
    case HeaderId::kXForwardedPort:
    case HeaderId::kXForwardedProto:
    case HeaderId::kXRealIp: return !trusted;
    case HeaderId::kXForwardedClientCert:
    case HeaderId::kProxy: return true;
    case HeaderId::kXOutriderHops:
    case HeaderId::kXOutriderAttempt: return !parse_count(header.value, count);
    default: return false;
  }
}

bool is_sane_id(std::string_view id) {
  return !id.empty() && id.size() <= kRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

// Eight hexadecimal digits: each half of a byte spread to a byte of its own, the ones over 9 made
// letters.
std::uint64_t hex_digits(std::uint32_t number) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  std::uint64_t digits = number;
  digits = (digits | digits << 16) & 0x0000ffff0000ffff;
  digits = (digits | digits << 8) & 0x00ff00ff00ff00ff;
  digits = (digits | digits << 4) & 0x0f0f0f0f0f0f0f0f;
  const std::uint64_t letters = ((digits + kOnes * 6) >> 4) & kOnes;
  return digits + kOnes * '0' + letters * ('a' - '9' - 1);
}

// 128 random bits, in the form of a trace id.
std::string_view make_request_id(Arena& arena) {
  char* const id = arena.bytes(kRequestIdDigits);
  Random& random = thread_random();
  for (std::size_t at = 0; at < kRequestIdDigits; at += 16) {
    const std::uint64_t bits = random.next();
    const std::uint64_t digits[] = {hex_digits(static_cast<std::uint32_t>(bits)),
                                    hex_digits(static_cast<std::uint32_t>(bits >> 32))};
    std::memcpy(id + at, digits, sizeof(digits));
  }
  return {id, kRequestIdDigits};
}

bool in_trust(const Exchange& x, const std::array<std::uint8_t, 16>& ip) {
  const std::vector<config::Cidr>& trusted = x.client.listener->trust;
  return std::any_of(trusted.begin(), trusted.end(),
                     [&](const config::Cidr& cidr) { return cidr.contains(ip); });
}

constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool is_mapped(const std::array<std::uint8_t, 16>& ip) {
  return std::equal(kMapped.begin(), kMapped.end(), ip.begin());
}

// Walks a list of addresses from the right, from our own peer outwards, to the first that is not
// trusted.
class Walk {
 public:
  explicit Walk(Exchange& x) : x_(x) {}
  // False: the walk is over.
  bool step(std::string_view entry) {
    std::array<std::uint8_t, 16> ip{};
    if (!parse_ip(trim_ows(entry), ip)) return false;  // nobody vouches for what lies beyond
    x_.client_ip = ip;
    moved_ = true;
    return in_trust(x_, ip);
  }
  void finish() {
    if (!moved_) return;
    x_.client_ip_text = format_ip(x_.client_ip, x_.arena);
    x_.talkative = config::is_loopback(x_.client_ip) || in_trust(x_, x_.client_ip);
  }

 private:
  Exchange& x_;
  bool moved_ = false;
};

// `for=` of one element of Forwarded (RFC 7239 §4): `for="[2001:db8::1]:80";proto=https`.
std::string_view forwarded_for(std::string_view element) {
  while (!element.empty()) {
    const std::size_t end = element.find(';');
    std::string_view pair = trim_ows(element.substr(0, end));
    element.remove_prefix(end == std::string_view::npos ? element.size() : end + 1);
    if (!starts_with_ignoring_case(pair, "for=")) continue;
    pair.remove_prefix(4);
    if (pair.size() >= 2 && pair.front() == '"' && pair.back() == '"')
      pair = pair.substr(1, pair.size() - 2);
    return pair;
  }
  return {};
}

// The fields of one name, last first; each list from its right end.
void resolve_client(Exchange& x, HeaderId id) {
  Walk walk(x);
  bool going = true;
  const Headers& headers = x.request.headers;
  for (const Header* header = headers.end(); going && header-- != headers.begin();) {
    if (header->id != id) continue;
    for (std::string_view list = header->value; going;) {
      const std::size_t comma = list.rfind(',');
      const std::string_view entry =
          comma == std::string_view::npos ? list : list.substr(comma + 1);
      going = walk.step(id == HeaderId::kForwarded ? forwarded_for(entry) : entry);
      if (comma == std::string_view::npos) break;
      list = list.substr(0, comma);
    }
  }
  walk.finish();
}

// A small number as text.
std::string_view decimal(std::uint32_t number, Arena& arena) {
  char digits[16];
  const char* const end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  return arena.copy({digits, static_cast<std::size_t>(end - digits)});
}

// Adds to what goes upstream: the peer, scheme and host as the client wrote them, the request id,
// how far it came, which attempt it is.
class Forwarded final : public Filter {
 public:
  Forwarded() : Filter(Phase::kRequest | Phase::kAttempt) {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    if (!adds(x)) return Verdict::kContinue;
    if (x.inbound_hops >= limits::kMaxHops) {
      x.reply(Reason::kLoopDetected, "x-outrider-hops reached its limit");
      return Verdict::kReply;
    }
    Headers& headers = x.request.headers;
    if (!x.client.unix_socket) headers.set(HeaderId::kXForwardedFor, with_peer(x));
    if (headers.find(HeaderId::kXForwardedProto) == nullptr)
      headers.add(HeaderId::kXForwardedProto, x.client.scheme());
    if (headers.find(HeaderId::kXForwardedHost) == nullptr && !x.request.authority.empty())
      headers.add(HeaderId::kXForwardedHost, x.request.authority);
    headers.set(HeaderId::kXRequestId, x.request_id);
    headers.set(HeaderId::kXOutriderHops, decimal(x.inbound_hops + 1, x.arena));
    return Verdict::kContinue;
  }
  void on_attempt(Exchange& x) const override {
    const std::uint32_t attempt = x.inbound_attempt + std::max(x.attempts, 1U) - 1;
    if (attempt > 1 && adds(x))
      x.request.headers.set(HeaderId::kXOutriderAttempt, decimal(attempt, x.arena));
  }

 private:
  static bool adds(const Exchange& x) {
    return x.client.listener->forwarded && x.request.version != Version::kTcp;
  }
  // What trusted peers wrote, its fields joined, and the peer itself.
  static std::string_view with_peer(Exchange& x) {
    std::string_view list;
    for (const Header& header : x.request.headers)
      if (header.id == HeaderId::kXForwardedFor && !header.value.empty())
        list = list.empty() ? header.value : x.arena.concat(list, ", ", header.value);
    return list.empty() ? x.client.ip_text : x.arena.concat(list, ", ", x.client.ip_text);
  }
};

}  // namespace

void trust(Exchange& x) {
  const ClientInfo& client = x.client;
  x.client_ip = client.ip;
  x.client_ip_text = client.ip_text;
  x.talkative = client.local || client.trusted;
  bool cleaning = false, list = false, forwarded = false;
  for (const Header& header : x.request.headers) {
    std::uint32_t count = 0;
    if (unwanted(header, client.trusted)) {
      cleaning = true;
      continue;
    }
    switch (header.id) {
      case HeaderId::kXForwardedFor: list = true; break;
      case HeaderId::kForwarded: forwarded = true; break;
      case HeaderId::kXRequestId:
        if (x.request_id.empty() && is_sane_id(header.value)) x.request_id = header.value;
        break;
      case HeaderId::kXOutriderHops:
        parse_count(header.value, count);
        x.inbound_hops = std::max(x.inbound_hops, count);
        break;
      case HeaderId::kXOutriderAttempt:
        parse_count(header.value, count);
        x.inbound_attempt = std::max(x.inbound_attempt, count);
        break;
      default: break;
    }
  }
  if (cleaning)
    x.request.headers.remove_if(
        [&](const Header& header) { return unwanted(header, client.trusted); });
  if (list || forwarded) resolve_client(x, list ? HeaderId::kXForwardedFor : HeaderId::kForwarded);
  if (x.request_id.empty()) x.request_id = make_request_id(x.arena);
}

void clean_trailers(Headers& trailers) {
  trailers.remove_if([](const Header& header) { return unwanted(header, false); });
}

bool parse_ip(std::string_view text, std::array<std::uint8_t, 16>& ip) {
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return false;
    port = text.substr(end + 1);
    text = text.substr(1, end - 1);
    if (text.find(':') == std::string_view::npos) return false;
  } else if (const std::size_t colon = text.find(':');
             colon != std::string_view::npos && text.rfind(':') == colon) {
    port = text.substr(colon);
    text = text.substr(0, colon);
  }
  if (!port.empty() && (port.front() != ':' || port.size() == 1 || port.size() > 6 ||
                        port.find_first_not_of("0123456789", 1) != std::string_view::npos))
    return false;
  char plain[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof plain || text.find('\0') != std::string_view::npos)
    return false;
  std::memcpy(plain, text.data(), text.size());
  plain[text.size()] = '\0';
  if (::inet_pton(AF_INET, plain, ip.data() + kMapped.size()) == 1) {
    std::copy(kMapped.begin(), kMapped.end(), ip.begin());
    return true;
  }
  return ::inet_pton(AF_INET6, plain, ip.data()) == 1;
}

std::string_view format_ip(const std::array<std::uint8_t, 16>& ip, Arena& arena) {
  char* const text = arena.bytes(INET6_ADDRSTRLEN);
  const bool v4 = is_mapped(ip);
  ::inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip.data() + kMapped.size() : ip.data(), text,
              INET6_ADDRSTRLEN);
  return text;
}

namespace {
std::unique_ptr<const Filter> make(const FilterContext& context) {
  return context.forwards ? std::make_unique<Forwarded>() : nullptr;
}
}  // namespace

FilterKind forwarded_filter() { return {make}; }

}  // namespace outrider
