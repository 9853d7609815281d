#include "filters/access_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/unit/filters/fixture.h"

namespace outrider {
namespace {

using Json = nlohmann::ordered_json;
using Log = config::Telemetry::Log;

class AccessLogTest : public testing::Test, public test::World {
 protected:
  // What `log` would write for the exchange.
  std::string logged(int times = 1) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    ::fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    {
      LogWriter writer;
      AccessLog log(telemetry, writer, writer.descriptor(ends[1]));
      for (int i = 0; i < times; ++i) log.write(*x);
      log.hand_over();
    }
    std::string all;
    char bytes[65536];
    for (ssize_t got; (got = ::read(ends[0], bytes, sizeof bytes)) > 0;)
      all.append(bytes, static_cast<std::size_t>(got));
    ::close(ends[0]);
    ::close(ends[1]);
    return all;
  }
  std::string formatted(const std::string& format) {
    telemetry.access_log = Log::kFormat;
    telemetry.access_log_format = format;
    return logged();
  }
  Json json() {
    const std::string line = logged();
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    EXPECT_TRUE(line.ends_with("}\n"));
    return Json::parse(line);
  }
  config::Telemetry telemetry;
};

TEST_F(AccessLogTest, OneJsonObjectWithEveryFieldInOrder) {
  exchange("/cart/7?q=1", "shop.example");
  header("user-agent", "curl/8");
  x->status = 200;
  x->attempts = 1;
  x->bytes_in = 3;
  x->bytes_out = 5;
  x->started_ns = 1'000'000;
  x->ended_ns = 3'500'000;
  x->started_wall_ms = 1'700'000'000'123;
  x->request_id = "req-1";
  EXPECT_EQ(
      logged(),
      R"({"time":"2023-11-14T22:13:20.123Z","listener":"main","client":"192.0.2.1","client_id":null,"method":"GET",)"
      R"("host":"shop.example","path":"/cart/7?q=1","protocol":"HTTP/1.1","status":200,"reason":"ok","route":"cart",)"
      R"("service":"shop","endpoint":null,"attempts":1,"bytes_in":3,"bytes_out":5,"duration_ms":2.500,"upstream_ms":null,)"
      R"("request_id":"req-1","trace_id":null,"user_agent":"curl/8","tls":null})"
      "\n");
}

TEST_F(AccessLogTest, AbsentIsNullAndNumbersAreNumbers) {
  exchange("/", "");
  x->route = nullptr;
  x->target = nullptr;
  x->reason = Reason::kRouteNotFound;
  const Json line = json();
  EXPECT_EQ(line.size(), 22U);
  for (const char* key : {"client_id", "host", "status", "route", "service", "endpoint",
                          "duration_ms", "upstream_ms", "user_agent"})
    EXPECT_TRUE(line[key].is_null()) << key;
  for (const char* key : {"attempts", "bytes_in", "bytes_out"})
    EXPECT_TRUE(line[key].is_number()) << key;
  EXPECT_EQ(line["reason"], "route_not_found");
}

TEST_F(AccessLogTest, NothingFromOutsideBreaksTheLine) {
  struct Case {
    std::string_view value;
    std::string json;  // the value as JSON source
  };
  const Case cases[] = {
      {"a\"b\\c", R"("a\"b\\c")"},
      {"a\r\nb\t", R"("a\u000d\u000ab\u0009")"},
      {"\x1b[31m\x7f", R"("\u001b[31m\u007f")"},
      {std::string_view("a\0b", 3), R"("a\u0000b")"},
      {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
       "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\""},
      {"\xff\xfe", R"("\u00ff\u00fe")"},
      {"\xc3", R"("\u00c3")"},
      {"\xc0\xaf", R"("\u00c0\u00af")"},                      // overlong
      {"\xed\xa0\x80", R"("\u00ed\u00a0\u0080")"},            // surrogate
      {"\xf4\x90\x80\x80", R"("\u00f4\u0090\u0080\u0080")"},  // beyond Unicode
      {"\xe0\x9f\xbf", R"("\u00e0\u009f\u00bf")"},
      {"\xf0\x8f\xbf\xbf", R"("\u00f0\u008f\u00bf\u00bf")"},
      {"\xe2\x82", R"("\u00e2\u0082")"},
      {"\xc2\x9b"
       "31m",
       R"("\u00c2\u009b31m")"},  // a terminal's CSI
      {"\xc2\xa0", "\"\xc2\xa0\""},
  };
  for (const Case& c : cases) {
    exchange();
    header("user-agent", c.value);
    const std::string line = logged();
    EXPECT_NE(line.find("\"user_agent\":" + c.json + ","), std::string::npos) << line;
    EXPECT_TRUE(Json::accept(line)) << line;
  }
}

TEST_F(AccessLogTest, ValuesAreCutAtOneKibibyteBetweenCharacters) {
  exchange();
  const std::string agent(1'000'000, 'x');
  header("user-agent", agent);
  EXPECT_EQ(json()["user_agent"].get<std::string>(), std::string(1024, 'x'));
  exchange();
  const std::string euros = "xx" + std::string(1021, 'y') + "\xe2\x82\xac";
  header("user-agent", euros);
  EXPECT_EQ(json()["user_agent"].get<std::string>(), "xx" + std::string(1021, 'y'));
  exchange();
  const std::string bad(2000, '\x80');
  header("user-agent", bad);
  const std::string cut = json()["user_agent"].get<std::string>();
  EXPECT_GE(cut.size(), 2 * 1020U);
  EXPECT_LE(cut.size(), 2 * 1024U);
}

TEST_F(AccessLogTest, PathAndQueryAreCutTogether) {
  exchange("/" + std::string(999, 'p') + "?" + std::string(100, 'q'));
  EXPECT_EQ(json()["path"].get<std::string>(),
            "/" + std::string(999, 'p') + "?" + std::string(23, 'q'));
  exchange("/" + std::string(1500, 'p') + "?q");
  EXPECT_EQ(json()["path"].get<std::string>(), "/" + std::string(1023, 'p'));
}

TEST_F(AccessLogTest, RandomBytesAreAlwaysOneValidRecord) {
  std::mt19937 random(42);
  for (int i = 0; i < 300; ++i) {
    std::string agent(random() % 1500, '\0');
    for (char& c : agent) c = static_cast<char>(random());
    exchange();
    header("user-agent", agent);
    header("referer", agent);
    telemetry.access_log = Log::kJson;
    const std::string line = logged();
    ASSERT_TRUE(Json::accept(line)) << line;
    ASSERT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
    telemetry.access_log = Log::kText;
    const std::string text = logged();
    ASSERT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    ASSERT_TRUE(std::all_of(text.begin(), text.end() - 1, [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
    }));
  }
}

TEST_F(AccessLogTest, TextIsTheCombinedFormatAndTheReason) {
  telemetry.access_log = Log::kText;
  exchange("/a?b");
  header("user-agent", "curl \"8\"\x01");
  header("referer", "http://x/");
  x->status = 503;
  x->bytes_out = 12;
  x->reason = Reason::kConnectFailure;
  x->started_wall_ms = 1'700'000'000'123;
  EXPECT_EQ(logged(),
            "192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?b HTTP/1.1\" 503 12 \"http://x/\" "
            "\"curl \\\"8\\\"\\x01\" connect_failure\n");
}

TEST_F(AccessLogTest, TextOfARequestThatNeverWas) {
  telemetry.access_log = Log::kText;
  exchange();
  x->path = x->query = x->request.target = {};
  x->reason = Reason::kBadRequest;
  x->status = 400;
  EXPECT_EQ(logged(),
            "192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] \"-\" 400 0 \"-\" \"-\" bad_request\n");
}

TEST_F(AccessLogTest, AFormatIsTheUsersOwnLine) {
  exchange("/a?q=x%22");
  header("x-id", "a\"b\n");
  x->status = 200;
  EXPECT_EQ(formatted("%{method}\t%{path} %{status} [%{header x-id}] %{header x-none}%%{time}"),
            "GET\t/a?q=x%22 200 [a\\\"b\\x0a] %{time}\n");
  EXPECT_EQ(formatted("{\"id\":\"%{header x-id}\"}"), "{\"id\":\"a\\\"b\\u000a\"}\n");
  EXPECT_EQ(formatted("one\ntwo\r\n"), "one two\n");
}

TEST_F(AccessLogTest, SecretsAreNeverInIt) {
  exchange("/a");
  header("authorization", "Bearer s3cret");
  header("cookie", "sid=s3cret");
  header("proxy-authorization", "s3cret");
  EXPECT_EQ(
      formatted(
          "[%{header authorization}%{header Cookie}%{cookie sid}%{header proxy-authorization}]"),
      "[]\n");
  telemetry.access_log = Log::kJson;
  EXPECT_EQ(logged().find("s3cret"), std::string::npos);
}

TEST_F(AccessLogTest, ManyLinesOfOneTurnArrive) {
  exchange();
  const std::string all = logged(2000);
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 2000);
}

}  // namespace
}  // namespace outrider
