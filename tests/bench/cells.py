"""What is measured: one Cell is one traffic shape."""
from __future__ import annotations

from dataclasses import dataclass

from machine import LOAD_CPU, PROXY_CPU


@dataclass(frozen=True)
class Side:
    """One side of the proxy: what it speaks to clients (down) or to the backend (up)."""
    h2: bool = False
    tls: bool = False
    mtls: bool = False      # down: demand a client certificate; up: present one
    tcp: bool = False       # byte relay, no HTTP


H1, H2C = Side(), Side(h2=True)
H1TLS, H2TLS = Side(tls=True), Side(h2=True, tls=True)
H1MTLS, TCP = Side(tls=True, mtls=True), Side(tcp=True)

UNITS = {"load": "CPU µs/req", "rate": "CPU µs/req", "bulk": "CPU ms/GiB",
         "handshake": "CPU µs/handshake", "memory": "KiB/conn", "startup": "ms",
         "workers": "× CPU/req"}


@dataclass(frozen=True)
class Cell:
    name: str
    kind: str               # load (closed loop) | bulk | rate | handshake | memory | startup |
                            # workers (CPU of a request in a proxy of several ÷ in proxies of one)
    text: str
    down: Side = H1
    up: Side = H1
    size: int = 100         # response body, bytes
    conns: int = 64
    streams: int = 1        # concurrent streams of a connection (H2)
    rate: int = 0           # requests/s, all connections together (kind rate)
    grpc: bool = False      # POST, gRPC headers, trailers in the response
    client_cert: bool = False
    log: bool = False       # the proxy writes its access log to a file
    workers: int = 1
    proxies: int = 1        # how many of them run beside each other, each with a part of the load
    shared: bool = False    # proxies, load generator and backend all may use both CPUs
    routes: int = 0         # prefix routes beside the one for everything; the middle one is hit
    services: int = 0       # services beside the one for everything, one a route
    endpoints: int = 1      # of the service that is hit
    balance: str = ""       # how endpoints are chosen, in the peer's own words
    upstream: int = 100000  # connections to the backend at most, where the peer can queue
    fields: tuple[str, ...] = ()    # further request header fields, "name: value"

    @property
    def unit(self) -> str:
        return UNITS[self.kind]

    @property
    def proxy_cpus(self) -> set[int]:
        return {PROXY_CPU, LOAD_CPU} if self.shared else {PROXY_CPU}

    @property
    def load_cpus(self) -> set[int]:
        """Of the load generator and the backend."""
        return self.proxy_cpus if self.shared else {LOAD_CPU}

    @property
    def path(self) -> str:
        if self.grpc:
            return "/grpc.Echo/Echo"
        if self.size != 100:
            return f"/body/{self.size}"
        return route_prefix(self.routes // 2) + "/item" if self.routes else "/"


def route_prefix(index: int) -> str:
    return f"/r{index:04}"


MIB = 1024 ** 2

CELLS = [
    Cell("h1-h1-small", "load", "H1 keep-alive, 100 B body"),
    Cell("h1-h1-small-log", "load", "the same, access log written to a file", log=True),
    Cell("h1-h1-small-1000r", "load", "the same, 1,000 prefix routes, the 500th hit", routes=1000),
    Cell("h1-h1-small-10000r", "load", "the same, 10,000 prefix routes, the 5,000th hit",
         routes=10000),
    Cell("h1-h1-small-2w", "workers",
         "the same, one proxy of two workers against two proxies of one", workers=2, shared=True),
    Cell("h1-h1-10k", "load", "H1 keep-alive, 10 KiB body", size=10240),
    Cell("h1-h1-1m", "bulk", "H1 keep-alive, 1 MiB body", size=MIB, conns=16),
    Cell("h2c-h1-small", "load", "H2 cleartext to H1, 100 B, 4 conns x 100 streams", H2C, H1,
         conns=4, streams=100),
    Cell("h2c-h2c-grpc", "load", "gRPC shape: unary POST with trailers, 4 conns x 100 streams",
         H2C, H2C, conns=4, streams=100, grpc=True),
    Cell("tcp-1m", "bulk", "raw TCP relay, 1 MiB bodies", TCP, TCP, size=MIB, conns=16),
    Cell("h1-h1-rate1k", "rate", "H1, 100 B, constant 1,000 req/s over 10 connections", conns=10,
         rate=1000),
    Cell("h2c-h1-rate1k", "rate", "H2 cleartext to H1, 100 B, constant 1,000 req/s over 2 conns",
         H2C, H1, conns=2, streams=50, rate=1000),
    Cell("mem-h1", "memory", "5,000 idle H1 connections, one request each", conns=5000),
    Cell("mem-h2c", "memory", "5,000 idle H2 cleartext connections, one request each", H2C, H1,
         conns=5000),
    Cell("startup", "startup", "exec to first 200, small configuration"),
    Cell("startup-1000r", "startup", "exec to first 200, 1,000 routes", routes=1000),
    Cell("startup-10000r", "startup", "exec to first 200, 10,000 routes", routes=10000),
    Cell("h1tls-h1-small", "load", "H1 over TLS 1.3 keep-alive to H1, 100 B", H1TLS, H1),
    Cell("h1tls-h1-1m", "bulk", "H1 over TLS, 1 MiB body", H1TLS, H1, size=MIB, conns=16),
    Cell("h2tls-h1-small", "load", "H2 over TLS to H1, 100 B, 4 conns x 100 streams", H2TLS, H1,
         conns=4, streams=100),
    Cell("h1-h1mtls-small", "load", "H1 plain to H1 over mTLS (sidecar egress), 100 B", H1, H1MTLS),
    Cell("h1tls-h1-rate1k", "rate", "H1 over TLS, 100 B, constant 1,000 req/s over 10 conns",
         H1TLS, H1, conns=10, rate=1000),
    Cell("h1tls-handshake", "handshake",
         "new TLS 1.3 connection (ECDSA P-256, full handshake) per request", H1TLS, H1, conns=16),
    Cell("h1mtls-handshake", "handshake",
         "the same with a client certificate (mesh ingress), one connection at a time", H1MTLS, H1,
         conns=1, client_cert=True),
    Cell("mem-h1tls", "memory", "5,000 idle H1-over-TLS connections, one request each", H1TLS, H1,
         conns=5000),
    Cell("mem-h2tls", "memory", "5,000 idle H2-over-TLS connections, one request each", H2TLS, H1,
         conns=5000),
]


def pick(names: str) -> list[Cell]:
    """The cells of a comma-separated list; `all`, or `clear` for those without TLS."""
    if names == "all":
        return CELLS
    if names == "clear":
        return [c for c in CELLS if not (c.down.tls or c.up.tls)]
    known = {c.name: c for c in CELLS}
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise SystemExit(f"no such cell: {name} (bench list)")
    return [known[name] for name in wanted]
