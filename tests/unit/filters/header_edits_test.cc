#include <gtest/gtest.h>

#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind header_edits_filter();

namespace {

config::Leaf<std::string> leaf(std::string text) { return {std::move(text), {}}; }

class HeaderEditsTest : public testing::Test, public test::World {
 protected:
  Verdict request() {
    filter = header_edits_filter().make(context());
    return filter->on_request(*x, control);
  }
  Verdict response() {
    filter = header_edits_filter().make(context());
    return filter->on_response(*x, control);
  }
  std::unique_ptr<const Filter> filter;
};

TEST_F(HeaderEditsTest, RemovesThenSetsThenAdds) {
  policy.request_headers.remove =
      config::Leaf<std::vector<std::string>>{{"Cookie", "x-gone", "x-both"}, {}};
  policy.request_headers.set = {{"X-Tenant", leaf("acme")}, {"x-both", leaf("set")}};
  policy.request_headers.add = {{"via-team", leaf("a")}, {"x-tenant", leaf("more")}};
  exchange();
  header("cookie", "a=1");
  header("COOKIE", "b=2");
  header("X-Gone", "1");
  header("x-tenant", "theirs");
  header("X-TENANT", "theirs too");
  header("via-team", "first");
  header("x-both", "old");
  EXPECT_EQ(request(), Verdict::kContinue);
  EXPECT_EQ(sent("cookie"), "-");
  EXPECT_EQ(sent("x-gone"), "-");
  EXPECT_EQ(sent("x-tenant"), "acme|more");
  EXPECT_EQ(sent("via-team"), "first|a");
  EXPECT_EQ(sent("x-both"), "set");
}

TEST_F(HeaderEditsTest, ValuesAreTemplates) {
  policy.request_headers.set = {{"x-who", leaf("%{client.ip} %{path.id}")},
                                {"x-literal", leaf("%%{time}")},
                                {"x-none", leaf("%{query q}")}};
  match("/u/{id}");
  exchange("/u/7");
  header("x-none", "the client's own");
  EXPECT_EQ(request(), Verdict::kContinue);
  EXPECT_EQ(sent("x-who"), "192.0.2.1 7");
  EXPECT_EQ(sent("x-literal"), "%{time}");
  EXPECT_EQ(sent("x-none"), "") << "absent is empty, and never what the client said";
}

TEST_F(HeaderEditsTest, NoWhiteSpaceAtTheEnds) {
  policy.request_headers.set = {{"x-a", leaf(" %{query q} ")}};
  exchange("/?q=v");
  request();
  EXPECT_EQ(sent("x-a"), "v");
}

TEST_F(HeaderEditsTest, TheResponseIsEditedOnItsOwn) {
  policy.response_headers.set = {{"x-served-by", leaf("%{service}")}};
  policy.response_headers.remove = config::Leaf<std::vector<std::string>>{{"server"}, {}};
  exchange();
  header("server", "request's");
  x->response.headers.add(HeaderId::kServer, "secret/1.0");
  EXPECT_EQ(response(), Verdict::kContinue);
  EXPECT_EQ(answered("x-served-by"), "shop");
  EXPECT_EQ(answered("server"), "-");
  EXPECT_EQ(sent("server"), "request's");
  EXPECT_FALSE(filter->in(Phase::kRequest));
  EXPECT_TRUE(filter->in(Phase::kResponse));
}

TEST_F(HeaderEditsTest, AControlByteInAValueIsABadRequest) {
  for (const char* evil : {"a\r\nx: y", "a\nb", "\x01", "a\x7f"}) {
    policy = {};
    policy.request_headers.set = {{"x-copy", leaf("v=%{header x-evil}")}};
    exchange();
    header("x-evil", evil);
    EXPECT_EQ(request(), Verdict::kReply);
    EXPECT_EQ(x->answer.reason, Reason::kBadRequest);
    EXPECT_EQ(sent("x-copy"), "-");
    policy = {};
    policy.response_headers.add = {{"x-copy", leaf("v=%{header x-evil}")}};
    exchange();
    header("x-evil", evil);
    EXPECT_EQ(response(), Verdict::kReply);
    EXPECT_EQ(answered("x-copy"), "-");
  }
}

TEST_F(HeaderEditsTest, NothingToDoIsNoFilter) {
  EXPECT_EQ(header_edits_filter().make(context()), nullptr);
  policy.request_headers.set = {{"x-a", leaf("b")}};
  EXPECT_EQ(header_edits_filter().make(context(false)), nullptr) << "nobody reads that request";
  policy.response_headers.set = {{"x-a", leaf("b")}};
  EXPECT_NE(header_edits_filter().make(context(false)), nullptr);
}

}  // namespace
}  // namespace outrider
