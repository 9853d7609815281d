// A copy of a request, sent to a service whose answer nobody waits for. Invariant: it holds nothing
// of the exchange it was made from, so it can neither slow nor fail it; how many there are, how
// large and for how long is bounded, and what is over the bounds is dropped and counted.
#pragma once

#include "filters/chain.h"
#include "filters/exchange.h"
#include "proxy/upstream_pool.h"

namespace outrider {

class Worker;

class Mirror final : public ListNode, private ResponseSink, private LeaseWaiter {
 public:
  // `body` is all of the request's.
  static void send(Worker& worker, const Exchange& x, const MirrorTarget& to,
                   const OutBuffer& body);
  void end(Event result);  // gives everything back

 private:
  Mirror(Worker& worker, const Exchange& x, const MirrorTarget& to, const OutBuffer& body);
  ~Mirror() = default;
  void begin();

  ResponseSink& sink() override { return *this; }
  void on_lease(const Lease& lease) override;
  void on_lease_failed(const Error&, std::string_view) override { end(Event::kMirrorFailed); }
  ResponseHead& head() override { return response_; }
  void on_interim() override {}
  void on_head(bool last) override;
  void on_body(std::string_view bytes, bool last) override;
  void on_trailers(Headers& trailers) override;
  void on_reset(const Error& error, std::string_view detail) override;
  void on_writable() override {}
  void on_sent() override;
  void on_timeout() { end(Event::kMirrorFailed); }
  void finish();

  Worker& worker_;
  const std::uint32_t route_label_;
  const MirrorTarget to_;
  Arena arena_;
  RequestHead request_;
  ResponseHead response_;
  OutBuffer body_;
  UpstreamPool* pool_ = nullptr;
  Endpoint* endpoint_ = nullptr;
  Lease lease_;
  Timer timer_;
  const std::uint64_t began_ns_;
  const bool grpc_;
  bool counted_ = false;  // in the service's requests
  bool sent_ = false;
  bool answered_ = false;
  bool ended_ = false;
};

}  // namespace outrider
