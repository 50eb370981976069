"""The zipapp: the same bytes everywhere, standard library only, old Pythons welcome."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from k4t.remote.registrar import _package, build

pytestmark = pytest.mark.unit


def run(
    zipapp: Path, root: Path, *arguments: str, python: str = sys.executable, line: str = ""
) -> tuple[int, str, str]:
    done = subprocess.run(
        [python, "-IS", str(zipapp), *arguments], input=line, capture_output=True, text=True, check=False, timeout=30,
        env={**os.environ, "K4T_REGISTRAR_ROOT": str(root)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def zipapp(tmp_path: Path) -> Path:
    path = tmp_path / "k4t-registrar.pyz"
    path.write_bytes(build()[0])
    return path


def test_reproducible() -> None:
    """Time and machine leave no mark: built again later, it is the same."""
    first = build()
    build.cache_clear()
    time.sleep(0.01)
    assert build() == first
    with zipfile.ZipFile(io.BytesIO(first[0])) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_standard_library_only() -> None:
    """No file of it imports anything but the standard library and its own siblings."""
    for path in _package().glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(name.name.split(".")[0] in sys.stdlib_module_names for name in node.names), path
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] in sys.stdlib_module_names, path


def test_python_38() -> None:
    """Nothing in it needs more than Python 3.8 (vermin says so)."""
    vermin = Path(sys.executable).parent / "vermin"
    done = subprocess.run(
        [vermin, "-t=3.8-", "--violations", "--no-tips", _package()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def old_python() -> str:
    """A real Python 3.8, on PATH or of pyenv."""
    found = [*Path.home().glob(".pyenv/versions/3.8*/bin/python3.8"), shutil.which("python3.8")]
    return str(next((path for path in found if path), ""))


@pytest.mark.parametrize("python", [sys.executable, old_python()])
def test_it_runs(zipapp: Path, tmp_path: Path, python: str) -> None:
    """Line by line until end of file; an error is an answer."""
    if not python:
        pytest.skip("no python3.8 here")
    requests = '{"op":"list"}\n{"op":"observe","cluster":"a"}\nnonsense\n'
    status, out, err = run(zipapp, tmp_path, "--driver", "envoy", "rpc", python=python, line=requests)
    if "command not found" in err or "isn't" in err:
        pytest.skip("python3.8 is only a name here")
    first, second, third = (json.loads(line) for line in out.splitlines())
    assert status == 0, err
    assert first == {"ok": {"endpoints": [], "withdrawals": []}}
    assert second["error"]["type"] == "not-installed"
    assert third["error"]["type"] == "bad-request"


def test_by_hand(zipapp: Path, tmp_path: Path) -> None:
    """add, list, remove: as design.md shows them; the driver is found when there is one."""
    config = {"address": "127.0.0.1", "port": 1, "zones": ["k4t.lab"], "own": True}
    install = json.dumps({"op": "install", "config": config}) + "\n"
    assert run(zipapp, tmp_path, "--driver", "dnsmasq", "rpc", line=install)[0] == 0
    entry = ("--cname", "web", "--ip", "1.2.3.4", "--port", "80")
    status, _, err = run(zipapp, tmp_path, "add", *entry)
    assert status == 1, "it is in the file, and nobody answers"
    assert "its hosts file is in place" in err
    assert run(zipapp, tmp_path, "list")[1].split() == ["manual", "web", "1.2.3.4:80", "main"]
    run(zipapp, tmp_path, "remove", *entry)
    assert run(zipapp, tmp_path, "list")[1] == ""
    status, _, err = run(zipapp, tmp_path, "remove", *entry)
    assert (status, err) == (1, "k4t-registrar: there is no manual entry web 1.2.3.4:80\n")


def test_by_hand_without_a_driver(zipapp: Path, tmp_path: Path) -> None:
    """It says which option is missing."""
    status, _, err = run(zipapp, tmp_path, "list")
    assert status == 64
    assert "--driver is needed; set up here: none" in err
