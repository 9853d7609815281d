// Bodies that filters change: encoders by coding and level, the text form of gRPC-Web.
#include <benchmark/benchmark.h>

#include <array>
#include <random>
#include <string>

#include "filters/encoder.h"
#include "filters/grpc_web_text.h"

namespace outrider {
namespace {

std::string orders(std::size_t size) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < size)
    text += R"({"order":)" + std::to_string(random()) + R"(,"state":")" +
            (random() % 3 == 0 ? "shipped" : "waiting") + R"(","items":[)" +
            std::to_string(random() % 1000) + "]},\n";
  text.resize(size);
  return text;
}

// Of a body whose length is not known, made and ended each time. `share`: of it that is left.
void encode(benchmark::State& state, Coding coding, CompressLevel level) {
  const std::string text = orders(static_cast<std::size_t>(state.range(0)));
  std::array<char, 16 * 1024> out;
  std::size_t size = 0;
  for (auto _ : state) {
    const auto encoder = make_encoder(coding, level, std::nullopt);
    std::string_view in = text;
    size = 0;
    for (bool whole = false; !whole;) {
      std::size_t made = 0;
      whole = encoder->encode(in, Encoder::Until::kEnd, out, made);
      size += made;
    }
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.counters["share"] = static_cast<double>(size) / static_cast<double>(text.size());
}
BENCHMARK_CAPTURE(encode, gzip_fast, Coding::kGzip, CompressLevel::kFast)
    ->Arg(10'000)
    ->Arg(100'000);
BENCHMARK_CAPTURE(encode, gzip, Coding::kGzip, CompressLevel::kBalanced)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(encode, gzip_small, Coding::kGzip, CompressLevel::kSmall)->Arg(100'000);
BENCHMARK_CAPTURE(encode, br_fast, Coding::kBr, CompressLevel::kFast)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(encode, br, Coding::kBr, CompressLevel::kBalanced)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(encode, br_small, Coding::kBr, CompressLevel::kSmall)->Arg(100'000);
BENCHMARK_CAPTURE(encode, zstd_fast, Coding::kZstd, CompressLevel::kFast)
    ->Arg(10'000)
    ->Arg(100'000);
BENCHMARK_CAPTURE(encode, zstd, Coding::kZstd, CompressLevel::kBalanced)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(encode, zstd_small, Coding::kZstd, CompressLevel::kSmall)->Arg(100'000);

void decode_text(benchmark::State& state) {
  const std::string text(16 * 1024, 'Z');
  std::array<char, 16 * 1024> out;
  for (auto _ : state) {
    TextDecoder decoder;
    std::string_view in = text;
    benchmark::DoNotOptimize(decoder.decode(in, out));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(decode_text);

void encode_text_piece(benchmark::State& state) {
  const std::string bytes(12 * 1024, '\x5a');
  std::array<char, 16 * 1024> out;
  for (auto _ : state) benchmark::DoNotOptimize(encode_text(bytes, out));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes.size()));
}
BENCHMARK(encode_text_piece);

}  // namespace
}  // namespace outrider
