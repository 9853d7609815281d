// `session: { cookie, ttl }`: keeps a client with the endpoint that answered it first. The cookie
// holds the endpoint's identity, a hash of its address under the service's name: it is the same on
// every proxy and after a restart, needs no table, and does not spell the address. Whoever can
// guess an address can tell whether it is the one. Invariant: a cookie is set when the endpoint
// that answered is not the one the request named, and only then.
#include "filters/session.h"

#include <charconv>
#include <string>

#include "discovery/service.h"
#include "filters/filter.h"
#include "filters/http/query.h"
#include "filters/registry.h"

namespace outrider {
namespace {

constexpr std::size_t kDigits = 16;

class Session final : public Filter {
 public:
  Session(const config::Policy& policy, const SessionSettings& settings)
      : Filter(Phase::kRequest | Phase::kResponse),
        policy_(policy),
        before_(settings.cookie->value + "="),
        after_("; Path=/; HttpOnly; SameSite=Lax") {
    const Millis ttl = settings.ttl ? settings.ttl->value : Millis{0};
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(ttl).count();
    if (seconds != 0) after_ += "; Max-Age=" + std::to_string(seconds);
    after_secure_ = after_ + "; Secure";
  }

  // Before header edits may take the cookie away.
  Verdict on_request(Exchange& x, StreamControl&) const override {
    x.session = session_of(x, policy_);
    return Verdict::kContinue;
  }

  Verdict on_response(Exchange& x, StreamControl&) const override {
    if (x.answer.set || x.endpoint == nullptr || x.endpoint->id == x.session)
      return Verdict::kContinue;
    char digits[kDigits];
    for (std::size_t i = 0; i < kDigits; ++i)
      digits[i] = "0123456789abcdef"[x.endpoint->id >> (4 * (kDigits - 1 - i)) & 15];
    x.response.headers.add(HeaderId::kSetCookie,
                           x.arena.concat(before_, std::string_view(digits, kDigits),
                                          x.client.tls != nullptr ? after_secure_ : after_));
    return Verdict::kContinue;
  }

 private:
  const config::Policy& policy_;
  const std::string before_;
  std::string after_, after_secure_;
};

}  // namespace

void SessionSettings::read(const config::Value& value, SessionSettings& out) {
  if (value.is_false()) {
    out.cookie = {std::string(), value.mark()};
    return;
  }
  if (!value.is_map()) return value.wrong_type("a map or false");
  const config::Map map(value, kKey);
  if (!map) return;
  if (const auto cookie = map["cookie"])
    if (const auto name = cookie->text(); name && cookie->check(config::check_token, *name))
      out.cookie = {std::string(*name), cookie->mark()};
  map.leaf("ttl", out.ttl);
}

std::uint64_t session_of(const Exchange& x, const config::Policy& policy) {
  const auto* settings = config::told<SessionSettings>(policy);
  if (settings == nullptr || !settings->cookie || settings->cookie->value.empty()) return 0;
  const auto value = cookie_value(x.request.headers, settings->cookie->value);
  if (!value || value->size() != kDigits) return 0;
  std::uint64_t id = 0;
  const char* const end = value->data() + value->size();
  const auto read = std::from_chars(value->data(), end, id, 16);
  return read.ec == std::errc() && read.ptr == end ? id : 0;
}

namespace {
std::unique_ptr<const Filter> make(const FilterContext& context) {
  const auto* settings = context.told<SessionSettings>();
  if (!context.forwards || settings == nullptr || !settings->cookie ||
      settings->cookie->value.empty())
    return nullptr;
  return std::make_unique<Session>(context.policy, *settings);
}
}  // namespace

FilterKind session_filter() { return {make, {&config::extension_of<SessionSettings>}}; }

}  // namespace outrider
