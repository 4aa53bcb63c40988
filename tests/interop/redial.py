"""A backend that is restarted under its clients, whose sockets stay: `session_lost = "redial"`."""

import asyncio
import signal
import ssl
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from conversations import NODE, PYTHON, program
from gateway import gateway, route
from processes import PATIENCE, Failure, running, same

CLIENTS = 20
RESTARTS = 2  # of each kind
MESSAGES = 5  # of each client, between two of them


class Caller:
    """A client that sends numbers, and hears what is said back, until it is told to stop."""

    def __init__(self, name, socket):
        self.name, self.socket = name, socket
        self.sent, self.heard, self.stopped = 0, [], False

    async def call(self):
        reading = asyncio.create_task(self.listen())
        while not self.stopped:
            await self.socket.send(str(self.sent))
            self.sent += 1
            await asyncio.sleep(0.02)
        async with asyncio.timeout(PATIENCE):
            while self.heard[-1:] != [self.sent - 1]:  # the last server lives
                await asyncio.sleep(0.01)
        await self.socket.close()
        await reading

    async def listen(self):
        with suppress(ConnectionClosed):
            async for message in self.socket:
                self.heard.append(int(message))


async def python_backends_are_restarted_under_their_clients():
    await restarted(PYTHON)


async def node_backends_are_restarted_under_their_clients():
    await restarted(NODE)


async def restarted(language):
    lines, port = [], 0
    upstream = """\
[[upstream]]
name = "pool"
servers = ["http://127.0.0.1:{port}"]
session_lost = "redial"
redial_rate = "1000/s"
redial_interval = "200ms"
redial_timeout = "5m"
"""
    # Each process has the port of the first one, which the system has chosen.
    server = running(*program(language, "restarted"), port)
    child = await server.__aenter__()
    try:
        port = (await child.line())["port"]
        async with gateway(upstream.format(port=port), route("/", proxy="pool")) as gate:
            trust = ssl.create_default_context(cafile=gate.root)
            callers = []
            for n in range(CLIENTS):
                fields = {"X-Client": f"{n}"}
                url = gate.url("/", "wss")
                socket = await connect(url, ssl=trust, host=gate.address, proxy=None, additional_headers=fields)
                callers.append(Caller(f"{n}", socket))
            async with asyncio.TaskGroup() as group:
                for caller in callers:
                    group.create_task(caller.call())
                for fate in [signal.SIGTERM, signal.SIGKILL] * RESTARTS:
                    await go_on(callers)
                    child.process.send_signal(fate)
                    await child.process.wait()
                    await server.__aexit__(None, None, None)
                    lines.append((fate, child.find()))
                    server = running(*program(language, "restarted"), port)
                    child = await server.__aenter__()
                await go_on(callers)
                for caller in callers:
                    caller.stopped = True
            await gate.log.line(message="session", nth=CLIENTS - 1)
            sessions = gate.log.find(message="session", ended_by="client", close_code=1000, redials=2 * RESTARTS)
            same("sessions that were redialled, and that their clients have closed", len(sessions), CLIENTS)
    finally:
        await server.__aexit__(None, None, None)
        lines.append((None, child.find()))
    for caller in callers:
        judge(caller, lines)


async def go_on(callers):
    wanted = [len(caller.heard) + MESSAGES for caller in callers]
    async with asyncio.timeout(PATIENCE):
        while any(len(caller.heard) < count for caller, count in zip(callers, wanted)):
            await asyncio.sleep(0.01)


def judge(caller, lines):
    """Each server has read an unbroken row, from the number that its handshake has told; what is missing between two of
    them had gone to one that was killed."""
    following, before = 0, None
    for fate, said in lines:
        (opened,) = [line for line in said if line.get("opened") == caller.name]
        missing = opened["messages"] - following
        if missing < 0 or (missing and before != signal.SIGKILL):
            raise Failure(f"client {caller.name}: {missing} messages are missing")
        texts = [int(line["text"]) for line in said if line.get("session") == opened["session"] and "text" in line]
        following, before = opened["messages"] + len(texts), fate
        same(f"what client {caller.name} has sent", texts, list(range(opened["messages"], following)))
    same("the last message", following, caller.sent)
    same("echoes in order", caller.heard, sorted(set(caller.heard)))
