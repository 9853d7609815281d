// Who asks, and what a request may claim about it: `trust` reads and cleans what came, before
// routing; the filter in forwarded.cc writes what goes upstream. Invariant: from a peer that is not
// in `trust` nothing survives that could name another client or steer us; of the internal headers
// only hops and attempt count, which can but make us refuse or not retry.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "filters/exchange.h"

namespace outrider {

// Sets client_ip, client_ip_text, talkative, request_id, inbound_hops and inbound_attempt; removes
// headers. Once per exchange, as soon as its head is there, also for heads that are refused.
void trust(Exchange& x);

// Trailers may not say what only a head may, whoever sends them.
void clean_trailers(Headers& trailers);

// `10.0.0.7`, `10.0.0.7:80`, `::1`, `[::1]:80` as an IPv6 address, IPv4 mapped. False: none of
// these.
bool parse_ip(std::string_view text, std::array<std::uint8_t, 16>& ip);
std::string_view format_ip(const std::array<std::uint8_t, 16>& ip, Arena& arena);

}  // namespace outrider
