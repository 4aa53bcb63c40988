"""nginx and Apache by their files, and the gateway by what `wssgate import` makes of each: both are asked the same, and
answer alike.

Where they don't, DIFFERENCES says so and why; a difference that is not there any more fails, too.
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import php
from http2_servers import started
from processes import HERE, PATIENCE, Failure, environment, free_port, output, running, same, workplace

FIXTURES = HERE.parent / "import"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ALICE = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
# What a script is told, as far as it is the same for both.
SCRIPT = """<?php
header("Content-Type: application/json");
$told = [];
foreach (["SCRIPT_NAME", "SCRIPT_FILENAME", "DOCUMENT_ROOT", "REQUEST_URI", "QUERY_STRING", "REQUEST_METHOD"] as $name) {
    $told[$name] = $_SERVER[$name];
}
echo json_encode([$told, $_POST]);
"""
FILES = {
    "www/index.html": "<p>the page</p>",
    "www/style.css": "body {}",
    "assets/logo.txt": "a logo",
    "php/index.php": SCRIPT,
    "php/tool.php": SCRIPT,
    "php/blog/index.php": SCRIPT,
    "php/uploads/evil.php": SCRIPT,
    "php/style.css": "body {}",
    "php/.htaccess": "secret",
    "php/.well-known/x.txt": "well known",
    "htpasswd": "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n",
}
# RFC 6455 §1.3
KEY, GUID = "dGhlIHNhbXBsZSBub25jZQ==", "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
# A text frame with `hi`, with the mask 0 and without one.
HELLO, ECHO = b"\x81\x82\0\0\0\0hi", b"\x81\x02hi"
FIELDS = ["location", "x-frame-options", "x-app", "x-powered-by", "cache-control", "www-authenticate", "retry-after"]


@dataclass
class Ask:
    """One request."""

    url: str
    method: str = "GET"
    fields: dict = None
    body: bytes = b""


@dataclass
class Told:
    """What came of it, as far as it matters."""

    status: int
    fields: dict
    # None: the text of an error, which is each server's own.
    body: bytes | None


@asynccontextmanager
async def application():
    """A server that says what it was asked, and echoes WebSockets."""

    async def answer(reader, writer):
        try:
            while head := await read_head(reader):
                line, fields = head
                method, path, _ = line.split(" ")
                await reader.readexactly(int(fields.get("content-length", 0)))
                if fields.get("upgrade") == "websocket":
                    digest = hashlib.sha1((fields["sec-websocket-key"] + GUID).encode()).digest()
                    accept = base64.b64encode(digest).decode()
                    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                 f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
                    frame = await reader.readexactly(len(HELLO))
                    text = bytes(byte ^ frame[2 + i % 4] for i, byte in enumerate(frame[6:]))
                    writer.write(ECHO[:2] + text)
                    await writer.drain()
                    await reader.read()
                    return
                seen = {name: fields.get(name) for name in ("host", "x-env")}
                body = json.dumps({"method": method, "path": path, **seen}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Powered-By: tests\r\n"
                             b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def read_head(reader):
    """The first line and the fields, their names in small letters; None at the end."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = text.strip().split("\r\n")
    pairs = [field.split(":", 1) for field in fields]
    return line, {name.lower(): value.strip() for name, value in pairs}


async def ask(address, request):
    """Asks the server at this address."""
    url = urlsplit(request.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    fields = {"Host": url.netloc, "Connection": "close", **(request.fields or {})}
    if request.body:
        fields["Content-Length"] = str(len(request.body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(f"{request.method} {target} HTTP/1.1\r\n{head}\r\n".encode() + request.body)
            line, answered = await read_head(reader)
            status = int(line.split(" ")[1])
            if status == 101:
                writer.write(HELLO)
                body = await reader.readexactly(len(ECHO))
            else:
                body = await read_body(reader, answered, request.method != "HEAD")
    finally:
        writer.close()
    if "location" in answered:
        # Whole or not, with the port of the server or without.
        whole = urlsplit(urljoin(request.url, answered["location"]))
        answered["location"] = whole._replace(netloc=whole.hostname).geturl()
    told = {name: answered[name] for name in FIELDS if name in answered}
    if "x-powered-by" in told:
        told["x-powered-by"] = told["x-powered-by"].split("/")[0]  # without its version
    # Texts of redirects and errors are each server's own, and charset is.
    if status < 300:
        told["content-type"] = answered.get("content-type", "").split(";")[0]
    is_own_text = status >= 300 and b"nothing" not in body
    return Told(status, told, None if is_own_text else body)


async def read_body(reader, fields, has_body):
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"])) if has_body else b""
    rest = await reader.read()
    if fields.get("transfer-encoding") != "chunked":
        return rest
    body = b""
    while rest:
        length, rest = rest.split(b"\r\n", 1)
        count = int(length, 16)
        body, rest = body + rest[:count], rest[count + 2:] if count else b""
    return body


def place(directory, name, words):
    """The files of a fixture, with words in place of others."""
    shutil.copytree(FIXTURES / name, directory)
    for file in directory.rglob("*"):
        if file.is_file():
            text = file.read_text()
            for word, value in words.items():
                text = text.replace(word, value)
            file.write_text(text)


def write_site(home):
    for name, text in FILES.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@asynccontextmanager
async def imported(server, file):
    """The gateway, by what it makes of a file."""
    toml = file.with_name("wssgate.toml")
    await output(os.environ["WSSGATE"], "import", server, file, "--write", toml)
    async with running(os.environ["WSSGATE"], "--config", toml, "--log-format", "json") as child:
        await child.line(message="ready")
        address, _, port = (await child.line(message="listening"))["address"].rpartition(":")
        yield address, int(port)


async def compare(theirs, ours, requests, differences):
    """Asks both; `differences` has, by the request, what is told of each, and why."""
    left = dict(differences)
    for request in requests:
        shown = f"{request.method} {request.url}"
        told, found = await ask(theirs, request), await ask(ours, request)
        known = left.pop(shown, None)
        if known is None:
            same(shown, found, told)
        else:
            expect_theirs, expect_ours, _why = known
            same(f"{shown}, by the other server", summary(told, expect_theirs), expect_theirs)
            same(f"{shown}, by the gateway", summary(found, expect_ours), expect_ours)
            if expect_theirs == expect_ours:
                raise Failure(f"{shown}: this is no difference")
    same("differences of requests that nobody has made", left, {})


def summary(told, expected):
    """As much of it as is expected."""
    of = {"status": told.status, **told.fields}
    if "path" in expected:
        of["path"] = json.loads(told.body)["path"]
    return {name: of.get(name) for name in expected}


NGINX_REQUESTS = [
    Ask("http://chat.test/"),
    Ask("http://other.test/no/such/file"),
    Ask("http://chat.test/style.css"),
    Ask("http://chat.test/style.css", "HEAD"),
    Ask("http://chat.test/index.html", "POST", body=b"x"),
    Ask("http://chat.test/socket?a=b"),
    Ask("http://chat.test/socket", "POST", body=b"x" * 100),
    Ask("http://chat.test/socket", "POST", {"X-Long": "1"}, body=b"x" * 2000),
    Ask("http://chat.test/socket/ws", fields=UPGRADE),
    Ask("http://chat.test/socketeer"),
    Ask("http://chat.test/app"),
    Ask("http://chat.test/app/"),
    Ask("http://chat.test/app/a/b?c=d%20e"),
    Ask("http://chat.test/app/a%2Fb"),
    Ask("http://chat.test/app/ws", fields=UPGRADE),
    Ask("http://chat.test/version"),
    Ask("http://chat.test/version/"),
    Ask("http://chat.test/old/x?y=z"),
    Ask("http://chat.test/static/logo.txt"),
    Ask("http://chat.test/static/none.txt"),
    Ask("http://chat.test/static"),
    Ask("http://chat.test/private/x"),
    Ask("http://chat.test/private/x", "PUT", ALICE),
    Ask("http://chat.test/nobody/x"),
    Ask("http://chat.test//version"),
    Ask("http://files.test/"),
    Ask("http://files.test/style.css"),
    Ask("http://files.test/STYLE.CSS"),
    Ask("http://files.test/none.js"),
    Ask("http://a.files.test/.env"),
    Ask("http://files.test/moved/a/b?c"),
    Ask("http://files.test/api/v1/x"),
    Ask("http://files.test/api/v1/x.css"),
    Ask("http://a.b.files.test/style.css"),
    *[Ask(f"http://order.test{path}") for path in [
        "/", "/x", "/api", "/api/x", "/apifoo", "/apifoo.js", "/api/x.CSS", "/static/x.js", "/static", "/static/deep/x",
        "/static/deep/x.js", "/data", "/data/x", "/data/x.log", "/data/x.js", "/database.log", "/data/open/x",
        "/data/open/x.js", "/data/open/x.log", "/.env", "/.well-known/x", "/x/.well-known", "/.well", "/user/alice",
        "/user/alice/x", "/a%20b/", "/a%20b/x", "/caf%C3%A9", "/caf%c3%a9s/x", "/100%25", "/%22quoted%22/x", "/to%20b/x%20y",
        "/to%20b", "/%61pi", "/x%2Ejs",
    ]],
    *[Ask(f"http://{host}.test{path}") for host in ["pages", "front", "blog"] for path in [
        "/", "/?a=b", "/index.php?a=b", "/tool.php", "/blog/", "/blog?a", "/none", "/none/x?c=d", "/none.php", "/style.css",
        "/none.css", "/.htaccess", "/.well-known/x.txt", "/uploads/evil.php", "/robots.txt",
    ]],
    Ask("http://pages.test/", "POST", FORM, b"name=value"),
    Ask("http://front.test/some/page?x", "POST", FORM, b"name=value"),
    Ask("http://front.test/some/page", "POST", FORM, b"x=" + b"y" * 2000),
]

NGINX_DIFFERENCES = {
    "GET http://chat.test/socketeer": (
        {"content-type": "application/json"},
        {"content-type": "text/html"},
        "a path is whole segments here, so this one is for the route of all other paths, whose page is sent",
    ),
    "GET http://chat.test/app/a%2Fb": (
        {"path": "/a/b"},
        {"path": "/a%2Fb"},
        "a rewritten path keeps its bytes here; nginx decodes it first",
    ),
    "GET http://chat.test/app/ws": (
        {"status": 200},
        {"status": 101},
        "the location says nothing of Upgrade, so nginx asks for a page; WebSockets pass every route with proxy here",
    ),
    "GET http://chat.test/static": (
        {"status": 200, "location": None},
        {"status": 308, "location": "http://chat.test/static/"},
        "a path takes itself and what is below it, and the directory is named without its slash",
    ),
    "GET http://chat.test/private/x": (
        {"www-authenticate": 'Basic realm="members"'},
        {"www-authenticate": 'Basic realm="members", charset="UTF-8"'},
        "clients are told how to write passwords that are not ASCII (RFC 7617 §2.1)",
    ),
    "GET http://chat.test//version": (
        {"status": 200},
        {"status": 400},
        "a path that servers read in two ways is refused; nginx merges its slashes",
    ),
    "GET http://a.b.files.test/style.css": (
        {"x-frame-options": None},
        {"x-frame-options": "DENY"},
        "a wildcard is one label here, so the default server's routes take this host",
    ),
    "GET http://pages.test/none.php": (
        {"status": 404, "x-powered-by": "PHP"},
        {"status": 404, "x-powered-by": None},
        "the gateway sees that there is no such script; nginx has PHP-FPM say so",
    ),
    "GET http://blog.test/.htaccess": (
        {"status": 200},
        {"status": 404},
        "files whose names begin with a dot are never served; this site forgot to say so",
    ),
    **{
        f"GET http://{host}.test/blog?a": (
            {"status": 301},
            {"status": 308},
            "the method of the request is kept on the way to the directory",
        )
        for host in ["pages", "front", "blog"]
    },
    **{
        f"GET http://order.test{path}": (
            {"content-type": theirs},
            {"content-type": "text/plain"},
            "a text has the type of its location here; nginx gives it that of the path's extension",
        )
        for path, theirs in [
            ("/apifoo.js", "application/javascript"),
            ("/api/x.CSS", "text/css"),
            ("/static/x.js", "application/javascript"),
            ("/static/deep/x.js", "application/javascript"),
            ("/data/x.js", "application/javascript"),
            ("/data/open/x.js", "application/javascript"),
            ("/x%2Ejs", "application/javascript"),
        ]
    },
}


async def nginx_and_the_gateway_by_its_file_answer_alike():
    async with application() as upstream, workplace() as home:
        home = Path(home)
        write_site(home)
        with socket.socket() as listening:
            # As in pages.py: nginx takes over a socket that listens already.
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            listening.setblocking(False)
            fd, address = listening.fileno(), listening.getsockname()
            words = {"DIRECTORY": str(home), "UPSTREAM": upstream}
            place(home / "nginx", "nginx", {**words, "PORT": str(address[1])})
            place(home / "gateway", "nginx", {**words, "PORT": "0"})
            command = ["nginx", "-p", home, "-c", home / "nginx/nginx.conf", "-e", "stderr"]
            nginx = running(*command, pass_fds=[fd], env=environment(NGINX=f"{fd};"))
            async with php.pool(home), nginx:
                listening.close()
                async with imported("nginx", home / "gateway/nginx.conf") as ours:
                    await compare(address, ours, NGINX_REQUESTS, NGINX_DIFFERENCES)


APACHE_REQUESTS = [
    Ask("http://chat.test/"),
    Ask("http://other.test/no/such/file"),
    Ask("http://chat.test/style.css"),
    Ask("http://chat.test/style.css", "HEAD"),
    Ask("http://chat.test/style.css.map"),
    Ask("http://chat.test/a/b.bak"),
    Ask("http://chat.test/.htpasswd"),
    Ask("http://chat.test/socket?a=b"),
    Ask("http://chat.test/socket", "POST", body=b"x" * 100),
    Ask("http://chat.test/socket/ws", fields=UPGRADE),
    Ask("http://chat.test/socketeer"),
    Ask("http://chat.test/live/ws", fields=UPGRADE),
    Ask("http://chat.test/live/ws"),
    Ask("http://chat.test/both/ws", fields=UPGRADE),
    Ask("http://chat.test/both/x"),
    Ask("http://chat.test/gone/x"),
    Ask("http://chat.test/secret/x"),
    Ask("http://chat.test/go/12"),
    Ask("http://chat.test/go/x"),
    Ask("http://chat.test/app"),
    Ask("http://chat.test/app/"),
    Ask("http://chat.test/app/a/b?c=d%20e"),
    Ask("http://chat.test/app/a%2Fb"),
    Ask("http://chat.test/app/later/x"),
    Ask("http://chat.test/app/static/x"),
    Ask("http://chat.test/app/ws", fields=UPGRADE),
    Ask("http://chat.test/item/12.json"),
    Ask("http://chat.test/item/x.json"),
    Ask("http://chat.test/private/x"),
    Ask("http://chat.test/private/x", "PUT", ALICE),
    Ask("http://chat.test/private/open/x"),
    Ask("http://chat.test/private/openly"),
    Ask("http://chat.test/private"),
    Ask("http://chat.test/nobody/x"),
    Ask("http://chat.test/nobody"),
    Ask("http://chat.test/here/x"),
    Ask("http://chat.test/there/x"),
    Ask("http://chat.test/socket/data/x"),
    Ask("http://chat.test/socket/database/x"),
    Ask("http://chat.test/config/x"),
    Ask("http://chat.test/static/logo.txt"),
    Ask("http://chat.test/static/none.txt"),
    Ask("http://chat.test/old/x?y=z"),
    Ask("http://chat.test/older"),
    Ask("http://chat.test/moved/a/b.html"),
    Ask("http://chat.test/lost/x"),
    Ask("http://chat.test//socket"),
    Ask("http://files.test/a/b?c"),
    Ask("http://a.files.test/"),
    Ask("http://a.b.files.test/x"),
    Ask("http://app.test/x?y"),
    Ask("http://app.test/socket.io/?EIO=4&transport=websocket", fields=UPGRADE),
    Ask("http://app.test/socket.io/?EIO=4&transport=polling"),
    Ask("http://app.test/plain/x"),
    Ask("http://app.test/.well-known/x"),
]

APACHE_DIFFERENCES = {
    "GET http://chat.test/a/b.bak": (
        {"status": 200},
        {"status": 403},
        "there is no such file, and its name is refused before FallbackResource stands for it",
    ),
    "GET http://chat.test/.htpasswd": (
        {"status": 200},
        {"status": 404},
        "names that begin with a dot are never served, nor is another file in their place",
    ),
    **{
        f"GET http://chat.test/{path}/ws": (
            {"status": 101, "x-frame-options": None},
            {"status": 101, "x-frame-options": "DENY"},
            "fields of answers stand in those that open WebSockets, too",
        )
        for path in ("socket", "live", "both")
    },
    "GET http://chat.test/app": (
        {"content-type": "text/html"},
        {"content-type": "application/json"},
        "a path with a slash at its end takes the path without it, too",
    ),
    "GET http://chat.test/app/a%2Fb": (
        {"status": 404},
        {"status": 200, "path": "/a%2Fb"},
        "an encoded slash goes to the server as it was sent; Apache refuses it without AllowEncodedSlashes",
    ),
    "GET http://chat.test/app/static/x": (
        {"x-app": None},
        {"x-app": "one"},
        "the file that stands for a missing one has the fields of the path that was asked for",
    ),
    "GET http://chat.test/app/ws": (
        {"status": 200},
        {"status": 101},
        "nothing says that WebSockets pass, so Apache asks for a page; they pass every route with proxy here",
    ),
    **{
        f"GET http://chat.test/private/{path}": (
            {"status": 401, "www-authenticate": 'Basic realm="members"'},
            {"status": 401, "www-authenticate": 'Basic realm="members", charset="UTF-8"'},
            "clients are told how to write passwords that are not ASCII (RFC 7617 §2.1)",
        )
        for path in ("x", "openly")
    },
    "GET http://chat.test/static/none.txt": (
        {"status": 200},
        {"status": 404},
        "a file of another directory can't stand for one that isn't there",
    ),
    "GET http://chat.test//socket": (
        {"status": 200},
        {"status": 400},
        "a path that servers read in two ways is refused; Apache merges its slashes",
    ),
    "GET http://a.b.files.test/x": (
        {"status": 301},
        {"status": 200},
        "a wildcard is one label here, so the default host's routes take this one",
    ),
}


async def apache_and_the_gateway_by_its_file_answer_alike():
    async with application() as upstream, workplace() as home:
        home = Path(home)
        home.chmod(0o755)  # Apache's children are another user's
        write_site(home)
        address = ("127.0.0.1", free_port())  # it can't take over a socket
        words = {"DIRECTORY": str(home), "UPSTREAM": upstream}
        place(home / "apache", "apache", {**words, "CONFIGURATION": "apache", "PORT": str(address[1])})
        place(home / "gateway", "apache", {**words, "CONFIGURATION": "gateway", "PORT": "0"})
        async with running("apache2", "-DFOREGROUND", "-f", home / "apache/apache2.conf") as child:
            await started(child)
            async with imported("apache", home / "gateway/apache2.conf") as ours:
                await compare(address, ours, APACHE_REQUESTS, APACHE_DIFFERENCES)
