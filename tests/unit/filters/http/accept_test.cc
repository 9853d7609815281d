#include "filters/http/accept.h"

#include <gtest/gtest.h>

#include <vector>

namespace outrider {
namespace {

int weight(std::vector<std::string_view> fields, std::string_view coding) {
  BlockPool blocks{256};
  Arena arena(blocks);
  Headers headers(arena);
  for (const std::string_view field : fields) headers.add(HeaderId::kAcceptEncoding, field);
  return coding_weight(headers, coding);
}

TEST(Accept, WeighsCodings) {
  struct Case {
    std::string_view field;
    int gzip, br, identity;
  };
  constexpr int kNo = kNotNamed;
  const Case cases[] = {
      {"gzip", 1000, kNo, kNo},
      {"gzip, br", 1000, 1000, kNo},
      {"gzip;q=0.5, br;q=1.0", 500, 1000, kNo},
      {"GZIP;Q=0.25 , BR ; q=0.125", 250, 125, kNo},
      {"x-gzip", 1000, kNo, kNo},
      {"gzip;q=0", 0, kNo, kNo},
      {"gzip;q=0.000", 0, kNo, kNo},
      {"*", 1000, 1000, 1000},
      {"*;q=0.1, gzip", 1000, 100, 100},
      {"gzip;q=0, *", 0, 1000, 1000},
      {"identity;q=0", kNo, kNo, 0},
      {"identity, gzip;q=0.5", 500, kNo, 1000},
      {"", kNo, kNo, kNo},
      {" , ,gzip, ,", 1000, kNo, kNo},
      {"gzip;level=9;q=0.3", 300, kNo, kNo},
      {"gzip;q=1.5", 0, kNo, kNo},
      {"gzip;q=1.001", 0, kNo, kNo},
      {"gzip;q=", 0, kNo, kNo},
      {"gzip;q=.5", 0, kNo, kNo},
      {"gzip;q=0.1234", 0, kNo, kNo},
      {"gzip;q=-1", 0, kNo, kNo},
      {"gzipped, xgzip, brr", kNo, kNo, kNo},
      {"deflate, gzip;q=1.0, *;q=0.5", 1000, 500, 500},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(weight({one.field}, "gzip"), one.gzip) << one.field;
    EXPECT_EQ(weight({one.field}, "br"), one.br) << one.field;
    EXPECT_EQ(weight({one.field}, "identity"), one.identity) << one.field;
  }
}

TEST(Accept, ReadsAllFields) {
  EXPECT_EQ(weight({"br", "gzip;q=0.5"}, "gzip"), 500);
  EXPECT_EQ(weight({"*;q=0.5", "gzip"}, "gzip"), 1000);
  EXPECT_EQ(weight({}, "gzip"), kNotNamed);
}

}  // namespace
}  // namespace outrider
