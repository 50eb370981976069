"""What the monitor's loop calls after each check: it tells people, and returns at once.

What is to be told is on disk before it is sent, and taken away when it was taken: killed in between, it is sent again,
with the same id. One process at a time tells for a cluster: whoever holds the lock beside the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import K4tError
from k4t.model.monitor import Alert
from k4t.monitor import statefile
from k4t.monitor.acting.action import Outcome
from k4t.monitor.alerts import box, memory
from k4t.monitor.alerts.deliver import Delivery, SecretOf, label
from k4t.monitor.alerts.memory import Desk
from k4t.monitor.alerts.message import Sender, identity, lasting, subject
from k4t.monitor.alerts.step import step
from k4t.monitor.facts import Subject
from k4t.monitor.judge import Finding

if TYPE_CHECKING:
    from k4t.monitor.check import Looked

UNHEARD = "alert-undelivered"
UNHEARD_S = 600.0
"""What could not be told one way for so long is told the others."""
END_S = 3.0
"""For deliveries that are cut short when the monitor ends."""


def path(cluster_id: str) -> Path:
    """XDG_STATE_HOME/k4t/monitor/CLUSTERID.alerts.json"""
    return statefile.path(cluster_id, "alerts")


class Teller:
    """`secret_of` gives a secret's value or raises K4tError; it is called in a delivery's own thread. `clock`: Unix
    seconds."""

    def __init__(
        self,
        file: Path,
        cluster: str,
        alerts: Sequence[Alert],
        secret_of: SecretOf,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._cluster = cluster
        self._alerts = {identity(alert): alert for alert in alerts}
        self._secret_of = secret_of
        self._clock = clock
        self._sender = Sender(cluster, "")
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._under_way: dict[str, Delivery] = {}
        self._desks: dict[str, Desk] | None = None
        self._at_s: float | None = None
        self._interval_s: float | None = None
        self._changes = self._kept_changes = 0
        self._kept_at_s: float | None = None
        self._notes: list[str] = []
        self._troubles: set[str] = set()
        self._lock: int | None = None
        self._is_closed = False

    def take(self, alerts: Sequence[Alert]) -> None:
        """From now on these: monitor.xml was edited. What was told to those that stay is remembered."""
        with self._guard:
            self._alerts = {identity(alert): alert for alert in alerts}
            if self._desks is not None:
                self._desks = {name: self._desks.get(name, Desk()) for name in self._alerts}
                self._changes += 1

    def round(self, looked: Looked, outcomes: Sequence[Outcome], now_s: float) -> tuple[str, ...]:
        """What of this check is to be told is on its way; lines for a log. Raises nothing, waits for nobody."""
        if not self._alerts:
            return ()
        with self._guard:
            if self._is_closed or not self._is_ours():
                return self._noted()
            self._sender = Sender(self._cluster, looked.facts.cluster_id)
            if self._desks is None:
                self._load()
            self._checked(looked.facts.at_s)
            for name in self._alerts:
                self._keep(name, self._turn(name, looked, outcomes, now_s))
        self._save()
        with self._guard:
            for name in self._alerts:
                self._send(name, now_s)
            return self._noted()

    def close(self, patience_s: float) -> tuple[str, ...]:
        """Wait so long for what is under way, and then end it: it is tried again by whoever comes next."""
        until_s = time.monotonic() + patience_s
        with self._guard:
            self._is_closed = True
            under_way = list(self._under_way.values())
        for one in under_way:
            if not one.wait(until_s - time.monotonic()):
                one.end()
        until_s = time.monotonic() + END_S
        are_over = [one.wait(until_s - time.monotonic()) for one in under_way]
        self._save(whole=True)
        with self._guard:
            if all(are_over):
                self._let_go()
            return self._noted()

    def _noted(self) -> tuple[str, ...]:
        notes, self._notes = tuple(self._notes), []
        return notes

    def _load(self) -> None:
        kept, note = memory.load(self._file)
        self._desks = {name: kept.desks.get(name, Desk()) for name in self._alerts}
        self._at_s = self._kept_at_s = kept.at_s
        self._notes += [note] * bool(note)

    def _checked(self, at_s: float) -> None:
        """How long it takes from one check to the next; also from cron, where each has a process of its own."""
        if at_s != self._at_s:
            self._interval_s = at_s - self._at_s if self._at_s is not None and at_s > self._at_s else None
            self._at_s = at_s

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _turn(self, name: str, looked: Looked, outcomes: Sequence[Outcome], now_s: float) -> Desk:
        desk = self._desk(name)
        judgement = looked.judgement
        state, messages = step(
            desk.state,
            (*judgement.findings, *self._unheard(name, now_s)),
            outcomes,
            self._alerts[name],
            now_s,
            blind=judgement.blind,
            interval_s=self._interval_s,
        )
        kept = desk.box
        for message in messages:
            kept = box.put(kept, message, now_s, under_way=name in self._under_way)
        return Desk(state, kept)

    def _unheard(self, name: str, now_s: float) -> Iterator[Finding]:
        """For the others: that one way has told nobody for long. It is as grave as what it should have told."""
        waits = [(one, self._desk(one).box) for one in self._alerts if one != name]
        late = [(self._alerts[one], box.first, box.error) for one, box in waits if box.first and box.first.tries]
        late = [one for one in late if now_s - one[1].first_s >= UNHEARD_S]
        if late:
            level = "critical" if any(first.level == "critical" for _, first, _ in late) else "warning"
            since_s = min(first.first_s for _, first, _ in late)
            words = "; ".join(f"{label(alert)}: {error}" for alert, _, error in late)
            yield Finding(
                Subject("cluster", self._cluster), UNHEARD, level, confirmed=True, since_s=since_s, seen=1, checks=1,
                sentence=f"an alert can't be told: {words}", remedy="k4t monitor alert test",
            )  # fmt: skip

    def _desk(self, name: str) -> Desk:
        return (self._desks or {}).get(name, Desk())

    def _keep(self, name: str, desk: Desk) -> None:
        if self._desks is not None and name in self._desks and self._desks[name] != desk:
            self._desks[name] = desk
            self._changes += 1

    def _save(self, *, whole: bool = False) -> None:
        """If anything is to be kept (`whole`: also when the last check was). Whoever has waited for another's writing
        finds that it was his own too. On a disk that is full alerts go on, from memory."""
        with self._writing:
            with self._guard:
                changes, kept = self._changes, memory.Kept(dict(self._desks or {}), self._at_s)
                is_news = changes != self._kept_changes or (whole and self._at_s != self._kept_at_s)
                if self._desks is None or not is_news:
                    return
            try:
                memory.save(self._file, kept)
            except K4tError as error:
                with self._guard:
                    self._trouble(f"what alerts have told can't be kept: {error}")
                return
            with self._guard:
                self._troubles.clear()
                self._kept_changes, self._kept_at_s = changes, kept.at_s

    def _trouble(self, words: str) -> None:
        """Said when it begins, not at every check."""
        self._notes += [words] * (words not in self._troubles)
        self._troubles.add(words)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self, name: str, now_s: float) -> None:
        desk = self._desk(name)
        waiting = desk.box.first
        if waiting is None or name in self._under_way or self._is_closed or box.must_wait(desk.box, now_s):
            return
        message = waiting if waiting.at_s == now_s else box.fresh(waiting, desk.state, now_s)
        if not (message.items or message.outcomes):
            state = replace(desk.state, dropped=desk.state.dropped + message.dropped)
            self._keep(name, Desk(state, box.delivered(desk.box, now_s)))
            return
        failpoints.reach("alert:sending")
        self._under_way[name] = one = Delivery(
            message, self._sender, self._alerts[name], self._secret_of, lambda done: self._sent(name, done)
        )
        try:
            one.start()
        except RuntimeError as error:
            del self._under_way[name]
            self._notes.append(f"{label(one.alert)}: not told yet: {error}")

    def _sent(self, name: str, one: Delivery) -> None:
        """In the delivery's thread."""
        failpoints.reach("alert:sent")
        with self._guard:
            desk, now_s = self._desk(name), self._clock()
            if one.error:
                kept = box.failed(desk.box, one.error, now_s)
                self._notes.append(_failure(one, kept, now_s))
            else:
                kept = box.delivered(desk.box, now_s)
                self._notes.append(f"{label(one.alert)}: told: {subject(one.message, self._sender)}")
            self._keep(name, Desk(desk.state, kept))
        self._save()
        with self._guard:
            self._under_way.pop(name, None)  # only now: until it is written down it isn't over
            if self._is_closed and not self._under_way:
                self._let_go()
            elif not one.error:
                self._send(name, now_s)

    # --- one at a time -----------------------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        if self._lock is not None:
            return True
        lock = self._file.with_suffix(".lock")
        handle = -1
        try:
            lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            self._trouble("another monitor on this machine tells the alerts of this cluster")
            return False
        except OSError as error:
            with contextlib.suppress(OSError):
                os.close(handle)
            self._trouble(f"can't lock {lock}: {error.strerror}: alerts are told without")
            return True
        self._lock = handle
        return True

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._desks = None


def _failure(one: Delivery, kept: box.Box, now_s: float) -> str:
    tries = kept.first.tries if kept.first else 1
    return f"{label(one.alert)}: not told (try {tries}, again in {lasting(kept.next_s - now_s)}): {one.error}"


def desks(file: Path, alerts: Sequence[Alert]) -> list[tuple[Alert, Desk]]:
    """What each has told and has still to tell."""
    kept, _ = memory.load(file)
    return [(alert, kept.desks.get(identity(alert), Desk())) for alert in alerts]
