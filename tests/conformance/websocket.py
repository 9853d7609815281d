"""Python's websockets, client and server, with outrider between them."""
import asyncio
import os

import lib

lib.use_python_tools("websockets")
import websockets  # noqa: E402  (only there after the line above)

# No keep-alive pings: a busy machine may answer them too late.
OPTIONS = {"max_size": None, "ping_interval": None}


async def echo(socket):
    if socket.path == "/bye":
        await socket.close(4001, "done here")
        return
    async for message in socket:
        await socket.send(message)


async def session(url, largest=2 << 20):
    async with websockets.connect(url, subprotocols=["superchat", "chat"], **OPTIONS) as socket:
        if socket.subprotocol != "chat":
            raise AssertionError(f"subprotocol {socket.subprotocol}")
        for message in ["", "text", "äöü" * 1000, b"", os.urandom(70), os.urandom(70000), os.urandom(largest)]:
            await socket.send(message)
            if await socket.recv() != message:
                raise AssertionError(f"a message of {len(message)} came back different")
        await socket.send(iter(["in ", "three ", "fragments"]))
        if await socket.recv() != "in three fragments":
            raise AssertionError("fragments")
        await asyncio.wait_for(await socket.ping(), lib.PATIENCE)


async def closed_by_server(url):
    async with websockets.connect(url, subprotocols=["chat"], **OPTIONS) as socket:
        await asyncio.wait_for(socket.wait_closed(), lib.PATIENCE)
        if (socket.close_code, socket.close_reason) != (4001, "done here"):
            raise AssertionError(f"{socket.close_code} {socket.close_reason}")


async def both_at_once(url):
    """2,000 messages out while they come back: neither direction may wait for the other."""
    async with websockets.connect(url, subprotocols=["chat"], **OPTIONS) as socket:
        async def send():
            for number in range(2000):
                await socket.send(str(number) * 50)
        sending = asyncio.create_task(send())
        for number in range(2000):
            if await socket.recv() != str(number) * 50:
                raise AssertionError(f"message {number}")
        await sending


async def many(url):
    await asyncio.gather(*(session(url, largest=100000) for _ in range(20)))


async def main():
    server = await websockets.serve(echo, "127.0.0.1", 0, subprotocols=["chat"], **OPTIONS)
    origin = server.sockets[0].getsockname()[1]
    with lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ echo: "127.0.0.1:{origin}" }}
routes: [{{ to: echo }}]
$QUIET""") as proxy:
        url = f"ws://{proxy.address()}"
        for name, scenario, path in [("messages of every kind", session, "/"), ("closed by the server", closed_by_server, "/bye"),
                                     ("both directions at once", both_at_once, "/"), ("20 sessions", many, "/")]:
            with lib.attempt(name):
                await asyncio.wait_for(scenario(url + path), lib.PATIENCE)
        server.close()
        await server.wait_closed()


asyncio.run(main())
lib.finish()
