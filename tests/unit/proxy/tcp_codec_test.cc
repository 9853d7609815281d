#include "tests/unit/proxy/codec_support.h"

namespace outrider {
namespace {

using namespace test;

class TcpServerTest : public testing::Test {
 protected:
  TcpServerTest() {
    clients.on_whole = [](RequestOwner&) {};
    clients.release_when_sent = false;
  }
  FakeWire wire;
  FakeClients clients;
  std::unique_ptr<Codec> codec = make_tcp_server(wire, clients);
};

TEST_F(TcpServerTest, BeginsWithoutAByteSoThatTheServerMaySpeakFirst) {
  EXPECT_TRUE(clients.requests.empty());
  wire.turn(*codec);
  ASSERT_EQ(clients.requests.size(), 1U);
  EXPECT_EQ(clients.last().request.version, Version::kTcp);
  EXPECT_FALSE(clients.last().whole);
  ResponseHead head(clients.last().arena);
  clients.last().stream.send_response(head, false);
  clients.last().stream.send_body("220 hello\r\n", false);
  wire.turn(*codec);
  EXPECT_EQ(wire.sent, "220 hello\r\n");
}

TEST_F(TcpServerTest, BytesBeforeTheFirstTurnAreNotLost) {
  codec->feed("early");
  ASSERT_EQ(clients.requests.size(), 1U);
  EXPECT_EQ(clients.last().body, "early");
}

TEST_F(TcpServerTest, EachHalfEndsAlone) {
  codec->feed("ping");
  codec->on_eof();
  RequestOwner& owner = clients.last();
  EXPECT_TRUE(owner.whole);
  EXPECT_FALSE(wire.closed);
  owner.stream.send_body("pong", false);
  owner.stream.send_body({}, true);
  EXPECT_TRUE(wire.shut);
  wire.turn(*codec);
  EXPECT_EQ(wire.sent, "pong");
  EXPECT_EQ(owner.sent, 1);
  owner.stream.release();
  EXPECT_EQ(wire.closed, Wire::Close::kFlush);
  EXPECT_TRUE(codec->idle());
}

TEST_F(TcpServerTest, TheOtherHalfGoesOnAfterOurs) {
  codec->feed("a");
  clients.last().stream.send_body({}, true);
  wire.turn(*codec);
  EXPECT_EQ(clients.last().sent, 1);
  codec->feed("b");
  codec->on_eof();
  EXPECT_EQ(clients.last().body, "ab");
  EXPECT_TRUE(clients.last().whole);
}

TEST_F(TcpServerTest, AResetReachesTheOtherSide) {
  codec->feed("a");
  clients.last().stream.reset(ResetCode::kCancel);
  EXPECT_EQ(wire.closed, Wire::Close::kReset);
}

TEST_F(TcpServerTest, ABrokenConnectionEndsTheStream) {
  codec->feed("a");
  codec->on_broken();
  EXPECT_EQ(clients.last().reset, "client_closed");
}

TEST_F(TcpServerTest, ARefusedStreamClosesTheConnection) {
  clients.refuse_streams = true;
  wire.turn(*codec);
  EXPECT_TRUE(wire.closed);
}

TEST_F(TcpServerTest, TellsWhenASlowReaderHasCaughtUp) {
  codec->feed("a");
  wire.takes = 0;
  const std::string bulk(limits::kHighWater + 1, 'x');
  clients.last().stream.send_body(bulk, false);
  wire.turn(*codec);
  EXPECT_EQ(clients.last().stream.queued(), bulk.size());
  EXPECT_EQ(clients.last().writable, 0);
  wire.takes = SIZE_MAX;
  wire.wake();
  wire.turn(*codec);
  EXPECT_EQ(clients.last().writable, 1);
  EXPECT_EQ(wire.sent, bulk);
}

class TcpClientTest : public testing::Test {
 protected:
  TcpClientTest() {
    owner.release_when_whole = false;
    owner.stream = codec->open(owner);
  }
  FakeWire wire;
  FakePool pool;
  std::unique_ptr<Codec> codec = make_tcp_client(wire, pool);
  ResponseOwner owner;
};

TEST_F(TcpClientTest, TheHeadComesAsSoonAsTheRequestWasSent) {
  EXPECT_EQ(codec->open(owner), nullptr);
  EXPECT_FALSE(codec->reusable());
  RequestHead head(owner.arena);
  owner.stream->send_request(head, false);
  EXPECT_EQ(owner.Record::head, "");  // not inside the owner's own call
  wire.turn(*codec);
  EXPECT_EQ(owner.Record::head, "200 \n");
  owner.stream->send_body("hello", true);
  EXPECT_TRUE(wire.shut);
  wire.turn(*codec);
  EXPECT_EQ(wire.sent, "hello");
  EXPECT_EQ(owner.sent, 1);
  codec->feed("world");
  codec->on_eof();
  EXPECT_EQ(owner.body, "world");
  EXPECT_TRUE(owner.whole);
  owner.stream->release();
  EXPECT_EQ(wire.closed, Wire::Close::kFlush);
}

TEST_F(TcpClientTest, ServerFirstBytesFollowAHead) {
  codec->feed("220");
  EXPECT_EQ(owner.Record::head, "200 \n");
  EXPECT_EQ(owner.body, "220");
}

TEST_F(TcpClientTest, ABrokenConnectionIsRepeatableOnlyBeforeAnyByte) {
  codec->on_broken();
  EXPECT_EQ(owner.reset, "upstream_reset");
  EXPECT_TRUE(owner.repeatable);

  FakeWire other_wire;
  auto other = make_tcp_client(other_wire, pool);
  ResponseOwner second;
  second.stream = other->open(second);
  second.stream->send_request(RequestHead(second.arena), false);
  second.stream->send_body("x", false);
  other->on_broken();
  EXPECT_FALSE(second.repeatable);
}

}  // namespace
}  // namespace outrider
