"""What operators do all day: scale, another image, restart, stop and start, on real hosts."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUTED = """\
  <health interval="1s"><http port="http" path="/"/></health>
  <route port="http" domain="web.k4t.lab"/>
  <record name="web" ttl="1s"/>"""


def running(lab: Lab) -> list[str]:
    return sorted(name for host in lab.nodes for name in containers(host, all=False))


def page(lab: Lab) -> tuple[int, str]:
    return fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")


def changed_lines(before: str, path: Path) -> int:
    after = path.read_text().splitlines()
    return sum(1 for old, new in zip(before.splitlines(), after, strict=True) if old != new)


def test_scale_up_and_down(published: Site, lab: Lab) -> None:
    """One line of the tree changes; replicas and endpoints follow, also to one."""
    path = published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    before = path.read_text()
    assert published.json("scale", "web", "2", "--yes")["result"] == "done"
    assert changed_lines(before, path) == 1
    assert running(lab) == ["prod.web.0.1", "prod.web.1.1"]
    assert len({page(lab)[1].split()[0] for _ in range(20)}) == 2
    published.k4t("scale", "web", "1", "--yes")
    assert running(lab) == ["prod.web.0.1"]
    assert path.read_text() == before
    assert published.json("plan")["steps"] == []


def test_scale_to_none_and_the_withdrawal_it_means_need_no_allow(published: Site, lab: Lab) -> None:
    """The command names what it does; the tree edited by hand would need --allow."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    published.k4t("scale", "web", "0", "--yes")
    assert running(lab) == []
    assert page(lab)[0] in (404, 503)


def test_another_tag_keeps_the_repository(published: Site, lab: Lab) -> None:
    """`image web :TAG` writes the same repository with another tag, and both replicas run it."""
    old, new = lab.push("day-1", VER="1"), lab.push("day-2", VER="2")
    path = published.app("web", replicas=2, image=old, more=ROUTED)
    published.k4t("apply", "--yes")
    before = path.read_text()
    published.k4t("image", "web", ":day-2", "--yes")
    assert path.read_text() == before.replace(old, new)
    assert "version=2" in page(lab)[1]
    assert running(lab) == ["prod.web.0.2", "prod.web.1.2"]


def test_restart_replaces_one_at_a_time(published: Site, lab: Lab) -> None:
    """Both replicas are new; with max-unavailable="1" the second goes only after the first serves."""
    text = published.app("web", replicas=2, more=ROUTED).read_text()
    published.write("apps/web/app.xml", text.replace('max-unavailable="100%"', 'max-surge="0" max-unavailable="1"'))
    published.k4t("apply", "--yes")
    published.k4t("restart", "web", "--no-apply")
    steps = {step["id"]: step for step in published.json("plan")["steps"]}
    assert published.json("apply", "web", "--yes")["result"] == "done"
    assert running(lab) == ["prod.web.0.2", "prod.web.1.2"]
    stops = [id for id in steps if id.startswith("stop:")]
    assert len(stops) == 2
    assert ancestors(steps, stops[1]) & {id for id in steps if id.startswith("await:")}
    assert 'restart="1"' in (published.db / "apps/web/app.xml").read_text()
    published.k4t("restart", "web", "--yes")
    assert running(lab) == ["prod.web.0.3", "prod.web.1.3"]


def ancestors(steps: dict[str, dict[str, list[str]]], id: str) -> set[str]:
    """Every step that must have ended before."""
    found: set[str] = set()
    todo = [id]
    while todo:
        step = steps[todo.pop()]
        new = {*step["after"], *step.get("awaits", [])} - found
        found |= new
        todo += new
    return found


def test_stop_and_start(published: Site, lab: Lab) -> None:
    """stop needs no --allow: its containers stay, stopped and unpublished; start publishes the same ones again."""
    path = published.app("web", replicas=2, more=ROUTED)
    before = path.read_text()
    published.k4t("apply", "--yes")
    published.k4t("stop", "web", "--yes")
    assert running(lab) == []
    assert sorted(name for host in lab.nodes for name in containers(host)) == ["prod.web.0.1", "prod.web.1.1"]
    assert page(lab)[0] in (404, 503)
    assert published.json("status")["apps"][0]["stopped"] is True
    assert published.json("app", "list")["apps"][0]["stopped"] is True
    published.k4t("start", "web", "--yes")
    assert running(lab) == ["prod.web.0.1", "prod.web.1.1"]
    assert page(lab)[0] == 200
    assert path.read_text() == before


def test_what_is_refused_leaves_the_tree_as_it_was(published: Site, lab: Lab) -> None:
    """No answer, an image that isn't there, a gateway that is away: the file has its old bytes."""
    path = published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    before = path.read_text()
    published.k4t("scale", "web", "2", status=64)
    assert path.read_text() == before
    refused = published.k4t("image", "web", ":never-pushed", "--yes", status=None)
    assert refused.returncode != 0
    assert path.read_text() == before
    lab.host("gw1").cut()
    try:
        published.k4t("scale", "web", "2", "--yes", status=69)
    finally:
        lab.host("gw1").restore()
    assert path.read_text() == before
    assert running(lab) == ["prod.web.0.1"]


def test_no_apply_only_edits(site: Site, lab: Lab) -> None:
    """The tree is changed and nothing else; what would make it invalid is refused and undone."""
    path = site.app("web", replicas=1)
    site.k4t("scale", "web", "2", "--no-apply")
    assert 'replicas="2"' in path.read_text()
    assert running(lab) == []
    refused = site.k4t("image", "web", "No Image", "--no-apply", status=64)
    assert "image" in refused.stderr
    site.k4t("scale", "nobody", "2", "--no-apply", status=64)


def test_an_app_that_is_needed_is_not_removed(site: Site, lab: Lab) -> None:
    """The tree would not be valid: exit 65 says why, and the app's directory is back with all that is in it."""
    site.app("db", port=8081)
    site.write("apps/db/notes.txt", "mine")
    site.app("web", more='  <depends on="db"/>')
    site.k4t("apply", "--yes")
    site.k4t("app", "remove", "db", "--yes", status=65)
    assert (site.db / "apps/db/notes.txt").read_text() == "mine"
    site.k4t("app", "remove", "db", status=65)
    site.app("web")
    site.k4t("app", "remove", "db", "--yes")
    assert not (site.db / "apps/db").exists()
    assert [name for name in running(lab) if ".db." in name] == []


def test_what_needs_no_step_is_a_revision_all_the_same(site: Site) -> None:
    """A changed probe replaces nothing; the app is applied as it stands, and history says so."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=1, more='  <health interval="2s"><http port="http" path="/"/></health>')
    assert site.json("apply", "web", "--yes")["serial"] == 2
    assert site.json("apply", "web", "--yes")["serial"] == 2
    assert site.json("history")["revisions"][0]["apps"] == ["web"]


def test_an_answer_of_no_leaves_the_tree_as_it_was(site: Site, lab: Lab) -> None:
    """At a terminal the plan is shown and asked for; no is exit 130, as Ctrl-C is, and nothing has happened."""
    path = site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    before = path.read_text()
    said, status = at_a_terminal(site, "n\n", "scale", "web", "2")
    assert "Do it? [y/N]" in said
    assert "nothing was changed" in said
    assert status == 130
    assert path.read_text() == before
    assert len(running(lab)) == 1
    _, status = at_a_terminal(site, "y\n", "scale", "web", "2")
    assert status == 0
    assert len(running(lab)) == 2


def at_a_terminal(site: Site, answer: str, *words: str) -> tuple[str, int]:
    """Run k4t with a terminal of its own; what it showed there, and its exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        site.argv(*words), env=site.environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and select.select([ours], [], [], 60)[0]:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed: it has ended
            break
    os.close(ours)
    return said.decode(), process.wait(timeout=120)
