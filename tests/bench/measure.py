"""One run of one cell by one peer: a dict of figures with `value`, or `invalid`, the reason."""
from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import time
from dataclasses import replace
from typing import Any

from backend import Session
from cells import Cell
from load import check, check_soon, load, tls_context, warm_up
from machine import HOST, LOAD_CPU, PROXY_CPU, cpu_busy, cpu_times, memory_mib, probe
from peers import Invalid, Peer, Proxy

GIB = 1024 ** 3
Run = dict[str, Any]


def run_once(peer: Peer, cell: Cell, session: Session, seconds: int) -> Run:
    """Starts the peer, measures it, ends it; and says how slow the machine was meanwhile."""
    session.backend.prepare(cell)
    before = probe()
    try:
        run = (measure_workers if cell.kind == "workers" else measure)(peer, cell, session, seconds)
    except Invalid as e:
        run = dict(invalid=str(e))
    except subprocess.TimeoutExpired as e:
        run = dict(invalid=f"timed out: {e.cmd[:6]}")
    return dict(run, probe_s=max(before, probe()))


def measure(peer: Peer, cell: Cell, session: Session, seconds: int) -> Run:
    with peer.start(cell, session) as proxy:
        if cell.kind == "startup":
            return measure_startup(proxy)
        proxy.wait_until_open()
        check_soon(proxy)
        return measure_memory(proxy) if cell.kind == "memory" else measure_load(proxy, seconds)


def measure_workers(peer: Peer, cell: Cell, session: Session, seconds: int) -> Run:
    """One proxy of several workers, between two runs of as many proxies of one worker: those share
    nothing, and CPUs, load and backend are used alike."""
    together = replace(cell, kind="load")
    apart = replace(together, workers=1, proxies=cell.workers)
    half = max(1, seconds // 2)
    before = measure(peer, apart, session, half)["value"]
    several = measure(peer, together, session, seconds)
    one = (before + measure(peer, apart, session, half)["value"]) / 2
    ratio = several["value"] / one
    return dict(value=ratio, one_us=one, several_us=several["value"], capacity=cell.workers / ratio,
                rps=several["rps"])


def measure_load(proxy: Proxy, seconds: int) -> Run:
    warm_up(proxy)
    cell = proxy.cell
    pids = proxy.pids()
    cpu_before, busy_before = cpu_times(pids), (cpu_busy(PROXY_CPU), cpu_busy(LOAD_CPU))
    start = time.monotonic()
    result = load(proxy, seconds)
    cpu_after, busy_after = cpu_times(pids), (cpu_busy(PROXY_CPU), cpu_busy(LOAD_CPU))
    wall = time.monotonic() - start
    if sorted(proxy.pids()) != sorted(pids):
        result["errors"].append("the proxy's processes changed during the run")
    if result["errors"]:
        raise Invalid("; ".join(result["errors"]))
    check(proxy)
    cpu, user, system = (b - a for a, b in zip(cpu_before, cpu_after))
    proxy_busy, load_busy = ((b - a) / wall for a, b in zip(busy_before, busy_after))
    count = result["requests"]
    run = dict(requests=count, seconds=result["seconds"], rps=count / result["seconds"], cpu_s=cpu,
               user_share=user / (user + system) if user + system else None,
               proxy_cpu_busy=proxy_busy, load_cpu_busy=load_busy)
    run.update({k: result[k] for k in ("mean_us", "p50_us", "p99_us") if k in result})
    if cell.kind == "bulk":
        gib = count * cell.size / GIB
        run.update(gib_s=gib / result["seconds"], value=cpu * 1e3 / gib)
    else:
        run["value"] = cpu / count * 1e6
    if proxy.peer.direct:
        run["value"] = None
    return run


def measure_startup(proxy: Proxy) -> Run:
    """Asks every 0.5 ms until the first complete right answer; then the process at rest."""
    request = (f"GET {proxy.cell.path} HTTP/1.1\r\nHost: localhost\r\n"
               "Connection: close\r\n\r\n").encode()
    while True:
        if proxy.ended():
            raise Invalid("it ended\n" + proxy.tail())
        try:
            with socket.create_connection((HOST, proxy.port), 1) as s:
                s.sendall(request)
                answer = b""
                while data := s.recv(65536):
                    answer += data
                if answer.startswith(b"HTTP/1.1 200"):
                    break
        except OSError:
            pass
        if time.monotonic() > proxy.started + 30:
            raise Invalid("not ready after 30 s\n" + proxy.tail())
        time.sleep(0.0005)
    ms = (time.monotonic() - proxy.started) * 1e3
    cpu = cpu_times(proxy.pids())[0] * 1e3
    check(proxy)
    time.sleep(0.3)
    pss, rss = memory_mib(proxy.pids())
    return dict(value=ms, startup_cpu_ms=cpu, rest_pss_mib=pss, rest_rss_mib=rss)


# ----------------------------------------------------------------------------- idle connections

def h2_hello_and_request(scheme: str) -> bytes:
    """Preface, empty SETTINGS, and a GET / on stream 1 by static table entries."""
    block = b"\x82" + (b"\x87" if scheme == "https" else b"\x86") + b"\x84" + b"\x41\x09localhost"
    return (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
            + struct.pack("!I", len(block))[1:] + b"\x01\x05\0\0\0\x01" + block)


def h2_answer_is_200(s: socket.socket) -> bool:
    """Reads frames until stream 1 ends; acknowledges SETTINGS."""
    data, ok = b"", False
    while True:
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            length = int.from_bytes(data[:3], "big")
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
            payload, data = data[9:9 + length], data[9 + length:]
            if kind == 4 and not flags & 1:
                s.sendall(b"\0\0\0\x04\x01\0\0\0\0")
            if stream == 1 and kind == 1:
                # 0x88 is :status 200 in the static table; table size updates may come before it.
                ok = b"\x88" in payload[:4] or b"200" in payload[:8] or b"\x10\x01" in payload[:8]
            if stream == 1 and kind in (0, 1) and flags & 1:
                return ok
            if kind in (3, 7):
                return False
        more = s.recv(65536)
        if not more:
            return False
        data += more


def h1_answer_is_200(s: socket.socket, size: int) -> bool:
    data = b""
    while len(data.partition(b"\r\n\r\n")[2]) < size:
        more = s.recv(65536)
        if not more:
            return False
        data += more
    return data.startswith(b"HTTP/1.1 200")


class IdleClients:
    """Connections that each had one answer, and are then left open."""

    def __init__(self, proxy: Proxy) -> None:
        cell = self.cell = proxy.cell
        self.port = proxy.port
        self.context = tls_context(proxy.session, False, ["h2" if cell.down.h2 else "http/1.1"])
        self.request = (h2_hello_and_request("https" if cell.down.tls else "http") if cell.down.h2
                        else b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> IdleClients:
        return self

    def __exit__(self, *_: object) -> None:
        for s in self.sockets:
            s.close()

    def grow_to(self, count: int) -> None:
        try:
            while len(self.sockets) < count:
                self.connect()
        except OSError as e:
            raise Invalid(f"after {len(self.sockets)} connections: {e!r}") from None

    def connect(self) -> None:
        s = socket.create_connection((HOST, self.port), 10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.cell.down.tls:
            s = self.context.wrap_socket(s, server_hostname="localhost")
        self.sockets.append(s)
        s.sendall(self.request)
        if not (h2_answer_is_200(s) if self.cell.down.h2 else h1_answer_is_200(s, self.cell.size)):
            raise Invalid(f"connection {len(self.sockets)} was not answered with 200")

    def check_open(self) -> None:
        """A connection that the proxy closed would be readable."""
        closed = 0
        for s in self.sockets:
            s.setblocking(False)
            try:
                closed += s.recv(1) == b""
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            s.settimeout(10)
        if closed:
            raise Invalid(f"the proxy closed {closed} of the idle connections")


def measure_memory(proxy: Proxy) -> Run:
    time.sleep(0.3)
    pids = proxy.pids()
    idle_pss, idle_rss = memory_mib(pids)
    with IdleClients(proxy) as clients:
        clients.grow_to(proxy.cell.conns)
        time.sleep(0.5)
        during_pss, _ = memory_mib(pids)
        clients.check_open()
    time.sleep(1)
    return dict(value=(during_pss - idle_pss) * 1024 / proxy.cell.conns, rest_pss_mib=idle_pss,
                rest_rss_mib=idle_rss, during_pss_mib=during_pss, after_pss_mib=memory_mib(pids)[0])
