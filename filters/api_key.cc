// `api_key`: a secret in a header, query parameter or cookie. Files hold SHA-256 hashes alone, and
// a key that comes is looked up by a hash that only this process can make, so neither the file nor
// the time a look-up takes tells a key. Invariant: no key goes on, to the service or to the log,
// unless the configuration says `forward`.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "filters/digest.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Problem;
using config::Type;
using config::Value;

// ---- settings

struct Place {
  enum class Kind : std::uint8_t { kHeader, kQuery, kCookie };
  Kind kind = Kind::kHeader;
  std::string name = "x-api-key";
};
config::Shown shown(const Place& place) {
  constexpr const char* kKinds[] = {"header ", "query ", "cookie "};
  return {{kKinds[static_cast<std::size_t>(place.kind)] + place.name}};
}

Problem parse_place(std::string_view text, Place& out) {
  const std::size_t space = text.find(' ');
  const std::string_view kind = text.substr(0, space);
  const std::string_view name =
      space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  if (kind == "header")
    out.kind = Place::Kind::kHeader;
  else if (kind == "query")
    out.kind = Place::Kind::kQuery;
  else if (kind == "cookie")
    out.kind = Place::Kind::kCookie;
  else
    return {
        "is no place of a key: write header x-api-key, query NAME or cookie NAME", "bad-value", {}};
  out.name = name;
  return config::check_token(name) ? Problem{"names no field, parameter or cookie", "bad-value", {}}
                                   : Problem{};
}

using Names = std::map<Digest, std::string>;  // keyed hash of a key's SHA-256 → whose it is
struct KeyFile {
  std::string name;
  std::shared_ptr<const Names> names;
};
config::Shown shown(const KeyFile& file) { return {{file.name}}; }

std::optional<Digest> parse_hex(std::string_view text) {
  Digest out{};
  if (text.size() != out.size() * 2) return std::nullopt;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    unsigned nibble = 0;
    if (c >= '0' && c <= '9')
      nibble = static_cast<unsigned>(c - '0');
    else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
      nibble = static_cast<unsigned>((c | 0x20) - 'a' + 10);
    else
      return std::nullopt;
    out[i / 2] = static_cast<std::uint8_t>(out[i / 2] << 4 | nibble);
  }
  return out;
}

void read_keys(const Value& value, Maybe<KeyFile>& out) {
  auto names = std::make_shared<Names>();
  const auto file = config::read_named_file(value, limits::kCredentialFileBytes);
  out = {KeyFile{file ? file->name : std::string(), names}, value.mark()};
  if (!file) return;
  config::each_line(file->text, [&](std::string_view line, std::size_t at) {
    const std::size_t gap = line.find_first_of(" \t");
    const std::string_view name = line.substr(0, gap);
    const auto digest =
        gap == std::string_view::npos
            ? std::nullopt
            : parse_hex(line.substr(std::min(line.find_first_not_of(" \t", gap), line.size())));
    std::string problem;
    if (!digest)
      problem = "the line is not NAME SHA256HEX, 64 hexadecimal digits";
    else if (config::check_field_value(name))
      problem = "the name holds a control byte";
    else if (!names->emplace(keyed_hash({bytes_of(*digest)}), name).second)
      problem = "the key stands twice";
    if (!problem.empty())
      value.error("bad-value", file->name + ":" + std::to_string(at) + ": " + problem);
  });
  if (names->empty()) value.error("bad-value", file->name + " holds no key");
}

struct ApiKey {
  static constexpr Key kFields[] = {
      {.name = "from",
       .type = Type::kText,
       .text = "Where the key stands: header x-api-key (unless said), query NAME, cookie NAME."},
      {.name = "keys", .type = Type::kFile, .text = "A file of NAME SHA256HEX a line."},
      {.name = "forward",
       .type = Type::kBool,
       .text = "Whether the service sees the key; false unless said."}};
  static constexpr Key kKey = {.name = "api_key",
                               .type = Type::kMap,
                               .text = "Asks for a key that a file knows.",
                               .fields = kFields};
  static constexpr bool kUpstream = false;

  static void read(const Value& value, ApiKey& out) {
    const config::Map map(value, kKey);
    if (!map) return;
    map.leaf("from", out.from, parse_place);
    if (const auto keys = map["keys"]) read_keys(*keys, out.keys);
    map.leaf("forward", out.forward);
  }
  static auto leaves(auto& self) { return std::tie(self.from, self.keys, self.forward); }
  void check(std::vector<config::Finding>& out) const {
    if (!keys) out.push_back({{}, "`api_key` has no `keys`", "missing-key"});
  }
  config::Traits traits() const {
    config::Traits traits{.guards = true};
    if (from && from->value.kind == Place::Kind::kQuery) traits.secret_parameter = from->value.name;
    return traits;
  }

  Maybe<Place> from;
  Maybe<KeyFile> keys;
  Maybe<bool> forward;
};

// ---- finding and removing

// The values of one name, as far as it matters how many there are.
struct Found {
  std::string_view value;
  std::size_t count = 0;
  void add(std::string_view one) {
    value = one;
    ++count;
  }
};

// `text` without its pieces that `mine` takes.
template <class Mine>
std::string_view without(std::string_view text, char separator, Arena& arena, Mine&& mine) {
  char* const start = arena.bytes(text.size());
  char* to = start;
  bool first = true;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    const std::string_view piece = text.substr(at, end - at);
    at = end + 1;
    if (mine(piece)) continue;
    if (!std::exchange(first, false)) *to++ = separator;
    to = std::copy(piece.begin(), piece.end(), to);
  }
  return {start, static_cast<std::size_t>(to - start)};
}

// NAME=VALUE, or NAME alone.
bool is_named(std::string_view piece, std::string_view name, Found& found) {
  const std::size_t equals = piece.find('=');
  if (trim_ows(piece.substr(0, equals)) != name) return false;
  found.add(equals == std::string_view::npos ? "" : trim_ows(piece.substr(equals + 1)));
  return true;
}

std::string_view percent_decoded(std::string_view text, Arena& arena) {
  if (text.find('%') == std::string_view::npos) return text;
  char* const start = arena.bytes(text.size());
  char* to = start;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    *to++ = escape ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])) : text[i];
    if (escape) i += 2;
  }
  return {start, static_cast<std::size_t>(to - start)};
}

// ---- the filter

class ApiKeyFilter final : public Filter {
 public:
  explicit ApiKeyFilter(const ApiKey& settings)
      : Filter(Phase::kRequest | Phase::kResponse),
        from_(settings.from ? settings.from->value : Place{}),
        id_(from_.kind == Place::Kind::kHeader ? header_id(from_.name) : HeaderId::kUnknown),
        names_(*settings.keys->value.names),
        forward_(settings.forward && settings.forward->value),
        missing_("no key in " + shown(from_).values.front()) {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    const Found found = take(x);
    if (found.count == 0) return refuse(x, missing_);
    if (found.count > 1) return refuse(x, "more than one key");
    const auto name = names_.find(keyed_hash({bytes_of(sha256({found.value}))}));
    if (name == names_.end()) return refuse(x, "nobody has this key");
    x.client_id = name->second;
    return Verdict::kContinue;
  }

  Verdict on_response(Exchange& x, StreamControl&) const override {
    if (x.state<State>(this).refused)
      x.response.headers.add(HeaderId::kWwwAuthenticate,
                             id_ == HeaderId::kAuthorization ? "Bearer" : "ApiKey");
    return Verdict::kContinue;
  }

 private:
  struct State {
    bool refused = false;
  };

  // The key, which is gone from the request afterwards.
  Found take(Exchange& x) const {
    Found found;
    switch (from_.kind) {
      case Place::Kind::kHeader: take_header(x.request.headers, found); break;
      case Place::Kind::kQuery: take_query(x, found); break;
      case Place::Kind::kCookie: take_cookie(x, found); break;
    }
    return found;
  }
  void take_header(Headers& headers, Found& found) const {
    constexpr std::string_view kBearer = "bearer ";
    for (const Header& header : headers) {
      if (header.id != id_ ||
          (id_ == HeaderId::kUnknown && !equal_ignoring_case(header.name, from_.name)))
        continue;
      std::string_view value = header.value;
      if (id_ == HeaderId::kAuthorization &&
          equal_ignoring_case(value.substr(0, kBearer.size()), kBearer))
        value = trim_ows(value.substr(kBearer.size()));
      found.add(value);
    }
    if (!forward_) headers.remove(id_, from_.name);
  }
  void take_query(Exchange& x, Found& found) const {
    if (x.query.empty()) return;
    const std::string_view rest =
        without(x.query.substr(1), '&', x.arena,
                [&](std::string_view piece) { return is_named(piece, from_.name, found); });
    found.value = percent_decoded(found.value, x.arena);
    if (found.count == 0 || forward_) return;
    x.query = rest.empty() ? rest : x.arena.concat("?", rest);
  }
  void take_cookie(Exchange& x, Found& found) const {
    Headers& headers = x.request.headers;
    for (Header& header : headers) {
      if (header.id != HeaderId::kCookie) continue;
      const std::size_t before = found.count;
      const std::string_view rest =
          without(header.value, ';', x.arena,
                  [&](std::string_view piece) { return is_named(piece, from_.name, found); });
      if (found.count != before && !forward_) header.value = trim_ows(rest);
    }
    if (forward_) return;
    headers.remove_if([](const Header& header) {
      return header.id == HeaderId::kCookie && header.value.empty();
    });
  }
  Verdict refuse(Exchange& x, std::string_view words) const {
    x.state<State>(this).refused = true;
    x.reply(Reason::kUnauthenticated, words);
    return Verdict::kReply;
  }

  const Place from_;
  const HeaderId id_;
  const Names& names_;
  const bool forward_;
  const std::string missing_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const ApiKey* settings = context.told<ApiKey>();
  if (settings == nullptr) return nullptr;
  return std::make_unique<ApiKeyFilter>(*settings);
}

}  // namespace

FilterKind api_key_filter() { return {make, {&config::extension_of<ApiKey>}}; }

}  // namespace outrider
