"""curl over HTTP/1.1, HTTP/1.0 and HTTP/2 with prior knowledge: methods, uploads, Expect, trailers, reuse."""
import hashlib
import pathlib
import tempfile

import lib

curl = lib.tool("curl")
BIG = bytes(range(256)) * 12288  # 3 MiB: over curl's threshold for Expect: 100-continue


class Handler(lib.Handler):
    def reply(self):
        if self.path == "/trailers":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.send_header("trailer", "x-sum")
            self.end_headers()
            self.wfile.write(b"4\r\nbody\r\n0\r\nx-sum: 4711\r\n\r\n")
        elif self.path == "/method":
            self.answer(f"{self.command} {self.headers.get('content-length', '-')}".encode(), [("x-method", self.command)])
        elif self.path == "/big":
            self.answer(BIG)
        elif self.path == "/close":
            self.close_connection = True
            self.send_response(200)
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(b"until the end")
        else:
            self.answer(hashlib.sha256(self.body()).hexdigest().encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = reply


def fetch(*arguments):
    return lib.run(curl, "--silent", "--show-error", "--max-time", int(lib.PATIENCE), *arguments, timeout=2 * lib.PATIENCE)


def expect(wanted, got):
    if wanted not in got:
        raise AssertionError(f"{wanted!r} is not in {got[-600:]!r}")


def cases(version, *flags):
    for method in ["GET", "DELETE", "OPTIONS", "PATCH"]:
        with lib.attempt(f"{version} {method}"):
            expect(method, fetch(*flags, "-X", method, url + "/method"))
    with lib.attempt(f"{version} HEAD"):
        expect("x-method: HEAD", fetch(*flags, "--head", url + "/method").lower().replace("head", "HEAD"))
    with lib.attempt(f"{version} POST of 3 MiB"):
        expect(digest, fetch(*flags, "--data-binary", f"@{big}", url + "/"))
    with lib.attempt(f"{version} PUT of 3 MiB from a pipe"):
        with open(big, "rb") as source:
            expect(digest, lib.run(curl, "--silent", "--show-error", *flags, "-T", "-", url + "/", stdin=source))
    with lib.attempt(f"{version} response of 3 MiB"):
        target = folder / "answer"
        fetch(*flags, "-o", target, url + "/big")
        if target.read_bytes() != BIG:
            raise AssertionError(f"{target.stat().st_size} bytes, not the ones sent")
    with lib.attempt(f"{version} response that ends with the upstream's connection"):
        expect("until the end", fetch(*flags, url + "/close"))


with tempfile.TemporaryDirectory(prefix="outrider-curl-") as name, lib.Origin(Handler) as origin, lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ origin: "{origin.address}" }}
routes: [{{ to: origin }}]
$QUIET""") as proxy:
    folder = pathlib.Path(name)
    big = folder / "big"
    big.write_bytes(BIG)
    digest = hashlib.sha256(BIG).hexdigest()
    url = f"http://{proxy.address()}"
    print(lib.run(curl, "--version").splitlines()[0])

    cases("HTTP/1.1", "--http1.1")
    cases("HTTP/2", "--http2-prior-knowledge")
    for version, flag in [("HTTP/1.1", "--http1.1"), ("HTTP/2", "--http2-prior-knowledge")]:
        with lib.attempt(f"{version} trailers of the response"):
            expect("x-sum: 4711", fetch(flag, "-D", "-", url + "/trailers").lower())
    with lib.attempt("HTTP/1.1 Expect: 100-continue"):
        output = fetch("--http1.1", "-v", "-H", "Expect: 100-continue", "--expect100-timeout", 3600,
                       "--data-binary", f"@{big}", url + "/")
        expect("HTTP/1.1 100", output)
        expect(digest, output)
    with lib.attempt("HTTP/1.1 two requests on one connection"):
        counts = fetch("--http1.1", "-o", "/dev/null", "-w", "%{num_connects},", url + "/", "-o", "/dev/null", url + "/")
        expect("1,0,", counts)
    with lib.attempt("HTTP/1.0"):
        expect("GET", fetch("--http1.0", url + "/method"))
    with lib.attempt("Upgrade: h2c is not followed"):
        output = fetch("--http2", "-v", url + "/method")
        expect("GET", output)
        if "101 Switching" in output:
            raise AssertionError("switched to h2c")

lib.finish()
