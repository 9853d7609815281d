// One exchange from the client's head to the log line. Its life is the switch in advance();
// everything else here reacts to an event, moves bytes, and calls it again.
#pragma once

#include <array>
#include <memory>

#include "filters/chain.h"
#include "filters/exchange.h"
#include "proxy/codec.h"
#include "proxy/snapshot.h"
#include "proxy/upstream_try.h"

namespace outrider {

class Downstream;
class Worker;
class ServiceRuntime;

class Stream final : public ListNode, private RequestSink, private StreamControl {
 public:
  static Stream* create(Downstream& owner, CodecStream& client);
  RequestSink& request_sink() { return *this; }
  void cut(Reason reason,
           std::string_view words);  // ends it now: an answer if none has begun, else a reset
  std::size_t held_bytes();          // of bodies, in our buffers
  Worker& worker() { return worker_; }

  // From its tries.
  void try_leased(UpstreamTry& attempt);
  void try_failed(UpstreamTry& attempt, const Error& error, std::string_view words);
  void try_timed_out(UpstreamTry& attempt);
  std::string_view pending_words(bool waited);  // no connection: by what limits
  void upstream_interim(UpstreamTry& attempt);
  void upstream_head(UpstreamTry& attempt, bool last);
  void upstream_body(std::string_view bytes, bool last);
  void upstream_passed(std::size_t bytes);
  void upstream_trailers(Headers& trailers);
  void upstream_reset(UpstreamTry& attempt, const Error& error, std::string_view detail);
  void upstream_writable(const UpstreamTry& attempt);
  void upstream_sent(UpstreamTry& attempt);

 private:
  enum class Step : std::uint8_t {
    kRequest,  // route and filters; a target is chosen or an answer made
    kAttempt,  // endpoint and lease; retries return here
    kBackoff,  // between attempts
    kRelay,    // bodies both ways, the slower side sets the pace
    kAnswer,   // a local answer
    kDone,     // logged exactly once, everything given back
  };
  enum class Next : std::uint8_t { kGo, kWait };

  Stream(Downstream& owner, CodecStream& client);
  ~Stream();

  void advance();
  Next request();
  Next attempt();
  Next relay();
  Next answer();
  Next done();

  // The client's half.
  RequestHead& head() override { return x_.request; }
  void on_head(bool last) override;
  void on_body(std::string_view bytes, bool last) override;
  void on_passed(std::size_t bytes) override;
  void on_trailers(Headers& trailers) override;
  void on_bad(const BadRequest& bad) override;
  void on_reset(const Error& error, std::string_view detail) override;
  void on_writable() override;
  void on_sent() override;

  // Where bodies leave the filters that change them.
  struct ToUpstream final : BodyFlow {
    explicit ToUpstream(Stream& owner) : stream(owner) {}
    void on_body(std::string_view bytes, bool last) override { stream.send_up(bytes, last); }
    void on_trailers(Headers& trailers) override { stream.send_up(trailers); }
    Stream& stream;
  };
  struct ToClient final : BodyFlow {
    explicit ToClient(Stream& owner) : stream(owner) {}
    void on_body(std::string_view bytes, bool last) override { stream.send_down(bytes, last); }
    void on_trailers(Headers& trailers) override { stream.send_down(trailers); }
    Stream& stream;
  };
  void send_up(std::string_view bytes, bool last);
  void send_up(Headers& trailers);
  void send_down(std::string_view bytes, bool last);
  void send_down(Headers& trailers);

  // StreamControl, for filters.
  std::uint64_t now_ns() const override;
  void resume() override;
  void resume_after(Millis delay) override;
  bool run_aside(std::shared_ptr<Errand> errand) override;
  std::string_view may_retry(Millis delay) override;
  void retry_after(Millis delay) override;
  void flush_after(Millis delay) override;
  LimitStore* limit_store(const std::shared_ptr<SharedStore>& store) override;
  void fail(const Error& error, std::string_view words) override;

  // A try beside the first one.
  struct Hedge {
    Hedge(Stream& stream, std::unique_ptr<Hedge> before)
        : head(stream.x_.arena), attempt(stream, head), next(std::move(before)) {}
    ResponseHead head;
    UpstreamTry attempt;
    std::unique_ptr<Hedge> next;
  };

  bool draw_target();
  Endpoint* choose_endpoint();
  void begin(UpstreamTry& attempt, Endpoint& endpoint);
  void leased(UpstreamTry& attempt);
  void on_slow();
  bool was_tried(const Endpoint& endpoint) const;
  template <class Visit>
  void each_try(Visit&& visit);
  UpstreamTry* another(const UpstreamTry& attempt);  // that is on its way; null: none
  void choose(UpstreamTry& winner);
  void end_tries(Reason reason);
  void send_request(UpstreamTry& attempt);
  void send_kept_body(UpstreamTry& attempt);
  void drop_kept_body();
  std::size_t replay_limit() const;
  std::size_t kept_bytes() const;
  bool replayable() const;
  void draw_mirror();
  void send_mirror();
  bool wants_another();
  void accept_head(bool last);
  bool take_upgrade(const CompiledTarget& target);
  bool awaits_upgrade() const { return !x_.request.upgrade.empty() && !x_.response_started; }
  void forward_body(std::string_view bytes, bool last);
  void keep_for_retry(std::string_view bytes);
  void tries_failed(const Error& error, std::string_view words);
  void attempt_failed(UpstreamTry& attempt, const Error& error, std::string_view words);
  void give_up(const Error& error, std::string_view words);
  bool take_back();
  bool may_connect_again(const Error& error);
  void take_whole_request();
  bool is_stale(const UpstreamTry& attempt, const Error& error) const;
  void hold_client(bool held);
  void begin_body();
  void start_timers();
  void start_head_timer();
  std::string_view knob(const char* name, const config::Leaf<Millis>& leaf);
  std::string_view knob(const char* name, const config::Leaf<std::uint64_t>& leaf);
  std::string_view knob(const char* name, std::string_view amount, const config::Mark& mark);
  std::string_view body_words();
  std::string_view head_words(const BadRequest& bad);
  void touch();
  void on_total_timeout();
  void on_head_timeout();
  void on_idle_timeout();
  void on_watch();
  void on_flush();
  void watch_client();

  Downstream& owner_;
  Worker& worker_;
  std::shared_ptr<const Snapshot> snapshot_;
  CodecStream* client_;  // null once it is gone
  Exchange x_;
  ToUpstream to_upstream_{*this};
  ToClient to_client_{*this};
  UpstreamTry first_{*this, x_.response};
  std::unique_ptr<Hedge> hedges_;  // latest first
  UpstreamTry* live_ = &first_;    // the one that is relayed, or will be if no other is faster
  ServiceRuntime* runtime_ = nullptr;
  OutBuffer body_;               // request body kept: until there is a lease, and for a retry
  Headers* trailers_ = nullptr;  // the request's
  // What a filter has sent to another thread, and who is to hear that it is back.
  struct Ticket {
    Stream* stream;
  };
  std::shared_ptr<Errand> errand_;
  std::shared_ptr<Ticket> ticket_;  // points here until the exchange ends
  std::string_view answer_body_;

  Timer total_timer_, head_timer_, hedge_timer_, idle_timer_, watch_timer_, flush_timer_;
  std::uint64_t last_moved_ms_ = 0;
  std::uint64_t body_began_ms_ = 0;
  std::uint64_t body_moved_ms_ = 0;
  std::uint64_t held_since_ms_ = 0;
  std::uint64_t held_ms_ = 0;
  std::uint64_t taken_ms_ = 0;  // when the client last took a byte
  std::size_t taken_queued_ = 0;
  std::size_t taken_in_kernel_ = 0;
  std::uint64_t body_limit_ = 0;
  std::uint64_t deadline_ms_ = 0;  // of the total, 0: none

  std::array<const Endpoint*, limits::kMaxRetryAttempts + limits::kMaxHedges + 2> tried_{};
  std::uint8_t tried_count_ = 0;
  std::uint8_t request_position_ = 0;  // in the chain
  std::uint8_t response_position_ = 0;
  Step step_ = Step::kRequest;
  bool paused_ = false;            // a filter will resume
  bool counted_request_ = false;   // in ServiceShared::requests
  bool counted_retry_ = false;     // in ServiceShared::retries
  bool clients_deadline_ = false;  // the total is the client's grpc-timeout
  bool body_kept_ = true;          // body_ holds all of the request body so far
  bool request_ended_ = false;     // client's last byte or trailers came
  bool ended_with_head_ = false;
  bool request_broken_ = false;
  bool stale_retried_ = false;
  bool fresh_ = false;
  bool mirrored_ = false;   // a copy is due when all of the request is here
  bool head_held_ = false;  // of a unary gRPC call, until its trailers tell how it went
  bool client_held_ = false;
  bool sent_ = false;            // the client's half is with the kernel
  bool response_ended_ = false;  // all of it was handed to the client's codec
  bool logged_ = false;
  bool answer_waited_ = false;    // for the rest of the request
  bool awaits_continue_ = false;  // the client sends its body when it has seen 100
  bool interim_sent_ = false;     // a 1xx went out: no other attempt may follow
};

}  // namespace outrider
