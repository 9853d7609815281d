// `explain` and the proxy agree: for random configurations and requests, the route that explain
// names is the one whose fixed answer the proxy gives. Every alphabet is small, so that conditions
// meet and shadow one another.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "config/load.h"
#include "filters/registry.h"
#include "proxy/explain.h"
#include "tests/harness/outrider.h"

namespace outrider::test {
namespace {

constexpr unsigned kConfigurations = 50;
constexpr int kRequests = 210;
constexpr int kAtOnce = 35;

class Dice {
 public:
  explicit Dice(unsigned seed) : engine_(seed) {}
  int below(int bound) {
    return static_cast<int>(engine_() % static_cast<std::mt19937::result_type>(bound));
  }
  bool percent(int share) { return below(100) < share; }
  std::string one_of(const std::vector<std::string>& all) {
    return all[static_cast<std::size_t>(below(static_cast<int>(all.size())))];
  }

 private:
  std::mt19937 engine_;
};

// ---- configurations

std::string random_path(Dice& dice) {
  if (dice.percent(15))
    return dice.one_of({"~^/a", "~/b$", "~^/[ab]/c", "~^/(a|c)+/", "~.", "~^/a/[^/]+/c$"});
  std::string path;
  const int segments = 1 + dice.below(4);
  for (int i = 0; i < segments; ++i)
    path += "/" + (dice.percent(30)
                       ? std::string(dice.percent(50) ? "*" : "{n" + std::to_string(i) + "}")
                       : dice.one_of({"a", "b", "c"}));
  if (dice.percent(40))
    path = (dice.percent(20) ? std::string() : path) + "/**";
  else if (dice.percent(15))
    path += "/";
  return path;
}

std::string random_value(Dice& dice) {
  return dice.one_of({"1", "2", "~1", "~^[12]$", "", "!1", "!", "12"});
}

void add(std::string& keys, const std::string& more) { keys += (keys.empty() ? "" : ", ") + more; }

std::string random_match(Dice& dice) {
  std::string keys;
  if (dice.percent(50))
    add(keys, "host: '" +
                  dice.one_of({"a.test", "b.a.test", "*.a.test", "*.b.a.test", "*.test", "*",
                               "x.test", "a.test:8080"}) +
                  "'");
  if (dice.percent(85)) add(keys, "path: '" + random_path(dice) + "'");
  if (dice.percent(25))
    add(keys,
        "method: " + dice.one_of({"[GET]", "[POST]", "[GET, POST]", "[PUT, DELETE]", "[HEAD]"}));
  std::string fields;
  for (const char* name : {"x-a", "x-b", "accept"})
    if (dice.percent(15)) add(fields, std::string(name) + ": '" + random_value(dice) + "'");
  if (!fields.empty()) add(keys, "headers: { " + fields + " }");
  fields.clear();
  for (const char* name : {"d", "e"})
    if (dice.percent(12)) add(fields, std::string(name) + ": '" + random_value(dice) + "'");
  if (!fields.empty()) add(keys, "query: { " + fields + " }");
  if (dice.percent(12)) add(keys, "cookies: { lane: '" + random_value(dice) + "' }");
  if (dice.percent(12))
    add(keys, "client_ip: " + dice.one_of({"[10.0.0.0/8]", "[10.1.0.0/16, 127.0.0.1]", "['::/0']",
                                           "[0.0.0.0/0]"}));
  return keys.empty() ? "path: '/**'" : keys;
}

std::string random_configuration(Dice& dice) {
  std::string yaml = R"(outrider: v1
listeners: { main: { address: 127.0.0.1:0, trust: [127.0.0.0/8] } }
routes:
)";
  const int routes = 3 + dice.below(20);
  for (int i = 0; i < routes; ++i) {
    const std::string name = "r" + std::to_string(i);
    std::string match = "{ " + random_match(dice) + " }";
    if (dice.percent(20)) match = "[" + match + ", { " + random_match(dice) + " }]";
    yaml += "  - { name: " + name + ", match: " + match;
    if (dice.percent(15)) yaml += ", priority: " + std::to_string(dice.below(3) - 1);
    yaml += ", respond: { status: 200, headers: { x-route: " + name + " } } }\n";
  }
  return yaml;
}

// ---- requests

ExplainRequest random_request(Dice& dice) {
  ExplainRequest request{.listener = "main", .json = true};
  request.method = dice.one_of({"GET", "GET", "POST", "PUT", "HEAD", "PATCH"});
  std::string target;
  const int segments = dice.below(5);
  for (int i = 0; i < segments; ++i)
    target +=
        (dice.percent(4) ? "//" : "/") + dice.one_of({"a", "b", "c", "a", "b", "c", "%61", "."});
  if (target.empty() || dice.percent(15)) target += "/";
  std::string query;
  for (const char* name : {"d", "e", "d"})
    if (dice.percent(20))
      query += (query.empty() ? "?" : "&") + std::string(name) +
               dice.one_of({"=1", "=2", "=12", "=", ""});
  request.url = "http://" +
                dice.one_of({"a.test", "b.a.test", "c.b.a.test", "x.test", "A.Test", "a.test:8080",
                             "z.example"}) +
                target + query;
  for (const char* name : {"x-a", "x-b", "x-a", "accept"})
    if (dice.percent(30))
      request.headers.emplace_back(name, dice.one_of({"1", "2", "12", "3", ""}));
  if (dice.percent(30))
    request.headers.emplace_back("cookie",
                                 "lane=" + dice.one_of({"1", "2", "12", ""}) + "; lane=1");
  request.client_ip =
      dice.one_of({"127.0.0.1", "10.1.2.3", "10.2.2.3", "192.0.2.1", "2001:db8::1"});
  return request;
}

std::string as_bytes(const ExplainRequest& request) {
  const std::string rest = request.url.substr(std::string("http://").size());
  const std::size_t slash = rest.find('/');
  std::string bytes = request.method + " " + rest.substr(slash) +
                      " HTTP/1.1\r\nHost: " + rest.substr(0, slash) +
                      "\r\nX-Forwarded-For: " + request.client_ip + "\r\n";
  for (const auto& [name, value] : request.headers) bytes += name + ": " + value + "\r\n";
  return bytes + "\r\n";
}

// The name of the route, `-` for none.
std::string explained(const std::shared_ptr<const config::Config>& config,
                      const ExplainRequest& request) {
  std::string out;
  const int code = explain(config, request, out);
  const nlohmann::json json = nlohmann::json::parse(out, nullptr, false);
  if (!json.is_object() || !json.contains("route"))
    return "no JSON, exit " + std::to_string(code) + ": " + out;
  return json["route"].is_null() ? "-" : json["route"]["name"].get<std::string>();
}

std::string taken(const Response& response) {
  if (response.status == 404) return "-";
  if (response.status != 200) return std::to_string(response.status) + " " + response.body;
  return response.fields.value("x-route");
}

TEST(Explain, NamesTheRouteThatTheProxyTakes) {
  int compared = 0;
  int found = 0;
  for (unsigned seed = 1; seed <= kConfigurations; ++seed) {
    Dice dice(seed);
    const std::string yaml = random_configuration(dice);
    const config::Loaded loaded =
        config::load_text("outrider.yaml", yaml, {.extensions = filter_keys()});
    std::string problems;
    for (const config::Diagnostic& one : loaded.diagnostics) problems += config::render(one);
    ASSERT_NE(loaded.config, nullptr) << "seed " << seed << "\n" << yaml << problems;
    Outrider proxy(yaml, Outrider::Substitutions{}, Outrider::Options{.workers = 1});
    RawClient client = proxy.raw();
    for (int round = 0; round < kRequests / kAtOnce; ++round) {
      std::vector<ExplainRequest> requests;
      std::string bytes;
      for (int i = 0; i < kAtOnce; ++i) {
        requests.push_back(random_request(dice));
        bytes += as_bytes(requests.back());
      }
      client.send(bytes);
      for (const ExplainRequest& request : requests) {
        const std::string proxied = taken(client.read_response(request.method));
        ASSERT_EQ(explained(loaded.config, request), proxied) << "seed " << seed << "\n"
                                                              << yaml << "\n"
                                                              << as_bytes(request);
        ++compared;
        found += proxied != "-" ? 1 : 0;
      }
    }
  }
  EXPECT_GE(compared, 10'000);
  // Neither side may agree by finding nothing, or by one route taking all.
  EXPECT_GT(found, compared / 4);
  EXPECT_LT(found, compared);
}

}  // namespace
}  // namespace outrider::test
