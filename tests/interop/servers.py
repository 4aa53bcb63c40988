"""Servers behind the gateway: nginx behind TLS, HAProxy behind the PROXY protocol, mosquitto behind a TCP stream."""

import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from book import routes
from gateway import CLIENT, NAME, gateway, route
from pages import curl_command
from pki import Pki
from processes import HERE, environment, free_port, output, running, same, within

NGINX = """
daemon off;
user root; # the user that started it
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    server {{
        listen {address} ssl;
        ssl_certificate {directory}/origin.crt;
        ssl_certificate_key {directory}/origin.key;
        ssl_protocols {protocols};
        ssl_session_cache shared:sessions:1m;
        ssl_client_certificate {root};
        ssl_verify_client on;
        keepalive_requests 1; # so that each request begins with a handshake
        location / {{
            return 200 "$ssl_protocol $ssl_server_name $ssl_client_verify $ssl_session_reused\\n";
        }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend origin
    bind fd@{fd} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] to %[dst]:%[dst_port]"
"""


@asynccontextmanager
async def listening():
    """A directory, and a socket that listens, for a server that takes it over: no port is ever guessed."""
    with TemporaryDirectory(prefix="interop-") as directory, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(128)
        taken.setblocking(False)
        yield Path(directory), taken, "{}:{}".format(*taken.getsockname())


async def nginx_is_reached_over(version, *protocols):
    async with listening() as (directory, taken, address):
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory, "origin", "origin.test")
        await pki.issue(directory, "gateway", "gateway.test")
        config = directory / "nginx.conf"
        config.write_text(
            NGINX.format(directory=directory, address=address, root=pki.root, protocols=" ".join(protocols))
        )
        upstream = f"""\
[[upstream]]
name = "origin"
servers = ["https://{address}"]
[upstream.tls]
ca = "{pki.root}"
server_name = "origin.test"
client_certificate = {{ chain = "{directory}/gateway.crt", key = "{directory}/gateway.key" }}
"""
        fd = taken.fileno()
        command = ["nginx", "-p", directory, "-c", config, "-e", "stderr"]
        async with running(*command, pass_fds=[fd], env=environment(NGINX=f"{fd};")):
            taken.close()  # from now on it lives and dies with nginx
            async with gateway(upstream, route("/", proxy="origin")) as gate:
                for reused in [".", "r", "r"]:
                    said = await output(*curl_command(gate, gate.url("/x")))
                    same("what nginx knows of TLS", said, f"{version} origin.test SUCCESS {reused}\n")


async def nginx_is_reached_over_tls_1_3():
    await nginx_is_reached_over("TLSv1.3", "TLSv1.3")


async def nginx_is_reached_over_tls_1_2():
    await nginx_is_reached_over("TLSv1.2", "TLSv1.2")


async def haproxy_knows_the_client_by(version):
    async with listening() as (directory, taken, address):
        config = directory / "haproxy.cfg"
        fd = taken.fileno()
        config.write_text(HAPROXY.format(fd=fd))
        async with running("haproxy", "-db", "-f", config, pass_fds=[fd]):
            taken.close()
            origin = route("/", proxy=f"http://{address}", proxy_protocol=version)
            async with gateway(origin) as gate:
                for _ in range(2):
                    clients = ["-w", "\n%{local_ip}:%{local_port} to %{remote_ip}:%{remote_port}"]
                    said = await output(*curl_command(gate, *clients, gate.url("/x")))
                    seen, true = said.splitlines()
                    same("what HAProxy knows of the client", seen, true)
                    within("the client's address", true, CLIENT)


async def haproxy_knows_the_client_by_version_1():
    await haproxy_knows_the_client_by("v1")


async def haproxy_knows_the_client_by_version_2():
    await haproxy_knows_the_client_by("v2")


@asynccontextmanager
async def mosquitto():
    """A broker as long as the block. It can't take over a socket, so a free port is looked for."""
    with TemporaryDirectory(prefix="interop-") as directory:
        port = free_port()
        config = Path(directory) / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_timestamp false\n")
        async with running("mosquitto", "-v", "-c", config) as broker:
            await broker.line(text=f"Opening ipv4 listen socket on port {port}.")
            yield f"tcp://127.0.0.1:{port}"


async def mqtt_clients_talk_through_mosquitto():
    async with mosquitto() as broker, gateway(routes("mqtt.md", broker)) as gate:
        task = {
            "url": f"wss://{NAME}:{gate.port}/mqtt",
            "address": gate.address,
            "root": str(gate.root),
        }
        said = await output("node", HERE / "mqtt.mjs", json.dumps(task))
        same("messages that arrived", json.loads(said), {"messages": 60})
        for nth in range(2):
            ended = await gate.log.line(message="session", nth=nth)
            same("the backend", f"tcp://{ended['backend']}", broker)
