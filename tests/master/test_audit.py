"""The audit log's chain, on files that were tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k4t.master.history import WorkingCopy
from k4t.master.inspection import audit
from k4t.render import events
from k4t.render.console import Console

pytestmark = pytest.mark.unit


def written(tree: Path, count: int = 4) -> list[bytes]:
    copy = WorkingCopy(tree)
    copy.prepare()
    for number in range(count):
        copy.audit({"serial": number, "message": f"ümläut {number}"})
    return audit.path_of(tree).read_bytes().splitlines(keepends=True)


def test_a_log_as_it_was_written_holds(tmp_path: Path) -> None:
    """And so does one that isn't there."""
    assert audit.breaks(tmp_path) == []
    written(tmp_path)
    assert audit.breaks(tmp_path) == []
    assert [entry["serial"] for entry in audit.entries(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [lines[0], lines[1].replace(b"1", b"7", 1), *lines[2:]], 3),
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], 2),
        (lambda lines: [lines[0], b"\xff\xfe\n", *lines[1:]], 2),
    ],
)
def test_a_change_is_named_with_file_and_line(tmp_path: Path, change: object, line: int) -> None:
    """A line taken out, at the beginning too, exchanged, changed, put in, or garbage."""
    assert callable(change)
    audit.path_of(tmp_path).parent.mkdir()
    lines = written(tmp_path)
    audit.path_of(tmp_path).write_bytes(b"".join(change(lines)))
    assert str(audit.breaks(tmp_path)[0]).startswith(f"{audit.path_of(tmp_path)}:{line}: ")


def test_programs_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`audit verify -o json`: how many lines, whether all are as they were written, and which is not."""
    audit.path_of(tmp_path).parent.mkdir()
    lines = written(tmp_path)
    events.verified(4, audit.breaks(tmp_path), Console("json"))
    assert json.loads(capsys.readouterr().out) == {"version": 1, "lines": 4, "intact": True, "breaks": []}
    audit.path_of(tmp_path).write_bytes(b"".join(lines[1:]))
    events.verified(3, audit.breaks(tmp_path), Console("json"))
    found = json.loads(capsys.readouterr().out)
    assert found["intact"] is False
    assert [(one["file"], one["line"]) for one in found["breaks"]] == [(str(audit.path_of(tmp_path)), 1)]
