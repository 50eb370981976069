"""Hostile archives: nothing is written outside the directory (nothing at all, in fact), and one line says why."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import snapshot, unpack
from k4t.tree.read import read_tree
from tests.backup.trees import Cluster, make, opened, packed, remembering, signed

pytestmark = pytest.mark.unit
State = dict[str, tuple[int, int, bytes]]


def entry(path: str | bytes, data: bytes = b"x", mode: int = 0o644) -> bytes:
    """As k4t would write it, whatever the path."""
    return unpack.header(path, mode, len(data)) + unpack.padded(data) if isinstance(path, str) else raw(path, data)


def raw(name: bytes, data: bytes = b"x", kind: bytes = b"0", mode: int = 0o644) -> bytes:
    return unpack._block(name, mode, len(data), kind) + unpack.padded(data)


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + unpack.END


def tar(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """As other programs write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for one in members:
            file.addfile(one, io.BytesIO(b"x" * one.size))
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **said: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    for key, found in said.items():
        setattr(made, key, found)
    return made


def state(directory: Path) -> State:
    """Everything below a directory, links not followed."""
    found: State = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(directory))] = (status.st_mode, status.st_mtime_ns, data)
    return found


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """A header with other bytes in it, its checksum put right."""
    block = bytearray(data[:512])
    block[at : at + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


LONG, DEEP = "n" * 255, "/".join("d" * 30)
FINE = entry("a")
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "an absolute path": (lambda: archive(entry("/etc/passwd")), "an absolute path: /etc/passwd"),
    "two slashes": (lambda: archive(entry("//etc/passwd")), "an absolute path"),
    "a way up": (lambda: archive(entry("../out")), "a path that is none of a tree: ../out"),
    "a way up inside": (lambda: archive(entry("a/../../out")), "a path that is none of a tree"),
    "a way up at the end": (lambda: archive(entry("a/..")), "a path that is none of a tree"),
    "the directory itself": (lambda: archive(entry(".")), "a path that is none of a tree"),
    "an empty part": (lambda: archive(entry("a//b")), "a path that is none of a tree"),
    "a slash at the end": (lambda: archive(entry("a/")), "a path that is none of a tree"),
    "no name": (lambda: archive(entry("")), "a path that is none of a tree: an empty one"),
    "a back slash": (lambda: archive(entry("..\\out")), "characters that no name has"),
    "a line break": (lambda: archive(entry("a\nb")), "characters that no name has: a"),
    "a NUL": (lambda: archive(raw(b"a\0b")), "characters that no name has"),
    "an escape sequence": (lambda: archive(entry("\x1b[2J")), "characters that no name has: .x1b"),
    "a direction mark": (lambda: archive(entry("a\u202egnp.exe")), "characters that no name has"),
    "not UTF-8": (lambda: archive(entry(b"\xff\xfe")), "a name that is not UTF-8"),
    "half a surrogate": (lambda: archive(raw(b"\xed\xa0\x80")), "a name that is not UTF-8"),
    "a name of 255 bytes": (lambda: archive(entry(LONG)), "a name of 255 bytes"),
    "a path of 4,000 bytes": (lambda: archive(entry("/".join([LONG] * 16))), "extension of 4"),
    "30 directories deep": (lambda: archive(entry(DEEP + "/a")), "too long or too deep"),
    "git's directory": (lambda: archive(entry(".git/hooks/post-checkout", mode=0o755)), "what is git's"),
    "git's in other letters": (lambda: archive(entry("apps/.GIT/config")), "what is git's"),
    "twice": (lambda: archive(FINE, entry("a", b"y")), "a twice"),
    "in other letters": (lambda: archive(entry("apps/A"), entry("apps/a")), "apps/a beside apps/A"),
    "a directory in other letters": (lambda: archive(entry("apps/a"), entry("Apps/b")), "Apps beside apps"),
    "another Unicode form": (lambda: archive(entry("über"), entry("u\u0308ber")), "which some file systems can't tell"),
    "sharp s": (lambda: archive(entry("strasse"), entry("straße")), "which some file systems can't tell"),
    "a file, then a directory": (lambda: archive(FINE, entry("a/b")), "a as a file and as a directory"),
    "a directory, then a file": (lambda: archive(entry("a/b"), FINE), "a as a file and as a directory"),
    "a symbolic link": (lambda: tar(info("a", tarfile.SYMTYPE, linkname="/etc")), "a symbolic link: a"),
    "a hard link": (lambda: tar(info("a", tarfile.LNKTYPE, linkname="/etc/passwd")), "a hard link: a"),
    "a link, then a file through it": (
        lambda: tar(info("a", tarfile.SYMTYPE, linkname=".."), info("a/out", size=1)), "a symbolic link: a",
    ),
    "a directory of its own": (lambda: tar(info("a", tarfile.DIRTYPE)), "a directory: a"),
    "a character device": (lambda: tar(info("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), "a character device"),
    "a block device": (lambda: tar(info("sda", tarfile.BLKTYPE, devmajor=8)), "a block device: sda"),
    "a named pipe": (lambda: tar(info("p", tarfile.FIFOTYPE)), "a named pipe: p"),
    "a contiguous file": (lambda: tar(info("c", tarfile.CONTTYPE)), "a contiguous file"),
    "a sparse file": (lambda: archive(raw(b"s", kind=b"S")), "a sparse file: s"),
    "a kind of its own": (lambda: archive(raw(b"s", kind=b"Z")), "an entry of kind b'Z'"),
    "the old kind of file": (lambda: archive(raw(b"s", kind=b"\0")), "an entry of kind"),
    "GNU's long name": (lambda: tar(info("n" * 150, size=1), form=tarfile.GNU_FORMAT), "a GNU long name"),
    "GNU's long link": (
        lambda: tar(info("a", tarfile.SYMTYPE, linkname="n" * 150), form=tarfile.GNU_FORMAT), "a GNU long link",
    ),
    "a global extension": (lambda: archive(raw(b"g", b"19 path=/etc/passwd", b"g")), "a global extension"),
    "an extension for a link": (
        lambda: tar(info("a", tarfile.SYMTYPE, linkname="n" * 150)), "extension that k4t doesn't write",
    ),
    "a sparse extension": (
        lambda: tar(info("a", size=1, pax_headers={"GNU.sparse.major": "1"})), "extension that k4t doesn't write",
    ),
    "a size in an extension": (lambda: tar(info("a", size=1, pax_headers={"size": "99999"})), "extension that k4t"),
    "an owner in an extension": (lambda: tar(info("a", size=1, pax_headers={"uname": "root"})), "extension that k4t"),
    "two extensions": (
        lambda: archive(raw(b"k4t-path", b"12 path=abc\n", b"x") + raw(b"k4t-path", b"12 path=abd\n", b"x") + FINE),
        "an entry of kind b'x'",
    ),
    "an extension of a gigabyte": (
        lambda: archive(patched(raw(b"k4t-path", kind=b"x"), 124, b"10000000000\0")), "an extension of 1073741824",
    ),
    "an extension with nothing after it": (lambda: archive(raw(b"k4t-path", b"12 path=abc\n", b"x")), "cut off|kind"),
    "a path in an extension that needs none": (
        lambda: archive(raw(b"k4t-path", b"12 path=abc\n", b"x") + raw(b"k4t-path")), "not as k4t writes it",
    ),
    "a prefix": (lambda: archive(patched(FINE, 345, b"/etc")), "an absolute path: /etc/a"),
    "a time": (lambda: tar(info("a", size=1, mtime=1)), "not as k4t writes it"),
    "an owner": (lambda: tar(info("a", size=1, uid=1000)), "not as k4t writes it"),
    "set-user-id": (lambda: archive(entry("a", mode=0o4755)), "not as k4t writes it"),
    "everybody may write": (lambda: archive(entry("a", mode=0o666)), "not as k4t writes it"),
    "a wrong checksum": (lambda: archive(FINE[:148] + b"000000\0 " + FINE[156:]), "not as k4t writes it"),
    "a size that is a lie": (lambda: archive(patched(FINE, 124, b"00000077777\0")), "there are not so many"),
    "a size of terabytes": (lambda: archive(patched(FINE, 124, b"\x80" + bytes(4) + b"\x7f" * 7)), "is not one"),
    "a negative size": (lambda: archive(patched(FINE, 124, b"-0000000001\0")), "is not one"),
    "a size of spaces": (lambda: archive(patched(FINE, 124, b" " * 12)), "is not one"),
    "a smaller size": (lambda: archive(patched(entry("a", b"x" * 600), 124, b"00000000001\0")), "after a|is not"),
    "something behind a file": (lambda: archive(FINE[:600] + b"hidden" + FINE[606:]), "after a"),
    "one block at the end": (lambda: FINE + bytes(512), "not so many"),
    "no end": (lambda: FINE, "cut off|not so many"),
    "nothing": (lambda: b"", "cut off"),
    "half a header": (lambda: archive(FINE)[:100], "cut off"),
    "garbage after the end": (lambda: archive(FINE) + b"more", "goes on after its end"),
    "zeros after the end": (lambda: archive(FINE) + bytes(512), "goes on after its end"),
    "garbage": (lambda: b"\x01garbage" * 500, "."),
    "a zip file": (lambda: b"PK\3\4" + bytes(1000), "."),
    "an archive as other programs write it": (lambda: tar(info("a", size=1)), "goes on after its end"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing(kind: str, tmp_path: Path) -> None:
    """Not in its directory, not beside it, not above it; and one short line says why."""
    build, reason = HOSTILE[kind]
    (tmp_path / "beside").write_text("mine")
    before = state(tmp_path)
    data = build()
    with pytest.raises(BadCopy, match=reason) as caught:
        unpack.unpack(data, tmp_path / "into")
    words = str(caught.value)
    assert words.startswith("its archive ")
    assert words.isprintable()
    assert len(words) < 300
    assert state(tmp_path) == before


def test_a_genuine_signature_lets_no_hostile_archive_out(tmp_path: Path) -> None:
    """A master that was broken into can sign what it likes: the extractor trusts nobody."""
    cluster = Cluster()
    copy = make(cluster, archive(FINE, entry("../out")))
    with pytest.raises(BadCopy):
        unpack.unpack(opened(cluster, copy.data), tmp_path / "into")
    assert state(tmp_path) == {}


@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.skipif(
    not os.environ.get("K4T_FULL"), reason="K4T_FULL=1: 100 MB, some seconds"))])  # fmt: skip
def test_too_many_files_are_refused(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a tree may hold, and not one more."""
    monkeypatch.setattr(unpack, "FILES_MAX", count)
    entries = [unpack.header(f"apps/a/{number:06}", 0o644, 0) for number in range(count + 1)]
    assert len(unpack.listed(archive(*entries[:-1]))) == count
    with pytest.raises(BadCopy, match=f"more than {count} files"):
        unpack.unpack(archive(*entries), tmp_path / "into")
    assert state(tmp_path) == {}


def bombs() -> Iterable[tuple[str, Callable[[], bytes]]]:
    import gzip
    import lzma
    import zlib

    zeros = 64 << 20
    yield "xz", lambda: lzma.compress(bytes(zeros), preset=0)
    yield "gzip", lambda: gzip.compress(bytes(zeros), 1)
    yield "300 gzip members", lambda: zlib.compress(bytes(1 << 20), 9, 31) * 300
    yield (
        "xz that wants a gigabyte",
        lambda: lzma.compress(bytes(1 << 20), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]),
    )


@pytest.mark.parametrize("make_bomb", [pytest.param(bomb, id=name) for name, bomb in bombs()])
@pytest.mark.parametrize("says", [1, 1000])
def test_a_bomb_takes_no_memory(make_bomb: Callable[[], bytes], says: int) -> None:
    """What a copy unpacks to is signed; unpacking stops there, whatever comes."""
    cluster = Cluster()
    copy = make(cluster, b"", encrypted=False)
    data = signed(cluster, copy, make_bomb(), archive_bytes=says << 10)
    tracemalloc.start()
    try:
        with pytest.raises(BadCopy, match=r"unpacks to more than|not compressed as k4t does it|instead of"):
            snapshot.contents(data, cluster=cluster.id, cluster_key=cluster.key, identities=[])
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_is_stopped_inside_encryption_too() -> None:
    """The contents of an encrypted copy run through the same limit."""
    import lzma

    from k4t.tree import age

    cluster = Cluster()
    recipients = [one.key for one in cluster.recovery.recipients]
    payload = age.encrypt(lzma.compress(bytes(32 << 20), preset=0), recipients)
    with pytest.raises(BadCopy, match=r"unpacks to more than the 1024 bytes"):
        opened(cluster, signed(cluster, make(cluster, b""), payload, archive_bytes=1024))


# --- what is right ---------------------------------------------------------------------------------------------------


def test_a_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Every file with its bytes, programs executable, what k4t remembers for nobody else to read."""
    db = remembering(tmp_path / "db")
    into = tmp_path / "into"
    data = packed(db)
    old = os.umask(0)
    try:
        unpack.unpack(data, into)
    finally:
        os.umask(old)
    assert packed(into) == data
    assert read_tree(into) == read_tree(db)
    modes = {str(path.relative_to(into)): stat.S_IMODE(path.lstat().st_mode) for path in [into, *into.rglob("*")]}
    assert modes["."] == modes[".k4t"] == modes[".k4t/revisions"] == 0o700
    assert modes["apps"] == modes["apps/web/conf"] == modes["hooks/pre-apply"] == 0o755
    assert modes["apps/web/app.xml"] == modes["cluster.xml"] == 0o644
    assert modes[".k4t/base"] == modes[".k4t/redo.log"] == 0o600


def test_one_file_is_read_out_of_an_archive(tmp_path: Path) -> None:
    """By its path; None for one that isn't there."""
    data = packed(remembering(tmp_path))
    assert unpack.member(data, "apps/web/über.txt") == "grüße\n".encode()
    assert unpack.member(data, "apps/web/no") is None
    found = unpack.listed(data)["apps/web/app.xml"]
    assert (found.mode, unpack.content(data, found)) == (0o644, (tmp_path / "apps/web/app.xml").read_bytes())


def test_only_a_directory_of_its_own_is_written_to(tmp_path: Path) -> None:
    """An empty one will do; not one with something in it, a file, or a link to a directory."""
    data = archive(FINE)
    (tmp_path / "empty").mkdir()
    unpack.unpack(data, tmp_path / "empty")
    assert (tmp_path / "empty" / "a").read_bytes() == b"x"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    for name in ("empty", "file", "link", "no/such"):
        with pytest.raises(K4tError, match=r"is not empty|can't write"):
            unpack.unpack(data, tmp_path / name)
    assert list((tmp_path / "other").iterdir()) == []


def test_long_paths_come_out_as_they_went_in(tmp_path: Path) -> None:
    """At and around every limit of the format: 100 bytes of a name, digits of an extension's length, UTF-8."""
    paths = [
        *("p" * size for size in (1, 99, 100, 101, 155, 199, 200)), "ü" * 50, "ü" * 100, "日本語/" * 18 + "x",
        *("/".join(["d" * 98] * 9)[:size] + "/e" for size in (80, 85, 86, 87, 88, 89, 90, 880, 885, 890)),
    ]  # fmt: skip
    data = archive(*(entry(path, path.encode()) for path in sorted(set(paths))))
    assert list(unpack.listed(data)) == sorted(set(paths))
    unpack.unpack(data, tmp_path / "into")
    assert all((tmp_path / "into" / path).read_text() == path for path in paths)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        assert file.getnames() == sorted(set(paths))


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is mounted")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """With its path; the caller takes the rest away."""
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(K4tError, match=f"can't write {tmp_path}/into: No space left on device"):
            unpack.unpack(archive(entry("a", bytes(1 << 20))), tmp_path / "into")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_thousand_altered_archives_are_refused_or_harmless(tmp_path: Path) -> None:
    """Bits, bytes and blocks: BadCopy and no other error; or files of the same tree with other contents, for which the
    copy's signature is there."""
    rng = random.Random(20261120)  # noqa: S311 - the same places at every run
    data = packed(remembering(tmp_path / "db"))
    paths, refused = set(unpack.listed(data)), 0
    for number in range(1000):
        at, size = rng.randrange(len(data)), rng.choice((1, 3, 512, 513))
        flipped = bytes([data[at] ^ (1 << rng.randrange(8))])
        altered = (
            data[:at] + flipped + data[at + 1 :], data[:at] + rng.randbytes(size) + data[at:],
            data[:at] + data[at + size :], data[:at] + data[at // 512 * 512 :],
        )[number % 4]  # fmt: skip
        try:
            assert set(unpack.listed(altered)) <= paths
        except BadCopy:
            refused += 1
    assert refused > 700
