"""Software behind the gateway, as the how-to pages of the book say: each with the routes and settings of its page."""

import json
import re
import ssl
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import jupyter_server
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from book import blocks, routes
from conversations import PYTHON, backend
from gateway import CLIENT, NAME, gateway
from pages import curl_command
from processes import HERE, Failure, environment, free_port, output, running, same, within, workplace
from servers import listening

CLIENTS = 6


def client_options(gate):
    return dict(ssl=ssl.create_default_context(cafile=gate.root), host=gate.address, proxy=None, local_addr=(CLIENT, 0))


@asynccontextmanager
async def node(script, *words):
    async with running("node", HERE / script, *words) as child:
        port = (await child.line())["port"]
        yield f"http://127.0.0.1:{port}"


async def ask_node(script, gate, path, scheme="https", **more):
    task = {"url": gate.url(path, scheme), "address": gate.address, "root": str(gate.root), "clients": CLIENTS, **more}
    there = environment(NODE_EXTRA_CA_CERTS=gate.root)
    return json.loads(await output("node", HERE / script, json.dumps(task), env=there))


async def socket_io_polls_and_upgrades_at_one_of_two_servers():
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(node("socketio_server.mjs", name)) for name in ("one", "two")]
        async with gateway(routes("socketio.md", *servers)) as gate:
            talked = await ask_node("socketio_client.mjs", gate, "")
            same("clients", len(talked), CLIENTS)
            same("transports", {tuple(client["transports"]) for client in talked}, {("polling", "websocket")})
            same("who has answered", {client["by"] for client in talked}, {"one", "two"})
            same("the client's address", {client["address"] for client in talked}, {"127.0.0.1"})
            await gate.log.line(message="session", nth=CLIENTS - 1)
            same("sessions", len(gate.log.find(message="session", path="/socket.io/")), CLIENTS)


async def signalr_negotiates_and_opens_at_one_of_two_servers():
    await talk_to_hubs("any", {"WebSocketTransport"})


async def signalr_reads_event_streams():
    await talk_to_hubs("events", {"ServerSentEventsTransport"})


async def signalr_falls_back_to_polling():
    await talk_to_hubs("any", {"LongPollingTransport"}, "polling")


async def signalr_skips_the_negotiation_where_nothing_is_sticky():
    await talk_to_hubs("skip", {"WebSocketTransport"}, is_sticky=False)


async def signalr_needs_one_of_the_two():
    """Its connection is known to the server that has negotiated, and not to the other one."""
    await talk_to_hubs("any", {None}, is_sticky=False)


async def talk_to_hubs(way, transports, *only, is_sticky=True):
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(node("signalr_server.mjs", name, *only)) for name in ("one", "two")]
        text = routes("signalr.md", *servers)
        if not is_sticky:
            text = re.sub("^sticky = .*\n", "", text, flags=re.M)
        async with gateway(text) as gate:
            talked = await ask_node("signalr_client.mjs", gate, "/hub", way=way)
            same("transports", {client["transport"] for client in talked}, transports)
            if None in transports:
                return
            same("what they heard", [client["text"] for client in talked], [f"hello {n}" for n in range(CLIENTS)])
            same("who has answered", {client["by"] for client in talked}, {"one", "two"})
            same("what the servers know", {(c["address"], c["scheme"]) for c in talked}, {("127.0.0.1", "https")})
            if "WebSocketTransport" in transports:
                await gate.log.line(message="session", path="/hub", nth=CLIENTS - 1)


async def phoenix_joins_over_a_websocket():
    talked, gate = await talk_to_phoenix("websocket")
    expected = [{"address": "127.0.0.1", "scheme": "https", "text": f"hello {n}", "bytes": [n, 0, 255], "beaten": True}
                for n in range(CLIENTS)]
    same("what the clients heard", talked, expected)
    same("sessions", len(gate.log.find(message="session", path="/socket/websocket", ended_by="client")), CLIENTS)


async def phoenix_polls():
    talked, gate = await talk_to_phoenix("polling")
    expected = [{"address": "127.0.0.1", "scheme": "https", "text": f"hello {n}"} for n in range(CLIENTS)]
    same("what the clients heard", talked, expected)
    same("sessions", gate.log.find(message="session"), [])


async def phoenix_refuses_pages_of_other_origins():
    talked, _ = await talk_to_phoenix("websocket", "https://other.example")
    same("what the clients heard", talked, [{"failure": "refused"}] * CLIENTS)


async def talk_to_phoenix(way, origin=f"https://{NAME}"):
    """`check_origin` of the page, with this name in the place of its."""
    (settings,) = blocks("phoenix.md", "elixir")
    checked = re.search('check_origin: \\["(.*)"\\]', settings)[1].replace("domain.com", NAME)
    async with node("phoenix_server.mjs", checked) as server, gateway(routes("phoenix.md", server)) as gate:
        return await ask_node("phoenix_client.mjs", gate, "/socket", "wss", way=way, origin=origin), gate


async def graphql_subscriptions_run_beside_queries():
    async with node("graphql_server.mjs") as server, gateway(routes("graphql.md", server)) as gate:
        query = ["-H", "Content-Type: application/json", "-d", '{"query":"{ hello }"}']
        said = await output(*curl_command(gate, *query, gate.url("/graphql")))
        same("the answer to a query", json.loads(said), {"data": {"hello": "tom"}})
        seen = await ask_node("graphql_client.mjs", gate, "/graphql", "wss")
        same("what was subscribed to", seen, {"counts": [1, 2, 3], "protocol": "graphql-transport-ws"})
        await gate.session(path="/graphql", ended_by="client")


async def django_channels_serves_requests_and_websockets():
    async with listening() as (directory, taken, _):
        there = environment(PYTHONPATH=HERE, NAME=NAME)
        command = [sys.executable, "-m", "daphne", "--fd", taken.fileno(), "--proxy-headers", "channels_app:application"]
        port = taken.getsockname()[1]
        async with running(*command, pass_fds=[taken.fileno()], cwd=directory, env=there):
            taken.close()
            text = routes("django-channels.md", f"http://127.0.0.1:{port}")
            static = Path(directory) / "static"
            static.mkdir()
            (static / "style.css").write_text("p { color: teal }")
            async with gateway(text.replace("/srv/app/static", str(static))) as gate:
                said = json.loads(await output(*curl_command(gate, gate.url("/whoami"))))
                same("what Django knows of the client", said, {"client": CLIENT, "secure": True})
                style = await output(*curl_command(gate, gate.url("/static/style.css")))
                same("a static file", style, "p { color: teal }")
                url, options = gate.url("/ws/chat/lobby/", "wss"), client_options(gate)
                async with connect(url, origin=gate.url(""), **options) as socket:
                    await socket.send("hello")
                    answer = {"text": "hello", "client": CLIENT, "room": "lobby"}
                    same("what the consumer answers", json.loads(await socket.recv()), answer)
                try:
                    async with connect(url, origin="https://other.test", **options):
                        raise Failure("a page of another origin is let in")
                except InvalidStatus as refused:
                    same("the status for another origin", refused.response.status_code, 403)


async def jupyter_runs_code_in_a_kernel():
    port, token = free_port(), "t0ken"
    async with workplace() as home:
        (settings,) = blocks("jupyter.md", "python")
        settings = settings.replace("8888", f"{port}").replace("domain.com", NAME)
        config = Path(home) / "jupyter_server_config.py"
        config.write_text(settings)
        there = environment(HOME=home, JUPYTER_PLATFORM_DIRS="1", PYTHONPYCACHEPREFIX=home)
        words = ["--allow-root", "--no-browser", "--ServerApp.log_format=%(message)s", f"--IdentityProvider.token={token}"]
        async with running(sys.executable, "-m", "jupyter_server", f"--config={config}", *words, cwd=home, env=there) as server:
            await server.line(text=f"Jupyter Server {jupyter_server.__version__} is running at:")
            async with gateway(routes("jupyter.md", f"http://127.0.0.1:{port}")) as gate:
                field = f"Authorization: token {token}"
                refused = await output(*curl_command(gate, gate.url("/jupyter/api/kernels")))
                within("without a token", refused, "Forbidden")
                begun = ["-H", field, "-X", "POST", gate.url("/jupyter/api/kernels")]
                kernel = json.loads(await output(*curl_command(gate, *begun)))["id"]
                url = gate.url(f"/jupyter/api/kernels/{kernel}/channels", "wss")
                more = {"Authorization": f"token {token}"}
                async with connect(url, additional_headers=more, origin=gate.url(""), **client_options(gate)) as socket:
                    await socket.send(json.dumps(execute("6 * 7")))
                    same("the result", await result(socket), "42")
                await output(*curl_command(gate, "-H", field, "-X", "DELETE", gate.url(f"/jupyter/api/kernels/{kernel}")))


def execute(code):
    header = {"msg_id": "1", "username": "", "session": "1", "msg_type": "execute_request", "version": "5.3", "date": ""}
    content = {"code": code, "silent": False, "allow_stdin": False}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}


async def result(socket):
    async for text in socket:
        message = json.loads(text)
        if message["msg_type"] == "execute_result":
            return message["content"]["data"]["text/plain"]


NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
user root; # the user that started it
events {{}}
http {{
    access_log off;
    proxy_temp_path {directory}/proxy;
    server {{
        listen {address};
        {location}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
frontend public
    bind fd@{fd}
    default_backend chat
{backend}
"""


async def nginx_passes_websockets_on_to_a_unix_socket():
    def command(directory, fd, address, inner):
        (location,) = blocks("behind-nginx.md", "nginx")
        config = directory / "nginx.conf"
        location = location.replace("/run/wssgate/http.sock", inner)
        config.write_text(NGINX.format(directory=directory, address=address, location=location))
        return ["nginx", "-p", directory, "-c", config, "-e", "stderr"], environment(NGINX=f"{fd};")

    await in_front_of_a_unix_socket(command)


async def haproxy_passes_websockets_on_to_a_unix_socket():
    def command(directory, fd, _, inner):
        (backend,) = blocks("behind-nginx.md", "haproxy")
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(fd=fd, backend=backend.replace("/run/wssgate/http.sock", inner)))
        return ["haproxy", "-db", "-f", config], None

    await in_front_of_a_unix_socket(command)


async def in_front_of_a_unix_socket(command):
    """The page's gateway, with its listener beside that of the scenario, behind a proxy that is set up as the page says."""
    (whole,) = blocks("behind-nginx.md", "toml")
    top, listener = whole[: whole.index("[[")], whole[whole.index("[[listener]]") : whole.index("[[route]]")]
    async with listening() as (directory, taken, address), backend(PYTHON, True) as (behind, url):
        inner = f"{directory}/http.sock"
        parts = [listener.replace("/run/wssgate/http.sock", inner), routes("behind-nginx.md", url)]
        async with gateway(*parts, top=top) as gate:
            words, there = command(directory, taken.fileno(), address, inner)
            async with running(*words, pass_fds=[taken.fileno()], env=there):
                taken.close()
                url = f"ws://{address}/wss"
                async with connect(url, proxy=None, local_addr=(CLIENT, 0)) as socket:
                    await socket.send("hello")
                    same("the echo", await socket.recv(), "hello")
                opened = await behind.line(opened="/wss")
                same("the client's address", opened["headers"]["x-real-ip"], CLIENT)
                line = await gate.session(path="/wss")
                same("the client and the peer", (line["client"], line["peer"]), (CLIENT, "unix"))
