// One request and its response, with everything a filter may see of them, and the decisions made so
// far: the trace that `explain`, logs, metrics, error bodies all read, so that they cannot
// disagree. Owned by proxy/stream.h; lives in one worker; strings live in its arena.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "config/error.h"
#include "config/model.h"
#include "discovery/metrics.h"
#include "filters/body.h"
#include "filters/http/message.h"

namespace outrider {

class Endpoint;  // discovery/service.h
class Service;
struct CompiledRoute;  // filters/chain.h
struct CompiledTarget;

// Who the peer proved to be.
struct TlsPeer {
  std::string_view identity;  // its verified name; empty: none
  std::string_view version;   // `TLSv1.3`
};

// Facts of the client connection, the same for all of its exchanges.
struct ClientInfo {
  const config::Listener* listener = nullptr;
  std::uint32_t listener_label = 0;   // metrics label (discovery/metrics.h)
  std::array<std::uint8_t, 16> ip{};  // of the peer, IPv4 as ::ffff:a.b.c.d; zero for Unix sockets
  std::uint16_t port = 0;
  bool unix_socket = false;
  bool trusted = false;          // the peer is in the listener's `trust`
  bool local = false;            // loopback or Unix socket
  std::string_view ip_text;      // `10.0.0.7`; `unix` for Unix sockets
  const TlsPeer* tls = nullptr;  // null: plain
  std::string_view scheme() const { return tls == nullptr ? "http" : "https"; }
  std::string_view identity() const { return tls == nullptr ? std::string_view() : tls->identity; }
};

// One try upstream.
struct Attempt {
  Attempt* next = nullptr;
  const Endpoint* endpoint = nullptr;
  Reason result = Reason::kOk;
  int status = 0;            // of the response's head; 0: none came
  int grpc_status = -1;      // -1: none came yet
  bool reused = false;       // on a pooled connection
  bool stale_retry = false;  // a free extra try after a stale connection
  std::uint64_t started_ns = 0;
  std::uint64_t connected_ns = 0;
  std::uint64_t sent_ns = 0;  // request complete
  std::uint64_t head_ns = 0;  // response head
  std::uint64_t ended_ns = 0;
};

// A filter may take over the answer; filled by Exchange::reply().
struct LocalAnswer {
  bool set = false;
  Reason reason = Reason::kOk;
  int status = 0;           // 0: the reason's
  std::string_view detail;  // words for local and trusted clients and the log; arena or static
  bool close = false;       // the connection ends with this answer
  bool bare = false;        // without a body of ours
  int grpc_status = -1;     // -1: the reason's
  std::uint32_t retry_after_s = 0;  // for 429 and 503; 0: not known
};

struct Exchange {
  Exchange(BlockPool& blocks, const ClientInfo& client_info)
      : arena(blocks), client(client_info), request(arena), response(arena) {}
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  Arena arena;
  const ClientInfo& client;
  RequestHead request;
  ResponseHead response;

  // The request as routes, policies and the upstream see it: normalised once (filters/http/path.h).
  std::string_view path;        // starts with `/`; `*` for OPTIONS *
  std::string_view query;       // with its `?`, or empty
  std::string_view host;        // authority: lower case, without port and one trailing dot
  std::uint16_t host_port = 0;  // 0: none written
  bool escaped_slash = false;   // the path holds %2f or %5c
  // What leaves for the upstream: target = path_out + query; authority is request.authority unless
  // rewritten.
  std::string_view path_out;

  // Who asked, after `trust`.
  std::array<std::uint8_t, 16> client_ip{};
  std::string_view client_ip_text;
  std::string_view client_id;  // the name that its credentials proved; see caller()
  std::string_view request_id;
  bool talkative = false;  // errors may say more: loopback, Unix socket or in `trust`

  // Decisions.
  const CompiledRoute* route = nullptr;
  const config::Match* match = nullptr;
  const CompiledTarget* target = nullptr;
  const Endpoint* endpoint = nullptr;  // of the current or last attempt
  Attempt* first_attempt = nullptr;
  Attempt* attempt = nullptr;         // current or last
  std::uint64_t session = 0;          // the endpoint that its cookie names (filters/session.h)
  std::uint32_t attempts = 0;         // tries that count (stale retries do not)
  std::uint32_t hedges = 0;           // of them, those made beside a slow one
  std::uint32_t inbound_attempt = 1;  // x-outrider-attempt that came with it
  std::uint32_t inbound_hops = 0;     // x-outrider-hops that came with it
  bool replayable =
      true;  // all of the request body so far is kept; set by the stream before on_attempt_failed
  bool body_dropped = false;  // it was larger than retry.buffer
  std::string_view no_retry;  // why a failure that was due for another try got none
  const Headers* response_trailers = nullptr;  // of an attempt whose head is still held back
  LocalAnswer answer;
  bool rehearsed = false;  // by `explain`: filters decide, but spend nothing and wait for nothing
  // A filter that paused in kRequest waits until all of the body is here, at most so many bytes.
  const config::Leaf<std::uint64_t>* whole_request = nullptr;
  BodyPath request_body, response_body;

  // The outcome.
  Reason reason = Reason::kOk;
  std::string_view detail;  // words of the reason, for the log and talkative bodies
  int status = 0;           // sent downstream; 0: none
  bool is_grpc = false;
  bool is_sse = false;
  bool tunnel = false;
  bool response_started = false;  // a byte of the response head left for the client
  bool request_complete = false;
  bool response_complete = false;  // no body follows the response's head, unless a filter says so
  std::uint64_t bytes_in = 0;      // body bytes from the client
  std::uint64_t bytes_out = 0;     // body bytes to the client
  std::uint64_t started_ns = 0;    // monotonic
  std::int64_t started_wall_ms = 0;
  std::uint64_t ended_ns = 0;

  // Answers locally instead of going on; the first answer stands.
  void reply(Reason why, std::string_view words, int status_override = 0) {
    if (answer.set) return;
    answer = {true, why, status_override, words, false};
  }
  std::string_view method() const { return request.method_text; }
  // Who asks, by credentials or by certificate; empty: nobody knows.
  std::string_view caller() const { return client_id.empty() ? client.identity() : client_id; }

  // Counted by the route's name when the exchange ends.
  void count(Event event) {
    if (event_count < events.size()) events[event_count++] = event;
  }
  std::array<Event, 8> events{};
  std::uint8_t event_count = 0;
  // What policies in `mode: observe` would have done, in words (observe.h); for `explain`.
  std::array<std::string_view, 8> observed{};
  std::uint8_t observed_count = 0;

  // What a filter remembers of this exchange, made when first asked for; `owner` is the filter.
  template <class T>
  T& state(const void* owner) {
    for (Note* note = notes; note != nullptr; note = note->next)
      if (note->owner == owner) return *static_cast<T*>(note->value);
    notes = arena.make<Note>(Note{notes, owner, arena.make<T>()});
    return *static_cast<T*>(notes->value);
  }

 private:
  struct Note {
    Note* next;
    const void* owner;
    void* value;
  };
  Note* notes = nullptr;
};

}  // namespace outrider
