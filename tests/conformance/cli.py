"""The command line through the real binary: exit codes, which stream says what, JSON shapes, signals."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile

import lib

GOOD = """
outrider: v1
listeners:
  main: { address: "127.0.0.1:0" }
  moved: { address: "127.0.0.1:0", redirect: https }
  db: { address: "127.0.0.1:0", protocol: tcp, to: shop }
services:
  shop:
    endpoints:
      - { address: "127.0.0.1:1", labels: { version: v1 } }
      - { address: "127.0.0.1:2", labels: { version: v2 } }
    subsets: { v1: { version: v1 } }
policies:
  quick: { timeout: 3s }
routes:
  - name: cart
    match: GET shop.example/cart/**
    use: [quick]
    to: { shop@v1: 90, shop: 10 }
    rewrite: /v2/**
    headers: { request: { set: { x-tenant: acme } }, response: { set: { x-served: cart } } }
  - { name: pong, match: /ping, respond: { status: 200, body: pong } }
  - { name: away, match: /old/**, redirect: { status: 308, host: new.example } }
admin: false
telemetry: { access_log: false, metrics: false }
"""
SHADOWED = GOOD.replace("routes:\n", "routes:\n  - { name: all, match: /x/**, to: shop, priority: 1 }\n"
                                     "  - { name: never, match: /x/y, to: shop }\n")
BAD = """
outrider: v1
listen: 127.0.0.1:0
sevices: { shop: "127.0.0.1:1" }
routes:
  - { to: shop, retry: 40 }
"""


def outrider(*arguments, text=None, cwd=None, env=None):
    return subprocess.run([lib.Outrider.binary(), *map(str, arguments)], input=text, capture_output=True, text=True,
                          timeout=lib.PATIENCE, cwd=cwd, env=env)


def expect(done, code, out=None, err=None):
    if done.returncode != code:
        raise AssertionError(f"exit code {done.returncode}, not {code}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")
    for wanted, got in [(out, done.stdout), (err, done.stderr)]:
        if wanted == "":
            same("output", got, "")
        elif wanted is not None and wanted not in got:
            raise AssertionError(f"{wanted!r} is not in {got[-800:]!r}")
    return done


def same(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what} is {got!r}, not {wanted!r}")


def usage():
    for arguments in [[], ["frobnicate"], ["--frobnicate"], ["run"], ["run", "--frobnicate", "x"], ["check"], ["config"],
                      ["explain"], ["explain", "x", "GET"], ["why"], ["why", "a", "b"], ["schema", "x"], ["version", "x"],
                      ["run", "x", "--workers", "0"], ["run", "x", "--workers", "two"], ["run", "x", "--workers", "-1"],
                      ["check", "x", "--format", "xml"], ["explain", "x", "GET", "/", "-H", "no colon"]]:
        with lib.attempt(f"usage: {' '.join(arguments) or 'nothing'}"):
            done = expect(outrider(*arguments), 64, out="")
            if "usage" not in done.stderr:
                raise AssertionError(f"no usage in {done.stderr!r}")
    with lib.attempt("a command that is nearly right"):
        expect(outrider("chekc"), 64, err="did you mean 'check'?")
    for arguments in [["dev"], ["drain", "x"], ["import", "nginx.conf"], ["run", "x", "--", "sleep", "1"],
                      ["run", "x", "--takeover"], ["tls-check"], ["doctor", "--verbose"]]:
        with lib.attempt(f"reserved: {' '.join(arguments)}"):
            expect(outrider(*arguments), 64, out="", err="not supported yet")
    for arguments in [["--help"], ["-h"], ["help"], ["run", "--help"], ["explain", "--help"], ["why", "-h"]]:
        with lib.attempt(f"help: {' '.join(arguments)}"):
            expect(outrider(*arguments), 0, out="outrider", err="")


def words():
    for arguments in [["version"], ["--version"]]:
        with lib.attempt(f"{arguments[0]} names the libraries"):
            done = expect(outrider(*arguments), 0, out="commit", err="")
            for library in ["outrider ", "libuv ", "nghttp2 ", "llhttp "]:
                expect(done, 0, out=library)
    with lib.attempt("why knows a reason"):
        expect(outrider("why", "timeout_total"), 0, out="timeout.total", err="")
    with lib.attempt("why does not know another"):
        expect(outrider("why", "timeout_totel"), 3, out="", err="did you mean 'timeout_total'?")
    with lib.attempt("schema is JSON"):
        schema = json.loads(expect(outrider("schema"), 0, err="").stdout)
        if "routes" not in schema["properties"]:
            raise AssertionError("it does not describe routes")


def check():
    with lib.attempt("check: good"):
        expect(outrider("check", good), 0, err="")
    with lib.attempt("check: good, as JSON"):
        same("stdout", json.loads(expect(outrider("check", good, "--format", "json"), 0, err="").stdout), [])
    with lib.attempt("check: standard input"):
        expect(outrider("check", "-", text=GOOD), 0, err="")
    with lib.attempt("check: bad, every error in one run"):
        done = expect(outrider("check", bad), 2, out="", err="did you mean 'services'?")
        expect(done, 2, err=f"{bad}:4:1: error: ")
        expect(done, 2, err=f"{bad}:6:24: error: routes[0].retry: ")
        expect(done, 2, err="[")
    with lib.attempt("check: bad, as JSON"):
        found = json.loads(expect(outrider("check", bad, "--format", "json"), 2, err="").stdout)
        same("keys", sorted(found[0]), ["code", "column", "file", "line", "message", "severity", "suggestion"])
        same("line", found[0]["line"], 4)
        same("suggestion", found[0]["suggestion"], "services")
    with lib.attempt("check: no such file"):
        expect(outrider("check", folder / "nothing.yaml"), 2, out="", err="nothing.yaml")
    with lib.attempt("check: a shadowed route is a warning"):
        done = expect(outrider("check", shadowed), 0, err="[shadowed-route]")
        expect(done, 0, err=f"{shadowed}:17:")
        expect(done, 0, err="never reached: route 'all'")
    with lib.attempt("check --strict: a warning fails"):
        expect(outrider("check", shadowed, "--strict"), 2, err="[shadowed-route]")
    with lib.attempt("check: a shadowed route as JSON"):
        found = json.loads(expect(outrider("check", "--format", "json", shadowed), 0, err="").stdout)
        same("findings", [(one["code"], one["severity"], one["line"]) for one in found], [("shadowed-route", "warning", 17)])
    with lib.attempt("check: an environment variable's value stays secret"):
        text = GOOD.replace("body: pong", 'body: "${SECRET_WORD}"').replace("status: 200", "status: 99")
        done = expect(outrider("check", "-", text=text, env={**os.environ, "SECRET_WORD": "sesame"}), 2)
        if "sesame" in done.stdout + done.stderr:
            raise AssertionError("it was printed")


def config():
    with lib.attempt("config: its output means the same and is stable"):
        first = expect(outrider("config", good), 0, err="").stdout
        second = expect(outrider("config", "-", text=first), 0, err="").stdout
        same("second expansion", second, first)
    with lib.attempt("config --origins names lines"):
        expect(outrider("config", "--origins", good), 0, out=f"# {good}:")
    with lib.attempt("config: bad"):
        expect(outrider("config", bad), 2, out="", err="error: ")


def explain_json(*arguments, code=0):
    return json.loads(expect(outrider("explain", good, *arguments, "--format", "json"), code, err="").stdout)


def explain():
    with lib.attempt("explain: the request that leaves"):
        found = explain_json("GET", "http://shop.example/cart/7?x=1", "-H", "cookie: a=b", "-H", "X-Case: Kept")
        same("keys", list(found), ["listener", "route", "action", "targets", "request", "response", "policy", "endpoints",
                                   "considered"])
        same("listener", found["listener"], "main")
        same("route", found["route"], {"name": "cart", "file": str(good), "line": 16})
        same("action", found["action"], "to")
        same("targets", found["targets"], [{"service": "shop", "subset": "v1", "weight": 90},
                                           {"service": "shop", "subset": None, "weight": 10}])
        request = found["request"]
        same("request line", (request["method"], request["host"], request["path"]), ("GET", "shop.example", "/v2/7?x=1"))
        for field in [["x-tenant", "acme"], ["x-forwarded-for", "127.0.0.1"], ["cookie", "a=b"], ["X-Case", "Kept"]]:
            if field not in request["headers"]:
                raise AssertionError(f"{field} is not in {request['headers']}")
        same("response", found["response"], None)
        same("timeout", found["policy"]["timeout.total"], {"value": "3s", "origin": f"{good}:14"})
        same("headers", found["policy"]["timeout.headers"], {"value": "15s", "origin": "built-in"})
        same("attempts", found["policy"]["retry.attempts"]["value"], 1)
        same("endpoints", [one["address"] for one in found["endpoints"]], ["127.0.0.1:1", "127.0.0.1:2"])
        same("considered", [(one["route"], one["why_not"] is None) for one in found["considered"]],
             [("cart", True), ("pong", False), ("away", False)])
    with lib.attempt("explain: respond"):
        found = explain_json("GET", "http://127.0.0.1/ping")
        same("action", found["action"], "respond")
        same("status", found["response"]["status"], 200)
        same("request", found["request"], None)
    with lib.attempt("explain: redirect"):
        found = explain_json("GET", "http://127.0.0.1:99/old/x?y")
        same("status", found["response"]["status"], 308)
        if ["location", "http://new.example/old/x?y"] not in found["response"]["headers"]:
            raise AssertionError(found["response"])
    with lib.attempt("explain: a listener's own redirect"):
        found = explain_json("GET", "http://shop.example/x", "--listener", "moved")
        same("action", found["action"], "redirect")
        same("status", found["response"]["status"], 301)
        same("considered", found["considered"], [])
    with lib.attempt("explain: a TCP listener"):
        same("action", explain_json("GET", "/", "--listener", "db")["action"], "to")
    with lib.attempt("explain: no route"):
        found = explain_json("POST", "http://shop.example/cart/7", code=3)
        same("route", found["route"], None)
        same("status", found["response"]["status"], 404)
        same("why", found["considered"][0]["why_not"], "method: POST is not GET")
    for name, arguments in {"a malformed path": ["GET", "/../x"], "a bad header": ["GET", "/ping", "-H", "b@d: x"],
                            "two hosts": ["GET", "/ping", "-H", "Host: a", "-H", "Host: b"]}.items():
        with lib.attempt(f"explain: {name} is refused as on the wire"):
            same("status", explain_json(*arguments, code=3)["response"]["status"], 400)
    with lib.attempt("explain: CONNECT"):
        same("status", explain_json("CONNECT", "http://a:1/", code=3)["response"]["status"], 405)
    for name, arguments in {"an unknown listener": ["--listener", "x"], "a bad address": ["--client-ip", "x"]}.items():
        with lib.attempt(f"explain: {name}"):
            expect(outrider("explain", good, "GET", "/ping", *arguments), 64, out="")
    with lib.attempt("explain: bad configuration"):
        expect(outrider("explain", bad, "GET", "/"), 2, out="", err="error: ")
    with lib.attempt("explain: as text"):
        done = expect(outrider("explain", good, "GET", "http://shop.example/cart/7"), 0, out=f"route cart ({good}:16): to", err="")
        for words_of in ["takes it", "path: /cart/7 is not /ping", "timeout.total", f"{good}:14", "/v2/7"]:
            expect(done, 0, out=words_of)


def run():
    with lib.attempt("run: bad configuration"):
        expect(outrider("run", bad), 2, out="", err="error: ")
    with lib.attempt("run: an address that is taken"), lib.Outrider(GOOD) as proxy:
        text = GOOD.replace('"127.0.0.1:0"', f'"{proxy.address("main")}"', 1)
        expect(outrider("run", "-", text=text), 1, err=proxy.address("main"))
    for arguments in [["run", good], ["--config", good], [f"--config={good}", "--workers", "1"]]:
        with lib.attempt(f"{arguments[0].split('=')[0]}: says where it listens, then ready, and ends with 0"):
            process = subprocess.Popen([lib.Outrider.binary(), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
            seen = []
            for line in process.stderr:
                seen.append(line.rstrip("\n"))
                if seen[-1] == "ready":
                    break
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            same("exit code", process.wait(lib.PATIENCE), 0)
            same("names", [line.split()[1] for line in seen[:-1]], ["main", "moved", "db"])
    with lib.attempt("run: without standard streams"):
        same("exit code", subprocess.run(["sh", "-c", f'"{lib.Outrider.binary()}" run "{bad}" <&- >&- 2>&-'],
                                         timeout=lib.PATIENCE).returncode, 2)


with tempfile.TemporaryDirectory(prefix="outrider-cli-") as name:
    folder = pathlib.Path(name)
    good, bad, shadowed = folder / "good.yaml", folder / "bad.yaml", folder / "shadowed.yaml"
    good.write_text(GOOD)
    bad.write_text(BAD)
    shadowed.write_text(SHADOWED)
    for part in [usage, words, check, config, explain, run]:
        part()
lib.finish()
