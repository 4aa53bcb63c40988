"""Programs as child processes: each ends with the block that started it, and its lines are kept."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
PATIENCE = 20  # seconds; long enough for any step on any machine, so only one that never comes waits so long
LINE_MAX = 1024 * 1024


class Failure(Exception):
    """Something is not as it should be."""


def same(what, found, expected):
    if found != expected:
        raise Failure(f"{what}: expected {show(expected)}, found {show(found)}")


def within(what, found, expected):
    if expected not in found:
        failure = Failure(f"{what}: expected {show(expected)} in {show(found)}")
        failure.add_note(f"{found}")
        raise failure


def show(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


class Child:
    """A program that runs. Each of its lines is a dictionary: JSON, or its text under "text"."""

    def __init__(self, name, process):
        self.name = name
        self.process = process
        self.lines = []
        self._ended = False
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self.process.stdout:
            async with self._news:
                self.lines.append(parse(line.decode(errors="replace").rstrip()))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    def find(self, **fields):
        """All lines so far that have these fields."""
        return [line for line in self.lines if fields.items() <= line.items()]

    async def line(self, nth=0, **fields):
        """The nth line, counted from 0, that has these fields; waits for it."""
        return await self._nth(nth, lambda: self.find(**fields), fields)

    async def said(self, words):
        """Waits until some line has these words."""
        await self._nth(0, lambda: [line for line in self.lines if words in str(line)], words)

    async def _nth(self, nth, find, what):
        async with self._news:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._news.wait_for(lambda: self._ended or len(find()) > nth)
            except TimeoutError:
                pass
        found = find()
        if len(found) <= nth:
            how = "ended" if self._ended else "waited"
            raise Failure(f"{self.name}: {how} without line {nth} of {what}")
        return found[nth]

    async def end(self):
        """Ends it, and reads what it still says. Returns its exit code."""
        code = await end(self.process)
        await self._reading
        return code

    def __str__(self):
        lines = (line.get("text") or json.dumps(line, ensure_ascii=False) for line in self.lines)
        return "\n".join([f"{self.name} said:", *lines])


def parse(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"text": text}


async def end(process):
    """Asks a process to end, and makes it end if it doesn't. Returns its exit code."""
    if process.returncode is None:
        process.terminate()
    hurry = asyncio.get_running_loop().call_later(PATIENCE, process.kill)
    waiting = asyncio.ensure_future(process.wait())
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await waiting  # nginx's workers, for one, outlive a master that is killed
        raise
    finally:
        hurry.cancel()


@asynccontextmanager
async def running(*command, **options):
    """A program that runs as long as the block. What it said goes with a failure."""
    options.setdefault("stdin", asyncio.subprocess.DEVNULL)
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=LINE_MAX,
        **options,
    )
    child = Child(Path(command[0]).name, process)
    try:
        yield child
    except BaseException as failure:  # a scenario's deadline is no Exception
        await child.end()
        failure.add_note(str(child))
        raise
    finally:
        await child.end()


async def output(*command, stdin=b"", **options):
    """What a program says until it ends, without its complaints, which are for its failure."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    try:
        async with asyncio.timeout(2 * PATIENCE):
            said, complained = await process.communicate(stdin)
    except TimeoutError:
        raise Failure(f"{' '.join(map(str, command))} doesn't end")
    finally:
        await end(process)
    if process.returncode != 0:
        lines = complained.decode(errors="replace").strip().splitlines() or [""]
        # Node puts a stack and its version below what is wrong.
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Failure)\b", line)]
        what = errors[-1] if errors else lines[-1]
        failure = Failure(f"{Path(command[0]).name} ended with {process.returncode}: {what}")
        failure.add_note(" ".join(map(str, command)))
        failure.add_note("\n".join(lines))
        raise failure
    return said.decode(errors="replace")


def free_port():
    """A port that was free a moment ago, for programs that neither choose one nor take over a socket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment(**more):
    return {**os.environ, **more}


@asynccontextmanager
async def workplace():
    """A directory to work in, removed at the end: child processes may outlive their parent by a moment."""
    with TemporaryDirectory(prefix="interop-") as directory:
        try:
            yield directory
        finally:
            deadline = time.monotonic() + PATIENCE
            while workers := working_in(directory):
                if time.monotonic() > deadline:
                    for pid in workers:
                        os.kill(pid, signal.SIGKILL)
                    raise Failure(f"{len(workers)} processes didn't end with who started them")
                await asyncio.sleep(0.01)


def working_in(directory):
    """The processes whose working directory this is."""
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(cwd) == os.path.realpath(directory):
                found.append(int(cwd.parent.name))
        except OSError:
            pass  # it has ended, or belongs to another user
    return found
