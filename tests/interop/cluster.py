"""Processes of wss-service that share users and groups over Redis or NATS: the example `cluster_chat`, started several times."""

import asyncio
import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect

from processes import PATIENCE, Failure, environment, free_port, output, running, same, within, workplace

PUBLISH = Path(__file__).parents[2] / "crates/wss-service/examples/publish.php"

PASSWORD = "se%cret"
REDIS = "redis-server"


class Redis:
    """A Redis on a Unix socket, which is there again at the same path after it was killed."""

    def __init__(self, directory, program=REDIS):
        self.directory = directory
        self.program = program
        self.socket = directory / "redis.sock"
        self.url = f"redis+unix://{self.socket}?pass={PASSWORD.replace('%', '%25')}"

    @asynccontextmanager
    async def running(self):
        config = self.directory / "redis.conf"
        config.write_text(f'port 0\nunixsocket {self.socket}\nrequirepass "{PASSWORD}"\nsave ""\n')
        async with running(self.program, config) as child:
            await child.said("eady to accept connections")  # at a path, or a port
            yield child

    async def ask(self, *words, **options):
        login = ["-s", self.socket, "-a", PASSWORD, "--no-auth-warning"]
        return await output("redis-cli", *login, *words, **options)


class Nats:
    """A NATS at a port, at which it is there again after it was killed."""

    def __init__(self, scheme="nats", host="127.0.0.1", options=()):
        self.port = free_port()
        self.options = options
        self.url = f"{scheme}://chat:{PASSWORD.replace('%', '%25')}@{host}:{self.port}"

    @asynccontextmanager
    async def running(self):
        login = ["--user", "chat", "--pass", PASSWORD]
        async with running("nats-server", "-a", "127.0.0.1", "-p", self.port, *login, *self.options) as child:
            await child.said("Server is ready")
            yield child


@asynccontextmanager
async def chat(engine, *more):
    """A process of the chat. Yields its child, which has its port."""
    async with running(os.environ["CLUSTER_CHAT"], engine, "127.0.0.1:0", *more) as child:
        await child.said("listening on")
        child.port = child.lines[0]["text"].rpartition(":")[2]
        yield child


def enter(child, name, room="tea"):
    return connect(f"ws://127.0.0.1:{child.port}/?room={room}&name={name}")


async def answer(client, text):
    await client.send(text)
    async with asyncio.timeout(PATIENCE):
        return await client.recv()


async def until(client, text, expected):
    """Asks again and again until this is the answer."""
    async with asyncio.timeout(PATIENCE):
        while await answer(client, text) != expected:
            await asyncio.sleep(0.05)


async def hears(client, *texts):
    async with asyncio.timeout(PATIENCE):
        for text in texts:
            same("what a client hears", await client.recv(), text)


@asynccontextmanager
async def spans_processes(engine):
    """Users and a group, over three processes. Yields when all has been said."""
    async with engine.running(), three(engine.url) as (_, *clients):
        ann, _, eve = clients
        for client, name in zip(clients, ("ann", "bob", "eve")):
            await client.send(f"I am {name}")
            for other in clients:
                await hears(other, f"{name}: I am {name}")
        await ann.send("@eve milk?")
        await hears(eve, "ann, to you: milk?")
        same("presence", await answer(ann, "/who eve"), "eve is here: true; 3 in tea")
        same("presence", await answer(eve, "/who tom"), "tom is here: false; 3 in tea")
        yield


async def redis_carries_users_and_groups_across_processes(program=REDIS):
    async with workplace() as directory:
        redis = Redis(Path(directory), program)
        users = ["chat:user:ann", "chat:user:bob", "chat:user:eve"]
        async with spans_processes(redis):
            channels = (await redis.ask("PUBSUB", "CHANNELS")).split()
            same("channels", sorted(channels), ["chat:all", "chat:group:tea", "chat:session", *users])
            same("who listens to a user", (await redis.ask("PUBSUB", "NUMSUB", *users)).split()[1::2], ["1"] * 3)


async def nats_carries_users_and_groups_across_processes():
    async with spans_processes(Nats()):
        pass


class Load:
    """A client that sends numbers to its room, one after the other, and what it and others hear."""

    def __init__(self, sender, *others):
        self.sender = sender
        self.heard = [[] for _ in others]
        self.told = {}
        self.count = 0
        self._ends = asyncio.Event()
        self._readers = [asyncio.create_task(self._read(*pair)) for pair in zip(others, self.heard)]
        self._writer = asyncio.create_task(self._write())

    async def _write(self):
        while not self._ends.is_set():
            await self.sender.send(f"{self.count}")
            # In its own process it is always heard, and once.
            while (said := await self.sender.recv()) != f"ann: {self.count}":
                within("what the sender hears", said, "heard in this process only: ")
                self.told[self.count - 1] = said
            self.count += 1
            await asyncio.sleep(0.001)

    async def _read(self, client, heard):
        async for said in client:
            heard.append(int(said.removeprefix("ann: ")))

    async def is_heard(self):
        """All hear something new."""
        before = self.count
        async with asyncio.timeout(PATIENCE):
            while any(not heard or heard[-1] <= before for heard in self.heard):
                if self._writer.done():
                    self._writer.result()
                await asyncio.sleep(0.01)

    async def end(self):
        self._ends.set()
        await self._writer
        async with asyncio.timeout(PATIENCE):
            while any(heard[-1] < self.count - 1 for heard in self.heard):
                await asyncio.sleep(0.01)
        for reader in self._readers:
            reader.cancel()

    def judge(self, first, last):
        """In order, none twice; none is missing but between these two."""
        for heard in self.heard:
            same("the order", heard, sorted(set(heard)))
            missing = set(range(self.count)) - set(heard)
            same("what is missing", [n for n in missing if not first <= n <= last], [])
            wrong = [n for n in self.told if n in heard and "has not answered" not in self.told[n]]
            same("what was heard although it was not sent", wrong, [])
        if not any("is away" in why for why in self.told.values()):
            raise Failure(f"the sender was told nothing: {self.told}")


@asynccontextmanager
async def three(engine, *more):
    """Three processes, and a client of each in one room."""
    async with chat(engine, *more) as one, chat(engine, *more) as two, chat(engine, *more) as three:
        for child in (one, two, three):
            await child.said("cluster connected")
        async with enter(one, "ann") as ann, enter(two, "bob") as bob, enter(three, "eve") as eve:
            yield three, ann, bob, eve


async def all_comes_back(load, ann):
    """Behind an outage. Returns the last number that may be missing."""
    await load.is_heard()
    last = load.count
    await load.is_heard()
    await load.end()
    await until(ann, "/who eve", "eve is here: true; 3 in tea")
    return last


async def is_killed_under_load_and_comes_back(engine):
    async with engine.running() as child, three(engine.url) as (_, ann, bob, eve):
        load = Load(ann, bob, eve)
        await load.is_heard()
        first = load.count - 1  # on its way at this moment
        child.process.kill()
        await child.process.wait()
        away = load.count
        while load.count < away + 100:
            await asyncio.sleep(0.01)
        async with engine.running():
            load.judge(first, await all_comes_back(load, ann))


async def redis_is_killed_under_load_and_comes_back(program=REDIS):
    async with workplace() as directory:
        await is_killed_under_load_and_comes_back(Redis(Path(directory), program))


async def nats_is_killed_under_load_and_comes_back():
    await is_killed_under_load_and_comes_back(Nats())


def peak(child):
    """The most memory that the process has had, in bytes."""
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@asynccontextmanager
async def passes_over(engine):
    """A message much longer than any of ours. Yields how many bytes, for it to be published to the group."""
    async with three(engine.url) as (third, ann, bob, eve):
        before = peak(third)
        yield (length := 15_000_000)
        await third.said(f'cause="{length} bytes are more than the message may have"')
        for client in (bob, eve):
            await ann.send("still here")
            await hears(client, "ann: still here")
        same("the message took no memory", peak(third) - before < 4_000_000, True)
        same("the connection has gone on", [line for line in third.lines if "away" in str(line)], [])


async def redis_messages_that_are_too_long_are_passed_over(program=REDIS):
    async with workplace() as directory:
        redis = Redis(Path(directory), program)
        async with redis.running(), passes_over(redis) as length:
            heard = await redis.ask("-x", "PUBLISH", "chat:group:tea", stdin=b"x" * length)
            same("processes that it was sent to", heard.strip(), "3")


async def nats_messages_that_are_too_long_are_passed_over():
    async with workplace() as directory:
        config = Path(directory) / "nats.conf"
        config.write_text("max_payload: 32MB\n")
        nats = Nats(options=["-c", config])
        async with nats.running(), passes_over(nats) as length:
            reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
            login = json.dumps({"verbose": False, "user": "chat", "pass": PASSWORD})
            writer.write(f"CONNECT {login}\r\nPUB chat:group:tea {length}\r\n".encode())
            writer.write(b"x" * length + b"\r\nPING\r\n")
            await reader.readuntil(b"PONG\r\n")
            writer.close()


@asynccontextmanager
async def a_process_is_killed(engine):
    """Of three, one is no longer counted. Its keys in Redis hold for three seconds, as the chat wants it."""
    async with engine.running(), three(engine.url) as (third, ann, _, _):
        await until(ann, "/who eve", "eve is here: true; 3 in tea")
        third.process.kill()
        await third.process.wait()
        begun = asyncio.get_running_loop().time()
        yield ann
        await until(ann, "/who eve", "eve is here: false; 2 in tea")
        took = asyncio.get_running_loop().time() - begun
        same("it takes no longer than its signs hold", took < 4, True)
        async with chat(engine.url) as other, enter(other, "eve"):
            await until(ann, "/who eve", "eve is here: true; 3 in tea")
        await until(ann, "/who eve", "eve is here: false; 2 in tea")


async def redis_forgets_a_process_that_is_killed(program=REDIS):
    async with workplace() as directory:
        redis = Redis(Path(directory), program)
        async with a_process_is_killed(redis) as ann:
            same("at first", await answer(ann, "/who eve"), "eve is here: true; 3 in tea")
            same("processes", len((await redis.ask("SMEMBERS", "chat:processes")).split()), 3)


async def nats_misses_a_process_that_is_killed():
    async with a_process_is_killed(Nats()):
        pass


@asynccontextmanager
async def server(directory, name, *lines, program=REDIS, sentinel=False, port_is="port"):
    """A Redis, or a sentinel, at a port. Yields its child and the port."""
    port = free_port()
    lines = [f"{port_is} {port}", *lines]
    config = directory / f"{name}.conf"
    home = directory / name
    home.mkdir()
    config.write_text("\n".join([*lines, "bind 127.0.0.1", f"dir {home}"]) + "\n")
    async with running(program, config, *(["--sentinel"] if sentinel else [])) as child:
        await child.said("Sentinel ID is" if sentinel else "eady to accept connections")
        yield child, port


async def fails_over(sentinel_port):
    """Tells the sentinel to, until it knows enough of the other server."""
    async with asyncio.timeout(PATIENCE):
        while (await output("redis-cli", "-p", sentinel_port, "sentinel", "failover", "chat")).strip() != "OK":
            await asyncio.sleep(0.05)


async def sentinels_know_the_master_after_a_failover(program=REDIS):
    async with workplace() as directory:
        directory = Path(directory)
        secret = [f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', 'save ""', "repl-diskless-sync-delay 0"]
        async with server(directory, "first", *secret, program=program) as (first, port):
            async with server(
                directory, "second", *secret, f"replicaof 127.0.0.1 {port}", program=program
            ) as (second, _):
                watch = [
                    f"sentinel monitor chat 127.0.0.1 {port} 1",
                    f'sentinel auth-pass chat "{PASSWORD}"',
                    # It fails over when it is told to: a master that only has little processor time is not to be lost.
                    "sentinel down-after-milliseconds chat 60000",
                ]
                await second.said("Finished with success")
                async with server(
                    directory, "sentinel", *watch, program=program, sentinel=True
                ) as (sentinel, sentinel_port):
                    await sentinel.said("+slave")
                    secret = PASSWORD.replace("%", "%25")
                    # The first of them is not there.
                    url = f"redis+sentinel://:{secret}@127.0.0.1:{free_port()},127.0.0.1:{sentinel_port}/chat"
                    async with three(url) as (_, ann, bob, eve):
                        load = Load(ann, bob, eve)
                        await load.is_heard()
                        lost = load.count - 1
                        first.process.kill()
                        await first.process.wait()
                        await fails_over(sentinel_port)
                        await sentinel.said("+switch-master")
                        load.judge(lost, await all_comes_back(load, ann))


async def a_php_script_publishes_to_a_group():
    async with workplace() as directory:
        redis = Redis(Path(directory))
        async with redis.running(), three(redis.url) as (_, *clients):
            command = ["php", PUBLISH, f"unix://{redis.socket}", "tea", 'milk, "ö"?']
            told = await output(*command, env=environment(REDIS_PASSWORD=PASSWORD))
            same("what Redis says", told.split(), ["+OK", ":3"])
            for client in clients:
                await hears(client, 'milk, "ö"?')
            same("lines of the script", len(PUBLISH.read_text().splitlines()) <= 12, True)
