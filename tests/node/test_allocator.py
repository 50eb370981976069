"""The host's allocation lock is shared within a run, and given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from k4t.errors import Locked
from k4t.node import allocator
from k4t.node.allocator import Allocator

pytestmark = pytest.mark.unit


class Locks:
    """Counts how often the lock was taken and given back."""

    def __init__(self) -> None:
        self.taken = self.given = 0

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        self.taken += 1
        yield SimpleNamespace(listening=frozenset())
        self.given += 1


def test_threads_share_one_taking() -> None:
    """Containers that are created together take the lock once; closing gives it back."""
    locks, shared, together = Locks(), Allocator(), threading.Barrier(4)

    def work() -> None:
        with shared.hold(locks):
            together.wait(10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert (locks.taken, locks.given) == (1, 1)


def test_it_is_kept_for_a_moment_and_then_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One use right after another shares; left alone, the lock goes back by itself."""
    monkeypatch.setattr(allocator, "LINGER_S", 0.05)
    locks, shared = Locks(), Allocator()
    for _ in range(3):
        with shared.hold(locks):
            pass
    assert locks.taken == 1
    for _ in range(1000):
        if locks.given:
            break
        threading.Event().wait(0.01)
    assert locks.given == 1


def test_an_old_one_is_given_back_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is for short operations, however many containers there are."""
    monkeypatch.setattr(allocator, "MAX_AGE_S", 0.0)
    locks, shared = Locks(), Allocator()
    for _ in range(3):
        with shared.hold(locks):
            assert locks.taken == locks.given + 1
    shared.close()
    assert (locks.taken, locks.given) == (3, 3)


def test_a_refused_lock_leaves_nothing_behind() -> None:
    """Locked is raised to whoever wanted it, and the next one tries anew."""
    shared = Allocator()

    def refused() -> Any:
        raise Locked("busy")

    for _ in range(2):
        with pytest.raises(Locked), shared.hold(refused):
            pass
    locks = Locks()
    with shared.hold(locks):
        pass
    shared.close()
    assert (locks.taken, locks.given) == (1, 1)
