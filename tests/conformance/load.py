"""h2load, wrk and nghttp: many connections and streams at once, every answer right."""
import pathlib
import re
import tempfile

import lib

h2load, wrk, nghttp = lib.tool("h2load"), lib.tool("wrk"), lib.tool("nghttp")
REQUESTS = 4000


def load(name, *arguments):
    output = lib.run(h2load, "-n", REQUESTS, "-c", 16, "-t", 1, *arguments, timeout=4 * lib.PATIENCE)
    right = re.search(rf"{REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed", output)
    codes = f"status codes: {REQUESTS} 2xx" in output
    lib.case(name, None if right and codes else output)


# Each edge listener goes through a service to a listener of the same process: both codecs, no slow origin.
with tempfile.TemporaryDirectory(prefix="outrider-load-") as name, \
        lib.Origin(lib.Handler) as origin, lib.Outrider("""
outrider: v1
listeners: { answer: { address: "127.0.0.1:0" } }
routes: [{ respond: { status: 200, body: "0123456789" } }]
$QUIET""") as backend, lib.Outrider(f"""
outrider: v1
listeners:
  h1: {{ address: "127.0.0.1:0" }}
  h2: {{ address: "127.0.0.1:0" }}
  echo: {{ address: "127.0.0.1:0" }}
services:
  h1: "http://{backend.address('answer')}"
  h2: "h2c://{backend.address('answer')}"
  echo: "{origin.address}"
routes:
  - {{ listeners: [h1], to: h1 }}
  - {{ listeners: [h2], to: h2 }}
  - {{ listeners: [echo], to: echo }}
$QUIET""") as proxy:
    for upstream in ["h1", "h2"]:
        url = f"http://{proxy.address(upstream)}/"
        load(f"h2load HTTP/1.1 to {upstream}", "--h1", url)
        load(f"h2load HTTP/2 to {upstream}", "-m", 20, url)
        body = pathlib.Path(name) / "body"
        body.write_bytes(b"x" * 20000)
        load(f"h2load HTTP/2 POST to {upstream}", "-m", 10, "-d", body, url)

        with lib.attempt(f"wrk to {upstream}"):
            output = lib.run(wrk, "-t", 1, "-c", 16, "-d", "2s", url)
            done = re.search(r"(\d+) requests in", output)
            if not done or int(done[1]) < 100 or "Non-2xx" in output or "Socket errors" in output:
                raise AssertionError(output)

    body.write_bytes(b"nghttp uploads this " * 5000)
    url = f"http://{proxy.address('echo')}/"
    for title, flags in [("upload", []), ("upload with Expect", ["--expect-continue"]),
                         ("upload with a trailer", ["--trailer", "x-sum: 1"]),
                         ("upload through windows of 1 KiB", ["-w", 10, "-W", 10])]:
        with lib.attempt(f"nghttp {title}"):
            if body.read_text() not in lib.run(nghttp, "-d", body, *flags, url):
                raise AssertionError("the body did not come back")
    with lib.attempt("nghttp many requests on one connection"):
        output = lib.run(nghttp, "-ns", "-m", 50, url)
        if output.count(" 200 ") != 50:
            raise AssertionError(output)

lib.finish()
