// The outline of a header block as HPACK writes it (RFC 7541 §6): which representations and how
// long their strings, never what they say. Two things are seen here that nghttp2 lets pass or calls
// a compression error: table size updates again and again, and a string longer than it takes. A
// block in one frame holds no such string, so of those only the beginning is looked at.
#pragma once

#include <cstdint>
#include <string_view>

namespace outrider {

class HpackOutline {
 public:
  enum class Fault : std::uint8_t { kNone, kSizeUpdates, kLongString };
  static constexpr std::uint32_t kSizeUpdates = 2;            // RFC 7541 §4.2
  static constexpr std::uint64_t kLongestString = 64 * 1024;  // nghttp2's

  // `skip` bytes come before the block; `whole`: it is all in one frame, or padding follows.
  void begin(std::uint8_t skip, bool whole) {
    *this = {};
    skip_ = skip;
    whole_ = whole;
    part_ = Part::kField;
  }
  void end() { part_ = Part::kDone; }
  bool done() const { return part_ == Part::kDone; }
  Fault read(std::string_view bytes);

 private:
  enum class Part : std::uint8_t { kDone, kField, kNumber, kName, kValue };
  void number_read();

  std::uint64_t skip_ = 0;  // bytes to pass over
  std::uint64_t number_ = 0;
  std::uint8_t shift_ = 0;
  std::uint8_t size_updates_ = 0;
  Part part_ = Part::kDone;
  Part after_ = Part::kDone;  // what follows the number
  bool is_length_ = false;    // the number is a string's
  bool whole_ = false;
};

}  // namespace outrider
