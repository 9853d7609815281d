// The HTTP/2 client codec against an upstream whose frames are made by hand: requests out, what an
// answer may be, and what may be sent again elsewhere.
#include <gmock/gmock.h>

#include "tests/unit/proxy/h2_harness.h"

namespace outrider::h2test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

const Fields kOk = {{":status", "200"}};
std::string hello() { return settings() + frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0); }
std::string goaway(std::uint32_t last, std::uint32_t code = NGHTTP2_NO_ERROR) {
  return frame(NGHTTP2_GOAWAY, 0, 0, number(last) + number(code));
}

TEST(H2Client, BeginsWithPrefaceAndSettings) {
  Client client;
  const std::string bytes = client.wire.turn(*client.codec);
  EXPECT_TRUE(bytes.starts_with(NGHTTP2_CLIENT_MAGIC));
  const std::vector<Frame> frames = client.reader.read(bytes);
  ASSERT_EQ(frames.size(), 2U);
  ASSERT_EQ(frames[0].type, NGHTTP2_SETTINGS);
  std::map<std::uint32_t, std::uint32_t> values;
  for (std::size_t at = 0; at < frames[0].payload.size(); at += 6)
    values[frames[0].number(at) >> 16] = frames[0].number(at + 2);
  EXPECT_EQ(values.at(NGHTTP2_SETTINGS_ENABLE_PUSH), 0U);
  EXPECT_EQ(values.at(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE), limits::kH2Window);
}

TEST(H2Client, IsSettledWhenTheUpstreamsSettingsAreKnown) {
  Client client;
  EXPECT_FALSE(client.codec->settled());
  client.exchange(settings());
  EXPECT_TRUE(client.codec->settled());
  EXPECT_GE(client.capacity_changes, 1);
}

TEST(H2Client, SendsARequestAndReadsTheAnswer) {
  Client client;
  Response* const response = client.open();
  RequestHead& head = client.request("POST", "/a?b",
                                     {{"Host", "h"},
                                      {"Content-Length", "9"},
                                      {"X-Own", "1"},
                                      {"Connection", "x"},
                                      {"cookie", "s=1"},
                                      {"TE", "gzip"}});
  head.content_length = 4;
  head.te_trailers = true;
  response->stream->send_request(head, false);
  response->stream->send_body("body", true);
  std::vector<Frame> frames = client.turn();
  ASSERT_EQ(frames.size(), 4U);
  EXPECT_THAT(client.reader.decode(frames[2].payload),
              ElementsAre(Pair(":method", "POST"), Pair(":scheme", "http"),
                          Pair(":authority", "shop.example"), Pair(":path", "/a?b"),
                          Pair("content-length", "4"), Pair("x-own", "1"), Pair("cookie", "s=1"),
                          Pair("te", "trailers")));
  EXPECT_EQ(frames[3].payload, "body");
  EXPECT_TRUE(frames[3].has(kEnd));
  EXPECT_EQ(response->sent, 1);
  client.exchange(
      hello() + headers(1, {{":status", "103"}, {"link", "x"}}, false) +
      headers(1, {{":status", "200"}, {"content-length", "2"}, {"server", "s"}}, false) +
      data(1, "ok", true));
  EXPECT_THAT(response->interims, ElementsAre(103));
  EXPECT_EQ(response->message.status, 200);
  EXPECT_EQ(response->message.version, Version::kHttp2);
  EXPECT_EQ(response->message.content_length, 2U);
  EXPECT_THAT(response->fields, ElementsAre(Pair("server", "s")))
      << "nothing of the interim response is left";
  EXPECT_EQ(response->body, "ok");
  EXPECT_TRUE(response->ended);
  EXPECT_EQ(response->stream, nullptr);
  EXPECT_TRUE(client.codec->idle());
  EXPECT_TRUE(client.codec->reusable());
}

TEST(H2Client, TrailersBothWays) {
  Client client;
  Response& response = client.send("POST", "/", false);
  Headers trailers(client.arena);
  trailers.add(HeaderId::kUnknown, "X-Sum", "1");
  response.stream->send_body("b", false);
  response.stream->send_trailers(trailers);
  const std::vector<Frame> frames = client.turn();
  EXPECT_THAT(client.reader.decode(frames.at(2).payload),
              ElementsAre(Pair(":method", "POST"), Pair(":scheme", "http"),
                          Pair(":authority", "shop.example"), Pair(":path", "/")));
  EXPECT_THAT(client.reader.decode(frames.at(4).payload), ElementsAre(Pair("x-sum", "1")));
  client.exchange(hello() + headers(1, kOk, false) + data(1, "x", false) +
                  headers(1, {{"grpc-status", "0"}, {"set-cookie", "no"}}, true));
  EXPECT_THAT(response.trailers, ElementsAre(Pair("grpc-status", "0")));
  EXPECT_TRUE(response.ended);
}

TEST(H2Client, WebSocketsGoByExtendedConnect) {
  Client client;
  EXPECT_FALSE(client.codec->takes_upgrades());
  client.exchange(settings({{NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}}));
  ASSERT_TRUE(client.codec->takes_upgrades());
  for (const bool taken : {true, false}) {
    Response* const response = client.open();
    RequestHead& head =
        client.request("GET", "/ws", {{"Sec-WebSocket-Key", "k"}, {"Sec-WebSocket-Version", "13"}});
    head.upgrade = "websocket";
    response->stream->send_request(head, false);
    const std::vector<Frame> frames = client.turn();
    EXPECT_THAT(client.reader.decode(frames.at(0).payload),
                ElementsAre(Pair(":method", "CONNECT"), Pair(":protocol", "websocket"),
                            Pair(":scheme", "http"), Pair(":authority", "shop.example"),
                            Pair(":path", "/ws"), Pair("sec-websocket-version", "13")));
    const std::uint32_t id = frames[0].stream;
    if (taken) {
      client.exchange(headers(id, {{":status", "200"}, {"sec-websocket-protocol", "chat"}}, false) +
                      data(id, "hi", false));
      EXPECT_EQ(response->message.status, 101);
      EXPECT_EQ(response->body, "hi");
      response->stream->send_body("ho", true);
      EXPECT_EQ(client.turn().at(0).payload, "ho");
      client.exchange(data(id, "", true));
    } else {
      client.exchange(headers(id, {{":status", "403"}, {"content-length", "2"}}, false) +
                      data(id, "no", true));
      EXPECT_EQ(response->message.status, 403);
      response->stream->release();
      response->stream = nullptr;
    }
    EXPECT_TRUE(response->ended);
  }
}

// --- Bad answers

struct BadAnswer {
  const char* name;
  std::string frames;
  const char* method = "GET";
};

class H2ClientBadAnswer : public ::testing::TestWithParam<BadAnswer> {};

TEST_P(H2ClientBadAnswer, IsAProtocolErrorOfTheUpstream) {
  Client client({.max_header_bytes = 4096});
  Response& response = client.send(GetParam().method, "/");
  client.exchange(hello() + GetParam().frames);
  EXPECT_EQ(response.resets, 1);
  EXPECT_EQ(response.error.reason, Reason::kUpstreamProtocolError);
  EXPECT_EQ(response.error.origin, Origin::kUpstream);
  EXPECT_FALSE(response.error.repeatable);
  EXPECT_FALSE(response.detail.empty());
  EXPECT_FALSE(response.ended);
  EXPECT_EQ(client.count(NGHTTP2_RST_STREAM, NGHTTP2_PROTOCOL_ERROR), 1U);
  EXPECT_FALSE(client.wire.closed);
  Response& next = client.send("GET", "/next");
  client.turn();
  client.exchange(headers(3, kOk, true));
  EXPECT_TRUE(next.ended);
}

std::string answer(const Fields& fields, bool last = true) { return headers(1, fields, last); }
std::string interims(int count) {
  std::string frames;
  for (int i = 0; i < count; ++i) frames += answer({{":status", "102"}}, false);
  return frames;
}
Fields many_fields(int count) {
  Fields fields = kOk;
  for (int i = 0; i < count; ++i) fields.emplace_back("x", "");
  return fields;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, H2ClientBadAnswer,
    ::testing::Values(
        BadAnswer{"NoStatus", answer({{"a", "b"}})},
        BadAnswer{"EmptyStatus", answer({{":status", ""}})},
        BadAnswer{"StatusZero", answer({{":status", "0"}})},
        BadAnswer{"Status099", answer({{":status", "099"}})},
        BadAnswer{"Status600", answer({{":status", "600"}})},
        BadAnswer{"Status2000", answer({{":status", "2000"}})},
        BadAnswer{"StatusNegative", answer({{":status", "-20"}})},
        BadAnswer{"StatusLetters", answer({{":status", "2OO"}})},
        BadAnswer{"Status101", answer({{":status", "101"}}, false)},
        BadAnswer{"StatusTwice", answer({{":status", "200"}, {":status", "200"}})},
        BadAnswer{"StatusBehindFields", answer({{"a", "b"}, {":status", "200"}})},
        BadAnswer{"RequestPseudo", answer({{":status", "200"}, {":path", "/"}})},
        BadAnswer{"UpperCase", answer(with(kOk, {{"Server", "x"}}))},
        BadAnswer{"LineInValue", answer(with(kOk, {{"server", "a\r\nb"}}))},
        BadAnswer{"NulInValue", answer(with(kOk, {{"server", std::string("a\0", 2)}}))},
        BadAnswer{"SpaceInName", answer(with(kOk, {{"a b", "x"}}))},
        BadAnswer{"Connection", answer(with(kOk, {{"connection", "close"}}))},
        BadAnswer{"TransferEncoding", answer(with(kOk, {{"transfer-encoding", "chunked"}}))},
        BadAnswer{"LengthTwice",
                  answer(with(kOk, {{"content-length", "0"}, {"content-length", "0"}}))},
        BadAnswer{"LengthNegative", answer(with(kOk, {{"content-length", "-1"}}))},
        BadAnswer{"LengthHuge", answer(with(kOk, {{"content-length", "99999999999999999999"}}))},
        BadAnswer{"LengthWithoutBody", answer(with(kOk, {{"content-length", "1"}}))},
        BadAnswer{"LessBody",
                  answer(with(kOk, {{"content-length", "5"}}), false) + data(1, "four", true)},
        BadAnswer{"MoreBody",
                  answer(with(kOk, {{"content-length", "3"}}), false) + data(1, "four", false)},
        BadAnswer{"BodyOfHead", answer(kOk, false) + data(1, "x", true), "HEAD"},
        BadAnswer{"BodyOf204", answer({{":status", "204"}}, false) + data(1, "x", true)},
        BadAnswer{"BodyOf304", answer({{":status", "304"}, {"content-length", "1"}}, false) +
                                   data(1, "x", true)},
        BadAnswer{"InterimThatEnds", answer({{":status", "100"}}, true)},
        BadAnswer{"TooManyInterims", interims(11)},
        BadAnswer{"BodyAfterInterim", interims(1) + data(1, "x", true)},
        BadAnswer{"EndAfterInterim", interims(1) + data(1, "", true)},
        BadAnswer{"TooManyFields", answer(many_fields(201))},
        BadAnswer{"LongHead", answer(with(kOk, {{"x", std::string(4096, 'x')}}))},
        BadAnswer{"TrailersThatDoNotEnd", answer(kOk, false) + answer({{"x", "y"}}, false)},
        BadAnswer{"StatusInTrailers", answer(kOk, false) + answer(kOk, true)}),
    [](const auto& row) { return row.param.name; });

TEST(H2Client, AcceptsWhatOnlyLooksOdd) {
  struct Row {
    std::string frames;
    const char* method;
    std::optional<std::uint64_t> length;
  };
  const Row rows[] = {
      {answer({{":status", "204"}, {"content-length", "0"}}), "GET", std::nullopt},
      {answer(with(kOk, {{"content-length", "100"}})), "HEAD", 100U},
      {answer({{":status", "304"}, {"content-length", "100"}}, false) + data(1, "", true), "GET",
       100U},
      {interims(10) + answer(kOk), "GET", std::nullopt},
      {answer(many_fields(200)), "GET", std::nullopt},
      {answer({{":status", "599"}}), "GET", std::nullopt}};
  for (const Row& row : rows) {
    Client client;
    Response& response = client.send(row.method, "/");
    client.exchange(hello() + row.frames);
    EXPECT_TRUE(response.ended) << &row - rows << response.detail;
    EXPECT_EQ(response.message.content_length, row.length);
  }
}

// --- What may be sent again

TEST(H2Client, RefusedStreamsMayBeRepeated) {
  Client client;
  Response& refused = client.send("POST", "/", false);
  Response& cancelled = client.send("POST", "/");
  Response& late = client.send("POST", "/");
  client.turn();
  client.exchange(hello() + rst(1, NGHTTP2_REFUSED_STREAM) + rst(3, NGHTTP2_INTERNAL_ERROR) +
                  headers(5, kOk, false) + rst(5, NGHTTP2_REFUSED_STREAM));
  EXPECT_EQ(refused.error.reason, Reason::kUpstreamReset);
  EXPECT_TRUE(refused.error.repeatable);
  EXPECT_EQ(cancelled.error.reason, Reason::kUpstreamReset);
  EXPECT_FALSE(cancelled.error.repeatable);
  EXPECT_FALSE(late.error.repeatable) << "it had begun its answer";
  EXPECT_FALSE(refused.error.gone) << "the connection goes on";
  EXPECT_FALSE(refused.error.answered);
  EXPECT_TRUE(late.error.answered);
}

TEST(H2Client, GoawaySparesWhatItNames) {
  Client client;
  Response& kept = client.send("POST", "/1");
  Response& spared = client.send("POST", "/2");
  client.turn();
  Response& unsent = client.send("POST", "/3");
  Response* const unused = client.open();
  client.codec->feed(hello() + goaway(1));
  client.turn();
  EXPECT_EQ(kept.resets, 0);
  EXPECT_EQ(spared.resets, 1);
  EXPECT_TRUE(spared.error.repeatable);
  EXPECT_EQ(unsent.resets, 1);
  EXPECT_TRUE(unsent.error.repeatable);
  for (const Response* left : {&spared, &unsent}) {
    EXPECT_EQ(left->error.reason, Reason::kUpstreamReset);
    EXPECT_TRUE(left->error.gone) << "for them the connection is";
  }
  EXPECT_FALSE(client.codec->reusable());
  EXPECT_GT(client.capacity_changes, 0);
  EXPECT_EQ(client.open(), nullptr);
  // Opened before, used after: it fails as one that never left.
  unused->stream->send_request(client.request("POST", "/4"), true);
  client.turn();
  EXPECT_EQ(unused->resets, 1);
  EXPECT_TRUE(unused->error.repeatable);
  client.exchange(headers(1, kOk, true));
  EXPECT_TRUE(kept.ended);
  EXPECT_TRUE(client.wire.closed);
  for (const Frame& frame : client.all)
    EXPECT_FALSE(frame.type == NGHTTP2_HEADERS && frame.stream > 3);
}

TEST(H2Client, ShutdownNoticeLetsRequestsFinish) {
  Client client;
  Response& response = client.send("GET", "/");
  client.exchange(hello() + goaway(0x7fffffff));
  EXPECT_EQ(response.resets, 0);
  EXPECT_FALSE(client.codec->reusable());
  client.exchange(headers(1, kOk, true));
  EXPECT_TRUE(response.ended);
}

TEST(H2Client, BrokenConnectionTellsWhatNeverLeft) {
  for (const bool eof : {false, true}) {
    Client client;
    Response& sent = client.send("POST", "/");
    client.turn();
    Response& submitted = client.send("POST", "/");
    Response* const opened = client.open();
    eof ? client.codec->on_eof() : client.codec->on_broken();
    EXPECT_EQ(sent.error.reason, Reason::kUpstreamReset);
    EXPECT_FALSE(sent.error.repeatable);
    EXPECT_TRUE(submitted.error.repeatable);
    EXPECT_TRUE(opened->error.repeatable);
    for (const Response* response : {&sent, &submitted, opened}) {
      EXPECT_TRUE(response->error.gone);
      EXPECT_FALSE(response->error.answered);
    }
    EXPECT_EQ(client.codec->free_streams(), 0U);
    EXPECT_FALSE(client.codec->reusable());
    EXPECT_EQ(client.wire.closed, eof);
  }
}

// Its place under the service's limits is free when the requests look for another connection.
TEST(H2Client, AConnectionThatEndsGoesBeforeItsRequestsHear) {
  Client client;
  Response& response = client.send("GET", "/");
  client.exchange(hello() + headers(1, kOk, false));
  bool closed = false;
  response.at_reset = [&] { closed = client.wire.closed; };
  client.codec->on_eof();
  EXPECT_EQ(response.resets, 1);
  EXPECT_TRUE(response.error.answered);
  EXPECT_TRUE(closed);
  EXPECT_EQ(client.wire.close_how, Wire::Close::kReset);
  Client idle;
  idle.exchange(hello());
  idle.codec->on_eof();
  EXPECT_EQ(idle.wire.close_how, Wire::Close::kFlush);
}

TEST(H2Client, CutBodyIsAReset) {
  Client client;
  Response& response = client.send("GET", "/");
  client.exchange(hello() + headers(1, with(kOk, {{"content-length", "10"}}), false) +
                  data(1, "half", false) + rst(1, NGHTTP2_INTERNAL_ERROR));
  EXPECT_EQ(response.body, "half");
  EXPECT_FALSE(response.ended);
  EXPECT_EQ(response.error.reason, Reason::kUpstreamReset);
}

TEST(H2Client, PushEndsTheConnection) {
  for (const std::string& before : {hello(), settings()}) {
    Client client;
    Response& response = client.send("GET", "/");
    client.exchange(before + frame(NGHTTP2_PUSH_PROMISE, kEndHeaders, 1, number(2) + hpack(get())));
    EXPECT_EQ(client.count(NGHTTP2_GOAWAY, NGHTTP2_PROTOCOL_ERROR), 1U);
    EXPECT_EQ(response.error.reason, Reason::kUpstreamProtocolError);
    EXPECT_TRUE(client.wire.closed);
  }
}

TEST(H2Client, WhatIsNotHttp2EndsTheConnection) {
  using namespace std::string_view_literals;
  for (const std::string_view bytes :
       {"HTTP/1.1 400 Bad Request\r\n\r\n"sv, "\x15\x03\x01\x00\x02\x02\x46\x00\x00\x00\x00"sv}) {
    Client client;
    Response& response = client.send("GET", "/");
    client.exchange(bytes);
    EXPECT_EQ(response.resets, 1);
    EXPECT_EQ(response.error.reason, Reason::kUpstreamProtocolError);
    EXPECT_TRUE(client.wire.closed);
  }
}

TEST(H2Client, UpstreamFloodsEndTheConnection) {
  for (const std::string& piece : {settings(), frame(NGHTTP2_PING, 0, 0, "12345678"),
                                   frame(0x99, 0, 0, "?"), rst(1), window_update(0, 1)}) {
    Client client;
    Response& response = client.send("GET", "/");
    client.exchange(hello() + rst(1));
    EXPECT_EQ(response.resets, 1);
    for (int i = 0; i < 2000 && !client.wire.closed; ++i) client.exchange(piece);
    EXPECT_EQ(client.count(NGHTTP2_GOAWAY, NGHTTP2_ENHANCE_YOUR_CALM), 1U);
    EXPECT_TRUE(client.wire.closed);
  }
}

TEST(H2Client, HeaderBombEndsTheStream) {
  Client client;
  Response& response = client.send("GET", "/");
  const std::string block = hpack(kOk) + '\x40' + hpack_string("x-bomb") +
                            hpack_string(std::string(3900, 'a')) + std::string(4000, '\xbe');
  client.exchange(hello() + frame(NGHTTP2_HEADERS, kEndHeaders, 1, block));
  EXPECT_EQ(response.error.reason, Reason::kUpstreamProtocolError);
  EXPECT_LT(response.message.headers.size(), 20U);
}

// Each is within the limit of a head; together they are not.
TEST(H2Client, InterimAnswersAreBoundedTogether) {
  const auto interim = [](std::size_t size) {
    const std::string block = hpack({{":status", "103"}, {"link", std::string(size - 100, 'l')}});
    const std::size_t first = std::min<std::size_t>(block.size(), 16'000);
    std::string frames = frame(NGHTTP2_HEADERS, 0, 1, block.substr(0, first));
    for (std::size_t at = first; at < block.size(); at += 16'000)
      frames += frame(NGHTTP2_CONTINUATION, 0, 1, block.substr(at, 16'000));
    return frames + frame(NGHTTP2_CONTINUATION, kEndHeaders, 1);
  };
  Client client;
  Response& response = client.send("GET", "/");
  client.exchange(hello());
  for (int i = 0; i < 8 && response.stream != nullptr; ++i)
    client.exchange(interim(std::size_t{25} * 1024));
  EXPECT_EQ(response.error.reason, Reason::kUpstreamProtocolError);
  EXPECT_THAT(response.interims, ElementsAre(103, 103));
  EXPECT_EQ(client.count(NGHTTP2_RST_STREAM, NGHTTP2_PROTOCOL_ERROR), 1U);

  // What they took is no part of the body.
  Client other;
  Response& fine = other.send("GET", "/");
  other.exchange(hello() + interim(std::size_t{25} * 1024) +
                 headers(1, with(kOk, {{"content-length", "2"}}), false) + data(1, "ok", true));
  EXPECT_THAT(fine.interims, ElementsAre(103));
  EXPECT_EQ(fine.body, "ok");
  EXPECT_TRUE(fine.ended);
}

// --- Streams and room for them

TEST(H2Client, KeepsToThePeersLimit) {
  Client client;
  EXPECT_EQ(client.codec->free_streams(), 100U);
  client.exchange(settings({{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 2}}));
  EXPECT_EQ(client.codec->free_streams(), 2U);
  EXPECT_GT(client.capacity_changes, 0);
  client.send("GET", "/1");
  Response* const second = client.open();
  EXPECT_EQ(client.codec->free_streams(), 0U);
  EXPECT_EQ(client.open(), nullptr);
  second->stream->release();  // never used
  second->stream = nullptr;
  EXPECT_EQ(client.codec->free_streams(), 1U);
  client.send("GET", "/2");
  client.turn();
  const int before = client.capacity_changes;
  Response* third = nullptr;
  client.at_capacity = [&] {
    if (third == nullptr && client.codec->free_streams() != 0) third = &client.send("GET", "/3");
  };
  client.exchange(headers(1, kOk, true));
  EXPECT_GT(client.capacity_changes, before);
  ASSERT_NE(third, nullptr);
  EXPECT_EQ(client.all.back().type, NGHTTP2_HEADERS);
  client.exchange(settings({{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0}}));
  EXPECT_EQ(client.codec->free_streams(), 0U);
  EXPECT_TRUE(client.codec->reusable());
}

TEST(H2Client, EarlyAnswerEndsTheRequest) {
  for (const std::uint32_t code : {NGHTTP2_NO_ERROR, NGHTTP2_CANCEL}) {
    Client client;
    Response& response = client.send("POST", "/", false);
    response.stream->send_body(std::string(100'000, 'x'), false);
    client.turn();
    client.exchange(hello() + headers(1, {{":status", "413"}}, false) + data(1, "no", true));
    EXPECT_TRUE(response.ended);
    EXPECT_EQ(response.sent, 0);
    ASSERT_NE(response.stream, nullptr);
    response.release_when_whole = false;
    client.exchange(rst(1, code));
    EXPECT_EQ(response.resets, 0) << "the answer is whole";
    EXPECT_EQ(response.sent, 1) << "nothing more is wanted of the request";
    response.stream->send_body("ignored", true);
    EXPECT_EQ(response.stream->queued(), 0U);
    std::exchange(response.stream, nullptr)->release();
    EXPECT_THAT(client.turn(), IsEmpty());
    EXPECT_EQ(client.codec->free_streams(), UINT32_MAX);
  }
}

TEST(H2Client, ReleaseBeforeTheEndCancels) {
  Client client;
  Response& response = client.send("GET", "/");
  client.exchange(hello() + headers(1, kOk, false) + data(1, "x", false));
  std::exchange(response.stream, nullptr)->release();
  client.turn();
  EXPECT_EQ(client.count(NGHTTP2_RST_STREAM, NGHTTP2_NO_ERROR) +
                client.count(NGHTTP2_RST_STREAM, NGHTTP2_CANCEL),
            1U);
  client.exchange(data(1, "late", false) + headers(1, {{"x", "late"}}, true));
  EXPECT_FALSE(client.wire.closed);
  EXPECT_EQ(response.body, "x");
}

TEST(H2Client, HeadOfAResetRequestIsNeverRead) {
  for (const bool with_body : {false, true}) {
    Client client;
    client.turn();
    auto doomed = std::make_unique<Client>();  // only for its arena and head
    Response& response = *client.open();
    RequestHead& head = doomed->request("POST", "/" + std::string(600, 'p'),
                                        {{"X-" + std::string(600, 'A'), std::string(600, 'v')}});
    response.stream->send_request(head, !with_body);
    if (with_body) response.stream->send_body("body", true);
    Response& next = client.send("GET", "/next");
    std::exchange(response.stream, nullptr)->reset(ResetCode::kCancel);
    doomed.reset();
    blocks().clear();
    const std::vector<Frame> frames = client.turn();
    ASSERT_EQ(frames.size(), 1U) << "not even a RST_STREAM";
    EXPECT_EQ(value_of(client.reader.decode(frames[0].payload), ":path"), "/next");
    client.exchange(hello() + headers(frames[0].stream, kOk, true));
    EXPECT_TRUE(next.ended);
    EXPECT_EQ(client.codec->free_streams(), UINT32_MAX)
        << "the one that was reset gave its place back";
  }
}

TEST(H2Client, RequestWithoutAuthorityHasNone) {
  Client client;
  Response* const response = client.open();
  RequestHead& head = client.request("GET", "/");
  head.authority = {};
  response->stream->send_request(head, true);
  const std::vector<Frame> frames = client.turn();
  EXPECT_EQ(count_of(client.reader.decode(frames.at(2).payload), ":authority"), 0U);
}

TEST(H2Client, SecretsAndUniqueValuesStayOutOfTheTable) {
  Client client;
  const Fields more = {{"authorization", "Bearer abcdefgh"},
                       {"cookie", "session=0123456789abcdefghijklmn"},
                       {"x-request-id", "1234-5678"},
                       {"x-own", "indexed"}};
  client.send("GET", "/", true, more);
  const std::vector<Frame> frames = client.turn();
  const std::string& block = frames.at(2).payload;
  nghttp2_hd_inflater* inflater = nullptr;
  ASSERT_EQ(nghttp2_hd_inflate_new(&inflater), 0);
  auto* at = reinterpret_cast<const std::uint8_t*>(block.data());
  std::size_t left = block.size();
  std::map<std::string, bool> apart;
  for (int flags = 0; (flags & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
    nghttp2_nv nv;
    const ssize_t used = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, at, left, 1);
    ASSERT_GE(used, 0);
    at += used;
    left -= static_cast<std::size_t>(used);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
      apart[std::string(reinterpret_cast<char*>(nv.name), nv.namelen)] =
          (nv.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0;
  }
  nghttp2_hd_inflate_del(inflater);
  EXPECT_TRUE(apart["authorization"]);
  EXPECT_TRUE(apart["cookie"]);
  EXPECT_TRUE(apart["x-request-id"]);
  EXPECT_FALSE(apart["x-own"]);
}

TEST(H2Client, AnswersMayBreakAnywhere) {
  const std::string bytes =
      hello() + interims(2) + headers(1, with(kOk, {{"content-length", "6"}}), false) +
      data(1, "abc", false) + frame(NGHTTP2_PING, 0, 0, "12345678") + data(1, "def", false) +
      headers(1, {{"x", "y"}}, true) + headers(3, {{":status", "2"}}, true) + goaway(3);
  for (std::size_t at = 0; at <= bytes.size(); ++at) {
    Client client;
    Response& first = client.send("GET", "/");
    Response& second = client.send("GET", "/");
    client.turn();
    client.exchange(std::string_view(bytes).substr(0, at));
    if (at % 2 == 0) {  // the rest comes; else the connection breaks here
      client.exchange(std::string_view(bytes).substr(at));
      EXPECT_EQ(first.body, "abcdef");
      EXPECT_TRUE(first.ended);
      EXPECT_EQ(second.error.reason, Reason::kUpstreamProtocolError);
      EXPECT_TRUE(client.wire.closed);
    }
  }
}

TEST(H2Client, GarbageNeverHurts) {
  std::uint32_t seed = 7;
  const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 16; };
  const std::string good =
      hello() + interims(1) + headers(1, with(kOk, {{"content-length", "3"}}), false) +
      data(1, "abc", true) + rst(3) + window_update(5, 10) + headers(5, kOk, false) +
      data(5, "abc", false) + headers(5, {{"x", "y"}}, true) + goaway(7);
  for (int round = 0; round < 3000; ++round) {
    Client client;
    for (int i = 0; i < 4; ++i) client.send("POST", "/", i % 2 == 0);
    client.turn();
    std::string bytes = good;
    for (std::uint32_t hits = 1 + random() % 4; hits != 0; --hits)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    const std::size_t cut = random() % bytes.size();
    client.exchange(std::string_view(bytes).substr(0, cut));
    client.exchange(std::string_view(bytes).substr(cut));
  }
}

}  // namespace
}  // namespace outrider::h2test
