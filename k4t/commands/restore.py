"""The way back to a copy: the whole tree, one app of it, or a directory to look at."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, group
from k4t.commands.sources import IdentityFile, KitFile, asked, at, folder, identities, target_of
from k4t.errors import K4tError, Usage
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.backup.choose import Live
    from k4t.master.backup.differences import Present
    from k4t.master.backup.restore import Done, Taken, Wanted
    from k4t.model.events import Event
    from k4t.model.snapshot import Lineage
    from k4t.model.spec import Tree
    from k4t.remote.lock import Holder

restore_app = group("The way back to a copy.")
WAIT_S = 3600.0


@restore_app.command("restore", epilog="Example: k4t restore --from node1 --at 41 --app web")
def restore(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Option("--from", help="A target, a copy's file, or a directory of copies.", metavar="NODE|FILE|DIR")
    ] = "",
    when: Annotated[str, typer.Option("--at", help="Which one, if not the newest.", metavar="SERIAL|TIME")] = "",
    app: Annotated[str, typer.Option("--app", help="This app's directory alone.", metavar="APP")] = "",
    to: Annotated[
        Path | None, typer.Option("--to", help="Into a new directory; nothing else is changed.", metavar="DIR")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Also one that is older than what is live.")] = False,
    kit: KitFile = None,
    identity: IdentityFile = None,
) -> None:
    """Put the tree, or one app, back to a copy. What was there is kept, and what runs is not touched."""
    from k4t.master.backup.restore import Wanted, cleared, locked

    given: Globals = ctx.obj
    real = Path(os.path.realpath(given.db))
    wanted = Wanted(real, source, at(when), app, Path(os.path.realpath(to)) if to else None, rollback)
    way = _Way(given, wanted, kit, identity)
    wait_s = WAIT_S if given.wait else 0.0
    if wanted.to is None:
        _need_tree(given, wanted)
        with locked(real, way.holder, wait_s=wait_s):
            for line in cleared(real):
                given.console.note(line)
    if not way.agreed():  # without the lock: who is asked may be at lunch
        return
    if wanted.to is not None:
        way.put()
        return
    with locked(real, way.holder, wait_s=wait_s):
        way.need_unchanged()
        done = way.put()
    if done.lineage is not None:
        way.announce(done.lineage)


def _is_tree(db: Path) -> bool:
    """Whatever state it is in."""
    return (db / "cluster.xml").exists() or (db / ".k4t").is_dir()


def _need_tree(given: Globals, wanted: Wanted) -> None:
    """What is replaced is a tree, or nothing. Raises Usage."""
    db = wanted.target
    if _is_tree(db):
        return
    if wanted.app:
        raise Usage(f"there is no tree at {given.db}", "--app puts an app back into one; --to writes it elsewhere")
    if os.path.lexists(db) and not (db.is_dir() and not any(db.iterdir())):
        raise Usage(f"{given.db} is no tree, and not empty", "--db names the tree, or a new directory")


class _Way:
    """One restore, from the line to the last word."""

    def __init__(self, given: Globals, wanted: Wanted, kit: Path | None, identity: Path | None) -> None:
        from k4t.master.backup.differences import Differences

        self.given, self.wanted, self.kit, self.identity = given, wanted, kit, identity
        self.holder = _holder()
        what = f"{given.db}/apps/{wanted.app}" if wanted.app else str(given.db)
        self.where = str(wanted.to) if wanted.to else what
        self.taken: Taken
        self.live: Live
        self.before: Present = {}
        self.found = Differences()

    def agreed(self) -> bool:
        """Find the copy, say what it changes, ask. False: there is nothing to do."""
        from k4t.master.backup import restore as work
        from k4t.master.backup.choose import goes_on
        from k4t.master.backup.differences import differences, present
        from k4t.master.history import WorkingCopy
        from k4t.render import copies as show

        console, wanted = self.given.console, self.wanted
        self.taken, self.live = self._taken()
        for note in self.taken.notes:
            console.note(f"! {note}", "yellow")
        if wanted.app:
            work.only(self.taken.archive, wanted.app)
        if wanted.to is not None:
            return True
        self.before = present(wanted.target)
        self.found = differences(self.before, self.taken.archive, wanted.app)
        takes_over = wanted.whole and not goes_on(WorkingCopy(wanted.target).lineage(), self.live)
        if not self.found and not takes_over:
            show.nothing(self.taken, console, where=self.where)
            return False
        show.preview(self.found, console)
        agree(self.given, self._question(self.taken, takes_over=takes_over))
        return True

    def need_unchanged(self) -> None:
        """Raises K4tError when the tree is no longer what was looked at."""
        from k4t.master.backup.differences import present

        if present(self.wanted.target) != self.before:
            raise K4tError(f"{self.given.db} was edited meanwhile", "nothing was changed; start again")

    def put(self) -> Done:
        from k4t.render import copies as show

        done = self._done(self.taken, self.live)
        for note in done.notes:
            self.given.console.note(f"! {note}", "yellow")
        show.restored(
            done, self.taken, self.found, self.given.console, what=self.wanted.app or "tree", where=self.where,
            plan=self.wanted.to is None, now_s=time.time(),
        )  # fmt: skip
        return done

    def _question(self, taken: Taken, *, takes_over: bool) -> str:
        from k4t.render import copies as show

        over = " It becomes the cluster's master then: any other is fenced off." if takes_over else ""
        return f"Put {show.called(taken, time.time())} in place of {self.where}?{over}"

    def _done(self, taken: Taken, live: Live) -> Done:
        from k4t.master.backup import restore as work

        if self.wanted.to is not None:
            return work.write_to(taken, self.wanted, self.wanted.to)
        if self.wanted.app:
            return work.put_back_app(taken, self.wanted, self.holder)
        return work.put_back(taken, self.wanted, live, self.holder)

    def _taken(self) -> tuple[Taken, Live]:
        """The copy, and what is live. Where there is no tree, the copy's own says which hosts to ask for that."""
        from k4t.master.backup import reading, restore
        from k4t.master.history import WorkingCopy

        db, source = self.wanted.target, self.wanted.source
        if not _is_tree(db):
            return self._without_tree()
        with asked(self.given, self.kit, self.identity, also=[source] if source else []) as found:
            applied = WorkingCopy(db).base_serial() or 0
            live = dataclasses.replace(reading.live(found.run.fleet), applied=applied)
            wanted = dataclasses.replace(self.wanted, source=target_of(found.run.tree, source))
            return restore.take(found.shelves, live, wanted, found.trust, found.opening), live

    def _without_tree(self) -> tuple[Taken, Live]:
        from k4t.master.backup import reading, restore
        from k4t.master.backup.choose import Live
        from k4t.master.backup.judge import Trust
        from k4t.master.backup.kit import read
        from k4t.wiring import opened

        path = Path(self.wanted.source)
        if self.kit is None or not self.wanted.source or not path.exists():
            raise Usage(
                f"there is no tree at {self.given.db} that says which hosts to ask",
                "from hosts: k4t recover --kit FILE; from a file or directory of copies: --from FILE --kit FILE",
            )
        page = read(self.kit)
        trust, opening = Trust(page.id, page.key), identities(page.id, self.kit, self.identity)
        shelves = reading.shelves([folder(self.wanted.source)], trust)
        taken = restore.take(shelves, Live(), self.wanted, trust, opening)
        with tempfile.TemporaryDirectory(prefix="k4t-") as temporary:
            tree = Path(temporary) / "db"
            restore.write_to(taken, dataclasses.replace(self.wanted, app=""), tree)
            with opened(tree, ahead=True) as run:
                live = reading.live(run.fleet)
        return restore.take(shelves, live, self.wanted, trust, opening), live

    def announce(self, new: Lineage) -> None:
        """The new lineage, to all hosts that answer. Those that don't are told by the next apply."""
        from k4t.master import lineage
        from k4t.wiring import opened

        console = self.given.console
        try:
            with opened(self.given.db, self._say, wait=self.given.wait, ahead=True) as run:
                untold = lineage.announce(run, new)
                self._certify(run.tree)
        except K4tError as error:
            console.note(f"! no host was told yet who is the master: {error}; the next apply tells them", "yellow")
            return
        if untold:
            console.note(f"! not told yet who is the master: {', '.join(untold)}; the next apply tells them", "yellow")

    def _certify(self, tree: Tree) -> None:
        """A master makes copies: with the kit this machine's key can be certified here and now."""
        from k4t.master.backup import keys
        from k4t.wiring import now

        if tree.recovery is None or keys.load(tree) is not None:
            return
        try:
            opening = identities(tree.cluster.id, self.kit, self.identity)()
            keys.certify(tree.cluster.id, tree.recovery, opening, now())
        except K4tError:
            self.given.console.note(f"! {keys.not_certified(tree.cluster.id)}", "yellow")

    def _say(self, event: Event) -> None:
        from k4t.model.events import Note

        if isinstance(event, Note):
            self.given.console.note(f"! {event.text}", "yellow")


def _holder() -> Holder:
    import secrets
    import socket

    from k4t.remote.lock import Holder
    from k4t.wiring import now, who

    return Holder(who(), socket.gethostname(), os.getpid(), now(), "restore", secrets.token_hex(8))
