"""Caddy by the Caddyfile of its how-to page, and the gateway by the configuration there: both are asked the same.

Where they don't answer alike, DIFFERENCES says so and why; a difference that is not there any more fails, too.
"""

import re
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from book import blocks, routes
from conversations import PYTHON, backend
from gateway import CLIENT, NAME, gateway
from imported import application
from pages import curl
from processes import environment, free_port, running, same, workplace

# Its certificates from an authority of its own, and ports above 1024.
OPTIONS = """\
{{
    admin off
    http_port {http}
    https_port {https}
    default_bind 127.0.0.1
    local_certs
    skip_install_trust
    storage file_system {home}/caddy
}}
"""
FILES = {"index.html": "<p>the page</p>" * 100, "style.css": "body { color: teal }", "a/index.html": "<p>below</p>"}
FIELDS = ["accept-ranges", "content-encoding", "content-length", "content-type", "location", "vary", "x-powered-by"]
UPGRADE = object()

# What is asked, by what it is called below: a path, and curl's options for it, or a WebSocket. `http` is the other port.
REQUESTS = {
    "/": ("/", []),
    "/index.html": ("/index.html", []),
    "/style.css": ("/style.css", []),
    "a part of /style.css": ("/style.css", ["--range", "0-3"]),
    "the head of /style.css": ("/style.css", ["--head", "-o", "/dev/null"]),
    "a POST to /style.css": ("/style.css", ["-X", "POST"]),
    "/ compressed": ("/", ["--compressed"]),
    "/no/such/file": ("/no/such/file", []),
    "/a": ("/a", []),
    "/a/": ("/a/", []),
    "/api": ("/api", []),
    "/api/": ("/api/", []),
    "/api/users?id=1": ("/api/users?id=1", []),
    "a body for /api/users": ("/api/users", ["-d", "x"]),
    "a DELETE of /api/users/1": ("/api/users/1", ["-X", "DELETE"]),
    "/apis": ("/apis", []),
    "a WebSocket at /wss": ("/wss", UPGRADE),
    "a WebSocket at /wss/room?a=b": ("/wss/room?a=b", UPGRADE),
    "a WebSocket at /wssx": ("/wssx", UPGRADE),
    "a WebSocket at /api/live": ("/api/live", UPGRADE),
    "a WebSocket at /style.css": ("/style.css", UPGRADE),
}
REDIRECTS = ["/", "/wss?a=b", "/api/users"]

DIFFERENCES = {
    "a POST to /style.css": (
        {"status": 200},
        {"status": 405},
        "files are for GET and HEAD; Caddy sends them whatever the method",
    ),
    "/a": (
        {"status": 200, "location": None},
        {"status": 308, "location": "/a/"},
        "a directory is named with its slash; Caddy's `{path}` is a file, and not this directory",
    ),
    "/a/": (
        {"status": 200, "content-length": "1500"},
        {"status": 200, "content-length": "12"},
        "a directory's own page is sent before the fallback",
    ),
    "/api": (
        {"content-type": "text/html; charset=utf-8"},
        {"content-type": "application/json"},
        "a path takes itself and what is below it; Caddy's `/api/*` only what is below",
    ),
    "a WebSocket at /wssx": (
        {"status": 101},
        {"status": 404},
        "a path is whole segments",
    ),
    "a WebSocket at /style.css": (
        {"status": 200},
        {"status": 404},
        "a handshake for a file is refused; Caddy answers it as a request",
    ),
}


class Server:
    """What a client has to know of a server, as of a `gateway.Gateway`."""

    def __init__(self, address, port, root, scheme="https"):
        self.address, self.port, self.root, self.scheme = address, port, root, scheme

    def url(self, path, scheme=None):
        return f"{scheme or self.scheme}://{NAME}:{self.port}{path}"


@asynccontextmanager
async def caddy(home, chat, api):
    """Caddy as its page has it; its port for TLS and the other one."""
    (site,) = blocks("caddy.md", "caddyfile")
    for old, new in {"domain.com": NAME, "127.0.0.1:8282": chat, "127.0.0.1:8080": api, "/var/www": f"{home}/www"}.items():
        site = site.replace(old, new)
    http, https = free_port(), free_port()
    (home / "Caddyfile").write_text(OPTIONS.format(http=http, https=https, home=home) + site)
    command = ["caddy", "run", "--config", home / "Caddyfile", "--adapter", "caddyfile"]
    async with running(*command, env=environment(HOME=home, XDG_DATA_HOME=home, XDG_CONFIG_HOME=home)) as child:
        await child.said("certificate obtained successfully")
        await child.line(msg="serving initial configuration")
        root = home / "caddy/pki/authorities/local/root.crt"
        yield Server("127.0.0.1", https, root), Server("127.0.0.1", http, root, "http")


async def caddy_and_the_gateway_by_its_page_answer_alike():
    async with backend(PYTHON, False) as (_, chat), application() as api, workplace() as home:
        home = Path(home)
        for name, text in FILES.items():
            file = home / "www/html" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        text = routes("caddy.md", chat, f"http://{api}").replace("/var/www", f"{home}/www")
        redirect = '[[listener]]\naddress = "127.0.0.2:0"\ntls = false\nredirect = "https"\n'
        async with caddy(home, chat.removeprefix("http://"), api) as theirs, gateway(text, redirect) as gate:
            second = (await gate.log.line(message="listening", nth=1))["address"]
            address, _, port = second.rpartition(":")
            await compare(theirs, (gate, Server(address, int(port), gate.root, "http")))


async def compare(theirs, ours):
    for version in ("--http1.1", "--http2"):
        for shown, (path, options) in REQUESTS.items():
            if options is UPGRADE:
                told, found = await upgrade(theirs[0], path), await upgrade(ours[0], path)
            else:
                told, found = [await request(server, version, path, options) for server in (theirs[0], ours[0])]
            if shown not in DIFFERENCES:
                same(f"{shown}, {version}", found, told)
                continue
            expect_theirs, expect_ours, _why = DIFFERENCES[shown]
            same(f"{shown}, by Caddy", {name: told.get(name) for name in expect_theirs}, expect_theirs)
            same(f"{shown}, by the gateway", {name: found.get(name) for name in expect_ours}, expect_ours)
    for path in REDIRECTS:
        told, found = [await request(server, "--http1.1", path, []) for server in (theirs[1], ours[1])]
        same(f"{path} without TLS", found, told)
        same("where it leads", told["location"], f"https://{NAME}{path}")


async def request(server, version, path, options):
    """The status, the fields that matter, and the body."""
    answer = await curl(server, version, path, *options)
    told = {name: answer.fields[name] for name in FIELDS if name in answer.fields}
    if "content-encoding" in told:
        told.pop("content-length", None)  # each has its own encoder
        told["vary"] = told["vary"].lower()
    else:
        told.pop("vary", None)  # Caddy leaves it out where it happens not to compress
    if "location" in told:  # whose text is each server's own; Caddy doesn't name a port
        return {"status": answer.status, "location": re.sub(r":\d+", "", told["location"])}
    return {"status": answer.status, **told, "body": answer.body.replace(f":{server.port}".encode(), b"")}


async def upgrade(server, path):
    options = dict(ssl=ssl.create_default_context(cafile=server.root), host=server.address, proxy=None)
    try:
        # The application doesn't close as RFC 6455 has it.
        async with connect(server.url(path, "wss"), local_addr=(CLIENT, 0), close_timeout=0, **options) as socket:
            await socket.send("hi")
            return {"status": 101, "echo": await socket.recv()}
    except InvalidStatus as refused:
        return {"status": refused.response.status_code}
