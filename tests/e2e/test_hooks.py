"""Hooks: what they are told, what they can stop, what is left of them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from k4t import command
from k4t.errors import StepError
from tests.e2e.site import Site, containers
from tests.lab.processes import Process, wait_until


def gone(pid: int) -> bool:
    return Process.of(pid) is None


def hook(site: Site, name: str, script: str) -> None:
    site.write(f"hooks/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


def told(site: Site, name: str) -> dict[str, str]:
    lines = (site.directory / f"{name}.env").read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines if line.startswith("K4T_"))


def remember(site: Site, name: str) -> None:
    hook(site, name, f"echo hello from $K4T_HOOK; env > {site.directory}/{name}.env")


@pytest.mark.integration
def test_hooks_are_told_what_happens(site: Site) -> None:
    """Before and after; a run with nothing to do calls none; their output is shown."""
    for name in ("pre-apply", "post-apply", "on-failure"):
        remember(site, name)
    site.write("secrets/inside.xml", '<secret environment="INSIDE"/>\n')
    site.app("web")
    running = site.start("apply", "--yes", "-m", "first one", extra={"INSIDE": "hush", "OTHER": "kept"})
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    assert "pre-apply: hello from pre-apply" in err
    assert "post-apply: hello from post-apply" in err
    before, after = told(site, "pre-apply"), told(site, "post-apply")
    common = {"K4T_CLUSTER": "prod", "K4T_CLUSTER_ID": site.id, "K4T_TREE": str(site.db), "K4T_MESSAGE": "first one"}
    common |= {"K4T_SERIAL": "1", "K4T_APPS": "web"}
    assert common.items() <= before.items()
    assert (common | {"K4T_RESULT": "done", "K4T_EXIT_STATUS": "0", "K4T_NOT_DONE": ""}).items() <= after.items()
    assert "K4T_RESULT" not in before
    environment = (site.directory / "post-apply.env").read_text()
    assert "hush" not in environment
    assert "OTHER=kept" in environment
    assert not (site.directory / "on-failure.env").exists()
    (site.directory / "pre-apply.env").unlink()
    site.k4t("apply", "--yes")
    assert not (site.directory / "pre-apply.env").exists()


@pytest.mark.integration
def test_pre_apply_can_stop_a_run(site: Site) -> None:
    """Exit 1, what it said is shown, and nothing was begun on any host."""
    hook(site, "pre-apply", "echo not on fridays; exit 3")
    remember(site, "on-failure")
    site.app("web")
    done = site.k4t("apply", "--yes", status=1)
    assert "pre-apply: not on fridays" in done.stderr
    assert "hooks/pre-apply ended with status 3: nothing was begun" in done.stderr
    assert [containers(host) for host in site.lab.nodes] == [[], []]
    assert not (site.directory / "on-failure.env").exists()


@pytest.mark.integration
def test_a_failed_apply_calls_on_failure(site: Site) -> None:
    """With the result and what is not done; a hook that fails itself is a warning."""
    hook(site, "on-failure", f"env > {site.directory}/on-failure.env; exit 1")
    remember(site, "post-apply")
    site.app("web", more='  <env name="FAIL">1</env>')
    done = site.k4t("apply", "--yes", status=1)
    after = told(site, "on-failure")
    assert after["K4T_RESULT"] == "failed"
    assert after["K4T_EXIT_STATUS"] == "1"
    assert "await:web.0.1" in after["K4T_NOT_DONE"]
    assert "hooks/on-failure ended with status 1" in done.stderr
    assert not (site.directory / "post-apply.env").exists()


def run(directory: Path, script: str, timeout_s: float, env: Mapping[str, str] | None = None) -> tuple[int, list[str]]:
    said: list[str] = []
    argv = ["/bin/sh", "-c", script]
    environment = {"PATH": os.environ["PATH"], **(env or {})}
    return command.followed(argv, env=environment, directory=directory, timeout_s=timeout_s, say=said.append), said


@pytest.mark.unit
def test_a_program_is_followed_line_by_line(tmp_path: Path) -> None:
    """Both streams, the last line without its end, and the exit status."""
    assert run(tmp_path, "echo a; echo b >&2; printf c; exit 7", 10) == (7, ["a", "b", "c"])
    assert run(tmp_path, "pwd; cat", 10) == (0, [str(tmp_path)])


@pytest.mark.unit
def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """Also one that goes on writing; nothing of it is left."""
    for script in ("sleep 987 & echo $! > child; wait", "yes & echo $! > child; wait"):
        started = time.monotonic()
        with pytest.raises(StepError, match=r"took longer than 2 s"):
            run(tmp_path, script, 2)
        assert time.monotonic() - started < 60
        child = int((tmp_path / "child").read_text())
        assert wait_until(partial(gone, child), timeout_s=30), f"{child} lives on"


@pytest.mark.unit
def test_a_child_that_is_left_behind_does_not_keep_it(tmp_path: Path) -> None:
    """A hook that starts something and ends has ended; what it started ends too."""
    started = time.monotonic()
    assert run(tmp_path, "sleep 986 & echo done", 30) == (0, ["done"])
    assert time.monotonic() - started < 60
