"""What `check` asks of hosts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from k4t.master.fleet import Fleet
from k4t.master.inspection.check import check
from k4t.model.hosts import Dns
from k4t.model.state import ParticipantState

pytestmark = pytest.mark.unit


class Counted:
    """A member that counts how often it is asked."""

    kind = "dns"
    group = "default"

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0

    def observe(self) -> ParticipantState:
        self.asked += 1
        return ParticipantState("dns", self.name, self.group, "rfc2136", True)


def test_a_member_is_asked_once() -> None:
    """Also where it is compared with the others of its group, who are asked for that alone."""
    members = {("dns", name): Counted(name) for name in ("ns1", "ns2")}
    fleet = cast("Fleet", SimpleNamespace(participants=members, host_of=lambda thing: thing.name))
    found = check(fleet, [Dns("ns1", "rfc2136", "10.0.0.1", "k4t.lab")], here=False)
    assert [one.subject for one in found] == ["dns ns1 (10.0.0.1)", "dns ns1 (10.0.0.1)", "dns group default"]
    assert {member.asked for member in members.values()} == {1}
