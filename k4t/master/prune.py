"""What nobody needs any more: old images of our apps, stopped containers of older generations. Nothing else.

An image is ours when all its names are of repositories that apps of the tree, or the head, mention. Of each
repository a node keeps the images in use, what any cluster's head there refers to, and the newest few, to go back to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator

from k4t.errors import K4tError
from k4t.master.choose import Chosen, Wanted, choose
from k4t.master.fleet import Fleet, at_once
from k4t.model.spec import Tree
from k4t.model.state import Container, Head
from k4t.model.value import value
from k4t.node import files, lifecycle, stock
from k4t.node.docker import Engine
from k4t.node.reference import split
from k4t.node.stock import Stocked
from k4t.remote import head as remote_head

KEEP = 3


@value
class OldImage:
    node: str
    image: Stocked


@value
class OldFiles:
    """What was put on a node for a container that is no more."""

    node: str
    name: str


@value
class Surplus:
    """What would go. `problems`: nodes that could not be asked, in words."""

    images: tuple[OldImage, ...] = ()
    containers: tuple[Container, ...] = ()
    problems: tuple[str, ...] = ()
    files: tuple[OldFiles, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.images or self.containers or self.files)

    @property
    def size_bytes(self) -> int:
        """At most: layers that several images share are counted with each."""
        return sum(old.image.size_bytes for old in self.images)


def surplus(fleet: Fleet, only: Collection[str] = (), *, keep: int = KEEP) -> Surplus:
    """Look at every node, and clear `only` these, where any are named. Raises Unreachable when none answers."""
    chosen = choose(fleet, Wanted())
    problems = [f"{state.name}: {state.problem}" for state in chosen.away if not only or state.name in only]
    away = {state.name for state in chosen.away}
    images: list[OldImage] = []
    orphans: list[OldFiles] = []
    nodes = [name for name in fleet.tree.nodes if name not in away and (not only or name in only)]
    for found, left, problem in at_once(lambda node: _on_node(fleet, node, keep), nodes):
        images += found
        orphans += left
        problems += [problem] if problem else []
    old = tuple(one for one in leftovers(chosen) if not only or one.node in only)
    return Surplus(tuple(images), old, tuple(problems), tuple(orphans))


def prune(fleet: Fleet, agreed: Surplus, only: Collection[str] = (), *, keep: int = KEEP) -> Surplus:
    """Take away what was agreed to and still is surplus; returns what went. The cluster's locks are held."""
    now = surplus(fleet, only, keep=keep)
    known = {(old.node, old.image.id) for old in agreed.images}
    ids = {one.id for one in agreed.containers}
    containers = [one for one in now.containers if one.id in ids]
    gone, problems = [], list(now.problems)
    for one, problem in at_once(lambda one: _remove(fleet, one), containers):
        gone += [] if problem else [one]
        problems += [problem] if problem else []
    images = []
    for old, problem in at_once(
        lambda old: _forget(fleet, old), [old for old in now.images if (old.node, old.image.id) in known]
    ):
        images += [] if problem else [old]
        problems += [problem] if problem else []
    cleared = []
    for orphan, problem in at_once(lambda one: _discard(fleet, one), [one for one in now.files if one in agreed.files]):
        cleared += [] if problem else [orphan]
        problems += [problem] if problem else []
    return Surplus(tuple(images), tuple(gone), tuple(problems), tuple(cleared))


def leftovers(chosen: Chosen) -> tuple[Container, ...]:
    """Containers that don't run and have a successor: another one of the same replica, with a higher generation."""
    newest: dict[tuple[str, str], int] = {}
    for one in chosen.containers:
        key = (one.app, one.replica)
        newest[key] = max(newest.get(key, 0), one.generation)
    ended = ("exited", "dead", "created")
    return tuple(
        one for one in chosen.containers if one.state in ended and one.generation < newest[one.app, one.replica]
    )


def repositories(tree: Tree, heads: Iterable[Head]) -> frozenset[str]:
    """Those that k4t pulls for this cluster."""
    references = [app.image.reference for app in tree.apps.values()]
    references += [job.image for app in tree.apps.values() for job in app.jobs if job.image]
    references += [reference for head in heads if head.cluster == tree.cluster.id for reference in head.digests]
    return frozenset(repository(reference) for reference in references)


def _needed(tree: Tree, heads: Iterable[Head]) -> Iterator[str]:
    """Digests that this tree runs, and all that other clusters' heads mention: those are not ours to judge. (Our own
    head mentions every reference there ever was.)"""
    wanted = {app.image.reference for app in tree.apps.values()}
    for head in heads:
        ours = head.cluster == tree.cluster.id
        yield from (digest for reference, digest in head.digests.items() if not ours or reference in wanted)


def repository(name: str) -> str:
    """Of a tag or digest, in the one form that Docker's own listing has: docker.io/library/x is x."""
    return split(name)[0].removeprefix("docker.io/").removeprefix("library/")


def old_images(
    images: Collection[Stocked], *, ours: frozenset[str], in_use: frozenset[str], needed: frozenset[str], keep: int
) -> tuple[Stocked, ...]:
    """Pure. `in_use`: ids; `needed`: digests. The newest `keep` of a repository are those that were tagged last."""
    by_repository: dict[str, list[Stocked]] = {}
    for image in images:
        names = {repository(name) for name in image.names}
        if names and names <= ours:
            by_repository.setdefault(min(names), []).append(image)
    old: list[Stocked] = []
    for found in by_repository.values():
        kept = [one for one in found if one.id in in_use or one.digests & needed]
        rest = [one for one in found if one not in kept]
        rest.sort(key=lambda one: (one.tagged_at, one.id), reverse=True)
        old += rest[max(0, keep - len(kept)) :]
    return tuple(sorted(old, key=lambda one: one.names))


def _on_node(fleet: Fleet, node: str, keep: int) -> tuple[list[OldImage], list[OldFiles], str]:
    try:
        engine = fleet.engine(node)
        heads = _heads(engine)
        ours = repositories(fleet.tree, heads)
        found = [_dated(engine, one) for one in stock.images(engine) if {*map(repository, one.names)} & ours]
        entries = engine.list_containers()
        used = frozenset(str(entry.get("ImageID", "")) for entry in entries)
        names = {str(name).removeprefix("/") for entry in entries for name in entry.get("Names") or ()}
        left = files.left_behind(engine.transport, fleet.tree.cluster.id, names)
    except K4tError as error:
        return [], [], f"{node}: {error.words}"
    needed = frozenset(_needed(fleet.tree, heads))
    old = old_images(found, ours=ours, in_use=used, needed=needed, keep=keep)
    return [OldImage(node, image) for image in old], [OldFiles(node, name) for name in left], ""


def _dated(engine: Engine, image: Stocked) -> Stocked:
    return dataclasses.replace(image, tagged_at=stock.tagged_at(engine, image))


def _heads(engine: Engine) -> list[Head]:
    """Of every cluster that uses this node: what they may go back to is not ours to judge."""
    done = engine.transport.run(["sh", "-c", "cat /var/lib/k4t/*/head 2>/dev/null || :"])
    found = (remote_head.parse(line) for line in done.stdout.splitlines())
    return [head for head in found if head is not None]


def _remove(fleet: Fleet, container: Container) -> tuple[Container, str]:
    try:
        engine = fleet.engine(container.node)
        lifecycle.remove(engine, fleet.tree.cluster.id, container.id)
        if container.files:
            files.discard(engine.transport, fleet.tree.cluster.id, container.name)
    except K4tError as error:
        return container, f"{container.name}: {error}"
    return container, ""


def _discard(fleet: Fleet, orphan: OldFiles) -> tuple[OldFiles, str]:
    try:
        files.discard(fleet.transport(fleet.tree.nodes[orphan.node]), fleet.tree.cluster.id, orphan.name)
    except K4tError as error:
        return orphan, f"{orphan.node}: {error.words}"
    return orphan, ""


def _forget(fleet: Fleet, old: OldImage) -> tuple[OldImage, str]:
    try:
        engine = fleet.engine(old.node)
        kept = [name for name in old.image.names if not stock.forget(engine, name)]
    except K4tError as error:
        return old, f"{old.image.names[0]}: {error}"
    return old, f"{old.node}: {kept[0]} is in use" if kept else ""
