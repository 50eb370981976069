"""What copies are packed with: xz, or gzip where most is compressed already. Streams, in bounded memory."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from k4t.errors import BadCopy

CHUNK_BYTES = 1 << 20
_SAMPLE_BYTES = 4 * 1024
_GZIP = 31
_XZ, _XZ_MAX_BYTES, _XZ_MEMORY_BYTES = b"\xfd7zXZ\0", 64 << 20, 64 << 20


def compressed(data: bytes) -> Iterator[bytes]:
    """xz, since revisions are much like each other: 100 of 1,000 apps become 0.2 MB instead of 9, in less time than
    gzip takes. Where most is compressed already, gzip as below."""
    chunks = _chunks(data)
    shrinking = [_shrinks(chunk) for chunk in chunks]
    if len(data) <= _XZ_MAX_BYTES and 2 * sum(shrinking) >= len(chunks):
        yield from _xz(chunks)
    else:
        yield from _gzip(chunks, shrinking)


def gzipped(data: bytes) -> Iterator[bytes]:
    """gzip members. What does not shrink, as most image archives, is only wrapped: trying takes 13 s a 300 MB."""
    chunks = _chunks(data)
    yield from _gzip(chunks, [_shrinks(chunk) for chunk in chunks])


def _chunks(data: bytes) -> list[memoryview]:
    return [memoryview(data)[start : start + CHUNK_BYTES] for start in range(0, max(1, len(data)), CHUNK_BYTES)]


def _shrinks(chunk: memoryview) -> bool:
    """By a look at four places of it."""
    if len(chunk) < 4 * _SAMPLE_BYTES:
        return True
    quarter = len(chunk) // 4
    sample = b"".join(chunk[start : start + _SAMPLE_BYTES] for start in range(0, 4 * quarter, quarter))
    return len(zlib.compress(sample, 1)) < 0.95 * len(sample)


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


class Reader:
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


class Unpacked:
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
