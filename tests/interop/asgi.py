"""An ASGI application for hypercorn: says bodies and messages back, with the version of HTTP."""


async def app(scope, receive, send):
    match scope["type"]:
        case "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
                if event == "lifespan.shutdown":
                    return
        case "http":
            body, more = b"", True
            while more:
                part = await receive()
                body, more = body + part.get("body", b""), part.get("more_body", False)
            fields = [(b"x-version", scope["http_version"].encode())]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": body})
        case "websocket":
            await receive()
            fields = [(b"x-version", scope["http_version"].encode())]
            await send({"type": "websocket.accept", "headers": fields})
            while (message := await receive())["type"] == "websocket.receive":
                said = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
                await send({"type": "websocket.send", **said})
