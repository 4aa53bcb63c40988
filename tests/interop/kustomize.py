"""The Kustomize base of deploy/kubernetes, as kubectl builds it: what its parts name is there, and the gateway reads its file."""

import os
from pathlib import Path

import yaml

from pki import Pki
from processes import HERE, output, same, workplace

BASE = HERE.parent.parent / "deploy" / "kubernetes"
# What the operator makes before the deployment, as kustomization.yaml says.
MADE_BEFORE = {("Secret", "domain-com")}
OVERLAY = """\
resources: [base]
images: [{ name: wssgate, newName: registry.domain.test/wssgate, newTag: "1" }]
configMapGenerator: [{ name: wssgate, behavior: merge, files: [wssgate.toml] }]
"""


class Strict(yaml.SafeLoader):
    """Of a key that is there twice YAML readers take either."""


def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    same("keys that are there twice", sorted({str(key) for key in keys if keys.count(key) > 1}), [])
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


async def kustomize_builds_what_fits_together():
    for file in BASE.glob("*.yaml"):
        yaml.load(file.read_text(), Strict)
    objects = await build(BASE)
    deployment = objects["Deployment", "wssgate"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]

    # What is selected is this pod.
    selectors = [
        deployment["selector"]["matchLabels"],
        objects["Service", "wssgate"]["spec"]["selector"],
        objects["PodDisruptionBudget", "wssgate"]["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        same("a selector", selector.items() <= labels.items() and bool(selector), True)

    # What is mounted is a volume, and its source is there.
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    same("mounted", {mount["name"] for mount in container["volumeMounts"]}, set(volumes))
    for volume in volumes.values():
        source = ("Secret", volume["secret"]["secretName"]) if "secret" in volume else ("ConfigMap", volume["configMap"]["name"])
        same(f"{source} is there", source in objects or source in MADE_BEFORE, True)

    # Ports that are named have a number, which is one of the configuration's.
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    used = [probe["httpGet"]["port"] for probe in (container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))]
    used += [port["targetPort"] for port in objects["Service", "wssgate"]["spec"]["ports"]]
    same("ports", set(used) <= set(ports), True)
    name = volumes["config"]["configMap"]["name"]
    await checks(objects["ConfigMap", name]["data"], container, ports)

    # It has drained before it is killed.
    timeout = next(line for line in objects["ConfigMap", name]["data"]["wssgate.toml"].splitlines() if "drain_timeout" in line)
    seconds = int(timeout.split('"')[1].removesuffix("s"))
    same("the grace period is longer", pod["terminationGracePeriodSeconds"] > seconds, True)


async def checks(files, container, ports):
    """The gateway takes the configuration that the container's arguments name, and listens on the container's ports."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    file = container["args"][container["args"].index("--config") + 1]
    same("the configuration's directory", os.path.dirname(file), mounts["config"])
    async with workplace() as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "domain.com", "domain.com")
        config = directory / "wssgate.toml"
        config.write_text(files[os.path.basename(file)].replace("/etc/wssgate/certs", str(directory / "certs")))
        said = await output(os.environ["WSSGATE"], "check", config)
        for port in ports.values():
            same(f"port {port} is in the configuration", f":{port}" in config.read_text(), True)
        same("listens", f"0.0.0.0:{ports['wss']}" in said, True)


async def kustomize_takes_an_overlay():
    async with workplace() as directory:
        directory = Path(directory)
        os.symlink(BASE, directory / "base")
        (directory / "kustomization.yaml").write_text(OVERLAY)
        (directory / "wssgate.toml").write_text("# another one\n")
        base, objects = await build(BASE), await build(directory)
    container = objects["Deployment", "wssgate"]["spec"]["template"]["spec"]["containers"][0]
    same("the image", container["image"], "registry.domain.test/wssgate:1")
    [name] = [name for kind, name in objects if kind == "ConfigMap"]
    same("the configuration", objects["ConfigMap", name]["data"], {"wssgate.toml": "# another one\n"})
    # Another name, so that the pods are made anew.
    same("another ConfigMap", ("ConfigMap", name) in base, False)


async def build(directory):
    """What kubectl makes of a directory, by kind and name."""
    text = await output("kubectl", "kustomize", directory)
    objects = list(yaml.load_all(text, Strict))
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    same("objects of one name", len(found), len(objects))
    return found
