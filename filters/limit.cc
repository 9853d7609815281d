// `limit`: how often a route may be asked, by key. Every limit of a list must hold.
// Invariant: what a limit lets through is never above burst + rate × time, at any number of
// workers; with `shared`, at any number of proxies while their store answers, and in each of them
// while it does not. A request that another limit of the list refuses costs no token here, but for
// those of a shared limit, which are drawn as they are asked for.
// In Phase::kRequest, before anything is done for the request; the answer then says what is left.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "config/written.h"
#include "discovery/hash.h"
#include "filters/limit_book.h"
#include "filters/registry.h"
#include "filters/request_part.h"

namespace outrider {
namespace {

using namespace std::chrono_literals;
using config::Key;
using config::Type;

// ---- what is written

constexpr std::uint64_t kStoreGrain = 125;  // ns: stores count microseconds, in doubles

struct Rule {
  config::Rate rate;
  std::uint64_t burst = 0;
  std::string key;  // as written; empty: one bucket for the route
  std::optional<config::RequestPart> per;
  bool observe = false;
  std::optional<config::StoreUrl> shared;
  config::Mark mark;

  std::string name() const {  // `50/s per client.ip`
    const std::string_view period = rate.period == 1s ? "/s" : rate.period == 1min ? "/m" : "/h";
    std::string text = std::to_string(rate.count).append(period);
    return key.empty() ? text : text + " per " + key;
  }
  bool has_burst() const { return burst != rate.count; }
  // Seconds in which a bucket fills, before a token's price was rounded.
  std::uint64_t window() const {
    const std::uint64_t per_second = rate.count * 1'000;
    return (burst * static_cast<std::uint64_t>(rate.period.count()) + per_second - 1) / per_second;
  }
  Allowance allowance() const {
    const auto period = static_cast<std::uint64_t>(std::chrono::nanoseconds(rate.period).count());
    const std::uint64_t grain = shared ? kStoreGrain : 1;
    const std::uint64_t step = (period + rate.count - 1) / rate.count;
    return {(step + grain - 1) / grain * grain, burst};
  }
};

// Found by extension.h.
config::Shown shown(const std::vector<Rule>& rules) {
  config::Shown out{{}, true};
  for (const Rule& rule : rules) {
    std::string text = rule.name();
    if (rule.has_burst()) text += ", burst " + std::to_string(rule.burst);
    if (rule.shared) text += ", shared by " + rule.shared->name();
    if (rule.observe) text += ", observe";
    out.values.push_back(std::move(text));
  }
  return out;
}

constexpr std::string_view kPer = " per ";

config::Expanded expand(std::string_view text) {
  const std::size_t per = text.find(kPer);
  if (per == std::string_view::npos) return {{"rate", std::string(text)}};
  return {{"rate", std::string(text.substr(0, per))},
          {"per", std::string(text.substr(per + kPer.size()))}};
}

constexpr std::uint64_t kMostBurst = 1'000'000'000;
constexpr std::uint64_t kLongestFill = 365ULL * 24 * 3600 * 1'000'000'000;
constexpr Key kFields[] = {
    {.name = "rate",
     .type = Type::kText,
     .text = "How often: 50/s, 600/m or 10/h.",
     .required = true},
    {.name = "burst",
     .type = Type::kNumber,
     .text = "How many at once after a pause; what the rate gives in one period unless said.",
     .min = 1,
     .max = kMostBurst},
    {.name = "per",
     .type = Type::kText,
     .text = "What has a bucket of its own: client.ip, client.id, header N, query N or cookie N; "
             "one for the route unless said."},
    {.name = "mode",
     .type = Type::kWord,
     .text = "observe decides and counts, but refuses nobody.",
     .words = "enforce|observe"},
    {.name = "shared",
     .type = Type::kText,
     .text = "The Redis that counts for all proxies: redis://HOST:PORT, or "
             "redis+unix:///run/redis.sock."},
};

struct Settings {
  config::Maybe<std::vector<Rule>> rules;

  static constexpr Key kKey = {.in = config::Section::kPolicy,
                               .name = "limit",
                               .type = Type::kTextsOrMaps,
                               .text =
                                   "How often the route may be asked: 50/s per client.ip, a "
                                   "map, or a list of both, all of which must hold.",
                               .fields = kFields,
                               .expand = expand};
  static constexpr bool kUpstream = false;
  static auto leaves(auto& self) { return std::tie(self.rules); }
  static void read(const config::Value& value, Settings& out);
};

config::Problem parse_rule(std::string_view text, Rule& out) {
  const std::size_t per = text.find(kPer);
  if (per != std::string_view::npos) {
    out.key = text.substr(per + kPer.size());
    if (config::Problem problem = parse_request_part(out.key, out.per.emplace())) {
      problem.text = "limits by what " + problem.text;
      return problem;
    }
  }
  return parse_rate(text.substr(0, per), out.rate);
}

bool read_map(const config::Value& value, Rule& out) {
  const config::Map map(value, Settings::kKey);
  bool sound = map && map.get("rate", out.rate, config::parse_rate);
  map.get_count("burst", out.burst);
  if (const auto per = map["per"])
    if (per->parse(config::parse_request_part, out.per.emplace())) out.key = *per->text();
  if (const auto mode = map.get_word("mode")) out.observe = *mode == 1;
  if (const auto shared = map["shared"])
    sound = shared->parse(config::parse_store_url, out.shared.emplace()) && sound;
  return sound;
}

void Settings::read(const config::Value& value, Settings& out) {
  std::vector<Rule> rules;
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const config::Value item = value.item(i);
    Rule rule;
    rule.mark = item.mark();
    if (!(item.is_map() ? read_map(item, rule) : item.parse(parse_rule, rule, "a limit"))) continue;
    if (rule.burst == 0) rule.burst = rule.rate.count;
    if (rule.burst > kLongestFill / rule.allowance().step_ns)
      item.error("out-of-range", "the burst is above what the rate gives in a year");
    else
      rules.push_back(std::move(rule));
  }
  if (rules.size() > limits::kRouteLimits)
    value.error("out-of-range",
                "more than " + std::to_string(limits::kRouteLimits) + " limits in one list");
  out.rules = {std::move(rules), value.mark()};
}

// ---- what runs

// One of the route's limits.
struct Limit {
  Allowance allowance;
  std::uint64_t window = 0;  // seconds
  std::optional<RequestPart> per;
  bool observe = false;
  std::shared_ptr<TokenBuckets> buckets;
  std::shared_ptr<SharedStore> store;         // null: local
  std::array<std::uint64_t, 4> store_keys{};  // of the hashes that the store sees
  std::string label;                          // a structured field's string, RFC 9651 §3.3.3
  std::string words;                          // `limit 50/s per client.ip, set at edge.yaml:12`

  std::string_view key(const Exchange& x) const {
    if (!per) return {};
    const std::string_view text = per->of(x);
    // Who has an IPv6 address has the other 2^64 of its network, too.
    if (per->is_client_ip() && text.find(':') != std::string_view::npos)
      return {reinterpret_cast<const char*>(x.client_ip.data()), x.client_ip.size() / 2};
    return text;
  }
};

std::uint64_t seconds(std::uint64_t ns) { return (ns + 999'999'999) / 1'000'000'000; }

std::string_view decimal(std::uint64_t number, char (&room)[24]) {
  const char* const end = std::to_chars(room, room + sizeof(room), number).ptr;
  return {room, static_cast<std::size_t>(end - room)};
}

class Limiter final : public Filter {
 public:
  Limiter(std::vector<Limit> limits, std::uint64_t seed)
      : Filter(Phase::kRequest | Phase::kResponse | Phase::kDone),
        limits_(std::move(limits)),
        seed_(seed),
        policy_(policy_of(limits_)) {}

  Verdict on_request(Exchange& x, StreamControl& control) const override;
  Verdict on_response(Exchange& x, StreamControl&) const override;
  void on_done(Exchange& x) const override {
    Progress& progress = x.state<Progress>(this);
    if (progress.asked != nullptr) progress.asked->forget(progress.question);
  }

 private:
  // What an exchange has come to; `drawn` as long as `seen` says.
  struct Progress {
    const Limiter* limiter = nullptr;
    Exchange* x = nullptr;
    StreamControl* control = nullptr;
    LimitStore* asked = nullptr;  // has the question
    LimitQuestion question;
    std::uint8_t at = 0;  // the limit whose store is asked
    std::array<bool, limits::kRouteLimits> seen{};
    std::array<Drawn, limits::kRouteLimits> drawn{};
  };

  std::uint64_t bucket_of(const Limit& limit, const Exchange& x) const {
    return keyed_hash(limit.key(x), seed_, ~seed_);
  }
  bool passes(Progress& progress, std::size_t at, const Drawn& drawn) const;
  bool draw_local(Progress& progress, bool look) const;
  Verdict ask_stores(Progress& progress) const;
  void answered(Progress& progress, bool known, const Drawn& drawn) const;
  static std::string policy_of(const std::vector<Limit>& limits);

  const std::vector<Limit> limits_;
  const std::uint64_t seed_;
  const std::string policy_;  // the RateLimit-Policy field
};

// Notes what a limit says, and refuses the request if it must. False: refused.
bool Limiter::passes(Progress& progress, std::size_t at, const Drawn& drawn) const {
  const Limit& limit = limits_[at];
  Exchange& x = *progress.x;
  progress.seen[at] = true;
  progress.drawn[at] = drawn;
  if (drawn.admitted) return true;
  if (limit.observe) {
    x.count(Event::kObservedLimit);
    return true;
  }
  x.reply(Reason::kRateLimited, limit.words);
  x.answer.retry_after_s = static_cast<std::uint32_t>(
      std::max<std::uint64_t>(seconds(drawn.wait_ns(limit.allowance)), 1));
  return false;
}

// Those that this process decides alone: looked at before a store is asked, drawn from after it.
bool Limiter::draw_local(Progress& progress, bool look) const {
  Exchange& x = *progress.x;
  for (std::size_t i = 0; i < limits_.size(); ++i) {
    const Limit& limit = limits_[i];
    if (limit.store != nullptr) continue;
    const std::uint64_t bucket = bucket_of(limit, x);
    const std::uint64_t now = progress.control->now_ns();
    const Drawn drawn = look ? limit.buckets->look(bucket, now) : limit.buckets->take(bucket, now);
    if (look && (drawn.admitted || limit.observe)) continue;
    if (!passes(progress, i, drawn)) return false;
  }
  return true;
}

Verdict Limiter::on_request(Exchange& x, StreamControl& control) const {
  if (x.rehearsed) return Verdict::kContinue;
  Progress& progress = x.state<Progress>(this);
  progress.limiter = this;
  progress.x = &x;
  progress.control = &control;
  if (limits_.size() > 1 && !draw_local(progress, true)) return Verdict::kReply;
  return ask_stores(progress);
}

// A store is asked for what the process itself would let through; what it would not, the store,
// which counts for others too, would not either.
Verdict Limiter::ask_stores(Progress& progress) const {
  Exchange& x = *progress.x;
  for (; progress.at < limits_.size(); ++progress.at) {
    const Limit& limit = limits_[progress.at];
    if (limit.store == nullptr) continue;
    const Drawn drawn = limit.buckets->take(bucket_of(limit, x), progress.control->now_ns());
    if (!passes(progress, progress.at, drawn)) return Verdict::kReply;
    if (!drawn.admitted) continue;  // observed
    LimitStore* const store = progress.control->limit_store(limit.store);
    const std::string_view key = limit.key(x);
    progress.question = {.key = {keyed_hash(key, limit.store_keys[0], limit.store_keys[1]),
                                 keyed_hash(key, limit.store_keys[2], limit.store_keys[3])},
                         .allowance = limit.allowance,
                         .answered =
                             [](void* owner, bool known, const Drawn& answer) {
                               auto& mine = *static_cast<Progress*>(owner);
                               mine.limiter->answered(mine, known, answer);
                             },
                         .owner = &progress};
    if (store != nullptr && store->ask(progress.question)) {
      progress.asked = store;
      return Verdict::kPause;
    }
    x.count(Event::kLimitAlone);
  }
  return draw_local(progress, false) ? Verdict::kContinue : Verdict::kReply;
}

// What the process has let through stands where the store gives no answer.
void Limiter::answered(Progress& progress, bool known, const Drawn& drawn) const {
  Exchange& x = *progress.x;
  progress.asked = nullptr;
  x.count(known ? Event::kLimitShared : Event::kLimitAlone);
  if (x.answer.set) return;  // out of time
  const std::size_t at = progress.at++;
  if ((known && !passes(progress, at, drawn)) || ask_stores(progress) != Verdict::kPause)
    progress.control->resume();
}

// ---- draft-ietf-httpapi-ratelimit-headers

// A bucket is a quota of `burst` in the time it takes to fill.
std::string Limiter::policy_of(const std::vector<Limit>& limits) {
  std::string text;
  for (const Limit& limit : limits) {
    if (limit.observe) continue;
    if (!text.empty()) text += ", ";
    text += limit.label + ";q=" + std::to_string(limit.allowance.burst) +
            ";w=" + std::to_string(limit.window);
  }
  return text;
}

// `t` is the time until a token where none is left, else until the bucket is full.
Verdict Limiter::on_response(Exchange& x, StreamControl&) const {
  const Progress& progress = x.state<Progress>(this);
  std::string_view text;
  for (std::size_t i = 0; i < limits_.size(); ++i) {
    const Limit& limit = limits_[i];
    if (!progress.seen[i] || limit.observe) continue;
    const Drawn& drawn = progress.drawn[i];
    const std::uint64_t left = drawn.remaining(limit.allowance);
    char remaining[24], time[24];
    text = x.arena.concat(
        text, std::string_view(text.empty() ? "" : ", "), limit.label,
        ";r=", decimal(left, remaining),
        ";t=", decimal(seconds(left == 0 ? drawn.wait_ns(limit.allowance) : drawn.debt_ns), time));
  }
  if (text.empty()) return Verdict::kContinue;
  x.response.headers.add(HeaderId::kUnknown, "ratelimit-policy", policy_);
  x.response.headers.add(HeaderId::kUnknown, "ratelimit", text);
  return Verdict::kContinue;
}

// ---- how it is made

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) out += c < 0x20 || c > 0x7e || c == '"' || c == '\\' ? '_' : c;
  return out + '"';
}

// Who knows the keys of the store and not its password cannot tell whose they are.
std::array<std::uint64_t, 4> store_keys(const std::string& name, const std::string& password) {
  std::array<std::uint64_t, 4> keys{};
  for (std::uint64_t i = 0; i < keys.size(); ++i)
    keys[i] = keyed_hash(name, keyed_hash(password, i, 0), i);
  return keys;
}

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Settings* const settings = context.told<Settings>();
  if (settings == nullptr || !settings->rules || settings->rules->value.empty()) return nullptr;
  std::vector<Limit> limits;
  std::vector<std::string> names;
  for (const Rule& rule : settings->rules->value) {
    std::string name = rule.name();
    const auto same = std::count(names.begin(), names.end(), name);
    names.push_back(name);
    if (same != 0) name += '#' + std::to_string(same + 1);
    const std::string full = context.route.name + '\n' + name + '\n' + std::to_string(rule.burst);
    Limit limit{.allowance = rule.allowance(),
                .window = rule.window(),
                .per = std::nullopt,
                .observe = rule.observe,
                .buckets = context.limits.buckets(full, rule.allowance()),
                .store = nullptr,
                .label = quoted(name),
                .words = "limit " + names.back() + ", set at " + context.config.where(rule.mark)};
    if (rule.per) limit.per.emplace(*rule.per);
    if (rule.shared) {
      limit.store = context.limits.store(*rule.shared);
      limit.store_keys = store_keys(full, rule.shared->password);
    }
    limits.push_back(std::move(limit));
  }
  return std::make_unique<Limiter>(std::move(limits), context.limits.seed());
}

}  // namespace

FilterKind limit_filter() { return {make, {&config::extension_of<Settings>}}; }

}  // namespace outrider
