// Addresses: what is bound, what is connected to, and which are believed.
#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "config/grammar.h"

namespace outrider::config {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr std::size_t kUnixBytes = sizeof(sockaddr_un::sun_path) - 1;

bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::optional<std::uint16_t> port_of(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (!all_digits(text) || failed != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return port;
}

Problem bad_port() { return {"has no valid port: a number from 0 to 65535", "bad-value", {}}; }

bool parse_ip(std::string_view text, bool v6, std::uint8_t* out) {
  return inet_pton(v6 ? AF_INET6 : AF_INET, std::string(text).c_str(), out) == 1;
}

constexpr std::uint16_t kRedisPort = 6379;
constexpr std::int64_t kDatabases = 65535;

// `%2F` as the byte it stands for; a `%` that begins no such pair is one.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* const pair = text.data() + i + 1;
    if (text[i] == '%' && text.size() - i > 2 &&
        std::from_chars(pair, pair + 2, byte, 16).ptr == pair + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// A host as written: an IP address, or `localhost`, or a name, which is nobody's address yet.
enum class Host : std::uint8_t { kIp, kName, kBad };

Host host_of(std::string_view text, Address& out) {
  out.kind = Address::Kind::kIp;
  if (text.starts_with('[')) {
    if (!text.ends_with(']')) return Host::kBad;
    out.v6 = true;
    return parse_ip(text.substr(1, text.size() - 2), true, out.ip.data()) ? Host::kIp : Host::kBad;
  }
  if (text == "localhost") text = "127.0.0.1";
  if (parse_ip(text, false, out.ip.data())) return Host::kIp;
  const bool name = !text.empty() && text.size() <= 253 &&
                    text.find_first_not_of("0123456789.") != std::string_view::npos &&
                    std::all_of(text.begin(), text.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
                    });
  return name ? Host::kName : Host::kBad;
}

Problem parse_unix(std::string_view text, Address& out) {
  out.kind = Address::Kind::kUnix;
  out.path = text.substr(kUnix.size());
  if (out.path.empty()) return {"has no path: write unix:/run/x.sock", "bad-value", {}};
  return check_socket_path(out.path);
}

// `default_port`: 0 demands one.
Problem parse_host_port(std::string_view text, std::uint16_t default_port, Address& out,
                        Host& host) {
  const std::size_t bracket = text.find(']');
  const std::size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (bracket == std::string_view::npos && colon != std::string_view::npos &&
      text.find(':', colon + 1) != std::string_view::npos)
    return {"is not an address: an IPv6 address needs brackets, as in [::1]:80", "bad-value", {}};
  host = host_of(text.substr(0, colon), out);
  if (host == Host::kBad)
    return {"is not an address: write host:port, :port, a port, or unix:/path", "bad-value", {}};
  out.port = default_port;
  if (colon == std::string_view::npos)
    return default_port != 0 ? Problem{} : Problem{"has no port", "bad-value", {}};
  const auto port = port_of(text.substr(colon + 1));
  if (!port) return bad_port();
  out.port = *port;
  return {};
}

}  // namespace

Problem parse_address(std::string_view text, Address& out) {
  Address address;
  if (text.starts_with(kUnix)) {
    const Problem problem = parse_unix(text, address);
    out = std::move(address);
    return problem;
  }
  if (text.starts_with(':') || all_digits(text)) {
    const auto port = port_of(text.starts_with(':') ? text.substr(1) : text);
    if (!port) return bad_port();
    if (text.starts_with(':'))
      address.kind = Address::Kind::kAny;
    else
      parse_ip("127.0.0.1", false, address.ip.data());
    address.port = *port;
    out = std::move(address);
    return {};
  }
  Host host = Host::kBad;
  if (Problem problem = parse_host_port(text, 0, address, host)) return problem;
  if (host == Host::kName)
    return {"is a name: an address to bind is an IP address, localhost, :port, or unix:/path",
            "bad-value",
            {}};
  out = std::move(address);
  return {};
}

Problem parse_endpoint(std::string_view text, Address& out, EndpointScheme& scheme) {
  scheme = EndpointScheme::kNone;
  std::uint16_t default_port = 0;
  if (is_source(text))
    return {"names a source, not one endpoint: it stands alone, not in a list", "bad-value", {}};
  if (text.starts_with("https://")) return {"is not supported yet: TLS to a service", kNotYet, {}};
  for (const auto& [prefix, of] : {std::pair{std::string_view("http://"), EndpointScheme::kHttp},
                                   std::pair{std::string_view("h2c://"), EndpointScheme::kH2c}}) {
    if (!text.starts_with(prefix)) continue;
    text.remove_prefix(prefix.size());
    scheme = of;
    default_port = 80;
  }
  if (text.find("://") != std::string_view::npos)
    return {"begins with an unknown scheme: http:// and h2c:// are known", "bad-value", {}};
  Address address;
  if (text.starts_with(kUnix)) {
    const Problem problem = parse_unix(text, address);
    out = std::move(address);
    return problem;
  }
  if (text.find('/') != std::string_view::npos)
    return {"has a path: an endpoint is a host and a port; `rewrite` on a route changes paths",
            "bad-value",
            {}};
  if (text.starts_with(':')) return {"has no host", "bad-value", {}};
  if (all_digits(text) && scheme == EndpointScheme::kNone) {
    if (Problem problem = parse_address(text, address)) return problem;
  } else {
    Host host = Host::kBad;
    if (Problem problem = parse_host_port(text, default_port, address, host)) return problem;
    if (host == Host::kName)
      return {"is a name, and names other than localhost are not supported yet", kNotYet, {}};
  }
  if (address.port == 0) return {"has port 0, to which nobody can connect", "out-of-range", {}};
  out = std::move(address);
  return {};
}

std::string StoreUrl::name() const {
  std::string name = address.to_string();
  if (database != 0) name += "/" + std::to_string(database);
  return name;
}

Problem parse_store_url(std::string_view text, StoreUrl& out) {
  constexpr std::string_view kTcp = "redis://", kSocket = "redis+unix://", kTimeout = "timeout=";
  if (text.starts_with("rediss://")) return {"is not supported yet: TLS to Redis", kNotYet, {}};
  const bool socket = text.starts_with(kSocket);
  if (!socket && !text.starts_with(kTcp))
    return {
        "is no store: write redis://HOST:PORT or redis+unix:///run/redis.sock", "bad-value", {}};
  text.remove_prefix(socket ? kSocket.size() : kTcp.size());
  StoreUrl url;
  // A password may hold anything, so the last `@` ends it.
  if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) {
    const std::string_view who = text.substr(0, at);
    const std::size_t colon = who.find(':');
    if (colon == std::string_view::npos)
      return {"has a user without a password: write :PASSWORD@ or USER:PASSWORD@", "bad-value", {}};
    url.user = unescaped(who.substr(0, colon));
    url.password = unescaped(who.substr(colon + 1));
    text.remove_prefix(at + 1);
  }
  if (const std::size_t mark = text.find('?'); mark != std::string_view::npos) {
    const std::string_view option = text.substr(mark + 1);
    if (!option.starts_with(kTimeout))
      return {"has an unknown option: ?timeout=50ms is known", "bad-value", {}};
    if (parse_duration(option.substr(kTimeout.size()), url.timeout) || url.timeout.count() == 0)
      return {"has a timeout that is no duration: write ?timeout=50ms", "bad-value", {}};
    text = text.substr(0, mark);
  }
  if (socket) {
    if (!text.starts_with('/') || text.size() == 1)
      return {"has no absolute path: write redis+unix:///run/redis.sock", "bad-value", {}};
    url.address.kind = Address::Kind::kUnix;
    url.address.path = text;
    out = std::move(url);
    return check_socket_path(out.address.path);
  }
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    std::int64_t database = 0;
    const std::string_view number = text.substr(slash + 1);
    if (!number.empty() && parse_integer(number, 0, kDatabases, database))
      return {"names no database: a number, as in redis://HOST:PORT/2", "bad-value", {}};
    url.database = static_cast<std::uint32_t>(database);
    text = text.substr(0, slash);
  }
  Host host = Host::kBad;
  if (Problem problem = parse_host_port(text, kRedisPort, url.address, host)) return problem;
  if (host == Host::kName)
    return {"has a name, and names other than localhost are not supported yet", kNotYet, {}};
  if (url.address.port == 0) return {"has port 0, to which nobody can connect", "out-of-range", {}};
  out = std::move(url);
  return {};
}

Problem parse_cidr(std::string_view text, Cidr& out) {
  const Problem no_range{
      "is not an address range: write 10.0.0.0/8, fd00::/8 or one address", "bad-value", {}};
  const std::size_t slash = text.find('/');
  const std::string_view ip = text.substr(0, slash);
  const bool v6 = ip.find(':') != std::string_view::npos;
  Cidr range;
  if (!parse_ip(ip, v6, range.ip.data() + (v6 ? 0 : 12))) return no_range;
  if (!v6) range.ip[10] = range.ip[11] = 0xff;
  std::int64_t bits = v6 ? 128 : 32;
  if (slash != std::string_view::npos && parse_integer(text.substr(slash + 1), 0, bits, bits))
    return no_range;
  range.bits = static_cast<std::uint8_t>(bits + (v6 ? 0 : 96));
  std::array<std::uint8_t, 16> first = range.ip;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const std::size_t inside =
        range.bits > i * 8 ? std::min<std::size_t>(range.bits - i * 8, 8) : 0;
    first[i] = static_cast<std::uint8_t>(first[i] & (0xffU << (8 - inside) & 0xffU));
  }
  if (first != range.ip) {
    range.ip = first;
    return {"has bits set behind its length", "bad-value", range.to_string()};
  }
  out = range;
  return {};
}

Problem check_socket_path(std::string_view path) {
  if (path.size() <= kUnixBytes) return {};
  return {"is too long for a Unix socket: at most " + std::to_string(kUnixBytes) + " bytes",
          "out-of-range",
          {}};
}

bool is_source(std::string_view text) {
  return text.starts_with("dns://") || text.starts_with("dns+srv://") ||
         text.starts_with("file://") || text.starts_with("k8s://");
}

}  // namespace outrider::config
