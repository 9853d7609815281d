// HTTP/2 by hand: frames as bytes, for tests that send what no library would. RawH2 is one end of
// a connection on them.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/harness/http.h"
#include "tests/harness/raw_client.h"

namespace outrider::test {

inline constexpr std::string_view kH2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Any frame, valid or not: the length is the payload's.
std::string h2_frame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                     std::string_view payload = {});
std::string h2_settings(const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings);
std::string h2_window_update(std::uint32_t stream, std::uint32_t increment);
std::string h2_rst_stream(std::uint32_t stream, std::uint32_t code);
// 32 bits in network order: the payload of several frames.
std::string h2_u32(std::uint32_t value);

// A field block of literals, never indexed and never Huffman-coded, exactly these names and values.
std::string hpack(const Fields& fields);
// The usual pseudo fields of a request, to put others behind.
Fields h2_request_fields(std::string_view method = "GET", std::string_view path = "/");
// HEADERS with END_HEADERS, and END_STREAM if `end`.
std::string h2_headers(std::uint32_t stream, const Fields& fields, bool end = true);

struct Frame {
  std::uint8_t type = 0;
  std::uint8_t flags = 0;
  std::uint32_t stream = 0;
  std::string payload;

  bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
  // The code of RST_STREAM or GOAWAY.
  std::uint32_t code() const;
};

class RawH2 {
 public:
  // Connects and sends the preface and these settings; nothing is answered by itself but SETTINGS
  // and PING.
  explicit RawH2(const std::string& address,
                 const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings = {});
  // The server's side of a connection that an origin has accepted: reads the preface, sends these
  // settings.
  RawH2(RawClient& accepted, const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings);
  ~RawH2();
  RawH2(const RawH2&) = delete;
  RawH2& operator=(const RawH2&) = delete;

  void send(std::string_view bytes) { raw_.send(bytes); }
  Frame read();
  // Skips other frames until this one comes.
  Frame read_until(std::uint8_t type, std::uint32_t stream);
  Frame read_until(std::uint8_t type);
  // Sends PING and reads frames until its answer: all that was sent before has been processed by
  // then, and these frames are what it led to.
  std::vector<Frame> barrier();
  // Reads until the connection ends; the code of the GOAWAY before that, NGHTTP2_NO_ERROR without
  // one.
  std::uint32_t read_goaway_and_end();
  // The fields of a HEADERS frame. Every one must be decoded, in order, or the next ones cannot be.
  Fields decode(const Frame& headers);

  RawClient& raw() { return raw_; }

 private:
  RawClient raw_;
  nghttp2_hd_inflater* inflater_ = nullptr;
};

}  // namespace outrider::test
