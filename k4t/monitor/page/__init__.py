"""What one check saw, as one HTML file for any browser: no server, no request to anywhere, and no name or message is
more than text in it. Pure: (looked, tree, revisions, now) → text.

The page looks for its successor every `refresh_s`, and says that it is old after STALE_REFRESHES of them.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from k4t.model.spec import Tree
from k4t.model.state import Revision
from k4t.monitor.check import Looked
from k4t.monitor.events import Event
from k4t.monitor.facts import Facts
from k4t.monitor.page import apps, cluster_map, lately, past, sizes, style, wrong
from k4t.monitor.page.markup import Html, element
from k4t.monitor.page.view import Page, badge, named, time
from k4t.monitor.signs.sign import ago

REFRESH_S = 30.0
NOTHING: Mapping[str, str] = {}
STALE_REFRESHES = 4
STALE_LEAST_S = 120.0
"""Cron writes once a minute at most."""
OLD = "Nobody has written this page for too long. What follows is old."


def page(
    looked: Looked,
    tree: Tree,
    revisions: tuple[Revision, ...],
    now_s: float,
    *,
    refresh_s: float = REFRESH_S,
    events: Sequence[Event] = (),
    sizing: Mapping[str, str] = NOTHING,
) -> str:
    """The whole file. `now_s`: Unix seconds; `revisions`: what was applied; `events`: what the monitor saw and did;
    both in any order. `sizing`: by app with `<scale>`, what the monitor makes of its load."""
    shown = Page(looked, tree, revisions, now_s, refresh_s, tuple(events), sizing)
    body = element(
        "body",
        element("a", "Skip to what is wrong", href="#wrong", class_="skip"),
        element("p", OLD, id="old", role="alert", hidden="hidden"),
        _header(shown),
        element("main", *_sections(shown)),
        _footer(shown),
        element("script", Html(style.SCRIPT)),
        data_at=f"{looked.facts.at_s:.0f}", data_stale=f"{stale_s(refresh_s):.0f}",
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{element('html', _head(shown), body, lang='en')}\n"


def _sections(shown: Page) -> tuple[Html, ...]:
    parts = (
        wrong.section, cluster_map.section, apps.section, sizes.section, lately.section, past.copies, past.changes
    )  # fmt: skip
    return tuple(part(shown) for part in parts)


def stale_s(refresh_s: float) -> float:
    return max(STALE_LEAST_S, STALE_REFRESHES * refresh_s)


def _head(shown: Page) -> Html:
    level = shown.looked.judgement.level
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="refresh", content=f"{max(1, math.ceil(shown.refresh_s))}"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{shown.facts.cluster}: {_summary(shown)}"),
        element("link", rel="icon", href=_icon(level)),
        element("style", Html(style.CSS)),
    )


def _policy() -> str:
    """The browser's word for it too: only this style and this script, nothing from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(of.encode()).digest()).decode() for of in (style.CSS, style.SCRIPT)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _icon(level: str) -> str:
    """In the tab: a disc when all is well, a square of the level's colour when not."""
    shape = '<circle cx="8" cy="8" r="7"' if level == "ok" else '<rect x="1" y="1" width="14" height="14"'
    color = style.LIGHT[level]
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{shape} fill="{color}"/></svg>'
    return f"data:image/svg+xml,{quote(drawn, safe='')}"


def _summary(shown: Page) -> str:
    counts = Counter(one.level for one in shown.raised)
    said = [f"{counts[level]} {level}" for level in ("critical", "warning", "unknown") if counts[level]]
    return ", ".join(said) or "all is well"


def _header(shown: Page) -> Html:
    facts, head = shown.facts, shown.facts.head
    answered = sum(1 for host in facts.hosts.values() if host.reading is not None)
    about = f" · {answered} of {len(facts.hosts)} hosts answer · serial {head.serial if head else 0}"
    name = element("h1", named(facts.cluster or "cluster"))
    parts = [
        element("div", name, badge(shown.looked.judgement.level, _summary(shown)), class_="title"),
        element("p", "Checked ", time(facts.at_s), element("span", id="age"), about, class_="when"),
    ]
    return element("header", *parts, *(element("p", named(words), class_="card note") for words in _notes(facts)))


def _notes(facts: Facts) -> Iterator[str]:
    off = facts.off
    if off is not None and off.genuine:
        yield f"The master is off on purpose since {off.at}, by {off.who}" + (f": {off.why}" if off.why else "")
    locks = (host.reading.lock for host in facts.hosts.values() if host.reading)
    if lock := next((lock for lock in locks if lock is not None), None):
        yield f"A run is at work: {lock.words}"


def _footer(shown: Page) -> Html:
    old = ago(stale_s(shown.refresh_s))
    words = (
        f"Written by k4t monitor; your browser looks for a newer one every {ago(shown.refresh_s)}. When it is "
        f"older than {old}, nobody keeps it up any more: see whether the monitor still runs. All times are UTC."
    )
    return element("footer", element("p", words))
