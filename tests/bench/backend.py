"""What stands behind the proxies, and what a session shares: work folder, certificates, backend."""
from __future__ import annotations

import atexit
import os
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from cells import Cell, Side
from machine import HOST, LOAD_CPU, free_port, pin, spawn, stop_all, tree, wait_for_port
from template import render

FOLDER = Path(__file__).resolve().parent
GRPC_MESSAGE = struct.pack("!BI", 0, 95) + b"x" * 95


def make_certificates(folder: Path) -> Path:
    """A private CA, a server and a client certificate, all ECDSA P-256."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, cwd=folder, capture_output=True)

    def key(name: str) -> None:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name)

    key("ca.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-sha256", "-days", "30", "-subj",
            "/CN=bench CA", "-out", "ca.pem")
    for who, name, use in (("server", "DNS:localhost,IP:127.0.0.1", "serverAuth"),
                           ("client", "URI:spiffe://bench.local/client", "clientAuth")):
        key(f"{who}.key")
        openssl("req", "-new", "-key", f"{who}.key", "-subj", f"/CN={who}", "-out", f"{who}.csr")
        (folder / f"{who}.ext").write_text(f"subjectAltName={name}\nextendedKeyUsage={use}\n")
        openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-sha256", "-days", "30", "-extfile", f"{who}.ext", "-out",
                f"{who}.pem")
        (folder / f"{who}-full.pem").write_text((folder / f"{who}.pem").read_text()
                                                + (folder / f"{who}.key").read_text())
    return folder


def loopback_addresses() -> Iterator[str]:
    """127.0.0.1, then as many more of this machine's own addresses as anybody wants."""
    yield HOST
    for third in range(1, 256):
        for fourth in range(1, 255):
            yield f"127.0.{third}.{fourth}"


class Backend:
    """nginx with a listener for each kind of side; nghttpd for the gRPC shape."""

    def __init__(self, work: Path, certs: Path, addresses: int) -> None:
        self.bodies = work / "www"
        (self.bodies / "body").mkdir(parents=True)
        (self.bodies / "grpc.Echo").mkdir()
        (self.bodies / "grpc.Echo" / "Echo").write_bytes(GRPC_MESSAGE)
        self.ports = {k: free_port() for k in ("h1", "h1tls", "h1mtls", "h2c", "h2tls", "grpc")}
        conf = work / "nginx.conf"
        conf.write_text(render((FOLDER / "backend/nginx.conf.tmpl").read_text(), dict(
            host=HOST, ports=self.ports, work=work, certs=certs, www=self.bodies, body="x" * 100,
            addresses=list(islice(loopback_addresses(), addresses)))))
        nginx = spawn([os.environ.get("NGINX_BIN", "nginx"), "-p", work, "-c", conf],
                      {LOAD_CPU}, work / "log")
        nghttpd = spawn(["nghttpd", "--no-tls", "-n1", "-a", HOST, "-d", self.bodies,
                         "--trailer=grpc-status: 0", self.ports["grpc"]], {LOAD_CPU}, work / "log")
        wait_for_port(self.ports["h1"], nginx)
        wait_for_port(self.ports["grpc"], nghttpd)
        self.processes = [nginx, nghttpd]

    @staticmethod
    def addresses(count: int) -> list[str]:
        return list(islice(loopback_addresses(), count))

    def port_for(self, side: Side, grpc: bool) -> int:
        """The listener that speaks what this side speaks."""
        if grpc:
            return self.ports["grpc"]
        if side.h2:
            return self.ports["h2tls" if side.tls else "h2c"]
        return self.ports["h1mtls" if side.mtls else "h1tls" if side.tls else "h1"]

    def prepare(self, cell: Cell) -> None:
        """Makes the body that the cell asks for."""
        file = self.bodies / "body" / str(cell.size)
        if not file.exists():
            file.write_bytes(b"x" * cell.size)

    def requests(self) -> int:
        """How many requests nginx has taken so far."""
        url = f"http://{HOST}:{self.ports['h1']}/status"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = re.search(r"requests\s+\d+ \d+ (\d+)", answer.read().decode())
        return int(found[1]) if found else 0

    def pin(self, cpus: set[int]) -> None:
        for process in self.processes:
            pin(tree(process.pid), cpus)


class Session:
    """One run of the bench: everything that its measurements share, gone when it ends."""

    def __init__(self, keep: bool = False, addresses: int = 1) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="outrider-bench-"))
        self.work.chmod(0o755)
        self.keep = keep
        atexit.register(self.close)
        raise_descriptor_limit()
        os.sched_setaffinity(0, {LOAD_CPU})
        self.certs = make_certificates(self.work / "certs")
        self.grpc_message = self.work / "message"
        self.grpc_message.write_bytes(GRPC_MESSAGE)
        self.backend = Backend(self.work, self.certs, addresses)

    def close(self) -> None:
        stop_all()
        self.discard(self.work)

    def discard(self, folder: Path) -> None:
        if not self.keep:
            shutil.rmtree(folder, ignore_errors=True)


def raise_descriptor_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536, max(hard, 65536)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
