// Holds a request back until all of its body is here, for services that must not wait for slow
// clients, or that take no body of unknown length.
// Invariant: never more of a body than the route says; what can only be answered before it has
// ended (gRPC, tunnels) is not held. proxy/stream.cc keeps the bytes.
#include "filters/filter.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Section;
using config::Type;

struct Settings {
  static constexpr Key kKey = {
      .in = Section::kPolicy,
      .name = "buffer",
      .type = Type::kSize,
      .text = "Holds the request until all of its body is here, at most so many bytes.",
      .or_false = true,
      .max = static_cast<std::int64_t>(limits::kMaxBuffer)};
  static constexpr bool kUpstream = true;

  static void read(const config::Value& value, Settings& out) {
    std::uint64_t size = 0;
    if (value.is_false() || value.read_size(size, kKey.max)) out.size = {size, value.mark()};
    if (out.size && size == 0 && !value.is_false())
      value.error("out-of-range", "holds nothing back: write a size, or false");
  }
  static auto leaves(auto& self) { return std::tie(self.size); }

  config::Maybe<std::uint64_t> size;  // 0: off
};

class Buffer final : public Filter {
 public:
  Buffer(const config::Leaf<std::uint64_t>& size, std::string where, bool streams)
      : Filter(Phase::kRequest), size_(size), where_(std::move(where)), streams_(streams) {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    if (x.rehearsed || (x.is_grpc && streams_) || !x.request.upgrade.empty())
      return Verdict::kContinue;
    if (x.bytes_in > size_.value || x.request.content_length.value_or(0) > size_.value) {
      x.reply(Reason::kBodyTooLarge, x.arena.concat("the body is larger than buffer ", where_));
      return Verdict::kReply;
    }
    x.whole_request = &size_;
    return x.request_complete ? Verdict::kContinue : Verdict::kPause;
  }

 private:
  const config::Leaf<std::uint64_t> size_;
  const std::string where_;  // `1048576, set at edge.yaml:12`
  const bool streams_;       // the service may take gRPC, which is not held
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Settings* const settings = context.told<Settings>();
  if (settings == nullptr || !settings->size || settings->size->value == 0) return nullptr;
  std::string where = std::to_string(settings->size->value) + ", set at " +
                      context.config.where(settings->size->mark);
  const bool streams =
      context.service == nullptr || context.service->protocol != config::Protocol::kHttp1;
  return std::make_unique<Buffer>(*settings->size, std::move(where), streams);
}

}  // namespace

FilterKind buffer_filter() { return {make, {&config::extension_of<Settings>}}; }

}  // namespace outrider
