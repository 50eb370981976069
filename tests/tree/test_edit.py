"""Edits change what was asked for and not one byte more."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.errors import K4tError, Usage
from k4t.tree import edit
from k4t.tree.read import parse

pytestmark = pytest.mark.unit

THING = """<?xml version="1.0" encoding="UTF-8"?>
<!-- the <image> -->
<thing
    replicas='2'
    restart = "0">

  <image><!-- why --><![CDATA[web:1.4]]></image>   <!-- 1.4 since March -->
  <env name="A">a &lt; b &amp; c</env>
  <port name="main" container="80"/><port name="admin" container="81"/>
  <health><http path="/&quot;x&quot;"/></health> <!-- probe -->
</thing>
<!-- end -->"""


def written(path: Path, text: str = THING) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("at", "value", "old", "new"),
    [
        ("thing @replicas", "3", "replicas='2'", "replicas='3'"),
        ("thing @replicas", None, "\n    replicas='2'", ""),
        ("thing @restart", "1", 'restart = "0"', 'restart = "1"'),
        ("thing @stopped", "true", 'restart = "0"', 'restart = "0" stopped="true"'),
        ("image @pull", "always", "<image><!--", '<image pull="always"><!--'),
        ("port[name=admin] @container", "82", 'container="81"', 'container="82"'),
        ("port[name=admin] @container", None, ' container="81"', ""),
        ("health/http @path", 'a"b<&\n', "/&quot;x&quot;", "a&quot;b&lt;&amp;&#10;"),
        ("update @max-surge", "2", "<!-- probe -->", '<!-- probe -->\n  <update max-surge="2"/>'),
        ("health/http/header[name=H] @x", "1", 'x&quot;"/>', 'x&quot;"><header name="H" x="1"/></http>'),
        ("thing @replicas", "it's", "'2'", "'it&apos;s'"),
    ],
)
def test_one_attribute(at: str, value: str | None, old: str, new: str, tmp_path: Path) -> None:
    """Set, added, removed; its quotes, its neighbours and every comment stay."""
    path = written(tmp_path / "app.xml")
    element, name = at.split(" @")
    assert edit.set_attribute(path, element, name, value)
    assert path.read_text() == THING.replace(old, new)
    assert not edit.set_attribute(path, element, name, value)


@pytest.mark.parametrize(
    ("element", "text", "old", "new"),
    [
        ("image", "web:1.5", "<![CDATA[web:1.4]]>", "web:1.5"),
        ("env[name=A]", "]]> & <", "a &lt; b &amp; c", "]]&gt; &amp; &lt;"),
        ("port[name=main]", "x", 'container="80"/>', 'container="80">x</port>'),
        ("env[name=B]", "b", "<!-- probe -->", '<!-- probe -->\n  <env name="B">b</env>'),
    ],
)
def test_one_text(element: str, text: str, old: str, new: str, tmp_path: Path) -> None:
    """Also CDATA, also in an element that closes itself, also in one that wasn't there."""
    path = written(tmp_path / "app.xml")
    assert edit.set_text(path, element, text)
    assert path.read_text() == THING.replace(old, new)
    assert not edit.set_text(path, element, text)


@pytest.mark.parametrize(
    ("element", "old"),
    [("port[name=main]", '<port name="main" container="80"/>'), ("env", '  <env name="A">a &lt; b &amp; c</env>\n')],
)
def test_one_element_is_removed(element: str, old: str, tmp_path: Path) -> None:
    """With its line where it stands alone on it."""
    path = written(tmp_path / "app.xml")
    assert edit.remove_element(path, element)
    assert path.read_text() == THING.replace(old, "")
    assert not edit.remove_element(path, element)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<app/>", '<app><log driver="none"/></app>'),
        ("<app />", '<app><log driver="none"/></app>'),
        ("<app></app>", '<app><log driver="none"/></app>'),
        ("<app>\r\n</app>", '<app>\r\n  <log driver="none"/>\r\n</app>'),
        ("<app>\r\n\t<image>x</image>\r\n</app>", '<app>\r\n\t<image>x</image>\r\n\t<log driver="none"/>\r\n</app>'),
        ("<app><image>x</image></app>", '<app><image>x</image><log driver="none"/></app>'),
        (
            "<app>\n  <image>x</image> <!-- a\n b -->\n</app>",
            '<app>\n  <image>x</image><log driver="none"/> <!-- a\n b -->\n</app>',
        ),
    ],
)
def test_a_new_element_is_laid_out_like_its_neighbours(before: str, after: str, tmp_path: Path) -> None:
    """Line ends, indentation and comments behind the last one included."""
    path = written(tmp_path / "app.xml", before)
    edit.set_attribute(path, "log", "driver", "none")
    assert path.read_bytes() == after.encode()


def test_git_sees_one_line(tmp_path: Path) -> None:
    """One line taken out, one put in."""
    path = written(tmp_path / "app.xml")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    edit.set_text(path, "image", "web:1.5")
    done = subprocess.run([*git, "diff", "--stat"], check=True, capture_output=True, text=True)
    assert "1 file changed, 1 insertion(+), 1 deletion(-)" in done.stdout


def test_mode_and_directory_stay(tmp_path: Path) -> None:
    """A renamed file has its predecessor's mode, and nothing is left beside it."""
    path = written(tmp_path / "app.xml")
    path.chmod(0o640)
    edit.set_attribute(path, "thing", "replicas", "3")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["app.xml"]


def test_what_cant_be_edited_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Several elements, elements for text, characters that XML can't hold, no XML, no file."""
    path = written(tmp_path / "app.xml")
    with pytest.raises(Usage, match="not one element but 2"):
        edit.set_attribute(path, "port", "container", "1")
    with pytest.raises(Usage, match="holds elements"):
        edit.set_text(path, "health", "x")
    with pytest.raises(Usage, match="can't hold"):
        edit.set_text(path, "image", "a\0b")
    with pytest.raises(Usage, match="root"):
        edit.remove_element(path, "thing")
    with pytest.raises(Usage, match="no such file"):
        edit.set_text(tmp_path / "none.xml", "image", "x")
    assert path.read_text() == THING
    written(path, "<app>")
    with pytest.raises(K4tError, match=r"app.xml:1: is not XML"):
        edit.set_text(path, "image", "x")
    link = tmp_path / "link.xml"
    link.symlink_to(path)
    with pytest.raises(K4tError, match="can't read"):
        edit.set_text(link, "image", "x")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("replicas", "-1", 'replicas="-1" is not a whole number'),
        ("replics", "1", "did you mean replicas?"),
        ("stopped", "yes", "is not true or false"),
    ],
)
def test_no_edit_makes_a_file_invalid(name: str, value: str, said: str, tmp_path: Path) -> None:
    """Refused before anything is written; a file that was invalid already can still be mended, and use variables."""
    path = written(tmp_path / "app.xml", '<app restart="x"><image>${image}</image></app>')
    with pytest.raises(Usage, match="would not be valid") as caught:
        edit.set_attribute(path, "app", name, value)
    assert said in str(caught.value)
    assert edit.set_attribute(path, "app", "replicas", "${n}")
    assert edit.set_attribute(path, "app", "restart", "1")


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """A directory that isn't there is named; nothing is left behind."""
    with pytest.raises(K4tError, match=r"can't write .*/none/app.xml: No such file or directory"):
        edit.write_file(tmp_path / "none/app.xml", b"x")


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from("<>&\"'\t\n]"), max_size=12
)
comments = st.sampled_from(["", " ", "\n  ", "<!-- <x a='1'> -->", "\r\n\t<!-- > -->\r\n"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Apps with all the ways to write the same thing."""
    parts = [draw(comments).lstrip(), "<thing"]
    for name in draw(st.lists(st.sampled_from(["replicas", "restart", "stopped"]), unique=True)):
        quote = draw(st.sampled_from("'\""))
        space, equals = draw(st.sampled_from([" ", "\n   ", "\t"])), draw(st.sampled_from(["=", " = "]))
        parts.append(f"{space}{name}{equals}{quote}{edit.attribute_escaped(draw(words), quote)}{quote}")
    parts.append(draw(st.sampled_from(["", " ", "\n"])) + ">" + draw(comments))
    if draw(st.booleans()):
        text = draw(words)
        cdata = f"<![CDATA[{text}]]>" if "]" not in text else edit.text_escaped(text)
        shown = draw(st.sampled_from([cdata, edit.text_escaped(text)]))
        parts.append(
            draw(st.sampled_from([f"<image>{shown}</image>", f"<image >{shown}<!-- c --></image >", "<image/>"]))
        )
    parts += [draw(comments), '<log driver="a>b"/>', draw(comments), "</thing>", draw(comments).rstrip(" ")]
    return "".join(parts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents(), value=words, name=st.sampled_from(["replicas", "restart", "new"]))
def test_any_attribute_edit_keeps_all_the_rest(document: str, value: str, name: str, tmp_path: Path) -> None:
    """The value arrives, and what is outside one stretch of bytes is as it was."""
    path = written(tmp_path / "app.xml", document)
    edit.set_attribute(path, "thing", name, value)
    after = path.read_bytes()
    node = parse(after, "x")
    assert node.attributes[name] == value
    assert _outside(document.encode(), after) <= len(edit.attribute_escaped(value).encode()) + len(name) + 8


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents(), text=words.filter(lambda text: bool(text.strip())))
def test_any_text_edit_keeps_all_the_rest(document: str, text: str, tmp_path: Path) -> None:
    """The text arrives; attributes, comments and other elements are as they were."""
    path = written(tmp_path / "app.xml", document)
    before = parse(document.encode(), "x")
    edit.set_text(path, "image", text)
    node = parse(path.read_bytes(), "x")
    assert next(child.text for child in node.children if child.tag == "image") == text
    assert node.attributes == before.attributes
    assert path.read_bytes().count(b"<!--") == document.encode().count(b"<!--")


def _outside(before: bytes, after: bytes) -> int:
    """How many bytes of `after` differ from `before`, between what both begin and end with."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    rest, tail = before[start:], after[start:]
    end = next(
        (i for i, (a, b) in enumerate(zip(reversed(rest), reversed(tail), strict=False)) if a != b),
        min(len(rest), len(tail)),
    )
    return len(tail) - end
