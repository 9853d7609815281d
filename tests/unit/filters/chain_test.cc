#include "filters/chain.h"

#include <gtest/gtest.h>

#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

class ChainTest : public testing::Test, public test::World {};

TEST_F(ChainTest, FiltersMeetARequestInTheListsOrder) {
  policy.rewrite_host = config::Leaf<std::string>{"inner.example", {}};
  policy.request_headers.set = {{"x-forwarded-host", {"edited", {}}},
                                {"x-host", {"%{header host}", {}}}};
  exchange("/a", "outer.example");
  trust(*x);
  const Chain chain(context());
  std::uint8_t position = 0;
  EXPECT_EQ(chain.on_request(*x, control, position), Verdict::kContinue);
  EXPECT_EQ(sent("x-forwarded-for"), "192.0.2.1");
  EXPECT_EQ(sent("x-forwarded-host"), "edited") << "edits come after what is forwarded";
  EXPECT_EQ(sent("x-host"), "inner.example") << "and after the rewrite";
}

TEST_F(ChainTest, AReplyEndsTheChain) {
  policy.request_headers.set = {{"x-a", {"b", {}}}};
  exchange();
  header("x-outrider-hops", "10");
  trust(*x);
  const Chain chain(context());
  std::uint8_t position = 0;
  EXPECT_EQ(chain.on_request(*x, control, position), Verdict::kReply);
  EXPECT_EQ(sent("x-a"), "-");
}

TEST_F(ChainTest, ARouteThatAnswersItselfEditsItsResponseAlone) {
  policy.response_headers.set = {{"x-a", {"b", {}}}};
  exchange();
  const Chain chain(context(false));
  std::uint8_t position = 0;
  EXPECT_EQ(chain.on_request(*x, control, position), Verdict::kContinue);
  EXPECT_TRUE(x->request.headers.empty());
  position = 0;
  chain.on_response(*x, control, position);
  EXPECT_EQ(answered("x-a"), "b");
}

TEST_F(ChainTest, AnEmptyChainDoesNothing) {
  exchange();
  const Chain chain;
  std::uint8_t position = 0;
  EXPECT_EQ(chain.on_request(*x, control, position), Verdict::kContinue);
  EXPECT_EQ(chain.on_attempt_failed(*x, {}, control), Verdict::kContinue);
  chain.on_attempt(*x);
  chain.on_done(*x);
}

TEST_F(ChainTest, FailedAttemptsReachTheRetryFilter) {
  service.name = "chain-test";
  exchange();
  x->attempts = 1;
  const Chain chain(context());
  EXPECT_EQ(
      chain.on_attempt_failed(*x, {Reason::kConnectFailure, Origin::kUpstream, true}, control),
      Verdict::kPause);
  EXPECT_TRUE(control.delay);
}

TEST_F(ChainTest, NoFilterActsWhereNothingIsForwardedAndNothingSaid) {
  EXPECT_FALSE(filter_registry().empty());
  for (const FilterKind& kind : filter_registry()) EXPECT_EQ(kind.make(context(false)), nullptr);
}

}  // namespace
}  // namespace outrider
