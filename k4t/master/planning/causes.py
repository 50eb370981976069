"""Why a step is needed, in words a person likes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from k4t.master.planning.plan import SPEC, ResolvedImage
from k4t.master.planning.specs import secret_digests
from k4t.model.app import App
from k4t.model.state import Container


def of_image(before: str, wanted: ResolvedImage, known: Mapping[str, str]) -> str:
    """“image 1.3 → 1.4”; "" when the reference says nothing of a change. `known`: references by digest."""
    if not before or before.partition("@")[2] == wanted.digest:
        return ""
    old = _parts(known.get(before.partition("@")[2], before))
    old_digest = before.partition("@")[2]
    name, tag, _ = _parts(wanted.reference)
    if old.name != name:
        return f"image {old.name}:{old.tag} → {wanted.reference.partition('@')[0]}"
    if old.tag == tag and old_digest:
        return f"image {tag} moved ({_short(old_digest)} → {_short(wanted.digest)})"
    if old.tag != tag:
        return f"image {old.tag} → {tag}"
    return ""


def of_spec(container: Container, wanted: ResolvedImage, known: Mapping[str, str], app: App) -> str:
    said = of_image(container.image, wanted, known)
    if said:
        return said
    if wanted.digest.startswith("id:") and container.image_id and wanted.digest != f"id:{container.image_id}":
        return f"image {_short(container.image_id)} → {_short(wanted.digest.removeprefix('id:'))}"
    return of_secrets(container, app) or SPEC


def of_secrets(container: Container, app: App) -> str:
    """“secret db-password changed”, or ""."""
    told, now = dict(container.secrets), secret_digests(app)
    changed = sorted(name for name, digest in now.items() if digest and told.get(name, digest) != digest)
    return f"{'secret' if len(changed) == 1 else 'secrets'} {', '.join(changed)} changed" if changed else ""


def of_state(container: Container) -> str:
    """“exited (1)”, from Docker's own status where it has one."""
    if container.state == "exited" and container.status.startswith("Exited ("):
        return "exited " + container.status[len("Exited ") :].partition(")")[0] + ")"
    return {"created": "was created, not started"}.get(container.state, container.state)


def of_count(before: int, after: int) -> str:
    return f"replicas {before} → {after}"


class _Reference(NamedTuple):
    name: str
    tag: str
    digest: str


def _parts(reference: str) -> _Reference:
    """The tag is “latest” when there is none, or the digest's beginning when that stands in its place."""
    rest, _, digest = reference.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, _short(digest) if digest else "latest"
    return _Reference(name, tag, digest)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
