"""Small trees for tests: a valid one, and files put over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BASE: Mapping[str, str] = {
    "cluster.xml": """<cluster name="test" id="k7f3q2m9">
  <variable name="domain">example.com</variable>
</cluster>
""",
    "nodes/n1.xml": '<node address="10.0.0.1"><label name="zone">a</label></node>\n',
    "nodes/n2.xml": '<node address="10.0.0.2"><label name="zone">b</label></node>\n',
    "gateways/gw1.xml": '<gateway driver="envoy" address="10.0.0.21"/>\n',
    "dns/ns1.xml": '<dns driver="dnsmasq" address="10.0.0.21" zone="k4t.lab"/>\n',
}


def write_tree(directory: Path, files: Mapping[str, str | bytes], *, base: bool = True) -> Path:
    """A tree with `files` over the base; a file whose content is "-" is left out."""
    for name, content in {**(BASE if base else {}), **files}.items():
        if content in ("-", "-\n"):
            continue
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory
