// The keys that inherit: of routes, policies, services and defaults.
#include <algorithm>

#include "config/draft.h"
#include "config/extension.h"
#include "config/variables.h"

namespace outrider::config {
namespace {

void read_when(const Value& value, Policy& policy) {
  if (value.is_map()) return value.wrong_type("a list of conditions and statuses");
  RetryWhen out{.bits = 0, .statuses = {}};
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    const auto text = item.text("a condition or a status");
    if (!text) continue;
    Problem problem = parse_retry_on(*text, out);
    if (!problem) continue;
    if (problem.code == "bad-value" && problem.suggestion.empty()) {
      constexpr std::string_view kKnown[] = {
          "connect-failure", "refused-stream", "reset", "per-try-timeout", "5xx", "gateway-error"};
      problem.suggestion = nearest(*text, kKnown);
    }
    item.fail(problem);
  }
  policy.retry_when = {std::move(out), value.mark()};
}

void read_timeout(const Value& value, Policy& policy) {
  if (!value.is_map()) {
    Millis total{};
    if (value.read(total, true)) policy.timeout_total = {total, value.mark()};
    return;
  }
  const Map map(value, Section::kTimeout);
  map.leaf("headers", policy.timeout_headers);
  map.leaf("total", policy.timeout_total);
  map.leaf("per_try", policy.timeout_per_try);
  map.leaf("idle", policy.timeout_idle);
}

void read_retry(const Value& value, Policy& policy) {
  if (!value.is_map()) {
    std::int64_t attempts = 0;
    if (value.is_false() || value.read_number(attempts, 0, limits::kMaxRetryAttempts))
      policy.retry_attempts = {static_cast<unsigned>(attempts), value.mark()};
    return;
  }
  const Map map(value, Section::kRetry);
  if (unsigned attempts = 0; map.get_count("attempts", attempts))
    policy.retry_attempts = {attempts, map["attempts"]->mark()};
  if (const auto when = map["when"]) read_when(*when, policy);
  map.leaf("backoff", policy.retry_backoff, parse_backoff);
  map.leaf("budget", policy.retry_budget, parse_percent);
  if (const auto methods = map.get_word("methods"))
    policy.retry_methods = {*methods == 0 ? RetryMethods::kIdempotent : RetryMethods::kAll,
                            map["methods"]->mark()};
  if (std::uint64_t buffer = 0; map.get_size("buffer", buffer))
    policy.retry_buffer = {buffer, map["buffer"]->mark()};
}

void read_hedge(const Value& value, Policy& policy) {
  if (!value.is_map()) {
    Millis after{};
    if (value.read(after, true)) policy.hedge_after = {after, value.mark()};
    return;
  }
  const Map map(value, Section::kHedge);
  map.leaf("after", policy.hedge_after);
  if (unsigned most = 0; map.get_count("at_most", most))
    policy.hedge_at_most = {most, map["at_most"]->mark()};
}

void read_mirror(const Value& value, Policy& policy) {
  Mirror mirror;
  if (value.is_false())
    mirror.share = 0;
  else if (!value.parse(parse_mirror, mirror, "a service and a share, as in 'cart 5%'"))
    return;
  mirror.target.mark = value.mark();
  policy.mirror = {std::move(mirror), value.mark()};
}

bool check_template(const Value& value) {
  Template found;
  return value.parse(parse_template, found);
}

void read_rewrite(const Value& value, Policy& policy) {
  if (!value.is_map()) {
    if (check_template(value)) policy.rewrite_path = {std::string(*value.text()), value.mark()};
    return;
  }
  const Map map(value, Section::kRewrite);
  if (const auto path = map["path"]; path && check_template(*path))
    policy.rewrite_path = {std::string(*path->text()), path->mark()};
  if (const auto host = map["host"])
    if (const auto text = host->text(); text && host->check(check_host, *text))
      policy.rewrite_host = {std::string(*text), host->mark()};
  const auto regexes = map["regex"];
  if (!regexes) return;
  if (map["path"])
    regexes->error_at_key("conflict", "stands beside `path`: one of them decides the path");
  if (!regexes->is_map()) return regexes->wrong_type("a map of regexes and replacements");
  RegexRewrites rewrites;
  for (std::uint32_t i = 0; i < regexes->entries(); ++i) {
    const Value entry = regexes->entry(i);
    if (const Problem problem = check_regex(entry.name())) {
      entry.error_at_key(problem.code, "'" + std::string(entry.name()) + "' " + problem.text);
      continue;
    }
    const auto replacement = entry.text();
    if (!replacement) continue;
    if (const Problem problem = check_replacement(entry.name(), *replacement))
      entry.fail(problem);
    else
      rewrites.emplace_back(entry.name(), *replacement);
  }
  policy.rewrite_regex = {std::move(rewrites), regexes->mark()};
}

void read_edits(const Value& value, HeaderEdits& edits) {
  const Map map(value, Section::kHeaderEdits);
  if (!map) return;
  if (const auto set = map["set"]) read_header_values(*set, edits.set);
  if (const auto add = map["add"]) read_header_values(*add, edits.add);
  const auto remove = map["remove"];
  if (!remove) return;
  if (remove->is_map()) return remove->wrong_type("a list of header names");
  std::vector<std::string> names;
  for (std::uint32_t i = 0; i < remove->items(); ++i) {
    const Value item = remove->item(i);
    if (const auto name = item.text(); name && item.check(check_edited_field, *name))
      names.emplace_back(*name);
  }
  edits.remove = {std::move(names), remove->mark()};
}

void read_upgrade(const Value& value, Policy& policy) {
  if (value.is_map()) return value.wrong_type("a list of protocols");
  std::vector<std::string> protocols;
  for (std::uint32_t i = 0; i < value.items(); ++i) {
    const Value item = value.item(i);
    const auto text = item.text();
    if (!text || !item.check(check_token, *text)) continue;
    std::string protocol = lower(*text);
    if (protocol == "h2c")
      item.fail({"is never followed: HTTP/2 in the clear needs no upgrade", "bad-value", {}});
    else
      protocols.push_back(std::move(protocol));
  }
  policy.upgrade = {std::move(protocols), value.mark()};
}

}  // namespace

bool read_header_values(const Value& value, Fields& out) {
  if (!value.is_map()) {
    value.wrong_type("a map of header names and values");
    return false;
  }
  for (std::uint32_t i = 0; i < value.entries(); ++i) {
    const Value entry = value.entry(i);
    if (const Problem problem = check_edited_field(entry.name())) {
      entry.error_at_key(problem.code, "'" + std::string(entry.name()) + "' " + problem.text);
      continue;
    }
    const auto text = entry.text();
    if (!text || !entry.check(check_field_value, *text)) continue;
    std::vector<Piece> pieces;
    if (text->find('%') != std::string_view::npos) {
      const std::string problem = split_text(*text, pieces);
      if (!problem.empty()) {
        entry.error("unknown-variable", entry.shown() + ": " + problem);
        continue;
      }
    }
    const bool twice = std::any_of(out.begin(), out.end(), [&](const auto& field) {
      return lower(field.first) == lower(entry.name());
    });
    if (twice)
      entry.error_at_key("duplicate-key", "the same header field twice: names are blind to case");
    out.emplace_back(entry.name(), Leaf<std::string>{std::string(*text), entry.mark()});
  }
  return true;
}

Policy read_policy(const Map& map) {
  Policy policy;
  if (const auto value = map["timeout"]) read_timeout(*value, policy);
  if (const auto value = map["retry"]) read_retry(*value, policy);
  if (const auto value = map["hedge"]) read_hedge(*value, policy);
  if (const auto value = map["mirror"]) read_mirror(*value, policy);
  if (const auto value = map["rewrite"]) read_rewrite(*value, policy);
  if (const auto value = map["headers"]) {
    const Map headers(*value, Section::kHeaders);
    if (headers) {
      if (const auto request = headers["request"]) read_edits(*request, policy.request_headers);
      if (const auto response = headers["response"]) read_edits(*response, policy.response_headers);
    }
  }
  if (const auto value = map["body"]) {
    const Map body(*value, Section::kBody);
    if (std::uint64_t max = 0; body && body.get_size("max", max))
      policy.body_max = {max, body["max"]->mark()};
  }
  if (const auto value = map["upgrade"]) read_upgrade(*value, policy);
  if (const auto word = map.get_word("when_empty"))
    policy.when_empty = {*word == 0 ? WhenEmpty::kSpill : WhenEmpty::kFail,
                         map["when_empty"]->mark()};
  if (map)
    for (const Extension* extension : map.extensions())
      if (const auto value = map[extension->key.name])
        policy.told.emplace_back(extension, extension->read(*value));
  return policy;
}

void check_mirror(Draft& draft, const Map& map, const Policy& policy) {
  if (!map || !policy.mirror || policy.mirror->value.share == 0) return;
  const auto at = map["mirror"];
  if (!at) return;
  const Target& target = policy.mirror->value.target;
  if (!want_target(draft, *at, target, false)) return;
  const Service& service = draft.config.services[*draft.services.find(target.service)];
  if (service.protocol == Protocol::kTcp)
    at->error("conflict", "the service '" + service.name + "' speaks raw TCP");
}

void read_policies(Draft& draft) {
  for (const Top& top : draft.tops) {
    if (const auto policies = top.map["policies"]) {
      if (!policies->is_map()) {
        policies->wrong_type("a map of names and policies");
        draft.complete = false;
      }
      for (std::uint32_t i = 0; i < policies->entries(); ++i) {
        const Value entry = policies->entry(i);
        if (const Problem problem = check_name(entry.name()))
          entry.error_at_key(problem.code, "'" + std::string(entry.name()) + "' " + problem.text);
        const bool fresh =
            draft.policies.add(entry, entry.name(), draft.policy_levels.size(), draft.where(entry));
        const Map map(entry, Section::kPolicy);
        Policy policy = map ? read_policy(map) : Policy{};
        check_mirror(draft, map, policy);
        if (fresh) draft.policy_levels.push_back(std::move(policy));
      }
    }
    if (const auto value = top.map["defaults"]) {
      const Map defaults(*value, Section::kDefaults);
      if (!defaults) continue;
      const auto route = defaults["route"];
      if (!route) continue;
      const Map map(*route, Section::kPolicy);
      if (map) draft.route_defaults = read_policy(map);
      check_mirror(draft, map, draft.route_defaults);
    }
  }
}

}  // namespace outrider::config
