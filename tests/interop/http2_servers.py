"""Servers over HTTP/2 behind the gateway: nginx, Apache, Node's http2, hypercorn, and gRPC with its own clients."""

import json
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import grpc.aio
from websockets.asyncio.client import connect

import pages
from conversations import CLOSES, NODE, PYTHON, backend, program
from gateway import CLIENT, NAME, gateway, route
from pki import Pki
from processes import HERE, Failure, environment, free_port, output, running, same

VERSIONS = ["--http1.1", "--http2"]


async def nginx_is_asked_over_http2():
    for version in VERSIONS:
        await pages.get_files(version, "h2")
        await pages.post(version, "h2")
        await pages.keep(version, "h2")


@asynccontextmanager
async def node(*arguments):
    """A server made of Node's http2, and its address."""
    async with running("node", HERE / "http2_backend.mjs", *arguments) as child:
        port = (await child.line())["port"]
        yield child, f"http://127.0.0.1:{port}"


async def node_serves_requests_over_http2():
    async with node("websockets") as (behind, url), gateway(route("/", proxy=url, protocol="h2")) as gate:
        for version in VERSIONS:
            answer = await pages.curl(gate, version, "/a?b")
            answer.has(200, x_method="GET")
            same("the body", answer.body, b"/a\n")
            posted = gate.directory / "posted"
            posted.write_bytes(b"x" * 3_000_000)
            answer = await pages.curl(gate, version, "/a", "-H", "Expect:", "--data-binary", f"@{posted}")
            same("what comes back", answer.body, posted.read_bytes())
        same("connections", len([line for line in behind.lines if "session" in line]), 1)


async def node_serves_websockets_over_http2():
    for language in (PYTHON, NODE):
        async with node("websockets") as (behind, url), gateway(route("/", proxy=url, protocol="h2")) as gate:
            await converse(language, gate)
            opened = [line for line in behind.lines if "opened" in line]
            same("streams", {line["headers"][":method"] for line in opened}, {"CONNECT"})
            same("connections", len([line for line in behind.lines if "session" in line]), 1)


async def converse(language, gate, closes=CLOSES):
    """The conversation of the other scenarios with WebSockets, without compression."""
    task = {
        "url": gate.url("", "wss"),
        "address": gate.address,
        "root": str(gate.root),
        "client": CLIENT,
        "deflate": False,
        "closes": closes,
    }
    seen = json.loads(await output(*program(language, "client"), json.dumps(task)))
    same("the subprotocol", seen["talk"]["subprotocol"], "chat.v1")
    for closed in seen["closes"]:
        same("the Close of the client", closed["seen"]["client"], [closed["code"], closed["reason"]])
        same("the Close of the server", closed["seen"]["backend"], [closed["code"], closed["reason"]])


async def hypercorn_serves_requests_and_websockets_behind_tls():
    with TemporaryDirectory(prefix="interop-") as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "app", "app.internal")
        command = [sys.executable, "-m", "hypercorn", "--bind", "127.0.0.1:0", "--certfile", directory / "certs/app.crt"]
        command += ["--keyfile", directory / "certs/app.key", "asgi:app"]
        async with running(*command, cwd=HERE, env=environment(PYTHONUNBUFFERED="1")) as child:
            url = await address(child)
            tls = f'[route.tls]\nca = "{pki.root}"\nserver_name = "app.internal"\n'
            async with gateway(route("/", proxy=url, protocol="h2") + tls) as gate:
                for version in VERSIONS:
                    answer = await pages.curl(gate, version, "/", "--data-binary", "hello")
                    answer.has(200, x_version="2")
                    same("the body", answer.body, b"hello")
                context = ssl.create_default_context(cafile=gate.root)
                options = {"ssl": context, "host": gate.address, "proxy": None, "compression": None, "max_size": None}
                async with connect(gate.url("/", "wss"), **options) as websocket:
                    same("the version", websocket.response.headers["x-version"], "2")
                    for message in ["tom", "x" * 500_000, b"\0" * 500_000]:
                        await websocket.send(message)
                        same("an echo", await websocket.recv(), message)


APACHE = """
ServerName origin.test
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/pid
ErrorLog /dev/stderr
LogLevel notice
User www-data
Group www-data
{modules}
Listen 127.0.0.1:{port} https
Protocols h2 http/1.1
H2WebSockets {websockets}
SSLEngine on
SSLCertificateFile {directory}/certs/app.crt
SSLCertificateKeyFile {directory}/certs/app.key
DocumentRoot {directory}/www
<Directory {directory}/www>
    Require all granted
</Directory>
Header always set X-Version "expr=%{{SERVER_PROTOCOL}}"
ProxyPass /files !
ProxyPass / {behind}/ upgrade=websocket
"""
APACHE_MODULES = ["mpm_event", "authz_core", "ssl", "http2", "headers", "proxy", "proxy_http", "socache_shmcb"]


@asynccontextmanager
async def apache(behind, websockets):
    """Apache behind TLS, in front of a backend for WebSockets. It can't take over a socket, so a free port is looked for."""
    with TemporaryDirectory(prefix="interop-") as directory:
        directory = Path(directory)
        directory.chmod(0o755)  # its children are another user's
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "app", "app.internal")
        files = directory / "www/files"
        files.mkdir(parents=True)
        (files / "large").write_bytes(b"x" * 3_000_000)
        port = free_port()
        modules = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES]
        config = directory / "apache2.conf"
        values = {"directory": directory, "port": port, "behind": behind, "websockets": websockets}
        config.write_text(APACHE.format(modules="\n".join(modules), **values))
        async with running("apache2", "-DFOREGROUND", "-f", config) as child:
            await started(child)
            tls = f'[route.tls]\nca = "{pki.root}"\nserver_name = "app.internal"\n'
            yield f"https://127.0.0.1:{port}", tls


async def started(child):
    for n in range(20):
        if "resuming normal operations" in (await child.line(nth=n)).get("text", ""):
            return
    raise Failure("Apache doesn't start")


async def apache_serves_requests_and_websockets(protocol, websockets):
    """Each of both kinds of WebSockets towards Apache, which passes them on to a backend of ours."""
    async with backend(PYTHON, False) as (behind, url), apache(url, websockets) as (origin, tls):
        async with gateway(route("/", proxy=origin, protocol=protocol) + tls) as gate:
            for version in VERSIONS:
                answer = await pages.curl(gate, version, "/files/large")
                answer.has(200, x_version="HTTP/2.0" if protocol == "h2" else "HTTP/1.1")
                same("the body", answer.body, b"x" * 3_000_000)
            # Over HTTP/2 Apache loses what comes with the end of a stream: the client's answer to a Close.
            closes = CLOSES if websockets == "off" else []
            for language in (PYTHON, NODE):
                await converse(language, gate, closes)
            line = await gate.session(path="/talk")
            over_http2 = "HTTP/2" if (protocol, websockets) == ("h2", "on") else None
            same("the protocol towards Apache", line.get("backend_protocol"), over_http2)


async def apache_serves_requests_and_websockets_over_http2():
    await apache_serves_requests_and_websockets("h2", "on")


async def apache_serves_requests_over_http2_and_websockets_over_http1():
    await apache_serves_requests_and_websockets("h2", "off")


async def apache_serves_requests_and_websockets_over_http1():
    await apache_serves_requests_and_websockets("http/1.1", "off")


async def address(child):
    """Where hypercorn says that it listens."""
    for n in range(20):
        line = (await child.line(nth=n)).get("text", "")
        if " on https://" in line:
            return line.split(" on ")[1].split()[0]
    raise Failure("hypercorn doesn't say where it listens")


async def grpc_calls_of_all_kinds_pass():
    async with running(sys.executable, HERE / "grpc_server.py") as child:
        port = (await child.line())["port"]
        async with gateway(route("/", proxy=f"http://127.0.0.1:{port}", protocol="h2")) as gate:
            credentials = grpc.ssl_channel_credentials(gate.root.read_bytes())
            options = [("grpc.ssl_target_name_override", NAME), ("grpc.enable_http_proxy", 0)]
            async with grpc.aio.secure_channel(f"{gate.address}:{gate.port}", credentials, options) as channel:
                await calls(channel)


async def calls(channel):
    call = channel.unary_unary("/interop.Test/Unary")(b"hello", metadata=(("x-sent", "5"),))
    same("the answer", await call, b"HELLO")
    same("metadata before", dict(await call.initial_metadata()).get("x-seen"), "5")
    same("metadata behind", dict(await call.trailing_metadata()).get("x-last"), "unary")
    try:
        await channel.unary_unary("/interop.Test/Unary")(b"fail")
        raise Failure("a call that fails has succeeded")
    except grpc.aio.AioRpcError as error:
        same("the status", (error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "as it was asked: 5 €"))
    large = b"x" * 3_000_000
    same("a large answer", await channel.unary_unary("/interop.Test/Unary")(large), large.upper())

    numbers = [answer async for answer in channel.unary_stream("/interop.Test/Answers")(b"1000")]
    same("a stream of answers", numbers, [b"%d" % n for n in range(1000)])

    async def messages():
        for _ in range(1000):
            yield b"12345"

    same("a stream of requests", await channel.stream_unary("/interop.Test/Requests")(messages()), b"5000")

    call = channel.stream_stream("/interop.Test/Both")()
    for n in range(100):
        await call.write(b"%d" % n)
        same("one after the other", await call.read(), b"%d" % n)
    await call.done_writing()
    same("behind the client's end", await call.read(), b"the client has said all")
    same("the end", await call.read(), grpc.aio.EOF)
    same("the status", await call.code(), grpc.StatusCode.OK)

    call = channel.stream_stream("/interop.Test/Both")()
    await call.write(b"one")
    await call.read()
    call.cancel()
    same("another call", await channel.unary_unary("/interop.Test/Unary")(b"still"), b"STILL")
