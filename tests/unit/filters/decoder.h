// What a client does with a compressed body: each library's own decoder, piece by piece.
#pragma once

#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace outrider::test {

class Decoder {
 public:
  explicit Decoder(std::string_view coding)
      : brotli_(coding == "br" ? BrotliDecoderCreateInstance(nullptr, nullptr, nullptr) : nullptr),
        zstd_(coding == "zstd" ? ZSTD_createDCtx() : nullptr) {
    constexpr int kGzip = 15 + 16;
    inflateInit2(&zlib_, kGzip);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    inflateEnd(&zlib_);
    BrotliDecoderDestroyInstance(brotli_);
    ZSTD_freeDCtx(zstd_);
  }

  // All that these bytes make known. Throws where they make no sense.
  std::string feed(std::string_view bytes) {
    std::string text;
    while (!bytes.empty() && !whole_) {
      char out[4096];
      text.append(out, step(bytes, out, sizeof out));
    }
    if (!bytes.empty()) throw std::runtime_error("bytes behind the end");
    char out[4096];
    for (std::size_t made; (made = step(bytes, out, sizeof out)) != 0;) text.append(out, made);
    return text;
  }
  bool whole() const { return whole_; }

 private:
  std::size_t step(std::string_view& bytes, char* out, std::size_t room) {
    if (whole_) return 0;
    if (brotli_ != nullptr) return brotli_step(bytes, out, room);
    if (zstd_ != nullptr) return zstd_step(bytes, out, room);
    zlib_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    zlib_.avail_in = static_cast<uInt>(bytes.size());
    zlib_.next_out = reinterpret_cast<Bytef*>(out);
    zlib_.avail_out = static_cast<uInt>(room);
    const int result = inflate(&zlib_, Z_SYNC_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      throw std::runtime_error("not gzip");
    whole_ = result == Z_STREAM_END;
    bytes.remove_prefix(bytes.size() - zlib_.avail_in);
    return room - zlib_.avail_out;
  }
  std::size_t brotli_step(std::string_view& bytes, char* out, std::size_t room) {
    std::size_t left = bytes.size();
    std::size_t free = room;
    const auto* from = reinterpret_cast<const std::uint8_t*>(bytes.data());
    auto* to = reinterpret_cast<std::uint8_t*>(out);
    const auto result = BrotliDecoderDecompressStream(brotli_, &left, &from, &free, &to, nullptr);
    if (result == BROTLI_DECODER_RESULT_ERROR) throw std::runtime_error("not brotli");
    whole_ = result == BROTLI_DECODER_RESULT_SUCCESS;
    bytes.remove_prefix(bytes.size() - left);
    return room - free;
  }
  std::size_t zstd_step(std::string_view& bytes, char* out, std::size_t room) {
    ZSTD_inBuffer from{bytes.data(), bytes.size(), 0};
    ZSTD_outBuffer to{out, room, 0};
    const std::size_t left = ZSTD_decompressStream(zstd_, &to, &from);
    if (ZSTD_isError(left) != 0) throw std::runtime_error("not zstd");
    whole_ = left == 0 && (from.pos != 0 || to.pos != 0);
    bytes.remove_prefix(from.pos);
    return to.pos;
  }

  z_stream zlib_{};
  BrotliDecoderState* const brotli_;
  ZSTD_DCtx* const zstd_;
  bool whole_ = false;
};

}  // namespace outrider::test
