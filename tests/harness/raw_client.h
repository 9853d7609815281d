// One connection under a test's control, byte by byte: the client of hostile tests, and the
// connection that an Origin's script gets. Reads HTTP/1 messages strictly enough to notice what a
// lenient client would hide. Invariant: bytes that were received and not yet asked for stay in the
// buffer, in order.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "tests/harness/http.h"
#include "tests/harness/socket.h"

namespace outrider::test {

class RawClient {
 public:
  explicit RawClient(const std::string& address) : socket_(Socket::connect(address)) {}
  explicit RawClient(Socket socket) : socket_(std::move(socket)) {}

  void send(std::string_view bytes) { socket_.send(bytes); }
  bool try_send(std::string_view bytes, std::chrono::milliseconds within) {
    return socket_.try_send(bytes, within);
  }
  void shutdown_write() { socket_.shutdown_write(); }
  void reset() { socket_.reset(); }
  void close() { socket_.close(); }

  // Up to and with the delimiter.
  std::string read_until(std::string_view delimiter);
  std::string read_exactly(std::size_t size);
  // What is there, at least one byte; empty at the peer's end.
  std::string read_some();
  // Everything up to the peer's end.
  std::string read_all();
  // Waits for the peer to end without sending another byte. How it ended; throws if bytes came
  // instead.
  Socket::End read_end();
  // True if nothing came, neither a byte nor an end, for that long.
  bool quiet(std::chrono::milliseconds time);
  // The bytes that come first, left in the buffer; fewer than `size` only if the peer ended.
  std::string_view peek(std::size_t size);

  // A head as text, with its empty line, and as values.
  std::string read_head_text() { return read_until("\r\n\r\n"); }
  Head read_head();
  // A whole response to a request of this method, with the interim ones before it.
  Response read_response(std::string_view method = "GET");
  // A whole request.
  Request read_request();

  // Piecewise bodies: begin_body() after a head says how the body is framed; then read_body_part()
  // until it gives 0.
  void begin_body(const Head& head, std::string_view request_method);
  std::size_t read_body_part(char* into, std::size_t room);
  const Fields& trailers() const { return trailers_; }

  // The first MiB received so far, also what was already asked for.
  const std::string& received() const { return received_; }
  Socket& socket() { return socket_; }
  Socket take_socket() { return std::move(socket_); }
  std::string take_buffer() { return std::move(buffer_); }
  // Bytes that come before what is still to be received.
  void give_back(std::string bytes) { buffer_ = std::move(bytes) + buffer_; }

 private:
  enum class Framing { kNone, kLength, kChunked, kUntilEnd };

  bool fill();
  std::string take(std::size_t size);
  Fields read_fields();
  void next_chunk();

  Socket socket_;
  std::string buffer_;
  std::string received_;
  Framing framing_ = Framing::kNone;
  std::uint64_t left_ = 0;
  bool first_chunk_ = false;
  Fields trailers_;
};

// The text of an HTTP/1.1 head: Host first, unless the fields have one.
std::string head_text(const Head& head);

}  // namespace outrider::test
