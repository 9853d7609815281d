#include "tests/sim/platform.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "config/error.h"

namespace outrider::sim {

namespace {
constexpr Nanos kTurnCost = 3 * kMicro;
constexpr Nanos kSocketCost = 8 * kMicro;  // a request's worth of work, more or less
}  // namespace

// ---- the loop

SimLoop::~SimLoop() {
  run_posts();
  on_turn_end(nullptr, nullptr);
  end_turn();
  OUTRIDER_ASSERT(known_.empty());
}

void SimLoop::settle() { end_turn(); }

std::uint64_t SimLoop::add(Hot& it) {
  known_.emplace(++numbers_, &it);
  return numbers_;
}

void SimLoop::heat(std::uint64_t number) {
  if (std::find(hot_.begin(), hot_.end(), number) == hot_.end()) hot_.push_back(number);
  wake(world_.now());
}

void SimLoop::notify() {
  notified_ = true;
  wake(world_.now());
}

void SimLoop::set_alarm(std::uint64_t due_ms) {
  alarm_ = std::max<Nanos>(due_ms * kMilli, 1);
  wake(alarm_);
}

void SimLoop::stall(Nanos time) {
  busy_until_ = std::max(busy_until_, world_.now()) + time;
  wake(busy_until_);
}

void SimLoop::wake(Nanos when) {
  when = std::max({when, world_.now(), busy_until_});
  if (turn_at_ != 0 && turn_at_ <= when) return;
  turn_at_ = when;
  world_.at(when, [this, when, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired() || turn_at_ != when) return;
    turn_at_ = 0;
    if (busy_until_ > world_.now())
      wake(busy_until_);
    else
      turn();
  });
}

// As libuv's: timers, what is done before a wait, what came, the end.
void SimLoop::turn() {
  ++turns;
  Nanos cost = kTurnCost;
  if (alarm_ != 0 && alarm_ <= world_.now()) {
    alarm_ = 0;
    fire_due();
  }
  const bool only_look = before_wait();
  if (std::exchange(notified_, false)) run_posts();
  std::vector<std::uint64_t> now = std::exchange(hot_, {});
  for (std::size_t i = now.size(); i > 1; --i) std::swap(now[i - 1], now[world_.below(i)]);
  for (const std::uint64_t number : now) {
    auto found = known_.find(number);
    if (found == known_.end() || !found->second->due()) continue;
    cost += kSocketCost + world_.below(kSocketCost);
    found->second->deliver();
    found = known_.find(number);
    if (found != known_.end() && found->second->due()) heat(number);
  }
  end_turn();
  busy_until_ = std::max(busy_until_, world_.now() + cost);
  if (only_look || notified_ || !hot_.empty()) wake(busy_until_);
  if (alarm_ != 0) wake(alarm_);
}

// ---- sockets

namespace {

class SimSocket final : public Socket, private Hot {
 public:
  SimSocket(SimSockets& sockets, SimLoop& loop, End& end)
      : sockets_(sockets), loop_(loop), end_(&end), number_(loop.add(*this)) {
    ++sockets_.open;
    end.changed = [this] {
      if (due()) loop_.heat(number_);
    };
  }
  void close() override {
    --sockets_.open;
    loop_.remove(number_);
    end_->close(reset_);
    delete this;
  }
  End& end() { return *end_; }

 private:
  void update() override {
    if (due()) loop_.heat(number_);
  }
  std::uint8_t state() const {
    return static_cast<std::uint8_t>((end_->readable() ? kReadable : 0) |
                                     (end_->writable() ? kWritable : 0));
  }
  bool due() const override { return (state() & watched_) != 0; }
  void deliver() override {
    const std::uint8_t what = state() & watched_;
    if (!end_->in_error()) return ready(what);
    watched_ = 0;
    ready(kReadable | kWritable);
  }
  ssize_t receive(char* to, std::size_t room) override { return end_->receive(to, room); }
  ssize_t send(const iovec* vectors, int count) override {
    std::string bytes;
    for (int i = 0; i < count; ++i)
      bytes.append(static_cast<const char*>(vectors[i].iov_base), vectors[i].iov_len);
    return end_->send(bytes);
  }
  void end_sending() override { end_->end_sending(); }
  void reset_when_closed() override { reset_ = true; }
  int take_error() override { return end_->take_error(); }
  bool peer_is_gone() const override { return end_->in_error() || end_->gone(); }
  std::size_t unacknowledged() const override { return end_->unacknowledged(); }
  bool peer_address(sockaddr_storage& address) const override {
    auto& in4 = reinterpret_cast<sockaddr_in&>(address);
    in4.sin_family = AF_INET;
    in4.sin_port = htons(end_->peer().port);
    in4.sin_addr.s_addr = htonl(end_->peer().host);
    return true;
  }

  SimSockets& sockets_;
  SimLoop& loop_;
  End* const end_;
  const std::uint64_t number_;
  bool reset_ = false;
};

class SimListening final : public ListeningSocket, private Hot {
 public:
  SimListening(Net& net, SimSockets& sockets, SimLoop& loop, Place place,
               std::shared_ptr<Listening> listening)
      : net_(net),
        sockets_(sockets),
        loop_(loop),
        place_(place),
        listening_(std::move(listening)),
        number_(loop.add(*this)) {
    listening_->changed = [this] { update(); };
  }
  void close() override {
    listening_->changed = nullptr;
    net_.stop_listening(place_, listening_);
    loop_.remove(number_);
    delete this;
  }

 private:
  void update() override {
    if (due()) loop_.heat(number_);
  }
  bool due() const override { return (watched_ & kReadable) != 0 && !listening_->backlog.empty(); }
  void deliver() override { ready(kReadable); }
  SocketHandle accept(int& error) override {
    error = sockets_.full() ? -EMFILE : -EAGAIN;
    if (listening_->backlog.empty() || sockets_.full()) return nullptr;
    if (sockets_.open < static_cast<std::size_t>(sockets_.descriptors_for_clients))
      return sockets_.adopt(take());
    error = -EDQUOT;
    take().close(false);
    return nullptr;
  }
  int turn_away(int most) override {
    int told = 0;
    for (; told < most && !listening_->backlog.empty(); ++told) take().close(false);
    return told;
  }
  End& take() {
    End& end = *listening_->backlog.front();
    listening_->backlog.pop_front();
    return end;
  }

  Net& net_;
  SimSockets& sockets_;
  SimLoop& loop_;
  const Place place_;
  const std::shared_ptr<Listening> listening_;
  const std::uint64_t number_;
};

}  // namespace

SocketHandle SimSockets::adopt(End& end) { return SocketHandle(new SimSocket(*this, loop_, end)); }

SocketHandle SimSockets::connect(const sockaddr& address, int& error) {
  error = full() ? -EMFILE : -EAFNOSUPPORT;
  if (full() || address.sa_family != AF_INET) return nullptr;
  const auto& in4 = reinterpret_cast<const sockaddr_in&>(address);
  return adopt(*net_.connect(host_, {ntohl(in4.sin_addr.s_addr), ntohs(in4.sin_port)}));
}

int SimSockets::bind(Place place) {
  bound_.emplace_back(place, net_.listen(place));
  return static_cast<int>(bound_.size()) - 1;
}

ListeningHandle SimSockets::listen(int descriptor) {
  const auto& [place, listening] = bound_[static_cast<std::size_t>(descriptor)];
  return ListeningHandle(new SimListening(net_, *this, loop_, place, listening));
}

ssize_t SimSockets::fill_pipe(Socket& from, std::size_t most) {
  pipe_.resize(std::min(most, pipe_room()));
  const std::int64_t came = static_cast<SimSocket&>(from).end().receive(pipe_.data(), pipe_.size());
  pipe_.resize(came > 0 ? static_cast<std::size_t>(came) : 0);
  return came;
}

ssize_t SimSockets::empty_pipe(Socket& to, std::size_t most) {
  const std::int64_t went =
      static_cast<SimSocket&>(to).end().send(std::string_view(pipe_).substr(0, most));
  if (went > 0) pipe_.erase(0, static_cast<std::size_t>(went));
  return went;
}

ssize_t SimSockets::read_pipe(char* to, std::size_t room) {
  const std::size_t size = std::min(room, pipe_.size());
  std::copy_n(pipe_.data(), size, to);
  pipe_.erase(0, size);
  return static_cast<ssize_t>(size);
}

}  // namespace outrider::sim
