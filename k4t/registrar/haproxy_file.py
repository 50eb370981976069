"""The file that HAProxy reads as text: structure and members apart, and together. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Dict, List, Mapping, Tuple

GENERATION = "K4T_GENERATION"
INNER = ("k4t", "k4t_tls")
"""Backends of a foreign HAProxy that lead to our listeners: their one server is structure."""


def with_members(structure: str, servers: Mapping[str, Mapping[str, str]]) -> str:
    """The whole file: each backend's servers after its `default-server` line (all that it has but them)."""
    lines: List[str] = []
    backend = ""
    for line in structure.splitlines():
        if line and not line.startswith(" "):
            words = line.split()
            backend = words[1] if words[0] == "backend" else ""
        lines.append(line)
        if backend and line.startswith("    default-server"):
            found = servers.get(backend, {})
            lines += ["    server %s %s" % (name, found[name]) for name in sorted(found)]
    return "\n".join(lines) + "\n"


def split(text: str) -> Tuple[str, Dict[str, Dict[str, str]]]:
    """A file taken apart again: (structure, backend to its servers)."""
    kept: List[str] = []
    found: Dict[str, Dict[str, str]] = {}
    backend = ""
    for line in text.splitlines():
        words = line.split()
        if line and not line.startswith(" "):
            backend = words[1] if len(words) > 1 and words[0] == "backend" else ""
            if backend and backend not in INNER:
                found[backend] = {}
        if backend in found and len(words) == 3 and line.startswith("    server "):
            found[backend][words[1]] = words[2]
        else:
            kept.append(line)
    return "\n".join(kept) + "\n", found


def generation(structure: str) -> str:
    """As the structure itself says it; "" for one that says none."""
    found = re.search(r"^    setenv %s ([0-9a-f]+)$" % GENERATION, structure, re.MULTILINE)
    return found.group(1) if found else ""


def ports(structure: str) -> Dict[int, List[str]]:
    """Port to the addresses it is bound on."""
    found: Dict[int, List[str]] = {}
    for address, port in re.findall(r"^    bind ([0-9.]+|\[::\]):(\d+)\b", structure, re.MULTILINE):
        found.setdefault(int(port), []).append(address.strip("[]"))
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def quote(text: str) -> str:
    """One word of the configuration, whatever it holds."""
    return "'%s'" % text.replace("'", "'\\''")
