"""What is generated from the table and the model: the resolved app, the XSD, the reference page."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from k4t.model.shared import NOWHERE
from k4t.tree.read import read_tree
from k4t.tree.reference import markdown
from k4t.tree.schema import FILES
from k4t.tree.show import duration, resolved, size
from k4t.tree.xsd import xsd
from tests.tree.test_read import FULL, rows

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]


def bare(value: Any) -> Any:
    """The value without the lines it came from, nor the hashes of files (`expand` is resolved too)."""
    if isinstance(value, tuple):
        return tuple(bare(one) for one in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    kept = {one.name: bare(getattr(value, one.name)) for one in fields(value)}
    return replace(value, **{**kept, **({"where": NOWHERE} if "where" in kept else {})})


@pytest.mark.parametrize("name", ["web", "db", "agent", "net"])
def test_what_is_shown_is_read_as_the_same_app(name: str, tmp_path: Path) -> None:
    """Variables and defaults are written out: without them it means the same."""
    shutil.copytree(FULL, tmp_path / "db")
    before = read_tree(tmp_path / "db")
    text = resolved(before.apps[name], before)
    (tmp_path / "db/apps" / name / "app.xml").write_text(text)
    cluster = (tmp_path / "db/cluster.xml").read_text()
    (tmp_path / "db/cluster.xml").write_text(re.sub("<defaults><app>.*</app>", "<defaults>", cluster))
    after = read_tree(tmp_path / "db")
    assert bare(after.apps[name]) == bare(before.apps[name])
    assert resolved(after.apps[name], after) == text


def test_every_element_and_attribute_stands_in_the_full_example() -> None:
    """So whatever the table gets, somebody tries."""
    written = [etree.parse(path).getroot() for path in sorted(FULL.rglob("*.xml"))]
    used = {e.tag for root in written for e in root.iter(tag=etree.Element)}
    used |= {f"{e.tag!s} {name!s}" for root in written for e in root.iter(tag=etree.Element) for name in e.attrib}
    known = {row.name for top in FILES.values() for row in rows(top)}
    assert known <= used
    monitors = {"threshold", "policy", "alert", "certificate", "secret", "backup"}
    wanted = {
        f"{r.name} {a.name}"
        for top in FILES.values()
        for r in rows(top)
        for a in r.attributes
        if r.name not in monitors
    }
    assert sorted(wanted - used) == ["dns name", "gateway name", "record group", "route group"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (90, "90s"), (120, "2m"), (86400, "1d"), (7200, "2h")]
)
def test_durations_are_written_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    """As a person would."""
    assert duration(seconds) == text


def test_sizes_too() -> None:
    """Bytes where nothing larger fits."""
    assert [size(n) for n in (1, 2048, 3 * 2**20, 2**32, None)] == ["1", "2KiB", "3MiB", "4GiB", None]


def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.fromstring(xsd().encode()))


def test_the_xsd_is_valid_and_accepts_what_k4t_accepts() -> None:
    """Every file of the full example, variables and all."""
    checker = schema()
    for path in sorted(FULL.rglob("*.xml")):
        document = etree.parse(path)
        checker.assertValid(document)


@pytest.mark.parametrize(
    "text",
    [
        "<app><imag>web:1</imag></app>",
        "<app replics='2'><image>web:1</image></app>",
        "<app replicas='two'><image>web:1</image></app>",
        "<app><image pull='allways'>web:1</image></app>",
        "<node/>",
        "<node address='x' availability='sleepy'/>",
        "<cluster name='Prod' id='k7f3q2m9'/>",
    ],
)
def test_the_xsd_refuses_what_an_editor_should_mark(text: str) -> None:
    """Misspelt names, wrong values, missing attributes."""
    assert not schema().validate(etree.fromstring(text))


def test_the_committed_reference_page_is_current() -> None:
    """`python -m k4t.tree.reference > docs/tree.md` makes it so."""
    assert (ROOT / "docs/tree.md").read_text(encoding="utf-8") == markdown()


def test_every_row_says_what_it_means() -> None:
    """A sentence each; an attribute isn't both required and defaulted; a default is a value of its type."""
    for top in FILES.values():
        for row in rows(top):
            assert row.meaning.endswith((".", "…")), row.name
            for attribute in row.attributes:
                assert attribute.meaning.endswith((".", "…")), (row.name, attribute.name)
                assert not (attribute.required and attribute.default is not None)
                attribute.type.parse(attribute.type.example)
