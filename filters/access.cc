// `allow` and `deny`: who may, by address, method, path and header fields. Denied is who fits a
// rule of `deny`, which adds up over all levels, and where there is any `allow`, who fits none of
// it. It sees the request as it came, before any rewrite; the client is the one after `trust`.
// Rules in `mode: observe` stand apart: they only judge what the others let in.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "filters/observe.h"
#include "filters/registry.h"
#include "filters/route_match.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Type;
using config::Value;

struct Rule {
  config::Match match;
  bool observe = false;
};
using Rules = std::vector<Rule>;

constexpr Key kFields[] = {
    {.name = "from"},
    {.name = "client_ip", .type = Type::kCidrs, .text = "Client addresses."},
    {.name = "method", .type = Type::kMethods, .text = "Methods."},
    {.name = "path", .type = Type::kPathMatches, .text = "Paths, as in `match`."},
    {.name = "headers", .type = Type::kValueMatches, .text = "Header fields that must fit."},
    {.name = "mode",
     .type = Type::kWord,
     .text = "observe: the rule counts and logs, and does nothing.",
     .words = "enforce|observe"},
};

void read_rule(const Value& value, const Key& key, Rules& out) {
  std::vector<config::Match> matches;
  bool observe = false;
  if (value.is_map()) {
    const config::Map map(value, key);
    if (!map) return;
    config::read_match(value, map, matches);
    if (const auto mode = map.get_word("mode")) observe = *mode == 1;
    const bool any = map["client_ip"] || map["method"] || map["path"] || map["headers"];
    if (!any && !map["from"])
      value.error("missing-key", "a rule needs one of client_ip, method, path, headers");
  } else if (const auto text = value.text("an address range or a rule")) {
    if (text->starts_with("spiffe://"))
      return value.fail({"is an identity, which is not supported yet", config::kNotYet, {}});
    matches.emplace_back().mark = value.mark();
    if (!value.parse(config::parse_cidr, matches.back().client_ip.emplace_back())) return;
  }
  for (config::Match& match : matches) out.push_back({std::move(match), observe});
}

Rules read_rules(const Value& value, const Key& key) {
  Rules rules;
  if (value.is_list() && value.items() == 0) value.error("bad-value", "an empty list fits nobody");
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    if (item.is_list())
      item.wrong_type("an address range or a rule");
    else
      read_rule(item, key, rules);
  }
  return rules;
}

std::string words_of(const Rule& rule) {
  std::string words;
  const auto add = [&](const std::string& text) { (words += words.empty() ? "" : " ") += text; };
  for (const std::string& method : rule.match.methods) add(method);
  if (!rule.match.path.text.empty()) add(rule.match.path.text);
  for (const config::Cidr& range : rule.match.client_ip) add(range.to_string());
  for (const std::string& header : config::shown(rule.match.headers).values) add(header);
  return rule.observe ? words + " (observe)" : words;
}

config::Shown shown(const Rules& rules) {
  config::Shown out{{}, true};
  for (const Rule& rule : rules) out.values.push_back(words_of(rule));
  return out;
}

bool any_enforced(const Maybe<Rules>& rules) {
  return rules && std::any_of(rules->value.begin(), rules->value.end(),
                              [](const Rule& rule) { return !rule.observe; });
}

struct Allow {
  static constexpr Key kKey = {.name = "allow",
                               .type = Type::kTextsOrMaps,
                               .text = "Who may: address ranges and rules; the rest is refused.",
                               .fields = kFields};
  static constexpr bool kUpstream = false;
  static void read(const Value& value, Allow& out) {
    out.rules = {read_rules(value, kKey), value.mark()};
  }
  static auto leaves(auto& self) { return std::tie(self.rules); }
  config::Traits traits() const { return {.guards = any_enforced(rules)}; }
  Maybe<Rules> rules;
};

struct Deny {
  static constexpr Key kKey = {.name = "deny",
                               .type = Type::kTextsOrMaps,
                               .text = "Who may not: address ranges and rules; all levels add up.",
                               .fields = kFields};
  static constexpr bool kUpstream = false;
  static void read(const Value& value, Deny& out) {
    out.rules = {read_rules(value, kKey), value.mark()};
  }
  static auto leaves(auto& self) { return std::tie(self.rules); }
  void inherit(const Deny& from) {
    if (!rules || !from.rules) return;
    rules->value.insert(rules->value.end(), from.rules->value.begin(), from.rules->value.end());
  }
  config::Traits traits() const { return {.guards = any_enforced(rules)}; }
  Maybe<Rules> rules;
};

// The rules of one mode. Those that name addresses alone are looked up by halving, as block lists
// are long. What is longer than regexes see is denied, and not allowed.
class RuleSet {
 public:
  RuleSet(const Maybe<Rules>& rules, bool observe, bool denies, const config::Config& config)
      : denies_(denies) {
    if (!rules) return;
    for (const Rule& rule : rules->value)
      if (rule.observe == observe) add(rule.match, config.where(rule.match.mark));
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
      return a.first != b.first ? a.first < b.first : a.last > b.last;
    });
    // Ranges hold one another or do not touch: the wider stands for both.
    const auto held = [](const Range& wide, const Range& one) { return one.last <= wide.last; };
    ranges_.erase(std::unique(ranges_.begin(), ranges_.end(), held), ranges_.end());
  }
  bool empty() const { return ranges_.empty() && tests_.empty(); }
  // Where the rule stands that fits; null: none does.
  const std::string* find(const Exchange& x) const {
    const auto behind = std::upper_bound(
        ranges_.begin(), ranges_.end(), x.client_ip,
        [](const Address& address, const Range& range) { return address < range.first; });
    if (behind != ranges_.begin() && x.client_ip <= std::prev(behind)->last)
      return &std::prev(behind)->where;
    for (const Test& test : tests_)
      if (path_holds(test, x.path) && test.conditions.hold(x)) return &test.where;
    return nullptr;
  }

 private:
  using Address = std::array<std::uint8_t, 16>;
  struct Range {
    Address first, last;
    std::string where;
  };
  struct Test {
    const config::PathMatch* path;
    const re2::RE2* regex;
    Conditions conditions;
    std::string where;
  };

  bool path_holds(const Test& test, std::string_view path) const {
    if (test.regex != nullptr && path.size() > limits::kRegexInputBytes) return denies_;
    return path_fits(*test.path, path, test.regex);
  }
  void add(const config::Match& match, const std::string& where) {
    const bool regex = match.path.kind == config::PathMatch::Kind::kRegex;
    const bool by_address = match.path.kind == config::PathMatch::Kind::kAny &&
                            match.methods.empty() && match.headers.empty();
    if (!by_address)
      tests_.push_back({&match.path, regex ? regexes_.get(match.path.regex) : nullptr,
                        Conditions(match, regexes_, denies_), where});
    else
      for (const config::Cidr& range : match.client_ip)
        ranges_.push_back({range.ip, last_of(range), where});
  }
  static Address last_of(const config::Cidr& range) {
    Address last = range.ip;
    for (std::size_t bit = range.bits; bit < 128; ++bit)
      last[bit / 8] = static_cast<std::uint8_t>(last[bit / 8] | 0x80U >> (bit % 8));
    return last;
  }

  const bool denies_;
  Regexes regexes_;
  std::vector<Range> ranges_;
  std::vector<Test> tests_;
};

class Access final : public Filter {
 public:
  Access(const Maybe<Rules>& allow, const Maybe<Rules>& deny, const config::Config& config)
      : Filter(Phase::kRequest),
        allow_where_(allow ? config.where(allow->mark) : std::string()),
        enforced_{{allow, false, false, config}, {deny, false, true, config}},
        observed_{{allow, true, false, config}, {deny, true, true, config}} {}

  Verdict on_request(Exchange& x, StreamControl&) const override {
    if (const Refusal refusal = judge(enforced_, x)) {
      x.reply(Reason::kDenied, x.arena.concat(refusal.why, refusal.where));
      return Verdict::kReply;
    }
    if (const Refusal refusal = judge(observed_, x))
      observe(x, refusal.event, Reason::kDenied,
              x.arena.concat("would be denied: ", refusal.why, refusal.where));
    return Verdict::kContinue;
  }

 private:
  struct Pair {
    RuleSet allow, deny;
  };
  struct Refusal {
    std::string_view why, where;
    Event event = Event::kObservedDeny;
    explicit operator bool() const { return !why.empty(); }
  };
  Refusal judge(const Pair& rules, const Exchange& x) const {
    if (const std::string* where = rules.deny.find(x)) return {"`deny` at ", *where};
    if (!rules.allow.empty() && rules.allow.find(x) == nullptr)
      return {"none of `allow` at ", allow_where_, Event::kObservedAllow};
    return {};
  }

  const std::string allow_where_;
  const Pair enforced_, observed_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Allow* allow = context.told<Allow>();
  const Deny* deny = context.told<Deny>();
  if (allow == nullptr && deny == nullptr) return nullptr;
  static const Maybe<Rules> kNone;
  return std::make_unique<Access>(allow != nullptr ? allow->rules : kNone,
                                  deny != nullptr ? deny->rules : kNone, context.config);
}

}  // namespace

FilterKind access_filter() {
  return {make, {&config::extension_of<Allow>, &config::extension_of<Deny>}};
}

}  // namespace outrider
