// Windows are 32 or 64 KiB: larger ones cost every stream memory and gain little on what the web
// compresses. Only a lack of memory makes these libraries fail, and that ends the process as
// elsewhere.
#include "filters/encoder.h"

#include <brotli/encode.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>

#include "config/error.h"

namespace outrider {
namespace {

constexpr int kGzipWindow = 15;    // as bits: 32 KiB, the most there is
constexpr int kBrotliWindow = 16;  // 64 KiB
constexpr int kZstdWindow = 16;
constexpr int kZstdTable = 15;  // entries of a match finder's tables

struct Levels {
  int br, zstd, gzip;
};
constexpr std::array<Levels, 3> kLevels = {{{2, 1, 1}, {4, 3, 5}, {5, 7, 6}}};

const Levels& levels_of(CompressLevel level) { return kLevels[static_cast<std::size_t>(level)]; }

// Bits of the smallest window that holds the body.
int window_bits(std::optional<std::uint64_t> length, int least, int most) {
  if (!length || *length >= std::uint64_t{1} << most) return most;
  return std::clamp(static_cast<int>(std::bit_width(*length)), least, most);
}

const std::uint8_t* octets(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}
std::uint8_t* octets(std::span<char> room) { return reinterpret_cast<std::uint8_t*>(room.data()); }

class Gzip final : public Encoder {
 public:
  Gzip(int level, std::optional<std::uint64_t> length) {
    constexpr int kLeastWindow = 9;
    constexpr int kGzipHeader = 16;
    const int bits = window_bits(length, kLeastWindow, kGzipWindow);
    const int hash = std::max(1, bits - 7);  // memLevel: as many entries as the window has bytes
    const int result =
        deflateInit2(&state_, level, Z_DEFLATED, bits + kGzipHeader, hash, Z_DEFAULT_STRATEGY);
    OUTRIDER_ASSERT(result == Z_OK);
  }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;
  ~Gzip() override { deflateEnd(&state_); }

  bool encode(std::string_view& in, Until until, std::span<char> out, std::size_t& made) override {
    // Its counters have 32 bits.
    const std::size_t piece = std::min<std::size_t>(in.size(), 1U << 30);
    const bool whole = piece == in.size();
    state_.next_in = const_cast<Bytef*>(octets(in.substr(0, piece)));
    state_.avail_in = static_cast<uInt>(piece);
    state_.next_out = octets(out);
    state_.avail_out = static_cast<uInt>(out.size());
    const int flush = !whole || until == Until::kMore ? Z_NO_FLUSH
                      : until == Until::kFlush        ? Z_SYNC_FLUSH
                                                      : Z_FINISH;
    const int result = deflate(&state_, flush);
    OUTRIDER_ASSERT(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR);
    in.remove_prefix(piece - state_.avail_in);
    made = out.size() - state_.avail_out;
    if (until == Until::kEnd) return result == Z_STREAM_END;
    return in.empty() && state_.avail_out != 0;
  }

 private:
  z_stream state_{};
};

class Brotli final : public Encoder {
 public:
  Brotli(int level, std::optional<std::uint64_t> length)
      : state_(BrotliEncoderCreateInstance(nullptr, nullptr, nullptr)) {
    OUTRIDER_ASSERT(state_ != nullptr);
    set(BROTLI_PARAM_QUALITY, level);
    set(BROTLI_PARAM_LGWIN, window_bits(length, BROTLI_MIN_WINDOW_BITS, kBrotliWindow));
    if (length && *length < UINT32_MAX) set(BROTLI_PARAM_SIZE_HINT, static_cast<int>(*length));
  }
  Brotli(const Brotli&) = delete;
  Brotli& operator=(const Brotli&) = delete;
  ~Brotli() override { BrotliEncoderDestroyInstance(state_); }

  bool encode(std::string_view& in, Until until, std::span<char> out, std::size_t& made) override {
    std::size_t left = in.size();
    std::size_t room = out.size();
    const std::uint8_t* from = octets(in);
    std::uint8_t* to = octets(out);
    const BrotliEncoderOperation operation = until == Until::kMore    ? BROTLI_OPERATION_PROCESS
                                             : until == Until::kFlush ? BROTLI_OPERATION_FLUSH
                                                                      : BROTLI_OPERATION_FINISH;
    const bool sound =
        BrotliEncoderCompressStream(state_, operation, &left, &from, &room, &to, nullptr) != 0;
    OUTRIDER_ASSERT(sound);
    in.remove_prefix(in.size() - left);
    made = out.size() - room;
    return in.empty() && BrotliEncoderHasMoreOutput(state_) == 0;
  }

 private:
  void set(BrotliEncoderParameter parameter, int value) {
    BrotliEncoderSetParameter(state_, parameter, static_cast<std::uint32_t>(value));
  }
  BrotliEncoderState* const state_;
};

class Zstd final : public Encoder {
 public:
  Zstd(int level, std::optional<std::uint64_t> length) : state_(ZSTD_createCCtx()) {
    constexpr int kLeastWindow = 10;
    OUTRIDER_ASSERT(state_ != nullptr);
    set(ZSTD_c_compressionLevel, level);
    set(ZSTD_c_windowLog, window_bits(length, kLeastWindow, kZstdWindow));
    // Its tables would be for windows of megabytes.
    set(ZSTD_c_hashLog, window_bits(length, kLeastWindow, kZstdTable));
    set(ZSTD_c_chainLog, window_bits(length, kLeastWindow, kZstdTable));
  }
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;
  ~Zstd() override { ZSTD_freeCCtx(state_); }

  bool encode(std::string_view& in, Until until, std::span<char> out, std::size_t& made) override {
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const ZSTD_EndDirective directive = until == Until::kMore    ? ZSTD_e_continue
                                        : until == Until::kFlush ? ZSTD_e_flush
                                                                 : ZSTD_e_end;
    const std::size_t left = ZSTD_compressStream2(state_, &to, &from, directive);
    OUTRIDER_ASSERT(ZSTD_isError(left) == 0);
    in.remove_prefix(from.pos);
    made = to.pos;
    return in.empty() && (until == Until::kMore || left == 0);
  }

 private:
  void set(ZSTD_cParameter parameter, int value) {
    const std::size_t result = ZSTD_CCtx_setParameter(state_, parameter, value);
    OUTRIDER_ASSERT(ZSTD_isError(result) == 0);
  }
  ZSTD_CCtx* const state_;
};

}  // namespace

std::string_view coding_name(Coding coding) {
  constexpr std::array<std::string_view, 3> kNames = {"br", "zstd", "gzip"};
  return kNames[static_cast<std::size_t>(coding)];
}

std::unique_ptr<Encoder> make_encoder(Coding coding, CompressLevel level,
                                      std::optional<std::uint64_t> length) {
  const Levels& levels = levels_of(level);
  switch (coding) {
    case Coding::kBr: return std::make_unique<Brotli>(levels.br, length);
    case Coding::kZstd: return std::make_unique<Zstd>(levels.zstd, length);
    case Coding::kGzip: break;
  }
  return std::make_unique<Gzip>(levels.gzip, length);
}

}  // namespace outrider
