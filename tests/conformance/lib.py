"""What every conformance test needs: start outrider on free ports, start and stop other programs, fail or skip.

A test prints one line per case and ends with exit code 0 (all passed), 1 (some failed) or 77 (a tool it needs cannot be
had here; the reason is printed). Standard library only.
"""
import contextlib
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "tools"
SKIPPED = 77
# One number for everything that must happen "soon": generous, because sanitizers and busy machines are slow.
PATIENCE = float(os.environ.get("OUTRIDER_TEST_PATIENCE", "60"))

_failed = []
_passed = 0


def skip(reason):
    print(f"skipped: {reason}", flush=True)
    sys.exit(SKIPPED)


def case(name, problem=None):
    """Records one case: passed if `problem` is empty."""
    global _passed
    if problem:
        _failed.append(name)
        print(f"FAIL {name}: {problem}", flush=True)
    else:
        _passed += 1
        print(f"ok   {name}", flush=True)


@contextlib.contextmanager
def attempt(name):
    """A case which passes unless its block raises."""
    try:
        yield
    except Exception as error:  # whatever went wrong is the case's failure, and the next case runs
        case(name, f"{type(error).__name__}: {error}")
    else:
        case(name)


def finish():
    print(f"{_passed} passed, {len(_failed)} failed", flush=True)
    sys.exit(1 if _failed or not _passed else 0)


def tool(name):
    """The path of a program that scripts/tools built or apt installed, or the end of this test."""
    built = TOOLS / "bin" / name
    found = str(built) if built.exists() else shutil.which(name)
    if not found:
        skip(f"{name} is not installed (scripts/setup tests)")
    return found


def use_python_tools(module):
    """Goes on in the Python environment of scripts/tools, which holds `module`."""
    python = TOOLS / "python" / "bin" / "python"
    if pathlib.Path(sys.prefix) == TOOLS / "python":
        return
    if not python.exists():
        skip(f"Python's {module} is not installed (scripts/setup tests)")
    os.execv(python, [str(python), *sys.argv])


def run(*command, timeout=PATIENCE, check=True, **options):
    """Runs a program to its end; its output as text. Every argument is made a string."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, text=True, errors="replace", **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def free_port():
    """A port for a program that cannot pick one by itself."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process=None):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the program ended with {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@contextlib.contextmanager
def program(*command, port=None):
    """A program that runs beside the test, ended with it."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if port is not None:
            wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Outrider:
    """The built proxy on a configuration; `address(NAME)` and `port(NAME)` once it is ready. $QUIET in the YAML stands
    for the telemetry a test does not read."""

    QUIET = "admin: false\ntelemetry: { access_log: false, metrics: false }\n"

    def __init__(self, yaml):
        self.yaml = yaml.replace("$QUIET", self.QUIET)
        self.log = []
        self.addresses = {}
        self.ready = threading.Event()

    @staticmethod
    def binary():
        path = os.environ.get("OUTRIDER_BINARY") or str(ROOT / "build" / "dev" / "outrider")
        if not os.path.exists(path):
            raise AssertionError(f"{path} is not built")
        return path

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="outrider-")
        config = pathlib.Path(self.folder.name) / "outrider.yaml"
        config.write_text(self.yaml)
        self.process = subprocess.Popen([self.binary(), "run", str(config), "--no-watch", "--workers", "2"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(PATIENCE) or not self.addresses:
            self.process.kill()
            raise AssertionError("outrider did not become ready:\n" + "\n".join(self.log))
        return self

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            words = line.split()
            if len(words) == 3 and words[0] == "listening":
                self.addresses[words[1]] = words[2]
            elif words == ["ready"]:
                self.ready.set()
        self.ready.set()

    def address(self, name="main"):
        return self.addresses[name]

    def port(self, name="main"):
        return int(self.addresses[name].rsplit(":", 1)[1])

    def __exit__(self, *_):
        # SIGINT drains without the delay that SIGTERM keeps for load balancers.
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "killed: it did not end after SIGINT"
        self.reader.join(PATIENCE)
        self.folder.cleanup()
        case("outrider ends cleanly", None if code == 0 else f"exit code {code}\n" + "\n".join(self.log[-40:]))


class Origin(http.server.ThreadingHTTPServer):
    """An HTTP/1.1 server on a free port whose handler class the test writes."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that went away are no news
            super().handle_error(*_)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers any method with the request's own body, or a short text without one."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return self.chunked()
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def chunked(self):
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        return whole

    def answer(self, body, headers=()):
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply(self):
        self.answer(self.body() or b"hello\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = lambda self: self.reply()
