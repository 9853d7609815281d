// A value is cut, then escaped into the buffer where it stays. Plain ASCII, nearly every value
// there is, is copied in one piece.
#include "filters/access_log.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "config/timestamp.h"
#include "filters/route_table.h"

namespace outrider {
namespace {

using Kind = config::VariableKind;
constexpr char kHex[] = "0123456789abcdef";
constexpr std::size_t kWidest = 6;  // `\u00NN` for one byte

struct JsonField {
  Kind kind;
  std::string_view key;
  bool number = false;
};
constexpr JsonField kJsonFields[] = {
    {Kind::kTime, R"({"time":)"},
    {Kind::kListener, R"(,"listener":)"},
    {Kind::kClient, R"(,"client":)"},
    {Kind::kClientId, R"(,"client_id":)"},
    {Kind::kMethod, R"(,"method":)"},
    {Kind::kHost, R"(,"host":)"},
    {Kind::kPath, R"(,"path":)"},
    {Kind::kProtocol, R"(,"protocol":)"},
    {Kind::kStatus, R"(,"status":)", true},
    {Kind::kReason, R"(,"reason":)"},
    {Kind::kRoute, R"(,"route":)"},
    {Kind::kService, R"(,"service":)"},
    {Kind::kEndpoint, R"(,"endpoint":)"},
    {Kind::kAttempts, R"(,"attempts":)", true},
    {Kind::kBytesIn, R"(,"bytes_in":)", true},
    {Kind::kBytesOut, R"(,"bytes_out":)", true},
    {Kind::kDuration, R"(,"duration_ms":)", true},
    {Kind::kUpstream, R"(,"upstream_ms":)", true},
    {Kind::kRequestId, R"(,"request_id":)"},
    {Kind::kTraceId, R"(,"trace_id":)"},
    {Kind::kUserAgent, R"(,"user_agent":)"},
    {Kind::kTls, R"(,"tls":)"},
};

enum class Byte : std::uint8_t { kPlain, kControl, kMarked, kHigh };
constexpr auto kBytes = [] {
  std::array<Byte, 256> table{};
  for (std::size_t c = 0; c < 0x20; ++c) table[c] = Byte::kControl;
  table[0x7f] = Byte::kControl;
  table['"'] = table['\\'] = Byte::kMarked;
  for (std::size_t c = 0x80; c < 0x100; ++c) table[c] = Byte::kHigh;
  return table;
}();

// Length of the well-formed UTF-8 sequence at the front (Unicode §3.9, table 3-7), 0 for none.
// Control characters of Latin-1's upper half, which some terminals obey, are taken for ill-formed,
// so that they are escaped.
std::size_t sequence(std::string_view text) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
  };
  const auto follows = [&](std::size_t at) { return (byte(at) & 0xc0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first >= 0xc2 && first <= 0xdf)
    return follows(1) && !(first == 0xc2 && second < 0xa0) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool sound = follows(1) && follows(2) && (first != 0xe0 || second >= 0xa0) &&
                       (first != 0xed || second < 0xa0);
    return sound ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool sound = follows(1) && follows(2) && follows(3) &&
                       (first != 0xf0 || second >= 0x90) && (first != 0xf4 || second < 0x90);
    return sound ? 4 : 0;
  }
  return 0;
}

char* escape_byte(char* to, unsigned char byte, bool json) {
  *to++ = '\\';
  if (json)
    for (const char c : {'u', '0', '0'}) *to++ = c;
  else
    *to++ = 'x';
  *to++ = kHex[byte >> 4];
  *to++ = kHex[byte & 15];
  return to;
}

// Is any of eight bytes not plain? Subtracting from each byte borrows into its top bit where it was
// smaller.
bool any_odd(std::uint64_t word) {
  constexpr std::uint64_t kOnes = 0x0101010101010101, kTops = kOnes * 0x80;
  const auto zero_in = [](std::uint64_t bytes) { return (bytes - kOnes) & ~bytes; };
  const std::uint64_t control = (word - kOnes * 0x20) & ~word;
  return ((word | control | zero_in(word ^ kOnes * '"') | zero_in(word ^ kOnes * '\\') |
           zero_in(word ^ kOnes * 0x7f)) &
          kTops) != 0;
}

// At `to`, which has room for kWidest bytes for each of the text's.
char* escape(char* to, std::string_view text, bool json) {
  for (std::size_t i = 0; i < text.size();) {
    for (std::uint64_t word; text.size() - i >= sizeof word; i += sizeof word, to += sizeof word) {
      std::memcpy(&word, text.data() + i, sizeof word);
      if (any_odd(word)) break;
      std::memcpy(to, &word, sizeof word);
    }
    while (i < text.size() && kBytes[static_cast<unsigned char>(text[i])] == Byte::kPlain)
      *to++ = text[i++];
    if (i == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[i]);
    std::size_t length = 1;
    switch (kBytes[byte]) {
      case Byte::kMarked:
        *to++ = '\\';
        *to++ = text[i];
        break;
      case Byte::kHigh:
        if (const std::size_t whole = sequence(text.substr(i)); whole != 0) {
          to = std::copy_n(text.data() + i, whole, to);
          length = whole;
          break;
        }
        to = escape_byte(to, byte, json);
        break;
      default: to = escape_byte(to, byte, json); break;
    }
    i += length;
  }
  return to;
}

// At most `bytes`, not in the middle of a character.
std::string_view cut(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  std::size_t end = bytes;
  while (end > 0 && bytes - end < 3 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;
  return text.substr(0, end);
}

// Both pieces together are cut, so the second only follows a whole first.
Value cut(const Value& value) {
  const std::string_view text = cut(value.text, limits::kLogValueBytes);
  if (text.size() != value.text.size()) return {text, {}};
  return {text, cut(value.tail, limits::kLogValueBytes - text.size())};
}

void put_value(LogBuffer& out, const Value& whole, bool json) {
  const Value value = cut(whole);
  char* const start = out.reserve((value.text.size() + value.tail.size()) * kWidest);
  if (start == nullptr) return;
  char* const end = escape(escape(start, value.text, json), value.tail, json);
  out.commit(static_cast<std::size_t>(end - start));
}

// One member of the object, in one piece: nearly all of a line's cost is here.
void put_json(LogBuffer& out, const JsonField& field, const Value& whole) {
  constexpr std::string_view kNull = "null";
  const Value value = cut(whole);
  char* const start = out.reserve(field.key.size() +
                                  (value.text.size() + value.tail.size()) * kWidest + kNull.size());
  if (start == nullptr) return;
  char* to = std::copy(field.key.begin(), field.key.end(), start);
  if (value.empty()) {
    to = std::copy(kNull.begin(), kNull.end(), to);
  } else if (field.number) {
    to = std::copy(value.text.begin(), value.text.end(), to);
  } else {
    *to++ = '"';
    to = escape(escape(to, value.text, true), value.tail, true);
    *to++ = '"';
  }
  out.commit(static_cast<std::size_t>(to - start));
}

// The combined format's way: `-` for nothing.
void put_or_dash(LogBuffer& out, const Value& value) {
  if (value.empty())
    out.append("-");
  else
    put_value(out, value, false);
}

// `10/Oct/2000:13:55:36 +0000`
std::string_view combined_time(std::int64_t wall_ms, Scratch& scratch) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  char iso[kTimestampBytes];
  format_timestamp(wall_ms, iso);  // 2000-10-10T13:55:36.000Z
  const auto month = static_cast<std::size_t>((iso[5] - '0') * 10 + iso[6] - '1');
  char* to = scratch.bytes;
  const auto put = [&to](std::string_view text) { to = std::copy(text.begin(), text.end(), to); };
  put({iso + 8, 2});
  put("/");
  put(kMonths.substr(month * 3, 3));
  put("/");
  put({iso, 4});
  put(":");
  put({iso + 11, 8});
  put(" +0000");
  return {scratch.bytes, static_cast<std::size_t>(to - scratch.bytes)};
}

bool is_secret(const Template::Part& part) {
  return part.kind == Kind::kCookie ||
         (part.kind == Kind::kHeader && (header_flags(part.header) & kSecret) != 0);
}

// A format is one line: its own control bytes, but tabs, become spaces.
std::string one_line(std::string format) {
  while (!format.empty() && (format.back() == '\n' || format.back() == '\r')) format.pop_back();
  for (char& c : format)
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) c = ' ';
  return format;
}

}  // namespace

AccessLog::AccessLog(const config::Telemetry& telemetry, LogWriter& writer,
                     std::shared_ptr<LogSink> sink)
    : buffer_(writer, std::move(sink)),
      form_(telemetry.access_log),
      format_(one_line(telemetry.access_log_format)),
      json_escapes_(telemetry.access_log_format.starts_with('{')) {}

void hide_secrets(Exchange& x, const std::set<std::string_view>& parameters) {
  // Of a target that could not be read there is neither path nor query.
  std::string_view& text = x.path.empty() ? x.request.target : x.query;
  const std::size_t query = text.find('?');
  if (query == std::string_view::npos) return;
  char* const start = x.arena.bytes(text.size());
  char* to = std::copy_n(text.begin(), query + 1, start);
  for (std::size_t at = query + 1; at <= text.size();) {
    const std::size_t end = std::min(text.find('&', at), text.size());
    std::string_view piece = text.substr(at, end - at);
    const std::size_t equals = piece.find('=');
    const bool has_value = equals != std::string_view::npos && equals + 1 < piece.size();
    const bool secret = has_value && parameters.contains(trim_ows(piece.substr(0, equals)));
    if (at != query + 1) *to++ = '&';
    at = end + 1;
    if (secret) piece = piece.substr(0, equals + 1);
    to = std::copy(piece.begin(), piece.end(), to);
    if (secret) *to++ = '-';
  }
  text = {start, static_cast<std::size_t>(to - start)};
}

void AccessLog::write(const Exchange& x) {
  switch (form_) {
    case config::Telemetry::Log::kJson: write_json(x); break;
    case config::Telemetry::Log::kText: write_text(x); break;
    case config::Telemetry::Log::kFormat: write_format(x); break;
    case config::Telemetry::Log::kOff: return;
  }
  buffer_.end_line();
}

void AccessLog::write_json(const Exchange& x) {
  for (const JsonField& field : kJsonFields) {
    Scratch scratch;
    put_json(buffer_, field, value_of(field.kind, x, scratch));
  }
  buffer_.append("}");
}

void AccessLog::write_text(const Exchange& x) {
  Scratch scratch;
  const auto field = [&](Kind kind) { put_or_dash(buffer_, value_of(kind, x, scratch)); };
  field(Kind::kClient);
  buffer_.append(" - ");
  field(Kind::kClientId);
  buffer_.append(" [");
  buffer_.append(combined_time(x.started_wall_ms, scratch));
  buffer_.append("] \"");
  if (const Value method = value_of(Kind::kMethod, x, scratch); method.empty()) {
    buffer_.append("-");
  } else {
    put_value(buffer_, method, false);
    buffer_.append(" ");
    field(Kind::kPath);
    buffer_.append(" ");
    field(Kind::kProtocol);
  }
  buffer_.append("\" ");
  field(Kind::kStatus);
  buffer_.append(" ");
  field(Kind::kBytesOut);
  buffer_.append(" \"");
  put_or_dash(buffer_, {x.request.headers.get(HeaderId::kReferer), {}});
  buffer_.append("\" \"");
  field(Kind::kUserAgent);
  buffer_.append("\" ");
  field(Kind::kReason);
}

void AccessLog::write_format(const Exchange& x) {
  for (const Template::Part& part : format_.parts()) {
    Scratch scratch;
    if (!part.variable)
      buffer_.append(part.literal);
    else if (!is_secret(part))
      put_value(buffer_, value_of(part, x, scratch), json_escapes_);
  }
}

}  // namespace outrider
