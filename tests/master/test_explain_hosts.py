"""Which thing an explanation is about, and how it reads."""

from __future__ import annotations

import dataclasses
import json

import pytest

from k4t.errors import Usage
from k4t.master.inspection.check import Checked
from k4t.master.inspection.explain_host import HostSaid, meant
from k4t.master.inspection.explain_member import ExplainedMember, Sent
from k4t.master.inspection.explain_node import ExplainedNode, Held
from k4t.model.app import App, Image
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.spec import Cluster, Tree
from k4t.model.state import BoundPort, Container
from k4t.render import explain_host as show
from k4t.render.console import Console

pytestmark = pytest.mark.unit
PLAIN = Console(color=False)
TREE = Tree(
    Cluster("prod", "k7f3q2m9"),
    {"n1": Node("n1", "10.88.0.11"), "edge": Node("edge", "10.88.0.12")},
    {"web": App("web", Image("web:1")), "edge": App("edge", Image("edge:1"))},
    {"edge": Gateway("edge", "envoy", "10.88.0.21"), "gw1": Gateway("gw1", "envoy", "10.88.0.22")},
    {"names": Dns("names", "dnsmasq", "10.88.0.21", "k4t.lab")},
)


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("web", ("app", "web")), ("n1", ("node", "n1")), ("gw1", ("gateway", "gw1")), ("names", ("dns", "names")),
        ("edge", None), ("app/edge", ("app", "edge")), ("node/edge", ("node", "edge")),
        ("gateway/edge", ("gateway", "edge")), ("gone", ("app", "gone")), ("app/gone", ("app", "gone")),
    ],
)  # fmt: skip
def test_a_name_means_one_thing(text: str, thing: tuple[str, str] | None) -> None:
    """The one that has it; where several have it, its kind is to be said. An app may be gone from the tree and run."""
    if thing is None:
        with pytest.raises(Usage, match=r"say app/edge or node/edge or gateway/edge"):
            meant(TREE, text)
    else:
        assert meant(TREE, text) == thing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node/web", "there is no node 'web'"),
        ("dns/gw1", "the tree has: names"),
        ("job/web", "app, node, gateway, dns"),
    ],
)
def test_what_there_is_not_is_named(text: str, said: str) -> None:
    """With what there is."""
    with pytest.raises(Usage, match=said):
        meant(TREE, text)


SAID = HostSaid(
    (Checked("n1", "ssh", True, "connected and logged in"),), "", 4, "2026-11-20T17:00:00Z by ana",
    "it missed 2 since: the newest is 6", ("gateway/gw1",),
)  # fmt: skip
AWAY = HostSaid((Checked("n1", "ssh", False, "10.88.0.11:22 does not answer", "is the host up?", 69),))
WEB = Container(
    "id0", "prod.web.0.1", "n1", "web", "0", 1, 4, "v1:ab", "", "10.88.0.11", (BoundPort("http", 8080),),
    status="Up 2 hours", image="web@sha256:" + "ab" * 32,
)  # fmt: skip
NODE = ExplainedNode(
    "n1", "10.88.0.11", "cordoned", True, "", "cordoned", "amd64", 4.0, 8 << 30, 3.0, 6 << 30, (20000, 29999),
    (Held(WEB, "runs there already, and may stay", "GET / answers 503", ("gateway/default",)),), (), ("other.db",), (),
    "", SAID, ("stop-web.0  n1 is drained",), (), ("k4t node uncordon n1",),
)  # fmt: skip
NODE_SHOWN = """\
n1  10.88.0.11  cordoned
reachable
  ssh        ok  connected and logged in
  lock       free
  head       serial 4, 2026-11-20T17:00:00Z by ana; it missed 2 since: the newest is 6
  also       gateway/gw1, on the same machine
  room       amd64, 4 CPUs; 8.0 GiB memory, 6.0 GiB of it not promised; ports 20000-29999
  new ones   cordoned: none are placed there
  others     other.db (not this cluster's)

web.0  web@sha256:abababababab: Up 2 hours
  place      runs there already, and may stay
  health     GET / answers 503
  listens    http=10.88.0.11:8080
  published  gateway/default

An apply would
  stop-web.0  n1 is drained
What would help
  k4t node uncordon n1"""


def test_a_node_is_explained() -> None:
    """What it needs, has and holds, what an apply would do there, and what would help."""
    assert "\n".join(show.node(NODE, PLAIN)) == NODE_SHOWN


AWAY_SHOWN = """\
n1  10.88.0.11  active
can't be asked: 10.88.0.11:22 does not answer
  ssh        FAILED  10.88.0.11:22 does not answer

Published there, and left as it is while nobody can ask
  web.0 10.88.0.11:8080 (gateway/default)

What would help
  is the host up?"""


def test_of_a_node_that_is_away_nothing_is_claimed() -> None:
    """Neither that its lock is free nor that it holds nothing."""
    away = dataclasses.replace(
        NODE, availability="active", reachable=False, problem="10.88.0.11:22 does not answer", holds=(), host=AWAY,
        sent_to=("web.0 10.88.0.11:8080 (gateway/default)",), steps=(), helps=("is the host up?",),
    )  # fmt: skip
    assert "\n".join(show.node(away, PLAIN)) == AWAY_SHOWN


MEMBER = ExplainedMember(
    "gateway", "gw1", "default", "envoy", "10.88.0.22", True, "", "gw1 is stale: it has 3.7, gw2 has 4.1", "a54afc", 3,
    7, "75a4cae78e03ff", "t17", (Sent("web", ("w.k4t.lab /",), (), ("replica 0 on n1 runs; gw2 has it",)),),
    ("gw2 (haproxy) holds epoch 4, seq 1",), ("blue (b1b1b1b1): 3 endpoints",), ("printer 10.9.9.9:631",),
    ("10.88.0.11:8080 by monitor: it does not answer",), SAID, (), (),
    ("k4t gateway sync, or k4t apply, puts it right",),
)  # fmt: skip
MEMBER_SHOWN = """\
gw1  envoy gateway  10.88.0.22  group default
reachable
  ssh        ok  connected and logged in
  lock       free
  head       serial 4, 2026-11-20T17:00:00Z by ana; it missed 2 since: the newest is 6
  also       gateway/gw1, on the same machine
  group      gw1 is stale: it has 3.7, gw2 has 4.1
  holds      epoch 3, seq 7, digest 75a4cae78e03, id a54afc
  beside it  gw2 (haproxy) holds epoch 4, seq 1
  also of    blue (b1b1b1b1): 3 endpoints
  by hand    printer 10.9.9.9:631
  withdrawn  10.88.0.11:8080 by monitor: it does not answer
  staged     t17 waits for its commit

web  w.k4t.lab /
  no endpoint
  ! replica 0 on n1 runs; gw2 has it

What would help
  k4t gateway sync, or k4t apply, puts it right"""


def test_a_gateway_is_explained() -> None:
    """Its place in the group, what it holds of whom, what it lacks."""
    assert "\n".join(show.member(MEMBER, PLAIN)) == MEMBER_SHOWN


def test_both_can_be_read_by_programs() -> None:
    """All of it, as JSON."""
    node, member = (json.loads(json.dumps(show.as_json(one))) for one in (NODE, MEMBER))
    assert (node["version"], node["host"]["serial"], node["holds"][0]["container"]["app"]) == (1, 4, "web")
    assert (member["version"], member["trouble"], member["apps"][0]["app"]) == (1, MEMBER.trouble, "web")
