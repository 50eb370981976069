"""The format of a copy of the tree: made, named, checked, opened. What is in it is packed by `pack`.

    line 1: JSON, at most 4096 bytes (`envelope`): the signed manifest
    the rest, the payload: age(compressed archive), or the compressed archive; it is compressed by xz or by gzip.
        Where the tree has large files, a line in the clear before that names their parts (`parts`):
        {"parts":[["SHA256",SIZE],…]}

A manifest is canonical JSON:

    {"format":1,"cluster","generation","lineage","serial","sequence","time","tree":HMAC,"previous":sha256 of the
     manifest before it,"sha256" and "size" of the payload,"unpacked": bytes of the archive,"encrypted":true|false}

It holds no name and no address. `tree` is HMAC-SHA256 of the archive under a key that only the signing machine has: it
tells whether two copies are of the same tree, and nobody can find out by guessing what that tree holds.

By hand: `tail -n +2 FILE | age -d -i IDENTITY | xz -d | tar x`, or `gunzip` for `xz -d`; large files
need k4t.

Memory: `make` takes the payload beside the archive, which the caller holds, and one part of a large file at a time;
`contents` the whole archive beside the file: a tree with 300 MB of image archives takes 400 MB to restore.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import compress, envelope
from k4t.master.backup.keys import Keys
from k4t.master.backup.parts import NO_LARGE, LargeFiles, Part, Sealer, line_of, split_line, whole, with_index
from k4t.model.snapshot import Confirmation, Lineage, Manifest
from k4t.model.value import value
from k4t.tree import age

ARCHIVE_MAX_BYTES = 4 << 30
_TREE, _TARGET, _PART = b"k4t snapshot tree v1", b"k4t snapshot target v1", b"k4t snapshot part v1"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NAME = re.compile(r"(\d{4,12})-(\d{6,12})-(\d{7,15})-(\d{8}T\d{6}Z)\.snapshot")
_HASH, _NONE_OR_HASH = re.compile(r"[0-9a-f]{64}"), re.compile(r"([0-9a-f]{64})?")
_SHORT = re.compile(r"[0-9A-Za-z-]{0,64}")


@value
class Snapshot:
    """One file: `header` is its first line, with the line break. Its `parts` lie beside it (`parts`)."""

    header: bytes
    payload: bytes
    manifest: Manifest
    parts: tuple[Part, ...] = ()
    sealer: Sealer | None = None

    def part(self, name: str) -> bytes:
        """The bytes of one of its parts, made anew. Raises K4tError when the tree has changed since."""
        if self.sealer is None:
            raise K4tError("it has no parts")
        return self.sealer.data(name)

    @property
    def data(self) -> bytes:
        """The whole file: a copy of the payload. Large ones are better written in two pieces."""
        return self.header + self.payload

    @property
    def name(self) -> str:
        return name_of(self.manifest)

    @property
    def size_bytes(self) -> int:
        return len(self.header) + len(self.payload)


# --- making ------------------------------------------------------------------------------------------------------


def make(
    archive: bytes,
    keys: Keys,
    *,
    lineage: Lineage,
    serial: int,
    sequence: int,
    previous: str,
    time: str,
    encrypted: bool,
    large: LargeFiles = NO_LARGE,
) -> Snapshot:
    """`previous`: `digest` of the manifest before it, "" for the first. `time`: RFC 3339 UTC. `large`: the files that
    the archive only refers to. Raises Usage for a recipient that is none, K4tError when the tree has changed since."""
    mark, sealer = tree_mark(keys, archive), None
    parts: tuple[Part, ...] = ()
    if large.files:
        sealer = Sealer(large, _derived(keys, _PART) if encrypted else b"")
        index = sealer.index()
        archive, parts = with_index(archive, index), tuple(sorted({part.public for part in index.values()}, key=_name))
    payload = _payload(archive, parts, [one.key for one in keys.recovery.recipients] if encrypted else [])
    manifest = Manifest(
        cluster=keys.cluster, generation=lineage.generation, lineage=lineage.id, serial=serial, sequence=sequence,
        time=time, tree=mark, previous=previous, sha256=hashlib.sha256(payload).hexdigest(),
        size_bytes=len(payload), encrypted=encrypted, archive_bytes=len(archive),
    )  # fmt: skip
    return Snapshot(header_of(manifest, keys), payload, manifest, parts, sealer)


def prepare(keys: Keys, large: LargeFiles, *, encrypted: bool) -> None:
    """Learn the parts of large files, so that `make` need not: that may take a minute. Raises K4tError when the tree
    has changed since."""
    Sealer(large, _derived(keys, _PART) if encrypted else b"").index()


def _name(part: Part) -> str:
    return part.name


def header_of(manifest: Manifest, keys: Keys) -> bytes:
    return envelope.seal(
        envelope.SNAPSHOT, text_of(manifest),
        private=keys.private, certificate=keys.certificate, certified=keys.certified,
    )  # fmt: skip


def tree_mark(keys: Keys, archive: bytes) -> str:
    """What `manifest.tree` will be: tells whether anything changed without making a snapshot."""
    return hmac.digest(_derived(keys, _TREE), archive, "sha256").hex()


def target_mark(keys: Keys, target: str) -> str:
    """What stands for a target's name in a confirmation."""
    return hmac.digest(_derived(keys, _TARGET), target.encode(), "sha256").hex()


def digest(manifest: Manifest) -> str:
    """sha256 of the manifest's text: what `previous` and a confirmation name it by."""
    return hashlib.sha256(text_of(manifest).encode()).hexdigest()


def text_of(manifest: Manifest) -> str:
    return envelope.canonical({
        "format": envelope.FORMAT, "cluster": manifest.cluster, "generation": manifest.generation,
        "lineage": manifest.lineage, "serial": manifest.serial, "sequence": manifest.sequence, "time": manifest.time,
        "tree": manifest.tree, "previous": manifest.previous, "sha256": manifest.sha256, "size": manifest.size_bytes,
        "unpacked": manifest.archive_bytes, "encrypted": manifest.encrypted,
    })  # fmt: skip


def name_of(manifest: Manifest) -> str:
    """For sorting and thinning only: what a manifest says counts."""
    time = re.sub("[-:]", "", manifest.time)
    return f"{manifest.generation:04}-{manifest.serial:06}-{manifest.sequence:07}-{time}.snapshot"


def order_of(name: str) -> tuple[int, int, int] | None:
    """(generation, serial, sequence) as a file's name tells them; None for what is no snapshot's name."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2]), int(found[3])) if found and found[0].isascii() else None


def _derived(keys: Keys, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, one block."""
    return hmac.digest(hmac.digest(bytes(32), keys.private, "sha256"), info + b"\x01", "sha256")


def _payload(archive: bytes, parts: Sequence[Part], recipients: Sequence[str]) -> bytes:
    out = io.BytesIO(line_of(parts))
    out.seek(0, io.SEEK_END)
    if recipients:
        age.encrypt_stream(compress.Reader(compress.compressed(archive)), out, recipients)
    else:
        for chunk in compress.compressed(archive):
            out.write(chunk)
    return out.getvalue()


# --- reading -----------------------------------------------------------------------------------------------------


def check(header: bytes, *, cluster: str, cluster_key: str) -> Manifest:
    """`header`: the first line, or as much of the file as is at hand. Raises BadCopy with the reason."""
    text = envelope.opened(envelope.SNAPSHOT, header, cluster=cluster, cluster_key=cluster_key)
    manifest = _manifest(envelope.read_canonical(text, "its manifest"), text)
    if manifest.cluster != cluster:
        raise BadCopy(f"it is of another cluster: {manifest.cluster[:40]}, not {cluster}")
    return manifest


def contents(
    data: bytes, *, cluster: str, cluster_key: str, identities: Sequence[Any],
    part: Callable[[str], bytes] | None = None, under: str = "",
) -> tuple[Manifest, bytes]:  # fmt: skip
    """The manifest and the archive, for `unpack`. `part`: gives the part of a large file by its name. `under`: large
    files elsewhere are left out of it.

    Raises BadCopy with the reason, NoIdentity when none of these opens it, and what `part` raises."""
    try:
        manifest, archive, _ = core(data, cluster=cluster, cluster_key=cluster_key, identities=identities)
        return manifest, whole(archive, part, ARCHIVE_MAX_BYTES, under)
    except MemoryError:
        message = "there is not enough memory to open it: that takes as much as the tree and its large files are"
        raise K4tError(message, "open it on a machine with more; one app of it takes less: restore --app") from None


def core(
    data: bytes, *, cluster: str, cluster_key: str, identities: Sequence[Any]
) -> tuple[Manifest, bytes, tuple[Part, ...]]:
    """The archive without large files, and the parts that hold those. Raises as `contents`."""
    manifest = check(data[: envelope.LINE_MAX_BYTES + 1], cluster=cluster, cluster_key=cluster_key)
    payload = memoryview(data)[data.index(b"\n") + 1 :]
    if len(payload) != manifest.size_bytes:
        raise BadCopy(
            f"it has {len(payload)} bytes after its header instead of {manifest.size_bytes}: cut off or longer"
        )
    if hashlib.sha256(payload).hexdigest() != manifest.sha256:
        raise BadCopy("its contents are not those that were signed (sha256)")
    needed, packed = split_line(payload)
    return manifest, _archive(packed, manifest, identities), needed


def parts_of(data: bytes, manifest: Manifest) -> tuple[Part, ...]:
    """The parts that a copy needs; without an identity. Raises BadCopy when its contents are not what was signed."""
    payload = memoryview(data)[data.index(b"\n") + 1 :]
    if hashlib.sha256(payload).hexdigest() != manifest.sha256:
        raise BadCopy("its contents are not those that were signed (sha256)")
    return split_line(payload)[0]


def _archive(packed: memoryview, manifest: Manifest, identities: Sequence[Any]) -> bytes:
    if manifest.archive_bytes > ARCHIVE_MAX_BYTES:
        raise BadCopy(f"it says it unpacks to {manifest.archive_bytes} bytes; at most {ARCHIVE_MAX_BYTES} are allowed")
    unpacked = compress.Unpacked(manifest.archive_bytes)
    if manifest.encrypted:
        _decrypt(packed, unpacked, identities)
    else:
        for start in range(0, len(packed), compress.CHUNK_BYTES):
            unpacked.write(packed[start : start + compress.CHUNK_BYTES])
    return unpacked.getvalue()


def _decrypt(packed: memoryview, unpacked: compress.Unpacked, identities: Sequence[Any]) -> None:
    try:
        age.decrypt_stream(compress.Reader(iter([packed])), unpacked, identities)
    except (age.NoIdentity, BadCopy):
        raise
    except K4tError as error:
        raise BadCopy(f"what is in it can't be decrypted: {error.message}") from None


def _manifest(content: dict[str, Any], text: str) -> Manifest:
    if type(content.get("format")) is int and content["format"] > envelope.FORMAT:
        raise BadCopy(
            f"its manifest is of format {content['format']}, this k4t reads {envelope.FORMAT}", "use a newer k4t"
        )
    try:
        found = Manifest(
            cluster=_text(content, "cluster", _SHORT), generation=_number(content, "generation"),
            lineage=_text(content, "lineage", _SHORT), serial=_number(content, "serial"),
            sequence=_number(content, "sequence"), time=_text(content, "time", _TIME),
            tree=_text(content, "tree", _HASH), previous=_text(content, "previous", _NONE_OR_HASH),
            sha256=_text(content, "sha256", _HASH), size_bytes=_number(content, "size"),
            encrypted=content["encrypted"] is True, archive_bytes=_number(content, "unpacked"),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise BadCopy("its manifest is not what k4t writes") from None
    if text_of(found) != text:
        raise BadCopy("its manifest is not what k4t writes")
    return found


def _number(content: dict[str, Any], name: str) -> int:
    found = content[name]
    if type(found) is not int or not 0 <= found < 1 << 62:
        raise ValueError(name)
    return found


def _text(content: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    found = content[name]
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise ValueError(name)
    return found


# --- confirmations -----------------------------------------------------------------------------------------------


def confirmation(keys: Keys, target: str, manifest: Manifest, time: str) -> bytes:
    """That the tree is at `time` still what that snapshot holds; one line. `target` is the target's name."""
    text = envelope.canonical({
        "cluster": keys.cluster, "target": target_mark(keys, target), "snapshot": digest(manifest),
        "sequence": manifest.sequence, "time": time,
    })  # fmt: skip
    return envelope.seal(
        envelope.CONFIRMATION, text, private=keys.private, certificate=keys.certificate, certified=keys.certified
    )


def check_confirmation(data: bytes, *, cluster: str, cluster_key: str) -> Confirmation:
    """Raises BadCopy with the reason. Whether it is this target's, and of which snapshot, is for the caller to compare
    (`target_mark`, `digest`)."""
    text = envelope.opened(envelope.CONFIRMATION, data, cluster=cluster, cluster_key=cluster_key)
    content = envelope.read_canonical(text, "its statement")
    try:
        found = Confirmation(
            _text(content, "cluster", _SHORT), _text(content, "target", _HASH), _text(content, "snapshot", _HASH),
            _number(content, "sequence"), _text(content, "time", _TIME),
        )  # fmt: skip
    except (KeyError, ValueError):
        raise BadCopy("its statement is not what k4t writes") from None
    if len(content) != 5 or found.cluster != cluster:
        raise BadCopy("its statement is not what k4t writes, or of another cluster")
    return found
