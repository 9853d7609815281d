// `basic`: a name and password of an htpasswd file (RFC 7617). Checking a password is slow by
// design, so it is never done on a worker's thread; what came of it is remembered there for a
// while, under a keyed hash of name, password and stored hash: a changed file forgets by itself.
// Invariant: an unknown name costs what a wrong password costs, and both get the same answer.
#include <crypt.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "filters/digest.h"
#include "filters/registry.h"

namespace outrider {
namespace {

using config::Key;
using config::Maybe;
using config::Type;
using config::Value;

// ---- the file

using Users = std::map<std::string, std::string, std::less<>>;  // name → hash
struct UserFile {
  std::string name;
  std::shared_ptr<const Users> users;
};
config::Shown shown(const UserFile& file) { return {{file.name}}; }

bool crypt_text(std::string_view text, std::size_t size) {
  return text.size() == size && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '/';
         });
}

std::optional<unsigned> number(std::string_view text) {
  unsigned value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// What is wrong with a stored hash; never shows it.
std::string hash_problem(std::string_view hash) {
  constexpr std::size_t kBcryptTail = 53, kSha256Tail = 43, kSha512Tail = 86;
  constexpr std::string_view kRounds = "rounds=";
  if (hash.starts_with("$2y$") || hash.starts_with("$2b$") || hash.starts_with("$2a$")) {
    const auto cost = hash.size() > 7 && hash[6] == '$' ? number(hash.substr(4, 2)) : std::nullopt;
    if (!cost || *cost < 4 || !crypt_text(hash.substr(7), kBcryptTail))
      return "the bcrypt hash is malformed";
    if (*cost > limits::kBcryptCost)
      return "the bcrypt cost is above " + std::to_string(limits::kBcryptCost) +
             ": each login would take seconds";
    return {};
  }
  if (hash.starts_with("$5$") || hash.starts_with("$6$")) {
    const std::size_t tail = hash[1] == '5' ? kSha256Tail : kSha512Tail;
    const std::size_t last = hash.rfind('$');
    if (last < 3 || !crypt_text(hash.substr(last + 1), tail)) return "the SHA hash is malformed";
    std::string_view inside = hash.substr(3, last - 3);
    if (!inside.starts_with(kRounds)) return {};
    inside.remove_prefix(kRounds.size());
    const auto rounds = number(inside.substr(0, inside.find('$')));
    if (!rounds) return "the SHA hash is malformed";
    if (*rounds > limits::kCryptRounds)
      return "the SHA hash has over " + std::to_string(limits::kCryptRounds) +
             " rounds: each login would take seconds";
    return {};
  }
  if (hash.starts_with("$apr1$") || hash.starts_with("$1$") || hash.starts_with("{SHA}"))
    return "this kind of hash (MD5, SHA-1) is guessed too fast: make it anew with `htpasswd -B`";
  return "the hash is none of bcrypt ($2y$), SHA-256 ($5$), SHA-512 ($6$): make it with "
         "`htpasswd -B`";
}

void read_users(const Value& value, Maybe<UserFile>& out) {
  auto users = std::make_shared<Users>();
  const auto file = config::read_named_file(value, limits::kCredentialFileBytes);
  out = {UserFile{file ? file->name : std::string(), users}, value.mark()};
  if (!file) return;
  config::each_line(file->text, [&](std::string_view line, std::size_t at) {
    const std::size_t colon = line.find(':');
    const std::string_view name = line.substr(0, colon);
    std::string problem;
    if (colon == std::string_view::npos || name.empty())
      problem = "the line is not NAME:HASH";
    else if (config::check_field_value(name))
      problem = "the name holds a control byte";
    else
      problem = hash_problem(line.substr(colon + 1));
    if (problem.empty() && !users->emplace(name, line.substr(colon + 1)).second)
      problem = "the name stands twice";
    if (!problem.empty())
      value.error("bad-value", file->name + ":" + std::to_string(at) + ": " + problem);
  });
  if (users->empty()) value.error("bad-value", file->name + " holds no user");
}

struct Basic {
  static constexpr Key kFields[] = {
      {.name = "users", .type = Type::kFile, .text = "An htpasswd file: NAME:HASH a line."},
      {.name = "realm", .type = Type::kText, .text = "What browsers show when they ask."},
      {.name = "forward",
       .type = Type::kBool,
       .text = "Whether the service sees the credentials; false unless said."}};
  static constexpr Key kKey = {.name = "basic",
                               .type = Type::kMap,
                               .text = "Asks for a name and password (HTTP Basic).",
                               .fields = kFields};
  static constexpr bool kUpstream = false;

  static void read(const Value& value, Basic& out) {
    const config::Map map(value, kKey);
    if (!map) return;
    if (const auto users = map["users"]) read_users(*users, out.users);
    if (const auto realm = map["realm"])
      if (const auto text = realm->text(); text && realm->check(config::check_field_value, *text))
        out.realm = {std::string(*text), realm->mark()};
    map.leaf("forward", out.forward);
  }
  static auto leaves(auto& self) { return std::tie(self.users, self.realm, self.forward); }
  void check(std::vector<config::Finding>& out) const {
    if (!users) out.push_back({{}, "`basic` has no `users`", "missing-key"});
  }
  config::Traits traits() const { return {.guards = true}; }

  Maybe<UserFile> users;
  Maybe<std::string> realm;
  Maybe<bool> forward;
};

// ---- passwords

// What a thread remembers of passwords it has seen checked. Right ones have a table of their own,
// so that no number of wrong ones drives them out.
class Verdicts {
 public:
  std::optional<bool> find(const Digest& digest, std::uint64_t now_ns) const {
    for (const bool fits : {true, false}) {
      const Entry& entry = tables_[fits ? 1 : 0][slot(digest)];
      if (entry.until_ns > now_ns && entry.digest == digest) return fits;
    }
    return std::nullopt;
  }
  void keep(const Digest& digest, bool fits, std::uint64_t now_ns) {
    tables_[fits ? 1 : 0][slot(digest)] = {
        digest,
        now_ns + static_cast<std::uint64_t>(std::chrono::nanoseconds(limits::kVerdictAge).count())};
  }

 private:
  struct Entry {
    Digest digest{};
    std::uint64_t until_ns = 0;
  };
  static std::size_t slot(const Digest& digest) {
    return (digest[0] | static_cast<std::size_t>(digest[1]) << 8) % limits::kVerdicts;
  }
  std::vector<Entry> tables_[2] = {std::vector<Entry>(limits::kVerdicts),
                                   std::vector<Entry>(limits::kVerdicts)};
};

Verdicts& verdicts() {
  thread_local Verdicts verdicts;
  return verdicts;
}

bool fits(const std::string& password, const std::string& stored) {
  const auto room = std::make_unique<crypt_data>();
  const char* made = crypt_r(password.c_str(), stored.c_str(), room.get());
  const bool same = made != nullptr && equal_in_constant_time(made, stored);
  wipe(reinterpret_cast<char*>(room.get()), sizeof *room);
  return same;
}

class Check final : public Errand {
 public:
  Check(std::string_view password, std::string_view stored, const Digest& digest,
        std::uint64_t now_ns)
      : password_(password), stored_(stored), digest_(digest), now_ns_(now_ns) {}
  ~Check() override { wipe(password_.data(), password_.size()); }
  // Many requests come with the same password before its first check is done: the thread that
  // checks remembers too.
  void run() override {
    const std::optional<bool> known = verdicts().find(digest_, now_ns_);
    fits_ = known ? *known : fits(password_, stored_);
    if (!known) verdicts().keep(digest_, fits_, now_ns_);
  }
  const Digest& digest() const { return digest_; }
  bool right() const { return fits_; }

 private:
  std::string password_;
  const std::string stored_;
  const Digest digest_;
  const std::uint64_t now_ns_;
  bool fits_ = false;
};

// ---- the filter

// RFC 4648 §4, padding optional. Empty: it is none.
std::string_view base64_decoded(std::string_view text, Arena& arena) {
  while (text.ends_with('=')) text.remove_suffix(1);
  char* const start = arena.bytes(text.size());
  char* to = start;
  std::uint32_t gathered = 0;
  unsigned bits = 0;
  for (const char c : text) {
    std::uint32_t value = 0;
    if (c >= 'A' && c <= 'Z')
      value = static_cast<std::uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z')
      value = static_cast<std::uint32_t>(c - 'a' + 26);
    else if (c >= '0' && c <= '9')
      value = static_cast<std::uint32_t>(c - '0' + 52);
    else if (c == '+' || c == '/')
      value = c == '+' ? 62 : 63;
    else
      return {};
    gathered = (gathered << 6 | value) & 0xffffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    *to++ = static_cast<char>(gathered >> bits & 0xff);
  }
  return {start, static_cast<std::size_t>(to - start)};
}

class BasicFilter final : public Filter {
 public:
  explicit BasicFilter(const Basic& settings)
      : Filter(Phase::kRequest | Phase::kResponse),
        users_(*settings.users->value.users),
        forward_(settings.forward && settings.forward->value),
        challenge_("Basic realm=" + quoted(settings.realm ? settings.realm->value : "restricted") +
                   ", charset=\"UTF-8\"") {}

  Verdict on_request(Exchange& x, StreamControl& control) const override {
    State& state = x.state<State>(this);
    if (state.check != nullptr) {
      verdicts().keep(state.check->digest(), state.check->right(), control.now_ns());
      return decide(x, state.check->right(), state.name);
    }
    std::string_view name, password;
    if (!credentials(x, name, password)) return refuse(x, "no Authorization of the Basic scheme");
    const auto found = users_.find(name);
    const bool known = found != users_.end();
    // The hash of somebody else takes the time that the name's own would.
    const std::string& stored = known ? found->second : users_.begin()->second;
    if (known) state.name = found->first;
    const Digest digest = keyed_hash({name, stored, password});
    std::optional<bool> verdict = verdicts().find(digest, control.now_ns());
    if (!verdict && x.rehearsed) verdict = fits(std::string(password), stored);
    if (verdict) return decide(x, *verdict, state.name);
    auto check = std::make_shared<Check>(password, stored, digest, control.now_ns());
    state.check = check.get();
    if (control.run_aside(std::move(check))) return Verdict::kAskAgain;
    state.check = nullptr;
    x.reply(Reason::kOverload, "too many passwords wait to be checked");
    return Verdict::kReply;
  }

  Verdict on_response(Exchange& x, StreamControl&) const override {
    if (x.state<State>(this).refused)
      x.response.headers.add(HeaderId::kWwwAuthenticate, challenge_);
    return Verdict::kContinue;
  }

 private:
  struct State {
    const Check* check = nullptr;  // held by the driver
    std::string_view name;         // of a user; empty: none is called so
    bool refused = false;
  };

  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + '"';
  }
  static bool credentials(Exchange& x, std::string_view& name, std::string_view& password) {
    constexpr std::string_view kScheme = "basic ";
    const std::string_view value = x.request.headers.get(HeaderId::kAuthorization);
    if (!equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)) return false;
    const std::string_view pair = base64_decoded(trim_ows(value.substr(kScheme.size())), x.arena);
    const std::size_t colon = pair.find(':');
    if (colon == std::string_view::npos) return false;
    name = pair.substr(0, colon);
    password = pair.substr(colon + 1);
    // Behind a NUL, crypt(3) would not look.
    return password.size() <= limits::kPasswordBytes &&
           password.find('\0') == std::string_view::npos;
  }
  Verdict decide(Exchange& x, bool right, std::string_view name) const {
    if (!right || name.empty()) return refuse(x, "no user has this name and password");
    x.client_id = name;
    if (!forward_) x.request.headers.remove(HeaderId::kAuthorization);
    return Verdict::kContinue;
  }
  Verdict refuse(Exchange& x, std::string_view words) const {
    x.state<State>(this).refused = true;
    x.reply(Reason::kUnauthenticated, words);
    return Verdict::kReply;
  }

  const Users& users_;
  const bool forward_;
  const std::string challenge_;
};

std::unique_ptr<const Filter> make(const FilterContext& context) {
  const Basic* settings = context.told<Basic>();
  if (settings == nullptr) return nullptr;
  return std::make_unique<BasicFilter>(*settings);
}

}  // namespace

FilterKind basic_filter() { return {make, {&config::extension_of<Basic>}}; }

}  // namespace outrider
