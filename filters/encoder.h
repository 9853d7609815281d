// The content codings that bodies are compressed with, behind one face: bytes in, bytes out, piece
// by piece. zlib, brotli and zstd are seen in encoder.cc alone.
// Invariant: what an encoder may hold is bounded by its window, whatever the body's length.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace outrider {

enum class Coding : std::uint8_t { kBr, kZstd, kGzip };
inline constexpr std::string_view kCodings = "br|zstd|gzip";  // in the order of the enum
std::string_view coding_name(Coding coding);

enum class CompressLevel : std::uint8_t { kFast, kBalanced, kSmall };
inline constexpr std::string_view kCompressLevels = "fast|balanced|small";

class Encoder {
 public:
  enum class Until : std::uint8_t { kMore, kFlush, kEnd };

  virtual ~Encoder() = default;
  // Takes from the front of `in` and writes to `out`, `made` bytes. False: to be called again, with
  // what is left and the same `until`, as there is more to write.
  virtual bool encode(std::string_view& in, Until until, std::span<char> out,
                      std::size_t& made) = 0;
};

// `length` of the body where it is known: a short one costs less memory.
std::unique_ptr<Encoder> make_encoder(Coding coding, CompressLevel level,
                                      std::optional<std::uint64_t> length);

}  // namespace outrider
