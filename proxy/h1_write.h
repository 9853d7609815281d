// Heads and bodies of HTTP/1 on their way out, written from the parsed model straight into the
// connection's buffer. Invariant: one framing a message, one Host a request, CRLF alone ends lines,
// and no byte of a value can begin another line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "filters/http/message.h"
#include "proxy/codec.h"

namespace outrider::h1 {

// What a head says of the message beyond its fields.
struct Framing {
  std::optional<std::uint64_t> length;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;
  std::string_view upgrade;
  std::string_view websocket_key;     // request: a key of ours
  std::string_view websocket_accept;  // response: computed, where the upstream gave none
};

// False: a field holds a control byte other than a tab, and nothing was written.
[[nodiscard]] bool write_request(OutBuffer& out, const RequestHead& head, const Framing& framing);
[[nodiscard]] bool write_response(OutBuffer& out, const ResponseHead& head, const Framing& framing);

// The outgoing half of an exchange after its head: frames the body, knows when it has ended and has
// left.
class Outgoing {
 public:
  enum class Kind : std::uint8_t {
    kUnset,
    kNone,  // no body, whatever is given (HEAD, 204, 304)
    kLength,
    kChunked,
    kUntilClose,  // also tunnels
  };
  enum class News : std::uint8_t { kNone, kWritable, kSent };

  // `train_case`: names came from HTTP/2, in lower case.
  void begin(Kind kind, std::uint64_t length, bool train_case) {
    left_ = length;
    kind_ = kind;
    train_case_ = train_case;
    ended_ = sent_ = false;
  }
  bool begun() const { return kind_ != Kind::kUnset; }
  bool ended() const { return ended_; }
  // False: it is longer or shorter than its length, or a trailer is unfit; what was sent must not
  // look complete.
  [[nodiscard]] bool body(Wire& wire, std::string_view bytes, bool last);
  [[nodiscard]] bool trailers(Wire& wire, const Headers& trailers);
  // Bytes of the body that left past us, which only what is not framed may.
  void past(std::uint64_t bytes) { left_ -= std::min(bytes, left_); }
  bool raw() const { return (kind_ == Kind::kLength || kind_ == Kind::kUntilClose) && !ended_; }
  void end(Wire& wire);
  // The owner has seen a queue above the high-water mark that was not ours.
  void owe_writable() { high_ = true; }
  // What to tell the owner now that `wire.out` is as it is; to be asked until kNone.
  News poll(const Wire& wire);

 private:
  std::uint64_t left_ = 0;
  Kind kind_ = Kind::kUnset;
  bool train_case_ = false;
  bool ended_ = false;
  bool sent_ = false;
  bool high_ = false;
};

}  // namespace outrider::h1
