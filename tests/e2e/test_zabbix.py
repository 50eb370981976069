"""A real Zabbix 6.0 imports the template, discovers the cluster, takes the values, and tells of what is wrong and of
nothing else: of a lab, by the sender and by an agent; and of documents in which everything is wrong.

The machine is shared by all hosts of the lab, so its load says nothing of theirs: those thresholds are off. What is
seen counts at once: that nothing flaps is shown elsewhere.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from k4t.monitor.zabbix import kinds, sender
from k4t.monitor.zabbix.things import CLUSTER_ALARMS, CUT_OFF, OTHER, THINGS
from k4t.monitor.zabbix.values import encode, values
from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site
from tests.e2e.test_monitor import MONITOR
from tests.e2e.zabbix import Watched, Zabbix
from tests.lab import Host, Lab
from tests.monitor import clusters

pytestmark = pytest.mark.integration
HOST = "k4t-prod"
HIGH, WARNING, INFORMATION = 4, 2, 1
LONG = "K4T_FULL" in os.environ
CHECKS = itertools.count(1_800_000_000)


@pytest.fixture(scope="module")
def zabbix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zabbix]:
    """It starts while the lab does; who needs it waits for it. Its processes end with the thread that started them."""
    made = Zabbix()
    with ThreadPoolExecutor(1) as pool:
        made.starting = pool.submit(made.start)
        try:
            yield made
        finally:
            made.starting.exception(timeout=300)
            made.end()


@pytest.fixture(scope="module")
def site(zabbix: Zabbix, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A published app on two nodes, copied to one of them."""
    made = Site(lab, tmp_path_factory.mktemp("zabbix"))
    cluster = made.db / "cluster.xml"
    cluster.write_text(cluster.read_text().replace("</cluster>", '  <backup node="n1" every="1h"/>\n</cluster>'))
    for name in ("n1", "n2"):
        made.node(lab.host(name))
    made.gateway(lab.host("gw1"))
    made.dns(lab.host("gw1"))
    made.write("monitor.xml", MONITOR.replace("</monitor>", '<threshold of="state" after="1" of-last="1"/></monitor>'))
    cluster.write_text(cluster.read_text().replace('connect-timeout="4s"', 'connect-timeout="2s"'))
    made.app(replicas=2, more='  <route domain="web.k4t.lab"/>\n  <record/>')
    for words in (("gateway", "install"), ("dns", "install"), ("apply", "--yes"), ("backup",)):
        made.k4t(*words)
    yield made
    made.end()
    for host in lab.nodes:
        wipe_node(host)
    wipe(lab.host("gw1"))


class Scene:
    """A cluster of the lab, and its host in Zabbix."""

    def __init__(self, site: Site, zabbix: Zabbix) -> None:
        self.site, self.zabbix = site, zabbix
        self.watched: Watched

    def send(self, status: int | None = 0) -> str:
        words = ["--server", f"127.0.0.1:{self.zabbix.port}", "--host", HOST]
        return self.site.k4t("monitor", "export", "zabbix", *words, status=status).stderr

    def settles_on(self, *expected: str) -> dict[str, int]:
        """Check after check, until there are just these problems, each by how its name begins."""

        def settled() -> bool:
            self.send()
            time.sleep(1)
            return fits(self.watched.problems(), expected)

        self.zabbix.until(settled, f"problems are {expected}")
        return self.watched.problems()

    def power(self, host: str) -> None:
        """Which machine the master is."""
        cluster = self.site.db / "cluster.xml"
        text = re.sub(r"  <power .*/>\n", "", cluster.read_text())
        power = f'  <power host="{host}" on="true" off="true"/>\n' if host else ""
        cluster.write_text(text.replace("</cluster>", f"{power}</cluster>"))


def fits(problems: dict[str, int], expected: tuple[str, ...]) -> bool:
    """Whether each problem begins with one of the expected names, and each of those is there."""
    return len(problems) == len(expected) and all(
        any(problem.startswith(one) for problem in problems) for one in expected
    )


@pytest.fixture(scope="module")
def scene(site: Site, zabbix: Zabbix) -> Scene:
    """The template is imported, the host made, and what was discovered has values."""
    zabbix.starting.result(timeout=300)
    made = Scene(site, zabbix)
    file = site.directory / "k4t.yaml"
    site.k4t("monitor", "export", "zabbix", "--template", str(file))
    zabbix.imported(file.read_text())
    made.watched = zabbix.host(HOST, "k4t by sender")
    zabbix.until(lambda: "was told" in made.send(status=None), "the server knows the host")
    zabbix.until(lambda: "k4t.app.healthy[web]" in made.watched.items(), "things are discovered")
    zabbix.until(lambda: made.send() and made.watched.values().get("k4t.app.healthy[web]") == "2", "values arrive")
    return made


# --- a lab ---------------------------------------------------------------------------------------------------------


def test_discovery_makes_the_items_and_values_arrive(scene: Scene) -> None:
    """Of each host, disk, node, app, gateway, DNS server and copy; each item has what its kind of value takes. All is
    well: there is no problem."""
    scene.zabbix.until(lambda: scene.send() and scene.watched.values().get("k4t.backup.age_s[n1]"), "all of them")
    items = scene.watched.items()
    assert {key: one["error"] for key, one in items.items() if one["state"] != "0" or one["error"]} == {}
    found = {key: one["lastvalue"] for key, one in items.items()}
    expected = {
        "k4t.level": "0", "k4t.off_on_purpose": "0", "k4t.host.reachable[node/n1]": "1", "k4t.host.away[node/n2]": "0",
        "k4t.node.up[n2]": "1", "k4t.node.running[n1]": "1", "k4t.app.desired[web]": "2", "k4t.app.reached[web]": "2",
        "k4t.gateway.serving[gw1]": "1", "k4t.gateway.endpoints[gw1]": "2", "k4t.dns.reachable[names]": "1",
        "k4t.backup.every_s[n1]": "3600", "k4t.backup.age[n1]": "0",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert 0 < float(found["k4t.host.memory_percent[gateway/gw1]"]) < 100
    assert 0 < float(found["k4t.disk.space_percent[node/n1:/]"]) < 100
    assert abs(int(found["k4t.checked_at"]) - time.time()) < 120
    (whole,) = scene.zabbix.api("item.get", {"hostids": scene.watched.id, "filter": {"key_": "k4t.check"}})
    assert (whole["lastvalue"], whole["history"]) == ("", "0"), "the document itself is not kept"
    assert {"node n1: memory", "app web: replicas", "gateway gw1: endpoints"} <= scene.watched.names("graph.get")
    assert "node n2 is gone" in scene.watched.names("trigger.get")
    assert scene.watched.problems() == {}


def test_values_are_kept_and_unchanged_ones_are_not_written_again(scene: Scene) -> None:
    """Graphs are made of history: what changes has a value for each check, a level that stays has fewer."""
    for _ in range(2):
        scene.send()

    def kept(key: str) -> list[Any]:
        (item,) = scene.zabbix.api(
            "item.get", {"hostids": scene.watched.id, "filter": {"key_": key}, "output": ["itemid", "value_type"]}
        )
        asked = {"itemids": item["itemid"], "history": int(item["value_type"])}
        found: list[Any] = scene.zabbix.api("history.get", asked)
        return found

    scene.zabbix.until(lambda: len(kept("k4t.checked_at")) >= 3, "every check is written down")
    assert len(kept("k4t.host.away[node/n1]")) < len(kept("k4t.checked_at"))


def test_the_same_template_again_changes_nothing(scene: Scene) -> None:
    """Identifiers stay: a newer template replaces an older one, and history with it stays."""
    before = [scene.zabbix.api(f"{kind}.get", {"hostids": scene.watched.id}) for kind in ("trigger", "graph")]
    items = set(scene.watched.items())
    scene.zabbix.imported((scene.site.directory / "k4t.yaml").read_text())
    assert [scene.zabbix.api(f"{kind}.get", {"hostids": scene.watched.id}) for kind in ("trigger", "graph")] == before
    assert set(scene.watched.items()) == items


def test_a_plug_that_is_pulled_raises_one_problem_and_put_back_it_is_over(scene: Scene) -> None:
    """It names the node and says what is the matter; of all that is on the node, nothing is said."""
    node = scene.site.lab.host("n2")
    node.power_off()
    try:
        found = scene.settles_on("node n2 is gone: host-off: off, or cut off: ")
        assert list(found.values()) == [HIGH]
    finally:
        node.power_on()
    scene.settles_on()


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1; below, a document says the same")
def test_a_master_that_really_goes_off_on_purpose_raises_nothing(scene: Scene) -> None:
    """It said so before it went off. The same machine, off and without that word, does."""
    master: Host = scene.site.lab.host("m2")
    scene.power(socket.gethostname())
    scene.site.k4t("apply", "--yes")
    scene.site.k4t("backup")
    going = scene.site.start("power", "off", "--yes", extra={"K4T_FAILPOINT": "power:announced"})
    said = going.communicate(timeout=120)
    assert going.returncode == -9, said
    scene.power(master.address)
    master.power_off()
    try:
        for _ in range(3):
            scene.send()
        scene.zabbix.until(lambda: scene.watched.values()["k4t.off_on_purpose"] == "1", "it is off on purpose")
        scene.settles_on()
        for host in (scene.site.lab.host(name) for name in ("n1", "gw1")):
            host.exec(["rm", "-f", f"/var/lib/k4t/{scene.site.id}/off"])
        scene.settles_on(f"master {master.address} is gone: host-off: ")
    finally:
        master.power_on()
        scene.power("")
    scene.settles_on()


def test_an_agent_that_is_asked_is_enough(scene: Scene) -> None:
    """The other way: nothing is sent, a UserParameter prints the document, and the same things are discovered."""
    file = scene.site.directory / "agent.yaml"
    scene.site.k4t("monitor", "export", "zabbix", "--template", str(file), "--agent")
    scene.zabbix.imported(file.read_text())
    environment = " ".join(f"{name}={value}" for name, value in scene.site.environment().items() if name != "K4T_DB")
    program = " ".join(scene.site.argv("--db", f'"{scene.site.directory}/$1"', "monitor", "export", "zabbix"))
    port = scene.zabbix.agent(f"k4t.check[*],cd {Path.cwd()} && env {environment} {program} 2>/dev/null")
    watched = scene.zabbix.host("k4t-agent", "k4t by agent", {"INTERVAL": "2s", "TREE": "db"}, agent_port=port)
    scene.zabbix.until(lambda: watched.values().get("k4t.app.healthy[web]") == "2", "values arrive")
    assert {key: one["error"] for key, one in watched.items().items() if one["state"] != "0" or one["error"]} == {}
    assert watched.problems() == {}
    # garbage is refused whole: nothing that is known is overwritten
    assert watched.values()["k4t.cut_off"] == "0"


# --- Zabbix is away ------------------------------------------------------------------------------------------------


def test_zabbix_away_ends_with_69_and_one_message(scene: Scene) -> None:
    """Tests of the sender have all other ways of being away."""
    words = ["monitor", "export", "zabbix", "--host", HOST, "--timeout", "2s", "--server"]
    done = scene.site.k4t(*words, "127.0.0.1:1", status=69)
    assert done.stderr == (
        "k4t: Zabbix at 127.0.0.1:1 was not told within 2 s: 127.0.0.1: it takes no connection; "
        "is it up, and this the way?\n"
    )


def test_a_host_that_zabbix_does_not_know_is_said(scene: Scene) -> None:
    """Zabbix itself says no more than that it took nothing."""
    with pytest.raises(sender.NotTaken, match="takes nothing for host nobody: 1 of 1 refused; is there a host"):
        sender.deliver("{}", f"127.0.0.1:{scene.zabbix.port}", "nobody")


# --- documents: everything is wrong ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper(scene: Scene) -> tuple[Watched, dict[str, Any]]:
    """A host that is sent documents which no check made, and the first of them, in which all is well."""
    watched = scene.zabbix.host("k4t-paper", "k4t by sender", {"APP.MATCHES": "^(web|api)$"})
    document = values(clusters.healthy())
    document["certificates"] = {"shop": {"expiry": 0, "said": "", "expires": 1_800_000_000, "left_s": -5}}
    document["found"]["certificates"] = [{"{#KEY}": "shop"}]
    scene.zabbix.until(lambda: told(scene, document), "the server knows the host")
    scene.zabbix.until(lambda: len(watched.items()) > 200, "things are discovered")
    scene.zabbix.until(
        lambda: told(scene, document) and watched.values().get("k4t.certificate.left_s[shop]"), "values arrive"
    )
    warned, count = raised_to(document, 2)

    def known() -> bool:
        """What is discovered last is a trigger, which Zabbix doesn't tell that it knows."""
        settled(scene, watched, document)
        settled(scene, watched, warned)
        time.sleep(1)
        return len(watched.problems()) == count

    scene.zabbix.until(known, f"{count} triggers are known")
    settled(scene, watched, document)
    scene.zabbix.until(lambda: not watched.problems(), "all of them are over")
    return watched, document


def told(scene: Scene, document: dict[str, Any]) -> bool:
    try:
        sender.deliver(encode(document), f"127.0.0.1:{scene.zabbix.port}", "k4t-paper")
    except sender.NotTaken:
        return False
    return True


def settled(scene: Scene, watched: Watched, document: dict[str, Any]) -> None:
    """It is sent until two checks of it have been taken in whole."""
    for number in itertools.islice(CHECKS, 2):
        told(scene, document | {"checked_at": number})
        taken = functools.partial(has, watched, "k4t.checked_at", str(number))
        scene.zabbix.until(taken, "it is taken in")


def has(watched: Watched, key: str, expected: str) -> bool:
    return watched.values()[key] == expected


def raised_to(document: dict[str, Any], level: int) -> tuple[dict[str, Any], int]:
    """Everything that can be raised is, and how many that is. Of each kind of trouble something is said."""
    found, count = json.loads(json.dumps(document)), 0
    for alarm in (CUT_OFF, *CLUSTER_ALARMS, OTHER):
        found[alarm.key] = level if alarm is not CUT_OFF else 0
        count += alarm is not CUT_OFF
    found["cluster_said"] = "\n".join(lines_of(kinds.CLUSTER))
    found["other_said"] = "node n1: haunted: it rattles"
    for thing in THINGS:
        for key, one in found[thing.of].items():
            one["said"] = "\n".join(lines_of(thing.kinds))
            for alarm in thing.alarms:
                one[alarm.key] = level
                count += thing.of != "apps" or key in ("web", "api")
    return found, count


def lines_of(table: kinds.Kinds) -> list[str]:
    return [f"{whats[-1]}: this is said of {name}" for name, whats in table.items()]


def test_every_trigger_fires_and_is_over(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """A warning of everything at once, then nothing: each trigger by itself, since only what is critical stands for
    others. Apps that a macro leaves out are not there."""
    watched, well = paper
    warned, count = raised_to(well, 2)
    told(scene, warned)
    scene.zabbix.until(lambda: len(watched.problems()) >= count, f"{count} problems")
    found = watched.problems()
    assert len(found) == count
    assert set(found.values()) <= {WARNING, 3}
    assert "app web is short of replicas: endpoint-dead: this is said of replicas" in found
    assert "node node1 keeps another time: clock-skew: this is said of clock" in found
    assert "k4t: something else is raised: node n1: haunted: it rattles" in found
    assert "certificate shop ends soon: certificate-expiry: this is said of expiry" in found
    assert not any("mail" in name for name in found)
    told(scene, well)
    scene.zabbix.until(lambda: not watched.problems(), "all of them are over")


def test_a_root_cause_stands_for_what_follows_from_it(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """Critical in everything: of a host that is gone, nothing else is said, and of what hangs on what neither."""
    watched, well = paper
    critical, _ = raised_to(well, 3)
    told(scene, critical)
    expected = sum(
        not alarm.unless
        for thing in THINGS
        for key in critical[thing.of]
        if thing.of != "apps" or key in ("web", "api")
        for alarm in thing.alarms
    ) + len(CLUSTER_ALARMS) + 1  # fmt: skip
    scene.zabbix.until(lambda: len(watched.problems()) >= expected, f"{expected} problems")
    found = watched.problems()
    assert len(found) == expected
    assert set(found.values()) == {HIGH}
    assert found["app web has no replica that is well: endpoint-dead: this is said of replicas"] == HIGH
    told(scene, well)
    scene.zabbix.until(lambda: not watched.problems(), "all of them are over")


def test_what_is_gone_has_no_problem_any_more(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """An app that is removed while it is short of replicas: at once, and not when Zabbix forgets it."""
    watched, well = paper
    short = json.loads(json.dumps(well))
    short["apps"]["web"] |= {"replicas": 2, "said": "container-missing: one"}
    told(scene, short)
    scene.zabbix.until(
        lambda: list(watched.problems()) == ["app web is short of replicas: container-missing: one"], "one"
    )
    del short["apps"]["web"]
    short["found"]["apps"] = [one for one in short["found"]["apps"] if one["{#KEY}"] != "web"]
    told(scene, short)
    scene.zabbix.until(lambda: not watched.problems(), "it is over")


def test_a_master_that_is_off_on_purpose_raises_nothing(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """It does not answer, and said so before; without that word it is gone."""
    watched, well = paper
    off = values(clusters.master_off(on_purpose=True))
    assert (off["off_on_purpose"], off["hosts"]["master/boss"]["reachable"]) == (1, 0)
    told(scene, off)
    key = "k4t.host.reachable[master/boss]"
    scene.zabbix.until(lambda: told(scene, off) and watched.values().get(key) == "0", "it is discovered")
    settled(scene, watched, off)
    assert watched.values()["k4t.off_on_purpose"] == "1"
    assert watched.problems() == {}
    told(scene, values(clusters.master_off(on_purpose=False)))
    expected = "master boss is gone: host-off: off, or cut off: 10.88.0.2:22 does not answer within 10 s"
    scene.zabbix.until(lambda: watched.problems() == {expected: HIGH}, "it is gone")
    told(scene, well)
    scene.zabbix.until(lambda: not watched.problems(), "it is over")


def test_words_that_nobody_should_have_are_words(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """What hosts, containers and people may call themselves breaks nothing on its way into a problem's name."""
    watched, well = paper
    told(scene, values(clusters.hostile()))
    words = "</style></script><img src=x onerror=alert(1)>\"'&"
    expected = (f"node node3 is gone: login: {words}", f"k4t: something else is raised: backup {words}")
    scene.zabbix.until(lambda: all(begins(watched, one) for one in expected), "they are told")
    told(scene, well)
    scene.zabbix.until(lambda: not watched.problems(), "all of them are over")


def begins(watched: Watched, name: str) -> bool:
    return any(one.startswith(name) for one in watched.problems())


def test_garbage_is_refused_whole(scene: Scene, paper: tuple[Watched, dict[str, Any]]) -> None:
    """What is no document of ours changes nothing that is known, and Zabbix shows why the item is not supported."""
    watched, well = paper
    settled(scene, watched, well)
    before = {key: one["lastclock"] for key, one in watched.items().items()}
    sender.deliver("k4t: Traceback …", f"127.0.0.1:{scene.zabbix.port}", "k4t-paper")
    scene.zabbix.until(lambda: watched.items()["k4t.check"]["state"] == "1", "it is not supported")
    assert {key: one["lastclock"] for key, one in watched.items().items()} == before
    assert {one["state"] for key, one in watched.items().items() if key != "k4t.check"} == {"0"}
    told(scene, well)
    scene.zabbix.until(lambda: watched.items()["k4t.check"]["state"] == "0", "it is supported again")


@pytest.mark.skipif(not LONG, reason="Zabbix looks for silence each half minute: K4T_FULL=1")
def test_silence_is_a_problem_by_itself(scene: Scene) -> None:
    """Nobody sends any more."""
    watched = scene.zabbix.host("k4t-silent", "k4t by sender", {"NODATA": "30s"})
    document = encode(values(clusters.healthy()))
    server = f"127.0.0.1:{scene.zabbix.port}"

    def sent() -> bool:
        try:
            sender.deliver(document, server, "k4t-silent")
        except sender.NotTaken:
            return False
        return True

    scene.zabbix.until(sent, "the server knows the host")
    scene.zabbix.until(lambda: watched.problems() == {"k4t: nothing is heard for 30s": HIGH}, "silence", 150)
    scene.zabbix.until(lambda: sent() and not watched.problems(), "it is heard again", 150)
