"""What `backup diff` says of two trees."""

from __future__ import annotations

import pytest

from k4t.master.backup.compare import MAX_LINES, File, compare

pytestmark = pytest.mark.unit
OLD = """<app replicas="2"><image>web:1</image><port name="http" container="80"/><env name="A">1</env>
<arg>x</arg><arg>y</arg><health><http path="/"/></health></app>"""


def said(old: str | bytes | None, new: str | bytes | None, path: str = "apps/web/app.xml") -> tuple[str, ...]:
    def files(content: str | bytes | None) -> dict[str, File]:
        data = content.encode() if isinstance(content, str) else content
        return {} if data is None else {path: File(data)}

    changes = compare(files(old), files(new))
    return changes[0].lines if changes else ()


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (("web:1", "web:2"), ('image "web:1" → "web:2"',)),
        (('replicas="2"', 'replicas="3"'), ('app replicas "2" → "3"',)),
        (('replicas="2"', 'replicas="2" stopped="true"'), ('app stopped (none) → "true"',)),
        (('path="/"', 'path="/x"'), ('health/http path "/" → "/x"',)),
        (('container="80"', 'container="81"'), ('port container "80" → "81"',)),
        (('<env name="A">1</env>', ""), ('- env name="A" "1"',)),
        (('<env name="A">1</env>', '<env name="A">1</env><env name="B">2</env>'), ('+ env name="B" "2"',)),
        (("<arg>x</arg><arg>y</arg>", "<arg>y</arg><arg>x</arg>"), ("arg: the order changed to y, x",)),
        (("<image>", "<!-- why --><image>"), ("comments or white space changed, nothing else",)),
        (('<env name="A">1</env>', '<env name="A">\x1b[2J</env>'), None),
    ],
)
def test_xml_is_told_by_element_and_attribute(change: tuple[str, str], lines: tuple[str, ...] | None) -> None:
    """One sentence a change; what is no XML any more is told as text, and can't drive a terminal."""
    found = said(OLD, OLD.replace(*change))
    assert found == lines if lines else all("\x1b" not in line for line in found)


def test_elements_of_one_kind_are_told_apart_by_name() -> None:
    """Not by their place."""
    old = '<app><env name="A">1</env><env name="B">2</env></app>'
    assert said(old, '<app><env name="0">0</env><env name="A">1</env><env name="B">3</env></app>') == (
        'env[B] "2" → "3"',
        '+ env name="0" "0"',
    )


def test_other_text_is_a_unified_diff_of_bounded_length() -> None:
    """With what stands around it."""
    assert said("a\nb\nc\n", "a\nB\nc\n", "hooks/pre-apply") == ("@@ -1,3 +1,3 @@", " a", "-b", "+B", " c")
    long = said("", "\n".join(map(str, range(5000))), "apps/web/list.txt")
    assert len(long) == MAX_LINES + 1
    assert long[-1].startswith("… and ")


def test_what_is_no_text_is_told_by_size_and_hash() -> None:
    """Also text of another encoding, and what is too long for a diff."""
    for data in (b"\0\1", "é".encode("latin-1"), b"x" * (2 << 20)):
        (line,) = said(b"text", data, "apps/web/image.tar")
        assert f"→ {len(data)} bytes (sha256 " in line


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("secrets/token.age", "hunter2"),
        ("secrets/digest-key", "hunter2"),
        ("certificates/web.pem", "-----BEGIN PRIVATE KEY-----\nhunter2"),
        ("apps/web/notes.txt", "hunter2 AGE-SECRET-KEY-1XYZ"),
    ],
)
def test_a_secret_is_never_told(path: str, content: str) -> None:
    """Added, changed or gone: only that it was."""
    for old, new in ((None, content), (content, None), (content, "x"), ("x", content)):
        assert said(old, new, path) == ("its content is a secret",)


def test_modes_count_and_what_a_working_copy_remembers_does_not() -> None:
    """A hook that can't be run any more is a change."""
    old, new = {"hooks/pre-apply": File(b"x", True)}, {"hooks/pre-apply": File(b"x")}
    (change,) = compare(old, new)
    assert change.lines[-1] == "is no longer executable"
    assert compare({".k4t/base": File(b"1")}, {".k4t/base": File(b"2")}) == ()


def test_one_line_for_a_file_that_came_or_went() -> None:
    """By kind, sorted by path."""
    found = compare({"b.xml": File(b"<b/>")}, {"a.xml": File(b"<a/>")})
    assert [(one.path, one.kind) for one in found] == [("a.xml", "added"), ("b.xml", "removed")]
