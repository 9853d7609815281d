// Plain values for HTTP messages, the same for both versions: what clients send and read, what
// origins answer. Invariant: fields keep their order and their case as they were on the wire.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::test {

enum class Protocol { kHttp1, kHttp2 };

// For parameterised tests: "kHttp1" prints as "H1".
std::string_view name_of(Protocol protocol);

// A wait that took too long, a connection that ended too early, a message that makes no sense.
// Thrown out of a test's body it fails that test; in an origin's script it ends that connection.
class HarnessError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Field {
  std::string name;
  std::string value;
  bool operator==(const Field&) const = default;
};

struct Fields : std::vector<Field> {
  using std::vector<Field>::vector;

  bool has(std::string_view name) const { return count(name) > 0; }
  // The first field of this name, empty without one. Names are compared case-blind.
  std::string value(std::string_view name) const;
  std::size_t count(std::string_view name) const;
};

// The head of a request (status 0) or of a response.
struct Head {
  std::string method = {};
  std::string target = {};
  std::string authority = {};
  std::string protocol = {};  // :protocol of an extended CONNECT, HTTP/2 alone
  int status = 0;
  Fields fields = {};
};

inline constexpr char kAuthority[] = "outrider.test";

struct Request {
  std::string method = "GET";
  std::string target = "/";
  std::string authority = kAuthority;
  Fields fields = {};
  std::string body = {};
  Fields trailers = {};

  Head head() const {
    return {.method = method, .target = target, .authority = authority, .fields = fields};
  }
};

struct Response {
  int status = 0;
  Fields fields = {};
  std::string body = {};
  Fields trailers = {};
  std::vector<Head> informational = {};
};

bool equal_case_blind(std::string_view a, std::string_view b);

// One request and its response seen from one side, over either protocol, blocking with deadlines. A
// client sends a head and a body and reads the others'; an origin's handler the other way round.
class Stream {
 public:
  virtual ~Stream() = default;

  // `end`: nothing follows. With HTTP/1, a body without a content-length field is chunked. A status
  // of 1xx may be sent before the final head.
  virtual void send_head(const Head& head, bool end) = 0;
  virtual void write(std::string_view bytes) = 0;
  virtual void finish(const Fields& trailers = {}) = 0;
  virtual void reset() = 0;

  // The peer's head; for a client, interim ones are in informational().
  virtual Head read_head() = 0;
  // Bytes of the peer's body; 0 at its end. Throws when the stream was cut before.
  virtual std::size_t read(char* into, std::size_t room) = 0;
  virtual const Fields& trailers() const = 0;
  virtual const std::vector<Head>& informational() const = 0;

  std::string read_body();
  void send(const Request& request);
  void send(const Response& response);
  Response read_response();
  Request read_request_body(const Head& head);
};

// A long body that needs no memory: byte i is a function of i and the seed, so either side can
// check every byte.
class Pattern {
 public:
  explicit Pattern(std::uint64_t seed) : seed_(seed) {}

  // Fills with the bytes from the current position on.
  void next(char* into, std::size_t size);
  // True if these bytes are what follows the current position; advances.
  bool matches(const char* bytes, std::size_t size);
  std::uint64_t position() const { return position_; }

 private:
  char at(std::uint64_t position) const;

  std::uint64_t seed_;
  std::uint64_t position_ = 0;
};

// Writes `total` bytes of the pattern and leaves the body open.
void write_pattern(Stream& stream, Pattern& pattern, std::uint64_t total);
// Reads the body to its end and throws at the first byte that differs; the number of bytes.
std::uint64_t read_pattern(Stream& stream, Pattern& pattern);

}  // namespace outrider::test
