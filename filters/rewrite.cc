// The path and host that the upstream sees. What a rewrite makes is checked like a client's path,
// so captures cannot smuggle anything past the rules that the request itself passed.
#include "filters/rewrite.h"

#include <re2/re2.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "filters/filter.h"
#include "filters/http/path.h"
#include "filters/registry.h"

namespace outrider {
namespace {

constexpr std::string_view kRest = "/**";
constexpr int kGroups = 10;

bool is_group(std::string_view pattern, std::size_t at) {
  return pattern[at] == '\\' && at + 1 < pattern.size() && pattern[at + 1] >= '0' &&
         pattern[at + 1] <= '9';
}

// The capture called `name`; nothing when the match has none of that name.
const std::string_view* capture_named(std::string_view name, const config::Match& match,
                                      const Captures& captures) {
  std::size_t at = 0;
  for (const config::PathMatch::Segment& segment : match.path.segments) {
    if (segment.kind != config::PathMatch::Segment::Kind::kAny) continue;
    if (at == Captures::kMax) return nullptr;
    if (!name.empty() && segment.text == name) return &captures.segments[at];
    ++at;
  }
  return nullptr;
}

// Every match of `regex` in `text` replaced by `with`, `\0`…`\9` standing for groups. False: the
// result grows too long.
bool replace_all(const re2::RE2& regex, std::string_view with, std::string_view text,
                 std::string& out) {
  const re2::StringPiece whole(text.data(), text.size());
  re2::StringPiece groups[kGroups];
  const int count = std::min(regex.NumberOfCapturingGroups() + 1, kGroups);
  std::size_t at = 0, copied = 0;
  bool after_match = false;  // an empty match right behind another one is none
  while (at <= text.size() &&
         regex.Match(whole, at, text.size(), re2::RE2::UNANCHORED, groups, count)) {
    const auto begin = static_cast<std::size_t>(groups[0].data() - text.data());
    if (groups[0].empty() && begin == at && after_match) {
      ++at;
      after_match = false;
      continue;
    }
    out.append(text.substr(copied, begin - copied));
    for (std::size_t i = 0; i < with.size(); ++i) {
      if (!is_group(with, i)) {
        out += with[i];
        if (with[i] == '\\' && i + 1 < with.size() && with[i + 1] == '\\') ++i;
        continue;
      }
      const int group = with[++i] - '0';
      if (group < count) out.append(groups[group].data(), groups[group].size());
    }
    if (out.size() > limits::kTargetBytes) return false;
    at = copied = begin + groups[0].size();
    after_match = true;
  }
  out.append(text.substr(copied));
  return out.size() <= limits::kTargetBytes;
}

class Rewrite final : public Filter {
 public:
  explicit Rewrite(const FilterContext& context)
      : Filter(Phase::kRequest), capturer_(context.route) {
    const config::Policy& policy = context.policy;
    if (policy.rewrite_path) path_ = policy.rewrite_path->value;
    if (policy.rewrite_host) host_ = policy.rewrite_host->value;
    if (!policy.rewrite_regex) return;
    for (const auto& [regex, with] : policy.rewrite_regex->value)
      regexes_.push_back({std::make_unique<const re2::RE2>(regex, re2::RE2::Quiet), with});
  }

  Verdict on_request(Exchange& x, StreamControl&) const override {
    if (x.request.version == Version::kTcp) return Verdict::kContinue;
    std::string_view why;
    if (x.path != "*" && !rewrite_path(x, why)) {
      x.reply(Reason::kBadRequest, x.arena.concat("the rewritten path is refused: ", why));
      return Verdict::kReply;
    }
    if (!host_.empty()) x.request.authority = host_;
    return Verdict::kContinue;
  }

 private:
  struct Replacement {
    std::unique_ptr<const re2::RE2> regex;
    std::string with;
  };

  bool rewrite_path(Exchange& x, std::string_view& why) const {
    if (!path_.empty()) {
      Captures captures;
      if (x.match != nullptr && takes_captures(path_))
        capturer_.capture(*x.match, x.path, captures);
      if (x.match == nullptr) captures.rest = x.path;
      return check_path(x, expand_path(path_, x.match, captures, x.arena), x.path_out, why);
    }
    if (regexes_.empty()) return true;
    std::string_view path = x.path;
    thread_local std::string from, to;
    for (const Replacement& replacement : regexes_) {
      if (path.size() > limits::kRegexInputBytes) {
        why = "longer than regexes are applied to";
        return false;
      }
      to.clear();
      if (!replace_all(*replacement.regex, replacement.with, path, to)) {
        why = "it grew too long";
        return false;
      }
      from.swap(to);
      path = from;
    }
    return check_path(x, x.arena.copy(path), x.path_out, why);
  }

  const Capturer capturer_;
  std::string path_;
  std::string host_;
  std::vector<Replacement> regexes_;
};

}  // namespace

bool takes_captures(std::string_view pattern) {
  return pattern.ends_with(kRest) || pattern.find_first_of("{\\") != std::string_view::npos;
}

std::string_view expand_path(std::string_view pattern, const config::Match* match,
                             const Captures& captures, Arena& arena) {
  if (!takes_captures(pattern)) return pattern;
  const bool rest = pattern.ends_with(kRest);
  if (rest) pattern.remove_suffix(kRest.size());
  const bool regex = match != nullptr && match->path.kind == config::PathMatch::Kind::kRegex;
  std::string_view path;
  std::size_t copied = 0;
  const auto put = [&](std::size_t until, std::string_view value, std::size_t next) {
    path = arena.concat(path, pattern.substr(copied, until - copied), value);
    copied = next;
  };
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (regex && is_group(pattern, i)) {
      put(i, captures.groups[static_cast<std::size_t>(pattern[i + 1] - '0')], i + 2);
      ++i;
    } else if (match != nullptr && pattern[i] == '{') {
      const std::size_t end = pattern.find('}', i);
      if (end == std::string_view::npos) break;
      const std::string_view* const value =
          capture_named(pattern.substr(i + 1, end - i - 1), *match, captures);
      if (value == nullptr) continue;
      put(i, *value, end + 1);
      i = end;
    }
  }
  put(pattern.size(), rest ? captures.rest : std::string_view(), pattern.size());
  return path.empty() ? "/" : path;
}

bool check_path(Exchange& x, std::string_view path, std::string_view& checked,
                std::string_view& why) {
  const config::Listener& listener = *x.client.listener;
  NormalisedTarget target;
  if (!normalise_path(path, listener.merge_slashes, x.arena, target, why)) return false;
  if (target.escaped_slash && listener.escaped_slashes == config::EscapedSlashes::kReject) {
    why = "%2f or %5c in it (paths.escaped_slashes: reject)";
    return false;
  }
  checked = target.path;
  return true;
}

namespace {
std::unique_ptr<const Filter> make(const FilterContext& context) {
  const config::Policy& policy = context.policy;
  const bool rewrites = policy.rewrite_path || policy.rewrite_host || policy.rewrite_regex;
  return context.forwards && rewrites ? std::make_unique<Rewrite>(context) : nullptr;
}
}  // namespace

FilterKind rewrite_filter() { return {make}; }

}  // namespace outrider
