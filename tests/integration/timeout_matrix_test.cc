// Ten kinds of exchange under each of the four timeouts of a route. The table says in which part of
// an exchange a timeout ends it; in every other part the exchange lasts longer than the timeout and
// ends well. What is cut names the knob and the line where it is set: in the 504, in gRPC's status,
// or in the log once the head is out. Invariant: a server goes on until it is cut wherever the
// table wants a cut, so that a slow machine makes a test slower and never wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/client.h"
#include "tests/harness/origin.h"
#include "tests/harness/outrider.h"
#include "tests/harness/websocket.h"

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;
using Clock = std::chrono::steady_clock;

constexpr auto kTimeout = 1s;                     // of every knob
constexpr auto kLonger = 2200ms;                  // what it spares lasts so long
constexpr auto kPace = 40ms;                      // between the pieces of what is slow, but moves
constexpr std::size_t kFlood = 32 * 1024 * 1024;  // more than kernels buffer
constexpr char kEnd[] = "the end";

enum class Kind {
  kUnary,
  kEvents,
  kWebsocket,
  kGrpcUnary,
  kGrpcServerStream,
  kGrpcClientStream,
  kGrpcBidi,
  kSlowUpload,
  kSlowDownload,
  kExtendedConnect,
};
constexpr const char* kKinds[] = {"Unary",          "ServerSentEvents", "WebSocket",
                                  "GrpcUnary",      "GrpcServerStream", "GrpcClientStream",
                                  "GrpcBidi",       "SlowUpload",       "SlowDownload",
                                  "ExtendedConnect"};

enum class Knob { kHeaders, kTotal, kPerTry, kIdle };
constexpr const char* kKnobs[] = {"headers", "total", "per_try", "idle"};

// The part of an exchange that lasts.
enum class Part {
  kUpload,       // the request comes slowly, no head yet
  kUploadStops,  // the client is silent in the middle of its request
  kWait,         // the request is complete, the head does not come
  kBody,         // the head is out, the rest comes slowly (and goes, where both sides talk)
  kSilence,      // the head is out, nothing moves
  kSlowReader,   // the head is out, the client does not take what is there for it
};
constexpr const char* kParts[] = {"upload", "upload-stops", "wait",
                                  "body",   "silence",      "slow-reader"};

struct Row {
  Kind kind;
  Part part;
  bool cut[4];  // by headers, total, per_try, idle
};
constexpr Row kTable[] = {
    {Kind::kUnary, Part::kWait, {true, true, true, true}},
    {Kind::kUnary, Part::kBody, {false, true, true, false}},
    {Kind::kUnary, Part::kSilence, {false, true, true, true}},
    {Kind::kEvents, Part::kWait, {true, true, true, true}},
    {Kind::kEvents, Part::kBody, {false, false, false, false}},
    {Kind::kEvents, Part::kSilence, {false, false, false, true}},
    {Kind::kWebsocket, Part::kWait, {true, true, true, true}},
    {Kind::kWebsocket, Part::kBody, {false, false, false, false}},
    {Kind::kWebsocket, Part::kSilence, {false, false, false, true}},
    {Kind::kGrpcUnary, Part::kWait, {true, true, true, true}},
    {Kind::kGrpcUnary, Part::kSilence, {false, true, true, true}},
    {Kind::kGrpcServerStream, Part::kWait, {true, true, true, true}},
    {Kind::kGrpcServerStream, Part::kBody, {false, true, true, false}},
    {Kind::kGrpcServerStream, Part::kSilence, {false, true, true, true}},
    {Kind::kGrpcClientStream, Part::kUpload, {false, true, true, false}},
    {Kind::kGrpcClientStream, Part::kUploadStops, {false, true, true, true}},
    {Kind::kGrpcClientStream, Part::kWait, {true, true, true, true}},
    {Kind::kGrpcBidi, Part::kUpload, {false, true, true, false}},
    {Kind::kGrpcBidi, Part::kWait, {true, true, true, true}},
    {Kind::kGrpcBidi, Part::kBody, {false, true, true, false}},
    {Kind::kGrpcBidi, Part::kSilence, {false, true, true, true}},
    {Kind::kSlowUpload, Part::kUpload, {false, true, true, false}},
    {Kind::kSlowUpload, Part::kUploadStops, {false, true, true, true}},
    {Kind::kSlowUpload, Part::kWait, {true, true, true, true}},
    {Kind::kSlowDownload, Part::kWait, {true, true, true, true}},
    {Kind::kSlowDownload, Part::kBody, {false, true, true, false}},
    {Kind::kSlowDownload, Part::kSlowReader, {false, true, true, false}},
    {Kind::kExtendedConnect, Part::kWait, {true, true, true, true}},
    {Kind::kExtendedConnect, Part::kBody, {false, false, false, false}},
    {Kind::kExtendedConnect, Part::kSilence, {false, false, false, true}},
};

bool is_grpc(Kind kind) { return kind >= Kind::kGrpcUnary && kind <= Kind::kGrpcBidi; }
bool is_tunnel(Kind kind) { return kind == Kind::kWebsocket || kind == Kind::kExtendedConnect; }
bool uploads(Part part) { return part == Part::kUpload || part == Part::kUploadStops; }
bool after_head(Part part) { return part >= Part::kBody; }

std::vector<Protocol> protocols(Kind kind) {
  if (kind == Kind::kWebsocket) return {Protocol::kHttp1};
  if (kind == Kind::kExtendedConnect || is_grpc(kind)) return {Protocol::kHttp2};
  return {Protocol::kHttp1, Protocol::kHttp2};
}

// One exchange of a cell; both of its ends read from the path what they are to do.
struct Scene {
  Kind kind;
  Knob knob;
  Part part;
  bool cut;
  Protocol protocol;

  std::string path() const {
    return std::string("/") + kKnobs[static_cast<int>(knob)] +
           (is_tunnel(kind) ? "/tunnel/" : "/") + kKinds[static_cast<int>(kind)] + "/" +
           kParts[static_cast<int>(part)] + (cut ? "/cut/" : "/spared/") +
           std::string(name_of(protocol));
  }
};

struct Outcome {
  Head head;
  std::string body;
  Fields trailers;
  bool whole = false;  // the body came to its end in order
  Clock::duration took{};
};

// ---- the server

class Server {
 public:
  Server()
      : http_([this](Stream& stream, const Head& head) { serve(stream, head); }),
        tunnels_([this](RawClient& connection, int) { serve_tunnel(connection); }) {}
  ~Server() { over_.set_value(); }

  const std::string& http() const { return http_.address(); }
  const std::string& tunnels() const { return tunnels_.address(); }

 private:
  static bool asks(const std::string& path, std::string_view word) {
    return path.find("/" + std::string(word) + "/") != std::string::npos;
  }
  // Long enough, or for ever where a cut must come.
  void pause(const std::string& path) const {
    if (asks(path, "cut"))
      is_over_.wait();
    else
      is_over_.wait_for(kLonger);
  }
  template <class Write>
  void trickle(const std::string& path, Write write) const {
    const auto begun = Clock::now();
    while (asks(path, "cut") || Clock::now() - begun < kLonger) {
      if (is_over_.wait_for(kPace) == std::future_status::ready) return;
      write(".");
    }
  }

  void serve(Stream& stream, const Head& request) const {
    const std::string& path = request.target;
    const bool grpc = asks(path, "GrpcUnary") || asks(path, "GrpcServerStream") ||
                      asks(path, "GrpcClientStream") || asks(path, "GrpcBidi");
    Head head{.status = 200};
    if (grpc) head.fields.push_back({"content-type", "application/grpc"});
    if (asks(path, "ServerSentEvents"))
      head.fields.push_back({"content-type", "text/event-stream"});
    const bool both_talk = asks(path, "GrpcBidi") && (asks(path, "body") || asks(path, "silence"));
    if (!both_talk) stream.read_body();
    if (asks(path, "wait")) pause(path);
    stream.send_head(head, false);
    if (asks(path, "body")) trickle(path, [&](std::string_view bytes) { stream.write(bytes); });
    if (asks(path, "silence")) pause(path);
    if (asks(path, "slow-reader")) {
      const std::string piece(64 * 1024, '.');
      for (std::size_t sent = 0; sent < kFlood; sent += piece.size()) stream.write(piece);
    }
    if (both_talk) stream.read_body();
    stream.write(kEnd);
    stream.finish(grpc ? Fields{{"grpc-status", "0"}} : Fields{});
  }

  void serve_tunnel(RawClient& connection) const {
    const Request request = connection.read_request();
    const std::string& path = request.target;
    if (asks(path, "wait")) pause(path);
    connection.send(
        "HTTP/1.1 101 Switching\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-accept: " +
        websocket_accept(request.fields.value("sec-websocket-key")) + "\r\n\r\n");
    if (asks(path, "body")) trickle(path, [&](std::string_view bytes) { connection.send(bytes); });
    if (asks(path, "silence")) pause(path);
    connection.send(kEnd);
  }

  std::promise<void> over_;
  std::shared_future<void> is_over_{over_.get_future()};
  HttpOrigin http_;
  Origin tunnels_;
};

// ---- the client

// Sends the body of the request as slowly as the scene wants; a cut ends it.
void upload(Stream& stream, const Scene& scene, const std::future<void>& answered) {
  try {
    const auto begun = Clock::now();
    stream.write("begun");
    const bool slow =
        scene.kind == Kind::kGrpcBidi ? scene.part != Part::kWait : uploads(scene.part);
    while (slow && (scene.cut || Clock::now() - begun < kLonger)) {
      if (answered.wait_for(kPace) == std::future_status::ready) return;
      if (scene.part == Part::kUpload || scene.part == Part::kBody) stream.write(".");
    }
    stream.finish();
  } catch (const HarnessError&) {
    // The answer is out: nobody takes the rest.
  }
}

void read_rest(Stream& stream, Outcome& outcome) {
  try {
    char bytes[64 * 1024];
    while (const std::size_t size = stream.read(bytes, sizeof bytes))
      outcome.body.append(bytes, size);
    outcome.trailers = stream.trailers();
    outcome.whole = true;
  } catch (const HarnessError&) {
    // Cut; `whole` says it.
  }
}

class TimeoutMatrix : public testing::TestWithParam<Kind> {
 protected:
  TimeoutMatrix()
      : proxy_(R"(
    outrider: v1
    listen: 127.0.0.1:0
    services: { one: "$HTTP", tunnels: "$TUNNELS" }
    policies:
      headers:
        timeout: { headers: 1s }
      total:
        timeout: { total: 1s }
      per_try:
        timeout: { per_try: 1s }
      idle:
        timeout: { idle: 1s }
    routes:
      - { match: /headers/tunnel/**, to: tunnels, use: [headers] }
      - { match: /headers/**, to: one, use: [headers] }
      - { match: /total/tunnel/**, to: tunnels, use: [total] }
      - { match: /total/**, to: one, use: [total] }
      - { match: /per_try/tunnel/**, to: tunnels, use: [per_try] }
      - { match: /per_try/**, to: one, use: [per_try] }
      - { match: /idle/tunnel/**, to: tunnels, use: [idle] }
      - { match: /idle/**, to: one, use: [idle] })",
               {{"HTTP", server_.http()}, {"TUNNELS", server_.tunnels()}}) {}

  Outrider::LogLine logged(const std::string& path) {
    for (std::size_t count = 1;;) {
      const auto lines = proxy_.log(count);
      for (const auto& line : lines)
        if (line.at("path") == path) return line;
      count = lines.size() + 1;
    }
  }

  // `timeout.idle 1s, set at …/outrider.yaml:12`
  std::string words(Knob knob) {
    const std::string name = kKnobs[static_cast<int>(knob)];
    const std::string& yaml = proxy_.yaml();
    const std::size_t at = yaml.find("timeout: { " + name + ": 1s }");
    const auto line = 1 + std::count(yaml.begin(), yaml.begin() + static_cast<long>(at), '\n');
    return "timeout." + name + " 1s, set at " + proxy_.config_path() + ":" + std::to_string(line);
  }

  Outcome websocket(const Scene& scene) {
    RawClient raw = proxy_.raw();
    raw.send("GET " + scene.path() + " HTTP/1.1\r\nHost: " + kAuthority +
             "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " +
             kWebsocketKey + "\r\nSec-WebSocket-Version: 13\r\n\r\n");
    Outcome outcome;
    outcome.head = raw.read_head();
    if (outcome.head.status != 101) {
      raw.begin_body(outcome.head, "GET");
      char bytes[4096];
      while (const std::size_t size = raw.read_body_part(bytes, sizeof bytes))
        outcome.body.append(bytes, size);
      outcome.whole = true;
      return outcome;
    }
    outcome.body = raw.read_all();
    outcome.whole = outcome.body.ends_with(kEnd);
    return outcome;
  }

  Outcome http(const Scene& scene) {
    Client client = proxy_.client(scene.protocol);
    Head head{.method = "GET", .target = scene.path(), .authority = kAuthority};
    const bool with_body = is_grpc(scene.kind) || scene.kind == Kind::kSlowUpload;
    if (with_body) head.method = "POST";
    if (is_grpc(scene.kind))
      head.fields = {{"content-type", "application/grpc"}, {"te", "trailers"}};
    if (scene.kind == Kind::kExtendedConnect) {
      client.h2().wait_settings();
      head.method = "CONNECT";
      head.protocol = "websocket";
      head.fields = {{"sec-websocket-version", "13"}};
    }
    const auto stream = client.open();
    stream->send_head(head, !with_body && scene.kind != Kind::kExtendedConnect);
    std::future<void> uploader;
    std::promise<void> answer;  // its end ends the upload, too
    if (with_body)
      uploader = std::async(std::launch::async, [&, answered = answer.get_future()] {
        upload(*stream, scene, answered);
      });
    Outcome outcome;
    outcome.head = stream->read_head();
    if (scene.part == Part::kSlowReader) {
      if (scene.cut)
        logged(scene.path());
      else
        std::this_thread::sleep_for(kLonger);
    }
    read_rest(*stream, outcome);
    if (scene.kind == Kind::kExtendedConnect && outcome.whole) stream->finish();
    answer.set_value();
    if (uploader.valid()) uploader.get();
    logged(scene.path());  // the client stays until the proxy has seen the end
    return outcome;
  }

  void expect_whole(const Scene& scene, const Outcome& outcome) {
    EXPECT_EQ(outcome.head.status, scene.kind == Kind::kWebsocket ? 101 : 200);
    EXPECT_TRUE(outcome.whole);
    EXPECT_TRUE(outcome.body.ends_with(kEnd)) << outcome.body.substr(0, 200);
    EXPECT_EQ(outcome.trailers.value("grpc-status"), is_grpc(scene.kind) ? "0" : "");
    const auto line = logged(scene.path());
    EXPECT_EQ(line.at("reason"), "ok");
  }

  void expect_cut(const Scene& scene, const Outcome& outcome) {
    const std::string reason = std::string("timeout_") + kKnobs[static_cast<int>(scene.knob)];
    int status = 504;
    if (is_grpc(scene.kind)) {
      // Trailers in either case; without a head of the server's they are the head.
      const Fields& says = after_head(scene.part) ? outcome.trailers : outcome.head.fields;
      EXPECT_TRUE(outcome.whole);
      EXPECT_EQ(says.value("grpc-status"), "4");
      EXPECT_THAT(says.value("grpc-message"), HasSubstr(words(scene.knob)));
      status = 200;
    } else if (after_head(scene.part)) {
      EXPECT_FALSE(outcome.whole);
      status = scene.kind == Kind::kWebsocket ? 101 : 200;
    } else {
      EXPECT_TRUE(outcome.whole);
      EXPECT_THAT(outcome.body, StartsWith("504 " + reason + ": "));
      EXPECT_THAT(outcome.body, HasSubstr(words(scene.knob)));
    }
    EXPECT_EQ(outcome.head.status, status);
    EXPECT_GE(outcome.took, kTimeout);
    const auto line = logged(scene.path());
    EXPECT_EQ(line.at("reason"), reason);
    EXPECT_EQ(line.at("status"), std::to_string(status));
    EXPECT_EQ(line.at("attempts"), "1");
    proxy_.await_error(words(scene.knob));
  }

  void execute(const Scene& scene) {
    SCOPED_TRACE(scene.path());
    const auto begun = Clock::now();
    Outcome outcome = scene.kind == Kind::kWebsocket ? websocket(scene) : http(scene);
    outcome.took = Clock::now() - begun;
    if (scene.cut)
      expect_cut(scene, outcome);
    else
      expect_whole(scene, outcome);
  }

  Server server_;
  Outrider proxy_;
};

// The kind's four cells, all of their exchanges at once: they mostly wait.
TEST_P(TimeoutMatrix, CutsWhereItShouldAndNowhereElse) {
  std::vector<std::future<void>> scenes;
  for (const Row& row : kTable)
    if (row.kind == GetParam())
      for (const Knob knob : {Knob::kHeaders, Knob::kTotal, Knob::kPerTry, Knob::kIdle})
        for (const Protocol protocol : protocols(row.kind))
          scenes.push_back(std::async(
              std::launch::async,
              [this, scene = Scene{row.kind, knob, row.part, row.cut[static_cast<int>(knob)],
                                   protocol}] { execute(scene); }));
  for (auto& scene : scenes) scene.get();
}

INSTANTIATE_TEST_SUITE_P(
    Of, TimeoutMatrix,
    testing::Values(Kind::kUnary, Kind::kEvents, Kind::kWebsocket, Kind::kGrpcUnary,
                    Kind::kGrpcServerStream, Kind::kGrpcClientStream, Kind::kGrpcBidi,
                    Kind::kSlowUpload, Kind::kSlowDownload, Kind::kExtendedConnect),
    [](const auto& tested) { return std::string(kKinds[static_cast<int>(tested.param)]); });

}  // namespace
}  // namespace outrider::test
