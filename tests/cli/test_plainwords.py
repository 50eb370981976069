"""The command line is read without what takes long to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SCRIPT = """
import sys
from k4t import cli
try:
    cli.main(sys.argv[1:])
except SystemExit:
    pass
print(*sorted({"pydantic", "paramiko", "docker", "rich", "lxml"} & set(sys.modules)))
"""


def loaded(*words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()[-1].split()


def test_help_loads_nothing_heavy() -> None:
    """k4t --help is instant."""
    assert loaded("--help") == []


def test_words_are_read_without_pydantic(tmp_path: Path) -> None:
    """Neither the tree's directory, nor a format, nor names need it."""
    assert "pydantic" not in loaded("--db", str(tmp_path), "-o", "json", "plan", "web", "shop", "--allow", "x")
