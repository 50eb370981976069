"""The parts are put together for every driver that the tree may name."""

from __future__ import annotations

import pytest

from k4t import wiring
from k4t.tree.schema_hosts import DNS, GATEWAY
from k4t.tree.table import Element

pytestmark = pytest.mark.unit


def drivers(element: Element) -> set[str]:
    (driver,) = (one for one in element.attributes if one.name == "driver")
    return set(driver.type.choices)


def test_every_driver_of_the_schema_is_wired() -> None:
    """A tree that validates never names a driver that this k4t doesn't have."""
    assert drivers(GATEWAY) == set(wiring.GATEWAYS)
    assert drivers(DNS) == {*wiring.DNS_SERVERS, wiring.RFC2136, wiring.WINDOWS}
