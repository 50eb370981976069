"""Global options may stand anywhere on the line."""

from __future__ import annotations

import pytest

from k4t.errors import gravest
from k4t.options import hoisted

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["plan", "--db", "x"], ["--db", "x", "plan"]),
        (["plan", "web", "-ojson"], ["-o", "json", "plan", "web"]),
        (["apply", "--yes", "--allow=remove-app:web", "web"], ["--yes", "--allow=remove-app:web", "apply", "web"]),
        (["exec", "web", "--", "ls", "--db", "x"], ["exec", "web", "--", "ls", "--db", "x"]),
        (["plan", "--db"], ["--db", "plan"]),
    ],
)
def test_global_options_come_first_and_what_follows_two_dashes_is_left_alone(
    given: list[str], expected: list[str]
) -> None:
    assert hoisted(given) == expected


def test_the_gravest_status_stands_for_all() -> None:
    """When several hold: 75, 65, 77, 69, 4, 3, 1."""
    order = [75, 65, 77, 69, 4, 3, 1]
    for place, status in enumerate(order):
        assert gravest([0, *order[place:]]) == status
    assert gravest([]) == 0
