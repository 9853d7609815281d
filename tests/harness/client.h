// A well-behaved client over either protocol: whole requests in one call, or streams to drive piece
// by piece.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tests/harness/h1_stream.h"
#include "tests/harness/h2_connection.h"
#include "tests/harness/http.h"

namespace outrider::test {

class Client {
 public:
  explicit Client(std::string address, Protocol protocol = Protocol::kHttp1,
                  H2Connection::Options options = {});

  Response get(const std::string& target) { return request({.target = target}); }
  Response post(const std::string& target, std::string body) {
    return request({.method = "POST", .target = target, .body = std::move(body)});
  }
  // One request, its whole response. HTTP/1 keeps its connection while both sides allow it.
  Response request(const Request& request);

  // A new stream: on the one connection with HTTP/2, on a connection of its own with HTTP/1. It
  // must not outlive this.
  std::shared_ptr<Stream> open();

  Protocol protocol() const { return protocol_; }
  // Connections made so far by request().
  int connections() const { return connections_; }
  H2Connection& h2();

 private:
  RawClient& h1();

  const std::string address_;
  const Protocol protocol_;
  const H2Connection::Options options_;
  std::unique_ptr<H2Connection> h2_;
  std::optional<RawClient> h1_;
  int connections_ = 0;
};

}  // namespace outrider::test
