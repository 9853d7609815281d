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
from machine import BOTH_CPUS, HOST, PROXY_CPU, free_port, spawn, stop, tree, wait_for_port
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
        self.binary = (binary or os.environ.get(spec.get("env", ""), "")
                       or shutil.which(spec.get("binary", "")) or "")

    def missing(self) -> str:
        return "" if self.direct or self.binary else "not installed (scripts/bench install)"

    def version(self) -> str:
        if self.direct or self.missing():
            return ""
        done = subprocess.run([self.binary, *self.spec["version"]], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+(\.\d+)?.*", done.stdout + done.stderr)
        return found.group(0).split()[0].split("/")[0] if found else ""

    def unsupported(self, cell: Cell) -> str:
        """Why this peer cannot do the cell, or nothing."""
        if self.missing():
            return self.missing()
        if self.direct and cell.kind in ("memory", "startup"):
            return "no proxy"
        for rule in self.spec.get("unsupported", []):
            if eval(rule["if"], {}, dict(cell=cell, down=cell.down, up=cell.up)):
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
    """One peer running for one cell; for `direct`, the backend itself. Ends with its `with` block."""

    def __init__(self, peer: Peer, cell: Cell, session: Session) -> None:
        self.peer, self.cell, self.session = peer, cell, session
        self.process: subprocess.Popen | None = None
        self.log = Path(os.devnull)
        if cell.shared:
            session.backend.pin(BOTH_CPUS)
        if peer.direct:
            self.port = session.backend.port_for(cell.down, cell.grpc)
            return
        work = Path(tempfile.mkdtemp(prefix=peer.name.split("@")[0] + "-", dir=session.work))
        self.port = free_port()
        up_port = session.backend.port_for(cell.up, cell.grpc)
        names = dict(port=self.port, up_port=up_port, up_host=HOST, certs=session.certs, work=work,
                     endpoints=[f"{a}:{up_port}" for a in session.backend.addresses(cell.endpoints)])
        for name, text in peer.files(cell, names).items():
            (work / name).write_text(text)
        argv = peer.command(cell, names)
        self.log = work / "log"
        cpus = BOTH_CPUS if cell.shared else {PROXY_CPU}
        self.started = time.monotonic()
        self.process = spawn(argv, cpus, self.log, cwd=work)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            stop(self.process)
        if self.cell.shared:
            self.session.backend.pin()

    def wait_until_open(self) -> None:
        if self.process:
            try:
                wait_for_port(self.port, self.process)
            except RuntimeError as e:
                raise Invalid(f"{self.peer.name} did not start: {e}\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-600:]

    def pids(self) -> list[int]:
        return tree(self.process.pid) if self.process else []


def all_peers() -> list[Peer]:
    return [Peer(folder.parent.name) for folder in sorted(FOLDER.glob("*/peer.json"))]


def pick(names: str) -> list[Peer]:
    """The peers of a comma-separated list of NAME or NAME@BINARY; `all`: those that are installed."""
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
