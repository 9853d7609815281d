// Server connections of one worker, leased per attempt: most recently used first, so that pools
// shrink by themselves. HTTP/2 connections carry many leases at once. Who must wait for a
// connection waits here, bounded by the service's limits.
#pragma once

#include <memory>
#include <vector>

#include "discovery/metrics.h"
#include "discovery/service.h"
#include "proxy/connection.h"

namespace outrider {

class UpstreamPool;
class UpstreamConnection;

// What goes over a connection.
enum class Speaks : std::uint8_t { kHttp1, kHttp2, kTcp };
inline constexpr std::size_t kSpeaks = 3;

// An attempt's hold on a connection.
struct Lease {
  UpstreamConnection* connection = nullptr;
  CodecStream* stream = nullptr;
  bool reused = false;  // the connection had served before: its peer may have closed it meanwhile
};

// Waits for a lease; hooked into a pool's queue while it does.
class LeaseWaiter {
 public:
  virtual ResponseSink& sink() = 0;
  virtual void on_lease(const Lease& lease) = 0;
  virtual void on_lease_failed(const Error& error, std::string_view words) = 0;

  Hook<LeaseWaiter> place{*this};
  bool fresh_only = false;           // takes no connection older than the last that was lost
  std::uint64_t oldest = 0;          // number of the oldest connection it takes
  bool counted = false;              // in the service's `pending`
  std::uint64_t waits_until_ms = 0;  // 0: it never was counted since acquire()

 protected:
  ~LeaseWaiter() = default;
};

class UpstreamConnection final : public ListNode, private Connection::Events, private ClientEvents {
 public:
  explicit UpstreamConnection(UpstreamPool& pool);
  ~UpstreamConnection();
  void connect();
  void close(Wire::Close how);
  bool http2() const;
  Codec& codec() { return *codec_; }
  // Large bodies of the lease may go to or from that connection within the kernel.
  void link(Connection& client, Codec& codec) {
    if (!http2()) Connection::link(wire_, *codec_, client, codec);
  }
  std::uint32_t leases = 0;
  std::uint64_t served = 0;
  const std::uint64_t number;  // in the pool, by age

 private:
  friend class UpstreamPool;
  void on_connected(int status) override;
  void on_bytes(std::string_view bytes) override;
  void on_eof() override;
  void on_broken() override;
  void before_flush() override;
  void on_flushed() override;
  void on_closed() override;
  void on_capacity() override;
  void on_connect_timeout();
  void on_idle_timeout();
  void settle();
  void set_barren(bool barren);
  void fail_connecting(Reason reason, std::string_view words, Origin origin = Origin::kUpstream);
  void fail_settling(Reason reason, std::string_view words);
  void count(ConnectionState state);
  void place();  // where it belongs after something changed: idle, busy, or closed

  UpstreamPool& pool_;
  Connection wire_;
  std::unique_ptr<Codec> codec_;
  Timer timer_;  // connecting, or idle
  ConnectionState state_ = ConnectionState::kConnecting;
  int connect_status_ = 0;  // an error known at once
  bool settled_ =
      false;  // may be leased: connected, and with HTTP/2 the peer has said how much it takes
  bool barren_ = false;  // HTTP/2: unused, and the peer takes no stream at all
  bool told_ = false;    // those who waited for it know that it failed
};

// Connections to one endpoint in one protocol.
class UpstreamPool {
 public:
  UpstreamPool(Flusher& flusher, Metrics& metrics, Service& service, Endpoint& endpoint,
               Speaks speaks);
  ~UpstreamPool();

  enum class Got : std::uint8_t { kLease, kWaiting, kRefused };
  // kLease: `lease` is filled. kWaiting: the waiter hears later (or cancels). kRefused: the
  // service's limits are reached.
  Got acquire(LeaseWaiter& waiter, Lease& lease);
  void cancel(LeaseWaiter& waiter);
  // After the lease's stream was released or reset, or ended by on_reset.
  void give_back(const Lease& lease);
  // No new leases are coming; idle connections close.
  void close_idle();
  // Closes up to so many idle connections, unless requests wait here too; how many.
  std::size_t yield_idle(std::size_t most);
  void close_all();

  std::size_t connections() const { return count_; }
  Endpoint& endpoint() { return endpoint_; }
  Service& service() { return service_; }

 private:
  friend class UpstreamConnection;
  bool try_lease(LeaseWaiter& waiter, Lease& lease);
  void serve_waiters();
  void connect_for_waiters();
  bool open_connection();
  bool queue(LeaseWaiter& waiter);
  void queue_waiters();
  std::size_t expected_streams() const;  // of connections on their way
  void remove(LeaseWaiter& waiter);
  void connect_failed(const Error& error, std::string_view words);
  void gone(UpstreamConnection& connection);
  void on_pending_tick();
  void end_waiting();
  void ask_for_idle();

  Flusher& flusher_;
  Metrics& metrics_;
  Service& service_;
  Endpoint& endpoint_;
  const Speaks speaks_;
  const bool http2_;
  ListNode idle_;  // of UpstreamConnection, most recently used first: H1 idle, H2 with room
  ListNode busy_;  // H1 leased, H2 full or going away
  ListNode connecting_;
  ListNode waiters_;  // of LeaseWaiter, oldest first
  std::size_t waiter_count_ = 0;
  std::size_t connecting_count_ = 0;
  std::size_t barren_count_ = 0;
  std::size_t count_ = 0;
  std::uint64_t opened_ = 0;
  std::uint64_t fresh_from_ = 0;     // number of the first connection opened after one was lost
  std::size_t pending_ = 0;          // waiters counted in the service's `pending`
  std::uint64_t first_ends_ms_ = 0;  // the time that no waiter's ends before
  Timer pending_tick_;
};

}  // namespace outrider
