// What a client reads: spellings that must be refused or taken, each cut at every byte.
#include "tests/unit/proxy/h1_support.h"

namespace outrider {
namespace {

using namespace test;

struct ResponseVector {
  const char* name;
  Bytes input;
  const char* reset;     // the reason; empty: taken
  bool eof = false;      // follows the input
  bool reusable = true;  // when taken
  const char* method = "GET";
  const char* upgrade = "";
};
void PrintTo(const ResponseVector& vector, std::ostream* out) { *out << vector.name; }

class ResponseSyntax : public testing::TestWithParam<ResponseVector> {};

TEST_P(ResponseSyntax, IsTakenOrRefused) {
  const ResponseVector& vector = GetParam();
  const std::string input = vector.input;
  const auto run = [&](std::size_t cut) {
    Upstream upstream(vector.method, vector.upgrade);
    upstream.feed(std::string_view(input).substr(0, cut));
    upstream.feed(std::string_view(input).substr(cut));
    if (vector.eof) upstream.eof();
    return upstream.outcome();
  };
  const std::string whole = run(input.size());
  const std::size_t step = input.size() / 500 + 1;
  for (std::size_t cut = 0; cut < input.size(); cut += step)
    EXPECT_EQ(run(cut), whole) << "cut at " << cut;

  Upstream upstream(vector.method, vector.upgrade);
  for (const char c : input) upstream.feed({&c, 1});
  if (vector.eof) upstream.eof();
  EXPECT_EQ(upstream.outcome(), whole) << "byte by byte";
  EXPECT_EQ(upstream.owner.reset, vector.reset);
  if (vector.reset[0] == '\0') {
    EXPECT_TRUE(upstream.owner.whole);
    EXPECT_EQ(upstream.codec->reusable(), vector.reusable);
  } else {
    EXPECT_FALSE(upstream.owner.whole);
    EXPECT_FALSE(upstream.codec->reusable());
    EXPECT_TRUE(upstream.wire.closed);
  }
}

constexpr ResponseVector kResponses[] = {
    {"length", ok("Content-Length: 3\r\n", "abc"), ""},
    {"empty", ok("Content-Length: 0\r\n"), ""},
    {"chunked", ok("Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n0\r\n\r\n"), ""},
    {"chunked_trailers", ok("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nX: y\r\n\r\n"), ""},
    {"no_reason", raw("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), ""},
    {"empty_reason", raw("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"), ""},
    {"odd_reason", raw("HTTP/1.1 200 \xc3\xa4 b\tc\r\nContent-Length: 0\r\n\r\n"), ""},
    {"status_599", raw("HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n"), ""},
    {"close", ok("Connection: close\r\nContent-Length: 3\r\n", "abc"), "", false, false},
    {"close_delimited", ok("", "abc"), "", true, false},
    {"close_delimited_10", raw("HTTP/1.0 200 OK\r\n\r\nabc"), "", true, false},
    {"length_10", raw("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"), "", false, false},
    {"length_10_keep",
     raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"), ""},
    {"head", ok("Content-Length: 3\r\n"), "", false, true, "HEAD"},
    {"head_chunked", ok("Transfer-Encoding: chunked\r\n"), "", false, true, "HEAD"},
    {"head_no_framing", ok(""), "", false, true, "HEAD"},
    {"head_with_body", ok("Content-Length: 3\r\n", "abc"), "", false, false, "HEAD"},
    {"status_204", raw("HTTP/1.1 204 No Content\r\n\r\n"), ""},
    {"status_204_length", raw("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"), ""},
    {"status_204_body", raw("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"), "", false,
     false},
    {"status_304", raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n"), ""},
    {"status_304_body", raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc"), "", false,
     false},
    {"extra", ok("Content-Length: 3\r\n", "abcdef"), "", false, false},
    {"extra_response",
     ok("Content-Length: 3\r\n", "abcHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"), "",
     false, false},
    {"extra_chunked", ok("Transfer-Encoding: chunked\r\n", "0\r\n\r\nx"), "", false, false},
    {"interim",
     raw("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "
         "OK\r\nContent-Length: 1\r\n\r\na"),
     ""},
    {"unasked_101",
     raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
     kProtocol},
    {"other_101",
     raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
     kProtocol, false, true, "GET", "other"},
    {"bare_101", raw("HTTP/1.1 101 Switching Protocols\r\n\r\n"), kProtocol, false, true, "GET",
     "other"},
    {"unnamed_101", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n"), kProtocol,
     false, true, "GET", "other"},
    {"refused_upgrade", raw("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"), "",
     false, true, "GET", "other"},
    {"garbage", raw("garbage"), kProtocol},
    {"garbage_line", raw("garbage\r\n\r\n"), kProtocol},
    {"http_09", raw("<html>hello</html>"), kProtocol},
    {"nul", raw("\0\0\0\0"sv), kProtocol},
    {"tls_alert", raw("\x15\x03\x01\x00\x02\x02\x46"sv), kProtocol},
    {"empty_line_first", raw("\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"version_2", raw("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"version_2_bare", raw("HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"version_12", raw("HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"version_lower", raw("http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"version_icy", raw("ICY 200 OK\r\n\r\n"), kProtocol},
    {"status_0", raw("HTTP/1.1 0 OK\r\n\r\n"), kProtocol},
    {"status_000", raw("HTTP/1.1 000 OK\r\n\r\n"), kProtocol},
    {"status_099", raw("HTTP/1.1 099 OK\r\n\r\n"), kProtocol},
    {"status_600", raw("HTTP/1.1 600 OK\r\n\r\n"), kProtocol},
    {"status_999", raw("HTTP/1.1 999 OK\r\n\r\n"), kProtocol},
    {"status_2000", raw("HTTP/1.1 2000 OK\r\n\r\n"), kProtocol},
    {"status_20", raw("HTTP/1.1 20 OK\r\n\r\n"), kProtocol},
    {"status_negative", raw("HTTP/1.1 -200 OK\r\n\r\n"), kProtocol},
    {"status_letters", raw("HTTP/1.1 2OO OK\r\n\r\n"), kProtocol},
    {"status_missing", raw("HTTP/1.1\r\n\r\n"), kProtocol},
    {"status_two_spaces", raw("HTTP/1.1  200 OK\r\n\r\n"), kProtocol},
    {"status_tab", raw("HTTP/1.1\t200 OK\r\n\r\n"), kProtocol},
    {"cl_bad", ok("Content-Length: x\r\n"), kProtocol},
    {"cl_negative", ok("Content-Length: -1\r\n"), kProtocol},
    {"cl_huge", ok("Content-Length: 99999999999999999999\r\n"), kProtocol},
    {"cl_2_63", ok("Content-Length: 9223372036854775808\r\n"), kProtocol},
    {"cl_two", ok("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), kProtocol},
    {"cl_list", ok("Content-Length: 1, 2\r\n", "ab"), kProtocol},
    {"te_unknown", ok("Transfer-Encoding: gzip\r\n", "x"), kProtocol},
    {"te_list", ok("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), kProtocol},
    {"te_10", raw("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), kProtocol},
    {"te_cl", ok("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), kProtocol},
    {"cl_te", ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), kProtocol},
    {"field_nul", ok("X: a\0\r\nContent-Length: 0\r\n"sv), kProtocol},
    {"field_cr", ok("X: a\rb\r\nContent-Length: 0\r\n"), kProtocol},
    {"field_lf", ok("X: a\nContent-Length: 0\r\n"), kProtocol},
    {"field_control", ok("X: \x02\r\nContent-Length: 0\r\n"), kProtocol},
    {"field_space_name", ok("X Y: a\r\nContent-Length: 0\r\n"), kProtocol},
    {"field_space_colon", ok("Content-Length : 0\r\n"), kProtocol},
    {"field_no_colon", ok("X\r\nContent-Length: 0\r\n"), kProtocol},
    {"field_folded", ok("X: a\r\n b\r\nContent-Length: 0\r\n"), kProtocol},
    {"line_lf", raw("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"), kProtocol},
    {"chunk_bad_size", ok("Transfer-Encoding: chunked\r\n", "x\r\nabc\r\n0\r\n\r\n"), kProtocol},
    {"chunk_overflow", ok("Transfer-Encoding: chunked\r\n", "ffffffffffffffff1\r\nabc"), kProtocol},
    {"chunk_lf", ok("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"), kProtocol},
    {"chunk_data_end", ok("Transfer-Encoding: chunked\r\n", "3\r\nabcXX0\r\n\r\n"), kProtocol},
    {"chunk_trailer_bad", ok("Transfer-Encoding: chunked\r\n", "0\r\nX\r\n\r\n"), kProtocol},
    {"cut_before", raw(""), kCut, true},
    {"cut_line", raw("HTTP/1.1 2"), kCut, true},
    {"cut_head", raw("HTTP/1.1 200 OK\r\nContent-Le"), kCut, true},
    {"cut_length", ok("Content-Length: 3\r\n", "ab"), kCut, true},
    {"cut_chunk", ok("Transfer-Encoding: chunked\r\n", "3\r\nab"), kCut, true},
    {"cut_between_chunks", ok("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"), kCut, true},
    {"cut_last_chunk", ok("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n"), kCut, true},
    {"cut_after_interim", raw("HTTP/1.1 100 Continue\r\n\r\n"), kCut, true},
};
INSTANTIATE_TEST_SUITE_P(H1Response, ResponseSyntax, testing::ValuesIn(kResponses),
                         [](const auto& test) { return test.param.name; });

TEST(H1Response, EveryByteOfAHeadMustMatter) {
  // No control byte is taken anywhere in a head, whole or not.
  const std::string input = ok("Content-Length: 3\r\nX: y\r\n", "abc");
  const std::size_t head = input.size() - 3;
  for (std::size_t at = 0; at < head; ++at) {
    for (const char c : {'\0', '\n', '\r', '\x7f'}) {
      if (input[at] == c) continue;
      std::string changed = input;
      changed[at] = c;
      Upstream upstream;
      upstream.feed(changed);
      EXPECT_FALSE(upstream.owner.whole) << at;
    }
  }
}

TEST(H1Response, StripsHopByHopAndKeepsTheRest) {
  Upstream upstream;
  upstream.feed(
      "HTTP/1.1 201 Fine\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: max=5, "
      "timeout=7\r\nX-Hop: 1\r\nsERver: b\r\n"
      "Content-Length: 1\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nx");
  EXPECT_EQ(upstream.owner.text(),
            "201 Fine length=1\nsERver: b\nContent-Length: 1\nSet-Cookie: a=1\nSet-Cookie: "
            "b=2\n[x] whole\n");
  EXPECT_EQ(upstream.codec->keep_alive_hint(), Millis{7000});
  EXPECT_TRUE(upstream.codec->reusable());
}

TEST(H1Response, BoundsOfItsHead) {
  const auto reset = [](const std::string& input) {
    Upstream upstream;
    upstream.feed(input);
    Upstream pieces;
    for (std::size_t at = 0; at < input.size(); at += 97)
      pieces.feed(std::string_view(input).substr(at, 97));
    EXPECT_EQ(pieces.outcome(), upstream.outcome());
    return upstream.owner.reset;
  };
  const std::string interim = "HTTP/1.1 102 Processing\r\n\r\n";
  const std::string final_response = ok("Content-Length: 1\r\n", "a");
  EXPECT_EQ(reset(repeated(10, interim) + final_response), "");
  EXPECT_EQ(reset(repeated(11, interim) + final_response), kProtocol);
  EXPECT_EQ(
      reset(repeated(2, "HTTP/1.1 103 Early Hints\r\nX: " + std::string(40000, 'x') + "\r\n\r\n") +
            final_response),
      kProtocol);
  EXPECT_EQ(reset(ok(repeated(199, "X: y\r\n") + "Content-Length: 0\r\n")), "");
  EXPECT_EQ(reset(ok(repeated(200, "X: y\r\n") + "Content-Length: 0\r\n")), kProtocol);
  EXPECT_EQ(reset(ok("X: " + std::string(limits::kHeaderBytes, 'x') + "\r\n")), kProtocol);
  EXPECT_EQ(reset("HTTP/1.1 200 " + std::string(20000, 'x')), kProtocol);
}

}  // namespace
}  // namespace outrider
