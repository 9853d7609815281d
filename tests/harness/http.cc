// HTTP message values: look-ups, whole messages over a Stream, patterned bodies.
#include "tests/harness/http.h"

#include <algorithm>
#include <array>

namespace outrider::test {
namespace {

constexpr std::size_t kChunk = 64 * 1024;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

}  // namespace

std::string_view name_of(Protocol protocol) { return protocol == Protocol::kHttp1 ? "H1" : "H2"; }

bool equal_case_blind(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

std::string Fields::value(std::string_view name) const {
  for (const Field& field : *this)
    if (equal_case_blind(field.name, name)) return field.value;
  return {};
}

std::size_t Fields::count(std::string_view name) const {
  return static_cast<std::size_t>(std::count_if(
      begin(), end(), [&](const Field& field) { return equal_case_blind(field.name, name); }));
}

std::string Stream::read_body() {
  std::string body;
  std::vector<char> chunk(kChunk);
  while (std::size_t size = read(chunk.data(), chunk.size())) body.append(chunk.data(), size);
  return body;
}

void Stream::send(const Request& request) {
  const bool end = request.body.empty() && request.trailers.empty();
  Head head = request.head();
  if (!end && request.trailers.empty() && !head.fields.has("content-length") &&
      !head.fields.has("transfer-encoding"))
    head.fields.push_back({"content-length", std::to_string(request.body.size())});
  send_head(head, end);
  if (end) return;
  write(request.body);
  finish(request.trailers);
}

void Stream::send(const Response& response) {
  const bool end = response.body.empty() && response.trailers.empty();
  Head head{.status = response.status, .fields = response.fields};
  if (!end && response.trailers.empty() && !head.fields.has("content-length") &&
      !head.fields.has("transfer-encoding"))
    head.fields.push_back({"content-length", std::to_string(response.body.size())});
  send_head(head, end);
  if (end) return;
  write(response.body);
  finish(response.trailers);
}

Response Stream::read_response() {
  Head head = read_head();
  Response response{.status = head.status, .fields = std::move(head.fields)};
  response.body = read_body();
  response.trailers = trailers();
  response.informational = informational();
  return response;
}

Request Stream::read_request_body(const Head& head) {
  Request request{.method = head.method,
                  .target = head.target,
                  .authority = head.authority,
                  .fields = head.fields};
  request.body = read_body();
  request.trailers = trailers();
  return request;
}

char Pattern::at(std::uint64_t position) const {
  const std::uint64_t mixed = (position / 8 + seed_ + 1) * 0x9E3779B97F4A7C15u;
  return static_cast<char>(mixed >> (position % 8 * 8));
}

void Pattern::next(char* into, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) into[i] = at(position_ + i);
  position_ += size;
}

bool Pattern::matches(const char* bytes, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    if (bytes[i] != at(position_ + i)) return false;
  position_ += size;
  return true;
}

void write_pattern(Stream& stream, Pattern& pattern, std::uint64_t total) {
  std::vector<char> chunk(kChunk);
  while (total > 0) {
    const std::size_t size = std::min<std::uint64_t>(total, chunk.size());
    pattern.next(chunk.data(), size);
    stream.write({chunk.data(), size});
    total -= size;
  }
}

std::uint64_t read_pattern(Stream& stream, Pattern& pattern) {
  std::vector<char> chunk(kChunk);
  while (std::size_t size = stream.read(chunk.data(), chunk.size()))
    if (!pattern.matches(chunk.data(), size))
      throw HarnessError("the body differs within " + std::to_string(size) + " bytes after " +
                         std::to_string(pattern.position()));
  return pattern.position();
}

}  // namespace outrider::test
