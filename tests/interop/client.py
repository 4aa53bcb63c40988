"""A WebSocket client made of Python's websockets; client.mjs is its twin.

Is told in JSON what to do, fails when an answer is wrong, and tells in JSON what it has seen.
"""

import asyncio
import json
import os
import ssl
import sys
from urllib.parse import quote

from websockets.asyncio.client import connect

from processes import same

TASK = json.loads(sys.argv[1])
MEBIBYTE = 1024 * 1024


def open_socket(path):
    return connect(
        TASK["url"] + path,
        ssl=ssl.create_default_context(cafile=TASK["root"]),
        host=TASK["address"],
        local_addr=(TASK["client"], 0),
        proxy=None,
        additional_headers={"X-Forwarded-For": "203.0.113.7"},
        subprotocols=["chat.v2", "chat.v1"],
        compression="deflate" if TASK["deflate"] else None,
        max_size=None,
    )


async def talk():
    async with open_socket("/talk") as socket:
        seen = {
            "extensions": socket.response.headers.get("Sec-WebSocket-Extensions"),
            "subprotocol": socket.subprotocol,
            "messages": 0,
        }

        async def asks(what, message, expected):
            await socket.send(message)
            same(what, await socket.recv(), expected)
            seen["messages"] += 1

        async def pieces():
            yield "first, "
            pong = await socket.ping("between fragments")
            yield "second, "
            await pong
            yield "last"

        for message in ["tom", "", "Zoë pays 5 €", bytes(range(256)), b""]:
            await asks("an echo", message, message)
        for n in range(50):
            await asks("a repeated echo", f"again and again, {n}", f"again and again, {n}")
        text, noise = "wssgate " * (MEBIBYTE // 8), os.urandom(MEBIBYTE)
        await asks("1 MiB of text", text, text)
        await asks("1 MiB of noise", noise, noise)
        await asks("a fragmented message", pieces(), "first, second, last")
        await asks("the backend's fragments", "in pieces", "one, two, three")
        await asks("the backend's ping", "ping me", "ponged")
        await (await socket.ping("from the client"))
    return seen


async def closes(code, reason):
    seen = {}
    async with open_socket(f"/closed-by-client/{code}") as socket:
        await socket.close(code, reason)
    seen["client"] = [socket.close_code, socket.close_reason]
    async with open_socket(f"/closed-by-backend/{code}?reason={quote(reason)}") as socket:
        await socket.wait_closed()
    seen["backend"] = [socket.close_code, socket.close_reason]
    return {"code": code, "reason": reason, "seen": seen}


async def main():
    talked = await talk()
    closed = [await closes(*close) for close in TASK["closes"]]
    print(json.dumps({"talk": talked, "closes": closed}))


asyncio.run(main())
