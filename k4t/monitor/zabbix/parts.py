"""The parts a template is made of, as Zabbix 6.0 writes them on export. Pure; every identifier follows from the key, so
that the same template is the same file, and a newer one replaces it.

https://www.zabbix.com/documentation/6.0/en/manual/xml_export_import/templates
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from k4t.model.value import value
from k4t.monitor.zabbix.kinds import Kinds

Part = dict[str, Any]
LEVELS = "k4t level"
YES_NO = "k4t yes or no"
HISTORY, TRENDS = "14d", "365d"
QUIET, QUIET_LEVEL = "1h", "5m"
"""A value that does not change is written down so often. A trigger that was not known yet when its value came sees the
next one alone."""
COLORS = ("1A7C11", "2774A4", "F63100", "A54F10", "FC6EA3", "6C59DC")
CRITICAL, WARNING, UNKNOWN = 3, 2, 1


def uuid_of(*words: str) -> str:
    """A UUID of version 4 by its form, as Zabbix wants it: 32 hexadecimal digits, no hyphens."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4).hex


@value
class Figure:
    """One number or text of a thing, by its name in the document. `kind`: level, yes-no, count, figure, time, text.
    `quiet`: an unchanged value is not written down again (for an hour)."""

    key: str
    name: str
    kind: str = "count"
    units: str = ""
    quiet: bool = True


@value
class Alarm:
    """What is raised by one level of a thing. `words` come behind the thing's name; `worst` in their place when it is
    critical, `unknown` when it can't be known, which else is not told. `unless`: of the same thing, the level that
    stands for this one when it is critical."""

    key: str
    words: str
    means: str
    critical: str = "HIGH"
    warning: str = "WARNING"
    unless: str = ""
    scope: str = "availability"
    worst: str = ""
    unknown: str = ""


@value
class Thing:
    """A kind of things that is discovered: `of` is its name in the document, `singular` in keys. `title`: how one is
    called; {#KEY} is its name, but for hosts and what is on them ({#NAME}). `graphs`: name and the figures on it."""

    of: str
    singular: str
    title: str
    figures: tuple[Figure, ...]
    alarms: tuple[Alarm, ...] = ()
    graphs: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    kinds: Kinds = field(default_factory=dict)
    chosen: bool = False
    """Whether macros choose which of them are taken."""

    def key(self, figure: str) -> str:
        return f"k4t.{self.singular}.{figure}[{{#KEY}}]"

    @property
    def macro(self) -> str:
        return f"K4T.{self.singular.upper()}"


def step(kind: str, *parameters: str, failing: str = "", instead: str | None = None) -> Part:
    """One step of preprocessing. `failing`: what happens when it fails, by its name in Zabbix."""
    found: Part = {"type": kind, "parameters": list(parameters)}
    if failing:
        found["error_handler"] = failing
    if instead:
        found["error_handler_params"] = instead
    return found


def item(template: str, key: str, figure: Figure, *, master: str, path: str, tags: Mapping[str, str]) -> Part:
    """A dependent item. A thing that is gone has no troubles, and no figures."""
    found: Part = {
        "uuid": uuid_of(template, "item", key), "name": figure.name, "type": "DEPENDENT", "key": key, "delay": "0",
        "history": HISTORY,
    }  # fmt: skip
    steps = [step("JSONPATH", path, failing="DISCARD_VALUE")]
    if figure.kind == "level":
        found |= {"trends": "0", "valuemap": {"name": LEVELS}}
        steps = [step("JSONPATH", path, failing="CUSTOM_VALUE", instead="0")]
    elif figure.kind == "yes-no":
        found |= {"trends": "0", "valuemap": {"name": YES_NO}}
    elif figure.kind == "text":
        found |= {"trends": "0", "value_type": "TEXT"}
    else:
        found |= {"trends": TRENDS} | ({"value_type": "FLOAT"} if figure.kind == "figure" else {})
    if figure.units:
        found["units"] = figure.units
    if figure.quiet:
        steps.append(step("DISCARD_UNCHANGED_HEARTBEAT", QUIET_LEVEL if figure.kind in ("level", "text") else QUIET))
    return found | {"preprocessing": steps, "master_item": {"key": master}, "tags": tagged(tags)}


def document(template: str, key: str, name: str, tags: Mapping[str, str], *, master: str = "", path: str = "") -> Part:
    """A part of the document that others depend on, not kept."""
    found: Part = {"uuid": uuid_of(template, "item", key), "name": name}
    if master:
        found["type"] = "DEPENDENT"
    found |= {"key": key, "delay": "0", "history": "0", "trends": "0", "value_type": "TEXT"}
    if master:
        found["preprocessing"] = [step("JSONPATH", path, failing="CUSTOM_VALUE", instead="{}")]
        found["master_item"] = {"key": master}
    return found | {"tags": tagged(tags)}


def trigger(
    template: str,
    name: str,
    expression: str,
    priority: str,
    tags: Mapping[str, str],
    *,
    id: str,
    description: str,
    operational: str,
    event: str = "",
    after: Sequence[Part] = (),
) -> Part:
    """`id`: what stays when it is called otherwise; `after`: triggers that stand for this one while they are a
    problem."""
    found: Part = {"uuid": uuid_of(template, "trigger", id), "expression": expression, "name": name}
    if event:
        found["event_name"] = event
    found |= {"opdata": operational, "priority": priority, "description": description}
    if after:
        found["dependencies"] = [{"name": one["name"], "expression": one["expression"]} for one in after]
    return found | {"tags": tagged(tags)}


def graph(template: str, name: str, keys: Sequence[str]) -> Part:
    return {
        "uuid": uuid_of(template, "graph", name),
        "name": name,
        "graph_items": [
            {"sortorder": str(place), "color": COLORS[place], "item": {"host": template, "key": key}}
            for place, key in enumerate(keys)
        ],
    }


def raised(
    template: str,
    named: str,
    alarm: Alarm,
    *,
    level: str,
    said: str,
    whats: Sequence[str],
    tags: Mapping[str, str],
    after: Sequence[Part] = (),
) -> list[Part]:
    """The triggers of one level of what is called `named`: the critical one first, which stands for the next. `level`
    and `said` are items; what the second one says of `whats` (none: of anything) is shown with the problem, and waited
    for: Zabbix takes them in one by one, in any order."""
    found: list[Part] = []
    line = f"(?m)^(?:{'|'.join(whats)}): " if whats else "."
    degrees = [(CRITICAL, alarm.critical, alarm.worst or alarm.words), (WARNING, alarm.warning, alarm.words)]
    degrees += [(UNKNOWN, "INFO", alarm.unknown)] if alarm.unknown else []
    for severity, priority, words in degrees:
        made = trigger(
            template,
            f"{named} {words}",
            f'last(/{template}/{level})>={severity} and find(/{template}/{said},,"regexp","{line}")=1',
            priority,
            {"scope": alarm.scope, **tags},
            id=f"{level} {severity}",
            description=alarm.means,
            event=f"{named} {words}: {words_of(whats)}",
            operational=words_of(whats),
            after=[*found[-1:], *after],
        )
        found.append(made)
    return found


def words_of(whats: Sequence[str]) -> str:
    """The first line about these of what the second item of an expression says. Without the function it would be cut
    after 20 characters."""
    line = f"^((?:{'|'.join(whats)}): .*)" if whats else "^(.*)"
    return f'{{{{ITEM.LASTVALUE2}}.regsub("(?m){line}", "\\1")}}'


def tagged(tags: Mapping[str, str]) -> list[Part]:
    return [{"tag": tag, "value": said} for tag, said in tags.items()]


def discovery(template: str, thing: Thing, master: str, apart: Sequence[Part]) -> Part:
    """One kind of things, found in the document. `apart`: triggers of the cluster that stand for all of theirs."""
    tags = {"component": thing.singular, "name": "{#KEY}", **thing.tags}
    whole = thing.key("get")
    items = [
        document(
            template, whole, f"{thing.title}: everything", {"component": "raw"}, master=master,
            path=f'$.{thing.of}["{{#KEY}}"]',
        )
    ]  # fmt: skip
    for figure in thing.figures:
        made = item(template, thing.key(figure.key), figure, master=whole, path=f"$.{figure.key}", tags=tags)
        items.append(made | {"name": f"{thing.title}: {figure.name}"})
    alarms: dict[str, list[Part]] = {}
    for alarm in thing.alarms:
        after = [*alarms[alarm.unless][:1]] if alarm.unless else [*apart]
        alarms[alarm.key] = raised(
            template, thing.title, alarm, level=thing.key(alarm.key), said=thing.key("said"),
            whats=thing.kinds[alarm.key], tags={"k4t": thing.singular}, after=after,
        )  # fmt: skip
    found: Part = {
        "uuid": uuid_of(template, "discovery", thing.of), "name": f"k4t: {thing.of}", "type": "DEPENDENT",
        "key": f"k4t.{thing.of}.discovery", "delay": "0",
    }  # fmt: skip
    if thing.chosen:
        found["filter"] = _filter(thing)
    found |= {"lifetime": "7d", "item_prototypes": items}
    if alarms:
        found["trigger_prototypes"] = [one for made in alarms.values() for one in made]
    if thing.graphs:
        found["graph_prototypes"] = [
            graph(template, f"{thing.title}: {name}", [thing.key(key) for key in keys]) for name, keys in thing.graphs
        ]
    return found | {
        "master_item": {"key": master},
        "preprocessing": [step("JSONPATH", f"$.found.{thing.of}"), step("DISCARD_UNCHANGED_HEARTBEAT", QUIET)],
    }


def _filter(thing: Thing) -> Part:
    return {
        "evaltype": "AND",
        "conditions": [
            {"macro": "{#KEY}", "value": f"{{${thing.macro}.MATCHES}}", "formulaid": "A"},
            {
                "macro": "{#KEY}", "value": f"{{${thing.macro}.NOT_MATCHES}}", "operator": "NOT_MATCHES_REGEX",
                "formulaid": "B",
            },
        ],
    }  # fmt: skip
