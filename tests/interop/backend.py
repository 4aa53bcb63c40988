"""A WebSocket backend made of Python's websockets; backend.mjs is its twin.

Says everything back, and what it is asked for. Tells on stdout what it sees, a JSON object a line.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def tell(**what):
    print(json.dumps(what), flush=True)


async def converse(socket):
    url = urlsplit(socket.request.path)
    tell(
        opened=url.path,
        headers={name.lower(): value for name, value in socket.request.headers.raw_items()},
        extensions=socket.response.headers.get("Sec-WebSocket-Extensions"),
        subprotocol=socket.subprotocol,
    )
    if url.path.startswith("/closed-by-backend/"):
        code = int(url.path.rpartition("/")[2])
        await socket.close(code, parse_qs(url.query).get("reason", [""])[0])
    try:
        async for message in socket:
            match message:
                case "ping me":
                    await (await socket.ping("from the backend"))
                    await socket.send("ponged")
                case "in pieces":
                    await socket.send(["one, ", "two, ", "three"])
                case _:
                    await socket.send(message)
    except ConnectionClosed:
        pass  # with a code that is no success
    await socket.wait_closed()
    tell(closed=url.path, code=socket.close_code, reason=socket.close_reason)


def choose_subprotocol(_, offered):
    """By default websockets would refuse clients that offer none."""
    return "chat.v1" if "chat.v1" in offered else None


async def main(deflate):
    server = await serve(
        converse,
        "127.0.0.1",
        0,
        select_subprotocol=choose_subprotocol,
        compression="deflate" if deflate else None,
        max_size=None,
    )
    tell(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main(sys.argv[1] == "deflate"))
