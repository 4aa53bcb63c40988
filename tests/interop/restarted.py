"""A WebSocket backend made of Python's websockets, which is there to be restarted; restarted.mjs is its twin.

Tells on stdout what it reads, a JSON object a line, and says it back. SIGTERM: it closes every socket, reads each until
the Close is answered, and ends.
"""

import asyncio
import json
import signal
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def tell(**what):
    print(json.dumps(what), flush=True)


async def converse(socket):
    fields = socket.request.headers
    messages = int(fields.get("Wssgate-Messages", 0))
    tell(opened=fields["X-Client"], session=fields["Wssgate-Session"], messages=messages)
    try:
        async for message in socket:
            tell(session=fields["Wssgate-Session"], text=message)
            await socket.send(message)
    except ConnectionClosed:
        pass  # what is read after the Close is not said back


async def main(port):
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await serve(converse, "127.0.0.1", port, compression=None)
    tell(port=server.sockets[0].getsockname()[1])
    await ended.wait()
    server.close()  # with 1001
    await server.wait_closed()


asyncio.run(main(int(sys.argv[1])))
