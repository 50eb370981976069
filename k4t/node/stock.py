"""The images that a node has, and taking one away by its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k4t.errors import EngineRefused
from k4t.model.value import value
from k4t.node.call import Request
from k4t.node.docker import Engine


@value
class Stocked:
    """One image: `names` are its tags and its REPOSITORY@digest. `size_bytes` counts layers that others share too."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    tagged_at: str = ""

    @property
    def digests(self) -> frozenset[str]:
        """As the head writes them: of manifests in registries, and of the image itself."""
        return frozenset({f"id:{self.id}", *(name.partition("@")[2] for name in self.names if "@" in name)})


def images(engine: Engine) -> list[Stocked]:
    found: list[Mapping[str, Any]] = engine.call(Request("GET", "/images/json")) or []
    return [_stocked(one) for one in found]


def tagged_at(engine: Engine, image: Stocked) -> str:
    """When its last tag was set on this node (RFC 3339), which is when k4t brought it; "" when that isn't known."""
    found = engine.image(image.id)
    return str(((found or {}).get("Metadata") or {}).get("LastTagTime") or "")


def forget(engine: Engine, name: str) -> bool:
    """Take one name away, and with the last one the image. False: it is in use after all, and stays."""
    try:
        engine.call(Request("DELETE", f"/images/{name}", timeout_s=120.0))
    except EngineRefused as error:
        if error.status == 409:
            return False
        if error.status != 404:
            raise
    return True


def _stocked(entry: Mapping[str, Any]) -> Stocked:
    names = [*(entry.get("RepoTags") or ()), *(entry.get("RepoDigests") or ())]
    real = tuple(name for name in names if not name.startswith("<none>") and "<none>" not in name)
    return Stocked(str(entry["Id"]), real, int(entry.get("Size") or 0))
