#include <gtest/gtest.h>

#include "filters/local_reply.h"
#include "filters/registry.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind grpc_web_filter();

namespace {

struct End final : BodyFlow {
  void on_body(std::string_view bytes, bool last) override {
    EXPECT_FALSE(ended);
    text += bytes;
    ++pieces;
    ended = last;
  }
  void on_trailers(Headers&) override { FAIL() << "trailers are in the body"; }
  std::string text;
  int pieces = 0;
  bool ended = false;
};

using std::string_literals::operator""s;

class GrpcWebTest : public testing::Test, public test::World {
 protected:
  GrpcWebTest() {
    say("grpc_web: true");
    filter = grpc_web_filter().make(context());
  }
  void call(std::string_view type, std::string_view accept = {}) {
    exchange("/test.Echo/unary");
    x->request.method = Method::kPost;
    header("Content-Type", type);
    if (!accept.empty()) header("accept", accept);
    header("X-Grpc-Web", "1");
    x->request.content_length = 8;
    EXPECT_EQ(filter->on_request(*x, control), Verdict::kContinue);
  }
  void field(std::string_view name, std::string_view value) {
    x->response.headers.add(header_id(name), name, value);
  }
  void answer() {
    field("content-type", "application/grpc+proto");
    EXPECT_EQ(filter->on_response(*x, control), Verdict::kContinue);
  }
  BodyFlow& response() { return x->response_body.into(end); }
  Headers trailers() {
    Headers trailers(x->arena);
    trailers.add(HeaderId::kGrpcStatus, "Grpc-Status", "0");
    trailers.add(HeaderId::kUnknown, "x-last", "yes");
    return trailers;
  }

  std::unique_ptr<const Filter> filter;
  End end;
};

const std::string kTrailers = "\x80\0\0\0\x1d"s + "grpc-status: 0\r\nx-last: yes\r\n";

TEST_F(GrpcWebTest, BinaryCallsGoOnAsGrpc) {
  call("application/grpc-web+proto");
  EXPECT_TRUE(x->is_grpc);
  EXPECT_EQ(sent("content-type"), "application/grpc+proto");
  EXPECT_EQ(sent("x-grpc-web"), "-");
  EXPECT_TRUE(x->request.te_trailers);
  EXPECT_TRUE(x->request_body.empty());
  EXPECT_EQ(x->request.content_length, 8);

  answer();
  EXPECT_EQ(answered("content-type"), "application/grpc-web+proto");
  response().on_body("message", false);
  Headers last = trailers();
  response().on_trailers(last);
  EXPECT_EQ(end.text, "message" + kTrailers);
  EXPECT_TRUE(end.ended);
}

TEST_F(GrpcWebTest, TextIsDecodedAndEncoded) {
  call("application/grpc-web-text");
  EXPECT_EQ(sent("content-type"), "application/grpc");
  EXPECT_EQ(x->request.content_length, std::nullopt);
  End up;
  x->request_body.into(up).on_body("Zm9vY", false);
  x->request_body.into(up).on_body("g==YmF6", true);
  EXPECT_EQ(up.text, "foobbaz");
  EXPECT_TRUE(up.ended);

  answer();
  EXPECT_EQ(answered("content-type"), "application/grpc-web-text+proto");
  // Whatever came leaves at once, padded.
  response().on_body("f", false);
  EXPECT_EQ(end.text, "Zg==");
  response().on_body("foo", false);
  EXPECT_EQ(end.text, "Zg==Zm9v");
  Headers last = trailers();
  response().on_trailers(last);
  EXPECT_EQ(end.text, "Zg==Zm9vgAAAAB1ncnBjLXN0YXR1czogMA0KeC1sYXN0OiB5ZXMNCg==");
}

TEST_F(GrpcWebTest, AcceptChoosesTheFormOfTheAnswer) {
  for (const auto& [type, accept, want] :
       {std::tuple{"application/grpc-web", "application/grpc-web-text",
                   "application/grpc-web-text+proto"},
        {"application/grpc-web-text", "application/grpc-web+proto", "application/grpc-web+proto"},
        {"application/grpc-web-text", "*/*", "application/grpc-web-text+proto"}}) {
    call(type, accept);
    answer();
    EXPECT_EQ(answered("content-type"), want);
  }
}

TEST_F(GrpcWebTest, WhatIsNoBase64EndsTheCall) {
  for (const char* body : {"Zm9", "Zm9v*m9v"}) {
    control.failed.reset();
    call("application/grpc-web-text");
    End up;
    x->request_body.into(up).on_body(body, true);
    EXPECT_EQ(control.failed, Reason::kBadRequest) << body;
    EXPECT_FALSE(up.ended);
  }
}

TEST_F(GrpcWebTest, AnAnswerOfTrailersAloneBecomesABody) {
  call("application/grpc-web");
  field("grpc-status", "12");
  field("grpc-message", "no");
  field("x-meta", "m");
  field("date", "today");
  field("access-control-allow-origin", "*");
  x->response_complete = true;
  answer();
  EXPECT_FALSE(x->response_complete);
  EXPECT_EQ(answered("grpc-status"), "-");
  EXPECT_EQ(answered("access-control-allow-origin"), "*");
  response().on_body({}, true);
  EXPECT_EQ(end.text, "\x80\0\0\0\x2e"s +
                          "grpc-status: 12\r\ngrpc-message: no\r\nx-meta: m\r\n"
                          "");
}

TEST_F(GrpcWebTest, OurOwnErrorsAreFramesToo) {
  call("application/grpc-web-text");
  x->reply(Reason::kNoEndpoint, "");
  EXPECT_EQ(local_reply(*x), "");
  x->response_complete = true;
  EXPECT_EQ(filter->on_response(*x, control), Verdict::kContinue);
  EXPECT_EQ(x->response.status, 200);
  EXPECT_EQ(answered("content-type"), "application/grpc-web-text");
  response().on_body({}, true);
  EXPECT_TRUE(end.text.starts_with("gAAAA")) << end.text;
}

TEST_F(GrpcWebTest, OtherRequestsAndAnswersPass) {
  for (const char* type : {"application/grpc", "application/grpc-webby", "application/json", ""}) {
    call(type);
    EXPECT_FALSE(x->is_grpc) << type;
    EXPECT_EQ(sent("content-type"), type);
    EXPECT_EQ(sent("x-grpc-web"), "1");
    answer();
    EXPECT_EQ(answered("content-type"), "application/grpc+proto");
    EXPECT_TRUE(x->response_body.empty());
  }
  call("application/grpc-web");
  field("content-type", "text/html");
  filter->on_response(*x, control);
  EXPECT_EQ(answered("content-type"), "text/html");
  EXPECT_TRUE(x->response_body.empty());
}

TEST_F(GrpcWebTest, OffIsOff) {
  say("grpc_web: false");
  EXPECT_EQ(grpc_web_filter().make(context()), nullptr);
}

}  // namespace
}  // namespace outrider
