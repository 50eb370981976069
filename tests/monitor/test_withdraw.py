"""Which endpoints of a node that is gone are taken out, which stay, and what is said of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from k4t.errors import Partial
from k4t.model.state import ParticipantState, Withdrawn
from k4t.monitor.acting import withdraw
from k4t.monitor.acting.withdraw import Done, Plan
from k4t.monitor.facts import Answer, Facts, Failure
from k4t.registrar.document import Document, Endpoint, Epoch
from k4t.remote.registrar import Several
from tests.monitor.world import away, endpoint, facts, member

pytestmark = pytest.mark.unit
OFF = Failure("silent", "10.0.0.12:22 does not answer within 10 s")
N1, N2 = ("web", "10.0.0.11", 8080), ("web", "10.0.0.12", 8080)


def gone(*nodes: str, **fields: Any) -> Facts:
    """A cluster in which these don't answer."""
    found = facts(**fields)
    for node in nodes:
        found = away(found, f"node/{node}", OFF)
    return found


def out(cluster: str, by: str, number: int = 1) -> Withdrawn:
    return Withdrawn(cluster, f"10.0.0.{11 + number}", 8080, f"id{number}", by, "why")


def holding(*ends: Endpoint, **fields: Any) -> ParticipantState:
    """A gateway with these endpoints."""
    document = Document("k7f3q2m9", "prod", "gateway", "default", Epoch(3, "r"), 7, endpoints=tuple(sorted(ends)))
    return member("gateway", "gw1", document=document, **fields)


def places(plan: Plan) -> list[tuple[tuple[str, str, int], ...]]:
    return [one.places for one in plan.members]


def test_all_endpoints_of_the_node_go_everywhere() -> None:
    """On every gateway and DNS server; nobody else's. Nothing is given back that is not out."""
    found = gone("n2")
    assert places(withdraw.out(found, "n2")) == [(N2,), (N2,)]
    unreached = gone("n2", reached={})
    assert places(withdraw.out(unreached, "n1")) == [(), ()]  # n2 is no replacement for it
    assert withdraw.back(found, "n2").empty
    assert withdraw.held(found, "n2") == 0
    assert withdraw.out(found, "n7").empty


def test_what_is_out_is_not_taken_out_again() -> None:
    """Whoever did it; of the next container at the same address it says nothing."""
    found = gone("n2", gateways={"gw1": member("gateway", "gw1", withdrawn=(out("k7f3q2m9", "root"),))})
    assert places(withdraw.out(found, "n2")) == [(), (N2,)]
    other = dataclasses.replace(out("k7f3q2m9", "root"), container="older")
    found = gone("n2", gateways={"gw1": member("gateway", "gw1", withdrawn=(other, out("b2", "root")))})
    assert places(withdraw.out(found, "n2")) == [(N2,), (N2,)]


def test_the_last_endpoint_of_an_app_stays() -> None:
    """Where nothing else would be left: no other, one that is out, one on a node that doesn't answer either. Other apps
    go all the same."""
    api = Endpoint("api", "10.0.0.12", 9000, "http", node="n2", container="a0")
    others = Endpoint("api", "10.0.0.11", 9000, "http", node="n1", container="a1")
    found = gone("n2", gateways={"gw1": holding(endpoint(1, "n2"), api, others)}, dns={})
    plan = withdraw.out(found, "n2")
    assert places(plan) == [(("api", "10.0.0.12", 9000),)]
    assert plan.members[0].whole == ("web",)
    assert "gateway gw1 keeps those of web: nothing else would be left there" in withdraw.said(plan, [Done(Several(1))])
    both = gone("n1", "n2", reached={})
    assert places(withdraw.out(both, "n2")) == [(), ()]
    reached = {("id0", 8080): Answer("", "gw1")}
    served = gone("n1", "n2", reached=reached)  # n1 is only cut off from us
    assert places(withdraw.out(served, "n2")) == [(N2,), (N2,)]
    alone = gone("n2", gateways={"gw1": member("gateway", "gw1", withdrawn=(out("k7f3q2m9", "root", 0),))}, dns={})
    assert places(withdraw.out(alone, "n2")) == [()]


def test_endpoints_of_other_clusters_and_manual_ones_count_as_left() -> None:
    """They are served beside ours, so the app has somebody."""
    others = (Document("b2", "other", "gateway", "default", endpoints=(Endpoint("web", "10.9.9.9", 80, "http"),)),)
    found = gone("n2", gateways={"gw1": holding(endpoint(1, "n2"), others=others)}, dns={})
    assert places(withdraw.out(found, "n2")) == [(N2,)]
    by_hand = (Endpoint("web", "10.9.9.9", 80, "http"),)
    found = gone("n2", gateways={"gw1": holding(endpoint(1, "n2"), manual=by_hand)}, dns={})
    assert places(withdraw.out(found, "n2")) == [(N2,)]
    taken = (Withdrawn("b2", "10.9.9.9", 80, "", "root", ""),)
    found = gone("n2", gateways={"gw1": holding(endpoint(1, "n2"), others=others, withdrawn=taken)}, dns={})
    assert places(withdraw.out(found, "n2")) == [()]


def test_a_port_that_only_the_gone_node_has_keeps_its_app_whole() -> None:
    """An app whose new port has one replica so far: half of it would be worse than nothing."""
    admin = dataclasses.replace(endpoint(1, "n2"), port=9090, port_name="admin")
    found = gone("n2", gateways={"gw1": holding(endpoint(0, "n1"), endpoint(1, "n2"), admin)}, dns={})
    assert withdraw.out(found, "n2").members[0].whole == ("web",)
    assert places(withdraw.out(found, "n2")) == [()]


def test_only_what_the_monitor_took_out_is_given_back() -> None:
    """What a person took out stays out; another cluster's is not ours."""
    ours, theirs = out("k7f3q2m9", "k4t-monitor"), out("k7f3q2m9", "ann")
    for withdrawn, expected in (((ours,), (N2,)), ((theirs,), ()), ((out("b2", "k4t-monitor"),), ())):
        found = facts(gateways={"gw1": member("gateway", "gw1", withdrawn=withdrawn)}, dns={})
        assert places(withdraw.back(found, "n2")) == [expected]
        assert withdraw.held(found, "n2") == len(expected)


def test_who_is_away_or_has_no_registrar_is_named() -> None:
    """One that is away makes it unfinished; RFC 2136 and Windows can't be helped, and that is said."""
    absent = ParticipantState("gateway", "gw2", "default", "envoy", reachable=False, problem="gw2 is off")
    bind = ParticipantState("dns", "bind", "default", "rfc2136", reachable=True)
    found = gone("n2", gateways={"gw1": member("gateway", "gw1"), "gw2": absent}, dns={"bind": bind})
    plan = withdraw.out(found, "n2")
    assert not plan.empty
    with pytest.raises(Partial) as partial:
        withdraw.said(plan, [Done(Several(1)), None, None])
    assert partial.value.message == (
        "endpoints of node n2: gateway gw2 is away: gw2 is off; 1 withdrawn from gateway gw1; DNS server bind: it has"
        " no registrar, so only the master takes names out of it"
    )


def test_what_became_of_it_is_said() -> None:
    """What was done, what a vendor has still to do, what it would not take, who didn't answer."""
    plan = withdraw.out(gone("n2"), "n2")
    words = withdraw.said(plan, [Done(Several(1, pending="Envoy has not answered yet")), Done(Several(1), "hm")])
    assert words == (
        "endpoints of node n2: 1 withdrawn from gateway gw1; 1 withdrawn from DNS server names; gateway gw1: Envoy has"
        " not answered yet; DNS server names: hm"
    )
    with pytest.raises(Partial, match="gateway gw1 does not take it: bad; DNS server names: it has not answered"):
        withdraw.said(plan, [Done(Several(1, problem="bad")), "it has not answered within 25 s"])
    nothing = withdraw.back(facts(), "n2")
    assert withdraw.said(nothing, [None, None]) == "endpoints of node n2: nothing to give back"
    overtaken = Done(Several(0, ("cluster x publishes no web 10.0.0.12:8080",)))
    assert "publishes no web" in withdraw.said(plan, [overtaken, overtaken])


def test_a_node_of_which_nothing_is_known_counts_as_serving() -> None:
    """Endpoints that name no node of the tree, such as those of one that was removed from it."""
    stranger = dataclasses.replace(endpoint(0, "n1"), node="n9")
    found = gone("n2", gateways={"gw1": holding(stranger, endpoint(1, "n2"))}, dns={})
    assert places(withdraw.out(found, "n2")) == [(N2,)]
