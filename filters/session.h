// Sticky sessions: what a policy says of them, and which endpoint a request's cookie names. The
// filter in session.cc sets the cookie.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "config/extension.h"
#include "filters/exchange.h"

namespace outrider {

struct SessionSettings {
  config::Maybe<std::string> cookie;  // its name; empty: requests are not sticky
  config::Maybe<Millis> ttl;          // unset or 0: until the browser closes

  static constexpr config::Key kFields[] = {
      {.name = "cookie",
       .type = config::Type::kText,
       .text = "The name of the cookie that says which server."},
      {.name = "ttl",
       .type = config::Type::kDuration,
       .text = "How long it is kept; until the browser closes unless said.",
       .or_false = true}};
  static constexpr config::Key kKey = {.in = config::Section::kPolicy,
                                       .name = "session",
                                       .type = config::Type::kMap,
                                       .text = "Keeps a client with one server; false: does not.",
                                       .or_false = true,
                                       .fields = kFields};
  static constexpr bool kUpstream = true;
  static void read(const config::Value& value, SessionSettings& out);
  static auto leaves(auto& self) { return std::tie(self.cookie, self.ttl); }
};

// The identity that the policy's cookie holds (Endpoint::id); 0: none, or the policy has no cookie.
std::uint64_t session_of(const Exchange& x, const config::Policy& policy);

}  // namespace outrider
