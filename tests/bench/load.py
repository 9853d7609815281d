"""Load generators (wrk, h2load, openssl s_time), and the check that a proxy's answers are right."""
from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

from backend import Session
from cells import Cell
from machine import HOST
from peers import Invalid, Proxy

LUA = Path(__file__).resolve().parent / "wrk-json.lua"
Result = dict[str, Any]


def url(cell: Cell, port: int) -> str:
    return f"{'https' if cell.down.tls else 'http'}://{HOST}:{port}{cell.path}"


def pinned(cell: Cell, argv: list[Any]) -> list[str]:
    """The command on the CPUs of the load."""
    return ["taskset", "-c", ",".join(map(str, cell.load_cpus)), *map(str, argv)]


def run_tool(cell: Cell, argv: list[Any], seconds: float, wrap: list[str]) -> str:
    """What the tool printed. `wrap` is a command to run it under."""
    with subprocess.Popen(pinned(cell, wrap + argv), stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, start_new_session=True) as tool:
        try:
            return tool.communicate(timeout=seconds + 30)[0]
        except BaseException:
            os.killpg(tool.pid, signal.SIGKILL)     # what `wrap` started, too
            raise


def find(pattern: str, text: str) -> re.Match:
    """In what a tool printed."""
    found = re.search(pattern, text, re.M)
    if not found:
        raise Invalid("the load generator failed: " + text[-300:])
    return found


def wrk_command(cell: Cell, ports: list[int], seconds: int) -> list[Any]:
    threads = max(cell.workers, cell.proxies)
    argv = ["env", f"PORTS={','.join(map(str, ports))}", "wrk", f"-t{threads}",
            f"-c{cell.conns}", f"-d{seconds}s", "-s", LUA]
    fields = cell.fields + (("Connection: close",) if cell.kind == "handshake" else ())
    for field in fields:
        argv += ["-H", field]
    return argv + [url(cell, ports[0])]


def read_wrk(cell: Cell, text: str) -> Result:
    result = json.loads(find(r"^JSON (\{.*\})$", text)[1])
    errors = [f"{name}: {count}" for name, count in result.pop("errors").items() if count]
    count = result["requests"]
    per_answer = result.pop("bytes") / count if count else 0
    if count and not cell.size <= per_answer <= cell.size + 2000 + cell.conns * cell.size / count:
        errors.append(f"{per_answer:.0f} bytes per response")
    return dict(result, errors=errors)


def wrk(cell: Cell, ports: list[int], seconds: int, wrap: list[str]) -> Result:
    text = run_tool(cell, wrk_command(cell, ports, seconds), seconds, wrap)
    return dict(read_wrk(cell, text), text=text)


def read_h2load(cell: Cell, text: str) -> Result:
    took = find(r"finished in ([\d.]+)(us|ms|s)", text)
    mean = find(r"time for request: +\S+ +\S+ +([\d.]+)(us|ms|s)", text)
    micros = {"us": 1, "ms": 1e3, "s": 1e6}
    body = int(find(r"\((\d+)\) data", text)[1])
    counts = {what: int(count) for count, what in re.findall(
        r"(\d+) (done|succeeded|failed|errored|timeout|2xx|3xx|4xx|5xx)", text)}
    errors = [f"{what}: {counts[what]}" for what in
              ("failed", "errored", "timeout", "3xx", "4xx", "5xx") if counts.get(what)]
    count = counts["succeeded"]
    in_flight = cell.size * cell.conns * cell.streams
    if not count * cell.size <= body <= count * cell.size + in_flight:
        errors.append(f"{body} body bytes for {count} responses")
    return dict(requests=count, seconds=float(took[1]) * micros[took[2]] / 1e6, body_bytes=body,
                mean_us=float(mean[1]) * micros[mean[2]], errors=errors)


def h2load(cell: Cell, port: int, session: Session, how: list[Any], seconds: float,
           wrap: list[str]) -> Result:
    argv = ["h2load", "-t1", *how]
    if not cell.down.h2:
        argv.append("--h1")
    for field in cell.fields:
        argv += ["-H", field]
    if cell.grpc:
        argv += ["-d", session.grpc_message, "-H", "content-type: application/grpc", "-H",
                 "te: trailers"]
    text = run_tool(cell, argv + [url(cell, port)], seconds, wrap)
    return dict(read_h2load(cell, text), text=text)


def rate(cell: Cell, port: int, session: Session, seconds: int, wrap: list[str]) -> Result:
    """A constant rate; latency of each request from h2load's log."""
    log = session.work / "h2load.log"
    log.unlink(missing_ok=True)
    how = ["-c", cell.conns, "-m", cell.streams, "-D", f"{seconds}s", "--rps",
           cell.rate / cell.conns, "--log-file", log]
    result = h2load(cell, port, session, how, seconds, wrap)
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    if len(times) < 0.9 * cell.rate * seconds:
        result["errors"].append(f"offered rate not reached: {len(times)} requests")
    if times:
        result.update(p50_us=times[len(times) // 2], p99_us=times[int(len(times) * .99)])
    return result


def s_time(cell: Cell, port: int, session: Session, seconds: int, wrap: list[str]) -> Result:
    """Full handshakes with a client certificate, one after another."""
    certs = session.certs
    argv = ["openssl", "s_time", "-connect", f"{HOST}:{port}", "-new", "-tls1_3", "-time", seconds,
            "-www", cell.path, "-CAfile", certs / "ca.pem", "-cert", certs / "client.pem", "-key",
            certs / "client.key"]
    text = run_tool(cell, argv, seconds, wrap)
    found = find(r"(\d+) connections in \d+ real seconds, (\d+) bytes read per", text)
    errors = [] if int(found[2]) >= cell.size else [f"{found[2]} bytes per connection"]
    return dict(requests=int(found[1]), seconds=seconds, errors=errors, text=text)


def load(proxy: Proxy, seconds: int, wrap: list[str] | None = None) -> Result:
    """Loads the proxy: requests, seconds, errors (each a line), the tool's text, and latencies."""
    result = run_load(proxy, seconds, wrap or [])
    if not result["requests"]:
        result["errors"].append("no request was answered")
    return result


def run_load(proxy: Proxy, seconds: int, wrap: list[str]) -> Result:
    cell, session = proxy.cell, proxy.session
    if cell.client_cert:
        return s_time(cell, proxy.port, session, seconds, wrap)
    if cell.kind == "rate":
        return rate(cell, proxy.port, session, seconds, wrap)
    if cell.down.h2:
        how = ["-c", cell.conns, "-m", cell.streams, "-D", f"{seconds}s"]
        return h2load(cell, proxy.port, session, how, seconds, wrap)
    return wrk(cell, proxy.ports, seconds, wrap)


def warm_up(proxy: Proxy) -> None:
    """Loads until every connection and stream has had its first answer, at least 0.4 s."""
    cell, session = proxy.cell, proxy.session
    if cell.client_cert:
        load(proxy, 1)
        return
    conns = cell.conns // len(proxy.ports)
    for port in proxy.ports:
        answered = 0
        for milliseconds in (400, 1000, 2000, 4000):
            how = ["-c", conns, "-m", cell.streams, "-D", f"{milliseconds}ms"]
            answered += h2load(cell, port, session, how, 4, [])["requests"]
            if answered >= conns * cell.streams:
                break
        else:
            raise Invalid(f"warm-up: {answered} answers for {conns} x {cell.streams} streams")


# ------------------------------------------------------------------------------- the right answer

def tls_context(session: Session, client_cert: bool, alpn: list[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(session.certs / "ca.pem"))
    context.set_alpn_protocols(alpn)
    if client_cert:
        context.load_cert_chain(session.certs / "client.pem", session.certs / "client.key")
    return context


def check_h2(cell: Cell, port: int, session: Session) -> None:
    result = h2load(cell, port, session, ["-n", 4, "-c", 1, "-m", 1], 10, [])
    if result["requests"] != 4 or result["errors"] or result["body_bytes"] != 4 * cell.size:
        raise Invalid(f"check: {result}")
    if cell.grpc:
        text = run_tool(cell, ["nghttp", "-nv", "-d", session.grpc_message, "-H", ":method: POST",
                               "-H", "content-type: application/grpc", "-H", "te: trailers",
                               url(cell, port)], 10, [])
        if "grpc-status: 0" not in text:
            raise Invalid("check: the trailer grpc-status did not come through")


def check_http10(cell: Cell, port: int, session: Session) -> None:
    """What openssl s_time sends, which shows no status itself."""
    context = tls_context(session, cell.client_cert, ["http/1.1"])
    answer = b""
    with socket.create_connection((HOST, port), 10) as s, \
            context.wrap_socket(s, server_hostname="localhost") as tls:
        tls.sendall(f"GET {cell.path} HTTP/1.0\r\n\r\n".encode())
        while data := tls.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.[01] 200 ", head) or len(body) != cell.size:
        raise Invalid(f"check: {head[:40]!r}, {len(body)} bytes (want {cell.size})")


def check_h1(cell: Cell, port: int, session: Session) -> None:
    client = http.client.HTTPConnection(HOST, port, timeout=10)
    if cell.down.tls:
        context = tls_context(session, cell.client_cert, ["http/1.1"])
        client = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    try:
        for _ in range(2):
            client.request("GET", cell.path,
                           headers=dict(field.split(": ", 1) for field in cell.fields))
            answer = client.getresponse()
            length = len(answer.read())
            if answer.status != 200 or length != cell.size:
                raise Invalid(f"check: status {answer.status}, {length} bytes (want {cell.size})")
    finally:
        client.close()


def check(proxy: Proxy) -> None:
    """Status and exact length of the body must be right, else Invalid."""
    cell = proxy.cell
    checker = check_h2 if cell.down.h2 else check_http10 if cell.client_cert else check_h1
    try:
        for port in proxy.ports:
            checker(cell, port, proxy.session)
    except (OSError, http.client.HTTPException) as e:
        raise Invalid(f"check: {e!r}") from None


def check_soon(proxy: Proxy, seconds: float = 20) -> None:
    """A proxy may listen before its upstream is usable: the first answers may be errors."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check(proxy)
        except Invalid as e:
            if time.monotonic() > end:
                raise Invalid(f"{e}\n{proxy.tail()}") from None
            time.sleep(0.05)
