"""Why a step is needed, in words a person likes."""

from __future__ import annotations

from k4t.master.planning.plan import ResolvedImage
from k4t.model.state import Container


def of_image(before: str, wanted: ResolvedImage) -> str:
    """“image 1.3 → 1.4”; "" when the reference says nothing of a change."""
    old_name, old_tag, old_digest = _parts(before)
    name, tag, _ = _parts(wanted.reference)
    if not before or not name:
        return ""
    if old_name != name:
        return f"image {before.partition('@')[0]} → {wanted.reference.partition('@')[0]}"
    if old_tag != tag:
        return f"image {old_tag} → {tag}"
    if old_digest and old_digest != wanted.digest:
        return f"image {tag} moved ({_short(old_digest)} → {_short(wanted.digest)})"
    return ""


def of_spec(container: Container, wanted: ResolvedImage) -> str:
    said = of_image(container.image, wanted)
    if said:
        return said
    if wanted.digest.startswith("id:") and container.image_id and wanted.digest != f"id:{container.image_id}":
        return f"image {_short(container.image_id)} → {_short(wanted.digest.removeprefix('id:'))}"
    return "spec changed"


def of_state(container: Container) -> str:
    """“exited (1)”, from Docker's own status where it has one."""
    if container.state == "exited" and container.status.startswith("Exited ("):
        return "exited " + container.status[len("Exited ") :].partition(")")[0] + ")"
    return {"created": "was created, not started"}.get(container.state, container.state)


def of_count(before: int, after: int) -> str:
    return f"replicas {before} → {after}"


def _parts(reference: str) -> tuple[str, str, str]:
    """Name, tag (“latest” when it has none), digest."""
    rest, _, digest = reference.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, "latest"
    return name, tag, digest


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
