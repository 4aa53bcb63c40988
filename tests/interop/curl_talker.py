"""A client made of libcurl that talks without a pause until its input ends; talker.mjs is its twin.

curl_cffi's libcurl speaks TLS by BoringSSL, and WebSocket, which Debian's curl doesn't yet.
"""

import json
import sys
import threading

from curl_cffi import CurlOpt, WebSocket


def main(task):
    host, port = task["url"].removeprefix("wss://").split("/")[0].rsplit(":", 1)
    options = {CurlOpt.CAINFO: task["root"], CurlOpt.RESOLVE: [f"{host}:{port}:{task['address']}"]}
    socket = WebSocket().connect(task["url"], curl_options=options)
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    echoes = 0
    while not stopped.is_set():
        message = f"message {echoes} ".encode() * (1 + echoes % 200)
        socket.send(message)
        heard, _ = socket.recv()
        assert heard == message, f"in place of message {echoes}: {heard[:100]}"
        if echoes % 10 == 0:
            print(json.dumps({"echoes": echoes}), flush=True)
        echoes += 1
    socket.close(1000)
    print(json.dumps({"ended": echoes, "code": 1000}), flush=True)


main(json.loads(sys.argv[1]))
