// `headers: { request, response }`: remove, then set, then add. Values are templates; one that
// would hold a control byte ends the request with 400 before anything is sent, so no value can
// split a message. The loader refuses names that codecs own (framing, hop-by-hop).
#include <string>
#include <vector>

#include "filters/filter.h"
#include "filters/registry.h"
#include "filters/template.h"

namespace outrider {
namespace {

class Edits {
 public:
  explicit Edits(const config::HeaderEdits& edits) {
    if (edits.remove)
      for (const std::string& name : edits.remove->value)
        remove_.push_back({header_id(name), name, Template()});
    for (const auto& [name, value] : edits.set)
      set_.push_back({header_id(name), name, Template(value.value)});
    for (const auto& [name, value] : edits.add)
      add_.push_back({header_id(name), name, Template(value.value)});
  }
  bool empty() const { return remove_.empty() && set_.empty() && add_.empty(); }
  // False: a value cannot be sent; the headers then are half edited, and the message is not sent.
  bool apply(Headers& headers, Exchange& x) const {
    for (const Edit& edit : remove_) headers.remove(edit.id, edit.name);
    std::string_view value;
    for (const Edit& edit : set_) {
      if (!expand(edit, x, value)) return false;
      headers.set(edit.id, edit.name, value);
    }
    for (const Edit& edit : add_) {
      if (!expand(edit, x, value)) return false;
      headers.add(edit.id, edit.name, value);
    }
    return true;
  }

 private:
  struct Edit {
    HeaderId id;
    std::string name;
    Template value;
  };
  // HTTP/2 knows no white space at the ends (RFC 9113 §8.2.1).
  static bool expand(const Edit& edit, Exchange& x, std::string_view& value) {
    value = trim_ows(edit.value.expand(x));
    return edit.value.constant() || is_header_value(value);
  }
  std::vector<Edit> remove_, set_, add_;
};

class HeaderEdits final : public Filter {
 public:
  HeaderEdits(Edits request, Edits response)
      : Filter(
            static_cast<std::uint8_t>((request.empty() ? 0 : static_cast<int>(Phase::kRequest)) |
                                      (response.empty() ? 0 : static_cast<int>(Phase::kResponse)))),
        request_(std::move(request)),
        response_(std::move(response)) {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    return verdict(request_.apply(x.request.headers, x), x,
                   "a request header would hold a control byte");
  }
  Verdict on_response(Exchange& x, StreamControl&) const override {
    return verdict(response_.apply(x.response.headers, x), x,
                   "a response header would hold a control byte");
  }

 private:
  static Verdict verdict(bool sound, Exchange& x, std::string_view words) {
    if (sound) return Verdict::kContinue;
    x.reply(Reason::kBadRequest, words);
    return Verdict::kReply;
  }
  const Edits request_;
  const Edits response_;
};

}  // namespace

namespace {
std::unique_ptr<const Filter> make(const FilterContext& context) {
  static const config::HeaderEdits kNone;
  // Nobody reads the request of a route that answers by itself.
  Edits request(context.forwards ? context.policy.request_headers : kNone);
  Edits response(context.policy.response_headers);
  if (request.empty() && response.empty()) return nullptr;
  return std::make_unique<HeaderEdits>(std::move(request), std::move(response));
}
}  // namespace

FilterKind header_edits_filter() { return {make}; }

}  // namespace outrider
