// What one match says, apart from any table: does it fit a request and if not why, which of two
// comes first, does one take everything another takes. The route table uses it for what a trie does
// not answer, `explain` and the shadow check for everything. The order is that of config.md §3
// (Precedence); file order is the caller's.
#pragma once

#include <compare>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/model.h"
#include "filters/exchange.h"

namespace re2 {
class RE2;
}

namespace outrider {

// Compiled regexes by their text, each once. The loader has refused what does not compile; such a
// one fits nothing here.
class Regexes {
 public:
  Regexes();
  ~Regexes();
  Regexes(const Regexes&) = delete;
  Regexes& operator=(const Regexes&) = delete;
  const re2::RE2* get(const std::string& text);
  // Unanchored; sees at most limits::kRegexInputBytes.
  static bool fits(const re2::RE2& regex, std::string_view text);

 private:
  std::unordered_map<std::string_view, std::unique_ptr<re2::RE2>> by_text_;
};

// Method, headers, query, cookies and client address of one match. Views into the model, which must
// outlive it.
class Conditions {
 public:
  // `unseen`: what a condition says of a value that is longer than regexes see.
  Conditions(const config::Match& match, Regexes& regexes, bool unseen = false);
  bool any() const { return any_; }
  bool hold(const Exchange& x) const { return !any_ || all_hold(x); }
  // The first that does not hold, `method: GET is not POST`; empty when all do. Without `echo` it
  // holds nothing that the client sent but a method everybody knows.
  std::string failure(const Exchange& x, bool echo) const;

 private:
  struct ValueTest {
    const config::ValueMatch* match;
    const re2::RE2* regex;
    bool unseen;
    bool is_unseen(std::string_view value) const {
      return regex != nullptr && value.size() > limits::kRegexInputBytes;
    }
    bool fits(std::string_view value) const;
    bool holds(std::optional<std::string_view> value) const;
  };
  struct FieldTest {
    HeaderId id;
    std::string_view name;
    ValueTest value;
    bool holds(const RequestHead& request) const;
  };
  struct NamedTest {
    std::string_view name;
    ValueTest value;
  };
  bool all_hold(const Exchange& x) const;
  bool method_holds(const RequestHead& request) const;
  bool client_ip_holds(const Exchange& x) const;
  std::string method_failure(const RequestHead& request, bool echo) const;
  std::string header_failure(const FieldTest& test, const RequestHead& request, bool echo) const;
  std::string client_ip_failure(const Exchange& x, bool echo) const;

  const config::Match* match_;
  bool any_;
  std::uint16_t methods_ = 0;  // bits by Method
  bool other_methods_ = false;
  std::vector<FieldTest> headers_;
  std::vector<NamedTest> query_;
  std::vector<NamedTest> cookies_;
};

// The port of the request's authority, or the scheme's.
std::uint16_t effective_port(const Exchange& x);
bool host_fits(const config::HostMatch& host, const Exchange& x);
bool path_fits(const config::PathMatch& path, std::string_view text, const re2::RE2* regex);

// `less`: the first is more specific, so it is asked first.
std::weak_ordering compare_hosts(const config::HostMatch& a, const config::HostMatch& b);
std::weak_ordering compare_paths(const config::PathMatch& a, const config::PathMatch& b);
std::weak_ordering compare_conditions(const config::Match& a, const config::Match& b);

// Does `wide` surely fit every request that `narrow` fits? `OPTIONS *`, which has no path, apart.
bool covers(const config::Match& wide, const config::Match& narrow);

// The whole path of an exact match.
std::string exact_text(const config::PathMatch& path);

}  // namespace outrider
