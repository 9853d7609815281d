// Bytes to heads of HTTP/1: what both directions of h1_server.cc and h1_client.cc read
// with. A head is parsed only when all of it has come, in one piece: HeadScanner finds its end and
// refuses every line that could be read in two ways, llhttp then takes the fields apart, and
// read_request() and its kin check what they mean together (RFC 9110, RFC 9112). Invariant: nothing
// here depends on how the bytes were cut into reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "filters/http/message.h"
#include "proxy/codec.h"

namespace outrider::h1 {

// The rule that was broken, static; null: none.
using Fault = const BadRequest*;
extern const BadRequest kNotHttp;  // closed without an answer
extern const BadRequest kHeadTimedOut;

enum class Section : std::uint8_t { kRequest, kResponse, kTrailers };

// The bounds of a head. What is 0 in the settings is out of reach here.
struct HeadLimits {
  explicit HeadLimits(const CodecSettings& settings);
  std::uint32_t line_bytes;
  std::uint32_t target_bytes;
  std::uint32_t header_bytes;
  std::uint32_t fields;
};

// Sizes of its parts; where they stand follows, since single spaces part them.
struct StartLine {
  std::uint32_t bytes = 0;         // without CRLF; 0: not read yet, or malformed
  std::uint32_t target_bytes = 0;  // response: of the reason phrase
  std::uint16_t status = 0;
  std::uint8_t method_bytes = 0;
  Version version = Version::kHttp11;
};

// A head as it came: from the first byte of its start line (trailers: of their first field) to the
// end of the empty line.
struct RawHead {
  std::string_view block;
  StartLine line;
};

// Finds the end of a head in bytes that may come in pieces, each byte looked at once. Refuses bare
// CR and LF, control bytes, folded lines, too many bytes or fields, and a malformed start line as
// soon as it is there.
class HeadScanner {
 public:
  enum class Found : std::uint8_t { kMore, kWhole, kFault };

  explicit HeadScanner(Section section) : section_(section) {}
  // `bytes`: everything so far, the earlier bytes again in front.
  Found scan(std::string_view bytes, const HeadLimits& limits);
  std::uint32_t begin() const { return begin_; }  // behind an empty line that was skipped
  std::uint32_t end() const { return end_; }
  RawHead raw(std::string_view bytes) const { return {bytes.substr(begin_, end_ - begin_), line_}; }
  const StartLine& line() const { return line_; }
  Fault fault() const { return fault_; }

 private:
  Found refuse(std::string_view bytes, std::size_t at, Fault fault, const HeadLimits& limits);
  Fault end_line(std::string_view bytes, std::size_t at, const HeadLimits& limits);
  Fault field_line(std::string_view line, const HeadLimits& limits);
  Fault unfit(std::string_view line, const HeadLimits& limits) const;
  Fault malformed_fields(std::string_view bytes);

  Fault fault_ = nullptr;
  std::uint32_t at_ = 0;  // not looked at from here on
  std::uint32_t begin_ = 0;
  std::uint32_t line_begin_ = 0;
  std::uint32_t checked_ = 0;  // lines before it are known to be fields
  std::uint32_t end_ = 0;
  std::uint32_t header_bytes_ = 0;
  std::uint32_t fields_ = 0;
  StartLine line_;
  const Section section_;
};

// Keeps a head that comes in pieces until it is whole; keeps nothing, and copies nothing, of one
// that comes at once.
class HeadCollector {
 public:
  // Takes the head's bytes off the front. kWhole: `raw` is valid until clear() and as long as
  // `bytes` are.
  HeadScanner::Found take(std::string_view& bytes, Section section, const HeadLimits& limits,
                          RawHead& raw, Fault& fault);
  void clear() { kept_.reset(); }
  bool has_part() const { return kept_ != nullptr && kept_->bytes.size() > kept_->scanner.begin(); }

 private:
  struct Kept {
    std::string bytes;
    HeadScanner scanner;
  };
  std::unique_ptr<Kept> kept_;
};

// What the fields said of the message, beside what the head itself holds.
struct MessageInfo {
  std::string_view upgrade;  // the one token of Upgrade, if Connection named it
  std::uint32_t keep_alive_seconds = 0;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;
};

// `raw.block` lies in the head's arena. The method, target and version are filled in even when a
// field is at fault.
Fault read_request(const RawHead& raw, const HeadLimits& limits, RequestHead& head,
                   MessageInfo& info);
Fault read_response(const RawHead& raw, const HeadLimits& limits, ResponseHead& head,
                    MessageInfo& info);
// Without the fields that trailers may not carry.
Fault read_trailers(const RawHead& raw, const HeadLimits& limits, Headers& trailers);
// What is known of a request whose head was refused: for the log.
void read_start_line(const RawHead& raw, RequestHead& head);

// RFC 9110 §5.6.2.
bool is_token(char c);
bool is_token(std::string_view text);
constexpr bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

// Other than tabs.
std::size_t count_controls(std::string_view text);

}  // namespace outrider::h1
