// The handshake of RFC 6455 §1.3, for a WebSocket that is HTTP/2 on one side: there it has no key,
// over HTTP/1 it must.
#pragma once

#include <array>
#include <string_view>

namespace outrider {

using WebsocketKey = std::array<char, 24>;
using WebsocketAccept = std::array<char, 28>;

WebsocketKey make_websocket_key();  // 16 random bytes in base64
WebsocketAccept websocket_accept(std::string_view key);

}  // namespace outrider
