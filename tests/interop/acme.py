"""Certificates from Debian's pebble, an ACME server that looks at the names and makes difficulties."""

import asyncio
import errno
import json
import os
import signal
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from pki import Pki
from processes import Failure, PATIENCE, environment, free_port, output, running, same, workplace

NAMES = ["domain.test", "www.domain.test"]


class Place:
    """A directory with pebble's files, and the ports of everything."""

    def __init__(self, directory, **pebble):
        self.directory = Path(directory)
        self.ports = {
            name: free_port() for name in ["acme", "management", "dns", "records", "tls", "plain", "other", "admin"]
        }
        self.pebble = pebble
        self.pki = Pki(self.directory / "pki")

    async def make(self):
        await self.pki.make()
        await self.pki.issue(self.directory / "pebble", "pebble", "localhost")
        config = {
            "listenAddress": f"127.0.0.1:{self.ports['acme']}",
            "managementListenAddress": f"127.0.0.1:{self.ports['management']}",
            "certificate": str(self.directory / "pebble" / "pebble.crt"),
            "privateKey": str(self.directory / "pebble" / "pebble.key"),
            "httpPort": self.ports["plain"],
            "tlsPort": self.ports["tls"],
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            **self.pebble,
        }
        (self.directory / "pebble.json").write_text(json.dumps({"pebble": config}))

    def write(self, acme, tls="tls", file="wssgate.toml", plain=True):
        """A configuration whose gateway has pebble's ports for names, or another one for TLS."""
        (self.directory / file).write_text(f"""\
workers = 1
[[listener]]
address = "127.0.0.1:{self.ports[tls]}"
{f'''[[listener]]
address = "127.0.0.1:{self.ports['plain']}"
tls = false
redirect = "https"
''' if plain else ""}
[acme]
directory = "https://localhost:{self.ports['acme']}/dir"
ca = "pki/root.crt"
{acme}
[[route]]
path = "/"
service = "echo"
""")
        return self.directory / file

    async def serial(self, name, tls="tls"):
        """The serial number of the certificate for a name, which has to be valid for it."""
        try:
            text = await output(
                "openssl", "s_client", "-connect", f"127.0.0.1:{self.ports[tls]}", "-servername", name,
                "-verify_hostname", name, "-showcerts",
            )
        except Failure:
            return None
        read = await output("openssl", "x509", "-noout", "-serial", stdin=text.encode())
        if f"Verification error: hostname" in text:
            raise Failure(f"the certificate of {name} is for another name")
        return read.strip()


@asynccontextmanager
async def pebble(place, **variables):
    """pebble, and the DNS server that leads all names to this machine."""
    dns = f"127.0.0.1:{place.ports['dns']}"
    names = [
        "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "",
        "-tlsalpn01", "", "-dns01", dns, "-management", f"127.0.0.1:{place.ports['records']}",
    ]
    command = ["pebble", "-config", place.directory / "pebble.json", "-dnsserver", dns, "-strict"]
    async with running(*names), running(*command, env=environment(**variables)) as child:
        await listens(place.ports["acme"])
        await listens(place.ports["records"])
        yield child


async def listens(port):
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def gateway(config, *within):
    command = [*within, os.environ["WSSGATE"], "--config", config, "--log-format", "json"]
    async with running(*command) as child:
        await child.line(message="ready")
        yield child


async def served(place, name, tls="tls", other_than=None):
    async with asyncio.timeout(PATIENCE):
        while (serial := await place.serial(name, tls)) in (None, other_than):
            await asyncio.sleep(0.05)
    return serial


async def pebble_issues_by(acme, **variables):
    async with workplace() as directory:
        place = Place(directory)
        await place.make()
        config = place.write(f"names = {json.dumps([NAMES, 'chat.domain.test'])}\n{acme.format(place=place)}")
        async with pebble(place, **variables) as authority:
            async with gateway(config) as gate:
                await gate.line(message="certificate issued", names=" ".join(NAMES))
                await gate.line(message="certificate issued", names="chat.domain.test")
                serials = [await served(place, name) for name in [*NAMES, "chat.domain.test"]]
                same("one certificate for both names", serials[0] == serials[1] != serials[2], True)
                same("another name", await place.serial("other.test"), None)
            # It is all there after a restart, and nothing is ordered again.
            issued = len([line for line in authority.lines if "Issued certificate" in line.get("text", "")])
            async with gateway(config) as gate:
                same("the same certificate", await place.serial(NAMES[1]), serials[1])
            again = len([line for line in authority.lines if "Issued certificate" in line.get("text", "")])
            same("certificates issued", (issued, again), (2, 2))


async def pebble_issues_by_tls_alpn_01():
    # One good nonce of five is refused, and it takes its time.
    await pebble_issues_by("", PEBBLE_WFE_NONCEREJECT="20", PEBBLE_VA_SLEEPTIME="1")


async def pebble_issues_by_http_01():
    await pebble_issues_by('challenge = "http-01"', PEBBLE_VA_NOSLEEP="1")


async def pebble_issues_by_dns_01():
    # challtestsrv puts records into its own zone.
    script = (
        'case $1 in present) p=set-txt;; *) p=clear-txt;; esac; '
        'curl -sSf -d \\"{{\\\\\\"host\\\\\\":\\\\\\"$2.\\\\\\",\\\\\\"value\\\\\\":\\\\\\"$3\\\\\\"}}\\" '
        "http://127.0.0.1:{place.ports[records]}/$p"
    )
    acme = f'challenge = "dns-01"\ndns_wait = "0s"\ndns_command = ["/bin/sh", "-c", "{script}", "sh"]'
    await pebble_issues_by(acme, PEBBLE_VA_NOSLEEP="1")


async def pebble_renews_in_time_and_is_missed():
    async with workplace() as directory:
        place = Place(directory, certificateValidityPeriod=12)
        await place.make()
        config = place.write('names = "domain.test"')
        async with gateway(config) as gate:
            # Nobody is there yet: the name is refused, and it is said why.
            failed = await gate.line(message="a certificate can't be ordered: its names have no valid one")
            same("why", failed["problem"].startswith("the certificate authority can't be asked: "), True)
            same("a handshake", await place.serial("domain.test"), None)
        (place.directory / "acme" / "state" / "domain.test.json").unlink()
        async with pebble(place, PEBBLE_VA_NOSLEEP="1"), gateway(config) as gate:
            first = await served(place, "domain.test")
            await gate.line(message="certificate issued", nth=1)
            await served(place, "domain.test", other_than=first)


async def pebble_validates_two_gateways_of_which_one_orders():
    async with workplace() as directory:
        place = Place(directory)
        await place.make()
        acme = 'names = ["a.domain.test", "b.domain.test"]'
        configs = [place.write(acme), place.write(acme, tls="other", file="other.toml", plain=False)]
        async with pebble(place, PEBBLE_VA_NOSLEEP="1") as authority:
            # All names lead to the first, whichever of the two has ordered.
            async with gateway(configs[0]) as gate:
                async with gateway(configs[1]) as other:
                    for name in ["a.domain.test", "b.domain.test"]:
                        serials = [await served(place, name, tls) for tls in ["tls", "other"]]
                        same("one certificate", serials[0], serials[1])
                    issued = [g.find(message="certificate issued") for g in (gate, other)]
                    same("orders", sum(map(len, issued)), 2)
            count = len([line for line in authority.lines if "Issued certificate" in line.get("text", "")])
            same("certificates issued", count, 2)


async def pebble_issues_on_demand():
    async with workplace() as directory:
        place = Place(directory)
        await place.make()
        config = place.write('[acme.on_demand]\nnames = ["*.domain.test"]\norders = "2/h"')
        async with pebble(place, PEBBLE_VA_NOSLEEP="1") as authority, gateway(config) as gate:
            names = ["tom.domain.test", "zoe.domain.test"]
            # Their handshakes wait for the certificates: these are no second attempts.
            serials = [await place.serial(name) for name in names]
            same("certificates of their own", None not in serials and serials[0] != serials[1], True)
            for name in ["third.domain.test", "domain.test"]:
                same(f"a certificate of {name}", await place.serial(name), None)
            await gate.line(name="third.domain.test", level="WARN")
            same("one more client", await place.serial(names[0]), serials[0])
            count = len([line for line in authority.lines if "Issued certificate" in line.get("text", "")])
            same("certificates issued", count, 2)


async def pebble_is_asked_for_nothing_as_long_as_the_disk_is_full():
    async with workplace() as directory:
        place = Place(directory, certificateValidityPeriod=24)
        await place.make()
        config = place.write('names = "domain.test"')
        storage = place.directory / "acme"
        storage.mkdir()
        # A small disk that only this process has.
        mount = f"mount -t tmpfs -o size=128k,mode=700 none '{storage}' && exec \"$@\""
        async with pebble(place, PEBBLE_VA_NOSLEEP="1") as authority:
            async with gateway(config, "unshare", "--mount", "sh", "-c", mount, "sh") as gate:
                first = await served(place, "domain.test")
                disk = Path(f"/proc/{gate.process.pid}/root{storage}")
                fill(disk / "filler")
                # It is to be renewed with a third of its lifetime left.
                refused = await gate.line(message="certificates can't be ordered: their storage can't be used")
                for words in ["No space left on device", "make room there"]:
                    same(words, words in refused["cause"], True)
                same("the old certificate", await place.serial("domain.test"), first)
                ordered = len([line for line in authority.lines if "Issued certificate" in line.get("text", "")])
                same("certificates issued", ordered, 1)
                (disk / "filler").unlink()
                # It looks again in a minute, or when its section is another one.
                place.write('names = "domain.test"\ncontact = "again@domain.test"')
                gate.process.send_signal(signal.SIGHUP)
                await served(place, "domain.test", other_than=first)
                same("complaints", len(gate.find(message=refused["message"])), 1)


def fill(file):
    """Until the disk is full."""
    with open(file, "wb", buffering=0) as out:
        for size in [4096, 1]:
            try:
                while True:
                    out.write(bytes(size))
            except OSError as e:
                same("the disk", e.errno, errno.ENOSPC)


async def pebble_issues_for_one_command():
    async with workplace() as directory:
        place = Place(directory)
        await place.make()
        backend = free_port()
        name = "chat.domain.test"
        listen = f"127.0.0.1:{place.ports['tls']}"
        command = [
            os.environ["WSSGATE"], "--log-format", "json", "proxy", str(backend), "--host", name, "--listen", listen,
            "--acme-directory", f"https://localhost:{place.ports['acme']}/dir", "--acme-ca", place.pki.root,
            "--write", place.directory / "wssgate.toml",
        ]
        home = environment(HOME=directory, XDG_DATA_HOME=f"{directory}/data", XDG_STATE_HOME=f"{directory}/state")

        async def echo(socket):
            async for message in socket:
                await socket.send(message)

        async with serve(echo, "127.0.0.1", backend), pebble(place, PEBBLE_VA_NOSLEEP="1"):
            roots = f"https://localhost:{place.ports['management']}/roots/0"
            (place.directory / "issuer.pem").write_text(await output("curl", "-sSfk", roots))
            trust = ssl.create_default_context(cafile=place.directory / "issuer.pem")

            async def talk():
                async with connect(f"wss://{name}/", host="127.0.0.1", port=place.ports["tls"], ssl=trust, proxy=None) as socket:
                    await socket.send("tom")
                    same("an echo", await socket.recv(), "tom")

            async with running(*command, env=home, cwd=directory) as gate:
                await gate.line(message="certificate issued", names=name)
                serial = await served(place, name)
                await talk()
                # Something has to forward port 443 here.
                [warning] = [line for line in gate.lines if "port 443 for tls-alpn-01" in json.dumps(line)]
                same("a warning", warning["level"], "WARN")
            # The file that it has written does the same.
            async with gateway(place.directory / "wssgate.toml"):
                same("the certificate", await place.serial(name), serial)
                await talk()
