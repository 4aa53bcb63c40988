"""Plain HTTP: curl in front of the gateway, nginx behind it."""

import hashlib
import json
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway import CLIENT, gateway, route
from processes import environment, output, running, same, within

SMALL = b"a small file\n"
LARGE_LEN = 20 * 1024 * 1024
UPLOAD_LEN = 3 * 1024 * 1024

# The key and the answer to it that RFC 6455 §1.3 has for an example.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

NGINX = """
daemon off;
user root; # the user that started it: only this user can read the directory
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    server {{
        listen {address} {protocol};
        add_header X-Protocol $server_protocol always;
        add_header X-Connection $connection always;
        add_header X-Seen-Client $http_x_real_ip always;
        location / {{
            root {directory}/files;
        }}
        location = /post {{
            client_body_in_file_only on;
            add_header X-Body-File $request_body_file;
            proxy_pass http://unix:{directory}/inner.sock:/posted;
        }}
    }}
    server {{
        listen unix:{directory}/inner.sock;
        add_header X-Connection $connection always;
        add_header X-Seen-Client $http_x_real_ip always;
        location = /posted {{
            return 200 "$request_method of $content_length bytes\\n";
        }}
    }}
}}
"""


class Nginx:
    def __init__(self, url, files):
        self.url = url
        self.files = files


@asynccontextmanager
async def nginx(protocol=""):
    """An nginx that serves a directory as long as the block. With protocol="http2" it speaks nothing else."""
    with TemporaryDirectory(prefix="interop-") as directory, socket.socket() as listening:
        directory = Path(directory)
        files = directory / "files"
        files.mkdir()
        (files / "small.txt").write_bytes(SMALL)
        (files / "large.bin").write_bytes(os.urandom(LARGE_LEN))
        # nginx takes over a socket that listens already, as it does when it replaces itself: no
        # port is ever guessed, and who connects early waits in the queue.
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        listening.setblocking(False)
        fd = listening.fileno()
        address = "{}:{}".format(*listening.getsockname())
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, address=address, protocol=protocol))
        command = ["nginx", "-p", directory, "-c", config, "-e", "stderr"]
        async with running(*command, pass_fds=[fd], env=environment(NGINX=f"{fd};")):
            listening.close()  # from now on it lives and dies with nginx
            yield Nginx(f"http://{address}", files)


@asynccontextmanager
async def gateway_to_nginx(backend_protocol="http/1.1"):
    async with nginx("http2" if backend_protocol == "h2" else "") as behind:
        async with gateway(route("/", proxy=behind.url, protocol=backend_protocol)) as gate:
            yield gate, behind


class Answer:
    """What curl has received."""

    def __init__(self, facts, fields, body):
        self.connects = facts["num_connects"]
        self.status = facts["response_code"]
        self.fields = {name: values[0] for name, values in fields.items()}
        self.body = body

    def has(self, status, **fields):
        same("the status", self.status, status)
        for name, value in fields.items():
            name = name.replace("_", "-")
            same(name, self.fields.get(name), value)


def curl_command(gate, *options):
    trust = ["--cacert", gate.root, "--resolve", f"gate.test:{gate.port}:{gate.address}"]
    # -q: nobody's .curlrc
    return ["curl", "-q", "-sS", "--noproxy", "*", "--interface", CLIENT, "--max-time", 30, *trust, *options]


async def curl(gate, version, path, *options):
    """One request."""
    (answer,) = await curl_all(gate, version, [path], *options)
    return answer


async def curl_all(gate, version, paths, *options):
    """Requests one after the other, by one curl."""
    with TemporaryDirectory(prefix="interop-") as directory:
        bodies = [Path(directory, str(n)) for n in range(len(paths))]
        tell = ["-w", '{"facts": %{json}, "fields": %{header_json}},']
        requests = [part for path, body in zip(paths, bodies) for part in (gate.url(path), "-o", body)]
        told = await output(*curl_command(gate, version, *tell, *options, *requests))
        answers = []
        for one, body in zip(json.loads(f"[{told.rstrip(',')}]"), bodies):
            same("HTTP's version", one["facts"]["http_version"], version.removeprefix("--http"))
            answers.append(Answer(one["facts"], one["fields"], body.read_bytes() if body.exists() else b""))
        same("the number of answers", len(answers), len(paths))
        return answers


def sha256(data):
    return hashlib.sha256(data).hexdigest()


async def curl_gets_files_from_nginx_over_http1():
    await get_files("--http1.1")


async def curl_gets_files_from_nginx_over_http2():
    await get_files("--http2")


async def get_files(version, backend_protocol="http/1.1"):
    async with gateway_to_nginx(backend_protocol) as (gate, behind):
        small = await curl(gate, version, "/small.txt")
        spoken = {"h2": "HTTP/2.0"}.get(backend_protocol, "HTTP/1.1")
        facts = {"content_type": "text/plain", "x_seen_client": CLIENT, "x_protocol": spoken}
        small.has(200, content_length=str(len(SMALL)), **facts)
        same("the small file", small.body, SMALL)

        large = await curl(gate, version, "/large.bin")
        large.has(200, content_length=str(LARGE_LEN))
        original = (behind.files / "large.bin").read_bytes()
        same("the large file's sum", sha256(large.body), sha256(original))

        head = await curl(gate, version, "/large.bin", "--head")
        head.has(200, content_length=str(LARGE_LEN), etag=large.fields["etag"])

        known = await curl(gate, version, "/small.txt", "-H", f"If-None-Match: {small.fields['etag']}")
        known.has(304, etag=small.fields["etag"], content_length=None)
        same("the body of a 304", known.body, b"")

        part = await curl(gate, version, "/large.bin", "--range", "1000000-1999999")
        part.has(206, content_range=f"bytes 1000000-1999999/{LARGE_LEN}", content_length="1000000")
        same("the part's sum", sha256(part.body), sha256(original[1_000_000:2_000_000]))

        missing = await curl(gate, version, "/missing.txt")
        missing.has(404)
        within("the 404", missing.body, b"nginx")


async def curl_posts_to_nginx_over_http1():
    await post("--http1.1")


async def curl_posts_to_nginx_over_http2():
    await post("--http2")


async def post(version, backend_protocol="http/1.1"):
    async with gateway_to_nginx(backend_protocol) as (gate, behind):
        upload = gate.directory / "upload"
        heads = gate.directory / "heads"
        content = os.urandom(UPLOAD_LEN)
        upload.write_bytes(content)
        for expect, statuses in {"Expect:": ["200"], "Expect: 100-continue": ["100", "200"]}.items():
            # Longer than curl is given time, so a 100 that is lost is noticed.
            wait = ["-H", expect, "--expect100-timeout", 60]
            answer = await curl(gate, version, "/post", *wait, "--data-binary", f"@{upload}", "-D", heads)
            answer.has(200, x_seen_client=CLIENT)
            same("the answer", answer.body, f"POST of {UPLOAD_LEN} bytes\n".encode())
            arrived = Path(answer.fields["x-body-file"]).read_bytes()
            same("the sum of what has arrived", sha256(arrived), sha256(content))
            lines = heads.read_text().splitlines()
            same("the answers", [line.split()[1] for line in lines if line.startswith("HTTP/")], statuses)


async def curl_keeps_its_connection_over_http1():
    await keep("--http1.1")


async def curl_keeps_its_connection_over_http2():
    await keep("--http2")


async def keep(version, backend_protocol="http/1.1"):
    async with gateway_to_nginx(backend_protocol) as (gate, _):
        answers = await curl_all(gate, version, ["/small.txt", "/missing.txt", "/small.txt"])
        same("the statuses", [answer.status for answer in answers], [200, 404, 200])
        same("new connections to the gateway", [answer.connects for answer in answers], [1, 0, 0])
        same("connections to nginx", len({answer.fields["x-connection"] for answer in answers}), 1)


async def curl_upgrades_by_hand():
    async with gateway(route("/wss", service="echo")) as gate:
        handshake = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        fields = [part for field in [*handshake, f"Sec-WebSocket-Key: {KEY}"] for part in ("-H", field)]
        # Verbose, because what it tells is not buffered: curl doesn't end by itself.
        command = curl_command(gate, "--http1.1", "--verbose", *fields, gate.url("/wss"))
        async with running(*command) as child:
            await child.line(text="< HTTP/1.1 101 Switching Protocols")
            await child.line(text=f"< Sec-WebSocket-Accept: {ACCEPT}")
        line = await gate.session(path="/wss")
        same("the end", (line["status"], line["ended_by"], line["close_code"]), (101, "client", 1006))


async def curl_is_told_to_use_https():
    async with gateway(route("/", service="echo")) as gate:
        facts = ["-w", "%{response_code}", gate.url("/", "http")]
        said = await output(*curl_command(gate, *facts))
        within("the answer", said, "Use https:// or wss://")
        within("the status", said[-3:], "400")
