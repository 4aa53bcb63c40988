"""Frames of a session that is tapped, as Wireshark reads them."""

import os
import pwd
from pathlib import Path

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import Failure, output, running, same, workplace
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


REFUSED = "a control connection from another user was refused"
# The binary may be where the other user may not look for it.
AS_USER = 'exec 9<"$WSSGATE" && user=$1 && shift && exec setpriv --reuid="$user" --regid="$user" --clear-groups /proc/self/fd/9 "$@"'
AS_NOBODY = f"""\
#!/bin/sh
chown -R nobody "$(dirname "$2")"
set -- "$(id -u nobody)" "$@"
{AS_USER}
"""


async def only_root_and_the_gateways_user_tap():
    if os.geteuid() != 0:
        raise Failure("only root can be another user")
    async with workplace() as directory:
        program = Path(directory, "as-nobody")
        program.write_text(AS_NOBODY)
        program.chmod(0o755)
        async with gateway(route("/", service="echo"), CONTROL, program=program, complaints=[REFUSED]) as gate:
            place = gate.directory / "control.sock"
            for number, name in enumerate(["root", "nobody"]):
                async with tap(name, place):
                    line = await gate.log.line(message="a tap begins", nth=number)
                    same("who taps", line["uid"], pwd.getpwnam(name).pw_uid)
                await gate.log.line(message="a tap has ended", nth=number)
            # Another user can't reach the socket; and if its mode was changed, the gateway does not listen to them.
            for number, mode in enumerate([None, 0o777]):
                if mode:
                    for path in (gate.directory, place):
                        path.chmod(mode)
                async with tap("daemon", place) as refused:
                    same("the exit code", await refused.process.wait() != 0, True)
                if mode:
                    await gate.log.line(message=REFUSED)
                same("refusals", len(gate.log.find(message=REFUSED)), number)
            same("taps", len(gate.log.find(message="a tap begins")), 2)


def tap(user, place):
    """As this user, of the next session."""
    user = str(pwd.getpwnam(user).pw_uid)
    return running("sh", "-c", AS_USER, "sh", user, "tap", "--next", "--socket", place)
