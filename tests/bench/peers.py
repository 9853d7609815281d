"""The proxies under test, each declared by peers/NAME/peer.json and its templates."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from backend import Session
from cells import Cell, route_prefix
from machine import HOST, free_port, spawn, stop, tree, wait_for_port
from template import render

FOLDER = Path(__file__).resolve().parent / "peers"


class Invalid(Exception):
    """A run that gives no figure, with the reason."""


class Peer:
    def __init__(self, name: str, binary: str = "") -> None:
        self.name = f"{name}@{binary}" if binary else name
        self.folder = FOLDER / name
        spec: dict[str, Any] = json.loads((self.folder / "peer.json").read_text())
        if "extends" in spec:
            self.folder = FOLDER / spec["extends"]
            spec = {**json.loads((self.folder / "peer.json").read_text()), **spec}
        self.spec = spec
        self.direct: bool = spec.get("direct", False)
        found = shutil.which(binary or os.environ.get(spec.get("env", "")) or spec.get("binary", ""))
        self.binary = os.path.abspath(found) if found else ""    # peers run in folders of their own

    def missing(self) -> str:
        return "" if self.direct or self.binary else "not installed (scripts/bench install)"

    def version(self) -> str:
        if self.direct or self.missing():
            return ""
        done = subprocess.run([self.binary, *self.spec["version"]], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+(\.\d+)?[^\s/]*( \(commit \w+\))?", done.stdout + done.stderr)
        return found.group(0) if found else ""

    def unsupported(self, cell: Cell) -> str:
        """Why this peer cannot do the cell, or nothing."""
        if self.missing():
            return self.missing()
        if self.direct and cell.kind in ("memory", "startup"):
            return "no proxy"
        for rule in self.spec.get("unsupported", []):
            if eval(rule["if"], {}, dict(cell=cell, down=cell.down, up=cell.up,
                                            exists=os.path.exists)):
                return rule["why"]
        return ""

    def files(self, cell: Cell, names: dict[str, Any]) -> dict[str, str]:
        """The configuration for the cell: file name to text."""
        names = dict(names, cell=cell, down=cell.down, up=cell.up, host=HOST, bin=self.binary,
                     routes=[route_prefix(i) for i in range(cell.routes)])
        return {target: render((self.folder / source).read_text(), names)
                for source, target in self.spec["templates"].items()}

    def command(self, cell: Cell, names: dict[str, Any]) -> list[str]:
        names = dict(names, cell=cell, down=cell.down, up=cell.up, host=HOST, bin=self.binary)
        return [word for word in (render(w, names) for w in self.spec["command"]) if word]

    def start(self, cell: Cell, session: Session) -> Proxy:
        return Proxy(self, cell, session)


class Proxy:
    """A peer running for a cell (several of it where the cell says so); for `direct`, the backend
    itself. Ends with its `with` block."""

    def __init__(self, peer: Peer, cell: Cell, session: Session) -> None:
        self.peer, self.cell, self.session = peer, cell, session
        self.ports: list[int] = []
        self.processes: list[subprocess.Popen] = []
        self.logs: list[Path] = []
        self.started = 0.0
        session.backend.pin(cell.load_cpus)
        if peer.direct:
            self.ports = [session.backend.port_for(cell.down, cell.grpc)]
            return
        for _ in range(cell.proxies):
            self.start()

    def start(self) -> None:
        peer, cell, backend = self.peer, self.cell, self.session.backend
        work = Path(tempfile.mkdtemp(prefix=peer.name.split("@")[0] + "-", dir=self.session.work))
        port, up_port = free_port(), backend.port_for(cell.up, cell.grpc)
        names = dict(port=port, up_port=up_port, up_host=HOST, certs=self.session.certs, work=work,
                     endpoints=[f"{a}:{up_port}" for a in backend.addresses(cell.endpoints)])
        for name, text in peer.files(cell, names).items():
            (work / name).write_text(text)
        argv = peer.command(cell, names)
        self.ports.append(port)
        self.logs.append(work / "log")
        self.started = time.monotonic()
        self.processes.append(spawn(argv, cell.proxy_cpus, work / "log", cwd=work))

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            stop(process)
        for log in self.logs:
            self.session.discard(log.parent)

    @property
    def port(self) -> int:
        return self.ports[0]

    def wait_until_open(self) -> None:
        for port, process in zip(self.ports, self.processes):
            try:
                wait_for_port(port, process)
            except RuntimeError as e:
                raise Invalid(f"{self.peer.name} did not start: {e}\n{self.tail()}") from None

    def ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def tail(self) -> str:
        """The end of what it printed."""
        return "".join(log.read_text(errors="replace")[-600:] for log in self.logs)

    def pids(self) -> list[int]:
        return [pid for process in self.processes for pid in tree(process.pid)]


def all_peers() -> list[Peer]:
    return [Peer(folder.parent.name) for folder in sorted(FOLDER.glob("*/peer.json"))]


def pick(names: str) -> list[Peer]:
    """Those of a comma-separated list of NAME or NAME@BINARY; `all`: those installed."""
    if names == "all":
        return [p for p in all_peers() if not p.missing()]
    known = {p.name for p in all_peers()}
    peers = []
    for word in names.split(","):
        name, _, binary = word.partition("@")
        if name not in known:
            raise SystemExit(f"no such peer: {name} (bench list)")
        peers.append(Peer(name, binary))
    return peers
