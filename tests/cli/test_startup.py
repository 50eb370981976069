"""The command line is read without what takes long to import."""

from __future__ import annotations

import subprocess
import sys

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


def test_help_loads_nothing_heavy() -> None:
    """k4t --help is instant."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1].split() == []
