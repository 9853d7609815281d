"""Servers that take their time: one for each address, all on one port. ARGUMENTS: PORT SLOTS
ADDRESS=MILLISECONDS… A request takes its server's time in one of the server's slots, or waits for
one. `GET /counts` on any of them answers with how many requests each has had."""
from __future__ import annotations

import asyncio
import collections
import json
import sys
from collections.abc import Callable

BODY = b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
END = b"\r\n\r\n"


class Server:
    def __init__(self, seconds: float, slots: int) -> None:
        self.seconds, self.free = seconds, slots
        self.waiting: collections.deque[Callable[[], None]] = collections.deque()
        self.count = 0

    def serve(self, answer: Callable[[], None]) -> None:
        self.count += 1
        if not self.free:
            self.waiting.append(answer)
            return
        self.free -= 1
        self.begin(answer)

    def begin(self, answer: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self.end, answer)

    def end(self, answer: Callable[[], None]) -> None:
        answer()
        if self.waiting:
            self.begin(self.waiting.popleft())
        else:
            self.free += 1


class Connection(asyncio.Protocol):
    """Requests without a body."""

    def __init__(self, server: Server, counts: Callable[[], bytes]) -> None:
        self.server, self.counts = server, counts
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)

    def data_received(self, data: bytes) -> None:
        *heads, self.received = (self.received + data).split(END)
        for head in heads:
            if head.startswith(b"GET /counts "):
                self.transport.write(self.counts())
            else:
                self.server.serve(self.answer)


async def main() -> None:
    port, slots = int(sys.argv[1]), int(sys.argv[2])
    servers: dict[str, Server] = {}

    def counts() -> bytes:
        body = json.dumps({address: s.count for address, s in servers.items()}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    for word in sys.argv[3:]:
        address, _, milliseconds = word.partition("=")
        server = servers[address] = Server(float(milliseconds) / 1e3, slots)
        await asyncio.get_running_loop().create_server(
            lambda server=server: Connection(server, counts), address, port, backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
