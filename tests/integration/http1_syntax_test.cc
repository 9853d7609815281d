// HTTP/1 requests that could be read in two ways, or that no grammar has, against the binary: each
// is refused with its status and the connection closes, and an origin that remembers every whole
// request has seen none of it. What is unusual and right is carried.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/harness/outrider.h"
#include "tests/harness/recorder.h"

namespace outrider::test {
namespace {

using namespace std::string_literals;
using testing::AnyOf;
using testing::ElementsAre;
using testing::IsEmpty;

// The header timer is far beyond a test's patience: a refusal that waited for it would fail.
constexpr char kYaml[] = R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0, timeouts: { header: 5m } }
      narrow: { address: 127.0.0.1:0 }
    services: { origin: "$ORIGIN" }
    routes:
      - { name: origin, listeners: [main], to: origin }
      - { name: short, listeners: [main], match: /short/**, to: origin, body: { max: 1KB } }
      - { name: fixed, listeners: [main], match: /fixed, respond: { status: 200, body: fixed } }
      - { name: gone, listeners: [main], match: "/moved/{id}", redirect: { path: "/new/{id}" } }
      - name: copies
        listeners: [main]
        match: /copies/{id}
        to: origin
        headers:
          request: { set: { x-copy: "%{query v}", x-part: "%{path.id}" } }
          response: { set: { x-copy: "%{query v}", x-part: "%{path.id}" } }
      - { name: narrow, listeners: [narrow], match: GET /**, to: origin })";

constexpr char kHidden[] = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";

// What a row sends; `/@` stands for a target that no other row has.
struct Row {
  std::string what;
  std::string bytes;
  std::vector<int> statuses = {400};  // any of them; 0: closed without an answer
};

std::string post(const std::string& fields, const std::string& rest) {
  return "POST /@ HTTP/1.1\r\nHost: a.test\r\n" + fields + "\r\n" + rest;
}

std::string chunked(const std::string& body) {
  return post("Transfer-Encoding: chunked\r\n", body);
}

std::string get(const std::string& fields) {
  return "GET /@ HTTP/1.1\r\nHost: a.test\r\n" + fields + "\r\n";
}

// Sends as long as the peer neither answers nor goes away.
void send_until_answered(RawClient& client, std::string_view bytes) {
  constexpr std::size_t kPiece = 8 * 1024;
  while (!bytes.empty() && !client.socket().readable(std::chrono::milliseconds(0))) {
    if (!client.try_send(bytes.substr(0, kPiece), patience())) return;
    bytes.remove_prefix(std::min(bytes.size(), kPiece));
  }
}

class Http1Syntax : public testing::Test {
 protected:
  void TearDown() override {
    proxy_.stop(SIGINT);
    origin_.settle();
    std::vector<std::string> arrived;
    for (const Request& request : origin_.requests()) arrived.push_back(request.target);
    EXPECT_EQ(arrived, expected_);
  }

  std::string unique_target() { return "/row-" + std::to_string(++rows_); }

  static std::string replaced(std::string bytes, const std::string& target) {
    if (const std::size_t at = bytes.find("/@"); at != std::string::npos)
      bytes.replace(at, 2, target);
    return bytes;
  }

  void refused(const std::vector<Row>& rows, bool closes = true) {
    for (const Row& row : rows) {
      SCOPED_TRACE(row.what);
      try {
        refuse(row, closes);
      } catch (const HarnessError& error) {
        ADD_FAILURE() << error.what();
      }
    }
  }

  void refuse(const Row& row, bool closes) {
    RawClient client = proxy_.raw();
    send_until_answered(client, replaced(row.bytes, unique_target()));
    const bool silent_allowed =
        std::find(row.statuses.begin(), row.statuses.end(), 0) != row.statuses.end();
    if (silent_allowed && client.peek(1).empty()) return;
    const Response response = client.read_response();
    EXPECT_THAT(row.statuses, testing::Contains(response.status));
    EXPECT_TRUE(response.body.starts_with(std::to_string(response.status) + " ")) << response.body;
    if (!closes) return;
    EXPECT_TRUE(equal_case_blind(response.fields.value("connection"), "close"));
    EXPECT_EQ(client.read_end(), Socket::End::kFin);
  }

  // What reached the origin of a request that must be taken.
  Request take(const std::string& what, const std::string& bytes) {
    SCOPED_TRACE(what);
    const std::string target = unique_target();
    expected_.push_back(target);
    RawClient client = proxy_.raw();
    client.send(replaced(bytes, target));
    const Response response = client.read_response();
    EXPECT_EQ(response.status, 200) << what << ": " << response.body;
    EXPECT_THAT(response.informational, IsEmpty()) << what;
    std::vector<Request> arrived = origin_.requests(target);
    EXPECT_EQ(arrived.size(), 1U) << what;
    return arrived.empty() ? Request{} : arrived.front();
  }

  Recorder origin_;
  Outrider proxy_{kYaml, {{"ORIGIN", origin_.address()}}};
  std::vector<std::string> expected_;
  int rows_ = 0;
};

TEST_F(Http1Syntax, RefusesTwoFramings) {
  std::vector<Row> rows;
  const std::string body = "0\r\n\r\n"s + kHidden;
  for (const char* length : {"0", "5", "6", "44", "1000"})
    for (const char* coding : {"chunked", "Chunked", "identity", "gzip, chunked", "xchunked", ""})
      for (const bool length_first : {true, false}) {
        const std::string cl = "Content-Length: "s + length + "\r\n";
        const std::string te = "Transfer-Encoding: "s + coding + "\r\n";
        rows.push_back({(length_first ? cl + te : te + cl),
                        post(length_first ? cl + te : te + cl, body),
                        {400, 501}});
      }
  rows.push_back({"fields apart and in other cases",
                  post("CONTENT-length: 5\r\nX: y\r\ntransfer-ENCODING: chunked\r\n", body)});
  refused(rows);
}

TEST_F(Http1Syntax, RefusesEveryOtherSpellingOfChunked) {
  std::vector<Row> rows;
  for (const std::string& coding : {"xchunked"s,
                                    "chunk"s,
                                    "identity"s,
                                    "\"chunked\""s,
                                    "'chunked'"s,
                                    "chunked;q=1"s,
                                    "chunked; a=b"s,
                                    "\vchunked"s,
                                    "chunked\v"s,
                                    "\fchunked"s,
                                    "chunked\f"s,
                                    "chunked\0"s,
                                    "\0chunked"s,
                                    "\xa0"s
                                    "chunked"s,
                                    "chunked\xa0"s,
                                    "chunked, chunked"s,
                                    "chunked, identity"s,
                                    "identity, chunked"s,
                                    "chunked, gzip"s,
                                    "gzip, chunked"s,
                                    "chunked,"s,
                                    ",chunked"s,
                                    ","s,
                                    ""s,
                                    " "s,
                                    "chunked chunked"s,
                                    "chun\tked"s,
                                    "gzip"s,
                                    "chunke"s,
                                    "chunkedd"s})
    for (const char* length : {"", "Content-Length: 5\r\n"})
      rows.push_back(
          {"'" + coding + "' " + length,
           post("Transfer-Encoding: " + coding + "\r\n" + length, "0\r\n\r\n"s + kHidden),
           {400, 501}});
  rows.push_back({"two fields",
                  post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
                  {400, 501}});
  rows.push_back(
      {"two fields, one identity",
       post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
       {400, 501}});
  rows.push_back({"a space before the colon",
                  post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")});
  rows.push_back(
      {"in HTTP/1.0",
       "POST /@ HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"});
  refused(rows);
}

TEST_F(Http1Syntax, TakesChunkedInAnyCaseAndWithBlanksAround) {
  for (const char* field : {"Transfer-Encoding: chunked", "transfer-encoding: CHUNKED",
                            "TRANSFER-ENCODING:\tChunked", "Transfer-Encoding:   chunked \t "})
    EXPECT_EQ(take(field, post(field + "\r\n"s, "5\r\nhello\r\n0\r\n\r\n")).body, "hello");
}

TEST_F(Http1Syntax, RefusesLengthsThatAreNotOneNumber) {
  std::vector<Row> rows;
  for (const std::string& length :
       {"5, 6"s, "+5"s,  "-5"s, "0x5"s, "5_0"s, "5.0"s,  "5e0"s,  "\"5\""s, "5;"s,  ""s, " "s,
        "5 5"s,  "5\0"s, "\0"s, "5,"s,  ",5"s,  "five"s, "\xb2"s, "5\t5"s,  "5\v"s, "٥"s})
    rows.push_back({"'" + length + "'", post("Content-Length: " + length + "\r\n", "hello"s)});
  for (const char* huge : {"9223372036854775808", "18446744073709551615", "18446744073709551616",
                           "18446744073709551621", "4444444444444444444444444444444444444444"})
    rows.push_back({huge, post("Content-Length: "s + huge + "\r\n", "hello"), {400, 413}});
  rows.push_back({"two different", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")});
  rows.push_back(
      {"two that differ in zeros", post("Content-Length: 5\r\nContent-Length: 05\r\n", "hello")});
  rows.push_back(
      {"one that hides", post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"s + kHidden)});
  refused(rows);
}

TEST_F(Http1Syntax, TheSameLengthTwiceIsRefusedOrBecomesOne) {
  for (const char* fields :
       {"Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"}) {
    SCOPED_TRACE(fields);
    const std::string target = unique_target();
    RawClient client = proxy_.raw();
    client.send(replaced(post(fields, "hello"), target));
    const Response response = client.read_response();
    if (response.status == 400) {
      EXPECT_EQ(client.read_end(), Socket::End::kFin);
      continue;
    }
    ASSERT_EQ(response.status, 200);
    expected_.push_back(target);
    EXPECT_EQ(origin_.requests(target).at(0).fields.count("content-length"), 1U);
  }
}

TEST_F(Http1Syntax, RefusesChunkSizes) {
  std::vector<Row> rows;
  for (const std::string& size : {""s,
                                  "+5"s,
                                  "-5"s,
                                  "0x5"s,
                                  "0X5"s,
                                  " 5"s,
                                  "5 "s,
                                  "\t5"s,
                                  "5\t"s,
                                  "00000000000000005"s,
                                  "8000000000000000"s,
                                  "ffffffffffffffff"s,
                                  "fffffffffffffffff"s,
                                  "10000000000000005"s,
                                  ";"s,
                                  ";a=b"s,
                                  "5;"s,
                                  "5_0"s,
                                  "g"s,
                                  "5h"s,
                                  "\0"s,
                                  "5\0"s,
                                  "\""s,
                                  "5,5"s,
                                  "0x"s})
    rows.push_back({"'" + size + "'", chunked(size + "\r\nhello\r\n0\r\n\r\n" + kHidden)});
  refused(rows);
}

TEST_F(Http1Syntax, RefusesEndsOfChunkLines) {
  std::vector<Row> rows;
  for (const std::string& line :
       {"5\n"s, "5\r"s, "5\r\r\n"s, "5\n\r"s, "5;a\n"s, "5;a=b\n"s, "5;a\rb\r\n"s, "5;a\nb\r\n"s,
        "5;a=\"b\nc\"\r\n"s, "5;a=\"b\rc\"\r\n"s, "5;a=\"b\r\n"s, "5;a\0b\r\n"s, "5;a=\0\r\n"s,
        "5;a=\"\0\"\r\n"s, "5;\r"s, "5;a\r"s, "5;a=\"\\\r\n\"\r\n"s, "5;a=\"\\\n\"\r\n"s})
    rows.push_back({testing::PrintToString(line), chunked(line + "hello\r\n0\r\n\r\n" + kHidden)});
  for (const std::string& end : {"0\n\n"s, "0\r\n\n"s, "0\n\r\n"s, "0\r\r\n\r\n"s, "0\r\n\r\r\n"s})
    rows.push_back(
        {"last " + testing::PrintToString(end), chunked("5\r\nhello\r\n" + end + kHidden)});
  refused(rows);
}

TEST_F(Http1Syntax, RefusesEndsOfChunkData) {
  std::vector<Row> rows;
  for (const std::string& end :
       {"\n"s, "\r"s, "ab"s, ""s, "\n\r"s, "\r\r\n"s, "!\r\n"s, " \r\n"s, "\0\r\n"s, "\r\n\r\n"s})
    rows.push_back(
        {testing::PrintToString(end), chunked("5\r\nhello" + end + "0\r\n\r\n" + kHidden)});
  refused(rows);
}

TEST_F(Http1Syntax, StripsChunkExtensions) {
  const std::string body =
      "5;exta=extb;extc=\"ext d;\\\"\"\r\nhello\r\n1; exte = \"extf\"\r\n!\r\n000;extg\r\n\r\n";
  EXPECT_EQ(take("extensions", chunked(body)).body, "hello!");
  proxy_.stop(SIGINT);
  EXPECT_EQ(origin_.bytes().find("ext"), std::string::npos);
}

TEST_F(Http1Syntax, BoundsChunkExtensionsAndTrailers) {
  std::string big_extensions;
  std::string many_extensions;
  for (int i = 0; i < 200; ++i) {
    big_extensions += "1;a=" + std::string(4096, 'x') + "\r\ny\r\n";
    many_extensions += "1;a=" + std::string(100, 'x') + "\r\ny\r\n";
  }
  std::string many_trailers = "0\r\n";
  for (int i = 0; i < 2000; ++i) many_trailers += "t" + std::to_string(i) + ": v\r\n";
  const std::string big_trailer = "0\r\nt: " + std::string(200'000, 'x') + "\r\n\r\n";
  refused({{"4 KiB each", chunked(big_extensions + "0\r\n\r\n")},
           {"one that never ends", chunked("1;a=" + std::string(200'000, 'x'))},
           {"20 KiB in all", chunked(many_extensions + "0\r\n\r\n")},
           {"2000 trailers", chunked(many_trailers + "\r\n"), {400, 431}},
           {"a trailer of 200 KB", chunked(big_trailer), {400, 431}}});

  std::string tiny;
  for (int i = 0; i < 20'000; ++i) tiny += "1\r\nx\r\n";
  EXPECT_EQ(take("20,000 chunks of one byte", chunked(tiny + "0\r\n\r\n")).body,
            std::string(20'000, 'x'));
}

TEST_F(Http1Syntax, RefusesMalformedTrailers) {
  std::vector<Row> rows;
  for (const std::string& trailers :
       {"x: y\n\r\n"s, "x: y\n\n"s, "no colon\r\n\r\n"s, ": y\r\n\r\n"s, "x : y\r\n\r\n"s,
        " x: y\r\n\r\n"s, "x: y\r\n z\r\n\r\n"s, "x: \0\r\n\r\n"s, "x: y\rz: w\r\n\r\n"s,
        "x(: y\r\n\r\n"s, "x: \x01\r\n\r\n"s})
    rows.push_back(
        {testing::PrintToString(trailers), chunked("5\r\nhello\r\n0\r\n" + trailers + kHidden)});
  refused(rows);
}

TEST_F(Http1Syntax, TrailersNeverPassForHeaders) {
  for (const char* name :
       {"Content-Length", "Transfer-Encoding", "Host", "Authorization", "Cookie", "Content-Type",
        "Connection", "X-Forwarded-For", "X-Forwarded-Client-Cert", "X-Outrider-Hops", "TE",
        "Upgrade", "Expect", "Trailer", "Content-Encoding", "Proxy-Authorization", "Set-Cookie"}) {
    SCOPED_TRACE(name);
    const std::string target = unique_target();
    RawClient client = proxy_.raw();
    client.send(
        replaced(chunked("5\r\nhello\r\n0\r\nX-Sum: kept\r\n"s + name + ": 7\r\n\r\n"), target));
    const Response response = client.read_response();
    if (response.status == 400) continue;
    ASSERT_EQ(response.status, 200);
    expected_.push_back(target);
    const Request arrived = origin_.requests(target).at(0);
    EXPECT_FALSE(arrived.trailers.has(name));
    EXPECT_NE(arrived.fields.value(name), "7");
    EXPECT_EQ(arrived.trailers.value("x-sum"), "kept");
    EXPECT_FALSE(arrived.fields.has("x-sum"));
  }
}

TEST_F(Http1Syntax, TrailersOfHttp2NeverPassForHeaders) {
  Client client = proxy_.client(Protocol::kHttp2);
  for (const char* name : {"content-length", "host", "authorization", "cookie", "content-type",
                           "x-forwarded-for", "expect", "trailer", "content-encoding"}) {
    SCOPED_TRACE(name);
    const std::string target = unique_target();
    Response response;
    try {
      response = client.request({.method = "POST",
                                 .target = target,
                                 .body = "hello",
                                 .trailers = {{"x-sum", "kept"}, {name, "7"}}});
    } catch (const HarnessError&) {
      continue;  // reset
    }
    if (response.status == 400) continue;
    ASSERT_EQ(response.status, 200);
    expected_.push_back(target);
    const Request arrived = origin_.requests(target).at(0);
    EXPECT_FALSE(arrived.trailers.has(name));
    EXPECT_NE(arrived.fields.value(name), "7");
    EXPECT_EQ(arrived.trailers.value("x-sum"), "kept");
  }
}

TEST_F(Http1Syntax, RefusesOtherLineEnds) {
  std::vector<Row> rows;
  for (const std::string& head :
       {"GET /@ HTTP/1.1\nHost: a.test\n\n"s, "GET /@ HTTP/1.1\nHost: a.test\r\n\r\n"s,
        "GET /@ HTTP/1.1\r\nHost: a.test\n\r\n"s, "GET /@ HTTP/1.1\r\nHost: a.test\r\n\n"s,
        "GET /@ HTTP/1.1\r\nHost: a.test\r\nX: y\nZ: w\r\n\r\n"s,
        "GET /@ HTTP/1.1\rHost: a.test\r\n\r\n"s, "GET /@ HTTP/1.1\r\nHost: a.test\rX: y\r\n\r\n"s,
        "GET /@ HTTP/1.1\r\nHost: a.test\r\nX: \r\r\n\r\n"s,
        "GET /@ HTTP/1.1\r\r\nHost: a.test\r\n\r\n"s, "GET /@ HTTP/1.1\r\nHost: a.test\r\r\n\r\n"s,
        "GET /@ HTTP/1.1\r\nHost: a.test\r\n\r\r\n"s, "GET /@ HTTP/1.1\r\nHost: a.test\r\n\rX\r\n"s,
        "GET /@ HTTP/1.1\n\rHost: a.test\r\n\r\n"s, "GET /@\rHTTP/1.1\r\nHost: a.test\r\n\r\n"s,
        "GET /@ HTTP/1.1\r\nHost: a.test\r\nX:\ny\r\n\r\n"s})
    rows.push_back({testing::PrintToString(head), head + kHidden});
  refused(rows);
}

TEST_F(Http1Syntax, RefusesMalformedFieldNames) {
  std::vector<Row> rows;
  for (const std::string& field : {"X: y\r\n folded: z"s,
                                   "X: y\r\n\tfolded"s,
                                   "X : y"s,
                                   "X\t: y"s,
                                   " X: y"s,
                                   "\tX: y"s,
                                   ": y"s,
                                   ":"s,
                                   "no colon"s,
                                   "X"s,
                                   "X y: z"s,
                                   "X(: y"s,
                                   "X@: y"s,
                                   "X\": y"s,
                                   "X/: y"s,
                                   "X,Z: y"s,
                                   "X;: y"s,
                                   "X=: y"s,
                                   "X[]: y"s,
                                   "X{: y"s,
                                   "X\\: y"s,
                                   "X\0: y"s,
                                   "X\x7f: y"s,
                                   "X\x01: y"s,
                                   "\xc3\xbc: y"s,
                                   "X\x80: y"s,
                                   "X\xa0: y"s,
                                   "\v: y"s,
                                   "X\v: y"s})
    rows.push_back({testing::PrintToString(field), get(field + "\r\n") + kHidden});
  rows.push_back(
      {"a space before the first field", "GET /@ HTTP/1.1\r\n Host: a.test\r\n\r\n"s + kHidden});
  rows.push_back({"a tab before the first field",
                  "GET /@ HTTP/1.1\r\n\tX: y\r\nHost: a.test\r\n\r\n"s + kHidden});
  rows.push_back({"a folded framing", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")});
  refused(rows);
}

TEST_F(Http1Syntax, RefusesControlBytesInValues) {
  std::vector<Row> rows;
  for (int byte = 0; byte < 0x80; ++byte) {
    if ((byte >= 0x20 && byte != 0x7f) || byte == '\t' || byte == '\r' || byte == '\n') continue;
    const std::string inside = "X: a"s + static_cast<char>(byte) + "b\r\n";
    rows.push_back({testing::PrintToString(inside), get(inside)});
  }
  rows.push_back({"at the start", get("X:\0b\r\n"s)});
  rows.push_back({"at the end", get("X: b\x7f\r\n")});
  rows.push_back({"in Host", "GET /@ HTTP/1.1\r\nHost: a\0.test\r\n\r\n"s});
  refused(rows);
}

TEST_F(Http1Syntax, CarriesBytesAboveAsciiInValues) {
  std::string high;
  for (int byte = 0x80; byte < 0x100; ++byte) high += static_cast<char>(byte);
  EXPECT_EQ(take("high bytes", get("X-High: " + high + "\r\n")).fields.value("x-high"), high);
  EXPECT_EQ(take("a tab", get("X-Tab: a\tb\r\n")).fields.value("x-tab"), "a\tb");
  EXPECT_EQ(take("empty", get("X-Empty:\r\n")).fields.count("x-empty"), 1U);
}

TEST_F(Http1Syntax, RefusesMalformedRequestLines) {
  std::vector<Row> rows;
  for (const std::string& line : {"GET /@"s,
                                  "GET"s,
                                  "GET /@ "s,
                                  "GET /@ HTTP"s,
                                  "GET /@ HTTP/"s,
                                  "GET /@ HTTP/1"s,
                                  "GET /@ HTTP/1."s,
                                  "GET /@ HTTP/.1"s,
                                  "GET /@ HTTP/1.10"s,
                                  "GET /@ HTTP/01.1"s,
                                  "GET /@ HTTP/1,1"s,
                                  "GET /@ http/1.1"s,
                                  "GET /@ Http/1.1"s,
                                  "GET /@ HTTP/1.1 "s,
                                  "GET /@ HTTP/1.1\t"s,
                                  "GET /@ HTTP/1.1 more"s,
                                  "GET /@ more HTTP/1.1"s,
                                  "GET  /@ HTTP/1.1"s,
                                  "GET /@  HTTP/1.1"s,
                                  "GET\t/@ HTTP/1.1"s,
                                  "GET /@\tHTTP/1.1"s,
                                  "GET\v/@ HTTP/1.1"s,
                                  " GET /@ HTTP/1.1"s,
                                  "\tGET /@ HTTP/1.1"s,
                                  "/@ HTTP/1.1"s,
                                  " /@ HTTP/1.1"s,
                                  "GET /@ HTTPS/1.1"s,
                                  "GET /@ ICY/1.1"s,
                                  "GET /@ HTTP/x.1"s,
                                  "GET /@ HTTP/-1.1"s,
                                  "GET /@ HTTP /1.1"s,
                                  "GET /@ HTTP/1 .1"s,
                                  "GET /@\0 HTTP/1.1"s,
                                  "GET /@\x01 HTTP/1.1"s,
                                  "GET /@ HTTP/1.1\0"s})
    rows.push_back({testing::PrintToString(line),
                    line + "\r\nHost: a.test\r\n\r\n" + kHidden,
                    {400, 426, 505}});
  rows.push_back({"HTTP/0.9", "GET /@\r\n\r\n", {400, 426}});
  for (const char* version : {"HTTP/1.2", "HTTP/1.9", "HTTP/0.9"})
    rows.push_back({version, "GET /@ "s + version + "\r\nHost: a.test\r\n\r\n", {400, 505}});
  for (const char* version : {"HTTP/2.0", "HTTP/3.0", "HTTP/9.9"})
    rows.push_back({version, "GET /@ "s + version + "\r\nHost: a.test\r\n\r\n", {505}});
  refused(rows);
}

TEST_F(Http1Syntax, SkipsOneEmptyLineBeforeARequest) {
  take("one CRLF", "\r\n" + get(""));
  refused({{"two", "\r\n\r\n" + get("")},
           {"a hundred", std::string(100, '\r') + get("")},
           {"LF", "\n" + get("")},
           {"CR", "\r" + get("")},
           {"a blank line", " \r\n" + get("")}});
}

TEST_F(Http1Syntax, CarriesUnknownMethodsAndRefusesWhatIsNone) {
  std::vector<Row> rows;
  for (const std::string& method : {"G@T"s, "G(T"s, "GET,"s, "G\"T"s, "GE\x7fT"s, "G\0T"s,
                                    "G\xc3\xa4T"s, "GET:"s, "[GET]"s, "G/T"s, std::string(33, 'M')})
    rows.push_back({method, method + " /@ HTTP/1.1\r\nHost: a.test\r\n\r\n"});
  refused(rows);
  for (const char* method : {"BREW", "get", "PROPFIND", "M-SEARCH", "PATCH", "!#$%&'*+-.^_`|~0"})
    EXPECT_EQ(take(method, method + " /@ HTTP/1.1\r\nHost: a.test\r\n\r\n"s).method, method);

  refused({{"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", {405}},
           {"CONNECT with a path", "CONNECT /@ HTTP/1.1\r\nHost: a.test\r\n\r\n", {400, 405}},
           {"TRACE", "TRACE /@ HTTP/1.1\r\nHost: a.test\r\n\r\n", {405}}},
          false);
  RawClient narrow = proxy_.raw("narrow");
  narrow.send("BREW / HTTP/1.1\r\nHost: a.test\r\n\r\n");
  EXPECT_EQ(narrow.read_response().status, 404);
}

TEST_F(Http1Syntax, RefusesOtherProtocols) {
  refused({{"a preface without its end", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", {400, 505, 0}},
           {"a preface and a request", "PRI * HTTP/2.0\r\n\r\n"s + kHidden, {400, 505, 0}},
           {"a preface in other letters", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", {400, 505, 0}},
           {"a TLS record",
            "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"s + std::string(155, '\x5a'),
            {400, 0}},
           {"SSH", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", {400, 505, 0}},
           {"SMTP", "EHLO a.test\r\n", {400, 0}},
           {"PROXY v1", "PROXY TCP4 10.1.2.3 10.1.2.4 1000 80\r\n"s + kHidden},
           {"PROXY v2",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\x01\x02\x04\x03\xe8\0\x50"s +
                kHidden,
            {400, 0}}});
}

TEST_F(Http1Syntax, AnswersAGoodRequestBeforeGarbage) {
  for (const std::string& garbage : {"\0\1\2 garbage\r\n\r\n"s, "GET / HTTP/1.1\nHost: a\n\n"s,
                                     "GET / HTTP/1.1\r\n\r\n"s, "x"s + kHidden + "\0"s}) {
    SCOPED_TRACE(testing::PrintToString(garbage));
    const std::string target = unique_target();
    expected_.push_back(target);
    RawClient client = proxy_.raw();
    client.send(replaced(get(""), target) + garbage);
    EXPECT_EQ(client.read_response().status, 200);
    if (garbage.starts_with("x")) {  // a method of its own, but the head never ends
      expected_.push_back("/hidden");
      EXPECT_EQ(client.read_response().status, 200);
    }
    EXPECT_EQ(client.read_response().status, 400);
    EXPECT_EQ(client.read_end(), Socket::End::kFin);
  }
}

// Whether the rest is read to its end or the connection closes: a body made of requests stays one.
TEST_F(Http1Syntax, ABodyNobodyWantedIsNeverARequest) {
  std::string body;
  while (body.size() < 20'000) body += kHidden;
  const std::string length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
  char size[16];
  std::snprintf(size, sizeof size, "%zx", body.size());
  struct Case {
    const char* what;
    const char* target;
    int status;
  };
  for (const Case& tried :
       {Case{"too large", "/short/x", 413}, Case{"a fixed answer", "/fixed", 200},
        Case{"a redirect", "/moved/1", 301}})
    for (const bool chunks : {false, true})
      for (const bool together : {true, false}) {
        SCOPED_TRACE(tried.what + ", "s + (chunks ? "chunked, " : "with its length, ") +
                     (together ? "together" : "body later"));
        RawClient client = proxy_.raw();
        const std::string head = "POST "s + tried.target + " HTTP/1.1\r\nHost: a.test\r\n" +
                                 (chunks ? "Transfer-Encoding: chunked\r\n" : length) + "\r\n";
        const std::string rest = chunks ? size + "\r\n"s + body + "\r\n0\r\n\r\n" : body;
        Response response;
        if (together || (chunks && tried.status == 413)) {
          client.send(head + rest);
          response = client.read_response();
        } else {
          client.send(head);
          response = client.read_response();
          client.try_send(rest, patience());
        }
        EXPECT_EQ(response.status, tried.status);
        const std::string target = unique_target();
        const bool sent = client.try_send(replaced(get(""), target), patience());
        if (!sent || client.peek(1).empty()) {  // closed instead
          EXPECT_TRUE(equal_case_blind(response.fields.value("connection"), "close"));
          continue;
        }
        expected_.push_back(target);
        const Response next = client.read_response();
        EXPECT_EQ(next.status, 200);
        EXPECT_EQ(next.fields.value("x-target"), target);
      }
}

TEST_F(Http1Syntax, AnswersOtherExpectations) {
  refused({{"unknown", post("Content-Length: 5\r\nExpect: 200-ok\r\n", "hello"), {417}},
           {"a list", post("Content-Length: 5\r\nExpect: 100-continue, x\r\n", "hello"), {417}},
           {"without a body", get("Expect: tea\r\n"), {417}}},
          false);
  // HTTP/1.0 knows no interim answers.
  EXPECT_EQ(take("in HTTP/1.0",
                 "POST /@ HTTP/1.0\r\nHost: a.test\r\nContent-Length: 5\r\n"
                 "Expect: 100-continue\r\n\r\nhello")
                .body,
            "hello");
}

TEST(Http1Expect, ContinueNeverDeadlocks) {
  // The target says what the origin does with a body that it has not seen.
  Origin origin([](RawClient& connection, int) {
    while (!connection.peek(1).empty()) {
      const Head head = connection.read_head();
      if (head.target == "/continue") connection.send("HTTP/1.1 100 Continue\r\n\r\n");
      if (head.target == "/final")
        return connection.send(
            "HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
      connection.begin_body(head, head.method);
      std::string body(64, ' ');
      body.resize(connection.read_body_part(body.data(), body.size()));
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                      "\r\n\r\n" + body);
    }
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { origin: "$ORIGIN" }
    routes:
      - { to: origin, timeout: { headers: 5m } }
      - { match: /fixed, respond: { status: 403, body: no } })",
                 {{"ORIGIN", origin.address()}});
  const auto ask = [](const std::string& target) {
    return "POST " + target +
           " HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
  };

  RawClient patient = proxy.raw();
  patient.send(ask("/continue"));
  EXPECT_EQ(patient.read_head().status, 100);
  patient.send("hello");
  const Response taken = patient.read_response();
  EXPECT_EQ(taken.status, 200);
  EXPECT_EQ(taken.body, "hello");

  for (const char* target : {"/final", "/fixed"}) {
    RawClient refused = proxy.raw();
    refused.send(ask(target));
    const Response answer = refused.read_response();
    EXPECT_EQ(answer.status, 403) << target;
    EXPECT_EQ(answer.body, "no") << target;
  }

  RawClient hasty = proxy.raw();  // it may, whatever comes
  hasty.send(ask("/silent") + "hello");
  EXPECT_EQ(hasty.read_response().body, "hello");
}

TEST_F(Http1Syntax, NothingFromARequestSplitsWhatWeWrite) {
  for (const char* encoded : {"%0d%0ax-injected:%201", "%0Ax-injected:1", "%0dx-injected:1",
                              "a%00b", "%e5%98%8a%e5%98%8dx-injected:1"})
    for (const std::string& target : {"/moved/"s + encoded, "/copies/"s + encoded,
                                      "/copies/1?v="s + encoded, "/moved/1?v="s + encoded}) {
      SCOPED_TRACE(target);
      RawClient client = proxy_.raw();
      client.send("GET " + target + " HTTP/1.1\r\nHost: a.test\r\n\r\n");
      const Response response = client.read_response();
      EXPECT_THAT(response.status, AnyOf(200, 301, 400));
      EXPECT_FALSE(response.fields.has("x-injected"));
      for (const Request& request : origin_.requests(target)) {
        expected_.push_back(request.target);
        EXPECT_FALSE(request.fields.has("x-injected"));
      }
    }
}

TEST(Http1Pipelining, KeepsOrderWhateverTheMethodsAndStatuses) {
  HttpOrigin origin([](Stream& stream, const Head& head) {
    const std::string body = stream.read_body();
    Response answer{
        .status = 200, .fields = {{"x-target", head.target}}, .body = head.target + body};
    if (head.target.starts_with("/204")) answer.status = 204;
    if (head.target.starts_with("/304")) answer.status = 304;
    if (head.method == "HEAD" || answer.status != 200) answer.body.clear();
    if (head.method == "HEAD") answer.fields.push_back({"content-length", "1000"});
    stream.send(answer);
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { origin: "$ORIGIN" }
    routes:
      - { to: origin }
      - { match: /fixed/**, respond: { status: 200, body: fixed } })",
                 {{"ORIGIN", origin.address()}});
  struct Sent {
    std::string method;
    std::string target;
    std::string body;
    int status;
  };
  std::vector<Sent> all;
  std::string bytes;
  for (int i = 0; i < 250; ++i) {
    const std::string n = std::to_string(i);
    switch (i % 6) {
      case 0: all.push_back({"GET", "/a" + n, "", 200}); break;
      case 1: all.push_back({"HEAD", "/b" + n, "", 200}); break;
      case 2: all.push_back({"POST", "/c" + n, "body of " + n, 200}); break;
      case 3: all.push_back({"GET", "/204/" + n, "", 204}); break;
      case 4: all.push_back({"GET", "/304/" + n, "", 304}); break;
      case 5: all.push_back({"GET", "/fixed/" + n, "", 200}); break;
    }
    const Sent& sent = all.back();
    bytes += sent.method + " " + sent.target + " HTTP/1.1\r\nHost: a.test\r\n";
    if (!sent.body.empty()) bytes += "Content-Length: " + std::to_string(sent.body.size()) + "\r\n";
    bytes += "\r\n" + sent.body;
  }
  RawClient client = proxy.raw();
  client.send(bytes);
  for (const Sent& sent : all) {
    SCOPED_TRACE(sent.method + " " + sent.target);
    const Response response = client.read_response(sent.method);
    ASSERT_EQ(response.status, sent.status);
    if (sent.target.starts_with("/fixed")) {
      EXPECT_EQ(response.body, "fixed");
      continue;
    }
    EXPECT_EQ(response.fields.value("x-target"), sent.target);
    EXPECT_EQ(response.body,
              sent.method == "HEAD" || sent.status != 200 ? "" : sent.target + sent.body);
  }
}

TEST_F(Http1Syntax, BoundsHeads) {
  std::string fields;
  for (int i = 0; i < 150; ++i) fields += "x" + std::to_string(i) + ": y\r\n";
  refused(
      {{"a target of 9 KiB",
        "GET /@" + std::string(9 * 1024, 'a') + " HTTP/1.1\r\nHost: a.test\r\n\r\n",
        {414}},
       {"a request line that never ends", "GET /@" + std::string(100'000, 'a'), {414}},
       {"a field of 70 KB", get("x: " + std::string(70'000, 'y') + "\r\n"), {431}},
       {"a field that never ends", "GET /@ HTTP/1.1\r\nx: " + std::string(200'000, 'y'), {431}},
       {"a name that never ends", "GET /@ HTTP/1.1\r\n" + std::string(200'000, 'y'), {400, 431}},
       {"150 fields", get(fields), {431}},
       {"a method that never ends", std::string(20'000, 'M'), {400, 414}}});
}

}  // namespace
}  // namespace outrider::test
