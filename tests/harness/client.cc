// The client: one kept-alive HTTP/1 connection, or one HTTP/2 connection with many streams.
#include "tests/harness/client.h"

namespace outrider::test {
namespace {

// An HTTP/1 stream that owns its connection.
struct OwnConnection {
  explicit OwnConnection(const std::string& address) : connection(address), stream(connection) {}
  RawClient connection;
  H1Stream stream;
};

}  // namespace

Client::Client(std::string address, Protocol protocol, H2Connection::Options options)
    : address_(std::move(address)), protocol_(protocol), options_(std::move(options)) {}

H2Connection& Client::h2() {
  if (!h2_ || h2_->closed()) {
    h2_.reset();
    h2_ = std::make_unique<H2Connection>(Socket::connect(address_), H2Connection::Role::kClient,
                                         options_);
    ++connections_;
  }
  return *h2_;
}

RawClient& Client::h1() {
  // A connection that the peer has ended meanwhile is readable, with nothing asked for.
  if (h1_ && h1_->socket().readable(std::chrono::milliseconds(0))) h1_.reset();
  if (!h1_) {
    h1_.emplace(address_);
    ++connections_;
  }
  return *h1_;
}

Response Client::request(const Request& request) {
  if (protocol_ == Protocol::kHttp2) {
    const auto stream = h2().open();
    try {
      stream->send(request);
    } catch (const HarnessError&) {  // an early answer ended the upload, or there is none to read
    }
    return stream->read_response();
  }
  H1Stream stream(h1());
  stream.send(request);
  Response response = stream.read_response();
  if (!stream.reusable()) h1_.reset();
  return response;
}

std::shared_ptr<Stream> Client::open() {
  if (protocol_ == Protocol::kHttp2) return h2().open();
  const auto own = std::make_shared<OwnConnection>(address_);
  return {own, &own->stream};
}

}  // namespace outrider::test
