"""Which certificates a document names, what of them changed, and which are about to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from k4t.master.planning.plan import Publish
from k4t.model.spec import Tree
from k4t.model.state import Observed
from k4t.registrar.document import Certificate, Document, Route

SOON = timedelta(days=14)


def certificates_of(tree: Tree, routes: Iterable[Route]) -> tuple[Certificate, ...]:
    """Those that these routes name and the tree has."""
    names = {route.tls for route in routes} & tree.certificates.keys()
    return tuple(sorted(_certificate(tree, name) for name in names))


def _certificate(tree: Tree, name: str) -> Certificate:
    """Files on the gateways have no hash: what is in them is the operator's to know."""
    found = tree.certificates[name]
    if found.chain:
        return Certificate(name, found.sha256, found.expires)
    return Certificate(name, chain_path=found.chain_path, key_path=found.key_path)


def certified(document: Document, *sources: Iterable[Certificate]) -> Document:
    """The document with just the certificates that its routes name, each from the first source that has it."""
    known: dict[str, Certificate] = {}
    for source in sources:
        for certificate in source:
            known.setdefault(certificate.name, certificate)
    names = {route.tls for route in document.routes} & known.keys()
    return dataclasses.replace(document, certificates=tuple(known[name] for name in sorted(names)))


def by_app(document: Document) -> Mapping[str, tuple[Certificate, ...]]:
    """Those that each app's routes name."""
    known = {certificate.name: certificate for certificate in document.certificates}
    found: dict[str, set[Certificate]] = {}
    for route in document.routes:
        if route.tls in known:
            found.setdefault(route.app, set()).add(known[route.tls])
    return {app: tuple(sorted(certificates)) for app, certificates in found.items()}


def renewed(before: Collection[object], wanted: Collection[object]) -> str:
    """Why an app's routes are set again, where certificates changed; "" where none did."""
    changed = list(_renewals(before, wanted))
    if changed and any(not isinstance(item, Certificate) for item in {*before} ^ {*wanted}):
        changed.insert(0, "routes or checks changed")
    return "; ".join(changed)


def _renewals(before: Iterable[object], wanted: Iterable[object]) -> Iterator[str]:
    """What becomes of certificates of one name, in words with the days on which they end."""
    old = {item.name: item for item in before if isinstance(item, Certificate)}
    for new in sorted(item for item in wanted if isinstance(item, Certificate)):
        then = old.get(new.name)
        if then is None or then == new:
            continue
        days = [_day(then.expires), _day(new.expires)]
        if all(days) and days[0] != days[1]:
            yield f"certificate {new.name}: valid until {days[0]} → {days[1]}"
        else:
            yield f"certificate {new.name} changed" + (f", valid until {days[1]}" if days[1] else "")


def keys_wanted(tree: Tree, work: Publish, observed: Observed) -> tuple[str, ...]:
    """The secrets of certificates that this publication brings to a gateway that lacks them."""
    if work.kind != "gateway":
        return ()
    members = [one for one in observed.gateways.values() if one.group == work.group and one.reachable]
    held = [{known.sha256 for known in one.document.certificates} if one.document else set() for one in members]
    routes = [route for app in work.settle if app in tree.apps for route in tree.apps[app].routes]
    named = {route.tls for route in routes if route.group == work.group} & tree.certificates.keys()
    found = [tree.certificates[name] for name in sorted(named)]
    return tuple(one.key_secret for one in found if one.key_secret and any(one.sha256 not in had for had in held))


def _day(time: str) -> str:
    return time[:10]


def certificate_warnings(tree: Tree, at: str) -> Iterator[str]:
    """What has ended or soon will, of what routes name. `at`: now, RFC 3339 UTC."""
    used = {route.tls for app in tree.apps.values() for route in app.routes}
    for name in sorted(used & tree.certificates.keys()):
        found = tree.certificates[name]
        if not found.expires:
            continue
        left = datetime.fromisoformat(found.expires) - datetime.fromisoformat(at)
        if left < timedelta(0):
            yield f"{found.where}: certificate {name} expired on {_day(found.expires)}: clients refuse it"
        elif left < SOON:
            yield f"{found.where}: certificate {name} expires on {_day(found.expires)}, in {left.days} days"
