"""What is surplus and what is not, decided without a host."""

from __future__ import annotations

import pytest

from k4t.master.choose import Chosen
from k4t.master.prune import leftovers, old_images, repository
from k4t.model.state import Container
from k4t.node.stock import Stocked

pytestmark = pytest.mark.unit
OURS = frozenset({"lab:5000/web", "nginx"})


def image(number: int, repository: str = "lab:5000/web", *more: str) -> Stocked:
    names = (f"{repository}:{number}", f"{repository}@sha256:{number:064}", *more)
    return Stocked(f"sha256:id{number}", names, 100, f"2026-01-{number:02}T00:00:00Z")


def old(*images: Stocked, in_use: str = "", needed: str = "", keep: int = 3) -> list[str]:
    found = old_images(
        images, ours=OURS, in_use=frozenset(in_use.split()), needed=frozenset(needed.split()), keep=keep
    )  # fmt: skip
    return [one.names[0] for one in found]


def test_the_newest_of_each_repository_stay() -> None:
    """Three of each, counted apart; the oldest go."""
    web = [image(number) for number in range(1, 6)]
    nginx = [image(number, "nginx") for number in range(1, 4)]
    assert old(*web, *nginx) == ["lab:5000/web:1", "lab:5000/web:2"]


def test_what_runs_and_what_a_head_mentions_stays_and_counts() -> None:
    """An old image in use takes one of the places, one that is needed another."""
    web = [image(number) for number in range(1, 6)]
    assert old(*web, in_use="sha256:id1", needed=f"sha256:{2:064}") == ["lab:5000/web:3", "lab:5000/web:4"]
    assert old(*web, needed="id:sha256:id3", keep=1) == [f"lab:5000/web:{number}" for number in (1, 2, 4, 5)]


def test_an_image_with_any_name_that_is_not_ours_stays() -> None:
    """Also one without a name, and one of a repository whose name only begins like ours."""
    strangers = [
        image(1, "lab:5000/web", "mine/copy:1"), image(2, "lab:5000/web-other"), Stocked("sha256:id9", (), 5),
    ]  # fmt: skip
    assert old(*strangers, keep=1) == []
    assert old(*strangers, image(7), image(8), keep=1) == ["lab:5000/web:7"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker.io/library/nginx:1.25", "nginx"),
        ("nginx@sha256:00", "nginx"),
        ("lab:5000/team/web:1@sha256:00", "lab:5000/team/web"),
    ],
)
def test_a_repository_has_one_name(name: str, expected: str) -> None:
    """Docker's listing and the tree write the same one differently."""
    assert repository(name) == expected


def test_a_leftover_has_a_successor_and_does_not_run() -> None:
    """The newest generation stays whatever its state, and what runs is never a leftover."""

    def container(replica: str, generation: int, state: str) -> Container:
        name = f"prod.web.{replica}.{generation}"
        return Container(name, name, "n1", "web", replica, generation, 1, "v1:x", "", "", state=state)

    seen = (
        container("0", 1, "exited"), container("0", 2, "running"), container("1", 1, "running"),
        container("1", 2, "created"), container("2", 4, "exited"),
    )  # fmt: skip
    assert [one.name for one in leftovers(Chosen(seen))] == ["prod.web.0.1"]
