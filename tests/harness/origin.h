// Servers under a test's control. Origin is a raw one: a script gets each connection, byte by byte.
// HttpOrigin speaks HTTP/1.1 and HTTP/2 on one port, whichever the first bytes say, and calls a
// handler for each request. Invariant: every connection and every handler has a thread of its own,
// all over before the server is gone.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/harness/h2_connection.h"
#include "tests/harness/http.h"
#include "tests/harness/raw_client.h"
#include "tests/harness/socket.h"

namespace outrider::test {

class Origin {
 public:
  // Runs for each accepted connection; `number` counts them from 0. The connection ends when it
  // returns.
  using Script = std::function<void(RawClient& connection, int number)>;

  explicit Origin(Script script, const std::string& address = "127.0.0.1:0");
  ~Origin();
  Origin(const Origin&) = delete;
  Origin& operator=(const Origin&) = delete;

  // Answers every request of every connection alike, keep-alive.
  static Origin answering(int status, std::string body);

  const std::string& address() const { return listener_.address(); }
  int connections() const;
  // Waits until so many connections were accepted.
  void wait_connections(int count);
  // What the connection of this number has sent so far (its first MiB), once its script is done.
  std::string received(int number);
  // Why scripts ended early, one line each.
  std::vector<std::string> problems();

 private:
  struct Connection {
    explicit Connection(Socket socket) : raw(std::move(socket)) {}
    RawClient raw;
    std::thread thread;
    int fd = -1;
    bool done = false;
  };

  void accept_all();
  void serve(Connection& connection, int number);

  const Script script_;
  ListeningSocket listener_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::string> problems_;
  bool stopping_ = false;
  std::thread acceptor_;
};

class HttpOrigin {
 public:
  // Reads the body from the stream and writes the response to it. It runs on a thread of its own.
  using Handler = std::function<void(Stream& stream, const Head& request)>;

  explicit HttpOrigin(Handler handler, H2Connection::Options options = {},
                      const std::string& address = "127.0.0.1:0");
  ~HttpOrigin();

  // Reads each request to its end and answers alike.
  static HttpOrigin answering(Response response);
  // Answers with the request's body and trailers; the request's head is in x-method, x-target and
  // x-authority.
  static HttpOrigin echoing();

  const std::string& address() const { return origin_->address(); }
  int connections() const { return origin_->connections(); }
  // Requests whose head arrived, and all of those heads.
  int requests() const;
  std::vector<Head> heads() const;
  void wait_requests(int count);
  // Every HTTP/2 connection that is open now.
  void each_h2(const std::function<void(H2Connection&)>& visit);

 private:
  // What the connections' threads share with this object, which may move.
  struct Shared;

  static void serve(Shared& shared, RawClient& connection);
  static void serve_h1(Shared& shared, RawClient& connection);
  static void serve_h2(Shared& shared, RawClient& connection);

  std::unique_ptr<Shared> shared_;
  std::unique_ptr<Origin> origin_;
};

}  // namespace outrider::test
