"""Upgrades to other protocols than WebSocket: what `docker exec` and `kubectl exec` use."""

import asyncio
import sys

from gateway import gateway
from processes import HERE, PATIENCE, Failure, environment, running, same, workplace


def upgrading(url, *protocols):
    return f'[[route]]\npath = "/"\nproxy = "{url}"\nupgrade = {list(protocols)}\n'.replace("'", '"')


async def exchange(command, said, **options):
    """What a program answers to its standard input: its output, its complaints, and its exit code."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, **options)
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(said)
    except TimeoutError:
        process.kill()
        raise Failure(f"{command[0]} doesn't end")
    return out, err.decode(errors="replace"), process.returncode


async def docker_execs_through_an_upgrade():
    async with running(sys.executable, HERE / "docker_daemon.py") as daemon, workplace() as home:
        port = (await daemon.line())["port"]
        async with gateway(upgrading(f"http://127.0.0.1:{port}", "tcp")) as gate:
            options = {"cwd": home, "env": environment(HOME=home, DOCKER_CONFIG=home)}
            host = f"tcp://{gate.address}:{gate.port}"
            command = ["docker", "--host", host, "--tls", "--tlscacert", gate.root, "exec", "-i", "box", "shout"]
            for said in [b"hello\n", b"x" * 3_000_000, b""]:
                out, err, code = await exchange(command, said, **options)
                if not out and said:
                    raise Failure(f"docker: {err}")
                same("what it got", out, said.upper())
                same("behind the end of what was said", err, f"{len(said)} bytes\n")
                same("the exit code", code, 7)
            asked = [line for line in daemon.lines if line.get("asked", "").endswith("/start")]
            same("what was asked for", {line["upgrade"] for line in asked}, {"tcp"})
            for nth in range(3):
                line = await gate.log.line(message="session", nth=nth)
                same("the protocol of the session", line["upgrade"], "tcp")

async def kubectl_execs_through_an_upgrade():
    async with running(sys.executable, HERE / "kubernetes.py") as api, workplace() as home:
        port = (await api.line())["port"]
        async with gateway(upgrading(f"http://127.0.0.1:{port}", "websocket", "SPDY/3.1")) as gate:
            # Later ones try a WebSocket first, which this server doesn't have.
            more = {"HOME": home, "KUBECONFIG": f"{home}/none", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
            options = {"cwd": home, "env": environment(**more)}
            server = ["--server", f"https://{gate.address}:{gate.port}", "--insecure-skip-tls-verify", "--token", "any"]
            for said in [b"hello\n", b"x" * 1_000_000]:
                command = ["kubectl", *server, "exec", "-i", "box", "--", "shout", "loudly"]
                out, err, code = await exchange(command, said, **options)
                if not out:
                    raise Failure(f"kubectl: {err}")
                same("what it got", out, said.upper())
                same("the other stream, and the exit code", (f"{len(said)} bytes" in err, code), (True, 7))
            for nth in range(2):
                asked = await api.line(upgrade="SPDY/3.1", nth=nth)
                same("the command", asked["command"], ["shout", "loudly"])
                line = await gate.log.line(message="session", nth=nth)
                same("the protocol of the session", line["upgrade"], "SPDY/3.1")
