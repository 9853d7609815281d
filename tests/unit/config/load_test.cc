// What a configuration means once it is loaded: shapes, inheritance, names, files.
#include "config/load.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/config/describe.h"
#include "tests/unit/config/folder.h"

namespace outrider::config {
namespace {

using namespace std::chrono_literals;

std::string all(const Loaded& loaded) {
  std::string out;
  for (const Diagnostic& found : loaded.diagnostics) out += render(found);
  return out;
}

std::shared_ptr<const Config> good(const std::string& text) {
  Loaded loaded = load_text("test.yaml", text);
  EXPECT_NE(loaded.config, nullptr) << all(loaded);
  if (loaded.config == nullptr) loaded.config = std::make_shared<const Config>();
  return loaded.config;
}

// A listener and two services in front of `routes`.
std::shared_ptr<const Config> routes(const std::string& text) {
  return good("outrider: v1\nlisten: 8080\nservices: { web: 3000, api: [8000, 8001] }\n" + text);
}

std::string warnings(const std::string& text) {
  std::string out;
  for (const Diagnostic& found : load_text("test.yaml", text).diagnostics)
    out += (found.severity == Severity::kError ? "E " : "") + found.code + " " + found.path + "\n";
  return out;
}

TEST(Load, TheFourLinesOfTheSmallestFile) {
  const auto config =
      good("outrider: v1\nlisten: 8080\nservices: { web: 3000 }\nroutes: [{ to: web }]\n");
  ASSERT_EQ(config->listeners.size(), 1U);
  EXPECT_EQ(config->listeners[0].name, "main");
  EXPECT_EQ(config->listeners[0].address.to_string(), "127.0.0.1:8080");
  ASSERT_EQ(config->routes.size(), 1U);
  EXPECT_EQ(config->routes[0].name, "/**");
  EXPECT_EQ(config->routes[0].listeners, std::vector<std::string>{"main"});
  EXPECT_EQ(config->services[0].endpoints[0].address.to_string(), "127.0.0.1:3000");
  EXPECT_EQ(config->admin.address.to_string(), "127.0.0.1:9901");
  EXPECT_EQ(config->telemetry.metrics_address.to_string(), ":9900");
  EXPECT_FALSE(config->admin.written);
}

TEST(Load, HowAServiceIsBalanced) {
  const auto config = good(
      "outrider: v1\nlisten: 8080\nzone: b\ndefaults: { service: { balance: random, zone_aware: "
      "true } }\nservices:\n  web: 3000\n  api:\n    endpoints: [{ address: 8000, zone: b, "
      "priority: "
      "2, health: draining }, { address: 8001, health: healthy }]\n    balance: maglev(cookie "
      "sid)\n"
      "    slow_start: 30s\n    zone_aware: false\nroutes: [{ to: web }, { to: api, match: /a "
      "}]\n");
  EXPECT_EQ(balance_text(config->services[0]), "random");
  EXPECT_EQ(config->services[0].near_zone, "b");
  EXPECT_EQ(config->services[0].slow_start.count(), 0);
  const Service& api = config->services[1];
  EXPECT_EQ(api.balance, Balance::kMaglev);
  EXPECT_EQ(balance_text(api), "maglev(cookie sid)");
  EXPECT_EQ(api.near_zone, "");
  EXPECT_EQ(api.slow_start, Millis{30'000});
  EXPECT_EQ(api.endpoints[0].zone, "b");
  EXPECT_EQ(api.endpoints[0].priority, 2U);
  EXPECT_EQ(api.endpoints[0].health, Health::kDraining);
  EXPECT_EQ(api.endpoints[1].health, Health::kHealthy);
}

TEST(Load, BalancingThatCanHaveNoEffectIsAWarning) {
  EXPECT_EQ(
      warnings("outrider: v1\nlisteners: { db: { address: 5432, protocol: tcp, to: db } }\n"
               "services:\n  db: { endpoints: 5433, protocol: tcp, balance: hash(header x-user) }"
               "\n  ip: { endpoints: 5433, protocol: tcp, balance: hash(client.ip), zone_aware: "
               "true }\n"),
      "no-effect services.db.balance\nno-effect services.ip.zone_aware\n");
}

TEST(Load, DefaultsAreThoseOfTheContract) {
  const auto config = routes("routes: [{ to: web }]");
  const Policy& policy = config->routes[0].policies[0];
  EXPECT_EQ(describe(policy),
            " headers=15000ms idle=300000ms attempts=1 when=7 backoff=25ms..250ms budget=0.2 "
            "methods=0 buffer=65536 "
            "upgrade=websocket, when_empty=0");
  EXPECT_TRUE(policy.timeout_headers->mark.built_in());
  EXPECT_EQ(config->services[0].limits.connections.value, 10'000U);
  EXPECT_EQ(config->services[0].connect.value, 2s);
  EXPECT_TRUE(config->services[0].connect.mark.built_in());
  EXPECT_EQ(config->listeners[0].limits.headers.value, 65536U);
  EXPECT_EQ(config->listeners[0].timeouts.upload_rate.bytes_per_second, 240U);
}

TEST(Load, ShorthandsMeanTheirLongForms) {
  const auto same = [](const std::string& shorthand, const std::string& longer) {
    EXPECT_EQ(describe(*routes(shorthand)), describe(*routes(longer)));
  };
  same("routes: [{ to: web, timeout: 3s }]", "routes: [{ to: web, timeout: { total: 3s } }]");
  same("routes: [{ to: web, timeout: false }]", "routes: [{ to: web, timeout: { total: 0s } }]");
  same("routes: [{ to: web, retry: 2 }]", "routes: [{ to: { web: 1 }, retry: { attempts: 2 } }]");
  same("routes: [{ to: web, retry: false }]", "routes: [{ to: web, retry: { attempts: 0 } }]");
  same("routes: [{ to: web, rewrite: /b }]", "routes: [{ to: web, rewrite: { path: /b } }]");
  same("routes: [{ redirect: https }]", "routes: [{ redirect: { scheme: https, status: 301 } }]");
  same("routes: [{ respond: 404 }]", "routes: [{ respond: { status: 404 } }]");
  same("routes: [{ match: \"GET,PUT shop.example:81/a/{id}/**\", to: web }]",
       "routes: [{ match: { method: [GET, PUT], host: \"shop.example:81\", path: \"/a/{id}/**\" }, "
       "to: web }]");
  same("routes: [{ match: /a, to: web }]",
       "routes: [{ match: [{ path: [/a] }], listeners: main, to: web }]");
  EXPECT_EQ(
      describe(*good(
          "outrider: v1\nlisten: 80\nservices: { a: [1, \"[::1]:2\"], b: \"h2c://127.0.0.1:3\" }")),
      describe(*good("outrider: v1\nlisteners: { main: { address: 127.0.0.1:80 } }\nservices: { a: "
                     "{ endpoints: [{ address: 1 }, { address: "
                     "\"[::1]:2\" }] }, b: { endpoints: 127.0.0.1:3, protocol: http2 } }")));
}

TEST(Load, LeavesInheritFromTheNearestLevel) {
  const auto config = good(R"(
outrider: v1
listen: 8080
defaults:
  route: { timeout: { total: 30s, idle: 31s, per_try: 32s, headers: 33s } }
  service: { timeout: { total: 40s, headers: 41s }, retry: 4 }
services:
  web: { endpoints: 3000, timeout: { total: 20s, idle: 21s, per_try: 22s } }
policies:
  first: { timeout: { total: 10s, idle: 11s } }
  second: { timeout: { total: 12s, idle: 13s, per_try: 14s }, retry: { buffer: 1KiB } }
routes:
  - { match: /a, use: [first, second], to: web, timeout: 1s }
  - { match: /b, to: web }
  - { match: /c, respond: 200 }
)");
  const Policy& a = config->routes[0].policies[0];
  EXPECT_EQ(a.timeout_total->value, 1s);     // the route
  EXPECT_EQ(a.timeout_idle->value, 11s);     // the first policy
  EXPECT_EQ(a.timeout_per_try->value, 14s);  // the second
  EXPECT_EQ(a.timeout_headers->value, 33s);  // defaults.route before defaults.service
  EXPECT_EQ(a.retry_attempts->value, 4U);    // defaults.service
  EXPECT_EQ(a.retry_buffer->value, 1024U);
  EXPECT_TRUE(a.retry_budget->mark.built_in());
  EXPECT_EQ(config->where(a.timeout_idle->mark), "test.yaml:10");
  const Policy& b = config->routes[1].policies[0];
  EXPECT_EQ(b.timeout_total->value, 20s);  // the service
  EXPECT_EQ(b.timeout_headers->value, 33s);
  const Policy& c = config->routes[2].policies[0];
  EXPECT_EQ(c.timeout_total->value, 30s);
  EXPECT_EQ(c.retry_attempts->value, 1U);  // no service, so no defaults of one
}

TEST(Load, EachTargetHasTheLevelOfItsService) {
  const auto config = good(R"(
outrider: v1
listen: 8080
services:
  a: { endpoints: 1, timeout: 1s }
  b: { endpoints: 2, timeout: 2s }
routes: [{ to: { a: 9, b: 1 } }]
)");
  ASSERT_EQ(config->routes[0].policies.size(), 2U);
  EXPECT_EQ(config->routes[0].policies[0].timeout_total->value, 1s);
  EXPECT_EQ(config->routes[0].policies[1].timeout_total->value, 2s);
}

TEST(Load, HeaderFieldsInheritOneByOneAndListsAsAWhole) {
  const auto config = routes(R"(
policies:
  p:
    headers: { request: { set: { X-A: policy, x-b: policy }, remove: [cookie] } }
    retry: { when: [503] }
    upgrade: [a]
routes:
  - use: p
    to: web
    headers: { request: { set: { x-a: route } } }
    upgrade: []
)");
  EXPECT_EQ(
      describe(config->routes[0].policies[0]),
      " headers=15000ms idle=300000ms attempts=1 when=0,503 backoff=25ms..250ms budget=0.2 "
      "methods=0 buffer=65536 upgrade= "
      "when_empty=0 request.set.x-a='route' request.set.x-b='policy' request.remove=[cookie,]");
}

TEST(Load, TheNearerOfTwoWaysToRewriteThePathWins) {
  const auto config = routes(R"(
policies: { p: { rewrite: { path: /p, host: p.example } } }
routes: [{ use: p, to: web, rewrite: { regex: { a: b } } }]
)");
  EXPECT_FALSE(config->routes[0].policies[0].rewrite_path);
  EXPECT_TRUE(config->routes[0].policies[0].rewrite_regex);
  EXPECT_EQ(config->routes[0].policies[0].rewrite_host->value, "p.example");
}

TEST(Load, RoutesAreNamedByTheirMatch) {
  const auto config = routes(R"(
routes:
  - { match: GET /a, to: web }
  - { match: GET /a, to: api }
  - { name: "GET /a#3", match: /b, to: web }
  - { match: { path: /a, method: GET, headers: { x: y } }, to: web }
  - { match: [/c, /d], to: web }
  - { to: web }
  - { to: api }
)");
  std::vector<std::string> names;
  for (const Route& route : config->routes) names.push_back(route.name);
  EXPECT_EQ(names, (std::vector<std::string>{"GET /a", "GET /a#2", "GET /a#3", "GET /a#4", "/c",
                                             "/**", "/**#2"}));
}

TEST(Load, ListsOfHostsAndPathsMultiply) {
  const auto config = routes(
      "routes: [{ match: { host: [a.example, b.example], path: [/x, /y], method: GET }, to: web "
      "}]");
  ASSERT_EQ(config->routes[0].matches.size(), 4U);
  EXPECT_EQ(config->routes[0].matches[3].short_form, "GET b.example/y");
}

TEST(Load, RoutesStandOnHttpListenersAlone) {
  const auto config = good(R"(
outrider: v1
listeners:
  a: { address: 1 }
  old: { address: 2, redirect: https }
  db: { address: 3, protocol: tcp, to: web }
  b: { address: 4, protocols: http2 }
services: { web: 3000 }
routes: [{ to: web }, { match: /b, listeners: b, to: web }]
)");
  EXPECT_EQ(config->routes[0].listeners, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(config->routes[1].listeners, std::vector<std::string>{"b"});
  EXPECT_EQ(config->listeners[2].timeouts.idle, 1h);
  EXPECT_FALSE(config->listeners[2].http1);
  EXPECT_FALSE(config->listeners[3].http1);
  EXPECT_TRUE(config->listeners[3].http2);
  EXPECT_EQ(config->listeners[2].to[0].service, "web");
}

TEST(Load, ARawTcpListenerKeepsItsIdleTimeout) {
  const auto idle = [](const std::string& rest) {
    return good("outrider: v1\nlisteners: { db: { address: 1, protocol: tcp, to: db" + rest +
                " } }\nservices: { db: 2 }")
        ->listeners[0]
        .timeouts.idle;
  };
  EXPECT_EQ(idle(""), 1h);
  EXPECT_EQ(idle(", timeouts: { stall: 1s }"), 1h);
  EXPECT_EQ(idle(", timeouts: { idle: 5s }"), 5s);
  EXPECT_EQ(idle(", timeouts: { idle: false }"), 0ms);
}

TEST(Load, AShortDeadlineShortensTheDelayThatNobodyWrote) {
  EXPECT_EQ(good("outrider: v1\nlisten: 1\ndrain: { deadline: 3s }")->drain_delay, 3s);
  EXPECT_EQ(good("outrider: v1\nlisten: 1\ndrain: { deadline: 30s }")->drain_delay, 5s);
}

TEST(Load, ARouteStandsOnceOnAListener) {
  const auto config = routes("routes: [{ listeners: [main, main], to: web }]");
  EXPECT_EQ(config->routes[0].listeners, std::vector<std::string>{"main"});
}

TEST(Load, DefaultsOfServicesReachEveryService) {
  const auto config = good(R"(
outrider: v1
listen: 8080
defaults: { service: { balance: round-robin, limits: { pending: 5 }, timeouts: { connect: 1s } } }
services: { a: 1, b: { endpoints: 2, balance: least-request, limits: { connections: 7 } } }
)");
  EXPECT_EQ(config->services[0].balance, Balance::kRoundRobin);
  EXPECT_EQ(config->services[1].balance, Balance::kLeastRequest);
  EXPECT_EQ(config->services[1].limits.pending.value, 5U);
  EXPECT_EQ(config->services[1].limits.connections.value, 7U);
  EXPECT_EQ(config->services[1].connect.value, 1s);
}

TEST(Load, ThePrefixOfEndpointsSetsTheProtocol) {
  const auto protocol = [](const std::string& service) {
    return good("outrider: v1\nlisten: 8080\nservices: { a: " + service + " }")
        ->services[0]
        .protocol;
  };
  EXPECT_EQ(protocol("3000"), Protocol::kAuto);
  EXPECT_EQ(protocol("\"http://localhost\""), Protocol::kAuto);
  EXPECT_EQ(protocol("\"h2c://localhost\""), Protocol::kHttp2);
  EXPECT_EQ(protocol("{ endpoints: \"h2c://localhost\", protocol: http2 }"), Protocol::kHttp2);
  EXPECT_EQ(protocol("{ endpoints: \"http://localhost\", protocol: http2 }"), Protocol::kHttp2);
}

TEST(Load, ScalarsAreTypedByTheirKey) {
  const auto config = good(R"(
outrider: "v1"
workers: "4"
listeners: { "8080": { address: "8080", paths: { merge_slashes: "false" } } }
services: { "true": 3000 }
routes: [{ name: 12, match: { headers: { x-a: true, x-b: 0123 } }, to: "true", headers: { request: { set: { x-n: 1_0 } } } }]
admin: "false"
)");
  EXPECT_EQ(config->workers, 4U);
  EXPECT_FALSE(config->listeners[0].merge_slashes);
  EXPECT_EQ(config->routes[0].name, "12");
  EXPECT_EQ(config->routes[0].matches[0].headers[0].second.text, "true");
  EXPECT_EQ(config->routes[0].matches[0].headers[1].second.text, "0123");
  EXPECT_FALSE(config->admin.on);
}

TEST(Load, ReferencesAreResolvedBeforeTyping) {
  ::setenv("OUTRIDER_TEST_PORT", "9090", 1);
  ::setenv("OUTRIDER_TEST_EMPTY", "", 1);
  ::unsetenv("OUTRIDER_TEST_NONE");
  const auto config = good(R"(
outrider: v1
listen: "127.0.0.1:${OUTRIDER_TEST_PORT}"
workers: ${OUTRIDER_TEST_NONE:-3}
services: { web: "${OUTRIDER_TEST_PORT}" }
routes:
  - { match: /a, respond: { body: "$${OUTRIDER_TEST_PORT} $5 ${OUTRIDER_TEST_NONE:-a:-b}${OUTRIDER_TEST_EMPTY:-x}" } }
x-ignored: ${OUTRIDER_TEST_NONE}
)");
  EXPECT_EQ(config->listeners[0].address.port, 9090);
  EXPECT_EQ(config->workers, 3U);
  EXPECT_EQ(config->services[0].endpoints[0].address.port, 9090);
  EXPECT_EQ(config->routes[0].respond->body, "${OUTRIDER_TEST_PORT} $5 a:-b");
  ::unsetenv("OUTRIDER_TEST_PORT");
  ::unsetenv("OUTRIDER_TEST_EMPTY");
}

TEST(Load, AnExtensionMayHoldAnchors) {
  const auto config = good(R"(
outrider: v1
listen: 8080
x-limits: &limits { connections: 5 }
x-anything: { at: [all, { is: fine }] }
services: { a: { endpoints: 1, limits: *limits }, b: { endpoints: 2, limits: *limits } }
)");
  EXPECT_EQ(config->services[1].limits.connections.value, 5U);
}

TEST(Load, WarnsOfWhatHasNoEffect) {
  EXPECT_EQ(warnings("outrider: v1\nlisten: 8080\n"), "no-route \n");
  EXPECT_EQ(warnings("outrider: v1\nlisten: 8080\nroutes: [{ respond: 404, retry: 2 }]"),
            "no-effect routes[0].retry\n");
  EXPECT_EQ(warnings("outrider: v1\nlisten: 8080\nservices: { a: 1 }\nroutes: [{ to: { a: 0 } }]"),
            "no-weight routes[0].to\n");
  EXPECT_EQ(warnings("outrider: v1\nlisteners: { a: { address: 1, redirect: https } }\nroutes: [{ "
                     "respond: 404 }]"),
            "no-effect routes\n");
  EXPECT_EQ(warnings("outrider: v1\nlisten: 8080\nroutes: [{ respond: 404 }]"), "");
}

TEST(Load, DirectoriesIncludesAndGlobs) {
  const Folder folder;
  folder.write("conf/20.yml", "outrider: v1\nroutes: [{ match: /b, respond: 202 }]\n");
  folder.write("conf/10.yaml",
               "outrider: v1\nlisten: 8080\ninclude: [\"../more/*.yaml\", ../more/a.yaml, "
               "\"../none/*.yaml\"]\nroutes: [{ match: /a, respond: 201 }]\n");
  folder.write("conf/30.json",
               R"({"outrider": "v1", "routes": [{"match": "/c", "respond": 203}]})");
  folder.write("conf/.hidden.yaml", "broken: [");
  folder.write("conf/notes.txt", "broken: [");
  folder.write("conf/sub/x.yaml", "broken: [");
  folder.write("more/a.yaml", "outrider: v1\nroutes: [{ match: /a1, respond: { file: a.txt } }]\n");
  folder.write("more/a.txt", "from a file");
  folder.write("more/b.yaml", "outrider: v1\nroutes: [{ match: /a2, respond: 200 }]\n");
  const Loaded loaded = load({"conf", "conf/20.yml", "more/b.yaml"});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  std::string names;
  for (const Route& route : loaded.config->routes) names += route.name + " ";
  EXPECT_EQ(names, "/a /a1 /a2 /b /c ");
  EXPECT_EQ(loaded.config->routes[1].respond->body, "from a file");
  ASSERT_EQ(loaded.config->files.size(), 5U);
  EXPECT_EQ(loaded.config->files[1].path, "conf/../more/a.yaml");
  EXPECT_EQ(loaded.config->where(loaded.config->routes[3].mark), "conf/20.yml:2");
}

TEST(Load, AFileReachedTwiceCountsOnce) {
  const Folder folder;
  folder.write("a.yaml", "outrider: v1\nlisten: 8080\ninclude: [b.yaml, c.yaml]\n");
  folder.write("b.yaml", "outrider: v1\ninclude: d.yaml\n");
  folder.write("c.yaml", "outrider: v1\ninclude: ./d.yaml\n");
  folder.write("d.yaml", "outrider: v1\nroutes: [{ respond: 200 }]\n");
  const Loaded loaded = load({"a.yaml", "./a.yaml"});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  EXPECT_EQ(loaded.config->routes.size(), 1U);
}

TEST(Load, SaysWhatCannotBeRead) {
  const Folder folder;
  folder.write("empty/.keep", "");
  const auto only = [](const std::string& path) {
    const Loaded loaded = load({path});
    EXPECT_EQ(loaded.config, nullptr);
    return loaded.diagnostics.size() == 1
               ? loaded.diagnostics[0].file + ": " + loaded.diagnostics[0].text
               : all(loaded);
  };
  EXPECT_EQ(only("absent.yaml"), "absent.yaml: cannot be read: No such file or directory");
  EXPECT_EQ(only("empty"), "empty: holds no *.yaml, *.yml or *.json");
  folder.write("large.yaml", "#" + std::string(limits::kConfigBytes, 'x'));
  EXPECT_EQ(only("large.yaml"), "large.yaml: is over 16 MiB");
  folder.write("page", std::string(limits::kRespondBytes + 1, 'x'));
  folder.write("page.yaml", "outrider: v1\nlisten: 8080\nroutes: [{ respond: { file: page } }]");
  EXPECT_EQ(only("page.yaml"), "page.yaml: 'page' is over 1 MiB");
}

TEST(Load, RelativePathsAreRelativeToTheFileThatSaysThem) {
  const Folder folder;
  folder.write("a.yaml", "outrider: v1\nlisten: unix:a.sock\ninclude: [conf/b.yaml]\n");
  folder.write("conf/b.yaml",
               "outrider: v1\nservices: { web: unix:app.sock }\nroutes: [{ to: web }]\ntelemetry: "
               "{ access_log: { file: access.log } }\nadmin: { address: "
               "unix:admin.sock }\n");
  const Loaded loaded = load({"a.yaml"});
  ASSERT_NE(loaded.config, nullptr) << all(loaded);
  EXPECT_EQ(loaded.config->listeners[0].address.path, "a.sock");
  EXPECT_EQ(loaded.config->services[0].endpoints[0].address.path, "conf/app.sock");
  EXPECT_EQ(loaded.config->telemetry.access_log_file, "conf/access.log");
  EXPECT_EQ(loaded.config->admin.address.path, "conf/admin.sock");
}

TEST(Load, ARelativeSocketMayNotGrowTooLong) {
  const Folder folder;
  const std::string deep(60, 'd');
  folder.write(deep + "/a.yaml", "outrider: v1\nlisten: unix:" + std::string(60, 's') + "\n");
  const Loaded loaded = load({deep + "/a.yaml"});
  ASSERT_EQ(loaded.diagnostics.size(), 1U);
  EXPECT_EQ(loaded.diagnostics[0].code, "out-of-range");
}

TEST(Load, ALastEmptyDocumentIsNone) {
  const auto config = good("---\noutrider: v1\nlisten: 8080\nroutes: [{ respond: 200 }]\n---\n");
  EXPECT_EQ(config->routes.size(), 1U);
}

TEST(Load, NothingAtAllIsNoConfiguration) {
  const Loaded loaded = load({});
  EXPECT_EQ(loaded.config, nullptr);
  ASSERT_EQ(loaded.diagnostics.size(), 1U);
  EXPECT_EQ(loaded.diagnostics[0].code, "no-listener");
}

TEST(Load, EmptySegmentsAreWhereSlashesAreNotMerged) {
  const auto config = good(
      "outrider: v1\nlisteners: { main: { address: 8080, paths: { merge_slashes: false } } }\n"
      "routes: [{ match: /a//b, respond: 404 }]\n");
  EXPECT_EQ(config->routes[0].matches[0].path.segments.size(), 3U);
}

TEST(Load, KeysInVainOnRawTcpAreWarnings) {
  EXPECT_EQ(warnings("outrider: v1\nlisteners: { db: { address: 8080, protocol: tcp, to: pg } }\n"
                     "services:\n  pg:\n    endpoints: 3000\n    protocol: tcp\n"
                     "    timeout: { headers: 1s, idle: 5m }\n"
                     "    retry: { attempts: 2, when: [reset] }\n"),
            "no-effect services.pg.timeout.headers\nno-effect services.pg.retry.when\n");
  EXPECT_EQ(warnings("outrider: v1\nlisteners: { db: { address: 8080, protocol: tcp, to: api } }\n"
                     "services: { api: { endpoints: 3000, protocol: http2 } }\n"),
            "no-effect listeners.db.to\n");
}

TEST(Load, EnvironmentValuesAreUtf8) {
  ::setenv("OUTRIDER_TEST_BYTES", "a\xff", 1);
  const Loaded loaded = load_text(
      "test.yaml",
      "outrider: v1\nlisten: 8080\nroutes: [{ name: \"${OUTRIDER_TEST_BYTES}\", respond: 404 }]\n");
  ::unsetenv("OUTRIDER_TEST_BYTES");
  ASSERT_EQ(loaded.diagnostics.size(), 1U) << all(loaded);
  EXPECT_EQ(loaded.diagnostics[0].code, "env-encoding");
  EXPECT_EQ(loaded.diagnostics[0].text,
            "'${OUTRIDER_TEST_BYTES}' needs the environment variable OUTRIDER_TEST_BYTES, whose "
            "value is not UTF-8");
}

TEST(Load, LongTextsAreShownInWholeCharacters) {
  const Loaded loaded = load_text("test.yaml", "outrider: v1\nlisten: 8080\nroutes: [{ respond: " +
                                                   std::string(79, 'x') + "ää }]\n");
  ASSERT_EQ(loaded.diagnostics.size(), 1U) << all(loaded);
  EXPECT_EQ(loaded.diagnostics[0].text, "'" + std::string(79, 'x') + "…' is not a whole number");
}

TEST(Load, WordsAreListedAsWords) {
  const Loaded loaded = load_text(
      "test.yaml",
      "outrider: v1\nlisten: 8080\nservices: { web: 1 }\nroutes: [{ to: web, retry: { methods: [] "
      "} }]\n");
  ASSERT_EQ(loaded.diagnostics.size(), 1U) << all(loaded);
  EXPECT_EQ(loaded.diagnostics[0].text, "expected one of idempotent, all, not a list");
}

TEST(Load, NoDeadlineIsNone) {
  for (const char* none : {"false", "0s"}) {
    const auto config = routes(std::string("routes: [{ to: web }]\ndrain: { deadline: ") + none +
                               ", delay: 40s }\n");
    EXPECT_EQ(config->drain_deadline, 0s) << none;
    EXPECT_EQ(config->drain_delay, 40s) << none;
  }
}

// Comparing all with all would take minutes for a generated file with one mistake in its names.
TEST(Load, ThousandsOfMisspeltNamesAreSuggestedForInPart) {
  constexpr std::size_t kMany = 2000;
  std::string text = "outrider: v1\nlisten: 8080\nservices:\n";
  for (std::size_t i = 0; i < kMany; ++i) text += "  service-" + std::to_string(i) + ": 3000\n";
  text += "routes:\n";
  for (std::size_t i = 0; i < kMany; ++i)
    text += "  - { match: /" + std::to_string(i) + ", to: servize-" + std::to_string(i) + " }\n";
  const Loaded loaded = load_text("test.yaml", text);
  ASSERT_EQ(loaded.diagnostics.size(), kMany);
  EXPECT_EQ(loaded.diagnostics.front().suggestion, "service-0");
  EXPECT_EQ(loaded.diagnostics.back().suggestion, "");
}

TEST(Load, ListenerLimitsKnowWhereTheyWereWritten) {
  const auto config = good(
      "outrider: v1\nlisteners:\n  a:\n    address: 8080\n    limits:\n      body: 1KiB\n"
      "      fields: 7\nroutes: [{ respond: 404 }]\n");
  EXPECT_EQ(config->where(config->listeners[0].limits.body.mark), "test.yaml:6");
  EXPECT_EQ(config->where(config->listeners[0].limits.fields.mark), "test.yaml:7");
  EXPECT_TRUE(config->listeners[0].limits.headers.mark.built_in());
}

}  // namespace
}  // namespace outrider::config
