"""What the operator's own commands are told: which calls, in which order (driver script). Pure.

A `Thing` is a cluster, an endpoint, a route or an address. Two verbs make it and take it away; their argument lists
hold `${variables}`, filled one argument at a time, and never seen by a shell. What is not named in either of them makes
no difference: things that only differ there are one.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .document import Check, Endpoint, Route
from .union import Named, Union

Verbs = Mapping[str, Sequence[str]]
"""By verb, the argument list."""

PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
MAX_LISTED = 100_000
APP = ("app", "port_name", "pool", "protocol")
VARIABLES: Dict[str, Tuple[str, ...]] = {
    "cluster": (*APP, "check", "check_path", "check_interval_ms", "check_timeout_ms", "check_retries"),
    "endpoint": (*APP, "ip", "port", "address"),
    "route": (
        *APP, "domains", "prefix", "listen", "tls", "chain", "key", "redirect", "strip_prefix", "weight", "timeout_ms",
        "retries", "balance", "affinity", "upstream",
    ),
    "address": ("app", "name", "zone", "label", "type", "ip", "ttl_s"),
}  # fmt: skip
STAGES: Dict[str, Tuple[Tuple[str, str, str], ...]] = {
    "gateway": (
        ("cluster", "add-cluster", "remove-cluster"),
        ("endpoint", "add", "remove"),
        ("route", "add-route", "remove-route"),
    ),
    "dns": (("address", "add", "remove"),),
}
"""(stage, verb that makes, verb that takes away), in the order in which things are made; they go in the other one."""
PLAIN = ("list", "check")
"""Verbs that take no variables."""
ASKED = (
    ("tls", ("tls", "chain"), "tls"),
    ("redirect", ("redirect",), "redirect"),
    ("strip_prefix", ("strip_prefix",), "strip-prefix"),
    ("affinity", ("affinity",), "affinity"),
)


class BadVerbs(ValueError):
    """Which verb or variable there isn't, and which there are."""


@dataclasses.dataclass(frozen=True)
class Thing:
    """`values`: of every variable of its stage, sorted."""

    stage: str
    values: Tuple[Tuple[str, str], ...]

    def __getitem__(self, variable: str) -> str:
        return dict(self.values).get(variable, "")

    @property
    def words(self) -> str:
        if self.stage == "endpoint":
            return "%s %s" % (self["pool"], self["address"])
        if self.stage == "address":
            return "%s %s" % (self["name"], self["ip"])
        if self.stage == "route":
            place = "port " + self["listen"] if self["listen"] else self["domains"] + self["prefix"]
            return "route %s of %s" % (place, self["app"])
        return "cluster %s" % self["pool"]


def thing(stage: str, **values: object) -> Thing:
    return Thing(stage, tuple(sorted((name, str(content)) for name, content in values.items())))


# --- verbs -----------------------------------------------------------------------------------------------------------


def stages(kind: str, verbs: Verbs) -> List[Tuple[str, str, str]]:
    """Those that there are commands for."""
    return [stage for stage in STAGES[kind] if stage[1] in verbs]


def check_verbs(kind: str, verbs: Verbs) -> None:
    """Raises BadVerbs."""
    known = {verb: VARIABLES[stage] for stage, *both in STAGES[kind] for verb in both}
    for verb, argv in verbs.items():
        if verb not in (*known, *PLAIN):
            raise BadVerbs("a %s has no verb %r; it has %s" % (kind, verb, ", ".join([*known, *PLAIN])))
        if not argv:
            raise BadVerbs("verb %s names no program" % verb)
        for name in used(argv):
            if name not in known.get(verb, ()):
                raise BadVerbs(
                    "verb %s has no ${%s}; it has %s" % (verb, name, ", ".join(known.get(verb, ())) or "none")
                )
    for _, make, take in STAGES[kind]:
        if (make in verbs) != (take in verbs) or (make == "add" and make not in verbs):
            raise BadVerbs("verbs %s and %s go together%s" % (make, take, ", and are needed" if make == "add" else ""))


def used(argv: Iterable[str]) -> Set[str]:
    """Names of the variables in it; "" for a `${` that is not closed."""
    found = (match for argument in argv for match in PLACE.finditer(argument))
    return {match[1] or "" for match in found if match[0] != "$${"}


def route_variables(verbs: Verbs) -> Set[str]:
    return used(verbs.get("add-route", ())) | used(verbs.get("add", ()))


def filled(argv: Sequence[str], one: Thing) -> List[str]:
    """One argument list. `$${` stands for `${`."""

    def value(match: "re.Match[str]") -> str:
        return "${" if match[0] == "$${" else one[match[1] or ""]

    return [PLACE.sub(value, argument) for argument in argv]


def lacking(route: Route, verbs: Verbs) -> List[str]:
    """What a route says and no command is told of."""
    said = route_variables(verbs)
    usual = Route(route.app)
    found = [
        word
        for field, names, word in ASKED
        if getattr(route, field) != getattr(usual, field) and not said.intersection(names)
    ]
    found += ["weight"] if route.weight >= 0 and "weight" not in said else []
    found += ['upstream="%s"' % route.upstream] if route.upstream != "http1" and "upstream" not in said else []
    found += ["listen"] if route.listen and "listen" not in said else []
    return found + (["udp"] if route.listen and route.protocol == "udp" and "protocol" not in said else [])


# --- from a union to things ------------------------------------------------------------------------------------------


def things(kind: str, union: Union, zones: Sequence[str], root: str = "/") -> List[Thing]:
    """Everything that should be there, stage by stage, in the order in which it is made."""
    return _addresses(union, zones) if kind == "dns" else _gateway(union, root)


def _gateway(union: Union, root: str) -> List[Thing]:
    from .routing import certificate_paths

    endpoints = [endpoint for endpoint in union.endpoints if endpoint.port]
    pools = {(e.app, e.port_name): e.protocol for e in endpoints}
    pools.update({(r.app, r.port_name): r.protocol for r in union.routes})
    checks = {(check.app, check.port_name): check for check in union.checks}
    made = [
        thing("cluster", **_app(app, port_name, protocol), **_check(checks.get((app, port_name))))
        for (app, port_name), protocol in sorted(pools.items())
    ]
    made += [endpoint_thing(endpoint) for endpoint in endpoints]
    pairs = {pair.name: pair for pair in union.certificates}
    for route in union.routes:
        pair = pairs.get(route.tls)
        paths = (pair.chain_path, pair.key_path) if pair else ("", "")
        if pair and pair.sha256:
            paths = certificate_paths(root, pair.cluster, pair.sha256)
        made.append(_route(route, paths))
    return made


def _check(check: Optional[Check]) -> Dict[str, object]:
    check = check or Check("", "", kind="none", path="", interval_ms=0, timeout_ms=0, retries=0)
    return {
        "check": check.kind,
        "check_path": check.path,
        "check_interval_ms": check.interval_ms,
        "check_timeout_ms": check.timeout_ms,
        "check_retries": check.retries,
    }


def _app(app: str, port_name: str, protocol: str) -> Dict[str, str]:
    return {"app": app, "port_name": port_name, "pool": "%s.%s" % (app, port_name), "protocol": protocol}


def endpoint_thing(endpoint: Endpoint) -> Thing:
    ip = ipaddress.ip_address(endpoint.ip)
    address = ("[%s]:%d" if ip.version == 6 else "%s:%d") % (ip, endpoint.port)
    app = _app(endpoint.app, endpoint.port_name, endpoint.protocol)
    return thing("endpoint", ip=ip, port=endpoint.port, address=address, **app)


def _route(route: Route, paths: Tuple[str, str]) -> Thing:
    return thing(
        "route", **_app(route.app, route.port_name, route.protocol),
        domains=",".join(route.domains) or "*", prefix=route.prefix, listen=route.listen or "", tls=route.tls,
        chain=paths[0], key=paths[1], redirect=route.redirect, strip_prefix=str(route.strip_prefix).lower(),
        weight="" if route.weight < 0 else route.weight, timeout_ms=route.timeout_ms, retries=route.retries,
        balance=route.balance, affinity=route.affinity, upstream=route.upstream,
    )  # fmt: skip


def _addresses(union: Union, zones: Sequence[str]) -> List[Thing]:
    found: Dict[Tuple[str, str], Thing] = {}
    for named in union.records:
        record = named.record
        ips = record.to or [
            endpoint.ip
            for endpoint in union.endpoints
            if endpoint.app == record.app and record.port_name in ("", endpoint.port_name)
        ]
        for ip in ips if record.type == "address" else ():
            made = address_thing(named, ip, zones)
            found.setdefault((made["name"], made["ip"]), made)
    return [found[key] for key in sorted(found)]


def address_thing(named: Named, ip: str, zones: Sequence[str]) -> Thing:
    zone = max((z for z in zones if named.name == z or named.name.endswith("." + z)), key=len, default="")
    label = "@" if named.name == zone else named.name[: -len(zone) - 1] if zone else named.name
    address = ipaddress.ip_address(ip)
    return thing(
        "address", app=named.record.app, name=named.name, zone=zone, label=label, ip=address,
        type="A" if address.version == 4 else "AAAA", ttl_s=named.record.ttl_s,
    )  # fmt: skip


# --- what is to be called --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Done:
    """What was called for. Not `sure`: begun, and nobody knows whether it came to its end."""

    thing: Thing
    sure: bool = True


@dataclasses.dataclass(frozen=True)
class Call:
    argv: List[str]
    thing: Thing


@dataclasses.dataclass(frozen=True)
class Calls:
    """`forgotten`: of what is gone, but was replaced by something whose removal would be the very same call."""

    add: Tuple[Call, ...]
    remove: Tuple[Call, ...]
    forgotten: Tuple[Thing, ...]


class Book:
    """One driver's commands, and what makes two things the same to them."""

    def __init__(self, kind: str, verbs: Verbs) -> None:
        self.kind = kind
        self.verbs = verbs
        self._both = {stage: (make, take) for stage, make, take in stages(kind, verbs)}
        self._order = list(self._both)
        self._used = {stage: used([*verbs[make], *verbs[take]]) for stage, (make, take) in self._both.items()}

    def same(self, one: Thing) -> Tuple[object, ...]:
        """Equal for what these commands can't tell apart."""
        known = self._used.get(one.stage, set())
        return (one.stage, *(pair for pair in one.values if pair[0] in known))

    def wanted(self, found: Iterable[Thing]) -> Dict[Tuple[object, ...], Thing]:
        made: Dict[Tuple[object, ...], Thing] = {}
        for one in found:
            if one.stage in self._both:
                made.setdefault(self.same(one), one)
        return made

    def take(self, one: Thing) -> Call:
        return Call(filled(self.verbs[self._both[one.stage][1]], one), one)

    def make(self, one: Thing) -> Call:
        return Call(filled(self.verbs[self._both[one.stage][0]], one), one)

    def calls(self, found: Iterable[Thing], done: Iterable[Done]) -> Calls:
        """From what was done to what should be there. What is new comes before what is old goes."""
        wanted = self.wanted(found)
        known = {self.same(one.thing): one for one in done}
        sure = {key for key, one in known.items() if one.sure}
        add = [self.make(one) for key, one in wanted.items() if key not in sure]
        stay = {tuple(self.take(one).argv) for one in wanted.values()}
        gone = [one.thing for key, one in known.items() if key not in wanted]
        remove, forgotten = [], []
        for one in gone:
            if one.stage not in self._both or tuple(self.take(one).argv) in stay:
                forgotten.append(one)
            else:
                remove.append(self.take(one))
        place = self._order.index
        return Calls(
            tuple(sorted(add, key=lambda call: place(call.thing.stage))),
            tuple(sorted(remove, key=lambda call: -place(call.thing.stage))),
            tuple(forgotten),
        )


# --- what `list` says ------------------------------------------------------------------------------------------------

Listed = Set[Tuple[str, ...]]


def listed(kind: str, text: str) -> Listed:
    """One `NAME IP PORT` a line (DNS: `NAME IP`); more words, empty lines and `#` are nobody's. Raises BadVerbs."""
    found: Listed = set()
    for number, line in enumerate(text.splitlines()[:MAX_LISTED], 1):
        words = line.split("#")[0].split()
        row = _row(kind, words) if words else ()
        if row is None:
            raise BadVerbs("line %d of what list says is no %s: %r" % (number, _form(kind), line[:80]))
        if row:
            found.add(row)
    return found


def _form(kind: str) -> str:
    return "`NAME IP`" if kind == "dns" else "`NAME IP PORT`"


def _row(kind: str, words: Sequence[str]) -> Optional[Tuple[str, ...]]:
    if len(words) < (2 if kind == "dns" else 3):
        return None
    try:
        ip = str(ipaddress.ip_address(words[1].strip("[]")))
    except ValueError:
        return None
    if kind == "dns":
        return (words[0].rstrip(".").lower(), ip)
    return (words[0], ip, words[2]) if words[2].isdigit() else None


def shown(one: Thing) -> Set[Tuple[str, ...]]:
    """The rows, any of which says that it is there; none for what isn't listed."""
    if one.stage == "endpoint":
        return {(one[name], one["ip"], one["port"]) for name in ("app", "pool")}
    return {(one["name"], one["ip"])} if one.stage == "address" else set()


def strays(found: Listed, wanted: Iterable[Thing], done: Iterable[Thing]) -> List[Thing]:
    """What is listed under a name of ours and isn't wanted. Other names are somebody else's."""
    wanted, known = list(wanted), list(done)
    right = {row for one in wanted for row in shown(one)}
    by_row = {row: one for one in known for row in shown(one)}
    names = {row[0]: one for one in [*known, *wanted] for row in shown(one)}
    made = []
    for row in sorted(found - right):
        if row in by_row:
            made.append(by_row[row])
        elif row[0] in names:
            made.append(_like(names[row[0]], row))
    return made


def _like(one: Thing, row: Tuple[str, ...]) -> Thing:
    if one.stage == "endpoint":
        return endpoint_thing(Endpoint(one["app"], row[1], int(row[2]), one["port_name"], one["protocol"]))
    values: Dict[str, Any] = dict(one.values)
    values.update(ip=row[1], type="AAAA" if ":" in row[1] else "A")
    return thing("address", **values)
