"""Frames of a session that is tapped, as Wireshark reads them."""

import os

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import Failure, output, running, same
from renewal import open_socket

FIELDS = ["websocket.fin", "websocket.opcode", "websocket.mask", "websocket.payload_length", "exported_pdu.src_port"]
TEXT = "websocket.payload.text"
CONTROL = '[control]\nsocket = "control.sock"\ntap = true\n'


async def wireshark_reads_a_tap():
    async with backend(PYTHON, False) as (_, url), gateway(route("/", proxy=url), CONTROL) as gate:
        file = gate.directory / "tap.pcapng"
        tap = [os.environ["WSSGATE"], "tap", "--next", "--write", file, "--socket", gate.directory / "control.sock"]
        async with running(*tap):
            await gate.log.line(message="a tap begins")
            async with open_socket(gate) as socket:
                port = socket.local_address[1]
                for message in ("hello, wireshark", "tschüs"):
                    await socket.send(message)
                    same("an echo", await socket.recv(), message)
                await socket.ping()
            await gate.log.line(message="a tap has ended")
        read = ["tshark", "-r", file, "-T", "fields", "-E", "separator=|"]
        fields = [argument for field in (*FIELDS, TEXT) for argument in ("-e", field)]
        lines = (await output(*read, *fields)).splitlines()
        # FIN, opcode, mask, length, and the port of who has sent it.
        came, went = str(port), str(gate.port)
        data = [line for line in lines if line.split("|")[1] == "1"]
        same("texts", data, [
            f"1|1|1|16|{came}|hello, wireshark",
            f"1|1|0|16|{went}|hello, wireshark",
            f"1|1|1|7|{came}|tschüs",
            f"1|1|0|7|{went}|tschüs",
        ])
        opcodes = [line.split("|")[1] for line in lines if line.split("|")[4] == came]
        same("the client's opcodes", [opcode for opcode in opcodes if opcode != "10"], ["1", "1", "9", "8"])
        packets = await output("tshark", "-r", file)
        if "Malformed" in packets or packets.count("WebSocket ") < len(lines):
            raise Failure(f"tshark reads something else: {packets}")
