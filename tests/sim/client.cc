#include "tests/sim/client.h"

#include <cerrno>
#include <utility>

#include "tests/sim/origin.h"

namespace outrider::sim {

struct Client::Connection {
  explicit Connection(End& the_end) : end(&the_end) {}
  End* const end;
  MessageReader reader{true};
  std::string out;
  std::uint64_t request = 0;
  bool busy = false;
  std::uint64_t uses = 0;
};

Client::Client(Net& net, Ledger& ledger, Host host, std::vector<Place> proxies,
               Settings the_settings)
    : settings(the_settings),
      net_(net),
      world_(net.world),
      ledger_(ledger),
      host_(host),
      proxies_(std::move(proxies)) {}

Client::~Client() {
  while (!connections_.empty()) close(connections_.begin()->first, true);
}

void Client::begin(Nanos until) {
  until_ = until;
  next();
}

void Client::next() {
  const auto mean = static_cast<Nanos>(static_cast<double>(kSecond) / settings.per_second);
  world_.after(world_.exponential(mean), [this] {
    if (world_.now() >= until_) return;
    ask();
    next();
  });
}

void Client::ask() {
  const bool post = world_.chance() < settings.posts;
  const std::uint64_t id = ledger_.begin(!post);
  ++open_;
  if (!idle_.empty()) {
    const std::uint64_t number = idle_.back();
    idle_.pop_back();
    return send(number, id);
  }
  const std::uint64_t number = ++numbers_;
  End* const end = net_.connect(host_, proxies_[world_.below(proxies_.size())]);
  connections_.emplace(number, std::make_unique<Connection>(*end));
  end->changed = [this, number] { on_ready(number); };
  send(number, id);
}

void Client::send(std::uint64_t number, std::uint64_t id) {
  Connection& connection = *connections_.at(number);
  const bool post = !ledger_.records[id].idempotent;
  connection.request = id;
  connection.busy = true;
  const std::uint64_t use = ++connection.uses;
  connection.out = (post ? "POST /" : "GET /") + std::to_string(id) + " HTTP/1.1\r\nhost: sim\r\n";
  connection.out += "x-key: " + std::to_string(id % 50) + "\r\n";
  if (post)
    connection.out += "content-length: " + std::to_string(settings.post_body) + "\r\n\r\n" +
                      std::string(settings.post_body, 'p');
  else
    connection.out += "\r\n";
  write(connection);
  world_.after(settings.patience, [this, number, use] {
    const auto found = connections_.find(number);
    if (found == connections_.end() || !found->second->busy || found->second->uses != use) return;
    finish(*found->second, Outcome::kAbandoned, 0, false);
    close(number, false);
  });
}

void Client::write(Connection& connection) {
  while (!connection.out.empty()) {
    const std::int64_t size = connection.end->send(connection.out);
    if (size <= 0) return;  // later, or the end is read soon
    connection.out.erase(0, static_cast<std::size_t>(size));
  }
}

void Client::on_ready(std::uint64_t number) {
  const auto found = connections_.find(number);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (connection.end->writable() && !connection.end->in_error()) write(connection);
  char bytes[16 * 1024];
  std::int64_t size = 0;
  while ((size = connection.end->receive(bytes, sizeof bytes)) > 0)
    connection.reader.feed({bytes, static_cast<std::size_t>(size)});
  const bool ended = size != -EAGAIN;
  Message answer;
  if (connection.busy) {
    switch (connection.reader.next(answer, size == 0)) {
      case MessageReader::Got::kMessage: {
        const int status = answer.status();
        const bool right = status == 200 &&
                           answer.body == Origin::body_of(connection.request, settings.answer_body);
        const bool stays = !ended && answer.field("connection") != "close";
        finish(connection, Outcome::kAnswered, status, right);
        if (!stays) return close(number, false);
        idle_.push_back(number);
        world_.after(settings.idle, [this, number, use = connection.uses] {
          const auto it = connections_.find(number);
          if (it != connections_.end() && !it->second->busy && it->second->uses == use)
            close(number, false);
        });
        return;
      }
      case MessageReader::Got::kBroken: break;
      case MessageReader::Got::kMore:
        if (!ended) return;
        break;
    }
    finish(connection, connection.reader.begun() ? Outcome::kCut : Outcome::kUnheard, 0, false);
    return close(number, true);
  }
  if (connection.reader.begun()) world_.violated("an answer that nobody had asked for");
  if (ended) close(number, false);
}

void Client::finish(Connection& connection, Outcome outcome, int status, bool right) {
  connection.busy = false;
  --open_;
  ledger_.end(connection.request, outcome, status, right);
  if (settings.again && world_.now() < until_ && (outcome != Outcome::kAnswered || status >= 500))
    world_.after(200 * kMilli + world_.below(200 * kMilli), [this] { ask(); });
}

void Client::close(std::uint64_t number, bool reset) {
  const auto found = connections_.find(number);
  if (found->second->busy) {
    found->second->busy = false;
    --open_;
  }
  std::erase(idle_, number);
  found->second->end->close(reset);
  connections_.erase(found);
}

}  // namespace outrider::sim
