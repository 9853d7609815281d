// Incoming bodies of HTTP/1, for h1_server.cc and h1_client.cc.
// Invariant: nothing here depends on how the bytes were cut into reads, and no byte behind the end
// is taken.
#pragma once

#include <cstdint>
#include <string_view>

#include "proxy/h1_parser.h"

namespace outrider::h1 {

// An incoming body: knows its end, undoes the chunks, refuses chunk lines that could be read in two
// ways.
class BodyReader {
 public:
  enum class Event : std::uint8_t { kMore, kData, kEnd, kTrailers, kFault };

  void begin_none() { state_ = State::kDone; }
  void begin_length(std::uint64_t bytes) {
    left_ = bytes;
    state_ = bytes == 0 ? State::kDone : State::kLength;
  }
  void begin_chunked() {
    line_bytes_ = extension_bytes_ = 0;
    start_chunk();
  }
  void begin_until_close() { state_ = State::kUntilClose; }

  // Takes bytes off the front. kMore: all taken, nothing to tell. kData: `data` is body, kEnd: so
  // it is, maybe empty, and the last. kTrailers: the body ended before them; `raw` is valid until
  // the collector is cleared.
  Event next(std::string_view& bytes, const HeadLimits& limits, HeadCollector& collector,
             std::string_view& data, RawHead& raw, Fault& fault);
  // Bytes to come that are body and nothing else, and that so many of them came past next().
  std::uint64_t raw_left() const { return state_ < State::kSizeFirst ? left() : 0; }
  void skip(std::uint64_t bytes) {
    if (state_ != State::kLength) return;
    left_ -= bytes;
    if (left_ == 0) state_ = State::kDone;
  }
  bool done() const { return state_ == State::kDone; }
  bool until_close() const { return state_ == State::kUntilClose; }
  // Bytes to come, as far as they are known.
  std::uint64_t left() const { return state_ == State::kLength ? left_ : done() ? 0 : UINT64_MAX; }

 private:
  enum class State : std::uint8_t {
    kDone,
    kLength,
    kUntilClose,
    kSizeFirst,
    kSize,
    kExtensionName,  // blanks before it, or none of it yet
    kExtensionNameRest,
    kExtensionGap,  // blanks after a name or value
    kExtensionValue,
    kExtensionValueRest,
    kExtensionAfter,  // behind a closing quote
    kQuoted,
    kQuotedPair,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailers,
  };
  void start_chunk() {
    left_ = 0;
    digits_ = 0;
    line_bytes_ = 0;
    named_ = false;
    state_ = State::kSizeFirst;
  }
  Fault chunk_byte(unsigned char byte);
  Fault extension_byte(unsigned char byte);

  std::uint64_t left_ = 0;
  std::uint32_t extension_bytes_ = 0;
  std::uint16_t line_bytes_ = 0;
  std::uint8_t digits_ = 0;
  bool named_ = false;  // the gap follows a name, so `=` may come
  State state_ = State::kDone;
};

}  // namespace outrider::h1
