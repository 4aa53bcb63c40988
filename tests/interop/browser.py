"""Chromium on the gateway's console page."""

import json
from contextlib import asynccontextmanager

from book import routes
from conversations import PYTHON, backend
from gateway import gateway, route
from processes import HERE, PATIENCE, environment, free_port, output, running, same, within, workplace

CONSOLE = route("/", service="console")
HTTP1 = ('alpn = ["http/1.1"]', "HTTP/1.1")
HTTP2 = ("", "HTTP/2")  # what browsers choose when they may


async def chromium_uses_the_console_over_http1():
    await use_console(*HTTP1)


async def chromium_uses_the_console_over_http2():
    await use_console(*HTTP2)


async def chromium_talks_to_a_python_backend_over_http1():
    await talk(*HTTP1)


async def chromium_talks_to_a_python_backend_over_http2():
    await talk(*HTTP2)


async def chromium(gate, act):
    """One visit, in which nothing is wrong."""
    seen = await visit(gate, act)
    same("complaints", seen["complaints"], [])
    return seen


async def visit(gate, act, page="/", **more):
    """One visit by a browser that is new to the world."""
    async with workplace() as home:
        task = {
            "page": gate.url(page),
            "url": gate.url("/wss", "wss"),
            "address": gate.address,
            "profile": f"{home}/profile",
            "patience": PATIENCE,
            "act": act,
            **more,
        }
        # It leaves things in more places than its profile.
        there = {"cwd": home, "env": environment(HOME=home, TMPDIR=home)}
        return json.loads(await output("node", HERE / "browser.mjs", json.dumps(task), **there))


async def novnc_shows_the_screen_of_a_vnc_server():
    async with xvnc() as server:
        routes = [
            route("/", files=HERE / "vnc"),
            route("/novnc", files=HERE / "node_modules/@novnc/novnc"),
            route("/wss", proxy=server, subprotocols="binary"),
        ]
        async with gateway(*routes) as gate:
            seen = await chromium(gate, "vnc")
            same("the screen", (seen["width"], seen["height"]), (320, 240))
            same("its colours", seen["colours"], 2)
            line = await gate.session(path="/wss")
            same("the backend", f"tcp://{line['backend']}", server)
            same("who has ended it", line["ended_by"], "client")


async def novnc_asks_for_a_password_and_shows_the_screen():
    """Debian's noVNC with the routes of its page in the book. Chromium sends the password with the WebSocket, too."""
    async with xvnc() as server:
        await see_with_a_password(routes("novnc.md", server))


async def novnc_shows_the_screen_through_websockify():
    """As the page has it for those who keep websockify."""
    async with xvnc() as server:
        address = f"127.0.0.1:{free_port()}"
        async with running("websockify", "--verbose", address, server.removeprefix("tcp://")) as between:
            await between.said("proxying from")
            text = routes("novnc.md", f"http://{address}").replace('subprotocols = ["binary"]\n', "")
            await see_with_a_password(text)


async def see_with_a_password(text):
    users = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
    async with gateway(text, files={"htpasswd": users}) as gate:
        login = {"username": "alice", "password": "secret"}
        seen = await visit(gate, "novnc", "/vnc.html?autoconnect=1", login=login)
        same("the screen", (seen["width"], seen["height"]), (320, 240))
        same("its colours", seen["colours"], 2)
        line = await gate.session(path="/websockify", ended_by="client")
        same("who it was", line["subject"], "alice")


@asynccontextmanager
async def xvnc():
    """A screen of two colours, the classic pattern of X. It can't take over a socket, so a free port is looked for."""
    async with workplace() as home:
        port = free_port()
        screen = ["-geometry", "320x240", "-retro", "-nolisten", "tcp", "-displayfd", "1"]
        command = ["Xvnc", "-rfbport", port, "-localhost", "-SecurityTypes", "None", *screen]
        async with running(*command, cwd=home, env=environment(HOME=home)) as server:
            await server.line(text=f" vncext:      Listening for VNC connections on local interface(s), port {port}")
            yield f"tcp://127.0.0.1:{port}"


async def use_console(listener, protocol):
    async with gateway(CONSOLE, route("/wss", service="echo"), listener=listener) as gate:
        seen = await chromium(gate, "console")
        same("the title", seen["title"], "wssgate console")
        opened, sent, received, closed = seen["log"]
        within("the log's first line", opened, "open after ")
        same("what was sent and received", (sent, received), ("tom", "tom"))
        same("the log's last line", closed, 'closed: code 1000, reason "bye"')
        same("the state", seen["state"], "closed (1000)")
        line = await gate.session(path="/wss")
        same("the protocol", line["protocol"], protocol)
        same("the end", (line["ended_by"], line["close_code"]), ("client", 1000))
        same("messages", (line["received_messages"], line["sent_messages"]), (1, 1))


async def talk(listener, protocol):
    async with backend(PYTHON, True) as (behind, url):
        async with gateway(CONSOLE, route("/wss", proxy=url), listener=listener) as gate:
            seen = await chromium(gate, "talk")
            same("what was received", seen["messages"], ["tom"])
            within("the extensions", seen["extensions"], "permessage-deflate")
            # Closed without a code, which both ends call 1005.
            same("the end", (seen["code"], seen["wasClean"]), (1005, True))
            await behind.line(closed="/wss", code=1005)
            line = await gate.session(path="/wss")
            same("the protocol", line["protocol"], protocol)
            same("the end", (line["ended_by"], line["close_code"]), ("client", 1005))
            same("messages", (line["received_messages"], line["sent_messages"]), (1, 1))
