// What a server reads. Tables hold every spelling that must be refused or taken; each is fed whole,
// cut at every byte, and byte by byte, and must come out the same.
#include "tests/unit/proxy/h1_support.h"

namespace outrider {
namespace {

using namespace test;

struct Vector {
  const char* name;
  Bytes input;
  int status;  // 0: taken, and the next request with it
};
void PrintTo(const Vector& vector, std::ostream* out) { *out << vector.name; }

class RequestSyntax : public testing::TestWithParam<Vector> {};

// What is refused is answered once, closes, and nothing behind it becomes a request.
TEST_P(RequestSyntax, IsTakenOrRefused) {
  const Vector& vector = GetParam();
  const std::string input = vector.input + kNext;
  outcome_of(input);
  Exchanges exchanges;
  exchanges.feed(input);
  ASSERT_GE(exchanges.count(), 1U);
  const RequestOwner& first = *exchanges.clients.requests.front();
  if (vector.status == 0) {
    EXPECT_EQ(first.bad_status, 0) << first.bad_detail;
    ASSERT_EQ(exchanges.count(), 2U);
    EXPECT_EQ(exchanges.last().request.target, "/next");
    EXPECT_FALSE(exchanges.wire.closed);
    return;
  }
  EXPECT_EQ(first.bad_status, vector.status) << first.text();
  EXPECT_FALSE(first.whole);
  EXPECT_FALSE(first.bad_detail.empty());
  EXPECT_EQ(exchanges.count(), 1U);
  EXPECT_EQ(exchanges.wire.closed, Wire::Close::kLinger);
  EXPECT_NE(exchanges.wire.sent.find("Connection: close\r\n"), std::string::npos);
}

constexpr Vector kFraming[] = {
    {"cl_te", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
    {"te_cl", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400},
    {"te_cl_zero", post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"), 400},
    {"te_cl_case", post("transfer-ENCODING: Chunked\r\nCONTENT-length: 5\r\n", "0\r\n\r\n"), 400},
    {"te_xchunked", post("Transfer-Encoding: xchunked\r\n", ""), 400},
    {"te_chunk", post("Transfer-Encoding: chunk\r\n", ""), 400},
    {"te_chunkedx", post("Transfer-Encoding: chunkedx\r\n", ""), 400},
    {"te_identity", post("Transfer-Encoding: identity\r\n", ""), 400},
    {"te_identity_cl", post("Transfer-Encoding: identity\r\nContent-Length: 3\r\n", "abc"), 400},
    {"te_quoted", post("Transfer-Encoding: \"chunked\"\r\n", ""), 400},
    {"te_parameter", post("Transfer-Encoding: chunked;q=1\r\n", ""), 400},
    {"te_vt", post("Transfer-Encoding: \vchunked\r\n", ""), 400},
    {"te_ff", post("Transfer-Encoding: chunked\f\r\n", ""), 400},
    {"te_nul", post("Transfer-Encoding: chunked\0\r\n"sv, ""), 400},
    {"te_nbsp",
     post("Transfer-Encoding: \xa0"
          "chunked\r\n",
          ""),
     400},
    {"te_nbsp_after", post("Transfer-Encoding: chunked\xa0\r\n", ""), 400},
    {"te_twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
     400},
    {"te_twice_other",
     post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), 400},
    {"te_twice_other_first",
     post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
    {"te_list", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400},
    {"te_list_reversed", post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), 400},
    {"te_list_chunked_twice", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400},
    {"te_comma", post("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"), 400},
    {"te_comma_after", post("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"), 400},
    {"te_empty", post("Transfer-Encoding:\r\n", ""), 400},
    {"te_empty_cl", post("Transfer-Encoding:\r\nContent-Length: 3\r\n", "abc"), 400},
    {"te_space_in_name", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400},
    {"te_folded", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400},
    {"te_upper", post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), 0},
    {"te_tab", post("Transfer-Encoding:\tchunked\t \r\n", "0\r\n\r\n"), 0},
    {"te_no_space", post("Transfer-Encoding:chunked\r\n", "0\r\n\r\n"), 0},
    {"te_10",
     raw("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: "
         "keep-alive\r\n\r\n0\r\n\r\n"),
     400},
    {"cl_two", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), 400},
    {"cl_same_twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400},
    {"cl_list", post("Content-Length: 5, 6\r\n", "abcdef"), 400},
    {"cl_list_same", post("Content-Length: 5, 5\r\n", "abcde"), 400},
    {"cl_plus", post("Content-Length: +5\r\n", "abcde"), 400},
    {"cl_minus", post("Content-Length: -5\r\n", "abcde"), 400},
    {"cl_minus_zero", post("Content-Length: -0\r\n", ""), 400},
    {"cl_hex", post("Content-Length: 0x5\r\n", "abcde"), 400},
    {"cl_underscore", post("Content-Length: 5_0\r\n", "abcde"), 400},
    {"cl_fraction", post("Content-Length: 5.0\r\n", "abcde"), 400},
    {"cl_exponent", post("Content-Length: 5e0\r\n", "abcde"), 400},
    {"cl_quoted", post("Content-Length: \"5\"\r\n", "abcde"), 400},
    {"cl_semicolon", post("Content-Length: 5;\r\n", "abcde"), 400},
    {"cl_empty", post("Content-Length:\r\n", ""), 400},
    {"cl_blank", post("Content-Length:  \r\n", ""), 400},
    {"cl_inner_space", post("Content-Length: 1 0\r\n", "abcdefghij"), 400},
    {"cl_nul", post("Content-Length: 5\0\r\n"sv, "abcde"), 400},
    {"cl_vt", post("Content-Length: \v5\r\n", "abcde"), 400},
    {"cl_2_63", post("Content-Length: 9223372036854775808\r\n", ""), 400},
    {"cl_2_64", post("Content-Length: 18446744073709551616\r\n", ""), 400},
    {"cl_2_64_5", post("Content-Length: 18446744073709551621\r\n", "abcde"), 400},
    {"cl_40_digits", post("Content-Length: 1000000000000000000000000000000000000000\r\n", ""), 400},
    {"cl_40_zeros", post("Content-Length: 0000000000000000000000000000000000000005\r\n", "abcde"),
     400},
    {"cl_spaces_around", post("Content-Length:  5  \r\n", "abcde"), 0},
    {"cl_zero", post("Content-Length: 0\r\n", ""), 0},
    {"get_body", raw("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), 0},
};

constexpr Vector kChunks[] = {
    {"plain", chunked("5\r\nabcde\r\n0\r\n\r\n"), 0},
    {"leading_zeros", chunked("0005\r\nabcde\r\n000\r\n\r\n"), 0},
    {"upper_and_lower", chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), 0},
    {"data_like_a_request",
     chunked("28\r\nGET /evil HTTP/1.1\r\nHost: a\r\nX: 123456\r\n\r\n0\r\n\r\n"), 0},
    {"size_empty", chunked("\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_plus", chunked("+5\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_minus", chunked("-5\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_0x", chunked("0x5\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_space_before", chunked(" 5\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_space_after", chunked("5 \r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_tab_after", chunked("5\t\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_space_semicolon", chunked("5 ;a=b\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_17_digits", chunked("00000000000000005\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_2_63", chunked("8000000000000000\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_ffff", chunked("ffffffffffffffff\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_2_64", chunked("10000000000000005\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_semicolon_alone", chunked("5;\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_letter", chunked("5g\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_underscore", chunked("5_0\r\nabcde\r\n0\r\n\r\n"), 400},
    {"size_comma", chunked("5,5\r\nabcde\r\n0\r\n\r\n"), 400},
    {"line_lf", chunked("5\nabcde\r\n0\r\n\r\n"), 400},
    {"line_cr", chunked("5\rabcde\r\n0\r\n\r\n"), 400},
    {"line_cr_cr_lf", chunked("5\r\r\nabcde\r\n0\r\n\r\n"), 400},
    {"last_line_lf", chunked("5\r\nabcde\r\n0\n\r\n"), 400},
    {"last_lf_lf", chunked("5\r\nabcde\r\n0\r\n\n"), 400},
    {"last_space", chunked("5\r\nabcde\r\n0 \r\n\r\n"), 400},
    {"extension_lf", chunked("5;a\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_lf_inside", chunked("5;a\n=b\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_cr", chunked("5;a\rb\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_nul", chunked("5;a\0\r\nabcde\r\n0\r\n\r\n"sv), 400},
    {"extension_quoted_lf", chunked("5;a=\"\n\"\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_quoted_cr", chunked("5;a=\"\r\"\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_quoted_crlf", chunked("5;a=\"\r\n\"\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_quoted_nul", chunked("5;a=\"\0\"\r\nabcde\r\n0\r\n\r\n"sv), 400},
    {"extension_quoted_pair_lf", chunked("5;a=\"\\\n\"\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_unclosed", chunked("5;a=\"b\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_after_quote", chunked("5;a=\"b\"c\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_no_name", chunked("5;=b\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_no_value", chunked("5;a=\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_two_semicolons", chunked("5;;a\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_blank_end", chunked("5;a \r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_two_words", chunked("5;a b\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_value_equals", chunked("5;a=b=c\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extension_utf8", chunked("5;\xc3\xa4\r\nabcde\r\n0\r\n\r\n"), 400},
    {"extensions", chunked("5;a=b;c=\"d\"\r\nabcde\r\n0;last\r\n\r\n"), 0},
    {"extension_quoted_pair", chunked("5;a=\"\\\"\"\r\nabcde\r\n0\r\n\r\n"), 0},
    {"extension_blanks", chunked("5; a = b ;c = \"d\" ; e\r\nabcde\r\n0\r\n\r\n"), 0},
    {"data_lf", chunked("5\r\nabcde\n0\r\n\r\n"), 400},
    {"data_other", chunked("5\r\nabcdeXX0\r\n\r\n"), 400},
    {"data_cr_only", chunked("5\r\nabcde\r0\r\n\r\n"), 400},
    {"data_missing", chunked("5\r\nabcde0\r\n\r\n"), 400},
    {"data_more", chunked("5\r\nabcdef\r\n0\r\n\r\n"), 400},
    {"data_less", chunked("5\r\nabc\r\n0\r\n\r\n"), 400},
    {"trailer", chunked("0\r\nX-Sum: 1\r\n\r\n"), 0},
    {"trailer_lf", chunked("0\r\nX-Sum: 1\n\r\n"), 400},
    {"trailer_last_lf", chunked("0\r\nX-Sum: 1\r\n\n"), 400},
    {"trailer_no_colon", chunked("0\r\nX-Sum\r\n\r\n"), 400},
    {"trailer_space_colon", chunked("0\r\nX-Sum : 1\r\n\r\n"), 400},
    {"trailer_folded", chunked("0\r\nX-Sum: 1\r\n 2\r\n\r\n"), 400},
    {"trailer_control", chunked("0\r\nX-Sum: \x01\r\n\r\n"), 400},
    {"trailer_request_line", chunked("0\r\nGET /evil HTTP/1.1\r\n\r\n"), 400},
    {"trailer_bad_length",
     chunked("0\r\nContent-Length: 5\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
};

constexpr Vector kSyntax[] = {
    {"plain", get(""), 0},
    {"line_lf", raw("GET /a HTTP/1.1\nHost: a\r\n\r\n"), 400},
    {"field_lf", raw("GET /a HTTP/1.1\r\nHost: a\n\r\n"), 400},
    {"field_lf_2", raw("GET /a HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), 400},
    {"end_lf", raw("GET /a HTTP/1.1\r\nHost: a\r\n\n"), 400},
    {"all_lf", raw("GET /a HTTP/1.1\nHost: a\n\n"), 400},
    {"bare_cr_value", get("X: a\rb\r\n"), 400},
    {"bare_cr_name", get("X\r: a\r\n"), 400},
    {"bare_cr_line", raw("GET /a\r HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"cr_cr_lf", raw("GET /a HTTP/1.1\r\r\nHost: a\r\n\r\n"), 400},
    {"cr_cr_lf_field", get("X: a\r\r\n"), 400},
    {"cr_cr_lf_end", raw("GET /a HTTP/1.1\r\nHost: a\r\n\r\r\n"), 400},
    {"folded", get("X: a\r\n b\r\n"), 400},
    {"folded_tab", get("X: a\r\n\tb\r\n"), 400},
    {"folded_empty", get("X: a\r\n \r\n"), 400},
    {"space_before_first", raw("GET /a HTTP/1.1\r\n Host: a\r\n\r\n"), 400},
    {"tab_before_first", raw("GET /a HTTP/1.1\r\n\tHost: a\r\n\r\n"), 400},
    {"space_before_colon", get("X : a\r\n"), 400},
    {"tab_before_colon", get("X\t: a\r\n"), 400},
    {"empty_name", get(": a\r\n"), 400},
    {"no_colon", get("X\r\n"), 400},
    {"name_paren", get("X(: a\r\n"), 400},
    {"name_quote", get("\"X\": a\r\n"), 400},
    {"name_slash", get("X/Y: a\r\n"), 400},
    {"name_utf8", get("X\xc3\xa4: a\r\n"), 400},
    {"name_nul", get("X\0: a\r\n"sv), 400},
    {"name_del", get("X\x7f: a\r\n"), 400},
    {"name_space_inside", get("X Y: a\r\n"), 400},
    {"name_all_tchars", get("!#$%&'*+-.^_`|~09azAZ: a\r\n"), 0},
    {"value_nul", get("X: a\0b\r\n"sv), 400},
    {"value_soh", get("X: \x01\r\n"), 400},
    {"value_bs", get("X: a\b\r\n"), 400},
    {"value_vt", get("X: a\vb\r\n"), 400},
    {"value_esc", get("X: \x1b[0m\r\n"), 400},
    {"value_del", get("X: a\x7f\r\n"), 400},
    {"value_high", get("X: \x80\xff\r\n"), 0},
    {"value_tab", get("X: a\tb\r\n"), 0},
    {"value_empty", get("X:\r\nY: \r\n"), 0},
    {"http_09", raw("GET /a\r\n\r\n"), 400},
    {"http_09_lf", raw("GET /a\n"), 400},
    {"version_09", line("GET /a HTTP/0.9"), 400},
    {"version_12", line("GET /a HTTP/1.2"), 400},
    {"version_19", line("GET /a HTTP/1.9"), 400},
    {"version_20", line("GET /a HTTP/2.0"), 505},
    {"version_30", line("GET /a HTTP/3.0"), 505},
    {"version_99", line("GET /a HTTP/9.9"), 505},
    {"version_2", line("GET /a HTTP/2"), 400},
    {"version_1", line("GET /a HTTP/1"), 400},
    {"version_1_dot", line("GET /a HTTP/1."), 400},
    {"version_11_1", line("GET /a HTTP/1.1.1"), 400},
    {"version_101", line("GET /a HTTP/1.01"), 400},
    {"version_letter", line("GET /a HTTP/1.x"), 400},
    {"version_lower", line("GET /a http/1.1"), 400},
    {"version_mixed", line("GET /a Http/1.1"), 400},
    {"version_other", line("GET /a ICE/1.1"), 400},
    {"version_space", line("GET /a HTTP /1.1"), 400},
    {"version_comma", line("GET /a HTTP/1,1"), 400},
    {"extra_word", line("GET /a b HTTP/1.1"), 400},
    {"extra_word_after", line("GET /a HTTP/1.1 x"), 400},
    {"tab_first", line("GET\t/a HTTP/1.1"), 400},
    {"tab_second", line("GET /a\tHTTP/1.1"), 400},
    {"vt", line("GET\v/a HTTP/1.1"), 400},
    {"double_space_first", line("GET  /a HTTP/1.1"), 400},
    {"double_space_second", line("GET /a  HTTP/1.1"), 400},
    {"leading_space", line(" GET /a HTTP/1.1"), 400},
    {"leading_tab", line("\tGET /a HTTP/1.1"), 400},
    {"trailing_space", line("GET /a HTTP/1.1 "), 400},
    {"trailing_tab", line("GET /a HTTP/1.1\t"), 400},
    {"control_in_line", line("GET /a\x01 HTTP/1.1"), 400},
    {"nul_in_line", line("GET /a\0 HTTP/1.1"sv), 400},
    {"del_in_line", line("GET /a\x7f HTTP/1.1"), 400},
    {"no_target", line("GET HTTP/1.1"), 400},
    {"empty_target", line("GET  HTTP/1.1"), 400},
    {"method_alone", line("GET"), 400},
    {"one_empty_line", raw("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {"two_empty_lines", raw("\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"three_empty_lines", raw("\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"empty_lf", raw("\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"cr_first", raw("\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"space_line_first", raw(" \r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"method_paren", line("GE(T /a HTTP/1.1"), 400},
    {"method_utf8", line("G\xc3\x84T /a HTTP/1.1"), 400},
    {"method_colon", line("GET: /a HTTP/1.1"), 400},
    {"method_unknown", line("BREW /a HTTP/1.1"), 0},
    {"method_lower", line("get /a HTTP/1.1"), 0},
    {"method_propfind", line("PROPFIND /a HTTP/1.1"), 0},
    {"method_m_search", line("M-SEARCH /a HTTP/1.1"), 0},
    {"method_describe", line("DESCRIBE /a HTTP/1.1"), 0},
    {"method_source", line("SOURCE /a HTTP/1.1"), 0},
    {"method_trace", line("TRACE /a HTTP/1.1"), 0},
    {"preface_alone", raw("PRI * HTTP/2.0\r\n\r\n"), 400},
    {"preface_other", raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), 400},
    {"tls_record", raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"sv), 400},
    {"ssh", raw("SSH-2.0-OpenSSH_9.2\r\n"), 400},
    {"smtp", raw("EHLO mail.example\r\n"), 400},
    {"socks", raw("\x05\x01\x00"sv), 400},
    {"proxy_protocol",
     raw("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {"proxy_protocol_2", raw("\r\n\r\n\0\r\nQUIT\n"sv), 400},
    {"expect_other", get("Expect: 200-ok\r\n"), 417},
    {"expect_list", get("Expect: 100-continue, other\r\n"), 417},
    {"expect_twice", get("Expect: 100-continue\r\nExpect: 100-continue\r\n"), 417},
    {"expect_empty", get("Expect:\r\n"), 417},
    {"expect", get("Expect: 100-Continue\r\n"), 0},
    {"expect_and_syntax", get("Expect: other\r\nX\r\n"), 400},
};

constexpr Vector kAuthority[] = {
    {"no_host", raw("GET /a HTTP/1.1\r\n\r\n"), 400},
    {"no_host_other", raw("GET /a HTTP/1.1\r\nX: a\r\n\r\n"), 400},
    {"two_hosts", get("Host: b\r\n"), 400},
    {"two_hosts_equal", get("Host: a\r\n"), 400},
    {"two_hosts_case", get("hOST: a\r\n"), 400},
    {"empty", host(""), 400},
    {"space", host("a b"), 400},
    {"tab", host("a\tb"), 400},
    {"comma", host("a,b"), 400},
    {"comma_space", host("a, b"), 400},
    {"at", host("user@a"), 400},
    {"at_password", host("user:1@a"), 400},
    {"slash", host("a/b"), 400},
    {"question", host("a?b"), 400},
    {"hash", host("a#b"), 400},
    {"backslash", host("a\\b"), 400},
    {"scheme", host("http://a"), 400},
    {"port_letters", host("a:b"), 400},
    {"port_empty", host("a:"), 400},
    {"port_large", host("a:65536"), 400},
    {"port_0", host("a:0"), 400},
    {"port_negative", host("a:-1"), 400},
    {"port_plus", host("a:+80"), 400},
    {"port_two", host("a:80:80"), 400},
    {"port_only", host(":80"), 400},
    {"bracket_open", host("[::1"), 400},
    {"bracket_close", host("::1]"), 400},
    {"bracket_none", host("::1"), 400},
    {"bracket_empty", host("[]"), 400},
    {"bracket_name", host("[a]"), 400},
    {"bracket_tail", host("[::1]a"), 400},
    {"quote", host("\"a\""), 400},
    {"angle", host("<a>"), 400},
    {"caret", host("a^b"), 400},
    {"pipe", host("a|b"), 400},
    {"brace", host("{a}"), 400},
    {"percent", host("a%00"), 400},
    {"utf8", host("\xc3\xa4"), 400},
    {"nul", host("a\0"sv), 400},
    {"folded", raw("GET /a HTTP/1.1\r\nHost:\r\n a\r\n\r\n"), 400},
    {"space_colon", raw("GET /a HTTP/1.1\r\nHost : a\r\n\r\n"), 400},
    {"name", host("Shop.Example.com"), 0},
    {"name_port", host("shop:8080"), 0},
    {"name_dot", host("shop.:80"), 0},
    {"ipv4", host("10.0.0.1:80"), 0},
    {"ipv6", host("[2001:db8::1]:8080"), 0},
    {"underscore", host("my_shop"), 0},
    {"absolute", line("GET http://b/a HTTP/1.1"), 0},
    {"absolute_upper", line("GET HTTP://b/a HTTP/1.1"), 0},
    {"absolute_https", line("GET https://b:8443/a?q HTTP/1.1"), 0},
    {"absolute_no_path", line("GET http://b HTTP/1.1"), 0},
    {"absolute_no_host_field", raw("GET http://b/ HTTP/1.1\r\n\r\n"), 400},
    {"absolute_bad_host_field", raw("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n"), 400},
    {"absolute_userinfo", line("GET http://user@b/ HTTP/1.1"), 400},
    {"absolute_userinfo_password", line("GET http://user:1@b/ HTTP/1.1"), 400},
    {"absolute_empty", line("GET http:///a HTTP/1.1"), 400},
    {"absolute_empty_query", line("GET http://?a HTTP/1.1"), 400},
    {"absolute_port_only", line("GET http://:80/a HTTP/1.1"), 400},
    {"absolute_bad_port", line("GET http://b:x/a HTTP/1.1"), 400},
    {"absolute_ftp", line("GET ftp://b/a HTTP/1.1"), 400},
    {"absolute_file", line("GET file:///etc HTTP/1.1"), 400},
    {"absolute_one_slash", line("GET http:/b/a HTTP/1.1"), 400},
    {"absolute_no_slash", line("GET http:b HTTP/1.1"), 400},
    {"absolute_relative", line("GET //b/a HTTP/1.1"), 0},
    {"absolute_fragment", line("GET http://b/a#x HTTP/1.1"), 400},
    {"authority_form", line("GET b:80 HTTP/1.1"), 400},
    {"star_get", line("GET * HTTP/1.1"), 400},
    {"star_options", line("OPTIONS * HTTP/1.1"), 0},
    {"star_more", line("OPTIONS *a HTTP/1.1"), 400},
    {"no_slash", line("GET a HTTP/1.1"), 400},
    {"query_only", line("GET ?a HTTP/1.1"), 400},
    {"fragment", line("GET /a#b HTTP/1.1"), 400},
    {"backslash_first", line("GET \\a HTTP/1.1"), 400},
};

std::string vector_name(const testing::TestParamInfo<Vector>& test) { return test.param.name; }
INSTANTIATE_TEST_SUITE_P(Framing, RequestSyntax, testing::ValuesIn(kFraming), vector_name);
INSTANTIATE_TEST_SUITE_P(Chunks, RequestSyntax, testing::ValuesIn(kChunks), vector_name);
INSTANTIATE_TEST_SUITE_P(Lines, RequestSyntax, testing::ValuesIn(kSyntax), vector_name);
INSTANTIATE_TEST_SUITE_P(Authority, RequestSyntax, testing::ValuesIn(kAuthority), vector_name);

TEST(H1Request, KeepsFieldsInOrderAndCase) {
  Exchanges exchanges;
  exchanges.feed(
      "POST /p?q=1 HTTP/1.1\r\nX-b: 1\r\nhOSt: Shop:80\r\nx-A:  two  words \r\nContent-LENGTH: "
      "3\r\nX-b: 2\r\n\r\nabc");
  EXPECT_EQ(exchanges.last().text(),
            "POST /p?q=1 HTTP/1.1 @Shop:80 length=3\nX-b: 1\nhOSt: Shop:80\nx-A: two  "
            "words\nContent-LENGTH: 3\nX-b: 2\n[abc] whole\n");
  EXPECT_EQ(exchanges.last().request.scheme, "http");
}

TEST(H1Request, ViewsLiveInTheArenaNotInTheBytesThatCame) {
  Exchanges exchanges;
  exchanges.clients.on_whole = [](RequestOwner&) {};
  {
    std::string bytes = get("X-Long-Name: value\r\n");
    exchanges.feed(bytes);
    std::fill(bytes.begin(), bytes.end(), '?');
  }
  EXPECT_EQ(text_of(exchanges.last().request), "GET /a HTTP/1.1 @a\nHost: a\nX-Long-Name: value\n");
}

TEST(H1Request, AbsoluteFormBecomesOriginForm) {
  const auto target = [](const std::string& request_line) {
    Exchanges exchanges;
    exchanges.feed(line(request_line));
    return std::string(exchanges.last().request.authority) + " " +
           std::string(exchanges.last().request.target);
  };
  EXPECT_EQ(target("GET http://b:81/x?y HTTP/1.1"), "b:81 /x?y");
  EXPECT_EQ(target("GET http://b HTTP/1.1"), "b /");
  EXPECT_EQ(target("GET http://b?y HTTP/1.1"), "b /?y");
  EXPECT_EQ(target("GET http://b/?u=http://c/ HTTP/1.1"), "b /?u=http://c/");
  EXPECT_EQ(target("OPTIONS http://b HTTP/1.1"), "b *");
  EXPECT_EQ(target("OPTIONS * HTTP/1.1"), "a *");
}

TEST(H1Request, ConnectIsPassedOnAndEndsTheConnection) {
  Exchanges exchanges;
  exchanges.feed(
      "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nGET /evil HTTP/1.1\r\nHost: b\r\n\r\n");
  ASSERT_EQ(exchanges.count(), 1U);
  EXPECT_EQ(exchanges.last().request.method, Method::kConnect);
  EXPECT_EQ(exchanges.last().request.authority, "b:443");
  EXPECT_TRUE(exchanges.wire.closed);
  for (const char* bad : {"CONNECT b HTTP/1.1", "CONNECT /a HTTP/1.1", "CONNECT http://b/ HTTP/1.1",
                          "CONNECT u@b:1 HTTP/1.1"}) {
    Exchanges other;
    other.feed(line(bad));
    EXPECT_EQ(other.last().bad_status, 400) << bad;
  }
}

TEST(H1Request, HopByHopFieldsEndHere) {
  Exchanges exchanges;
  exchanges.feed(
      get("Connection: keep-alive, X-Hop , foo\r\nConnection: bar\r\nKeep-Alive: "
          "timeout=5\r\nProxy-Connection: close\r\n"
          "TE: trailers, gzip\r\nProxy-Authorization: x\r\nProxy: evil\r\nX-HOP: 1\r\nfoo: "
          "2\r\nBar: 3\r\nX-Stays: 4\r\n"
          "Upgrade: websocket\r\nHTTP2-Settings: AAA\r\n"));
  EXPECT_EQ(exchanges.last().Record::head, "GET /a HTTP/1.1 @a te\nHost: a\nX-Stays: 4\n");
}

TEST(H1Request, ConnectionCannotNameWhatDecidesAboutTheMessage) {
  Exchanges exchanges;
  exchanges.feed(
      "POST /a HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, authorization, "
      "x-forwarded-for, X-Forwarded-Proto, cookie, "
      "transfer-encoding, x-outrider-hops\r\nContent-Length: 2\r\nAuthorization: "
      "b\r\nX-Forwarded-For: 1\r\nX-Forwarded-Proto: https\r\n"
      "Cookie: c\r\nX-Outrider-Hops: 3\r\n\r\nxy");
  EXPECT_EQ(exchanges.last().text(),
            "POST /a HTTP/1.1 @a length=2\nHost: a\nContent-Length: 2\nAuthorization: "
            "b\nX-Forwarded-For: 1\n"
            "X-Forwarded-Proto: https\nCookie: c\nX-Outrider-Hops: 3\n[xy] whole\n");
}

TEST(H1Request, ConnectionNamesABoundedNumberOfFields) {
  std::string list = "a";
  for (int i = 1; i < 32; ++i) list += ",a";
  Exchanges fine;
  fine.feed(get("Connection: " + list + "\r\n"));
  EXPECT_EQ(fine.last().bad_status, 0);
  Exchanges many;
  many.feed(get("Connection: " + list + ",a\r\n"));
  EXPECT_EQ(many.last().bad_status, 400);
}

TEST(H1Request, UpgradeIsOneTokenThatConnectionNamed) {
  const auto upgrade = [](const std::string& fields) {
    Exchanges exchanges;
    exchanges.clients.on_whole = [](RequestOwner&) {};
    exchanges.feed(get(fields));
    EXPECT_EQ(exchanges.last().request.headers.find(HeaderId::kUpgrade), nullptr);
    return std::string(exchanges.last().request.upgrade);
  };
  EXPECT_EQ(upgrade("Connection: Upgrade\r\nUpgrade: WebSocket\r\n"), "websocket");
  EXPECT_EQ(upgrade("Connection: keep-alive, upgrade\r\nUpgrade: other\r\n"), "other");
  EXPECT_EQ(upgrade("Upgrade: websocket\r\n"), "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\n"), "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\nUpgrade: h2c\r\n"), "");
  EXPECT_EQ(upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: "
                    "AAMAAABkAARAAAAAAAIAAAAA\r\n"),
            "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\nUpgrade: h2\r\n"), "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"), "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"), "");
  EXPECT_EQ(upgrade("Connection: upgrade\r\nUpgrade: TLS/1.2\r\n"), "");
  Exchanges with_body;
  with_body.feed(post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", "x"));
  EXPECT_EQ(with_body.last().request.upgrade, "");
  Exchanges old;
  old.feed("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_EQ(old.last().request.upgrade, "");
}

TEST(H1Request, TrailersAreSeparateAndForbiddenOnesAreDropped) {
  const std::string input = chunked(
      "3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\nCookie: y\r\nContent-Type: "
      "z\r\nConnection: close\r\nGrpc-Status: 0\r\n\r\n");
  outcome_of(input);
  Exchanges exchanges;
  exchanges.feed(input);
  EXPECT_EQ(exchanges.last().text(),
            "POST /a HTTP/1.1 @a\nHost: a\n[abc] whole\nX-Sum: 1\nGrpc-Status: 0\n\n");
  Exchanges none;
  none.feed(chunked("0\r\nHost: evil\r\n\r\n"));
  EXPECT_EQ(none.last().text(), "POST /a HTTP/1.1 @a\nHost: a\n[] whole\n");
}

TEST(H1Request, ExtensionsOfABodyAreBounded) {
  std::string body;
  for (std::size_t i = 0; i < limits::kChunkExtensionBytes / 200 + 1; ++i)
    body += "1;" + std::string(199, 'a') + "\r\nx\r\n";
  Exchanges exchanges;
  exchanges.feed(chunked(body + "0\r\n\r\n"));
  EXPECT_EQ(exchanges.last().bad_status, 400);
}

TEST(H1Request, LengthsAtTheirBounds) {
  const auto status = [](const std::string& input) {
    outcome_of(input);
    Exchanges exchanges;
    exchanges.feed(input);
    return exchanges.last().bad_status;
  };
  EXPECT_EQ(status(line(std::string(32, 'M') + " /a HTTP/1.1")), 0);
  EXPECT_EQ(status(line(std::string(33, 'M') + " /a HTTP/1.1")), 400);
  EXPECT_EQ(status(chunked("5;" + std::string(254, 'a') + "\r\nabcde\r\n0\r\n\r\n")), 0);
  EXPECT_EQ(status(chunked("5;" + std::string(255, 'a') + "\r\nabcde\r\n0\r\n\r\n")), 400);
}

// ---- limits

CodecSettings small_limits() {
  CodecSettings settings;
  settings.max_header_bytes = 200;
  settings.max_target_bytes = 20;
  settings.max_fields = 4;
  return settings;
}

int status_with(const CodecSettings& settings, const std::string& input, std::size_t step = 1) {
  outcome_of(input, settings, step);
  Exchanges exchanges(settings);
  exchanges.feed(input);
  return exchanges.count() == 0 ? -1 : exchanges.last().bad_status;
}

TEST(H1Limits, TargetFieldsAndBytes) {
  const CodecSettings settings = small_limits();
  EXPECT_EQ(status_with(settings, line("GET /" + std::string(19, 'a') + " HTTP/1.1")), 0);
  EXPECT_EQ(status_with(settings, line("GET /" + std::string(20, 'a') + " HTTP/1.1")), 414);
  EXPECT_EQ(status_with(settings, get("a:1\r\nb:2\r\nc:3\r\n")), 0);
  EXPECT_EQ(status_with(settings, get("a:1\r\nb:2\r\nc:3\r\nd:4\r\n")), 431);
  // Host counts 37, `x` and its value 33.
  EXPECT_EQ(status_with(settings, get("x: " + std::string(200 - 37 - 33, 'v') + "\r\n")), 0);
  EXPECT_EQ(status_with(settings, get("x: " + std::string(200 - 37 - 32, 'v') + "\r\n")), 431);
  EXPECT_EQ(status_with(settings, get("x: " + std::string(500, ' ') + "v\r\n")), 431);
  EXPECT_EQ(status_with(settings, get("x" + std::string(300, 'x'))), 431);  // no end of line
  EXPECT_EQ(status_with(settings, get("bad\r\nx" + std::string(300, 'x'))), 400);
  EXPECT_EQ(status_with(settings, get("x" + std::string(300, 'x') + "\x01")), 431);
  EXPECT_EQ(status_with(settings, get("x\x01" + std::string(300, 'x'))), 400);
  EXPECT_EQ(status_with(settings, chunked("0\r\na:1\r\nb:2\r\nc:3\r\nd:4\r\n\r\n")), 0);
  EXPECT_EQ(status_with(settings, chunked("0\r\na:1\r\nb:2\r\nc:3\r\nd:4\r\ne:5\r\n\r\n")), 431);
  EXPECT_EQ(status_with(settings, chunked("0\r\na:" + std::string(300, 'x'))), 431);
}

TEST(H1Limits, Defaults) {
  const std::string long_target = "GET /" + std::string(limits::kTargetBytes, 'a') + " HTTP/1.1";
  EXPECT_EQ(status_with({}, line(long_target), 1000), 414);
  EXPECT_EQ(status_with(
                {}, line("GET /" + std::string(limits::kTargetBytes - 1, 'a') + " HTTP/1.1"), 1000),
            0);
  EXPECT_EQ(status_with({}, "GET /" + std::string(limits::kRequestLineBytes, 'a'), 1000), 414);
  std::string fields;
  for (int i = 1; i < 100; ++i) fields += "x-" + std::to_string(i) + ": v\r\n";
  EXPECT_EQ(status_with({}, get(fields), 100), 0);
  EXPECT_EQ(status_with({}, get(fields + "x: v\r\n"), 100), 431);
  EXPECT_EQ(status_with({}, get("x: " + std::string(limits::kHeaderBytes, 'v') + "\r\n"), 5000),
            431);
}

TEST(H1Limits, ZeroIsNone) {
  CodecSettings settings;
  settings.max_header_bytes = settings.max_target_bytes = settings.max_fields = 0;
  std::string fields = "x: " + std::string(limits::kHeaderBytes, 'v') + "\r\n";
  for (int i = 0; i < 300; ++i) fields += "y: v\r\n";
  EXPECT_EQ(
      status_with(settings,
                  "GET /" + std::string(100000, 'a') + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n",
                  50000),
      0);
}

}  // namespace
}  // namespace outrider
