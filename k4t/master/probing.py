"""Which containers answer their health check now, asked from where their traffic comes from."""

from __future__ import annotations

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.vantage import vantage
from k4t.model.state import Container, Observed
from k4t.node import health


def healthy(fleet: Fleet, observed: Observed) -> frozenset[str]:
    """Their ids, after one probe of each. An app that the tree lost has none to answer."""
    running = [
        one
        for state in observed.nodes.values()
        for one in state.containers
        if one.running and one.app in fleet.tree.apps
    ]

    def probe(container: Container) -> str:
        try:
            app = fleet.tree.apps[container.app]
            dialer = vantage(fleet, fleet.tree.nodes[container.node], app)
            return "" if health.problem(dialer, container, app) else container.id
        except K4tError:
            return ""

    return frozenset(at_once(probe, running)) - {""}
