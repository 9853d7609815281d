// Filters that change or hold bodies, seen from both sides: compressed responses, gRPC-Web,
// requests that wait for their whole body.
// Invariant: what arrives decodes to what was sent, no event waits for the next one, and nobody's
// pace costs memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"
#include "tests/unit/filters/decoder.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;
using std::string_literals::operator""s;

std::string page(std::size_t size) {
  std::string text;
  for (int i = 0; text.size() < size; ++i) text += "<li>" + std::to_string(i * 7919) + "</li>\n";
  text.resize(size);
  return text;
}

std::string decoded(const Response& response) {
  Decoder decoder(response.fields.value("content-encoding"));
  std::string text = decoder.feed(response.body);
  EXPECT_TRUE(decoder.whole());
  return text;
}

// Reads until so much of the body is readable, or it ends.
std::string read_decoded(Stream& stream, Decoder& decoder, std::size_t size) {
  std::string text;
  char piece[4096];
  while (text.size() < size) {
    const std::size_t got = stream.read(piece, sizeof piece);
    if (got == 0) break;
    text += decoder.feed({piece, got});
  }
  return text;
}

// ---- compress

class Compressed : public testing::TestWithParam<std::tuple<Protocol, const char*>> {
 protected:
  static Protocol protocol() { return std::get<0>(GetParam()); }
  static std::string coding() { return std::get<1>(GetParam()); }
  static Request asking(std::string target = "/") {
    return {.target = std::move(target), .fields = {{"accept-encoding", coding()}}};
  }
};

constexpr char kCompressing[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { shop: "$SHOP" }
    routes:
      - { name: shop, to: shop, compress: true }
      - { name: own, match: /own, respond: { body: "$BODY" }, compress: { min_size: 100 } })";

TEST_P(Compressed, BodiesOfEveryKindComeBack) {
  const std::string body = page(300'000);
  HttpOrigin shop = HttpOrigin([&](Stream& stream, const Head& head) {
    Response response{.status = 200, .fields = {{"content-type", "text/html"}}, .body = body};
    if (head.target == "/chunked") response.trailers = {{"x-last", "yes"}};
    if (head.target != "/chunked")
      response.fields.push_back({"content-length", std::to_string(body.size())});
    response.fields.push_back({"etag", "\"1\""});
    stream.send(response);
  });
  Outrider proxy(kCompressing, {{"SHOP", shop.address()}, {"BODY", std::string(500, 'x')}});
  Client client = proxy.client(protocol());

  const Response known = client.request(asking());
  EXPECT_EQ(known.fields.value("content-encoding"), coding());
  EXPECT_EQ(known.fields.value("vary"), "Accept-Encoding");
  EXPECT_EQ(known.fields.value("etag"), "W/\"1\"");
  EXPECT_FALSE(known.fields.has("content-length"));
  EXPECT_LT(known.body.size(), body.size() / 2);
  EXPECT_EQ(decoded(known), body);

  const Response chunked = client.request(asking("/chunked"));
  EXPECT_EQ(decoded(chunked), body);
  EXPECT_EQ(chunked.trailers.value("x-last"), "yes");

  const Response own = client.request(asking("/own"));
  EXPECT_EQ(decoded(own), std::string(500, 'x'));

  const Response plain = client.get("/");
  EXPECT_EQ(plain.body, body);
  EXPECT_EQ(plain.fields.value("vary"), "Accept-Encoding");
  EXPECT_EQ(plain.fields.value("etag"), "\"1\"");

  Request head = asking();
  head.method = "HEAD";
  EXPECT_EQ(client.request(head).fields.value("content-encoding"), coding());

  EXPECT_EQ(
      proxy.await_metric("outrider_compressed_total{route='shop',coding='" + coding() + "'}", 2),
      2);
}

TEST_P(Compressed, EventsArriveOneByOne) {
  for (const char* type : {"text/event-stream", "text/html"}) {
    std::promise<void> seen;
    HttpOrigin shop([&](Stream& stream, const Head&) {
      stream.send_head({.status = 200, .fields = {{"content-type", type}}}, false);
      stream.write("data: one\n\n");
      seen.get_future().wait();  // the second comes when the first was read
      stream.write("data: two\n\n");
      stream.finish();
    });
    Outrider proxy(kCompressing, {{"SHOP", shop.address()}, {"BODY", ""}});
    Client client = proxy.client(protocol());
    const auto stream = client.open();
    stream->send_head(asking().head(), true);
    EXPECT_EQ(stream->read_head().fields.value("content-encoding"), coding());
    Decoder decoder(coding());
    EXPECT_EQ(read_decoded(*stream, decoder, 11), "data: one\n\n") << type;
    seen.set_value();
    EXPECT_EQ(read_decoded(*stream, decoder, 12), "data: two\n\n") << type;
    EXPECT_TRUE(decoder.whole());
  }
}

TEST_P(Compressed, ACutBodyDoesNotLookWhole) {
  HttpOrigin shop([&](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-type", "text/html"}}}, false);
    stream.write(page(100'000));
    stream.reset();
  });
  Outrider proxy(kCompressing, {{"SHOP", shop.address()}, {"BODY", ""}});
  Client client = proxy.client(protocol());
  const auto stream = client.open();
  stream->send_head(asking().head(), true);
  EXPECT_THROW(
      {
        stream->read_head();
        stream->read_body();
      },
      HarnessError);
}

INSTANTIATE_TEST_SUITE_P(All, Compressed,
                         testing::Combine(testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                                          testing::Values("br", "zstd", "gzip")));

TEST(Compress, AReaderThatStopsStopsTheOrigin) {
  constexpr std::uint64_t kTotal = 96 * 1024 * 1024;
  std::atomic<std::uint64_t> written = 0;
  HttpOrigin shop([&](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-type", "text/plain"}}}, false);
    Pattern pattern(1);
    std::string piece(256 * 1024, '\0');
    while (pattern.position() < kTotal) {
      pattern.next(piece.data(), piece.size());
      stream.write(piece);
      written = pattern.position();
    }
    stream.finish();
  });
  Outrider proxy(kCompressing, {{"SHOP", shop.address()}, {"BODY", ""}});
  Client client = proxy.client();
  const auto stream = client.open();
  stream->send_head(Request{.fields = {{"accept-encoding", "zstd"}}}.head(), true);
  EXPECT_EQ(stream->read_head().fields.value("content-encoding"), "zstd");
  // Until nothing has moved for half a second.
  for (std::uint64_t before = 1; before != written; std::this_thread::sleep_for(500ms))
    before = written;
  EXPECT_LT(written, kTotal / 2);

  Decoder decoder("zstd");
  Pattern pattern(1);
  char piece[65'536];
  for (std::size_t got; (got = stream->read(piece, sizeof piece)) != 0;) {
    const std::string text = decoder.feed({piece, got});
    ASSERT_TRUE(pattern.matches(text.data(), text.size()));
  }
  EXPECT_EQ(pattern.position(), kTotal);
  EXPECT_TRUE(decoder.whole());
}

TEST(Compress, WhatTheOriginEncodedOrForbidsPassesAsItIs) {
  const std::string body = page(5000);
  HttpOrigin shop([&](Stream& stream, const Head& head) {
    Response response{.status = 200, .fields = {{"content-type", "text/html"}}, .body = body};
    if (head.target == "/coded") response.fields.push_back({"content-encoding", "deflate"});
    if (head.target == "/fixed") response.fields.push_back({"cache-control", "no-transform"});
    if (head.target == "/part") response.status = 206;
    if (head.target == "/part") response.fields.push_back({"content-range", "bytes 0-4999/9000"});
    stream.send(response);
  });
  Outrider proxy(kCompressing, {{"SHOP", shop.address()}, {"BODY", ""}});
  Client client = proxy.client();
  for (const char* target : {"/coded", "/fixed", "/part"}) {
    const Response response =
        client.request({.target = target, .fields = {{"accept-encoding", "br, gzip"}}});
    EXPECT_EQ(response.body, body) << target;
    EXPECT_FALSE(response.fields.has("vary")) << target;
  }
}

// ---- buffer

constexpr char kBuffering[] = R"(
    outrider: v1
    listeners: { main: { address: 127.0.0.1:0, timeouts: { body: 1s } } }
    services: { shop: "$SHOP" }
    routes:
      - { name: held, match: /held/**, to: shop, buffer: 1MiB, retry: { when: [503] } }
      - { name: free, match: /free/**, to: shop, retry: { when: [503] } })";

class Buffered : public testing::TestWithParam<Protocol> {
 protected:
  HttpOrigin shop_ = HttpOrigin::echoing();
  Outrider proxy_{kBuffering, {{"SHOP", shop_.address()}}};
};

TEST_P(Buffered, NothingGoesOnBeforeTheLastByte) {
  Client client = proxy_.client(GetParam());
  const auto stream = client.open();
  stream->send_head(Request{.method = "POST", .target = "/held/a"}.head(), false);
  stream->write(std::string(300'000, 'a'));
  // What came in meanwhile passes it.
  EXPECT_EQ(proxy_.client(GetParam()).post("/free/b", "b").status, 200);
  EXPECT_EQ(shop_.requests(), 1);
  stream->write("the end");
  stream->finish();
  const Response response = stream->read_response();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, std::string(300'000, 'a') + "the end");
  const Head head = shop_.heads().back();
  EXPECT_EQ(head.fields.value("content-length"), "300007");
  EXPECT_FALSE(head.fields.has("transfer-encoding"));
}

TEST_P(Buffered, BodiesAsLongAsItHoldsAndNoLonger) {
  Client client = proxy_.client(GetParam());
  EXPECT_EQ(client.post("/held/a", std::string(1024 * 1024, 'x')).body.size(), 1024U * 1024);
  EXPECT_EQ(client.get("/held/a").status, 200);
  EXPECT_FALSE(shop_.heads().back().fields.has("content-length"));

  const Response declared = client.post("/held/a", std::string(1024 * 1024 + 1, 'x'));
  EXPECT_EQ(declared.status, 413);
  EXPECT_THAT(declared.body, HasSubstr("buffer 1048576, set at "));

  Client other = proxy_.client(GetParam());
  const auto stream = other.open();
  stream->send_head(Request{.method = "POST", .target = "/held/a"}.head(), false);
  stream->write(std::string(1024 * 1024 + 1, 'x'));
  stream->read_head();
  EXPECT_EQ(proxy_.log(4).back().at("reason"), "body_too_large");
  EXPECT_EQ(shop_.requests(), 2);
}

TEST_P(Buffered, TrailersGoOnWithIt) {
  const Response response =
      proxy_.client(GetParam())
          .request(
              {.method = "POST", .target = "/held/a", .body = "b", .trailers = {{"x-t", "1"}}});
  EXPECT_EQ(response.body, "b");
  EXPECT_EQ(response.trailers.value("x-t"), "1");
}

TEST_P(Buffered, AnUploadThatStallsEnds) {
  Client client = proxy_.client(GetParam());
  const auto stream = client.open();
  stream->send_head(Request{.method = "POST", .target = "/held/a"}.head(), false);
  stream->write("a");
  EXPECT_EQ(stream->read_head().status, 408);
  EXPECT_EQ(shop_.requests(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, Buffered, testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& it) { return std::string(name_of(it.param)); });

TEST(Buffer, ContinuesByItself) {
  HttpOrigin shop = HttpOrigin::echoing();
  Outrider proxy(kBuffering, {{"SHOP", shop.address()}});
  RawClient client = proxy.raw();
  client.send(
      "POST /held/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(client.read_head_text(), HasSubstr("HTTP/1.1 100 "));
  EXPECT_EQ(shop.requests(), 0);
  client.send("hello");
  const Response response = client.read_response("POST");
  EXPECT_EQ(response.body, "hello");
  EXPECT_FALSE(shop.heads().back().fields.has("expect"));
  // What is too large is not asked for.
  client.send(
      "POST /held/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n"
      "\r\n");
  EXPECT_THAT(client.read_head_text(), HasSubstr("HTTP/1.1 413 "));
}

// What is held is there for a further attempt, too, whatever retry.buffer says.
TEST(Buffer, IsReplayed) {
  std::atomic<int> attempts = 0;
  HttpOrigin shop([&](Stream& stream, const Head&) {
    const std::string body = stream.read_body();
    stream.send(Response{.status = attempts++ == 0 ? 503 : 200, .body = body});
  });
  Outrider proxy(kBuffering, {{"SHOP", shop.address()}});
  Client client = proxy.client();
  const Request put{.method = "PUT", .target = "/held/a", .body = std::string(500'000, 'p')};
  const Response held = client.request(put);
  EXPECT_EQ(held.status, 200);
  EXPECT_EQ(held.body, put.body);
  attempts = 0;
  Request free = put;
  free.target = "/free/a";
  EXPECT_EQ(client.request(free).status, 503);
}

// ---- grpc_web

constexpr char kGrpcWeb[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { echo: "$ECHO", gone: "$REFUSING" }
    routes:
      - { match: /gone/**, to: gone, grpc_web: true }
      - { to: echo, grpc_web: true })";

class GrpcWeb : public testing::TestWithParam<Protocol> {
 protected:
  // Echoes what is no call to `/none`.
  HttpOrigin echo_{[](Stream& stream, const Head& head) {
    const std::string body = stream.read_body();
    Head answer{.status = 200, .fields = {{"content-type", "application/grpc+proto"}}};
    if (head.target == "/none") {
      answer.fields.push_back({"grpc-status", "12"});
      return stream.send_head(answer, true);
    }
    stream.send_head(answer, false);
    stream.write(body);
    stream.finish({{"grpc-status", "0"}, {"x-last", "yes"}});
  }};
  Outrider proxy_{kGrpcWeb, {{"ECHO", echo_.address()}}};
  Response call(const std::string& target, const std::string& type, std::string body) {
    return proxy_.client(GetParam())
        .request({.method = "POST",
                  .target = target,
                  .fields = {{"content-type", type}},
                  .body = std::move(body)});
  }
};

const std::string kMessage = "\0\0\0\0\2hi"s;
const std::string kTrailers = "\x80\0\0\0\x1d"s + "grpc-status: 0\r\nx-last: yes\r\n";

TEST_P(GrpcWeb, CallsAreGrpcToTheService) {
  const Response binary = call("/a", "application/grpc-web+proto", kMessage);
  EXPECT_EQ(binary.status, 200);
  EXPECT_EQ(binary.fields.value("content-type"), "application/grpc-web+proto");
  EXPECT_EQ(binary.body, kMessage + kTrailers);
  const Head head = echo_.heads().back();
  EXPECT_EQ(head.fields.value("content-type"), "application/grpc+proto");
  EXPECT_EQ(head.fields.value("te"), "trailers");

  const Response text = call("/a", "application/grpc-web-text", "AAAAAAJoaQ==");
  EXPECT_EQ(text.fields.value("content-type"), "application/grpc-web-text+proto");
  EXPECT_EQ(text.body, "AAAAAAJoaQ==gAAAAB1ncnBjLXN0YXR1czogMA0KeC1sYXN0OiB5ZXMNCg==");
}

TEST_P(GrpcWeb, AnAnswerAndAnErrorOfTrailersAloneAreFrames) {
  const Response none = call("/none", "application/grpc-web", kMessage);
  EXPECT_EQ(none.status, 200);
  EXPECT_FALSE(none.fields.has("grpc-status"));
  EXPECT_EQ(none.body, "\x80\0\0\0\x11grpc-status: 12\r\n"s);

  const Response gone = call("/gone/a", "application/grpc-web", kMessage);
  EXPECT_EQ(gone.status, 200);
  EXPECT_EQ(gone.fields.value("content-type"), "application/grpc-web");
  EXPECT_EQ(gone.body.substr(0, 1), "\x80");
  EXPECT_THAT(gone.body, HasSubstr("grpc-status: 14\r\ngrpc-message: "));
  EXPECT_EQ(proxy_.log(2).back().at("reason"), "connect_failure");

  const Response bad = call("/a", "application/grpc-web-text", "Zm9*");
  EXPECT_THAT(bad.body, testing::StartsWith("gAAAA"));
  EXPECT_EQ(proxy_.log(3).back().at("reason"), "bad_request");
}

TEST_P(GrpcWeb, MessagesArriveOneByOne) {
  std::promise<void> seen;
  HttpOrigin slow([&](Stream& stream, const Head&) {
    stream.send_head({.status = 200, .fields = {{"content-type", "application/grpc"}}}, false);
    stream.write("\0\0\0\0\1a"s);
    seen.get_future().wait();
    stream.write("\0\0\0\0\1b"s);
    stream.finish({{"grpc-status", "0"}});
  });
  Outrider proxy(kGrpcWeb, {{"ECHO", slow.address()}});
  Client client = proxy.client(GetParam());
  const auto stream = client.open();
  stream->send_head(
      Request{.method = "POST",
              .fields = {{"content-type", "application/grpc-web-text"}, {"content-length", "8"}}}
          .head(),
      false);
  stream->write("AAAAAAA=");
  stream->finish();
  stream->read_head();
  char piece[64];
  EXPECT_EQ(std::string(piece, stream->read(piece, sizeof piece)), "AAAAAAFh");
  seen.set_value();
  EXPECT_EQ(stream->read_body(), "AAAAAAFigAAAABBncnBjLXN0YXR1czogMA0K");
}

INSTANTIATE_TEST_SUITE_P(All, GrpcWeb, testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& it) { return std::string(name_of(it.param)); });

}  // namespace
}  // namespace outrider::test
