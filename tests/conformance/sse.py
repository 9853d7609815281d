"""Server-sent events: each event reaches the client before the origin writes the next one, over HTTP/1.1 and HTTP/2."""
import subprocess
import threading

import lib

curl = lib.tool("curl")
EVENTS = 20
seen = threading.Semaphore(0)


class Handler(lib.Handler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            event = f"id: {number}\ndata: event {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            if not seen.acquire(timeout=lib.PATIENCE):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")


with lib.Origin(Handler) as origin, lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ origin: "{origin.address}" }}
routes: [{{ to: origin }}]
$QUIET""") as proxy:
    for flag in ["--http1.1", "--http2-prior-knowledge"]:
        with lib.attempt(f"events one by one, {flag}"):
            client = subprocess.Popen([curl, "--silent", "--no-buffer", "--max-time", str(int(lib.PATIENCE)), flag,
                                       f"http://{proxy.address()}/"], stdout=subprocess.PIPE, text=True)
            for number in range(EVENTS):
                lines = [client.stdout.readline() for _ in range(3)]
                if lines != [f"id: {number}\n", f"data: event {number}\n", "\n"]:
                    raise AssertionError(f"event {number} came as {lines}")
                seen.release()
            if client.wait(lib.PATIENCE) != 0:
                raise AssertionError(f"curl ended with {client.returncode}")

lib.finish()
