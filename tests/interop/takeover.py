"""A takeover by a new process, under sockets that stay open: it takes them along."""

import asyncio
import json
import ssl
from asyncio.subprocess import PIPE

from websockets.asyncio.client import connect

from conversations import NODE, PYTHON, backend, program
from gateway import gateway, route
from pages import curl_command, gateway_to_nginx, sha256
from processes import HERE, PATIENCE, environment, output, running, same, workplace
from renewal import Talker

CLIENTS = 50
TAKEOVERS = 3
ECHOES = 5  # of each client, after each takeover
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def open_socket(gate, version, path="/"):
    trust = ssl.create_default_context(cafile=gate.root)
    trust.minimum_version = trust.maximum_version = version
    return connect(gate.url(path, "wss"), ssl=trust, host=gate.address, proxy=None)


async def python_clients_notice_nothing_of_a_takeover():
    """Python's TLS is OpenSSL's, and its messages are deflated."""
    async with backend(PYTHON, True) as (_, url), gateway(route("/", proxy=url)) as gate:
        news = asyncio.Condition()
        talkers = [Talker(await open_socket(gate, VERSIONS[n % 2]), news) for n in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for talker in talkers:
                group.create_task(talker.talk())
            for _ in range(TAKEOVERS):
                moved = await gate.take_over()
                same("sessions moved and left", (moved["sessions_moved"], moved["sessions_left"]), (CLIENTS, 0))
                wanted = [talker.echoes + ECHOES for talker in talkers]
                async with news, asyncio.timeout(PATIENCE):
                    await news.wait_for(lambda: all(t.echoes >= n for t, n in zip(talkers, wanted)))
            for talker in talkers:
                talker.stopped = True
        await gate.log.line(message="session", nth=CLIENTS - 1)
        sessions = gate.log.find(message="session", ended_by="client", close_code=1000)
        same("sessions that their clients have closed", len(sessions), CLIENTS)
        said = sum(line["received_messages"] for line in sessions)
        same("messages", said, sum(talker.echoes for talker in talkers))


async def a_node_client_notices_nothing_of_a_takeover():
    await talk_through_takeovers(*program(NODE, "talker"))


async def libcurl_notices_nothing_of_a_takeover():
    await talk_through_takeovers(*program(PYTHON, "curl_talker"))


async def chromium_notices_nothing_of_a_takeover():
    """The page comes over HTTP/2; its socket may not, or it would stay."""
    listener = 'websocket_over_http2 = "off"'
    async with workplace() as home:
        more = {"profile": f"{home}/profile", "patience": PATIENCE, "act": "chat"}
        there = {"cwd": home, "env": environment(HOME=home, TMPDIR=home)}
        await talk_through_takeovers("node", HERE / "browser.mjs", task=more, listener=listener, **there)


async def talk_through_takeovers(*command, task={}, listener="", **options):
    """A program that talks until its input ends, and says how many echoes it had."""
    async with backend(NODE, True) as (_, url):
        routes = [route("/wss", proxy=url), route("/", service="console")]
        async with gateway(*routes, listener=listener) as gate:
            socket = gate.url("/wss", "wss")
            about = {"url": socket, "address": gate.address, "root": str(gate.root), "page": gate.url("/")}
            command = [*command, json.dumps({**about, **task})]
            async with running(*command, stdin=PIPE, **options) as child:
                for _ in range(TAKEOVERS):
                    await more_echoes(child)
                    moved = await gate.take_over()
                    same("sessions moved", (moved["sessions_moved"], moved["sessions_left"]), (1, 0))
                await more_echoes(child)
                child.process.stdin.close()
                ended = await child.line(code=1000)
            line = await gate.session(ended_by="client", close_code=1000)
            same("the protocol", line["protocol"], "HTTP/1.1")
            same("messages", (line["received_messages"], line["sent_messages"]), (ended["ended"], ended["ended"]))


async def more_echoes(child):
    reports = sum("echoes" in line for line in child.lines)
    await child.line(echoes=10 * (reports + 1))


async def curl_ends_its_download_from_the_old_process():
    """A request under way stays, as long as it takes."""
    async with gateway_to_nginx() as (gate, behind):
        body = gate.directory / "body"
        slowly = ["--limit-rate", "8M", "-o", body, "-w", "%{response_code}"]
        async with asyncio.TaskGroup() as group:
            told = group.create_task(output(*curl_command(gate, "--http1.1", *slowly, gate.url("/large.bin"))))
            async with asyncio.timeout(PATIENCE):
                while not (body.exists() and body.stat().st_size):
                    await asyncio.sleep(0.01)
            await gate.take_over()
        seen = [line["message"] for line in gate.log.lines]
        same("the new process was there before the answer had ended", seen.index("taken over") < seen.index("request"), True)
        same("the status", await told, "200")
        same("the sum", sha256(body.read_bytes()), sha256((behind.files / "large.bin").read_bytes()))


async def openssl_notices_nothing_of_a_takeover():
    """s_client sends frames by hand, and new keys (K, k) on both sides of each takeover."""
    async with backend(PYTHON, False) as (_, url), gateway(route("/", proxy=url)) as gate:
        for option in ("-tls1_3", "-tls1_2"):
            target = ["-connect", f"{gate.address}:{gate.port}", "-servername", "gate.test", "-CAfile", gate.root]
            async with running("openssl", "s_client", *target, option, stdin=PIPE) as child:
                send = child.process.stdin.write
                send(
                    b"GET / HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                await child.line(text="HTTP/1.1 101 Switching Protocols")
                updates = 0
                for number in range(2 * TAKEOVERS):
                    if number % 2 == 1:
                        moved = await gate.take_over()
                        same("sessions moved", moved["sessions_moved"], 1)
                    if option == "-tls1_3":
                        send(b"K\n" if number % 3 else b"k\n")
                        await child.line(nth=updates, text="KEYUPDATE")
                        updates += 1
                    # A text message under a mask of zeros, which ends a line.
                    send(b"\x81\x88\0\0\0\0frame %d\n" % number)
                    await child.line(text=f"\ufffd\x08frame {number}")
