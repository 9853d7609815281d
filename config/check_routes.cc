// Captures and variables of a route's effective policy against all of its matches: only here are
// both known.
#include <algorithm>

#include "config/draft.h"
#include "config/extension.h"
#include "config/variables.h"

namespace outrider::config {
namespace {

class Check {
 public:
  Check(Draft& draft, const Value& at, const Route& route)
      : draft_(draft), at_(at), route_(route) {}

  void path(const std::string& text, const Mark& mark, std::string_view key) {
    Template wanted;
    if (parse_template(text, wanted)) return;  // reported
    for (const Match& match : route_.matches)
      if (const Problem problem = check_captures(wanted, match.path))
        return lacks(mark, key, problem.text, match);
  }

  void fields(const Fields& fields, std::string_view key) {
    for (const auto& [name, leaf] : fields) value(leaf.value, leaf.mark, key);
  }

  void value(const std::string& text, const Mark& mark, std::string_view key) {
    if (text.find("%{path.") == std::string::npos) return;
    std::vector<Piece> pieces;
    static_cast<void>(split_text(text, pieces));  // its problems are reported where it was read
    for (const Piece& piece : pieces) {
      if (!piece.variable || piece.variable->kind != VariableKind::kCapture) continue;
      Template wanted;
      wanted.captures.push_back(piece.variable->argument);
      for (const Match& match : route_.matches)
        if (const Problem problem = check_captures(wanted, match.path))
          return lacks(mark, key, problem.text, match);
    }
  }

  // `/a//b`, where every listener reads // as /.
  void empty_segments() {
    const auto merges = [&](const std::string& name) {
      return draft_.config.listeners[*draft_.listeners.find(name)].merge_slashes;
    };
    if (!std::all_of(route_.listeners.begin(), route_.listeners.end(), merges)) return;
    for (const Match& match : route_.matches) {
      const auto empty = [](const PathMatch::Segment& segment) {
        return segment.kind == PathMatch::Segment::Kind::kText && segment.text.empty();
      };
      if (std::any_of(match.path.segments.begin(), match.path.segments.end(), empty))
        draft_.diagnostics.add({draft_.source_of(match.mark),
                                {match.mark.line, match.mark.column},
                                Severity::kError,
                                at_.path(),
                                "the match '" + match.short_form +
                                    "' has an empty segment, which no request has: '//' is read as "
                                    "'/' (`paths.merge_slashes` of the listener)",
                                "bad-value",
                                {}});
    }
  }

  void told(const Policy& policy) {
    std::vector<Finding> found;
    for (const auto& [extension, settings] : policy.told) extension->check(settings.get(), found);
    for (Finding& one : found) {
      const Mark& mark = one.mark.built_in() ? at_.mark() : one.mark;
      draft_.diagnostics.add({draft_.source_of(mark),
                              {mark.line, mark.column},
                              Severity::kError,
                              at_.path(),
                              std::move(one.text),
                              std::move(one.code),
                              {}});
    }
  }

 private:
  void lacks(const Mark& mark, std::string_view key, const std::string& what, const Match& match) {
    std::string text(key);
    text += " " + what + " the match '" + match.short_form + "' does not capture";
    draft_.diagnostics.add({draft_.source_of(mark),
                            {mark.line, mark.column},
                            Severity::kError,
                            at_.path(),
                            std::move(text),
                            "unknown-capture",
                            {}});
  }

  Draft& draft_;
  const Value& at_;
  const Route& route_;
};

}  // namespace

void check_route(Draft& draft, const Value& at, const Route& route) {
  Check check(draft, at, route);
  if (draft.complete) check.empty_segments();
  if (route.redirect && !route.redirect->path.empty())
    check.path(route.redirect->path, route.redirect->mark, "redirect");
  if (route.respond)
    for (const auto& [name, value] : route.respond->headers)
      check.value(value, route.respond->mark, "a header");
  if (route.policies.empty()) return;
  const Policy& policy =
      route.policies.front();  // targets differ in what services say, and those say none of this
  if (policy.rewrite_path)
    check.path(policy.rewrite_path->value, policy.rewrite_path->mark, "rewrite");
  check.told(policy);
  for (const HeaderEdits* edits : {&policy.request_headers, &policy.response_headers}) {
    check.fields(edits->set, "a header");
    check.fields(edits->add, "a header");
  }
}

}  // namespace outrider::config
