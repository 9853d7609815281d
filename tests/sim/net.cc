#include "tests/sim/net.h"

#include <algorithm>
#include <cerrno>

namespace outrider::sim {

namespace {
constexpr Nanos kFirstResend = 200 * kMilli;
constexpr Nanos kLastResend = 3 * kSecond;
constexpr Nanos kFirstSyn = kSecond;
constexpr std::size_t kBacklog = 4096;
constexpr std::size_t kSegment = 64 * 1024;
}  // namespace

std::string to_string(const Place& place) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8)
    text += std::to_string(place.host >> shift & 0xff) + (shift == 0 ? ":" : ".");
  return text + std::to_string(place.port);
}

// ---- one side

std::int64_t End::receive(char* to, std::size_t room) {
  if (inbox_.empty()) {
    if (error_ != 0) return -std::exchange(error_, 0);
    return ended_ || dead_ ? 0 : -EAGAIN;
  }
  const std::size_t size = std::min(room, inbox_.size());
  std::copy_n(inbox_.data(), size, to);
  inbox_.erase(0, size);
  // The peer hears of the room a little later.
  if (other_ != nullptr)
    net_.world.after(net_.delay(host_, peer_.host), [net = &net_, number = other_->number] {
      if (End* const end = net->find(number); end != nullptr) end->tell();
    });
  return static_cast<std::int64_t>(size);
}

std::size_t End::room() const {
  if (other_ == nullptr) return 0;
  const std::size_t used = other_->flight_bytes_ + other_->inbox_.size();
  return used >= kBuffers ? 0 : kBuffers - used;
}

bool End::writable() const {
  return error_ != 0 || dead_ || (established_ && room() >= kBuffers / 3);
}

std::int64_t End::send(std::string_view bytes) {
  if (error_ != 0) return -std::exchange(error_, 0);
  if (dead_ || sending_ended_) return -EPIPE;
  if (!established_) return -EAGAIN;
  const std::size_t size = std::min(bytes.size(), room());
  if (size == 0 && !bytes.empty()) return -EAGAIN;
  // Now and then what was written in one piece comes in two.
  std::size_t done = 0;
  while (done < size) {
    std::size_t part = std::min(size - done, kSegment);
    if (part > 1 && net_.world.below(16) == 0) part = 1 + net_.world.below(part - 1);
    other_->post(Segment::Kind::kBytes, std::string(bytes.substr(done, part)));
    done += part;
  }
  return static_cast<std::int64_t>(size);
}

void End::end_sending() {
  if (std::exchange(sending_ended_, true) || dead_ || other_ == nullptr) return;
  other_->post(Segment::Kind::kEnd, {});
}

void End::close(bool reset) {
  changed = nullptr;
  if (std::exchange(closed_, true)) return;
  if (!dead_) {
    if (reset || !inbox_.empty())
      other_->post(Segment::Kind::kReset, {});
    else
      end_sending();
  }
  net_.closed(*this);
}

int End::take_error() { return -std::exchange(error_, 0); }

std::size_t End::unacknowledged() const { return other_ == nullptr ? 0 : other_->flight_bytes_; }

void End::post(Segment::Kind kind, std::string bytes, Nanos extra) {
  Nanos due = net_.world.now() + net_.delay(peer_.host, host_) + extra;
  if (net_.loss_ > 0 && net_.world.chance() < net_.loss_) due += kFirstResend;
  last_due_ = std::max(due, last_due_ + 1);  // in order
  flight_bytes_ += bytes.size();
  flight_.push_back({kind, std::move(bytes), last_due_});
  if (!std::exchange(pumping_, true))
    net_.world.at(last_due_, [net = &net_, number = number] {
      if (End* const end = net->find(number); end != nullptr) end->pump();
    });
}

// Delivers what has come; a network that lets nothing through is tried again, ever more seldom.
void End::pump() {
  const Nanos now = net_.world.now();
  Nanos next = 0;
  while (!flight_.empty() && next == 0) {
    if (flight_.front().due > now) {
      next = flight_.front().due;
    } else if (!net_.passes(peer_.host, host_)) {
      resend_ = std::clamp(resend_ * 2, kFirstResend, kLastResend);
      next = now + resend_;
    } else {
      resend_ = 0;
      Segment segment = std::move(flight_.front());
      flight_.pop_front();
      flight_bytes_ -= segment.bytes.size();
      arrive(std::move(segment));
    }
  }
  pumping_ = next != 0;
  if (pumping_)
    net_.world.at(next, [net = &net_, number = number] {
      if (End* const end = net->find(number); end != nullptr) end->pump();
    });
}

void End::arrive(Segment segment) {
  using Kind = Segment::Kind;
  if (dead_) return;
  if (closed_) {
    // Nobody is here to take bytes: who sends them is told.
    if (segment.kind == Kind::kBytes) {
      dead_ = true;
      other_->post(Kind::kReset, {});
    } else if (segment.kind == Kind::kReset) {
      dead_ = true;
    }
    return;
  }
  switch (segment.kind) {
    case Kind::kBytes: inbox_ += segment.bytes; break;
    case Kind::kEnd: ended_ = true; break;
    case Kind::kReset:
      error_ = ended_ ? EPIPE : ECONNRESET;
      dead_ = true;
      break;
    case Kind::kEstablished: established_ = true; break;
    case Kind::kRefused:
      error_ = ECONNREFUSED;
      dead_ = true;
      break;
  }
  tell();
}

// ---- the network

End* Net::find(std::uint64_t number) {
  const auto found = ends_.find(number);
  return found == ends_.end() ? nullptr : found->second.get();
}

End* Net::make(Host host, Place peer, bool opener) {
  auto end = std::make_unique<End>(*this, ++opened_, host, peer);
  End* const made = end.get();
  made->opener_ = opener;
  if (opener) ++open_[{host, peer.host}];
  ++open_[{host, 0}];
  ends_.emplace(made->number, std::move(end));
  return made;
}

// Both sides go when both were closed and nothing is on its way that the other must still see.
void Net::closed(End& end) {
  if (end.closed_ && !std::exchange(end.counted_out_, true)) {
    if (end.opener_) --open_[{end.host_, end.peer_.host}];
    --open_[{end.host_, 0}];
  }
  End* const other = end.other_;
  if (other != nullptr && !other->closed_) return;
  const auto numbers = {end.number, other == nullptr ? 0 : other->number};
  world.after(0, [this, numbers = std::vector<std::uint64_t>(numbers)] {
    for (const std::uint64_t number : numbers) ends_.erase(number);
  });
}

End* Net::connect(Host from, Place to) {
  next_port_ =
      next_port_ == 65'535 ? std::uint16_t{1024} : static_cast<std::uint16_t>(next_port_ + 1);
  End* const opener = make(from, to, true);
  End* const taker = make(to.host, {from, next_port_}, false);
  opener->other_ = taker;
  taker->other_ = opener;
  taker->established_ = true;
  taker->closed_ = taker->counted_out_ = true;  // until somebody there has taken it
  --open_[{to.host, 0}];
  const std::uint64_t number = opener->number;
  world.after(delay(from, to.host), [this, number, to] { syn(number, to, kFirstSyn); });
  return opener;
}

void Net::syn(std::uint64_t number, Place to, Nanos resend) {
  End* const opener = find(number);
  if (opener == nullptr || opener->closed_) return;
  const auto found = listening_.find(to);
  const bool refused = found == listening_.end() || found->second.empty() || refused_.contains(to);
  std::shared_ptr<Listening> at;
  if (!refused) at = found->second[world.below(found->second.size())];
  if (!passes(opener->host_, to.host) || (at != nullptr && at->backlog.size() >= kBacklog)) {
    world.after(resend, [this, number, to, resend] { syn(number, to, resend * 2); });
    return;
  }
  if (refused) {
    opener->post(End::Segment::Kind::kRefused, {});
    return;
  }
  End* const taker = opener->other_;
  taker->closed_ = taker->counted_out_ = false;
  ++open_[{to.host, 0}];
  opener->post(End::Segment::Kind::kEstablished, {});
  at->backlog.push_back(taker);
  if (at->changed) at->changed();
}

std::shared_ptr<Listening> Net::listen(Place place) {
  return listening_[place].emplace_back(std::make_shared<Listening>());
}

void Net::stop_listening(Place place, const std::shared_ptr<Listening>& listening) {
  std::erase(listening_[place], listening);
  for (End* const end : listening->backlog) end->close(true);
  listening->backlog.clear();
}

void Net::latency(Host host, Nanos base, Nanos jitter) { latencies_[host] = {base, jitter}; }

Nanos Net::delay(Host a, Host b) {
  const auto of = [this](Host host) {
    const auto found = latencies_.find(host);
    return found == latencies_.end() ? Latency{} : found->second;
  };
  const Latency one = of(a);
  const Latency two = of(b);
  const Latency& worse = one.base + one.jitter > two.base + two.jitter ? one : two;
  return worse.base + world.below(worse.jitter + 1);
}

void Net::part(Host a, Host b, bool parted) {
  for (const auto& pair : {std::pair{a, b}, std::pair{b, a}})
    parted ? static_cast<void>(parted_.insert(pair)) : static_cast<void>(parted_.erase(pair));
}

void Net::blackhole(Host host, bool black) {
  black ? static_cast<void>(black_.insert(host)) : static_cast<void>(black_.erase(host));
}

void Net::refuse(Place place, bool refused) {
  refused ? static_cast<void>(refused_.insert(place)) : static_cast<void>(refused_.erase(place));
}

bool Net::passes(Host a, Host b) const {
  return !parted_.contains({a, b}) && !black_.contains(a) && !black_.contains(b);
}

void Net::reset_all(Host host) {
  for (const auto& [number, end] : ends_)
    if (end->host_ == host && !end->closed_ && !end->dead_ && end->established_) {
      end->error_ = ECONNRESET;
      end->dead_ = true;
      end->other_->post(End::Segment::Kind::kReset, {});
      world.after(0, [this, number = number] {
        if (End* const it = find(number); it != nullptr) it->tell();
      });
    }
}

std::size_t Net::open(Host from, Host to) const {
  const auto found = open_.find({from, to});
  return found == open_.end() ? 0 : found->second;
}

}  // namespace outrider::sim
