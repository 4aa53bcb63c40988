"""The how-to pages of the book: what a scenario takes out of them."""

import re

from gateway import NAME
from processes import HERE, same

BOOK = HERE.parents[1] / "docs" / "howto"


def blocks(page, language):
    """The blocks of a page in this language, without those that a list indents."""
    return re.findall(rf"^```{language}\n(.*?)^```", (BOOK / page).read_text(), re.M | re.S)


def routes(page, *addresses):
    """The upstreams and routes of a page's configuration, for every host. The servers that it names become these, in
    their order."""
    (whole, *_) = blocks(page, "toml")
    text = whole[re.search(r"^\[\[(upstream|route)\]\]", whole, re.M).start() :]
    text = re.sub(r"^host = .*\n", "", text, flags=re.M)
    named = dict.fromkeys(re.findall(r"\w+://[\w.]+:\d+", text))
    same("servers of the page", len(named), len(addresses))
    for old, new in zip(named, addresses):
        text = text.replace(old, new)
    return text.replace("domain.com", NAME)
