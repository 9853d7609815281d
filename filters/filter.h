// The interface of a filter: one file, one class, three verdicts. A filter serves every worker, so
// it is const; it is made per route target (its settings) and asked only in the phases it names. A
// new filter is filters/<name>.cc, a line in registry.cc, a test, a section in filters/README.md.
#pragma once

#include <cstdint>
#include <memory>

#include "filters/exchange.h"

namespace outrider {

class LimitStore;  // filters/limit_store.h
struct SharedStore;

enum class Phase : std::uint8_t {
  kRequest = 1,        // once, after routing, before the first attempt
  kAttempt = 2,        // before each attempt's head leaves
  kAttemptFailed = 4,  // an attempt failed, or its head asks for another (x.response set,
                       // failed.origin kUpstream)
  kResponse = 8,       // the final response head, in reverse order
  kDone = 16,          // once, the outcome is known
  kSlow = 32,          // an attempt is slow: may another be made beside it?
};

constexpr std::uint8_t operator|(Phase a, Phase b) {
  return static_cast<std::uint8_t>(static_cast<std::uint8_t>(a) | static_cast<std::uint8_t>(b));
}
constexpr std::uint8_t operator|(std::uint8_t a, Phase b) {
  return static_cast<std::uint8_t>(a | static_cast<std::uint8_t>(b));
}

enum class Verdict : std::uint8_t {
  kContinue,
  kPause,     // it will resume once (StreamControl), or set whole_request
  kAskAgain,  // as kPause in kRequest; the same filter is then asked again
  kReply,     // answered: x.answer is set
};

// What would hold the loop up, such as a slow hash: it runs once, on another thread, perhaps after
// its exchange has ended, so it holds all that it needs itself.
class Errand {
 public:
  virtual ~Errand() = default;
  virtual void run() = 0;
};

// What a filter may ask of the exchange's driver (proxy/stream.cc).
class StreamControl {
 public:
  // Now, on the clock of Exchange::started_ns. A client chooses how long its head takes to come, so
  // when the exchange began is no measure for what it may do.
  virtual std::uint64_t now_ns() const = 0;
  virtual void resume() = 0;  // after kPause
  virtual void resume_after(Millis delay) = 0;
  // With kAskAgain: resumes when it has run, and holds it until the exchange ends. False: too many
  // wait already.
  virtual bool run_aside(std::shared_ptr<Errand>) { return false; }  // NOLINT: who runs it keeps it
  // Takes a place under limits.retries, for the whole exchange; else why not, in words.
  virtual std::string_view may_retry(Millis delay) = 0;
  virtual void retry_after(Millis delay) = 0;  // in kAttemptFailed with kPause: attempt again then
  // From a BodyFilter of the response: its on_flush() then.
  virtual void flush_after(Millis delay) = 0;
  // From a BodyFilter: the exchange cannot go on.
  virtual void fail(const Error& error, std::string_view words) = 0;
  // This worker's way to a store that proxies share; null: there is none.
  virtual LimitStore* limit_store(const std::shared_ptr<SharedStore>&) { return nullptr; }

 protected:
  ~StreamControl() = default;
};

class Filter {
 public:
  explicit Filter(std::uint8_t phases) : phases_(phases) {}
  explicit Filter(Phase phase) : phases_(static_cast<std::uint8_t>(phase)) {}
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;
  virtual ~Filter() = default;

  virtual Verdict on_request(Exchange&, StreamControl&) const { return Verdict::kContinue; }
  virtual void on_attempt(Exchange&) const {}
  virtual Verdict on_attempt_failed(Exchange&, const Error&, StreamControl&) const {
    return Verdict::kContinue;
  }
  virtual Verdict on_response(Exchange&, StreamControl&) const { return Verdict::kContinue; }
  virtual bool on_slow(Exchange&, StreamControl&) const { return false; }
  virtual void on_done(Exchange&) const {}
  bool in(Phase phase) const { return (phases_ & static_cast<std::uint8_t>(phase)) != 0; }

 private:
  const std::uint8_t phases_;
};

}  // namespace outrider
