// The two ends of the measured exchanges: clients that ask, and an origin that answers when it is
// told to. Both check what they get. One thread, sockets that do not block; whatever goes wrong
// ends the program with a word.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider::cost {

using Fields = std::vector<std::pair<std::string, std::string>>;

// One exchange, the same each time, whichever protocol it goes over.
struct Shape {
  std::string method = "GET";
  std::string path = "/";
  std::string authority = "shop.example";
  Fields request_fields;
  std::string request_body;
  Fields response_fields;
  std::string response_body;
  Fields trailers;  // of the response
};

[[noreturn]] void die(const std::string& what);

class Peer {
 public:
  Peer(int fd, const Shape& shape) : shape_(shape), fd_(fd) {}
  virtual ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  int fd() const { return fd_; }
  void receive();  // all there is

 protected:
  virtual void on_bytes(std::string_view bytes) = 0;
  void send(std::string_view bytes) const;
  const Shape& shape_;

 private:
  const int fd_;
};

class Client : public Peer {
 public:
  using Peer::Peer;
  virtual void ask(unsigned requests) = 0;  // in one write
  unsigned answers = 0;
};

// The origin's end of one connection.
class Served : public Peer {
 public:
  using Peer::Peer;
  virtual void answer() = 0;  // what waits, in one write
  unsigned waiting = 0;
};

std::unique_ptr<Client> connect_client(unsigned port, bool http2, const Shape& shape);

class Origin {
 public:
  Origin(bool http2, const Shape& shape);
  ~Origin();
  unsigned port() const { return port_; }
  int fd() const { return fd_; }
  void accept();
  unsigned waiting() const;
  unsigned answer();  // everything; on how many connections
  std::vector<std::unique_ptr<Served>> connections;

 private:
  const bool http2_;
  const Shape& shape_;
  int fd_ = -1;
  unsigned port_ = 0;
};

}  // namespace outrider::cost
