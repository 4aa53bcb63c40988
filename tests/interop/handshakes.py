"""TLS as openssl's s_client sees it."""

from asyncio.subprocess import PIPE

from gateway import gateway, route
from processes import output, running, same, within

REQUEST = b"GET /echo HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n"
VERSIONS = {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}
ECHO = route("/echo", service="echo")


async def s_client(gate, name, *options):
    """A handshake, and a request whose answer ends the connection: by then all tickets are there."""
    target = ["-connect", f"{gate.address}:{gate.port}", "-servername", name]
    trust = ["-CAfile", gate.root, "-verify_return_error"]
    said = await output("openssl", "s_client", *target, *trust, "-ign_eof", *options, stdin=REQUEST)
    within("what s_client says", said, "Verify return code: 0 (ok)")
    return said


async def openssl_sees_the_certificate_of_the_name_it_asks_for():
    async with gateway(ECHO) as gate:
        for option, version in VERSIONS.items():
            for name, names in {
                "gate.test": "DNS:gate.test",
                "a.wild.test": "DNS:*.wild.test, DNS:wild.test",
                "wild.test": "DNS:*.wild.test, DNS:wild.test",
                "unknown.test": "DNS:gate.test",  # the default
            }.items():
                said = await s_client(gate, name, option)
                within(f"{version} for {name}", said, f"New, {version}, Cipher is ")
                shown = await output("openssl", "x509", "-noout", "-ext", "subjectAltName", stdin=said.encode())
                same(f"the certificate for {name} in {version}", shown.splitlines()[1].strip(), names)


async def openssl_resumes_its_sessions():
    async with gateway(ECHO) as gate:
        for option, version in VERSIONS.items():
            ticket = gate.directory / version
            said = await s_client(gate, "gate.test", option, "-sess_out", ticket)
            within("the first handshake", said, f"New, {version}, Cipher is ")
            said = await s_client(gate, "gate.test", option, "-sess_in", ticket)
            within("the second handshake", said, f"Reused, {version}, Cipher is ")
            within("its request", said, "HTTP/1.1 426 Upgrade Required")


async def openssl_renews_its_keys():
    """K and k are s_client's own commands: a KeyUpdate that wants one in return, and one that doesn't."""
    async with gateway(ECHO) as gate:
        async with interactive(gate, "-tls1_3") as child:
            for round, command in enumerate("KkKKk"):
                child.process.stdin.write(b"GET /echo HTTP/1.1\r\nHost: gate.test\r\n\r\n")
                await child.line(nth=round, text="HTTP/1.1 426 Upgrade Required")
                child.process.stdin.write(command.encode() + b"\n")
                await child.line(nth=round, text="KEYUPDATE")
            child.process.stdin.write(REQUEST)
            await child.line(nth=5, text="HTTP/1.1 426 Upgrade Required")
            await child.line(text="closed")
            await child.process.wait()


async def openssl_is_refused_another_handshake():
    async with gateway(ECHO) as gate:
        async with interactive(gate, "-tls1_2") as child:
            await child.line(text="---", nth=4)
            child.process.stdin.write(b"R\n")
            await child.line(text="RENEGOTIATING")
            await child.process.wait()
            await child.end()
            within("what s_client says", str(child), "no renegotiation")


def interactive(gate, *options):
    target = ["-connect", f"{gate.address}:{gate.port}", "-servername", "gate.test", "-CAfile", gate.root]
    return running("openssl", "s_client", *target, *options, stdin=PIPE)
