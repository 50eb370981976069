"""Commands change one thing in the tree, and can take it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from k4t.errors import Usage
from k4t.tree import changes
from k4t.tree.changes import Edit, File
from k4t.tree.create import create
from k4t.tree.read import read_tree

pytestmark = pytest.mark.unit
WEB = """\
<app replicas="2">  <!-- the shop -->
  <image>reg.lab:5000/web:${version}</image>
  <port container="80"/>
</app>
"""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A tree with one app and one node."""
    create(tmp_path / "db", "prod")
    cluster = tmp_path / "db/cluster.xml"
    cluster.write_text(cluster.read_text().replace("</cluster>", '<variable name="version">1.4</variable></cluster>'))
    (tmp_path / "db/apps/web").mkdir()
    (tmp_path / "db/apps/web/app.xml").write_text(WEB)
    (tmp_path / "db/nodes/n1.xml").write_text('<node address="10.0.0.1"/>\n')
    return tmp_path / "db"


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (lambda e, app: changes.scale(e, app, 5), 'replicas="2"', 'replicas="5"'),
        (lambda e, app: changes.image(e, app, ":1.5"), "web:${version}", "web:1.5"),
        (lambda e, app: changes.image(e, app, "@sha256:" + "a" * 64), "web:${version}", "web@sha256:" + "a" * 64),
        (lambda e, app: changes.image(e, app, "other/web:2"), "reg.lab:5000/web:${version}", "other/web:2"),
        (changes.restart, 'replicas="2"', 'replicas="2" restart="1"'),
        (changes.stop, 'replicas="2"', 'replicas="2" stopped="true"'),
    ],
)
def test_one_change_is_one_line_and_can_be_undone(change: object, old: str, new: str, db: Path) -> None:
    """Everything else keeps every byte; undone, the file is as it was."""
    edit = Edit(db)
    change(edit, read_tree(db).apps["web"])  # type: ignore[operator]
    path = db / "apps/web/app.xml"
    assert path.read_text() == WEB.replace(old, new)
    assert edit.paths == [path]
    assert edit.undo() == []
    assert path.read_text() == WEB


def test_stop_and_start_leave_no_trace(db: Path) -> None:
    """What was stopped and started is the file of before."""
    changes.stop(Edit(db), read_tree(db).apps["web"])
    changes.start(Edit(db), read_tree(db).apps["web"])
    assert (db / "apps/web/app.xml").read_text() == WEB


def test_a_default_of_the_cluster_is_overruled(db: Path) -> None:
    """Where the defaults say stopped, start says otherwise in the app's file."""
    cluster = db / "cluster.xml"
    cluster.write_text(
        cluster.read_text().replace("</cluster>", '<defaults><app stopped="true"/></defaults></cluster>')
    )
    changes.start(Edit(db), read_tree(db).apps["web"])
    assert not read_tree(db).apps["web"].stopped


def test_availability_comes_and_goes(db: Path) -> None:
    """Cordoned is an attribute; active is none."""
    changes.availability(Edit(db), read_tree(db).nodes["n1"], "cordoned")
    assert (db / "nodes/n1.xml").read_text() == '<node address="10.0.0.1" availability="cordoned"/>\n'
    changes.availability(Edit(db), read_tree(db).nodes["n1"], "active")
    assert (db / "nodes/n1.xml").read_text() == '<node address="10.0.0.1"/>\n'


def test_undo_leaves_what_somebody_else_wrote(db: Path) -> None:
    """A file that was edited meanwhile is named, and stays."""
    edit = Edit(db)
    changes.scale(edit, read_tree(db).apps["web"], 5)
    path = db / "apps/web/app.xml"
    path.write_text(WEB + "<!-- me too -->\n")
    assert edit.undo() == [path]
    assert path.read_text().endswith("<!-- me too -->\n")


def test_files_and_their_directories_come_and_go(db: Path) -> None:
    """Whole files are put and taken away; an empty directory doesn't stay."""
    edit = Edit(db)
    edit.file("apps/api/conf/a.ini", File(b"x"))
    edit.file("apps/web/app.xml", None)
    assert not (db / "apps/web").exists()
    edit.undo()
    assert (db / "apps/web/app.xml").read_text() == WEB
    assert not (db / "apps/api").exists()


def test_one_on_each_node_has_no_number(db: Path) -> None:
    """scale names the attribute that gives it one."""
    (db / "apps/web/app.xml").write_text(WEB.replace('"2"', '"per-node"'))
    with pytest.raises(Usage, match="each node"):
        changes.scale(Edit(db), read_tree(db).apps["web"], 3)


def test_a_directory_that_goes_can_come_back(db: Path) -> None:
    """With everything in it; nothing of it is left once the change stands, and nothing that hides it before."""
    edit = Edit(db)
    edit.without("apps/web")
    assert "web" not in read_tree(db).apps
    assert edit.undo() == []
    assert (db / "apps/web/app.xml").read_text() == WEB
    edit.without("apps/web")
    edit.close()
    assert sorted(path.name for path in (db / "apps").iterdir()) == ["README.md"]
