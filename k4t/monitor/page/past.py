"""What changed last, and the copies of the tree, on one axis of time: now is on the right, and each step to the left is
some times as long ago as the one before. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from k4t.model.state import Revision
from k4t.monitor.facts import Target
from k4t.monitor.page.markup import Html, element, hidden
from k4t.monitor.page.view import Page, badge, more, named, time
from k4t.monitor.signs.sign import ago, unix_s

REVISIONS_SHOWN = 20
APPS_NAMED = 6
FINEST_S = 20.0
"""What is closer to now than this can't be told apart."""
LEAST_S, MOST_S = 3600.0, 90 * 86400.0
STEPS = (
    (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"), (6 * 3600.0, "6 h"), (86400.0, "1 d"), (7 * 86400.0, "7 d"),
    (30 * 86400.0, "30 d"),
)  # fmt: skip
APART_PERCENT = 14.0


class Axis:
    """Of so many seconds, in per cent from the left."""

    def __init__(self, range_s: float) -> None:
        self.range_s = min(MOST_S, max(LEAST_S, range_s))

    def at(self, age_s: float) -> float:
        shown_s = min(self.range_s, max(0.0, age_s))
        return 100.0 - 100.0 * math.log1p(shown_s / FINEST_S) / math.log1p(self.range_s / FINEST_S)


# --- copies --------------------------------------------------------------------------------------------------------


def copies(page: Page) -> Html:
    title = element("h2", "Copies of the tree", id="copies")
    if not page.facts.targets:
        words = (
            "None is asked for: the tree has no <backup>." if page.looked.has_tree else "Only the tree knows of them."
        )
        return element("section", title, element("p", words, class_="card soft"), aria_labelledby="copies")
    ages = [page.now_s - one.confirmed_s for one in page.facts.targets if one.confirmed_s is not None]
    axis = Axis(max([2 * one.every_s for one in page.facts.targets] + [1.2 * age_s for age_s in ages]))
    lanes = [_applies(page, axis), *(_target(page, one, axis) for one in page.facts.targets)]
    words = (
        "Each bar reaches from when its copy was last said to be the tree until now; the mark is when the next is due."
    )
    inside = (element("ul", *lanes, class_="lanes"), _scale(axis), element("p", words, class_="soft small"))
    return element("section", title, element("div", *inside, class_="card"), aria_labelledby="copies")


def _applies(page: Page, axis: Axis) -> Html:
    ages = [page.now_s - at_s for one in page.revisions if (at_s := unix_s(one.at)) is not None]
    shown = [age_s for age_s in ages if age_s <= axis.range_s]
    dots = [element("circle", class_="dot", cx=f"{axis.at(age_s):.2f}%", cy="8", r="5") for age_s in shown]
    line = element("rect", class_="track", y="6", width="100%", height="4", rx="2")
    words = f"{len(shown)} in this time" + (f", the last {ago(max(0.0, min(shown)))} ago" if shown else "")
    about = element("p", element("strong", "applies"), element("span", words, class_="soft small"), class_="about")
    return element("li", about, element("svg", line, *dots, class_="lane", aria_hidden="true"))


def _target(page: Page, one: Target, axis: Axis) -> Html:
    level, words = _state(page, one)
    about = element(
        "p", element("strong", named(one.name)), badge(level, words),
        element("span", f"one every {ago(one.every_s)}", class_="soft small"), class_="about",
    )  # fmt: skip
    shapes = [element("rect", class_="track", y="6", width="100%", height="4", rx="2")]
    if one.confirmed_s is not None:
        left = axis.at(page.now_s - one.confirmed_s)
        shapes += [
            element("rect", class_="fill", x=f"{left:.2f}%", y="5", width=f"{100 - left:.2f}%", height="6"),
            element("circle", class_="dot", cx=f"{left:.2f}%", cy="8", r="6"),
        ]
    due = f"{axis.at(one.every_s):.2f}%"
    shapes.append(element("line", class_="due", x1=due, x2=due, y1="0", y2="16"))
    return element("li", about, element("svg", *shapes, class_="lane", aria_hidden="true"), class_=f"at-{level}")


def _state(page: Page, one: Target) -> tuple[str, str]:
    worst = page.worst(f"backup/{one.name}")
    if one.confirmed_s is None:
        return worst[1].level if worst else "unknown", one.problem or "not known"
    age_s = max(0.0, page.now_s - one.confirmed_s)
    return worst[1].level if worst else "ok", f"{ago(age_s)} old"


def _scale(axis: Axis) -> Html:
    """Its words are in the lanes already, so that nobody needs to hear it."""
    parts, last = [_mark(100.0, "now", "end")], 100.0
    for age_s, words in STEPS:
        place = axis.at(age_s)
        if age_s < axis.range_s and last - place >= APART_PERCENT and place >= APART_PERCENT / 2:
            parts.append(_mark(place, words, "middle"))
            last = place
    return element("svg", *parts, class_="axis", aria_hidden="true")


def _mark(place: float, words: str, anchor: str) -> Html:
    x = f"{place:.2f}%"
    return Html(element("line", x1=x, x2=x, y1="0", y2="6") + element("text", words, x=x, y="20", text_anchor=anchor))


# --- what changed last -----------------------------------------------------------------------------------------------


def changes(page: Page) -> Html:
    title = element("h2", "What changed last", id="changes")
    newest = sorted(page.revisions, key=lambda one: one.serial, reverse=True)
    if not newest:
        words = "No host knows of an apply."
        return element("section", title, element("p", words, class_="card soft"), aria_labelledby="changes")
    head = element("tr", *(element("th", word, scope="col") for word in ("Serial", "When", "Who", "What")))
    rows = [_revision(page, one) for one in newest[:REVISIONS_SHOWN]]
    table = element("table", element("thead", head), element("tbody", *rows))
    boxed = element("div", table, class_="card scroll", tabindex="0", role="region", aria_labelledby="changes")
    return element(
        "section",
        title,
        boxed,
        *more(len(newest) - REVISIONS_SHOWN, "before these: k4t history"),
        aria_labelledby="changes",
    )


def _revision(page: Page, one: Revision) -> Html:
    return element(
        "tr",
        element("th", str(one.serial), scope="row"),
        element("td", *_when(page, one), class_="once"),
        element("td", named(one.who or "somebody"), class_="wide"),
        element("td", *_what(one), class_="wide"),
    )


def _when(page: Page, one: Revision) -> Iterator[Html]:
    at_s = unix_s(one.at)
    if at_s is None:
        yield named(one.at or "?")
        return
    yield element("span", f"{page.since(at_s)} ago ")
    yield element("span", time(at_s), class_="soft small narrow-out")


def _what(one: Revision) -> Iterator[Html]:
    apps = sorted(one.apps)
    left = f" and {len(apps) - APPS_NAMED} more" if len(apps) > APPS_NAMED else ""
    yield element("span", ", ".join(apps[:APPS_NAMED]) + left if apps else "no app")
    if one.message:
        yield element("br")
        yield element("span", hidden("because: "), named(one.message), class_="soft")
