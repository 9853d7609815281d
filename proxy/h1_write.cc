// See h1_write.h. A head is written into one reserved piece, then its control bytes are counted:
// more than its line ends, and nothing is committed.
#include "proxy/h1_write.h"

#include <charconv>
#include <cstring>
#include <memory>

#include "proxy/h1_parser.h"

namespace outrider::h1 {
namespace {

constexpr std::size_t kNumberBytes = 20;
constexpr std::size_t kFieldExtra = 4;   // colon, blank, CRLF
constexpr std::size_t kHeadExtra = 512;  // start line and the fields we add, without what varies

// Short texts without a call.
char* put(char* to, std::string_view text) {
  const std::size_t size = text.size();
  const char* const from = text.data();
  if (size > 16) {
    std::memcpy(to, from, size);
  } else if (size >= 8) {
    std::uint64_t first;
    std::uint64_t last;
    std::memcpy(&first, from, 8);
    std::memcpy(&last, from + size - 8, 8);
    std::memcpy(to, &first, 8);
    std::memcpy(to + size - 8, &last, 8);
  } else if (size >= 4) {
    std::uint32_t first;
    std::uint32_t last;
    std::memcpy(&first, from, 4);
    std::memcpy(&last, from + size - 4, 4);
    std::memcpy(to, &first, 4);
    std::memcpy(to + size - 4, &last, 4);
  } else {
    for (std::size_t i = 0; i < size; ++i) to[i] = from[i];
  }
  return to + size;
}

char* put_train_case(char* to, std::string_view name) {
  bool first = true;
  for (const char c : name) {
    *to++ = first && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    first = c == '-';
  }
  return to;
}

class HeadWriter {
 public:
  HeadWriter(OutBuffer& out, std::size_t bound, bool train_case)
      : out_(out), train_case_(train_case) {
    if (bound > OutBuffer::kMaxReserve) large_ = std::make_unique_for_overwrite<char[]>(bound);
    at_ = begin_ = large_ ? large_.get() : out.reserve(bound);
  }

  void text(std::string_view text) { at_ = put(at_, text); }
  void number(std::uint64_t value) { at_ = std::to_chars(at_, at_ + kNumberBytes, value).ptr; }
  void end_line() {
    text("\r\n");
    ++lines_;
  }
  void name(std::string_view name) {
    at_ = train_case_ ? put_train_case(at_, name) : put(at_, name);
    text(": ");
  }
  void field(std::string_view field_name, std::string_view value) {
    name(field_name);
    text(value);
    end_line();
  }
  bool commit() {
    end_line();
    const std::string_view written(begin_, static_cast<std::size_t>(at_ - begin_));
    if (count_controls(written) != 2 * lines_) return false;
    if (large_)
      out_.append(written);
    else
      out_.commit(written.size());
    return true;
  }

 private:
  OutBuffer& out_;
  std::unique_ptr<char[]> large_;  // a head larger than a slab
  char* begin_;
  char* at_;
  std::size_t lines_ = 0;
  const bool train_case_;
};

std::size_t fields_bound(const Headers& headers) {
  std::size_t bound = 0;
  for (const Header& header : headers)
    bound += header.name.size() + header.value.size() + kFieldExtra;
  return bound;
}

bool ends_here(HeaderId id) {
  return (header_flags(id) & kHopByHop) != 0 && id != HeaderId::kProxyAuthorization;
}

// RFC 9113 §8.2.3: the crumbs of HTTP/2 are one field again.
void write_cookies(HeadWriter& writer, const Headers& headers) {
  writer.name("cookie");
  bool first = true;
  for (const Header& header : headers) {
    if (header.id != HeaderId::kCookie) continue;
    if (!first) writer.text("; ");
    first = false;
    writer.text(header.value);
  }
  writer.end_line();
}

void write_length(HeadWriter& writer, std::string_view name, std::uint64_t length) {
  writer.name(name);
  writer.number(length);
  writer.end_line();
}

// `authority`: what stands in the place of Host; null in responses.
void write_fields(HeadWriter& writer, const Headers& headers, const Framing& framing,
                  const std::string_view* authority, bool crumbs) {
  bool host = false;
  bool length = false;
  bool cookies = false;
  for (const Header& header : headers) {
    switch (header.id) {
      case HeaderId::kUnknown: break;
      case HeaderId::kHost:
        if (authority == nullptr) break;
        if (!host) writer.field(header.name, *authority);
        host = true;
        continue;
      case HeaderId::kContentLength:
        if (framing.length && !length) write_length(writer, header.name, *framing.length);
        length = true;
        continue;
      case HeaderId::kCookie:
        if (!crumbs) break;
        if (!cookies) write_cookies(writer, headers);
        cookies = true;
        continue;
      default:
        if (ends_here(header.id)) continue;
    }
    writer.field(header.name, header.value);
  }
  if (framing.length && !length) write_length(writer, "Content-Length", *framing.length);
  if (framing.chunked) writer.field("Transfer-Encoding", "chunked");
}

}  // namespace

bool write_request(OutBuffer& out, const RequestHead& head, const Framing& framing) {
  const bool train_case = head.version == Version::kHttp2;
  HeadWriter writer(out,
                    fields_bound(head.headers) + head.method_text.size() + head.target.size() +
                        2 * head.authority.size() + framing.upgrade.size() + kHeadExtra,
                    train_case);
  writer.text(head.method_text);
  writer.text(" ");
  writer.text(head.target);
  writer.text(" HTTP/1.1");
  writer.end_line();
  if (head.headers.find(HeaderId::kHost) == nullptr) writer.field("Host", head.authority);
  write_fields(writer, head.headers, framing, &head.authority, train_case);
  if (head.te_trailers) writer.field("TE", "trailers");
  if (!framing.upgrade.empty()) {
    writer.field("Connection", head.te_trailers ? "Upgrade, TE" : "Upgrade");
    writer.field("Upgrade", framing.upgrade);
  } else if (head.te_trailers) {
    writer.field("Connection", "TE");
  }
  if (!framing.websocket_key.empty()) {
    writer.field("Sec-WebSocket-Key", framing.websocket_key);
    if (head.headers.find(HeaderId::kSecWebsocketVersion) == nullptr)
      writer.field("Sec-WebSocket-Version", "13");
  }
  return writer.commit();
}

bool write_response(OutBuffer& out, const ResponseHead& head, const Framing& framing) {
  const std::string_view reason = head.reason.empty() ? status_phrase(head.status) : head.reason;
  HeadWriter writer(out,
                    fields_bound(head.headers) + reason.size() + framing.upgrade.size() +
                        kNumberBytes + kHeadExtra,
                    head.version == Version::kHttp2);
  writer.text("HTTP/1.1 ");
  writer.number(static_cast<std::uint64_t>(head.status));
  writer.text(" ");
  writer.text(reason);
  writer.end_line();
  write_fields(writer, head.headers, framing, nullptr, false);
  if (!framing.upgrade.empty()) {
    writer.field("Connection", "Upgrade");
    writer.field("Upgrade", framing.upgrade);
    if (!framing.websocket_accept.empty())
      writer.field("Sec-WebSocket-Accept", framing.websocket_accept);
  } else if (framing.close) {
    writer.field("Connection", "close");
  } else if (framing.keep_alive) {
    writer.field("Connection", "keep-alive");
  }
  return writer.commit();
}

// ---- Outgoing

namespace {

constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr std::size_t kChunkLine = 16 + 2;

void write_chunk(Wire& wire, std::string_view bytes) {
  const bool small = bytes.size() < limits::kSmallWrite;
  char* const begin = wire.out.reserve(kChunkLine + (small ? bytes.size() + 2 : 0));
  char* at = put(std::to_chars(begin, begin + kChunkLine, bytes.size(), 16).ptr, "\r\n");
  if (small) at = put(put(at, bytes), "\r\n");
  wire.out.commit(static_cast<std::size_t>(at - begin));
  if (small) return;
  wire.write_through(bytes);
  wire.out.append("\r\n");
}

void write_plain(Wire& wire, std::string_view bytes) {
  if (bytes.size() < limits::kSmallWrite)
    wire.out.append(bytes);
  else
    wire.write_through(bytes);
}

}  // namespace

bool Outgoing::body(Wire& wire, std::string_view bytes, bool last) {
  bool sound = true;
  switch (kind_) {
    case Kind::kUnset: return false;
    case Kind::kNone: break;
    case Kind::kLength:
      sound = bytes.size() <= left_;
      if (!sound) bytes = bytes.substr(0, left_);
      left_ -= bytes.size();
      write_plain(wire, bytes);
      sound = sound && (!last || left_ == 0);
      break;
    case Kind::kChunked:
      if (!bytes.empty()) write_chunk(wire, bytes);
      if (last) wire.out.append(kLastChunk);
      break;
    case Kind::kUntilClose: write_plain(wire, bytes); break;
  }
  if (wire.out.size() > limits::kHighWater) high_ = true;
  if (last)
    end(wire);
  else if (bytes.empty() && kind_ != Kind::kNone)
    wire.wake_soon();  // the head alone: its body is often right behind it
  else
    wire.wake();
  return sound;
}

bool Outgoing::trailers(Wire& wire, const Headers& trailers) {
  if (kind_ != Kind::kChunked) return body(wire, {}, true);
  HeadWriter writer(wire.out, fields_bound(trailers) + kHeadExtra, train_case_);
  writer.text("0");
  writer.end_line();
  for (const Header& trailer : trailers)
    if ((header_flags(trailer.id) & (kNoTrailer | kHopByHop | kFraming)) == 0)
      writer.field(trailer.name, trailer.value);
  const bool sound = writer.commit();
  end(wire);
  return sound;
}

void Outgoing::end(Wire& wire) {
  ended_ = true;
  wire.wake();
}

Outgoing::News Outgoing::poll(const Wire& wire) {
  if (ended_ && !sent_ && wire.out.empty()) {
    sent_ = true;
    return News::kSent;
  }
  if (!high_ || wire.out.size() > limits::kLowWater) return News::kNone;
  high_ = false;
  return ended_ ? News::kNone : News::kWritable;
}

}  // namespace outrider::h1
