// See h1_parser.h. Order of refusals, the same for every cut of the input: what is wrong with a
// line's bytes or size as it comes, in the order of the lines; then the syntax of fields; then what
// the fields mean.
#include "proxy/h1_parser.h"

#include <llhttp.h>

#ifdef __SSE2__
  #include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "filters/http/path.h"

namespace outrider::h1 {

const BadRequest kNotHttp{Reason::kBadRequest, 0, "not HTTP"};
const BadRequest kHeadTimedOut{Reason::kClientTimeout, 0,
                               "the request head did not arrive in time"};

namespace {

constexpr BadRequest bad(std::string_view detail, int status = 0) {
  return {Reason::kBadRequest, status, detail};
}
constexpr BadRequest large(std::string_view detail, int status = 0) {
  return {Reason::kHeaderTooLarge, status, detail};
}

constexpr BadRequest kBareCr = bad("a CR without LF");
constexpr BadRequest kBareLf = bad("a LF without CR");
constexpr BadRequest kControlByte = bad("a control byte in the head");
constexpr BadRequest kEmptyLines = bad("empty lines before the start line");
constexpr BadRequest kFolded = bad("a line that begins with white space");
constexpr BadRequest kBadField = bad("a malformed header field");
constexpr BadRequest kBadMethod = bad("a malformed method");
constexpr BadRequest kBadRequestLine = bad("a malformed request line");
constexpr BadRequest kHttp2Preface = bad("an incomplete HTTP/2 preface");
constexpr BadRequest kBadVersion = bad("a malformed or unknown HTTP version");
constexpr BadRequest kOtherVersion = bad("an HTTP version that is not spoken here", 505);
constexpr BadRequest kBadTarget = bad("a malformed request target");
constexpr BadRequest kFragment = bad("a fragment in the target");
constexpr BadRequest kBadStatusLine = bad("a malformed status line");
constexpr BadRequest kNoHost = bad("no Host");
constexpr BadRequest kTwoHosts = bad("more than one Host");
constexpr BadRequest kBadHost = bad("a malformed Host or authority");
constexpr BadRequest kBadLength = bad("a malformed Content-Length");
constexpr BadRequest kTwoLengths = bad("more than one Content-Length");
constexpr BadRequest kBadCoding = bad("a Transfer-Encoding other than chunked");
constexpr BadRequest kCodingInHttp10 = bad("Transfer-Encoding in HTTP/1.0");
constexpr BadRequest kLengthAndCoding = bad("both Content-Length and Transfer-Encoding");
constexpr BadRequest kBadExpect = bad("an Expect other than 100-continue", 417);
constexpr BadRequest kManyOptions = bad("Connection names too many fields");
constexpr BadRequest kLongLine = large("the request line is too long", 414);
constexpr BadRequest kLongTarget = large("the request target is too long", 414);
constexpr BadRequest kLargeHead = large("the header fields are too large");
constexpr BadRequest kManyFields = large("too many header fields");

// RFC 9110 §5.6.2.
constexpr auto kTokenBytes = [] {
  std::array<bool, 256> table{};
  for (std::size_t c = '0'; c <= '9'; ++c) table[c] = true;
  for (std::size_t c = 'a'; c <= 'z'; ++c) table[c] = table[c - 'a' + 'A'] = true;
  for (const char c : std::string_view("!#$%&'*+-.^_`|~"))
    table[static_cast<unsigned char>(c)] = true;
  return table;
}();

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool starts_with_ignoring_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && equal_ignoring_case(text.substr(0, prefix.size()), prefix);
}

#ifdef __SSE2__
unsigned controls_of(__m128i bytes) {
  const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
  const __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
  return static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(low, del)));
}
#endif

// The control bytes of a text (DEL is one), in order, each found once, sixteen bytes looked at
// together.
class Controls {
 public:
  Controls(std::string_view text, std::size_t from)
      : data_(text.data()), size_(text.size()), at_(from) {}

  // `size` of the text: no more.
  std::size_t next() {
    while (found_ == 0) {
      if (at_ == size_) return size_;
      base_ = at_;
      load();
    }
    const std::size_t at = base_ + static_cast<std::size_t>(std::countr_zero(found_));
    found_ &= found_ - 1;
    return at;
  }

 private:
  void load() {
#ifdef __SSE2__
    if (size_ >= 16) {  // the last sixteen may reach back over some that are known
      const std::size_t from = std::min(at_, size_ - 16);
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data_ + from));
      found_ = controls_of(bytes) >> (at_ - from);
      at_ = from + 16;
      return;
    }
#endif
    for (unsigned bit = 1; at_ < size_ && bit < 1U << 16; ++at_, bit <<= 1)
      if (is_control(static_cast<unsigned char>(data_[at_]))) found_ |= bit;
  }

  const char* const data_;
  const std::size_t size_;
  std::size_t at_;  // not looked at from here on
  std::size_t base_ = 0;
  unsigned found_ = 0;  // bits of the bytes from `base_` on
};

// One that ends at the colon; what follows is llhttp's to judge.
bool has_field_name(std::string_view line) {
  return is_token(line.substr(0, line.find(':'))) && line.find(':') < line.size();
}

Fault read_target(std::string_view method, std::string_view target, const HeadLimits& limits) {
  if (target.size() > limits.target_bytes) return &kLongTarget;
  if (target.empty()) return &kBadTarget;
  for (const char c : target) {
    if (c == ' ' || c == '\t') return &kBadRequestLine;
    if (c == '#') return &kFragment;
  }
  if (target.front() == '/') return method == "CONNECT" ? &kBadTarget : nullptr;
  if (method == "CONNECT") return nullptr;
  if (target == "*") return method == "OPTIONS" ? nullptr : &kBadTarget;
  const bool absolute =
      starts_with_ignoring_case(target, "http://") || starts_with_ignoring_case(target, "https://");
  return absolute ? nullptr : &kBadTarget;
}

constexpr std::size_t kVersionBytes = 8;  // HTTP/1.1

bool is_version(std::string_view text) {
  return text.substr(0, 5) == "HTTP/" && is_digit(text[5]) && text[6] == '.' && is_digit(text[7]);
}

// Three words, none of them HTTP's: no method we know, no path, no version. Whoever sent it would
// not understand an HTTP/1 answer.
bool is_foreign(std::string_view text, std::string_view method) {
  const std::string_view rest = text.substr(std::min(method.size() + 1, text.size()));
  return method_of(method) == Method::kOther && text.find("HTTP/") == std::string_view::npos &&
         std::count(text.begin(), text.end(), ' ') == 2 && rest.front() != '/' &&
         rest.front() != '*' && rest.find("://") == std::string_view::npos;
}

Fault read_request_line(std::string_view text, const HeadLimits& limits, StartLine& line) {
  const std::size_t space = text.find(' ');
  const std::string_view method = text.substr(0, space);
  if (method.size() > limits::kMethodBytes || !is_token(method)) return &kBadMethod;
  if (is_foreign(text, method)) return &kNotHttp;
  if (method == "PRI") return &kHttp2Preface;
  if (text.size() < method.size() + 1 + 1 + kVersionBytes) return &kBadRequestLine;
  const std::string_view version = text.substr(text.size() - kVersionBytes);
  if (text[text.size() - kVersionBytes - 1] != ' ') return &kBadRequestLine;
  if (!is_version(version)) return &kBadVersion;
  const std::size_t target_begin = method.size() + 1;
  if (text.size() - kVersionBytes - 1 < target_begin) return &kBadRequestLine;
  const std::string_view target =
      text.substr(target_begin, text.size() - kVersionBytes - 1 - target_begin);
  if (Fault fault = read_target(method, target, limits)) return fault;
  if (version[5] != '1') return version[5] == '0' ? &kBadVersion : &kOtherVersion;
  if (version[7] > '1') return &kBadVersion;
  line = {.bytes = static_cast<std::uint32_t>(text.size()),
          .target_bytes = static_cast<std::uint32_t>(target.size()),
          .method_bytes = static_cast<std::uint8_t>(method.size()),
          .version = version[7] == '1' ? Version::kHttp11 : Version::kHttp10};
  return nullptr;
}

constexpr std::string_view kHttp1 = "HTTP/1.";
constexpr std::size_t kStatusBegin = kVersionBytes + 1;
constexpr std::size_t kReasonBegin = kStatusBegin + 3 + 1;

Fault read_status_line(std::string_view text, StartLine& line) {
  if (text.size() < kReasonBegin - 1 || text.substr(0, kHttp1.size()) != kHttp1 ||
      (text[7] != '0' && text[7] != '1'))
    return &kBadStatusLine;
  const char* const digits = text.data() + kStatusBegin;
  if (text[kVersionBytes] != ' ' || digits[0] < '1' || digits[0] > '5' || !is_digit(digits[1]) ||
      !is_digit(digits[2]))
    return &kBadStatusLine;
  if (text.size() >= kReasonBegin && text[kReasonBegin - 1] != ' ') return &kBadStatusLine;
  line = {.bytes = static_cast<std::uint32_t>(text.size()),
          .target_bytes = static_cast<std::uint32_t>(
              text.size() < kReasonBegin ? 0 : text.size() - kReasonBegin),
          .status = static_cast<std::uint16_t>((digits[0] - '0') * 100 + (digits[1] - '0') * 10 +
                                               (digits[2] - '0')),
          .version = text[7] == '1' ? Version::kHttp11 : Version::kHttp10};
  return nullptr;
}

std::uint32_t bound(std::size_t setting) {
  constexpr std::uint32_t kOutOfReach = 1U << 30;
  return setting == 0 || setting > kOutOfReach ? kOutOfReach : static_cast<std::uint32_t>(setting);
}

}  // namespace

bool is_token(char c) { return kTokenBytes[static_cast<unsigned char>(c)]; }

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return is_token(c); });
}

HeadLimits::HeadLimits(const CodecSettings& settings)
    : line_bytes(
          bound(std::max(limits::kRequestLineBytes, std::size_t{bound(settings.max_target_bytes)} +
                                                        limits::kMethodBytes + kVersionBytes + 2))),
      target_bytes(bound(settings.max_target_bytes)),
      header_bytes(bound(settings.max_header_bytes)),
      fields(bound(settings.max_fields)) {}

// ---- HeadScanner

namespace {
constexpr std::uint32_t kFieldExtra = 32 - 2;  // as HPACK counts, less the colon and a blank
}  // namespace

HeadScanner::Found HeadScanner::scan(std::string_view bytes, const HeadLimits& limits) {
  const char* const data = bytes.data();
  const std::size_t size = bytes.size();
  Controls controls(bytes, at_);
  std::size_t at;
  while ((at = controls.next()) < size) {
    if (data[at] == '\t') continue;
    if (data[at] != '\r')
      return refuse(bytes, at, data[at] == '\n' ? &kBareLf : &kControlByte, limits);
    if (at + 1 == size) break;
    if (data[at + 1] != '\n') return refuse(bytes, at, &kBareCr, limits);
    controls.next();
    if (Fault fault = end_line(bytes, at, limits)) return refuse(bytes, at, fault, limits);
    if (end_ != 0) return Found::kWhole;
    line_begin_ = static_cast<std::uint32_t>(at + 2);
  }
  at_ = static_cast<std::uint32_t>(at);
  fault_ = malformed_fields(bytes);
  if (fault_ == nullptr) fault_ = unfit(bytes.substr(line_begin_, at - line_begin_), limits);
  return fault_ == nullptr ? Found::kMore : Found::kFault;
}

// The first fault in the order of the bytes, whatever was noticed first.
HeadScanner::Found HeadScanner::refuse(std::string_view bytes, std::size_t at, Fault fault,
                                       const HeadLimits& limits) {
  fault_ = malformed_fields(bytes);
  if (fault_ == nullptr) fault_ = unfit(bytes.substr(line_begin_, at - line_begin_), limits);
  if (fault_ == nullptr) fault_ = fault;
  return Found::kFault;
}

Fault HeadScanner::end_line(std::string_view bytes, std::size_t at, const HeadLimits& limits) {
  const std::string_view line(bytes.data() + line_begin_, at - line_begin_);
  if (section_ == Section::kTrailers || line_.bytes != 0) {
    if (!line.empty()) return field_line(line, limits);
    end_ = static_cast<std::uint32_t>(at + 2);
    return nullptr;
  }
  checked_ = static_cast<std::uint32_t>(at + 2);
  if (line.empty()) {
    // RFC 9112 §2.2 lets one through, for clients that send one after a body.
    if (section_ != Section::kRequest || begin_ != 0) return &kEmptyLines;
    begin_ = checked_;
    return nullptr;
  }
  if (Fault fault = unfit(line, limits)) return fault;
  return section_ == Section::kRequest ? read_request_line(line, limits, line_)
                                       : read_status_line(line, line_);
}

Fault HeadScanner::field_line(std::string_view line, const HeadLimits& limits) {
  if (line.front() == ' ' || line.front() == '\t') return &kFolded;
  header_bytes_ += static_cast<std::uint32_t>(line.size()) + kFieldExtra;
  if (header_bytes_ > limits.header_bytes) return &kLargeHead;
  return ++fields_ > limits.fields ? &kManyFields : nullptr;
}

// What is wrong with a line before its end has come.
Fault HeadScanner::unfit(std::string_view line, const HeadLimits& limits) const {
  if (section_ == Section::kTrailers || line_.bytes != 0)
    return !line.empty() && header_bytes_ + line.size() + kFieldExtra > limits.header_bytes
               ? &kLargeHead
               : nullptr;
  if (section_ == Section::kRequest) return line.size() > limits.line_bytes ? &kLongLine : nullptr;
  if (line.size() > limits.line_bytes) return &kLargeHead;
  return line.substr(0, kHttp1.size()) == kHttp1.substr(0, line.size()) ? nullptr : &kBadStatusLine;
}

// Of a head that will not become whole in this read, or at all: llhttp has not seen its fields.
Fault HeadScanner::malformed_fields(std::string_view bytes) {
  while (checked_ < line_begin_) {
    const std::string_view line = bytes.substr(checked_, bytes.find('\r', checked_) - checked_);
    if (!has_field_name(line)) return &kBadField;
    checked_ += static_cast<std::uint32_t>(line.size() + 2);
  }
  return nullptr;
}

// ---- HeadCollector

HeadScanner::Found HeadCollector::take(std::string_view& bytes, Section section,
                                       const HeadLimits& limits, RawHead& raw, Fault& fault) {
  using enum HeadScanner::Found;
  if (kept_ == nullptr) {
    HeadScanner scanner(section);
    const HeadScanner::Found found = scanner.scan(bytes, limits);
    raw = found == kWhole ? scanner.raw(bytes)
                          : RawHead{bytes.substr(scanner.begin()), scanner.line()};
    fault = scanner.fault();
    if (found == kMore) kept_ = std::make_unique<Kept>(Kept{std::string(bytes), scanner});
    bytes.remove_prefix(found == kWhole ? scanner.end() : bytes.size());
    return found;
  }
  constexpr std::size_t kPart = 2048;  // what follows the head is not copied beyond this
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, kPart);
    const std::size_t before = kept_->bytes.size();
    kept_->bytes.append(part);
    HeadScanner& scanner = kept_->scanner;
    const HeadScanner::Found found = scanner.scan(kept_->bytes, limits);
    bytes.remove_prefix(found == kWhole ? scanner.end() - before : part.size());
    if (found == kMore) continue;
    raw = found == kWhole
              ? scanner.raw(kept_->bytes)
              : RawHead{std::string_view(kept_->bytes).substr(scanner.begin()), scanner.line()};
    fault = scanner.fault();
    return found;
  }
  return kMore;
}

// ---- fields

namespace {

// The fields of one head: llhttp calls, this decides what each means for the message.
class FieldReader {
 public:
  FieldReader(Section section, Version version, const HeadLimits& limits, Headers& headers,
              MessageInfo& info)
      : headers_(headers), limits_(limits), info_(info), section_(section), version_(version) {}

  // `fields`: field lines and the empty line.
  Fault read(std::string_view fields);

  std::optional<std::uint64_t> length;
  std::string_view host;
  bool has_host = false;
  bool te_trailers = false;
  bool expects_continue = false;

 private:
  static FieldReader& of(llhttp_t* parser) { return *static_cast<FieldReader*>(parser->data); }
  static int on_name(llhttp_t* parser, const char* at, std::size_t size) noexcept {
    of(parser).name_ = joined(of(parser).name_, {at, size});
    return 0;
  }
  static int on_value(llhttp_t* parser, const char* at, std::size_t size) noexcept {
    of(parser).value_ = joined(of(parser).value_, {at, size});
    return 0;
  }
  static int on_value_complete(llhttp_t* parser) noexcept {
    of(parser).field();
    return 0;
  }
  static int on_complete(llhttp_t*) noexcept { return HPE_PAUSED; }
  // llhttp may hand out a span in pieces that follow each other.
  static std::string_view joined(std::string_view before, std::string_view more) {
    return before.empty() ? more : std::string_view(before.data(), before.size() + more.size());
  }
  static llhttp_t prime();

  void refuse(const BadRequest& rule) {
    if (fault_ == nullptr) fault_ = &rule;
  }
  void field();
  void framing_field(HeaderId id);
  void trailer_field(HeaderId id);
  void read_length();
  void read_connection();
  void read_expect();
  void read_keep_alive();
  void finish();
  void remove_named();

  Headers& headers_;
  const HeadLimits& limits_;
  MessageInfo& info_;
  std::string_view name_;
  std::string_view value_;
  std::string_view upgrade_;
  Fault fault_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t named_count_ = 0;
  const Section section_;
  const Version version_;
  bool names_upgrade_ = false;
  bool has_upgrade_ = false;
  bool has_coding_ = false;
  struct Text {
    const char* data;
    std::size_t size;
  };
  std::array<Text, limits::kConnectionOptions>
      named_;  // by Connection; the first named_count_ are set
};

// llhttp as it stands behind a start line: it knows a closed list of methods, so the line is read
// by us. All lenient flags off.
llhttp_t FieldReader::prime() {
  static const llhttp_settings_t settings = [] {
    llhttp_settings_t callbacks;
    llhttp_settings_init(&callbacks);
    callbacks.on_header_field = on_name;
    callbacks.on_header_value = on_value;
    callbacks.on_header_value_complete = on_value_complete;
    callbacks.on_headers_complete = on_complete;
    return callbacks;
  }();
  constexpr std::string_view kLine = "GET / HTTP/1.1\r\n";
  llhttp_t parser;
  llhttp_init(&parser, HTTP_REQUEST, &settings);
  OUTRIDER_ASSERT(llhttp_execute(&parser, kLine.data(), kLine.size()) == HPE_OK);
  return parser;
}

Fault FieldReader::read(std::string_view fields) {
  static const llhttp_t primed = prime();
  llhttp_t parser = primed;
  parser.data = this;
  const bool sound = llhttp_execute(&parser, fields.data(), fields.size()) == HPE_PAUSED &&
                     llhttp_get_error_pos(&parser) == fields.data() + fields.size();
  if (!sound) return &kBadField;
  finish();
  return fault_;
}

void FieldReader::field() {
  value_ = trim_ows(value_);
  bytes_ += name_.size() + value_.size() + 32;
  if (bytes_ > limits_.header_bytes) refuse(kLargeHead);
  const HeaderId id = header_id(name_);
  if (section_ == Section::kTrailers)
    trailer_field(id);
  else if (id != HeaderId::kExpect && (header_flags(id) & (kHopByHop | kFraming)) == 0)
    headers_.add(id, name_, value_);
  else
    framing_field(id);
  name_ = value_ = {};
}

void FieldReader::framing_field(HeaderId id) {
  using enum HeaderId;
  switch (id) {
    case kHost:
      if (has_host && section_ == Section::kRequest) refuse(kTwoHosts);
      has_host = true;
      host = value_;
      headers_.add(id, name_, value_);
      break;
    case kContentLength: read_length(); break;
    case kTransferEncoding:
      if (has_coding_ || !equal_ignoring_case(value_, "chunked")) refuse(kBadCoding);
      has_coding_ = info_.chunked = true;
      break;
    case kConnection: read_connection(); break;
    case kUpgrade:
      upgrade_ = has_upgrade_ ? std::string_view() : value_;
      has_upgrade_ = true;
      break;
    case kTe: te_trailers |= list_has_token(value_, "trailers"); break;
    case kKeepAlive: read_keep_alive(); break;
    case kExpect: read_expect(); break;
    default: break;  // ends here
  }
}

// Routing, framing and what looks like ours never comes behind a body.
void FieldReader::trailer_field(HeaderId id) {
  if ((header_flags(id) & (kNoTrailer | kHopByHop | kFraming)) == 0)
    headers_.add(id, name_, value_);
}

void FieldReader::read_length() {
  constexpr std::size_t kDigits = 19;  // of 2^63 - 1
  if (length) refuse(kTwoLengths);
  std::uint64_t number = 0;
  if (value_.empty() || value_.size() > kDigits ||
      !std::all_of(value_.begin(), value_.end(), is_digit)) {
    refuse(kBadLength);
  } else {
    for (const char c : value_) number = number * 10 + static_cast<std::uint64_t>(c - '0');
    if (number > std::numeric_limits<std::int64_t>::max()) refuse(kBadLength);
  }
  length = number;
  headers_.add(HeaderId::kContentLength, name_, value_);
}

void FieldReader::read_connection() {
  for (std::string_view list = value_; !list.empty();) {
    const std::size_t comma = std::min(list.find(','), list.size());
    const std::string_view option = trim_ows(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (equal_ignoring_case(option, "close"))
      info_.close = true;
    else if (equal_ignoring_case(option, "keep-alive"))
      info_.keep_alive = true;
    else if (equal_ignoring_case(option, "upgrade"))
      names_upgrade_ = true;
    else if (!option.empty() && named_count_ == named_.size())
      refuse(kManyOptions);
    else if (!option.empty())
      named_[named_count_++] = {option.data(), option.size()};
  }
}

void FieldReader::read_expect() {
  if (section_ != Section::kRequest) return;
  if (version_ == Version::kHttp10) return;  // RFC 9110 §10.1.1: ignored
  if (expects_continue || !equal_ignoring_case(value_, "100-continue")) refuse(kBadExpect);
  expects_continue = true;
  headers_.add(HeaderId::kExpect, name_, value_);
}

void FieldReader::read_keep_alive() {
  constexpr std::string_view kTimeout = "timeout=";
  for (std::string_view list = value_; !list.empty();) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view part = trim_ows(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (!starts_with_ignoring_case(part, kTimeout)) continue;
    part.remove_prefix(kTimeout.size());
    constexpr std::size_t kDigits = 6;
    if (part.empty() || part.size() > kDigits || !std::all_of(part.begin(), part.end(), is_digit))
      continue;
    info_.keep_alive_seconds = 0;
    for (const char c : part)
      info_.keep_alive_seconds =
          info_.keep_alive_seconds * 10 + static_cast<std::uint32_t>(c - '0');
  }
}

void FieldReader::finish() {
  if (section_ == Section::kTrailers) return;
  if (has_coding_ && version_ == Version::kHttp10) refuse(kCodingInHttp10);
  if (has_coding_ && length) refuse(kLengthAndCoding);
  if (named_count_ != 0) remove_named();
  if (names_upgrade_ && version_ == Version::kHttp11 && is_token(upgrade_))
    info_.upgrade = upgrade_;
}

// Fields that decide where a message goes, who sent it or where it ends stay, whoever names them.
bool may_be_named(const Header& header) {
  using enum HeaderId;
  switch (header.id) {
    case kHost:
    case kContentLength:
    case kAuthorization:
    case kCookie:
    case kSetCookie:
    case kForwarded:
    case kXRealIp:
    case kXRequestId: return false;
    default:
      return !starts_with_ignoring_case(header.name, "x-forwarded-") &&
             !starts_with_ignoring_case(header.name, "x-outrider-");
  }
}

void FieldReader::remove_named() {
  headers_.remove_if([this](const Header& header) {
    const auto names = [&](const Text& option) {
      return equal_ignoring_case({option.data, option.size}, header.name);
    };
    return std::any_of(named_.begin(), named_.begin() + named_count_, names) &&
           may_be_named(header);
  });
}

std::string_view fields_of(const RawHead& raw) { return raw.block.substr(raw.line.bytes + 2); }

// Absolute-form becomes origin-form, its authority the request's (RFC 9112 §3.2.2).
void split_target(RequestHead& head, Arena& arena) {
  const std::string_view rest = head.target.substr(head.target.find("://") + 3);
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  head.authority = rest.substr(0, end);
  head.target = rest.substr(end);
  if (head.target.empty())
    head.target = head.method == Method::kOptions ? "*" : "/";
  else if (head.target.front() == '?')
    head.target = arena.concat("/", head.target);
}

bool authority_is_sound(std::string_view authority, Arena& arena, bool needs_port) {
  std::string_view host;
  std::string_view why;
  std::uint16_t port = 0;
  return parse_authority(authority, arena, host, port, why) && (port != 0 || !needs_port);
}

Fault read_authority(RequestHead& head, const FieldReader& fields) {
  Arena& arena = head.headers.arena();
  if (!fields.has_host && head.version == Version::kHttp11) return &kNoHost;
  if (fields.has_host && !authority_is_sound(fields.host, arena, false)) return &kBadHost;
  head.authority = fields.host;
  if (head.target.front() == '/' || head.target == "*") return nullptr;
  const bool connect = head.method == Method::kConnect;
  if (connect)
    head.authority = head.target;
  else
    split_target(head, arena);
  return authority_is_sound(head.authority, arena, connect) ? nullptr : &kBadHost;
}

// Only what has a body of no bytes can turn into a tunnel; h2c would carry requests past everything
// we check.
std::string_view upgrade_of(std::string_view token, const RequestHead& head, bool chunked) {
  if (chunked || head.content_length.value_or(0) != 0 || head.method == Method::kConnect) return {};
  if (equal_ignoring_case(token, "h2c") || equal_ignoring_case(token, "h2")) return {};
  return equal_ignoring_case(token, "websocket") ? "websocket" : token;
}

}  // namespace

void read_start_line(const RawHead& raw, RequestHead& head) {
  if (raw.line.bytes == 0) return;
  head.method_text = raw.block.substr(0, raw.line.method_bytes);
  head.method = method_of(head.method_text);
  head.target = raw.block.substr(raw.line.method_bytes + 1U, raw.line.target_bytes);
  head.version = raw.line.version;
}

Fault read_request(const RawHead& raw, const HeadLimits& limits, RequestHead& head,
                   MessageInfo& info) {
  read_start_line(raw, head);
  FieldReader fields(Section::kRequest, head.version, limits, head.headers, info);
  if (Fault fault = fields.read(fields_of(raw))) return fault;
  if (Fault fault = read_authority(head, fields)) return fault;
  head.content_length = fields.length;
  head.expects_continue = fields.expects_continue;
  head.te_trailers = fields.te_trailers;
  info.upgrade = head.upgrade = upgrade_of(info.upgrade, head, info.chunked);
  return nullptr;
}

Fault read_response(const RawHead& raw, const HeadLimits& limits, ResponseHead& head,
                    MessageInfo& info) {
  head.status = raw.line.status;
  head.version = raw.line.version;
  head.reason =
      raw.block.substr(std::min(kReasonBegin, std::size_t{raw.line.bytes}), raw.line.target_bytes);
  head.headers.clear();
  FieldReader fields(Section::kResponse, head.version, limits, head.headers, info);
  if (Fault fault = fields.read(fields_of(raw))) return fault;
  head.content_length = fields.length;
  return nullptr;
}

Fault read_trailers(const RawHead& raw, const HeadLimits& limits, Headers& trailers) {
  MessageInfo info;
  FieldReader fields(Section::kTrailers, Version::kHttp11, limits, trailers, info);
  return fields.read(raw.block);
}

std::size_t count_controls(std::string_view text) {
  std::size_t count = 0;
  std::size_t at = 0;
#ifdef __SSE2__
  for (; text.size() - at >= 16; at += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at));
    const __m128i tabs = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
    unsigned found = controls_of(bytes) & ~static_cast<unsigned>(_mm_movemask_epi8(tabs));
    for (; found != 0; found &= found - 1) ++count;
  }
#endif
  for (const char c : text.substr(at))
    if (is_control(static_cast<unsigned char>(c)) && c != '\t') ++count;
  return count;
}

}  // namespace outrider::h1
