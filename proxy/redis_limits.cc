// See redis_limits.h.
#include "proxy/redis_limits.h"

#include <uv.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

#include "config/log.h"

namespace outrider {
namespace {

// A bucket is the moment at which it will be full again, in microseconds of the server's clock
// since 2023, which leaves a double its fractions. Of a clock that went back no more than a whole
// bucket is believed. Steps are whole eighths (Allowance of a shared limit), so nothing is rounded.
// Gives: admitted, microseconds until it is full.
constexpr std::string_view kScript = R"(local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local step, full = tonumber(ARGV[1]), tonumber(ARGV[1]) * tonumber(ARGV[2])
local debt = tonumber(redis.call('GET', KEYS[1]) or now) - now
debt = math.min(math.max(debt, 0), full)
local admitted = debt + step <= full
if admitted then debt = debt + step end
redis.call('SET', KEYS[1], string.format('%.3f', now + debt), 'PX', math.ceil(debt / 1000))
return {admitted and 1 or 0, math.floor(debt)})";
constexpr std::size_t kScriptName = 40;

constexpr std::string_view kPrefix = "outrider:limit:";
constexpr std::size_t kKeyBytes = kPrefix.size() + 32;

std::string_view key_text(const std::array<std::uint64_t, 2>& key, char (&room)[kKeyBytes]) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  char* to = std::copy(kPrefix.begin(), kPrefix.end(), room);
  for (const std::uint64_t half : key)
    for (int shift = 60; shift >= 0; shift -= 4) *to++ = kDigits[half >> shift & 15];
  return {room, kKeyBytes};
}

std::string_view decimal(std::uint64_t number, char (&room)[24]) {
  const char* const end = std::to_chars(room, room + sizeof(room), number).ptr;
  return {room, static_cast<std::size_t>(end - room)};
}

// Nanoseconds as microseconds with three decimals.
std::string_view microseconds(std::uint64_t ns, char (&room)[24]) {
  const int size =
      std::snprintf(room, sizeof(room), "%llu.%03llu", static_cast<unsigned long long>(ns / 1000),
                    static_cast<unsigned long long>(ns % 1000));
  return {room, static_cast<std::size_t>(size)};
}

// What a server says of an error, for the log.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 120));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

}  // namespace

RedisLimits::RedisLimits(Flusher& flusher, std::shared_ptr<SharedStore> store)
    : flusher_(flusher),
      store_(std::move(store)),
      address_(store_->url.address),
      timer_(flusher.loop, call_member<&RedisLimits::on_timer, RedisLimits>, this) {}

RedisLimits::~RedisLimits() { OUTRIDER_ASSERT(wire_ == nullptr); }

void RedisLimits::start() {
  if (state_ == State::kClosed) connect();
}

void RedisLimits::close() {
  if (state_ == State::kUp) store_->connections.fetch_sub(1, std::memory_order_relaxed);
  state_ = State::kClosed;
  timer_.stop();
  drop_wire();
}

void RedisLimits::drop_wire() {
  if (wire_ == nullptr) return;
  wire_->abort();
  flusher_.loop.defer(std::move(wire_));
}

void RedisLimits::connect() {
  state_ = State::kConnecting;
  rest_.clear();
  first_ = next_;
  wire_ = std::make_unique<Connection>(flusher_, *this);
  timer_.start(limits::kStoreConnect);
  const int error = wire_->connect(address_.get());
  if (error != 0) lose(uv_strerror(error));
}

void RedisLimits::on_connected(int status) {
  if (status != 0) return lose(uv_strerror(status));
  state_ = State::kGreeting;
  timer_.start(store_->url.timeout);
  wire_->start_reading();
  const config::StoreUrl& url = store_->url;
  char room[24];
  if (!url.user.empty())
    send(Command::kGreet, {"AUTH", url.user, url.password});
  else if (!url.password.empty())
    send(Command::kGreet, {"AUTH", url.password});
  if (url.database != 0) send(Command::kGreet, {"SELECT", decimal(url.database, room)});
  send(Command::kLoad, {"SCRIPT", "LOAD", kScript});
}

void RedisLimits::on_timer() {
  switch (state_) {
    case State::kClosed: return;
    case State::kAway: return connect();
    case State::kConnecting: return lose("no connection in time");
    case State::kGreeting: return lose("no answer in time");
    case State::kUp: break;
  }
  if (waiting() == 0) {
    send(Command::kPing, {"PING"});
    return;
  }
  const std::uint64_t now = flusher_.loop.now_ms(), due = sent(first_).due_ms;
  if (due <= now)
    lose("no answer in time");
  else
    timer_.start(Millis(due - now));
}

void RedisLimits::send(Command command, std::initializer_list<std::string_view> words,
                       LimitQuestion* question) {
  char room[24];
  wire_->out.append("*");
  wire_->out.append(decimal(words.size(), room));
  for (const std::string_view word : words) {
    wire_->out.append("\r\n$");
    wire_->out.append(decimal(word.size(), room));
    wire_->out.append("\r\n");
    wire_->out.append(word);
  }
  wire_->out.append("\r\n");
  wire_->wake();
  if (state_ == State::kUp && waiting() == 0) timer_.start(store_->url.timeout);
  const auto timeout = static_cast<std::uint64_t>(store_->url.timeout.count());
  sent(next_++) = {command, question, flusher_.loop.now_ms() + timeout};
}

bool RedisLimits::ask(LimitQuestion& question) {
  // A place is left for what is sent without a question.
  if (state_ != State::kUp || waiting() + 1 >= sent_.size()) return false;
  char key[kKeyBytes], step[24], burst[24];
  question.ticket = next_;
  send(Command::kAsk,
       {"EVALSHA", script_, "1", key_text(question.key, key),
        microseconds(question.allowance.step_ns, step), decimal(question.allowance.burst, burst)},
       &question);
  return true;
}

void RedisLimits::forget(LimitQuestion& question) {
  if (question.ticket - first_ < waiting() && sent(question.ticket).question == &question)
    sent(question.ticket).question = nullptr;
}

void RedisLimits::on_bytes(std::string_view bytes) {
  std::string held = std::exchange(rest_, {});
  if (!held.empty()) bytes = held.append(bytes);
  const Connection* const wire = wire_.get();
  while (!bytes.empty()) {
    RedisReply reply;
    const Took took = take_reply(bytes, reply);
    if (took == Took::kBad) return lose("what it said is not understood");
    if (took == Took::kMore) break;
    if (waiting() == 0) return lose("it spoke unasked");
    take(reply);
    if (wire_.get() != wire) return;
  }
  rest_.assign(bytes);
}

void RedisLimits::take(const RedisReply& reply) {
  const Sent sent = pop();
  if (state_ == State::kUp && waiting() == 0) timer_.start(limits::kStorePing);
  const bool error = reply.kind == RedisReply::Kind::kError;
  switch (sent.command) {
    case Command::kGreet:
      // No more than the first word: some servers repeat what they were sent, a password too.
      if (error) lose(printable(reply.text.substr(0, reply.text.find(' '))));
      return;
    case Command::kPing:
      if (error) lose(printable(reply.text));
      return;
    case Command::kLoad:
      if (reply.kind != RedisReply::Kind::kText || reply.text.size() != kScriptName)
        return lose(error ? printable(reply.text) : "it gave the script no name");
      script_ = reply.text;
      if (state_ == State::kGreeting) come_up();
      return;
    case Command::kAsk: return answer(sent, reply);
  }
}

void RedisLimits::answer(const Sent& sent, const RedisReply& reply) {
  const bool known = reply.kind == RedisReply::Kind::kNumbers && reply.count == 2 &&
                     reply.numbers[1] >= 0 && reply.numbers[1] <= INT64_MAX / 1000;
  const Drawn drawn{reply.numbers[0] != 0,
                    known ? static_cast<std::uint64_t>(reply.numbers[1]) * 1000 : 0};
  // Its scripts were flushed: no reason to think that it is not there.
  if (!known && reply.text.starts_with("NOSCRIPT"))
    send(Command::kLoad, {"SCRIPT", "LOAD", kScript});
  else if (!known)
    lose(reply.kind == RedisReply::Kind::kError ? printable(reply.text)
                                                : "what it said is not understood");
  if (sent.question != nullptr) sent.question->answered(sent.question->owner, known, drawn);
}

void RedisLimits::come_up() {
  state_ = State::kUp;
  timer_.start(limits::kStorePing);
  store_->connections.fetch_add(1, std::memory_order_relaxed);
  if (store_->away.exchange(false, std::memory_order_relaxed))
    log::info("shared limits: redis {} answers again", store_->name);
}

// Those who wait hear it; they decide on their own.
void RedisLimits::lose(std::string_view why) {
  if (state_ == State::kUp) store_->connections.fetch_sub(1, std::memory_order_relaxed);
  state_ = State::kAway;
  drop_wire();
  timer_.start(limits::kStoreRetry);
  if (store_->connections.load(std::memory_order_relaxed) == 0 &&
      !store_->away.exchange(true, std::memory_order_relaxed))
    log::warn("shared limits: redis {} is away ({}); until it answers this proxy limits alone",
              store_->name, why);
  while (waiting() != 0)
    if (const Sent sent = pop(); sent.question != nullptr)
      sent.question->answered(sent.question->owner, false, {});
}

}  // namespace outrider
