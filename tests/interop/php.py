"""PHP-FPM behind the gateway: scripts over FastCGI, and a site with a front controller."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from pathlib import Path

from gateway import gateway, route
from pages import curl, sha256
from processes import PATIENCE, Failure, running, same, workplace

FPM = """
[global]
error_log = /dev/stderr
daemonize = no
[www]
user = root
group = root
listen = {directory}/fpm.sock
pm = static
pm.max_children = 2
"""

FRONT = """<?php
header("X-Script: front");
header("Content-Type: application/json");
$names = ["SCRIPT_NAME", "SCRIPT_FILENAME", "DOCUMENT_ROOT", "REQUEST_URI", "QUERY_STRING", "REQUEST_METHOD", "HTTPS",
          "REMOTE_ADDR", "SERVER_NAME", "PHP_SELF", "HTTP_X_A", "HTTP_PROXY"];
$told = array_intersect_key($_SERVER, array_flip($names));
echo json_encode(["told" => $told, "get" => $_GET, "post" => $_POST, "sum" => hash("sha256", file_get_contents("php://input"))]);
"""

SCRIPTS = {
    "index.php": FRONT,
    "moved.php": '<?php header("Location: /there", true, 303);',
    "gone.php": '<?php http_response_code(410); echo "gone";',
    "long.php": '<?php for ($i = 0; $i < 2000; $i++) echo str_repeat(chr(97 + $i % 26), 1000);',
    "style.css": "a {}",
}


def fpm():
    """The newest that is installed: Debian has its version in its name."""
    return sorted(Path("/usr/sbin").glob("php-fpm*"))[-1]


@asynccontextmanager
async def pool(directory):
    """PHP-FPM, which listens at `fpm.sock` in this directory."""
    config = directory / "fpm.conf"
    config.write_text(FPM.format(directory=directory))
    async with running(fpm(), "-y", config, "-R", "-n"):
        deadline = time.monotonic() + PATIENCE
        while not (directory / "fpm.sock").exists():
            if time.monotonic() > deadline:
                raise Failure("PHP-FPM doesn't listen")
            await asyncio.sleep(0.01)
        yield


@asynccontextmanager
async def site():
    """A gateway in front of a site of PHP."""
    async with workplace() as directory:
        directory = Path(directory)
        www = directory / "www"
        www.mkdir()
        for name, text in SCRIPTS.items():
            (www / name).write_text(text)
        async with pool(directory):
            scripts = route("/", fastcgi=f"unix:{directory}/fpm.sock")
            files = f'[route.files]\ndirectory = "{www}"\nfallback = "/index.php"\n'
            async with gateway(scripts + files) as gate:
                yield gate, www


async def php_serves_a_site_over(version):
    async with site() as (gate, www):
        answer = await curl(gate, version, "/some/page?a=b", "-H", "X-A: 1", "-H", "X_A: 2", "-H", "Proxy: x")
        answer.has(200, x_script="front", content_type="application/json")
        said = json.loads(answer.body)
        same("the query", said["get"], {"a": "b"})
        expected = {
            "SCRIPT_NAME": "/index.php",
            "SCRIPT_FILENAME": f"{www}/index.php",
            "DOCUMENT_ROOT": str(www),
            "REQUEST_URI": "/some/page?a=b",
            "QUERY_STRING": "a=b",
            "REQUEST_METHOD": "GET",
            "HTTPS": "on",
            "SERVER_NAME": "gate.test",
            "PHP_SELF": "/index.php",
            "HTTP_X_A": "1",
        }
        told = said["told"]
        same("the client", told.pop("REMOTE_ADDR").startswith("127."), True)
        same("what PHP is told", told, expected)
        answer = await curl(gate, version, "/form", "-d", "name=value")
        same("the form", json.loads(answer.body)["post"], {"name": "value"})
        body = bytes(range(256)) * 8192
        upload = www.parent / "upload"
        upload.write_bytes(body)
        options = ["--data-binary", f"@{upload}", "-H", "Content-Type: application/octet-stream"]
        answer = await curl(gate, version, "/upload", *options)
        same("the upload", json.loads(answer.body)["sum"], sha256(body))
        (await curl(gate, version, "/style.css")).has(200, content_type="text/css; charset=utf-8")
        (await curl(gate, version, "/moved.php")).has(303, location="/there")
        (await curl(gate, version, "/gone.php")).has(410)
        same("a long answer", len((await curl(gate, version, "/long.php")).body), 2_000_000)
        (await curl(gate, version, "/", "--head")).has(200, x_script="front")


async def php_serves_a_site_over_http1():
    await php_serves_a_site_over("--http1.1")


async def php_serves_a_site_over_http2():
    await php_serves_a_site_over("--http2")
