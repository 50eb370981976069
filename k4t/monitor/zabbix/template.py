"""The template that Zabbix 6.0 and newer imports, as YAML. Pure, and the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k4t.monitor.zabbix import parts, things
from k4t.monitor.zabbix.kinds import CLUSTER
from k4t.monitor.zabbix.parts import Alarm, Part

VERSION = "6.0"
GROUP = ("Templates/Applications", "a571c0d144b14fd4a87a9d9b2aa9fcd6")
"""Zabbix's own, by its own identifier."""
BY_SENDER, BY_AGENT = "k4t by sender", "k4t by agent"
MASTER, AGENT_MASTER = "k4t.check", "k4t.check[{$K4T.TREE}]"
NO_DATA, TOOK = "{$K4T.NODATA}", "{$K4T.TOOK.MAX}"
DESCRIPTION = (
    "A k4t cluster as its monitor sees it: hosts, Docker, apps, gateways, DNS servers, copies, certificates. k4t "
    "judges itself, by the thresholds of monitor.xml, and nothing flaps.\n\n"
)
SENT = "Values are sent by: k4t monitor export zabbix --server HOST:PORT --host NAME"
ASKED = "The agent has: UserParameter=k4t.check[*],k4t --db /srv/k4t/$1 monitor export zabbix 2>/dev/null"


def template(*, agent: bool = False) -> str:
    """`agent`: an agent is asked for the document, instead of somebody sending it."""
    import yaml

    text: str = yaml.safe_dump(
        {"zabbix_export": made(agent=agent)}, sort_keys=False, allow_unicode=True, width=10000, default_flow_style=False
    )
    return text


def made(*, agent: bool = False) -> Part:
    name, master = (BY_AGENT, AGENT_MASTER) if agent else (BY_SENDER, MASTER)
    cluster = _triggers(name)
    apart = [one for one in cluster if one["name"].endswith(things.CUT_OFF.words)]
    found: Part = {
        "uuid": parts.uuid_of(name, "template"),
        "template": name,
        "name": name,
        "description": DESCRIPTION + (ASKED if agent else SENT),
        "groups": [{"name": GROUP[0]}],
        "items": _items(name, master, agent=agent),
        "discovery_rules": [parts.discovery(name, one, master, apart) for one in things.THINGS],
        "tags": parts.tagged({"class": "application", "target": "k4t"}),
        "macros": _macros(agent=agent),
        "valuemaps": [
            _valuemap(name, parts.LEVELS, {"0": "well", "1": "unknown", "2": "warning", "3": "critical"}),
            _valuemap(name, parts.YES_NO, {"0": "no", "1": "yes"}),
        ],
    }
    return {
        "version": VERSION,
        "groups": [{"uuid": GROUP[1], "name": GROUP[0]}],
        "templates": [found],
        "triggers": cluster,
        "graphs": [parts.graph(name, "k4t: raised", [_key(one) for one in ("critical", "warning", "unknown")])],
    }


def _key(figure: str) -> str:
    return f"k4t.{figure}"


def _items(name: str, master: str, *, agent: bool) -> list[Part]:
    whole = parts.document(name, master, "k4t: a check", {"component": "raw"})
    kind = {"type": "ZABBIX_PASSIVE", "delay": "{$K4T.INTERVAL}"} if agent else {"type": "TRAP"}
    # what is no document of ours makes the item unsupported, and says why; nothing that depends on it changes
    whole |= kind | {"preprocessing": [parts.step("MATCHES_REGEX", r'^\{"version":1,.*\}\s*$')]}
    found = [whole]
    for figure in things.CLUSTER:
        one = parts.item(
            name, _key(figure.key), figure, master=master, path=f"$.{figure.key}", tags={"component": "cluster"}
        )
        found.append(one | {"name": f"k4t: {figure.name}"})
    return found


def _triggers(name: str) -> list[Part]:
    def alarm(one: Alarm, said: str = "cluster_said") -> list[Part]:
        return parts.raised(
            name, "k4t:", one, level=_key(one.key), said=_key(said), whats=CLUSTER.get(one.key, ()),
            tags={"k4t": "cluster"},
        )  # fmt: skip

    silent = parts.trigger(
        name, f"k4t: nothing is heard for {NO_DATA}", f"nodata(/{name}/{_key('checked_at')},{NO_DATA})=1", "HIGH",
        {"scope": "availability", "k4t": "cluster"}, id="nodata", operational="last: {ITEM.LASTVALUE1}",
        description="No check has come: does what runs it still run, and does it reach this server?",
    )  # fmt: skip
    slow = parts.trigger(
        name, f"k4t: checks take more than {TOOK}", f"min(/{name}/{_key('took_s')},#3)>{TOOK}", "WARNING",
        {"scope": "performance", "k4t": "cluster"}, id="took", operational="{ITEM.LASTVALUE1}",
        description="Three of them in a row. A host that hangs is waited for.",
    )  # fmt: skip
    cut_off = alarm(things.CUT_OFF)
    return [
        silent, slow, *cut_off[:1], *(one for other in things.CLUSTER_ALARMS for one in alarm(other)),
        *alarm(things.OTHER, "other_said"),
    ]  # fmt: skip


def _macros(*, agent: bool) -> list[Part]:
    found = {
        NO_DATA: ("5m", "No check for so long is a problem."),
        TOOK: ("30s", "A check that takes longer is worth a warning."),
    }
    if agent:
        found["{$K4T.TREE}"] = ("db", "What the agent is asked for: the last part of the tree's path.")
        found["{$K4T.INTERVAL}"] = ("1m", "How often the agent is asked.")
    for thing in things.THINGS:
        if thing.chosen:
            found[f"{{${thing.macro}.MATCHES}}"] = (".*", f"Of {thing.of}, those whose name matches are taken.")
            found[f"{{${thing.macro}.NOT_MATCHES}}"] = ("CHANGE_IF_NEEDED", "Of these, not those that match this.")
    return [
        {"macro": macro, "value": default, "description": words} for macro, (default, words) in sorted(found.items())
    ]


def _valuemap(name: str, of: str, words: Mapping[str, str]) -> dict[str, Any]:
    mappings = [{"value": number, "newvalue": word} for number, word in words.items()]
    return {"uuid": parts.uuid_of(name, "valuemap", of), "name": of, "mappings": mappings}
