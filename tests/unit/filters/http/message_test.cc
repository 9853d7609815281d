// Words of the protocol.
#include "filters/http/message.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {

TEST(Method, IsExactInCase) {
  EXPECT_EQ(method_of("GET"), Method::kGet);
  EXPECT_EQ(method_of("HEAD"), Method::kHead);
  EXPECT_EQ(method_of("POST"), Method::kPost);
  EXPECT_EQ(method_of("PUT"), Method::kPut);
  EXPECT_EQ(method_of("DELETE"), Method::kDelete);
  EXPECT_EQ(method_of("PATCH"), Method::kPatch);
  EXPECT_EQ(method_of("OPTIONS"), Method::kOptions);
  EXPECT_EQ(method_of("CONNECT"), Method::kConnect);
  EXPECT_EQ(method_of("TRACE"), Method::kTrace);
  for (const char* other : {"", "get", "GE", "GETS", "PURGE", "OPTION", "Delete"})
    EXPECT_EQ(method_of(other), Method::kOther) << other;
}

TEST(Method, IdempotentOnesOfTheRfc) {
  for (const char* text : {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
    EXPECT_TRUE(is_idempotent(method_of(text))) << text;
  for (const char* text : {"POST", "PATCH", "CONNECT", "PURGE"})
    EXPECT_FALSE(is_idempotent(method_of(text))) << text;
}

TEST(Words, VersionsAndPhrases) {
  EXPECT_EQ(to_string(Version::kHttp10), "HTTP/1.0");
  EXPECT_EQ(to_string(Version::kHttp11), "HTTP/1.1");
  EXPECT_EQ(to_string(Version::kHttp2), "HTTP/2");
  EXPECT_EQ(status_phrase(200), "OK");
  EXPECT_EQ(status_phrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(status_phrase(299), "");
}

}  // namespace
}  // namespace outrider
