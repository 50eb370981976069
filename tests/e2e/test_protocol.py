"""The commit protocol on a real pair (Envoy and HAProxy): its master is killed, stopped and cut off at every step.

`make test` tries a sample of the places; K4T_CRASH=all every one of them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
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
    made.end()
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
        killed(site, place)
        if who == "copied log":
            site = with_log(site, tmp_path / name)
        elif who == "no log":
            site = site.copy(tmp_path / name)
        done = site.k4t("apply", "--yes", "--wait")
        text = done.stdout + done.stderr
        assert ("rolled forward" in text) == (who == "same" and place in DECIDED[:-1]), f"{place}: {text}"
        pair.check(site, lab, name, f"{place}, {who}")


@pytest.mark.parametrize(
    "place", ["after:fence:2", "before:decide", "after:decide"] if EVERYWHERE else ["after:fence:2"]
)
def test_a_stopped_master_is_overtaken(site: Site, lab: Lab, tmp_path: Path, place: str) -> None:
    """SIGSTOP, another master publishes, SIGCONT: it changes nothing and says that it was overtaken."""
    pair.begin(site, lab)
    pair.change(site, "v1")
    process = pair.stopped_at(site, place)
    other = site.copy(tmp_path / "other")
    pair.change(other, "v2")
    other.k4t("apply", "--yes", "--wait")
    before = [pair.kept(host) for host in pair.members(lab)]
    status, said = pair.woken(process)
    assert status != 0, said
    assert "overtaken" in said
    assert [pair.kept(host) for host in pair.members(lab)] == before
    pair.check(other, lab, "v2", place)


UNDECIDED = ("before:observe", "before:fence", "before:prepare")
CUT = (*UNDECIDED, "after:prepare:2", "before:decide", "before:commit", "before:verify")


@pytest.mark.parametrize("place", CUT if EVERYWHERE else ["before:prepare", "before:commit"])
def test_a_member_is_cut_off_and_refused(site: Site, lab: Lab, place: str) -> None:
    """Before the decision the other one stays as it was, byte by byte; after it, it has what the first is owed."""
    here, cut = pair.members(lab)
    pair.begin(site, lab)
    before = pair.kept(here)
    pair.change(site, "v1")
    process = pair.stopped_at(site, place)
    cut.cut()
    try:
        status, said = pair.woken(process)
        assert status == (1 if place in (*UNDECIDED, "before:verify") else 3), said  # it may have it, unconfirmed
        assert "gw2" in said
        if place in UNDECIDED:
            assert staged_apart(pair.kept(here)) == staged_apart(before)
            assert not pair.served(here, "v1")
        else:
            assert pair.served(here, "v1")
    finally:
        cut.restore()
    site.k4t("apply", "--yes", "--wait")
    pair.check(site, lab, "v1", place)


def staged_apart(files: Mapping[str, str]) -> Mapping[str, str]:
    """What is staged is nobody's yet: a fence, or the next document, replaces it."""
    return {path: sha256 for path, sha256 in files.items() if not path.endswith("/staged.json")}


@pytest.mark.parametrize(
    "place", ["before:fence", "before:prepare", "before:commit"] if EVERYWHERE else ["before:prepare"]
)
def test_a_member_is_cut_off_and_owed(site: Site, lab: Lab, place: str) -> None:
    """degrade: the other one commits, status shows the debt, and it is paid when the member returns."""
    here, cut = pair.members(lab)
    pair.begin(site, lab, policy="degrade")
    pair.change(site, "v1")
    process = pair.stopped_at(site, place)
    cut.cut()
    try:
        status, said = pair.woken(process)
        assert status == 3, said
        assert "gw2 is stale" in said
        assert pair.served(here, "v1")
        owed = site.json("status")["transactions"]
        assert [(one["state"], one["members"]) for one in owed] == [("owed", ["gw2"])]
    finally:
        cut.restore()
    assert [one["members"] for one in site.json("status")["transactions"]] == [["gw2"]]
    site.k4t("apply", "--yes", "--wait")
    pair.check(site, lab, "v1", place)


@pytest.mark.parametrize("number", [1, 2])
def test_the_redo_log_can_not_be_synced(site: Site, lab: Lab, number: int) -> None:
    """EIO at the fsync of BEGIN, or of COMMIT: nothing changes, once is enough, and the next run is as any other."""
    pair.begin(site, lab)
    before = [staged_apart(pair.kept(host)) for host in pair.members(lab)]
    pair.change(site, "v1")
    log = site.db / ".k4t/redo.log"
    trace = site.directory / "trace"
    argv = ["strace", "-f", "-o", str(trace), "-P", str(log), "-e", f"inject=fsync:error=EIO:when={number}"]
    done = subprocess.run(
        [*argv, *site.argv("apply", "--yes")], env=site.environment(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"can't write {log}: Input/output error" in said
    assert [staged_apart(pair.kept(host)) for host in pair.members(lab)] == before
    assert trace.read_text().count("fsync(") == number
    site.k4t("apply", "--yes", "--wait")
    pair.check(site, lab, "v1", f"fsync {number}")


def killed(site: Site, place: str) -> None:
    process = site.start("apply", "--yes", extra={"K4T_FAILPOINT": place})
    out, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{place}: {process.returncode}\n{out}{said}"


def test_an_operator_finishes_it_by_hand(site: Site, lab: Lab) -> None:
    """`txn abort` takes back what was not decided, and refuses what was; `txn resume` rolls that forward."""
    pair.begin(site, lab)
    pair.change(site, "v1")
    killed(site, "after:prepare:2")
    (open_one,) = site.json("status")["transactions"]
    assert (open_one["state"], open_one["on"]) == ("begun", "gateway/default")
    assert "aborts it first" in site.k4t("plan").stderr
    assert "aborted" in site.k4t("txn", "abort", open_one["id"], "--yes", "--wait").stderr
    assert site.json("status")["transactions"] == []
    assert not pair.served(lab.host("gw1"), "v1")
    killed(site, "after:decide")
    (open_one,) = site.json("status")["transactions"]
    assert open_one["state"] == "decided"
    assert "can't be taken back" in site.k4t("txn", "abort", open_one["id"], "--yes", status=1).stderr
    assert "rolled forward" in site.k4t("txn", "resume", "--wait").stderr
    pair.check(site, lab, "v1", "resumed")


def test_a_blank_member_is_named_and_filled(site: Site, lab: Lab) -> None:
    """A host that was replaced is told from one that lags."""
    pair.begin(site, lab)
    second = lab.host("gw2")
    second.exec(
        ["sh", "-c", 'kill -9 "$(cat /run/k4t-haproxy.pid)"; rm -rf /run/k4t-haproxy.pid /var/lib/k4t /etc/k4t']
    )
    site.k4t("gateway", "install", "gw2")
    behind = {one["name"]: one["behind"] for one in site.json("status")["gateways"]}
    assert behind["gw1"] == ""
    assert "gw2 is blank: it was replaced" in behind["gw2"]
    assert "gw2 is blank: it was replaced" in site.k4t("plan").stdout
    site.k4t("apply", "--yes")
    pair.check(site, lab, "v0", "filled")


def test_a_fork_is_shown_and_healed(site: Site, lab: Lab, tmp_path: Path) -> None:
    """First gw1 alone is published to, then gw2 alone, by somebody who can't see gw1: the newer one counts."""
    first, second = pair.members(lab)
    pair.begin(site, lab, policy="degrade")
    other = site.copy(tmp_path / "other")
    pair.change(site, "v1")
    second.cut()
    site.k4t("apply", "--yes", status=3)
    second.restore()
    first.cut()
    for name in ("v2", "v3"):
        pair.change(other, name)
        (other.db / "dns/names.xml").unlink(missing_ok=True)  # it stands on gw1, too
        other.k4t("apply", "--yes", "--wait", status=None)
    first.restore()
    behind = [one["behind"] for one in site.json("status")["gateways"]]
    assert any("went its own way (a fork)" in text for text in behind), behind
    pair.change(site, "v4")
    assert "a fork" in site.k4t("plan").stdout
    site.k4t("apply", "--yes", "--wait")
    pair.check(site, lab, "v4", "healed")
