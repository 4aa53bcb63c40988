"""`wssgate doctor` on a machine with much to find: what belongs to the kernel and to the system is put over the machine's
own files, for the doctor alone.
"""

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway import NAME, gateway, route
from pki import Pki
from processes import Failure, environment, output, same, within

ADDRESS = "2001:db8::1"
PORTS = 10
SETTINGS = {
    "core/somaxconn": "128",
    "ipv4/ip_local_port_range": f"40000 {40000 + PORTS - 1}",
    "netfilter/nf_conntrack_count": "970",
    "netfilter/nf_conntrack_max": "1000",
}
CONTROL = '[control]\nsocket = "control.sock"\n'
PUBLIC = '[[listener]]\naddress = "0.0.0.0:0"\n'

# Where no systemd-timesyncd runs there is nothing to hide.
MOUNTS = """\
set -e
mount -t tmpfs none /proc/sys/net
cp -r "$PLACE/net/." /proc/sys/net/
mount --bind "$PLACE/hosts" /etc/hosts
[ ! -d /run/systemd/timesync ] || mount -t tmpfs none /run/systemd/timesync
"$WSSGATE" doctor --json --config "$PLACE/wssgate.toml" || true
"""

# Each finding, by its area: how bad it is, and a part of what it says.
EXPECTED = [
    ("queues", "PROBLEM", "connections of clients found a full queue within the last second"),
    ("queues", "warning", "net.core.somaxconn is 128"),
    ("conntrack", "PROBLEM", "970 of 1000 entries"),
    ("clock", "warning", "the clock is not kept in step"),
    ("ports", "PROBLEM", f"{PORTS} of {PORTS} ports are used from 127.0.0.8 towards 127.0.0.1:"),
    ("addresses", "warning", f"{NAME} has the IPv6 address {ADDRESS}, and the gateway listens on IPv4 alone"),
]


async def the_doctor_finds_what_is_wrong_with_a_machine():
    async with gateway(route("/", service="echo"), CONTROL, listener=PUBLIC) as gate:
        place = gate.directory
        for name, value in SETTINGS.items():
            file = place / "net" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        (place / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n{ADDRESS} {NAME}\n")
        clock = place / "bin" / "timedatectl"
        clock.parent.mkdir()
        clock.write_text("#!/bin/sh\necho no\n")
        clock.chmod(0o755)
        path = f"{clock.parent}:{os.environ['PATH']}"
        async with full_queue(), connections(PORTS):
            said = await output("unshare", "--mount", "sh", "-c", MOUNTS, env=environment(PLACE=place, PATH=path))
        lines = [json.loads(line) for line in said.splitlines()]
        findings = [line["finding"] for line in lines if "finding" in line]
        for area, level, part in EXPECTED:
            found = [one for one in findings if one["area"] == area and part in one["what"]]
            if [one["level"] for one in found] != [level] or not (found[0]["see"] and found[0]["do"]):
                raise Failure(f"no finding of {area} with {part!r}: {findings}")
        same("the last line", lines[-1]["ok"], False)


# A network of its own has no address that others reach.
ALONE = """\
set -e
mount --bind "$PLACE/hosts" /etc/hosts
"$WSSGATE" doctor --json --config "$PLACE/wssgate.toml" || true
"""


async def the_doctor_misses_the_ipv6_address_of_a_name():
    with TemporaryDirectory(prefix="interop-") as place:
        place = Path(place)
        pki = Pki(place / "pki")
        await pki.make()
        await pki.issue(place / "certs", "gate", NAME)
        listener = '[[listener]]\naddress = ["0.0.0.0:443", "[::]:443"]\n[certificates]\ndirectory = "certs"\n'
        (place / "wssgate.toml").write_text(listener + route("/", service="echo") + CONTROL)
        for hosts, count in [(f"{ADDRESS} {NAME}\n", 1), (f"127.0.0.1 {NAME}\n", 0)]:
            (place / "hosts").write_text(hosts)
            said = await output("unshare", "--mount", "--net", "sh", "-c", ALONE, env=environment(PLACE=place))
            findings = [line["finding"] for line in map(json.loads, said.splitlines()) if "finding" in line]
            found = [one for one in findings if one["area"] == "addresses"]
            same("findings", len(found), count)
            for one in found:
                same("how bad", one["level"], "warning")
                within("the finding", one["what"], f"{NAME} has the IPv6 address {ADDRESS}, and this machine has none")
                within("what to do", one["do"], "take the AAAA record away")


@asynccontextmanager
async def full_queue():
    """A program that accepts nothing, and clients that go on coming."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        knocking = asyncio.create_task(knock(server.getsockname()))
        try:
            yield
        finally:
            knocking.cancel()


async def knock(address):
    clients = []
    while True:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(address)
        clients = [*clients[-50:], client]
        await asyncio.sleep(0.02)


@asynccontextmanager
async def connections(count):
    """So many to one server, from one address."""
    server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        opened = [await asyncio.open_connection(*address, local_addr=("127.0.0.8", 0)) for _ in range(count)]
        yield
        for _, writer in opened:
            writer.close()
