// HTTP/1.1 as the two ends of a simulation need it: whole messages out of bytes that come in
// pieces.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace outrider::sim {

struct Message {
  std::string first_line;
  std::string head;  // fields, lower case names, `\r\n` before each
  std::string body;
  std::string_view field(std::string_view name) const;  // empty: none
  int status() const;                                   // of a response
};

// Of one connection, messages in their order. A response to HEAD is not read with it.
class MessageReader {
 public:
  enum class Got : std::uint8_t { kMore, kMessage, kBroken };
  explicit MessageReader(bool responses) : responses_(responses) {}
  void feed(std::string_view bytes) { bytes_ += bytes; }
  // `ended`: the peer sends no more, which ends a body without a length.
  Got next(Message& message, bool ended);
  bool begun() const { return !bytes_.empty(); }

 private:
  Got body_of(Message& message, std::size_t at, bool ended);
  const bool responses_;
  std::string bytes_;
};

}  // namespace outrider::sim
