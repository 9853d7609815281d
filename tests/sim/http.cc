#include "tests/sim/http.h"

#include <charconv>
#include <cstdint>

namespace outrider::sim {

namespace {

std::optional<std::size_t> number_of(std::string_view text, int base) {
  std::size_t number = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (end.ec != std::errc() || end.ptr == text.data()) return std::nullopt;
  return number;
}

}  // namespace

std::string_view Message::field(std::string_view name) const {
  const std::string wanted = "\r\n" + std::string(name) + ": ";
  const std::size_t at = head.find(wanted);
  if (at == std::string::npos) return {};
  const std::size_t from = at + wanted.size();
  return std::string_view(head).substr(from, head.find("\r\n", from) - from);
}

int Message::status() const {
  return first_line.size() < 12
             ? 0
             : static_cast<int>(number_of(first_line.substr(9, 3), 10).value_or(0));
}

MessageReader::Got MessageReader::next(Message& message, bool ended) {
  const std::size_t head_end = bytes_.find("\r\n\r\n");
  if (head_end == std::string::npos) return ended && begun() ? Got::kBroken : Got::kMore;
  const std::size_t line_end = bytes_.find("\r\n");
  message.first_line = bytes_.substr(0, line_end);
  message.head = bytes_.substr(line_end, head_end + 2 - line_end);
  bool name = false;
  for (std::size_t i = 0; i < message.head.size(); ++i) {
    char& c = message.head[i];
    if (c == '\n')
      name = true;
    else if (c == ':')
      name = false;
    else if (name && c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  }
  message.body.clear();
  return body_of(message, head_end + 4, ended);
}

MessageReader::Got MessageReader::body_of(Message& message, std::size_t at, bool ended) {
  const Got short_of = ended ? Got::kBroken : Got::kMore;
  if (message.field("transfer-encoding") == "chunked") {
    for (;;) {
      const std::size_t line = bytes_.find("\r\n", at);
      if (line == std::string::npos) return short_of;
      const auto size = number_of(std::string_view(bytes_).substr(at, line - at), 16);
      if (!size) return Got::kBroken;
      if (bytes_.size() < line + 2 + *size + 2) return short_of;
      message.body.append(bytes_, line + 2, *size);
      at = line + 2 + *size + 2;
      if (*size == 0) break;
    }
  } else if (const std::string_view length = message.field("content-length"); !length.empty()) {
    const std::size_t size = number_of(length, 10).value_or(0);
    if (bytes_.size() < at + size) return short_of;
    message.body.assign(bytes_, at, size);
    at += size;
  } else if (responses_) {
    if (!ended) return Got::kMore;
    message.body.assign(bytes_, at);
    at = bytes_.size();
  }
  bytes_.erase(0, at);
  return Got::kMessage;
}

}  // namespace outrider::sim
