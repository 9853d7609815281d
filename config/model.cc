// How the model's small values read in diagnostics, logs and `config`.
#include "config/model.h"

#include <arpa/inet.h>

#include <algorithm>

namespace outrider::config {
namespace {

std::string ip_text(int family, const std::uint8_t* ip) {
  char buffer[INET6_ADDRSTRLEN];
  return inet_ntop(family, ip, buffer, sizeof buffer) != nullptr ? buffer : std::string();
}

bool mapped(const std::array<std::uint8_t, 16>& ip) {
  return std::all_of(ip.begin(), ip.begin() + 10, [](std::uint8_t b) { return b == 0; }) &&
         ip[10] == 0xff && ip[11] == 0xff;
}

bool wildcard(const Address& address) {
  return address.kind == Address::Kind::kAny ||
         std::all_of(address.ip.begin(), address.ip.end(), [](std::uint8_t b) { return b == 0; });
}

}  // namespace

std::string Address::to_string() const {
  switch (kind) {
    case Kind::kUnix: return "unix:" + path;
    case Kind::kAny: return ":" + std::to_string(port);
    case Kind::kIp: break;
  }
  const std::string text = ip_text(v6 ? AF_INET6 : AF_INET, ip.data());
  return (v6 ? "[" + text + "]" : text) + ":" + std::to_string(port);
}

bool is_loopback(const std::array<std::uint8_t, 16>& ip) {
  if (mapped(ip)) return ip[12] == 127;
  return std::all_of(ip.begin(), ip.end() - 1, [](std::uint8_t b) { return b == 0; }) &&
         ip[15] == 1;
}

bool is_loopback(const Address& address) {
  switch (address.kind) {
    case Address::Kind::kUnix: return true;
    case Address::Kind::kAny: return false;
    case Address::Kind::kIp: break;
  }
  return address.v6 ? is_loopback(address.ip) : address.ip[0] == 127;
}

bool overlap(const Address& a, const Address& b) {
  using Kind = Address::Kind;
  if (a.kind == Kind::kUnix || b.kind == Kind::kUnix) return a.kind == b.kind && a.path == b.path;
  if (a.port != b.port || a.port == 0) return false;
  if (a.kind == Kind::kAny || b.kind == Kind::kAny) return true;  // of both families
  return a.v6 == b.v6 && (a.ip == b.ip || wildcard(a) || wildcard(b));
}

bool Cidr::contains(const std::array<std::uint8_t, 16>& address) const {
  const std::size_t whole = bits / 8;
  if (!std::equal(ip.begin(), ip.begin() + static_cast<std::ptrdiff_t>(whole), address.begin()))
    return false;
  const unsigned rest = bits % 8;
  if (rest == 0) return true;
  const unsigned mask = 0xffU << (8 - rest) & 0xffU;
  return (ip[whole] & mask) == (address[whole] & mask);
}

std::string Cidr::to_string() const {
  if (bits >= 96 && mapped(ip))
    return ip_text(AF_INET, ip.data() + 12) + "/" + std::to_string(bits - 96);
  return ip_text(AF_INET6, ip.data()) + "/" + std::to_string(bits);
}

std::string balance_text(const Service& service) {
  switch (service.balance) {
    case Balance::kLeastRequest: return "least-request";
    case Balance::kRoundRobin: return "round-robin";
    case Balance::kRandom: return "random";
    case Balance::kPeakEwma: return "peak-ewma";
    default: break;
  }
  std::string key;
  switch (service.balance_key.kind) {
    case VariableKind::kHeader: key = "header "; break;
    case VariableKind::kQuery: key = "query "; break;
    case VariableKind::kCookie: key = "cookie "; break;
    case VariableKind::kClientId: key = "client.id"; break;
    default: key = "client.ip"; break;
  }
  return (service.balance == Balance::kHash ? "hash(" : "maglev(") + key +
         service.balance_key.name + ")";
}

std::string Config::where(const Mark& mark) const {
  if (mark.built_in() || static_cast<std::size_t>(mark.file) >= files.size()) return "built-in";
  return files[static_cast<std::size_t>(mark.file)].path + ":" + std::to_string(mark.line);
}

}  // namespace outrider::config
