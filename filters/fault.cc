// `fault`: delays and aborts a share of the requests, so that callers can be seen to cope. Each is
// drawn on its own; an abort comes after its delay. It stands behind the rate limit, so injected
// faults cost what real ones would, and runs within `timeout.total`. Rehearsals draw nothing.
#include "config/grammar.h"
#include "config/written.h"
#include "filters/observe.h"
#include "filters/random.h"
#include "filters/registry.h"
#include "filters/route_match.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Problem;
using config::Type;
using config::Value;

struct Delay {
  Millis time{};
  double share = 1;
};

struct Abort {
  int status = 503;
  int grpc_status = -1;  // ≥ 0: of gRPC calls alone
  double share = 1;
};

config::Shown shown(const Delay& delay) {
  return {{config::written(delay.time) + " " + config::written_share(delay.share)}};
}

config::Shown shown(const Abort& abort) {
  std::string what = std::to_string(abort.status);
  if (abort.grpc_status >= 0) what = "grpc:" + std::string(config::grpc_name(abort.grpc_status));
  return {{what + " " + config::written_share(abort.share)}};
}

// `WHAT` or `WHAT 1%`.
Problem split_share(std::string_view& text, double& share) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return {};
  Problem problem = config::parse_percent(text.substr(space + 1), share);
  text = text.substr(0, space);
  return problem;
}

Problem parse_delay(std::string_view text, Delay& out) {
  if (Problem problem = split_share(text, out.share)) return problem;
  return config::parse_duration(text, out.time);
}

Problem parse_abort(std::string_view text, Abort& out) {
  constexpr std::string_view kGrpc = "grpc:";
  if (Problem problem = split_share(text, out.share)) return problem;
  if (text.starts_with(kGrpc)) {
    Problem problem = config::parse_grpc_name(text.substr(kGrpc.size()), out.grpc_status);
    if (!problem.suggestion.empty()) problem.suggestion.insert(0, kGrpc);
    return problem;
  }
  std::int64_t status = 0;
  if (Problem problem = config::parse_integer(text, 200, 599, status)) return problem;
  out.status = static_cast<int>(status);
  return {};
}

struct Fault {
  static constexpr Key kFields[] = {
      {.name = "delay",
       .type = Type::kText,
       .text = "A pause before the request goes on, and its share: 200ms 1%."},
      {.name = "abort",
       .type = Type::kText,
       .text = "A status in place of the service's answer, and its share: 503 0.1%."},
      {.name = "headers",
       .type = Type::kValueMatches,
       .text = "Header fields that must fit; other requests are left alone."},
      {.name = "mode",
       .type = Type::kWord,
       .text = "observe: draws, counts and logs, and does nothing.",
       .words = "enforce|observe"}};
  static constexpr Key kKey = {.name = "fault",
                               .type = Type::kMap,
                               .text = "Delays and aborts a share of the requests.",
                               .fields = kFields};
  static constexpr bool kUpstream = false;

  static void read(const Value& value, Fault& out) {
    const config::Map map(value, kKey);
    if (!map) return;
    map.leaf("delay", out.delay, parse_delay);
    map.leaf("abort", out.abort, parse_abort);
    std::vector<config::Match> matches;
    config::read_match(value, map, matches);
    if (const auto headers = map["headers"]; headers && !matches.empty())
      out.headers = {std::move(matches.front().headers), headers->mark()};
    if (const auto mode = map.get_word("mode"))
      out.mode = {*mode == 1 ? "observe" : "enforce", map["mode"]->mark()};
  }
  static auto leaves(auto& self) {
    return std::tie(self.delay, self.abort, self.headers, self.mode);
  }
  bool observes() const { return mode && mode->value == "observe"; }

  Maybe<Delay> delay;
  Maybe<Abort> abort;
  Maybe<std::vector<config::NamedMatch>> headers;
  Maybe<std::string> mode;
};

class FaultFilter final : public Filter {
 public:
  explicit FaultFilter(const Fault& settings)
      : Filter(Phase::kRequest), settings_(settings), when_(match_, regexes_) {}

  Verdict on_request(Exchange& x, StreamControl& control) const override {
    Drawn& drawn = x.state<Drawn>(this);
    if (!drawn.done) draw(x, drawn);
    if (drawn.delay) {
      drawn.delay = false;
      x.count(Event::kFaultDelay);
      control.resume_after(settings_.delay->value.time);
      return Verdict::kAskAgain;
    }
    if (!drawn.abort) return Verdict::kContinue;
    const Abort& abort = settings_.abort->value;
    x.count(Event::kFaultAbort);
    x.reply(Reason::kFaultAbort, "fault.abort", abort.status);
    x.answer.grpc_status = abort.grpc_status;
    return Verdict::kReply;
  }

 private:
  struct Drawn {
    bool done = false;
    bool delay = false;
    bool abort = false;
  };

  void draw(Exchange& x, Drawn& drawn) const {
    drawn.done = true;
    if (x.rehearsed || !when_.hold(x)) return;
    const auto hit = [](double share) {
      constexpr std::uint32_t kParts = 1'000'000'000;
      return thread_random().below(kParts) < share * kParts;
    };
    drawn.delay = settings_.delay && hit(settings_.delay->value.share);
    drawn.abort = settings_.abort && hit(settings_.abort->value.share) &&
                  (settings_.abort->value.grpc_status < 0 || x.is_grpc);
    if (!settings_.observes()) return;
    if (drawn.delay || drawn.abort)
      observe(x, Event::kObservedFault, Reason::kFaultAbort,
              drawn.abort ? "would be aborted" : "would be delayed");
    drawn.delay = drawn.abort = false;
  }

  static config::Match match_of(const Fault& settings) {
    config::Match match;
    if (settings.headers) match.headers = settings.headers->value;
    return match;
  }

  const Fault& settings_;
  const config::Match match_ = match_of(settings_);
  Regexes regexes_;
  const Conditions when_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Fault* settings = context.told<Fault>();
  if (settings == nullptr || (!settings->delay && !settings->abort)) return nullptr;
  return std::make_unique<FaultFilter>(*settings);
}

}  // namespace

FilterKind fault_filter() { return {make, {&config::extension_of<Fault>}}; }

}  // namespace outrider
