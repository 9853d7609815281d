"""curl --compressed: it decodes what outrider encoded, in each coding it knows, over HTTP/1.1 and HTTP/2."""
import hashlib
import json

import lib

curl = lib.tool("curl")
PAGE = json.dumps([{"id": number, "name": f"cart {number % 17}"} for number in range(50_000)]).encode()
DIGEST = hashlib.sha256(PAGE).hexdigest()


class Handler(lib.Handler):
    def do_GET(self):
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for at in range(0, len(PAGE), 5000):
                piece = PAGE[at:at + 5000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(PAGE, [("content-type", "application/json")])


def fetch(*arguments):
    command = [curl, "--silent", "--show-error", "--max-time", int(lib.PATIENCE), "-w", "\n%{size_download}", *arguments]
    body, size = lib.run(*command, timeout=2 * lib.PATIENCE).rsplit("\n", 1)
    return hashlib.sha256(body.encode()).hexdigest(), int(size)


known = [coding for feature, coding in [("libz", "gzip"), ("brotli", "br"), ("zstd", "zstd")]
         if feature in lib.run(curl, "--version").split("Features:")[1].split()]
with lib.Origin(Handler) as origin, lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ origin: "{origin.address}" }}
routes: [{{ to: origin, compress: true }}]
$QUIET""") as proxy:
    url = f"http://{proxy.address()}"
    for version, flag in [("HTTP/1.1", "--http1.1"), ("HTTP/2", "--http2-prior-knowledge")]:
        for path in ["/", "/chunked"]:
            for coding in [*known, "all that curl takes"]:
                asked = [] if coding == "all that curl takes" else ["-H", f"accept-encoding: {coding}"]
                with lib.attempt(f"{version} {path} {coding}"):
                    digest, size = fetch(flag, "--compressed", *asked, url + path)
                    if digest != DIGEST:
                        raise AssertionError("the body is another")
                    if size > len(PAGE) / 2:
                        raise AssertionError(f"{size} bytes came for {len(PAGE)}: not compressed")
        with lib.attempt(f"{version} plain"):
            if fetch(flag, url + "/") != (DIGEST, len(PAGE)):
                raise AssertionError("the body is another")

lib.finish()
