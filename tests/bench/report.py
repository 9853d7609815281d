"""Statistics over the runs that `run` writes as JSON, and their Markdown tables."""
from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, Optional

Run = dict[str, Any]
SLOW = 1.2      # a run counts only if the machine was at most this much slower than at its best

# The columns beside CPU: title and key; `+key` is over the peer `direct`, a share is shown in %.
BUSY = [("user %", "user_share"), ("proxy CPU %", "proxy_cpu_busy"),
        ("load CPU %", "load_cpu_busy")]
COLUMNS = {
    "load": [("req/s", "rps"), ("p50 µs", "p50_us"), ("p99 µs", "p99_us"), ("mean µs", "mean_us"),
             *BUSY],
    "bulk": [("GiB/s", "gib_s"), *BUSY],
    "handshake": [("handshakes/s", "rps"), *BUSY],
    "rate": [("p50 µs", "p50_us"), ("p99 µs", "p99_us"), ("added p50", "+p50_us"),
             ("added p99", "+p99_us"), BUSY[1]],
    "workers": [("several: CPU µs/req", "several_us"), ("of one: CPU µs/req", "one_us"),
                ("capacity ×", "capacity"), ("req/s", "rps")],
    "memory": [("at rest PSS MiB", "rest_pss_mib"), ("with them PSS MiB", "during_pss_mib"),
               ("after close PSS MiB", "after_pss_mib")],
    "startup": [("CPU ms", "startup_cpu_ms"), ("at rest PSS MiB", "rest_pss_mib"),
                ("at rest RSS MiB", "rest_rss_mib")],
}


def number(value: Optional[float], digits: int = 3) -> str:
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - len(str(int(abs(value)))))}f}"


class CellRuns:
    """All runs of one cell, by peer. Runs of one round of one file have the same key: they were
    interleaved, so their ratio is fair."""

    def __init__(self, name: str, kind: str, unit: str, text: str) -> None:
        self.name, self.kind, self.unit, self.text = name, kind, unit, text
        self.runs: dict[str, list[Run]] = {}

    def add(self, run: Run, file: int, probe_best: float) -> None:
        slow = run.get("probe_s", 0) > SLOW * probe_best
        self.runs.setdefault(run["peer"], []).append(
            dict(run, key=(file, run.get("round")), slow=slow))

    def valid(self, peer: str) -> list[Run]:
        return [r for r in self.runs.get(peer, []) if "value" in r]

    def note(self, peer: str) -> str:
        """What went wrong, or why it was not tried; or nothing."""
        runs = self.runs[peer]
        skipped = [r["skip"] for r in runs if "skip" in r]
        invalid = [r["invalid"] for r in runs if "invalid" in r]
        if skipped:
            return "skipped: " + skipped[0]
        text = " ".join(" ".join(invalid[:1]).split())[:300]
        return f"{len(invalid)} of {len(runs)} runs invalid: {text}" if invalid else ""

    def measured(self) -> list[str]:
        """Peers with figures, the cheapest first."""
        peers = [p for p in self.runs if self.valid(p)]
        return sorted(peers, key=lambda p: (self.median(p) is None, self.median(p) or 0))

    def counted(self, peer: str) -> list[Run]:
        """The runs in which the machine was not slow; all of them if it mostly was."""
        steady = [r for r in self.valid(peer) if not r["slow"]]
        return self.valid(peer) if self.doubtful(peer) else steady

    def doubtful(self, peer: str) -> bool:
        slow = [r["slow"] for r in self.valid(peer)]
        return 2 * sum(slow) > len(slow)

    def values(self, peer: str, key: str = "value") -> list[float]:
        return [r[key] for r in self.counted(peer) if r.get(key) is not None]

    def median(self, peer: str, key: str = "value") -> Optional[float]:
        values = self.values(peer, key)
        return statistics.median(values) if values else None

    def lowest(self, peer: str) -> Optional[float]:
        return min(self.values(peer), default=None)

    def rivals(self) -> list[str]:
        """Measured peers that outrider is compared with."""
        return [p for p in self.measured()
                if not p.startswith("outrider") and self.median(p) is not None]

    def ratio(self, peer: str, base: str) -> str:
        """The median of peer ÷ base inside each round; `?` if the machine was slow in most."""
        if peer == base:
            return "1"
        others = {r["key"]: r for r in self.valid(base)}
        pairs = [(r, others[r["key"]]) for r in self.valid(peer)
                 if r["key"] in others and r["value"] and others[r["key"]]["value"]]
        steady = [pair for pair in pairs if not pair[0]["slow"] and not pair[1]["slow"]]
        doubtful = 2 * len(steady) < len(pairs)
        ratios = [a["value"] / b["value"] for a, b in (pairs if doubtful else steady)]
        if not ratios:
            return "–"
        return f"{statistics.median(ratios):.2f}" + ("?" if doubtful else "")


def cell_table(cell: CellRuns) -> str:
    """One row a peer."""
    bases = list(dict.fromkeys(cell.rivals()[:1] + ["nginx"]))
    bases = [b for b in bases if b in cell.rivals()]
    columns = COLUMNS[cell.kind]
    head = ["peer", cell.unit, "lowest", *(f"÷ {b}" for b in bases), "rounds",
            *(title for title, _ in columns)]
    out = [f"### {cell.name} — {cell.text}", "", "| " + " | ".join(head) + " |",
           "|---|" + "---:|" * (len(head) - 1)]
    for peer in cell.measured():
        row = [peer, number(cell.median(peer)) + ("?" if cell.doubtful(peer) else ""),
               number(cell.lowest(peer)), *(cell.ratio(peer, b) for b in bases),
               f"{len(cell.counted(peer))}/{len(cell.runs[peer])}"]
        out.append("| " + " | ".join(row + [entry(cell, peer, key) for _, key in columns]) + " |")
    notes = [f"- {peer}: {cell.note(peer)}" for peer in cell.runs if cell.note(peer)]
    return "\n".join(out + ([""] + notes if notes else []) + [""])


def entry(cell: CellRuns, peer: str, key: str) -> str:
    if key.startswith("+"):
        mine = cell.median(peer, key[1:])
        base = cell.median("direct", key[1:]) if "direct" in cell.measured() else None
        if mine is None or base is None or peer == "direct":
            return "–"
        return number(mine - base)
    value = cell.median(peer, key)
    share = key.endswith(("_share", "_busy"))
    return number(value * 100 if share and value is not None else value)


def overview(cells: list[CellRuns]) -> str:
    """One row a cell: median and lowest of each peer, each outrider against the best, and nginx."""
    peers = list(dict.fromkeys(p for c in cells for p in c.measured() if c.median(p) is not None))
    peers.sort(key=lambda p: not p.startswith("outrider"))
    ours = [p for p in peers if p.startswith("outrider")]
    head = ["cell", "unit", *peers, *(f"{p} ÷ best" for p in ours), "outrider ÷ nginx"]
    out = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for cell in cells:
        row = [cell.name, cell.unit]
        best = cell.measured()[:1]
        for peer in peers:
            if peer not in cell.measured() or cell.median(peer) is None:
                row.append("–")
                continue
            median = number(cell.median(peer)) + ("?" if cell.doubtful(peer) else "")
            row.append((f"**{median}**" if [peer] == best else median)
                       + f" / {number(cell.lowest(peer))}")
        rival = cell.rivals()[0] if cell.rivals() else ""
        row += [f"{cell.ratio(p, rival)} ({rival})" if rival and p in cell.runs else "–"
                for p in ours]
        row.append(cell.ratio("outrider", "nginx")
                   if "nginx" in cell.runs and "outrider" in cell.runs else "–")
        out.append("| " + " | ".join(row) + " |")
    return "\n".join(out) + "\n"


def read(files: list[Path]) -> tuple[list[CellRuns], list[str]]:
    """The cells of result files, in the order of measuring, and a line on each file."""
    cells: dict[str, CellRuns] = {}
    lines = []
    for index, file in enumerate(files):
        data = json.loads(file.read_text())
        machine = data["machine"]
        lines.append(f"{file.name}: {data['started']}, {machine['cpus']} × {machine['cpu']}, Linux "
                     f"{machine['kernel']}, {data['rounds']} rounds of {data['seconds']} s; "
                     + ", ".join(f"{k} {v}" for k, v in data["versions"].items() if v))
        for name, about in data["cells"].items():
            cells.setdefault(name, CellRuns(name, about["kind"], about["unit"], about["text"]))
        for run in data["runs"]:
            cells[run["cell"]].add(run, index, data["probe_best_s"])
    return list(cells.values()), lines
