"""As much of a Kubernetes API server as `kubectl exec` needs: a pod whose only program says in capitals what it is told.

The streams of an exec are those of SPDY/3.1, which begin behind an upgrade. What it is asked for is told on stdout.
"""

import asyncio
import json
import struct
import zlib
from urllib.parse import parse_qs, urlsplit

SYN_STREAM, SYN_REPLY, PING = 1, 2, 6
FIN = 1
NAMES = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status
200_OK version HTTP/1.1 url public set-cookie keep-alive origin"""
REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
    "Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, "
    "Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,"
    "utf-,*,enq=0."
)


def text(value):
    return struct.pack(">I", len(value)) + value.encode()


# What both sides' compression begins with.
DICTIONARY = b"".join(text(name.replace("_", " ")) for name in NAMES.split()) + REST.encode()

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "box", "namespace": "default"},
    "spec": {"containers": [{"name": "main"}]},
    "status": {"phase": "Running"},
}
RESOURCES = [
    {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get"]},
    {"name": "pods/exec", "singularName": "", "namespaced": True, "kind": "PodExecOptions", "verbs": ["create", "get"]},
]
ANSWERS = {
    "/version": {"major": "1", "minor": "20", "gitVersion": "v1.20.2"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": RESOURCES},
    "/api/v1/namespaces/default/pods/box": POD,
}
EXIT = {
    "status": "Failure",
    "reason": "NonZeroExitCode",
    "message": "command terminated with exit code 7",
    "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
}


def tell(**what):
    print(json.dumps(what), flush=True)


async def serve(reader, writer):
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            break
        line, *fields = head.strip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        method, target, _ = line.split()
        url = urlsplit(target)
        tell(asked=f"{method} {url.path}", upgrade=fields.get("upgrade"), command=parse_qs(url.query).get("command"))
        if url.path.endswith("/exec"):
            try:
                await Exec(reader, writer).run()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # kubectl has all that it wants
            break
        answer = ANSWERS.get(url.path)
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
        head = f"HTTP/1.1 {200 if answer else 404} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
    writer.close()


class Exec:
    """The streams of one exec, by what they are for."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.inflate = zlib.decompressobj(zdict=DICTIONARY)
        self.deflate = zlib.compressobj(zdict=DICTIONARY)
        self.streams = {}
        self.total = 0

    async def run(self):
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        )
        while True:
            first, rest = struct.unpack(">II", await self.reader.readexactly(8))
            flags, length = rest >> 24, rest & 0xFFFFFF
            payload = await self.reader.readexactly(length)
            if first >> 31:
                self.control(first & 0xFFFF, payload)
            elif first == self.streams.get("stdin"):
                self.hear(payload, flags & FIN)
            await self.writer.drain()

    def control(self, kind, payload):
        if kind == SYN_STREAM:
            stream = struct.unpack(">I", payload[:4])[0]
            self.streams[self.names(payload[10:])["streamtype"]] = stream
            nothing = self.deflate.compress(struct.pack(">I", 0)) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
            self.answer(SYN_REPLY, struct.pack(">I", stream) + nothing)
        elif kind == PING:
            self.answer(PING, payload)

    def names(self, block):
        block = self.inflate.decompress(block)
        (count,), at, found = struct.unpack(">I", block[:4]), 4, []
        for _ in range(2 * count):
            end = at + 4 + struct.unpack(">I", block[at : at + 4])[0]
            found.append(block[at + 4 : end].decode())
            at = end
        return dict(zip(found[::2], found[1::2]))

    def answer(self, kind, payload):
        self.writer.write(struct.pack(">HHI", 0x8003, kind, len(payload)) + payload)

    def say(self, stream, data, flags=0):
        for start in range(0, len(data) or 1, 16384):
            part = data[start : start + 16384]
            ends = flags if start + 16384 >= len(data) else 0
            self.writer.write(struct.pack(">II", self.streams[stream], ends << 24 | len(part)) + part)

    def hear(self, data, ends):
        self.total += len(data)
        if data:
            self.say("stdout", data.upper())
        if ends:
            self.say("stdout", b"", FIN)
            self.say("stderr", f"{self.total} bytes\n".encode(), FIN)
            self.say("error", json.dumps(EXIT).encode(), FIN)
            tell(ended=self.total)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tell(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
