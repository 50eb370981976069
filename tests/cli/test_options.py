"""Global options may stand anywhere on the line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from k4t.cli import app
from k4t.errors import Usage, gravest
from k4t.model.unsafe import KINDS
from k4t.options import command_of, hoisted, narrowed, permits

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


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("remove-ap:web", "did you mean remove-app?"),
        ("withdrawal", "did you mean withdraw?"),
        ("everything", "there are abandon-data, empty-app, join"),
        ("", "there are"),
        ("withdraw:", "no name after the colon"),
        ("rewind:web", "rewind takes no name"),
    ],
)
def test_an_allow_that_permits_nothing_is_refused(word: str, says: str) -> None:
    """It would be found out only when the plan is refused; the nearest kind is named."""
    with pytest.raises(Usage, match=re.escape(says)):
        permits([word])


def test_an_allow_is_a_kind_or_one_thing_of_it() -> None:
    words = ["remove-app:web", "withdraw", "abandon-data:db/0", "rewind"]
    assert permits(words) == frozenset(words)


def test_every_kind_that_k4t_refuses_can_be_allowed() -> None:
    """The table of kinds has what the code asks for, and no more."""
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "k4t").rglob("*.py"))
    asked = {
        *re.findall(r'UnsafeChange\(\s*"([a-z-]+)"', source),
        *re.findall(r"--allow ([a-z]+(?:-[a-z]+)*):\{", source),
    }
    assert asked == set(KINDS)
