"""Which digest each app's image stands for in this revision: resolved once, the same on every node."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from k4t.errors import ImageNotFound, K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.jobs import image_apps
from k4t.master.planning.plan import ResolvedImage
from k4t.master.vault import Vault
from k4t.model.spec import App
from k4t.model.state import Head, Observed
from k4t.node import images
from k4t.node.reference import registry_of


def resolve_images(
    fleet: Fleet,
    observed: Observed,
    head: Head | None,
    scope: Collection[str],
    *,
    pull: bool,
    directory: Path,
    vault: Vault,
) -> dict[str, ResolvedImage]:
    """One entry an app in scope. What the head remembers holds until the reference changes, `--pull`, or
    `pull="always"`; everything else is asked of a registry through a node. Raises K4tError naming the app's line."""
    known = dict(head.digests) if head else {}
    apps = [app for name, app in fleet.tree.apps.items() if name in scope]
    apps += image_apps(apps)
    asked: dict[str, App] = {}
    resolved = {}
    for app in apps:
        remembered = "" if pull or app.image.pull == "always" else known.get(app.image.reference, "")
        found = _without_asking(app, remembered, directory)
        if found:
            resolved[app.name] = found
        else:
            asked.setdefault(app.image.reference, app)
    answers = dict(zip(asked, at_once(lambda app: _ask(fleet, observed, app, vault), asked.values()), strict=True))
    for app in apps:
        if app.name not in resolved:
            resolved[app.name] = answers[app.image.reference]
    return resolved


def _without_asking(app: App, remembered: str, directory: Path) -> ResolvedImage | None:
    image = app.image
    if image.archive:
        return _resolved(images.archive_image(directory / "apps" / app.name / image.archive, image.reference))
    if "@sha256:" in image.reference:
        return ResolvedImage(image.reference, image.reference.partition("@")[2])
    return ResolvedImage(image.reference, remembered) if remembered else None


def _ask(fleet: Fleet, observed: Observed, app: App, vault: Vault) -> ResolvedImage:
    """The first reachable node that knows answers; a registry that one node can't reach, another may."""
    login = vault.login(registry_of(app.image.reference))
    problem: K4tError | None = None
    nodes = [state.name for state in observed.nodes.values() if state.reachable]
    for node in nodes[:3]:
        try:
            return _resolved(images.resolve(fleet.engine(node), app.image.reference, login, policy=app.image.pull))
        except ImageNotFound as error:
            problem = problem or error
        except K4tError as error:
            problem = error
    raise _at(app, problem)


def _resolved(found: images.Resolved) -> ResolvedImage:
    return ResolvedImage(found.reference, found.digest, found.archs)


def _at(app: App, problem: K4tError | None) -> K4tError:
    if problem is None:
        return K4tError(f"{app.where}: no node can be asked for image {app.image.reference}")
    located = type(problem)(f"{app.where}: {problem.message}", problem.remedy, host=problem.host)
    located.__cause__ = problem
    return located
