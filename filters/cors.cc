// `cors`: which pages of other origins may use the route (Fetch §3.2). A preflight is answered
// here, before anything asks for credentials, which it never carries. Every answer of the route is
// decorated, ours too, so that a page sees why it failed; what the upstream says of CORS is
// replaced. Invariant: an answer that depends on the origin says `Vary: Origin`, to whomever it
// goes, and `*` never goes with credentials.
#include <algorithm>
#include <string>
#include <vector>

#include "config/written.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Problem;
using config::Type;
using config::Value;
using Texts = std::vector<std::string>;

constexpr std::string_view kAny = "*";

bool has(const Texts& texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

// `https://app.example`, `https://*.app.example`, `*`: as browsers spell an origin.
Problem check_origin(std::string_view text) {
  if (text == kAny) return {};
  if (text == "null")
    return {
        "is the origin of every sandboxed frame and local file: it names nobody", "bad-value", {}};
  const std::size_t scheme = text.find("://");
  if (scheme == std::string_view::npos)
    return {"is no origin: write https://app.example, https://*.app.example or *", "bad-value", {}};
  std::string_view host = text.substr(scheme + 3);
  if (host.find_first_of("/?#@") != std::string_view::npos)
    return {"holds more than an origin, which ends with its host and port", "bad-value",
            std::string(text.substr(0, scheme + 3)) +
                std::string(host.substr(0, host.find_first_of("/?#@")))};
  const std::string lower = config::lower(text);
  if (lower != text) return {"has capitals, which no browser sends", "bad-value", lower};
  const std::string_view port = text.starts_with("https://") ? ":443" : ":80";
  if (text.ends_with(port))
    return {"has the port of its scheme, which no browser sends", "bad-value",
            std::string(text.substr(0, text.size() - port.size()))};
  if (host.starts_with("*.")) host.remove_prefix(2);
  if (host.empty() || host.find('*') != std::string_view::npos)
    return {
        "has a '*' that does not stand for the first labels of a host: write https://*.app.example",
        "bad-value",
        {}};
  return config::check_host(host);
}

Problem check_method(std::string_view text) {
  return text == kAny ? Problem{} : config::parse_method(text);
}

Problem check_field(std::string_view text) {
  return text == kAny ? Problem{} : config::check_field_name(text);
}

struct Cors {
  static constexpr Key kFields[] = {
      {.name = "origins",
       .type = Type::kTexts,
       .text = "Origins that may: https://app.example, https://*.app.example, or * for all."},
      {.name = "methods",
       .type = Type::kTexts,
       .text = "Methods they may use; * for all. GET, HEAD, POST, PUT, PATCH, DELETE unless said."},
      {.name = "headers",
       .type = Type::kTexts,
       .text = "Header fields they may send; all unless said."},
      {.name = "expose",
       .type = Type::kTexts,
       .text = "Header fields of the answer that they may read beyond the safe ones."},
      {.name = "credentials",
       .type = Type::kBool,
       .text = "Whether requests may carry cookies and the like."},
      {.name = "max_age",
       .type = Type::kDuration,
       .text = "How long a browser may remember a preflight.",
       .or_false = true}};
  static constexpr Key kKey = {.name = "cors",
                               .type = Type::kMap,
                               .text = "Which pages of other origins may use the route.",
                               .fields = kFields};
  static constexpr bool kUpstream = false;

  static void read(const Value& value, Cors& out) {
    const config::Map map(value, kKey);
    if (!map) return;
    const auto texts = [&](const char* name, Maybe<Texts>& leaf, Problem (*check)(std::string_view),
                           const char* expected) {
      if (const auto list = map[name])
        leaf = {config::read_texts(*list, check, expected), list->mark()};
    };
    texts("origins", out.origins, check_origin, "a list of origins");
    texts("methods", out.methods, check_method, "a list of methods");
    texts("headers", out.headers, check_field, "a list of header names");
    texts("expose", out.expose, check_field, "a list of header names");
    map.leaf("credentials", out.credentials);
    map.leaf("max_age", out.max_age);
  }
  static auto leaves(auto& self) {
    return std::tie(self.origins, self.methods, self.headers, self.expose, self.credentials,
                    self.max_age);
  }
  void check(std::vector<config::Finding>& out) const {
    if (!origins) return out.push_back({{}, "`cors` has no `origins`", "missing-key"});
    if (!credentials || !credentials->value) return;
    if (has(origins->value, kAny))
      out.push_back({credentials->mark,
                     "`cors.credentials` stands with the origin '*': any page could then act as "
                     "whoever looks at it; name the origins",
                     "conflict"});
    if (expose && has(expose->value, kAny))
      out.push_back({expose->mark, "`cors.expose: *` means no field where `credentials` is true",
                     "conflict"});
  }
  config::Traits traits() const { return {.preflights = true}; }

  Maybe<Texts> origins, methods, headers, expose;
  Maybe<bool> credentials;
  Maybe<Millis> max_age;
};

std::string joined(const Texts& texts) {
  std::string all;
  for (const std::string& text : texts) (all += all.empty() ? "" : ", ") += text;
  return all;
}

class CorsFilter final : public Filter {
 public:
  CorsFilter(const Cors& settings, const config::Config& config)
      : Filter(Phase::kRequest | Phase::kResponse),
        origins_(settings.origins->value),
        anybody_(has(origins_, kAny)),
        credentials_(settings.credentials && settings.credentials->value),
        any_method_(settings.methods && has(settings.methods->value, kAny)),
        any_header_(!settings.headers || has(settings.headers->value, kAny)),
        methods_(settings.methods ? joined(settings.methods->value) : kMethods),
        headers_(settings.headers ? joined(settings.headers->value) : std::string()),
        expose_(settings.expose ? joined(settings.expose->value) : std::string()),
        max_age_(
            std::to_string(std::chrono::duration_cast<std::chrono::seconds>(
                               settings.max_age ? settings.max_age->value : limits::kCorsMaxAge)
                               .count())),
        refusal_("the origin is none of `cors.origins` at " +
                 config.where(settings.origins->mark)) {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    if (!is_preflight(x.request)) return Verdict::kContinue;
    if (allowed(x.request).empty()) {
      x.reply(Reason::kDenied, refusal_);
    } else {
      x.reply(Reason::kOk, {}, 204);
      x.answer.bare = true;
      x.state<Preflight>(this).answered = true;
    }
    return Verdict::kReply;
  }

  Verdict on_response(Exchange& x, StreamControl&) const override {
    Headers& out = x.response.headers;
    out.remove_if([](const Header& header) { return is_cors(header.name); });
    if (!anybody_) vary(out);
    const std::string_view origin = allowed(x.request);
    if (origin.empty()) return Verdict::kContinue;
    out.add(HeaderId::kAccessControlAllowOrigin, origin);
    if (credentials_) add(out, "access-control-allow-credentials", "true");
    if (x.state<Preflight>(this).answered)
      decorate_preflight(x.request, out);
    else if (!expose_.empty())
      add(out, "access-control-expose-headers", expose_);
    return Verdict::kContinue;
  }

 private:
  static constexpr const char* kMethods = "GET, HEAD, POST, PUT, PATCH, DELETE";
  struct Preflight {
    bool answered = false;
  };

  static bool is_cors(std::string_view name) {
    constexpr std::string_view kPrefix = "access-control-";
    return name.size() > kPrefix.size() &&
           equal_ignoring_case(name.substr(0, kPrefix.size()), kPrefix);
  }
  static void add(Headers& out, std::string_view name, std::string_view value) {
    out.add(HeaderId::kUnknown, name, value);
  }
  static void vary(Headers& out) {
    for (const Header& header : out)
      if (header.id == HeaderId::kVary &&
          (list_has_token(header.value, "origin") || list_has_token(header.value, kAny)))
        return;
    out.add(HeaderId::kVary, "Origin");
  }
  // The origin to name in the answer; empty: none. What is answered to all says so to all, so that
  // caches may give one answer to everybody.
  std::string_view allowed(const RequestHead& request) const {
    if (anybody_) return kAny;
    const std::string_view origin = request.headers.get(HeaderId::kOrigin);
    const auto fits = [&](const std::string& listed) { return origin_fits(listed, origin); };
    return std::any_of(origins_.begin(), origins_.end(), fits) ? origin : std::string_view();
  }
  static bool origin_fits(std::string_view listed, std::string_view origin) {
    const std::size_t star = listed.find('*');
    if (star == std::string_view::npos) return listed == origin;
    const std::string_view scheme = listed.substr(0, star), rest = listed.substr(star + 1);
    return origin.size() > scheme.size() + rest.size() && origin.starts_with(scheme) &&
           origin.ends_with(rest) &&
           is_name(origin.substr(scheme.size(), origin.size() - scheme.size() - rest.size()));
  }
  // Labels of a host: what stands for a `*` can hold nothing that ends one.
  static bool is_name(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    });
  }
  // `*` is spelled out as what was asked for: with credentials browsers take it for a name.
  void decorate_preflight(const RequestHead& request, Headers& out) const {
    add(out, "access-control-allow-methods",
        any_method_ ? request.headers.get(HeaderId::kAccessControlRequestMethod)
                    : std::string_view(methods_));
    const Header* asked =
        request.headers.find(HeaderId::kUnknown, "access-control-request-headers");
    const std::string_view headers = !any_header_       ? std::string_view(headers_)
                                     : asked != nullptr ? asked->value
                                                        : "";
    if (!headers.empty()) add(out, "access-control-allow-headers", headers);
    add(out, "access-control-max-age", max_age_);
  }

  const Texts& origins_;
  const bool anybody_, credentials_, any_method_, any_header_;
  const std::string methods_, headers_, expose_, max_age_, refusal_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Cors* settings = context.told<Cors>();
  if (settings == nullptr) return nullptr;
  return std::make_unique<CorsFilter>(*settings, context.config);
}

}  // namespace

FilterKind cors_filter() { return {make, {&config::extension_of<Cors>}}; }

}  // namespace outrider
