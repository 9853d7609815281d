#include "tests/sim/origin.h"

#include <cerrno>
#include <charconv>
#include <utility>

namespace outrider::sim {

struct Origin::Connection {
  explicit Connection(End& the_end) : end(&the_end) {}
  End* const end;
  MessageReader reader{false};
  std::string out;
  bool busy = false;  // one request at a time
  bool ended = false;
  bool closing = false;
};

Origin::Origin(Net& net, Ledger& ledger, Place place, Settings settings)
    : net_(net), world_(net.world), ledger_(ledger), place_(place), settings_(settings) {
  start();
}

Origin::~Origin() { stop(); }

std::string Origin::body_of(std::uint64_t id, std::size_t size) {
  std::string body = std::to_string(id) + ":";
  body.resize(std::max(body.size(), size), static_cast<char>('a' + id % 26));
  return body;
}

void Origin::start() {
  if (listening_ != nullptr) return;
  listening_ = net_.listen(place_);
  listening_->changed = [this] { accept(); };
}

void Origin::stop() {
  if (listening_ == nullptr) return;
  listening_->changed = nullptr;
  net_.stop_listening(place_, std::exchange(listening_, nullptr));
  while (!connections_.empty()) close(connections_.begin()->first, true);
  queue_.clear();
  working_ = 0;
  ++epoch_;
}

void Origin::accept() {
  while (!listening_->backlog.empty()) {
    End* const end = listening_->backlog.front();
    listening_->backlog.pop_front();
    const std::uint64_t number = ++numbers_;
    connections_.emplace(number, std::make_unique<Connection>(*end));
    end->changed = [this, number] { on_ready(number); };
    on_ready(number);
  }
}

void Origin::close(std::uint64_t number, bool reset) {
  const auto found = connections_.find(number);
  found->second->end->close(reset);
  connections_.erase(found);
}

void Origin::on_ready(std::uint64_t number) {
  const auto found = connections_.find(number);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (!connection.out.empty()) write(connection);
  char bytes[16 * 1024];
  std::int64_t size = 0;
  while ((size = connection.end->receive(bytes, sizeof bytes)) > 0)
    connection.reader.feed({bytes, static_cast<std::size_t>(size)});
  if (size < 0 && size != -EAGAIN) return close(number, true);
  connection.ended |= size == 0;
  if (connection.closing) {
    if (connection.out.empty()) close(number, false);
    return;
  }
  Message request;
  if (!connection.busy) {
    switch (connection.reader.next(request, false)) {
      case MessageReader::Got::kMessage: return take(number, request);
      case MessageReader::Got::kBroken:
        world_.violated("an origin was sent what is no request");
        return close(number, true);
      case MessageReader::Got::kMore: break;
    }
    if (connection.ended) close(number, false);
  }
}

void Origin::take(std::uint64_t number, const Message& request) {
  connections_.at(number)->busy = true;
  // "GET /17 HTTP/1.1"
  const std::size_t slash = request.first_line.find('/');
  std::uint64_t id = 0;
  const char* const line = request.first_line.c_str();
  std::from_chars(line + slash + 1, line + request.first_line.size(), id);
  if (id >= ledger_.records.size()) {
    world_.violated("an origin was asked for " + request.first_line);
    return close(number, true);
  }
  ledger_.arrived(id, !request.field("x-outrider-attempt").empty());
  const Job job{number, id, epoch_};
  if (working_ < settings_.at_once)
    work_on(job);
  else
    queue_.push_back(job);
}

void Origin::work_on(const Job& job) {
  ++working_;
  ledger_.applied(job.id);
  const Nanos mean = static_cast<Nanos>(static_cast<double>(settings_.work) * ailment.slowness);
  world_.after(mean / 2 + world_.exponential(mean / 2), [this, job] { done(job); });
}

void Origin::done(const Job& job) {
  if (job.epoch != epoch_) return;
  --working_;
  ++served_;
  const auto found = connections_.find(job.connection);
  if (found != connections_.end() && !ailment.silent) {
    const bool reset = world_.chance() < ailment.resets;
    if (!reset || world_.below(2) == 0) answer(*found->second, job);
    if (reset)
      reset_within(job.connection);
    else
      on_ready(job.connection);
  }
  if (!queue_.empty() && working_ < settings_.at_once) {
    const Job next = queue_.front();
    queue_.pop_front();
    work_on(next);
  }
}

void Origin::answer(Connection& connection, const Job& job) {
  connection.busy = false;
  const std::string body = body_of(job.id, settings_.body);
  const auto with_length = [](const std::string& head, const std::string& what) {
    return head + "\r\ncontent-length: " + std::to_string(what.size()) + "\r\n\r\n" + what;
  };
  if (world_.chance() < ailment.errors) {
    connection.out += with_length("HTTP/1.1 503 Service Unavailable", "unwell");
  } else if (world_.chance() < ailment.garbage) {
    switch (world_.below(4)) {
      case 0: connection.out += with_length("HTTP/1.1 200 OK", "garbage"); break;
      case 1:
        connection.out += "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nlying!";
        connection.closing = true;
        break;
      case 2:
        connection.out += std::string("\x16\x03\x01\x02\x00\x01", 6) + "no HTTP at all\r\n\r\n";
        connection.closing = true;
        break;
      default:
        connection.out += "HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\nand then nothing";
        connection.closing = true;
    }
  } else {
    switch (job.id % 4) {
      case 0: connection.out += with_length("HTTP/1.1 200 OK", body); break;
      case 1: {
        char size[20];
        const auto end = std::to_chars(size, size + sizeof size, body.size(), 16);
        connection.out += "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.out += std::string(size, end.ptr) + "\r\n" + body + "\r\n0\r\n\r\n";
        break;
      }
      default: connection.out += with_length("HTTP/1.1 200 OK\r\nkeep-alive: timeout=30", body);
    }
  }
}

// Somewhere in the answer, or before it.
void Origin::reset_within(std::uint64_t number) {
  Connection& connection = *connections_.at(number);
  connection.busy = true;
  connection.closing = false;
  connection.out.resize(world_.below(connection.out.size() + 1) * 9 / 10);
  write(connection);
  world_.after(world_.below(20 * kMilli), [this, number] {
    if (connections_.contains(number)) close(number, true);
  });
}

void Origin::write(Connection& connection) {
  while (!connection.out.empty()) {
    const std::int64_t size = connection.end->send(connection.out);
    if (size <= 0) return;
    connection.out.erase(0, static_cast<std::size_t>(size));
  }
}

}  // namespace outrider::sim
