// The only place that turns reasons into responses: status, gRPC status, body (text or
// problem+json), retry-after.
#pragma once

#include "filters/exchange.h"

namespace outrider {

// Builds x.response (head and content_length) for x.answer and sets x.reason, x.detail, x.status;
// returns the body (arena). gRPC: a trailers-only head with grpc-status and grpc-message, empty
// body. `request_id` and words as config.md §9 says.
std::string_view local_reply(Exchange& x);

// What ends a gRPC response whose head is out: grpc-status and grpc-message of x.reason.
Headers& grpc_trailers(Exchange& x);

// The outcome after the head is out: the status stays, the reason says why it was cut. Without a
// status yet the reason's is noted (499 for a client that went away). The first cause stands.
void note_failure(Exchange& x, Reason reason, std::string_view words);

// The exchange's reason and all of its detail, which most clients are not told, in the process log;
// at most ten a second of a reason. Nothing where the proxy or an upstream is not to blame.
void log_failure(const Exchange& x);

}  // namespace outrider
