"""Two gateways and two DNS servers of different vendors, with random publications and everything that can go wrong
between any two messages: a master that is killed too, and continued by its own working copy or by another one.

K4T_FULL=1: 1,000 publications a pair. K4T_FAULT_SEED says which.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from k4t.model.participant import Kind
from k4t.registrar.document import Document
from tests.publication.changes import Author, chain, mark, played
from tests.publication.four import DRIVERS, HOSTS, Four, Process, four, hosts, until
from tests.publication.master import Ended, Job

__all__ = ["four", "hosts"]
pytestmark = [pytest.mark.crash, pytest.mark.timeout(7200 if "K4T_FULL" in os.environ else 300)]
ROUNDS = int(os.environ.get("K4T_FAULT_ROUNDS", "1000" if "K4T_FULL" in os.environ else "20"))
SEED = int(os.environ.get("K4T_FAULT_SEED", "1"))
FAULTS = 0.1
HEALED_EVERY = 10
HEAL_TRIES = 5
MESSAGES = 10
"""Of one publication to two members."""
EVENTS = {"kill": 6, "pause": 5, "vendor": 30, "power": 90, "cable": 90}
"""What happens beside faulty messages: one in so many publications."""


@dataclass
class Run:
    """One pair, publication after publication."""

    four: Four
    kind: Kind
    author: Author
    chance: random.Random
    number: int = 0
    copies: int = 0
    usual_s: float = 0.3
    acknowledged: list[int] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    master: Process = field(init=False)

    def __post_init__(self) -> None:
        self.master = self.new_master()

    def new_master(self, *, elsewhere: bool = False) -> Process:
        """Another process: on the same working copy with its log, or on another one that knows nothing."""
        if elsewhere or self.copies == 0 or self.chance.random() < 0.5:
            self.copies += 1
        else:
            self.done["continued with the log"] += 1
        config = self.four.config(f"{self.kind}{self.copies}", DRIVERS[self.kind], seed=self.author.seed)
        return self.four.master(config)

    def publication(self) -> str:
        """One, with what happens to happen. Says what."""
        self.number += 1
        event = next((name for name, often in EVENTS.items() if self.chance.random() * often < 1), "")
        job = Job(
            self.number, self.kind, self.chance.choice((0.0, FAULTS, FAULTS)), degraded=self.chance.random() < 0.4
        )
        self.done[event] += bool(event)
        if event == "kill":
            self.killed(job)
        elif event == "pause":
            self.overtaken(job)
        elif event:
            self.broken(event, job)
        else:
            self.took(self.master.do(job))
        return event

    def killed(self, job: Job) -> None:
        """SIGKILL before any message, or at any moment; it may have been done by then."""
        at_message = self.chance.random() < 0.5
        if at_message:
            job = replace(job, halt=signal.SIGSTOP, halt_at=self.chance.randrange(MESSAGES))
        self.master.begin(job)
        if at_message:
            self.master.stopped()
        ended = self.master.ended(0 if at_message else self.chance.uniform(0, 1.5 * self.usual_s))
        if ended:
            self.took(ended)
            self.done["killed too late"] += 1
        self.four.masters.remove(self.master)
        self.master.kill()
        self.master = self.new_master()

    def overtaken(self, job: Job) -> None:
        """SIGSTOP before any message; another master goes on, and then this one does too. What it says counts."""
        paused = self.master
        paused.begin(replace(job, halt=signal.SIGSTOP, halt_at=self.chance.randrange(MESSAGES)))
        self.done["paused too late"] += not paused.stopped()
        self.master = self.new_master(elsewhere=True)
        self.number += 1
        self.took(self.master.do(Job(self.number, self.kind)))
        paused.process.send_signal(signal.SIGCONT)
        ended = paused.ended()
        assert ended
        self.took(ended)
        self.four.masters.remove(paused)
        paused.close()

    def broken(self, event: str, job: Job) -> None:
        """Something happens to one of the hosts meanwhile."""
        driver = self.chance.choice(DRIVERS[self.kind])
        host = self.four.lab.host(HOSTS[driver])
        happens: dict[str, Callable[[], object]] = {
            "vendor": lambda: self.four.kill(driver), "power": host.power_off, "cable": host.cut,
        }  # fmt: skip
        timer = threading.Timer(self.chance.uniform(0, self.usual_s), happens[event])
        timer.start()
        self.took(self.master.do(job))
        timer.join()
        self.four.mend(driver)

    def took(self, ended: Ended) -> None:
        if ended.acknowledged:
            self.acknowledged.append(ended.number)
            self.usual_s += (min(ended.took_s, 2.0) - self.usual_s) / 5
        self.done.update(ended.faults)
        self.done["degraded"] += bool(ended.stale)
        self.done[ended.error.partition(":")[0]] += bool(ended.error)

    def healed(self) -> None:
        """Nothing is broken any more: one publication, and all must be well."""
        for _ in range(HEAL_TRIES):
            self.number += 1
            ended = self.master.do(Job(self.number, self.kind))
            self.took(ended)
            if ended.acknowledged:
                break
            self.done["healing tried again"] += 1
            time.sleep(0.5)
        assert ended.acknowledged, ended
        self.check()

    def check(self) -> None:
        """Both serve the same, which is what was published, one on top of the other; whatever both had acknowledged is
        in it; and clients get it."""
        states = self.four.settled(self.kind)
        assert [(one.name, one.problem, one.differences) for one in states if one.problem or one.differences] == []
        live = [one.document for one in states if one.document]
        assert len({(one.digest, one.sha256) for one in live}) == 1, f"divergence: {states}"
        inside = chain(mark(live[0])[0], self.four.built_on())
        assert set(self.acknowledged) <= set(inside), f"lost: {set(self.acknowledged) - set(inside)}"
        assert live[0].digest == played(self.author, inside).digest
        self.check_served(live[0])

    def check_served(self, document: Document) -> None:
        wrong = until(lambda: self.four.served(self.kind, (document,)), lambda found: not found)
        assert wrong == []


@pytest.mark.parametrize("kind", ["gateway", "dns"])
def test_random_faults(four: Four, kind: Kind) -> None:
    """Whatever both acknowledged is there after each healing, both are equal, and clients get exactly that."""
    author = Author(four.back, kind, SEED)
    run = Run(four, kind, author, random.Random(SEED))  # noqa: S311 - test data
    began_s = time.monotonic()
    healings = 0
    while run.number < ROUNDS:
        event = run.publication()
        if event in ("vendor", "power", "cable") or run.number % HEALED_EVERY == 0:
            run.healed()
            healings += 1
    run.healed()
    told = ", ".join(f"{count} {what}" for what, count in sorted(run.done.items()) if count)
    print(
        f"\n{'/'.join(DRIVERS[kind])}: {run.number} publications in {time.monotonic() - began_s:.0f} s, "
        f"{len(run.acknowledged)} acknowledged by both; {told}. After {healings + 1} healings 0 differ, 0 are lost"
    )
    assert len(run.acknowledged) > ROUNDS // 4
    assert run.done.total() > ROUNDS // 4
