"""What one client says goes to all. Python's websockets, as its documentation has it."""

import asyncio
import ssl
import sys

from websockets.asyncio.server import broadcast, serve

CLIENTS = set()


async def client(socket):
    CLIENTS.add(socket)
    try:
        async for message in socket:
            broadcast(CLIENTS, message)
    finally:
        CLIENTS.remove(socket)


async def main(chain, key):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    tls.set_alpn_protocols(["http/1.1"])
    limits = {"ping_interval": None, "compression": None, "backlog": 4096}
    async with serve(client, "127.0.0.1", 0, ssl=tls, **limits) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:3]))
