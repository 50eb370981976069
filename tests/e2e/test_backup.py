"""Copies of the tree as an operator sees them: `k4t backup`, its schedule's call, apply's copies, on real hosts."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k4t.master.backup import copy
from k4t.master.backup.judge import seconds
from k4t.master.backup.snapshot import check
from k4t.model.snapshot import Manifest
from k4t.tree.read import read_tree
from k4t.wiring import opened
from tests.e2e.site import Site
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration

N1 = '<backup node="n1" every="1m" keep="3"/>'
N2 = '<backup node="n2" every="1h" keep="3"/>'


def backups(site: Site, *elements: str) -> None:
    site.write(
        "cluster.xml",
        f'<cluster name="prod" id="{site.id}" format="1">\n'
        f'  <ssh user="root" key="{site.lab.key}" connect-timeout="2s"/>\n  {"".join(elements)}\n</cluster>\n',
    )


@pytest.fixture
def backed(site: Site) -> Site:
    """A tree written by hand with a copy due on n1 every minute and on n2 every hour."""
    backups(site, N1, N2)
    return site


def directory(site: Site) -> str:
    return f"/var/lib/k4t/{site.id}/copies"


def files(site: Site, host: Host) -> list[str]:
    return host.exec(["sh", "-c", f"ls -A {directory(site)} 2>/dev/null"], check=False).stdout.split()


def copies(site: Site, host: Host) -> list[str]:
    return [name for name in files(site, host) if name.endswith(".snapshot")]


def content(site: Site, host: Host) -> bytes:
    """Of the newest copy there."""
    name = f"{directory(site)}/{copies(site, host)[-1]}"
    return base64.b64decode(host.exec(["base64", name], timeout_s=60).stdout)


def newest(site: Site, host: Host) -> Manifest:
    """By the newest name; raises when it is none of ours."""
    recovery = read_tree(site.db).recovery
    assert recovery is not None
    return check(content(site, host)[:4097], cluster=site.id, cluster_key=recovery.key)


def results(site: Site, *words: str, status: int = 0) -> dict[str, str]:
    return {one["target"]: one["result"] for one in site.json("backup", *words, status=status)["backups"]}


def test_the_day_of_a_tree(backed: Site, lab: Lab) -> None:
    """By hand, first copies; unchanged, confirmed; changed, copied where it is due; apply copies to all, and an apply
    with nothing to do to none; status says how old they are."""
    n1, n2 = lab.host("n1"), lab.host("n2")
    first = backed.k4t("backup")
    assert "recovery.xml: commit it with the tree" in first.stderr
    assert first.stdout.splitlines()[1].split()[:2] == ["n1", "copied"]
    assert results(backed) == {"n1": "confirmed", "n2": "confirmed"}
    assert backed.k4t("backup", "--due").stdout == ""
    assert backed.json("backup", "--due")["next"]["target"] == "n1"
    backed.app("web")
    done = backed.k4t("apply", "--yes")
    assert done.stdout.splitlines()[-1] == "Copies of the tree: n1, n2."
    assert len(copies(backed, n1)) == len(copies(backed, n2)) == 2
    assert newest(backed, n2).serial == 1
    again = backed.json("apply", "--yes")
    assert (again["result"], again["backups"]) == ("nothing", [])
    assert len(copies(backed, n1)) == 2
    backed.write("apps/web/README", "notes\n")
    backed.app("web", more="  <env name='MORE'>1</env>")
    more = backed.json("apply", "--yes")
    assert [(one["target"], one["result"], one["error"]) for one in more["backups"]] == [
        ("n1", "copied", ""), ("n2", "copied", ""),
    ]  # fmt: skip
    seen = backed.json("status")["backups"]
    assert [(one["node"], one["every_s"], one["count"], one["late"]) for one in seen] == [
        ("n1", 60, 3, False), ("n2", 3600, 3, False),
    ]  # fmt: skip
    assert seen[0]["last"].endswith("Z")
    assert 0 <= seen[0]["age_s"] < 60
    assert "BACKUP" in backed.k4t("status").stdout
    assert files(backed, n1) == [*copies(backed, n1), *(["confirmed"] if "confirmed" in files(backed, n1) else [])]
    thief = content(backed, n1)
    told = (b"prod", b"n1", b"n2", b"web", b"notes", n1.address.encode(), b"root@", os.uname().nodename.encode())
    assert [word for word in told if len(word) > 2 and word in thief] == []


def test_an_apply_whose_copies_fail_is_done(backed: Site, lab: Lab) -> None:
    """This machine may not sign: a warning with the remedy. Killed before its copies: the next backup makes up for it,
    and the apply has nothing left to do."""
    backed.k4t("backup")
    keys = backed.home / ".config/k4t"
    keys.rename(backed.home / "away")
    backed.app("web")
    done = backed.k4t("apply", "--yes")
    assert f"! no copy of the tree on n1, n2: this machine may make no copies of {backed.id}: " in done.stdout
    assert done.stdout.count("its key is not certified; k4t kit certify --kit FILE") == 1
    shutil.rmtree(keys)
    (backed.home / "away").rename(keys)
    backed.app("web", more="  <env name='MORE'>1</env>")
    killed = backed.start("apply", "--yes", extra={"K4T_FAILPOINT": "backup:store"})
    said = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, said
    assert [len(copies(backed, host)) for host in lab.nodes] == [1, 1]
    assert results(backed) == {"n1": "copied", "n2": "copied"}
    assert newest(backed, lab.host("n1")).serial == 2
    assert backed.json("apply", "--yes")["result"] == "nothing"


def test_targets_that_are_away(backed: Site, lab: Lab) -> None:
    """The others are done, exit 3, and status shows it; back again, it is due at the next call. None there: 69."""
    n1, n2 = lab.host("n1"), lab.host("n2")
    backed.k4t("backup")
    n1.cut()
    try:
        backed.app("web")
        done = backed.k4t("backup", status=3)
        assert done.stdout.splitlines()[-1] == "Not backed up: n1; the next backup tries again."
        assert done.stdout.splitlines()[1].startswith("n1      failed  ")
        away = backed.json("status")["backups"][0]
        assert (away["reachable"], away["count"]) == (False, None)
        assert away["last"] is not None
        n2.cut()
        assert backed.k4t("backup", status=69).stdout.count("does not answer") == 2
    finally:
        n1.restore()
        n2.restore()
    assert results(backed) == {"n1": "copied", "n2": "confirmed"}


@contextmanager
def small_disk(host: Host, where: str) -> Iterator[None]:
    host.exec(["sh", "-c", f"mkdir -p {where} && mount -t tmpfs -o size=96k,mode=700 none {where}"])
    try:
        yield
    finally:
        host.exec(["umount", where])


def test_a_full_disk_and_a_read_only_one(backed: Site, lab: Lab) -> None:
    """The old copies stay, one clear line with the numbers, exit 3, the other target is done; with room it is, too."""
    n1 = lab.host("n1")
    with small_disk(n1, directory(backed)):
        backed.k4t("backup")
        (old,) = copies(backed, n1)
        backed.app("web")
        backed.write("apps/web/data.bin", "").write_bytes(os.urandom(200_000))
        done = backed.json("backup", status=3)["backups"]
        assert [one["result"] for one in done] == ["failed", "copied"]
        assert done[0]["error"].startswith("no room for a copy of 19")
        assert f"KiB in {directory(backed)} (" in done[0]["error"]
        assert done[0]["error"].endswith("KiB free); the 1 there are kept; make room there, or lower keep=")
        assert [name for name in files(backed, n1) if name != "confirmed"] == [old]
        (backed.db / "apps/web/data.bin").write_text("small\n")
        n1.exec(["mount", "-o", "remount,ro", directory(backed)])
        refused = backed.json("backup", status=3)["backups"][0]["error"]
        assert refused.startswith(f"{directory(backed)} can't be written: read-only file system")
        n1.exec(["mount", "-o", "remount,rw", directory(backed)])
        assert results(backed) == {"n1": "copied", "n2": "confirmed"}
        assert len(copies(backed, n1)) == 2


def test_two_at_once(backed: Site, lab: Lab) -> None:
    """One works, the other is told who does: 75. The first goes on and ends well."""
    first = backed.start("backup", extra={"K4T_FAILPOINT": "backup:store=stop"})
    deadline = time.monotonic() + 60
    try:
        while "State:\tT" not in Path(f"/proc/{first.pid}/status").read_text():
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = backed.k4t("backup", "--due", status=75)
        assert f"k4t: the backup of {backed.db} is locked by " in done.stderr
        assert f"(process {first.pid}) since " in done.stderr
    finally:
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=60)
    assert first.returncode == 0, said
    assert len(copies(backed, lab.host("n2"))) == 1


def test_a_master_killed_while_a_copy_is_on_its_way(backed: Site, lab: Lab) -> None:
    """The old copy stays the newest, nothing half-written stays, and the next call makes up for it."""
    n1 = lab.host("n1")
    backups(backed, N1)
    backed.k4t("backup")
    old = copies(backed, n1)
    backed.app("web")
    backed.write("apps/web/data.bin", "").write_bytes(os.urandom(40_000_000))
    first = backed.start("backup")
    deadline = time.monotonic() + 60
    growing = f"find {directory(backed)} -name '.k4t-tmp-*' -size +1k | grep -q ."
    while n1.exec(["sh", "-c", growing], check=False).returncode:
        assert first.poll() is None, "it was done before it was killed"
        assert time.monotonic() < deadline
    first.kill()
    first.communicate(timeout=60)
    while any(name.startswith(".k4t-tmp-") for name in files(backed, n1)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert copies(backed, n1) == old
    (backed.db / "apps/web/data.bin").write_text("small\n")
    assert results(backed) == {"n1": "copied"}
    assert newest(backed, n1).sequence == 3  # the second was given out, and never arrived


def test_a_host_that_is_no_node(site: Site, lab: Lab) -> None:
    """user@host in <backup>; `k4t trust` enrols it, and nothing is sent before. An apply that can't copy to one is done
    all the same."""
    gw1 = lab.host("gw1")
    where = f"root@{gw1.address}:22"
    backups(site, f'<backup host="{where}"/>')
    (site.home / ".ssh" / "known_hosts").rename(site.home / "known_hosts")
    refused = site.k4t("backup", status=77)
    assert f"then enrol it: k4t trust {where}" in refused.stdout
    trusted = site.k4t("trust", where, "--yes")
    assert f"{where} ({gw1.address}): ssh-ed25519 SHA256:" in trusted.stderr
    assert results(site) == {where: "copied"}
    assert site.json("status")["backups"][0]["count"] == 1
    (site.home / "known_hosts").rename(site.home / ".ssh" / "known_hosts")
    backups(site, f'<backup host="{where}"/><backup host="root@127.0.0.1:9"/>')
    site.app("web")
    applied = site.json("apply", "--yes")
    assert [(one["target"], one["result"]) for one in applied["backups"]] == [
        (where, "copied"), ("root@127.0.0.1:9", "failed"),
    ]  # fmt: skip
    assert "refuses the connection" in applied["backups"][1]["error"]
    gw1.exec(["rm", "-rf", f"/var/lib/k4t/{site.id}"])


def test_the_newest_copy_is_never_older_than_the_period_and_one_run(
    backed: Site, lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tree that changes all the time, a period of one minute, calls every minute for 15 minutes of a simulated clock;
    each run is a real one, with real connections, and as long as it took."""
    monkeypatch.setenv("HOME", str(backed.home))
    began_s = now_s = time.time()
    ages, runs = [], []
    minutes = 15 if os.environ.get("K4T_FULL") else 6
    for minute in range(minutes + 1):
        now_s = max(now_s, began_s + 60.0 * minute)
        if minute:
            ages.append(now_s - seconds(newest(backed, lab.host("n1")).time))
        backed.app("web", more=f"  <env name='MINUTE'>{minute}</env>")
        started_s = time.monotonic()
        with opened(backed.db) as run:
            report = copy.backup(backed.db, run.fleet, now_s=now_s, due_only=True, emit=run.emit)
        assert report.results[0].result == "copied"
        runs.append(time.monotonic() - started_s)
        now_s += runs[-1]
    with capsys.disabled():
        print(
            f"\nnewest copy: at most {max(ages) + max(runs):.1f} s old (period 60 s, a run at most {max(runs):.2f} s)"
        )
    assert max(ages) <= 60.0 + 1.0  # plus the run that follows; times in a copy are whole seconds
    assert len(copies(backed, lab.host("n1"))) == 3
    state = json.loads((backed.db / ".k4t/backup/state.json").read_text())
    assert state["sequence"] == minutes + 1
