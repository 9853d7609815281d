// One try upstream: an endpoint, a lease of a connection to it, and what comes back. A stream has
// one at a time, and while it hedges, more. Invariant: a try that was begun is ended exactly once,
// and gives back all it holds then. Its stream (stream_upstream.cc) decides what follows.
#pragma once

#include "filters/exchange.h"
#include "proxy/codec.h"
#include "proxy/upstream_pool.h"

namespace outrider {

class Stream;

class UpstreamTry final : private ResponseSink, private LeaseWaiter {
 public:
  // `head`: where the response's head is read into.
  UpstreamTry(Stream& stream, ResponseHead& head);
  ~UpstreamTry() { OUTRIDER_ASSERT(trace_ == nullptr && stream_ == nullptr); }
  UpstreamTry(const UpstreamTry&) = delete;
  UpstreamTry& operator=(const UpstreamTry&) = delete;

  // Asks for a lease. kLease: it is there, and the caller goes on.
  UpstreamPool::Got begin(UpstreamPool& pool, Endpoint& endpoint, Attempt& trace, bool fresh);
  // Notes how it ended; what it holds stays until drop() or release(). Of what is not the
  // upstream's fault its endpoint hears nothing.
  void end(Reason reason, Origin origin = Origin::kUpstream);
  void drop(ResetCode code);  // gives up its place in the queue, or its stream
  void release();             // both halves are complete

  bool running() const { return trace_ != nullptr; }  // begun and not ended
  CodecStream* stream() const { return stream_; }     // null: no lease
  UpstreamConnection& connection() const { return *connection_; }
  Attempt& trace() const { return *trace_; }
  ResponseHead& head() override { return *head_; }
  void read_into(ResponseHead& head) { head_ = &head; }
  bool reused() const { return reused_; }
  void hold(bool held);
  bool held() const { return held_; }
  Timer& per_try() { return per_try_; }

  bool sent = false;   // the request is with the kernel
  bool ended = false;  // the response's last byte came

 private:
  ResponseSink& sink() override { return *this; }
  void on_lease(const Lease& lease) override;
  void on_lease_failed(const Error& error, std::string_view words) override;
  void on_interim() override;
  void on_head(bool last) override;
  void on_body(std::string_view bytes, bool last) override;
  void on_passed(std::size_t bytes) override;
  void on_trailers(Headers& trailers) override;
  void on_reset(const Error& error, std::string_view detail) override;
  void on_writable() override;
  void on_sent() override;
  void on_per_try_timeout();
  void take(const Lease& lease);
  void give_back();

  Stream& owner_;
  ResponseHead* head_;
  UpstreamPool* pool_ = nullptr;
  Endpoint* endpoint_ = nullptr;
  Attempt* trace_ = nullptr;
  UpstreamConnection* connection_ = nullptr;
  CodecStream* stream_ = nullptr;
  bool reused_ = false;
  bool held_ = false;
  Timer per_try_;
};

}  // namespace outrider
