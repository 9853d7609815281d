#include <gtest/gtest.h>

#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind buffer_filter();

namespace {

class BufferTest : public testing::Test, public test::World {
 protected:
  BufferTest() { say("buffer: 1KiB"); }
  Verdict filter() {
    made = buffer_filter().make(context());
    return made->on_request(*x, control);
  }
  std::unique_ptr<const Filter> made;
};

TEST_F(BufferTest, WaitsForTheWholeRequest) {
  exchange();
  x->request.content_length = 1024;
  EXPECT_EQ(filter(), Verdict::kPause);
  ASSERT_NE(x->whole_request, nullptr);
  EXPECT_EQ(x->whole_request->value, 1024);
  exchange();
  EXPECT_EQ(filter(), Verdict::kPause);
}

TEST_F(BufferTest, WhatIsThereGoesOn) {
  exchange();
  x->bytes_in = 1024;
  x->request_complete = true;
  EXPECT_EQ(filter(), Verdict::kContinue);
  EXPECT_NE(x->whole_request, nullptr);  // its length is told
}

TEST_F(BufferTest, MoreThanItHoldsIsRefusedUnread) {
  exchange();
  x->request.content_length = 1025;
  EXPECT_EQ(filter(), Verdict::kReply);
  EXPECT_EQ(x->answer.reason, Reason::kBodyTooLarge);
  EXPECT_NE(x->answer.detail.find("buffer 1024"), std::string_view::npos) << x->answer.detail;
  exchange();
  x->bytes_in = 1025;
  EXPECT_EQ(filter(), Verdict::kReply);
}

TEST_F(BufferTest, WhatIsAnsweredBeforeItsEndIsNotHeld) {
  exchange();
  x->is_grpc = true;
  EXPECT_EQ(filter(), Verdict::kContinue);
  exchange();
  x->request.upgrade = "websocket";
  EXPECT_EQ(filter(), Verdict::kContinue);
  exchange();
  x->rehearsed = true;
  EXPECT_EQ(filter(), Verdict::kContinue);
  EXPECT_EQ(x->whole_request, nullptr);
}

TEST_F(BufferTest, OffIsOff) {
  say("buffer: false");
  EXPECT_EQ(buffer_filter().make(context()), nullptr);
}

// A content type is the client's word; what the service speaks is not.
TEST_F(BufferTest, WhereNoGrpcCanGoItIsHeldLikeAnyOther) {
  service.protocol = config::Protocol::kHttp1;
  exchange();
  x->is_grpc = true;
  EXPECT_EQ(filter(), Verdict::kPause);
}

}  // namespace
}  // namespace outrider
