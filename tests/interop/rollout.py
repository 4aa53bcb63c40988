"""A rollout of two gateways behind a balancer that passes on TCP, in the times of the manifest for Kubernetes: as a
Deployment does it with `maxSurge: 1` and `maxUnavailable: 0`, an old one is ended when a new one is ready.
"""

import asyncio
import os
import resource
import ssl
import time
import tomllib
from bisect import bisect_left
from contextlib import AsyncExitStack, asynccontextmanager

import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from conversations import PYTHON, backend
from gateway import NAME
from kustomize import BASE
from pki import Pki
from processes import PATIENCE, Failure, running, same
from servers import listening

CLIENTS = 2000
CONNECTING = 50  # clients that connect at the same time
# As the readiness probe asks, and one failure is enough for the endpoint to be removed.
HAPROXY = """\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend wss
    bind fd@{fd}
    default_backend gateways
backend gateways
    balance leastconn
    option httpchk GET /readyz
    default-server check inter {period}s fall {failures} rise 1
{servers}"""


class Client:
    """Comes back at once whenever its socket is closed."""

    def __init__(self, address, trust, places):
        self.address, self.trust, self.places = address, trust, places
        self.sockets = 0
        self.refusals = []
        self.codes = []
        self.closed_at = []
        self.live = asyncio.Event()

    async def stay(self):
        host, port = self.address
        while True:
            try:
                async with self.places:
                    socket = await connect(
                        f"wss://{NAME}:{port}/", ssl=self.trust, host=host, proxy=None, compression=None, ping_interval=None
                    )
            except Exception as failure:
                self.refusals.append(repr(failure))
                await asyncio.sleep(1)
                continue
            async with socket:
                self.sockets += 1
                self.live.set()
                try:
                    await socket.send("hello")
                    same("an echo", await socket.recv(), "hello")
                    await socket.recv()
                except ConnectionClosed:
                    pass
                self.codes.append(socket.close_code)
                self.closed_at.append(time.monotonic())


@asynccontextmanager
async def pod(name, directory, pki, url):
    """A gateway with the file of the manifest; only its addresses and paths are others."""
    text = (BASE / "wssgate.toml").read_text()
    for there, here in {
        "0.0.0.0:8443": f"unix:{directory}/{name}.sock",
        "/etc/wssgate/certs": f"{directory}/certs",
        "0.0.0.0:9180": f"unix:{directory}/{name}-admin.sock",
        "http://application:8282": url,
    }.items():
        same(f"{there} in the manifest's file", text.count(there), 1)
        text = text.replace(there, here)
    config = directory / f"{name}.toml"
    config.write_text(text)
    async with running(os.environ["WSSGATE"], "--config", config, "--log-format", "json") as child:
        await child.line(message="ready")
        yield child


async def a_rollout_closes_each_socket_at_most_once_and_refuses_none():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    deployment = yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]
    rolling = deployment["strategy"]["rollingUpdate"]
    same("how pods are replaced", (deployment["replicas"], rolling), (2, {"maxUnavailable": 0, "maxSurge": 1}))
    template = deployment["template"]["spec"]
    grace = template["terminationGracePeriodSeconds"]
    window = int(tomllib.loads((BASE / "wssgate.toml").read_text())["drain_window"].removesuffix("s"))
    probe = template["containers"][0]["readinessProbe"]
    async with listening() as (directory, taken, _), backend(PYTHON, False) as (_, url), AsyncExitStack() as pods:
        taken.listen(4096)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "gate", NAME)
        lines = [f"    server {n} unix@{directory}/{n}.sock addr unix@{directory}/{n}-admin.sock\n" for n in "abcd"]
        config = directory / "haproxy.cfg"
        times = {"period": probe["periodSeconds"], "failures": probe["failureThreshold"]}
        config.write_text(HAPROXY.format(fd=taken.fileno(), servers="".join(lines), **times))
        start = lambda name: pods.enter_async_context(pod(name, directory, pki, url))
        old = [await start("a"), await start("b")]
        balancer = await pods.enter_async_context(
            running("haproxy", "-db", "-f", config, pass_fds=[taken.fileno()])
        )
        for name in "cd":  # until its first check, HAProxy takes a server for one that is there
            await balancer.said(f"gateways/{name} is DOWN")
        trust, places = ssl.create_default_context(cafile=pki.root), asyncio.Semaphore(CONNECTING)
        clients = [Client(taken.getsockname(), trust, places) for _ in range(CLIENTS)]
        staying = [asyncio.create_task(client.stay()) for client in clients]
        try:
            async with asyncio.timeout(2 * PATIENCE):
                for client in clients:
                    await client.live.wait()
            begun = time.monotonic()
            ending = []
            for gateway, successor in zip(old, "cd"):
                await start(successor)
                await balancer.said(f"gateways/{successor} is UP")
                ending.append(asyncio.create_task(stopped(gateway, grace)))
            took = await asyncio.gather(*ending)
            async with asyncio.timeout(PATIENCE):
                while sum(client.sockets for client in clients) < 2 * CLIENTS:
                    await asyncio.sleep(0.1)
            busiest = judge(clients, begun, window)
            for seconds in took:
                if seconds > grace:
                    raise Failure(f"a gateway took {seconds:.0f} s to end, and is killed after {grace}")
        finally:
            for task in staying:
                task.cancel()
            await asyncio.gather(*staying, return_exceptions=True)


async def stopped(gateway, grace):
    """As the kubelet ends a pod. How long it took, in seconds."""
    begun = time.monotonic()
    gateway.process.terminate()
    async with asyncio.timeout(grace):
        await gateway.process.wait()
    same("the gateway's exit code", gateway.process.returncode, 0)
    return time.monotonic() - begun


def judge(clients, begun, window):
    refusals = [refusal for client in clients for refusal in client.refusals]
    same("refused", refusals[:3], [])
    same("sockets of a client, at most", max(client.sockets for client in clients), 2)
    same("codes", {code for client in clients for code in client.codes}, {1001})
    closed = sorted(at - begun for client in clients for at in client.closed_at)
    same("closes", len(closed), CLIENTS)
    # Spread: both windows are nearly at the same time, and no second has more than three times its even part.
    busiest = max(bisect_left(closed, at + 1) - index for index, at in enumerate(closed))
    if busiest > 3 * CLIENTS / window:
        raise Failure(f"{busiest} of {CLIENTS} closes in a second of a window of {window} s")
    return busiest
