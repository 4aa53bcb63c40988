"""Two gateways with the same keys, behind HAProxy in TCP mode, as the page of the book says."""

import asyncio
import os
import signal
import ssl
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from book import blocks, routes
from conversations import PYTHON, backend
from gateway import CLIENT, NAME, gateway
from handshakes import REQUEST
from processes import PATIENCE, output, running, same, within
from servers import listening

PAGE = "many-gateways.md"
CLIENTS = 6
KEYS = 'ticket_keys = "ticket.keys"\n'
DELAY = 'drain_delay = "5s"\ndrain_timeout = "10s"\n'
LISTENER = 'proxy_protocol = ["127.0.0.0/8"]'
ADMIN = '[admin]\naddress = "127.0.0.2:0"\n'
DEFAULTS = "defaults\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n"


@asynccontextmanager
async def balanced(top):
    """Two gateways, and where HAProxy listens for both."""
    async with AsyncExitStack() as stack:
        servers = [(await stack.enter_async_context(backend(PYTHON, True)))[1] for _ in range(2)]
        keys = {name: await output(os.environ["WSSGATE"], "ticket-key") for name in ("ticket.keys", "sticky.keys")}
        parts = [ADMIN, routes(PAGE, *servers).replace("/etc/wssgate/", "")]
        gates = []
        for _ in range(2):
            gates.append(await stack.enter_async_context(gateway(*parts, listener=LISTENER, top=top, files=keys)))
        (config,) = blocks(PAGE, "haproxy")
        directory, taken, address = await stack.enter_async_context(listening())
        for number, gate in enumerate(gates, 11):
            host, _, port = (await gate.log.line(message="admin listener"))["address"].rpartition(":")
            asked = f"127.0.0.1:{gate.port} check addr {host} port {port}"
            config = config.replace(f"10.0.0.{number}:443 check port 9180", asked)
        (directory / "haproxy.cfg").write_text(DEFAULTS + config.replace(":443", f"fd@{taken.fileno()}"))
        command = ["haproxy", "-db", "-f", directory / "haproxy.cfg"]
        await stack.enter_async_context(running(*command, pass_fds=[taken.fileno()]))
        taken.close()
        yield gates, address


async def a_ticket_of_one_gateway_resumes_at_another():
    async with balanced(KEYS) as (gates, address):
        ticket = gates[0].directory / "ticket"
        for options, begins in ((["-sess_out", ticket], "New"), (["-sess_in", ticket], "Reused")):
            target = ["-connect", address, "-servername", NAME]
            said = await output("openssl", "s_client", *target, "-ign_eof", *options, stdin=REQUEST)
            within("the handshake", said, f"{begins}, TLSv1.3, Cipher is ")
        for gate in gates:
            await gate.log.line(message="request", path="/echo")


async def a_gateway_is_drained_and_no_client_is_refused():
    async with balanced(KEYS + DELAY) as (gates, address):
        trust = ssl.create_default_context(cafile=gates[0].root)
        trust.load_verify_locations(gates[1].root)
        opened = []

        async def stay():
            """A client that comes back when it is closed. Returns how often it was."""
            for closed in range(CLIENTS):
                host, port = address.split(":")
                options = dict(ssl=trust, host=host, port=int(port), proxy=None, local_addr=(CLIENT, 0))
                async with connect(f"wss://{NAME}/", **options) as socket:
                    await socket.send("hello")
                    same("the echo", await socket.recv(), "hello")
                    opened.append(socket)
                    try:
                        await socket.recv()
                    except ConnectionClosed as end:
                        if end.rcvd.code == 1000:
                            return closed
                        same("the code of the Close", end.rcvd.code, 1001)

        async with asyncio.TaskGroup() as group, asyncio.timeout(2 * PATIENCE):
            clients = [group.create_task(stay()) for _ in range(CLIENTS)]
            while len(opened) < CLIENTS:
                await asyncio.sleep(0.01)
            gates[0].log.process.send_signal(signal.SIGTERM)
            await gates[0].log.process.wait()
            moved = len(gates[0].log.find(message="session", client=CLIENT))
            while len(opened) < CLIENTS + moved:
                await asyncio.sleep(0.01)
            for socket in opened:
                await socket.close()
        same("sessions of the drained gateway", moved, CLIENTS // 2)
        same("how often clients came back", sorted(client.result() for client in clients), [0] * 3 + [1] * 3)
        await gates[1].log.line(message="session", client=CLIENT, nth=CLIENTS - 1)
