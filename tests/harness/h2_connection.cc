// nghttp2 behind a mutex, driven by one thread: poll, read, write; streams wait on one condition
// variable.
#include "tests/harness/h2_connection.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace outrider::test {
namespace {

constexpr std::size_t kOutLimit = 256 * 1024;

}  // namespace

struct H2Connection::State {
  std::int32_t id = -1;
  // Received.
  std::optional<Head> head;
  Head collecting;
  std::vector<Head> informational;
  Fields trailers;
  std::string in;
  bool ended = false;      // END_STREAM came
  bool closed = false;     // nothing more will happen
  bool abandoned = false;  // nobody will read
  std::optional<std::uint32_t> reset_code;
  // To be sent.
  std::string out;
  bool out_ended = false;
  Fields out_trailers;
};

struct H2Callbacks {
  using State = H2Connection::State;

  static H2Connection& self(void* user) { return *static_cast<H2Connection*>(user); }

  static State* find(void* user, std::int32_t id) {
    const auto found = self(user).streams_.find(id);
    return found == self(user).streams_.end() ? nullptr : found->second.get();
  }

  static int begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
    H2Connection& connection = self(user);
    const std::int32_t id = frame->hd.stream_id;
    if (connection.role_ == H2Connection::Role::kServer &&
        frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      auto state = std::make_shared<State>();
      state->id = id;
      connection.streams_[id] = std::move(state);
    }
    if (State* state = find(user, id)) state->collecting = {};
    return 0;
  }

  static int header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                    std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                    std::uint8_t, void* user) noexcept {
    State* state = find(user, frame->hd.stream_id);
    if (state == nullptr) return 0;
    std::string key(reinterpret_cast<const char*>(name), name_size);
    std::string text(reinterpret_cast<const char*>(value), value_size);
    Head& head = state->collecting;
    if (key == ":method") {
      head.method = std::move(text);
    } else if (key == ":path") {
      head.target = std::move(text);
    } else if (key == ":authority") {
      head.authority = std::move(text);
    } else if (key == ":protocol") {
      head.protocol = std::move(text);
    } else if (key == ":status") {
      head.status = std::atoi(text.c_str());
    } else {
      head.fields.push_back({std::move(key), std::move(text)});
    }
    return 0;
  }

  static int frame_received(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
    H2Connection& connection = self(user);
    State* state = find(user, frame->hd.stream_id);
    switch (frame->hd.type) {
      case NGHTTP2_HEADERS:
        if (state != nullptr) head_complete(connection, *state, frame);
        break;
      case NGHTTP2_GOAWAY:
        connection.goaways_.push_back({frame->goaway.error_code, frame->goaway.last_stream_id});
        break;
      case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) ++connection.pings_answered_;
        break;
      case NGHTTP2_SETTINGS:
        ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 ? connection.settings_acknowledged_
                                                   : connection.settings_received_) = true;
        break;
      case NGHTTP2_RST_STREAM:
        if (state != nullptr) state->reset_code = frame->rst_stream.error_code;
        break;
      default: break;
    }
    if (state != nullptr && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
      state->ended = true;
    return 0;
  }

  static void head_complete(H2Connection& connection, State& state, const nghttp2_frame* frame) {
    if (state.collecting.status >= 100 && state.collecting.status < 200) {
      state.informational.push_back(std::move(state.collecting));
    } else if (!state.head) {
      state.head = std::move(state.collecting);
      if (connection.role_ == H2Connection::Role::kServer)
        connection.begun_.push_back(connection.streams_[frame->hd.stream_id]);
    } else {
      state.trailers = std::move(state.collecting.fields);
    }
  }

  static int data(nghttp2_session* session, std::uint8_t, std::int32_t id,
                  const std::uint8_t* bytes, std::size_t size, void* user) noexcept {
    State* state = find(user, id);
    if (state == nullptr || state->abandoned) {
      nghttp2_session_consume(session, id, size);
    } else {
      state->in.append(reinterpret_cast<const char*>(bytes), size);
    }
    return 0;
  }

  static int stream_closed(nghttp2_session*, std::int32_t id, std::uint32_t code,
                           void* user) noexcept {
    State* state = find(user, id);
    if (state == nullptr) return 0;
    state->closed = true;
    if (code != NGHTTP2_NO_ERROR && !state->reset_code) state->reset_code = code;
    self(user).streams_.erase(id);
    return 0;
  }

  static ssize_t read_body(nghttp2_session* session, std::int32_t id, std::uint8_t* into,
                           std::size_t room, std::uint32_t* flags, nghttp2_data_source*,
                           void* user) noexcept {
    State* state = find(user, id);
    if (state == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (state->out.empty() && !state->out_ended) return NGHTTP2_ERR_DEFERRED;
    const std::size_t size = std::min(room, state->out.size());
    std::memcpy(into, state->out.data(), size);
    state->out.erase(0, size);
    if (state->out.empty() && state->out_ended) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!state->out_trailers.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const auto fields = pairs(state->out_trailers);
        nghttp2_submit_trailer(session, id, fields.data(), fields.size());
      }
    }
    return static_cast<ssize_t>(size);
  }

  // Views of the fields; they must outlive the call these are given to, which copies them.
  static std::vector<nghttp2_nv> pairs(const Fields& fields) {
    std::vector<nghttp2_nv> views;
    for (const Field& field : fields) {
      views.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(field.name.data())),
                       reinterpret_cast<std::uint8_t*>(const_cast<char*>(field.value.data())),
                       field.name.size(), field.value.size(), NGHTTP2_NV_FLAG_NONE});
    }
    return views;
  }
};

H2Connection::H2Connection(Socket socket, Role role, Options options, std::string received,
                           OnStream on_stream)
    : socket_(std::move(socket)),
      role_(role),
      on_stream_(std::move(on_stream)),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, H2Callbacks::begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, H2Callbacks::header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, H2Callbacks::frame_received);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, H2Callbacks::data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, H2Callbacks::stream_closed);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_peer_max_concurrent_streams(option, 1000);
  if (role_ == Role::kClient) {
    nghttp2_session_client_new2(&session_, callbacks, this, option);
  } else {
    nghttp2_session_server_new2(&session_, callbacks, this, option);
  }
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);

  std::vector<nghttp2_settings_entry> settings = std::move(options.settings);
  const auto names_window = [](const nghttp2_settings_entry& entry) {
    return entry.settings_id == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE;
  };
  if (std::none_of(settings.begin(), settings.end(), names_window))
    settings.push_back(
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<std::uint32_t>(options.stream_window)});
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, options.connection_window);
  if (!received.empty())
    nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(received.data()),
                             received.size());
  thread_ = std::thread([this] { loop(); });
}

H2Connection::~H2Connection() {
  end(false);
  thread_.join();
  nghttp2_session_del(session_);
  ::close(wake_fd_);
}

void H2Connection::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

void H2Connection::end(bool with_reset) {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    if (with_reset && !closed_) {
      const linger abort{1, 0};
      setsockopt(socket_.fd(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
  }
  wake();
}

// One turn of reading and writing; false when the connection is over.
bool H2Connection::exchange_bytes(std::unique_lock<std::mutex>& lock) {
  const std::uint8_t* bytes = nullptr;
  while (out_.size() < kOutLimit) {
    const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
    if (size < 0) return false;
    if (size == 0) break;
    out_.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
  }
  const bool more = out_.size() >= kOutLimit;  // than was taken now
  if (!out_.empty()) {
    const ssize_t sent = ::send(socket_.fd(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      out_.erase(0, static_cast<std::size_t>(sent));
      changed_.notify_all();
    } else if (errno != EAGAIN && errno != EINTR) {
      return false;
    }
  }
  if (out_.empty() && nghttp2_session_want_write(session_) == 0 &&
      nghttp2_session_want_read(session_) == 0)
    return false;

  const short events = static_cast<short>(POLLIN | (out_.empty() ? 0 : POLLOUT));
  lock.unlock();
  pollfd waiting[2] = {{socket_.fd(), events, 0}, {wake_fd_, POLLIN, 0}};
  poll(waiting, 2, more && out_.empty() ? 0 : -1);
  if (waiting[1].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t drained = ::read(wake_fd_, &count, sizeof count);
  }
  lock.lock();
  if (closing_) return false;
  if (waiting[0].revents == 0) return true;
  char chunk[64 * 1024];
  const ssize_t got = ::recv(socket_.fd(), chunk, sizeof chunk, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
  if (got > 0 && nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(chunk),
                                          static_cast<std::size_t>(got)) < 0)
    return false;
  changed_.notify_all();
  return true;
}

void H2Connection::loop() {
  std::unique_lock lock(mutex_);
  for (bool alive = true; alive; alive = exchange_bytes(lock)) {
    for (auto& state : std::exchange(begun_, {}))
      if (on_stream_) on_stream_(std::make_shared<H2Stream>(*this, std::move(state)));
  }
  closed_ = true;
  for (auto& [id, state] : streams_) state->closed = true;
  socket_.close();
  changed_.notify_all();
}

template <class Condition>
void H2Connection::wait(std::unique_lock<std::mutex>& lock, const char* what, Condition condition) {
  if (!changed_.wait_for(lock, patience(), condition))
    throw HarnessError(std::string("no ") + what + " in time");
}

std::shared_ptr<H2Stream> H2Connection::open() {
  return std::make_shared<H2Stream>(*this, std::make_shared<State>());
}

void H2Connection::send_goaway(std::int32_t last_stream, std::uint32_t code) {
  const std::lock_guard lock(mutex_);
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, last_stream, code, nullptr, 0);
  wake();
}

void H2Connection::send_settings(const std::vector<nghttp2_settings_entry>& settings) {
  const std::lock_guard lock(mutex_);
  settings_acknowledged_ = false;
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  wake();
}

void H2Connection::ping() {
  std::unique_lock lock(mutex_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  const std::size_t number = ++pings_sent_;
  wake();
  wait(lock, "PING answer", [&] { return pings_answered_ >= number || closed_; });
  if (pings_answered_ < number) throw HarnessError("the connection ended before PING was answered");
}

H2Connection::Goaway H2Connection::wait_goaway(std::size_t count) {
  std::unique_lock lock(mutex_);
  wait(lock, "GOAWAY", [&] { return goaways_.size() >= count || closed_; });
  if (goaways_.size() < count) throw HarnessError("the connection ended without GOAWAY");
  return goaways_[count - 1];
}

void H2Connection::wait_closed() {
  std::unique_lock lock(mutex_);
  wait(lock, "end of the connection", [&] { return closed_; });
}

void H2Connection::wait_over() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return closed_; });
}

bool H2Connection::closed() {
  const std::lock_guard lock(mutex_);
  return closed_;
}

std::size_t H2Connection::goaways() {
  const std::lock_guard lock(mutex_);
  return goaways_.size();
}

std::uint32_t H2Connection::peer_setting(nghttp2_settings_id id) {
  const std::lock_guard lock(mutex_);
  return nghttp2_session_get_remote_settings(session_, id);
}

void H2Connection::wait_settings() {
  std::unique_lock lock(mutex_);
  wait(lock, "SETTINGS", [&] { return (settings_received_ && settings_acknowledged_) || closed_; });
}

H2Stream::~H2Stream() {
  const std::lock_guard lock(connection_.mutex_);
  state_->abandoned = true;
  if (!state_->in.empty() && !connection_.closed_)
    nghttp2_session_consume(connection_.session_, state_->id, state_->in.size());
  connection_.wake();
}

void H2Stream::send_head(const Head& head, bool end) {
  std::unique_lock lock(connection_.mutex_);
  if (connection_.closed_) throw HarnessError("the connection has ended");
  Fields fields;
  if (head.status != 0) {
    fields.push_back({":status", std::to_string(head.status)});
  } else {
    fields.push_back({":method", head.method});
    if (head.method != "CONNECT" || !head.protocol.empty()) {
      fields.push_back({":scheme", "http"});
      fields.push_back({":path", head.target});
    }
    if (!head.authority.empty()) fields.push_back({":authority", head.authority});
    if (!head.protocol.empty()) fields.push_back({":protocol", head.protocol});
  }
  fields.insert(fields.end(), head.fields.begin(), head.fields.end());
  const auto views = H2Callbacks::pairs(fields);
  nghttp2_data_provider body{};
  body.read_callback = H2Callbacks::read_body;
  const nghttp2_data_provider* provider = end ? nullptr : &body;
  int result = 0;
  if (head.status >= 100 && head.status < 200) {
    result = nghttp2_submit_headers(connection_.session_, NGHTTP2_FLAG_NONE, state_->id, nullptr,
                                    views.data(), views.size(), nullptr);
  } else if (head.status != 0) {
    result = nghttp2_submit_response(connection_.session_, state_->id, views.data(), views.size(),
                                     provider);
  } else {
    result = nghttp2_submit_request(connection_.session_, nullptr, views.data(), views.size(),
                                    provider, nullptr);
    if (result > 0) {
      state_->id = result;
      connection_.streams_[result] = state_;
    }
  }
  if (result < 0) throw HarnessError(std::string("nghttp2: ") + nghttp2_strerror(result));
  connection_.wake();
}

void H2Stream::write(std::string_view bytes) {
  std::unique_lock lock(connection_.mutex_);
  connection_.wait(lock, "room for the body", [&] {
    return state_->out.size() < kOutLimit || state_->closed || connection_.closed_;
  });
  if (state_->closed || connection_.closed_) throw HarnessError("the stream has ended");
  state_->out.append(bytes);
  nghttp2_session_resume_data(connection_.session_, state_->id);
  connection_.wake();
}

void H2Stream::finish(const Fields& trailers) {
  const std::lock_guard lock(connection_.mutex_);
  state_->out_trailers = trailers;
  state_->out_ended = true;
  nghttp2_session_resume_data(connection_.session_, state_->id);
  connection_.wake();
}

void H2Stream::reset(std::uint32_t code) {
  const std::lock_guard lock(connection_.mutex_);
  nghttp2_submit_rst_stream(connection_.session_, NGHTTP2_FLAG_NONE, state_->id, code);
  connection_.wake();
}

Head H2Stream::read_head() {
  std::unique_lock lock(connection_.mutex_);
  connection_.wait(lock, "head",
                   [&] { return state_->head || state_->closed || connection_.closed_; });
  if (state_->head) return *state_->head;
  if (state_->reset_code)
    throw HarnessError("reset before a head, code " + std::to_string(*state_->reset_code));
  throw HarnessError("the connection ended before a head");
}

std::size_t H2Stream::read(char* into, std::size_t room) {
  std::unique_lock lock(connection_.mutex_);
  connection_.wait(lock, "body", [&] {
    return !state_->in.empty() || state_->ended || state_->closed || connection_.closed_;
  });
  if (state_->in.empty()) {
    if (state_->ended) return 0;
    if (state_->reset_code)
      throw HarnessError("reset within the body, code " + std::to_string(*state_->reset_code));
    throw HarnessError("the connection ended within the body");
  }
  const std::size_t size = std::min(room, state_->in.size());
  std::memcpy(into, state_->in.data(), size);
  state_->in.erase(0, size);
  if (!connection_.closed_) nghttp2_session_consume(connection_.session_, state_->id, size);
  connection_.wake();
  return size;
}

const Fields& H2Stream::trailers() const { return state_->trailers; }

const std::vector<Head>& H2Stream::informational() const { return state_->informational; }

std::optional<std::uint32_t> H2Stream::wait_end() {
  std::unique_lock lock(connection_.mutex_);
  connection_.wait(lock, "end of the stream",
                   [&] { return state_->closed || connection_.closed_; });
  return state_->reset_code;
}

std::size_t H2Stream::buffered() const {
  const std::lock_guard lock(connection_.mutex_);
  return state_->in.size();
}

std::int32_t H2Stream::id() const { return state_->id; }

}  // namespace outrider::test
