"""Global options may stand anywhere on the line."""

from __future__ import annotations

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from k4t.cli import app
from k4t.errors import gravest
from k4t.options import command_of, hoisted, narrowed

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


def test_a_line_builds_only_its_own_command_and_that_one_is_the_same() -> None:
    """Every command and group, narrowed to: it takes what it takes among all the others."""
    whole = get_command(app)
    assert isinstance(whole, TyperGroup)
    for name, command in whole.commands.items():
        alone = get_command(narrowed(app, name))
        assert isinstance(alone, TyperGroup)
        assert list(alone.commands) == [name]
        assert [one.opts for one in alone.commands[name].params] == [one.opts for one in command.params]
    assert narrowed(app, "nosuch") is app


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--db", "plan", "--yes", "apply", "node"], "apply"),
        (["--db=plan", "-o", "json", "ps"], "ps"),
        (["--help", "plan"], ""),
        (["--db"], ""),
        ([], ""),
    ],
)
def test_the_command_of_a_line_is_found(words: list[str], command: str) -> None:
    """Hoisted words: global options stand first."""
    assert command_of(words) == command
