"""Locks: one run a cluster at a time, and one allocation a host at a time. Held by a connection, so never stale.

`LocalLock` is a flock on the tree. `HostLock` is this cluster's on one host, `take_all` takes it on all of them.
`host_lock` is what clusters share on a host, for one operation. The host's side is `lock_script`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Self

from k4t.errors import K4tError, Locked, StepError, Unreachable
from k4t.model.value import value
from k4t.remote.connection import RUN_MARK
from k4t.remote.lock_script import SCRIPT
from k4t.remote.sockets import parse_sockets
from k4t.remote.transport import Process, Transport

STATE = "/var/lib/k4t"
BEAT_S = 2.0
SILENCE_S = 15.0
SHORT_SILENCE_S = 60.0
ANSWER_S = 15.0
RELEASE_S = 5.0
POLL_S = 1.0
MAX_CROSSINGS = 3
TOGETHER = 16


@value
class Holder:
    """Who holds a lock. `since` is RFC 3339 UTC, `run` the run id that marks its commands on hosts."""

    who: str
    host: str
    pid: int
    since: str
    why: str
    run: str

    def record(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=True, separators=(",", ":"))

    @property
    def words(self) -> str:
        return f"{self.who} on {self.host} (process {self.pid}) since {self.since}, for {self.why}"


def read_record(text: str | bytes) -> Holder | None:
    """What a lock's file says of its holder; None when it says nothing that can be read."""
    try:
        found = json.loads(text)
        words = {key: str(found[key]) for key in ("who", "host", "since", "why", "run")}
        return Holder(pid=int(found["pid"]), **words)
    except (ValueError, KeyError, TypeError):
        return None


def _locked(what: str, record: str | bytes, host: str = "") -> Locked:
    holder = read_record(record)
    words = holder.words if holder else "a run that left no name"
    return Locked(f"{what} is locked by {words}", "wait for it to end, or use --wait", host=host)


class LocalLock:
    """A flock on `db/.k4t/lock`, or (`what`, for messages) another. Ends with the process, whatever happens to it."""

    def __init__(self, path: Path, what: str = "") -> None:
        self._path = path
        self._what = what or f"the tree {path.parent.parent}"
        self._handle: int | None = None

    def take(self, holder: Holder, *, wait_s: float = 0.0) -> LocalLock:
        """Raises Locked naming the holder, K4tError when the file can't be had."""
        deadline = time.monotonic() + wait_s
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise K4tError(f"can't open {self._path}: {error.strerror}") from error
        try:
            self._wait_for(handle, deadline)
            self._still_there(handle)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{holder.record()}\n".encode(), 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def _wait_for(self, handle: int, deadline: float) -> None:
        while not _flock(handle):
            if time.monotonic() >= deadline:
                raise _locked(self._what, os.pread(handle, 4096, 0))
            time.sleep(min(0.2, max(0.01, deadline - time.monotonic())))

    def _still_there(self, handle: int) -> None:
        """A restore puts another directory in place: whoever waited has read the one that was there before."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(self._path, follow_symlinks=False)):
                return
        raise Locked(f"{self._what} was replaced while this run waited for its lock", "start again")

    def release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _flock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class HostLock:
    """This cluster's lock on one host.

    A thread of its own sends the heartbeat: one thread for all would let a host that is cut off in the middle of an
    upload (its socket blocks) take every other host's lock with it.
    """

    def __init__(self, transport: Transport, process: Process, on_lost: Callable[[str], None] | None = None) -> None:
        self.host = transport.host
        self._transport = transport
        self._process = process
        self._on_lost = on_lost
        self._echoed = time.monotonic()
        self._unanswered: deque[float] = deque()
        self._gone = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lock {self.host}", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        transport: Transport,
        cluster_id: str,
        holder: Holder,
        *,
        wait_s: float = 0.0,
        on_lost: Callable[[str], None] | None = None,
    ) -> HostLock:
        """Raises Locked (who, where, since when, why), Unreachable, or K4tError when the host can't hold a lock.

        `on_lost` is called at most once, with the host's name, from another thread.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                process, _ = _take(transport, f"{STATE}/{cluster_id}/lock", holder, "main")
                return cls(transport, process, on_lost)
            except Locked:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(min(POLL_S, max(0.01, deadline - time.monotonic())))

    @property
    def lost(self) -> bool:
        """True as soon as the host may have given the lock away; it never becomes false again."""
        if not self._stop.is_set() and (time.monotonic() - self._echoed > SILENCE_S or not self._transport.alive):
            self._gone = True
        return self._gone

    def release(self) -> None:
        """Give it back; returns when the host has let go, or when that can't be known."""
        self.let_go()
        self.wait_gone()

    def let_go(self) -> None:
        """Ask for the release without waiting for it."""
        self._stop.set()
        with contextlib.suppress(K4tError):
            self._process.write(b"r")

    def wait_gone(self) -> None:
        self._thread.join(RELEASE_S)
        with contextlib.suppress(K4tError):
            self._process.wait(RELEASE_S)
        self._process.close()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                alive = self._beat_once()
            except StepError:
                alive = True  # a late echo; `lost` knows how late is too late
            except K4tError:
                alive = False
            if not alive or self.lost:
                break
        if not self._stop.is_set():
            self._gone = True
            if self._on_lost is not None:
                self._on_lost(self.host)

    def _beat_once(self) -> bool:
        """An echo proves that its beat came: the host's silence began no earlier than that beat was sent."""
        self._unanswered.append(time.monotonic())
        self._process.write(b".")
        while self._unanswered:
            if self._process.read_line(BEAT_S) != b".":
                return False
            self._echoed = self._unanswered.popleft()
        return True


@value
class HostLocks:
    """The cluster's locks on all hosts. `failed` could not be locked, for another reason than another run."""

    locks: Mapping[str, HostLock]
    failed: Mapping[str, K4tError]

    @property
    def lost(self) -> frozenset[str]:
        return frozenset(name for name, lock in self.locks.items() if lock.lost)

    def release(self) -> None:
        release_all(list(self.locks.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take_all(
    transports: Sequence[Transport],
    cluster_id: str,
    holder: Holder,
    *,
    wait_s: float = 0.0,
    on_lost: Callable[[str], None] | None = None,
) -> HostLocks:
    """The first host in order first (so of two runs one gets on), then the rest at once.

    One held elsewhere: all are given back, Locked. A host that can't be locked otherwise is in `failed`. Two runs that
    don't reach the same hosts have other first ones, and each may be refused by the other further on: so a run that
    is refused there tries again a few times, one host after the other, which lets exactly one of them get on.
    """

    def take_one(transport: Transport) -> HostLock:
        return HostLock.take(transport, cluster_id, holder, on_lost=on_lost)

    deadline = time.monotonic() + wait_s
    crossings = 0
    while True:
        locks: dict[str, HostLock] = {}
        failed: dict[str, K4tError] = {}
        try:
            _take_each(list(transports), take_one, locks, failed, one_by_one=crossings > 0)
        except BaseException as error:
            release_all(list(locks.values()))
            crossings += bool(locks)
            again = time.monotonic() < deadline or (locks and crossings <= MAX_CROSSINGS)
            if not isinstance(error, Locked) or not again:
                raise
            time.sleep(random.uniform(0.1, 0.5) * POLL_S)  # noqa: S311 - keeps two runs apart
        else:
            return HostLocks(locks, failed)


def _take_each(
    transports: list[Transport],
    take_one: Callable[[Transport], HostLock],
    locks: dict[str, HostLock],
    failed: dict[str, K4tError],
    *,
    one_by_one: bool,
) -> None:
    """Fills `locks` and `failed`, also when it raises Locked."""

    def take(transport: Transport) -> Locked | None:
        try:
            locks[transport.host] = take_one(transport)
        except Locked as error:
            return error
        except K4tError as error:
            failed[transport.host] = error
        return None

    rest = iter(transports)
    for first in rest:
        if (held := take(first)) is not None:
            raise held
        if locks and not one_by_one:
            break
    others = list(rest)
    if not others:
        return
    with ThreadPoolExecutor(min(TOGETHER, len(others))) as pool:
        answers = list(pool.map(take, others))
    for answer in answers:
        if answer is not None:
            raise answer


def release_all(locks: Sequence[HostLock]) -> None:
    for lock in locks:
        lock.let_go()
    for lock in locks:
        lock.wait_gone()


@value
class HostHeld:
    """What was seen under the host's lock: every (protocol, port) that something listens on, on any address."""

    listening: frozenset[tuple[str, int]]


@contextlib.contextmanager
def host_lock(transport: Transport, holder: Holder, *, wait_s: float = 20.0) -> Iterator[HostHeld]:
    """The lock that all clusters share on a host (`/var/lib/k4t/host.lock`), for one operation of at most a minute.

    Raises Locked when another operation does not end within `wait_s`.
    """
    process, sockets = _take(transport, f"{STATE}/host.lock", holder, "short", wait_s)
    try:
        yield HostHeld(parse_sockets(sockets))
    finally:
        with contextlib.suppress(K4tError):
            process.write(b"r")
            process.wait(RELEASE_S)
        process.close()


def _take(
    transport: Transport, path: str, holder: Holder, mode: Literal["main", "short"], wait_s: float = 0.0
) -> tuple[Process, list[str]]:
    """Starts the holder and hears its answer. On a raise the process is ended."""
    mark = f"{RUN_MARK}={holder.run}"
    tries = str(3 + int(wait_s * 10))  # `k4t status` may be looking just now (lock_holder)
    directory, _, file = path.rpartition("/")
    silence_s = SILENCE_S if mode == "main" else SHORT_SILENCE_S
    argv = ["sh", "-c", SCRIPT, "k4t-lock", directory, file, holder.record(), mark, f"{silence_s:g}", tries, mode]
    process = transport.start(argv)
    try:
        return process, _await_held(transport, process, path, ANSWER_S + wait_s)
    except BaseException:
        process.close()
        raise


def _await_held(transport: Transport, process: Process, path: str, timeout_s: float) -> list[str]:
    sockets: list[str] = []
    while True:
        answer = process.read_line(timeout_s).decode("utf-8", "replace")
        if answer == "held":
            return sockets
        if not answer.startswith("/proc/net/"):
            raise _not_held(transport, answer, process, path)
        sockets.append(answer)


def writable_by(user: str) -> str:
    """What to do on a host where `user` may not write k4t's state."""
    return f'there: sudo mkdir -p {STATE} && sudo chown -R {user} {STATE}; or set <ssh sudo="true"/>'


def _not_held(transport: Transport, answer: str, process: Process, path: str) -> K4tError:
    host = transport.host
    word, _, rest = answer.partition(" ")
    if word == "busy":
        return _locked("this host" if path.endswith("host.lock") else "the cluster", rest, host)
    if word == "denied":
        user = getattr(transport, "user", "USER")
        return K4tError(
            f"{user} can't write {path}",
            writable_by(user),
            host=host,
        )
    if word == "missing":
        return K4tError(f"there is no {rest} command", f"install it there: it comes with {_PACKAGES[rest]}", host=host)
    said = process.wait(RELEASE_S)
    return Unreachable(f"the lock's command ended at once: {answer or said.words()}", host=host)


_PACKAGES = {"flock": "util-linux", "timeout": "coreutils"}
