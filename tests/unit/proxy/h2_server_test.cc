// The HTTP/2 server codec against frames made by hand: what a request becomes, what is refused and
// how, and what floods cost.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/unit/proxy/h2_harness.h"

namespace outrider::h2test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

const Fields kPost = {
    {":method", "POST"}, {":scheme", "http"}, {":authority", "shop.example"}, {":path", "/cart"}};

TEST(H2Server, BeginsWithItsSettings) {
  Server server({.max_header_bytes = 5000, .max_streams = 7});
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 2U);
  ASSERT_EQ(frames[0].type, NGHTTP2_SETTINGS);
  std::map<std::uint32_t, std::uint32_t> values;
  for (std::size_t at = 0; at < frames[0].payload.size(); at += 6)
    values[frames[0].number(at) >> 16] = frames[0].number(at + 2);
  EXPECT_EQ(values[NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS], 7U);
  EXPECT_EQ(values[NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE], limits::kH2Window);
  EXPECT_EQ(values[NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL], 1U);
  EXPECT_EQ(values[NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE], 5000U);
  EXPECT_EQ(frames[1].type, NGHTTP2_WINDOW_UPDATE);
  EXPECT_EQ(frames[1].number(0), limits::kH2ConnectionWindow - 65535);
}

TEST(H2Server, HandsOverARequestAndSendsTheAnswer) {
  Server server({.scheme = "https"});
  answering(server);
  const auto fields = with(
      get("/a?b=c"), {{"accept", "*/*"}, {"x-own", "1"}, {"te", "trailers"}, {"user-agent", "t"}});
  const std::vector<Frame> frames = server.exchange(preface() + headers(1, fields, true));
  Request& request = server.last();
  EXPECT_EQ(request.message.method, Method::kGet);
  EXPECT_EQ(request.message.method_text, "GET");
  EXPECT_EQ(request.message.version, Version::kHttp2);
  EXPECT_EQ(request.message.scheme, "https") << "the connection's, not the client's";
  EXPECT_EQ(request.message.authority, "shop.example");
  EXPECT_EQ(request.message.target, "/a?b=c");
  EXPECT_TRUE(request.message.te_trailers);
  EXPECT_FALSE(request.message.content_length);
  EXPECT_THAT(request.fields,
              ElementsAre(Pair("accept", "*/*"), Pair("x-own", "1"), Pair("user-agent", "t")));
  EXPECT_EQ(request.message.headers.begin()->id, HeaderId::kAccept);
  EXPECT_TRUE(request.ended);
  EXPECT_EQ(request.sent, 1);

  ASSERT_GE(frames.size(), 2U);
  const Frame& head = frames[frames.size() - 2];
  const Frame& body = frames.back();
  ASSERT_EQ(head.type, NGHTTP2_HEADERS);
  EXPECT_FALSE(head.has(kEnd));
  EXPECT_THAT(server.reader.decode(head.payload), ElementsAre(Pair(":status", "200")));
  EXPECT_EQ(body.type, NGHTTP2_DATA);
  EXPECT_TRUE(body.has(kEnd));
  EXPECT_EQ(body.payload, "hello");
  EXPECT_TRUE(server.codec->idle());
}

TEST(H2Server, HandsOverBodyAndTrailers) {
  Server server;
  server.feed(preface() + headers(1, with(kPost, {{"content-length", "10"}}), false) +
              data(1, "01234", false));
  Request& request = server.last();
  EXPECT_EQ(request.message.content_length, 10U);
  EXPECT_THAT(request.fields, IsEmpty());
  EXPECT_EQ(request.body, "01234");
  EXPECT_FALSE(request.ended);
  server.feed(data(1, "56789", false) +
              headers(1, {{"x-sum", "9"}, {"authorization", "no"}, {"grpc-status", "0"}}, true));
  EXPECT_EQ(request.body, "0123456789");
  EXPECT_THAT(request.trailers, ElementsAre(Pair("x-sum", "9"), Pair("grpc-status", "0")))
      << "what routes or authorises is dropped";
  EXPECT_TRUE(request.ended);
  request.answer(204, "");
  server.turn();
}

TEST(H2Server, PaddingIsNoBody) {
  Server server;
  std::string padded(1, '\x05');
  padded += "hello" + std::string(5, '\0');
  server.feed(preface() + headers(1, with(kPost, {{"content-length", "5"}}), false) +
              frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED | kEnd, 1, padded));
  EXPECT_EQ(server.last().body, "hello");
  EXPECT_TRUE(server.last().ended);
  server.last().answer(200, "");
  server.turn();
}

TEST(H2Server, JoinsCookieCrumbsWhereTheFirstStood) {
  Server server;
  answering(server);
  server.exchange(
      preface() +
      headers(1,
              with(get(), {{"cookie", "a=1"}, {"accept", "x"}, {"cookie", ""}, {"cookie", "c=3"}}),
              true));
  EXPECT_THAT(server.last().fields, ElementsAre(Pair("cookie", "a=1; ; c=3"), Pair("accept", "x")));
}

TEST(H2Server, DropsWhatBelongsToOneHopAlone) {
  Server server;
  answering(server, 200, "x");
  server.exchange(preface() + headers(1,
                                      with(get(), {{"proxy-authorization", "a"},
                                                   {"http2-settings", "b"},
                                                   {"proxy", "c"},
                                                   {"accept", "d"}}),
                                      true));
  EXPECT_THAT(server.last().fields, ElementsAre(Pair("accept", "d")));
}

TEST(H2Server, SendsHeadsAsHttp2WantsThem) {
  Server server;
  server.exchange(preface() + headers(1, get(), true));
  Request& request = server.last();
  ResponseHead& head = request.answer_head(200, {{"Content-Type", "text/plain"},
                                                 {"Connection", "close"},
                                                 {"Content-Length", "99"},
                                                 {"X-Own-Field", "V"},
                                                 {"Server", ""},
                                                 {"Transfer-Encoding", "chunked"},
                                                 {"Keep-Alive", "timeout=5"},
                                                 {"Upgrade", "h2c"},
                                                 {"Host", "h"}});
  head.content_length = 5;
  request.stream->send_response(head, false);
  request.stream->send_body("hello", true);
  const std::vector<Frame> frames = server.turn();
  EXPECT_THAT(
      server.reader.decode(frames.at(0).payload),
      ElementsAre(Pair(":status", "200"), Pair("content-type", "text/plain"),
                  Pair("content-length", "5"), Pair("x-own-field", "V"), Pair("server", "")));
}

TEST(H2Server, WritesContentLengthThatHadNoPlace) {
  Server server;
  server.exchange(preface() + headers(1, get(), true));
  ResponseHead& head = server.last().answer_head(304);
  head.content_length = 1234567890123;
  server.last().stream->send_response(head, true);
  const std::vector<Frame> frames = server.turn();
  EXPECT_TRUE(frames.at(0).has(kEnd));
  EXPECT_THAT(server.reader.decode(frames.at(0).payload),
              ElementsAre(Pair(":status", "304"), Pair("content-length", "1234567890123")));
}

TEST(H2Server, SendsInterimResponsesAndTrailers) {
  Server server;
  server.exchange(preface() + headers(1, kPost, true));
  Request& request = server.last();
  Arena arena(blocks());
  ResponseHead early(arena);
  early.status = 103;
  early.content_length = 5;
  early.headers.add(HeaderId::kLink, "</a>; rel=preload");
  request.stream->send_interim(early);
  request.stream->send_response(request.answer_head(200, {{"content-type", "application/grpc"}}),
                                false);
  request.stream->send_body("data", false);
  Headers trailers(arena);
  trailers.add(HeaderId::kGrpcStatus, "grpc-status", "0");
  trailers.add(HeaderId::kUnknown, "X-Mixed", "case");
  trailers.add(HeaderId::kContentLength, "content-length", "4");
  trailers.add(HeaderId::kConnection, "connection", "close");
  request.stream->send_trailers(trailers);
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 4U);
  EXPECT_THAT(server.reader.decode(frames[0].payload),
              ElementsAre(Pair(":status", "103"), Pair("link", "</a>; rel=preload")));
  EXPECT_THAT(server.reader.decode(frames[1].payload),
              ElementsAre(Pair(":status", "200"), Pair("content-type", "application/grpc")));
  EXPECT_EQ(frames[2].payload, "data");
  EXPECT_FALSE(frames[2].has(kEnd));
  EXPECT_TRUE(frames[3].has(kEnd));
  EXPECT_THAT(server.reader.decode(frames[3].payload),
              ElementsAre(Pair("grpc-status", "0"), Pair("x-mixed", "case")));
  EXPECT_EQ(request.sent, 1);
}

TEST(H2Server, TrailersAfterAnEmptyBodyOrWithNothingLeftInThem) {
  Server server;
  server.exchange(preface() + headers(1, kPost, true) + headers(3, kPost, true));
  Arena arena(blocks());
  Headers status(arena), nothing(arena);
  status.add(HeaderId::kGrpcStatus, "grpc-status", "0");
  nothing.add(HeaderId::kConnection, "connection", "close");
  for (const auto& [at, trailers] : {std::pair{0U, &status}, {1U, &nothing}}) {
    Request& request = server.nth(at);
    request.stream->send_response(request.answer_head(200), false);
    server.turn();
    request.stream->send_trailers(*trailers);
    const std::vector<Frame> frames = server.turn();
    ASSERT_EQ(frames.size(), 1U);
    EXPECT_TRUE(frames[0].has(kEnd));
    EXPECT_EQ(frames[0].type, trailers == &status ? NGHTTP2_HEADERS : NGHTTP2_DATA);
    EXPECT_EQ(request.sent, 1);
  }
}

// --- Malformed requests: RST_STREAM(PROTOCOL_ERROR), and nobody above is asked anything.

struct Malformed {
  const char* name;
  Fields fields;
};

class H2ServerMalformed : public ::testing::TestWithParam<Malformed> {};

TEST_P(H2ServerMalformed, IsResetAndTheNextOneIsServed) {
  Server server;
  answering(server);
  server.exchange(preface() + headers(1, GetParam().fields, true));
  EXPECT_EQ(server.resets(NGHTTP2_PROTOCOL_ERROR), 1U);
  EXPECT_EQ(server.all.size(), 4U) << "SETTINGS, WINDOW_UPDATE, SETTINGS ACK, RST_STREAM";
  ASSERT_EQ(server.requests.size(), 1U);
  EXPECT_EQ(server.last().heads + server.last().bads, 0);
  EXPECT_EQ(server.last().resets, 1);
  EXPECT_EQ(server.last().error.reason, Reason::kBadRequest);
  EXPECT_FALSE(server.last().detail.empty());
  server.exchange(headers(3, get(), true));
  EXPECT_EQ(server.last().heads, 1);
  EXPECT_FALSE(server.wire.closed);
}

Fields without(std::string_view name) {
  Fields fields = get();
  std::erase_if(fields, [&](const auto& field) { return field.first == name; });
  return fields;
}
Fields instead(std::string_view name, std::string_view value) {
  Fields fields = get();
  for (auto& field : fields)
    if (field.first == name) field.second = value;
  return fields;
}
Fields plus(std::string name, std::string value) {
  return with(get(), {{std::move(name), std::move(value)}});
}

INSTANTIATE_TEST_SUITE_P(
    Rows, H2ServerMalformed,
    ::testing::Values(
        Malformed{"NoMethod", without(":method")}, Malformed{"NoScheme", without(":scheme")},
        Malformed{"NoPath", without(":path")}, Malformed{"EmptyPath", instead(":path", "")},
        Malformed{"EmptyMethod", instead(":method", "")},
        Malformed{"EmptyAuthority", instead(":authority", "")},
        Malformed{"EmptyScheme", instead(":scheme", "")},
        Malformed{"MethodTwice", with(get(), {{":method", "GET"}})},
        Malformed{"PathTwice", with(get(), {{":path", "/"}})},
        Malformed{"AuthorityTwice", with(get(), {{":authority", "shop.example"}})},
        Malformed{"SchemeTwice", with(get(), {{":scheme", "http"}})},
        Malformed{"UnknownPseudo", with(get(), {{":version", "2"}})},
        Malformed{"ResponsePseudo", with(get(), {{":status", "200"}})},
        Malformed{"PseudoBehindFields",
                  {{":method", "GET"},
                   {"accept", "x"},
                   {":scheme", "http"},
                   {":authority", "a"},
                   {":path", "/"}}},
        Malformed{"UpperCaseName", plus("Accept", "x")},
        Malformed{"UpperCaseUnknownName", plus("x-Own", "x")},
        Malformed{"EmptyName", plus("", "x")}, Malformed{"SpaceInName", plus("x y", "x")},
        Malformed{"ColonInName", plus("x:y", "x")},
        Malformed{"NulInName", plus(std::string("x\0y", 3), "x")},
        Malformed{"LineInName", plus("x\r\ny", "x")},
        Malformed{"Utf8InName", plus("\xc3\xbc", "x")},
        Malformed{"LineInValue", plus("x-own", "a\r\nb: c")},
        Malformed{"LfInValue", plus("x-own", "a\nb")},
        Malformed{"CrInValue", plus("accept", "a\rb")},
        Malformed{"NulInValue", plus("x-own", std::string("a\0b", 3))},
        Malformed{"DelInValue", plus("x-own", "a\x7f")},
        Malformed{"ControlInLongValue", plus("x-own", "0123456789abcdef\x01xyz")},
        Malformed{"SpaceBeforeValue", plus("x-own", " a")},
        Malformed{"SpaceAfterValue", plus("x-own", "a ")},
        Malformed{"TabAfterValue", plus("x-own", "a\t")},
        Malformed{"Connection", plus("connection", "close")},
        Malformed{"KeepAlive", plus("keep-alive", "1")},
        Malformed{"ProxyConnection", plus("proxy-connection", "close")},
        Malformed{"TransferEncoding", plus("transfer-encoding", "chunked")},
        Malformed{"Upgrade", plus("upgrade", "h2c")}, Malformed{"TeGzip", plus("te", "gzip")},
        Malformed{"TeList", plus("te", "trailers, deflate")},
        Malformed{"MethodWithSpace", instead(":method", "GET /x HTTP/1.1")},
        Malformed{"MethodWithLine", instead(":method", "GET\r\n")},
        Malformed{"MethodNoToken", instead(":method", "G(T")},
        Malformed{"PathWithSpace", instead(":path", "/a b")},
        Malformed{"PathWithLine", instead(":path", "/ HTTP/1.1\r\nHost: evil\r\n\r\n")},
        Malformed{"PathWithNul", instead(":path", std::string("/\0", 2))},
        Malformed{"SchemeWithSpace", instead(":scheme", "http ")},
        Malformed{"AuthorityWithLine", instead(":authority", "a\r\nb")},
        Malformed{"AuthorityWithSpace", instead(":authority", "a b")},
        Malformed{"HostWithSpace", plus("host", "a b")},
        Malformed{"HostTwice", with(get(), {{"host", "shop.example"}, {"host", "shop.example"}})},
        Malformed{"LengthNoNumber", plus("content-length", "x")},
        Malformed{"LengthNegative", plus("content-length", "-1")},
        Malformed{"LengthSigned", plus("content-length", "+0")},
        Malformed{"LengthEmpty", plus("content-length", "")},
        Malformed{"LengthHuge", plus("content-length", "9223372036854775808")},
        Malformed{"LengthTwice", with(get(), {{"content-length", "0"}, {"content-length", "0"}})},
        Malformed{"LengthWithoutBody", plus("content-length", "1")},
        Malformed{"ProtocolWithGet", with(get(), {{":protocol", "websocket"}})},
        Malformed{
            "ConnectWithPath",
            {{":method", "CONNECT"}, {":authority", "a:1"}, {":path", "/"}, {":scheme", "http"}}},
        Malformed{"ConnectWithoutAuthority", {{":method", "CONNECT"}, {"host", "a:1"}}},
        Malformed{"ExtendedConnectWithoutPath",
                  {{":method", "CONNECT"},
                   {":protocol", "websocket"},
                   {":authority", "a"},
                   {":scheme", "http"}}}),
    [](const auto& row) { return row.param.name; });

TEST(H2Server, BodyAndContentLengthMustAgree) {
  struct Row {
    const char* length;
    std::string frames;
  };
  const Row rows[] = {{"3", data(1, "four", true)},
                      {"3", data(1, "12", false) + data(1, "34", false)},
                      {"5", data(1, "four", true)},
                      {"5", data(1, "four", false) + data(1, "", true)},
                      {"5", data(1, "four", false) + headers(1, {{"x", "y"}}, true)},
                      {"0", data(1, "x", true)}};
  for (const Row& row : rows) {
    Server server;
    server.exchange(preface() + headers(1, with(kPost, {{"content-length", row.length}}), false) +
                    row.frames);
    EXPECT_EQ(server.resets(NGHTTP2_PROTOCOL_ERROR), 1U);
    EXPECT_EQ(server.last().resets, 1);
    EXPECT_EQ(server.last().error.reason, Reason::kBadRequest);
    EXPECT_FALSE(server.last().ended);
  }
}

TEST(H2Server, MalformedTrailersEndTheStream) {
  for (const std::string& block :
       {headers(1, {{"x", "y"}}, false), headers(1, {{":path", "/"}}, true),
        headers(1, {{"X", "y"}}, true), headers(1, {{"x", "a\nb"}}, true),
        headers(1, {{"transfer-encoding", "chunked"}}, true)}) {
    Server server;
    server.exchange(preface() + headers(1, kPost, false) + data(1, "x", false) + block);
    EXPECT_EQ(server.resets(NGHTTP2_PROTOCOL_ERROR), 1U);
    EXPECT_EQ(server.last().resets, 1);
    EXPECT_EQ(server.last().trailer_blocks, 0);
  }
}

// --- What HTTP/1 would answer with a status

struct Refused {
  const char* name;
  Fields fields;
  Reason reason;
  int status;
};

class H2ServerRefused : public ::testing::TestWithParam<Refused> {};

TEST_P(H2ServerRefused, IsAnsweredAndTheConnectionLives) {
  Server server({.max_header_bytes = 4096, .max_target_bytes = 100, .max_fields = 10});
  server.exchange(preface() + headers(1, GetParam().fields, false));
  Request& request = server.last();
  EXPECT_EQ(request.heads, 0);
  EXPECT_EQ(request.bads, 1);
  EXPECT_EQ(request.bad.reason, GetParam().reason);
  EXPECT_EQ(request.bad.status, GetParam().status);
  EXPECT_FALSE(request.bad.detail.empty());
  request.answer(400, "no");
  request.ended = true;  // its owner lets go once the answer is out
  server.exchange(data(1, std::string(1000, 'x'), false));
  EXPECT_EQ(request.body, "") << "the incoming half is dead";
  EXPECT_EQ(server.resets(NGHTTP2_NO_ERROR), 1U);
  EXPECT_EQ(request.resets, 0);
  answering(server);
  server.exchange(headers(3, get(), true));
  EXPECT_EQ(server.last().sent, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, H2ServerRefused,
    ::testing::Values(
        Refused{"HostDiffers", plus("host", "other.example"), Reason::kBadRequest, 0},
        Refused{"NeitherHostNorAuthority", without(":authority"), Reason::kBadRequest, 0},
        Refused{"PathWithoutSlash", instead(":path", "a"), Reason::kBadRequest, 0},
        Refused{"AbsolutePath", instead(":path", "http://evil.example/"), Reason::kBadRequest, 0},
        Refused{"StarWithGet", instead(":path", "*"), Reason::kBadRequest, 0},
        Refused{"OtherScheme", instead(":scheme", "ftp"), Reason::kBadRequest, 0},
        Refused{"LongMethod", instead(":method", std::string(33, 'M')), Reason::kBadRequest, 0},
        Refused{"OtherExpect", plus("expect", "200-ok"), Reason::kBadRequest, 417},
        Refused{"AuthorizationTwice", with(get(), {{"authorization", "a"}, {"authorization", "b"}}),
                Reason::kBadRequest, 0},
        Refused{"OtherProtocol",
                with({{":method", "CONNECT"},
                      {":protocol", "connect-udp"},
                      {":scheme", "http"},
                      {":authority", "a"},
                      {":path", "/"}},
                     {}),
                Reason::kNotSupported, 501},
        Refused{"LongTarget", instead(":path", "/" + std::string(100, 'a')),
                Reason::kHeaderTooLarge, 414},
        Refused{"LongHead", plus("x-long", std::string(4000, 'a')), Reason::kHeaderTooLarge, 0},
        Refused{"ManyFields",
                with(get(), {{"a", ""},
                             {"b", ""},
                             {"c", ""},
                             {"d", ""},
                             {"e", ""},
                             {"f", ""},
                             {"g", ""},
                             {"h", ""},
                             {"i", ""},
                             {"j", ""},
                             {"k", ""}}),
                Reason::kHeaderTooLarge, 0},
        Refused{"ManyCrumbs", with(get(), Fields(11, {"cookie", "a=b"})), Reason::kHeaderTooLarge,
                0}),
    [](const auto& row) { return row.param.name; });

TEST(H2Server, AcceptsWhatOnlyLooksOdd) {
  for (const Fields& fields :
       {with(without(":authority"), {{"host", "shop.example"}}), plus("host", "SHOP.example"),
        plus("x_own", "\x80\xff"), plus("x-own", ""), plus("x-own", "a\tb c"),
        plus("te", "Trailers"), plus("expect", "100-Continue"), instead(":scheme", "HTTPS"),
        plus("content-length", "0"), instead(":method", "BREW")}) {
    Server server;
    answering(server);
    server.exchange(preface() + headers(1, fields, true));
    EXPECT_EQ(server.last().heads, 1) << fields.back().first;
    EXPECT_EQ(server.last().message.authority, "shop.example");
    EXPECT_EQ(server.last().message.expects_continue, fields.back().first == "expect");
  }
  Server server;
  answering(server);
  Fields star = instead(":path", "*");
  star[0].second = "OPTIONS";
  server.exchange(preface() + headers(1, star, true));
  EXPECT_EQ(server.last().message.target, "*");
}

TEST(H2Server, TrailersCountAgainstTheLimitsToo) {
  Server server({.max_header_bytes = 1000});
  server.exchange(preface() + headers(1, kPost, false) +
                  headers(1, {{"x", std::string(1100, 'x')}}, true));
  EXPECT_EQ(server.last().heads, 1);
  EXPECT_EQ(server.last().bads, 1);
  EXPECT_EQ(server.last().bad.reason, Reason::kHeaderTooLarge);
  server.last().answer(431, "");
  server.turn();
  server.last().stream->release();
  server.last().stream = nullptr;
}

TEST(H2Server, HeaderBombIsCutWhileItIsDecoded) {
  Server server;
  // One entry of 4,000 bytes in the table, then as many one-byte references to it as a frame holds.
  std::string block =
      hpack(get()) + '\x40' + hpack_string("x-bomb") + hpack_string(std::string(3900, 'a'));
  block += std::string(4000, '\xbe');
  server.exchange(preface() + frame(NGHTTP2_HEADERS, kEndHeaders | kEnd, 1, block));
  EXPECT_EQ(server.goaways(NGHTTP2_ENHANCE_YOUR_CALM), 1U);
  EXPECT_EQ(server.abuse_reason, Reason::kHeaderTooLarge);
  EXPECT_EQ(server.last().heads, 0);
  EXPECT_EQ(server.last().resets, 1);
  EXPECT_LT(server.last().message.headers.size(), 20U);
  EXPECT_TRUE(server.wire.closed);
}

TEST(H2Server, AFieldLongerThanHpackTakesIsAHeadTooLarge) {
  const std::string block = hpack(plus("x-long", std::string(70'000, 'x')));
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, block.size()}) {
    Server server;
    server.exchange(preface());
    const std::string bytes =
        frame(NGHTTP2_HEADERS, kEnd, 1, std::string_view(block).substr(0, 16'000)) +
        frame(NGHTTP2_CONTINUATION, 0, 1, std::string_view(block).substr(16'000, 16'000));
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      server.feed(std::string_view(bytes).substr(at, piece));
    server.turn();
    EXPECT_EQ(server.goaways(NGHTTP2_ENHANCE_YOUR_CALM), 1U);
    EXPECT_EQ(server.abuse_reason, Reason::kHeaderTooLarge);
  }
}

TEST(H2Server, ManyLargeFieldsInManyFramesAreRead) {
  for (const int padded : {0, int{NGHTTP2_FLAG_PADDED}}) {
    Server server;
    answering(server);
    Fields fields = get();
    for (int i = 0; i < 50; ++i)
      fields.emplace_back("x-field-" + std::to_string(i),
                          std::string(1000, static_cast<char>('a' + i % 26)));
    const std::string block = "\x20\x3f\xe1\x1f" + hpack(fields) +
                              '\x82';  // two table sizes first; then :method once more, in vain
    std::string bytes = preface();
    const std::string first = (padded != 0 ? std::string("\x02") : "") + block.substr(0, 1000) +
                              (padded != 0 ? std::string(2, '\0') : "");
    bytes += frame(NGHTTP2_HEADERS, static_cast<std::uint8_t>(kEnd | padded), 1, first);
    for (std::size_t at = 1000; at < block.size(); at += 5000)
      bytes += frame(NGHTTP2_CONTINUATION, at + 5000 >= block.size() ? kEndHeaders : 0, 1,
                     std::string_view(block).substr(at, 5000));
    server.exchange(bytes);
    EXPECT_EQ(server.last().message.headers.size(), 50U);
    EXPECT_EQ(server.resets(NGHTTP2_PROTOCOL_ERROR), 1U) << "for :method behind fields";
    EXPECT_FALSE(server.wire.closed);
  }
}

// --- CONNECT

const Fields kWebSocket = {{":method", "CONNECT"}, {":protocol", "websocket"},
                           {":scheme", "https"},   {":authority", "chat.example"},
                           {":path", "/ws"},       {"sec-websocket-version", "13"}};

TEST(H2Server, ExtendedConnectIsAnUpgrade) {
  Server server;
  server.exchange(preface() + headers(1, kWebSocket, false));
  Request& request = server.last();
  EXPECT_EQ(request.message.method, Method::kGet);
  EXPECT_EQ(request.message.method_text, "GET");
  EXPECT_EQ(request.message.upgrade, "websocket");
  EXPECT_EQ(request.message.target, "/ws");
  EXPECT_THAT(request.fields, ElementsAre(Pair("sec-websocket-version", "13")));
  request.stream->send_response(request.answer_head(101, {{"upgrade", "websocket"},
                                                          {"connection", "upgrade"},
                                                          {"sec-websocket-accept", "x"},
                                                          {"sec-websocket-protocol", "chat"}}),
                                false);
  const std::vector<Frame> head = server.turn();
  EXPECT_THAT(server.reader.decode(head.at(0).payload),
              ElementsAre(Pair(":status", "200"), Pair("sec-websocket-protocol", "chat")));
  server.exchange(data(1, "ping", false));
  EXPECT_EQ(request.body, "ping");
  request.stream->send_body("pong", false);
  EXPECT_EQ(server.turn().at(0).payload, "pong");
  server.exchange(data(1, "", true));
  EXPECT_TRUE(request.ended);
  request.stream->send_body("", true);
  EXPECT_TRUE(server.turn().at(0).has(kEnd));
  EXPECT_EQ(request.sent, 1);
}

TEST(H2Server, AnAnswerFromWhoDidNotSwitchIsNoTunnel) {
  for (const auto& [status, text] :
       {std::pair{200, "502"}, {204, "502"}, {403, "403"}, {426, "426"}}) {
    Server server;
    server.exchange(preface() + headers(1, kWebSocket, false));
    server.last().release_when_whole = false;
    server.last().stream->send_response(server.last().answer_head(status), true);
    EXPECT_EQ(value_of(server.reader.decode(server.turn().at(0).payload), ":status"), text);
  }
}

TEST(H2Server, PlainConnectIsPassedOn) {
  Server server;
  server.exchange(preface() +
                  headers(1, {{":method", "CONNECT"}, {":authority", "db.example:5432"}}, false));
  EXPECT_EQ(server.last().message.method, Method::kConnect);
  EXPECT_EQ(server.last().message.authority, "db.example:5432");
  EXPECT_EQ(server.last().message.upgrade, "");
}

// --- Resets and the life of streams

TEST(H2Server, ClientsResetEndsTheRequest) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false) + data(1, "abc", false) + rst(1));
  EXPECT_EQ(server.last().body, "abc");
  EXPECT_EQ(server.last().resets, 1);
  EXPECT_EQ(server.last().error.reason, Reason::kClientClosed);
  EXPECT_TRUE(server.codec->idle());
}

TEST(H2Server, OwnersResetCarriesItsCode) {
  const std::pair<ResetCode, std::uint32_t> codes[] = {
      {ResetCode::kNoError, NGHTTP2_NO_ERROR},
      {ResetCode::kCancel, NGHTTP2_CANCEL},
      {ResetCode::kRefused, NGHTTP2_REFUSED_STREAM},
      {ResetCode::kInternal, NGHTTP2_INTERNAL_ERROR},
      {ResetCode::kProtocol, NGHTTP2_PROTOCOL_ERROR},
      {ResetCode::kCalm, NGHTTP2_ENHANCE_YOUR_CALM}};
  Server server;
  server.exchange(preface());
  std::uint32_t id = 1;
  for (const auto& [code, wire] : codes) {
    server.exchange(headers(id, get(), true));
    std::exchange(server.last().stream, nullptr)->reset(code);
    const std::vector<Frame> frames = server.turn();
    ASSERT_EQ(frames.size(), 1U);
    EXPECT_EQ(frames[0].number(0), wire);
    id += 2;
  }
}

TEST(H2Server, CutResponseNeverEndsWell) {
  Server server;
  server.exchange(preface() + headers(1, get(), true));
  Request& request = server.last();
  request.stream->send_response(request.answer_head(200), false);
  request.stream->send_body("half", false);
  server.turn();
  request.stream->send_body("lost", false);
  std::exchange(request.stream, nullptr)->reset(ResetCode::kInternal);
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0].type, NGHTTP2_RST_STREAM);
  EXPECT_EQ(frames[0].number(0), NGHTTP2_INTERNAL_ERROR);
  for (const Frame& frame : server.all) EXPECT_FALSE(frame.type == NGHTTP2_DATA && frame.has(kEnd));
}

TEST(H2Server, EarlyAnswerStopsTheUpload) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false) + data(1, "part", false));
  Request& request = server.last();
  request.at_sent = [&] { std::exchange(request.stream, nullptr)->release(); };
  request.answer(413, "too much");
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 3U);
  EXPECT_TRUE(frames[1].has(kEnd));
  EXPECT_EQ(frames[2].type, NGHTTP2_RST_STREAM);
  EXPECT_EQ(frames[2].number(0), NGHTTP2_NO_ERROR);
  server.exchange(data(1, "what was under way", false) + data(1, "and more", true) +
                  headers(3, get(), true));
  EXPECT_FALSE(server.wire.closed);
  EXPECT_EQ(server.requests.size(), 2U);
}

// Heads are handed to nghttp2 without copies. When the stream is reset before they were serialised,
// their arena goes at once: nothing may read them later (AddressSanitizer would see it; values this
// long have blocks of their own).
TEST(H2Server, HeadOfAResetStreamIsNeverRead) {
  for (const bool by_peer : {false, true}) {
    Server server;
    server.exchange(preface() + headers(1, get(), true) + headers(3, get(), true));
    Request& request = server.nth(0);
    request.stream->send_response(
        request.answer_head(200, {{"X-" + std::string(600, 'A'), std::string(600, 'b')}}), false);
    request.stream->send_body("body", false);
    Headers trailers(*request.arena);
    trailers.add(HeaderId::kUnknown, request.arena->copy("X-" + std::string(700, 'A')),
                 request.arena->copy(std::string(700, 'c')));
    request.stream->send_trailers(trailers);
    if (by_peer)
      server.feed(rst(1));
    else
      std::exchange(request.stream, nullptr)->reset(ResetCode::kInternal);
    server.requests.pop_front();
    blocks().clear();
    for (const Frame& frame : server.turn()) EXPECT_NE(frame.type, NGHTTP2_HEADERS);
    server.nth(0).answer(200, "alive");
    EXPECT_EQ(server.turn().back().payload, "alive");
  }
}

TEST(H2Server, TrailersOfAResetStreamAreNeverRead) {
  Server server;
  server.exchange(preface() + settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}}) +
                  headers(1, get(), true));
  Request& request = server.last();
  request.stream->send_response(request.answer_head(200), false);
  request.stream->send_body("stuck", false);
  Headers trailers(*request.arena);
  trailers.add(HeaderId::kUnknown, "x-long", request.arena->copy(std::string(700, 'c')));
  request.stream->send_trailers(trailers);
  server.turn();
  server.feed(
      window_update(1, 100));  // DATA and trailers are ready to go, and the reset comes first
  std::exchange(request.stream, nullptr)->reset(ResetCode::kCancel);
  server.requests.clear();
  blocks().clear();
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0].type, NGHTTP2_RST_STREAM);
}

TEST(H2Server, StreamsMayEndInsideEveryCallback) {
  using Hook = std::function<void()> Noting<RequestSink, RequestHead>::*;
  for (const Hook hook :
       {&Request::at_head, &Request::at_body, &Request::at_end, &Request::at_sent}) {
    for (const bool release : {false, true}) {
      Server server;
      server.at_stream = [&](Request& request) {
        request.release_when_whole = false;
        if (hook == &Request::at_sent) request.at_end = [&request] { request.answer(200, "hi"); };
        request.*hook = [&request, release] {
          if (CodecStream* const stream = std::exchange(request.stream, nullptr))
            release ? stream->release() : stream->reset(ResetCode::kCancel);
        };
      };
      server.exchange(preface());
      server.feed(headers(1, kPost, false));
      // After a reset in on_head() the rest is dropped; the mocks would complain about any event.
      server.exchange(data(1, "abc", true));
      server.exchange(headers(3, kPost, false) + data(3, "abc", false) + data(3, "def", true));
      EXPECT_FALSE(server.wire.closed);
      EXPECT_TRUE(server.codec->idle());
    }
  }
}

TEST(H2Server, RefusesStreamsItsOwnerDoesNotWant) {
  Server server;
  server.refuse = true;
  server.exchange(preface() + headers(1, get(), true));
  EXPECT_EQ(server.resets(NGHTTP2_REFUSED_STREAM), 1U);
  EXPECT_TRUE(server.codec->idle());
}

TEST(H2Server, RefusesStreamsBeyondTheLimit) {
  Server server;
  std::string opening = preface();
  for (std::uint32_t i = 0; i < 300; ++i) opening += headers(2 * i + 1, get(), true);
  server.exchange(opening);
  EXPECT_EQ(server.requests.size(), 100U);
  EXPECT_EQ(server.resets(NGHTTP2_REFUSED_STREAM), 200U);
  EXPECT_FALSE(server.wire.closed);
  for (Request& request : server.requests) request.answer(200, "x");
  server.turn();
  answering(server);
  server.exchange(headers(601, get(), true));
  EXPECT_EQ(server.last().sent, 1) << "room again";
}

TEST(H2Server, BrokenConnectionsEndEveryStreamOnce) {
  for (const int how : {0, 1, 2}) {
    Server server;
    server.exchange(preface() + headers(1, get(), true) + headers(3, kPost, false) +
                    headers(5, kPost, false));
    server.nth(0).stream->send_response(server.nth(0).answer_head(200), false);
    // One stream that its owner takes along in another's callback.
    server.nth(2).at_reset = [&] {
      if (CodecStream* const other = std::exchange(server.nth(1).stream, nullptr))
        other->reset(ResetCode::kCancel);
    };
    if (how == 0) server.codec->on_broken();
    if (how == 1) server.codec->on_eof();
    if (how == 2) server.exchange(frame(NGHTTP2_DATA, 0, 0, "x"));  // a connection error
    EXPECT_EQ(server.nth(0).resets, 1);
    EXPECT_EQ(server.nth(0).error.reason, Reason::kClientClosed);  // it did nothing wrong itself
    EXPECT_EQ(server.nth(2).resets, 1);
    EXPECT_EQ(server.nth(1).resets, 0);
    EXPECT_EQ(server.wire.closed, how != 0);
    EXPECT_EQ(server.abuses, how == 2 ? 1 : 0);
  }
}

TEST(H2Server, MayBeDestroyedWithStreamsOpen) {
  Request request;
  {
    MemoryWire wire;
    struct One final : ServerEvents {
      Request* request = nullptr;
      RequestSink* on_stream(CodecStream& stream) override {
        request->stream = &stream;
        return request;
      }
      void on_abuse(Reason, std::string_view) override {}
    } events;
    events.request = &request;
    const std::unique_ptr<Codec> codec = make_h2_server(wire, events, {});
    codec->feed(preface() + headers(1, get(), true));
    request.stream->send_response(request.answer_head(200), false);
    request.stream->send_body(std::string(100'000, 'x'), false);
    codec->pump();
  }
  EXPECT_EQ(request.heads, 1);
}

// --- Frames on streams that are closed, or never were

TEST(H2Server, FramesOnClosedStreamsEndTheConnection) {
  struct Row {
    std::string before, frame;
    std::uint32_t code;
  };
  const std::string whole = headers(1, get(), true);
  const Row rows[] = {
      {whole, data(1, "x", true), NGHTTP2_STREAM_CLOSED},
      {whole, whole, NGHTTP2_STREAM_CLOSED},
      {headers(1, kPost, false) + rst(1), data(1, "x", true), NGHTTP2_STREAM_CLOSED},
      {headers(1, kPost, false) + rst(1), headers(1, {{"x", "y"}}, true), NGHTTP2_STREAM_CLOSED},
      {headers(5, get(), true), headers(3, get(), true), NGHTTP2_PROTOCOL_ERROR},
      {"", headers(2, get(), true), NGHTTP2_PROTOCOL_ERROR},
      {"", data(1, "x", true), NGHTTP2_PROTOCOL_ERROR},
      {"", rst(1), NGHTTP2_PROTOCOL_ERROR},
      {"", window_update(1, 1), NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_CONTINUATION, kEndHeaders, 1, "x"), NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_PUSH_PROMISE, kEndHeaders, 1, number(2) + hpack(get())),
       NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_PRIORITY, 0, 0, std::string(5, '\0')), NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_PRIORITY, 0, 3, number(3) + "w"), NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_PRIORITY, 0, 3, number(1)), NGHTTP2_FRAME_SIZE_ERROR},
      {"",
       frame(NGHTTP2_HEADERS, 0, 1, hpack(get())) + frame(NGHTTP2_PRIORITY, 0, 3, number(1) + "w"),
       NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_HEADERS, 0, 1, hpack(get())) + headers(3, get(), true),
       NGHTTP2_PROTOCOL_ERROR},
      {"", frame(NGHTTP2_PING, 0, 0, "1234567"), NGHTTP2_FRAME_SIZE_ERROR},
      {"", frame(NGHTTP2_SETTINGS, 0, 0, "12345"), NGHTTP2_FRAME_SIZE_ERROR},
      {"", settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0x80000000}}),
       NGHTTP2_FLOW_CONTROL_ERROR},
      {"", settings({{NGHTTP2_SETTINGS_ENABLE_PUSH, 2}}), NGHTTP2_PROTOCOL_ERROR},
      {"", window_update(0, 0), NGHTTP2_PROTOCOL_ERROR},
      {"", window_update(0, 0x7fffffff), NGHTTP2_FLOW_CONTROL_ERROR},
      {"", frame(NGHTTP2_DATA, 0, 1, std::string(16'385, 'x')), NGHTTP2_FRAME_SIZE_ERROR},
      {"", frame(NGHTTP2_HEADERS, kEndHeaders, 1, "\xff\xff\xff\xff\xff\xff"),
       NGHTTP2_COMPRESSION_ERROR},
      {"", frame(NGHTTP2_HEADERS, kEndHeaders, 1, "\x20\x20\x20" + hpack(get())),
       NGHTTP2_COMPRESSION_ERROR},
  };
  for (const Row& row : rows) {
    for (const bool apart : {false, true}) {  // in one read, or after a turn
      Server server;
      answering(server);
      server.exchange(preface());
      const std::size_t requests_before = server.requests.size();
      if (apart && !row.before.empty()) server.exchange(row.before);
      server.exchange(apart ? row.frame : row.before + row.frame);
      EXPECT_EQ(server.goaways(row.code), 1U) << &row - rows << (apart ? " apart" : " together");
      EXPECT_TRUE(server.wire.closed);
      EXPECT_EQ(server.wire.close_how, Wire::Close::kLinger);
      EXPECT_EQ(server.abuses, 1);
      EXPECT_LE(server.requests.size(), requests_before + 1);
    }
  }
}

TEST(H2Server, NotAPreface) {
  for (const std::string_view bytes :
       {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSMx", "\x16\x03\x01\x02"}) {
    Server server;
    server.exchange(bytes);
    EXPECT_EQ(server.goaways(NGHTTP2_PROTOCOL_ERROR), 1U);
    EXPECT_EQ(server.abuses, 1);
    EXPECT_TRUE(server.wire.closed);
  }
  Server server;
  server.exchange(std::string(NGHTTP2_CLIENT_MAGIC) + headers(1, get(), true));
  EXPECT_EQ(server.goaways(NGHTTP2_PROTOCOL_ERROR), 1U) << "SETTINGS come first";
  EXPECT_TRUE(server.requests.empty());
}

TEST(H2Server, LateFramesOnStreamsThatWeResetAreIgnored) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false) +
                  headers(3, with(kPost, {{"X", "bad"}}), false));
  std::exchange(server.nth(0).stream, nullptr)->reset(ResetCode::kCancel);
  server.turn();
  answering(server);
  server.exchange(data(1, "late", false) + headers(1, {{"x", "late"}}, true) +
                  data(3, "late", true) + window_update(1, 5) + rst(3) +
                  frame(NGHTTP2_PRIORITY, 0, 1, number(0) + "w") + headers(5, get(), true));
  EXPECT_FALSE(server.wire.closed);
  EXPECT_EQ(server.last().sent, 1);
  EXPECT_EQ(server.nth(0).body + server.nth(1).body, "");
}

// --- Floods: 20,000 of each; the connection ends early, and little was done for it.

struct Flood {
  const char* name;
  std::string (*piece)(std::uint32_t number);
  std::string before = {};
};

std::string head_open(std::uint32_t id, const Fields& fields) {
  return frame(NGHTTP2_HEADERS, kEnd, id, hpack(fields));  // CONTINUATION follows
}
std::string rapid_reset(std::uint32_t i) {
  return headers(2 * i + 1, get(), true) + rst(2 * i + 1);
}
std::string rapid_reset_with_body(std::uint32_t i) {
  return headers(2 * i + 1, kPost, false) + data(2 * i + 1, "x", false) + rst(2 * i + 1);
}
std::string malformed_request(std::uint32_t i) { return headers(2 * i + 1, plus("X", "y"), true); }
std::string too_much_body(std::uint32_t i) {
  return headers(2 * i + 1, with(kPost, {{"content-length", "1"}}), false) +
         data(2 * i + 1, "xy", false);
}
std::string stream_window_overflow(std::uint32_t i) {
  return headers(2 * i + 1, kPost, false) + window_update(2 * i + 1, 0x7fffffff);
}
std::string open_stream(std::uint32_t i) { return headers(2 * i + 1, kPost, false); }
std::string empty_settings(std::uint32_t) { return settings(); }
std::string window_setting(std::uint32_t i) {
  return settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, i % 2 * 65535}});
}
std::string ping(std::uint32_t) { return frame(NGHTTP2_PING, 0, 0, "12345678"); }
std::string ping_ack(std::uint32_t) { return frame(NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "12345678"); }
std::string priority(std::uint32_t i) {
  return frame(NGHTTP2_PRIORITY, 0, 2 * i + 1, number(0) + "w");
}
std::string small_window_update(std::uint32_t) { return window_update(0, 1); }
std::string unknown_frame(std::uint32_t) { return frame(0xbb, 0xff, 0x123, "whatever"); }
std::string empty_unknown_frame(std::uint32_t) { return frame(0xbb, 0, 0); }
std::string empty_data(std::uint32_t) { return data(1, "", false); }
std::string reset_of_first(std::uint32_t) { return rst(1); }
std::string data_on_first(std::uint32_t) { return data(1, "x", false); }
std::string empty_continuation(std::uint32_t i) {
  return i == 0 ? head_open(1, get()) : frame(NGHTTP2_CONTINUATION, 0, 1);
}
std::string tiny_continuation(std::uint32_t i) {
  const std::string begun =
      hpack(get()) + hpack(Fields{{"x", std::string(60'000, 'x')}}).substr(0, 10);
  return i == 0 ? frame(NGHTTP2_HEADERS, kEnd, 1, begun) : frame(NGHTTP2_CONTINUATION, 0, 1, "x");
}
std::string large_continuation(std::uint32_t i) {
  const Fields large = {{"x", std::string(16'000, 'x')}};
  return i == 0 ? head_open(1, get()) : frame(NGHTTP2_CONTINUATION, 0, 1, hpack(large));
}
std::string continuation_of_refused_head(std::uint32_t i) {
  return i == 0 ? head_open(1, plus("X", "y")) : large_continuation(i);
}

// What was on its way to streams that we ended is no flood.
TEST(H2Server, BodiesInFlightToEndedStreamsAreNoFlood) {
  constexpr std::uint32_t kUploads = 20;
  Server server;
  server.exchange(preface());
  for (std::uint32_t i = 0; i < kUploads; ++i) {
    server.exchange(headers(1 + 2 * i, kPost, false));
    server.last().answer(413, "no");
    server.last().ended = true;  // its owner lets go once the answer is out
    server.turn();
  }
  EXPECT_EQ(server.resets(NGHTTP2_NO_ERROR), kUploads);
  const std::string bytes(1024, 'x');
  for (int round = 0; round < 60; ++round)
    for (std::uint32_t i = 0; i < kUploads; ++i)
      server.exchange(data(1 + 2 * i, bytes, round == 59));
  EXPECT_FALSE(server.wire.closed);
  EXPECT_EQ(server.abuses, 0);
  answering(server);
  server.exchange(headers(1 + 2 * kUploads, get(), true));
  EXPECT_EQ(server.last().sent, 1);
}

class H2ServerFlood : public ::testing::TestWithParam<Flood> {};

TEST_P(H2ServerFlood, EndsTheConnection) {
  for (const bool reading : {true, false}) {
    Server server;
    server.exchange(preface());
    server.exchange(GetParam().before);
    std::size_t most_out = 0;
    std::uint32_t pieces = 0;
    while (pieces < 20'000 && !server.wire.closed) {
      std::string some;
      for (int i = 0; i < 50; ++i) some += GetParam().piece(pieces++);
      server.feed(some);
      server.wire.now += 1;
      if (reading) {
        server.turn();
      } else if (std::exchange(server.wire.woken, false) && !server.wire.closed) {
        server.codec->pump();  // and nothing is taken
      }
      most_out = std::max(most_out, server.wire.out.size());
    }
    EXPECT_TRUE(server.wire.closed);
    EXPECT_LE(pieces, 2100U);  // the allowance, and what may be on its way to a stream
    EXPECT_LE(server.requests.size(), 330U) << "concurrency and budget";
    EXPECT_LT(most_out, 128U * 1024);
    EXPECT_EQ(server.abuses, 1);
    server.turn();
    EXPECT_EQ(server.goaways(NGHTTP2_ENHANCE_YOUR_CALM), 1U);
    for (const Request& request : server.requests) EXPECT_EQ(request.stream, nullptr);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rows, H2ServerFlood,
    ::testing::Values(
        Flood{"RapidReset", rapid_reset}, Flood{"RapidResetWithBody", rapid_reset_with_body},
        Flood{"MalformedRequests", malformed_request}, Flood{"TooMuchBody", too_much_body},
        Flood{"StreamWindowOverflow", stream_window_overflow},
        Flood{"StreamsBeyondTheLimit", open_stream}, Flood{"Settings", empty_settings},
        Flood{"SettingsToggled", window_setting}, Flood{"Ping", ping}, Flood{"PingAck", ping_ack},
        Flood{"Priority", priority}, Flood{"WindowUpdate", small_window_update},
        Flood{"Unknown", unknown_frame}, Flood{"UnknownEmpty", empty_unknown_frame},
        Flood{"EmptyData", empty_data, headers(1, kPost, false)},
        Flood{"ResetOfClosed", reset_of_first, headers(1, kPost, false) + rst(1)},
        Flood{"DataOnResetStream", data_on_first, headers(1, plus("X", "y"), false)},
        Flood{"EmptyContinuation", empty_continuation},
        Flood{"TinyContinuation", tiny_continuation},
        Flood{"LargeContinuation", large_continuation},
        Flood{"ContinuationOfRefusedHead", continuation_of_refused_head}),
    [](const auto& row) { return row.param.name; });

TEST(H2Server, AllowancesRefillWithTimeAndWithWork) {
  Server server;
  answering(server);
  server.exchange(preface());
  std::uint32_t id = 1;
  // 20 resets a second are nobody's concern.
  for (int second = 0; second < 60; ++second, server.wire.now += 1000)
    for (int i = 0; i < 20; ++i, id += 2) server.exchange(headers(id, kPost, false) + rst(id));
  // Nor are PING and WINDOW_UPDATE with every message of a long stream.
  server.exchange(headers(id, kPost, false));
  for (int i = 0; i < 5000; ++i)
    server.exchange(data(id, std::string(100, 'x'), false) + frame(NGHTTP2_PING, 0, 0, "12345678") +
                    window_update(0, 1));
  // Nor 90 control frames a second without any.
  for (int second = 0; second < 60; ++second, server.wire.now += 1000)
    for (int i = 0; i < 90; ++i) server.exchange(window_update(0, 1));
  EXPECT_FALSE(server.wire.closed);
  EXPECT_EQ(server.abuses, 0);
  server.exchange(data(id, "", true));
}

// --- Flow control and back-pressure

TEST(H2Server, TakesFarMoreThanItsWindows) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false));
  std::int64_t stream_window = 65535;
  std::int64_t connection_window = limits::kH2ConnectionWindow;
  std::size_t total = 0;
  server.last().at_body = [&] { server.last().body.clear(); };
  const std::string chunk(16'000, 'x');
  while (total < 20'000'000) {
    ASSERT_GE(stream_window, 16'000) << "stalled after " << total;
    ASSERT_GE(connection_window, 16'000) << "stalled after " << total;
    stream_window -= 16'000;
    connection_window -= 16'000;
    total += chunk.size();
    for (const Frame& frame : server.exchange(data(1, chunk, false)))
      if (frame.type == NGHTTP2_WINDOW_UPDATE)
        (frame.stream == 0 ? connection_window : stream_window) += frame.number(0);
  }
  server.exchange(data(1, "", true));
  EXPECT_TRUE(server.last().ended);
  server.last().answer(200, "");
  server.turn();
}

TEST(H2Server, HoldStopsTheStreamAndNotTheConnection) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false) + headers(3, kPost, false));
  server.nth(0).stream->hold(true);
  std::map<std::uint32_t, std::int64_t> credited;
  const auto upload = [&](std::uint32_t id, int frames) {
    for (int i = 0; i < frames; ++i)
      for (const Frame& frame : server.exchange(data(id, std::string(16'000, 'x'), false)))
        if (frame.type == NGHTTP2_WINDOW_UPDATE) credited[frame.stream] += frame.number(0);
  };
  upload(1, 4);
  EXPECT_EQ(credited[1], 0) << "held";
  EXPECT_EQ(server.nth(0).body.size(), 64'000U);
  for (int i = 0; i < 40; ++i) {
    upload(3, 3);
    ASSERT_FALSE(server.wire.closed);
    ASSERT_GE(credited[3], 3 * 16'000 * i - 48'000);
  }
  EXPECT_GT(credited[0], 1'000'000) << "the connection's window is given back at once";
  server.nth(0).stream->hold(false);
  const std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0].stream, 1U);
  EXPECT_EQ(frames[0].number(0), 64'000U);
}

TEST(H2Server, DataBeyondTheWindowIsNotTaken) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false));
  server.last().stream->hold(true);
  for (int i = 0; i < 6 && !server.wire.closed; ++i)
    server.exchange(data(1, std::string(16'000, 'x'), false));
  EXPECT_EQ(server.resets(NGHTTP2_FLOW_CONTROL_ERROR), 1U);
  EXPECT_EQ(server.last().resets, 1);
  EXPECT_EQ(server.last().error.reason, Reason::kBadRequest);
}

TEST(H2Server, QueuesNoMoreThanItsOwnerSendsAndSaysWhenThereIsRoom) {
  Server server;
  server.exchange(preface() + headers(1, get(), true));
  Request& request = server.last();
  request.stream->send_response(request.answer_head(200), false);
  request.stream->send_body(std::string(200'000, 'x'), false);
  server.turn();
  EXPECT_EQ(request.stream->queued(), 200'000U - 65'535);
  EXPECT_EQ(request.writable, 0);
  server.exchange(window_update(1, 100'000) + window_update(0, 100'000));
  EXPECT_EQ(request.stream->queued(), 200'000U - 165'535);
  EXPECT_EQ(request.writable, 0) << "still above the low mark";
  server.exchange(window_update(1, 20'000) + window_update(0, 20'000));
  EXPECT_EQ(request.writable, 1);
  server.exchange(window_update(1, 50'000) + window_update(0, 50'000));
  EXPECT_EQ(request.stream->queued(), 0U);
  EXPECT_EQ(request.writable, 1);
  request.at_writable = [&] { request.stream->send_body("", true); };
  request.stream->send_body(std::string(100'000, 'y'), false);
  server.exchange(window_update(1, 200'000) + window_update(0, 200'000));
  EXPECT_EQ(request.sent, 1) << "more may be sent from inside on_writable()";
}

TEST(H2Server, AClientThatDoesNotReadCostsItsHighWaterMark) {
  Server server;
  std::string opening = preface() + settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0x7fffffff}}) +
                        window_update(0, 0x70000000);
  for (std::uint32_t i = 0; i < 100; ++i) opening += headers(2 * i + 1, get(), true);
  server.feed(opening);
  for (Request& request : server.requests) {
    request.stream->send_response(request.answer_head(200), false);
    request.stream->send_body(std::string(60'000, 'x'), true);
  }
  for (int turn = 0; turn < 10; ++turn) server.codec->pump();
  EXPECT_LT(server.wire.out.size(), limits::kHighWater + 17'000);
  std::size_t taken = 0;
  for (int i = 0; i < 100'000 && taken < 6'000'000; ++i)
    for (const Frame& frame : server.turn(10'000))
      if (frame.type == NGHTTP2_DATA) taken += frame.payload.size();
  EXPECT_EQ(taken, 6'000'000U);
  for (const Request& request : server.requests) EXPECT_EQ(request.sent, 1);
}

TEST(H2Server, DribbledWindowsAreServedInOrder) {
  Server server;
  server.exchange(preface() + settings({{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}}) +
                  headers(1, get(), true));
  server.last().answer(200, "abc");
  server.turn();
  std::string body;
  for (int i = 0; i < 3; ++i)
    for (const Frame& frame : server.exchange(window_update(1, 1)))
      if (frame.type == NGHTTP2_DATA) body += frame.payload + (frame.has(kEnd) ? "." : "-");
  EXPECT_EQ(body, "a-b-c.");
}

// --- Connection life

TEST(H2Server, DrainsInTwoSteps) {
  Server server;
  answering(server);
  server.exchange(preface() + headers(1, kPost, false));
  server.codec->drain(false);
  std::vector<Frame> frames = server.turn();
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(frames[0].type, NGHTTP2_GOAWAY);
  EXPECT_EQ(frames[0].number(0), 0x7fffffffU);
  EXPECT_EQ(frames[0].number(4), NGHTTP2_NO_ERROR);
  server.exchange(headers(3, get(), true));
  EXPECT_EQ(server.last().sent, 1) << "still served";
  server.codec->drain(true);
  frames = server.exchange(headers(5, get(), true));
  EXPECT_EQ(frames.at(0).type == NGHTTP2_GOAWAY ? frames[0].number(0) : frames.at(1).number(0), 3U);
  EXPECT_EQ(server.requests.size(), 2U) << "not served any more";
  server.exchange(headers(7, get(), true) + data(5, "x", true));
  EXPECT_FALSE(server.wire.closed) << "stream 1 is still there";
  server.exchange(data(1, "", true));
  EXPECT_EQ(server.nth(0).sent, 1);
  EXPECT_TRUE(server.wire.closed);
  EXPECT_EQ(server.wire.close_how, Wire::Close::kLinger) << "what was sent is to be read";
  EXPECT_EQ(server.abuses, 0);
}

TEST(H2Server, DrainOfAnIdleConnectionClosesIt) {
  Server server;
  server.exchange(preface());
  server.codec->drain(true);
  server.turn();
  EXPECT_EQ(server.goaways(NGHTTP2_NO_ERROR), 1U);
  EXPECT_TRUE(server.wire.closed);
}

TEST(H2Server, ServesSoManyRequestsAndNoMore) {
  Server server({.max_requests = 3});
  answering(server);
  std::string opening = preface();
  for (std::uint32_t i = 0; i < 5; ++i) opening += headers(2 * i + 1, get(), true);
  server.exchange(opening);
  EXPECT_EQ(server.requests.size(), 3U);
  ASSERT_EQ(server.goaways(NGHTTP2_NO_ERROR), 1U);
  for (const Frame& frame : server.all) {
    if (frame.type != NGHTTP2_GOAWAY) continue;
    EXPECT_EQ(frame.number(0), 5U);
  }
  EXPECT_TRUE(server.wire.closed);
}

TEST(H2Server, CloseAfterMakesTheResponseTheLast) {
  Server server;
  server.exchange(preface() + headers(1, get(), true));
  server.last().stream->close_after();
  server.last().answer(200, "bye");
  server.turn();
  EXPECT_EQ(server.last().sent, 1);
  EXPECT_EQ(server.goaways(NGHTTP2_NO_ERROR), 1U);
  EXPECT_TRUE(server.wire.closed);
}

TEST(H2Server, AClientsGoawayClosesWhenItsStreamsAreDone) {
  Server server;
  server.exchange(preface() + headers(1, get(), true) +
                  frame(NGHTTP2_GOAWAY, 0, 0, number(0) + number(0)));
  EXPECT_FALSE(server.wire.closed);
  server.last().answer(200, "bye");
  server.turn();
  EXPECT_TRUE(server.wire.closed);
}

TEST(H2Server, KnowsWhenItIsInAHeadAndWhenIdle) {
  Server server;
  EXPECT_TRUE(server.codec->in_head());
  EXPECT_FALSE(server.codec->idle());
  server.feed(std::string_view(NGHTTP2_CLIENT_MAGIC).substr(0, 10));
  EXPECT_TRUE(server.codec->in_head());
  server.feed(std::string_view(NGHTTP2_CLIENT_MAGIC).substr(10));
  EXPECT_TRUE(server.codec->in_head()) << "SETTINGS are part of the preface";
  server.feed(settings());
  EXPECT_FALSE(server.codec->in_head());
  EXPECT_TRUE(server.codec->idle());
  const std::string head = headers(1, kPost, false);
  server.feed(head.substr(0, 4));
  EXPECT_TRUE(server.codec->in_head());
  EXPECT_FALSE(server.codec->idle());
  server.feed(head.substr(4, 20));
  EXPECT_TRUE(server.codec->in_head());
  server.feed(head.substr(24));
  EXPECT_FALSE(server.codec->in_head());
  EXPECT_FALSE(server.codec->idle());
  server.feed(data(1, "0123456789", false).substr(0, 15));
  EXPECT_FALSE(server.codec->in_head()) << "a body has timers of its own";
  server.feed("6789");
  server.feed(frame(NGHTTP2_HEADERS, kEnd, 3, hpack(get())));
  EXPECT_TRUE(server.codec->in_head()) << "CONTINUATION is due";
  server.feed(frame(NGHTTP2_CONTINUATION, kEndHeaders, 3, hpack({{"x", "y"}})));
  EXPECT_FALSE(server.codec->in_head());
  EXPECT_EQ(server.last().heads, 1);
}

TEST(H2Server, ExpiredHeadEndsTheConnectionInPeace) {
  Server server;
  server.exchange(preface() + headers(1, kPost, false) + headers(3, get(), true).substr(0, 20));
  server.codec->expire_head();
  server.turn();
  EXPECT_EQ(server.goaways(NGHTTP2_NO_ERROR), 1U);
  EXPECT_EQ(server.last().resets, 1);
  EXPECT_EQ(server.last().error.reason, Reason::kClientTimeout);
  EXPECT_EQ(server.abuse_reason, Reason::kClientTimeout);
  EXPECT_TRUE(server.wire.closed);
}

// --- Reads may end anywhere

std::string conversation() {
  std::string padded(1, '\x03');
  padded += "padded" + std::string(3, '\0');
  return preface() + headers(1, with(get("/one"), {{"cookie", "a"}, {"cookie", "b"}}), true) +
         frame(NGHTTP2_PRIORITY, 0, 9, number(0) + "w") +
         frame(NGHTTP2_HEADERS, 0, 3, hpack(kPost)) +
         frame(NGHTTP2_CONTINUATION, 0, 3, hpack({{"content-length", "12"}})) +
         frame(NGHTTP2_CONTINUATION, kEndHeaders, 3, hpack({{"x", "y"}})) +
         data(3, "abcdef", false) + frame(NGHTTP2_PING, 0, 0, "12345678") +
         frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 3, padded) + frame(0x77, 0, 5, "unknown") +
         headers(3, {{"x-trailer", "z"}}, true) + headers(5, with(get(), {{"X", "bad"}}), true) +
         window_update(0, 100) + headers(7, kPost, false) + data(7, "seven", true) + rst(5);
}

std::string story(const std::vector<std::string_view>& reads) {
  Server server;
  answering(server);
  for (const std::string_view read : reads) server.exchange(read);
  std::string told;
  for (const Request& request : server.requests) {
    told += std::string(request.message.target) + " " + request.body + " " +
            std::to_string(request.resets) + std::to_string(request.sent) + " " + request.detail;
    for (const auto& [name, value] : with(request.fields, request.trailers))
      told += " " + name + "=" + value;
    told += "\n";
  }
  told += std::to_string(server.abuses) + server.abuse;
  for (const std::uint8_t type :
       {NGHTTP2_HEADERS, NGHTTP2_DATA, NGHTTP2_RST_STREAM, NGHTTP2_PING, NGHTTP2_GOAWAY})
    told +=
        " " + std::to_string(std::count_if(server.all.begin(), server.all.end(),
                                           [&](const Frame& frame) { return frame.type == type; }));
  return told;
}

TEST(H2Server, ReadsMayEndAnywhere) {
  const std::string bytes = conversation();
  const std::string expected = story({bytes});
  EXPECT_THAT(expected, ::testing::HasSubstr("/cart abcdefpadded 01  x=y x-trailer=z"));
  EXPECT_THAT(expected, ::testing::HasSubstr("\n0 3 3 1 1 0")) << expected;
  for (std::size_t at = 1; at < bytes.size(); ++at)
    ASSERT_EQ(story({std::string_view(bytes).substr(0, at), std::string_view(bytes).substr(at)}),
              expected)
        << at;
  std::vector<std::string_view> single;
  for (std::size_t at = 0; at < bytes.size(); ++at)
    single.push_back(std::string_view(bytes).substr(at, 1));
  EXPECT_EQ(story(single), expected);
}

TEST(H2Server, ConnectionsMayBreakAnywhere) {
  const std::string bytes = conversation();
  for (std::size_t at = 0; at <= bytes.size(); ++at) {
    Server server;  // whose destructor checks that every stream has ended
    if (at % 2 == 0) answering(server);
    server.feed(std::string_view(bytes).substr(0, at));
    if (at % 3 == 0) server.turn();
  }
}

TEST(H2Server, GarbageNeverHurts) {
  std::uint32_t seed = 1;
  const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 16; };
  const std::string good = conversation();
  for (int round = 0; round < 3000; ++round) {
    Server server;
    answering(server);
    std::string bytes = good;
    for (std::uint32_t hits = 1 + random() % 4; hits != 0; --hits)
      bytes[NGHTTP2_CLIENT_MAGIC_LEN + random() % (bytes.size() - NGHTTP2_CLIENT_MAGIC_LEN)] =
          static_cast<char>(random());
    const std::size_t cut = random() % bytes.size();
    server.exchange(std::string_view(bytes).substr(0, cut));
    server.exchange(std::string_view(bytes).substr(cut));
  }
}

}  // namespace
}  // namespace outrider::h2test
