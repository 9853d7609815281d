// Upstreams that refuse, lie, stop half way, say too much or never speak, against the binary and
// over both downstream protocols: the client gets the status and reason of the contract or a cut
// that cannot look complete, nothing of a bad answer, and nothing that belongs to another request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

using namespace std::string_literals;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using testing::AnyOf;

// One side waits for the other's word.
class Gate {
 public:
  void open() {
    // Told with the lock held, so that whoever waits may destroy this next.
    const std::lock_guard lock(mutex_);
    ++passes_;
    changed_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience(), [&] { return passes_ > 0; }))
      throw HarnessError("the gate stays shut");
    --passes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int passes_ = 0;
};

// An origin that does with each request what was agreed for its target, and counts.
class Faulty {
 public:
  // Called behind the request's head; the connection goes on if it returns true.
  using Act = std::function<bool(RawClient& connection, const Head& request)>;

  void on(const std::string& target, Act act) {
    const std::lock_guard lock(mutex_);
    acts_[target] = std::move(act);
  }
  int requests(const std::string& target) const {
    const std::lock_guard lock(mutex_);
    const auto found = heads_.find(target);
    return found == heads_.end() ? 0 : static_cast<int>(found->second.size());
  }
  std::vector<Head> heads(const std::string& target) const {
    const std::lock_guard lock(mutex_);
    const auto found = heads_.find(target);
    return found == heads_.end() ? std::vector<Head>{} : found->second;
  }
  const std::string& address() const { return origin_.address(); }
  Origin& origin() { return origin_; }

 private:
  void serve(RawClient& connection) {
    for (bool more = true; more && !connection.peek(1).empty();) {
      const Head head = connection.read_head();
      Act act;
      {
        const std::lock_guard lock(mutex_);
        heads_[head.target].push_back(head);
        const auto found = acts_.find(head.target);
        act = found == acts_.end() ? answer_ok : found->second;
      }
      more = act(connection, head);
    }
  }
  static bool answer_ok(RawClient& connection, const Head& head) {
    connection.begin_body(head, head.method);
    char part[4096];
    while (connection.read_body_part(part, sizeof part) > 0) {}
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return true;
  }

  mutable std::mutex mutex_;
  std::map<std::string, Act> acts_;
  std::map<std::string, std::vector<Head>> heads_;
  Origin origin_{[this](RawClient& connection, int) { serve(connection); }};
};

constexpr char kYaml[] = R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { faulty: "$FAULTY" }
    defaults: { route: { timeout: { headers: 5m, idle: 5m } } }
    routes:
      - { name: once, to: faulty, retry: false }
      - { name: twice, match: /twice/**, to: faulty }
      - { name: hasty, match: /hasty/**, to: faulty, retry: false, timeout: { headers: 300ms } }
      - { name: restless, match: /restless/**, to: faulty, retry: false, timeout: { idle: 300ms } }
      - { name: door, match: /door, respond: { status: 403, body: closed } })";

enum class End { kKeep, kFin, kReset };

// Ends the connection; kKeep: waits for the proxy to end it.
bool end_with(RawClient& connection, End end) {
  if (end == End::kKeep) connection.read_all();
  if (end == End::kReset) connection.reset();
  return false;
}

std::string get_text(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: a.test\r\n\r\n";
}

class UpstreamFaults : public testing::Test {
 protected:
  std::string unique_target(const std::string& under = "") {
    return under + "/row-" + std::to_string(++rows_);
  }
  // The log's line of the request that came last.
  Outrider::LogLine logged(const std::string& target) {
    for (;;) {
      for (const auto& line : proxy_.log(++lines_))
        if (line.at("path") == target) return line;
    }
  }

  Faulty faulty_;
  Outrider proxy_{kYaml, {{"FAULTY", faulty_.address()}}, {.workers = 1}};
  int rows_ = 0;
  std::size_t lines_ = 0;
};

class AnyClient : public UpstreamFaults, public testing::WithParamInterface<Protocol> {};

INSTANTIATE_TEST_SUITE_P(UpstreamFaults, AnyClient,
                         testing::Values(Protocol::kHttp1, Protocol::kHttp2),
                         [](const auto& tested) { return std::string(name_of(tested.param)); });

// ---- connecting

TEST(UpstreamConnect, NamesRefusalAndSilenceAndRecoversAtOnce) {
  const TemporaryFolder folder;
  const Blackhole silent;
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      absent: "unix:$SOCKETS/absent.sock"
      refusing: "$REFUSING"
      silent: { endpoints: ["$SILENT"], timeouts: { connect: 200ms } }
      half: { endpoints: ["$REFUSING", "$SILENT"], timeouts: { connect: 200ms } }
    routes:
      - { match: /absent, to: absent, retry: false }
      - { match: /refusing, to: refusing }
      - { match: /silent, to: silent }
      - { match: /silent-once, to: silent, retry: false }
      - { match: /half, to: half })",
                 {{"SOCKETS", folder.path()}, {"SILENT", silent.address()}});
  Client client = proxy.client();

  const Response refused = client.get("/refusing");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.body.starts_with("503 connect_failure: ")) << refused.body;

  for (const auto& [target, tries] : {std::pair{"/silent-once", 1}, {"/silent", 2}}) {
    const auto began = Clock::now();
    const Response response = client.get(target);
    EXPECT_GE(Clock::now() - began, tries * 200ms) << target;
    EXPECT_EQ(response.status, 503) << target;
    EXPECT_TRUE(response.body.starts_with("503 connect_timeout: ")) << response.body;
  }
  EXPECT_EQ(client.get("/half").status, 503);

  EXPECT_EQ(client.get("/absent").status, 503);
  const Origin back(
      [](RawClient& connection, int) {
        connection.read_request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      },
      "unix:" + folder.path() + "/absent.sock");
  EXPECT_EQ(client.get("/absent").status, 200);
}

TEST(UpstreamConnect, AnotherEndpointTakesOver) {
  HttpOrigin good = HttpOrigin::echoing();
  Origin broken([](RawClient& connection, int) {
    connection.read_request();
    connection.reset();
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      refusing: ["$REFUSING", "$GOOD"]
      broken: ["$BROKEN", "$GOOD"]
    routes:
      - { match: /refusing, to: refusing, retry: { budget: 100% } }
      - { match: /broken, to: broken, retry: { budget: 100% } })",
                 {{"GOOD", good.address()}, {"BROKEN", broken.address()}});
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    Client client = proxy.client(protocol);
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(client.get("/refusing").status, 200);
      ASSERT_EQ(client.post("/refusing", "body").body, "body");
      ASSERT_EQ(client.get("/broken").status, 200);
    }
  }
  const auto heads = good.heads();
  const auto again = [](const Head& head) { return head.fields.has("x-outrider-attempt"); };
  const auto repeated = std::count_if(heads.begin(), heads.end(), again);
  EXPECT_GT(repeated, 0);
  EXPECT_LT(repeated, std::ssize(heads));
  for (const Head& head : heads)
    EXPECT_EQ(head.fields.value("x-outrider-attempt"), again(head) ? "2" : "");
  EXPECT_EQ(proxy.await_metric("outrider_retries_total", static_cast<double>(repeated)),
            static_cast<double>(repeated));
}

// ---- before the answer

TEST_P(AnyClient, AConnectionThatEndsBeforeTheAnswerIs502) {
  for (const std::string& before :
       {""s, "HTTP/1.1 200 O"s, "HTTP/1.1 200 OK\r\nContent-Le"s, "HTTP/1.1 103 Early\r\n\r\n"s})
    for (const End end : {End::kFin, End::kReset}) {
      SCOPED_TRACE(before + (end == End::kFin ? "FIN" : "RST"));
      for (const char* under : {"", "/twice"}) {
        const std::string target = unique_target(under);
        faulty_.on(target, [=](RawClient& connection, const Head&) {
          connection.try_send(before, patience());
          return end_with(connection, end);
        });
        Client client = proxy_.client(GetParam());
        const Response response = client.get(target);
        EXPECT_EQ(response.status, 502);
        EXPECT_TRUE(response.body.starts_with("502 upstream_reset: ")) << response.body;
        // Behind a byte of an answer nothing is tried again, and no 103 is heard twice.
        EXPECT_EQ(faulty_.requests(target), before.empty() && *under != '\0' ? 2 : 1);
        EXPECT_EQ(response.informational.size(), before.starts_with("HTTP/1.1 103") ? 1U : 0U);

        // What is not idempotent is not sent twice.
        EXPECT_EQ(client.request({.method = "POST", .target = target, .body = "x"}).status, 502);
        const auto heads = faulty_.heads(target);
        EXPECT_EQ(std::count_if(heads.begin(), heads.end(),
                                [](const Head& head) { return head.method == "POST"; }),
                  1);
      }
    }
}

TEST_F(UpstreamFaults, AMalformedAnswerIs502AtOnceAndGoesNoFurther) {
  const auto ok = [](const std::string& fields) {
    return "HTTP/1.1 200 OK\r\nX-Leak: leaked\r\n" + fields + "\r\nleaked";
  };
  std::vector<std::string> rows = {
      "leaked\r\n\r\n",
      "<html>leaked</html>",
      "\0\1\2\3leaked"s,
      "ICY 200 OK\r\n\r\n",
      "HTTP/0.9 200 OK\r\n\r\n",
      "HTTP/2.0 200 OK\r\n\r\n",
      "HTTP/3 200 OK\r\n\r\n",
      "HTTP/11 200 OK\r\n\r\n",
      "http/1.1 200 OK\r\n\r\n",
      "HTTP/1.1  200 OK\r\n\r\n",
      "HTTP/1.1\t200 OK\r\n\r\n",
      "HTTP/1.1200 OK\r\n\r\n",
      " HTTP/1.1 200 OK\r\n\r\n",
      "HTTP/1.1 OK\r\n\r\n",
      "HTTP/1.1 OK 200\r\n\r\n",
      "HTTP/1.1\r\n\r\n",
      "SSH-2.0-OpenSSH\r\n",
      "\x15\x03\x01\x00\x02\x02\x46"s,
      "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"s + std::string(100, 'Z')};
  for (const char* status :
       {"0", "20", "2000", "-200", "2OO", "+200", "099", "600", "999", "2 0", "20x", "0x1"})
    rows.push_back("HTTP/1.1 "s + status + " OK\r\nX-Leak: leaked\r\n\r\nleaked");
  for (const std::string& length :
       {"5x"s, "-5"s, ""s, "5, 6"s, "+5"s, "0x5"s, "5 5"s, "5\r\nContent-Length: 6"s,
        "9223372036854775808"s, "18446744073709551621"s, std::string(40, '4'), "5\0"s})
    rows.push_back(ok("Content-Length: " + length + "\r\n"));
  for (const char* coding : {"gzip", "xchunked", "chunked, chunked", "chunked, gzip", "identity",
                             "", "\"chunked\"", "chunked\r\nTransfer-Encoding: chunked"})
    rows.push_back(ok("Transfer-Encoding: "s + coding + "\r\n"));
  for (const std::string& field :
       {"X: a\0b"s, "X: a\rb"s, "X: a\nb"s, "X: a\x01"s, "X: a\x7f"s, "X Y: z"s, "X : y"s,
        "no colon"s, ": y"s, "X\0: y"s, "X(: y"s, "X: y\nZ: w"s, "\xc3\xbc: y"s})
    rows.push_back(ok(field + "\r\n"));
  rows.push_back("HTTP/1.1 200 OK\r\n X-Leak: leaked\r\n\r\n");
  rows.push_back(ok("X: " + std::string(70'000, 'x') + "\r\n"));
  rows.push_back("HTTP/1.1 200 OK\r\nX: " + std::string(200'000, 'x'));
  rows.push_back("HTTP/1.1 200 " + std::string(100'000, 'x'));
  std::string fields;
  for (int i = 0; i < 250; ++i) fields += "x" + std::to_string(i) + ": y\r\n";
  rows.push_back(ok(fields));
  rows.push_back(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nleaked");
  rows.push_back("HTTP/1.1 101 Switching Protocols\r\n\r\nleaked");
  rows.push_back("HTTP/1.1 199 x\r\nContent-Length: 5x\r\n\r\n");
  // Two framings at once: not a word of it, or the chunks alone.
  rows.push_back(
      "HTTP/1.1 200 OK\r\nX-Leak: leaked\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
      "6\r\nleaked\r\n0\r\n\r\n");

  for (const std::string& bytes : rows) {
    SCOPED_TRACE(testing::PrintToString(bytes.substr(0, 200)));
    const std::string target = unique_target();
    const int number = faulty_.origin().connections();
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.try_send(bytes, patience());
      return end_with(connection, End::kKeep);
    });
    try {
      RawClient client = proxy_.raw();
      client.send(get_text(target));
      const Response response = client.read_response();
      EXPECT_EQ(response.status, 502);
      EXPECT_TRUE(response.body.starts_with("502 upstream_protocol_error: ")) << response.body;
      EXPECT_EQ(client.received().find("leaked"), std::string::npos);
      EXPECT_EQ(faulty_.requests(target), 1);
      EXPECT_EQ(faulty_.origin().connections(), number + 1);
      faulty_.origin().received(number);  // its connection was ended

      // The client's own connection is as good as before.
      client.send(get_text("/after"));
      EXPECT_EQ(client.read_response().status, 200);
    } catch (const HarnessError& error) {
      ADD_FAILURE() << error.what();
    }
    // The next row begins without a connection to use again.
    faulty_.on("/end", [](RawClient& connection, const Head&) {
      connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      return false;
    });
    proxy_.client().get("/end");
  }
}

// ---- cut within the body

struct Cut {
  const char* what;
  std::string head;  // and the first bytes of the body, "hello", in its framing
  std::string rest;  // sent once the client has these
  End end;
  const char* reason;
};

const std::vector<Cut>& cuts() {
  static const std::string length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
  static const std::string chunk =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
  static const std::vector<Cut> all = {
      {"a length, FIN", length, "", End::kFin, "upstream_reset"},
      {"a length, RST", length, "", End::kReset, "upstream_reset"},
      {"a length, one short", length, "wor", End::kFin, "upstream_reset"},
      {"within a chunk, FIN", chunk, "5\r\nwor", End::kFin, "upstream_reset"},
      {"within a chunk, RST", chunk, "5\r\nwor", End::kReset, "upstream_reset"},
      {"within a chunk's size", chunk, "5", End::kFin, "upstream_reset"},
      {"between chunks, FIN", chunk, "", End::kFin, "upstream_reset"},
      {"between chunks, RST", chunk, "", End::kReset, "upstream_reset"},
      {"within the last chunk", chunk, "0\r\n", End::kFin, "upstream_reset"},
      {"within the last chunk, RST", chunk, "0\r\n", End::kReset, "upstream_reset"},
      {"within trailers", chunk, "0\r\nx: y\r\n", End::kFin, "upstream_reset"},
      {"a size that is none", chunk, "zz\r\n", End::kKeep, "upstream_protocol_error"},
      {"a size too large", chunk, "fffffffffffffffff\r\n", End::kKeep, "upstream_protocol_error"},
      {"a size with a sign", chunk, "-1\r\n", End::kKeep, "upstream_protocol_error"},
      {"more than the size", chunk, "2\r\nabc\r\n0\r\n\r\n", End::kKeep, "upstream_protocol_error"},
      {"LF behind a size", chunk, "2\nab\r\n0\r\n\r\n", End::kKeep, "upstream_protocol_error"},
      {"LF behind data", chunk, "2\r\nab\n0\r\n\r\n", End::kKeep, "upstream_protocol_error"},
      {"LF at the end", chunk, "0\n\n", End::kKeep, "upstream_protocol_error"},
      {"trailers without a colon", chunk, "0\r\nno colon\r\n\r\n", End::kKeep,
       "upstream_protocol_error"},
      {"until its end, RST", "HTTP/1.1 200 OK\r\n\r\nhello", "", End::kReset, "upstream_reset"},
      {"until its end in HTTP/1.0, RST", "HTTP/1.0 200 OK\r\n\r\nhello", "more", End::kReset,
       "upstream_reset"}};
  return all;
}

TEST_F(UpstreamFaults, ACutBodyNeverLooksWholeToHttp1) {
  for (const Cut& cut : cuts())
    for (const char* version : {"HTTP/1.1", "HTTP/1.0"}) {
      SCOPED_TRACE(cut.what + " to "s + version);
      const std::string target = unique_target();
      Gate gate;
      faulty_.on(target, [&](RawClient& connection, const Head&) {
        connection.send(cut.head);
        gate.wait();
        connection.send(cut.rest);
        return end_with(connection, cut.end);
      });
      try {
        RawClient client = proxy_.raw();
        client.send("GET " + target + " " + version + "\r\nHost: a.test\r\n\r\n");
        const Head head = client.read_head();
        EXPECT_EQ(head.status, 200);
        client.begin_body(head, "GET");
        std::string body;
        char part[64];
        while (body.size() < 5) {
          const std::size_t size = client.read_body_part(part, sizeof part);
          ASSERT_GT(size, 0U);
          body.append(part, size);
        }
        EXPECT_EQ(body.substr(0, 5), "hello");
        gate.open();
        EXPECT_THROW(while (client.read_body_part(part, sizeof part) > 0){}, HarnessError);
        client.read_all();
        EXPECT_EQ(client.socket().end(), Socket::End::kReset);
        const auto line = logged(target);
        EXPECT_EQ(line.at("reason"), cut.reason);
        EXPECT_EQ(line.at("status"), "200");
      } catch (const HarnessError& error) {
        ADD_FAILURE() << error.what();
      }
    }
}

TEST_F(UpstreamFaults, ACutBodyNeverLooksWholeToHttp2) {
  Client client = proxy_.client(Protocol::kHttp2);
  for (const Cut& cut : cuts()) {
    SCOPED_TRACE(cut.what);
    const std::string target = unique_target();
    Gate gate;
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.send(cut.head);
      gate.wait();
      connection.send(cut.rest);
      return end_with(connection, cut.end);
    });
    try {
      const auto stream = client.h2().open();
      stream->send(Request{.target = target});
      EXPECT_EQ(stream->read_head().status, 200);
      char part[64];
      ASSERT_GT(stream->read(part, sizeof part), 0U);
      gate.open();
      EXPECT_THROW(while (stream->read(part, sizeof part) > 0){}, HarnessError);
      const auto code = stream->wait_end();
      ASSERT_TRUE(code.has_value());
      EXPECT_EQ(*code, static_cast<std::uint32_t>(NGHTTP2_INTERNAL_ERROR));
      EXPECT_EQ(logged(target).at("reason"), cut.reason);
    } catch (const HarnessError& error) {
      ADD_FAILURE() << error.what();
    }
  }
  EXPECT_EQ(client.connections(), 1);  // the other streams' connection lives on
}

// The same in one go, so that nothing need have been sent when the end is seen.
TEST_P(AnyClient, ABodyCutAtOnceNeverLooksWhole) {
  for (const Cut& cut : cuts()) {
    SCOPED_TRACE(cut.what);
    const std::string target = unique_target();
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.send(cut.head + cut.rest);
      return end_with(connection, cut.end);
    });
    Client client = proxy_.client(GetParam());
    try {
      EXPECT_EQ(client.get(target).status, 502);
    } catch (const HarnessError&) {
      // Cut, as it should be once the head is out.
    }
    EXPECT_NE(logged(target).at("reason"), "ok");
  }
}

// ---- more than was asked for

TEST_P(AnyClient, NothingExtraReachesAnotherRequest) {
  const std::string poison = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Poison: 1\r\n\r\npoisoned";
  struct Row {
    const char* what;
    const char* method;
    std::string answer;
    int status;
  };
  const std::vector<Row> rows = {
      {"behind a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200},
      {"behind nothing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200},
      {"behind chunks", "GET",
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200},
      {"behind trailers", "GET",
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n", 200},
      {"on HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n", 200},
      {"on HEAD, chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200},
      {"on 204", "GET", "HTTP/1.1 204 No\r\n\r\n", 204},
      {"on 304", "GET", "HTTP/1.1 304 No\r\nContent-Length: 65\r\n\r\n", 304}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    const std::string target = unique_target();
    const int number = faulty_.origin().connections();
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.send(row.answer + poison);
      return end_with(connection, End::kKeep);
    });
    Client client = proxy_.client(GetParam());
    const Response response = client.request({.method = row.method, .target = target});
    EXPECT_EQ(response.status, row.status);
    EXPECT_THAT(response.body, AnyOf("ok", ""));
    for (int i = 0; i < 3; ++i) {
      const Response next = client.get("/next");
      EXPECT_EQ(next.body, "ok");
      EXPECT_FALSE(next.fields.has("x-poison"));
    }
    faulty_.origin().received(number);
    // Ends what is kept alive, so that each row has a connection of its own.
    faulty_.on("/end", [](RawClient& connection, const Head&) {
      connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      return false;
    });
    proxy_.client().get("/end");
  }
}

TEST_P(AnyClient, AnAnswerNobodyAskedForEndsItsConnection) {
  const std::string target = unique_target();
  Gate answered;
  Gate gone;
  faulty_.on(target, [&](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    answered.wait();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned");
    connection.read_all();
    gone.open();
    return false;
  });
  Client client = proxy_.client(GetParam());
  EXPECT_EQ(client.get(target).body, "ok");
  answered.open();
  gone.wait();
  EXPECT_EQ(client.get("/next").body, "ok");
  EXPECT_EQ(faulty_.origin().connections(), 2);
}

// ---- interim answers

TEST_P(AnyClient, InterimAnswersAreCarriedAndBounded) {
  const std::string hints =
      "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
  const std::string done = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  faulty_.on("/hints", [&](RawClient& connection, const Head&) {
    connection.send(hints + done);
    return true;
  });
  faulty_.on("/unasked", [&](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 100 Continue\r\n\r\n" + done);
    return true;
  });
  faulty_.on("/ten", [&](RawClient& connection, const Head&) {
    for (int i = 0; i < 10; ++i) connection.send("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n");
    connection.send(done);
    return true;
  });
  faulty_.on("/flood", [&](RawClient& connection, const Head&) {
    while (connection.try_send("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", patience())) {}
    return false;
  });
  faulty_.on("/big", [&](RawClient& connection, const Head&) {
    for (int i = 0; i < 5; ++i)
      connection.try_send("HTTP/1.1 103 Early Hints\r\nX: " + std::string(20'000, 'y') + "\r\n\r\n",
                          patience());
    return end_with(connection, End::kKeep);
  });
  Client client = proxy_.client(GetParam());

  const Response hinted = client.get("/hints");
  EXPECT_EQ(hinted.status, 200);
  ASSERT_EQ(hinted.informational.size(), 2U);
  EXPECT_EQ(hinted.informational.at(0).status, 102);
  EXPECT_EQ(hinted.informational.at(1).status, 103);
  EXPECT_EQ(hinted.informational.at(1).fields.value("link"), "</a.css>");
  EXPECT_EQ(client.get("/unasked").body, "ok");
  EXPECT_EQ(client.get("/ten").informational.size(), 10U);
  for (const char* target : {"/flood", "/big"}) {
    const Response refused = client.get(target);
    EXPECT_EQ(refused.status, 502) << target;
    EXPECT_TRUE(refused.body.starts_with("502 upstream_protocol_error: ")) << refused.body;
  }

  RawClient old = proxy_.raw();
  old.send("GET /hints HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.read_head().status, 200);
}

// ---- answers before the request was read

// Sends pieces of a body until there is something to read.
void upload_until_answered(RawClient& client, std::uint64_t total) {
  const std::string piece(16 * 1024, 'u');
  while (total > 0 && !client.socket().readable(0ms)) {
    client.try_send(piece, 20ms);
    total -= std::min<std::uint64_t>(total, piece.size());
  }
}

constexpr std::uint64_t kUpload = 20'000'000;

// A write that meets the reset takes the error with it; what is then read looks like an end.
TEST_F(UpstreamFaults, ABodyUntilTheEndThatAWriteFindsCutNeverLooksWhole) {
  const std::string target = unique_target();
  Gate gate;
  faulty_.on(target, [&](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\n\r\nhello");
    gate.wait();
    connection.socket().reset();
    return false;
  });
  RawClient client = proxy_.raw();
  client.send("POST " + target + " HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nsome");
  client.begin_body(client.read_head(), "POST");
  char part[64];
  ASSERT_GT(client.read_body_part(part, sizeof part), 0U);
  ::kill(proxy_.pid(), SIGSTOP);
  client.send(std::string(8000, 'y'));
  gate.open();
  faulty_.origin().received(faulty_.origin().connections() - 1);
  ::kill(proxy_.pid(), SIGCONT);
  EXPECT_THROW(while (client.read_body_part(part, sizeof part) > 0){}, HarnessError);
  EXPECT_EQ(logged(target).at("reason"), "upstream_reset");
}

// So does a splice: over raw TCP nothing but the way it ends says that bytes are missing.
TEST(TcpFaults, AResetThatASpliceMeetsIsNoEnd) {
  constexpr std::size_t kMuch = 4'000'000;
  Gate stopped;
  Origin origin([&](RawClient& connection, int) {
    connection.send(std::string(kMuch, 'x'));
    stopped.wait();
    connection.try_send(std::string(512 * 1024, 'y'), 200ms);
    connection.socket().reset();
  });
  Outrider proxy(R"(
    outrider: v1
    listeners: { db: { address: "127.0.0.1:0", protocol: tcp, to: db } }
    services: { db: "$DB" })",
                 {{"DB", origin.address()}});
  RawClient client = proxy.raw("db");
  for (std::size_t got = 0; got < kMuch;) got += client.read_some().size();
  ::kill(proxy.pid(), SIGSTOP);
  stopped.open();
  origin.received(0);
  ::kill(proxy.pid(), SIGCONT);
  client.read_all();
  EXPECT_EQ(client.socket().end(), Socket::End::kReset);
}

TEST_F(UpstreamFaults, AnEarlyAnswerReachesAnHttp1Client) {
  for (const bool closes : {false, true})
    for (int round = 0; round < 3; ++round) {
      SCOPED_TRACE(closes ? "closes" : "stays");
      const std::string target = unique_target();
      const int number = faulty_.origin().connections();
      Gate done;
      faulty_.on(target, [&](RawClient& connection, const Head&) {
        connection.send("HTTP/1.1 413 Large\r\nContent-Length: 5\r\n\r\nlarge");
        if (!closes) {
          done.wait();
          connection.read_all();
        }
        return false;  // with bytes unread: RST
      });
      RawClient client = proxy_.raw();
      client.send("POST " + target + " HTTP/1.1\r\nHost: a.test\r\nContent-Length: " +
                  std::to_string(kUpload) + "\r\n\r\n");
      upload_until_answered(client, kUpload);
      const Response response = client.read_response();
      EXPECT_EQ(response.status, 413);
      EXPECT_EQ(response.body, "large");
      done.open();
      faulty_.origin().received(number);  // never used again
      EXPECT_EQ(proxy_.client().get("/next").body, "ok");
      EXPECT_EQ(faulty_.origin().connections(), number + 2);
      faulty_.on("/end", [](RawClient& connection, const Head&) {
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        return false;
      });
      proxy_.client().get("/end");
    }
}

TEST_F(UpstreamFaults, AnEarlyAnswerReachesAnHttp2ClientAndStopsItsUpload) {
  Client client = proxy_.client(Protocol::kHttp2);
  for (const bool closes : {false, true}) {
    SCOPED_TRACE(closes ? "closes" : "stays");
    const std::string target = unique_target();
    const auto done = std::make_shared<Gate>();  // the origin may be slower than this test
    faulty_.on(target, [closes, done](RawClient& connection, const Head&) {
      connection.send("HTTP/1.1 413 Large\r\nContent-Length: 5\r\n\r\nlarge");
      if (!closes) {
        done->wait();
        connection.read_all();
      }
      return false;
    });
    const auto stream = client.h2().open();
    stream->send_head({.method = "POST", .target = target, .authority = "a.test"}, false);
    std::thread upload([&] {
      try {
        for (const std::string piece(64 * 1024, 'u');;) stream->write(piece);
      } catch (const HarnessError&) {
        // The stream is over.
      }
    });
    try {
      const Response response = stream->read_response();
      EXPECT_EQ(response.status, 413);
      EXPECT_EQ(response.body, "large");
      EXPECT_EQ(stream->wait_end().value_or(0), static_cast<std::uint32_t>(NGHTTP2_NO_ERROR));
    } catch (const HarnessError& error) {
      ADD_FAILURE() << error.what();
    }
    done->open();
    upload.join();
    EXPECT_EQ(client.get("/next").body, "ok");
  }
  EXPECT_EQ(client.connections(), 1);
}

// ---- silence

TEST_P(AnyClient, AHeadThatDoesNotComeInTimeIs504) {
  std::atomic<bool> over = false;
  const auto stay = [](RawClient& connection, const Head&) {
    return end_with(connection, End::kKeep);
  };
  faulty_.on("/hasty/silent", stay);
  faulty_.on("/hasty/part", [](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\nX: ");
    return end_with(connection, End::kKeep);
  });
  // A byte every 30 ms: only a limit of the whole head ends this.
  faulty_.on("/hasty/trickle", [&](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\nX: ");
    while (!over && connection.quiet(30ms))
      if (!connection.try_send("x", patience())) break;
    return false;
  });
  for (const char* target : {"/hasty/silent", "/hasty/part", "/hasty/trickle"}) {
    SCOPED_TRACE(target);
    const auto began = Clock::now();
    const Response response = proxy_.client(GetParam()).get(target);
    EXPECT_GE(Clock::now() - began, 300ms);
    EXPECT_EQ(response.status, 504);
    EXPECT_TRUE(response.body.starts_with("504 timeout_headers: ")) << response.body;
    EXPECT_NE(response.body.find("timeout.headers 300ms"), std::string::npos) << response.body;
    EXPECT_EQ(faulty_.requests(target), 1);
    faulty_.origin().received(faulty_.origin().connections() - 1);  // ended by the proxy
  }
  over = true;

  // The client's own time does not count.
  Client client = proxy_.client(GetParam());
  const auto slow = client.open();
  slow->send_head({.method = "POST",
                   .target = "/hasty/upload",
                   .authority = "a.test",
                   .fields = {{"content-length", "2"}}},
                  false);
  slow->write("a");
  std::this_thread::sleep_for(600ms);
  slow->write("b");
  slow->finish({});
  EXPECT_EQ(slow->read_response().status, 200);
}

TEST_P(AnyClient, AStalledBodyIsCut) {
  faulty_.on("/restless/body", [](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    return end_with(connection, End::kKeep);
  });
  Client client = proxy_.client(GetParam());
  const auto began = Clock::now();
  EXPECT_THROW(client.get("/restless/body"), HarnessError);
  EXPECT_GE(Clock::now() - began, 300ms);
  const auto line = logged("/restless/body");
  EXPECT_EQ(line.at("reason"), "timeout_idle");
  EXPECT_EQ(line.at("status"), "200");

  faulty_.on("/restless/silent",
             [](RawClient& connection, const Head&) { return end_with(connection, End::kKeep); });
  const Response response = proxy_.client(GetParam()).get("/restless/silent");
  EXPECT_EQ(response.status, 504);
  EXPECT_TRUE(response.body.starts_with("504 timeout_idle: ")) << response.body;
}

// ---- bodies without a length

TEST_F(UpstreamFaults, ABodyUntilTheEndIsStreamed) {
  for (const char* answer :
       {"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n"}) {
    SCOPED_TRACE(answer);
    const std::string target = unique_target();
    Gate seen;
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.send(answer + "first"s);
      seen.wait();
      connection.send("second");
      return false;
    });
    for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
      Client client = proxy_.client(protocol);
      const auto stream = client.open();
      stream->send(Request{.target = target});
      const Head head = stream->read_head();
      EXPECT_EQ(head.fields.value("transfer-encoding"),
                protocol == Protocol::kHttp1 ? "chunked" : "");
      char first[5];
      for (std::size_t got = 0; got < sizeof first;)
        got += stream->read(first + got, sizeof first - got);
      EXPECT_EQ(std::string_view(first, 5), "first");
      seen.open();
      EXPECT_EQ(stream->read_body(), "second");
    }
    RawClient old = proxy_.raw();
    old.send("GET " + target + " HTTP/1.0\r\n\r\n");
    const Head head = old.read_head();
    EXPECT_FALSE(head.fields.has("transfer-encoding"));
    EXPECT_EQ(old.read_exactly(5), "first");
    seen.open();
    EXPECT_EQ(old.read_all(), "second");
    EXPECT_EQ(old.socket().end(), Socket::End::kFin);
  }
}

// ---- one side stops

constexpr std::size_t kBounded = 40 << 20;  // the kernel's buffers of four sockets, generously

TEST_P(AnyClient, AClientThatIsGoneCancelsItsUpstream) {
  struct Row {
    const char* what;
    std::string answer;
    bool endless;
  };
  for (const Row& row :
       {Row{"before the head", "", false},
        Row{"within a body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false},
        Row{"within an endless body", "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n",
            true}})
    for (const bool reset : {true, false}) {
      SCOPED_TRACE(row.what + (reset ? ", reset"s : ", closed"s));
      const std::string target = unique_target();
      Gate began;
      Gate ended;
      faulty_.on(target, [&](RawClient& connection, const Head&) {
        connection.send(row.answer);
        began.open();
        const std::string piece(64 * 1024, 'e');
        if (row.endless)
          while (connection.try_send(piece, patience())) {}
        else
          connection.read_all();
        ended.open();
        return false;
      });
      if (GetParam() == Protocol::kHttp1) {
        RawClient client = proxy_.raw();
        client.send(get_text(target));
        began.wait();
        if (!row.answer.empty()) client.read_head();
        if (reset)
          client.reset();
        else
          client.close();
      } else {
        Client client = proxy_.client(Protocol::kHttp2);
        H2Connection& h2 = client.h2();
        const auto stream = h2.open();
        stream->send(Request{.target = target});
        began.wait();
        if (!row.answer.empty()) stream->read_head();
        if (reset) {
          stream->reset();
          h2.ping();
        } else {
          h2.close();
          h2.wait_closed();
        }
      }
      ended.wait();
      EXPECT_EQ(logged(target).at("reason"), "client_closed");
    }
}

// While the upstream takes nothing, nothing is read from the client; that it is gone is seen all
// the same.
TEST(UpstreamHeld, AClientThatIsGoneEndsWhatTheUpstreamHolds) {
  Gate ended;
  Origin unreading([&](RawClient& connection, int) {
    // Raw TCP begins with no request.
    if (connection.peek(1) != "x") {
      const Head head = connection.read_head();
      if (head.fields.has("upgrade"))
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    }
    pollfd hung{connection.socket().fd(), 0, 0};
    if (poll(&hung, 1, static_cast<int>(patience().count())) == 1) ended.open();
  });
  Outrider proxy(R"(
    outrider: v1
    listeners:
      main: { address: 127.0.0.1:0 }
      tcp: { address: 127.0.0.1:0, protocol: tcp, to: tcp }
    services:
      web: "$UNREADING"
      tcp: { endpoints: ["$UNREADING"], protocol: tcp }
    defaults: { route: { timeout: { headers: 5m, idle: 5m } } }
    routes: [{ to: web, retry: false }])",
                 {{"UNREADING", unreading.address()}});
  struct Row {
    const char* listener;
    std::string request;
    bool tunnel;
  };
  std::size_t lines = 0;
  for (const Row& row :
       {Row{"main", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n", false},
        Row{"main",
            "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            true},
        Row{"tcp", "", true}}) {
    SCOPED_TRACE(row.listener + (" " + row.request.substr(0, 5)));
    try {
      RawClient client = proxy.raw(row.listener);
      client.send(row.request);
      if (!row.request.empty() && row.tunnel) {
        EXPECT_EQ(client.read_head().status, 101);
      }
      while (client.try_send(std::string(64 * 1024, 'x'), 300ms)) {}
      client.reset();
      ended.wait();
      EXPECT_EQ(proxy.log(++lines).back().at("reason"), "client_closed");
    } catch (const HarnessError& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

TEST_P(AnyClient, AClientThatDoesNotReadStopsItsUpstream) {
  std::atomic<std::size_t> sent = 0;
  Gate stuck;
  Gate read;
  constexpr std::size_t kTotal = 64 << 20;
  faulty_.on("/endless", [&](RawClient& connection, const Head&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kTotal) + "\r\n\r\n");
    Pattern pattern(7);
    std::vector<char> chunk(64 * 1024);
    bool told = false;
    while (sent < kTotal) {
      pattern.next(chunk.data(), chunk.size());
      std::string_view rest(chunk.data(), chunk.size());
      while (!rest.empty()) {
        const ssize_t taken =
            ::send(connection.socket().fd(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (taken > 0) {
          rest.remove_prefix(static_cast<std::size_t>(taken));
          sent += static_cast<std::size_t>(taken);
          continue;
        }
        pollfd writable{connection.socket().fd(), POLLOUT, 0};
        if (poll(&writable, 1, told ? 30'000 : 500) > 0) continue;
        if (told) return false;
        told = true;
        stuck.open();
        read.wait();
      }
    }
    return true;
  });
  const std::size_t idle = proxy_.resident_bytes();
  Client client = proxy_.client(GetParam());
  const auto stream = client.open();
  stream->send(Request{.target = "/endless"});
  EXPECT_EQ(stream->read_head().status, 200);
  stuck.wait();
  EXPECT_LT(sent.load(), kBounded);
  EXPECT_LT(proxy_.resident_bytes(), idle + (8 << 20));
  read.open();
  Pattern pattern(7);
  EXPECT_EQ(read_pattern(*stream, pattern), kTotal);
  EXPECT_LT(proxy_.resident_bytes(), idle + (8 << 20));
}

TEST_F(UpstreamFaults, AnUpstreamThatStopsReadingStopsTheClientAndIs504) {
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2}) {
    SCOPED_TRACE(name_of(protocol));
    Gate over;
    faulty_.on("/restless/upload", [&](RawClient&, const Head&) {
      over.wait();
      return false;
    });
    const std::size_t idle = proxy_.resident_bytes();
    Client client = proxy_.client(protocol);
    const auto stream = client.open();
    stream->send_head({.method = "POST", .target = "/restless/upload", .authority = "a.test"},
                      false);
    std::atomic<std::size_t> sent = 0;
    std::atomic<bool> answered = false;
    std::thread upload([&] {
      try {
        const std::string piece(64 * 1024, 'u');
        while (!answered) {
          stream->write(piece);
          sent += piece.size();
        }
      } catch (const HarnessError&) {
        // Nobody takes more.
      }
    });
    try {
      const Response response = stream->read_response();
      EXPECT_EQ(response.status, 504);
      EXPECT_TRUE(response.body.starts_with("504 timeout_idle: ")) << response.body;
    } catch (const HarnessError& error) {
      ADD_FAILURE() << error.what();
    }
    EXPECT_LT(sent.load(), kBounded);
    EXPECT_LT(proxy_.resident_bytes(), idle + (8 << 20));
    answered = true;
    over.open();
    upload.join();
  }
}

// ---- kept-alive connections that are none any more

enum class Stale { kFin, kReset, kUnread };

// Serves one request a connection, and ends it as the next one lands: read and applied first, or
// not even read. Counts how often each request, by its x-id, was applied.
class StaleBackend {
 public:
  explicit StaleBackend(Stale how) : how_(how) {}
  const std::string& address() const { return origin_.address(); }
  int applied(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    const auto found = applied_.find(id);
    return found == applied_.end() ? 0 : found->second;
  }
  int stale() const { return stale_; }

 private:
  void apply(RawClient& connection) {
    const std::string id = connection.read_request().fields.value("x-id");
    const std::lock_guard lock(mutex_);
    ++applied_[id];
  }
  void serve(RawClient& connection) {
    apply(connection);
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if (!connection.socket().readable(patience())) return;
    char next = 0;
    if (::recv(connection.socket().fd(), &next, 1, MSG_PEEK) <= 0) return;
    ++stale_;
    if (how_ != Stale::kUnread) apply(connection);
    if (how_ == Stale::kReset) connection.reset();
  }

  const Stale how_;
  mutable std::mutex mutex_;
  std::map<std::string, int> applied_;
  std::atomic<int> stale_ = 0;
  Origin origin_{[this](RawClient& connection, int) { serve(connection); }};
};

class StaleConnections : public testing::TestWithParam<Stale> {};

INSTANTIATE_TEST_SUITE_P(UpstreamFaults, StaleConnections,
                         testing::Values(Stale::kFin, Stale::kReset, Stale::kUnread),
                         [](const auto& tested) {
                           return tested.param == Stale::kFin     ? "Fin"
                                  : tested.param == Stale::kReset ? "Reset"
                                                                  : "Unread";
                         });

TEST_P(StaleConnections, AreInvisibleAndApplyNothingTwice) {
  StaleBackend backend(GetParam());
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { backend: "$BACKEND" }
    routes:
      - { to: backend }
      - { match: /once/**, to: backend, retry: false })",
                 {{"BACKEND", backend.address()}}, {.workers = 1});
  int id = 0;
  for (const Protocol protocol : {Protocol::kHttp1, Protocol::kHttp2})
    for (const char* target : {"/", "/once/x"}) {
      SCOPED_TRACE(std::string(name_of(protocol)) + target);
      Client client = proxy.client(protocol);
      const auto ask = [&](const char* method, Fields fields, const std::string& body) {
        fields.push_back({"x-id", std::to_string(++id)});
        return client.request({.method = method, .target = target, .fields = fields, .body = body});
      };
      const int before = backend.stale();
      for (int i = 0; i < 20; ++i) ASSERT_EQ(ask("GET", {}, "").status, 200) << i;
      for (int i = 0; i < 20; ++i) ASSERT_EQ(ask("PUT", {}, "body").status, 200) << i;
      for (int i = 0; i < 20; ++i)
        ASSERT_EQ(ask("POST", {{"idempotency-key", std::to_string(i)}}, "body").status, 200) << i;
      EXPECT_GE(backend.stale() - before, 30);
      int failed = 0;
      for (int i = 0; i < 20; ++i) {
        const Response response = ask("POST", {}, "body");
        EXPECT_LE(backend.applied(std::to_string(id)), 1);
        if (response.status == 200) continue;
        ++failed;
        EXPECT_EQ(response.status, 502);
        EXPECT_TRUE(response.body.starts_with("502 stale_connection: ")) << response.body;
      }
      EXPECT_LE(failed, 11);
    }
}

TEST(StaleConnection, SixtyGetsThoughEachAnswerEndsItsConnection) {
  for (const bool reset : {false, true}) {
    Origin origin([reset](RawClient& connection, int) {
      connection.read_request();
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      if (reset) connection.reset();
    });
    Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { origin: "$ORIGIN" }
    routes: [{ to: origin, retry: false }])",
                   {{"ORIGIN", origin.address()}}, {.workers = 1});
    Client client = proxy.client();
    for (int i = 0; i < 60; ++i) ASSERT_EQ(client.get("/").body, "ok") << i << reset;
  }
}

// The place of the connection that was lost is free for the one that replaces it.
TEST(StaleConnection, LeavesItsPlaceUnderTheLimit) {
  for (const Stale how : {Stale::kFin, Stale::kReset, Stale::kUnread}) {
    StaleBackend backend(how);
    Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services:
      backend: { endpoints: ["$BACKEND"], limits: { connections: 1, pending_time: 1ms } }
    routes: [{ to: backend, retry: false }])",
                   {{"BACKEND", backend.address()}}, {.workers = 1});
    Client client = proxy.client();
    for (int i = 0; i < 20; ++i) {
      const Response response = client.request({.fields = {{"x-id", std::to_string(i)}}});
      EXPECT_EQ(response.status, 200) << response.body;
    }
    EXPECT_GE(backend.stale(), 5);
  }
}

// ---- trying again

TEST(UpstreamRetry, OneMoreTryWithinTheBudget) {
  std::atomic<int> tries = 0;
  Origin failing([&](RawClient& connection, int) {
    connection.read_request();
    ++tries;
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { failing: "$FAILING" }
    routes: [{ to: failing }])",
                 {{"FAILING", failing.address()}});
  Client client = proxy.client();
  int spent = 0;
  for (int i = 0; i < 200; ++i) {
    const Response response = client.get("/");
    ASSERT_EQ(response.status, 502);
    if (response.body.starts_with("502 retry_budget: ")) ++spent;
  }
  EXPECT_GT(tries.load(), 200);
  EXPECT_LE(tries.load(), 300);
  EXPECT_EQ(tries.load() + spent, 400);
  EXPECT_EQ(proxy.await_metric("outrider_requests_total{reason='retry_budget'}", spent), spent);
}

TEST(UpstreamRetry, NeverBehindAByteOfTheAnswer) {
  std::atomic<int> tries = 0;
  Origin cutting([&](RawClient& connection, int) {
    connection.read_request();
    ++tries;
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { cutting: "$CUTTING" }
    routes: [{ to: cutting, retry: 3 }])",
                 {{"CUTTING", cutting.address()}});
  EXPECT_THROW(proxy.client().get("/"), HarnessError);
  EXPECT_EQ(proxy.log(1).at(0).at("attempts"), "1");
  EXPECT_EQ(tries.load(), 1);
}

// ---- tunnels

const std::string kUpgrade =
    "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const std::string kSwitched =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

class Tunnel : public UpstreamFaults {
 protected:
  // A tunnel with the script at its far end.
  RawClient open(std::function<void(RawClient&)> script) {
    faulty_.on("/ws", [script = std::move(script)](RawClient& connection, const Head&) {
      connection.send(kSwitched);
      script(connection);
      return false;
    });
    RawClient client = proxy_.raw();
    client.send(kUpgrade);
    const Head head = client.read_head();
    EXPECT_EQ(head.status, 101);
    EXPECT_TRUE(equal_case_blind(head.fields.value("upgrade"), "websocket"));
    EXPECT_TRUE(equal_case_blind(head.fields.value("connection"), "upgrade"));
    EXPECT_EQ(head.fields.value("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    return client;
  }
};

TEST_F(Tunnel, CarriesBytesAsTheyAreAndEachEndByItself) {
  const std::string odd = "GET /door HTTP/1.1\r\n\r\n\0\xff HTTP/1.1 200 OK\r\n\r\n"s;
  RawClient client = open([&](RawClient& connection) {
    EXPECT_EQ(connection.read_exactly(odd.size()), odd);
    connection.send(odd);
    EXPECT_EQ(connection.read_all(), "last words");  // the client's half ended
    EXPECT_EQ(connection.socket().end(), Socket::End::kFin);
    connection.send("more, behind it");
  });
  client.send(odd);
  EXPECT_EQ(client.read_exactly(odd.size()), odd);
  client.send("last words");
  client.shutdown_write();
  EXPECT_EQ(client.read_all(), "more, behind it");
  EXPECT_EQ(client.socket().end(), Socket::End::kFin);
  const auto line = logged("/ws");
  EXPECT_EQ(line.at("status"), "101");
  EXPECT_EQ(line.at("reason"), "ok");
}

TEST_F(Tunnel, TheUpstreamMayEndItsHalfFirst) {
  Gate over;
  RawClient client = open([&](RawClient& connection) {
    connection.send("bye");
    connection.shutdown_write();
    EXPECT_EQ(connection.read_all(), "and I");
    over.open();
  });
  EXPECT_EQ(client.read_exactly(3), "bye");
  EXPECT_EQ(client.read_end(), Socket::End::kFin);
  client.send("and I");
  client.shutdown_write();
  over.wait();
}

TEST_F(Tunnel, EndsWhenOneSideIsGone) {
  Gate open_here;
  RawClient client = open([&](RawClient& connection) {
    open_here.wait();
    connection.reset();
  });
  open_here.open();
  EXPECT_EQ(client.read_all(), "");
  Gate over;
  RawClient other = open([&](RawClient& connection) {
    connection.read_all();
    over.open();
  });
  other.reset();
  over.wait();
}

TEST_F(Tunnel, EarlyBytesOfEitherSideArrive) {
  faulty_.on("/ws", [](RawClient& connection, const Head&) {
    connection.send(kSwitched + "hello");
    EXPECT_EQ(connection.read_exactly(5), "early");
    connection.send("!");
    return false;
  });
  RawClient client = proxy_.raw();
  client.send(kUpgrade + "early");
  EXPECT_EQ(client.read_head().status, 101);
  EXPECT_EQ(client.read_all(), "hello!");
}

TEST_F(Tunnel, AfterARefusalHttpGoesOn) {
  const std::string target = "/ws";
  for (const char* answer : {"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
                             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"}) {
    SCOPED_TRACE(answer);
    faulty_.on(target, [&](RawClient& connection, const Head&) {
      connection.send(answer);
      return true;
    });
    RawClient client = proxy_.raw();
    client.send(kUpgrade + get_text("/door") + get_text("/plain"));
    EXPECT_EQ(client.read_response().body, "no");
    EXPECT_EQ(client.read_response().body, "closed");
    EXPECT_EQ(client.read_response().body, "ok");
  }
  EXPECT_EQ(faulty_.requests("/door"), 0);
}

TEST_F(Tunnel, AnotherProtocolThanAskedForIs502) {
  for (const char* answer :
       {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n"}) {
    SCOPED_TRACE(answer);
    faulty_.on("/ws", [&](RawClient& connection, const Head&) {
      connection.send(answer);
      return end_with(connection, End::kKeep);
    });
    RawClient client = proxy_.raw();
    client.send(kUpgrade);
    const Response response = client.read_response();
    EXPECT_EQ(response.status, 502);
    EXPECT_TRUE(response.body.starts_with("502 upstream_protocol_error: ")) << response.body;
  }
}

TEST(TunnelTime, EndsWhenIdleAndAtTheDrainsEnd) {
  Origin origin([](RawClient& connection, int) {
    connection.read_head();
    connection.send(kSwitched);
    connection.read_all();
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    drain: { delay: 0s, deadline: 300ms }
    services: { origin: "$ORIGIN" }
    routes:
      - { to: origin, timeout: { idle: 300ms } }
      - { match: /ws, to: origin, timeout: { idle: 5m } })",
                 {{"ORIGIN", origin.address()}});
  RawClient idle = proxy.raw();
  const auto began = Clock::now();
  idle.send("GET /idle" + kUpgrade.substr(kUpgrade.find(" HTTP")));
  EXPECT_EQ(idle.read_head().status, 101);
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_GE(Clock::now() - began, 300ms);
  EXPECT_EQ(proxy.log(1).at(0).at("reason"), "timeout_idle");
  origin.received(0);

  RawClient open = proxy.raw();
  open.send(kUpgrade);
  EXPECT_EQ(open.read_head().status, 101);
  EXPECT_EQ(proxy.stop(), 0);
  EXPECT_EQ(open.read_all(), "");
  origin.received(1);
}

// SETTINGS and, in the same bytes, what no server may send.
TEST(UpstreamSays, AnHttp2ServerThatErrsAtOnceIsOneFailureAndNoStorm) {
  Origin origin([](RawClient& connection, int) {
    connection.read_until("SM\r\n\r\n");
    const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
    const std::string push("\0\0\4\5\4\0\0\0\1\0\0\0\2", 13);
    connection.send(settings + push);
    connection.read_until("never");
  });
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: { endpoints: ["$WEB"], protocol: http2 } }
    routes: [{ to: web }])",
                 {{"WEB", origin.address()}});
  const Response response = proxy.client().get("/");
  EXPECT_EQ(response.status, 502);
  EXPECT_NE(response.body.find("upstream_protocol_error"), std::string::npos) << response.body;
  EXPECT_LE(origin.connections(), 2);
}

// What a client claims of a server is not held against the server.
TEST(UpstreamSays, GrpcToAServerThatSpeaksHttp1EjectsNobody) {
  Origin one = Origin::answering(200, "fine");
  Origin two = Origin::answering(200, "fine");
  Outrider proxy(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { web: ["$ONE", "$TWO"] }
    routes: [{ to: web }])",
                 {{"ONE", one.address()}, {"TWO", two.address()}});
  for (int i = 0; i < 20; ++i)
    proxy.client().request(
        {.method = "POST", .fields = {{"content-type", "application/grpc"}}, .body = "x"});
  EXPECT_EQ(proxy.metric("outrider_ejections_total"), 0);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(proxy.client().get("/").status, 200);
}

}  // namespace
}  // namespace outrider::test
