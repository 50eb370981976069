"""Which digest each app's image stands for in this revision: resolved once, the same on every node."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path

from k4t.errors import ImageNotFound, K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.jobs import image_apps, owner_of
from k4t.master.planning.plan import ResolvedImage
from k4t.master.vault import Vault
from k4t.model.app import App
from k4t.model.state import Head, Observed
from k4t.model.value import value
from k4t.node import images
from k4t.node.reference import registry_of


@value
class Resolved:
    """`images`: one entry an app (and a job with an image of its own). `problems`: why there is none, by app."""

    images: Mapping[str, ResolvedImage]
    problems: Mapping[str, K4tError] = field(default_factory=dict)


def resolve_images(
    fleet: Fleet,
    observed: Observed,
    head: Head | None,
    scope: Collection[str],
    *,
    pull: bool,
    directory: Path,
    vault: Vault,
) -> Resolved:
    """One entry an app in scope. What the head remembers holds until the reference changes, `--pull`, or
    `pull="always"`; everything else is asked of a registry through a node. A problem names the app's line."""
    known = dict(head.digests) if head else {}
    apps = [app for name, app in fleet.tree.apps.items() if name in scope]
    apps += image_apps(apps)
    asked: dict[str, App] = {}
    resolved: dict[str, ResolvedImage] = {}
    problems: dict[str, K4tError] = {}
    for app in apps:
        remembered = "" if pull or app.image.pull == "always" else known.get(app.image.reference, "")
        try:
            found = _without_asking(app, remembered, directory)
        except K4tError as error:
            problems[owner_of(app.name)] = _at(app, error)
            continue
        if found:
            resolved[app.name] = found
        else:
            asked.setdefault(app.image.reference, app)
    answers = dict(zip(asked, at_once(lambda app: _ask(fleet, observed, app, vault), asked.values()), strict=True))
    for app in apps:
        answer = answers.get(app.image.reference)
        if app.name in resolved or answer is None:
            continue
        if isinstance(answer, K4tError):
            problems[owner_of(app.name)] = _at(app, answer)
        else:
            resolved[app.name] = answer
    return Resolved(resolved, problems)


def _without_asking(app: App, remembered: str, directory: Path) -> ResolvedImage | None:
    image = app.image
    if image.archive:
        return _resolved(images.archive_image(directory / "apps" / app.name / image.archive, image.reference))
    if "@sha256:" in image.reference:
        return ResolvedImage(image.reference, image.reference.partition("@")[2])
    return ResolvedImage(image.reference, remembered) if remembered else None


def _ask(fleet: Fleet, observed: Observed, app: App, vault: Vault) -> ResolvedImage | K4tError:
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
    return problem or K4tError(f"no node can be asked for image {app.image.reference}")


def _resolved(found: images.Resolved) -> ResolvedImage:
    return ResolvedImage(found.reference, found.digest, found.archs)


def _at(app: App, problem: K4tError) -> K4tError:
    located = type(problem)(f"{app.where}: {problem.message}", problem.remedy, host=problem.host)
    located.__cause__ = problem
    return located
