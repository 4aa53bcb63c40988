"""nkeys and JWTs of NATS, made by openssl: what `nk` and `nsc` would make."""

import base64
import binascii
import json
import time

from processes import output

# The first eight bits of public keys, as NATS has them, and the first five of seeds.
OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


class Key:
    """An Ed25519 key in a directory."""

    async def make(self, directory, name, kind):
        self.kind = kind
        self.file = directory / f"{name}.pem"
        self.directory = directory
        await output("openssl", "genpkey", "-algorithm", "ed25519", "-out", self.file)
        await output("openssl", "pkey", "-in", self.file, "-outform", "DER", "-out", directory / "key.der")
        await output("openssl", "pkey", "-in", self.file, "-pubout", "-outform", "DER", "-out", directory / "public.der")
        # Both end with the 32 bytes that matter.
        seed = (directory / "key.der").read_bytes()[-32:]
        public = (directory / "public.der").read_bytes()[-32:]
        self.seed = written(bytes([SEED | kind >> 5, (kind & 31) << 3]) + seed)
        self.public = written(bytes([kind]) + public)
        return self

    async def jwt(self, subject, name, **nats):
        """A JWT about another key, signed by this one."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        claims = {
            "jti": "interop",
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": name,
            "nats": {"version": 2, **nats},
        }
        text = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
        signed, signature = self.directory / "signed", self.directory / "signature"
        signed.write_text(text)
        sign = ["-sign", "-rawin", "-inkey", self.file, "-in", signed, "-out", signature]
        await output("openssl", "pkeyutl", *sign)
        return f"{text}.{base64url(signature.read_bytes())}"


def written(data):
    """In base32, behind its checksum."""
    checksum = binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data + checksum).decode().rstrip("=")


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def creds(jwt, key):
    """As `nsc` writes a file of credentials."""
    return f"""\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
{key.seed}
------END USER NKEY SEED------

*************************************************************
"""
