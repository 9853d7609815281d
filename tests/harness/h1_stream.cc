// HTTP/1.1 framing for tests: content-length where it was given, chunked otherwise.
#include "tests/harness/h1_stream.h"

#include <cstdio>

namespace outrider::test {
namespace {

bool says_close(const Head& head) {
  return equal_case_blind(head.fields.value("connection"), "close");
}

bool never_has_body(const Head& head, std::string_view method) {
  return head.status == 204 || head.status == 304 || (head.status != 0 && method == "HEAD");
}

}  // namespace

H1Stream::H1Stream(RawClient& connection, const Head& request)
    : connection_(connection), method_(request.method), closes_(says_close(request)) {
  connection_.begin_body(request, request.method);
}

void H1Stream::send_head(const Head& head, bool end) {
  Head sent = head;
  if (head.status == 0) method_ = head.method;
  const bool final_head = head.status == 0 || head.status >= 200;
  const bool framed = head.fields.has("content-length") || head.fields.has("transfer-encoding");
  if (final_head && !framed && !never_has_body(head, method_)) {
    if (!end) {
      sent.fields.push_back({"transfer-encoding", "chunked"});
    } else if (head.status != 0) {
      sent.fields.push_back({"content-length", "0"});
    }
  }
  chunked_ = equal_case_blind(sent.fields.value("transfer-encoding"), "chunked");
  closes_ = closes_ || says_close(head);
  sent_all_ = end && final_head;
  connection_.send(head_text(sent));
}

void H1Stream::write(std::string_view bytes) {
  if (bytes.empty()) return;
  if (!chunked_) return connection_.send(bytes);
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  std::string chunk = size;
  chunk.append(bytes).append("\r\n");
  connection_.send(chunk);
}

void H1Stream::finish(const Fields& trailers) {
  sent_all_ = true;
  if (!chunked_) return;
  std::string text = "0\r\n";
  for (const Field& field : trailers) text += field.name + ": " + field.value + "\r\n";
  connection_.send(text + "\r\n");
}

Head H1Stream::read_head() {
  Head head = connection_.read_head();
  while (head.status >= 100 && head.status < 200 && head.status != 101) {
    informational_.push_back(std::move(head));
    head = connection_.read_head();
  }
  closes_ = closes_ || says_close(head);
  connection_.begin_body(head, method_);
  return head;
}

std::size_t H1Stream::read(char* into, std::size_t room) {
  const std::size_t size = connection_.read_body_part(into, room);
  read_all_ = size == 0;
  if (connection_.socket().end() != Socket::End::kOpen) closes_ = true;
  return size;
}

}  // namespace outrider::test
