"""What control groups say of containers, in both versions, and whatever else a host may answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t import command
from k4t.command import Completed
from k4t.errors import StepError
from k4t.node import usage
from k4t.node.usage import Usage
from k4t.remote.fake import FakeTransport

pytestmark = pytest.mark.unit
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def write(base: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_text(text)


def read(base: Path, *ids: str, shell: str = "sh") -> dict[str, Usage]:
    """By the real command, here."""
    done = command.run([*shell.split(), "-c", usage.SCRIPT, "k4t-usage", str(base), *ids])
    found = usage.parse(done.stdout.decode().splitlines(), frozenset(ids))
    return {id: Usage(0.0, one.cpu_s, one.memory_bytes) for id, one in found.items()}


SHELLS = ["sh", "bash", "busybox sh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_version_2_under_systemd_and_under_a_parent_of_its_own(tmp_path: Path, shell: str) -> None:
    """Memory without the file pages that nobody has used lately, as `docker stats` counts. Others are passed over."""
    stat = "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n"
    for place in (f"system.slice/docker-{A}.scope", f"my/own/parent/{B}", f"system.slice/docker-{C}.scope"):
        memory = "anon 5\ninactive_anon 7\ninactive_file 1000\nactive_file 3\n"
        write(
            tmp_path, {f"{place}/cpu.stat": stat, f"{place}/memory.current": "5000\n", f"{place}/memory.stat": memory}
        )
    write(tmp_path, {"cgroup.controllers": "cpu memory\n", "system.slice/cpu.stat": "usage_usec 9\n"})
    expected = Usage(0.0, 2.5, 4000)
    assert read(tmp_path, A, B, "d" * 64, shell=shell) == {A: expected, B: expected}


@pytest.mark.parametrize("shell", SHELLS)
def test_version_1_has_a_tree_for_each_controller(tmp_path: Path, shell: str) -> None:
    """cpuacct is a link to cpu,cpuacct, as a rule."""
    write(tmp_path, {
        f"cpu,cpuacct/docker/{A}/cpuacct.usage": "1500000000\n",
        f"memory/docker/{A}/memory.usage_in_bytes": "9000\n",
        f"memory/docker/{A}/memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n",
        f"cpu,cpuacct/docker/{B}/cpuacct.usage": "1\n",
    })  # fmt: skip
    (tmp_path / "cpuacct").symlink_to("cpu,cpuacct")
    assert read(tmp_path, A, B, shell=shell) == {A: Usage(0.0, 1.5, 7000)}


def test_without_control_groups_nothing_is_known(tmp_path: Path) -> None:
    """And what a command says that fails is an error."""
    assert read(tmp_path, A) == {}
    transport = FakeTransport()
    transport.answer(["sh"], Completed(1, b"", b"no such thing"))
    with pytest.raises(StepError, match="no such thing"):
        usage.read(transport, [A])


@given(st.lists(st.sampled_from([
    "k4t-usage 1", "uptime 12.5", "uptime x", "uptime 1.2.3", f"container {A}", "container x", "usage_usec 5",
    "memory 7", "memory -1", "memory 7 7", "usage_usec " + "9" * 400,
    "cpuacct 1", "", " ", "memory ²", "inactive_file 99",
])))  # fmt: skip
def test_whatever_a_host_answers_is_taken_in(lines: list[str]) -> None:
    """Nothing is raised, no number is out of sense, and nothing is told of what nobody asked for."""
    for id, found in usage.parse(lines, frozenset({A})).items():
        assert id == A
        assert found.memory_bytes >= 0
        assert found.cpu_s >= 0
