"""Prometheus: it takes the alerts, and scrapes what they and the dashboard ask for."""

import asyncio
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import PATIENCE, Failure, output, running, same
from renewal import open_socket

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "wssgate.rules.yml"
ADMIN = '[admin]\naddress = "127.0.0.3:0"\n'
# Only a gateway that orders certificates has them.
ACME = re.compile(r"wssgate_acme_\w+")


async def promtool_takes_the_alerts():
    await output("promtool", "check", "rules", RULES)
    await output("promtool", "check", "config", RULES.with_name("prometheus.yml"))
    await output("promtool", "test", "rules", RULES.with_suffix(".test.yml"))


async def prometheus_finds_what_the_dashboard_and_the_alerts_ask_for():
    async with backend(PYTHON, False) as (_, url), gateway(route("/", proxy=url), ADMIN) as gate:
        # Some have a sample only when a session has ended.
        async with open_socket(gate) as socket:
            await socket.send("hello")
            same("an echo", await socket.recv(), "hello")
        await gate.log.line(message="session")
        admin = (await gate.log.line(message="admin listener"))["address"]
        page = await asyncio.to_thread(get, f"http://{admin}/metrics")
        await output("promtool", "check", "metrics", stdin=page.encode())
        async with prometheus(admin) as address:
            names = asked_for()
            same("the dashboard and the alerts ask for metrics", len(names) > 20, True)
            for name in names:
                await until(f"{name} is scraped", lambda name=name: query(address, name))
            await until("the target is up", lambda: query(address, 'up{job="wssgate"} == 1'))
            kinds = await asyncio.to_thread(get, f"http://{address}/api/v1/targets/metadata?metric=wssgate_reloads")
            # Only OpenMetrics calls the family so: its samples end in _total.
            same("type of wssgate_reloads", json.loads(kinds)["data"][0]["type"], "counter")
            rules = json.loads(await asyncio.to_thread(get, f"http://{address}/api/v1/rules"))
            rules = rules["data"]["groups"][0]["rules"]
            await until("the rules are evaluated", lambda: evaluated(address))
            same("alerts of a gateway that is well", firing(address), [])
            same("rules", len(rules) > 10, True)


def asked_for():
    """The metrics that are named by the dashboard and by the alerts."""
    text = RULES.read_text() + (DEPLOY / "grafana" / "wssgate.json").read_text()
    names = set(re.findall(r"\b(?:wssgate|process)_\w+", text))
    return sorted(name for name in names if not ACME.match(name))


@asynccontextmanager
async def prometheus(target):
    """A Prometheus that scrapes the gateway each second. Yields its address."""
    with TemporaryDirectory(prefix="interop-") as directory:
        config = Path(directory) / "prometheus.yml"
        text = RULES.with_name("prometheus.yml").read_text()
        text = text.replace("127.0.0.1:9180", target).replace(": 15s", ": 1s").replace(RULES.name, str(RULES))
        config.write_text(text)
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data"]
        async with running(*command, "--web.listen-address=127.0.0.1:0", "--log.format=json") as child:
            address = (await child.line(msg="Listening on"))["address"]
            # It listens before it has read its rules, and answers 503 until then.
            await until("Prometheus is ready", lambda: is_ready(address))
            yield address


def is_ready(address):
    try:
        return get(f"http://{address}/-/ready") != ""
    except urllib.error.HTTPError:
        return False


def get(url):
    request = urllib.request.Request(url)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode()


def query(address, expression):
    """What an expression gives now."""
    answer = get(f"http://{address}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    return json.loads(answer)["data"]["result"]


def evaluated(address):
    rules = json.loads(get(f"http://{address}/api/v1/rules"))["data"]["groups"][0]["rules"]
    bad = [rule for rule in rules if rule["health"] == "err"]
    if bad:
        raise Failure(f"a rule can't be evaluated: {bad[0]['name']}: {bad[0]['lastError']}")
    return all(rule["health"] == "ok" for rule in rules)


def firing(address):
    alerts = json.loads(get(f"http://{address}/api/v1/alerts"))["data"]["alerts"]
    return [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"]


async def until(what, holds):
    try:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Failure(f"not within {PATIENCE} s: {what}") from None
