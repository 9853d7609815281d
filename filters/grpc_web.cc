// gRPC for browsers: a gRPC-Web call goes on as gRPC, and its answer comes back as gRPC-Web, over
// whatever HTTP version the client has.
// Invariant: between its two sides the exchange is gRPC like any other (timeouts, retries, errors
// of ours); the client gets the trailers as the last frame of the body, always. Sees requests first
// and responses last of all filters.
#include <array>
#include <cstring>
#include <string>

#include "filters/filter.h"
#include "filters/grpc_web_text.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Section;
using config::Type;

struct Settings {
  static constexpr Key kKey = {
      .in = Section::kPolicy,
      .name = "grpc_web",
      .type = Type::kBool,
      .text = "Lets browsers call gRPC services: gRPC-Web goes on as gRPC."};
  static constexpr bool kUpstream = true;

  static void read(const config::Value& value, Settings& out) {
    bool enabled = false;
    if (value.read(enabled)) out.enabled = {enabled, value.mark()};
  }
  static auto leaves(auto& self) { return std::tie(self.enabled); }

  config::Maybe<bool> enabled;
};

// What the client speaks, remembered from its request.
enum class Form : std::uint8_t { kNone, kBinary, kText };
struct Call {
  Form form = Form::kNone;
};

constexpr std::string_view kGrpc = "application/grpc";
constexpr std::string_view kWeb = "application/grpc-web";
constexpr std::string_view kWebText = "application/grpc-web-text";
constexpr std::size_t kPieceBytes = 12 * 1024;

// What follows the media type: nothing, a format (`+proto`), parameters; anything else is another
// type.
bool is_type(std::string_view value, std::string_view type) {
  return equal_ignoring_case(value.substr(0, type.size()), type) &&
         (value.size() == type.size() || value[type.size()] == '+' || value[type.size()] == ';' ||
          value[type.size()] == ' ');
}

Form form_of(std::string_view content_type) {
  return is_type(content_type, kWebText) ? Form::kText
         : is_type(content_type, kWeb)   ? Form::kBinary
                                         : Form::kNone;
}

// The client's Accept decides; one that names neither form wants what it sent.
Form wanted_form(const Headers& headers, Form sent) {
  for (const Header& header : headers) {
    if (header.id != HeaderId::kAccept) continue;
    for (std::string_view list = header.value; !list.empty();) {
      const std::size_t comma = list.find(',');
      const Form form = form_of(trim_ows(list.substr(0, comma)));
      if (form != Form::kNone) return form;
      list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
    }
  }
  return sent;
}

// ---- bodies

class DecodedRequest final : public BodyFilter {
 public:
  explicit DecodedRequest(StreamControl& control) : control_(control) {}

  void on_body(std::string_view bytes, bool last) override {
    std::array<char, kPieceBytes> piece;
    while (!bytes.empty() && !text_.bad()) {
      const std::size_t made = text_.decode(bytes, piece);
      const bool whole = last && bytes.empty();
      if (made != 0 && !whole && !text_.bad()) next().on_body({piece.data(), made}, false);
      if (whole && !text_.bad() && text_.between_groups())
        return next().on_body({piece.data(), made}, true);
    }
    if (text_.bad() || (last && !text_.between_groups()))
      control_.fail({Reason::kBadRequest, Origin::kClient, false}, "the body is not base64");
    else if (last)
      next().on_body({}, true);
  }

 private:
  StreamControl& control_;
  TextDecoder text_;
};

class WebResponse : public BodyFilter {
 public:
  explicit WebResponse(bool text) : text_(text) {}

  void on_body(std::string_view bytes, bool last) override { send(bytes, last); }
  void on_trailers(Headers& trailers) override { send(frame_of(trailers), true); }

  // `0x80`, the length, and the fields as HTTP/1 would write them, in lower case.
  static std::string_view frame_of(const Headers& trailers) {
    constexpr std::size_t kPrefix = 5;
    constexpr std::size_t kAround = 4;  // `: ` and CRLF
    std::size_t size = 0;
    for (const Header& field : trailers) size += field.name.size() + field.value.size() + kAround;
    char* const frame = trailers.arena().bytes(kPrefix + size);
    char* to = frame;
    *to++ = static_cast<char>(0x80);
    for (int shift = 24; shift >= 0; shift -= 8) *to++ = static_cast<char>(size >> shift);
    const auto put = [&](std::string_view text) {
      if (!text.empty()) std::memcpy(to, text.data(), text.size());
      to += text.size();
    };
    for (const Header& field : trailers) {
      for (const char c : field.name)
        *to++ = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
      put(": ");
      put(field.value);
      put("\r\n");
    }
    return {frame, kPrefix + size};
  }

 private:
  // Text is padded at the end of each piece, so that no message waits for the next one.
  void send(std::string_view bytes, bool last) {
    if (!text_) return next().on_body(bytes, last);
    std::array<char, encoded_size(kPieceBytes)> piece;
    do {
      const std::string_view part = bytes.substr(0, kPieceBytes);
      bytes.remove_prefix(part.size());
      const std::size_t made = encode_text(part, piece);
      next().on_body({piece.data(), made}, last && bytes.empty());
    } while (!bytes.empty());
  }
  const bool text_;
};

// An answer of trailers alone: they are its body.
class WebTrailers final : public WebResponse {
 public:
  WebTrailers(bool text, std::string_view frame) : WebResponse(text), frame_(frame) {}
  void on_body(std::string_view, bool last) override {
    if (last) WebResponse::on_body(frame_, true);
  }

 private:
  const std::string_view frame_;
};

// ---- heads

// Of a head that is trailers as well, what a browser is to find among the trailers.
bool is_of_call(const Header& field) {
  constexpr std::string_view kOfBrowsers = "access-control-";
  return (header_flags(field.id) & (kNoTrailer | kHopByHop | kFraming)) == 0 &&
         !equal_ignoring_case(field.name.substr(0, kOfBrowsers.size()), kOfBrowsers);
}
bool is_status(const Header& field) {
  return field.id == HeaderId::kGrpcStatus || field.id == HeaderId::kGrpcMessage ||
         equal_ignoring_case(field.name, "grpc-status-details-bin");
}

class GrpcWeb final : public Filter {
 public:
  GrpcWeb() : Filter(Phase::kRequest | Phase::kResponse) {}

  Verdict on_request(Exchange& x, StreamControl& control) const override {
    RequestHead& head = x.request;
    const std::string_view type = head.headers.get(HeaderId::kContentType);
    const Form sent = form_of(type);
    if (sent == Form::kNone || head.method != Method::kPost) return Verdict::kContinue;
    x.state<Call>(this).form = wanted_form(head.headers, sent);
    x.is_grpc = true;
    const std::size_t prefix = (sent == Form::kText ? kWebText : kWeb).size();
    head.headers.set(HeaderId::kContentType, x.arena.concat(kGrpc, type.substr(prefix)));
    head.headers.remove(HeaderId::kUnknown, "x-grpc-web");
    head.te_trailers = true;
    if (sent == Form::kText) {
      head.content_length.reset();
      head.headers.remove(HeaderId::kContentLength);
      x.request_body.put(std::make_unique<DecodedRequest>(control));
    }
    return Verdict::kContinue;
  }

  Verdict on_response(Exchange& x, StreamControl&) const override {
    const Form form = x.state<Call>(this).form;
    Headers& headers = x.response.headers;
    const std::string_view type = headers.get(HeaderId::kContentType);
    if (form == Form::kNone || !is_type(type, kGrpc)) return Verdict::kContinue;
    const bool text = form == Form::kText;
    headers.set(HeaderId::kContentType,
                x.arena.concat(text ? kWebText : kWeb, type.substr(kGrpc.size())));
    x.response.content_length.reset();
    headers.remove(HeaderId::kContentLength);
    if (!x.response_complete) {
      x.response_body.put(std::make_unique<WebResponse>(text));
      return Verdict::kContinue;
    }
    Headers trailers(x.arena);
    for (const Header& field : headers)
      if (is_of_call(field)) trailers.add(field.id, field.name, field.value);
    headers.remove_if(is_status);
    x.response_body.put(std::make_unique<WebTrailers>(text, WebResponse::frame_of(trailers)));
    x.response_complete = false;
    return Verdict::kContinue;
  }
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Settings* const settings = context.told<Settings>();
  if (settings == nullptr || !settings->enabled || !settings->enabled->value) return nullptr;
  return std::make_unique<GrpcWeb>();
}

}  // namespace

FilterKind grpc_web_filter() { return {make, {&config::extension_of<Settings>}}; }

}  // namespace outrider
