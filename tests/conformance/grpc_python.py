"""Python's grpcio, client and server, with outrider between them: the four kinds of call, metadata, status, deadlines,
cancelling."""
import concurrent.futures
import threading

import lib

lib.use_python_tools("grpcio")
import grpc  # noqa: E402  (only there after the line above)

begun, cancelled = threading.Event(), threading.Event()


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata([("x-trailer-bin", b"\x00\xff")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no way: 50% ü")
    if request == b"remaining":
        return f"{context.time_remaining():.3f}".encode()
    if request == b"hang":
        context.add_callback(cancelled.set)
        begun.set()
        cancelled.wait(lib.PATIENCE)
        return b""
    context.send_initial_metadata([("x-echo", dict(context.invocation_metadata()).get("x-ask", "-"))])
    context.set_trailing_metadata([("x-last", "yes")])
    return request


def stream_out(request, _context):
    for number in range(int(request)):
        yield str(number).encode() * 1000


def stream_in(requests, _context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, _context):
    yield from requests


HANDLERS = {
    "unary": grpc.unary_unary_rpc_method_handler(unary),
    "stream_out": grpc.unary_stream_rpc_method_handler(stream_out),
    "stream_in": grpc.stream_unary_rpc_method_handler(stream_in),
    "both": grpc.stream_stream_rpc_method_handler(both),
}


def expect(wanted, got):
    if wanted != got:
        raise AssertionError(f"{got!r}, not {wanted!r}")


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def cases(channel):
    call = {name: getattr(channel, kind)(f"/test.Echo/{name}") for name, kind in
            [("unary", "unary_unary"), ("stream_out", "unary_stream"), ("stream_in", "stream_unary"), ("both", "stream_stream")]}

    with lib.attempt("unary with metadata"):
        answer, details = call["unary"].with_call(b"hello", metadata=[("x-ask", "42")], timeout=lib.PATIENCE)
        expect(b"hello", answer)
        expect("42", dict(details.initial_metadata())["x-echo"])
        expect("yes", dict(details.trailing_metadata())["x-last"])
    with lib.attempt("unary of 3 MiB"):
        expect(b"x" * (3 << 20), call["unary"](b"x" * (3 << 20), timeout=lib.PATIENCE))
    with lib.attempt("server streaming"):
        expect(500, len(list(call["stream_out"](b"500", timeout=lib.PATIENCE))))
    with lib.attempt("server streaming of nothing"):
        expect(0, len(list(call["stream_out"](b"0", timeout=lib.PATIENCE))))
    with lib.attempt("client streaming"):
        expect(b"2000000", call["stream_in"]((b"y" * 1000 for _ in range(2000)), timeout=lib.PATIENCE))
    with lib.attempt("bidirectional, each message answered before the next is sent"):
        turn = threading.Semaphore(1)

        def requests():
            for number in range(50):
                turn.acquire(timeout=lib.PATIENCE)
                yield str(number).encode()

        for number, answer in enumerate(call["both"](requests(), timeout=lib.PATIENCE)):
            expect(str(number).encode(), answer)
            turn.release()
        expect(49, number)
    with lib.attempt("status, message and binary trailers"):
        error = status_of(lambda: call["unary"](b"fail", timeout=lib.PATIENCE))
        expect(grpc.StatusCode.FAILED_PRECONDITION, error.code())
        expect("no way: 50% ü", error.details())
        expect(b"\x00\xff", dict(error.trailing_metadata())["x-trailer-bin"])
    with lib.attempt("unknown method (a response of trailers alone)"):
        error = status_of(lambda: channel.unary_unary("/test.Echo/none")(b"", timeout=lib.PATIENCE))
        expect(grpc.StatusCode.UNIMPLEMENTED, error.code())
    with lib.attempt("the deadline is passed on"):
        remaining = float(call["unary"](b"remaining", timeout=30))
        if not 0 < remaining < 31:  # the wire format rounds up
            raise AssertionError(f"{remaining} s remained of 30")
    with lib.attempt("the deadline ends the call, and the server learns of it"):
        cancelled.clear()
        expect(grpc.StatusCode.DEADLINE_EXCEEDED, status_of(lambda: call["unary"](b"hang", timeout=1)).code())
        if not cancelled.wait(lib.PATIENCE):
            raise AssertionError("the server was not told")
    with lib.attempt("a cancelled call reaches the server"):
        begun.clear()
        cancelled.clear()
        future = call["unary"].future(b"hang", timeout=10 * lib.PATIENCE)
        if not begun.wait(lib.PATIENCE):
            raise AssertionError("the call did not begin")
        future.cancel()
        if not cancelled.wait(lib.PATIENCE):
            raise AssertionError("the server was not told")
    with lib.attempt("100 calls at once"):
        futures = [call["unary"].future(str(number).encode(), timeout=lib.PATIENCE) for number in range(100)]
        expect([str(number).encode() for number in range(100)], [future.result() for future in futures])


server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", HANDLERS)])
origin = server.add_insecure_port("127.0.0.1:0")
server.start()
with lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ declared: "h2c://127.0.0.1:{origin}", detected: "127.0.0.1:{origin}" }}
routes:
  - {{ match: detected.test/**, to: detected }}
  - {{ to: declared }}
$QUIET""") as proxy:
    # The second service says nothing of its protocol: a gRPC request alone makes it HTTP/2.
    for authority in ["declared.test", "detected.test"]:
        with grpc.insecure_channel(proxy.address(), [("grpc.default_authority", authority)]) as channel:
            print(authority)
            cases(channel)
server.stop(None)
lib.finish()
