"""Large files of a tree: kept beside the copies, once for all copies that hold them.

    copies/parts/SHA256     at most 16 MiB of one file, compressed by gzip, then encrypted; named by its own sha256

The same contents give the same part, on every target and in every copy, so an image archive of 500 MB that stays what
it is costs 500 MB once, and not once a copy. A part is encrypted with AES-256-GCM, each MiB by itself (nonce: its
number, 11 bytes, and whether it is the last, as age's STREAM does it). Its key is HMAC-SHA256 of the sha256 of what is
encrypted, under a key of the signing machine: a key is never used for two different texts, and nobody else can make it.
The keys stand in the copy, which is encrypted to the recovery recipients.

In the archive of a copy, `.k4t/large` says which files those are, and `.k4t/parts` where their parts are:

    [[PATH,MODE,SIZE,[sha256 of each 16 MiB of it]],…]       {"sha256":["part's name",its size,"key, base64"],…}

Memory: three times a part, of which there is one at a time.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import compress, unpack
from k4t.master.backup.envelope import canonical
from k4t.model.value import value

LARGE_BYTES = 1 << 20
PART_BYTES = 16 << 20
PART_MAX_BYTES = PART_BYTES + (1 << 20)
LIST, INDEX = ".k4t/large", ".k4t/parts"
LINE_MAX_BYTES = 4 << 20
_MARK = b'{"parts":'
_TAG_BYTES = 16


@value
class Large:
    """A file that is kept in parts: `chunks` are the sha256 of each PART_BYTES of it, in order."""

    path: str
    mode: int
    size_bytes: int
    chunks: tuple[str, ...]


@value
class Part:
    """`name`: sha256 of its bytes. `key`: b"" for one that is not encrypted."""

    name: str
    size_bytes: int
    key: bytes = b""

    @property
    def public(self) -> Part:
        return dataclasses.replace(self, key=b"")


@value
class LargeFiles:
    """Those of one picture. `read` gives a chunk by its sha256; raises K4tError when it is no longer that. `known`: the
    part of a chunk where it was made before, by (sha256, whether it is encrypted); it grows."""

    files: tuple[Large, ...]
    read: Callable[[str], bytes]
    known: dict[tuple[str, bool], Part]

    @property
    def chunks(self) -> list[str]:
        return sorted({chunk for one in self.files for chunk in one.chunks})


def _nothing(chunk: str) -> bytes:
    raise KeyError(chunk)


NO_LARGE = LargeFiles((), _nothing, {})


class Sealer:
    """Makes parts, one at a time. `secret`: b"" to leave them in the clear."""

    def __init__(self, large: LargeFiles, secret: bytes) -> None:
        self._large, self._secret = large, secret
        self._chunk_of: dict[str, str] = {}

    def index(self) -> dict[str, Part]:
        """The part of each chunk. What is known is not read again."""
        found = {}
        for chunk in self._large.chunks:
            place = chunk, bool(self._secret)
            if place not in self._large.known:
                self._large.known[place] = sealed(self._large.read(chunk), self._secret)[0]
            found[chunk] = self._large.known[place]
            self._chunk_of[found[chunk].name] = chunk
        return found

    def data(self, name: str) -> bytes:
        """Raises K4tError when what is known is not what comes out: of another release of the compression, perhaps."""
        chunk = self._chunk_of[name]
        part, data = sealed(self._large.read(chunk), self._secret)
        if part.name != name:
            self._large.known.pop((chunk, bool(self._secret)), None)
            raise K4tError("a large file is packed another way than before", "try again")
        return data


def sealed(chunk: bytes, secret: bytes) -> tuple[Part, bytes]:
    """A part and its bytes. `secret`: what keys are made of; b"" to leave it in the clear."""
    packed = b"".join(compress.gzipped(chunk))
    key = hmac.digest(secret, hashlib.sha256(packed).digest(), "sha256") if secret else b""
    data = _encrypted(packed, key) if key else packed
    return Part(hashlib.sha256(data).hexdigest(), len(data), key), data


def opened(part: Part, data: bytes, size_bytes: int) -> bytes:
    """What was sealed, `size_bytes` of it. Raises BadCopy."""
    if len(data) != part.size_bytes or hashlib.sha256(data).hexdigest() != part.name:
        raise BadCopy(f"part {part.name[:12]}… of a large file is not what was signed (sha256)")
    unpacked = compress.Unpacked(size_bytes)
    if part.key:
        _decrypt(data, part.key, unpacked)
    else:
        unpacked.write(data)
    return unpacked.getvalue()


def _encrypted(packed: bytes, key: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, out, whole = AESGCM(key), io.BytesIO(), memoryview(packed)
    starts = range(0, len(packed), compress.CHUNK_BYTES)
    for number, start in enumerate(starts):
        nonce = _nonce(number, last=number == len(starts) - 1)
        out.write(cipher.encrypt(nonce, whole[start : start + compress.CHUNK_BYTES], None))
    return out.getvalue()


def _decrypt(data: bytes, key: bytes, into: compress.Unpacked) -> None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    whole, step = memoryview(data), compress.CHUNK_BYTES + _TAG_BYTES
    starts = range(0, len(data), step)
    try:
        cipher = AESGCM(key)
        for number, start in enumerate(starts):
            nonce = _nonce(number, last=number == len(starts) - 1)
            into.write(cipher.decrypt(nonce, whole[start : start + step], None))
    except (InvalidTag, ValueError):
        raise BadCopy("a part of a large file can't be decrypted") from None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


# --- in an archive ---------------------------------------------------------------------------------------------------


def list_text(large: Iterable[Large]) -> bytes:
    """What `.k4t/large` holds."""
    rows = [[one.path, one.mode, one.size_bytes, list(one.chunks)] for one in sorted(large, key=lambda one: one.path)]
    return json.dumps(rows, separators=(",", ":")).encode()


def with_index(archive: bytes, index: Mapping[str, Part]) -> bytes:
    """The archive with `.k4t/parts` before everything else. `index`: the part of each chunk."""
    found = {chunk: part_to_json(one) for chunk, one in index.items()}
    text = canonical(dict(sorted(found.items()))).encode()
    return unpack.header(INDEX, 0o600, len(text)) + unpack.padded(text) + archive


def whole(archive: bytes, fetch: Callable[[str], bytes] | None, most_bytes: int, under: str = "") -> bytes:
    """The archive with the large files in it, as if there were no parts; only those whose path begins with `under` are
    fetched, others are left out. Raises BadCopy for what doesn't fit together, and what `fetch` (by a part's name)
    raises."""
    if not archive.startswith(INDEX.encode() + b"\0"):
        return archive
    entries = unpack.listed(archive)
    large = _list(archive, entries)
    index = _index(archive, entries)
    total = sum(one.size_bytes for one in large)
    if len(archive) + total > most_bytes:
        raise BadCopy(f"its large files have {total} bytes; at most {most_bytes} are allowed")
    if fetch is None:
        raise BadCopy("its large files are kept in parts beside it, and those are not here", "take parts/ too")
    by_path: dict[str, unpack.Entry | Large] = {
        **{path: entry for path, entry in entries.items() if path not in (LIST, INDEX)},
        **{one.path: one for one in large if one.path.startswith(under)},
    }
    out = io.BytesIO()
    for path in sorted(by_path):
        one = by_path[path]
        out.write(unpack.header(path, one.mode, one.size_bytes))
        if isinstance(one, unpack.Entry):
            out.write(unpack.padded(unpack.content(archive, one)))
        else:
            _put(one, index, fetch, out)
    out.write(unpack.END)
    return out.getvalue()


def _put(one: Large, index: Mapping[str, Part], fetch: Callable[[str], bytes], out: io.BytesIO) -> None:
    left = one.size_bytes
    for chunk in one.chunks:
        size_bytes = min(left, PART_BYTES)
        if chunk not in index:
            raise BadCopy("it doesn't say where a part of a large file is")
        data = opened(index[chunk], fetch(index[chunk].name), size_bytes)
        if hashlib.sha256(data).hexdigest() != chunk:
            raise BadCopy("a part of a large file is not what it should be (sha256)")
        out.write(data)
        left -= size_bytes
    if left:
        raise BadCopy("a large file lacks parts")
    out.write(bytes(-one.size_bytes % unpack.BLOCK))


def _list(archive: bytes, entries: Mapping[str, unpack.Entry]) -> list[Large]:
    try:
        text = unpack.content(archive, entries[LIST])
        found = [Large(path, mode, size, tuple(chunks)) for path, mode, size, chunks in json.loads(text)]
        right = all(_sound(one) for one in found) and list_text(found) == text
    except (KeyError, ValueError, TypeError, RecursionError):
        right, found = False, []
    paths = {one.path for one in found} if right else set()
    if not right or len(paths) < len(found) or not paths.isdisjoint(entries):
        raise BadCopy("its list of large files is not what k4t writes")
    return found


def _sound(one: Large) -> bool:
    """JSON may hold anything in their place."""
    said: list[Any] = [one.path, one.size_bytes, *one.chunks]
    kinds = [type(found) for found in said]
    return kinds == [str, int, *(str for _ in one.chunks)] and one.mode in unpack.MODES and one.size_bytes >= 0


def _index(archive: bytes, entries: Mapping[str, unpack.Entry]) -> dict[str, Part]:
    try:
        found = json.loads(unpack.content(archive, entries[INDEX]))
        return {chunk: part_from_json(row) for chunk, row in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadCopy("its list of parts is not what k4t writes") from None


def part_from_json(row: Any) -> Part:
    """[name, size, key]. Raises ValueError for what is none."""
    name, size_bytes, key = row
    if not _is_name(name) or type(size_bytes) is not int or not 0 < size_bytes <= PART_MAX_BYTES:
        raise ValueError(name)
    return Part(name, size_bytes, base64.b64decode(key, validate=True))


def part_to_json(part: Part) -> list[Any]:
    return [part.name, part.size_bytes, base64.b64encode(part.key).decode()]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) == 64 and not set(name) - set("0123456789abcdef")


# --- in the clear, before the contents of a copy ---------------------------------------------------------------------


def line_of(parts: Sequence[Part]) -> bytes:
    """b"" without parts."""
    if not parts:
        return b""
    rows = sorted({(one.name, one.size_bytes) for one in parts})
    return canonical({"parts": [list(row) for row in rows]}).encode() + b"\n"


def split_line(payload: memoryview) -> tuple[tuple[Part, ...], memoryview]:
    """The parts that a payload names, without their keys, and what follows. Raises BadCopy."""
    if bytes(payload[: len(_MARK)]) != _MARK:
        return (), payload
    line, end, _ = bytes(payload[: LINE_MAX_BYTES + 1]).partition(b"\n")
    try:
        rows = json.loads(line)["parts"]
        found = tuple(part_from_json((*row, "")) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError):
        found = ()
    if not end or not found or line_of(found) != line + b"\n":
        raise BadCopy("its list of parts is not what k4t writes")
    return found, payload[len(line) + 1 :]
