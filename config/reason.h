// The closed set of reasons: one word per request, the same in log, metric, error body and
// `outrider why`. The table is reasons.inc; nothing else lists reasons.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace outrider {

enum class Reason : std::uint8_t {
#define REASON(id, word, status, grpc, sentence, why) id,
#include "config/reasons.inc"
#undef REASON
};

struct ReasonInfo {
  std::string_view word;      // `timeout_total`
  int status;                 // the status of a local answer; 0: the answer's own
  int grpc_status;            // grpc-status of a local answer
  std::string_view sentence;  // what any client may read
  std::string_view why;       // causes and knobs, for `outrider why`
};

inline constexpr ReasonInfo kReasons[] = {
#define REASON(id, word, status, grpc, sentence, why) {word, status, grpc, sentence, why},
#include "config/reasons.inc"
#undef REASON
};
inline constexpr std::size_t kReasonCount = sizeof(kReasons) / sizeof(kReasons[0]);

constexpr const ReasonInfo& info(Reason reason) {
  return kReasons[static_cast<std::size_t>(reason)];
}

constexpr std::optional<Reason> reason_of(std::string_view word) {
  for (std::size_t i = 0; i < kReasonCount; ++i)
    if (kReasons[i].word == word) return static_cast<Reason>(i);
  return std::nullopt;
}

}  // namespace outrider
