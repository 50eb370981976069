"""What k4t writes on a container, and reads back: names and formats are on users' machines and final."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k4t.model.shared import Protocol
from k4t.model.state import BoundPort

FORMAT = "1"
PREFIX = "io.k4t."
MAX_PORTS_BYTES = 64 * 1024
_PORT = re.compile(r"([0-9]{1,5})/(tcp|udp)")


@dataclass(frozen=True, slots=True)
class Labels:
    """`cluster` is the id; `resources` what the planner wrote there; `address` where the ports are reached.

    `secrets`: keyed digests by name, `files`: hashes by target, as `specs.secret_digests` and `specs.own_files` have
    them; without any there is no such label.
    """

    cluster: str
    app: str
    replica: str
    generation: int
    revision: int
    spec: str
    resources: str = ""
    ports: tuple[BoundPort, ...] = ()
    address: str = ""
    secrets: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()


def build(labels: Labels) -> dict[str, str]:
    made = {
        f"{PREFIX}format": FORMAT,
        f"{PREFIX}cluster": labels.cluster,
        f"{PREFIX}app": labels.app,
        f"{PREFIX}replica": labels.replica,
        f"{PREFIX}generation": str(labels.generation),
        f"{PREFIX}revision": str(labels.revision),
        f"{PREFIX}spec": labels.spec,
        f"{PREFIX}resources": labels.resources,
        f"{PREFIX}ports": _written(labels.ports),
        f"{PREFIX}address": labels.address,
    }
    optional = {"secrets": labels.secrets, "files": labels.files}
    return made | {f"{PREFIX}{name}": pairs_written(pairs) for name, pairs in optional.items() if pairs}


def parse(labels: object) -> Labels | None:
    """None when they are not k4t's, of another format, or damaged. Never raises: anyone can write labels."""
    if not isinstance(labels, Mapping) or labels.get(f"{PREFIX}format") != FORMAT:
        return None
    text = {str(key).removeprefix(PREFIX): str(value) for key, value in labels.items()}
    generation, revision = _count(text.get("generation")), _count(text.get("revision"))
    ports = _read(text.get("ports", "{}"))
    named = all(text.get(key) for key in ("cluster", "app", "replica", "spec"))
    if not named or generation is None or revision is None or ports is None:
        return None
    return Labels(
        cluster=text["cluster"],
        app=text["app"],
        replica=text["replica"],
        generation=generation,
        revision=revision,
        spec=text["spec"],
        resources=text.get("resources", ""),
        ports=ports,
        address=text.get("address", ""),
        secrets=pairs_read(text.get("secrets", "{}")),
        files=pairs_read(text.get("files", "{}")),
    )


def cluster_of(labels: object) -> str:
    """The cluster's id that a container claims, whatever else its labels say."""
    return str(labels.get(f"{PREFIX}cluster", "")) if isinstance(labels, Mapping) else ""


def pairs_written(pairs: Iterable[tuple[str, str]]) -> str:
    return json.dumps(dict(pairs), sort_keys=True, separators=(",", ":"))


def pairs_read(text: str) -> tuple[tuple[str, str], ...]:
    """Sorted; nothing when damaged: then it is as if nothing were known."""
    try:
        found = json.loads(text) if len(text) <= MAX_PORTS_BYTES else {}
    except (ValueError, RecursionError):
        return ()
    items = found.items() if isinstance(found, dict) else ()
    return tuple(sorted((name, digest) for name, digest in items if isinstance(digest, str)))


def _written(ports: Iterable[BoundPort]) -> str:
    """{"admin":"20001/tcp","main":"20000/tcp"}: by name, no white space."""
    numbers = {port.name: f"{port.number}/{port.protocol}" for port in ports}
    return json.dumps(numbers, sort_keys=True, separators=(",", ":"))


def _read(text: str) -> tuple[BoundPort, ...] | None:
    """In order of name; None when damaged."""
    if len(text) > MAX_PORTS_BYTES:
        return None
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(numbers, dict):
        return None
    ports = [_port(name, value) for name, value in sorted(numbers.items())]
    found = tuple(port for port in ports if port is not None)
    return found if len(found) == len(ports) else None


def _port(name: str, value: object) -> BoundPort | None:
    match = _PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 0 < int(match[1]) < 65536:
        return None
    protocol: Protocol = "udp" if match[2] == "udp" else "tcp"
    return BoundPort(name, int(match[1]), protocol)


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None
