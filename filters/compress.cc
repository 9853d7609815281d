// Compresses response bodies with a coding that the client takes, as they come.
// Invariant: what the origin said not to change, and what is coded, partial, a tunnel or gRPC,
// passes as it is; the head says what was done to the body, and caches are told what it depended
// on. Sees requests before they are edited for the service, and responses after they were; the
// bytes are its encoder's (encoder.h), a few pieces at a time.
#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "filters/encoder.h"
#include "filters/filter.h"
#include "filters/http/accept.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Section;
using config::Type;

// ---- settings

constexpr std::size_t kPieceBytes = 16 * 1024;

// Text, and the binary formats that are not compressed yet.
constexpr std::string_view kTypes[] = {
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/*+xml",
    "application/x-ndjson",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
};

// `text/html`, `text/*`, `application/*+json`, `*`.
bool is_type_pattern(std::string_view text) {
  if (text == "*") return true;
  const std::size_t slash = text.find('/');
  if (slash == 0 || slash >= text.size() - 1 || std::count(text.begin(), text.end(), '*') > 1 ||
      text.find('*') < slash)
    return false;
  constexpr std::string_view kOthers = "/*!#$&-^_.+";  // RFC 6838 §4.2
  return std::count(text.begin(), text.end(), '/') == 1 &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  kOthers.find(c) != std::string_view::npos;
         });
}

bool fits(std::string_view type, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return equal_ignoring_case(type, pattern);
  const std::string_view before = pattern.substr(0, star);
  const std::string_view behind = pattern.substr(star + 1);
  return type.size() >= before.size() + behind.size() &&
         equal_ignoring_case(type.substr(0, before.size()), before) &&
         equal_ignoring_case(type.substr(type.size() - behind.size()), behind);
}

constexpr Key kFields[] = {
    {.in = Section::kPolicy,
     .name = "enabled",
     .type = Type::kBool,
     .text = "Whether bodies are compressed; true unless said, as soon as anything else is."},
    {.in = Section::kPolicy,
     .name = "algorithms",
     .type = Type::kWords,
     .text = "Codings used, the preferred one first: br, zstd, gzip unless said.",
     .words = kCodings},
    {.in = Section::kPolicy,
     .name = "level",
     .type = Type::kWord,
     .text = "What is spent on it: fast, balanced (unless said) or small.",
     .words = kCompressLevels},
    {.in = Section::kPolicy,
     .name = "min_size",
     .type = Type::kSize,
     .text = "Bodies known to be shorter stay as they are; 1KiB unless said.",
     .max = std::int64_t{1} << 40},
    {.in = Section::kPolicy,
     .name = "types",
     .type = Type::kTexts,
     .text = "Media types that are compressed, `text/*` and `application/*+json` being patterns."},
};

struct Settings {
  static constexpr Key kKey = {
      .in = Section::kPolicy,
      .name = "compress",
      .type = Type::kTextOrMap,
      .text = "Compresses responses for clients that take it; true or how.",
      .fields = kFields,
      .expand = [](std::string_view text) -> config::Expanded {
        return {{"enabled", std::string(text)}};
      }};
  static constexpr bool kUpstream = false;

  static void read(const config::Value& value, Settings& out) {
    bool enabled = true;
    if (!value.is_map()) {
      if (value.read(enabled)) out.enabled = {enabled, value.mark()};
      return;
    }
    const config::Map map(value, kKey);
    map.get("enabled", enabled);
    out.enabled = {enabled, map["enabled"] ? map["enabled"]->mark() : value.mark()};
    if (const auto algorithms = map["algorithms"]) read_algorithms(*algorithms, out);
    if (const auto level = map["level"]; level && level->word(kCompressLevels))
      out.level = {std::string(*level->text()), level->mark()};
    if (std::uint64_t size = 0; map.get_size("min_size", size))
      out.min_size = {size, map["min_size"]->mark()};
    if (const auto types = map["types"]) read_types(*types, out);
  }
  static auto leaves(auto& self) {
    return std::tie(self.enabled, self.algorithms, self.level, self.min_size, self.types);
  }

  Maybe<bool> enabled;
  Maybe<std::vector<std::string>> algorithms;
  Maybe<std::string> level;
  Maybe<std::uint64_t> min_size;
  Maybe<std::vector<std::string>> types;

 private:
  static void read_algorithms(const config::Value& value, Settings& out) {
    if (value.is_map()) return value.wrong_type("a list of codings");
    std::vector<std::string> names;
    for (std::uint32_t i = 0; i < value.items(); ++i) {
      const config::Value item = value.item(i);
      if (!item.word(kCodings)) continue;
      std::string name(*item.text());
      if (std::find(names.begin(), names.end(), name) != names.end())
        item.error("duplicate", "stands in the list already");
      else
        names.push_back(std::move(name));
    }
    if (value.items() == 0) value.error("empty-list", "names no coding: write `compress: false`");
    out.algorithms = {std::move(names), value.mark()};
  }
  static void read_types(const config::Value& value, Settings& out) {
    if (value.is_map()) return value.wrong_type("a list of media types");
    std::vector<std::string> types;
    for (std::uint32_t i = 0; i < value.items(); ++i) {
      const config::Value item = value.item(i);
      const auto text = item.text();
      if (!text) continue;
      if (is_type_pattern(*text))
        types.emplace_back(*text);
      else
        item.fail({"is not a media type: write text/html, text/*, application/*+json or *",
                   "bad-value",
                   {}});
    }
    if (value.items() == 0) value.error("empty-list", "names no type: write `compress: false`");
    out.types = {std::move(types), value.mark()};
  }
};

Coding coding_of(std::string_view name) {
  for (const Coding coding : {Coding::kBr, Coding::kZstd})
    if (name == coding_name(coding)) return coding;
  return Coding::kGzip;
}

CompressLevel level_of(std::string_view word) {
  return word == "fast"    ? CompressLevel::kFast
         : word == "small" ? CompressLevel::kSmall
                           : CompressLevel::kBalanced;
}

Event event_of(Coding coding) {
  switch (coding) {
    case Coding::kBr: return Event::kCompressedBr;
    case Coding::kZstd: return Event::kCompressedZstd;
    case Coding::kGzip: break;
  }
  return Event::kCompressedGzip;
}

// ---- bodies

// How many bodies this worker is compressing.
unsigned& compressing() {
  thread_local unsigned count = 0;
  return count;
}

class CompressedBody final : public BodyFilter {
 public:
  CompressedBody(Coding coding, CompressLevel level, std::optional<std::uint64_t> length,
                 bool at_once, StreamControl& control)
      : coding_(coding), level_(level), length_(length), at_once_(at_once), control_(control) {
    ++compressing();
  }
  CompressedBody(const CompressedBody&) = delete;
  CompressedBody& operator=(const CompressedBody&) = delete;
  ~CompressedBody() override { --compressing(); }

  void on_body(std::string_view bytes, bool last) override {
    if (last) return encode(bytes, Encoder::Until::kEnd, true);
    if (bytes.empty()) return;
    encode(bytes, at_once_ ? Encoder::Until::kFlush : Encoder::Until::kMore, false);
    if (!at_once_ && !std::exchange(waits_, true)) control_.flush_after(limits::kCompressWait);
  }
  void on_trailers(Headers& trailers) override {
    encode({}, Encoder::Until::kEnd, false);
    next().on_trailers(trailers);
  }
  void on_flush() override {
    if (std::exchange(waits_, false)) encode({}, Encoder::Until::kFlush, false);
    next().on_flush();
  }

 private:
  void encode(std::string_view bytes, Encoder::Until until, bool last) {
    if (encoder_ == nullptr) encoder_ = make_encoder(coding_, level_, length_);
    char out[kPieceBytes];
    for (bool whole = false; !whole;) {
      std::size_t made = 0;
      whole = encoder_->encode(bytes, until, out, made);
      if (made != 0 || (whole && last)) next().on_body({out, made}, whole && last);
    }
    if (until != Encoder::Until::kEnd) return;
    encoder_ = nullptr;
    waits_ = false;
  }

  const Coding coding_;
  const CompressLevel level_;
  const std::optional<std::uint64_t> length_;
  const bool at_once_;
  StreamControl& control_;
  std::unique_ptr<Encoder> encoder_;
  bool waits_ = false;  // on_flush() will come
};

// ---- heads

bool says(const Headers& headers, HeaderId id, std::string_view token) {
  return std::any_of(headers.begin(), headers.end(), [&](const Header& header) {
    return header.id == id && list_has_token(header.value, token);
  });
}

void add_vary(Headers& headers) {
  if (!says(headers, HeaderId::kVary, "accept-encoding") && !says(headers, HeaderId::kVary, "*"))
    headers.add(HeaderId::kVary, "Vary", "Accept-Encoding");
}

// The bytes are not those of the origin's strong tag any more.
void weaken_etag(Headers& headers) {
  for (Header& header : headers)
    if (header.id == HeaderId::kEtag && header.value.starts_with('"'))
      header.value = headers.arena().concat("W/", header.value);
}

// What holds for the origin's bytes alone.
bool is_of_bytes(const Header& header) {
  constexpr std::string_view kDigests[] = {"content-digest", "content-md5", "digest",
                                           "repr-digest"};
  return header.id == HeaderId::kContentLength || header.id == HeaderId::kAcceptRanges ||
         (header.id == HeaderId::kUnknown &&
          std::any_of(std::begin(kDigests), std::end(kDigests), [&](std::string_view digest) {
            return equal_ignoring_case(header.name, digest);
          }));
}

// A client that has what was compressed knows it by the weak tag.
bool was_weakened(Exchange& x) {
  const std::string_view etag = x.response.headers.get(HeaderId::kEtag);
  if (!etag.starts_with('"')) return false;
  const std::string_view weak = x.arena.concat("W/", etag);
  return std::any_of(x.request.headers.begin(), x.request.headers.end(), [&](const Header& header) {
    return header.id == HeaderId::kIfNoneMatch && header.value.find(weak) != header.value.npos;
  });
}

// What the client asked for, before anybody edited it for the service.
struct Asked {
  bool known = false;
  bool no_transform = false;
  std::optional<Coding> coding;
};

class Compress final : public Filter {
 public:
  explicit Compress(const Settings& settings)
      : Filter(Phase::kRequest | Phase::kResponse),
        level_(level_of(settings.level ? settings.level->value : std::string())),
        min_size_(settings.min_size ? settings.min_size->value : limits::kCompressBytes) {
    if (settings.algorithms)
      for (const std::string& name : settings.algorithms->value)
        codings_.push_back(coding_of(name));
    else
      codings_ = {Coding::kBr, Coding::kZstd, Coding::kGzip};
    if (settings.types)
      types_ = settings.types->value;
    else
      types_.assign(std::begin(kTypes), std::end(kTypes));
  }

  Verdict on_request(Exchange& x, StreamControl&) const override {
    asked(x);
    return Verdict::kContinue;
  }

  Verdict on_response(Exchange& x, StreamControl& control) const override {
    ResponseHead& head = x.response;
    const Asked& client = asked(x);
    if (client.no_transform || !may_change(x)) return Verdict::kContinue;
    constexpr int kNotModified = 304;
    if (head.status == kNotModified) {
      if (was_weakened(x)) weaken_etag(head.headers);
      return Verdict::kContinue;
    }
    if (!compressible(x)) return Verdict::kContinue;
    add_vary(head.headers);
    if (!client.coding) return Verdict::kContinue;
    if (compressing() >= limits::kCompressing) {
      x.count(Event::kCompressBusy);
      return Verdict::kContinue;
    }
    weaken_etag(head.headers);
    const std::optional<std::uint64_t> length = std::exchange(head.content_length, std::nullopt);
    head.headers.remove_if(is_of_bytes);
    head.headers.add(HeaderId::kContentEncoding, "Content-Encoding", coding_name(*client.coding));
    if (x.response_complete) return Verdict::kContinue;
    x.count(event_of(*client.coding));
    x.response_body.put(
        std::make_unique<CompressedBody>(*client.coding, level_, length, x.is_sse, control));
    return Verdict::kContinue;
  }

 private:
  const Asked& asked(Exchange& x) const {
    Asked& client = x.state<Asked>(this);
    if (!std::exchange(client.known, true)) {
      client.no_transform = says(x.request.headers, HeaderId::kCacheControl, "no-transform");
      client.coding = choose(x.request.headers);
    }
    return client;
  }
  static bool may_change(const Exchange& x) {
    const Headers& headers = x.response.headers;
    return !x.tunnel && !x.is_grpc && headers.find(HeaderId::kContentEncoding) == nullptr &&
           !says(headers, HeaderId::kCacheControl, "no-transform");
  }
  // The head of a whole body, of a type and a length that are worth it; or of what a GET would
  // bring.
  bool compressible(const Exchange& x) const {
    constexpr int kPartial = 206;
    const ResponseHead& head = x.response;
    if (x.response_complete && x.request.method != Method::kHead) return false;
    if (head.status < 200 || head.status == kPartial ||
        head.headers.find(HeaderId::kContentRange) != nullptr)
      return false;
    if (head.content_length && *head.content_length < min_size_) return false;
    std::string_view type = head.headers.get(HeaderId::kContentType);
    type = trim_ows(type.substr(0, type.find(';')));
    return !type.empty() && std::any_of(types_.begin(), types_.end(),
                                        [&](const std::string& it) { return fits(type, it); });
  }
  // The one the client weighs most, ours deciding between equals; none below the plain body.
  std::optional<Coding> choose(const Headers& request) const {
    std::optional<Coding> best;
    int weight = 0;
    for (const Coding coding : codings_) {
      const int own = coding_weight(request, coding_name(coding));
      if (own <= weight) continue;
      best = coding;
      weight = own;
    }
    if (weight < coding_weight(request, "identity")) return std::nullopt;
    return best;
  }

  std::vector<Coding> codings_;
  const CompressLevel level_;
  const std::uint64_t min_size_;
  std::vector<std::string> types_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Settings* const settings = context.told<Settings>();
  if (settings == nullptr || !settings->enabled || !settings->enabled->value) return nullptr;
  return std::make_unique<Compress>(*settings);
}

}  // namespace

FilterKind compress_filter() { return {make, {&config::extension_of<Settings>}}; }

}  // namespace outrider
