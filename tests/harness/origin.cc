// Origins: an acceptor thread, a thread per connection, and for HTTP/2 a thread per request.
#include "tests/harness/origin.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "tests/harness/h1_stream.h"

namespace outrider::test {

Origin::Origin(Script script, const std::string& address)
    : script_(std::move(script)), listener_(1024, address) {
  acceptor_ = std::thread([this] { accept_all(); });
}

Origin::~Origin() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& connection : connections_)
      if (!connection->done) ::shutdown(connection->fd, SHUT_RDWR);
  }
  listener_.shutdown();
  acceptor_.join();
  for (const auto& connection : connections_) connection->thread.join();
}

Origin Origin::answering(int status, std::string body) {
  return Origin([status, body = std::move(body)](RawClient& connection, int) {
    while (!connection.peek(1).empty()) {
      const Request request = connection.read_request();
      std::string answer = "HTTP/1.1 " + std::to_string(status) +
                           " Status\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
      if (request.method != "HEAD") answer += body;
      connection.send(answer);
    }
  });
}

void Origin::accept_all() {
  for (;;) {
    Socket socket = listener_.accept();
    if (socket.fd() < 0) return;
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    auto connection = std::make_unique<Connection>(std::move(socket));
    connection->fd = connection->raw.socket().fd();
    Connection& started = *connection;
    const int number = static_cast<int>(connections_.size());
    connections_.push_back(std::move(connection));
    started.thread = std::thread([this, &started, number] { serve(started, number); });
    changed_.notify_all();
  }
}

void Origin::serve(Connection& connection, int number) {
  std::string problem;
  try {
    script_(connection.raw, number);
  } catch (const HarnessError& error) {
    problem = "connection " + std::to_string(number) + ": " + error.what();
  }
  const std::lock_guard lock(mutex_);
  connection.done = true;
  connection.raw.close();
  if (!problem.empty() && !stopping_) problems_.push_back(std::move(problem));
  changed_.notify_all();
}

int Origin::connections() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(connections_.size());
}

void Origin::wait_connections(int count) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, patience(),
                         [&] { return static_cast<int>(connections_.size()) >= count; }))
    throw HarnessError("only " + std::to_string(connections_.size()) + " connections came");
}

std::string Origin::received(int number) {
  std::unique_lock lock(mutex_);
  const auto over = [&] {
    return static_cast<std::size_t>(number) < connections_.size() &&
           connections_[static_cast<std::size_t>(number)]->done;
  };
  if (!changed_.wait_for(lock, patience(), over))
    throw HarnessError("connection " + std::to_string(number) + " is not over");
  return connections_[static_cast<std::size_t>(number)]->raw.received();
}

std::vector<std::string> Origin::problems() {
  const std::lock_guard lock(mutex_);
  return problems_;
}

struct HttpOrigin::Shared {
  Handler handler;
  H2Connection::Options options;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Head> heads;
  std::vector<H2Connection*> open_h2;
  bool stopping = false;

  void seen(const Head& head) {
    const std::lock_guard lock(mutex);
    heads.push_back(head);
    changed.notify_all();
  }
};

HttpOrigin::HttpOrigin(Handler handler, H2Connection::Options options, const std::string& address)
    : shared_(std::make_unique<Shared>()) {
  shared_->handler = std::move(handler);
  shared_->options = std::move(options);
  origin_ = std::make_unique<Origin>(
      [shared = shared_.get()](RawClient& connection, int) { serve(*shared, connection); },
      address);
}

HttpOrigin::~HttpOrigin() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
    for (H2Connection* connection : shared_->open_h2) connection->close();
  }
  origin_.reset();
}

HttpOrigin HttpOrigin::answering(Response response) {
  return HttpOrigin([response = std::move(response)](Stream& stream, const Head& head) {
    stream.read_body();
    Response answer = response;
    if (head.method == "HEAD") answer.body.clear();
    stream.send(answer);
  });
}

HttpOrigin HttpOrigin::echoing() {
  return HttpOrigin([](Stream& stream, const Head& head) {
    Request request = stream.read_request_body(head);
    stream.send(Response{.status = 200,
                         .fields = {{"x-method", head.method},
                                    {"x-target", head.target},
                                    {"x-authority", head.authority}},
                         .body = head.method == "HEAD" ? std::string() : std::move(request.body),
                         .trailers = std::move(request.trailers)});
  });
}

int HttpOrigin::requests() const {
  const std::lock_guard lock(shared_->mutex);
  return static_cast<int>(shared_->heads.size());
}

std::vector<Head> HttpOrigin::heads() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->heads;
}

void HttpOrigin::wait_requests(int count) {
  std::unique_lock lock(shared_->mutex);
  if (!shared_->changed.wait_for(lock, patience(),
                                 [&] { return static_cast<int>(shared_->heads.size()) >= count; }))
    throw HarnessError("only " + std::to_string(shared_->heads.size()) + " requests came");
}

void HttpOrigin::each_h2(const std::function<void(H2Connection&)>& visit) {
  const std::lock_guard lock(shared_->mutex);
  for (H2Connection* connection : shared_->open_h2) visit(*connection);
}

void HttpOrigin::serve(Shared& shared, RawClient& connection) {
  if (connection.peek(3) == "PRI") {
    serve_h2(shared, connection);
  } else {
    serve_h1(shared, connection);
  }
}

void HttpOrigin::serve_h1(Shared& shared, RawClient& connection) {
  while (!connection.peek(1).empty()) {
    const Head head = connection.read_head();
    shared.seen(head);
    H1Stream stream(connection, head);
    shared.handler(stream, head);
    // A handler may have answered before it read the whole request.
    stream.read_body();
    if (!stream.reusable()) return;
  }
}

void HttpOrigin::serve_h2(Shared& shared, RawClient& connection) {
  std::mutex mutex;
  std::condition_variable changed;
  int running = 0;
  const auto handle = [&](H2Stream& stream) {
    try {
      const Head head = stream.read_head();
      shared.seen(head);
      shared.handler(stream, head);
    } catch (const HarnessError&) {
      // The stream or its connection ended first, which is what many tests are about.
    }
  };
  const auto on_stream = [&](std::shared_ptr<H2Stream> stream) {
    const std::lock_guard lock(mutex);
    ++running;
    std::thread([&, stream = std::move(stream)]() mutable {
      handle(*stream);
      stream.reset();
      const std::lock_guard ending(mutex);
      --running;
      changed.notify_all();
    }).detach();
  };
  // The socket stays the raw connection's, so that stopping the origin ends it too.
  H2Connection h2(Socket(::dup(connection.socket().fd())), H2Connection::Role::kServer,
                  shared.options, connection.take_buffer(), on_stream);
  {
    const std::lock_guard lock(shared.mutex);
    shared.open_h2.push_back(&h2);
    if (shared.stopping) h2.close();
  }
  h2.wait_over();
  {
    const std::lock_guard lock(shared.mutex);
    std::erase(shared.open_h2, &h2);
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return running == 0; });
}

}  // namespace outrider::test
