"""Which copy is put back, or why none is, and which one would do instead. Pure.

What counts is what was signed: generation, serial, sequence. What a target says of its files (names, times, order)
counts for nothing, so that a target that was broken into can hold copies back, and can't have an older one taken for
the newest where the hosts know better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from k4t.errors import K4tError, Unreachable, Usage
from k4t.model.snapshot import Lineage, Manifest
from k4t.model.value import value

Order = tuple[int, int, int]
NO_ORDER: Order = (-1, -1, -1)
_NUMBER = re.compile(r"(\d{1,12})(?:\.(\d{1,12}))?")


@value
class Candidate:
    """One file on one target. `manifest` is None for one whose header is refused: `problem` says why. `claimed` is the
    order that its name tells, which counts only where there is no manifest. `digest`: sha256 of the manifest's text."""

    target: str
    name: str
    size_bytes: int
    manifest: Manifest | None = None
    digest: str = ""
    problem: str = ""
    claimed: Order = NO_ORDER

    @property
    def good(self) -> bool:
        return self.manifest is not None and not self.problem

    @property
    def order(self) -> Order:
        return self.manifest.order if self.manifest else self.claimed

    @property
    def number(self) -> str:
        """What people call it: serial and sequence, “41.17”."""
        return number_of(self.manifest) if self.manifest else self.name

    @property
    def words(self) -> str:
        if self.manifest is None:
            return self.target if self.target.endswith(self.name) else f"{self.name} on {self.target}"
        return f"copy {self.number} of {self.manifest.time} on {self.target}"


def number_of(manifest: Manifest) -> str:
    return f"{manifest.serial}.{manifest.sequence}"


@value
class Live:
    """What the hosts know. `answered` of `asked`; where none did, nothing is known. `serial` 0, `lineage` None: they
    answered, and nothing was ever applied. `applied`: what the working copy that is to be replaced applied last."""

    asked: int = 0
    answered: int = 0
    serial: int = 0
    lineage: Lineage | None = None
    applied: int = 0

    @property
    def known(self) -> bool:
        return self.answered > 0


@value
class At:
    """Which of the copies: the newest one (all empty), of a serial, of a serial and sequence, or the last one made up
    to a time (RFC 3339 UTC, seconds, “Z”)."""

    serial: int | None = None
    sequence: int | None = None
    time: str = ""

    @property
    def named(self) -> bool:
        return self.serial is not None or bool(self.time)

    @property
    def words(self) -> str:
        if self.serial is not None:
            return f"serial {self.serial}" if self.sequence is None else f"{self.serial}.{self.sequence}"
        return self.time or "the newest"

    def fits(self, candidate: Candidate) -> bool:
        _, serial, sequence = candidate.order
        if self.serial is not None:
            return serial == self.serial and self.sequence in (None, sequence)
        return not self.time or (candidate.manifest is not None and candidate.manifest.time <= self.time)


NEWEST = At()


def number(text: str) -> At | None:
    """“41” or “41.17”; None for what is no number."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    return At(int(found[1]), int(found[2]) if found[2] else None)


@value
class Choice:
    """The one to be taken, and what is to be said about it."""

    candidate: Candidate
    notes: tuple[str, ...] = ()


@value
class Refusal:
    """`exit_status`: 1 for a bad copy, 4 for one that is older than what is live. `next`: a good one, if there is."""

    reason: str
    next: Candidate | None
    exit_status: int = 1


def choose(
    candidates: Sequence[Candidate], live: Live, *, source: str = "", at: At = NEWEST, rollback: bool = False,
    away: Sequence[str] = (),
) -> Choice | Refusal:  # fmt: skip
    """`source`: the one target to take it from; "" for whichever has it. With a source, the newest file that it shows
    is meant, also when that is a bad one: who asks for it shall hear of that. `away`: targets that can't be asked.

    Raises Usage when there is nothing of the kind, Unreachable when one of those may have it."""
    pool = newest_first(one for one in candidates if source in ("", one.target) and at.fits(one))
    if not source:
        pool = [one for one in pool if one.good] or pool
    if not pool:
        raise nothing(candidates, source, at, away)
    taken = pool[0]
    if not taken.good:
        return Refusal(f"{taken.words}: {taken.problem}", next_good(candidates, live, without=(taken,)))
    if (older := older_than_live(taken, live)) and not rollback:
        return Refusal(f"{taken.words} is {older}", next_good(candidates, live, without=(taken,), older=False), 4)
    return Choice(taken, tuple(_notes(taken, candidates, live, older, named=at.named)))


def older_than_live(candidate: Candidate, live: Live) -> str:
    """In words, what makes it older than what hosts know; "" where it isn't, and where nothing is known."""
    manifest = candidate.manifest
    if manifest is None:
        return ""
    if not live.known:
        older = manifest.serial < live.applied
        return f"older than what this working copy has applied: serial {live.applied}" if older else ""
    lineage = live.lineage
    if lineage is not None and manifest.generation > lineage.generation:
        return ""
    if lineage is not None and manifest.lineage != lineage.id and manifest.serial > lineage.serial:
        who = f"{lineage.who or 'somebody'} took over at {lineage.at or 'some time'}, serial {lineage.serial}"
        return f"of a history that was replaced: {who}"
    if manifest.serial < live.serial:
        return f"older than what is live: serial {live.serial}"
    return ""


def newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Of two that are equally new, the good one, then by target."""
    by_target = sorted(candidates, key=lambda one: (one.target, one.name))
    return sorted(by_target, key=lambda one: (one.order, one.good), reverse=True)


def next_good(
    candidates: Iterable[Candidate], live: Live, *, without: Sequence[Candidate], older: bool = True
) -> Candidate | None:
    """The newest one whose signature is right, but for those. `older`: also when it is older than what is live."""
    good = [one for one in newest_first(candidates) if one.good and one not in without]
    current = [one for one in good if not older_than_live(one, live)]
    return next(iter(current), None) or (next(iter(good), None) if older else None)


def nothing(candidates: Sequence[Candidate], source: str, at: At, away: Sequence[str] = ()) -> K4tError:
    """Where there is one, the newest good copy elsewhere is named."""
    unknown = tuple(away) if not source else ()
    where = source or ("the targets that answer" if unknown else "the targets")
    mine = [one for one in newest_first(candidates) if source in ("", one.target)]
    good = [one for one in mine if one.good]
    others = [one for one in newest_first(candidates) if one.good and one not in mine]
    has = "it has" if source else "they have"
    remedy = f"{has} {good[-1].number} to {good[0].number}: k4t backup list" if good else "k4t backup list"
    if others and not good:
        remedy = f"the newest good one is {others[0].words}"
    wanted = f" of {at.words}" if mine and at.named else ""
    if unknown:
        return Unreachable(f"there is no copy{wanted} on {where}, and {', '.join(unknown)} can't be asked", remedy)
    return Usage(f"there is no copy{wanted} on {where}", remedy)


def _notes(taken: Candidate, candidates: Sequence[Candidate], live: Live, older: str, *, named: bool) -> Iterable[str]:
    if not live.known:
        none = f"none of {live.asked} hosts answers" if live.asked else "there is no host to ask"
        yield f"{none}: what is live is unknown, and so is whether this copy is older than that"
    if older:
        yield f"this copy is {older}"
    better = next_good(candidates, live, without=(taken,), older=False)
    if not named and better is not None and better.order > taken.order:
        yield f"{better.words} is newer"
    for bad in candidates:
        if not bad.good and bad.order >= taken.order and not named:
            yield f"{bad.words}: {bad.problem}"


# --- whose history it is after that --------------------------------------------------------------------------------


def goes_on(own: Lineage | None, live: Live) -> bool:
    """Whether the directory that is replaced is the cluster's newest working copy itself: then nothing changes hands.
    `own`: its lineage, None for a directory that is none."""
    return own is not None and (live.lineage is None or live.lineage.id == own.id)


# --- whether a target shows all that it was given ------------------------------------------------------------------


@value
class Shown:
    """The newest good copy that one target shows; `written`: the newest that this machine wrote there, if it knows."""

    target: str
    newest: Manifest | None
    written: Order | None = None


def rolled_back(shown: Sequence[Shown]) -> dict[str, str]:
    """By target, why what it shows is not all that it was given. A target may be behind another in edits (its period is
    longer), never in serials: every apply copies to all; one that was away then catches up at its next turn."""
    found: dict[str, str] = {}
    newest = max((one.newest.order for one in shown if one.newest), default=None)
    for one in shown:
        mine = one.newest.order if one.newest else NO_ORDER
        said = f"its newest good copy is {number_of(one.newest)}" if one.newest else "it shows no good copy"
        if one.written is not None and mine < one.written:
            found[one.target] = f"{said}; this machine wrote {one.written[1]}.{one.written[2]} there: rolled back"
        elif one.written is None and newest is not None and mine[:2] < newest[:2]:
            other = next(o.target for o in shown if o.newest and o.newest.order == newest)
            found[one.target] = f"{said}, {other} has {newest[1]}.{newest[2]}: it was away, or was rolled back"
    return found


def broken_chain(manifests: Iterable[tuple[str, Manifest]]) -> list[str]:
    """What does not hold together in (digest, manifest)s: each names the one before it, where that one is still there.
    Two that differ may not have one place in one lineage."""
    places: dict[tuple[str, int], dict[str, Manifest]] = {}
    for digest, manifest in manifests:
        places.setdefault((manifest.lineage, manifest.sequence), {})[digest] = manifest
    found = []
    for (lineage, sequence), here in sorted(places.items()):
        if len(here) > 1:
            found.append(f"{len(here)} different copies are number {sequence} of one history: it was forked")
        before = places.get((lineage, sequence - 1), {})
        strays = [one for one in here.values() if before and one.previous not in before]
        found += [f"{number_of(one)} does not follow {number_of(next(iter(before.values())))}" for one in strays]
    return found
