// Frames and literal field blocks, RFC 9113 §4 and RFC 7541 §6.2.3; nghttp2's inflater reads what
// comes back.
#include "tests/harness/h2_frames.h"

#include <unistd.h>

namespace outrider::test {
namespace {

// A string literal without Huffman coding: a 7-bit prefix integer and the bytes.
std::string hpack_string(std::string_view text) {
  std::string bytes;
  std::size_t size = text.size();
  if (size < 127) {
    bytes.push_back(static_cast<char>(size));
  } else {
    bytes.push_back(127);
    for (size -= 127; size >= 128; size /= 128)
      bytes.push_back(static_cast<char>(size % 128 + 128));
    bytes.push_back(static_cast<char>(size));
  }
  return bytes.append(text);
}

std::uint32_t u32(std::string_view bytes) {
  std::uint32_t value = 0;
  for (const char byte : bytes.substr(0, 4)) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

constexpr std::string_view kBarrier = "barrier!";

}  // namespace

std::string h2_u32(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string h2_frame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                     std::string_view payload) {
  std::string frame = h2_u32(static_cast<std::uint32_t>(payload.size())).substr(1);
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  frame += h2_u32(stream);
  return frame.append(payload);
}

std::string h2_settings(const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings) {
  std::string payload;
  for (const auto& [id, value] : settings) payload += h2_u32(id).substr(2) + h2_u32(value);
  return h2_frame(NGHTTP2_SETTINGS, 0, 0, payload);
}

std::string h2_window_update(std::uint32_t stream, std::uint32_t increment) {
  return h2_frame(NGHTTP2_WINDOW_UPDATE, 0, stream, h2_u32(increment));
}

std::string h2_rst_stream(std::uint32_t stream, std::uint32_t code) {
  return h2_frame(NGHTTP2_RST_STREAM, 0, stream, h2_u32(code));
}

std::string hpack(const Fields& fields) {
  std::string block;
  for (const Field& field : fields) {
    block.push_back(0x10);  // never indexed, new name
    block += hpack_string(field.name) + hpack_string(field.value);
  }
  return block;
}

Fields h2_request_fields(std::string_view method, std::string_view path) {
  return {{":method", std::string(method)},
          {":scheme", "http"},
          {":path", std::string(path)},
          {":authority", kAuthority}};
}

std::string h2_headers(std::uint32_t stream, const Fields& fields, bool end) {
  const int flags = NGHTTP2_FLAG_END_HEADERS | (end ? NGHTTP2_FLAG_END_STREAM : 0);
  return h2_frame(NGHTTP2_HEADERS, static_cast<std::uint8_t>(flags), stream, hpack(fields));
}

std::uint32_t Frame::code() const {
  return u32(type == NGHTTP2_GOAWAY ? std::string_view(payload).substr(4) : payload);
}

RawH2::RawH2(const std::string& address,
             const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings)
    : raw_(address) {
  nghttp2_hd_inflate_new(&inflater_);
  raw_.send(std::string(kH2Preface) + h2_settings(settings));
}

// The socket stays the accepted connection's, so that stopping the origin ends it too.
RawH2::RawH2(RawClient& accepted,
             const std::vector<std::pair<std::uint16_t, std::uint32_t>>& settings)
    : raw_(Socket(::dup(accepted.socket().fd()))) {
  nghttp2_hd_inflate_new(&inflater_);
  if (accepted.read_exactly(kH2Preface.size()) != kH2Preface) throw HarnessError("not a preface");
  raw_.give_back(accepted.take_buffer());
  raw_.send(h2_settings(settings));
}

RawH2::~RawH2() { nghttp2_hd_inflate_del(inflater_); }

Frame RawH2::read() {
  const std::string header = raw_.read_exactly(9);
  Frame frame;
  frame.type = static_cast<std::uint8_t>(header[3]);
  frame.flags = static_cast<std::uint8_t>(header[4]);
  frame.stream = u32(std::string_view(header).substr(5)) & 0x7FFFFFFF;
  frame.payload = raw_.read_exactly(u32('\0' + header.substr(0, 3)));
  if (!frame.has(NGHTTP2_FLAG_ACK)) {
    if (frame.type == NGHTTP2_SETTINGS)
      raw_.try_send(h2_frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0), patience());
    if (frame.type == NGHTTP2_PING)
      raw_.try_send(h2_frame(NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, frame.payload), patience());
  }
  return frame;
}

Frame RawH2::read_until(std::uint8_t type, std::uint32_t stream) {
  for (;;) {
    Frame frame = read();
    if (frame.type == type && frame.stream == stream) return frame;
    if (frame.type == NGHTTP2_GOAWAY)
      throw HarnessError("GOAWAY, code " + std::to_string(frame.code()));
  }
}

Frame RawH2::read_until(std::uint8_t type) {
  for (;;) {
    Frame frame = read();
    if (frame.type == type) return frame;
  }
}

std::vector<Frame> RawH2::barrier() {
  send(h2_frame(NGHTTP2_PING, 0, 0, kBarrier));
  std::vector<Frame> frames;
  for (;;) {
    Frame frame = read();
    if (frame.type == NGHTTP2_PING && frame.payload == kBarrier) return frames;
    frames.push_back(std::move(frame));
  }
}

std::uint32_t RawH2::read_goaway_and_end() {
  std::uint32_t code = NGHTTP2_NO_ERROR;
  while (!raw_.peek(9).empty()) {
    const Frame frame = read();
    if (frame.type == NGHTTP2_GOAWAY) code = frame.code();
  }
  return code;
}

Fields RawH2::decode(const Frame& headers) {
  Fields fields;
  std::string_view block = headers.payload;
  if (headers.has(NGHTTP2_FLAG_PADDED)) {
    const auto padding = static_cast<unsigned char>(block[0]);
    block = block.substr(1, block.size() - 1 - padding);
  }
  if (headers.has(NGHTTP2_FLAG_PRIORITY)) block.remove_prefix(5);
  for (;;) {
    nghttp2_nv pair{};
    int flags = 0;
    const ssize_t used = nghttp2_hd_inflate_hd2(
        inflater_, &pair, &flags, reinterpret_cast<const std::uint8_t*>(block.data()), block.size(),
        headers.has(NGHTTP2_FLAG_END_HEADERS) ? 1 : 0);
    if (used < 0) throw HarnessError("a field block that cannot be decoded");
    block.remove_prefix(static_cast<std::size_t>(used));
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
      fields.push_back({{reinterpret_cast<const char*>(pair.name), pair.namelen},
                        {reinterpret_cast<const char*>(pair.value), pair.valuelen}});
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
      nghttp2_hd_inflate_end_headers(inflater_);
      return fields;
    }
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && block.empty()) return fields;
  }
}

}  // namespace outrider::test
