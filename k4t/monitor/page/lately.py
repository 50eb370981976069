"""What the monitor saw and did lately, the newest first, and what it may do by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.model.monitor import Policy
from k4t.monitor.events import Event
from k4t.monitor.page.markup import Html, element
from k4t.monitor.page.view import Page, acted, badge, more, named, time

SHOWN = 20
LOOKS = "The monitor only looks: monitor.xml switches no policy on."


def section(page: Page) -> Html:
    return element(
        "section", element("h2", "What happened lately", id="lately"), *_inside(page), aria_labelledby="lately"
    )


def _inside(page: Page) -> Iterator[Html]:
    newest = sorted(page.events, key=lambda one: one.at_s)[::-1]  # of one second, what came later first
    if newest:
        yield element("ol", *(_event(page, one) for one in newest[:SHOWN]), class_="findings card")
        yield from more(len(newest) - SHOWN, "before these: k4t events")
    else:
        yield element("p", "Nothing that this monitor remembers.", class_="card soft")
    if page.looked.has_tree:
        yield element("p", _may(page), class_="soft small")


def _event(page: Page, one: Event) -> Html:
    about = [element("strong", named(str(one.subject))), Html(" "), element("span", named(one.what)), Html(" ")]
    since = element("span", f"{page.since(one.at_s)} ago ", time(one.at_s, class_="narrow-out"), class_="soft small")
    return element("li", _badge(one), element("div", element("p", *about, since), element("p", named(one.words))))


def _badge(one: Event) -> Html:
    if one.kind in ("raised", "worse", "better"):
        return badge(one.level, one.kind)
    return badge("ok", "over") if one.kind == "over" else acted(one)


def _may(page: Page) -> str:
    enabled = [one for one in page.tree.monitor.policies.values() if one.enabled]
    return f"The monitor acts by itself on: {', '.join(map(_policy, enabled))}." if enabled else LOOKS


def _policy(one: Policy) -> str:
    return f"{one.when} (dry run: it only says what it would do)" if one.dry_run else one.when
