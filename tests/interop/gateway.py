"""The gateway's binary, with a configuration of a scenario's, certificates, and its log."""

import os
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pki import Pki
from processes import Failure, running, same

NAME = "gate.test"
# Not the gateway's own: what a backend is told about its client must be the client's.
CLIENT = "127.0.0.9"


class Gateway:
    def __init__(self, child, directory, pki):
        self.log = child
        self.directory = directory
        self.pki = pki
        self.pid = child.process.pid

    @property
    def root(self):
        """What clients have to trust."""
        return self.pki.root

    async def start(self):
        await self.log.line(message="ready")
        listening = await self.log.line(message="listening")
        self.address, _, port = listening["address"].rpartition(":")
        self.port = int(port)

    def url(self, path, scheme="https"):
        return f"{scheme}://{NAME}:{self.port}{path}"

    async def renew(self):
        """A new certificate for its name, and a reload. Returns the serial number."""
        serial = await self.pki.issue(self.directory / "certs", "gate", NAME)
        count = len(self.log.find(message="reloaded"))
        self.log.process.send_signal(signal.SIGHUP)
        await self.log.line(message="reloaded", nth=count)
        return serial

    async def take_over(self, retires=True):
        """A new process takes this one's place. Returns the line that says how many sessions it took along."""
        count = len(self.log.find(message="taken over"))
        os.kill(self.pid, signal.SIGUSR2)
        self.pid = (await self.log.line(message="taken over", nth=count))["pid"]
        moved = await self.log.line(message="sessions moved: they go on in the new process", nth=count)
        if retires:
            await self.log.line(message="retired: the last connection has ended", nth=count)
        return moved

    def end_successor(self):
        """Ends the process that has taken over, which no test has started."""
        if self.pid != self.log.process.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    async def session(self, **fields):
        """The line of the session that has these fields."""
        return await self.log.line(message="session", **fields)


@asynccontextmanager
async def gateway(*routes, listener="", top="", program=None, complaints=(), files=None):
    """A gateway that serves these routes as long as the block, and has nothing else to complain about."""
    with TemporaryDirectory(prefix="interop-") as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "gate", NAME)
        await pki.issue(directory / "certs", "wild", "*.wild.test", "wild.test")
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)
        config = directory / "wssgate.toml"
        # One worker, so that there is one pool of connections to a backend.
        config.write_text(f"""\
workers = 1
drain_window = "100ms"
{top}[[listener]]
address = "127.0.0.1:0"
{listener}
[certificates]
directory = "certs"
default = "{NAME}"
{"".join(routes)}""")
        command = [program or os.environ["WSSGATE"], "--config", config, "--log-format", "json"]
        async with running(*command) as child:
            gateway = Gateway(child, directory, pki)
            await gateway.start()
            try:
                yield gateway
            finally:
                gateway.end_successor()
            same("the gateway's exit code", await child.end(), 0)
            for level in ("ERROR", "WARN"):
                for line in child.find(level=level):
                    if line["message"] not in complaints:
                        raise Failure(f"the gateway complains: {line}")


def route(path, **keys):
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    return f'[[route]]\npath = "{path}"\n{lines}'
