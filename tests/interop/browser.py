"""Chromium on the gateway's console page."""

import json

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import HERE, PATIENCE, environment, output, same, within, workplace

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
    """One visit by a browser that is new to the world."""
    async with workplace() as home:
        task = {
            "page": gate.url("/"),
            "url": gate.url("/wss", "wss"),
            "address": gate.address,
            "profile": f"{home}/profile",
            "patience": PATIENCE,
            "act": act,
        }
        # It leaves things in more places than its profile.
        there = {"cwd": home, "env": environment(HOME=home, TMPDIR=home)}
        seen = json.loads(await output("node", HERE / "browser.mjs", json.dumps(task), **there))
    same("complaints", seen["complaints"], [])
    same("the title", seen["title"], "wssgate console")
    return seen


async def use_console(listener, protocol):
    async with gateway(CONSOLE, route("/wss", service="echo"), listener=listener) as gate:
        seen = await chromium(gate, "console")
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
