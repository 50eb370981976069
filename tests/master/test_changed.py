"""“spec changed”, said in the words of the tree that this working copy applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from k4t.master.changed import of_apps
from k4t.master.history import WorkingCopy
from k4t.master.planning.plan import SPEC, Plan, Step
from k4t.model.state import Head
from k4t.tree.read import read_tree

pytestmark = pytest.mark.unit
CLUSTER = '<cluster name="t" id="k7f3q2m9"><variable name="stage">{}</variable></cluster>'
APP = '<app><image>web:1</image><env name="STAGE">${{stage}}</env><env name="LEVEL">{}</env></app>'


@pytest.fixture
def copy(tmp_path: Path) -> WorkingCopy:
    """It applied serial 4."""
    (tmp_path / "apps/web").mkdir(parents=True)
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes/n1.xml").write_text('<node address="10.0.0.1"/>')
    (tmp_path / "cluster.xml").write_text(CLUSTER.format("test"))
    (tmp_path / "apps/web/app.xml").write_text(APP.format("info"))
    made = WorkingCopy(tmp_path)
    made.prepare()
    made.remember(4, {"serial": 4}, read_tree(tmp_path).app_sha256)
    return made


def test_a_variable_and_an_environment_are_named(copy: WorkingCopy, tmp_path: Path) -> None:
    """Of the cluster, and of the app itself."""
    (tmp_path / "cluster.xml").write_text(CLUSTER.format("live"))
    (tmp_path / "apps/web/app.xml").write_text(APP.format("debug"))
    assert of_apps(copy, Head("k7f3q2m9", 4), ["web"]) == {"web": "env LEVEL changed, variable stage changed"}


def test_nothing_is_said_where_another_copy_applied_last(copy: WorkingCopy, tmp_path: Path) -> None:
    """Or where this one never did, or nothing of it is kept: what runs isn't what it knows."""
    (tmp_path / "cluster.xml").write_text(CLUSTER.format("live"))
    assert of_apps(copy, Head("k7f3q2m9", 5), ["web"]) == {}
    assert of_apps(copy, None, ["web"]) == {}
    assert of_apps(copy, Head("k7f3q2m9", 4), ["nosuch"]) == {}
    for path in (tmp_path / ".k4t/objects").iterdir():
        path.unlink()
    assert of_apps(copy, Head("k7f3q2m9", 4), ["web"]) == {}


def test_a_plan_shows_it_in_place_of_the_bare_cause() -> None:
    """Any other cause says more already."""
    plan = Plan("t", "", 1, changed={"web": "env A changed"})
    assert plan.cause(Step("create:web.0.2", "create", SPEC, None, app="web")) == "env A changed"  # type: ignore[arg-type]
    assert plan.cause(Step("create:web.0.2", "create", "image 1 → 2", None, app="web")) == "image 1 → 2"  # type: ignore[arg-type]
    assert plan.cause(Step("create:api.0.2", "create", SPEC, None, app="api")) == SPEC  # type: ignore[arg-type]
