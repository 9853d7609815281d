#include <gtest/gtest.h>

#include "filters/registry.h"
#include "tests/unit/filters/decoder.h"
#include "tests/unit/filters/fixture.h"

namespace outrider {

FilterKind compress_filter();

namespace {

// What comes out of a path.
struct End final : BodyFlow {
  void on_body(std::string_view bytes, bool last) override {
    EXPECT_FALSE(ended);
    text += bytes;
    ended = last;
  }
  void on_trailers(Headers&) override {
    EXPECT_FALSE(ended);
    ended = trailers = true;
  }
  std::string text;
  bool ended = false;
  bool trailers = false;
};

class CompressTest : public testing::Test, public test::World {
 protected:
  CompressTest() { say("compress: true"); }
  // A response that is compressed unless the test changes something.
  void answer(std::string_view accept_encoding, std::optional<std::uint64_t> length = 5000) {
    exchange();
    if (!accept_encoding.empty()) header("accept-encoding", accept_encoding);
    field("Content-Type", "text/html; charset=utf-8");
    x->response.content_length = length;
    if (length) field("Content-Length", "5000");
  }
  void field(std::string_view name, std::string_view value) {
    x->response.headers.set(header_id(name), name, value);
  }
  void filter() {
    made = compress_filter().make(context());
    ASSERT_NE(made, nullptr);
    EXPECT_EQ(made->on_response(*x, control), Verdict::kContinue);
  }
  std::string coding() { return answered("content-encoding"); }
  std::string coding_for(std::string_view accept_encoding) {
    answer(accept_encoding);
    filter();
    return coding();
  }
  BodyFlow& body() { return x->response_body.into(end); }

  std::unique_ptr<const Filter> made;
  End end;
};

TEST_F(CompressTest, TheClientsWeightsDecideAndOursBetweenEquals) {
  EXPECT_EQ(coding_for("gzip, deflate, br, zstd"), "br");
  EXPECT_EQ(coding_for("gzip, zstd"), "zstd");
  EXPECT_EQ(coding_for("gzip;q=1, br;q=0.9"), "gzip");
  EXPECT_EQ(coding_for("br;q=0, gzip"), "gzip");
  EXPECT_EQ(coding_for("*"), "br");
  EXPECT_EQ(coding_for("*;q=0.5, identity;q=0.1"), "br");
  EXPECT_EQ(coding_for("gzip;q=0.5, identity;q=0"), "gzip");
  EXPECT_EQ(coding_for("identity, gzip;q=0.5"), "-");
  EXPECT_EQ(coding_for("deflate"), "-");
  EXPECT_EQ(coding_for("gzip;q=0"), "-");
  EXPECT_EQ(coding_for(""), "-");
  say("compress: { algorithms: [gzip, br] }");
  EXPECT_EQ(coding_for("br, zstd, gzip"), "gzip");
  EXPECT_EQ(coding_for("br, zstd"), "br");
  EXPECT_EQ(coding_for("zstd"), "-");
}

TEST_F(CompressTest, TheHeadSaysWhatWasDone) {
  answer("gzip");
  field("ETag", "\"abc\"");
  field("Accept-Ranges", "bytes");
  field("Content-MD5", "x");
  field("repr-digest", "x");
  filter();
  EXPECT_EQ(coding(), "gzip");
  EXPECT_EQ(answered("vary"), "Accept-Encoding");
  EXPECT_EQ(answered("etag"), "W/\"abc\"");
  for (const char* name : {"content-length", "accept-ranges", "content-md5", "repr-digest"})
    EXPECT_EQ(answered(name), "-") << name;
  EXPECT_EQ(x->response.content_length, std::nullopt);
  EXPECT_EQ(x->events[0], Event::kCompressedGzip);
}

TEST_F(CompressTest, WhatCouldHaveBeenSaysSo) {
  answer("");
  field("ETag", "\"abc\"");
  field("Vary", "Origin");
  filter();
  EXPECT_EQ(answered("vary"), "Origin|Accept-Encoding");
  EXPECT_EQ(answered("etag"), "\"abc\"");
  EXPECT_EQ(x->response.content_length, 5000);
  EXPECT_TRUE(x->response_body.empty());

  for (const char* vary : {"Accept-Encoding", "Origin, accept-encoding", "*"}) {
    answer("gzip");
    field("Vary", vary);
    filter();
    EXPECT_EQ(answered("vary"), vary);
  }
}

TEST_F(CompressTest, WhatMustNotChangePasses) {
  const auto passes = [&](const char* what) {
    filter();
    EXPECT_TRUE(x->response_body.empty()) << what;
    EXPECT_EQ(answered("vary"), "-") << what;
    EXPECT_EQ(x->response.content_length, 5000) << what;
  };
  for (const auto& [name, value] : {std::pair{"Content-Encoding", "gzip"},
                                    {"Cache-Control", "public, No-Transform"},
                                    {"Content-Range", "bytes 0-1/2"},
                                    {"Content-Type", "image/png"},
                                    {"Content-Type", "textual"}}) {
    answer("gzip");
    field(name, value);
    passes(value);
  }
  for (const int status : {101, 204, 206}) {
    answer("gzip");
    x->response.status = status;
    x->response_complete = status == 204;
    passes("status");
  }
  answer("gzip");
  header("cache-control", "no-transform");
  passes("request");
  answer("gzip");
  x->is_grpc = true;
  passes("grpc");
  answer("gzip");
  x->tunnel = true;
  passes("tunnel");
  answer("gzip");
  x->response_complete = true;
  passes("no body");
}

TEST_F(CompressTest, ShortBodiesAndOtherTypesAreTheRoutesChoice) {
  answer("gzip", 1023);
  filter();
  EXPECT_EQ(coding(), "-");
  answer("gzip", 1024);
  filter();
  EXPECT_EQ(coding(), "gzip");
  answer("gzip", std::nullopt);
  filter();
  EXPECT_EQ(coding(), "gzip");

  say("compress: { min_size: 10, types: [application/*+json, image/PNG] }");
  for (const auto& [type, want] : {std::pair{"application/problem+json", "gzip"},
                                   {"application/json", "-"},
                                   {"image/png", "gzip"},
                                   {"Image/PNG; x=y", "gzip"},
                                   {"text/html", "-"},
                                   {"", "-"}}) {
    answer("gzip", 10);
    field("Content-Type", type);
    filter();
    EXPECT_EQ(coding(), want) << type;
  }
  say("compress: { types: '*' }");
  answer("gzip");
  field("Content-Type", "a/b");
  filter();
  EXPECT_EQ(coding(), "gzip");
}

TEST_F(CompressTest, HeadAndNotModifiedSayWhatGetWould) {
  answer("gzip");
  field("ETag", "\"abc\"");
  x->request.method = Method::kHead;
  x->response_complete = true;
  filter();
  EXPECT_EQ(coding(), "gzip");
  EXPECT_EQ(answered("etag"), "W/\"abc\"");
  EXPECT_TRUE(x->response_body.empty());
  EXPECT_EQ(x->event_count, 0);

  for (const auto& [has, want] :
       {std::pair{"\"x\", W/\"abc\"", "W/\"abc\""}, {"\"abc\"", "\"abc\""}}) {
    answer("gzip", std::nullopt);
    header("if-none-match", has);
    x->response.headers.clear();
    field("ETag", "\"abc\"");
    x->response.status = 304;
    x->response_complete = true;
    filter();
    EXPECT_EQ(answered("etag"), want);
    EXPECT_EQ(coding(), "-");
  }
}

TEST_F(CompressTest, TheClientIsAskedBeforeItsRequestIsEdited) {
  answer("gzip");
  made = compress_filter().make(context());
  EXPECT_EQ(made->on_request(*x, control), Verdict::kContinue);
  x->request.headers.clear();
  EXPECT_EQ(made->on_response(*x, control), Verdict::kContinue);
  EXPECT_EQ(coding(), "gzip");
}

TEST_F(CompressTest, OffIsOff) {
  say("compress: false");
  EXPECT_EQ(compress_filter().make(context()), nullptr);
  say("compress: { enabled: false, level: fast }");
  EXPECT_EQ(compress_filter().make(context()), nullptr);
}

TEST_F(CompressTest, BodiesAreLetGoAfterAWhile) {
  answer("gzip", std::nullopt);
  filter();
  test::Decoder decoder("gzip");
  body().on_body("one ", false);
  EXPECT_EQ(control.flush, limits::kCompressWait);
  body().on_body("two ", false);
  EXPECT_EQ(decoder.feed(std::exchange(end.text, "")), "");
  body().on_flush();
  EXPECT_EQ(decoder.feed(std::exchange(end.text, "")), "one two ");
  control.flush.reset();
  body().on_body("three", false);
  EXPECT_EQ(control.flush, limits::kCompressWait);
  body().on_body("!", true);
  EXPECT_EQ(decoder.feed(end.text), "three!");
  EXPECT_TRUE(decoder.whole());
  EXPECT_TRUE(end.ended);
  body().on_flush();  // too late to matter
  EXPECT_TRUE(decoder.whole());
}

TEST_F(CompressTest, EventsAreLetGoAtOnce) {
  answer("gzip", std::nullopt);
  x->is_sse = true;
  filter();
  test::Decoder decoder("gzip");
  for (const char* event : {"data: 1\n\n", "data: 2\n\n"}) {
    body().on_body(event, false);
    EXPECT_EQ(decoder.feed(std::exchange(end.text, "")), event);
  }
  EXPECT_EQ(control.flush, std::nullopt);
}

TEST_F(CompressTest, TrailersFollowTheWholeBody) {
  answer("br", std::nullopt);
  filter();
  test::Decoder decoder("br");
  body().on_body("text", false);
  Headers trailers(x->arena);
  body().on_trailers(trailers);
  EXPECT_TRUE(end.trailers);
  EXPECT_EQ(decoder.feed(end.text), "text");
  EXPECT_TRUE(decoder.whole());
}

TEST_F(CompressTest, AnEmptyBodyIsStillOne) {
  answer("zstd", std::nullopt);
  filter();
  test::Decoder decoder("zstd");
  body().on_body({}, true);
  EXPECT_TRUE(end.ended);
  EXPECT_EQ(decoder.feed(end.text), "");
  EXPECT_TRUE(decoder.whole());
}

TEST_F(CompressTest, NotMoreAtOnceThanAWorkerHasMemoryFor) {
  made = compress_filter().make(context());
  std::vector<std::unique_ptr<Exchange>> busy;
  for (unsigned i = 0; i < limits::kCompressing; ++i) {
    auto& one = *busy.emplace_back(std::make_unique<Exchange>(blocks, client));
    one.request.headers.add(HeaderId::kAcceptEncoding, "gzip");
    one.response.headers.add(HeaderId::kContentType, "text/html");
    made->on_response(one, control);
    ASSERT_FALSE(one.response_body.empty());
  }
  answer("gzip");
  filter();
  EXPECT_EQ(coding(), "-");
  EXPECT_EQ(answered("vary"), "Accept-Encoding");
  EXPECT_EQ(x->events[0], Event::kCompressBusy);
  busy.pop_back();
  EXPECT_EQ(coding_for("gzip"), "gzip");
}

}  // namespace
}  // namespace outrider
