// Both HTTP/1 codecs as owners of exchanges and connections see them: answers, keep-alive, early
// answers, tunnels, back-pressure, and that what is written can be read again.
#include <algorithm>
#include <random>

#include "tests/unit/proxy/h1_support.h"

namespace outrider {
namespace {

using namespace test;

// ---- answers

std::string answered(const std::string& request, const std::function<void(RequestOwner&)>& answer) {
  Exchanges exchanges;
  exchanges.clients.on_whole = answer;
  exchanges.feed(request);
  return exchanges.wire.sent;
}

void respond(RequestOwner& owner, int status, std::optional<std::uint64_t> length,
             std::initializer_list<std::string_view> bodies,
             std::initializer_list<std::pair<std::string_view, std::string_view>> fields = {},
             Version version = Version::kHttp11) {
  owner.answered = true;
  ResponseHead head(owner.arena);
  head.status = status;
  head.version = version;
  head.content_length = length;
  for (const auto& [name, value] : fields) head.headers.add(header_id(name), name, value);
  owner.stream.send_response(head, bodies.size() == 0);
  std::size_t left = bodies.size();
  for (const std::string_view body : bodies) owner.stream.send_body(body, --left == 0);
}

TEST(H1Answer, FramesTheBodyByWhatTheClientUnderstands) {
  const auto known = [](RequestOwner& owner) {
    respond(owner, 200, 5, {"hel", "lo"}, {{"X", "1"}, {"content-length", "9"}, {"Y", "2"}});
  };
  const auto unknown = [](RequestOwner& owner) {
    respond(owner, 200, {}, {"hello", " world wide"}, {{"X", "1"}});
  };
  const auto none = [](RequestOwner& owner) { respond(owner, 200, {}, {}); };
  EXPECT_EQ(answered(get(""), known),
            "HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 5\r\nY: 2\r\n\r\nhello");
  EXPECT_EQ(answered(get(""), unknown),
            "HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nb\r\n "
            "world wide\r\n0\r\n\r\n");
  EXPECT_EQ(answered(get(""), none), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(answered("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", known),
            "HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 5\r\nY: 2\r\n\r\n");
  EXPECT_EQ(answered("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", unknown),
            "HTTP/1.1 200 OK\r\nX: 1\r\n\r\n");
  EXPECT_EQ(answered("GET / HTTP/1.0\r\n\r\n", unknown),
            "HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\nhello world wide");
  EXPECT_EQ(answered("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", unknown),
            "HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\nhello world wide");
  EXPECT_EQ(answered("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", none),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(answered(get("Connection: close\r\n"), none),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(answered(get(""),
                     [](RequestOwner& owner) {
                       respond(owner, 204, 3, {"abc"}, {{"Content-Length", "3"}});
                     }),
            "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(answered(get(""),
                     [](RequestOwner& owner) {
                       respond(owner, 304, 3, {}, {{"Content-Length", "3"}});
                     }),
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n");
}

TEST(H1Answer, OnlyAHeadWhoseBodyIsToComeWaits) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  const auto answer = [&](const Bytes& request, std::optional<std::uint64_t> length) {
    exchanges.feed(request);
    RequestOwner& owner = exchanges.last();
    ResponseHead head(owner.arena);
    head.content_length = length;
    owner.answered = true;
    owner.stream.send_response(head, false);
    return std::pair(&owner.stream, exchanges.wire.patient);
  };
  for (const std::optional<std::uint64_t> length : {std::optional<std::uint64_t>(6), {}}) {
    const auto [stream, patient] = answer(get(""), length);
    EXPECT_TRUE(patient);
    stream->send_body("abc", false);
    EXPECT_FALSE(exchanges.wire.patient);
    exchanges.wire.turn(*exchanges.codec);
    stream->send_body("def", false);
    EXPECT_FALSE(exchanges.wire.patient);
    stream->send_body({}, true);
    EXPECT_FALSE(exchanges.wire.patient);
    exchanges.wire.turn(*exchanges.codec);
  }
  EXPECT_FALSE(answer(raw("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), 6).second);
}

TEST(H1Request, OnlyAHeadWhoseBodyIsToComeWaits) {
  const auto waits = [](bool last, bool expects) {
    FakeWire wire;
    FakePool pool;
    ResponseOwner owner;
    const auto codec = make_h1_client(wire, pool, {});
    RequestHead head(owner.arena);
    head.method_text = "POST";
    head.method = Method::kPost;
    head.target = "/";
    head.authority = "a";
    head.expects_continue = expects;
    owner.stream = codec->open(owner);
    owner.stream->send_request(head, last);
    EXPECT_TRUE(wire.woken);
    const bool waited = wire.patient;
    codec->on_broken();
    return waited;
  };
  EXPECT_TRUE(waits(false, false));
  EXPECT_FALSE(waits(false, true));
  EXPECT_FALSE(waits(true, false));
}

TEST(H1Answer, AHeadThatHasNotLeftIsTakenBack) {
  const auto begin = [](RequestOwner& owner, std::size_t size,
                        std::optional<std::uint64_t> length) {
    ResponseHead head(owner.arena);
    const std::string value(size, 'v');
    head.content_length = length;
    head.headers.add(HeaderId::kUnknown, "x", owner.arena.copy(value));
    owner.stream.send_response(head, false);
  };
  const std::string instead = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad";
  for (const std::size_t size : {1U, 1000U, 30'000U})  // within a slab, and over several
    for (const std::optional<std::uint64_t> length : {std::optional<std::uint64_t>(), {7}}) {
      EXPECT_EQ(answered(get("") + get(""),
                         [&](RequestOwner& owner) {
                           begin(owner, size, length);
                           EXPECT_TRUE(owner.stream.take_back());
                           EXPECT_FALSE(owner.stream.take_back());
                           respond(owner, 502, 3, {"bad"});
                         }),
                instead + instead);
    }

  answered(get(""), [&](RequestOwner& owner) {
    begin(owner, 10, 3);
    owner.stream.send_body("al", false);
    EXPECT_FALSE(owner.stream.take_back());
    owner.answered = true;
    owner.stream.send_body("l", true);
    EXPECT_FALSE(owner.stream.take_back());
  });
  Exchanges exchanges;
  exchanges.clients.on_whole = [&](RequestOwner& owner) {
    begin(owner, 10, 3);
    exchanges.wire.out.drop(1);  // a byte has left
    EXPECT_FALSE(owner.stream.take_back());
    owner.answered = true;
    owner.stream.send_body("all", true);
  };
  exchanges.feed(get(""));
}

TEST(H1Answer, NamesFromHttp2AreTrainCase) {
  EXPECT_EQ(
      answered(
          get(""),
          [](RequestOwner& owner) {
            respond(owner, 200, 0, {},
                    {{"content-type", "a"}, {"x-b-c", "d"}, {"etag", "e"}, {"content-length", "0"}},
                    Version::kHttp2);
          }),
      "HTTP/1.1 200 OK\r\nContent-Type: a\r\nX-B-C: d\r\nEtag: e\r\nContent-Length: 0\r\n\r\n");
}

TEST(H1Answer, TrailersGoToChunkedAnswersAlone) {
  const auto with_trailers = [](std::optional<std::uint64_t> length) {
    return [length](RequestOwner& owner) {
      owner.answered = true;
      ResponseHead head(owner.arena);
      head.content_length = length;
      owner.stream.send_response(head, false);
      owner.stream.send_body("abc", false);
      Headers trailers(owner.arena);
      trailers.add(header_id("grpc-status"), "grpc-status", "0");
      trailers.add(header_id("content-length"), "content-length", "7");
      owner.stream.send_trailers(trailers);
    };
  };
  EXPECT_EQ(answered(get(""), with_trailers({})),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: "
            "0\r\n\r\n");
  EXPECT_EQ(answered(get(""), with_trailers(3)), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_EQ(answered("GET / HTTP/1.0\r\n\r\n", with_trailers({})),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc");
}

TEST(H1Answer, InterimAnswersGoToHttp11Alone) {
  const auto hints = [](RequestOwner& owner) {
    ResponseHead head(owner.arena);
    head.status = 103;
    head.headers.add(HeaderId::kLink, "Link", "</a>");
    owner.stream.send_interim(head);
    respond(owner, 200, 0, {});
  };
  EXPECT_EQ(
      answered(get(""), hints),
      "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(answered("GET / HTTP/1.0\r\n\r\n", hints),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

TEST(H1Answer, LargeBodiesAreWrittenThroughInOrder) {
  Exchanges exchanges;
  const std::string large(limits::kSmallWrite, 'x');
  exchanges.clients.on_whole = [&](RequestOwner& owner) {
    respond(owner, 200, {}, {large, "y", large});
  };
  exchanges.feed(get(""));
  EXPECT_EQ(exchanges.wire.written_through, 2);
  EXPECT_EQ(exchanges.wire.sent, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" +
                                     large + "\r\n1\r\ny\r\n1000\r\n" + large + "\r\n0\r\n\r\n");
  exchanges.wire.takes = 10;
  exchanges.clients.on_whole = [&](RequestOwner& owner) {
    respond(owner, 200, 2 * large.size(), {large, large});
  };
  exchanges.wire.take_sent();
  exchanges.feed(get(""));
  exchanges.wire.takes = SIZE_MAX;
  exchanges.wire.wake();
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.wire.sent, "HTTP/1.1 200 OK\r\nContent-Length: 8192\r\n\r\n" + large + large);
}

TEST(H1Answer, AHeadLargerThanASlabIsWrittenWhole) {
  const std::string value(3 * limits::kSlabBytes, 'v');
  EXPECT_EQ(answered(get(""),
                     [&](RequestOwner& owner) {
                       respond(owner, 200, 0, {}, {{"X", value}});
                     }),
            "HTTP/1.1 200 OK\r\nX: " + value + "\r\nContent-Length: 0\r\n\r\n");
}

TEST(H1Answer, ALineEndInAFieldIsNeverWritten) {
  for (const std::string_view value :
       {"a\r\nSet-Cookie: b"sv, "a\nb"sv, "a\rb"sv, "a\0b"sv, "a\r\n"sv}) {
    Exchanges exchanges;
    exchanges.clients.on_whole = [&](RequestOwner& owner) {
      respond(owner, 200, 0, {}, {{"Location", value}});
    };
    exchanges.feed(get(""));
    EXPECT_EQ(exchanges.wire.sent, "");
    EXPECT_EQ(exchanges.last().reset, "internal");
    EXPECT_EQ(exchanges.wire.closed, Wire::Close::kReset);
  }
}

TEST(H1Answer, ABodyThatBreaksItsLengthNeverLooksWhole) {
  for (const std::string_view body : {"ab", "abcd"}) {
    Exchanges exchanges;
    exchanges.clients.on_whole = [&](RequestOwner& owner) { respond(owner, 200, 3, {body}); };
    exchanges.feed(get(""));
    EXPECT_EQ(exchanges.wire.closed, Wire::Close::kReset) << body;
    EXPECT_EQ(exchanges.last().reset, "internal");
  }
}

TEST(H1Answer, AnAnswerCutShortIsReset) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner& owner) {
    ResponseHead head(owner.arena);
    owner.stream.send_response(head, false);
    owner.stream.send_body("part", false);
    owner.over = owner.answered = true;
    owner.stream.reset(ResetCode::kInternal);
  };
  exchanges.feed(get(""));
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kReset);
  Exchanges before;
  before.clients.on_whole = [](RequestOwner& owner) {
    owner.over = owner.answered = true;
    owner.stream.reset(ResetCode::kInternal);
  };
  before.feed(get(""));
  EXPECT_NE(before.wire.closed, Wire::Close::kReset);
  EXPECT_EQ(before.wire.sent, "");
}

// ---- bodies that go from socket to socket

TEST(H1Passage, LetsOnlyWhatIsBodyAndNothingElsePast) {
  Upstream upstream;
  EXPECT_EQ(upstream.codec->passable(), 0U);
  upstream.feed(ok("Content-Length: 10\r\n", "abc"));
  EXPECT_EQ(upstream.codec->passable(), 7U);
  upstream.codec->passed(4);
  EXPECT_EQ(upstream.codec->passable(), 3U);
  EXPECT_FALSE(upstream.owner.whole);
  upstream.codec->passed(3);
  EXPECT_TRUE(upstream.owner.whole);
  EXPECT_EQ(upstream.owner.body, "abc");
  EXPECT_EQ(upstream.codec->passable(), 0U);
  EXPECT_TRUE(upstream.codec->reusable());

  Upstream in_chunks;
  in_chunks.feed(ok("Transfer-Encoding: chunked\r\n", "9\r\nabc"));
  EXPECT_EQ(in_chunks.codec->passable(), 0U);

  Upstream open_ended;
  open_ended.feed(ok("", "abc"));
  EXPECT_EQ(open_ended.codec->passable(), UINT64_MAX);
  open_ended.codec->passed(1000);
  open_ended.codec->on_eof();
  EXPECT_TRUE(open_ended.owner.whole);

  Exchanges upload;
  upload.clients.on_whole = [](RequestOwner& owner) { respond(owner, 200, {}, {}); };
  upload.feed(post("Content-Length: 5\r\n", "ab"));
  EXPECT_EQ(upload.codec->passable(), 3U);
  upload.codec->passed(3);
  EXPECT_TRUE(upload.last().whole);
  upload.feed(kNext);
  EXPECT_EQ(upload.count(), 2U);
}

TEST(H1Passage, CountsWhatWasSentPastIt) {
  const auto answer = [](std::optional<std::uint64_t> length, std::size_t past) {
    Exchanges exchanges;
    exchanges.clients.on_whole = [&](RequestOwner& owner) {
      owner.answered = true;
      ResponseHead head(owner.arena);
      head.content_length = length;
      EXPECT_FALSE(exchanges.codec->takes_raw());
      owner.stream.send_response(head, false);
      EXPECT_EQ(exchanges.codec->takes_raw(), length.has_value());
      exchanges.codec->sent_past(past);
      owner.stream.send_body("end", true);
      EXPECT_FALSE(exchanges.codec->takes_raw());
    };
    exchanges.feed(get(""));
    return exchanges.wire.closed;
  };
  EXPECT_EQ(answer(10, 7), std::nullopt);
  EXPECT_EQ(answer(10, 6), Wire::Close::kReset);
  EXPECT_EQ(answer(10, 8), Wire::Close::kReset);
  EXPECT_EQ(answer({}, 0), std::nullopt);
}

// What came before the switch goes first.
TEST(H1Passage, WaitsForWhatWaits) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.codec->feed(kUpgrade + "early");
  ResponseHead head(exchanges.last().arena);
  head.status = 101;
  exchanges.last().stream.send_response(head, false);
  EXPECT_EQ(exchanges.codec->passable(), 0U);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.last().body, "early");
  EXPECT_EQ(exchanges.codec->passable(), UINT64_MAX);
}

// ---- the connection of a client

TEST(H1Server, PipelinedRequestsAreAnsweredInOrder) {
  std::string input;
  for (int i = 0; i < 20; ++i) {
    const std::string path = "/" + std::to_string(i);
    if (i % 4 == 0) input += "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n";
    if (i % 4 == 1) input += "HEAD " + path + " HTTP/1.1\r\nHost: a\r\n\r\n";
    if (i % 4 == 2) input += "POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    if (i % 4 == 3)
      input += "PUT " + path +
               " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
  }
  outcome_of(input, {}, 7);
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};  // answered later, one after the other
  exchanges.feed(input);
  for (std::size_t i = 0; i < 20; ++i) {
    ASSERT_EQ(exchanges.count(), i + 1);
    EXPECT_EQ(exchanges.last().request.target, "/" + std::to_string(i));
    FakeClients::answer(exchanges.last(), 200, std::to_string(i));
    exchanges.wire.turn(*exchanges.codec);
  }
  EXPECT_TRUE(exchanges.codec->idle());
  EXPECT_FALSE(exchanges.wire.closed);
  std::size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    at = exchanges.wire.sent.find("HTTP/1.1 200 OK\r\n", at);
    ASSERT_NE(at, std::string::npos) << i;
    ++at;
  }
}

TEST(H1Server, GarbageBehindAGoodRequestIsRefusedAfterTheAnswer) {
  const std::string input = get("") + "garbage\r\n\r\n";
  outcome_of(input);
  Exchanges exchanges;
  exchanges.feed(input);
  EXPECT_EQ(exchanges.count(), 2U);
  EXPECT_EQ(exchanges.wire.sent.find("HTTP/1.1 200 OK"), 0U);
  EXPECT_NE(exchanges.wire.sent.find("HTTP/1.1 400 "), std::string::npos);
  EXPECT_TRUE(exchanges.wire.closed);
}

TEST(H1Server, StopsReadingWhenTooMuchWaits) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.feed(get(""));
  EXPECT_FALSE(exchanges.wire.held);
  const std::string upload = post("Content-Length: 100000\r\n", std::string(100000, 'x'));
  exchanges.feed(upload.substr(0, 1000));
  EXPECT_FALSE(exchanges.wire.held);
  exchanges.feed(upload.substr(1000, limits::kPipelinedBytes));
  EXPECT_TRUE(exchanges.wire.held);
  FakeClients::answer(exchanges.last(), 200, "one");
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_FALSE(exchanges.wire.held);
  exchanges.feed(upload.substr(1000 + limits::kPipelinedBytes));
  EXPECT_EQ(exchanges.last().body.size(), 100000U);
  EXPECT_TRUE(exchanges.last().whole);
}

TEST(H1Server, StopsReadingWhenTooManyWait) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  std::string many;
  for (std::size_t i = 0; i < limits::kPipelined; ++i) many += get("");
  exchanges.feed(many);
  EXPECT_FALSE(exchanges.wire.held);
  exchanges.feed(get(""));
  EXPECT_TRUE(exchanges.wire.held);
  exchanges.clients.on_whole = [](RequestOwner& owner) { FakeClients::answer(owner, 200, "x"); };
  FakeClients::answer(exchanges.last(), 200, "x");
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.count(), limits::kPipelined + 1);
  EXPECT_FALSE(exchanges.wire.held);
}

TEST(H1Server, HoldStopsTheSource) {
  Exchanges exchanges;
  exchanges.feed(post("Content-Length: 10\r\n", "12345"));
  exchanges.last().stream.hold(true);
  EXPECT_TRUE(exchanges.wire.held);
  exchanges.last().stream.hold(false);
  EXPECT_FALSE(exchanges.wire.held);
  exchanges.last().stream.hold(true);
  exchanges.feed("67890");
  EXPECT_TRUE(exchanges.last().over);
  EXPECT_FALSE(exchanges.wire.held);  // the next request may come
}

TEST(H1Server, ASlowReaderIsSeenAndTheEndOfItsSlownessToo) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.feed(get(""));
  RequestOwner& owner = exchanges.last();
  exchanges.wire.takes = 100;
  ResponseHead head(owner.arena);
  owner.stream.send_response(head, false);
  owner.stream.send_body(std::string(limits::kHighWater + 5000, 'x'), false);
  EXPECT_GT(owner.stream.queued(), limits::kHighWater);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(owner.writable, 0);
  exchanges.wire.takes = exchanges.wire.out.size() - limits::kLowWater;
  exchanges.wire.wake();
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(owner.writable, 1);
  EXPECT_EQ(owner.sent, 0);
  owner.stream.send_body({}, true);
  exchanges.wire.takes = SIZE_MAX;
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(owner.sent, 1);
  EXPECT_EQ(owner.writable, 1);
}

TEST(H1Server, AClientThatGoesAwayEndsItsExchange) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.feed(get(""));
  exchanges.codec->on_eof();
  EXPECT_EQ(exchanges.last().reset, "client_closed");
  EXPECT_TRUE(exchanges.wire.closed);
  Exchanges within_body;
  within_body.feed(post("Content-Length: 10\r\n", "12345"));
  within_body.codec->on_eof();
  EXPECT_EQ(within_body.last().reset, "client_closed");
  EXPECT_FALSE(within_body.last().whole);
  Exchanges broken;
  broken.clients.on_whole = [](RequestOwner&) {};
  broken.feed(get(""));
  broken.codec->on_broken();
  EXPECT_EQ(broken.last().reset, "client_closed");
}

TEST(H1Server, AnAnswerThatIsQueuedStillReachesAClientThatHasEndedItsHalf) {
  Exchanges exchanges;
  exchanges.wire.takes = 0;
  exchanges.feed(get(""));
  exchanges.codec->on_eof();
  EXPECT_FALSE(exchanges.wire.closed);
  exchanges.wire.takes = SIZE_MAX;
  exchanges.wire.wake();
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_NE(exchanges.wire.sent.find("\r\n\r\nok"), std::string::npos);
  EXPECT_EQ(exchanges.last().reset, "");
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kFlush);
}

TEST(H1Server, AnEofBetweenRequestsClosesQuietly) {
  Exchanges exchanges;
  exchanges.feed(get(""));
  EXPECT_TRUE(exchanges.codec->idle());
  exchanges.codec->on_eof();
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kFlush);
  Exchanges partial;
  partial.feed("GET / HT");
  EXPECT_TRUE(partial.codec->in_head());
  EXPECT_FALSE(partial.codec->idle());
  partial.codec->on_eof();
  EXPECT_EQ(partial.count(), 0U);
  EXPECT_TRUE(partial.wire.closed);
}

TEST(H1Server, AHeadThatTakesTooLongIsAnswered408) {
  Exchanges exchanges;
  exchanges.feed("GET / HTTP/1.1\r\nHos");
  exchanges.codec->expire_head();
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.last().bad_status, 408);
  EXPECT_EQ(exchanges.wire.sent.find("HTTP/1.1 408 "), 0U);
  EXPECT_TRUE(exchanges.wire.closed);
  Exchanges empty;
  empty.codec->expire_head();
  EXPECT_EQ(empty.count(), 0U);
  EXPECT_TRUE(empty.wire.closed);
  Exchanges line_only;
  line_only.feed("\r\n");
  EXPECT_FALSE(line_only.codec->in_head());
}

// The body of a request that was answered early is made of requests.
class EarlyAnswer : public testing::TestWithParam<std::string> {};

TEST_P(EarlyAnswer, NeverReadsTheBodyAsARequest) {
  std::string evil;
  for (int i = 0; i < 10; ++i) evil += "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
  const bool chunks = GetParam() == "chunked";
  const std::size_t missing = GetParam() == "huge" ? 10 * limits::kLingerBytes : 0;
  std::string input =
      chunks ? chunked("136\r\n" + evil)
             : post("Content-Length: " + std::to_string(evil.size() + missing) + "\r\n", evil);
  ASSERT_EQ(evil.size(), 0x136U);
  const std::string rest = (chunks ? "\r\n0\r\n\r\n"s : ""s) + kNext;
  for (const int status : {200, 413}) {
    for (std::size_t cut = input.find("\r\n\r\n") + 4; cut <= input.size(); cut += 13) {
      Exchanges exchanges;
      exchanges.clients.on_head = [status](RequestOwner& owner) {
        if (owner.request.target == "/a") FakeClients::answer(owner, status, "early");
      };
      exchanges.feed(input.substr(0, cut));
      exchanges.feed(input.substr(cut));
      if (missing != 0) exchanges.feed(std::string(2 * limits::kLingerBytes, 'x'));
      exchanges.feed(rest);
      for (const auto& request : exchanges.clients.requests)
        EXPECT_NE(request->request.target, "/evil");
      EXPECT_NE(exchanges.wire.sent.find("early"), std::string::npos);
      EXPECT_EQ(exchanges.clients.requests.size() == 2, !exchanges.wire.closed);
      if (missing != 0) {
        EXPECT_EQ(exchanges.wire.closed, Wire::Close::kLinger);
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(H1Server, EarlyAnswer, testing::Values("length", "chunked", "huge"),
                         [](const auto& test) { return test.param; });

TEST(H1Server, AShortRestOfABodyIsReadAndTheConnectionGoesOn) {
  Exchanges exchanges;
  exchanges.clients.on_head = [](RequestOwner& owner) { FakeClients::answer(owner, 200, "early"); };
  exchanges.feed(post("Content-Length: 10\r\n", "123"));
  EXPECT_FALSE(exchanges.wire.closed);
  EXPECT_TRUE(exchanges.codec->in_head());  // header time bounds it
  EXPECT_FALSE(exchanges.codec->idle());
  exchanges.feed("4567890" + kNext);
  ASSERT_EQ(exchanges.count(), 2U);
  EXPECT_EQ(exchanges.last().request.target, "/next");
  Exchanges stuck;
  stuck.clients.on_head = [](RequestOwner& owner) { FakeClients::answer(owner, 200, "early"); };
  stuck.feed(post("Content-Length: 10\r\n", "123"));
  stuck.codec->expire_head();
  EXPECT_EQ(stuck.count(), 1U);
  EXPECT_TRUE(stuck.wire.closed);
}

TEST(H1Server, AnAnswerInPlaceOf100Closes) {
  Exchanges exchanges;
  exchanges.clients.on_head = [](RequestOwner& owner) { FakeClients::answer(owner, 200, "no"); };
  exchanges.feed(post("Expect: 100-continue\r\nContent-Length: 10\r\n", ""));
  EXPECT_NE(exchanges.wire.sent.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(exchanges.wire.closed);
  Exchanges asked;
  asked.clients.on_head = [](RequestOwner& owner) {
    ResponseHead head(owner.arena);
    head.status = 100;
    owner.stream.send_interim(head);
  };
  asked.feed(post("Expect: 100-continue\r\nContent-Length: 10\r\n", ""));
  EXPECT_EQ(asked.wire.sent, "HTTP/1.1 100 Continue\r\n\r\n");
  asked.feed("1234567890");
  EXPECT_FALSE(asked.wire.closed);
  EXPECT_TRUE(asked.last().over);
}

TEST(H1Server, ClosesAfterItsLastRequest) {
  CodecSettings settings;
  settings.max_requests = 2;
  Exchanges exchanges(settings);
  exchanges.feed(get("") + get("") + get(""));
  EXPECT_EQ(exchanges.count(), 2U);
  EXPECT_EQ(exchanges.wire.sent,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: "
            "2\r\nConnection: close\r\n\r\nok");
  EXPECT_TRUE(exchanges.wire.closed);
}

TEST(H1Server, DrainsAfterTheCurrentAnswer) {
  Exchanges exchanges;
  exchanges.codec->drain(false);
  EXPECT_FALSE(exchanges.wire.closed);
  exchanges.feed(get(""));
  EXPECT_NE(exchanges.wire.sent.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(exchanges.wire.closed);
  Exchanges idle;
  idle.codec->drain(true);
  EXPECT_EQ(idle.wire.closed, Wire::Close::kFlush);
  Exchanges busy;
  busy.clients.on_whole = [](RequestOwner&) {};
  busy.feed(get(""));
  ResponseHead head(busy.last().arena);
  busy.last().stream.send_response(head, false);
  busy.codec->drain(true);
  EXPECT_FALSE(busy.wire.closed);
  busy.last().stream.send_body("x", true);
  busy.wire.turn(*busy.codec);
  EXPECT_EQ(busy.wire.closed, Wire::Close::kFlush);
  EXPECT_NE(busy.wire.sent.find("0\r\n\r\n"), std::string::npos);
}

TEST(H1Server, CloseAfterIsSaidInTheAnswer) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner& owner) {
    owner.stream.close_after();
    respond(owner, 200, 0, {});
  };
  exchanges.feed(get(""));
  EXPECT_EQ(exchanges.wire.sent,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(exchanges.wire.closed);
}

TEST(H1Server, ARefusedStreamClosesTheConnection) {
  Exchanges exchanges;
  exchanges.clients.refuse_streams = true;
  exchanges.feed(get("") + get(""));
  EXPECT_TRUE(exchanges.wire.closed);
  EXPECT_EQ(exchanges.wire.sent, "");
}

TEST(H1Server, AnUpgradeBecomesATunnelWithHalfClose) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.feed(kUpgrade + "early");
  RequestOwner& owner = exchanges.last();
  EXPECT_EQ(owner.request.upgrade, "websocket");
  EXPECT_EQ(owner.body, "");
  ResponseHead head(owner.arena);
  head.status = 101;
  head.version = Version::kHttp2;  // which has no Sec-WebSocket-Accept: it is made here
  owner.stream.send_response(head, false);
  EXPECT_EQ(owner.body, "");  // not inside the owner's own call
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.wire.take_sent(),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
  EXPECT_EQ(owner.body, "early");
  exchanges.feed("GET /evil HTTP/1.1\r\n\r\n");
  EXPECT_EQ(owner.body, "earlyGET /evil HTTP/1.1\r\n\r\n");
  exchanges.codec->on_eof();
  EXPECT_TRUE(owner.whole);
  EXPECT_FALSE(exchanges.wire.closed);
  owner.stream.send_body("down", false);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(exchanges.wire.sent, "down");
  owner.stream.send_body({}, true);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_TRUE(owner.over);
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kFlush);
}

TEST(H1Server, AProofThatTheUpstreamDidNotGiveIsNotMadeUp) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.feed(kUpgrade);
  ResponseHead head(exchanges.last().arena);
  head.status = 101;
  exchanges.last().stream.send_response(head, false);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_EQ(
      exchanges.wire.take_sent(),
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

TEST(H1Server, OurHalfOfATunnelEndsAlone) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  exchanges.clients.release_when_sent = false;
  exchanges.feed(kUpgrade);
  RequestOwner& owner = exchanges.last();
  ResponseHead head(owner.arena);
  head.status = 101;
  head.headers.add(HeaderId::kSecWebsocketAccept, "Sec-WebSocket-Accept", "theirs");
  owner.stream.send_response(head, false);
  owner.stream.send_body("bye", true);
  exchanges.wire.turn(*exchanges.codec);
  EXPECT_TRUE(exchanges.wire.shut);
  EXPECT_EQ(owner.sent, 1);
  EXPECT_NE(exchanges.wire.sent.find("Sec-WebSocket-Accept: theirs\r\n"), std::string::npos);
  exchanges.feed("more");
  exchanges.codec->on_eof();
  EXPECT_EQ(owner.body, "more");
  EXPECT_TRUE(owner.whole);
}

TEST(H1Server, ARefusedUpgradeStaysHttp) {
  Exchanges exchanges;
  exchanges.feed(kUpgrade + kNext);
  ASSERT_EQ(exchanges.count(), 2U);
  EXPECT_EQ(exchanges.last().request.target, "/next");
}

TEST(H1Server, A101ThatNobodyAskedForIsNotSent) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner& owner) {
    owner.answered = true;
    ResponseHead head(owner.arena);
    head.status = 101;
    owner.stream.send_response(head, false);
  };
  exchanges.feed(get("") + "data");
  EXPECT_EQ(exchanges.wire.sent, "");
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kReset);
}

// An answer that nobody takes ends with the connection; what is queued would go on otherwise.
TEST(H1Server, AResetBehindAnAnswerThatIsNotTakenResetsTheConnection) {
  for (const bool taken : {false, true}) {
    Exchanges exchanges;
    exchanges.clients.on_whole = [](RequestOwner&) {};
    exchanges.clients.release_when_sent = false;
    exchanges.feed(get(""));
    exchanges.wire.takes = taken ? SIZE_MAX : 100;
    RequestOwner& owner = exchanges.last();
    FakeClients::answer(owner, 200, std::string(10'000, 'x'));
    exchanges.wire.turn(*exchanges.codec);
    EXPECT_EQ(exchanges.wire.out.empty(), taken);
    owner.over = true;
    owner.stream.reset(ResetCode::kCancel);
    exchanges.wire.turn(*exchanges.codec);
    EXPECT_EQ(exchanges.wire.closed, taken ? Wire::Close::kFlush : Wire::Close::kReset);
  }
}

// ---- the connection to an upstream

TEST(H1Client, ServesOneRequestAfterTheOther) {
  Upstream upstream;
  EXPECT_EQ(upstream.codec->free_streams(), 0U);
  upstream.feed(ok("Content-Length: 1\r\n", "x"));
  EXPECT_TRUE(upstream.codec->idle());
  ASSERT_EQ(upstream.codec->free_streams(), 1U);
  ResponseOwner second;
  second.stream = upstream.codec->open(second);
  ASSERT_NE(second.stream, nullptr);
  RequestHead head(second.arena);
  head.target = "/2";
  head.authority = "b";
  upstream.wire.take_sent();
  second.stream->send_request(head, true);
  upstream.wire.turn(*upstream.codec);
  EXPECT_EQ(upstream.wire.sent, "GET /2 HTTP/1.1\r\nHost: b\r\n\r\n");
  upstream.feed(ok("Content-Length: 1\r\n", "y"));
  EXPECT_EQ(second.body, "y");
  EXPECT_EQ(upstream.owner.body, "x");
}

TEST(H1Client, BytesOnAnIdleConnectionCloseIt) {
  Upstream upstream;
  upstream.feed(ok("Content-Length: 1\r\n", "x"));
  upstream.feed(ok("Content-Length: 6\r\n", "poison"));
  EXPECT_TRUE(upstream.wire.closed);
  EXPECT_FALSE(upstream.codec->reusable());
  EXPECT_EQ(upstream.owner.body, "x");
  Upstream eof;
  eof.feed(ok("Content-Length: 1\r\n", "x"));
  eof.eof();
  EXPECT_TRUE(eof.wire.closed);
  EXPECT_EQ(eof.owner.reset, "");
}

// Whoever gets the connection next may get it inside the very call that ends the answer.
TEST(H1Client, BytesBehindAnAnswerAreNobodysAnswer) {
  for (const std::string& answer :
       {std::string("HTTP/1.1 204 No\r\n\r\n"), std::string(ok("Content-Length: 0\r\n")),
        std::string(ok("Content-Length: 2\r\n", "ok")),
        std::string(ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        std::string(ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\nX: y\r\n\r\n"))}) {
    SCOPED_TRACE(answer);
    Upstream upstream;
    ResponseOwner second;
    upstream.owner.at_release = [&] {
      EXPECT_FALSE(upstream.codec->reusable());
      if (upstream.codec->free_streams() == 0) return;
      second.stream = upstream.codec->open(second);
      if (second.stream == nullptr) return;
      RequestHead head(second.arena);
      head.method_text = "POST";
      head.method = Method::kPost;
      head.target = "/2";
      head.authority = "a";
      head.content_length = 2 * limits::kSmallWrite;
      second.stream->send_request(head, false);
      second.stream->send_body(std::string(2 * limits::kSmallWrite, 'x'), true);
    };
    upstream.feed(answer + ok("Content-Length: 6\r\n", "poison"));
    EXPECT_TRUE(upstream.owner.whole);
    EXPECT_EQ(second.Record::head, "");
    EXPECT_EQ(second.body, "");
    EXPECT_FALSE(upstream.codec->reusable());
    EXPECT_EQ(upstream.codec->free_streams(), 0U);
    EXPECT_TRUE(upstream.wire.closed);
  }
}

// Its place under the service's limits is free when the request looks for another connection.
TEST(H1Client, AConnectionThatFailsGoesBeforeItsRequestHears) {
  for (const bool garbage : {false, true}) {
    Upstream upstream;
    std::optional<Wire::Close> closed;
    upstream.owner.at_reset = [&] { closed = upstream.wire.closed; };
    garbage ? upstream.feed("garbage\r\n\r\n") : upstream.eof();
    EXPECT_EQ(upstream.owner.reset, garbage ? kProtocol : kCut);
    EXPECT_EQ(closed, Wire::Close::kReset);
  }
}

TEST(H1Client, SaysWhetherAnAnswerHadBegun) {
  for (const bool eof : {false, true})
    for (const std::string_view part :
         {""sv, "H"sv, "HTTP/1.1 200 O"sv, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"sv}) {
      SCOPED_TRACE(part);
      Upstream upstream;
      upstream.feed(part);
      if (eof)
        upstream.eof();
      else
        upstream.codec->on_broken();
      EXPECT_EQ(upstream.owner.reset, kCut);
      EXPECT_TRUE(upstream.owner.error.gone);
      EXPECT_EQ(upstream.owner.error.answered, !part.empty());
    }
}

TEST(H1Client, BytesThatCameBeforeTheRequestLeftAreNotItsAnswer) {
  Upstream upstream;
  upstream.feed(ok("Content-Length: 1\r\n", "x"));
  ResponseOwner second;
  second.stream = upstream.codec->open(second);
  RequestHead head(second.arena);
  head.target = "/2";
  second.stream->send_request(head, true);
  upstream.codec->feed("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(second.reset, kCut);
  EXPECT_TRUE(second.repeatable);
  EXPECT_TRUE(upstream.wire.closed);
}

TEST(H1Client, AResetIsRepeatableOnlyBeforeAByteLeft) {
  Upstream upstream;
  upstream.codec->on_broken();
  EXPECT_EQ(upstream.owner.reset, kCut);
  EXPECT_FALSE(upstream.owner.repeatable);
  FakeWire wire;
  FakePool pool;
  auto codec = make_h1_client(wire, pool, {});
  ResponseOwner owner;
  owner.stream = codec->open(owner);
  owner.stream->send_request(RequestHead(owner.arena), true);
  codec->on_broken();
  EXPECT_TRUE(owner.repeatable);
}

TEST(H1Client, ACloseDelimitedBodyThatBreaksIsCut) {
  Upstream upstream;
  upstream.feed(ok("", "abc"));
  upstream.codec->on_broken();
  EXPECT_EQ(upstream.owner.body, "abc");
  EXPECT_EQ(upstream.owner.reset, kCut);
  EXPECT_FALSE(upstream.owner.whole);
}

TEST(H1Client, AnAnswerBeforeTheRequestWasSentWholeEndsTheConnection) {
  Upstream upstream;
  upstream.feed(ok("Content-Length: 0\r\n"));
  ResponseOwner owner;
  owner.stream = upstream.codec->open(owner);
  RequestHead head(owner.arena);
  head.method_text = "POST";
  head.content_length = 100;
  owner.stream->send_request(head, false);
  owner.stream->send_body("part", false);
  upstream.wire.turn(*upstream.codec);
  upstream.feed("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(owner.whole);
  EXPECT_FALSE(upstream.codec->reusable());
  EXPECT_TRUE(upstream.wire.closed);
}

TEST(H1Client, SendsWhatItWasGiven) {
  const auto sent = [](const std::function<void(RequestHead&)>& change,
                       std::initializer_list<std::string_view> bodies) {
    FakeWire wire;
    FakePool pool;
    auto codec = make_h1_client(wire, pool, {});
    ResponseOwner owner;
    owner.stream = codec->open(owner);
    RequestHead head(owner.arena);
    head.target = "/t";
    head.authority = "shop:80";
    change(head);
    head.method = method_of(head.method_text);
    owner.stream->send_request(head, bodies.size() == 0);
    std::size_t left = bodies.size();
    for (const std::string_view body : bodies) owner.stream->send_body(body, --left == 0);
    wire.turn(*codec);
    EXPECT_EQ(owner.sent, 1);
    return wire.sent;
  };
  EXPECT_EQ(sent([](RequestHead&) {}, {}), "GET /t HTTP/1.1\r\nHost: shop:80\r\n\r\n");
  EXPECT_EQ(sent(
                [](RequestHead& head) {
                  head.headers.add(header_id("X"), "X", "1");
                  head.headers.add(HeaderId::kHost, "hOST", "old");
                  head.headers.add(HeaderId::kContentLength, "content-LENGTH", "99");
                  head.headers.add(header_id("y"), "y", "2");
                  head.content_length = 2;
                  head.method_text = "POST";
                  head.te_trailers = true;
                },
                {"a", "b"}),
            "POST /t HTTP/1.1\r\nX: 1\r\nhOST: shop:80\r\ncontent-LENGTH: 2\r\ny: 2\r\nTE: "
            "trailers\r\nConnection: TE\r\n\r\nab");
  EXPECT_EQ(sent([](RequestHead& head) { head.method_text = "PUT"; }, {"abc", ""}),
            "PUT /t HTTP/1.1\r\nHost: shop:80\r\nTransfer-Encoding: "
            "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_EQ(sent([](RequestHead& head) { head.method_text = "POST"; }, {}),
            "POST /t HTTP/1.1\r\nHost: shop:80\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(sent(
                [](RequestHead& head) {
                  head.version = Version::kHttp2;
                  head.headers.add(HeaderId::kCookie, "cookie", "a=1");
                  head.headers.add(header_id("x-y"), "x-y", "z");
                  head.headers.add(HeaderId::kCookie, "cookie", "b=2");
                },
                {}),
            "GET /t HTTP/1.1\r\nHost: shop:80\r\nCookie: a=1; b=2\r\nX-Y: z\r\n\r\n");
  EXPECT_EQ(sent(
                [](RequestHead& head) {
                  head.headers.add(HeaderId::kTransferEncoding, "transfer-encoding", "chunked");
                  head.headers.add(HeaderId::kConnection, "connection", "x");
                },
                {}),
            "GET /t HTTP/1.1\r\nHost: shop:80\r\n\r\n");
}

TEST(H1Client, ALineEndInARequestIsNeverWritten) {
  for (const bool in_target : {true, false}) {
    FakeWire wire;
    FakePool pool;
    auto codec = make_h1_client(wire, pool, {});
    ResponseOwner owner;
    owner.stream = codec->open(owner);
    RequestHead head(owner.arena);
    head.target = in_target ? "/ HTTP/1.1\r\nX: y\r\n\r\nGET /evil" : "/";
    head.authority = in_target ? "a" : "a\r\nX: y";
    owner.stream->send_request(head, true);
    EXPECT_EQ(owner.reset, "");  // not inside the owner's own call
    wire.turn(*codec);
    EXPECT_EQ(wire.sent, "");
    EXPECT_EQ(owner.reset, "internal");
    EXPECT_EQ(wire.closed, Wire::Close::kReset);
  }
}

TEST(H1Client, ATunnelBeginsWithTheAnswerThatWasAskedFor) {
  Upstream upstream("GET", "other");
  EXPECT_EQ(upstream.wire.take_sent(),
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n");
  upstream.owner.release_when_whole = false;
  upstream.feed(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: OTHER\r\n\r\nHTTP/1.1 "
      "200 raw");
  EXPECT_EQ(upstream.owner.response.status, 101);
  EXPECT_EQ(upstream.owner.body, "HTTP/1.1 200 raw");
  upstream.owner.stream->send_body("up", false);
  upstream.wire.turn(*upstream.codec);
  EXPECT_EQ(upstream.wire.sent, "up");
  upstream.eof();
  EXPECT_TRUE(upstream.owner.whole);
  EXPECT_FALSE(upstream.wire.closed);
  upstream.owner.stream->send_body("more", true);
  EXPECT_TRUE(upstream.wire.shut);
  upstream.wire.turn(*upstream.codec);
  EXPECT_EQ(upstream.wire.sent, "upmore");
  upstream.owner.stream->release();
  EXPECT_EQ(upstream.wire.closed, Wire::Close::kFlush);
  EXPECT_FALSE(upstream.codec->reusable());
}

TEST(H1Client, AWebsocketWithoutAKeyGetsOne) {
  FakeWire wire;
  FakePool pool;
  const auto shake = [&](bool right, ResponseOwner& owner) {
    auto codec = make_h1_client(wire, pool, {});
    owner.release_when_whole = false;
    owner.stream = codec->open(owner);
    RequestHead head(owner.arena);
    head.version = Version::kHttp2;
    head.target = "/chat";
    head.authority = "a";
    head.upgrade = "websocket";
    owner.stream->send_request(head, false);
    owner.stream->send_body("early", false);
    wire.turn(*codec);
    const std::string request = wire.take_sent();
    const std::size_t key = request.find("Sec-WebSocket-Key: ") + 19;
    EXPECT_EQ(request.substr(key + 22, 4), "==\r\n");
    EXPECT_NE(request.find("\r\nSec-WebSocket-Version: 13\r\n"), std::string::npos);
    EXPECT_EQ(request.find("early"), std::string::npos);
    // What a server of that key answers, as our own server side computes it.
    Exchanges server;
    server.clients.on_whole = [](RequestOwner& request_owner) {
      ResponseHead answer(request_owner.arena);
      answer.status = 101;
      answer.version = Version::kHttp2;
      request_owner.stream.send_response(answer, false);
    };
    server.feed(request);
    std::string answer = server.wire.sent;
    if (!right) answer[answer.find("Accept: ") + 8] ^= 1;
    codec->feed(answer);
    wire.turn(*codec);
    return wire.take_sent();
  };
  ResponseOwner fine;
  EXPECT_EQ(shake(true, fine), "early");
  EXPECT_EQ(fine.Record::head, "101 Switching Protocols\n");
  wire.closed.reset();
  ResponseOwner wrong;
  EXPECT_EQ(shake(false, wrong), "");
  EXPECT_EQ(wrong.reset, kProtocol);
}

TEST(H1Client, WhatWasMeantForATunnelIsDroppedWhenThereIsNone) {
  FakeWire wire;
  FakePool pool;
  auto codec = make_h1_client(wire, pool, {});
  ResponseOwner owner;
  owner.release_when_whole = false;
  owner.stream = codec->open(owner);
  RequestHead head(owner.arena);
  head.target = "/";
  head.authority = "a";
  head.upgrade = "other";
  owner.stream->send_request(head, false);
  owner.stream->send_body("GET /evil HTTP/1.1\r\n\r\n", false);
  wire.turn(*codec);
  EXPECT_EQ(owner.sent, 0);
  codec->feed("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
  wire.turn(*codec);
  EXPECT_EQ(owner.sent, 1);
  EXPECT_TRUE(owner.whole);
  EXPECT_EQ(wire.sent.find("evil"), std::string::npos);
}

// ---- what is written can be read again

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::size_t below(std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(engine_);
  }
  bool coin() { return below(2) == 0; }
  std::string of(std::string_view alphabet, std::size_t least, std::size_t most) {
    std::string text(least + below(most - least + 1), ' ');
    for (char& c : text) c = alphabet[below(alphabet.size())];
    return text;
  }
  std::string value() {
    std::string text = of("abc XYZ\t,;=\"/\x80\xff", 0, 30);
    return std::string(trim_ows(text));
  }
  std::string bytes(std::size_t most) {
    std::string text(below(most + 1), ' ');
    for (char& c : text) c = static_cast<char>(below(256));
    return text;
  }

 private:
  std::mt19937 engine_;
};

constexpr std::string_view kNames = "abcXYZ019-_.!~";

void feed_in_pieces(Random& random, std::string_view bytes,
                    const std::function<void(std::string_view)>& feed) {
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), 1 + random.below(random.coin() ? 5 : 4000));
    feed(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
}

TEST(H1RoundTrip, RequestsComeBackAsTheyWereSent) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    FakeWire wire;
    FakePool pool;
    auto client = make_h1_client(wire, pool, {});
    ResponseOwner owner;
    owner.stream = client->open(owner);
    RequestHead head(owner.arena);
    head.method_text = owner.arena.copy(random.of("GETPOSDLM-", 1, 8));
    head.target = owner.arena.concat("/", random.of("abc/?&=%\xc3", 0, 40));
    head.authority = owner.arena.concat("h", random.of("abc-.09", 0, 10));
    head.te_trailers = random.coin();
    const std::string body = random.bytes(random.coin() ? 100 : 20000);
    const bool has_body = random.coin();
    const bool has_length = has_body && random.coin();
    if (has_length) head.content_length = body.size();
    std::string expected_fields;
    const std::size_t count = random.below(20);
    const std::size_t host_at = random.below(20);
    if (host_at >= count) expected_fields = "Host: " + std::string(head.authority) + "\n";
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = i == host_at ? "hOsT" : "x" + random.of(kNames, 0, 12);
      const std::string value = random.value();
      head.headers.add(header_id(name), owner.arena.copy(name), owner.arena.copy(value));
      expected_fields += name + ": " + (i == host_at ? std::string(head.authority) : value) + "\n";
    }
    if (has_length) expected_fields += "Content-Length: " + std::to_string(body.size()) + "\n";
    owner.stream->send_request(head, !has_body);
    std::string trailers;
    if (has_body) {
      feed_in_pieces(random, body,
                     [&](std::string_view piece) { owner.stream->send_body(piece, false); });
      if (!has_length && random.coin()) {
        Headers fields(owner.arena);
        fields.add(HeaderId::kUnknown, "X-Sum", "1");
        owner.stream->send_trailers(fields);
        trailers = "X-Sum: 1\n";
      } else {
        owner.stream->send_body({}, true);
      }
    }
    wire.turn(*client);
    Exchanges exchanges;
    feed_in_pieces(random, wire.sent, [&](std::string_view piece) { exchanges.feed(piece); });
    ASSERT_EQ(exchanges.count(), 1U) << seed;
    const RequestOwner& read = exchanges.last();
    ASSERT_EQ(read.bad_detail, "") << seed;
    EXPECT_TRUE(read.whole) << seed;
    EXPECT_EQ(read.request.method_text, head.method_text);
    EXPECT_EQ(read.request.target, head.target);
    EXPECT_EQ(read.request.authority, head.authority);
    EXPECT_EQ(read.request.te_trailers, head.te_trailers);
    EXPECT_EQ(read.request.content_length, head.content_length);
    EXPECT_EQ(text_of(read.request.headers), expected_fields) << seed;
    EXPECT_EQ(read.body, has_body ? body : "") << seed;
    EXPECT_EQ(read.trailers, trailers) << seed;
  }
}

TEST(H1RoundTrip, ResponsesComeBackAsTheyWereSent) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    const std::string body = random.bytes(random.coin() ? 100 : 20000);
    const bool has_length = random.coin();
    const bool bodiless = random.below(4) == 0;
    const int status = bodiless ? 304 : 200 + static_cast<int>(random.below(300) / 10 * 10);
    const bool old = random.below(4) == 0;
    std::string expected_fields;
    Exchanges exchanges;
    exchanges.clients.on_whole = [&](RequestOwner& owner) {
      owner.answered = true;
      ResponseHead head(owner.arena);
      head.status = status;
      if (has_length) head.content_length = body.size();
      for (std::size_t count = random.below(20); count > 0; --count) {
        const std::string name = "x" + random.of(kNames, 0, 12);
        const std::string value = random.value();
        head.headers.add(header_id(name), owner.arena.copy(name), owner.arena.copy(value));
        expected_fields += name + ": " + value + "\n";
      }
      if (has_length) expected_fields += "Content-Length: " + std::to_string(body.size()) + "\n";
      owner.stream.send_response(head, false);
      feed_in_pieces(random, body,
                     [&](std::string_view piece) { owner.stream.send_body(piece, false); });
      owner.stream.send_body({}, true);
    };
    exchanges.feed(old ? raw("GET / HTTP/1.0\r\n\r\n") : get(""));
    Upstream upstream;
    feed_in_pieces(random, exchanges.wire.sent,
                   [&](std::string_view piece) { upstream.feed(piece); });
    if (exchanges.wire.closed) upstream.eof();
    ASSERT_EQ(upstream.owner.reset, "") << seed << upstream.owner.reset_detail;
    EXPECT_TRUE(upstream.owner.whole) << seed;
    EXPECT_EQ(upstream.owner.response.status, status);
    EXPECT_EQ(text_of(upstream.owner.response.headers), expected_fields) << seed;
    EXPECT_EQ(upstream.owner.body, bodiless ? "" : body) << seed;
    EXPECT_EQ(upstream.codec->reusable(), !exchanges.wire.closed) << seed;
  }
}

// Whatever comes: no crash, no hang, at most one answer a request, and the same for every cut.
TEST(H1RoundTrip, DamagedInputIsReadTheSameHoweverItIsCut) {
  const std::string seeds[] = {
      get("Connection: close, x\r\nX: y\r\n") + kNext,
      chunked("5;a=b\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n") + kNext,
      post("Content-Length: 5\r\nExpect: 100-continue\r\n", "abcde") + kNext,
      kUpgrade,
  };
  for (unsigned seed = 1; seed <= 2000; ++seed) {
    Random random(seed);
    std::string input = seeds[random.below(std::size(seeds))];
    for (std::size_t changes = 1 + random.below(3); changes > 0; --changes) {
      const std::size_t at = random.below(input.size());
      switch (random.below(4)) {
        case 0: input[at] = "\r\n\0 \t:;,\x7f\xff"[random.below(10)]; break;
        case 1: input.erase(at, 1 + random.below(4)); break;
        case 2: input.insert(at, 1, "\r\n :0a"[random.below(6)]); break;
        default: input.insert(at, input.substr(random.below(input.size()), random.below(20)));
      }
      if (input.empty()) input = "\r";
    }
    const std::string whole = outcome(input, {}, {});
    for (int i = 0; i < 5; ++i) {
      const std::size_t cut = random.below(input.size() + 1);
      EXPECT_EQ(
          outcome(input, {}, {std::min(cut, input.size() / 2), std::max(cut, input.size() / 2)}),
          whole)
          << seed << " " << testing::PrintToString(input);
    }
  }
}

}  // namespace
}  // namespace outrider
