"""What the documents show is true: pages are current, examples validate, commands parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from k4t.cli import app
from k4t.options import hoisted
from k4t.tree.create import add_node, create
from k4t.tree.read import read_tree
from tests.docs.commands import markdown

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_command_reference_is_current() -> None:
    """make docs writes it; a changed command without it is caught here."""
    assert (ROOT / "docs/commands.md").read_text() == markdown()


def test_the_tree_that_newcomers_read_is_valid() -> None:
    """db/ has two nodes, an app on both that is routed and named, and one without ports."""
    tree = read_tree(ROOT / "db")
    assert sorted(tree.nodes) == ["node1", "node2"]
    assert tree.apps["web"].routes
    assert tree.apps["web"].records
    assert not tree.apps["heartbeat"].ports
    assert tree.no_effect == ()


def test_the_examples_of_the_readme_make_a_valid_tree(tmp_path: Path) -> None:
    """The five-minute path, typed as it stands."""
    text = (ROOT / "README.md").read_text()
    create(tmp_path / "db", "prod")
    for name, address in re.findall(r"k4t node add (\S+) (\S+)", text):
        add_node(tmp_path / "db", name, address)
    (web,) = re.findall(r"<<'XML'\n(.*?)\n *XML\n", text, re.DOTALL)
    route, record = re.findall(r"# in app.xml: +(<route.*?/>) +(<record.*?/>)", text)[0]
    for line, path in re.findall(r"echo '(<.*?/>)' > (\S+)", text):
        (tmp_path / path).write_text(line + "\n")
    app_file = tmp_path / "db/apps/web/app.xml"
    app_file.parent.mkdir()
    app_file.write_text(re.sub(r"(?m)^    ", "", web).replace("</app>", f"  {route}\n  {record}\n</app>") + "\n")
    tree = read_tree(tmp_path / "db")
    assert tree.apps["web"].replicas == 2
    assert (len(tree.nodes), len(tree.gateways), len(tree.dns)) == (2, 1, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    """Its words, options and arguments parse."""
    for line in _commands(page.read_text()):
        command: Any = typer.main.get_command(app)
        words = hoisted(shlex.split(line, comments=True)[1:])
        context = command.make_context("k4t", [*words], resilient_parsing=False)
        while hasattr(command, "commands"):
            rest = [*context._protected_args, *context.args]
            if not rest and command.invoke_without_command:
                break
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, [*rest], parent=context)


def _commands(text: str) -> Iterator[str]:
    """Lines of code blocks that begin with k4t, and the parts of such lines behind &&."""
    for line in re.findall(r"(?m)^(?:    |Example: |  Example: )(?:\$ )?(k4t .*)$", text):
        for part in re.split(r"\s&&\s|\s[|<>]\s", line.split("  #")[0]):
            if part.startswith("k4t ") and "[" not in part and "…" not in part and "├" not in part:
                yield part
