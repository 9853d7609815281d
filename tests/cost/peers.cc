#include "tests/cost/peers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace outrider::cost {

void die(const std::string& what) {
  std::fprintf(stderr, "outrider_cost: %s\n", what.c_str());
  std::exit(1);
}

namespace {

void check(bool holds, const char* what) {
  if (!holds) die(what + (errno != 0 ? ": " + std::string(std::strerror(errno)) : std::string()));
}

void prepare(int fd) {
  const int on = 1;
  check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
  check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
}

sockaddr_in loopback(unsigned port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

Peer::~Peer() { ::close(fd_); }

void Peer::receive() {
  static char buffer[256 * 1024];
  for (;;) {
    const ssize_t got = ::read(fd_, buffer, sizeof buffer);
    if (got < 0 && errno == EAGAIN) return;
    check(got > 0, got == 0 ? "the proxy closed a connection" : "read");
    on_bytes({buffer, static_cast<std::size_t>(got)});
    if (static_cast<std::size_t>(got) < sizeof buffer) return;
  }
}

void Peer::send(std::string_view bytes) const {
  if (bytes.empty()) return;
  const ssize_t put = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  check(put == static_cast<ssize_t>(bytes.size()), "a socket did not take all at once");
}

// ---- HTTP/1.1

namespace {

std::string h1_message(const std::string& first_line, const Fields& fields,
                       const std::string& body) {
  std::string text = first_line + "\r\n";
  for (const auto& [name, value] : fields) text += name + ": " + value + "\r\n";
  return text + "\r\n" + body;
}

class H1Client final : public Client {
 public:
  H1Client(int fd, const Shape& shape)
      : Client(fd, shape),
        request_(h1_message(shape.method + " " + shape.path + " HTTP/1.1", with_host(shape),
                            shape.request_body)) {}
  void ask(unsigned requests) override {
    if (requests != 1) die("HTTP/1 clients ask one question at a time");
    send(request_);
  }

 private:
  static Fields with_host(const Shape& shape) {
    Fields fields{{"Host", shape.authority}};
    fields.insert(fields.end(), shape.request_fields.begin(), shape.request_fields.end());
    return fields;
  }
  void on_bytes(std::string_view bytes) override {
    in_ += bytes;
    const std::size_t head = in_.find("\r\n\r\n");
    if (head == std::string::npos || in_.size() < head + 4 + shape_.response_body.size()) return;
    if (!in_.starts_with("HTTP/1.1 200 OK\r\n") || in_.substr(head + 4) != shape_.response_body)
      die("a wrong answer:\n" + in_);
    ++answers;
    in_.clear();
  }
  const std::string request_;
  std::string in_;
};

class H1Served final : public Served {
 public:
  H1Served(int fd, const Shape& shape)
      : Served(fd, shape),
        request_line_(shape.method + " " + shape.path + " HTTP/1.1\r\n"),
        response_(h1_message("HTTP/1.1 200 OK", shape.response_fields, shape.response_body)) {}
  void answer() override {
    send(response_);
    waiting = 0;
  }

 private:
  void on_bytes(std::string_view bytes) override {
    in_ += bytes;
    const std::size_t head = in_.find("\r\n\r\n");
    if (head == std::string::npos || in_.size() < head + 4 + shape_.request_body.size()) return;
    if (!in_.starts_with(request_line_) || in_.substr(head + 4) != shape_.request_body)
      die("a wrong request:\n" + in_);
    ++waiting;
    in_.clear();
  }
  const std::string request_line_;
  const std::string response_;
  std::string in_;
};

// ---- HTTP/2

nghttp2_nv field(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return reinterpret_cast<std::uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

void append(std::vector<nghttp2_nv>& to, const Fields& fields) {
  for (const auto& [name, value] : fields) to.push_back(field(name, value));
}

// A message on its way in, by stream.
struct Incoming {
  std::string status;
  std::string body;
  bool trailers = false;
};

// What a client and an origin have in common: a session that sends all it has in one write.
class H2Session {
 public:
  H2Session() = default;
  virtual ~H2Session() { nghttp2_session_del(session_); }
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

 protected:
  void open(bool client) {
    nghttp2_session_callbacks* callbacks = nullptr;
    check(nghttp2_session_callbacks_new(&callbacks) == 0, "nghttp2");
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks,
        [](nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t,
           const std::uint8_t* value, std::size_t size, std::uint8_t, void* self) {
          Incoming& in = static_cast<H2Session*>(self)->incoming_[frame->hd.stream_id];
          if (std::strcmp(reinterpret_cast<const char*>(name), ":status") == 0)
            in.status.assign(reinterpret_cast<const char*>(value), size);
          if (frame->headers.cat == NGHTTP2_HCAT_HEADERS) in.trailers = true;
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data,
                      std::size_t size, void* self) {
          static_cast<H2Session*>(self)->incoming_[id].body.append(
              reinterpret_cast<const char*>(data), size);
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          const bool message = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
          if (frame->hd.type == NGHTTP2_GOAWAY) die("the proxy sent GOAWAY");
          if (frame->hd.type == NGHTTP2_RST_STREAM) die("the proxy sent RST_STREAM");
          if (message && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
            static_cast<H2Session*>(self)->whole(frame->hd.stream_id);
          return 0;
        });
    check((client ? nghttp2_session_client_new : nghttp2_session_server_new)(&session_, callbacks,
                                                                             this) == 0,
          "nghttp2");
    nghttp2_session_callbacks_del(callbacks);
  }
  virtual void on_whole(std::int32_t id, const Incoming& message) = 0;

  void take(std::string_view bytes) {
    const ssize_t taken = nghttp2_session_mem_recv(
        session_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    if (taken < 0) die(std::string("nghttp2: ") + nghttp2_strerror(static_cast<int>(taken)));
  }
  // All that the session has to say.
  std::string_view serialise() {
    out_.clear();
    for (;;) {
      const std::uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size <= 0) return out_;
      out_.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    }
  }
  nghttp2_session* session() { return session_; }

  // A body, then the trailers if there are any.
  struct Body {
    const std::string* bytes;
    const Fields* trailers;
  };
  static nghttp2_data_provider provider(Body& body) {
    nghttp2_data_provider it{};
    it.source.ptr = &body;
    it.read_callback = [](nghttp2_session* session, std::int32_t id, std::uint8_t* to,
                          std::size_t room, std::uint32_t* flags, nghttp2_data_source* source,
                          void*) -> ssize_t {
      const Body& from = *static_cast<Body*>(source->ptr);
      if (from.bytes->size() > room) die("a body larger than a frame");
      std::memcpy(to, from.bytes->data(), from.bytes->size());
      *flags = NGHTTP2_DATA_FLAG_EOF;
      if (!from.trailers->empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        std::vector<nghttp2_nv> fields;
        append(fields, *from.trailers);
        check(nghttp2_submit_trailer(session, id, fields.data(), fields.size()) == 0, "trailers");
      }
      return static_cast<ssize_t>(from.bytes->size());
    };
    return it;
  }

 private:
  void whole(std::int32_t id) {
    on_whole(id, incoming_[id]);
    incoming_.erase(id);
  }
  nghttp2_session* session_ = nullptr;
  std::map<std::int32_t, Incoming> incoming_;
  std::string out_;
};

class H2Client final : public Client, private H2Session {
 public:
  H2Client(int fd, const Shape& shape) : Client(fd, shape), body_{&shape.request_body, &none_} {
    open(true);
    // As load generators do: nobody waits for a window.
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (1U << 30) - 1};
    check(nghttp2_submit_settings(session(), NGHTTP2_FLAG_NONE, &window, 1) == 0, "SETTINGS");
    check(
        nghttp2_session_set_local_window_size(session(), NGHTTP2_FLAG_NONE, 0, (1 << 30) - 1) == 0,
        "the window");
    send(serialise());
    fields_ = {field(":method", shape.method), field(":scheme", "http"),
               field(":authority", shape.authority), field(":path", shape.path)};
    append(fields_, shape.request_fields);
  }
  void ask(unsigned requests) override {
    nghttp2_data_provider data = provider(body_);
    for (unsigned i = 0; i < requests; ++i)
      check(nghttp2_submit_request(session(), nullptr, fields_.data(), fields_.size(),
                                   shape_.request_body.empty() ? nullptr : &data, nullptr) > 0,
            "a request");
    send(serialise());
  }

 private:
  void on_bytes(std::string_view bytes) override {
    take(bytes);
    send(serialise());
  }
  void on_whole(std::int32_t, const Incoming& answer) override {
    if (answer.status != "200" || answer.body != shape_.response_body ||
        answer.trailers == shape_.trailers.empty())
      die("a wrong answer: status " + answer.status + ", " + answer.body);
    ++answers;
  }
  const Fields none_;
  Body body_;
  std::vector<nghttp2_nv> fields_;
};

class H2Served final : public Served, private H2Session {
 public:
  H2Served(int fd, const Shape& shape)
      : Served(fd, shape), body_{&shape.response_body, &shape.trailers} {
    open(false);
    check(nghttp2_submit_settings(session(), NGHTTP2_FLAG_NONE, nullptr, 0) == 0, "SETTINGS");
    send(serialise());
    fields_ = {field(":status", "200")};
    append(fields_, shape.response_fields);
  }
  void answer() override {
    nghttp2_data_provider data = provider(body_);
    for (const std::int32_t id : asked_)
      check(nghttp2_submit_response(session(), id, fields_.data(), fields_.size(), &data) == 0,
            "an answer");
    asked_.clear();
    waiting = 0;
    send(serialise());
  }

 private:
  void on_bytes(std::string_view bytes) override {
    take(bytes);
    send(serialise());
  }
  void on_whole(std::int32_t id, const Incoming& request) override {
    if (request.body != shape_.request_body) die("a wrong request: " + request.body);
    asked_.push_back(id);
    ++waiting;
  }
  Body body_;
  std::vector<nghttp2_nv> fields_;
  std::vector<std::int32_t> asked_;
};

}  // namespace

// ---- connections

std::unique_ptr<Client> connect_client(unsigned port, bool http2, const Shape& shape) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  check(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
  prepare(fd);
  if (http2) return std::make_unique<H2Client>(fd, shape);
  return std::make_unique<H1Client>(fd, shape);
}

Origin::Origin(bool http2, const Shape& shape) : http2_(http2), shape_(shape) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  check(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) == 0, "bind");
  check(::listen(fd_, 1024) == 0, "listen");
  check(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0, "getsockname");
  port_ = ntohs(address.sin_port);
}

Origin::~Origin() { ::close(fd_); }

void Origin::accept() {
  const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
  check(fd >= 0, "accept");
  prepare(fd);
  if (http2_)
    connections.push_back(std::make_unique<H2Served>(fd, shape_));
  else
    connections.push_back(std::make_unique<H1Served>(fd, shape_));
}

unsigned Origin::waiting() const {
  unsigned sum = 0;
  for (const auto& connection : connections) sum += connection->waiting;
  return sum;
}

unsigned Origin::answer() {
  unsigned answered = 0;
  for (const auto& connection : connections) {
    if (connection->waiting == 0) continue;
    connection->answer();
    ++answered;
  }
  return answered;
}

}  // namespace outrider::cost
