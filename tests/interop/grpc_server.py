"""A gRPC server without TLS, with the four kinds of calls. Messages are bytes, so that nothing is generated."""

import asyncio
import json

import grpc
import grpc.aio


async def unary(request, context):
    metadata = dict(context.invocation_metadata())
    await context.send_initial_metadata((("x-seen", metadata.get("x-sent", "")),))
    context.set_trailing_metadata((("x-last", "unary"),))
    if request == b"fail":
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as it was asked: 5 €")
    return request.upper()


async def answers(request, _):
    for n in range(int(request)):
        yield b"%d" % n


async def requests(messages, _):
    total = 0
    async for message in messages:
        total += len(message)
    return b"%d" % total


async def both(messages, _):
    async for message in messages:
        yield message
    yield b"the client has said all"


async def main():
    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Answers": grpc.unary_stream_rpc_method_handler(answers),
        "Requests": grpc.stream_unary_rpc_method_handler(requests),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.Test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await server.wait_for_termination()


asyncio.run(main())
