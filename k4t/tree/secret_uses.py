"""What uses which secret."""

from __future__ import annotations

import os
from pathlib import Path

from k4t.errors import K4tError, Usage
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.tree.edit import sync_directory


def uses(tree: Tree) -> dict[str, list[str]]:
    """By secret, in words: “web: env PASSWORD”, “registry registry.lab:5000”. Every secret of the tree has an entry."""
    found: dict[str, list[str]] = {name: [] for name in tree.secrets}
    named = [pair for app in tree.apps.values() for pair in _of_app(app)]
    named += [(one.secret, f"registry {one.host}") for one in tree.cluster.registries]
    named += [(one.secret, f"dns {one.name}") for one in tree.dns.values()]
    named += [(one.key_secret, f"certificate {one.name}") for one in tree.certificates.values()]
    named += [(one.secret, f"alert {one.where}") for one in tree.monitor.alerts]
    for secret, user in named:
        if secret:
            found.setdefault(secret, []).append(user)
    return {name: sorted(users) for name, users in sorted(found.items())}


def _of_app(app: App) -> list[tuple[str, str]]:
    found = [(env.secret, f"{app.name}: env {env.name}") for env in app.env]
    found += [(file.secret, f"{app.name}: file {file.target}") for file in app.files]
    return found + [(env.secret, f"{app.name}: job {job.name}, env {env.name}") for job in app.jobs for env in job.env]


def refuse_to_remove(tree: Tree, name: str) -> None:
    """Raises Usage when there is no such secret, or when it is used."""
    if name not in tree.secrets:
        raise Usage(f"the tree has no secret {name!r}", f"it has: {', '.join(sorted(tree.secrets)) or 'none'}")
    if users := uses(tree)[name]:
        raise Usage(f"secret {name} is used by {'; '.join(users)}", "take that out first")


def remove(directory: Path, tree: Tree, name: str) -> str:
    """Take a secret's file away; its path. Raises Usage when there is none, or when it is used."""
    refuse_to_remove(tree, name)
    path = directory / tree.secrets[name].where.file
    try:
        os.unlink(path)
        sync_directory(path.parent)
    except OSError as error:
        raise K4tError(f"can't remove {path}: {error.strerror}") from error
    return os.fspath(path)
