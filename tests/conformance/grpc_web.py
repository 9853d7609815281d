"""A gRPC-Web client, frame by frame, in front of Python's grpcio server: both forms, unary and streaming, errors, deadlines."""
import base64
import concurrent.futures
import http.client
import struct
import time

import lib

lib.use_python_tools("grpcio")
import grpc  # noqa: E402  (only there after the line above)


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata([("x-trailer-bin", b"\x00\xff")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no way: 50% ü")
    if request == b"hang":
        context.add_callback(lambda: None)
        time.sleep(3)
    context.send_initial_metadata([("x-echo", dict(context.invocation_metadata()).get("x-ask", "-"))])
    context.set_trailing_metadata([("x-last", "yes")])
    return request


def stream(request, _context):
    for number in range(int(request)):
        yield str(number).encode() * 1000


HANDLERS = {"unary": grpc.unary_unary_rpc_method_handler(unary), "stream": grpc.unary_stream_rpc_method_handler(stream)}


def frames(body):
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        yield flags, body[5:5 + size]
        body = body[5 + size:]


def decoded(text):
    """Pieces of base64, each with its own padding."""
    return b"".join(base64.b64decode(text[at:at + 4], validate=True) for at in range(0, len(text), 4))


class Call:
    def __init__(self, address, method, message, text, fields=()):
        host, port = address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=lib.PATIENCE)
        body = b"\x00" + struct.pack(">I", len(message)) + message
        kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
        connection.request("POST", f"/test.Echo/{method}", base64.b64encode(body) if text else body,
                           {"content-type": kind, "accept": kind, "x-grpc-web": "1", **dict(fields)})
        response = connection.getresponse()
        self.fields = response.headers
        body = response.read()
        connection.close()
        expect(200, response.status)
        expect(True, self.fields["content-type"].startswith("application/grpc-web-text" if text else "application/grpc-web"))
        self.messages, self.trailers = [], None
        for flags, payload in frames(decoded(body) if text else body):
            if flags & 0x80:
                expect(None, self.trailers)
                self.trailers = dict(line.split(": ", 1) for line in payload.decode().split("\r\n") if line)
            else:
                expect(None, self.trailers)
                self.messages.append(payload)


def expect(wanted, got):
    if wanted != got:
        raise AssertionError(f"{got!r}, not {wanted!r}")


def cases(address, text):
    form = "text" if text else "binary"
    with lib.attempt(f"{form}: unary with metadata"):
        call = Call(address, "unary", b"hello", text, [("x-ask", "42")])
        expect([b"hello"], call.messages)
        expect("42", call.fields["x-echo"])
        expect("0", call.trailers["grpc-status"])
        expect("yes", call.trailers["x-last"])
    with lib.attempt(f"{form}: unary of 1 MiB"):
        expect([b"x" * (1 << 20)], Call(address, "unary", b"x" * (1 << 20), text).messages)
    with lib.attempt(f"{form}: an empty message"):
        expect([b""], Call(address, "unary", b"", text).messages)
    with lib.attempt(f"{form}: server streaming"):
        expect([str(number).encode() * 1000 for number in range(200)], Call(address, "stream", b"200", text).messages)
    with lib.attempt(f"{form}: status, message and binary trailers"):
        call = Call(address, "unary", b"fail", text)
        expect("9", call.trailers["grpc-status"])
        expect("no way: 50%25 %C3%BC", call.trailers["grpc-message"])
        expect(b"\x00\xff", base64.b64decode(call.trailers["x-trailer-bin"] + "=="))
    with lib.attempt(f"{form}: unknown method"):
        expect("12", Call(address, "none", b"", text).trailers["grpc-status"])
    with lib.attempt(f"{form}: the deadline"):
        expect("4", Call(address, "unary", b"hang", text, [("grpc-timeout", "300m")]).trailers["grpc-status"])


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", HANDLERS)])
origin = server.add_insecure_port("127.0.0.1:0")
server.start()
with lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ echo: "127.0.0.1:{origin}" }}
routes: [{{ to: echo, grpc_web: true }}]
$QUIET""") as proxy:
    for as_text in [False, True]:
        cases(proxy.address(), as_text)
server.stop(None)
lib.finish()
