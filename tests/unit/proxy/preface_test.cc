#include <gtest/gtest.h>

#include "proxy/codec.h"

namespace outrider {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

TEST(Preface, EveryBeginningOfItIsUndecided) {
  for (std::size_t size = 0; size < kPreface.size(); ++size)
    EXPECT_EQ(detect_preface(kPreface.substr(0, size)), Preface::kMore) << size;
  EXPECT_EQ(detect_preface(kPreface), Preface::kHttp2);
  EXPECT_EQ(detect_preface(std::string(kPreface) + std::string(9, '\0')), Preface::kHttp2);
}

TEST(Preface, AnyOtherByteMakesItHttp1) {
  for (std::size_t at = 0; at < kPreface.size(); ++at) {
    std::string bytes(kPreface.substr(0, at + 1));
    bytes[at] ^= 1;
    EXPECT_EQ(detect_preface(bytes), Preface::kHttp1) << at;
  }
  EXPECT_EQ(detect_preface("POST / HTTP/1.1\r\n"), Preface::kHttp1);
  EXPECT_EQ(detect_preface("\x16\x03\x01"), Preface::kHttp1);
}

}  // namespace
}  // namespace outrider
