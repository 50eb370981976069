"""Which failures speak against a spec, and what the head remembers of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from k4t.errors import EngineRefused, HostFull, HostUnreachable, K4tError, RegistryAway, Unhealthy
from k4t.master.execute import Executed, Failure
from k4t.master.planning.hold import remembered
from k4t.master.planning.plan import Pause, Plan, Step
from k4t.master.rollback import suspects
from k4t.model.state import Head
from tests.planning import world

pytestmark = pytest.mark.unit
PLAN = Plan("prod", "t", 7, scope=("api", "web"), specs={"web": "v1:new", "api": "v1:api"})


def blamed(action: Any, error: K4tError, **update: str) -> dict[str, str]:
    tree = world.tree({"nodes": {"node1": None}, "apps": {"web": {"update": update}}})
    step = Step("id", action, "because", Pause(0), node="node1", app="web")
    return suspects(tree, PLAN, Executed(failed=[Failure(step, error)]))


@pytest.mark.parametrize("error", [Unhealthy("ended"), EngineRefused("no such device")])
def test_what_ends_or_is_refused_speaks_against_the_spec(error: K4tError) -> None:
    """It is to be rolled back, unless the app wants to stop where it is."""
    assert blamed("await", error) == {"web": "v1:new"}
    assert blamed("create", error) == {"web": "v1:new"}
    assert blamed("await", error, on_failure="stop") == {}


@pytest.mark.parametrize("error", [HostUnreachable("away"), RegistryAway("away"), HostFull("full")])
def test_a_host_that_fails_does_not(error: K4tError) -> None:
    """The next run goes on with the same spec."""
    assert blamed("create", error) == {}
    assert blamed("publish", Unhealthy("no")) == {}


def test_the_head_forgets_what_is_no_longer_wanted() -> None:
    """Held: what failed now, what is still wanted and failed before, and what this apply was not about."""
    head = Head("c", 6, held={"web": "v1:old", "api": "v1:api", "db": "v1:db"}, held_at={"web": 3, "api": 4, "db": 5})
    plan = dataclasses.replace(PLAN, held={"api": "v1:api"}, whole=False)
    assert remembered(head, plan, failed={}, serial=7).held == {"api": "v1:api", "db": "v1:db"}
    again = remembered(head, plan, failed={"web": "v1:new"}, serial=7)
    assert again.held == {"api": "v1:api", "db": "v1:db", "web": "v1:new"}
    assert again.held_at == {"api": 4, "db": 5, "web": 7}
    whole = dataclasses.replace(plan, whole=True)
    assert remembered(head, whole, failed={}, serial=7, proceed=["web"]).continued == {"web": "v1:new"}
    assert "db" not in remembered(head, whole, failed={}, serial=7).held
