#include "proxy/h2_hpack_outline.h"

namespace outrider {

HpackOutline::Fault HpackOutline::read(std::string_view bytes) {
  while (!bytes.empty() && part_ != Part::kDone) {
    if (skip_ >= bytes.size()) {
      skip_ -= bytes.size();
      return Fault::kNone;
    }
    bytes.remove_prefix(skip_);
    skip_ = 0;
    const auto byte = static_cast<std::uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    std::uint8_t mask = 0x7f;  // of the number in this byte
    switch (part_) {
      case Part::kField: {
        const bool size_update = (byte & 0xe0) == 0x20;
        if (size_update && ++size_updates_ > kSizeUpdates) return Fault::kSizeUpdates;
        if (!size_update && whole_) {
          part_ = Part::kDone;
          return Fault::kNone;
        }
        is_length_ = false;
        const bool indexed = byte >= 0x80;
        if (!indexed) mask = byte >= 0x40 ? 0x3f : size_update ? 0x1f : 0x0f;
        // A literal with index 0 brings its own name.
        after_ = indexed || size_update ? Part::kField
                 : (byte & mask) == 0   ? Part::kName
                                        : Part::kValue;
        break;
      }
      case Part::kName:
      case Part::kValue:
        is_length_ = true;
        after_ = part_ == Part::kName ? Part::kValue : Part::kField;
        break;
      case Part::kNumber:
        if (shift_ > 28) {  // nghttp2 refuses it
          part_ = Part::kDone;
          return Fault::kNone;
        }
        number_ += std::uint64_t{byte & 0x7fU} << shift_;
        shift_ += 7;
        if (byte < 0x80) number_read();
        if (is_length_ && number_ > kLongestString) return Fault::kLongString;
        continue;
      case Part::kDone: break;
    }
    number_ = byte & mask;
    shift_ = 0;
    if (number_ == mask)
      part_ = Part::kNumber;
    else
      number_read();
  }
  return Fault::kNone;
}

void HpackOutline::number_read() {
  if (is_length_ && number_ <= kLongestString) skip_ = number_;
  part_ = after_;
}

}  // namespace outrider
