"""The spec hash and the resources label: written onto users' containers, final."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from k4t.master.planning.specs import canonical_json, canonical_spec, resources_label, spec_hash
from k4t.model.app import App, Image, Port, Resources
from k4t.model.shared import Where
from tests.planning import world

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"
CASES: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "specs.yaml").read_text())
HASHES = dict(line.split("  ", 1)[::-1] for line in (GOLDEN / "specs.hashes").read_text().splitlines())


def hashed(data: dict[str, Any]) -> str:
    one = world.app("web", data)
    return spec_hash(one, f"sha256:{one.image.reference}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hash_is_pinned(case: dict[str, Any]) -> None:
    """The hash of this app is what the first release wrote; what does not concern the container changes nothing."""
    assert hashed(case["app"]) == HASHES[case.get("same_as", case["name"])]


def test_every_other_case_differs() -> None:
    """What concerns the container changes the hash."""
    names = [case["name"] for case in CASES if "same_as" not in case]
    assert len({HASHES[name] for name in names}) == len(names)


def test_defaults_are_left_out() -> None:
    """An app of defaults is its image's digest alone."""
    assert canonical_json(canonical_spec(App("web", Image("web:1")), "sha256:1")) == b'{"image":"sha256:1"}'


def test_where_never_counts() -> None:
    """A value that moves to another line is the same value."""
    here, there = (Port(host="auto", where=Where("apps/web/app.xml", line)) for line in (3, 9))
    one, other = (App("web", Image("web:1"), ports=(port,), where=port.where) for port in (here, there))
    assert spec_hash(one, "sha256:1") == spec_hash(other, "sha256:1")


def test_resources_label() -> None:
    """Everything that Docker changes in place, and nothing else."""
    plain = App("web", Image("web:1"))
    assert resources_label(plain) == '{"pids":4096,"restart":"unless-stopped"}'
    limited = App("web", Image("web:1"), resources=Resources(cpus=1.50, memory_bytes=1 << 28, gpus="all"))
    assert resources_label(limited) == '{"cpus":"1.5","memory":268435456,"pids":4096,"restart":"unless-stopped"}'
