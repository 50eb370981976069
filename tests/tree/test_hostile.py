"""Files made to hurt: each is refused by name, within a second, with nothing read from outside the tree."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k4t.errors import InvalidTree, Usage
from k4t.tree import read
from k4t.tree.read import read_tree
from tests.tree.support import write_tree

pytestmark = pytest.mark.unit
APP = "apps/web/app.xml"
FINE = "<app><image>web:1</image></app>"
ENTITIES = "".join("<!ENTITY l{} '{}'>".format(i, f"&l{i - 1};" * 10) for i in range(1, 10))
LAUGHS = f'<!DOCTYPE app [<!ENTITY l0 "ha">{ENTITIES}]>'


def refusal(directory: Path) -> list[str]:
    """What is said, each as `code file`; asserts that it took less than a second, of this process alone."""
    started = time.process_time()
    with pytest.raises(InvalidTree) as caught:
        read_tree(directory)
    assert time.process_time() - started < 1
    return [f"{finding.code} {finding.file}" for finding in caught.value.findings]


def attributes(count: int) -> bytes:
    return "<app {}/>".format(" ".join(f'a{i}=""' for i in range(count))).encode()


BYTES: dict[str, tuple[str, bytes]] = {
    "billion laughs": ("dtd", f"{LAUGHS}<app><image>&l9;</image></app>".encode()),
    "billion laughs in an attribute": ("dtd", f'{LAUGHS}<app><label name="a&l9;">x</label></app>'.encode()),
    "external entity": (
        "dtd",
        b'<!DOCTYPE app [<!ENTITY x SYSTEM "file:///etc/passwd">]><app><image>&x;</image></app>',
    ),
    "external DTD": (
        "dtd",
        b'<?xml version="1.0"?>\n<!-- c -->\n<!DOCTYPE app SYSTEM "http://127.0.0.1:1/x.dtd"><app/>',
    ),
    "a DTD after a comment with >": ("dtd", b"<!-- <app> -> -->\n<!DOCTYPE app><app/>"),
    "an undefined entity": ("not-xml", b"<app><image>&nope;</image></app>"),
    "XInclude": (
        "unknown-element",
        b'<app xmlns:xi="http://www.w3.org/2001/XInclude"><image>w:1</image><xi:include href="/etc/passwd"/></app>',
    ),
    "UTF-16": ("encoding", FINE.encode("utf-16")),
    "UTF-16 without a mark": ("encoding", FINE.encode("utf-16-le")),
    "UTF-16 with a DTD": ("encoding", f"<!DOCTYPE app>{FINE}".encode("utf-16-be")),
    "UTF-32": ("encoding", FINE.encode("utf-32")),
    "a byte order mark": ("encoding", b"\xef\xbb\xbf" + FINE.encode()),
    "another encoding declared": ("encoding", b'<?xml version="1.0" encoding="UTF-7"?>' + FINE.encode()),
    "Latin-1": ("encoding", "<app><image>web:1</image><!-- ü --></app>".encode("latin-1")),
    "NUL": ("nul", FINE.replace("web", "w\0b").encode()),
    "2 MiB": ("too-big", f"<app><image>web:1</image><!-- {'x' * 2_000_000} --></app>".encode()),
    "60,000 attributes": ("too-many", attributes(60_000)),
    "100,000 attributes": ("too-many", attributes(100_000)),
    "100,000 equal attributes": ("too-many", b"<app " + b'a="" ' * 100_000 + b"/>"),
    "100,000 children": ("too-many", f"<app>{'<a/>' * 100_000}</app>".encode()),
    "9,000 unknown children": ("unknown-element", f"<app><image>w:1</image>{'<a/>' * 9_000}</app>".encode()),
    "9,000 equal children": ("repeated", b"<app><image>w:1</image>" + b"<depends on='x'/>" * 9_000 + b"</app>"),
    "200 deep": ("too-deep", f"{'<app>' * 200}{'</app>' * 200}".encode()),
    "100,000 deep": ("not-xml", f"{'<app>' * 100_000}".encode()),
    "100,000 open comments": ("not-xml", b"<app>" + b"<!--" * 100_000),
    "200,000 open brackets": ("not-xml", b"<a" * 200_000),
    "a name of 500,000 characters": ("root", f"<{'a' * 40_000}/>".encode()),
    "500,000 characters of variable": ("unknown-variable", f"<app><image>${{{'x' * 500_000}}}</image></app>".encode()),
    "100,000 open variables": ("variable", f"<app><image>{'${' * 100_000}</image></app>".encode()),
    "control characters": ("not-xml", b"<app><image>web\x1b[31m:1</image></app>"),
    "no XML": ("not-xml", b"\x7fELF\x01\x01"),
    "two roots": ("not-xml", b"<app/><app/>"),
}


@pytest.mark.parametrize("name", BYTES)
def test_hostile_bytes_are_refused_by_name_in_less_than_a_second(name: str, tmp_path: Path) -> None:
    """Whatever a file holds, k4t says what is wrong and goes on."""
    code, data = BYTES[name]
    write_tree(tmp_path, {APP: data})
    assert f"{code} {APP}" in refusal(tmp_path)


def test_an_entity_is_never_expanded_into_a_message(tmp_path: Path) -> None:
    """Nothing of /etc/passwd is ever seen."""
    write_tree(tmp_path, {APP: BYTES["external entity"][1]})
    with pytest.raises(InvalidTree) as caught:
        read_tree(tmp_path)
    assert "root:" not in str(caught.value)


def test_messages_are_short_and_hold_no_control_characters(tmp_path: Path) -> None:
    """A hostile value can neither fill the terminal nor drive it."""
    text = "<app replicas='" + "x" * 10_000 + "'><image>a&#10;&#x9b;[31m</image></app>"
    write_tree(tmp_path, {APP: text})
    with pytest.raises(InvalidTree) as caught:
        read_tree(tmp_path)
    for finding in caught.value.findings:
        assert len(str(finding)) < 400
        assert str(finding).isprintable()


def _link_out(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _link_in(path: Path) -> None:
    path.symlink_to("../../cluster.xml")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a symbolic link": _link_out,
    "a link inside the tree": _link_in,
    "a named pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("place", ["apps/web/app.xml", "apps/web/data", "nodes/x.xml", "cluster.xml", "known_hosts"])
def test_what_is_no_regular_file_is_refused_and_never_opened(name: str, place: str, tmp_path: Path) -> None:
    """A pipe would block, a device could be anything, a link leads out of the tree."""
    write_tree(tmp_path, {APP: FINE})
    path = tmp_path / place
    path.unlink(missing_ok=True)
    try:
        SPECIAL[name](path)
    except PermissionError:
        pytest.skip("making devices needs root")
    if (name, place) == ("a directory", "apps/web/data"):
        assert read_tree(tmp_path).apps
    elif (name, place) == ("a directory", "apps/web/app.xml"):
        assert refusal(tmp_path) == ["no-app apps/web"]
    else:
        assert f"not-a-file {place}" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["apps", "nodes", "apps/web", "apps/web/data", ".k4t"])
def test_a_link_to_a_directory_is_not_followed(place: str, tmp_path: Path) -> None:
    """Neither for k4t's own directories nor for an app's; `.k4t` isn't looked at."""
    write_tree(tmp_path / "db", {"cluster.xml": '<cluster name="t" id="k7f3q2m9"/>'}, base=False)
    write_tree(tmp_path / "elsewhere", {"x.xml": "<node/>"}, base=False)
    path = tmp_path / "db" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    if place == ".k4t":
        assert read_tree(tmp_path / "db").cluster.name == "t"
    else:
        assert f"not-a-file {place}" in refusal(tmp_path / "db")


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"apps/web/Data": "x", "apps/web/data": "x"}, "name-clash"),
        ({"apps/web/e\u0301": "x", "apps/web/\u00e9": "x"}, "name-clash"),
        ({"apps/web/" + "n" * 255: "x"}, "file-name"),
        ({"apps/web/a\nb": "x"}, "file-name"),
        ({"nodes/" + "n" * 251 + ".xml": "x"}, "file-name"),
        ({"nodes/N1.xml": "<node address='10.0.0.9'/>"}, "name-clash"),
    ],
)
def test_names_that_some_file_system_or_terminal_cant_hold(files: dict[str, str], code: str, tmp_path: Path) -> None:
    """A tree can be checked out anywhere."""
    write_tree(tmp_path, {APP: FINE, **files})
    said = refusal(tmp_path)
    assert any(line.startswith(code) for line in said)
    assert all(line.isprintable() for line in said)


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    """It is shown escaped."""
    write_tree(tmp_path, {APP: FINE})
    (tmp_path / "apps/web" / os.fsdecode(b"\xff\xfe")).write_text("x")
    assert refusal(tmp_path) == ["file-name apps/web/\\udcff\\udcfe…"]


def test_directories_too_deep(tmp_path: Path) -> None:
    """An app's directory has an end."""
    write_tree(tmp_path, {APP: FINE, "apps/web/" + "d/" * 30 + "x": "x"})
    assert [line.split()[0] for line in refusal(tmp_path)] == ["too-deep"]


def test_no_tree_is_said_with_what_to_do(tmp_path: Path) -> None:
    """No directory, a file, an empty directory: exit 64, and the command that makes one."""
    (tmp_path / "file").write_text("x")
    for name, why in (("none", "no such directory"), ("file", "no such directory"), (".", "no cluster.xml")):
        with pytest.raises(Usage, match=f"no tree at .*{why}.*k4t init") as caught:
            read_tree(tmp_path / name)
        assert caught.value.exit_status == 64


def _as_nobody(work: Callable[[], str]) -> str:
    """What `work` answers in a process without root's rights."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


@pytest.mark.skipif(os.geteuid() != 0, reason="drops root's rights")
def test_what_cant_be_read_is_said_with_its_path(tmp_path: Path) -> None:
    """The tree itself: usage. A file in it: a finding."""
    for part in (tmp_path, *tmp_path.parents):
        if part.stat().st_uid == os.geteuid() and part != Path("/") and not part.stat().st_mode & 0o001:
            part.chmod(part.stat().st_mode | 0o011)
    tree = write_tree(tmp_path / "db", {APP: FINE})
    tree.chmod(0o700)

    def attempt() -> str:
        try:
            read_tree(tree)
        except (Usage, InvalidTree) as error:
            return str(error)
        return "read"

    assert _as_nobody(attempt) == f"can't read the tree at {tree}: Permission denied; look at its owner and mode"
    tree.chmod(0o755)
    (tree / "nodes/n1.xml").chmod(0o600)
    assert _as_nobody(attempt) == "nodes/n1.xml: can't be read: Permission denied; look at its owner and mode"


def test_lxml_is_told_to_fetch_nothing() -> None:
    """Even without the check for a DTD, entities stay unexpanded."""
    with pytest.raises(read.Refused) as caught:
        read.parse(b"<app>&#x26;amp;</app><!DOCTYPE app>", "x")
    assert caught.value.code == "not-xml"
