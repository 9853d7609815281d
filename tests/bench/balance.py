"""How well load is spread: ten servers, of which one is ten times slower, under a constant rate of
requests. The best policy of each peer; who notices the slow server soonest has the shortest tail."""
from __future__ import annotations

import json
import statistics
import sys
import urllib.request
from argparse import Namespace
from itertools import islice
from pathlib import Path
from typing import Any

from backend import Session, loopback_addresses
from cells import Cell, Side
from load import check_soon, h2load
from machine import HOST, LOAD_CPU, free_port, pin, spawn, tree, wait_for_port
from peers import Invalid, Peer, Proxy, pick

FAST_MS, SLOW_MS, SLOTS = 2, 20, 8
ENDPOINTS, CONNECTIONS = 10, 150
WARM_UP_S = 2

# Peer and policy, in the peer's own words.
CONTENDERS = [("outrider", "least-request"), ("outrider", "peak-ewma"), ("nginx", "least_conn"),
              ("haproxy", "leastconn"), ("haproxy", "random(2)"), ("envoy", "LEAST_REQUEST")]


class SlowBackend:
    """In the place of backend.Backend: the same port on as many addresses as there are servers."""

    def __init__(self, work: Path) -> None:
        self.port = free_port()
        self.names = list(islice(loopback_addresses(), ENDPOINTS))
        times = [f"{name}={SLOW_MS if i == 0 else FAST_MS}" for i, name in enumerate(self.names)]
        program = Path(__file__).resolve().parent / "slow_backend.py"
        self.process = spawn([sys.executable, program, self.port, SLOTS, *times], {LOAD_CPU},
                             work / "log")
        wait_for_port(self.port, self.process)

    def addresses(self, count: int) -> list[str]:
        return self.names[:count]

    def port_for(self, _side: Side, _grpc: bool) -> int:
        return self.port

    def pin(self, cpus: set[int]) -> None:
        pin(tree(self.process.pid), cpus)

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/counts", timeout=30) as answer:
            return json.loads(answer.read())


def cell_for(policy: str, rate: int = 1) -> Cell:
    return Cell("balance", "rate", "ten endpoints, one slow", conns=CONNECTIONS, rate=rate,
                endpoints=ENDPOINTS, balance=policy)


def offer(proxy: Proxy, seconds: int) -> list[int]:
    """Loads at the rate; microseconds of each request, sorted."""
    cell, session = proxy.cell, proxy.session
    log = session.work / "h2load.log"
    log.unlink(missing_ok=True)
    how = ["-c", cell.conns, "-m", 1, "-D", f"{seconds}s", "--rps", cell.rate / cell.conns,
           "--log-file", log]
    result = h2load(cell, proxy.port, session, how, seconds, [])
    if result["errors"]:
        raise Invalid("; ".join(result["errors"]))
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    if len(times) < 0.9 * cell.rate * seconds:
        raise Invalid(f"offered rate not reached: {len(times)} requests")
    return times


def run_once(peer: Peer, cell: Cell, session: Session, seconds: int) -> dict[str, Any]:
    backend = session.backend
    try:
        with peer.start(cell, session) as proxy:
            proxy.wait_until_open()
            check_soon(proxy)
            offer(proxy, WARM_UP_S)
            before = backend.counts()
            times = offer(proxy, seconds)
            had = {name: count - before[name] for name, count in backend.counts().items()}
    except Invalid as e:
        return dict(invalid=str(e))
    at = {f"p{per_mille / 10:g}_us": times[len(times) * per_mille // 1000]
          for per_mille in (500, 990, 999)}
    return dict(at, requests=len(times), slow_share=had[backend.names[0]] / sum(had.values()))


def table(data: dict[str, Any]) -> str:
    rows = data["runs"]
    lines = [f"### balance — {ENDPOINTS} endpoints, one of {SLOW_MS} ms among those of {FAST_MS} "
             f"ms, {data['rate']} req/s\n",
             "| peer | policy | p50 ms | p99 ms | p99.9 ms | to the slow one | rounds |",
             "|---|---|---:|---:|---:|---:|---:|"]
    for name, policy in dict.fromkeys((row["peer"], row["policy"]) for row in rows):
        mine = [row for row in rows if (row["peer"], row["policy"]) == (name, policy)]
        good = [row for row in mine if "p50_us" in row]
        if not good:
            why = " ".join((mine[0].get("skip") or mine[0]["invalid"]).split())[:120]
            lines.append(f"| {name} | {policy} | – | – | – | – | {why} |")
            continue

        def middle(key: str) -> float:
            return statistics.median(row[key] for row in good)

        lines.append(f"| {name} | {policy} | {middle('p50_us') / 1e3:.1f} | "
                     f"{middle('p99_us') / 1e3:.1f} | {middle('p99.9_us') / 1e3:.1f} | "
                     f"{middle('slow_share'):.1%} | {len(good)} of {len(mine)} |")
    return "\n".join(lines) + "\n"


def measure(args: Namespace) -> dict[str, Any]:
    """Every contender in every round, in turns; those of the wanted peers that are installed."""
    session = Session(args.keep)
    session.backend = SlowBackend(session.work)
    wanted = {peer.name: peer for peer in pick(args.peers)}
    contenders = [(wanted[name], policy) for name, policy in CONTENDERS if name in wanted]
    rows: list[dict[str, Any]] = []
    able = []
    for peer, policy in contenders:
        why = peer.unsupported(cell_for(policy))
        if why:
            rows.append(dict(peer=peer.name, policy=policy, skip=why))
        else:
            able.append((peer, policy))
    for round_ in range(args.rounds):
        for peer, policy in able if round_ % 2 == 0 else reversed(able):
            run = run_once(peer, cell_for(policy, args.rate), session, args.seconds)
            rows.append(dict(peer=peer.name, policy=policy, round=round_, **run))
            figure = run.get("invalid") or f"p99 {run['p99_us'] / 1e3:.1f} ms"
            print(f"{peer.name} {policy} {round_}: {figure}", file=sys.stderr, flush=True)
    return dict(rate=args.rate, endpoints=ENDPOINTS, fast_ms=FAST_MS, slow_ms=SLOW_MS, slots=SLOTS,
                rounds=args.rounds, seconds=args.seconds,
                versions={peer.name: peer.version() for peer in wanted.values()}, runs=rows)
