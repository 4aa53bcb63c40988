"""More sockets to one server than an address has ports, by `source_addresses`. As a program it plays this in the network
namespace that it is started in, where it makes ports few.
"""

import asyncio
import base64
import hashlib
import re
import resource
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

from gateway import NAME, gateway, route
from processes import HERE, Failure, output, same

FIRST, LAST = 40000, 40999  # ports that a connection may come from
PORTS = LAST - FIRST + 1
SESSIONS = PORTS * 3 // 2
SOURCES = ["127.0.0.2", "127.0.0.3"]
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HANDSHAKE = f"""\
GET / HTTP/1.1
Host: {NAME}
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==

""".replace("\n", "\r\n").encode()
HELLO = b"\x81\x05hello"  # a text of a server


async def source_addresses_hold_more_sockets_than_one_has_ports():
    try:
        await output("unshare", "--map-root-user", "--net", sys.executable, HERE / "ports.py")
    except Failure as failure:
        if "unshare: " in str(failure):
            raise Failure(f"no network namespace can be had here; as root it mostly can ({failure})") from failure
        raise


class Backend:
    """Opens every WebSocket, and keeps it."""

    def __init__(self):
        self.live = {}

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = re.search(r"(?i)sec-websocket-key: (\S+)", head.decode())[1]
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        source = writer.get_extra_info("peername")
        self.live[source] = writer
        await reader.read()
        del self.live[source]
        writer.close()


@asynccontextmanager
async def sessions(client, keys=""):
    """So many clients as are to be opened: those that are open, how many got 502, the backend, and the gateway."""
    backend = Backend()
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    upstream = f'[[upstream]]\nname = "pool"\nservers = ["http://{address}"]\n{keys}'
    # It complains of certificates that no client gets, and of requests that get 502.
    plain = {"listener": "tls = false", "complaints": ["configuration", "request"]}
    async with server, gateway(upstream, route("/", proxy="pool"), **plain) as gate:
        clients, refused = [], 0
        for number in range(SESSIONS):
            # The client's port is none of those that are few.
            reader, writer = await asyncio.open_connection(
                gate.address, gate.port, local_addr=(client, 20000 + number)
            )
            writer.write(HANDSHAKE)
            status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
            if status == 101:
                clients.append((reader, writer))
            else:
                same("the status", status, 502)
                refused += 1
                writer.close()
        yield clients, refused, backend, gate
        for _, writer in clients:
            writer.close()
        await gate.log.line(message="session", nth=len(clients) - 1)


async def without_source_addresses():
    async with sessions("127.0.0.9") as (clients, refused, _, gate):
        # Some ports are those of listeners.
        if not PORTS - 10 <= len(clients) <= PORTS:
            raise Failure(f"{len(clients)} sessions from {PORTS} ports")
        for number in range(refused):
            cause = (await gate.log.line(status=502, nth=number))["cause"]
            if "each port here leads to it already" not in cause or "`source_addresses`" not in cause:
                raise Failure(f"the cause says nothing of ports: {cause}")


async def with_source_addresses():
    keys = f"source_addresses = {SOURCES}\n".replace("'", '"')
    async with sessions("127.0.0.10", keys) as (clients, refused, backend, _):
        same("sessions", (len(clients), refused), (SESSIONS, 0))
        counts = Counter(address for address, _ in backend.live)
        same("sessions by source", sorted(counts), SOURCES)
        same("live sessions", counts.total(), SESSIONS)
        for writer in backend.live.values():
            writer.write(HELLO)
        for reader, _ in clients:
            same("a text", await reader.readexactly(len(HELLO)), HELLO)


async def play():
    # Four sockets for each session, of which this process has one half.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    await output("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{FIRST} {LAST}")
    await without_source_addresses()
    await with_source_addresses()


if __name__ == "__main__":
    asyncio.run(play())
