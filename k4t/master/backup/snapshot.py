"""The format of a copy of the tree: made, named, checked, opened. What is in it is packed by `pack`.

    line 1: JSON, at most 4096 bytes (`envelope`): the signed manifest
    the rest, the payload: age(compressed archive), or the compressed archive; it is compressed by xz or by gzip

A manifest is canonical JSON:

    {"format":1,"cluster","generation","lineage","serial","sequence","time","tree":HMAC,"previous":sha256 of the
     manifest before it,"sha256" and "size" of the payload,"unpacked": bytes of the archive,"encrypted":true|false}

It holds no name and no address. `tree` is HMAC-SHA256 of the archive under a key that only the signing machine has: it
tells whether two copies are of the same tree, and nobody can find out by guessing what that tree holds.

By hand: `tail -n +2 FILE | age -d -i IDENTITY | xz -d | tar x`, or `gunzip` for `xz -d`.

Memory: `make` takes the size of the payload beside the archive, which the caller holds; `contents` that of the archive
beside the file. Compression and encryption run in one stream. A tree with 300 MB of image archives: 600 MB.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import envelope
from k4t.master.backup.keys import Keys
from k4t.model.snapshot import Confirmation, Lineage, Manifest
from k4t.model.value import value
from k4t.tree import age

ARCHIVE_MAX_BYTES = 4 << 30
CHUNK_BYTES = 1 << 20
_XZ, _XZ_MAX_BYTES, _XZ_MEMORY_BYTES = b"\xfd7zXZ\0", 64 << 20, 64 << 20
_SAMPLE_BYTES = 16 * 1024
_GZIP = 31
_TREE, _TARGET = b"k4t snapshot tree v1", b"k4t snapshot target v1"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NAME = re.compile(r"(\d{4,12})-(\d{6,12})-(\d{7,15})-(\d{8}T\d{6}Z)\.snapshot")
_HASH, _NONE_OR_HASH = re.compile(r"[0-9a-f]{64}"), re.compile(r"([0-9a-f]{64})?")
_SHORT = re.compile(r"[0-9A-Za-z-]{0,64}")


@value
class Snapshot:
    """One file: `header` is its first line, with the line break."""

    header: bytes
    payload: bytes
    manifest: Manifest

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
) -> Snapshot:
    """`previous`: `digest` of the manifest before it, "" for the first. `time`: RFC 3339 UTC. Raises Usage for a
    recipient that is none."""
    payload = _payload(archive, [one.key for one in keys.recovery.recipients] if encrypted else [])
    manifest = Manifest(
        cluster=keys.cluster, generation=lineage.generation, lineage=lineage.id, serial=serial, sequence=sequence,
        time=time, tree=tree_mark(keys, archive), previous=previous, sha256=hashlib.sha256(payload).hexdigest(),
        size_bytes=len(payload), encrypted=encrypted, archive_bytes=len(archive),
    )  # fmt: skip
    return Snapshot(header_of(manifest, keys), payload, manifest)


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


def _payload(archive: bytes, recipients: Sequence[str]) -> bytes:
    out = io.BytesIO()
    if recipients:
        age.encrypt_stream(_Reader(_compressed(archive)), out, recipients)
    else:
        for chunk in _compressed(archive):
            out.write(chunk)
    return out.getvalue()


def _compressed(archive: bytes) -> Iterator[bytes]:
    """xz, since revisions are much like each other: 100 of 1,000 apps become 0.2 MB instead of 9, in less time than
    gzip takes. Where most is compressed already, as image archives are, gzip members: trying to compress those would
    take 13 s a 300 MB, so they are only wrapped."""
    chunks = [memoryview(archive)[start : start + CHUNK_BYTES] for start in range(0, len(archive), CHUNK_BYTES)]
    shrinking = [_shrinks(chunk) for chunk in chunks]
    if len(archive) <= _XZ_MAX_BYTES and 2 * sum(shrinking) >= len(chunks):
        yield from _xz(chunks)
    else:
        yield from _gzip(chunks, shrinking)


def _shrinks(chunk: memoryview) -> bool:
    sample = chunk[:_SAMPLE_BYTES]
    return len(sample) < _SAMPLE_BYTES or len(zlib.compress(sample, 1)) < 0.95 * len(sample)


def _xz(chunks: Sequence[memoryview]) -> Iterator[bytes]:
    import lzma

    packer = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "preset": 2, "dict_size": 4 << 20}])
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


def _gzip(chunks: Sequence[memoryview], shrinking: Sequence[bool]) -> Iterator[bytes]:
    for shrinks, run in itertools.groupby(zip(chunks, shrinking, strict=True), lambda pair: pair[1]):
        packer = zlib.compressobj(1 if shrinks else 0, zlib.DEFLATED, _GZIP)
        for chunk, _ in run:
            yield packer.compress(chunk)
        yield packer.flush()


class _Reader:
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        taken = self._left[: size if size >= 0 else None]
        self._left = self._left[len(taken) :]
        return bytes(taken)


# --- reading -----------------------------------------------------------------------------------------------------


def check(header: bytes, *, cluster: str, cluster_key: str) -> Manifest:
    """`header`: the first line, or as much of the file as is at hand. Raises BadCopy with the reason."""
    text = envelope.opened(envelope.SNAPSHOT, header, cluster=cluster, cluster_key=cluster_key)
    manifest = _manifest(envelope.read_canonical(text, "its manifest"), text)
    if manifest.cluster != cluster:
        raise BadCopy(f"it is of another cluster: {manifest.cluster[:40]}, not {cluster}")
    return manifest


def contents(data: bytes, *, cluster: str, cluster_key: str, identities: Sequence[Any]) -> tuple[Manifest, bytes]:
    """The manifest and the archive, for `unpack`. Raises BadCopy with the reason, NoIdentity when none of these opens
    it."""
    manifest = check(data[: envelope.LINE_MAX_BYTES + 1], cluster=cluster, cluster_key=cluster_key)
    payload = memoryview(data)[data.index(b"\n") + 1 :]
    if len(payload) != manifest.size_bytes:
        raise BadCopy(
            f"it has {len(payload)} bytes after its header instead of {manifest.size_bytes}: cut off or longer"
        )
    if hashlib.sha256(payload).hexdigest() != manifest.sha256:
        raise BadCopy("its contents are not those that were signed (sha256)")
    return manifest, _archive(payload, manifest, identities)


def _archive(payload: memoryview, manifest: Manifest, identities: Sequence[Any]) -> bytes:
    if manifest.archive_bytes > ARCHIVE_MAX_BYTES:
        raise BadCopy(f"it says it unpacks to {manifest.archive_bytes} bytes; at most {ARCHIVE_MAX_BYTES} are allowed")
    unpacked = _Unpacked(manifest.archive_bytes)
    if manifest.encrypted:
        _decrypt(payload, unpacked, identities)
    else:
        for start in range(0, len(payload), CHUNK_BYTES):
            unpacked.write(payload[start : start + CHUNK_BYTES])
    return unpacked.getvalue()


def _decrypt(payload: memoryview, unpacked: _Unpacked, identities: Sequence[Any]) -> None:
    try:
        age.decrypt_stream(_Reader(iter([payload])), unpacked, identities)
    except (age.NoIdentity, BadCopy):
        raise
    except K4tError as error:
        raise BadCopy(f"what is in it can't be decrypted: {error.message}") from None


class _Unpacked:
    """A file to write compressed pieces to. It never holds more than it was told to expect. Raises BadCopy."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._out = io.BytesIO()
        self._begun = b""
        self._unpacker: Any = None

    def write(self, piece: bytes | memoryview) -> int:
        import lzma

        if self._unpacker is None:
            self._begun += bytes(piece)
            if len(self._begun) < len(_XZ):
                return len(piece)
            self._unpacker = _unpacker(self._begun)
        try:
            if isinstance(self._unpacker, lzma.LZMADecompressor):
                self._xz(self._begun or piece)
            else:
                self._gzip(self._begun or piece)
        except (zlib.error, lzma.LZMAError, EOFError):
            raise BadCopy("what is in it is not compressed as k4t does it, or damaged") from None
        self._begun = b""
        return len(piece)

    def flush(self) -> None:
        """Nothing waits in here: a file must have it."""

    def getvalue(self) -> bytes:
        size_bytes = self._out.tell()
        if self._unpacker is None or not self._unpacker.eof or size_bytes != self._size_bytes:
            raise BadCopy(f"it unpacks to {size_bytes} bytes instead of {self._size_bytes}")
        return self._out.getvalue()

    def _xz(self, piece: bytes | memoryview) -> None:
        rest = piece
        while True:
            self._take(self._unpacker.decompress(rest, CHUNK_BYTES))
            rest = b""
            if self._unpacker.eof:
                if self._unpacker.unused_data:
                    raise BadCopy("it goes on after its end")
                return
            if self._unpacker.needs_input:
                return

    def _gzip(self, piece: bytes | memoryview) -> None:
        """Member after member."""
        rest = piece
        while rest:
            if self._unpacker.eof:
                self._unpacker = zlib.decompressobj(_GZIP)
            self._take(self._unpacker.decompress(rest, CHUNK_BYTES))
            rest = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail

    def _take(self, found: bytes) -> None:
        self._out.write(found)
        if self._out.tell() > self._size_bytes:
            raise BadCopy(f"it unpacks to more than the {self._size_bytes} bytes that it should")


def _unpacker(begun: bytes) -> Any:
    import lzma

    if begun.startswith(_XZ):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
    return zlib.decompressobj(_GZIP)


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
