"""docs/monitor.md says what the code does: names, thresholds, JSON keys, the example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k4t.model.monitor import DEFAULTS, UNITS, Threshold
from k4t.monitor.facts import OpenTransaction
from k4t.monitor.history import NONE
from k4t.monitor.judge import judge
from k4t.monitor.signs import signs
from k4t.render.monitor import as_json
from k4t.tree.read import read_tree
from tests.monitor.test_render import looked
from tests.monitor.test_signs import CASES, SILENT, certificate, copies
from tests.monitor.world import NOW_S, away, facts, tree

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/monitor.md").read_text()


def rows(heading: str) -> Iterator[list[str]]:
    """Cells of the table below a heading, without its head."""
    table = re.search(rf"(?m)^## {heading}$.*?^\|[^\n]*\n\|[-|]*\n((?:\|[^\n]*\n)+)", PAGE, re.DOTALL)
    assert table is not None
    for line in table[1].splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def shown(one: Threshold, limit: float | None) -> str:
    if limit is None:
        return "" if one.of == "state" else "`never`"
    if one.of == "backup-age":
        return f"{limit:g} periods"
    if UNITS[one.of] == "%":
        return f"`{limit:g}%`"
    if UNITS[one.of] == "":
        return f"`{limit:g}`"
    sizes = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    size, unit = next((size, unit) for size, unit in sizes if not limit % size)
    return f"`{limit / size:g}{unit}`"


def test_the_table_of_thresholds_is_the_defaults() -> None:
    """Every measure, in the order of the schema's own."""
    told = [row[:5] for row in rows("Thresholds")]
    assert told == [
        [f"`{one.of}`", shown(one, one.warning), shown(one, one.critical), str(one.after), str(one.of_last)]
        for one in DEFAULTS.values()
    ]


def test_the_schema_knows_the_same_measures() -> None:
    """`<threshold of=…>` has just those."""
    from k4t.tree.schema_monitor import THRESHOLD

    assert set(THRESHOLD.by_attribute["of"].type.choices) == set(DEFAULTS)


def test_every_name_is_told() -> None:
    """Of all that tests raise, and all that the code may."""
    told = {name for row in rows("What is checked") for name in re.findall(r"`([a-z-]+)`", row[0])}
    source = "".join(path.read_text() for path in (ROOT / "k4t/monitor/signs").glob("*.py"))
    raised = {name.rpartition(": ")[2] for _, expected in CASES.values() for name in expected}
    assert raised <= told
    for name in told:
        assert f'"{name}"' in source or name in ("gateway-away", "dns-away", "gateway-stopped", "dns-stopped"), name


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key != "processes":
                yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def test_every_key_of_the_json_is_told() -> None:
    """And no other."""
    block = PAGE[PAGE.index('    {"version":1,"cluster"') : PAGE.index("`level` is the worst")]
    told = set(re.findall(r'"([a-z_0-9]+)"', block))
    open_one = facts(transactions=(OpenTransaction("t1", "gateway/default", "begun"),))
    seen = (open_one, away(facts(), "node/n2", SILENT), certificate(5.0), copies(300.0))
    found = {key for one in seen for key in keys(as_json(looked(one)))}
    values = {"ok", "root", "docker", "confirmed"}  # words that stand as values
    assert found - told == set()
    assert told - found - values == set()


def test_the_example_is_valid(tmp_path: Path) -> None:
    """As it stands."""
    (example,) = re.findall(r"```xml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "cluster.xml").write_text('<cluster name="prod" id="k7f3q2m9" format="1"/>\n')
    (tmp_path / "monitor.xml").write_text(example)
    found = read_tree(tmp_path)
    assert found.no_effect == ()
    assert found.monitor.threshold("disk").warning == 80.0
    assert found.monitor.threshold("cpu").warning is None
    assert (found.monitor.threshold("state").after, found.monitor.threshold("state").of_last) == (3, 5)


def test_a_finding_of_every_kind_says_what_to_do() -> None:
    """A sentence, and a remedy where there is one."""
    for make, _ in CASES.values():
        found = make()
        for one in judge(signs(found, tree()), NONE, tree().monitor, NOW_S).findings:
            assert one.sentence
            assert len(one.sentence) < 400
            assert "\n" not in one.sentence
