#!/usr/bin/env python3
"""Side-by-side benchmark of proxies on one machine; README.md says how to read it.

The primary figure is CPU time per request of the whole proxy process tree, read from /proc: it is
far less sensitive to other load on the machine than throughput or latency are."""
from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import balance
import cells
import curves
import machine
import peers
import report
from backend import Session
from load import check_soon, load, warm_up
from measure import run_once
from peers import Invalid

TOOLS = ["nginx", "nghttpd", "nghttp", "h2load", "wrk", "openssl", "taskset"]
MISSING_TOOL = 77       # the exit code by which ctest knows a test that could not run


def need_tools() -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print(f"not installed: {', '.join(missing)} (scripts/bench install)", file=sys.stderr)
        sys.exit(MISSING_TOOL)


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_json(path: Path, data: dict[str, Any], rows: str) -> None:
    """Indented, but each of `rows` on a line of its own: short, and a change of one is one line."""
    lines = ",\n".join("  " + json.dumps({k: rounded(v) for k, v in row.items()},
                                         ensure_ascii=False) for row in data[rows])
    head = json.dumps({k: v for k, v in data.items() if k != rows}, indent=1, ensure_ascii=False)
    path.write_text(f"{head[:-2]},\n \"{rows}\": [\n{lines}\n ]\n}}\n")


# ------------------------------------------------------------------------------------ commands

def cmd_list(_: argparse.Namespace) -> None:
    print("cells:")
    for cell in cells.CELLS:
        print(f"  {cell.name:20} {cell.kind:10} {cell.text}")
    print("peers:")
    for peer in peers.all_peers():
        print(f"  {peer.name:20} {peer.missing() or peer.version() or 'ready'}")


def cmd_run(args: argparse.Namespace) -> None:
    wanted_peers, wanted_cells = peers.pick(args.peers), cells.pick(args.cells)
    need_tools()
    session = Session(args.keep)
    data: dict[str, Any] = dict(
        started=now(), rounds=args.rounds, seconds=args.seconds, load_average=os.getloadavg(),
        machine=machine.facts(), versions={p.name: p.version() for p in wanted_peers},
        cells={c.name: dict(kind=c.kind, unit=c.unit, text=c.text) for c in wanted_cells}, runs=[])
    best_probe = min(machine.probe() for _ in range(5))
    for cell in wanted_cells:
        rows: list[dict[str, Any]] = []
        able = []
        for peer in wanted_peers:
            why = peer.unsupported(cell)
            if why:
                rows.append(dict(cell=cell.name, peer=peer.name, skip=why))
            else:
                able.append(peer)
        for round_ in range(1 if cell.kind == "memory" else args.rounds):   # memory has no noise
            for peer in able if round_ % 2 == 0 else reversed(able):    # drift hits all alike
                run = run_once(peer, cell, session, args.seconds)
                best_probe = min(best_probe, run["probe_s"])
                rows.append(dict(cell=cell.name, peer=peer.name, round=round_, **run))
                figure = run.get("invalid") or f"{report.number(run['value'])} {cell.unit}"
                print(f"{cell.name} {peer.name} {round_}: {figure}", file=sys.stderr, flush=True)
        runs = report.CellRuns(cell.name, cell.kind, cell.unit, cell.text)
        for row in rows:
            runs.add(row, 0, best_probe)
        print(report.cell_table(runs), flush=True)
        data["runs"] += rows
    data.update(finished=now(), load_average_after=os.getloadavg(), probe_best_s=best_probe)
    if args.json:
        write_json(args.json, data, "runs")


def cmd_tables(args: argparse.Namespace) -> None:
    found, lines = report.read(args.files)
    print("\n".join(f"- {line}" for line in lines) + "\n")
    print(report.overview(found))
    if not args.overview:
        for cell in found:
            print(report.cell_table(cell))


def cmd_verify(args: argparse.Namespace) -> None:
    """Starts every peer for every cell and checks the answers; measures nothing."""
    wanted_peers, wanted_cells = peers.pick(args.peers), cells.pick(args.cells)
    need_tools()
    session = Session(args.keep)
    bad = 0
    for cell in wanted_cells:
        session.backend.prepare(cell)
        for peer in wanted_peers:
            outcome = peer.unsupported(cell)
            if not outcome:
                with peer.start(cell, session) as proxy:
                    try:
                        proxy.wait_until_open()
                        check_soon(proxy, 60)
                        outcome = "ok"
                    except Invalid as e:
                        bad, outcome = bad + 1, f"FAILED: {e}"
            print(f"{cell.name:20} {peer.name:12} {outcome}", flush=True)
    sys.exit(1 if bad else 0)


SYSCALLS = """epoll_wait epoll_pwait epoll_pwait2 epoll_ctl poll read readv recvfrom recvmsg write
writev sendto sendmsg sendfile64 splice accept4 connect socket close shutdown setsockopt getsockopt
getsockname getpeername fcntl ioctl futex timerfd_settime clock_gettime io_uring_enter""".split()


def count_syscalls(proxy: peers.Proxy, seconds: int) -> dict[str, float]:
    """Of one request, by kernel tracepoints; `all` beside the calls by name."""
    events = (["raw_syscalls:sys_enter", "sched:sched_switch"]
              + [f"syscalls:sys_enter_{name}" for name in SYSCALLS])
    warm_up(proxy)
    wrap = ["perf", "stat", "-x", ",", "-e", ",".join(events), "-p",
            ",".join(map(str, proxy.pids())), "--"]
    result = load(proxy, seconds, wrap)
    counts = re.findall(r"^(\d+),,(\w+:\w+),", result["text"], re.M)
    if not counts or result["errors"]:
        raise Invalid("; ".join(result["errors"]) or result["text"][-300:])
    names = {"raw_syscalls:sys_enter": "all"}
    return {names.get(event, re.sub(r".*(sys_enter_|:)", "", event)): int(n) / result["requests"]
            for n, event in counts}


def cmd_syscalls(args: argparse.Namespace) -> None:
    wanted_peers, wanted_cells = peers.pick(args.peers), cells.pick(args.cells)
    need_tools()
    session = Session(args.keep)
    for cell in wanted_cells:
        session.backend.prepare(cell)
        print(f"### {cell.name} — system calls per request\n")
        print("| peer | all | of which |\n|---|---:|---|")
        for peer in wanted_peers:
            if peer.direct or peer.unsupported(cell):
                continue
            try:
                with peer.start(cell, session) as proxy:
                    proxy.wait_until_open()
                    check_soon(proxy)
                    counts = count_syscalls(proxy, args.seconds)
                parts = sorted(((n, name) for name, n in counts.items() if name != "all"),
                               reverse=True)
                text = ", ".join(f"{name} {n:.2f}" for n, name in parts if n >= 0.005)
                print(f"| {peer.name} | {counts['all']:.2f} | {text} |", flush=True)
            except Invalid as e:
                print(f"| {peer.name} | – | invalid: {' '.join(str(e).split())[:200]} |")
        print()


def cmd_render(args: argparse.Namespace) -> None:
    for peer in peers.pick(args.peers):
        for cell in cells.pick(args.cells):
            names = dict(port=10000, up_host=machine.HOST, up_port=20000, certs="CERTS",
                         work="WORK", endpoints=[f"{machine.HOST}:20000"])
            for name, text in peer.files(cell, names).items():
                print(f"# {peer.name} for {cell.name}: {name}\n{text}")


def cmd_curves(args: argparse.Namespace) -> None:
    if args.redraw:
        data = json.loads(args.redraw.read_text())
    else:
        need_tools()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        data = dict(started=now(), machine=machine.facts(), **curves.measure(args))
        data["finished"] = now()
        write_json(args.out.with_suffix(".json"), data, "points")
    print(curves.tables(data))
    args.out.with_suffix(".svg").write_text(curves.picture(data))


def cmd_balance(args: argparse.Namespace) -> None:
    need_tools()
    data = dict(started=now(), machine=machine.facts(), **balance.measure(args), finished=now())
    print(balance.table(data))
    if args.json:
        write_json(args.json, data, "runs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text)
        sub.set_defaults(function=function)
        return sub

    def choice(sub: argparse.ArgumentParser, default_peers: str, default_cells: str) -> None:
        sub.add_argument("--peers", default=default_peers, metavar="NAME[@BINARY],…",
                         help="default: %(default)s; all = those installed")
        if default_cells:
            sub.add_argument("--cells", default=default_cells, metavar="NAME,…",
                             help="default: %(default)s; all, or clear = all without TLS")
        sub.add_argument("--keep", action="store_true", help="keep the work folder")

    command("install", None, "install the peers and tools: install [PEER...]")   # by scripts/bench
    command("list", cmd_list, "cells and peers")
    run = command("run", cmd_run, "measure; prints Markdown")
    choice(run, "all", "all")
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--seconds", type=int, default=2, help="of each run")
    run.add_argument("--json", type=Path, metavar="FILE", help="also write every run there")
    tables = command("tables", cmd_tables, "Markdown tables of what run --json wrote")
    tables.add_argument("files", nargs="+", type=Path)
    tables.add_argument("--overview", action="store_true", help="the table of all cells alone")
    choice(command("verify", cmd_verify, "check every answer, measure nothing"), "all", "all")
    syscalls = command("syscalls", cmd_syscalls, "system calls per request (perf, root)")
    choice(syscalls, "all", "h1-h1-small")
    syscalls.add_argument("--seconds", type=int, default=2)
    choice(command("render", cmd_render, "print the configurations"), "all", "h1-h1-small")
    spread = command("balance", cmd_balance, "ten endpoints, one slow: latencies; prints Markdown")
    choice(spread, "outrider,nginx,haproxy,envoy", "")
    spread.add_argument("--rate", type=int, default=1500, help="requests a second")
    spread.add_argument("--rounds", type=int, default=5)
    spread.add_argument("--seconds", type=int, default=10, help="of each run")
    spread.add_argument("--json", type=Path, metavar="FILE", help="also write every run there")
    growth = command("curves", cmd_curves, "how cost grows; tables, JSON and a picture")
    choice(growth, "outrider", "")
    growth.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(curves.names())}")
    growth.add_argument("--rounds", type=int, default=3)
    growth.add_argument("--out", type=Path, default=Path("docs/bench/curves"), metavar="PREFIX",
                        help="writes PREFIX.json and PREFIX.svg; default: %(default)s")
    growth.add_argument("--redraw", type=Path, metavar="JSON", help="measure nothing, use this")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.function(args)


if __name__ == "__main__":
    main()
