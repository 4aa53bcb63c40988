"""WebSocket libraries as clients and as backends: Python's websockets, and Node's ws."""

import json
import sys
from contextlib import asynccontextmanager
from itertools import product

from gateway import CLIENT, gateway, route
from processes import HERE, Failure, output, running, same

PYTHON = [sys.executable, "{}.py"]
NODE = ["node", "{}.mjs"]

CLOSES = [(1000, ""), (1001, "bye"), (3000, ""), (4999, "à bientôt, Zoë")]
MEBIBYTE = 1024 * 1024


def program(language, name):
    interpreter, file = language
    return [interpreter, HERE / file.format(name)]


@asynccontextmanager
async def backend(language, deflate):
    """A backend that runs as long as the block, and its route."""
    async with running(*program(language, "backend"), "deflate" if deflate else "plain") as child:
        port = (await child.line())["port"]
        yield child, f"http://127.0.0.1:{port}"


async def python_clients_talk_to_python_backends():
    await converse(PYTHON, PYTHON)


async def python_clients_talk_to_node_backends():
    await converse(PYTHON, NODE)


async def node_clients_talk_to_python_backends():
    await converse(NODE, PYTHON)


async def node_clients_talk_to_node_backends():
    await converse(NODE, NODE)


async def converse(client, server):
    for client_deflates, backend_deflates in product((True, False), repeat=2):
        wishes = f"the client {wish(client_deflates)}, the backend {wish(backend_deflates)}"
        try:
            async with backend(server, backend_deflates) as (behind, url), gateway(route("/", proxy=url)) as gate:
                seen = await conversation(client, gate, client_deflates)
                await talked(seen["talk"], gate, behind, client_deflates and backend_deflates)
                same("closes", [(close["code"], close["reason"]) for close in seen["closes"]], CLOSES)
                for close in seen["closes"]:
                    await closed(close, gate, behind)
        except Failure as failure:
            failure.args = (f"{failure} ({wishes})",)
            raise


async def conversation(client, gate, deflate):
    """What the client has seen."""
    task = {
        "url": gate.url("", "wss"),
        "address": gate.address,
        "root": str(gate.root),
        "client": CLIENT,
        "deflate": deflate,
        "closes": CLOSES,
    }
    return json.loads(await output(*program(client, "client"), json.dumps(task)))


async def python_and_node_clients_compress_as_far_as_the_gateway():
    for client, server in product((PYTHON, NODE), repeat=2):
        async with backend(server, True) as (behind, url):
            terminate = '[route.websocket]\ncompression = "terminate"\n'
            async with gateway(route("/", proxy=url), terminate) as gate:
                seen = (await conversation(client, gate, True))["talk"]
                same("the client's compression", "permessage-deflate" in (seen["extensions"] or ""), True)
                same("the backend's", (await behind.line(opened="/talk"))["extensions"] or None, None)
                line = await gate.session(path="/talk")
                for way in ("received", "sent"):
                    same(f"messages {way}", line[f"{way}_messages"], seen["messages"])
                    same(f"inflated bytes {way}", line[f"{way}_bytes"] > 2 * MEBIBYTE, True)


def wish(deflates):
    return "deflates" if deflates else "doesn't deflate"


async def talked(seen, gate, behind, deflated):
    """Client, backend and gateway agree on what was said, and how."""
    opened = await behind.line(opened="/talk")
    same("the extensions at both ends", seen["extensions"], opened["extensions"])
    same("permessage-deflate", "permessage-deflate" in (seen["extensions"] or ""), deflated)
    same("the subprotocol", (seen["subprotocol"], opened["subprotocol"]), ("chat.v1", "chat.v1"))

    host = f"gate.test:{gate.port}"
    for name, expected in {
        "host": host,
        "x-real-ip": CLIENT,
        "x-forwarded-for": CLIENT,  # not what the client says of itself
        "x-forwarded-proto": "https",
        "x-forwarded-host": host,
        "via": "1.1 wssgate",
    }.items():
        same(f"what the backend reads in {name}", opened["headers"].get(name), expected)

    line = await gate.session(path="/talk")
    same("the protocol", line["protocol"], "HTTP/1.1")
    same("the client's address", line["client"], CLIENT)
    same("the end", (line["ended_by"], line["close_code"]), ("client", 1000))
    for way in ("received", "sent"):
        same(f"messages {way}", line[f"{way}_messages"], seen["messages"])
        # 1 MiB of noise, and 1 MiB of text that deflates to almost nothing: the extension was used.
        same(f"deflated bytes {way}", line[f"{way}_bytes"] < 2 * MEBIBYTE, deflated)


async def closed(close, gate, behind):
    """Whichever side closes, the other side and the log read the same code and reason."""
    code, reason = close["code"], close["reason"]
    for party in ("client", "backend"):
        path = f"/closed-by-{party}/{code}"
        same(f"{path} as the client sees it", close["seen"][party], [code, reason])
        line = await behind.line(closed=path)
        same(f"{path} as the backend sees it", (line["code"], line["reason"]), (code, reason))
        line = await gate.session(path=path)
        same(f"{path} in the log", (line["ended_by"], line["close_code"]), (party, code))


async def a_quiet_node_client_answers_the_gateways_pings():
    async with backend(NODE, False) as (behind, url):
        pings = '[route.websocket]\nping_interval = "100ms"\n'
        async with gateway(route("/", proxy=url), pings) as gate:
            task = {"url": gate.url("/quiet", "wss"), "address": gate.address, "root": str(gate.root)}
            seen = json.loads(await output(*program(NODE, "pinged"), json.dumps(task)))
            same("the client", seen, {"echo": "still here", "code": 1000})
            line = await gate.session(path="/quiet")
            same("messages", (line["received_messages"], line["sent_messages"]), (1, 1))
            await behind.line(closed="/quiet", code=1000)
