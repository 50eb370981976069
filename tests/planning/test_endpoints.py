"""Documents: composed from the live one, app by app, container by container."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.master.planning.endpoints import checks_of, compose, endpoints_of, records_of, routes_of
from k4t.master.planning.plan import Slot
from k4t.model.state import BoundPort, Container
from k4t.registrar.document import Check, Document, Endpoint, Route
from tests.planning import world

pytestmark = pytest.mark.unit
TREE = world.tree(
    {
        "nodes": {"node1": None},
        "gateways": {"gw1": None, "gw2": None, "edge": {"group": "edge"}},
        "apps": {
            "web": {
                "ports": [{"host": "auto"}, {"name": "admin", "host": 9000}],
                "health": {"http": {"path": "/up", "headers": [["Host", "a.lab"]]}, "interval_s": 2.0},
                "routes": [{"domains": ["b.lab", "a.lab"]}, {"port": "admin", "listen": 9000, "group": "edge"}],
                "records": [{"type": "srv"}, {"name": "www.lab", "to": ["addresses", "192.0.2.1"]}],
            },
            "plain": {"ports": [{"container": 80}], "routes": [{}]},
            "worker": {"records": [{}]},
        },
    }
)


def container(id: str = "c1", **fields: object) -> Container:
    base = Container(id, "prod.web.0.1", "node1", "web", "0", 1, 1, "s", "r", "10.0.0.11")
    return dataclasses.replace(base, **{"ports": (BoundPort("main", 20001), BoundPort("admin", 9000)), **fields})  # type: ignore[arg-type]


def slot(one: Container, *, known: bool = True) -> Slot:
    return Slot(one.app, one.replica, one.generation, one.node, one.id if known else "")


def test_one_endpoint_a_port() -> None:
    """Address and numbers are the labels'."""
    assert [(e.ip, e.port, e.port_name) for e in endpoints_of("web", container())] == [
        ("10.0.0.11", 9000, "admin"),
        ("10.0.0.11", 20001, "main"),
    ]


def test_portless_endpoint_has_port_zero() -> None:
    """DNS can name it; nothing can connect to it through a gateway. Without an address there is none."""
    assert [e.port for e in endpoints_of("worker", container(ports=()))] == [0]
    assert endpoints_of("worker", container(ports=(), address="")) == ()


def test_routes_and_checks_are_of_one_group() -> None:
    """The probe is of the first port; another port that is routed gets a TCP check with the same timing."""
    web = TREE.apps["web"]
    assert routes_of(web, "default") == (Route("web", "main", ("a.lab", "b.lab")),)
    assert checks_of(web, "default") == (
        Check("web", "main", "http", "/up", headers=(("Host", "a.lab"),), interval_ms=2000),
    )
    assert checks_of(web, "edge") == (Check("web", "admin", "tcp", interval_ms=2000),)
    assert checks_of(TREE.apps["plain"], "default") == (Check("plain", "main", "tcp"),)


def test_records_name_endpoints_or_addresses() -> None:
    """“addresses” stands for those of the gateways that lead to the app."""
    srv, www = sorted(records_of(TREE.apps["web"], TREE, "default"), key=lambda record: record.name)
    assert (srv.name, srv.type, srv.port_name, srv.to) == ("_main._tcp.web.k4t.lab", "srv", "main", ())
    assert www.to == ("10.0.0.211", "10.0.0.212", "10.0.0.213", "192.0.2.1")


def test_compose_carries_over_what_is_outside() -> None:
    """Another app's endpoints, routes and checks stay, also of an app that this tree has never heard of."""
    foreign = Endpoint("other", "10.0.0.9", 80, node="node9", replica="0", container="x")
    live = world.document("gateway", "default", [foreign], routes=(Route("other"),), checks=(Check("other", "main"),))
    made = compose(
        live, TREE, "gateway", "default", add=[(slot(container(), known=False), container())], settle=["web"]
    )
    assert foreign in made.endpoints
    assert {route.app for route in made.routes} == {"other", "web"}
    assert {check.app for check in made.checks} == {"other", "web"}
    assert compose(made, TREE, "gateway", "default") == made


def test_compose_removes_by_container() -> None:
    """Two generations on one node are told apart by their containers."""
    old, new = container("old"), container("new", generation=2, ports=(BoundPort("main", 20002),))
    both = compose(None, TREE, "gateway", "default", add=[(slot(old), old), (slot(new), new)])
    left = compose(both, TREE, "gateway", "default", remove=[slot(old)])
    assert {endpoint.container for endpoint in left.endpoints} == {"new"}


def test_compose_replaces_a_containers_endpoints() -> None:
    """Adding a container that is there already leaves only what it has now."""
    one = container()
    live = compose(None, TREE, "gateway", "default", add=[(slot(one), one)])
    moved = dataclasses.replace(one, ports=(BoundPort("main", 20005),))
    assert [e.port for e in compose(live, TREE, "gateway", "default", add=[(slot(moved), moved)]).endpoints] == [20005]


def test_compose_takes_away_what_the_tree_no_longer_has() -> None:
    """Settling an app that is gone removes its routes, checks and records."""
    live = world.document("gateway", "default", [], routes=(Route("gone"),), checks=(Check("gone", "main"),))
    assert compose(live, TREE, "gateway", "default", settle=["gone"]).empty


def test_compose_names_the_cluster() -> None:
    """A first document is this cluster's own."""
    assert compose(None, TREE, "dns", "default") == Document("k7f3q2m9", "prod", "dns", "default")
