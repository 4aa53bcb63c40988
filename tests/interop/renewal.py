"""A reload with a new certificate, under clients that talk."""

import asyncio
import ssl

from websockets.asyncio.client import connect

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import PATIENCE, same

CLIENTS = 50
RENEWALS = 3
ECHOES = 5  # of each client, after each renewal


class Talker:
    """A client that talks without a pause until it is told to stop."""

    def __init__(self, socket, news):
        self.socket = socket
        self.news = news
        self.echoes = 0
        self.stopped = False

    async def talk(self):
        while not self.stopped:
            message = f"message {self.echoes}"
            await self.socket.send(message)
            same("an echo", await self.socket.recv(), message)
            async with self.news:
                self.echoes += 1
                self.news.notify_all()
        await self.socket.close()


def open_socket(gate):
    trust = ssl.create_default_context(cafile=gate.root)
    return connect(gate.url("/", "wss"), ssl=trust, host=gate.address, proxy=None)


def serial_of(socket):
    return int(socket.transport.get_extra_info("peercert")["serialNumber"], 16)


async def python_clients_notice_nothing_of_a_renewal():
    async with backend(PYTHON, True) as (_, url), gateway(route("/", proxy=url)) as gate:
        serial = await gate.renew()
        news = asyncio.Condition()
        talkers = [Talker(await open_socket(gate), news) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for talker in talkers:
                same("the serial number", serial_of(talker.socket), serial)
                group.create_task(talker.talk())
            for _ in range(RENEWALS):
                old, serial = serial, await gate.renew()
                wanted = [talker.echoes + ECHOES for talker in talkers]
                async with news, asyncio.timeout(PATIENCE):
                    await news.wait_for(lambda: all(t.echoes >= n for t, n in zip(talkers, wanted)))
                async with open_socket(gate) as socket:
                    same("a new serial number", (serial_of(socket), serial != old), (serial, True))
                    await socket.send("tom")
                    same("an echo", await socket.recv(), "tom")
            for talker in talkers:
                talker.stopped = True
        await gate.log.line(message="session", nth=CLIENTS + RENEWALS - 1)
        sessions = gate.log.find(message="session", ended_by="client", close_code=1000)
        same("sessions that their clients have closed", len(sessions), CLIENTS + RENEWALS)
        said = sum(line["received_messages"] for line in sessions)
        same("messages", said, sum(talker.echoes for talker in talkers) + RENEWALS)
        reloads = gate.log.find(message="reloaded")
        same("sessions that reloads have ended", [line["sessions_ended"] for line in reloads], [0] * len(reloads))
