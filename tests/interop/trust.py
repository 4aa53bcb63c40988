"""`wssgate trust`, and who trusts the development certificate then: curl by the system's store, Chromium by its own."""

import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

from processes import HERE, PATIENCE, Failure, environment, output, running, same, within, workplace

# update-ca-certificates changes copies, which only this process and its children see.
APART = """\
mkdir certs local && cp -a /etc/ssl/certs/. certs
mount --bind certs /etc/ssl/certs && mount --bind local /usr/local/share/ca-certificates
"""
CONSTRAINTS = """\
X509v3 Name Constraints: critical
Permitted:
DNS:localhost
IP:127.0.0.0/255.0.0.0
IP:0:0:0:0:0:0:0:1/FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF
"""


async def curl_trusts_what_wssgate_trust_has_signed():
    async with echo() as (home, port):
        steps = f"""\
set -e
{APART}
curl() {{ command curl -sS -o /dev/null -w '%{{http_code}}\\n' https://localhost:{port}/; }}
! curl 2>/dev/null
"$WSSGATE" trust >&2
curl
"$WSSGATE" trust --remove >&2
! curl 2>/dev/null
"""
        same("curl", await output("unshare", "--mount", "sh", "-c", steps, **there(home)), "000\n200\n000\n")


async def openssl_and_chromium_trust_what_wssgate_trust_has_signed():
    async with echo() as (home, port):
        task = {
            "page": f"https://localhost:{port}/",
            "url": f"wss://localhost:{port}/wss",
            "address": "127.0.0.1",
            "patience": PATIENCE,
            "act": "console",
            "trusts": True,
        }

        async def visit(number):
            task["profile"] = f"{home}/profile{number}"
            return json.loads(await output("node", HERE / "browser.mjs", json.dumps(task), **there(home)))

        try:
            await visit(0)
        except Failure as failure:
            within("before", " ".join(failure.__notes__), "ERR_CERT_AUTHORITY_INVALID")
        else:
            raise Failure("a certificate is trusted that no authority has signed")
        async with trusted(home):
            authority = Path(home, "state/wssgate/authority.pem")
            text = await output("openssl", "x509", "-noout", "-text", "-in", authority)
            within("the authority", re.sub(r"^ +", "", text, flags=re.M).replace(" \n", "\n"), CONSTRAINTS)
            chain = Path(home, "state/wssgate/dev/cert.pem")
            await output("openssl", "verify", "-x509_strict", "-CAfile", authority, chain)
            # What a running gateway has read, it serves.
            seen = await visit(1)
            same("complaints", seen["complaints"], [])
            within("the log's first line", seen["log"][0], "open after ")


@asynccontextmanager
async def trusted(home):
    await output("unshare", "--mount", "sh", "-c", f'{APART} "$WSSGATE" trust', **there(home))
    yield
    # The system's store is the real one again, and has no such file.
    await output(os.environ["WSSGATE"], "trust", "--remove", **there(home))


@asynccontextmanager
async def echo():
    """The one command, in a home that nothing else knows."""
    async with workplace() as home:
        listen = ["--listen", "127.0.0.1:0"]
        async with running(os.environ["WSSGATE"], "echo", *listen, **there(home)) as child:
            await child.line(text="  Ctrl-C ends it.")
            address = next(line["text"] for line in child.lines if "https://localhost:" in line["text"])
            yield home, int(re.search(r"localhost:(\d+)/", address)[1])


def there(home):
    return {"cwd": home, "env": environment(HOME=home, TMPDIR=home, XDG_STATE_HOME=f"{home}/state")}
