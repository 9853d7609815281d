// Replies of a Redis server (RESP2), as far as limits need them: statuses, errors, numbers, short
// texts, and lists of at most four numbers. Invariant: anything else, and anything longer, is
// refused; the bytes are the peer's.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace outrider {

struct RedisReply {
  enum class Kind : std::uint8_t { kStatus, kError, kNumber, kText, kNumbers, kNothing };
  Kind kind = Kind::kNothing;
  std::string_view text;  // of a status, an error or a text; a view into the bytes
  std::array<std::int64_t, 4> numbers{};
  std::size_t count = 0;  // of numbers
};

enum class Took : std::uint8_t { kReply, kMore, kBad };

// Takes the reply at the front off `bytes`; with kMore they stay as they are.
Took take_reply(std::string_view& bytes, RedisReply& reply);

}  // namespace outrider
