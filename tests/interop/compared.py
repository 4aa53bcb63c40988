"""The server from which a how-to page leads away, by the configuration on the page, and the gateway by the other one there:
both are asked the same over TLS, as WebSockets, and over plain HTTP.

Where they don't answer alike, DIFFERENCES says so and why; a difference that is not there any more fails, too.
"""

import asyncio
import re
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from book import blocks, routes
from gateway import CLIENT, NAME, gateway
from imported import application
from pages import curl
from pki import Pki
from processes import PATIENCE, Failure, environment, free_port, running, same, workplace

FILES = {"index.html": "<p>the page</p>" * 100, "style.css": "body { color: teal }", "a/index.html": "<p>below</p>"}
FIELDS = ["accept-ranges", "content-encoding", "content-length", "content-type", "location", "vary", "x-powered-by",
          "strict-transport-security"]
UPGRADE = object()
HTTP1, HTTP2 = "--http1.1", "--http2"

# What is asked, by what it is called below: a path, and curl's options for it, or a WebSocket.
FILE_REQUESTS = {
    "/": ("/", []),
    "/index.html": ("/index.html", []),
    "/style.css": ("/style.css", []),
    "a part of /style.css": ("/style.css", ["--range", "0-3"]),
    "the head of /style.css": ("/style.css", ["--head", "-o", "/dev/null"]),
    "a POST to /style.css": ("/style.css", ["-X", "POST"]),
    "/no/such/file": ("/no/such/file", []),
    "/a": ("/a", []),
    "/a/": ("/a/", []),
    "a WebSocket at /style.css": ("/style.css", UPGRADE),
}
WSS_REQUESTS = {
    "a WebSocket at /wss": ("/wss", UPGRADE),
    "a WebSocket at /wss/room?a=b": ("/wss/room?a=b", UPGRADE),
    "a WebSocket at /wssx": ("/wssx", UPGRADE),
}


def requests_below(path):
    return {
        path: (path, []),
        f"{path}/": (f"{path}/", []),
        f"{path}/users?id=1": (f"{path}/users?id=1", []),
        f"a body for {path}/users": (f"{path}/users", ["-d", "x"]),
        f"a DELETE of {path}/users/1": (f"{path}/users/1", ["-X", "DELETE"]),
        f"{path}s": (f"{path}s", []),
        f"a WebSocket at {path}/live": (f"{path}/live", UPGRADE),
    }


# What the gateway does in its own way, on purpose; the pages say so.
POSTED = ({"status": 200}, {"status": 405}, "files are for GET and HEAD; the other sends them whatever the method")
FILE_UPGRADED = ({"status": 200}, {"status": 404}, "a handshake for a file is refused; the other answers it as a request")
SEGMENTS = ({"status": 101}, {"status": 404}, "a path is whole segments")
OWN_PAGE = {
    "/a": (
        {"status": 200, "location": None},
        {"status": 308, "location": "/a/"},
        "a directory is named with its slash; for the others' `try_files` it is no file, so the fallback is sent",
    ),
    "/a/": (
        {"status": 200, "content-length": "1500"},
        {"status": 200, "content-length": "12"},
        "a directory's own page is sent before the fallback",
    ),
}
ITSELF = ({"content-type": "application/json"}, "a path takes itself and what is below it; the other's only what is below")


class Server:
    """What a client has to know of a server, as of a `gateway.Gateway`."""

    def __init__(self, port, root, scheme="https", address="127.0.0.1"):
        self.address, self.port, self.root, self.scheme = address, port, root, scheme

    def url(self, path, scheme=None):
        return f"{scheme or self.scheme}://{NAME}:{self.port}{path}"


class Site:
    """A directory with the files of the site and a certificate, and the ports of the other server. None of them can take
    over a socket for each of its two."""

    def __init__(self, home, pki):
        self.home, self.pki = home, pki
        self.http, self.https = free_port(), free_port()

    def certificate(self):
        """The words of a page for the files, and what they are here."""
        ends = {"fullchain": "crt", "privkey": "key"}
        return {f"/etc/ssl/domain.com/{word}.pem": f"{self.home}/site.{end}" for word, end in ends.items()}

    async def is_open(self):
        """Waits until the server listens at both ports."""
        async with asyncio.timeout(PATIENCE):
            for port in (self.http, self.https):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except ConnectionRefusedError:
                        await asyncio.sleep(0.01)
                        continue
                    writer.close()
                    break

    def servers(self, root=None):
        root = root or self.pki.root
        return Server(self.https, root), Server(self.http, root, "http")

    def block(self, page, language, words):
        """The block of the page, with these words in the place of others."""
        (text,) = blocks(page, language)
        for old, new in words.items():
            if old not in text:
                raise Failure(f"{page} has no {old!r}")
            text = text.replace(old, new)
        return text.replace("domain.com", NAME).replace("/var/www", f"{self.home}/www")


async def compare(page, other, backends, requests, differences, versions=(HTTP1, HTTP2)):
    """`other(site, *backends)` runs the other server in front of so many; both are asked."""
    async with AsyncExitStack() as stack:
        home = Path(await stack.enter_async_context(workplace()))
        for name, text in FILES.items():
            file = home / "www/html" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        pki = Pki(home / "pki")
        await pki.make()
        await pki.issue(home, "site", NAME)
        behind = [await stack.enter_async_context(application()) for _ in range(backends)]
        theirs, theirs_plain = await stack.enter_async_context(other(Site(home, pki), *behind))
        text = routes(page, *(f"http://{address}" for address in behind)).replace("/var/www", f"{home}/www")
        redirect = '[[listener]]\naddress = "127.0.0.2:0"\ntls = false\nredirect = "https"\n'
        ours = await stack.enter_async_context(gateway(text, redirect))
        address, _, port = (await ours.log.line(message="listening", nth=1))["address"].rpartition(":")
        ours_plain = Server(int(port), ours.root, "http", address)
        for version in versions:
            for shown, (path, options) in requests.items():
                ask = upgrade if options is UPGRADE else request
                told, found = [await ask(server, version, path, options) for server in (theirs, ours)]
                if shown not in differences:
                    same(f"{shown}, {version}", found, told)
                    continue
                expect_theirs, expect_ours, _why = differences[shown]
                same(f"{shown}, by the other server", {name: told.get(name) for name in expect_theirs}, expect_theirs)
                same(f"{shown}, by the gateway", {name: found.get(name) for name in expect_ours}, expect_ours)
                if found == told:
                    raise Failure(f"{shown}: this is no difference")
        for path in ("/", "/wss?a=b"):
            for server in (theirs_plain, ours_plain):
                told = await request(server, HTTP1, path, [])
                same(f"where {path} leads without TLS", told["location"], f"https://{NAME}{path}")


async def request(server, version, path, options):
    """The status, the fields that matter, and the body."""
    answer = await curl(server, version, path, *options)
    told = {name: answer.fields[name] for name in FIELDS if name in answer.fields}
    if "content-encoding" in told:
        told.pop("content-length", None)  # each has its own encoder
        told["vary"] = told["vary"].lower()
    else:
        told.pop("vary", None)  # some leave it out where they happen not to compress
    if answer.status == 206:
        told.pop("accept-ranges", None)  # some say it again
    if "content-type" in told:
        told["content-type"] = told["content-type"].split(";")[0]  # only some name a charset
    if "set-cookie" in answer.fields:
        told["set-cookie"] = answer.fields["set-cookie"].split("=")[0]
    if "location" in told:  # whose text is each server's own; some name the port
        where = re.sub(r":\d+", "", told["location"])
        return {"status": answer.status, "location": where}
    if answer.status >= 400:  # as is that of an error
        return {"status": answer.status}
    return {"status": answer.status, **told, "body": re.sub(rb'"host": "[^"]*", ', b"", answer.body)}


async def upgrade(server, _version, path, _options):
    options = dict(ssl=ssl.create_default_context(cafile=server.root), host=server.address, proxy=None)
    try:
        # The application doesn't close as RFC 6455 has it.
        async with connect(server.url(path, "wss"), local_addr=(CLIENT, 0), close_timeout=0, **options) as socket:
            await socket.send("hi")
            return {"status": 101, "echo": await socket.recv()}
    except InvalidStatus as refused:
        return {"status": refused.response.status_code}


NGINX = """
daemon off;
user root; # the user that started it
pid {home}/nginx.pid;
error_log stderr;
events {{}}
http {{
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {block}
}}
"""


@asynccontextmanager
async def nginx(site, chat, api):
    config = site.home / "nginx.conf"
    block = site.block("nginx.md", "nginx", {
        "listen 80": f"listen 127.0.0.1:{site.http}",
        "listen 443": f"listen 127.0.0.1:{site.https}",
        **site.certificate(),
        "127.0.0.1:8282": chat,
        "127.0.0.1:8080": api,
    })
    config.write_text(NGINX.format(home=site.home, block=block))
    async with running("nginx", "-p", site.home, "-c", config, "-e", "stderr"):
        await site.is_open()
        yield site.servers()


APACHE = """
ServerName localhost
ServerRoot /etc/apache2
PidFile {home}/apache.pid
Mutex file:{home} default
ErrorLog /dev/stderr
TypesConfig /etc/mime.types
{modules}
Listen 127.0.0.1:{http}
Listen 127.0.0.1:{https}
{block}
"""
MODULES = "mpm_event authz_core socache_shmcb ssl headers proxy proxy_http proxy_wstunnel rewrite alias dir mime"


@asynccontextmanager
async def apache(site, chat, app):
    config = site.home / "apache.conf"
    block = site.block("apache.md", "apache", {
        "*:80": f"127.0.0.1:{site.http}",
        "*:443": f"127.0.0.1:{site.https}",
        **site.certificate(),
        "127.0.0.1:8282": chat,
        "127.0.0.1:8080": app,
    })
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in MODULES.split())
    config.write_text(APACHE.format(home=site.home, http=site.http, https=site.https, modules=modules, block=block))
    async with running("apache2", "-D", "FOREGROUND", "-f", config):
        await site.is_open()
        yield site.servers()


# What the package has in its own file.
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
"""


@asynccontextmanager
async def haproxy(site, *servers):
    certs = site.home / "haproxy"
    certs.mkdir()
    (certs / "site.pem").write_text((site.home / "site.crt").read_text() + (site.home / "site.key").read_text())
    config = site.home / "haproxy.cfg"
    config.write_text(HAPROXY + site.block("haproxy.md", "haproxy", {
        "bind :80": f"bind 127.0.0.1:{site.http}",
        "bind :443": f"bind 127.0.0.1:{site.https}",
        "/etc/haproxy/certs/": f"{certs}/",
        **dict(zip(("10.0.0.11:8282", "10.0.0.12:8282", "10.0.0.21:8080"), servers)),
    }))
    async with running("haproxy", "-db", "-f", config):
        await site.is_open()
        yield site.servers()


# Its certificates from an authority of its own.
CADDY = """\
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


@asynccontextmanager
async def caddy(site, chat, api):
    config = site.home / "Caddyfile"
    block = site.block("caddy.md", "caddyfile", {"127.0.0.1:8282": chat, "127.0.0.1:8080": api})
    config.write_text(CADDY.format(http=site.http, https=site.https, home=site.home) + block)
    there = environment(HOME=site.home, XDG_DATA_HOME=site.home, XDG_CONFIG_HOME=site.home)
    async with running("caddy", "run", "--config", config, "--adapter", "caddyfile", env=there) as child:
        await child.said("certificate obtained successfully")
        await site.is_open()
        yield site.servers(site.home / "caddy/pki/authorities/local/root.crt")


async def nginx_and_the_gateway_by_its_page_answer_alike():
    await compare("nginx.md", nginx, 2, FILE_REQUESTS | WSS_REQUESTS | requests_below("/api"), {
        **OWN_PAGE,
        "/api": ({"status": 301, "location": f"https://{NAME}/api/"}, *ITSELF),
        "a WebSocket at /wssx": SEGMENTS,
        "a WebSocket at /api/live": ({"status": 200}, {"status": 101}, "WebSockets pass each route with `proxy`"),
        "a WebSocket at /style.css": FILE_UPGRADED,
    })


async def apache_and_the_gateway_by_its_page_answer_alike():
    await compare("apache.md", apache, 2, FILE_REQUESTS | WSS_REQUESTS | requests_below("/app"), {
        "/a": (
            {"status": 301, "location": f"https://{NAME}/a/"},
            {"status": 308, "location": "/a/"},
            "a redirect keeps the method, and the name that the client has used",
        ),
        "/app": ({"status": 404}, *ITSELF),
        "a POST to /style.css": POSTED,
        "a WebSocket at /style.css": FILE_UPGRADED,
    }, [HTTP1])


async def haproxy_and_the_gateway_by_its_page_answer_alike():
    await compare("haproxy.md", haproxy, 3, requests_below("/chat"), {
        "/chats": ({"set-cookie": "SERVER"}, {"set-cookie": None}, "a path is whole segments; `path_beg` is a part of one, too"),
    })


async def caddy_and_the_gateway_by_its_page_answer_alike():
    compressed = {"/ compressed": ("/", ["--compressed"])}
    await compare("caddy.md", caddy, 2, FILE_REQUESTS | compressed | WSS_REQUESTS | requests_below("/api"), {
        **OWN_PAGE,
        "/api": ({"content-type": "text/html"}, *ITSELF),
        "a POST to /style.css": POSTED,
        "a WebSocket at /wssx": SEGMENTS,
        "a WebSocket at /style.css": FILE_UPGRADED,
    })
