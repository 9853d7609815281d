// Verdicts on endpoints from what their probes met.
#include "discovery/health.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {

class HealthTest : public ::testing::Test {
 protected:
  HealthTest() { check_.text = "GET /healthz"; }
  bool good() { return note_probe(check_, record_, true, "200"); }
  bool bad() { return note_probe(check_, record_, false, "503"); }
  std::string why() const { return why_healthy(check_, record_); }
  config::HealthCheck check_;
  HealthRecord record_;
};

TEST_F(HealthTest, UsableUntilAVerdict) {
  EXPECT_EQ(why(), "probe GET /healthz: no answer yet");
  EXPECT_FALSE(bad());
  EXPECT_FALSE(record_.known);
  EXPECT_EQ(why(), "probe GET /healthz: 503, 1 of 3 failed");
  EXPECT_FALSE(bad());
  EXPECT_FALSE(record_.unhealthy);
  EXPECT_TRUE(bad());
  EXPECT_TRUE(record_.unhealthy);
  EXPECT_TRUE(record_.known);
  EXPECT_EQ(why(), "probe GET /healthz: 503, 3 of 3 failed");
  EXPECT_FALSE(bad());
  EXPECT_EQ(why(), "probe GET /healthz: 503, 3 of 3 failed");
}

TEST_F(HealthTest, OneGoodAnswerIsAVerdictOnOneThatWasNotBad) {
  EXPECT_FALSE(good());
  EXPECT_TRUE(record_.known);
  EXPECT_EQ(why(), "probe GET /healthz: 200");
}

TEST_F(HealthTest, OneThatFlapsStaysWhatItIs) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(bad());
    EXPECT_FALSE(bad());
    EXPECT_FALSE(good());
  }
  for (int i = 0; i < 3; ++i) bad();
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(good());
    EXPECT_EQ(why(), "probe GET /healthz: 200, 1 of 2 succeeded");
    EXPECT_FALSE(bad());
  }
  EXPECT_TRUE(record_.unhealthy);
  EXPECT_FALSE(good());
  EXPECT_TRUE(good());
  EXPECT_FALSE(record_.unhealthy);
}

}  // namespace
}  // namespace outrider
