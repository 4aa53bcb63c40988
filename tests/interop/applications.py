"""Applications that are too large for every commit, with the routes of their pages in the book: `applications` installs
them and says where they are."""

import json
import os
import signal
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect

from book import blocks, routes
from gateway import CLIENT, gateway
from howto import client_options
from pages import curl, curl_command
from processes import HERE, PATIENCE, environment, free_port, output, running, same, within, working_in, workplace

ALICE = {"username": "alice", "password": "correct horse"}
PASSWORD = {"password": "a long one"}  # of the page


@asynccontextmanager
async def home_assistant(settings):
    """Home Assistant as long as the block, with these settings beside its address. It can't take over a socket."""
    async with workplace() as home:
        port = free_port()
        config = Path(home) / "configuration.yaml"
        config.write_text(f"{settings}  server_host: 127.0.0.1\n  server_port: {port}\n")
        # Of its first questions all but that for a user are answered: the others ask machines elsewhere.
        answered = {"done": ["core_config", "analytics", "integration"]}
        (Path(home) / ".storage").mkdir()
        (Path(home) / ".storage/onboarding").write_text(json.dumps({"version": 4, "key": "onboarding", "data": answered}))
        # What it would install at run time is there.
        command = [os.environ["HOME_ASSISTANT"], "--skip-pip", "--verbose", "--config", home]
        async with running(*command, cwd=home, env=environment(HOME=home)) as child:
            await child.said("Starting Home Assistant")
            yield child, f"http://127.0.0.1:{port}"


async def home_assistant_is_set_up_and_used_in_a_browser():
    (settings,) = blocks("home-assistant.md", "yaml")
    async with home_assistant(settings) as (child, url), gateway(routes("home-assistant.md", url)) as gate:
        client = gate.url("/")
        user = {"client_id": client, "name": "Alice", "language": "en", **ALICE}
        asked = ["-H", "Content-Type: application/json", "-d", json.dumps(user), gate.url("/api/onboarding/users")]
        code = json.loads(await output(*curl_command(gate, *asked)))["auth_code"]
        grant = ["grant_type=authorization_code", f"code={code}", f"client_id={client}"]
        fields = [word for field in grant for word in ("--data-urlencode", field)]
        token = json.loads(await output(*curl_command(gate, *fields, gate.url("/auth/token"))))["access_token"]
        async with connect(gate.url("/api/websocket", "wss"), **client_options(gate)) as socket:
            same("its greeting", (await receive(socket))["type"], "auth_required")
            await socket.send(json.dumps({"type": "auth", "access_token": token}))
            same("the answer", (await receive(socket))["type"], "auth_ok")
            await socket.send(json.dumps({"id": 1, "type": "get_config"}))
            same("its state", (await receive(socket))["result"]["state"], "RUNNING")
        async with connect(gate.url("/api/websocket", "wss"), **client_options(gate)) as socket:
            await receive(socket)
            await socket.send(json.dumps({"type": "auth", "access_token": "wrong"}))
            same("the answer", (await receive(socket))["type"], "auth_invalid")
        await child.said(f"invalid authentication from {CLIENT}")
        seen = await browse(gate, "homeAssistant", login_form=ALICE)
        within("what the browser shows", seen["text"], "Overview")
        await gate.session(path="/api/websocket", protocol="HTTP/2", ended_by="client")


async def home_assistant_refuses_a_gateway_that_it_does_not_know():
    async with home_assistant("http:\n") as (_, url), gateway(routes("home-assistant.md", url)) as gate:
        same("the status", (await curl(gate, "--http1.1", "/")).status, 400)


async def receive(socket):
    return json.loads(await socket.recv())


async def code_server_stays_connected_through_a_takeover():
    """Chromium opens a folder, and after the takeover a file in it."""
    async with code_server() as (url, folder):
        async with gateway(routes("code-server.md", url), listener='websocket_over_http2 = "off"') as gate:
            async with browsing(gate, "codeServer", f"/?folder={folder}", login_form=PASSWORD) as page:
                await page.line(opened=True)
                moved = await gate.take_over(retires=False)
                same("sessions left", moved["sessions_left"], 0)
                same("sessions moved", moved["sessions_moved"] >= 2, True)
                page.process.stdin.close()
                await shows_the_file(page)


async def code_server_works_below_a_path():
    async with code_server() as (url, folder):
        _, below = blocks("code-server.md", "toml")
        below = below.replace('host = "domain.com"\n', "").replace("http://127.0.0.1:8080", url)
        async with gateway(below) as gate:
            async with browsing(gate, "codeServer", f"/code/?folder={folder}", login_form=PASSWORD) as page:
                await page.line(opened=True)
                page.process.stdin.close()
                await shows_the_file(page)


@asynccontextmanager
async def code_server():
    """code-server as long as the block, and a folder with a file."""
    async with workplace() as home:
        (config,) = blocks("code-server.md", "yaml")
        port = free_port()
        file, folder = Path(home) / "config.yaml", Path(home) / "folder"
        file.write_text(config.replace(":8080", f":{port}"))
        folder.mkdir()
        (folder / "hello.txt").write_text("hello from the server")
        command = [*os.environ["CODE_SERVER"].split(), "--config", file, "--disable-workspace-trust", "--disable-telemetry"]
        async with ended_with(home), running(*command, cwd=home, env=environment(HOME=home)) as child:
            await child.said("HTTP server listening on")
            yield f"http://127.0.0.1:{port}", folder


async def shows_the_file(page):
    seen = await page.line(shows=True)
    within("what the editor shows", seen["text"].replace("\u00a0", " "), "hello from the server")


@asynccontextmanager
async def ended_with(home):
    """Ends what waits in this directory for a window that comes back."""
    try:
        yield
    finally:
        for pid in working_in(home):
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def browsing(gate, act, path="/", **more):
    async with workplace() as home:
        about = {"page": gate.url(path), "address": gate.address, "profile": f"{home}/profile", "patience": PATIENCE}
        task = json.dumps({**about, "act": act, **more})
        there = {"cwd": home, "env": environment(HOME=home, TMPDIR=home)}
        async with running("node", HERE / "browser.mjs", task, stdin=PIPE, **there) as child:
            yield child


async def browse(gate, act, path="/", **more):
    async with browsing(gate, act, path, **more) as child:
        return await child.line(shows=True)


APPLICATIONS = {
    "HOME_ASSISTANT": [
        home_assistant_is_set_up_and_used_in_a_browser,
        home_assistant_refuses_a_gateway_that_it_does_not_know,
    ],
    "CODE_SERVER": [code_server_stays_connected_through_a_takeover, code_server_works_below_a_path],
}
