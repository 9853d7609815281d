// The first bytes of a connection: the verdict is the same however they arrive, HTTP/2 is only its
// 24 bytes, and what begins like a PROXY header or a TLS record never becomes a request.
#include <cstdint>
#include <string>

#include "config/error.h"
#include "tests/unit/proxy/h1_support.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace outrider;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  Preface settled = Preface::kMore;
  for (std::size_t i = 0; i <= input.size(); ++i) {
    const Preface now = detect_preface(input.substr(0, i));
    OUTRIDER_ASSERT(settled == Preface::kMore || now == settled);
    settled = now;
  }
  OUTRIDER_ASSERT((settled == Preface::kHttp2) ==
                  input.starts_with("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  if (settled != Preface::kHttp1) return 0;
  const bool foreign = input.starts_with("PROXY ") || input.starts_with("\x16\x03") ||
                       input.starts_with("\r\n\r\n\0\r\nQUIT\n");
  test::Exchanges exchanges;
  exchanges.feed(input);
  if (foreign)
    for (const auto& owner : exchanges.clients.requests)
      OUTRIDER_ASSERT(owner->request.target.empty() || owner->request.target.front() == '/');
  return 0;
}
