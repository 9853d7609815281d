// See h1_body.h. The grammar of chunks is RFC 9112 §7.1, taken by the letter: sizes without sign,
// prefix or blanks, lines that end in CRLF and nothing else.
#include "proxy/h1_body.h"

#include <algorithm>

namespace outrider::h1 {
namespace {

constexpr BadRequest kBadChunkSize{Reason::kBadRequest, 0, "a malformed chunk size"};
constexpr BadRequest kBadExtension{Reason::kBadRequest, 0, "a malformed chunk extension"};
constexpr BadRequest kBadChunkLine{Reason::kBadRequest, 0,
                                   "a chunk line that does not end in CRLF"};
constexpr BadRequest kBadChunkEnd{Reason::kBadRequest, 0, "a chunk that does not end in CRLF"};
constexpr BadRequest kLongChunkLine{Reason::kBadRequest, 0, "a chunk line that is too long"};
constexpr BadRequest kManyExtensions{Reason::kBadRequest, 0, "too many chunk extensions"};

int hex_digit(unsigned char byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  const int letter = byte | 0x20;
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

}  // namespace

BodyReader::Event BodyReader::next(std::string_view& bytes, const HeadLimits& limits,
                                   HeadCollector& collector, std::string_view& data, RawHead& raw,
                                   Fault& fault) {
  while (!bytes.empty()) {
    switch (state_) {
      case State::kDone: return Event::kMore;
      case State::kUntilClose:
        data = bytes;
        bytes = {};
        return Event::kData;
      case State::kLength:
      case State::kData: {
        data = bytes.substr(0, std::min<std::uint64_t>(left_, bytes.size()));
        bytes.remove_prefix(data.size());
        left_ -= data.size();
        if (left_ != 0) return Event::kData;
        const bool whole = state_ == State::kLength;
        state_ = whole ? State::kDone : State::kDataCr;
        return whole ? Event::kEnd : Event::kData;
      }
      case State::kTrailers: {
        const HeadScanner::Found found =
            collector.take(bytes, Section::kTrailers, limits, raw, fault);
        if (found == HeadScanner::Found::kMore) return Event::kMore;
        if (found == HeadScanner::Found::kFault) return Event::kFault;
        state_ = State::kDone;
        data = {};
        return raw.block == "\r\n" ? Event::kEnd : Event::kTrailers;
      }
      default:
        fault = chunk_byte(static_cast<unsigned char>(bytes.front()));
        if (fault != nullptr) return Event::kFault;
        bytes.remove_prefix(1);
    }
  }
  return Event::kMore;
}

Fault BodyReader::chunk_byte(unsigned char byte) {
  constexpr std::uint8_t kDigits = 16;
  switch (state_) {
    case State::kDataCr: state_ = State::kDataLf; return byte == '\r' ? nullptr : &kBadChunkEnd;
    case State::kDataLf: start_chunk(); return byte == '\n' ? nullptr : &kBadChunkEnd;
    case State::kSizeLf:
      state_ = left_ == 0 ? State::kTrailers : State::kData;
      return byte == '\n' ? nullptr : &kBadChunkLine;
    case State::kSizeFirst:
    case State::kSize: {
      const int digit = hex_digit(byte);
      if (digit >= 0) {
        ++line_bytes_;
        if (++digits_ > kDigits || left_ >> 59 != 0) return &kBadChunkSize;
        left_ = left_ << 4 | static_cast<std::uint64_t>(digit);
        state_ = State::kSize;
        return nullptr;
      }
      if (state_ == State::kSizeFirst || (byte != ';' && byte != '\r')) return &kBadChunkSize;
      if (byte == '\r') {
        state_ = State::kSizeLf;
        return nullptr;
      }
      break;
    }
    default: break;
  }
  return extension_byte(byte);
}

// RFC 9112 §7.1.1, with blanks only where the grammar has them.
Fault BodyReader::extension_byte(unsigned char byte) {
  if (state_ != State::kQuoted && state_ != State::kQuotedPair && byte == '\r') {
    const bool may_end = state_ == State::kExtensionNameRest ||
                         state_ == State::kExtensionValueRest || state_ == State::kExtensionAfter;
    state_ = State::kSizeLf;
    return may_end ? nullptr : &kBadExtension;
  }
  if (++line_bytes_ > limits::kChunkLineBytes) return &kLongChunkLine;
  if (++extension_bytes_ > limits::kChunkExtensionBytes) return &kManyExtensions;
  const bool blank = byte == ' ' || byte == '\t';
  const bool token = is_token(static_cast<char>(byte));
  switch (state_) {
    case State::kSize:  // the semicolon
      state_ = State::kExtensionName;
      return nullptr;
    case State::kExtensionName:
      if (blank) return nullptr;
      state_ = State::kExtensionNameRest;
      return token ? nullptr : &kBadExtension;
    case State::kExtensionValue:
      if (blank) return nullptr;
      state_ = byte == '"' ? State::kQuoted : State::kExtensionValueRest;
      return token || byte == '"' ? nullptr : &kBadExtension;
    case State::kQuoted:
    case State::kQuotedPair:
      if (is_control(byte) && byte != '\t') return &kBadExtension;
      if (state_ == State::kQuotedPair)
        state_ = State::kQuoted;
      else if (byte == '"')
        state_ = State::kExtensionAfter;
      else if (byte == '\\')
        state_ = State::kQuotedPair;
      return nullptr;
    default: break;
  }
  // Behind a name or a value, or in the blanks after it.
  const bool name =
      state_ == State::kExtensionNameRest || (state_ == State::kExtensionGap && named_);
  if (token && (state_ == State::kExtensionNameRest || state_ == State::kExtensionValueRest))
    return nullptr;
  if (byte == ';') {
    state_ = State::kExtensionName;
  } else if (byte == '=' && name) {
    state_ = State::kExtensionValue;
  } else if (blank) {
    named_ = name;
    state_ = State::kExtensionGap;
  } else {
    return &kBadExtension;
  }
  return nullptr;
}

}  // namespace outrider::h1
