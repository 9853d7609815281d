// When a connection writes: what is queued leaves once a turn, and a head waits a little for its
// body. The other end keeps the bounds of messages, so that each write shows.
#include "proxy/connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "proxy/kernel_sockets.h"

namespace outrider {
namespace {

class ConnectionWrites : public testing::Test, private Connection::Events {
 protected:
  ConnectionWrites() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    connection_.accept(sockets_.adopt(ends[0]));
    other_ = ends[1];
    watch_.data = this;
    uv_poll_init(loop_.uv(), &watch_, other_);
    uv_poll_start(&watch_, UV_READABLE, [](uv_poll_t* handle, int, int) {
      auto* self = static_cast<ConnectionWrites*>(handle->data);
      char bytes[64];
      const ssize_t size = recv(self->other_, bytes, sizeof(bytes), 0);
      if (size > 0) self->writes_.emplace_back(bytes, static_cast<std::size_t>(size));
      self->loop_.stop();
    });
  }
  ~ConnectionWrites() override {
    uv_close(reinterpret_cast<uv_handle_t*>(&watch_), nullptr);
    connection_.abort();
    loop_.settle();
    close(other_);
  }

  void queue(std::string_view bytes) { connection_.out.append(bytes); }
  std::string next_write() {
    loop_.run();
    if (writes_.empty()) return "nothing";
    std::string first = writes_.front();
    writes_.erase(writes_.begin());
    return first;
  }
  void give_up() { loop_.stop(); }

  void on_connected(int) override {}
  void on_bytes(std::string_view) override {}
  void on_eof() override {}
  void on_broken() override {}
  void before_flush() override {}
  void on_flushed() override {}
  void on_closed() override {}

  UvLoop loop_;
  KernelSockets sockets_{loop_};
  Flusher flusher_{loop_, sockets_};
  Connection connection_{flusher_, *this};
  Timer patience_{loop_, call_member<&ConnectionWrites::give_up, ConnectionWrites>, this};

 private:
  int other_ = -1;
  uv_poll_t watch_{};
  std::vector<std::string> writes_;
};

TEST_F(ConnectionWrites, OnceATurn) {
  queue("one");
  connection_.wake();
  queue(" and two");
  connection_.wake();
  EXPECT_EQ(next_write(), "one and two");
}

TEST_F(ConnectionWrites, AHeadAndTheBodyOfTheNextTurnTogether) {
  queue("head");
  connection_.wake_soon();
  loop_.post([this] {
    queue(" and body");
    connection_.wake();
  });
  EXPECT_EQ(next_write(), "head and body");
}

TEST_F(ConnectionWrites, AHeadAndALargeBodyTogether) {
  queue("head");
  connection_.wake_soon();
  loop_.post([this] { connection_.write_through(" and body"); });
  EXPECT_EQ(next_write(), "head and body");
}

TEST_F(ConnectionWrites, AHeadWhoseBodyDoesNotComeLeavesWithoutAnyEvent) {
  patience_.start(Millis{5000});
  queue("head");
  connection_.wake_soon();
  EXPECT_EQ(next_write(), "head");
  EXPECT_TRUE(patience_.armed());
}

TEST_F(ConnectionWrites, AHeadThatWaitsLeavesBeforeTheEnd) {
  queue("head");
  connection_.wake_soon();
  connection_.close(Wire::Close::kFlush);
  EXPECT_EQ(next_write(), "head");
}

TEST_F(ConnectionWrites, AHeadThatWaitsGoesWithItsConnection) {
  queue("head");
  connection_.wake_soon();
  connection_.abort();
  patience_.start(Millis{20});
  EXPECT_EQ(next_write(), "nothing");
}

TEST_F(ConnectionWrites, WhatIsUrgentTakesAPatientHeadAlong) {
  queue("head");
  connection_.wake_soon();
  connection_.wake();
  connection_.wake_soon();  // is to be written in any case
  loop_.post([this] { queue(" and body"); });
  EXPECT_EQ(next_write(), "head");
}

}  // namespace
}  // namespace outrider
