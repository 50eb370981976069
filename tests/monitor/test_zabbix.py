"""The template fits the document and the document fits what the monitor knows; what is sent is sent in bounded time."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from k4t.errors import Unreachable, Usage
from k4t.model.monitor import Monitor
from k4t.monitor.check import Looked
from k4t.monitor.facts import Disk, Failure, OffNotice
from k4t.monitor.history import NONE
from k4t.monitor.judge import judge
from k4t.monitor.signs import signs
from k4t.monitor.zabbix import kinds, sender, things, values
from k4t.monitor.zabbix.parts import Part
from k4t.monitor.zabbix.template import made, template
from k4t.registrar.document import Certificate
from tests.monitor import clusters
from tests.monitor.test_docs import rows
from tests.monitor.world import GIB, NOW_S, away, facts, tree, with_reading

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden" / "zabbix.txt"
PAGE = (Path(__file__).resolve().parents[2] / "docs/zabbix.md").read_text()
AGENT_BYTES = 512 * 1024
"""More than that an agent does not hand over."""


def looked(*rounds: Any) -> Looked:
    """What the last of some checks saw."""
    found = None
    for number, one in enumerate(rounds):
        history = found.judgement.history if found else NONE
        found = Looked(one, judge(signs(one, tree()), history, Monitor(), NOW_S + 10 * number), tree())
    assert found is not None
    return found


def document(one: Looked) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(values.encode(values.values(one)))
    return found


# --- the template --------------------------------------------------------------------------------------------------


def whole(*, agent: bool = False) -> Part:
    return made(agent=agent)["templates"][0]  # type: ignore[no-any-return]


def items(*, agent: bool = False) -> Iterator[Part]:
    found = whole(agent=agent)
    yield from found["items"]
    for rule in found["discovery_rules"]:
        yield from rule["item_prototypes"]


def triggers() -> Iterator[Part]:
    yield from made()["triggers"]
    for rule in whole()["discovery_rules"]:
        yield from rule.get("trigger_prototypes", ())


def outline(found: Any) -> Iterator[str]:
    """A line for each part that has an identifier: what of it is on users' machines."""
    if isinstance(found, dict):
        if "uuid" in found:
            steps = " | ".join(" ".join(one["parameters"]) for one in found.get("preprocessing", ()))
            words = [found["uuid"], found.get("key") or found.get("expression") or found["name"], steps]
            yield "  ".join(word for word in words if word)
        for one in found.values():
            yield from outline(one)
    elif isinstance(found, list):
        for one in found:
            yield from outline(one)


def test_what_is_on_users_machines_stays() -> None:
    """Identifiers, keys, paths and expressions: another identifier would have history thrown away at an update.
    K4T_WRITE_CASES=1 writes them anew."""
    text = "\n".join(outline(made())) + "\n"
    if os.environ.get("K4T_WRITE_CASES"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_it_is_the_same_file_every_time() -> None:
    """And YAML that says just what was made."""
    assert template() == template()
    assert yaml.safe_load(template()) == {"zabbix_export": made()}
    assert yaml.safe_load(template(agent=True)) == {"zabbix_export": made(agent=True)}


def test_identifiers_are_of_the_form_that_zabbix_takes_and_no_two_are_the_same() -> None:
    found = [line.split("  ")[0] for agent in (False, True) for line in outline(made(agent=agent))]
    groups = [one["uuid"] for one in made()["groups"]]
    own = [one for one in found if one not in groups]
    assert len(own) == len(set(own)) > 300
    assert {(uuid.UUID(one).version, uuid.UUID(one).hex) for one in found} == {(4, one) for one in found}


def test_an_agent_has_the_same_but_for_its_first_item() -> None:
    def told(agent: bool) -> list[tuple[str, str]]:
        return [(one["key"], one["name"]) for one in items(agent=agent)][1:]

    assert told(True) == told(False)
    first = next(items(agent=True))
    assert (first["type"], first["key"]) == ("ZABBIX_PASSIVE", "k4t.check[{$K4T.TREE}]")
    assert first["delay"] == "{$K4T.INTERVAL}"
    assert next(items())["type"] == "TRAP"


def test_every_trigger_graph_and_dependency_is_about_what_is_there() -> None:
    """Of its own template; and each level is what some trigger looks at."""
    keys = {one["key"] for one in items()}
    known = {(one["name"], one["expression"]) for one in triggers()}
    used: set[str] = set()
    for one in triggers():
        asked = re.findall(r"/k4t by sender/(k4t[\w.]+(?:\[[^\]]*\])?)", one["expression"])
        assert asked, one
        assert set(asked) <= keys, one
        used |= set(asked)
        assert {(after["name"], after["expression"]) for after in one.get("dependencies", ())} <= known, one
    rules = whole()["discovery_rules"]
    graphs = [*made()["graphs"], *(one for rule in rules for one in rule.get("graph_prototypes", ()))]
    for graph in graphs:
        assert {one["item"]["key"] for one in graph["graph_items"]} <= keys, graph
    levels = {one["key"] for one in items() if one.get("valuemap") == {"name": "k4t level"}}
    assert levels - used == {"k4t.level"}


def test_every_item_depends_on_one_that_is_there_and_only_documents_are_not_kept() -> None:
    by_key = {one["key"]: one for one in items()}
    for one in list(by_key.values())[1:]:
        master = by_key[one["master_item"]["key"]]
        assert master["value_type"] == "TEXT"
        assert master["history"] == "0"
    assert {key.partition("[")[0].rpartition(".")[2] for key, one in by_key.items() if one["history"] == "0"} == {
        "check",
        "get",
    }


def test_every_macro_that_is_used_is_defined() -> None:
    for agent in (False, True):
        defined = {one["macro"] for one in whole(agent=agent)["macros"]}
        assert set(re.findall(r"\{\$[A-Z0-9._]+\}", template(agent=agent))) == defined


# --- the template and the document -----------------------------------------------------------------------------------


def at(path: str, found: Any) -> Any:
    """What a path of the template leads to: names, with and without brackets."""
    assert re.fullmatch(r'\$(\.\w+|\["[^"\\]+"\])+', path), path
    for plain, quoted in re.findall(r'\.(\w+)|\["([^"\\]+)"\]', path):
        found = found[plain or quoted]
    return found


def test_every_path_leads_to_something_in_a_document() -> None:
    """Of a cluster that is well, but for what only a host that is short tells; each number is one its item takes."""
    whole_document = document(clusters.healthy())
    whole_document["certificates"] = document(with_certificate())["certificates"]
    whole_document["found"]["certificates"] = document(with_certificate())["found"]["certificates"]
    seen: dict[str, tuple[Part, Any]] = {}
    for one in items():
        if "master_item" not in one:
            continue
        path = one["preprocessing"][0]["parameters"][0]
        if "{#KEY}" not in one["key"]:
            seen[one["key"]] = (one, at(path, whole_document))
        elif one["master_item"]["key"] == "k4t.check":
            rule = re.match(r"\$\.(\w+)", path)
            assert rule is not None
            (key, *_) = (found["{#KEY}"] for found in at(f"$.found.{rule[1]}", whole_document))
            seen[one["key"]] = (one, at(path.replace("{#KEY}", key), whole_document))
        else:
            _, thing = seen[one["master_item"]["key"]]
            if path != "$.images_bytes":
                seen[one["key"]] = (one, at(path, thing))
    assert len(seen) > 80
    for key, (one, found) in seen.items():
        kind = one.get("value_type", "UNSIGNED")
        takes: dict[str, tuple[type, ...]] = {"UNSIGNED": (int,), "FLOAT": (int, float), "TEXT": (str, dict)}
        assert type(found) in takes[kind], (key, found)
        assert kind != "UNSIGNED" or found >= 0, key


def with_certificate() -> Looked:
    found = clusters.facts(clusters.tree())
    gateway = found.gateways["gw1"]
    assert gateway.document is not None
    served = dataclasses.replace(gateway.document, certificates=(Certificate("shop", "ab", "2027-01-01T00:00:00Z"),))
    gateways = {**found.gateways, "gw1": dataclasses.replace(gateway, document=served)}
    return clusters.looked(dataclasses.replace(found, gateways=gateways), clusters.tree())


def test_nothing_is_sent_that_the_template_has_no_item_for() -> None:
    """But what names the cluster and the thing."""
    found = document(clusters.bad())
    cluster = {one.key for one in things.CLUSTER} | {"version", "cluster", "id", "found"}
    assert set(found) - cluster == {thing.of for thing in things.THINGS}
    for thing in things.THINGS:
        told = {key for one in found[thing.of].values() for key in one}
        assert told - {figure.key for figure in thing.figures} <= {"name", "host"}, thing.of


def test_everything_that_the_monitor_tells_is_somebodys_level() -> None:
    """docs/monitor.md has the names; “on purpose” is none to alarm about."""
    named = {name.strip("` ") for cells in rows("What is checked") for name in cells[0].split(",")}
    tables = (kinds.HOST, kinds.NODE, kinds.APP, kinds.MEMBER, kinds.BACKUP, kinds.CERTIFICATE, kinds.CLUSTER)
    told = {what for kind in tables for whats in kind.values() for what in whats}
    assert named - told == {"master-off-on-purpose"}
    assert told - named == set()
    of_cluster = {cells[0].strip("`") for cells in rows("What is checked") if "cluster" in cells[1]}
    assert {what for whats in kinds.CLUSTER.values() for what in whats} == of_cluster


# --- the document --------------------------------------------------------------------------------------------------


def test_all_is_well_is_said_of_everything() -> None:
    found = document(clusters.healthy())
    assert (found["level"], found["said"], found["critical"], found["other"]) == (0, "", 0, 0)
    for thing in things.THINGS:
        for one in found[thing.of].values():
            assert [one[alarm.key] for alarm in thing.alarms] == [0] * len(thing.alarms)


def test_what_is_wrong_is_said_of_what_it_is_about() -> None:
    """With the sentence that people read; the worst first where all of it is told."""
    found = document(clusters.bad())
    assert (found["level"], found["critical"]) == (3, 5)
    assert found["hosts"]["node/node3"]["away"] == 3
    assert (
        found["hosts"]["node/node3"]["said"] == "host-off: off, or cut off: 10.88.0.13:22 does not answer within 10 s"
    )
    assert found["apps"]["web"]["replicas"] == 3
    assert found["backups"]["node1"] | {"said": ""} == {
        "age": 3, "refused": 0, "said": "", "every_s": 120, "age_s": 5200
    }  # fmt: skip
    assert (found["gateways"]["gw2"]["stopped"], found["gateways"]["gw2"]["serving"]) == (3, 0)
    assert found["said"].count("\n") == 4


def test_what_is_not_known_is_left_out() -> None:
    found = document(clusters.bad())
    assert not {"cpu_percent", "uptime_s"} & found["hosts"]["node/node3"].keys()
    assert found["nodes"]["node3"] == {"docker": 0, "stranger": 0, "said": "", "up": 0}
    assert "null" not in values.encode(found)


def test_a_host_that_is_gone_ends_none_of_its_troubles() -> None:
    """A full disk is not over because nobody can look at it."""
    silent = Failure("silent", "10.0.0.12:22 does not answer within 10 s", "")
    full = {"root": Disk("root", "/", 100 * GIB, 97 * GIB, 3 * GIB, 1000, 10)}
    short = with_reading(facts(), "node/n2", disks=full)
    found = document(looked(short, short, away(short, "node/n2", silent), away(short, "node/n2", silent)))
    host = found["hosts"]["node/n2"]
    assert (host["away"], host["disk"]) == (3, 3)
    assert host["said"].startswith("host-off: off, or cut off")
    assert "\ndisk: its disk / is 97 % full" in host["said"]


def test_a_kind_of_trouble_that_is_new_is_told_all_the_same() -> None:
    """What no level stands for raises “other”, with its sentence."""
    one = clusters.bad()
    entries = dict(one.judgement.history.entries)
    entries["node/node1:haunted"] = dataclasses.replace(entries["node/node2:disk"], level=2, said="it rattles")
    history = dataclasses.replace(one.judgement.history, entries=entries)
    found = document(dataclasses.replace(one, judgement=dataclasses.replace(one.judgement, history=history)))
    assert (found["other"], found["other_said"]) == (2, "node node1: haunted: it rattles")


def test_a_master_that_is_off_on_purpose_is_no_trouble() -> None:
    off = document(clusters.master_off(on_purpose=True))
    assert (off["off_on_purpose"], off["level"]) == (1, 0)
    assert (off["hosts"]["master/boss"]["reachable"], off["hosts"]["master/boss"]["away"]) == (0, 0)
    gone = document(clusters.master_off(on_purpose=False))
    assert (gone["off_on_purpose"], gone["level"], gone["hosts"]["master/boss"]["away"]) == (0, 3, 3)


def test_a_copy_that_was_late_is_no_trouble_while_the_master_is_off_on_purpose() -> None:
    """As in every other place where people look."""
    late = dataclasses.replace(facts(), targets=(dataclasses.replace(facts().targets[0], confirmed_s=NOW_S - 5000),))
    said_off = OffNotice("root@boss", "2026-11-20T12:00:00Z", "after apply", True, "gw1")
    assert document(looked(late))["backups"]["n1"]["age"] == 3
    off = document(looked(late, late, dataclasses.replace(late, off=said_off)))
    assert (off["backups"]["n1"]["age"], off["backups"]["n1"]["said"], off["level"]) == (0, "", 0)


def test_names_that_nobody_should_have_break_no_path() -> None:
    """They are told as “other”; and nothing is said that a database or an encoding refuses."""
    found = values.values(clusters.hostile())
    text = values.encode(found)
    assert "\n" not in text
    assert not re.search(r"\\u00[01]", text.encode().decode())
    for thing in things.THINGS:
        assert all(values.PLAIN.fullmatch(key) for key in found[thing.of])
    assert found["other"] == 3


def test_a_large_cluster_fits_into_what_an_agent_hands_over() -> None:
    """200 nodes, 1,000 apps."""
    wanted = clusters.tree(200, {f"application-{number:04}": 3 for number in range(1000)})
    text = values.encode(values.values(clusters.looked(clusters.facts(wanted), wanted)))
    assert len(text.encode()) < AGENT_BYTES


# --- the page --------------------------------------------------------------------------------------------------------


def test_every_key_macro_and_problem_is_told() -> None:
    """docs/zabbix.md."""
    told = re.findall(r'"([^"]+)"', PAGE)
    found = document(with_certificate())
    keys = set(found) | set(found["found"]) | {key for rule in found["found"].values() for key in rule[0]}
    for thing in things.THINGS:
        keys |= {figure.key for figure in thing.figures}
        for alarm in thing.alarms:
            assert all(words.replace("is short of ", "") in PAGE for words in (alarm.words, alarm.worst)), alarm
    assert keys <= set(told)
    for alarm in (things.CUT_OFF, *things.CLUSTER_ALARMS, things.OTHER):
        assert alarm.words in PAGE
    assert all(one["macro"] in PAGE for agent in (False, True) for one in whole(agent=agent)["macros"])


# --- sending -------------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[socket.socket, int], None], family: int = socket.AF_INET) -> Iterator[int]:
    """A server that does with each connection what it is told; its port."""
    with socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        answer(connection, port)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield port
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def packet(text: str) -> bytes:
    return b"ZBXD\x01" + len(text).to_bytes(4, "little") + bytes(4) + text.encode()


def said(connection: socket.socket, text: bytes) -> None:
    connection.recv(65536)
    connection.sendall(text)


def accepted(processed: int, failed: int) -> str:
    total = processed + failed
    info = f"processed: {processed}; failed: {failed}; total: {total}; seconds spent: 0.000055"
    return json.dumps({"response": "success", "info": info})


def trickling(connection: socket.socket, port: int) -> None:
    connection.recv(65536)
    for byte in packet(accepted(1, 0)) * 10:
        connection.sendall(bytes([byte]))
        time.sleep(0.3)


def redirecting(connection: socket.socket, port: int) -> None:
    there = {"response": "failed", "redirect": {"revision": 1, "address": f"127.0.0.1:{port}"}}
    said(connection, packet(json.dumps(there)))


BAD: dict[str, tuple[Callable[[socket.socket, int], None], str]] = {
    "closes at once": (lambda _, __: None, ""),
    "says nothing": (lambda _, __: time.sleep(1.5), "timed out"),
    "is another program": (
        lambda connection, _: said(connection, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "is no Zabbix",
    ),
    "says no JSON": (lambda connection, _: said(connection, packet("{]")), "is no Zabbix"),
    "says other JSON": (lambda connection, _: said(connection, packet("[1]")), "is no Zabbix"),
    "says half of it": (lambda connection, _: said(connection, packet(accepted(1, 0))[:-9]), "is no Zabbix"),
    "never ends": (trickling, "timed out"),
    "has no end": (lambda connection, _: said(connection, packet("x" * 200000)), "more than anybody asked for"),
    "redirects in circles": (redirecting, "one redirects to the next"),
}


@pytest.mark.parametrize("server", BAD)
def test_whatever_answers_it_ends_in_time_with_one_message(server: str) -> None:
    """In no longer than was given (here the test's own machine is given much more)."""
    answer, words = BAD[server]
    with answering(answer) as port:
        began_s = time.monotonic()
        with pytest.raises(Unreachable) as raised:
            sender.deliver("{}", f"127.0.0.1:{port}", "prod", 1.0)
        assert time.monotonic() - began_s < 15
        message = str(raised.value)
        assert message.startswith(f"Zabbix at 127.0.0.1:{port} was not told within 1 s: 127.0.0.1: ")
        assert words in message
        assert "\n" not in message


def test_a_value_that_is_taken_is_no_error_and_one_that_is_not_is() -> None:
    """Zabbix says how many it processed, and not why it did not."""
    with answering(lambda connection, _: said(connection, packet(accepted(1, 0)))) as port:
        sender.deliver("{}", f"127.0.0.1:{port}", "prod", 10.0)
    with answering(lambda connection, _: said(connection, packet(accepted(0, 1)))) as port:
        with pytest.raises(sender.NotTaken, match="takes nothing for host prod: 1 of 1 refused") as raised:
            sender.deliver("{}", f"127.0.0.1:{port}", "prod", 10.0)
        assert raised.value.exit_status == 1


def test_one_check_is_one_value_of_one_host() -> None:
    """The whole document, compressed, for the item that all others depend on."""
    got: list[bytes] = []

    def taken(connection: socket.socket, _: int) -> None:
        head = connection.recv(13, socket.MSG_WAITALL)
        assert head[:5] == b"ZBXD\x03"
        got.append(zlib.decompress(connection.recv(int.from_bytes(head[5:9], "little"), socket.MSG_WAITALL)))
        connection.sendall(packet(accepted(1, 0)))

    with answering(taken) as port:
        sender.send(clusters.healthy(), f"127.0.0.1:{port}", "k4t-prod", 10.0)
    (request,) = (json.loads(one) for one in got)
    (sent,) = request["data"]
    assert (request["request"], sent["host"], sent["key"]) == ("sender data", "k4t-prod", "k4t.check")
    assert json.loads(sent["value"]) == document(clusters.healthy())


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_an_ipv6_address_is_a_server_too() -> None:
    with answering(lambda connection, _: said(connection, packet(accepted(1, 0))), socket.AF_INET6) as port:
        sender.deliver("{}", f"[::1]:{port}", "prod", 10.0)


def test_nobody_listens_or_knows_the_name() -> None:
    with pytest.raises(Unreachable, match="it takes no connection"):
        sender.deliver("{}", "127.0.0.1:1", "prod", 2.0)
    with pytest.raises(Unreachable, match=r"nobody knows the address of nowhere\.invalid"):
        sender.deliver("{}", "nowhere.invalid", "prod", 2.0)


def test_a_server_is_a_host_and_maybe_a_port() -> None:
    assert sender.place("zabbix.example.com") == ("zabbix.example.com", 10051)
    assert sender.place("10.0.0.1:20051") == ("10.0.0.1", 20051)
    assert sender.place("[fd00::1]:10051") == ("fd00::1", 10051)
    for wrong in ("", ":10051", "a:0", "a:70000", "a b", "fd00::1", "http://a:1", "a:x"):
        with pytest.raises(Usage):
            sender.place(wrong)
