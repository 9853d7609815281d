// The steps of shedding and what lasts.
#include "discovery/overload.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {

TEST(Shedding, StepsAreTakenAndTakenBackLater) {
  using enum Shed;
  Shed step = kNothing;
  const auto at = [&](double share) { return step = shed_at(share, step); };
  EXPECT_EQ(at(0.89), kNothing);
  EXPECT_EQ(at(0.90), kClients);
  EXPECT_EQ(at(0.94), kClients);
  EXPECT_EQ(at(0.95), kRequests);
  EXPECT_EQ(at(0.91), kRequests);
  EXPECT_EQ(at(1.00), kIdle);
  EXPECT_EQ(at(0.96), kIdle);
  EXPECT_EQ(at(0.94), kRequests);
  EXPECT_EQ(at(0.89), kClients);
  EXPECT_EQ(at(0.86), kClients);
  EXPECT_EQ(at(0.84), kNothing);
  EXPECT_EQ(at(2.00), kIdle);
  EXPECT_EQ(at(0.10), kNothing);
}

TEST(Shedding, OneLookIsNoTrend) {
  Lasting slow;
  EXPECT_FALSE(slow.look(true, false));
  EXPECT_FALSE(slow.look(true, false));
  EXPECT_FALSE(slow.look(false, false));
  EXPECT_FALSE(slow.look(true, false));
  EXPECT_FALSE(slow.look(true, false));
  EXPECT_TRUE(slow.look(true, false));
  EXPECT_TRUE(slow.look(false, true));
  EXPECT_TRUE(slow.look(false, false));
  EXPECT_TRUE(slow.look(false, true));
  EXPECT_TRUE(slow.look(false, true));
  EXPECT_FALSE(slow.look(false, true));
}

}  // namespace
}  // namespace outrider
