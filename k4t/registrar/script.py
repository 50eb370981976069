"""Whatever the operator's own commands change (driver script), one call for each thing: see `calls`.

What was called for is remembered in a file, written before and after the calls of one publication, so that one that was
cut short is gone through again: every command must bear being called twice. With a `list` command, what it says counts
more than what is remembered.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from . import calls, files, spawn
from .calls import BadVerbs, Book, Call, Calls, Done, Listed, Thing
from .document import Document
from .errors import BadRequest, Damaged, VendorRefused
from .store import Holding
from .union import Union, record_clashes
from .vendor import Rendering, Vendor

TIMEOUT_S = 30.0
BUDGET_S = 240.0
"""For all calls of one publication; the next one goes on where it ended."""
MAX_SAID = 5
THINGS = "things"


class OutOfTime(VendorRefused):
    """The budget is used up: what was done stays done."""


class Script(Vendor):
    """A gateway. config.json: verbs (verb to argument list), timeout_s."""

    kind = "gateway"
    name = "script"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        self.verbs: Dict[str, List[str]] = config.get("verbs") or {}
        try:
            calls.check_verbs(self.kind, self.verbs)
        except BadVerbs as error:
            raise BadRequest("scripts: %s" % error) from error
        self.book = Book(self.kind, self.verbs)
        self.timeout_s = float(config.get("timeout_s", TIMEOUT_S))
        self.budget_s = float(config.get("budget_s", BUDGET_S))
        self.path = os.path.join(root, "var/lib/k4t/registrar", self.name, "done.json")

    def setup_files(self) -> Dict[str, str]:
        self._programs()
        return {}

    def _programs(self) -> None:
        for verb, argv in sorted(self.verbs.items()):
            if shutil.which(argv[0]) is None:
                raise VendorRefused("verb %s: there is no program %s here" % (verb, argv[0]))

    # --- candidates --------------------------------------------------------------------------------------------

    def supports(self, document: Document) -> None:
        for route in document.routes:
            lacking = calls.lacking(route, self.verbs)
            if lacking:
                words = "a route of %s asks for %s, which no <script> of this gateway is told of"
                raise VendorRefused(words % (route.app, ", ".join(lacking)))

    def render(self, union: Union) -> Rendering:
        return {THINGS: calls.things(self.kind, union, self.config.get("zones", ()), self.root)}

    def check(self, rendering: Rendering) -> None:  # noqa: ARG002 - the operator's command is told nothing
        self._programs()
        if "check" in self.verbs:
            spawn.run(self.verbs["check"], self.timeout_s)

    # --- in step -----------------------------------------------------------------------------------------------

    def install(self, rendering: Rendering) -> str:
        wanted: List[Thing] = rendering[THINGS]
        found = self._list()
        done = self._done()
        if found is not None:
            done = _corrected(done, wanted, found)
        todo = self.book.calls(wanted, done)
        if todo.add or todo.remove or todo.forgotten:
            self._carry_out(todo, done)
        return ""

    def _carry_out(self, todo: Calls, done: Sequence[Done]) -> None:
        """New things, then old ones. A new one that fails takes back those before it."""
        deadline_s = time.monotonic() + self.budget_s
        known = {self.book.same(one.thing): one for one in done}
        for call in todo.add:
            known[self.book.same(call.thing)] = Done(call.thing, sure=False)
        self._remember(known.values())
        try:
            made: List[Call] = []
            for call in todo.add:
                self._run_or_undo(call, made, known, deadline_s)
            for thing in todo.forgotten:
                known.pop(self.book.same(thing), None)
            self._remove(todo.remove, known, deadline_s)
        finally:
            self._remember(known.values())

    def _run_or_undo(self, call: Call, made: List[Call], known: Dict[Any, Done], deadline_s: float) -> None:
        try:
            self._run(call, deadline_s)
        except OutOfTime:
            raise
        except VendorRefused:
            self._undo([one.thing for one in reversed([*made, call])], known, deadline_s)
            raise
        made.append(call)
        known[self.book.same(call.thing)] = Done(call.thing)

    def _undo(self, things: Sequence[Thing], known: Dict[Any, Done], deadline_s: float) -> None:
        """Take them away; where that would take away what was there before, make that again. As far as it goes."""
        keys = {self.book.same(one) for one in things}
        old = [one.thing for key, one in known.items() if one.sure and key not in keys]
        hidden = {tuple(self.book.take(one).argv): one for one in old}
        for one in things:
            take = self.book.take(one)
            before = hidden.get(tuple(take.argv))
            with contextlib.suppress(VendorRefused):
                self._run(self.book.make(before) if before else take, deadline_s)
                known.pop(self.book.same(one), None)

    def _remove(self, gone: Sequence[Call], known: Dict[Any, Done], deadline_s: float) -> None:
        """One that fails holds up the stages after its own, not its neighbours. Raises VendorRefused."""
        failed: List[str] = []
        stage = ""
        for call in gone:
            if failed and call.thing.stage != stage:
                break
            stage = call.thing.stage
            try:
                self._run(call, deadline_s)
                known.pop(self.book.same(call.thing), None)
            except OutOfTime:
                raise
            except VendorRefused as refusal:
                failed.append(str(refusal))
        if failed:
            more = "; and %d more" % (len(failed) - MAX_SAID) if len(failed) > MAX_SAID else ""
            raise VendorRefused("; ".join(failed[:MAX_SAID]) + more)

    def _run(self, call: Call, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            words = "the commands take longer than %g s in all; the next publication goes on with %s"
            raise OutOfTime(words % (self.budget_s, call.thing.words))
        spawn.run(call.argv, min(self.timeout_s, max(left_s, 1.0)))

    # --- what was done, and what is there ------------------------------------------------------------------------

    def _list(self) -> Optional[Listed]:
        """None without a `list` command. Raises VendorRefused."""
        if "list" not in self.verbs:
            return None
        try:
            return calls.listed(self.kind, spawn.run(self.verbs["list"], self.timeout_s))
        except BadVerbs as error:
            raise VendorRefused(str(error)) from error

    def _done(self) -> List[Done]:
        """Raises Damaged."""
        content = files.read_json(self.path)
        try:
            return [
                Done(calls.thing(row["stage"], **row["values"]), bool(row["sure"]))
                for row in (content or {}).get("done", ())
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise Damaged("%s is damaged; remove it, and everything is told again" % self.path) from error

    def _remember(self, done: Any) -> None:
        rows = [{"stage": one.thing.stage, "values": dict(one.thing.values), "sure": one.sure} for one in done]
        files.write_json(self.path, {"format": 1, "done": rows})

    def verify(self, rendering: Rendering) -> List[str]:
        """With `list`, what it says of endpoints (or addresses); of everything else what was last done."""
        wanted: List[Thing] = rendering[THINGS]
        done = self._done()
        try:
            found = self._list()
        except VendorRefused as refusal:
            return [str(refusal)]
        known = {self.book.same(one.thing) for one in done if one.sure}
        said = [
            "%s was not told" % one.words
            for key, one in self.book.wanted(wanted).items()
            if key not in known and not (found is not None and calls.shown(one))
        ]
        if found is None:
            keys = self.book.wanted(wanted)
            return said + ["%s was not taken out" % d.thing.words for d in done if self.book.same(d.thing) not in keys]
        shown = [(one, calls.shown(one)) for one in self.book.wanted(wanted).values()]
        said += ["%s is not listed" % one.words for one, rows in shown if rows and not rows & found]
        gone = calls.strays(found, wanted, [one.thing for one in done])
        return said + ["%s is listed, and not published" % one.words for one in gone]


def _corrected(done: Sequence[Done], wanted: Sequence[Thing], found: Listed) -> List[Done]:
    """What was done, as the list has it: what it lacks was not; what it has and nobody wants was."""
    kept = [one for one in done if not calls.shown(one.thing) or calls.shown(one.thing) & found]
    known = {one.thing for one in kept}
    extra = calls.strays(found, wanted, [one.thing for one in done])
    return kept + [Done(one) for one in extra if one not in known]


class DnsScript(Script):
    """A DNS server. config.json: verbs, zones, timeout_s."""

    kind = "dns"
    name = "dnsscript"

    def clashes(self, mine: Holding, others: Sequence[Holding]) -> List[str]:
        return record_clashes(mine, others)

    def supports(self, document: Document) -> None:
        for record in document.records:
            if record.type != "address":
                raise VendorRefused("record %s: the script driver has no %s records" % (record.name, record.type))
