// Which protocol a client speaks, from its first bytes: HTTP/2 begins with 24 fixed ones (RFC 9113
// §3.4), and no HTTP/1 request does.
#include "proxy/codec.h"

namespace outrider {

Preface detect_preface(std::string_view first_bytes) {
  constexpr std::string_view kHttp2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::string_view begin = first_bytes.substr(0, kHttp2.size());
  if (begin != kHttp2.substr(0, begin.size())) return Preface::kHttp1;
  return begin.size() == kHttp2.size() ? Preface::kHttp2 : Preface::kMore;
}

}  // namespace outrider
