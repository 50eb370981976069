"""Whatever stands in a file: a tree, or findings; never another exception."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.errors import InvalidTree
from k4t.model.spec import Tree
from k4t.tree.edit import attribute_escaped, text_escaped
from k4t.tree.read import read_tree
from k4t.tree.schema import DIRECTORIES, FILES
from k4t.tree.show import resolved
from k4t.tree.table import Element
from tests.tree.support import write_tree
from tests.tree.test_read import FULL

pytestmark = pytest.mark.unit
quick = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JUNK = st.sampled_from(
    [
        "",
        "x",
        "0",
        "-1",
        "a b",
        "é",
        "${",
        "${domain}",
        "auto",
        "web",
        "n1",
        "main",
        "99999999999",
        "10.0.0.1",
        "s",
        "/",
    ]
)


@st.composite
def elements(draw: st.DrawFn, row: Element, depth: int = 0) -> str:
    """An element of the table, with values that are mostly right."""
    told = ""
    for one in draw(st.lists(st.sampled_from(row.attributes), unique=True)) if row.attributes else []:
        right = st.sampled_from([one.type.example, *one.type.choices])
        told += f' {one.name}="{attribute_escaped(draw(right | right | JUNK))}"'
    content = ""
    if row.text is not None:
        content = text_escaped(draw(st.just(row.text.example) | JUNK))
    if row.children and depth < 4:
        chosen = draw(st.lists(st.sampled_from(row.children), max_size=6))
        chosen = [*(child for child in row.children if child.required), *chosen]
        content += "".join(draw(elements(child, depth + 1)) for child in chosen)
    return f"<{row.name}{told}>{content}</{row.name}>"


def read(directory: Path) -> Tree | None:
    """The tree, or None when it was refused in words."""
    try:
        return read_tree(directory)
    except InvalidTree as error:
        said = [str(finding) for finding in error.findings]
    assert said
    assert all(line.isprintable() and len(line) < 1000 for line in said)
    return None


@quick
@given(app=elements(FILES["apps/NAME/app.xml"]), other=elements(FILES["apps/NAME/app.xml"]))
def test_any_app_the_table_allows_is_read_or_refused(app: str, other: str, tmp_path: Path) -> None:
    """What is read can also be shown."""
    write_tree(tmp_path, {"apps/web/app.xml": app, "apps/b/app.xml": other, "apps/web/app.conf": "x"})
    if tree := read(tmp_path):
        assert all(resolved(one, tree) for one in tree.apps.values())


@quick
@given(data=st.data(), kind=st.sampled_from([*DIRECTORIES, "cluster.xml", "monitor.xml"]))
def test_any_other_file_the_table_allows_is_read_or_refused(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    """Cluster with its defaults, hosts, certificates, secrets, the monitor."""
    row, path = (FILES[kind], kind) if kind in FILES else (DIRECTORIES[kind], f"{kind}/n1.xml")
    text = data.draw(elements(row))
    shutil.rmtree(tmp_path / "db", ignore_errors=True)
    read(write_tree(tmp_path / "db", {path: text, "apps/web/app.xml": "<app><image>web:1</image></app>"}))


@quick
@given(
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20), st.binary(max_size=6)), min_size=1, max_size=3)
)
def test_any_damage_to_a_file_is_survived(cuts: list[tuple[int, int, bytes]], tmp_path: Path) -> None:
    """Bytes cut out and put in anywhere."""
    target = tmp_path / "db"
    if not target.exists():
        shutil.copytree(FULL, target)
    data = (FULL / "apps/web/app.xml").read_bytes()
    for start, length, new in cuts:
        data = data[:start] + new + data[start + length :]
    (target / "apps/web/app.xml").write_bytes(data)
    read(target)
