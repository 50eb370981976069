"""What belongs to no host alone: copies, locks, publications that are not over, certificates. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.monitor.facts import Subject, Target
from k4t.monitor.signs.sign import CRITICAL, OK, UNKNOWN, WARNING, Sign, View, ago, judged, listed, unix_s

DENIED = 'log in as root there, or set <ssh sudo="true"/>'


def signs(view: View) -> Iterator[Sign]:
    for target in view.facts.targets:
        if f"backup/{target.name}" not in view.blind:
            yield from _copies(view, target)
    yield from _lock(view)
    yield from _transactions(view)
    yield from _certificates(view)


def _copies(view: View, target: Target) -> Iterator[Sign]:
    subject, threshold = Subject("backup", target.name), view.tree.monitor.backup_age(target.every_s)
    if target.confirmed_s is not None:
        age_s = max(0.0, view.now_s - target.confirmed_s)
        sentence = f"the newest copy is {ago(age_s)} old; one is due every {ago(target.every_s)}"
        sign = Sign(subject, "backup-age", OK, sentence, "k4t backup", age_s)
        yield from judged(sign, threshold)
    elif target.state == "none":
        yield Sign(subject, "backup-age", WARNING, "there is no copy yet", "k4t backup")
    elif target.state == "denied":
        yield Sign(subject, "backup-age", UNKNOWN, f"how old its copy is can't be read: {target.problem}", DENIED)
    else:
        sentence = f"what it says of its copies is not genuine: {target.problem}"
        yield Sign(subject, "backup-refused", CRITICAL, sentence, f"k4t backup verify; look at {target.name}")


def _lock(view: View) -> Iterator[Sign]:
    """Of all hosts that say so, the one that has held it longest. No lock is ever stale: somebody works, or waits."""
    ages = {key: age_s for key, host in view.facts.hosts.items() if (age_s := view.lock_age_s(host)) is not None}
    if not ages:
        return
    key = max(ages, key=lambda one: ages[one])
    host = view.facts.hosts[key]
    holder = host.reading.lock if host.reading else None
    words = holder.words if holder else "a run that left no name"
    sentence = f"held for {ago(ages[key])} by {words}"
    remedy = "is that run waiting for an answer? end it there; its lock goes with it"
    yield from judged(
        Sign(Subject("cluster", view.facts.cluster), "lock-held", OK, sentence, remedy, ages[key]),
        view.tree.monitor.threshold("lock-age"),
    )


def _transactions(view: View) -> Iterator[Sign]:
    ages = {}
    for one in view.facts.transactions:
        since_s = one.since_s if one.since_s is not None else view.firsts.get(one.id)
        ages[one.id] = max(0.0, view.now_s - since_s) if since_s is not None else 0.0
    if not ages:
        return
    oldest = max(view.facts.transactions, key=lambda one: ages[one.id])
    words = [f"{one.id[:12]} on {one.on} is {one.state}" for one in view.facts.transactions]
    sentence = f"open for {ago(ages[oldest.id])}: {listed(words)}"
    yield from judged(
        Sign(
            Subject("cluster", view.facts.cluster),
            "transaction-open",
            OK,
            sentence,
            "k4t txn list; k4t apply ends it",
            ages[oldest.id],
        ),
        view.tree.monitor.threshold("transaction-age"),
    )


def certificate_ends(view: View) -> dict[str, str]:
    """When what gateways serve, and what of the tree routes name, ends; of one name, what ends first."""
    ends: dict[str, str] = {}
    for member in view.facts.gateways.values():
        for served in member.document.certificates if member.document else ():
            if served.expires:
                ends[served.name] = min(served.expires, ends.get(served.name, served.expires))
    used = {route.tls for app in view.tree.apps.values() for route in app.routes}
    for name, certificate in view.tree.certificates.items():
        if name in used and certificate.expires:
            ends[name] = min(certificate.expires, ends.get(name, certificate.expires))
    return ends


def _certificates(view: View) -> Iterator[Sign]:
    for name, expires in sorted(certificate_ends(view).items()):
        end_s = unix_s(expires)
        if end_s is None:
            continue
        left_s = end_s - view.now_s
        words = (
            f"ends in {ago(left_s)}, on {expires[:10]}" if left_s > 0 else f"ended on {expires[:10]}: clients refuse it"
        )
        sign = Sign(
            Subject("certificate", name),
            "certificate-expiry",
            OK,
            words,
            f"renew certificates/{name}.xml's chain, and k4t apply",
            left_s,
        )
        yield from judged(sign, view.tree.monitor.threshold("certificate-expiry"))
