"""What commands about copies share: where copies are, whose are genuine, which one is meant, what opens it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k4t.errors import BadCopy, HostUnreachable, K4tError, Usage
from k4t.model.value import value
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.backup.choose import At, Candidate
    from k4t.master.backup.compare import Files
    from k4t.master.backup.judge import Trust
    from k4t.master.backup.reading import Place, Shelf
    from k4t.master.backup.targets import TargetSpec
    from k4t.master.run import Run
    from k4t.model.spec import Tree

KitFile = Annotated[Path | None, typer.Option("--kit", help="The recovery kit, to open copies.", metavar="FILE")]
IdentityFile = Annotated[
    Path | None, typer.Option("--identity", help="What opens copies, where no kit does.", metavar="FILE")
]
TREE, LATEST = "tree", "latest"
Identities = Callable[[], list[Any]]


@value
class Asked:
    """What targets (and files here) show, for as long as the connections are open."""

    run: Run
    trust: Trust
    shelves: Sequence[Shelf]
    opening: Identities

    @property
    def candidates(self) -> list[Candidate]:
        return [one for shelf in self.shelves for one in shelf.candidates]

    def need_targets(self) -> None:
        """Raises Usage when there are none."""
        if not self.shelves:
            raise Usage("the tree names no place for copies", 'write <backup node="…" every="1h"/> into cluster.xml')


@contextmanager
def asked(
    given: Globals, kit: Path | None = None, identity: Path | None = None, *, also: Sequence[str] = ()
) -> Iterator[Asked]:
    """All targets of the tree are asked at once. `also`: files, directories, or nodes that are no target. A damaged
    tree is read as far as this needs it. Raises Usage when there is no tree."""
    from k4t.master.backup import keys, reading
    from k4t.master.backup.partial import readable
    from k4t.wiring import opened

    with readable(given.db) as (directory, damage):
        if damage:
            given.console.note(f"! the tree is damaged ({damage}): read as far as copies need it", "yellow")
        with opened(directory, ahead=True) as run:
            trust = trusted(run.tree, kit)
            shelves = reading.shelves(_places(run, also), trust, keys.load(run.tree))
            yield Asked(run, trust, shelves, identities(trust.cluster, kit, identity))


def trusted(tree: Tree, kit: Path | None) -> Trust:
    """By the kit; else by the tree's recovery.xml; else by what this machine has seen of that. Raises K4tError."""
    from k4t.master.backup.judge import Trust
    from k4t.master.backup.keys import keys_directory
    from k4t.master.backup.kit import read
    from k4t.tree.read import read_recovery

    id = tree.cluster.id
    if kit is not None:
        page = read(kit)
        if page.id != id:
            raise K4tError(f"{kit} is the kit of {page.name} ({page.id}), and the tree is of {id}", "name its own kit")
        return Trust(id, page.key)
    known = tree.recovery or read_recovery(keys_directory(id))
    if known is None:
        raise K4tError(
            "the tree has no recovery.xml: no copy can be told from a forged one",
            "k4t backup makes keys and a first copy; --kit names the recovery kit, if there was one",
        )
    return Trust(id, known.key)


def identities(cluster: str, kit: Path | None, identity: Path | None) -> Identities:
    """What opens copies; asked for when one is to be opened."""

    def ask() -> list[Any]:
        from k4t.master.backup.keys import recovery_identity
        from k4t.master.backup.kit import read

        return recovery_identity(cluster, read(kit) if kit is not None else None, identity)

    return ask


def _places(run: Run, also: Sequence[str]) -> list[Place]:
    from k4t.master.backup.targets import targets_of

    found = {spec.name: _target(run, spec) for spec in targets_of(run.tree)}
    for name in also:
        if target_of(run.tree, name) in found:
            continue
        if name in run.tree.nodes:
            found[name] = _node(run, name)
        elif os.path.lexists(name):
            found[name] = folder(name)
        else:
            raise Usage(f"{name!r} is no target of the tree, and no file", f"it has: {', '.join(found) or 'none'}")
    return list(found.values())


def target_of(tree: Tree, word: str) -> str:
    """A target's name: itself, or the host of one that is no node (“master2” for root@master2:22)."""
    from k4t.master.backup.targets import targets_of

    found = targets_of(tree)
    if any(spec.name == word for spec in found):
        return word
    return next((spec.name for spec in found if spec.host.ssh.host == word), word)


def _target(run: Run, spec: TargetSpec) -> Place:
    from k4t.master.backup.reading import Place, Remote
    from k4t.master.backup.targets import open_target

    def open() -> Remote:
        if spec.dead:
            raise HostUnreachable("the tree says it is dead", host=spec.name)
        return Remote(open_target(run.fleet, spec))

    return Place(spec.name, open, spec.every_s)


def _node(run: Run, name: str) -> Place:
    """One that was a target once."""
    from k4t.master.backup.reading import Place, Remote
    from k4t.master.backup.target import Target

    node, id = run.tree.nodes[name], run.tree.cluster.id
    return Place(name, lambda: Remote(Target(run.fleet.transport(node), id, name=name)))


def folder(name: str) -> Place:
    """A file, or a directory, on this machine."""
    from k4t.master.backup.reading import Folder, Place

    return Place(name, lambda: Folder(Path(name)))


# --- which one -------------------------------------------------------------------------------------------------------


def at(text: str) -> At:
    """“41”, “41.17”, “10m” (ago), a time. Raises Usage."""
    from k4t.master.backup.choose import NEWEST, At, number

    if not text or text == LATEST:
        return NEWEST
    found = number(text)
    if found is None and (when := moment(text)):
        found = At(time=when)
    if found is None:
        raise Usage(f"{text!r} is no serial (41, or 41.17), no time (RFC 3339) and no age (10m, 2h, 3d)")
    return found


def moment(text: str) -> str:
    """An age or a time, as RFC 3339 UTC; "" for what is none."""
    from datetime import UTC, datetime

    from k4t.tree.values import DURATION

    try:
        when = datetime.fromtimestamp(time.time() - float(str(DURATION.parse(text))), UTC)
    except ValueError:
        try:
            when = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            return ""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def named(text: str, targets: Sequence[str] = ()) -> bool:
    """Whether a word says by itself which copy is meant."""
    from k4t.master.backup.choose import number

    return text in (LATEST, TREE, *targets) or bool(number(text) or moment(text))


def paths(*words: str) -> list[str]:
    """Those that are a copy's file, or a directory with copies. A file of the tree is neither."""
    return [word for word in words if not named(word) and _has_copies(Path(word))]


def _has_copies(path: Path) -> bool:
    from k4t.master.backup.reading import SUFFIX

    try:
        if path.is_dir():
            return any(name.endswith(SUFFIX) for name in os.listdir(path))
        with path.open("rb") as file:
            return path.name.endswith(SUFFIX) or file.read(16).startswith(b'{"k4t-snapshot"')
    except OSError:
        return False


def side(given: Globals, asked: Asked, text: str) -> tuple[str, Files]:
    """What a word of `diff` or `show` means: its name for people, and its files. Raises Usage, BadCopy, NoIdentity."""
    from k4t.master.backup import choose as pick
    from k4t.master.backup import reading

    if text == TREE:
        return TREE, reading.tree_files(given.db)
    names = [shelf.name for shelf in asked.shelves]
    source = text if text in names else ""
    chosen = pick.choose(
        asked.candidates, pick.Live(1, 1), source=source, at=pick.NEWEST if source else at(text), rollback=True,
        away=[shelf.name for shelf in asked.shelves if shelf.error is not None],
    )  # fmt: skip
    if isinstance(chosen, pick.Refusal):
        raise BadCopy(chosen.reason, f"the next good one is {chosen.next.words}" if chosen.next else "")
    one = chosen.candidate
    shelf = next(shelf for shelf in asked.shelves if shelf.name == one.target)
    if shelf.source is None:
        raise BadCopy(f"{one.target} can't be asked")
    archive = reading.opened(shelf.source, one, asked.trust, asked.opening)
    return f"copy {one.number} on {one.target}", reading.files_of(archive)
