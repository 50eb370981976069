"""`k4t txn` on the real command line, and a log that stands in a tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from k4t.master.publication.redolog import LogPlace, Transaction
from k4t.master.publication.transaction import Append
from k4t.master.transactions import debts
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Epoch
from k4t.registrar.protocol import Stamp, transaction_id

pytestmark = pytest.mark.unit


class Tree:
    """A tree without hosts, and the program on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.db = directory / "db"
        self.db.mkdir(parents=True)
        (self.db / "cluster.xml").write_text('<cluster name="prod" id="k7f3q2m9" format="1"/>\n')

    @property
    def place(self) -> LogPlace:
        (self.db / ".k4t").mkdir(exist_ok=True)
        return LogPlace(
            self.db / ".k4t", "k7f3q2m9", self.directory / "state/k4t/logs", lambda: "2026-11-20T12:00:00Z"
        )  # fmt: skip

    def k4t(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "K4T_DB": str(self.db),
            "XDG_STATE_HOME": str(self.directory / "state"),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "k4t.cli", *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done


def told(number: int) -> Transaction:
    epoch = Epoch(number, f"run{number}")
    stamp = Stamp(transaction_id(epoch, "gateway", "default", number), epoch, number, f"sha{number}", "before")
    return Transaction(
        stamp, "gateway/default", ("gw1", "gw2"), digest="d1", who="me@here", message="why",
        add=("web 10.0.0.1:80",), remove=("web 10.0.0.2:80",),
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One done, with a debt; one begun; one decided."""
    made = Tree(tmp_path)
    log = made.place.open()
    for one in (told(1), told(2), told(3)):
        log.append(Append("begin", one.stamp, one.members), one)
    for number in (1, 3):
        log.append(Append("commit", told(number).stamp, ("gw1",)))
    log.append(Append("end", told(1).stamp, ("gw1",), "done", owed=("gw2",)))
    log.close()
    return made


def test_list(tree: Tree) -> None:
    """Newest first; what is open is said."""
    done = tree.k4t("txn", "list")
    rows = [line.split()[:3] for line in done.stdout.splitlines()[1:]]
    assert rows == [
        [told(3).id, "gateway/default", "decided"],
        [told(2).id, "gateway/default", "begun"],
        [told(1).id, "gateway/default", "done"],
    ]
    assert "2 unfinished" in done.stderr
    found = json.loads(tree.k4t("txn", "list", "-o", "json").stdout)
    assert (found["version"], found["ours"]) == (1, True)
    assert [one["state"] for one in found["transactions"]] == ["decided", "begun", "done"]


def test_show(tree: Tree) -> None:
    """By the beginning of its id."""
    out = tree.k4t("txn", "show", "1:").stdout
    for words in ("gw1", "owed to      gw2", "by me@here: why", "+ web 10.0.0.1:80", "- web 10.0.0.2:80", "sha1"):
        assert words in out
    assert json.loads(tree.k4t("txn", "show", "3:run3", "-o", "json").stdout)["state"] == "decided"
    assert "no transaction 9" in tree.k4t("txn", "show", "9", status=64).stderr


def test_what_was_decided_is_not_aborted(tree: Tree) -> None:
    """The reason and the way on are said. Nor is what is over."""
    said = tree.k4t("txn", "abort", "3:", "--yes", status=1).stderr
    assert "was decided at 2026-11-20T12:00:00Z" in said
    assert "can't be taken back" in said
    assert "k4t txn resume" in said
    assert "done already" in tree.k4t("txn", "abort", "1:", "--yes", status=1).stderr


def test_abort_asks(tree: Tree) -> None:
    """Without a terminal it names the option."""
    assert "--yes" in tree.k4t("txn", "abort", "2:", status=64).stderr


def test_a_group_that_is_gone(tree: Tree) -> None:
    """This tree has no gateway at all: nobody is left to be told, both are closed."""
    said = tree.k4t("txn", "resume").stderr
    assert said.count("closed as superseded") == 2
    assert "nothing is unfinished" in tree.k4t("txn", "resume").stderr


def test_an_empty_log(tmp_path: Path) -> None:
    made = Tree(tmp_path)
    assert "is empty" in made.k4t("txn", "list").stderr
    assert "nothing is unfinished" in made.k4t("txn", "resume").stderr


def test_a_damaged_log(tree: Tree) -> None:
    """File and byte, everywhere it is read."""
    path = tree.db / ".k4t/redo.log"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    for words in (("txn", "list"), ("txn", "resume"), ("txn", "show", "1:")):
        assert f"{path} is damaged at byte 0" in tree.k4t(*words, status=1).stderr
    status = tree.k4t("status", "-o", "json")
    assert "is damaged at byte 0" in json.loads(status.stdout)["redo_log"]


def test_another_copys_log(tree: Tree, tmp_path: Path) -> None:
    """It can be read; what it has open isn't taken up."""
    other = Tree(tmp_path / "other")
    shutil.copytree(tree.db / ".k4t", other.db / ".k4t")
    shutil.copytree(tree.directory / "state", other.directory / "state")
    assert "another working copy" in other.k4t("txn", "list").stderr
    assert "nothing is unfinished" in other.k4t("txn", "resume").stderr


def test_status_shows_what_is_open(tree: Tree) -> None:
    found = json.loads(tree.k4t("status", "-o", "json").stdout)
    assert [(one["id"], one["state"]) for one in found["transactions"]] == [
        (told(2).id, "begun"), (told(3).id, "decided"),
    ]  # fmt: skip


def test_a_debt_is_paid_when_the_member_has_the_newest(tree: Tree) -> None:
    """Whoever paid it. One that left the tree is owed nothing."""
    contents = tree.place.read()
    new = Document("k7f3q2m9", "prod", "gateway", "default", Epoch(4, "x"), 4)
    old = Document("k7f3q2m9", "prod", "gateway", "default", Epoch(1, "x"), 1)

    def owed(second: Document | None, *, reachable: bool = True) -> list[tuple[str, ...]]:
        members = [
            ParticipantState("gateway", "gw1", "default", "envoy", reachable=True, document=new),
            ParticipantState("gateway", "gw2", "default", "envoy", reachable=reachable, document=second),
        ]
        return [names for _, names in debts(contents, members)]

    assert owed(new) == []
    assert owed(old) == owed(None) == owed(None, reachable=False) == [("gw2",)]
    assert debts(contents, []) == []
