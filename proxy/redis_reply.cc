// See redis_reply.h.
#include "proxy/redis_reply.h"

#include <charconv>

#include "config/limits.h"

namespace outrider {
namespace {

constexpr std::size_t kLine = 512;

// The line at the front, without its end.
Took take_line(std::string_view& bytes, std::string_view& line) {
  const std::size_t end = bytes.substr(0, kLine).find("\r\n");
  if (end == std::string_view::npos) return bytes.size() < kLine ? Took::kMore : Took::kBad;
  line = bytes.substr(0, end);
  bytes.remove_prefix(end + 2);
  return Took::kReply;
}

bool number_of(std::string_view text, std::int64_t& number) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failed == std::errc() && end == text.data() + text.size();
}

Took take_text(std::string_view& bytes, std::int64_t size, RedisReply& reply) {
  if (size == -1) return Took::kReply;  // nothing
  if (size < 0 || size > static_cast<std::int64_t>(limits::kStoreReply)) return Took::kBad;
  const auto length = static_cast<std::size_t>(size);
  if (bytes.size() < length + 2) return Took::kMore;
  if (bytes.substr(length, 2) != "\r\n") return Took::kBad;
  reply.kind = RedisReply::Kind::kText;
  reply.text = bytes.substr(0, length);
  bytes.remove_prefix(length + 2);
  return Took::kReply;
}

Took take_numbers(std::string_view& bytes, std::int64_t count, RedisReply& reply) {
  if (count < 0 || count > static_cast<std::int64_t>(reply.numbers.size())) return Took::kBad;
  reply.kind = RedisReply::Kind::kNumbers;
  for (std::int64_t i = 0; i < count; ++i) {
    std::string_view line;
    if (const Took took = take_line(bytes, line); took != Took::kReply) return took;
    if (line.empty() || line[0] != ':' ||
        !number_of(line.substr(1), reply.numbers[static_cast<std::size_t>(i)]))
      return Took::kBad;
  }
  reply.count = static_cast<std::size_t>(count);
  return Took::kReply;
}

Took take_whole(std::string_view& bytes, RedisReply& reply) {
  std::string_view line;
  if (const Took took = take_line(bytes, line); took != Took::kReply) return took;
  if (line.empty()) return Took::kBad;
  const char kind = line[0];
  line.remove_prefix(1);
  if (kind == '+' || kind == '-') {
    reply.kind = kind == '+' ? RedisReply::Kind::kStatus : RedisReply::Kind::kError;
    reply.text = line;
    return Took::kReply;
  }
  std::int64_t number = 0;
  if (!number_of(line, number)) return Took::kBad;
  switch (kind) {
    case ':':
      reply.kind = RedisReply::Kind::kNumber;
      reply.numbers[0] = number;
      reply.count = 1;
      return Took::kReply;
    case '$': return take_text(bytes, number, reply);
    case '*': return take_numbers(bytes, number, reply);
    default: return Took::kBad;
  }
}

}  // namespace

Took take_reply(std::string_view& bytes, RedisReply& reply) {
  reply = {};
  std::string_view rest = bytes;
  const Took took = take_whole(rest, reply);
  if (took == Took::kReply) bytes = rest;
  return took;
}

}  // namespace outrider
