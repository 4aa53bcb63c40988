"""A certificate authority that lives as long as a scenario, made by openssl."""

from itertools import count

from processes import output

# Serials say which of several certificates is served.
SERIALS = count(1001)

CONFIG = """
[req]
distinguished_name = nobody
[nobody]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def kind_of(name):
    return "IP" if name.replace(".", "").isdigit() else "DNS"


class Pki:
    """A root in a directory of its own."""

    def __init__(self, directory):
        directory.mkdir()
        self.directory = directory
        self.root = directory / "root.crt"

    async def make(self):
        await self._certificate(self.root, self.directory / "root.key", "root", "DNS:root")

    async def issue(self, directory, file, *names):
        """Writes a certificate for these names, and its key. Returns its serial number."""
        directory.mkdir(exist_ok=True)
        serial = next(SERIALS)
        signer = ["-CA", self.root, "-CAkey", self.directory / "root.key", "-set_serial", serial]
        alternatives = ",".join(f"{kind_of(name)}:{name}" for name in names)
        await self._certificate(
            directory / f"{file}.crt", directory / f"{file}.key", "leaf", alternatives, *signer
        )
        # With its issuer, which the gateway would miss.
        with (directory / f"{file}.crt").open("a") as chain:
            chain.write(self.root.read_text())
        return serial

    async def _certificate(self, certificate, key, kind, names, *more):
        config = self.directory / "openssl.cnf"
        config.write_text(CONFIG.format(names=names))
        request = ["openssl", "req", "-x509", "-config", config, "-extensions", kind, "-days", "90"]
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", key]
        await output(*request, *new_key, "-subj", f"/CN=interop {kind}", "-out", certificate, *more)
