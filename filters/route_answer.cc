// Redirects and fixed answers. A Location is built from the configuration and the checked authority
// and path, and its path begins with exactly one slash: nobody is sent to another host by the
// spelling of a request.
#include "filters/route_answer.h"

#include <charconv>
#include <string>

#include "filters/http/path.h"
#include "filters/local_reply.h"
#include "filters/rewrite.h"
#include "filters/template.h"

namespace outrider {
namespace {

// As the client saw it: a trusted proxy in front may have ended TLS.
std::string_view request_scheme(const Exchange& x) {
  const std::string_view forwarded = x.request.headers.get(HeaderId::kXForwardedProto);
  return forwarded == "http" || forwarded == "https" ? forwarded : x.client.scheme();
}

// `:8443`; nothing for none and for the scheme's own.
std::string_view port_suffix(std::uint16_t port, std::string_view scheme, Arena& arena) {
  if (port == 0 || port == default_port(scheme)) return {};
  char digits[8];
  const char* const end = std::to_chars(digits, digits + sizeof digits, port).ptr;
  return arena.concat(":", std::string_view(digits, static_cast<std::size_t>(end - digits)));
}

bool redirect_path(Exchange& x, const config::Redirect& redirect, std::string_view& path,
                   std::string_view& why) {
  path = x.path == "*" ? "/" : x.path;
  if (!redirect.path.empty()) {
    Captures captures;
    if (x.match != nullptr && takes_captures(redirect.path))
      RouteTable::capture(*x.match, x.path, captures);
    if (x.match == nullptr) captures.rest = path;
    if (!check_path(x, expand_path(redirect.path, x.match, captures, x.arena), path, why))
      return false;
  }
  while (path.starts_with("//")) path.remove_prefix(1);
  return true;
}

std::string_view answer_redirect(Exchange& x, const config::Redirect& redirect) {
  std::string_view path, why;
  if (!redirect_path(x, redirect, path, why)) {
    x.reply(Reason::kBadRequest, x.arena.concat("the redirect's path is refused: ", why));
    return local_reply(x);
  }
  const bool elsewhere = !redirect.scheme.empty() || !redirect.host.empty();
  const std::string_view scheme =
      redirect.scheme.empty() ? request_scheme(x) : std::string_view(redirect.scheme);
  const std::string_view host = redirect.host.empty() ? x.host : std::string_view(redirect.host);
  const std::uint16_t port = redirect.port.value_or(elsewhere ? std::uint16_t{0} : x.host_port);
  x.status = x.response.status = redirect.status;
  x.response.content_length = 0;
  const std::string_view location =
      host.empty()
          ? x.arena.concat(path, x.query)
          : x.arena.concat(scheme, "://", host, port_suffix(port, scheme, x.arena), path, x.query);
  x.response.headers.add(HeaderId::kLocation, location);
  return {};
}

std::string_view answer_respond(Exchange& x, const config::Respond& respond) {
  bool has_type = false;
  for (const auto& [name, text] : respond.headers) {
    const std::string_view value = trim_ows(expand_text(text, x));
    if (!is_header_value(value)) {
      x.reply(Reason::kBadRequest, "a response header would hold a control byte");
      return local_reply(x);
    }
    const HeaderId id = header_id(name);
    has_type = has_type || id == HeaderId::kContentType;
    x.response.headers.add(id, name, value);
  }
  x.status = x.response.status = respond.status;
  if (respond.status == 204 || respond.status == 304) return {};  // RFC 9110 §6.4.1: never a body
  if (!has_type && !respond.body.empty())
    x.response.headers.add(HeaderId::kContentType, "text/plain; charset=utf-8");
  x.response.content_length = respond.body.size();
  return x.request.method == Method::kHead ? std::string_view() : std::string_view(respond.body);
}

}  // namespace

std::string_view answer_route(Exchange& x, const CompiledRoute& route) {
  x.response.headers.clear();
  x.response.reason = {};
  x.response.content_length.reset();
  if (route.route->redirect) return answer_redirect(x, *route.route->redirect);
  OUTRIDER_ASSERT(route.route->respond.has_value());
  return answer_respond(x, *route.route->respond);
}

}  // namespace outrider
