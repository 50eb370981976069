"""One place for copies: a directory on a host, over its Transport. Every method is one round trip.

    /var/lib/k4t/CLUSTERID/copies/            0700
        0001-000042-0000017-20261120T161500Z.snapshot    0600; see `snapshot`
        parts/SHA256                          0600; large files of all copies, see `parts`
        confirmed                             the last statement that the newest copy is what the tree still is

A copy becomes visible by one rename, after fsync and after the host has computed its sha256; then it is read back.
What the host says is believed about its own disk only: whether a copy is good is decided by its signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from k4t.command import Completed
from k4t.errors import ConnectionLost, HostFull, K4tError, StepError
from k4t.master.backup import target_scripts as scripts
from k4t.master.backup.parts import PART_MAX_BYTES, Part
from k4t.master.backup.snapshot import name_of, order_of
from k4t.model.snapshot import Lineage, Manifest
from k4t.model.state import Head
from k4t.model.value import value
from k4t.remote import head as remote_head
from k4t.remote.head import lineage_from_json
from k4t.remote.lock import writable_by
from k4t.remote.transport import Transport

MAX_COPY_BYTES = (4 << 30) + (1 << 20)
ALL = 1_000_000
LOOK_BYTES = 64 << 20
SLOWEST_BYTES_PER_S = 100_000
NO_SPACE = (b"No space left", b"uota exceeded", b"File too large")
REFUSALS = ("Read-only file system", "Permission denied", "Not a directory", "Input/output error", "is a directory")

Header = tuple[str, int, bytes]
"""Name, size of the whole file, its first line."""


@value
class Seen:
    """What was there when it was looked at last: the name of the newest copy, and the head's words about the lineage.
    Nothing is written where it is something else now."""

    newest: str = ""
    lineage: str = ""


@value
class Known:
    """A copy that is known to be good. `header`: its first line, with the line break."""

    header: bytes
    manifest: Manifest

    @property
    def name(self) -> str:
        return name_of(self.manifest)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + self.manifest.size_bytes


@value
class Listing:
    """`files`: (name, size in bytes) of the copies, oldest first. `confirmed`: the statement's bytes, b"" for none.
    `headers`: of the newest ones, as many as were asked for, oldest first. `lineage`: the head's, as JSON text."""

    files: tuple[tuple[str, int], ...] = ()
    confirmed: bytes = b""
    free_bytes: int = 0
    headers: tuple[Header, ...] = ()
    lineage: str = ""

    @property
    def seen(self) -> Seen:
        return Seen(self.files[-1][0] if self.files else "", self.lineage)

    @property
    def master(self) -> Lineage | None:
        """Whose history the host's head says it is."""
        return lineage_of(self.lineage)


def directory_of(cluster_id: str) -> str:
    return f"/var/lib/k4t/{cluster_id}/copies"


class Target:
    """Every method raises ConnectionLost (in doubt: look again), HostFull with the numbers, or StepError naming the
    host, the path and what it is."""

    def __init__(self, transport: Transport, cluster_id: str, *, name: str = "", directory: str = "") -> None:
        self.name = name or transport.host
        self.directory = directory or directory_of(cluster_id)
        self._transport = transport
        self._cluster = cluster_id

    def look(self, headers: int = 0) -> Listing:
        """What is there; also the first lines of the newest `headers` copies."""
        done = self._sh(scripts.LOOK, str(headers), timeout_s=60.0, what="looked at")
        return _listing(done.stdout)

    def head(self) -> Head | None:
        """The cluster's head as this host has it; None where it is none of the tree's hosts."""
        return remote_head.read(self._transport, self._cluster)

    def headers(self) -> list[Header]:
        return list(self.look(ALL).headers)

    def store(self, name: str, data: bytes, seen: Seen) -> tuple[str, ...] | None:
        """Write a whole copy, and read it back. The names of all copies there now, oldest first; None when something
        else is there than was `seen`: nothing was written."""
        sha256 = hashlib.sha256(data).hexdigest()
        done = self._sh(
            scripts.STORE, name, str(len(data)), sha256, seen.newest, seen.lineage, input=data,
            timeout_s=60.0 + len(data) / SLOWEST_BYTES_PER_S, what="written",
        )  # fmt: skip
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        if lines[:1] == ["moved"]:
            return None
        if lines[:1] != [f"stored {len(data)} {sha256}"] or name not in lines[1:]:
            said = lines[0] if lines else "nothing"
            raise self._error(f"{self.directory}/{name} does not read back as it was written: {said[:120]}", "")
        return tuple(line for line in lines[1:] if order_of(line))

    def confirm(self, copy: Known, statement: bytes, seen: Seen) -> bool:
        """Leave a statement beside the copy, if it is there, whole to the last bit. False: it is not, or something else
        is there than was `seen`; nothing was written."""
        header_sha256 = hashlib.sha256(copy.header).hexdigest()
        done = self._sh(
            scripts.CONFIRM, copy.name, str(copy.size_bytes), copy.manifest.sha256, seen.newest, seen.lineage,
            header_sha256, input=statement, timeout_s=60.0 + copy.size_bytes / SLOWEST_BYTES_PER_S, what="confirmed",
        )  # fmt: skip
        return done.stdout == b"confirmed\n"

    def fetch(self, name: str, size_bytes: int = MAX_COPY_BYTES) -> bytes:
        """A copy's bytes, unchecked; `size_bytes` as it was listed."""
        path = f"{self.directory}/{name}"
        done = self._transport.run(
            ["sh", "-c", scripts.FETCH, "k4t-copies", path], timeout_s=60.0 + size_bytes / SLOWEST_BYTES_PER_S,
            max_output_bytes=size_bytes + LOOK_BYTES,
        )  # fmt: skip
        if done.exit_status == scripts.NOT_THERE:
            raise self._error(f"there is no copy {path}", "")
        return self._done(done, "read").stdout

    def lacking(self, parts: Sequence[Part]) -> list[str]:
        """Which of them are not there, or not whole, by name."""
        given = "".join(f"{one.name} {one.size_bytes}\n" for one in parts).encode()
        size_bytes = sum(one.size_bytes for one in parts)
        timeout_s = 60.0 + size_bytes / SLOWEST_BYTES_PER_S
        done = self._sh(scripts.LACKING, input=given, timeout_s=timeout_s, what="looked at")
        said = set(done.stdout.decode("ascii", "replace").split())
        return [one.name for one in parts if one.name in said]

    def store_part(self, name: str, data: bytes) -> None:
        """Write one part of a large file, and read it back."""
        timeout_s = 60.0 + len(data) / SLOWEST_BYTES_PER_S
        self._sh(scripts.STORE_PART, name, str(len(data)), input=data, timeout_s=timeout_s, what="written")

    def part(self, name: str) -> bytes:
        """A part's bytes, unchecked."""
        return self.fetch(f"{scripts.PARTS}/{name}", PART_MAX_BYTES)

    def remove(self, names: Iterable[str]) -> None:
        self._sh(scripts.REMOVE, input="".join(f"{name}\n" for name in names).encode(), timeout_s=60.0, what="pruned")

    def sums(self, names: Iterable[str]) -> dict[str, str]:
        """Of each copy, by name, the sha256 of its payload, as the host computes it now; LACKS where a part of a large
        file that it needs is missing there, or damaged."""
        listed = list(names)
        given = "".join(f"{name}\n" for name in listed).encode()
        done = self._sh(scripts.SUMS, input=given, timeout_s=60.0 + 10.0 * len(listed), what="read")
        lines = (line.partition(" ") for line in done.stdout.decode("utf-8", "replace").splitlines())
        return {name: sha256 for sha256, _, name in lines}

    # --- inside -------------------------------------------------------------------------------------------------

    def _sh(self, script: str, *arguments: str, input: bytes = b"", timeout_s: float, what: str) -> Completed:
        argv: Sequence[str] = ["sh", "-c", script, "k4t-copies", self.directory, *arguments]
        done = self._transport.run(argv, input=input, timeout_s=timeout_s, max_output_bytes=LOOK_BYTES)
        if done.exit_status not in (0, None) and any(words in done.stderr for words in NO_SPACE):
            raise self._full(len(input))
        return self._done(done, what)

    def _done(self, done: Completed, what: str) -> Completed:
        if done.exit_status is None:
            message = f"the connection was lost while {self.directory} was {what}: in doubt"
            raise ConnectionLost(message, host=self._transport.host)
        if done.exit_status == scripts.IN_THE_WAY:
            remedy = "k4t writes copies into a directory of its own alone: remove what is in its place"
            raise self._error(done.words(), remedy)
        if not done.ok:
            raise self._refused(done, what)
        return done

    def _refused(self, done: Completed, what: str) -> K4tError:
        words = done.words()
        refusal = next((one for one in REFUSALS if one in words), "")
        if not refusal:
            return self._error(f"{self.directory} can't be {what}: {words}", "")
        user = getattr(self._transport, "user", "USER")
        remedy = writable_by(user) if refusal == "Permission denied" else "look at that directory there"
        return self._error(f"{self.directory} can't be {what}: {refusal[0].lower()}{refusal[1:]}", remedy)

    def _full(self, size_bytes: int) -> K4tError:
        """In numbers, which are asked for now. The old copies are as they were."""
        numbers = f"no room for a copy of {sized(size_bytes)} in {self.directory}"
        try:
            found = self.look()
        except K4tError:
            kept = "the old copies are kept"
        else:
            numbers += f" ({sized(found.free_bytes)} free)"
            kept = f"the {len(found.files)} there are kept" if found.files else "there is none yet"
        return HostFull(f"{numbers}; {kept}", "make room there, or lower keep=", host=self._transport.host)

    def _error(self, message: str, remedy: str) -> StepError:
        return StepError(message, remedy, host=self._transport.host)


def sized(size_bytes: int) -> str:
    """34 KiB, 1.2 MiB: as people say it."""
    if size_bytes < 1 << 10:
        return f"{size_bytes} B"
    if size_bytes < 1 << 20:
        return f"{size_bytes / (1 << 10):.0f} KiB"
    unit, name = (1 << 30, "GiB") if size_bytes >= 1 << 30 else (1 << 20, "MiB")
    return f"{size_bytes / unit:.1f} {name}"


def lineage_of(text: str) -> Lineage | None:
    """`"lineage":{…}` as the head has it; None for what is none."""
    try:
        return lineage_from_json(json.loads("{" + text + "}").get("lineage"))
    except (ValueError, RecursionError):
        return None


def _listing(data: bytes) -> Listing:
    """What LOOK prints. A line that is none of its own is passed over."""
    files: dict[str, int] = {}
    headers: list[tuple[str, bytes]] = []
    free_bytes, lineage, confirmed = 0, "", b""
    rest = data
    while rest:
        line, _, rest = rest.partition(b"\n")
        word, _, text = line.decode("utf-8", "replace").partition(" ")
        if word == "head":
            header, _, rest = rest.partition(b"\n")
            if order_of(text):
                headers.append((text, header))
        elif word == "file":
            size, _, name = text.partition(" ")
            if order_of(name):
                files[name] = _number(size)
        elif word == "free":
            free_bytes = _number(text) * 1024
        elif word == "lineage":
            lineage = text
        elif word == "confirmed":
            confirmed, rest = rest, b""
    found = tuple((name, files.get(name, 0), header) for name, header in headers)
    return Listing(tuple(sorted(files.items())), confirmed, free_bytes, found, lineage)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
