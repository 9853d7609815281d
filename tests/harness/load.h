// Load for tests that count: many keep-alive HTTP/1 connections on one thread, on either side of
// the proxy. Messages have a content-length or no body. Invariant: a request has exactly one
// outcome, and a server counts a request once all of it came.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "tests/harness/http.h"
#include "tests/harness/socket.h"

namespace outrider::test {

// A server whose connections may be reset at any of these moments.
class LoadServer {
 public:
  enum class Moment {
    kUnread,    // bytes of a request wait in the kernel
    kHead,      // its head is read
    kApplied,   // answer() was called, nothing of it is sent
    kAnswered,  // half of the answer is sent
    kIdle,      // all of it is sent: the connection ends in a few milliseconds, used or not
  };
  using Answer = std::function<Response(const Head& request)>;
  using Cuts = std::function<bool(Moment)>;

  // Both are called on the server's own thread.
  explicit LoadServer(Answer answer, Cuts cuts = {});
  ~LoadServer();
  LoadServer(const LoadServer&) = delete;
  LoadServer& operator=(const LoadServer&) = delete;

  const std::string& address() const { return listener_.address(); }
  std::uint64_t requests() const { return requests_; }

 private:
  struct Connection;

  void serve();
  void accept();
  bool read(Connection& connection);
  bool answer(Connection& connection);
  bool cuts(Moment moment) const { return cuts_ && cuts_(moment); }

  const Answer answer_;
  const Cuts cuts_;
  ListeningSocket listener_;
  int poll_ = -1;
  std::map<int, std::unique_ptr<Connection>> connections_;
  std::atomic<std::uint64_t> requests_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

struct LoadScript {
  // The bytes of the next request of whichever connection is free; empty: there are no more.
  std::function<std::string(std::uint64_t number)> request;
  // What became of it: status 0 where the connection ended before the answer was whole.
  std::function<void(std::uint64_t number, int status, std::string_view body)> outcome;
};
// Each connection sends a request, waits for its outcome, sends the next, on a new connection where
// the old one ended. Returns once every request has its outcome.
void run_load(const std::string& address, int connections, const LoadScript& script);

}  // namespace outrider::test
