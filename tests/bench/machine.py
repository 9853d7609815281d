"""Processes and what /proc knows of them; this machine and how fast it is at the moment."""
from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPU = int(os.environ.get("BENCH_PROXY_CPU", CPUS[0]))
LOAD_CPU = int(os.environ.get("BENCH_LOAD_CPU", CPUS[-1]))
TICK = os.sysconf("SC_CLK_TCK")

_living: list[subprocess.Popen] = []     # every process started here, so that none is left behind


def spawn(argv: Iterable[Any], cpus: set[int], log: Path, **options: Any) -> subprocess.Popen:
    """Starts a process on these CPUs (affinity is set here and inherited: no fork hook needed)."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        with open(log, "ab") as out:
            process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, **options)
    finally:
        os.sched_setaffinity(0, mine)
    _living.append(process)
    return process


def tree(pid: int) -> list[int]:
    """This process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    out, todo = [], [pid]
    while todo:
        pid = todo.pop()
        out.append(pid)
        todo += children.get(pid, [])
    return out


def pin(pids: Iterable[int], cpus: set[int]) -> None:
    for pid in pids:
        for task in Path("/proc", str(pid), "task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)


def stop(process: subprocess.Popen) -> None:
    """Ends a process and its descendants at once: nothing of them is needed any more."""
    if process.poll() is None:
        for pid in tree(process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
    if process in _living:
        _living.remove(process)


def stop_all() -> None:
    for process in list(_living):
        stop(process)


def cpu_times(pids: Iterable[int]) -> tuple[float, float, float]:
    """Seconds of CPU: all, user, system. All has ns resolution where schedstat exists."""
    total = user = system = 0.0
    for pid in pids:
        try:
            stat = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
            user += int(stat[11]) / TICK
            system += int(stat[12]) / TICK
            for task in Path("/proc", str(pid), "task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            pass
    return total or user + system, user, system


def cpu_busy(cpu: int) -> float:
    """Seconds this CPU was not idle, since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        field = line.split()
        if field[0] == f"cpu{cpu}":
            return (sum(map(int, field[1:9])) - int(field[4]) - int(field[5])) / TICK
    return 0.0


def memory_mib(pids: Iterable[int]) -> tuple[float, float]:
    """PSS and RSS; PSS so that pages shared by a master and its worker count once."""
    pss = rss = 0
    for pid in pids:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
            elif line.startswith("Rss:"):
                rss += int(line.split()[1])
    return pss / 1024, rss / 1024


def descriptors(pids: Iterable[int]) -> int:
    """How many they hold open."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def probe() -> float:
    """CPU seconds of a fixed loop on the proxy's CPU: how slow this machine is at the moment.

    On a virtual machine the host's other guests change the cost of every instruction, and no other
    figure inside the guest shows it."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROXY_CPU})
    try:
        start = time.process_time()
        x = 0
        for i in range(200000):
            x += i * i
        return time.process_time() - start
    finally:
        os.sched_setaffinity(0, mine)


def free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}")
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError(f"port not open after {seconds} s")


def first_line(path: str, key: str) -> str:
    """The value of the first line of a file that starts with this key."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line[len(key):].strip(" \t:=\"")
    return ""


def facts() -> dict[str, Any]:
    """What a reader of the figures wants to know of this machine."""
    return {
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "cpus": len(CPUS),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": first_line("/etc/os-release", "PRETTY_NAME"),
        "tcp": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "python": platform.python_version(),
    }
