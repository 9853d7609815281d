#include "filters/encoder.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/unit/filters/decoder.h"

namespace outrider {
namespace {

using Until = Encoder::Until;

std::string encode(Encoder& encoder, std::string_view in, Until until, std::size_t room = 4096) {
  std::string out;
  std::string piece(room, '\0');
  for (bool whole = false; !whole;) {
    std::size_t made = 0;
    whole = encoder.encode(in, until, piece, made);
    out.append(piece, 0, made);
  }
  EXPECT_TRUE(in.empty());
  return out;
}

std::string text_of(std::size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size)
    text += "{\"id\":" + std::to_string(random() % 100'000) + ",\"name\":\"cart\"},\n";
  text.resize(size);
  return text;
}

class EncoderTest
    : public testing::TestWithParam<std::tuple<Coding, CompressLevel, std::size_t /* of body */>> {
 protected:
  Coding coding() const { return std::get<0>(GetParam()); }
  std::unique_ptr<Encoder> encoder(std::optional<std::uint64_t> length = {}) const {
    return make_encoder(coding(), std::get<1>(GetParam()), length);
  }
  const std::string text_ = text_of(std::get<2>(GetParam()));
};

TEST_P(EncoderTest, WholeBodiesComeBack) {
  for (const std::optional<std::uint64_t> length :
       {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(text_.size())}) {
    const auto whole = encoder(length);
    const std::string coded = encode(*whole, text_, Until::kEnd);
    test::Decoder decoder(coding_name(coding()));
    EXPECT_EQ(decoder.feed(coded), text_);
    EXPECT_TRUE(decoder.whole());
    if (text_.size() > 1000) {
      EXPECT_LT(coded.size(), text_.size() / 2);
    }
  }
}

// Cut at every byte of a short one, and with room for little at a time.
TEST_P(EncoderTest, PiecesComeBackWhereverTheyAreCut) {
  const std::size_t step = text_.size() > 1000 ? text_.size() / 4 : 1;
  for (std::size_t cut = 0; cut <= text_.size(); cut += step) {
    const auto pieces = encoder();
    const std::string_view text = text_;
    std::string coded = encode(*pieces, text.substr(0, cut), Until::kMore, 7);
    coded += encode(*pieces, text.substr(cut), Until::kEnd, 7);
    test::Decoder decoder(coding_name(coding()));
    ASSERT_EQ(decoder.feed(coded), text_) << cut;
    ASSERT_TRUE(decoder.whole());
  }
}

TEST_P(EncoderTest, WhatWasFlushedIsReadableAtOnce) {
  const auto flushed = encoder();
  test::Decoder decoder(coding_name(coding()));
  const std::string_view text = text_;
  const std::size_t step = std::max<std::size_t>(1, text.size() / 20);
  for (std::size_t at = 0; at < text.size(); at += step) {
    const std::string_view piece = text.substr(at, step);
    ASSERT_EQ(decoder.feed(encode(*flushed, piece, Until::kFlush)), piece);
  }
  // Nothing more to let out.
  EXPECT_EQ(decoder.feed(encode(*flushed, {}, Until::kFlush)), "");
  EXPECT_EQ(decoder.feed(encode(*flushed, {}, Until::kEnd)), "");
  EXPECT_TRUE(decoder.whole());
}

INSTANTIATE_TEST_SUITE_P(
    All, EncoderTest,
    testing::Combine(
        testing::Values(Coding::kBr, Coding::kZstd, Coding::kGzip),
        testing::Values(CompressLevel::kFast, CompressLevel::kBalanced, CompressLevel::kSmall),
        testing::Values(std::size_t{0}, std::size_t{1}, std::size_t{150}, std::size_t{100'000})));

}  // namespace
}  // namespace outrider
