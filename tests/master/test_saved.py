"""A plan file against other trees and other plans."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from k4t.errors import Unsafe, Usage
from k4t.master import saved
from k4t.master.planning.plan import Fetch, Plan, ResolvedImage, Step, UnsafeChange

pytestmark = pytest.mark.unit


def plan(digest: str = "sha256:1", cause: str = "new app", serial: int = 7) -> Plan:
    step = Step("pull:x@n1", "pull", cause, Fetch(ResolvedImage("x:1", digest), "web"), "n1", "web")
    return Plan("prod", "t" * 64, serial, (step,))


def kept(path: Path, made: Plan) -> saved.Saved:
    saved.save(path, made, "id1", apps=("web",), allow=frozenset({"withdraw"}), pull=True, retry=True)
    return saved.load(path)


def test_the_same_plan_passes_also_with_what_an_allow_takes_away(tmp_path: Path) -> None:
    """What was asked for comes back; warnings and unsafe changes are judged anew."""
    found = kept(tmp_path / "p", dataclasses.replace(plan(), unsafe=(UnsafeChange("withdraw", "", "9 gone"),)))
    assert (found.apps, found.allow, found.pull) == (("web",), frozenset({"withdraw"}), True)
    assert (found.retry, found.rebalance) == (True, False)
    saved.need_same_plan(found, dataclasses.replace(plan(), warnings=("so what",)), tmp_path)
    saved.need_same_tree(found, "id1", "t" * 64, tmp_path)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (plan(serial=9), "serial 8 has been applied since"),
        (plan(cause="image 1 → 2"), "new: pull:x@n1 (image 1 → 2)"),
        (plan(digest="sha256:2"), "pull:x@n1 would make something else now: sha256:2, not sha256:1"),
        (Plan("prod", "t" * 64, 7), "gone: "),
    ],
)
def test_another_plan_is_refused_with_the_difference(tmp_path: Path, now: Plan, words: str) -> None:
    """A newer serial, another step, another digest under the same words, nothing left to do."""
    with pytest.raises(Unsafe, match="the world has moved on") as caught:
        saved.need_same_plan(kept(tmp_path / "p", plan()), now, tmp_path)
    assert words in str(caught.value)


def test_another_tree_or_cluster_is_refused(tmp_path: Path) -> None:
    """Exit 4, before any host is asked."""
    found = kept(tmp_path / "p", plan())
    with pytest.raises(Unsafe, match="the tree has moved on"):
        saved.need_same_tree(found, "id1", "u" * 64, tmp_path)
    with pytest.raises(Unsafe, match="cluster id2"):
        saved.need_same_tree(found, "id2", "t" * 64, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"what": "k4t plan", "format": 1}', b"[" * 100_000])
def test_what_is_no_plan_file_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    """Empty, of another shape, cut, no text, deep."""
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(Usage, match="is no plan file"):
        saved.load(tmp_path / "p")


def test_a_plan_of_a_newer_k4t_is_refused(tmp_path: Path) -> None:
    """Rather than carried out half understood."""
    kept(tmp_path / "p", plan())
    content = json.loads((tmp_path / "p").read_text())
    (tmp_path / "p").write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(Usage, match="format 2"):
        saved.load(tmp_path / "p")
