"""Editors: the JSON Schema of the configuration file, read by Python's jsonschema."""

import json
import os
import re
import tomllib
from pathlib import Path

from jsonschema import Draft7Validator

from processes import output, same

ROOT = Path(__file__).parents[2]


def examples():
    """The configurations of README.md, the book and deploy/, each with its name."""
    for file in sorted(ROOT.glob("deploy/*/wssgate.toml")):
        yield file.parent.name, file.read_text()
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S)
        for number, block in enumerate(blocks):
            yield f"{page.relative_to(ROOT)} {number}", block


async def jsonschema_takes_the_examples_and_refuses_mistakes():
    schema = json.loads(await output(os.environ["WSSGATE"], "schema"))
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    errors = lambda text: [error.message for error in validator.iter_errors(tomllib.loads(text))]
    found = {name: errors(text) for name, text in examples()}
    same("examples with errors", {name: error for name, error in found.items() if error}, {})
    same("README.md, the book and deploy/ have examples", len(found) > 30, True)
    listener = '[[listener]]\naddress = "127.0.0.1:443"\n'
    for line in ["tsl = true", "tls = 1", 'header_timeout = "10"', 'alpn = ["h3"]', 'min_version = "1.1"']:
        same(f"errors of {line}", len(errors(listener + line)), 1)
    same("errors without a mistake", errors(listener + "tls = true"), [])
