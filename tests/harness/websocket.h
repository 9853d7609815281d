// The handshake of WebSocket (RFC 6455 §4.2.2) seen from outside: what a server must answer to a
// key.
#pragma once

#include <string>
#include <string_view>

namespace outrider::test {

// The key of RFC 6455's own example.
inline constexpr char kWebsocketKey[] = "dGhlIHNhbXBsZSBub25jZQ==";

std::string websocket_accept(std::string_view key);

}  // namespace outrider::test
