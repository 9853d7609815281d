"""How cost grows with connections, streams, routes, services, endpoints, headers and bodies."""
from __future__ import annotations

import argparse
import math
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import chart
import peers
from backend import Session
from cells import H1, H2C, MIB, Cell
from chart import Scale
from load import check_soon, pinned, url
from machine import cpu_times, descriptors, memory_mib, probe
from measure import IdleClients, Run, run_once
from peers import Invalid, Peer, Proxy
from report import SLOW, number

SECONDS = 1
CPU = "CPU µs a request"
LOG, GUIDE = Scale.LOG, Scale.GUIDE
UPSTREAM = 1000     # connections to the backend, for which requests queue


@dataclass(frozen=True)
class Curve:
    """One cell at growing x. How it is measured: `load`, `config` (also start and memory at rest),
    `active` (all connections are open before CPU is counted), `idle` (one process, growing)."""
    name: str
    how: str
    points: tuple[int, ...]
    cell: Callable[[int], Cell]

    def reachable(self) -> list[int]:
        """The points, connections no more than this machine lets a process open."""
        if self.how not in ("idle", "active"):
            return list(self.points)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
        upstream = self.cell(1).upstream
        most = limit if self.how == "idle" else max(limit - upstream, limit // 2)
        return sorted({min(n, most) for n in self.points})


def cell(name: str, **shape: Any) -> Cell:
    return Cell(name, "load", name, **shape)


CONNECTIONS = (1, 10, 100, 1000, 5000, 20000)
CURVES = [
    Curve("idle-h1", "idle", CONNECTIONS, lambda n: cell("idle-h1", conns=n)),
    Curve("idle-h2c", "idle", CONNECTIONS, lambda n: cell("idle-h2c", down=H2C, conns=n)),
    Curve("active", "active", CONNECTIONS, lambda n: cell("active", conns=n)),
    Curve("queued", "active", CONNECTIONS, lambda n: cell("queued", conns=n, upstream=UPSTREAM)),
    Curve("streams-h1", "load", (1, 3, 10, 30, 100, 300, 1000),
          lambda n: cell("streams-h1", down=H2C, up=H1, conns=1, streams=n)),
    Curve("streams-grpc", "load", (1, 3, 10, 30, 100, 300, 1000),
          lambda n: cell("streams-grpc", down=H2C, up=H2C, conns=1, streams=n, grpc=True)),
    Curve("routes", "config", (1, 10, 100, 1000, 10000, 100000),
          lambda n: cell("routes", routes=n)),
    Curve("services", "config", (1, 10, 100, 1000, 10000),
          lambda n: cell("services", routes=n, services=n)),
    Curve("endpoints", "config", (1, 10, 100, 1000, 10000),
          lambda n: cell("endpoints", endpoints=n)),
    Curve("fields", "load", (1, 10, 30, 100, 300, 900),
          lambda n: cell("fields", fields=tuple(f"x-field-{i:04}: {i:020}" for i in range(n)))),
    Curve("value", "load", (10, 100, 1000, 10000, 50000),
          lambda n: cell("value", fields=("x-field: " + "v" * n,))),
    Curve("body", "load", (0, 100, 1000, 10 * 1024, 100 * 1024, MIB, 4 * MIB, 16 * MIB),
          lambda n: cell("body", size=n, conns=64 if n < MIB else 16)),
]


def names() -> list[str]:
    return [c.name for c in CURVES]


# -------------------------------------------------------------------------------- measuring

def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every curve by every peer; of each curve the rounds follow each other, all points in each."""
    wanted = [c for c in CURVES if not args.only or c.name in args.only.split(",")]
    chosen = peers.pick(args.peers)
    session = Session(args.keep, max(c.cell(n).endpoints for c in wanted for n in c.points))
    points: list[Run] = []
    for curve in wanted:
        able = [p for p in chosen if not p.unsupported(curve.cell(curve.points[-1]))]
        for round_ in range(1 if curve.how == "idle" else args.rounds):
            for peer in able:
                for point in measure_curve(curve, peer, session):
                    points.append(dict(curve=curve.name, peer=peer.name, round=round_, **point))
                    print("%s %s %s" % (curve.name, peer.name, " ".join(
                        f"{k}={number(v) if isinstance(v, float) else v}"
                        for k, v in point.items())), file=sys.stderr, flush=True)
    return dict(peers={p.name: p.version() for p in chosen}, points=points)


def measure_curve(curve: Curve, peer: Peer, session: Session) -> list[Run]:
    if curve.how == "idle":
        try:
            return measure_idle(curve, peer, session)
        except Invalid as e:
            return [dict(x=curve.reachable()[-1], invalid=str(e))]
    points = []
    for n in curve.reachable():
        shape = curve.cell(n)
        if curve.how == "active":
            run = measure_active(peer, shape, session)
        else:
            run = run_once(peer, shape, session, SECONDS)
            run = dict(cpu_us=run["value"], probe_s=run["probe_s"]) if "value" in run else run
        if curve.how == "config" and "invalid" not in run:
            start = run_once(peer, replace(shape, kind="startup"), session, SECONDS)
            run.update(start_ms=start.get("value"), rest_mib=start.get("rest_pss_mib"))
        if curve.name == "body" and n and "cpu_us" in run:
            run["ms_per_mib"] = run["cpu_us"] / 1e3 / (n / MIB)
        points.append(dict(x=n, **run))
    return points


def measure_idle(curve: Curve, peer: Peer, session: Session) -> list[Run]:
    """One process, whose connections only grow."""
    points = []
    shape = curve.cell(curve.reachable()[-1])
    with peer.start(shape, session) as proxy:
        proxy.wait_until_open()
        check_soon(proxy)
        time.sleep(0.3)
        pids = proxy.pids()
        rest, _ = memory_mib(pids)
        with IdleClients(proxy) as clients:
            for n in curve.reachable():
                clients.grow_to(n)
                time.sleep(0.3)
                pss, _ = memory_mib(pids)
                each = (pss - rest) * 1024 / n if n >= 100 else None    # fewer: a page decides
                points.append(dict(x=n, total_mib=pss, kib_each=each))
            clients.check_open()
    return points


def measure_active(peer: Peer, shape: Cell, session: Session) -> Run:
    before = probe()
    try:
        with peer.start(shape, session) as proxy:
            proxy.wait_until_open()
            check_soon(proxy)
            run: Run = dict(cpu_us=active_cpu(proxy, shape))
    except Invalid as e:
        run = dict(invalid=str(e))
    return dict(run, probe_s=max(before, probe()))


def active_cpu(proxy: Proxy, shape: Cell) -> float:
    """h2load says when its warm-up is over, so that opening the connections is not counted."""
    warm = 1 + shape.conns / 5000
    argv = ["h2load", "--h1", "-t1", "-c", shape.conns, "-D", f"{SECONDS}s", "--warm-up-time",
            f"{round(warm * 1000)}ms", url(shape, proxy.port)]
    pids = proxy.pids()
    seen: list[str] = []
    cpu, opened = [], 0
    with subprocess.Popen(pinned(shape, argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as tool:
        deadline = threading.Timer(warm + SECONDS + 20, tool.kill)
        deadline.start()
        for line in tool.stdout or ():
            if line.startswith("Main benchmark duration is"):
                cpu.append(cpu_times(pids)[0])
                opened = opened or descriptors(pids)
            seen.append(line)
        deadline.cancel()
    text = "".join(seen)
    counts = {what: int(n) for n, what in re.findall(
        r"(\d+) (succeeded|failed|errored|timeout|4xx|5xx)", text)}
    wrong = [f"{what}: {counts[what]}" for what in ("failed", "errored", "timeout", "4xx", "5xx")
             if counts.get(what)]
    if opened < shape.conns:
        raise Invalid(f"{opened} descriptors were open when the warm-up was over")
    if wrong or len(cpu) != 2 or not counts.get("succeeded"):
        raise Invalid("; ".join(wrong) or "h2load: " + text[-300:])
    return (cpu[1] - cpu[0]) / counts["succeeded"] * 1e6


# ---------------------------------------------------------------------------------- showing

@dataclass(frozen=True)
class Panel:
    """One small picture and one table: a metric of some curves."""
    title: str
    x: str
    y: str
    metric: str
    curves: dict[str, str]      # curve to what its line is called, beside the peer where it matters
    scale: Scale = Scale.LINEAR


THREE = {"routes": "routes", "services": "services", "endpoints": "endpoints"}
IDLE = {"idle-h1": "HTTP/1", "idle-h2c": "HTTP/2"}
PANELS = [
    Panel("Idle connections", "connections", "MiB of memory (PSS)", "total_mib", IDLE, GUIDE),
    Panel("Idle connections", "connections", "KiB of memory each", "kib_each", IDLE),
    Panel("Active connections", "connections", CPU, "cpu_us",
          {"active": "as many upstream", "queued": f"{UPSTREAM} upstream"}),
    Panel("Streams of one connection", "streams", CPU, "cpu_us",
          {"streams-h1": "HTTP/2 to 1", "streams-grpc": "gRPC"}),
    Panel("Header fields of 34 bytes", "fields", CPU, "cpu_us", {"fields": ""}, GUIDE),
    Panel("One header field", "bytes", CPU, "cpu_us", {"value": ""}, GUIDE),
    Panel("Response body", "bytes", CPU, "cpu_us", {"body": ""}, GUIDE),
    Panel("Response body", "bytes", "CPU ms a MiB", "ms_per_mib", {"body": ""}, LOG),
    Panel("Size of the configuration", "routes, services, endpoints", CPU, "cpu_us", THREE),
    Panel("Start to the first answer", "routes, services, endpoints", "ms", "start_ms", THREE,
          GUIDE),
    Panel("Memory at rest", "routes, services, endpoints", "MiB (PSS)", "rest_mib", THREE, GUIDE),
]


def lines(data: dict[str, Any], panel: Panel) -> dict[str, list[tuple[float, float]]]:
    """The panel's lines: medians at each x, without runs in which the machine was slow."""
    best = min((p["probe_s"] for p in data["points"] if "probe_s" in p), default=0)
    out: dict[str, list[tuple[float, float]]] = {}
    for curve, label in panel.curves.items():
        for peer in data["peers"]:
            mine = [p for p in data["points"] if p["curve"] == curve and p["peer"] == peer
                    and p.get(panel.metric) is not None]
            line = []
            for x in sorted({p["x"] for p in mine}):
                here = [p for p in mine if p["x"] == x]
                steady = [p for p in here if p.get("probe_s", 0) <= SLOW * best]
                line.append((x, statistics.median(p[panel.metric] for p in steady or here)))
            if line:
                alone = label and len(data["peers"]) == 1
                out[label if alone else f"{label} {peer}".strip()] = line
    return out


def steepest(line: list[tuple[float, float]]) -> float:
    """The highest exponent between neighbours: 0 is flat, 1 grows as x does."""
    return max((math.log(y2 / y1) / math.log(x2 / x1)
                for (x1, y1), (x2, y2) in zip(line, line[1:]) if x1 > 0 and y1 > 0 and y2 > 0),
               default=0.0)


def tables(data: dict[str, Any]) -> str:
    out = []
    for panel in PANELS:
        found = lines(data, panel)
        if not found:
            continue
        out += [f"### {panel.title}: {panel.y}", "", f"| {panel.x} | {' | '.join(found)} |",
                "|---:|" + "---:|" * len(found)]
        values = [dict(line) for line in found.values()]
        for x in sorted(set().union(*values)):
            out.append(f"| {x:,} | " + " | ".join(number(v.get(x)) for v in values) + " |")
        out.append("| steepest: x^ | " + " | ".join(
            f"{steepest(line):.2f}" for line in found.values()) + " |")
        out.append("")
    broken = {(p["curve"], p["peer"], p["x"], p["invalid"])
              for p in data["points"] if "invalid" in p}
    return "\n".join(out + [f"- {curve}, {peer}, {x}: {' '.join(why.split())[:200]}"
                            for curve, peer, x, why in sorted(broken)])


def picture(data: dict[str, Any]) -> str:
    panels = [chart.Panel(p.title, p.x, p.y, found, p.scale)
              for p in PANELS for found in [lines(data, p)] if found]
    about = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in data["peers"].items())
    where = f"{about['cpus']} × {about['cpu']}, Linux {about['kernel']}, {data['started'][:10]}"
    return chart.draw(panels, f"How cost grows — {versions}; {where}. Dashed: as x grows.")
