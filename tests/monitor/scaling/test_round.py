"""From what hosts, gateways and a command answer to what is asked for: rates, restarts, what is missing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from k4t.errors import HostUnreachable, ParticipantAway
from k4t.master.fleet import Fleet
from k4t.master.publication.fake import FakeParticipant
from k4t.model.app import App, Health, HttpProbe, Resources, Scale
from k4t.model.hosts import Gateway
from k4t.model.participant import Capabilities
from k4t.model.spec import Tree
from k4t.model.state import Container, Head, NodeState
from k4t.monitor import scaling
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked
from k4t.monitor.facts import Answer, Docker, Facts
from k4t.monitor.history import NONE
from k4t.monitor.judge import judge
from k4t.monitor.scaling import sample, step
from k4t.monitor.scaling.measure import Answers, Taken, Use, measured
from k4t.monitor.scaling.memory import NOTHING, Counted, Seen, Used
from k4t.monitor.scaling.track import Reading
from k4t.monitor.signs.sign import Signs
from k4t.remote.fake import FakeTransport
from tests.monitor import world
from tests.monitor.world import NOW_S

pytestmark = pytest.mark.unit
MIB = 1 << 20
SCALE = Scale(1, 6, cpu_percent=50.0, memory_percent=60.0, requests=10.0)


def app(**fields: Any) -> App:
    web = world.tree().apps["web"]
    return dataclasses.replace(
        web, **{"scale": SCALE, "resources": Resources(cpus=0.5, memory_bytes=100 * MIB), **fields}
    )


def tree(**fields: Any) -> Tree:
    gateways = {name: Gateway(name, "envoy", f"10.0.0.2{number}") for number, name in enumerate(("gw1", "gw2"))}
    return dataclasses.replace(world.tree(apps={"web": app(**fields)}), gateways=gateways)


def facts(**fields: Any) -> Facts:
    probed = {f"id{number}": Answer("", f"n{number + 1}") for number in range(2)}
    probed |= {letter * 64: Answer("") for letter in "ab"}
    return world.facts(**{"probed": probed, "desired": {"web": ("0", "1")}, **fields})


def use(at_s: float, cpu_s: float, memory_mib: int = 10) -> Use:
    return Use(at_s, cpu_s, memory_mib * MIB)


def taken(answers: Answers, before: Seen = NOTHING, seen: Facts | None = None, **fields: Any) -> Taken:
    found = tree(**fields)
    return measured(found.apps["web"], found, seen or facts(), answers, before, at_s=NOW_S)


def looked(**fields: Any) -> Looked:
    seen = fields.pop("facts", facts())
    found = tree(**fields)
    return Looked(seen, judge(Signs((), frozenset()), NONE, found.monitor, NOW_S), found)


def test_cpu_is_what_was_used_between_two_readings_of_what_it_may_use() -> None:
    """A quarter of a CPU of half a CPU: 50 %. Memory is as it is now."""
    answers = Answers({"id0": use(20.0, 7.5, 30), "id1": use(20.0, 5.0, 60)})
    before = Seen({"id0": Used(10.0, 5.0), "id1": Used(10.0, 5.0)})
    found = taken(answers, before)
    assert found.sample.readings == (Reading("serving", 50.0, 30.0), Reading("serving", 0.0, 60.0))
    assert found.seen.used == {"id0": Used(20.0, 7.5), "id1": Used(20.0, 5.0)}


def test_without_two_readings_of_one_life_there_is_no_cpu() -> None:
    """The first one; one of a container that was started anew; two that are too close, or of two sources."""
    answers = Answers({"id0": use(20.0, 7.5), "id1": use(20.0, 1.0)})
    assert [one.cpu_percent for one in taken(answers).sample.readings] == [None, None]
    before = Seen({"id0": Used(19.9, 5.0), "id1": Used(10.0, 5.0)})
    assert [one.cpu_percent for one in taken(answers, before).sample.readings] == [None, None]
    before = Seen({"id0": Used(10.0, 5.0, "engine"), "id1": Used(10.0, 0.5)})
    assert [one.cpu_percent for one in taken(answers, before).sample.readings] == [None, 10.0]


def conditions(seen: Facts, **fields: Any) -> list[str]:
    return [one.condition for one in taken(Answers(), seen=seen, **fields).sample.readings]


def nodes(*containers: Container, away: str = "") -> dict[str, Docker]:
    found = {}
    for name in ("n1", "n2"):
        mine = tuple(one for one in containers if one.node == name)
        found[name] = Docker(NodeState(name, name != away, () if name == away else mine))
    return found


def test_what_does_not_serve_is_absent_and_what_can_not_be_asked_unknown() -> None:
    """Ill, stopped, gone; on a node that is away, or asked in vain."""
    first, second = world.container(0, "n1"), world.container(1, "n2")
    assert conditions(facts()) == ["serving", "serving"]
    assert conditions(facts(probed={"id0": Answer("refused"), "id1": Answer("")})) == ["absent", "serving"]
    assert conditions(facts(probed={"id0": Answer(None), "id1": Answer("")})) == ["unknown", "serving"]
    stopped = dataclasses.replace(second, state="exited")
    assert conditions(facts(nodes=nodes(first, stopped))) == ["serving", "absent"]
    assert conditions(facts(nodes=nodes(first))) == ["serving", "absent"]
    assert conditions(facts(nodes=nodes(first, away="n2"))) == ["serving", "unknown"]


def test_a_replica_that_starts_is_not_counted_until_it_had_its_time() -> None:
    """By its node's clock, which may be an hour off."""
    health = Health(HttpProbe(), start_period_s=30.0)
    young = world.container(0, "n1", created_s=int(NOW_S) - 10)
    here = nodes(young, world.container(1, "n2"))
    assert conditions(facts(nodes=here), health=health) == ["absent", "serving"]
    assert conditions(facts(nodes=here)) == ["serving", "serving"]
    hour = world.host("n1", reading=world.reading(skew_s=3600.0))
    hosts = {**facts().hosts, "node/n1": hour}
    old = nodes(world.container(0, "n1", created_s=int(NOW_S) + 3600 - 60), world.container(1, "n2"))
    assert conditions(facts(nodes=old, hosts=hosts), health=health) == ["serving", "serving"]


def test_while_a_replica_is_replaced_it_counts_as_starting() -> None:
    """Traffic is on its way from one container to the other. One that was only created, or is kept to go back to, is
    none of them."""
    newer = world.container(0, "n2", id="id9", generation=2)
    both = nodes(world.container(0, "n1"), newer, world.container(1, "n2"))
    probed = {name: Answer("") for name in ("id0", "id1", "id9")}
    assert conditions(facts(nodes=both, probed=probed)) == ["absent", "serving"]
    created = dataclasses.replace(newer, state="created")
    before = nodes(world.container(0, "n1"), created, world.container(1, "n2"))
    assert conditions(facts(nodes=before, probed=probed)) == ["serving", "serving"]


# --- requests --------------------------------------------------------------------------------------------------


def counted(at_s: float, **totals: int) -> tuple[float, dict[tuple[str, str], int]]:
    """a and b are endpoints of web; x one of another app."""
    return at_s, {("other" if place == "x" else "web", place): number for place, number in totals.items()}


def test_gateways_add_up_and_only_our_own_endpoints_count() -> None:
    """Ten seconds: 200 and 100 requests by one, 50 by the other."""
    before = taken(Answers(counted={"gw1": counted(10.0, a=1000, b=5, x=7), "gw2": counted(11.0, a=0, b=0)})).seen
    assert before.counted["gw1"] == Counted(10.0, {"a": 1000, "b": 5})
    now = Answers(counted={"gw1": counted(20.0, a=1200, b=105, x=9999), "gw2": counted(21.0, a=50, b=0)})
    found = taken(now, before).sample
    assert (found.requests_s, found.requests_known) == (35.0, True)


def test_a_counter_that_began_anew_and_an_endpoint_that_is_new() -> None:
    """After a restart what it has counted since counts; of a new endpoint there is no rate yet."""
    before = Seen(counted={"gw1": Counted(10.0, {"a": 1000}), "gw2": Counted(10.0, {})})
    now = Answers(counted={"gw1": counted(20.0, a=40, b=777), "gw2": counted(20.0, b=5)})
    assert taken(now, before).sample.requests_s == 4.0


def test_a_gateway_that_can_not_be_asked_leaves_it_open() -> None:
    """What the other one says is the least it can be; without any it is not known."""
    before = Seen(counted={"gw1": Counted(10.0, {"a": 0}), "gw2": Counted(10.0, {"a": 0})})
    found = taken(Answers(counted={"gw1": counted(20.0, a=100)}), before).sample
    assert (found.requests_s, found.requests_known) == (10.0, False)
    assert taken(Answers(), before).sample.requests_s is None
    assert taken(Answers(counted={"gw1": counted(20.0, a=100)})).sample.requests_s is None


# --- a round ---------------------------------------------------------------------------------------------------


def rounds(number: int, requests_s: float, **fields: Any) -> tuple[scaling.Memory, list[Action]]:
    memory, asked = scaling.NONE, []
    for place in range(number):
        at_s = NOW_S + 10.0 * place
        totals = int(requests_s * 10 * place)
        answers = Answers(
            {f"id{n}": use(at_s, at_s * 0.01) for n in range(2)},
            {name: counted(at_s, a=totals // 2) for name in ("gw1", "gw2")},
        )
        seen = looked(**fields)
        memory, actions = step.decided(seen, (seen.tree.apps["web"],), answers, memory, at_s)
        memory = scaling.decode(json.loads(json.dumps(scaling.encode(memory))))
        asked += list(actions)
    return memory, asked


def test_a_round_asks_the_master_for_a_size_and_says_why() -> None:
    """Fifty requests a second, ten a replica: once, and the memory is what its JSON says."""
    memory, actions = rounds(8, 50.0)
    (action,) = set(actions)
    assert (action.policy, action.verb, action.name, action.replicas) == ("scale", "scale", "web", 5)
    assert action.cause.startswith(
        "2 → 5 replicas: cpu 2 % of 2, 50 % aimed at; memory 10 % of 2, 60 % aimed at; 50 req"
    )
    assert scaling.words(memory, "web").startswith("5 replicas: ")
    assert scaling.words(memory, "api") == ""


def test_an_app_that_is_held_or_stopped_or_has_no_scale_is_left_alone() -> None:
    """What is asked for would not come."""
    head = Head("k7f3q2m9", 4, held={"web": "v1:x"})
    hosts = {key: dataclasses.replace(one, reading=world.reading(head=head)) for key, one in facts().hosts.items()}
    assert rounds(8, 50.0, facts=facts(hosts=hosts)) == (scaling.NONE, [])
    nobody: Any = None  # nobody is asked anything
    for fields in ({"stopped": True}, {"scale": None}):
        assert scaling.round(nobody, looked(**fields), scaling.NONE, NOW_S) == (scaling.NONE, ())
    blind = dataclasses.replace(looked(), has_tree=False)
    assert scaling.round(nobody, blind, scaling.NONE, NOW_S) == (scaling.NONE, ())


class Counter(FakeParticipant):
    """A gateway that counts, or can't be asked."""

    def counters(self, apps: list[str]) -> dict[tuple[str, str], int]:
        self._enter("counters")
        return {(app, "a"): 7 for app in apps}


def test_who_does_not_answer_is_left_out_and_keeps_nobody_from_answering() -> None:
    """A node whose control groups know one of its two containers and whose Engine is silent, one that can't be reached;
    a gateway that counts, one that fails; one that counts nothing is not asked."""
    first, beside = world.container(0, "n1", id="a" * 64), world.container(1, "n1", id="b" * 64)
    here = nodes(first, beside, world.container(2, "n2"))
    states = {name: world.member("gateway", name) for name in ("gw1", "gw2")}
    seen = facts(nodes=here, gateways=states, desired={"web": ("0", "1", "2")})
    said = f"k4t-usage 1\nuptime 9.5\ncontainer {'a' * 64}\nusage_usec 4000000\nmemory 5000\n"

    def connect(name: str, *_: object) -> FakeTransport:
        if name != "n1":
            raise HostUnreachable("it is off")
        transport = FakeTransport()
        transport.answer(["sh"], said.encode())
        return transport

    counting = Capabilities(counts=True)
    broken = Counter("gw2", capabilities=counting, faults={"counters": [ParticipantAway("gone")]})
    members: dict[Any, Any] = {
        ("gateway", "gw1"): Counter("gw1", capabilities=counting), ("gateway", "gw2"): broken,
    }  # fmt: skip
    found = sample.ask(Fleet(tree(), connect, members), seen, [app()])
    assert found.uses == {"a" * 64: Use(9.5, 4.0, 5000)}
    assert {name: totals for name, (_, totals) in found.counted.items()} == {"gw1": {("web", "a"): 7}}
    silent: dict[Any, Any] = {("gateway", name): FakeParticipant(name) for name in ("gw1", "gw2")}
    assert sample.ask(Fleet(tree(), connect, silent), seen, [app()]).counted == {}


def test_a_command_is_told_the_app_and_believed_when_it_prints_a_number() -> None:
    """Not when it fails, says something else, or nothing."""
    seen = looked()
    fleet = Fleet(seen.tree, lambda *_: pytest.fail("no host is asked"), {})

    def printed(words: str) -> int | None:
        commanded = app(scale=Scale(1, 6, command=words))
        return sample.ask(fleet, seen.facts, [commanded]).numbers.get("web")

    assert printed("""sh -c 'test "$K4T_APP" = web && echo $((K4T_REPLICAS + 3))'""") == 5
    assert printed("echo 5000000") is None
    for wrong in ("echo -1", "echo 1.5", "echo", "false", "no-such-program", "sh -c 'echo 3; exit 1'", "echo 1 2"):
        assert printed(wrong) is None


def test_a_memory_that_is_damaged_is_as_if_there_were_none() -> None:
    """Whatever the file holds."""
    memory, _ = rounds(3, 50.0)
    good = scaling.encode(memory)
    assert scaling.decode(good) == memory
    strange: list[object] = [None, [], "x", {}, {"format": 2, "apps": {}}, {"format": 1}]
    for wrong in (*strange, {"format": 1, "apps": {"web": {}}}):
        assert scaling.decode(wrong) == scaling.NONE
    for key in ("track", "used", "counted"):
        broken = json.loads(json.dumps(good))
        broken["apps"]["web"][key] = {"a": "b"}
        assert scaling.decode(broken) == scaling.NONE
