"""A copy is put back: a whole tree, one app out of it, or either into a directory of its own.

    look → choose → fetch and check → (asked) → a fresh directory → swapped in → whose history it is

Until the swap nothing is changed, after it everything is; see `swap` for what a kill leaves. Its failpoints, in order:
`restore:made`, `restore:unpacked`, `restore:carried`, `restore:synced`, `restore:named` (`restore:aside` where names
can't be exchanged), `restore:swapped`, `restore:kept`, `restore:cleared`; `restore:clearing` what one before has left.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from k4t.errors import BadCopy, InvalidTree, K4tError, StepError, Unreachable, Unsafe, Usage
from k4t.failpoints import reach
from k4t.master.backup import reading, unpack
from k4t.master.backup.carry import carried, owned_as
from k4t.master.backup.choose import NEWEST, At, Candidate, Choice, Live, Refusal, choose, goes_on
from k4t.master.backup.copy import alone
from k4t.master.backup.judge import Trust
from k4t.master.backup.reading import Shelf
from k4t.master.backup.swap import Fresh, Swapped, tidied
from k4t.master.history import WorkingCopy
from k4t.master.planning.lineage import taken_over
from k4t.master.record import begun
from k4t.model.snapshot import Lineage, Manifest
from k4t.model.value import value
from k4t.remote.head import lineage_from_json
from k4t.remote.lock import Holder, LocalLock
from k4t.tree.age import NoIdentity
from k4t.tree.edit import write_file
from k4t.tree.read import read_tree

MAX_TRIES = 20
BACKUP_WAIT_S = 60.0
OWN = ".k4t"
REPLACED = "replaced"
Identities = Callable[[], list[Any]]


@value
class Wanted:
    """What the command line asks for. `source`: a target's name, or the path of a file or directory; "": any target.
    `target`: the directory that is replaced; with `to`, the one that is written instead."""

    target: Path
    source: str = ""
    at: At = NEWEST
    app: str = ""
    to: Path | None = None
    rollback: bool = False

    @property
    def whole(self) -> bool:
        return not self.app and self.to is None


@value
class Taken:
    """A good copy, opened. `target`: where it came from."""

    target: str
    manifest: Manifest
    archive: bytes
    notes: tuple[str, ...] = ()


@value
class Done:
    """`kept`: where what was there before is now. `lineage`: a new one that begins here, for hosts to be told of."""

    kept: Path | None = None
    lineage: Lineage | None = None
    notes: tuple[str, ...] = ()


# --- which one -------------------------------------------------------------------------------------------------------


def take(found: Sequence[Shelf], live: Live, wanted: Wanted, trust: Trust, identities: Identities) -> Taken:
    """The copy that is asked for, fetched, checked and opened. Which one is meant is decided by the headers; what turns
    out bad then is left out and mentioned. With a source it is refused, and the next good one, opened too, is named.

    Raises BadCopy and Unsafe (older than what is live) with that; NoIdentity; Unreachable when no target answers; Usage
    when there is nothing of the kind."""
    sources = {shelf.name: shelf.source for shelf in found if shelf.source is not None}
    away = [shelf.name for shelf in found if shelf.error is not None]
    if not sources or (wanted.source and wanted.source not in sources):
        raise unasked([shelf for shelf in found if wanted.source in ("", shelf.name)])
    candidates = [one for shelf in found for one in shelf.candidates]
    any_age = wanted.rollback or not wanted.whole
    mentioned = wanted.whole or (live.known and not wanted.at.named)
    known = live if mentioned else Live(1, 1)  # nothing that is live is replaced, and this one was asked for
    for _ in range(MAX_TRIES):
        choice = choose(candidates, known, source=wanted.source, at=wanted.at, rollback=any_age, away=away)
        one = choice.next if isinstance(choice, Refusal) else choice.candidate
        if isinstance(choice, Refusal) and one is None:
            raise refused(choice, wanted)
        try:
            archive = _opened(sources, one, trust, identities, under=f"apps/{wanted.app}/" if wanted.app else "")
        except (BadCopy, Unreachable, StepError) as error:
            if wanted.source and not isinstance(error, BadCopy) and not isinstance(choice, Refusal):
                raise
            candidates = _marked(candidates, one, error.words)
            continue
        except NoIdentity:
            if isinstance(choice, Refusal):
                raise refused(choice, wanted) from None
            raise
        if isinstance(choice, Refusal):
            raise refused(choice, wanted)
        return _taken(choice, archive, found)
    raise BadCopy(
        f"{MAX_TRIES} copies were looked at, and none of them is good", "k4t backup verify says what is wrong"
    )


def _taken(choice: Choice, archive: bytes, found: Sequence[Shelf]) -> Taken:
    away = [f"{shelf.name} can't be asked: {shelf.error.words}" for shelf in found if shelf.error is not None]
    manifest = choice.candidate.manifest
    assert manifest is not None  # noqa: S101 - a good one has it
    return Taken(choice.candidate.target, manifest, archive, (*choice.notes, *away))


def _opened(
    sources: Mapping[str, reading.Source | None],
    one: Candidate | None,
    trust: Trust,
    identities: Identities,
    *,
    under: str,
) -> bytes:
    source = sources[one.target] if one else None
    assert one is not None and source is not None  # noqa: S101, PT018 - candidates come from sources
    return reading.opened(source, one, trust, identities, under=under)


def _marked(candidates: Sequence[Candidate], bad: Candidate | None, problem: str) -> list[Candidate]:
    return [dataclasses.replace(one, problem=problem) if one is bad else one for one in candidates]


def refused(refusal: Refusal, wanted: Wanted) -> K4tError:
    """With the command that takes the next good one."""
    next = refusal.next
    line = ["k4t restore", *([f"--app {wanted.app}"] if wanted.app else [])]
    good = (
        f"the next good one is {next.words}: {' '.join(line)} --from {next.target} --at {next.number}" if next else ""
    )
    if refusal.exit_status == Unsafe.exit_status:
        return Unsafe(refusal.reason, "; ".join(filter(None, (good, "--rollback takes it all the same"))))
    return BadCopy(refusal.reason, good or "no other copy is good: k4t backup list")


def unasked(away: Sequence[Shelf]) -> K4tError:
    """Why there is nothing to choose from: with the status of a refused key or login, if that is why."""
    errors = [shelf.error for shelf in away if shelf.error is not None]
    if not errors:
        return Usage("the tree has no <backup>", "--from names a file or a directory with copies")
    if len(errors) == 1:
        return errors[0]
    said = "; ".join(str(error) for error in errors)
    worst = min(errors, key=lambda error: error.exit_status != 77)
    kind = type(worst) if worst.exit_status == 77 else Unreachable
    return kind(f"no target can be asked: {said}")


# --- putting it back -------------------------------------------------------------------------------------------------


@contextmanager
def locked(db: Path, holder: Holder, *, wait_s: float = 0.0) -> Iterator[None]:
    """The tree's lock and that of its backups, where there is a tree. Raises Locked."""
    if not db.is_dir() or not any(db.iterdir()):
        yield
        return
    lock = LocalLock(WorkingCopy(db).lock_path).take(holder, wait_s=wait_s)
    with lock, alone(db, holder, wait_s=max(wait_s, BACKUP_WAIT_S)):
        yield


def cleared(db: Path) -> list[str]:
    """What restores that were killed have left is put right. Under the tree's lock. Raises K4tError."""
    said = tidied(db, db.parent)
    beside = db / OWN / REPLACED
    names = {name.split(".")[2] for name in _listed(beside) if name.startswith(".k4t-new.") and name.count(".") > 2}
    names |= {name.partition(".before-")[0] for name in _listed(beside) if ".before-" in name}
    for name in sorted(names):
        said += tidied(db / "apps" / name, beside)
    return said


def put_back(taken: Taken, wanted: Wanted, live: Live, holder: Holder) -> Done:
    """The whole tree. Under the tree's lock. Raises K4tError: the old one is in place then."""
    db = wanted.target
    with ExitStack() as stack:
        fresh = Fresh(db, db.parent)
        stack.callback(fresh.discard)
        unpack.unpack(taken.archive, fresh.path)
        reach("restore:unpacked")
        own = WorkingCopy(db).lineage()
        notes, lineage = _remembering(taken, wanted, live, own, new=fresh.path, holder=holder)
        with suppress(FileNotFoundError):
            _owned(db, fresh.path)
        stack.enter_context(LocalLock(fresh.path / OWN / "lock").take(holder))  # nobody comes in between
        reach("restore:carried")
        swapped = fresh.swap(f"{db.name}.before-{_stamp(holder.since)}")
    return Done(swapped.kept, lineage, (*notes, *_said(swapped), *_invalid(db)))


def _remembering(
    taken: Taken, wanted: Wanted, live: Live, own: Lineage | None, *, new: Path, holder: Holder
) -> tuple[list[str], Lineage | None]:
    """What the new working copy knows: of the old one, of whose history it is, and that this was done."""
    (new / OWN).mkdir(mode=0o700, exist_ok=True)
    same = goes_on(own, live)
    notes = carried(wanted.target, new, same_history=same)
    copy = WorkingCopy(new)
    base = copy.base_serial() or 0
    if wanted.rollback:  # a deliberate step back: the next apply shall not take this copy for an old clone
        base = max(base, live.serial, live.applied)
        write_file(copy.directory / "base", f"{base}\n".encode(), 0o600)
    lineage = own if same else _new_lineage(taken, live, own, holder)
    if lineage is not None:
        copy.keep_lineage(lineage)
    with suppress(K4tError):
        copy.audit({
            "at": holder.since, "who": holder.who, "result": "restored", "serial": taken.manifest.serial,
            "message": f"restored copy {taken.manifest.serial}.{taken.manifest.sequence} from {taken.target}",
        })  # fmt: skip
    return notes, None if same else lineage


def _new_lineage(taken: Taken, live: Live, own: Lineage | None, holder: Holder) -> Lineage:
    """This directory takes the cluster over, from whoever has it."""
    packed = unpack.member(taken.archive, f"{OWN}/lineage")
    known = None
    with suppress(ValueError, RecursionError):
        known = lineage_from_json(json.loads(packed)) if packed else None
    theirs = Lineage(taken.manifest.generation, taken.manifest.lineage)
    new = begun(serial=max(live.serial, taken.manifest.serial), who=holder.who, at=holder.since)
    return taken_over((live.lineage, own, known, theirs), new)


def put_back_app(taken: Taken, wanted: Wanted, holder: Holder) -> Done:
    """One app's directory. Under the tree's lock. Raises K4tError: the old one is in place then."""
    db, target = wanted.target, wanted.target / "apps" / wanted.app
    archive = only(taken.archive, wanted.app)
    beside = db / OWN / REPLACED
    try:
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't write {beside}: {error.strerror}", "nothing was changed") from error
    with ExitStack() as stack:
        fresh = Fresh(target, beside)
        stack.callback(fresh.discard)
        unpack.unpack(archive, fresh.path)
        reach("restore:unpacked")
        notes = carried(target, fresh.path, same_history=False)
        _owned(target if target.exists() else target.parent, fresh.path)
        reach("restore:carried")
        swapped = fresh.swap(f"{wanted.app}.before-{_stamp(holder.since)}")
    return Done(swapped.kept, None, (*notes, *_said(swapped), *_invalid(db)))


def write_to(taken: Taken, wanted: Wanted, to: Path) -> Done:
    """Into a directory of its own, and nothing else is changed. Raises Usage when it is not new or empty."""
    if os.path.lexists(to) and (not to.is_dir() or any(to.iterdir())):
        raise Usage(f"{to} is not empty", "name a directory that isn't there")
    if wanted.target in to.parents:
        raise Usage(f"{to} is in the tree itself", "name a directory elsewhere")
    archive = only(taken.archive, wanted.app) if wanted.app else taken.archive
    with ExitStack() as stack:
        fresh = Fresh(to, to.parent)
        stack.callback(fresh.discard)
        unpack.unpack(archive, fresh.path)
        reach("restore:unpacked")
        fresh.swap(f"{to.name}.before-{taken.manifest.serial}")
    return Done()


def only(archive: bytes, app: str) -> bytes:
    """The archive of an app's directory alone. Raises Usage when the copy doesn't have it."""
    start = f"apps/{app}/"
    entries = unpack.listed(archive)
    found = [entry for path, entry in entries.items() if path.startswith(start)]
    if not found:
        apps = sorted({path.split("/")[1] for path in entries if path.startswith("apps/") and path.count("/") > 1})
        raise Usage(f"the copy has no app {app!r}", f"it has: {', '.join(apps) or 'none'}")
    pieces = [
        unpack.header(one.path[len(start) :], one.mode, one.size_bytes) + unpack.padded(unpack.content(archive, one))
        for one in found
    ]
    return b"".join(pieces) + unpack.END


def _owned(old: Path, new: Path) -> None:
    try:
        owned_as(old.stat(), new)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise K4tError(f"can't give {new} to the owner of {old}: {error.strerror}", "nothing was changed") from error


def _said(swapped: Swapped) -> list[str]:
    if swapped.atomic:
        return []
    return ["this file system can't exchange two directories at once: for a moment there was none"]


def _invalid(db: Path) -> list[str]:
    """What is in place may be what was copied, and still be no valid tree."""
    try:
        read_tree(db)
    except InvalidTree as error:
        return [f"the tree has {len(error.findings)} errors now: {error.findings[0]}"]
    except Usage as error:
        return [str(error)]
    return []


def _stamp(at: str) -> str:
    return at.replace("-", "").replace(":", "")


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
