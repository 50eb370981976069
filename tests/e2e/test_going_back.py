"""History, and the way back: of one app, of the whole tree, from where it was applied and from elsewhere."""

from __future__ import annotations

import pytest

from tests.e2e.site import Site, fetch
from tests.e2e.test_day_two import ROUTED, running
from tests.lab import Lab

pytestmark = pytest.mark.integration
BAD = '\n  <env name="UNHEALTHY">1</env>'


def version(lab: Lab) -> str:
    return fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[1]


def test_history_says_who_did_what_and_why(published: Site) -> None:
    """Serial, when, who, message, what changed; also in a copy that has no memory of its own."""
    published.app("web", more=ROUTED)
    published.k4t("apply", "--yes", "-m", "the shop opens")
    published.app("api", port=8081)
    published.k4t("apply", "--yes", "-m", "an interface")
    published.k4t("app", "remove", "api", "--yes")
    rows = published.json("history")["revisions"]
    assert [(row["serial"], row["apps"], row["removed"]) for row in rows] == [
        (3, [], ["api"]), (2, ["api"], []), (1, ["web"], []),
    ]  # fmt: skip
    assert [row["message"] for row in rows[1:]] == ["an interface", "the shop opens"]
    assert all(row["at"].endswith("Z") and "@" in row["who"] and row["kept"] for row in rows)
    assert "the shop opens" in published.k4t("history").stdout
    elsewhere = published.copy(published.directory / "elsewhere").json("history")["revisions"]
    assert [(row["message"], row["kept"]) for row in elsewhere[1:]] == [
        ("an interface", False),
        ("the shop opens", False),
    ]


def test_one_app_goes_back_and_the_others_stay(published: Site, lab: Lab) -> None:
    """The app's directory is what it was, byte for byte, with the files beside it; it runs what it ran."""
    old, new = lab.push("back-1", VER="1"), lab.push("back-2", VER="2")
    path = published.app("web", replicas=2, image=old, more=ROUTED)
    published.k4t("apply", "--yes")
    first = path.read_bytes()
    published.k4t("image", "web", ":back-2", "--yes")
    assert "version=2" in version(lab)
    published.app("api", port=8081)
    published.write("apps/web/extra.txt", "new")
    published.k4t("apply", "--yes")
    published.app("api", port=8082)
    second = (published.db / "apps/api/app.xml").read_bytes()
    published.k4t("rollback", "web", "--to", "1", "--yes")
    assert path.read_bytes() == first
    assert not (path.parent / "extra.txt").exists()
    assert (published.db / "apps/api/app.xml").read_bytes() == second
    assert "version=1" in version(lab)
    published.k4t("rollback", "web", "--yes")
    assert "version=2" in version(lab)
    assert (path.parent / "extra.txt").read_text() == "new"
    assert new.encode() in path.read_bytes()


def test_the_whole_tree_goes_back(published: Site, lab: Lab) -> None:
    """Every app is what it was; one that came later goes, and that needs no --allow; the tree's hash is the old one."""
    published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    tree = published.json("status")["tree"]
    published.app("web", replicas=2, more=ROUTED)
    published.app("api", port=8081)
    published.k4t("apply", "--yes")
    published.k4t("rollback", "--yes")
    assert running(lab) == ["prod.web.0.1"]
    status = published.json("status")
    assert (status["tree"], status["serial"]) == (tree, 3)
    assert not (published.db / "apps/api").exists()
    assert published.json("plan")["steps"] == []
    published.k4t("rollback", "--to", "2", "--yes")
    assert len(running(lab)) == 3


def test_a_node_stays_as_available_as_it_is(published: Site) -> None:
    """Going back is about what was deployed: a drained node is not filled again by it."""
    published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    published.app("web", replicas=1, more=ROUTED + '\n  <env name="VER">2</env>')
    published.k4t("apply", "--yes")
    published.k4t("node", "drain", "n2", "--yes")
    published.k4t("rollback", "--to", "1", "--yes")
    states = {one["name"]: one["availability"] for one in published.json("status")["nodes"]}
    assert states == {"n1": "active", "n2": "drained"}


def test_a_rollback_that_is_refused_changes_nothing(published: Site) -> None:
    """No answer, a serial that never was, an app that never was, a copy that doesn't have it: each says what to do."""
    path = published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    before = path.read_bytes()
    published.k4t("rollback", "web", status=64)
    assert "it has 1 to 2" in published.k4t("rollback", "web", "--to", "7", "--yes", status=64).stderr
    published.k4t("rollback", "nobody", "--yes", status=64)
    elsewhere = published.copy(published.directory / "elsewhere")
    refused = elsewhere.k4t("rollback", "web", "--yes", status=1)
    assert "doesn't have web of serial 1" in refused.stderr
    assert path.read_bytes() == before


def test_a_moved_tag_goes_back_to_what_it_stood_for(published: Site, lab: Lab) -> None:
    """The tree says the same reference; the digest is the one of then."""
    image = lab.push("rolling", VER="1")
    published.app("web", replicas=1, image=image, more=ROUTED)
    published.k4t("apply", "--yes")
    lab.push("rolling", VER="2")
    published.k4t("apply", "--pull", "--yes")
    assert "version=2" in version(lab)
    published.k4t("rollback", "web", "--yes")
    assert "version=1" in version(lab)


def test_a_tree_that_cannot_be_read_can_go_back(published: Site, lab: Lab) -> None:
    """A broken file is no reason to stay with it."""
    path = published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    first = path.read_bytes()
    published.k4t("scale", "web", "2", "--yes")
    path.write_text("<app>")
    published.k4t("rollback", "web", "--to", "1", "--yes")
    assert path.read_bytes() == first
    assert running(lab) == ["prod.web.0.1"]


def test_after_a_failed_update_the_tree_goes_back_to_what_runs(published: Site, lab: Lab) -> None:
    """The hosts were put back by themselves, the tree wasn't: rollback does that, and nothing has to be done then."""
    quick = ROUTED.replace('interval="1s"', 'interval="1s" retries="1" start-period="1s"')
    path = published.app("web", replicas=1, more=quick)
    published.k4t("apply", "--yes")
    published.app("web", replicas=1, more=quick + '\n  <env name="VER">2</env>')
    published.k4t("apply", "--yes")
    good = path.read_bytes()
    published.app("web", replicas=1, more=quick.replace('path="/"', 'path="/nowhere" status="204"') + BAD)
    published.k4t("apply", "--yes", status=1)
    published.k4t("rollback", "web", "--yes")
    assert path.read_bytes() == good
    assert "version=2" in version(lab)
    assert published.json("status")["apps"][0]["held"] is None
    published.k4t("rollback", "web", "--yes")
    assert "version=1" in version(lab)
