// One HTTP/2 connection on nghttp2, client or server, run by a thread of its own. Its streams block
// with deadlines. Flow control is manual: bytes that the test has not read yet hold their window,
// so a test that stops reading makes the peer stop. Invariant: everything below the mutex is
// touched with it held; the thread never runs test code.
#pragma once

#include <nghttp2/nghttp2.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/http.h"
#include "tests/harness/socket.h"

namespace outrider::test {

class H2Connection {
 public:
  enum class Role { kClient, kServer };

  struct Options {
    std::vector<nghttp2_settings_entry> settings = {};
    std::int32_t stream_window = 256 * 1024;
    std::int32_t connection_window = 16 * 1024 * 1024;
  };

  struct Goaway {
    std::uint32_t code = 0;
    std::int32_t last_stream = 0;
  };

  class H2Stream;
  using OnStream = std::function<void(std::shared_ptr<H2Stream>)>;

  // `received`: bytes that were read from the socket before. `on_stream` hears of each request a
  // client opened; it is called on the connection's thread and must not block.
  H2Connection(Socket socket, Role role, Options options, std::string received = {},
               OnStream on_stream = {});
  ~H2Connection();
  H2Connection(const H2Connection&) = delete;
  H2Connection& operator=(const H2Connection&) = delete;

  // A new stream of a client, nothing sent yet.
  std::shared_ptr<H2Stream> open();

  void send_goaway(std::int32_t last_stream, std::uint32_t code);
  void send_settings(const std::vector<nghttp2_settings_entry>& settings);
  // Sends PING and waits for its answer: all that was sent before has then been processed.
  void ping();
  // Ends the connection at once, with RST or with FIN.
  void reset() { end(true); }
  void close() { end(false); }

  // Waits for the first GOAWAY, or for the latest of `count`.
  Goaway wait_goaway(std::size_t count = 1);
  void wait_closed();
  // The same without a deadline, for a server that lives as long as its client likes.
  void wait_over();
  bool closed();
  std::size_t goaways();
  std::uint32_t peer_setting(nghttp2_settings_id id);
  // Waits for the peer's SETTINGS and for its acknowledgement of ours.
  void wait_settings();

 private:
  friend struct H2Callbacks;

  struct State;  // of one stream

  void end(bool with_reset);
  void loop();
  bool exchange_bytes(std::unique_lock<std::mutex>& lock);
  void wake();
  template <class Condition>
  void wait(std::unique_lock<std::mutex>& lock, const char* what, Condition condition);

  Socket socket_;
  const Role role_;
  const OnStream on_stream_;
  int wake_fd_ = -1;

  std::mutex mutex_;
  std::condition_variable changed_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  std::map<std::int32_t, std::shared_ptr<State>> streams_;
  std::vector<std::shared_ptr<State>> begun_;  // for on_stream_, once the mutex is free
  std::vector<Goaway> goaways_;
  std::size_t pings_answered_ = 0;
  std::size_t pings_sent_ = 0;
  bool settings_received_ = false;
  bool settings_acknowledged_ = false;
  bool closing_ = false;
  bool closed_ = false;
  std::thread thread_;
};

// Must not outlive its connection. What it has not read when it goes is given back to the peer's
// window.
class H2Connection::H2Stream final : public Stream {
 public:
  H2Stream(H2Connection& connection, std::shared_ptr<State> state)
      : connection_(connection), state_(std::move(state)) {}
  ~H2Stream() override;

  void send_head(const Head& head, bool end) override;
  void write(std::string_view bytes) override;
  void finish(const Fields& trailers) override;
  void reset() override { reset(NGHTTP2_CANCEL); }
  void reset(std::uint32_t code);

  Head read_head() override;
  std::size_t read(char* into, std::size_t room) override;
  const Fields& trailers() const override;
  const std::vector<Head>& informational() const override;

  // Waits until the stream is over: the peer's RST_STREAM code, none if it ended in order.
  std::optional<std::uint32_t> wait_end();
  // Bytes of the peer's body that arrived and were not read yet.
  std::size_t buffered() const;
  std::int32_t id() const;

 private:
  H2Connection& connection_;
  std::shared_ptr<State> state_;
};

using H2Stream = H2Connection::H2Stream;

}  // namespace outrider::test
