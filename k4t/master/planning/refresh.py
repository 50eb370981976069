"""Files whose content changes under a running container: `on-change` restart, or a signal.

A signal changes nothing about who serves, so it is one step for each container. A restart is an outage of that
replica: it is done in place where nobody would notice, which is an app that is not published and whose update limits
let one be away. Everywhere else the replica is replaced, health-gated and drained like any other change.
"""

from __future__ import annotations

import hashlib

from k4t.model.app import App, File
from k4t.model.state import Container
from k4t.model.value import value

RESTART = "restart"


@value
class Renewal:
    """What a container lacks: `targets` change, `files` are the hashes of all its own files afterwards. `signals`: what
    it is then told, each once; RESTART alone when one of them wants that. `in_place` False: it has to be replaced."""

    cause: str
    targets: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    signals: tuple[str, ...]
    in_place: bool


def renewal(app: App, container: Container, *, may_restart: bool) -> Renewal | None:
    """None when its files are as they should be, as far as that is known here."""
    told = dict(container.files)
    changed = [file for file in app.files if _differs(file, told)]
    if not changed:
        return None
    names = ", ".join(file.target for file in changed)
    wants = {file.on_change for file in changed}
    signals = (RESTART,) if RESTART in wants else tuple(sorted(wants))
    has_own = all(file.target in told for file in changed)
    return Renewal(
        f"{'file' if len(changed) == 1 else 'files'} {names} changed",
        tuple(file.target for file in changed),
        tuple(sorted((told | {file.target: file.sha256 for file in changed}).items())),
        signals,
        in_place=container.running and has_own and (may_restart or RESTART not in wants),
    )


def differs(app: App, container: Container) -> bool:
    """Whether it has another content of a file than the one for whose sake an app is started anew."""
    changing = [file for file in app.files if file.on_change == RESTART]
    return bool(changing) and any(_differs(file, dict(container.files)) for file in changing)


def identity(app: App, spec: str) -> str:
    """What is held when it does not get healthy: the spec, and the contents that come by a restart."""
    told = sorted((file.target, file.sha256) for file in app.files if file.on_change == RESTART)
    return f"{spec}+{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}" if told and spec else spec


def of_spec(identity: str) -> str:
    """The spec in it."""
    return identity.partition("+")[0]


def _differs(file: File, told: dict[str, str]) -> bool:
    """An empty hash on either side is a secret that is not known here, or was not then."""
    if file.on_change == "replace" or not file.sha256:
        return False
    return file.target not in told or told[file.target] not in ("", file.sha256)
