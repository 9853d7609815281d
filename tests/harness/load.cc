// Both sides on epoll, one thread each; messages are parsed only as far as their ends.
#include "tests/harness/load.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

namespace outrider::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kIdleFor = 3ms;
constexpr int kTick = 2;  // milliseconds

std::string_view field(std::string_view head, std::string_view name) {
  for (std::size_t at = head.find("\r\n"); at != std::string_view::npos;
       at = head.find("\r\n", at + 2)) {
    const std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() <= name.size() || line[name.size()] != ':' ||
        !equal_case_blind(line.substr(0, name.size()), name))
      continue;
    const std::size_t value = line.find_first_not_of(' ', name.size() + 1);
    return value == std::string_view::npos ? std::string_view() : line.substr(value);
  }
  return {};
}

std::size_t content_length(std::string_view head) {
  return std::strtoull(std::string(field(head, "content-length")).c_str(), nullptr, 10);
}

// The size of the head with its empty line; 0 while it is not all there.
std::size_t head_size(std::string_view bytes) {
  const std::size_t end = bytes.find("\r\n\r\n");
  return end == std::string_view::npos ? 0 : end + 4;
}

Head request_head(std::string_view text) {
  const std::size_t first = text.find(' ');
  const std::size_t second = text.find(' ', first + 1);
  Head head{.method = std::string(text.substr(0, first)),
            .target = std::string(text.substr(first + 1, second - first - 1))};
  for (const char* name : {"idempotency-key", "x-outrider-attempt"})
    if (const std::string_view value = field(text, name); !value.empty())
      head.fields.push_back({name, std::string(value)});
  return head;
}

enum class Came { kBytes, kNothing, kEnd };

Came receive(const Socket& socket, std::string& buffer) {
  char bytes[16 * 1024];
  const ssize_t size = recv(socket.fd(), bytes, sizeof bytes, 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return Came::kNothing;
  if (size <= 0) return Came::kEnd;
  buffer.append(bytes, static_cast<std::size_t>(size));
  return Came::kBytes;
}

void watch(int poll, int fd) {
  epoll_event wanted{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted) != 0) throw HarnessError("epoll_ctl");
}

}  // namespace

// ---- the server

struct LoadServer::Connection {
  explicit Connection(Socket accepted) : socket(std::move(accepted)) {}
  Socket socket;
  std::string received;
  bool head_seen = false;
  std::optional<Clock::time_point> ends;
};

LoadServer::LoadServer(Answer answer, Cuts cuts)
    : answer_(std::move(answer)),
      cuts_(std::move(cuts)),
      listener_(4096),
      poll_(epoll_create1(EPOLL_CLOEXEC)) {
  watch(poll_, listener_.fd());
  thread_ = std::thread([this] { serve(); });
}

LoadServer::~LoadServer() {
  stopping_ = true;
  thread_.join();
  connections_.clear();
  ::close(poll_);
}

void LoadServer::serve() {
  epoll_event events[256];
  while (!stopping_) {
    const int count = epoll_wait(poll_, events, 256, kTick);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener_.fd())
        accept();
      else if (const auto found = connections_.find(fd);
               found != connections_.end() && !read(*found->second))
        connections_.erase(found);
    }
    if (!cuts_) continue;
    const auto now = Clock::now();
    for (auto at = connections_.begin(); at != connections_.end();) {
      Connection& connection = *at->second;
      if (connection.ends && *connection.ends <= now)
        at = connections_.erase(at);
      else
        ++at;
    }
  }
}

void LoadServer::accept() {
  for (int fd; (fd = accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    connections_[fd] = std::make_unique<Connection>(Socket(fd));
    watch(poll_, fd);
  }
}

// False when the connection is over.
bool LoadServer::read(Connection& connection) {
  if (cuts(Moment::kUnread)) {
    connection.socket.reset();
    return false;
  }
  switch (receive(connection.socket, connection.received)) {
    case Came::kNothing: return true;
    case Came::kEnd: return false;
    case Came::kBytes: break;
  }
  const std::size_t head = head_size(connection.received);
  if (head == 0) return true;
  if (!std::exchange(connection.head_seen, true) && cuts(Moment::kHead)) {
    connection.socket.reset();
    return false;
  }
  const std::size_t whole =
      head + content_length(std::string_view(connection.received).substr(0, head));
  if (connection.received.size() < whole) return true;
  ++requests_;
  const bool goes_on = answer(connection);
  connection.received.erase(0, whole);
  connection.head_seen = false;
  return goes_on;
}

bool LoadServer::answer(Connection& connection) {
  const Response response = answer_(request_head(connection.received));
  const std::string text = "HTTP/1.1 " + std::to_string(response.status) +
                           " Status\r\ncontent-length: " + std::to_string(response.body.size()) +
                           "\r\n\r\n" + response.body;
  if (cuts(Moment::kApplied)) {
    connection.socket.reset();
    return false;
  }
  const bool half = cuts(Moment::kAnswered);
  const std::string_view sent =
      std::string_view(text).substr(0, half ? text.size() / 2 : text.size());
  if (!connection.socket.try_send(sent, patience())) return false;
  if (half) {
    connection.socket.reset();
    return false;
  }
  if (cuts(Moment::kIdle)) connection.ends = Clock::now() + kIdleFor;
  return true;
}

// ---- the clients

namespace {

struct LoadConnection {
  Socket socket;
  std::string received;
  std::uint64_t number = 0;
};

class LoadClients {
 public:
  LoadClients(const std::string& address, const LoadScript& script)
      : address_(address), script_(script), poll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~LoadClients() { ::close(poll_); }
  LoadClients(const LoadClients&) = delete;
  LoadClients& operator=(const LoadClients&) = delete;

  void run(int connections) {
    for (int i = 0; i < connections; ++i) begin(std::make_unique<LoadConnection>());
    epoll_event events[256];
    while (!busy_.empty()) {
      const int count = epoll_wait(poll_, events, 256, static_cast<int>(patience().count()));
      if (count == 0)
        throw HarnessError(std::to_string(busy_.size()) + " requests have no outcome");
      for (int i = 0; i < count; ++i)
        if (const auto found = busy_.find(events[i].data.fd); found != busy_.end())
          read(*found->second);
    }
  }

 private:
  // The next request on this connection, or on a new one.
  void begin(std::unique_ptr<LoadConnection> connection) {
    const std::uint64_t number = next_;
    const std::string bytes = script_.request(number);
    if (bytes.empty()) return;
    ++next_;
    if (connection->socket.fd() < 0) {
      connection->socket = Socket::connect(address_);
      watch(poll_, connection->socket.fd());
    }
    connection->number = number;
    connection->received.clear();
    // What a send cannot say the read will.
    static_cast<void>(connection->socket.try_send(bytes, patience()));
    const int fd = connection->socket.fd();
    busy_[fd] = std::move(connection);
  }

  void read(LoadConnection& connection) {
    const Came came = receive(connection.socket, connection.received);
    const std::string_view received = connection.received;
    const std::size_t head = head_size(received);
    const std::string_view head_text = received.substr(0, head);
    const std::size_t whole = head + (head == 0 ? 0 : content_length(head_text));
    if (head != 0 && received.size() >= whole) {
      const int status = std::atoi(std::string(head_text.substr(9, 3)).c_str());
      const bool ends = equal_case_blind(field(head_text, "connection"), "close");
      finish(connection, status, received.substr(head, whole - head), ends);
    } else if (came == Came::kEnd) {
      finish(connection, 0, {}, true);
    }
  }

  void finish(LoadConnection& connection, int status, std::string_view body, bool ends) {
    script_.outcome(connection.number, status, body);
    auto node = busy_.extract(connection.socket.fd());
    if (ends) node.mapped()->socket.close();
    begin(std::move(node.mapped()));
  }

  const std::string& address_;
  const LoadScript& script_;
  const int poll_;
  std::uint64_t next_ = 0;
  std::map<int, std::unique_ptr<LoadConnection>> busy_;
};

}  // namespace

void run_load(const std::string& address, int connections, const LoadScript& script) {
  LoadClients(address, script).run(connections);
}

}  // namespace outrider::test
