"""Chromium on the page of the admin listener."""

import json
import os
import ssl
from base64 import b64encode
from contextlib import AsyncExitStack
from urllib.parse import quote

from websockets.asyncio.client import connect

from gateway import gateway, route
from processes import HERE, PATIENCE, environment, output, same, workplace

TOKEN = "0123456789abcdef0123456789abcdef"
MARKUP = "<img src=x onerror=alert(1)>"
HASH = "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI="  # of the password x
ADMIN = """[admin]
address = "127.0.0.2:0"
host = "ops.test"
token_file = "token"
actions = true
"""


async def chromium_reads_the_page_and_nothing_runs_in_it():
    routes = [
        route("/chat", name="chat", service="echo"),
        route("/in", name="in", service="echo") + '[route.access.basic]\nfile = "users"\n',
        route("/down", name="down", proxy="http://127.0.0.1:1"),
    ]
    files = {"token": TOKEN, "users": f"{MARKUP}:{HASH}\n"}
    async with gateway(*routes, ADMIN, files=files, complaints=["configuration"]) as gate, AsyncExitStack() as stack:
        admin = (await gate.log.line(message="admin listener"))["address"]
        for n in range(6):
            socket = await stack.enter_async_context(open_socket(gate, f"/chat?{n}"))
            await socket.send("x" * 1000 * n)
            await socket.recv()
        password = b64encode(f"{MARKUP}:x".encode()).decode()
        await stack.enter_async_context(open_socket(gate, "/in", Authorization=f"Basic {password}"))
        async with open_socket(gate, f"/chat/{quote(MARKUP)}", User_Agent=MARKUP) as socket:
            await socket.close(4000, MARKUP)
        task = {
            "url": f"http://{admin}",
            "elsewhere": f"http://ops.test:{admin.rpartition(':')[2]}/",
            "patience": PATIENCE,
            "pictures": os.environ.get("WSSGATE_PICTURES"),
        }
        async with workplace() as home:
            there = {"cwd": home, "env": environment(HOME=home, TMPDIR=home, TOKEN=TOKEN)}
            seen = json.loads(await output("node", HERE / "page.mjs", json.dumps(task), **there))
    same("complaints", sorted(set(seen["complaints"])), [])
    same("what is too wide", seen["looks"]["wide"], [])
    same("what has too little contrast", seen["looks"]["faint"], [])
    keyboard = seen["keyboard"]
    same("the first stop of the keyboard", keyboard["first"], "Skip to the content")
    same("where it leads", keyboard["main"], "main")
    same("focus is visible", keyboard["outline"], "solid")
    same("a heading that was used keeps the focus", keyboard["stays"], "descending")
    same("the search is in the address", keyboard["address"], "?q=nothing+has+this&sort=-id")
    for what, found in seen["structure"].items():
        expected = {"headings": 1, "language": "en", "landmarks": [], "ids": []}.get(what, 0)
        same(what, found, expected)
    same("without scripts", seen["plain"], {"isWhole": True, "found": "No sessions", "buttons": 0})
    same("what is kept of the token", seen["acts"]["kept"][:3], ["", 0, 0])
    attack = {"fetched": "refused", "socket": "refused", "framed": "refused", "rebound": "refused", "status": 421}
    same("what another site sees", seen["attack"], attack)


def open_socket(gate, path, **fields):
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    context = ssl.create_default_context(cafile=gate.root)
    return connect(gate.url(path, "wss"), ssl=context, host=gate.address, proxy=None, compression=None, additional_headers=fields)
