// A raw connection, and the small strict HTTP/1 reader on it.
#include "tests/harness/raw_client.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace outrider::test {
namespace {

constexpr std::size_t kRemembered = 1 << 20;

std::uint64_t number(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size())
    throw HarnessError("not a number: '" + std::string(text) + "'");
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "NAME: value" without its CRLF.
Field parse_field(std::string_view line) {
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0 ||
      line.find_first_of("\r\n") != std::string_view::npos)
    throw HarnessError("not a field: '" + std::string(line) + "'");
  return {std::string(line.substr(0, colon)), std::string(trim(line.substr(colon + 1)))};
}

Head parse_start_line(const std::string& line) {
  const std::size_t first = line.find(' ');
  const std::size_t second = line.find(' ', first + 1);
  if (first == std::string::npos) throw HarnessError("not a start line: '" + line + "'");
  Head head;
  if (line.starts_with("HTTP/1.")) {
    head.status = static_cast<int>(number(std::string_view(line).substr(first + 1, 3), 10));
  } else {
    if (second == std::string::npos || !line.substr(second + 1).starts_with("HTTP/1."))
      throw HarnessError("not a start line: '" + line + "'");
    head.method = line.substr(0, first);
    head.target = line.substr(first + 1, second - first - 1);
  }
  return head;
}

}  // namespace

std::string head_text(const Head& head) {
  std::string text;
  if (head.status != 0) {
    text = "HTTP/1.1 " + std::to_string(head.status) + " Status\r\n";
  } else {
    text = head.method + " " + head.target + " HTTP/1.1\r\n";
    if (!head.fields.has("host")) text += "Host: " + head.authority + "\r\n";
  }
  for (const Field& field : head.fields) text += field.name + ": " + field.value + "\r\n";
  return text + "\r\n";
}

bool RawClient::fill() {
  char chunk[64 * 1024];
  const std::size_t size = socket_.receive(chunk, sizeof chunk);
  buffer_.append(chunk, size);
  if (received_.size() < kRemembered)
    received_.append(chunk, std::min(size, kRemembered - received_.size()));
  return size > 0;
}

std::string RawClient::take(std::size_t size) {
  std::string taken = buffer_.substr(0, size);
  buffer_.erase(0, size);
  return taken;
}

std::string RawClient::read_until(std::string_view delimiter) {
  for (;;) {
    const std::size_t found = buffer_.find(delimiter);
    if (found != std::string::npos) return take(found + delimiter.size());
    if (!fill()) throw HarnessError("the peer ended after '" + buffer_.substr(0, 500) + "'");
  }
}

std::string RawClient::read_exactly(std::size_t size) {
  while (buffer_.size() < size)
    if (!fill())
      throw HarnessError("the peer ended after " + std::to_string(buffer_.size()) + " of " +
                         std::to_string(size));
  return take(size);
}

std::string RawClient::read_some() {
  if (buffer_.empty()) fill();
  return take(buffer_.size());
}

std::string RawClient::read_all() {
  while (fill()) {}
  return take(buffer_.size());
}

Socket::End RawClient::read_end() {
  const std::string rest = read_all();
  if (!rest.empty()) throw HarnessError("instead of an end came '" + rest.substr(0, 500) + "'");
  return socket_.end();
}

bool RawClient::quiet(std::chrono::milliseconds time) {
  return buffer_.empty() && !socket_.readable(time);
}

std::string_view RawClient::peek(std::size_t size) {
  while (buffer_.size() < size && fill()) {}
  return std::string_view(buffer_).substr(0, size);
}

Fields RawClient::read_fields() {
  Fields fields;
  for (;;) {
    std::string line = read_until("\r\n");
    line.resize(line.size() - 2);
    if (line.empty()) return fields;
    fields.push_back(parse_field(line));
  }
}

Head RawClient::read_head() {
  std::string line = read_until("\r\n");
  line.resize(line.size() - 2);
  Head head = parse_start_line(line);
  head.fields = read_fields();
  head.authority = head.fields.value("host");
  return head;
}

void RawClient::begin_body(const Head& head, std::string_view request_method) {
  trailers_.clear();
  const bool response = head.status != 0;
  const Fields& fields = head.fields;
  if (fields.count("content-length") > 1 ||
      (fields.has("content-length") && fields.has("transfer-encoding")))
    throw HarnessError("two framings in one head");
  if (response &&
      (request_method == "HEAD" || head.status < 200 || head.status == 204 || head.status == 304)) {
    framing_ = Framing::kNone;
  } else if (fields.has("transfer-encoding")) {
    if (!equal_case_blind(fields.value("transfer-encoding"), "chunked"))
      throw HarnessError("transfer-encoding: " + fields.value("transfer-encoding"));
    framing_ = Framing::kChunked;
    first_chunk_ = true;
    left_ = 0;
  } else if (fields.has("content-length")) {
    framing_ = Framing::kLength;
    left_ = number(fields.value("content-length"), 10);
  } else {
    framing_ = response ? Framing::kUntilEnd : Framing::kNone;
  }
}

void RawClient::next_chunk() {
  if (!first_chunk_ && read_exactly(2) != "\r\n") throw HarnessError("no CRLF after a chunk");
  first_chunk_ = false;
  std::string line = read_until("\r\n");
  line.resize(line.size() - 2);
  left_ = number(line.substr(0, line.find(';')), 16);
  if (left_ > 0) return;
  trailers_ = read_fields();
  framing_ = Framing::kNone;
}

std::size_t RawClient::read_body_part(char* into, std::size_t room) {
  if (framing_ == Framing::kChunked && left_ == 0) next_chunk();
  if (framing_ == Framing::kNone || (framing_ == Framing::kLength && left_ == 0)) return 0;
  if (buffer_.empty() && !fill()) {
    if (framing_ == Framing::kUntilEnd && socket_.end() == Socket::End::kFin) return 0;
    throw HarnessError("the body was cut");
  }
  std::size_t size = std::min(buffer_.size(), room);
  if (framing_ != Framing::kUntilEnd) {
    size = std::min<std::uint64_t>(size, left_);
    left_ -= size;
  }
  std::memcpy(into, buffer_.data(), size);
  buffer_.erase(0, size);
  return size;
}

Response RawClient::read_response(std::string_view method) {
  Response response;
  Head head = read_head();
  while (head.status >= 100 && head.status < 200 && head.status != 101) {
    response.informational.push_back(std::move(head));
    head = read_head();
  }
  begin_body(head, method);
  char chunk[16 * 1024];
  while (std::size_t size = read_body_part(chunk, sizeof chunk)) response.body.append(chunk, size);
  response.status = head.status;
  response.fields = std::move(head.fields);
  response.trailers = trailers_;
  return response;
}

Request RawClient::read_request() {
  const Head head = read_head();
  Request request{.method = head.method,
                  .target = head.target,
                  .authority = head.authority,
                  .fields = head.fields};
  begin_body(head, head.method);
  char chunk[16 * 1024];
  while (std::size_t size = read_body_part(chunk, sizeof chunk)) request.body.append(chunk, size);
  request.trailers = trailers_;
  return request;
}

}  // namespace outrider::test
