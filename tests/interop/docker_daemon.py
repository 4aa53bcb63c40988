"""As much of a Docker daemon as `docker exec` needs: a container whose only program says in capitals what it is told.

The streams of an exec begin with an upgrade to "tcp", after which both sides send what they like, and each may end its own.
"""

import asyncio
import json
import struct

STDOUT, STDERR = 1, 2
EXIT_CODE = 7


def tell(**what):
    print(json.dumps(what), flush=True)


async def head(reader):
    """The request line and the fields of a request; None at the end of the connection."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    line, *fields = text.strip().split("\r\n")
    return line, {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}


async def serve(reader, writer):
    while request := await head(reader):
        (line, fields) = request
        method, path, _ = line.split()
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if "chunked" in fields.get("transfer-encoding", ""):
            body = await chunks(reader)
        path = path.split("?")[0]
        tell(asked=f"{method} {path}", upgrade=fields.get("upgrade"), body=json.loads(body) if body else None)
        if path.endswith("/start"):
            return await run(reader, writer)
        answer(writer, method, path)
        await writer.drain()
    writer.close()


async def chunks(reader):
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def answer(writer, method, path):
    status, said = 200, {}
    match path.split("/")[-2:]:
        case [_, "_ping"]:
            said = None
        case ["box", "json"]:
            said = {"Id": "box", "State": {"Running": True}, "Config": {"Tty": False}}
        case ["box", "exec"]:
            status, said = 201, {"Id": "run"}
        case ["run", "json"]:
            said = {"ID": "run", "Running": False, "ExitCode": EXIT_CODE}
        case _:
            status, said = 404, {"message": "there is nothing"}
    body = b"OK" if said is None else json.dumps(said).encode()
    head = (
        f"HTTP/1.1 {status} -\r\nApi-Version: 1.41\r\nOSType: linux\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + (b"" if method == "HEAD" else body))


async def run(reader, writer):
    writer.write(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    total = 0
    while data := await reader.read(65536):
        total += len(data)
        frame(writer, STDOUT, data.upper())
        await writer.drain()
    # The client has ended its side, and this one still speaks.
    frame(writer, STDERR, f"{total} bytes\n".encode())
    await writer.drain()
    writer.close()
    tell(ended=total)


def frame(writer, stream, data):
    writer.write(struct.pack(">BxxxI", stream, len(data)) + data)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tell(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main())
