"""The commit protocol on a real pair (Envoy and HAProxy): its master is killed, stopped and cut off at every step.

`make test` tries a sample of the places; K4T_CRASH=all every one of them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import pair
from tests.e2e.site import Site
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash, pytest.mark.timeout(1800)]
EVERYWHERE = os.environ.get("K4T_CRASH") == "all"
TWICE = ("observe", "fence", "prepare", "commit", "verify")
PLACES = [
    f"{when}:{verb}:{number}"
    for verb in ("observe", "fence", "begin", "prepare", "decide", "commit", "verify", "end")
    for number, when in itertools.product((1, 2) if verb in TWICE else (1,), ("before", "after"))
]
DECIDED = PLACES[PLACES.index("after:decide:1") :]
SAMPLE = ("after:fence:2", "after:prepare:1", "after:decide:1", "after:commit:1")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(name=f"pair-{os.getpid()}", nodes=1, gateways=2, registry=True) as up:
        yield up


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    made = Site(lab, tmp_path)
    yield made
    pair.clear(lab)


def with_log(site: Site, directory: Path) -> Site:
    """Another working copy, with the log in it: it isn't its own."""
    other = site.copy(directory)
    shutil.copytree(site.db / ".k4t", other.db / ".k4t")
    return other


@pytest.mark.parametrize("who", ["same", "copied log", "no log"])
def test_killed_at_every_step_and_continued(site: Site, lab: Lab, tmp_path: Path, who: str) -> None:
    """By the same master, by another working copy with the log, by one without: right every time."""
    pair.begin(site, lab)
    for number, place in enumerate(PLACES if EVERYWHERE else SAMPLE, 1):
        name = f"v{number}"
        pair.change(site, name)
        process = site.start("apply", "--yes", extra={"K4T_FAILPOINT": place})
        out, said = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{place}: {process.returncode}\n{out}{said}"
        if who == "copied log":
            site = with_log(site, tmp_path / name)
        elif who == "no log":
            site = site.copy(tmp_path / name)
        done = site.k4t("apply", "--yes", "--wait")
        text = done.stdout + done.stderr
        assert ("rolled forward" in text) == (who == "same" and place in DECIDED[:-1]), f"{place}: {text}"
        pair.check(site, lab, name, f"{place}, {who}")
